"""Optimisers: four variants of gradient descent, each at many learning rates, from five starts.

python examples/7_optimizers.py                the digits that come with scikit-learn
python examples/7_optimizers.py --data mnist   MNIST
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, PINK

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim
from minigrad.datasets import sample_minibatch

args = common.arguments(
    __doc__, steps=(200, "steps of each training", 80), starts=(5, "starts of each training", 2)
)
train_set, _ = common.load(args.data)
inputs, targets = train_set.data[:500], train_set.targets[:500]
SEEDS = [args.starts * args.seed + start for start in range(args.starts)]
LOOKS = np.unique(np.linspace(0, args.steps, 11).astype(int))  # steps at which the loss is measured

# %% [markdown]
# We compare four ways to turn a gradient into a step. Gradient descent takes the gradient as it
# is. Momentum adds up past gradients, each with 0.9 times the weight of the one after it: where
# the gradient hardly changes, the sum is 1 + 0.9 + 0.9² + ... = 10 times as long. RMSprop divides
# each gradient by its own usual size, so that every parameter moves by about the learning rate.
# Adam does both, except that it takes a mean instead of a sum.
#
# The same rate therefore means a different length of step for each method, and the choice of a
# single rate would decide the comparison. So each method runs at many rates, half a power of ten
# apart, and its best one counts.
#
# One start is not enough either: another start and other mini-batches can change the order. Each
# method runs from the same five starts. The line is the median, and the band reaches from the
# lowest loss to the highest.


# %%
def rates(low, high):
    """10^low, 10^(low + 0.5), ..., 10^high"""
    return 10.0 ** np.arange(low, high + 0.1, 0.5)


OPTIMIZERS = {
    "gradient descent": (optim.SGD, {}, rates(-2.5, 0), BLUE, "o"),
    "momentum 0.9": (optim.SGD, {"momentum": 0.9}, rates(-3.5, -0.5), ORANGE, "s"),
    "RMSprop": (optim.RMSprop, {}, rates(-4.5, -1.5), GREEN, "^"),
    "Adam": (optim.Adam, {}, rates(-4, -1), PINK, "D"),
}
GUESSING = np.log(10)


def train(name, lr, seed):
    """The loss over all 500 examples at LOOKS; infinite once it is not a number."""
    method, settings, *_ = OPTIMIZERS[name]
    mg.manual_seed(seed)
    model = nn.MLP(hidden_dims=[20])
    optimizer, losses = method(model.parameters(), lr, **settings), []
    with np.errstate(all="ignore"):  # a learning rate that is too large ends in NaN
        for step in range(args.steps + 1):
            if step in LOOKS:
                losses.append(F.nll_loss(model(inputs), targets).item())
            if step < args.steps:
                batch, labels = sample_minibatch(inputs, targets, num_points=100)
                optimizer.zero_grad()
                F.nll_loss(model(batch), labels).backward()
                optimizer.step()
    return np.nan_to_num(losses, nan=np.inf)


def draw(axes, x, losses, name, label):
    """Median and band of the losses of all starts, shape (starts, len(x)); above 10 drawn at 10"""
    *_, colour, marker = OPTIMIZERS[name]
    losses = np.minimum(losses, 10)
    axes.plot(x, np.median(losses, axis=0), color=colour, marker=marker, label=label)
    axes.fill_between(x, losses.min(0), losses.max(0), color=colour, alpha=0.2, linewidth=0)


jobs = [(name, lr) for name, (_, _, grid, *_) in OPTIMIZERS.items() for lr in grid]
curves = {job: np.array([train(*job, seed) for seed in SEEDS])
          for job in common.progress(jobs, "methods and rates")}  # fmt: skip

figure, (sweep, course) = plt.subplots(1, 2, figsize=(11, 4.6))
print(f"loss over 500 examples after {args.steps} steps, median of {args.starts} starts, by rate")
tried = np.unique(np.concatenate([grid for _, _, grid, *_ in OPTIMIZERS.values()]))
print(" " * 16 + "".join(f"{lr:8.2g}" for lr in tried))
best, ends, bands, works = {}, {}, {}, {}
for name, (_, _, grid, *_) in OPTIMIZERS.items():
    last = np.array([curves[name, lr][:, -1] for lr in grid])
    ends[name] = dict(zip(grid, np.median(last, axis=1)))
    losses = [f"{ends[name][lr]:8.4f}" if lr in ends[name] else f"{'-':>8}" for lr in tried]
    print(f"{name:16}" + "".join(losses))
    best[name] = lr = min(ends[name], key=ends[name].get)
    bands[name] = curves[name, lr][:, -1].min(), ends[name][lr], curves[name, lr][:, -1].max()
    works[name] = sum(loss < GUESSING / 10 for loss in ends[name].values())
    draw(sweep, grid, last.T, name, name)
    draw(course, LOOKS, curves[name, lr], name, f"{name}, rate {lr:.2g}")

print("\nat its best rate    rate   median   lowest to highest")
ranking = sorted(bands, key=lambda name: bands[name][1])
for name in ranking:
    low, median, high = bands[name]
    print(f"{name:16} {best[name]:7.2g} {median:8.4f}   {low:7.4f} to {high:.4f}")
print()

for level, label, side in (
    (GUESSING, "guessing: log 10", "bottom"), (GUESSING / 10, "a tenth of it", "top")
):  # fmt: skip
    sweep.axhline(level, color="gray", linestyle="--", linewidth=1)
    sweep.text(2.5e-5, level, label, va=side, color="gray", fontsize=11)
sweep.set(
    xscale="log", xlabel="learning rate", yscale="log", ylim=(None, 6),
    ylabel=f"loss after {args.steps} steps (nats)", title="Each method has its own range of rates",
)  # fmt: skip
course.set(
    yscale="log", xlabel="step", ylabel=f"loss (nats): median and range of {args.starts}",
    title=f"Best of each: {ranking[0]} ends lowest",
)  # fmt: skip
course.legend()
figure.savefig(args.out / "7_optimizers.png")
print(f"Picture: {args.out / '7_optimizers.png'}")

# %% [markdown]
# Why do the curves lie where they do? A sum of ten gradients is ten times as long, so momentum
# at a tenth of the rate moves like plain descent. They differ where plain descent jumps from one
# side of a valley to the other: such gradients cancel in the sum, and momentum tolerates steps
# that make plain descent diverge. RMSprop and Adam move a parameter by about the rate however
# small its gradient is, so their rates are about as large as a useful change of a weight.
#
# The order holds for this problem and these settings. It is not a law.

# %%
common.claim(
    "Every best rate lies inside its grid",
    all(best[name] in grid[1:-1] for name, (_, _, grid, *_) in OPTIMIZERS.items()),
    ", ".join(f"{name} {lr:.2g}" for name, lr in best.items()),
)
common.claim(
    "At the best rate for each method, momentum has the lowest median",
    ranking[0] == "momentum 0.9",
    ", ".join(f"{name} {median:.4f}" for name, (_, median, _) in bands.items()),
)
common.claim(
    "The best rates of RMSprop and Adam are at most a tenth of gradient descent's",
    max(best["RMSprop"], best["Adam"]) < 0.11 * best["gradient descent"],
    ", ".join(f"{name} {lr:.2g}" for name, lr in best.items()),
)
# from 0.0032 to 0.032, and from 0.00032 to 0.0032
pairs = list(zip(ends["gradient descent"].values(), ends["momentum 0.9"].values()))[:3]
common.claim(
    "At the three lowest rates, momentum at a tenth of the rate ends within a quarter of gradient "
    "descent's loss",
    all(abs(summed / plain - 1) < 0.25 for plain, summed in pairs),
    "ratios " + ", ".join(f"{summed / plain:.2f}" for plain, summed in pairs),
)
common.claim(
    "At more rates than gradient descent, momentum gets below a tenth of the loss of guessing",
    works["momentum 0.9"] > works["gradient descent"],
    ", ".join(f"{name} {count}" for name, count in works.items()),
)


# %%
def at_one_rate(power):
    """The four methods at the same rate, 10^power, from the first start."""
    _, axes = plt.subplots(figsize=(7, 4.2))
    for name in OPTIMIZERS:
        draw(axes, LOOKS, [train(name, 10.0**power, SEEDS[0])], name, name)
    axes.set(yscale="log", xlabel="step", ylabel="loss (nats)", title=f"All at {10.0**power:.2g}")
    axes.legend()
    plt.show()


common.sliders(at_one_rate, power=(-4.5, 0.5, 0.25))
