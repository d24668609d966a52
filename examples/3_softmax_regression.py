"""Softmax regression, one step at a time: the linear model, before and after an update.

python examples/3_softmax_regression.py --seed 1
"""

# %%
import common
from common import BLUE, GREEN, ORANGE

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(__doc__, steps=(200, "steps of gradient descent"))
train_set, test_set = common.load(args.data)
chosen = np.random.default_rng(args.seed).permutation(len(train_set))[:500]
inputs, targets = train_set.data[chosen], train_set.targets[chosen]

# %% [markdown]
# Without hidden layers, an MLP is softmax(Wx + b): a weight for each pixel and class, and a
# bias for each class.

# %%
model = nn.MLP(in_dim=784, out_dim=10)
print(model)


def show_parameters():
    for name, parameter in model.named_parameters():
        print(name, parameter, sep="\n")


def loss_of(model):
    return F.nll_loss(model(inputs), targets)


print("\nBefore the update:")
show_parameters()
loss = loss_of(model)
optim.gradient_update(loss, model.parameters(), lr=0.1)
print("\nAfter one update with learning rate 0.1:")
show_parameters()
print(f"\nLoss before: {loss.item():.6f}")
print(f"Loss after:  {loss_of(model).item():.6f}")

# %% [markdown]
# The loss of the linear model is convex in its parameters, since log Σ exp is convex and
# Wx + b is linear: on the straight line between any two settings it never bends downwards. We
# walk along three such lines. Where a function is convex, a second difference,
# f(t + h) - 2 f(t) + f(t - h), is never negative.

# %%
T = np.linspace(0, 1, 41)
figure, axes = plt.subplots(figsize=(7, 4.2), dpi=110, layout="constrained")
smallest = np.inf
for i, colour in enumerate((BLUE, ORANGE, GREEN)):
    one, other, walker, losses = nn.MLP(), nn.MLP(), nn.MLP(), []
    for t in T:
        for p, a, b in zip(walker.parameters(), one.parameters(), other.parameters()):
            mixture = (1 - t) * a.data.double() + t * b.data.double()
            p.data = 8 * mixture  # the ends lie far apart, so that the bend can be seen
        losses.append(F.nll_loss(walker(inputs.double()), targets).item())
    smallest = min(smallest, np.diff(losses, 2).min())
    axes.plot(T, losses, color=colour, label=f"line {i + 1}")
    axes.plot([0, 1], [losses[0], losses[-1]], "--", color=colour, linewidth=1)
axes.plot([], [], "--", color="gray", linewidth=1, label="chord, never below")
axes.set_xlabel("t, from one random setting of the parameters (0) to another (1)")
axes.set_ylabel("negative log-likelihood (nats)")
axes.grid(alpha=0.3)
figure.legend(loc="outside lower center", ncols=4)
figure.savefig(args.out / "3_convex.png")
print(f"Smallest second difference on three lines: {smallest:.3g} (convex: never negative)")


# %% [markdown]
# Now we train it. The weights of a class, drawn as an image, show what it looks for: red where
# ink speaks for the class, blue where ink speaks against it. The speckle where there is never
# ink is the random start.


# %%
@mg.no_grad()
def accuracy(inputs, targets):
    return (model(inputs).argmax(1) == targets).float().mean().item()


for _ in range(args.steps):
    optim.gradient_update(loss_of(model), model.parameters(), lr=0.1)
print(f"After {args.steps} more steps: loss {loss_of(model).item():.4f}, accuracy "
      f"{accuracy(inputs, targets):.1%} on the 500 examples, "
      f"{accuracy(test_set.data, test_set.targets):.1%} on the test set")  # fmt: skip

weights = model.main[0].weight.detach().numpy().reshape(10, 28, 28)
limit = np.abs(weights).max()
figure, panels = plt.subplots(2, 5, figsize=(10, 4), dpi=110, layout="constrained")
for digit, axes in enumerate(panels.flat):
    image = axes.imshow(weights[digit], cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_title(f"class {digit}")
    axes.set_xticks([])
    axes.set_yticks([])
figure.colorbar(image, ax=panels, label="weight", shrink=0.9)
figure.savefig(args.out / "3_weights.png")
print(f"Pictures: {args.out / '3_convex.png'}, {args.out / '3_weights.png'}")
