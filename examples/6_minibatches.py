"""Mini-batches: many cheap noisy steps, or a few exact and expensive ones, in the same time?

python examples/6_minibatches.py --data mnist --seconds 5
"""

# %%
import common
from common import BLUE, GREEN, ORANGE

import time

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim
from minigrad.datasets import sample_minibatch

args = common.arguments(__doc__, seconds=(2.0, "seconds of training for each batch size"))
train_set, _ = common.load(args.data)
inputs, targets = train_set.data, train_set.targets
SIZES = {20: BLUE, 250: ORANGE, 1000: GREEN}
LR = 0.05

# %% [markdown]
# The loss is a mean over all examples, and so is its gradient. The mean over a few of them,
# drawn at random, is an estimate of it: noisy, but right on average, and cheap. Every batch
# size gets the same number of seconds, from the same start, with the same learning rate. The
# clock stops while the loss over a fixed thousand examples is taken for the curves.


# %%
def start():
    """The same initial weights each time."""
    mg.manual_seed(args.seed)
    return nn.MLP(hidden_dims=[100, 100])


def train(batch_size, seconds):
    """Seconds, examples seen and the loss over the fixed examples, from time to time."""
    model = start()
    parameters = list(model.parameters())
    curve, spent, steps, next_look = [], 0.0, 0, 0.0
    while True:
        if spent >= next_look or spent >= seconds:
            loss = F.nll_loss(model(inputs[:1000]), targets[:1000]).item()
            curve.append((spent, steps * batch_size, loss))
            next_look += seconds / 40
            if spent >= seconds:
                return np.array(curve).T
        started = time.perf_counter()
        batch, labels = sample_minibatch(inputs, targets, batch_size)
        optim.gradient_update(F.nll_loss(model(batch), labels), parameters, LR)
        spent += time.perf_counter() - started
        steps += 1


train(20, 0.2)  # the first call of each kernel compiles it
figure, (by_time, by_examples, cost) = plt.subplots(
    1, 3, figsize=(14, 4.2), dpi=110, layout="constrained"
)
print(f"{args.seconds:g} s for each batch size, learning rate {LR:g}")
for size, colour in SIZES.items():
    seconds, examples, losses = train(size, args.seconds)
    print(f"  batches of {size:5,}: {examples[-1] / size:8,.0f} steps, "
          f"{examples[-1]:10,.0f} examples, loss {losses[-1]:.4f}")  # fmt: skip
    by_time.plot(seconds, losses, color=colour, label=f"batches of {size:,}")
    by_examples.plot(examples[1:], losses[1:], color=colour, label=f"batches of {size:,}")
by_time.set_xlabel("seconds of training")
by_examples.set_xlabel("examples seen")
by_examples.set_xscale("log")
for axes in (by_time, by_examples):
    axes.set_yscale("log")
    axes.set_ylabel("loss over 1,000 examples (nats)")
    axes.grid(alpha=0.3)
    axes.legend()

# %% [markdown]
# What does a step cost? Forward and backward alone, for more and more examples. For few of
# them the time hardly changes: it is the fixed cost of the program's calls, and a batch of 20
# costs little more than a single example. For many it is proportional to their number.

# %%
model = start()
counts = [n for n in (1, 5, 20, 50, 100, 300, 1000, 3000, 10_000) if n <= len(inputs)]
milliseconds = []
for count in counts:
    batch, labels = inputs[:count], targets[:count]
    times = []
    for _ in range(15):
        started = time.perf_counter()
        F.nll_loss(model(batch), labels).backward()
        times.append(time.perf_counter() - started)
    milliseconds.append(1e3 * np.median(times))
print("forward and backward, median of 15:")
for count, value in zip(counts, milliseconds):
    print(f"  {count:6,} examples: {value:7.3f} ms, {1e3 * value / count:8.2f} µs each")
cost.plot(counts, milliseconds, "o-", color=BLUE, label="measured")
per_example = milliseconds[-1] / counts[-1]
cost.plot(counts, [per_example * n for n in counts], "--", color="gray",
          label=f"{1e3 * per_example:.2f} µs for each example")  # fmt: skip
cost.set_xscale("log")
cost.set_yscale("log")
cost.set_xlabel("examples in the batch")
cost.set_ylabel("time of forward and backward (ms)")
cost.grid(alpha=0.3)
cost.legend()
figure.savefig(args.out / "6_minibatches.png")
print(f"Picture: {args.out / '6_minibatches.png'}")
