"""Width: many hidden units make the non-convex problem easy to fit, from every start.

python examples/8_width.py                the digits that come with scikit-learn
python examples/8_width.py --data mnist   MNIST
"""

# %%
import common
from common import BLUE, RED

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(
    __doc__,
    steps=(100, "steps of each training", 60),
    starts=(25, "random starts for each width", 10),
)
train_set, test_set = common.load(args.data)
inputs, targets = train_set.data[:200].view(-1, 784), train_set.targets[:200]
test_inputs, test_targets = test_set.data[:2000], test_set.targets[:2000]
WIDTHS = [1, 2, 3, 5, 10, 20, 50, 100]

# %% [markdown]
# With a hidden layer the loss is not convex, and the end of a descent depends on its start:
# strongly in a narrow network, hardly in a wide one. Each width, a number of hidden units, gets
# many random starts and the same number of steps on the same 200 examples. Even a single unit
# has more parameters than that.
#
# A narrow network can die. Once every hidden ReLU is 0 for all examples, no gradient reaches the
# weights before them, and these soon stop moving. Only the biases of the output still learn:
# they learn how frequent each class is. With more units, it is less likely that all of them die.
#
# One might fear that a wide network, with hundreds of parameters for each example, memorises its
# examples and fails on new images. The right panel shows both.


# %%
def train(width, seed):
    """The loss after each step, whether the network is dead, its accuracies on both sets."""
    mg.manual_seed(seed)
    model = nn.MLP(hidden_dims=[width])
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    curve = []
    for _ in range(args.steps):
        optimizer.zero_grad()
        loss = F.nll_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    outputs = model(inputs)
    curve.append(F.nll_loss(outputs, targets).item())
    fits = (outputs.argmax(1) == targets).float().mean().item()
    right = (model(test_inputs).argmax(1) == test_targets).float().mean().item()
    linear, relu, _ = model.main
    dead = relu(linear(inputs)).max().item() == 0
    return curve, dead, fits, right


seeds = range(args.seed * args.starts, (args.seed + 1) * args.starts)
runs = [(width, seed) for width in WIDTHS for seed in seeds]
results = [train(*run) for run in common.progress(runs, "widths and starts")]
table = np.array([[curve[-1], *rest] for curve, *rest in results])
losses, dead, fits, rights = table.reshape(len(WIDTHS), args.starts, 4).transpose(2, 0, 1)
dead = dead == 1

print(f"{len(inputs)} examples, {args.steps} steps with momentum, {args.starts} starts")
print(f"{'hidden':>6}{'':14}{'dead':>8}   training loss,{'':8}mean accuracy")
print(f"{'units':>6}{'parameters':>14}{'starts':>8}   best to worst start   training   test")
for i, width in enumerate(WIDTHS):
    print(f"{width:6}{795 * width + 10:14,}{dead[i].sum():8}"
          f"   {losses[i].min():7.4f} to {losses[i].max():.4f}"
          f"{fits[i].mean():14.1%}{rights[i].mean():8.1%}")  # fmt: skip

# %%
at = WIDTHS.index
common.claim(
    "Some starts are dead at width 1, and none at width 20 or more",
    dead[0].any() and not dead[at(20) :].any(),
    f"{dead[0].sum()} and {dead[at(20) :].sum()}",
)
if args.data == "digits":
    common.claim(
        "On the digits, more than half of the starts are dead at width 1",
        dead[0].mean() > 0.5,
        f"{dead[0].sum()} of {args.starts}",
    )
common.claim(
    "The worst start with 20 hidden units ends at a lower loss than the best start with 2",
    losses[at(20)].max() < losses[at(2)].min(),
    f"{losses[at(20)].max():.4f} < {losses[at(2)].min():.4f}",
)
common.claim(
    "At width 20 or more, every start fits every training example",
    (fits[at(20) :] == 1).all(),
    f"at least {fits[at(20) :].min():.1%}",
)
common.claim(
    "With 100 hidden units, more new images are read correctly than with 10",
    rights[at(100)].mean() > rights[at(10)].mean(),
    f"{rights[at(100)].mean():.1%} > {rights[at(10)].mean():.1%}",
)
common.claim(
    "With 100 hidden units, the accuracy on new images is within a point of that at the best width",
    rights[at(100)].mean() > rights.mean(axis=1).max() - 0.01,
    f"{rights[at(100)].mean():.1%}, at most {rights.mean(axis=1).max():.1%}",
)

figure, panels = plt.subplots(1, 2, figsize=(11, 4.4))
jitter = np.linspace(0.9, 1.1, args.starts)  # starts that end alike do not hide each other
for axes, values, colour, marker, shift, label in (
    (panels[0], losses, BLUE, "o", 1, "median"),
    (panels[1], 100 * fits, BLUE, "o", 0.94, "training examples"),
    (panels[1], 100 * rights, RED, "^", 1.06, "new images"),
):
    across = shift * np.outer(WIDTHS, jitter)
    style = {"marker": marker, "color": colour, "linestyle": "", "markersize": 5}
    axes.plot(across[~dead], values[~dead], alpha=0.4, markeredgewidth=0, **style)
    axes.plot(across[dead], values[dead], markerfacecolor="none", zorder=3, **style)
    axes.plot(WIDTHS, np.median(values, axis=1), color=colour, label=label)
panels[0].plot([], [], "o", color=BLUE, markersize=5, alpha=0.4, label="one start")
panels[0].plot([], [], "o", color=BLUE, markersize=5, markerfacecolor="none", label="a dead start")
for axes, value, label in ((panels[0], np.log(10), "log 10"), (panels[1], 10, "10%")):
    axes.axhline(value, color="gray", linestyle="--", label=f"guessing: {label}")
    axes.set_xscale("log")
    axes.set_xticks(WIDTHS, WIDTHS)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("hidden units")
    axes.legend(loc="center right")
panels[0].set(yscale="log", ylabel="loss on the training set (nats)")
panels[0].set_title("Wide networks fit from every start")
panels[1].set(ylabel="accuracy (%; medians and starts)", ylim=(0, 104))
panels[1].set_title("Wide networks also read new images well")
figure.savefig(args.out / "8_width.png")
print(f"Picture: {args.out / '8_width.png'}")


# %%
def draw(width):
    """The loss of ten starts during training, at a width of your choice."""
    plt.figure(figsize=(6, 4))
    for seed in seeds[:10]:
        curve, dead, _, _ = train(width, seed)
        plt.semilogy(curve, color="gray" if dead else BLUE, linestyle="--" if dead else "-")
    plt.xlabel("step")
    plt.ylabel("loss on the training set (nats)")
    plt.title(f"{width} hidden units, ten starts (dashed: dead)")
    plt.show()


common.sliders(draw, width=(1, 30, 1))
