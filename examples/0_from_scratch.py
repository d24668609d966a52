"""From scalars to arrays: reverse mode in about 40 lines, and a neuron that learns with it.

python examples/0_from_scratch.py --data mnist
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, RED

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F
from minigrad.engine import ancestors

args = common.arguments(__doc__, steps=(60, "steps in which the neuron is trained", 30))
random = np.random.default_rng(args.seed)

# %% [markdown]
# ## A number that remembers
# Training asks one question of every parameter: how does the loss L change if this number
# changes a little? The answer, ∂L/∂x, is the gradient of x. To find it, each result remembers
# what it was made of: its inputs, called parents, and for each parent a function from G, the
# gradient of the result, to what it contributes to the gradient of the parent. The field calls
# such a function a vector-Jacobian product (VJP). Each result with its memory is a node, and a
# node without parents is a leaf.


# %%
class Number:
    """A node. `created` is a serial number, by which they are ordered."""

    serial = itertools.count()

    def __init__(self, value, parents=(), vjps=()):
        self.value, self.parents, self.vjps = value, parents, vjps
        self.created = next(Number.serial)


def operation(f):
    """Let a function of floats take Numbers, and make a Number that remembers them."""

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
def arrivals(node, G=1.0):
    """Each node below, with the gradient that arrives there: once for every path."""
    yield node, G
    for parent, vjp in zip(node.parents, node.vjps):
        yield from arrivals(parent, vjp(G))


for node, G in arrivals(y):
    print(f"  at {node.value:g}: G = {G:g}" + ("  <- x" if node is x else ""))

# %% [markdown]
# ## Values used twice
# In x·x + x, three paths lead from the result down to x. A small change of x has an effect
# along each of them, and the effects add up. So do the contributions: 2 + 2 + 1.

# %%
y = x * x + x
print("y = x * x + x at x = 2. At x arrive", *[f"{G:g}" for node, G in arrivals(y) if node is x])

# %% [markdown]
# ## An order
# Each path is a walk of its own, and their number explodes: if each number is the sum of the two
# before it, it grows like Fibonacci's. One turn for each node is enough if its gradient is
# complete by then: all its consumers, the nodes that were made of it, must have had their
# turns. A consumer is younger than its parents, so the youngest goes first.


# %%
def sweep(root):
    """The gradient of each node that `root` was made of."""
    waiting, complete = {root: 1.0}, {}
    while waiting:
        node = max(waiting, key=lambda node: node.created)  # the youngest
        G = complete[node] = waiting.pop(node)
        for parent, vjp in zip(node.parents, node.vjps):
            waiting[parent] = waiting.get(parent, 0.0) + vjp(G)
    return complete


older = y = x
for _ in range(16):
    older, y = y, older + y
paths = [G for node, G in arrivals(y) if node is x]
common.claim(
    "Youngest first, one turn for each node gives the sum over all paths",
    sweep(y)[x] == sum(paths),
    f"y = {y.value / x.value:g}x: {len(paths)} paths to x, {len(sweep(y))} turns",
)


# %% [markdown]
# ## Beside minigrad
# The same expression, in our Numbers and in minigrad's Tensors. Both add and multiply in the
# same order, so not even the last bit may differ.


# %%
def expression(a, b):
    c = a * b + a
    d = c * c + b * c
    return d * a + 3 * c * d + b


values = random.normal(size=2).tolist()
numbers = [Number(value) for value in values]
tensors = [mg.tensor(value, dtype=mg.float64, requires_grad=True) for value in values]
gradients = sweep(expression(*numbers))
expression(*tensors).backward()
common.claim(
    "The gradients of a random expression equal minigrad's to the last bit",
    all(gradients[number] == tensor.grad.item() for number, tensor in zip(numbers, tensors)),
    ", ".join(repr(gradients[number]) for number in numbers),
)

# %% [markdown]
# ## A neuron
# A neuron weighs its inputs: z = w₁x₁ + w₂x₂ + b. Ours is to tell zeros from ones. Its inputs
# are the ink in the middle of an image and the ink at both sides of it, each minus its mean and
# divided by its standard deviation. It takes 1/(1 + e⁻ᶻ) for the probability of a one. With
# t = 1 for a one and t = -1 for a zero, the right answer has the probability 1/(1 + e⁻ᵗᶻ). The
# loss is the mean of its negative logarithm, log(1 + e⁻ᵗᶻ). That needs two more operations.


# %%
@operation
def exp(x):
    out = math.exp(x)
    return out, lambda G: G * out


@operation
def log(x):
    return math.log(x), lambda G: G / x


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
    losses = (log(1 + exp(-t * (w1 * x1 + w2 * x2 + b))) for (x1, x2), t in known)
    return sum(losses) * (1 / len(known))


def train(lr=1.0):
    """The parameters and all losses, from 0 on, where both digits have the probability 1/2."""
    parameters, losses = [Number(0.0), Number(0.0), Number(0.0)], []
    for _ in common.progress(range(args.steps), "training"):
        loss = loss_of(*parameters)
        gradients = sweep(loss)
        parameters = [Number(p.value - lr * gradients[p]) for p in parameters]
        losses.append(loss.value)
    return parameters, losses


parameters, losses = train()
w1, w2, b = (p.value for p in parameters)
new = slice(N, None)  # digits that it has not been trained on
right = (answers * (inputs @ [w1, w2] + b) > 0)[new].mean()
constant = max((answers[new] > 0).mean(), (answers[new] < 0).mean())
common.claim(
    "The neuron gets more new digits right than the best constant answer",
    right > constant,
    f"{right:.1%} and {constant:.1%}; loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last",
)
print(f"What it has learnt: w1 = {w1:.2f}, w2 = {w2:.2f}, b = {b:.2f}")


# %%
def draw(parameters, losses):
    """What the neuron sees, the line that it has learnt, and its loss."""
    mosaic = [["zero", "plane", "loss"], ["one", "plane", "loss"]]
    figure, panels = plt.subplot_mosaic(mosaic, figsize=(11, 4.6), width_ratios=(1, 2.4, 2))
    plane, loss = panels["plane"], panels["loss"]
    plane.margins(0.05, 0.2)  # leaves room for the legend
    for name, kind, colour, marker in (("zero", -1, BLUE, "o"), ("one", 1, ORANGE, "^")):
        panels[name].imshow(images[answers == kind][0])
        for left, edge, style in ((10, RED, "-"), (2, GREEN, "--"), (18, GREEN, "--")):
            box = plt.Rectangle((left, 10), 7, 7, fill=False, ec=edge, ls=style, linewidth=2)
            panels[name].add_patch(box)
        panels[name].set(xticks=[], yticks=[], title=f"a {name}")
        points = ink[:N][answers[:N] == kind].T
        plane.scatter(*points, color=colour, marker=marker, edgecolor="black", label=f"{name}s")
    grid = np.meshgrid(np.linspace(*plane.get_xlim(), 200), np.linspace(*plane.get_ylim(), 200))
    x1, x2 = ((axis - m) / s for axis, m, s in zip(grid, mean, std))
    z = sum(p.value * x for p, x in zip(parameters, (x1, x2, 1)))
    plane.contourf(*grid, z, levels=[-np.inf, 0, np.inf], colors=[BLUE, ORANGE], alpha=0.15)
    plane.set_xlabel("ink in the middle (%)", color=RED)
    plane.set_ylabel("ink at the sides (%)", color=GREEN)
    plane.set_title("the neuron tells zeros from ones")
    loss.plot(losses, color=BLUE, label="the neuron")
    loss.axhline(math.log(2), color="black", linestyle="--", label="guessing: log 2")
    loss.set(xlabel="step", ylabel="loss (nats)", title="its loss while it learns", ylim=(0, None))
    plane.legend(loc="upper center", ncols=2)
    loss.legend()
    return figure


draw(parameters, losses).savefig(args.out / "0_from_scratch.png")
print(f"Picture: {args.out / '0_from_scratch.png'}")

# %% [markdown]
# ## What arrays, broadcasting and kernels add
# Our loss takes a dozen nodes for every example. Let x and y be arrays, and
# `x * y, lambda G: G * y, lambda G: G * x` makes one node for all of them. NumPy repeats the
# weights and b for every example, which is called broadcasting. On the way back, each of them
# has been used once per example, and its contributions add up. A kernel turns several
# operations, here `*`, `sum` and `+`, into one with compiled loops and VJPs of its own.

# %%
X, T = (mg.tensor(array[:N]) for array in (inputs, answers[:, None]))
W = mg.tensor([[w1, w2]], dtype=mg.float64, requires_grad=True)
B = mg.tensor([b], dtype=mg.float64, requires_grad=True)


def in_arrays(z):
    """The number of nodes, and the gradients of the weights and of b."""
    loss = (1 + (-T * z).exp()).log().mean()
    W.grad = B.grad = None
    loss.backward()
    return len(ancestors(loss.node)), [*W.grad.numpy()[0], *B.grad.numpy()]


gradients = sweep(loss_of(*parameters))
by_number = [gradients[p] for p in parameters]
few, by_array = in_arrays((X * W).sum(dim=1, keepdim=True) + B)
fewer, by_kernel = in_arrays(F.linear(X, W, B))
common.claim(
    "Arrays give the same gradients with fewer nodes, and a kernel with fewer still",
    len(gradients) > few > fewer and np.allclose([by_array, by_kernel], by_number, 1e-9, 1e-15),
    f"{len(gradients)}, {few} and {fewer} nodes",
)
print("Where minigrad has what you have just written, and what is new:")
for place, what in (
    ("tensors.py, apply", "our `operation`: it records a node"),
    ("engine.py, sweep", "our `sweep`, with a heap in place of `max`"),
    ("ops.py, mul", "our `mul`, for arrays"),
    ("engine.py, unbroadcast", "new: it adds up what broadcasting has repeated"),
    ("ops.py, linear", "new: one operation, whose work is done by kernels"),
    ("kernels.py, linear_backward_weight", "new: compiled, with its formula above it"),
    (
        "changes.py, refuse_changed_arrays",
        "new: it notices what changes after its use",
    ),
):
    print(f"  minigrad/{place:36} {what}")

# %%
common.sliders(lambda lr: draw(*train(lr)), lr=(0.1, 10, 0.1))
