"""Why the gradient: what a step in a random direction does to the loss, and what that one does.

python examples/4_why_the_gradient.py --data mnist
"""

# %%
import common
from common import BLUE, RED

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(
    __doc__, directions=(100, "random directions"), steps=(60, "steps of the partial training")
)
train_set, _ = common.load(args.data)
inputs, targets = train_set.data[:1000], train_set.targets[:1000]
model = nn.MLP(hidden_dims=[50])
parameters = list(model.parameters())
count = sum(parameter.numel() for parameter in parameters)
LENGTH = 0.1


def loss():
    return F.nll_loss(model(inputs), targets)


# %% [markdown]
# A direction is a vector with one number for each parameter. We walk the same short way along
# a hundred random ones, and against the gradient, and look how the loss changes. About half of
# the directions lead downhill, but hardly: in n dimensions, only about 1/√n of a random one
# points along the gradient. The steepest way down is a single direction; the gradient names it.


# %%
@mg.no_grad()
def change_along(direction):
    """The change of the loss after a walk of LENGTH along `direction`."""
    before, start, saved = loss().item(), 0, []
    scale = LENGTH / np.linalg.norm(direction)
    for parameter in parameters:
        part = direction[start : start + parameter.numel()].reshape(parameter.shape)
        saved.append(parameter.data.clone())
        parameter.data += (scale * part).astype("f4")
        start += parameter.numel()
    change = loss().item() - before
    for parameter, values in zip(parameters, saved):
        parameter.data = values
    return change


def gradient():
    """The gradient of the loss, all parameters in one vector."""
    optim.zero_grad(parameters)
    loss().backward()
    return np.concatenate([parameter.grad.numpy().ravel() for parameter in parameters])


figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), dpi=110, layout="constrained")
generator = np.random.default_rng(args.seed)
for axes, state in zip(panels, ("untrained", "partly trained")):
    if state == "partly trained":
        for _ in range(args.steps):
            optim.gradient_update(loss(), parameters, lr=0.05)
    changes = [change_along(generator.standard_normal(count)) for _ in range(args.directions)]
    downhill = change_along(-gradient())
    print(f"{state}, loss {loss().item():.4f}, steps of length {LENGTH:g} in {count:,} dimensions")
    print(f"  {args.directions} random directions: mean change {np.mean(changes):+.5f}, "
          f"best {min(changes):+.5f}, worst {max(changes):+.5f}")  # fmt: skip
    print(f"  against the gradient: {downhill:+.5f}, "
          f"{downhill / min(changes):.0f} times the best of the others")  # fmt: skip
    axes.hist(changes, bins=15, color=BLUE, label=f"{args.directions} random directions")
    axes.axvline(downhill, color=RED, linewidth=2, label="against the gradient")
    axes.axvline(0, color="black", linewidth=1)
    axes.set_title(f"{state}: loss {loss().item():.3f}")
    axes.set_xlabel(f"change of the loss after a step of length {LENGTH:g} (nats)")
    axes.set_ylabel("number of directions")
    axes.legend(loc="upper center")
    close = axes.inset_axes([0.3, 0.2, 0.52, 0.5])
    close.hist(changes, bins=15, color=BLUE)
    close.axvline(0, color="black", linewidth=1)
    close.set_title("the random directions alone", fontsize=9)
    close.tick_params(labelsize=8)
    close.yaxis.get_major_locator().set_params(integer=True)
    close.ticklabel_format(axis="x", style="sci", scilimits=(0, 0))
figure.savefig(args.out / "4_why_the_gradient.png")
print(f"Picture: {args.out / '4_why_the_gradient.png'}")
