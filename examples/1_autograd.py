"""Autograd on one page: the chain rule, gradients that add up, and descent into valleys.

python examples/1_autograd.py --help     all settings
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, PINK

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import optim

args = common.arguments(__doc__, steps=(200, "steps of gradient descent"))

# %% [markdown]
# A Tensor that requires grad remembers what is done with it. `backward()` walks back through
# these steps with the chain rule. For y = (3x + 1)², with u = 3x + 1, that is
# ∂y/∂x = ∂y/∂u ∂u/∂x = 2u · 3; at x = 2 it is 2 · 7 · 3 = 42.

# %%
x = mg.tensor(2.0, requires_grad=True)
y = (3 * x + 1) ** 2
y.backward()
print(f"y = (3x + 1)² at x = 2: {y.item():g}, its derivative: {x.grad.item():g}")

# %% [markdown]
# Gradients add up. A second `backward()` adds to what the first has left, which is right when
# a loss comes in several parts, and wrong when the next step starts: zero them in between.

# %%
y.backward()
print(f"After a second backward(): {x.grad.item():g}")
x.grad.zero_()
y.backward()
print(f"After zero_() and a third: {x.grad.item():g}")


# %% [markdown]
# The gradient points uphill, so we step against it, again and again: gradient descent. On a
# strictly convex curve with a minimum, every start ends there, if the steps are small enough.
# On a curve that is not convex, the start decides which valley we end in, and the gradient is 0
# at the bottom of each.


# %%
def convex(x):
    return x**2 + 2 * x + 1


def two_valleys(x):
    return x**4 + x**3 - 2 * x**2 - 2 * x


def descend(f, start, lr):
    """All positions, from the start on."""
    x = mg.tensor(start, requires_grad=True)
    path = [x.item()]
    for _ in range(args.steps):
        optim.gradient_update(f(x), [x], lr)
        path.append(x.item())
    return path


figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), dpi=110, layout="constrained")
colours = [BLUE, ORANGE, GREEN, PINK]
for axes, f, starts, lr, span, title in (
    (panels[0], convex, (-4.0, -2.5, 0.5, 2.0), 0.05, (-4.4, 2.4), "f(x) = x² + 2x + 1"),
    (panels[1], two_valleys, (-2.0, -0.5, -0.4, 1.6), 0.01, (-2.15, 1.75),
     "f(x) = x⁴ + x³ - 2x² - 2x"),
):  # fmt: skip
    grid = np.linspace(*span, 400)
    axes.plot(grid, f(grid), color="black", linewidth=1)
    print(f"\n{title}, learning rate {lr:g}, {args.steps} steps")
    for start, colour in zip(starts, colours):
        path = np.array(descend(f, start, lr))
        print(f"  from {start:5.2f} to x = {path[-1]:7.4f}, f(x) = {f(path[-1]):7.4f}")
        axes.plot(path, f(path), "o-", color=colour, markersize=4, linewidth=1,
                  label=f"from {start:g} to {path[-1]:.3f}")  # fmt: skip
        axes.plot(path[-1], f(path[-1]), "*", color=colour, markersize=15, markeredgecolor="black")
    axes.set_title(title)
    axes.set_xlabel("x")
    axes.set_ylabel("f(x)")
    axes.grid(alpha=0.3)
    axes.legend(title="gradient descent", loc="upper center")
figure.savefig(args.out / "1_autograd.png")
print(f"\nPicture: {args.out / '1_autograd.png'}")
