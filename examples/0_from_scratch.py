"""From scalars to arrays: reverse mode in about 40 lines, and a neuron trained with it.

python examples/0_from_scratch.py                the digits that come with scikit-learn
python examples/0_from_scratch.py --data mnist   MNIST
"""

# %%
import common
from common import BLUE, ORANGE

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F
from minigrad.engine import ancestors

args = common.arguments(__doc__, steps=(60, "training steps of the neuron", 30))
random = np.random.default_rng(args.seed)

# %% [markdown]
# ## A number that remembers
# A model computes answers from its inputs and from numbers of its own, the parameters. The loss
# L is one number that says how wrong the answers are. Training makes it small, and asks one
# question of every parameter x: how does L change if x changes a little? The answer, ∂L/∂x, is
# the gradient of x.
#
# To find it, each result remembers how it was made: its inputs, called parents, and a function
# for each parent. The function takes G, the gradient of the result, and returns what the result
# contributes to the gradient of the parent. It is called a vector-Jacobian product (VJP). A
# result with its memory is a node, and a node without parents is a leaf.


# %%
class Number:
    """A node. `created` is a serial number: an older node has a smaller one."""

    serial = itertools.count()

    def __init__(self, value, parents=(), vjps=()):
        self.value, self.parents, self.vjps = value, parents, vjps
        self.created = next(Number.serial)


def operation(f):
    """Make a function of floats take Numbers, and return a Number that remembers them."""

    def apply(*inputs):
        parents = [x if isinstance(x, Number) else Number(x) for x in inputs]
        value, *vjps = f(*[parent.value for parent in parents])
        return Number(value, parents, vjps)

    return apply


@operation
def add(x, y):
    return x + y, lambda G: G, lambda G: G


@operation
def mul(x, y):
    return x * y, lambda G: G * y, lambda G: G * x


Number.__add__ = Number.__radd__ = add
Number.__mul__ = Number.__rmul__ = mul

x = Number(2.0)
y = 5 * (3 * x + 1)
print(f"y = 5(3x + 1) = {y.value:g} remembers", *[f"{parent.value:g}" for parent in y.parents])

# %% [markdown]
# ## The chain rule
# We start at y itself, where ∂y/∂y = 1, and go from each node to its parents. On the way, the
# VJPs multiply G by one slope after another. That is the chain rule.


# %%
def arrivals(node, leaf, G=1.0):
    """The gradients that arrive at `leaf`, one for each path from `node` down to it."""
    if node is leaf:
        yield G
    for parent, vjp in zip(node.parents, node.vjps):
        yield from arrivals(parent, leaf, vjp(G))


print("Gradient that arrives at x:", *arrivals(y, x))

# %% [markdown]
# ## Values used twice, and an order
# In x·x + x, three paths lead from the result down to x. A small change of x has an effect
# along each of them, and the effects add up. So do the contributions: at x = 2, 2 + 2 + 1.
#
# The number of paths can explode: if each number is the sum of the two before it, the paths grow
# like the Fibonacci numbers. One turn for each node is enough if its gradient is complete by
# then, so all its consumers, the nodes made from it, must have had their turns. A consumer is
# younger than its parents, so the youngest node goes first.


# %%
def sweep(root):
    """The gradient of each node that `root` was made from."""
    waiting, complete = {root: 1.0}, {}
    while waiting:
        node = max(waiting, key=lambda node: node.created)  # the youngest
        G = complete[node] = waiting.pop(node)
        for parent, vjp in zip(node.parents, node.vjps):
            waiting[parent] = waiting.get(parent, 0.0) + vjp(G)
    return complete


print("y = x * x + x at x = 2. Gradients that arrive at x:", *arrivals(x * x + x, x))
older = y = x
for _ in range(16):
    older, y = y, older + y
paths = list(arrivals(y, x))
common.claim(
    "One turn for each node, youngest first, gives the sum over all paths",
    sweep(y)[x] == sum(paths),
    f"y = {y.value / x.value:g}x: {len(paths)} paths to x, {len(sweep(y))} turns",
)

# %% [markdown]
# ## A neuron
# A neuron computes a weighted sum of its inputs: z = w₁x₁ + w₂x₂ + b. Ours learns to tell zeros
# from ones. Its inputs are the ink in the middle of an image and the ink at both sides of it,
# each minus its mean and divided by its standard deviation. It takes 1/(1 + e⁻ᶻ) as the
# probability of a one. With t = 1 for a one and t = -1 for a zero, the right answer has the
# probability 1/(1 + e⁻ᵗᶻ). The negative logarithm of this is log(1 + e⁻ᵗᶻ), in nats. Its mean
# over the images is the loss. The function log(1 + eˣ) is called softplus, and its slope is
# 1/(1 + e⁻ˣ).
#
# A step subtracts from each parameter its gradient times the learning rate, which is 1 here. It
# computes with the values, outside the graph, so the new parameters are leaves. If they
# remembered the step, each sweep would also walk back through all the steps before it.


# %%
@operation
def softplus(x):
    return math.log1p(math.exp(x)), lambda G: G / (1 + math.exp(-x))


N = 50 if args.quick else 100  # digits to train on
train_set, _ = common.load(args.data)
labels = train_set.targets.numpy()
chosen = random.permutation(np.flatnonzero(labels < 2))
images = (train_set.data.numpy()[chosen] * train_set.std + train_set.mean) / 2.55  # ink in %
middle, sides = images[:, 10:18, 10:18], images[:, 10:18, np.r_[2:10, 18:26]]
ink = np.stack([middle.mean((1, 2)), sides.mean((1, 2))], 1).astype(float)
mean, std = ink[:N].mean(0), ink[:N].std(0)
inputs, answers = (ink - mean) / std, np.where(labels[chosen] == 1, 1.0, -1.0)
known = list(zip(inputs.tolist(), answers.tolist()))[:N]


def loss_of(w1, w2, b):
    losses = (softplus(-t * (w1 * x1 + w2 * x2 + b)) for (x1, x2), t in known)
    return sum(losses) * (1 / len(known))


parameters, losses = [Number(0.0), Number(0.0), Number(0.0)], []
for _ in common.progress(range(args.steps), "training"):
    loss = loss_of(*parameters)
    gradients = sweep(loss)
    parameters = [Number(p.value - gradients[p]) for p in parameters]
    losses.append(loss.value)

w1, w2, b = (p.value for p in parameters)
print(f"The neuron learns w1 = {w1:.2f}, w2 = {w2:.2f}, b = {b:.2f}; its last loss is "
      f"{losses[-1]:.3f}")  # fmt: skip
right = (answers * (inputs @ [w1, w2] + b) > 0)[N:].mean()  # the share of new digits
ones = (answers[N:] > 0).mean()
common.claim(
    "The neuron gets more new digits right than the best constant answer",
    right > max(ones, 1 - ones), f"{right:.1%}, against {max(ones, 1 - ones):.1%}",
)  # fmt: skip

# %%
figure, (plane, curve) = plt.subplots(1, 2, figsize=(11, 4.6))
for name, t, colour, marker in (("zeros", -1, BLUE, "o"), ("ones", 1, ORANGE, "^")):
    points = ink[:N][answers[:N] == t].T
    look = {"color": colour, "marker": marker, "edgecolor": "black", "label": name}
    plane.scatter(*points, clip_on=False, **look)  # marks on the axes stay whole
x1 = np.array([0, 104])  # where z = 0, in ink:
x2 = mean[1] - std[1] * (w1 * (x1 - mean[0]) / std[0] + b) / w2
plane.plot(x1, x2, color="black", label="decision boundary")
plane.set(xlim=(0, 104), ylim=(0, 1.3 * ink[:N, 1].max()), title="A neuron tells zeros from ones")
plane.set(xlabel="ink in the middle (%)", ylabel="ink at the sides (%)")
plane.legend(loc="upper left", ncols=3)
curve.plot(losses, color=BLUE, label="the neuron")
curve.axhline(math.log(2), color="black", linestyle="--", label="guessing: log 2")
curve.set(xlabel="step", ylabel="loss (nats)", title="Its loss while it learns", ylim=(0, None))
curve.legend()
figure.savefig(args.out / "0_from_scratch.png")
print(f"Picture: {args.out / '0_from_scratch.png'}")

# %% [markdown]
# ## What arrays, broadcasting and kernels add
# Our loss takes ten nodes for every example. If x and y are arrays,
# `x * y, lambda G: G * y, lambda G: G * x` makes one node for all examples. NumPy repeats the
# weights and b for every example, which is called broadcasting. Each of them is then used once
# per example, so its contributions add up on the way back. A kernel turns several operations,
# here `*`, `sum` and `+`, into one with compiled loops and VJPs of its own.

# %%
X, T = mg.tensor(inputs[:N]), mg.tensor(answers[:N, None])
W = mg.tensor([[w1, w2]], dtype=mg.float64, requires_grad=True)
B = mg.tensor([b], dtype=mg.float64, requires_grad=True)
loss = (1 + (-T * F.linear(X, W, B)).exp()).log().mean()
loss.backward()
few, gradients = len(ancestors(loss.node)), sweep(loss_of(*parameters))
in_arrays, by_number = [*W.grad.numpy()[0], *B.grad.numpy()], [gradients[p] for p in parameters]
common.claim(
    "With arrays, minigrad gives the same gradients from fewer nodes",
    np.allclose(in_arrays, by_number, 1e-9, 1e-15) and few < len(gradients),
    f"{few} instead of {len(gradients):,}",
)

# %% [markdown]
# Here is where minigrad has what you have just written, and what is new there:
# - `tensors.py`, `apply`: our `operation`; it records a node
# - `engine.py`, `sweep`: our `sweep`, with a heap in place of `max`
# - `ops.py`, `mul`: our `mul`, for arrays
# - `engine.py`, `unbroadcast`: new; it adds up what broadcasting has repeated
# - `ops.py`, `linear`: new; one operation, whose work is done by kernels
# - `kernels.py`, `linear_backward_weight`: new; it is compiled, with its formula above it
# - `changes.py`, `refuse_changed_arrays`: new; it notices arrays that change after their use
