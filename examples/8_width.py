"""Width: many hidden units make the non-convex problem easy to fit, from every start.

python examples/8_width.py --data mnist
"""

# %%
import common
from common import BLUE, RED

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(
    __doc__, steps=(300, "steps of each training"), starts=(5, "random starts for each width")
)
train_set, test_set = common.load(args.data)
inputs, targets = train_set.data[:200], train_set.targets[:200]
test_inputs, test_targets = test_set.data[:2000], test_set.targets[:2000]
WIDTHS = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500]

# %% [markdown]
# With a hidden layer the loss is not convex, and a narrow network shows it: where it ends
# depends on where it starts. Even a single unit brings more parameters than there are examples,
# and still cannot fit them; a few of its starts learn nothing, when every ReLU is 0 for all
# examples and so passes no gradient on. From some ten units on, the same descent finds its way
# to a loss of nearly 0 from every start. One might fear that so wide a network learns its
# examples by heart; what it gets right on new images does not suffer.


# %%
def train(width, seed):
    """The loss on the training set and the accuracy on the test set, at the end."""
    mg.manual_seed(seed)
    model = nn.MLP(hidden_dims=[width])
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(args.steps):
        optimizer.zero_grad()
        F.nll_loss(model(inputs), targets).backward()
        optimizer.step()
    right = (model(test_inputs).argmax(1) == test_targets).float().mean().item()
    return F.nll_loss(model(inputs), targets).item(), right


print(f"{len(inputs)} examples, {args.steps} steps with momentum, {args.starts} starts")
print("hidden units   parameters   training loss, best to worst start   test accuracy, mean")
results = []
for width in WIDTHS:
    runs = np.array([train(width, args.seed * args.starts + start) for start in range(args.starts)])
    results.append(runs)
    losses, rights = np.sort(runs[:, 0]), runs[:, 1]
    print(f"{width:12}   {795 * width + 10:10,}   {losses[0]:16.5f} to {losses[-1]:.5f}"
          f"   {rights.mean():23.1%}")  # fmt: skip

losses, rights = np.array(results).transpose(2, 0, 1)
figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), dpi=110, layout="constrained")
for axes, values, colour, label in (
    (panels[0], losses, BLUE, "loss on the training set (nats)"),
    (panels[1], 100 * rights, RED, "accuracy on the test set (%)"),
):
    for start in range(args.starts):
        axes.plot(WIDTHS, values[:, start], "o", color=colour, alpha=0.4, markersize=4,
                  label="one start each" if start == 0 else None)  # fmt: skip
    axes.plot(WIDTHS, np.median(values, axis=1), color=colour, label="median")
    axes.set_xscale("log")
    axes.set_xticks(WIDTHS, WIDTHS)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("hidden units")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend()
panels[0].set_yscale("log")
figure.savefig(args.out / "8_width.png")
print(f"Picture: {args.out / '8_width.png'}")
