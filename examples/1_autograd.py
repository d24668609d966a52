"""Autograd on one page: the chain rule, gradients that add up, and descent into valleys.

python examples/1_autograd.py --help     all settings
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, PINK

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import optim, plot

args = common.arguments(__doc__, steps=(200, "steps of gradient descent", 100))
random = np.random.default_rng(args.seed)

# %% [markdown]
# A Tensor that requires grad remembers what is done with it. `backward()` walks back through
# these steps with the chain rule. For y = (3x + 1)², with u = 3x + 1, that is
# ∂y/∂x = ∂y/∂u ∂u/∂x = 2u · 3. At x = 2 it is 2 · 7 · 3 = 42.

# %%
x = mg.tensor(2.0, requires_grad=True)
y = (3 * x + 1) ** 2
y.backward()
print(f"y = (3x + 1)² at x = 2: {y.item():g}, its derivative: {x.grad.item():g}")

# %% [markdown]
# `explain` prints every step of the way back, and `plot.graph` draws them. Each box is a node: its
# value has come from above, and its gradient from below.

# %%
mg.explain(y, names={"x": x, "y": y})
print(f"Picture: {args.out / '1_autograd_graph.png'}")
plot.graph(y, args.out / "1_autograd_graph.png", names={"x": x, "y": y})

# %% [markdown]
# `plot.steps` makes a page that you step through with the arrow keys: first forward, then back.

# %%
print(f"Page: {args.out / '1_autograd_steps.html'}")
plot.steps(y, args.out / "1_autograd_steps.html", names={"x": x, "y": y})

# %% [markdown]
# Gradients add up. A second `backward()` adds to the gradients that the first has left. This is
# right when a loss comes in several parts, and wrong when the next step starts: zero them first.

# %%
once = x.grad.item()
y.backward()
twice = x.grad.item()
x.grad.zero_()
y.backward()
common.claim(
    "A second backward doubles the gradient, unless it is zeroed in between",
    twice == 2 * once and x.grad.item() == once,
    f"{once:g}, {twice:g}, and {x.grad.item():g} after zero_",
)

# %% [markdown]
# The gradient points uphill, so we step against it, again and again: gradient descent. A
# strictly convex curve with a minimum has one valley, and every start ends there if the steps
# are small enough. A curve that is not convex can have several valleys, and the start decides
# which one we end in. The gradient is 0 at the bottom of each, and on the hilltop between them.
#
# A step changes the numbers in x outside the graph. `x = x - lr * x.grad` would be recorded: the
# new x would be a result, not a leaf. The next `backward()` would walk on to the old x, and the
# gradient of the new one would stay None.


# %%
def convex(x):
    return x**2 + 2 * x + 1


def two_valleys(x):
    return x**4 + x**3 - 2 * x**2 - 2 * x


def descend(f, start, lr, steps):
    """All positions, from the start on: one of them, or an array of them."""
    x = mg.tensor(start, dtype=mg.float64, requires_grad=True)
    path = [x.tolist()]
    for _ in range(steps):
        optim.gradient_update(f(x).sum(), [x], lr)
        path.append(x.tolist())
        if np.abs(path[-1]).max() > 100:  # far outside the picture
            break
    return np.array(path)


local, hilltop, best = np.sort(np.roots([4, 3, -4, -2]).real)  # where 4x³ + 3x² - 4x - 2 is 0
starts = random.uniform(-2, 1.6, 100)
ends = descend(convex, starts, 0.05, 500)[-1]
common.claim(
    "On the convex curve, small steps from every random start end in the one minimum",
    np.allclose(ends, -1, atol=1e-6),
    f"100 starts, ends from {ends.min():.6f} to {ends.max():.6f}",
)
ends = descend(two_valleys, starts, 0.01, 2000)[-1]
common.claim(
    "With two valleys, small steps end in the one on their side of the hilltop",
    np.allclose(ends, np.where(starts < hilltop, local, best), atol=1e-6),
    f"100 starts, {(starts < hilltop).sum()} of them left of {hilltop:.4f}",
)

# %% [markdown]
# How small is small enough? On the convex curve, the gradient is 2(x + 1). A step multiplies
# x + 1, the distance from the minimum, by 1 - 2 lr. Beyond lr = 0.5 it jumps to the other side,
# and beyond lr = 1 it lands farther away than it was.

# %%
TOO_LARGE = 1.1
ends = descend(convex, starts, TOO_LARGE, 10)[-1]
farther = (ends + 1) / (starts + 1)
common.claim(
    "Too large a rate carries every start away from the minimum of the convex curve",
    farther.min() > 1.2**10 - 1e-6,
    f"rate {TOO_LARGE:g}, 10 steps: {farther.min():.2f} to {farther.max():.2f} times as far",
)


def draw(axes, f, title, span, marks, starts, lr, steps):
    """The curve, the path from each start, and stars with a name: {name: x}."""
    grid = np.linspace(*span, 400)
    axes.plot(grid, f(grid), color="black", linewidth=1)
    low, high = axes.get_ylim()  # they stay, wherever the paths go
    axes.set(xlabel="x", ylabel="f(x)", xlim=span, ylim=(low - 0.15 * (high - low), high))
    axes.set_title(f"f(x) = {title}\nlearning rate {lr:g}")
    print(f"f(x) = {title}, learning rate {lr:g}, {steps} steps")
    for start, colour, marker in zip(starts, (BLUE, ORANGE, GREEN, PINK), "o^sD"):
        path = descend(f, start, lr, steps)
        print(f"  from {start:5.2f} to x = {path[-1]:8.4f}, f(x) = {f(path[-1]):8.4f}")
        axes.plot(path, f(path), color=colour, marker=marker, markersize=5, linewidth=1)
    for name, x in marks.items():
        up = name == "hilltop"
        axes.plot(x, f(x), "o" if up else "*", color="black", markerfacecolor="white" if up else
                  "black", markersize=8 if up else 13, zorder=5)  # fmt: skip
        axes.annotate(name, (x, f(x)), (0, 10 if up else -8), textcoords="offset points",
                      ha="center", va="bottom" if up else "top")  # fmt: skip


CONVEX = (convex, "x² + 2x + 1", (-4.4, 2.4), {"minimum": -1}, (-4.0, 1.6))
MARKS = {"local\nminimum": local, "hilltop": hilltop, "global\nminimum": best}
STARTS = (-2.0, -0.5, -0.38, 1.6)
TWO_VALLEYS = (two_valleys, "x⁴ + x³ - 2x² - 2x", (-2.15, 1.75), MARKS, STARTS)
figure, panels = plt.subplots(1, 3, figsize=(11, 4.4))
draw(panels[0], *CONVEX, 0.05, args.steps)
draw(panels[1], *TWO_VALLEYS, 0.01, args.steps)
draw(panels[2], *CONVEX[:-1], (-1.4,), TOO_LARGE, 10)
panels[2].set_title(panels[2].get_title() + ": too large")
last = descend(convex, -1.4, TOO_LARGE, 10)[-1]
panels[2].annotate("start", (-1.4, convex(-1.4)), (-3.9, 0.6), arrowprops={"arrowstyle": "->"})
panels[2].annotate("step 10", (last, convex(last)), (8, 8), textcoords="offset points")
figure.savefig(args.out / "1_autograd.png")
print(f"Picture: {args.out / '1_autograd.png'}")


# %%
def demo(lr):
    _, panels = plt.subplots(1, 2, figsize=(9, 4.4))
    draw(panels[0], *CONVEX, lr, args.steps)
    draw(panels[1], *TWO_VALLEYS, lr, args.steps)


common.sliders(demo, lr=(0.01, 1.2, 0.01))
