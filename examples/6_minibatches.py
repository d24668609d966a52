"""Mini-batches: many noisy steps or a few accurate ones, for the same number of examples seen?

python examples/6_minibatches.py                the digits that come with scikit-learn
python examples/6_minibatches.py --data mnist   MNIST
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, PINK, RED

import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

import minigrad as mg
from minigrad import functional as F, nn, optim
from minigrad.datasets import sample_minibatch

args = common.arguments(__doc__, steps=(40, "steps with batches of 1,000", 15))
train_set, test_set = common.load(args.data)
inputs, targets = train_set.data, train_set.targets
SIZES = {20: (BLUE, "o"), 250: (ORANGE, "s"), 1000: (GREEN, "^")}
RATES = [0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
EXAMPLES = 1000 * args.steps

# %% [markdown]
# The loss is a mean over all examples, and so is its gradient. The mean over a few of them, drawn
# at random and called a mini-batch, is an estimate: cheap, noisy, and right on average. Every
# batch size sees the same number of examples, from the same start: batches of 20 take fifty steps
# where batches of 1,000 take one.
#
# The noise also limits the learning rate, so a single rate for all sizes would decide which one
# wins. We train each size at every rate of a grid, and count only the rate that ends with the
# lowest loss over a thousand fixed training examples.


# %%
def train(size, rate):
    """{step: loss over the fixed examples}, and the accuracy on the test set at the end."""
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[50])
    parameters, losses = list(model.parameters()), {}
    steps = EXAMPLES // size
    looks = {args.steps, *np.geomspace(1, steps, 15).astype(int)}
    with np.errstate(all="ignore"):  # a learning rate that is too large ends in NaN
        for step in range(1, steps + 1):
            batch, labels = sample_minibatch(inputs, targets, size)
            optim.gradient_update(F.nll_loss(model(batch), labels), parameters, rate)
            if step in looks:
                loss = F.nll_loss(model(inputs[:1000]), targets[:1000]).item()
                losses[step] = loss if np.isfinite(loss) else np.inf
        right = (model(test_set.data).argmax(1) == test_set.targets).float().mean().item()
    return losses, right


pairs = [(size, rate) for size in SIZES for rate in RATES]
runs = {pair: train(*pair) for pair in common.progress(pairs, "sizes and rates")}
reached = {  # losses, a row for each size, a column for each rate
    name: np.array([[runs[size, rate][0][step(size)] for rate in RATES] for size in SIZES])
    for name, step in (
        (f"{EXAMPLES:,} examples", lambda size: EXAMPLES // size),
        (f"{args.steps:,} steps", lambda size: args.steps),
    )
}
best = {name: [RATES[i] for i in losses.argmin(axis=1)] for name, losses in reached.items()}
for name, losses in reached.items():
    print(f"Loss after {name}, by learning rate")
    print(" " * 16 + "".join(f"{rate:9g}" for rate in RATES))
    for size, row in zip(SIZES, losses):
        print(f"batches of {size:5,}" + "".join(f"{loss:9.4f}" for loss in row))
by_examples, by_steps = reached.values()
best_rates, _ = best.values()
for size, rate in zip(SIZES, best_rates):
    right = runs[size, rate][1]
    print(f"batches of {size:,} at rate {rate:g}: test accuracy {right:.1%}")

# %% [markdown]
# What does a step cost? We time forward and backward separately, for more and more examples. With
# few examples, most of the time is the overhead of calls, which does not grow with the batch.
# With many, the time grows with their number. The times are those of this machine at this moment:
# they say how long the steps above take here, and no conclusion rests on them.

# %%
model = nn.MLP(hidden_dims=[50])
counts = [n for n in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if n <= len(inputs)]
times = np.empty((2, len(counts), 25))
for i, count in enumerate(counts):
    for j in range(-1, 25):  # -1 warms up, and is overwritten by 24
        started = time.perf_counter()
        loss = F.nll_loss(model(inputs[:count]), targets[:count])
        between = time.perf_counter()
        loss.backward()
        times[:, i, j] = between - started, time.perf_counter() - between
quartiles = 1e3 * np.quantile(times, (0.25, 0.5, 0.75), axis=2)
print("\nMedian time of 25 (ms)   forward   backward   both, per example (µs)")
for count, (forward, backward) in zip(counts, quartiles[1].T):
    each = 1e3 * (forward + backward) / count
    print(f"{count:12,} examples {forward:11.3f} {backward:10.3f} {each:24.2f}")

# %%
small, middle, large = by_examples.min(axis=1)
common.claim(
    "For the same number of examples seen, smaller batches reach a lower loss",
    small < middle < large,
    f"{small:.4f} < {middle:.4f} < {large:.4f}",
)
small, middle, large = by_steps.min(axis=1)
common.claim(
    "For the same number of steps, batches of 20 reach a higher loss than larger ones",
    small > max(middle, large),
    f"{small:.4f} > {middle:.4f} and {large:.4f}",
)
small, larger = by_examples[0], by_examples[1:].max(axis=0)
i = np.where(small > larger, larger, np.inf).argmin()
common.claim(
    "With one rate for all sizes, batches of 20 can come last",
    small[i] > larger[i],
    f"at {RATES[i]:g}: " + ", ".join(f"{loss:.4f}" for loss in by_examples[:, i]),
)
inside = all(rate in RATES[1:-1] for rates in best.values() for rate in rates)
chosen = "; ".join(", ".join(map(str, rates)) for rates in best.values())
common.claim("Every best rate lies inside the grid", inside, chosen)

figure, panels = plt.subplots(1, 3, figsize=(11, 4.4))
for (size, (colour, marker)), rate in zip(SIZES.items(), best_rates):
    steps, losses = np.array([*runs[size, rate][0].items()]).T
    panels[0].plot(steps * size, losses, color=colour, marker=marker, markersize=5,
                   label=f"{size:,}: {EXAMPLES // size:,} steps")  # fmt: skip
panels[0].set(title="While they learn", xlabel="examples seen")
panels[0].set_ylabel("loss over 1,000 examples (nats)")
panels[0].legend(title="batches of")
for name, colour, style, above in zip(reached, (PINK, "black"), ("-o", "--s"), (-16, 8)):
    losses = reached[name].min(axis=1)
    panels[1].plot(list(SIZES), losses, style, color=colour, label=f"after {name}")
    for size, loss, rate in zip(SIZES, losses, best[name]):
        panels[1].annotate(f"rate {rate:g}", (size, loss), (0, above), color=colour,
                           textcoords="offset points", ha="center")  # fmt: skip
panels[1].set(title="What they reach", xlabel="examples in a batch")
panels[1].margins(0.25, 0.9)  # room for the legend
panels[1].legend(title="loss at the best rate", loc="lower right")
for part, (name, colour, marker) in enumerate((("forward", "black", "D"), ("backward", RED, "v"))):
    low, middle, high = quartiles[:, part]
    panels[2].plot(counts, middle, color=colour, marker=marker, markersize=5, label=name)
    panels[2].fill_between(counts, low, high, color=colour, alpha=0.25, linewidth=0)
panels[2].set(title="What a step costs", xlabel="examples in a batch")
panels[2].set_ylabel("time, median and quartiles (ms)")
panels[2].legend()
for axes in panels:
    axes.loglog()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
panels[1].set_xticks(list(SIZES), [f"{size:,}" for size in SIZES])
panels[1].set_xticks([], minor=True)
figure.savefig(args.out / "6_minibatches.png")
print(f"Picture: {args.out / '6_minibatches.png'}")


# %%
def draw(size, rate):
    """The loss during training with a size and a rate of your choice."""
    losses, right = train(size, rate)
    plt.figure(figsize=(6, 4))
    plt.loglog(np.array(list(losses)) * size, list(losses.values()), color=BLUE)
    plt.xlabel("examples seen")
    plt.ylabel("loss over 1,000 examples (nats)")
    plt.title(f"batches of {size:,} at rate {rate:g}: test accuracy {right:.1%}")
    plt.show()


common.sliders(draw, size=[5, 20, 100, 250, 1000], rate=RATES)
