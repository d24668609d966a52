"""The variants compared: gradient descent, momentum, RMSprop and Adam, at many learning rates.

python examples/7_optimizers.py --data mnist
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, PINK

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim
from minigrad.datasets import sample_minibatch

args = common.arguments(__doc__, steps=(300, "steps of each training"))
train_set, _ = common.load(args.data)
inputs, targets = train_set.data[:1000], train_set.targets[:1000]

# %% [markdown]
# Four ways to turn a gradient into a step. Gradient descent takes the gradient as it is;
# momentum adds up those of the past; RMSprop divides each by its own usual size, so that all
# parameters move about equally far; Adam does both. The MLP, the start and the mini-batches are
# the same for all. What differs is the learning rate, and how much its choice matters: each
# method has a decade or two in which it works, and they lie in different places.

# %%
OPTIMIZERS = {
    "gradient descent": (lambda params, lr: optim.SGD(params, lr), BLUE, "o"),
    "momentum 0.9": (lambda params, lr: optim.SGD(params, lr, momentum=0.9), ORANGE, "s"),
    "RMSprop": (lambda params, lr: optim.RMSprop(params, lr), GREEN, "^"),
    "Adam": (lambda params, lr: optim.Adam(params, lr), PINK, "D"),
}
RATES = [10**power for power in np.arange(-4.5, 1.1, 0.5)]


def train(make_optimizer, lr):
    """The loss over all 1,000 examples, every ten steps; infinite once it is no number."""
    mg.manual_seed(args.seed)
    model = nn.MLP(hidden_dims=[50, 50])
    optimizer, losses = make_optimizer(model.parameters(), lr), []
    with np.errstate(all="ignore"):  # a learning rate that is too large ends in NaN
        for step in range(args.steps + 1):
            if step % 10 == 0:
                losses.append(F.nll_loss(model(inputs), targets).item())
            if step < args.steps:
                batch, labels = sample_minibatch(inputs, targets, num_points=50)
                optimizer.zero_grad()
                F.nll_loss(model(batch), labels).backward()
                optimizer.step()
    return np.nan_to_num(losses, nan=np.inf)


figure, (sweep, best) = plt.subplots(1, 2, figsize=(12, 4.6), dpi=110, layout="constrained")
print(f"loss over 1,000 examples after {args.steps} steps, by learning rate")
print(" " * 18 + "".join(f"{rate:10.2g}" for rate in RATES))
summary = []
for name, (make_optimizer, colour, marker) in OPTIMIZERS.items():
    curves = [train(make_optimizer, rate) for rate in RATES]
    last = np.array([curve[-1] for curve in curves])
    print(f"{name:18}" + "".join(f"{loss:10.4f}" for loss in last))
    good = [rate for rate, loss in zip(RATES, last) if loss < 0.3]
    i = last.argmin()
    summary.append(f"  {name:17} best loss {last[i]:.4f} at learning rate {RATES[i]:.2g}; "
                   f"below 0.3 at {len(good)} of {len(RATES)} rates")  # fmt: skip
    shown = np.clip(last, None, 10)
    sweep.plot(RATES, shown, marker=marker, color=colour)
    steps = np.arange(len(curves[i])) * 10
    label = f"{name}, best at {RATES[i]:.2g}"
    best.plot(steps, curves[i], color=colour, marker=marker, markevery=5, markersize=5, label=label)
print("\n" + "\n".join(summary))
sweep.axhline(np.log(10), color="gray", linestyle="--", linewidth=1, label="guessing: log 10")
sweep.set_xscale("log")
sweep.set_xlabel("learning rate")
sweep.set_ylabel(f"loss after {args.steps} steps (nats; above 10 drawn at 10)")
best.set_xlabel("step")
best.set_ylabel("loss at the best learning rate (nats)")
for axes in (sweep, best):
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
figure.legend(loc="outside lower center", ncols=5)
figure.savefig(args.out / "7_optimizers.png")
print(f"Picture: {args.out / '7_optimizers.png'}")
