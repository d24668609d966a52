"""Softmax regression, one step at a time: the linear model, before and after an update.

python examples/3_softmax_regression.py --seed 1
"""

# %%
import common
from common import BLUE, ORANGE, RED

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(__doc__, steps=(500, "steps of gradient descent for each model", 200))
train_set, test_set = common.load(args.data)
chosen = np.random.default_rng(args.seed).permutation(len(train_set))[:500]
inputs, targets = train_set.data[chosen], train_set.targets[chosen]

# %% [markdown]
# Without hidden layers, an MLP is softmax(Wx + b): a weight for each pixel and class, and a
# bias for each class. Each update moves a weight against its gradient, by the learning rate times
# the gradient. The gradient describes the loss near the current weights: the further we go, the
# less it tells us. So a rate can be too large.

# %%
model = nn.MLP(in_dim=784, out_dim=10)
weight, bias = model.parameters()
start = {name: value.clone() for name, value in model.state_dict().items()}
inked = np.sort(np.argsort(inputs.numpy().mean(0).reshape(-1), stable=True)[-6:])
print(model)


def loss_of(model):
    return F.nll_loss(model(inputs), targets)


def update(lr):
    """(loss before, loss after) one update from the start."""
    model.load_state_dict(start)
    before = loss_of(model)
    optim.gradient_update(before, model.parameters(), lr)
    return before.item(), loss_of(model).item()


def show_parameters():
    print("weights at", ", ".join(f"({i // 28}, {i % 28})" for i in inked), "(row, column)")
    print(weight.detach()[:, inked], "biases", bias.detach(), sep="\n")


small, good, large = 0.001, 0.05, 1.0
print("\nBefore the update, a row for each class, at the six pixels with the most ink:")
show_parameters()
after = {lr: update(lr)[1] for lr in (small, large)}
before, after[good] = update(good)
print(f"\nAfter one update with learning rate {good:g}:")
show_parameters()
print(f"\nLoss before the update: {before:.6f}")
for lr in sorted(after):
    print(f"Loss after one update with learning rate {lr:g}: {after[lr]:.6f}")
common.claim("An update with a rate of 0.001 lowers the loss, and one with 0.05 lowers it more",
             after[good] < after[small] < before,
             f"{before:.3f} to {after[small]:.3f} and {after[good]:.3f}")  # fmt: skip
common.claim("An update with a rate of 1 raises the loss", after[large] > before,
             f"{before:.3f} to {after[large]:.3f}")  # fmt: skip


def draw(rate=good):
    """The loss after one update at many rates; this rate, a small and a large one are marked."""
    figure, axes = plt.subplots(figsize=(8, 4.8))
    rates = 10 ** np.arange(-3.5, 0.3, 0.1)
    losses = [update(lr)[1] for lr in rates]
    axes.loglog(rates, losses, color="black", linewidth=1.5)
    axes.axhline(before, color="gray", linestyle="--", label=f"before the update: {before:.3f}")
    for lr, marker, colour in ((small, "v", ORANGE), (rate, "o", BLUE), (large, "^", RED)):
        loss = update(lr)[1]
        label = f"after, at rate {lr:g}: {loss:.3f}"
        axes.plot(lr, loss, marker, color=colour, markersize=12, label=label)
    axes.set_yticks(*2 * [[1, 2, 5, 10, 20]])
    axes.minorticks_off()
    axes.set(ylim=(1, None), xlabel="learning rate", ylabel="negative log-likelihood (nats)")
    axes.set_title("One update: a small rate does little, a large one does harm")
    axes.legend(loc="upper left")
    return figure


draw().savefig(args.out / "3_rates.png")

# %% [markdown]
# The loss of the linear model is convex in its parameters, since log Σ exp is convex and
# Wx + b is linear: on the straight line between any two settings it never rises above the chord,
# the straight line between the two losses. With a hidden layer this no longer holds. To see this,
# we walk from one trained model to another that had a different start. The last walk leads from
# a network to the same network with its hidden units in another order: both ends compute the same
# function.

# %%
walk = np.linspace(0, 1, 41)


def trained(model):
    for _ in range(args.steps):
        optim.gradient_update(loss_of(model), model.parameters(), good)
    return [p.detach().clone() for p in model.parameters()]


def losses_between(one, other, hidden):
    """On the straight line between two settings; in float64, since rounding would hide bends."""
    walker, losses = nn.MLP(hidden_dims=hidden), []
    for t in walk:
        for p, a, b in zip(walker.parameters(), one, other):
            p.data = (1 - t) * a.double() + t * b.double()
        losses.append(F.nll_loss(walker(inputs.double()), targets).item())
    return np.array(losses)


model.load_state_dict(start)
linear = trained(model), trained(nn.MLP())
network, other = (trained(nn.MLP(hidden_dims=[10])) for _ in range(2))
W1, b1, W2, b2 = network
order = np.roll(np.arange(10), 1)  # every hidden unit moves by one place
permuted = W1[order], b1[order], W2[:, order], b2

figure, axes = plt.subplots(figsize=(8, 4.8))
print(f"\nLoss between two models after {args.steps} steps: at the ends, in the middle")
walks = {}
for name, ends, hidden, colour, style in (
    ("two linear models", linear, [], BLUE, "-"),
    ("two networks with 10 hidden units", (network, other), [10], RED, "--"),
    ("a network and itself, units permuted", (network, permuted), [10], ORANGE, ":"),
):
    walks[name] = losses = losses_between(*ends, hidden)
    print(f"  {name}: {losses[0]:.6f}, {losses[-1]:.6f}, {losses[20]:.6f}")
    axes.plot(walk, losses, style, color=colour, linewidth=3, label=name)
axes.set(xlabel="t, from one trained model (0) to another (1)", ylim=(0, None))
axes.set_ylabel("negative log-likelihood (nats)")
axes.set_title("Between linear models the loss is flat; between networks it has a hill")
figure.legend(loc="outside lower center", ncols=1)
figure.savefig(args.out / "3_convex.png")

flat, hill, same = walks.values()
chord = (1 - walk) * flat[0] + walk * flat[-1]
top, top_permuted = hill.max(), same.max()
above = (flat - chord).max()
common.claim("Between two trained linear models, the loss never rises above the chord",
             above < 1e-9, f"at most {above:.1g} above it")  # fmt: skip
common.claim("Between two trained networks, the loss rises to more than three times that of either",
             top > 3 * max(hill[0], hill[-1]), f"{top:.3f}")  # fmt: skip
common.claim("A network and its permutation have equal losses; between them, the loss rises to "
             "more than three times that",
             top_permuted > 3 * same[0] and np.isclose(same[0], same[-1]),
             f"{same[0]:.3f}, {same[-1]:.3f}, {top_permuted:.3f}")  # fmt: skip

# %% [markdown]
# The weights of a class of the linear model, drawn as an image, show what it looks for: red where
# ink speaks for the class, blue where ink speaks against it. The speckle where there is never
# ink comes from the random start.

# %%
with mg.no_grad():
    right = (model(test_set.data).argmax(1) == test_set.targets).numpy()
shares = [100 * right[test_set.targets.numpy() == digit].mean() for digit in range(10)]
print(f"\nThe linear model: loss {loss_of(model).item():.4f}, accuracy on the test set "
      f"{right.mean():.1%}, of each class", ", ".join(f"{s:.1f}%" for s in shares))  # fmt: skip
images = weight.detach().numpy().reshape(10, 28, 28)
limit = np.abs(images).max()
figure, panels = plt.subplots(2, 5, figsize=(10, 5))
for digit, axes in enumerate(panels.flat):
    image = axes.imshow(images[digit], cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.grid(False)
    axes.set(title=f"class {digit}", xlabel=f"{shares[digit]:.0f}% right", xticks=[], yticks=[])
figure.colorbar(image, ax=panels, label="weight (red: ink speaks for the class)", shrink=0.95)
figure.suptitle("What each class looks for, and how many of its test images it gets right")
figure.savefig(args.out / "3_weights.png")
names = ("rates", "convex", "weights")
print("Pictures:", ", ".join(str(args.out / f"3_{name}.png") for name in names))

# %%
common.sliders(draw, rate=(0.01, 0.5, 0.01))
