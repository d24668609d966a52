"""Why the gradient: steps in random directions, and the step against the gradient.

python examples/4_why_the_gradient.py                the digits that come with scikit-learn
python examples/4_why_the_gradient.py --data mnist   MNIST
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
    directions=(200, "random directions from the start", 50),
    tries=(2000, "tries of the random search", 200),
)
train_set, _ = common.load(args.data)
inputs, targets = train_set.data[:1000].view(-1, 784), train_set.targets[:1000]
model = nn.MLP(hidden_dims=[50])
parameters = list(model.parameters())
ends = np.cumsum([parameter.numel() for parameter in parameters])[:-1]
LENGTH, STEPS = 0.1, 20

# %% [markdown]
# All parameters together are a point in a space of many dimensions. A direction is a vector
# with one number for each of them, and the loss is a landscape over that space.


# %%
def loss_at(point):
    """The loss, as a Tensor, with all parameters taken from one vector."""
    for parameter, part in zip(parameters, np.split(point, ends)):
        parameter.data = mg.from_numpy(part.reshape(parameter.shape))
    return F.nll_loss(model(inputs), targets)


@mg.no_grad()
def height(point):
    return loss_at(point).item()


def gradient_at(point):
    optim.zero_grad(parameters)
    loss_at(point).backward()
    return np.concatenate([parameter.grad.numpy().ravel() for parameter in parameters])


def unit(vector):
    return vector / np.linalg.norm(vector)


def random_direction():
    """A unit vector; all directions are equally likely."""
    return unit(generator.standard_normal(len(start), dtype="f4"))


generator = np.random.default_rng(args.seed)
start = np.concatenate([parameter.detach().numpy().ravel() for parameter in parameters])
top, gradient = height(start), gradient_at(start)

# %% [markdown]
# We take steps of the same length from one point, and see how much the loss changes. For a short
# step of length r along a unit vector d, the change is close to r g·d, where g is the gradient.
# This g·d lies between -‖g‖ and ‖g‖, and is lowest at d = -g / ‖g‖: no other direction descends
# as steeply. A random d in n dimensions spreads its length over all of them. Its g·d has mean 0
# and spread (standard deviation) ‖g‖ / √n, so half of the directions lead downhill, but barely.

# %%
tried = common.progress(range(args.directions), "random directions")
changes = np.array([height(start + LENGTH * random_direction()) - top for _ in tried])
downhill = height(start - LENGTH * unit(gradient)) - top
bound = LENGTH * np.linalg.norm(gradient)
spread = bound / np.sqrt(len(start))
print(f"untrained model: loss {top:.4f}, steps of length {LENGTH:g} in {len(start):,} dimensions")
print(f"  {args.directions} random directions: best {changes.min():+.5f}, "
      f"worst {changes.max():+.5f}, spread {changes.std():.5f}")  # fmt: skip
print(f"  against the gradient: {downhill:+.5f}")
print(f"  predicted: spread {spread:.5f}, limit {bound:.5f}")
common.claim(
    "The step against the gradient lowers the loss over ten times as much as the best random one",
    downhill < 10 * changes.min() < 0, f"{downhill / changes.min():.0f} times",
)  # fmt: skip
common.claim(
    "The changes made by random steps have the predicted spread, to within a third",
    2 / 3 < changes.std() / spread < 4 / 3, f"{changes.std() / spread:.2f} of the prediction",
)  # fmt: skip

figure, (whole, close) = plt.subplots(1, 2, figsize=(11, 4.4))
for axes in (whole, close):
    axes.hist(changes, bins=15, color=BLUE, label=f"{args.directions} random directions")
    axes.set_xlabel(f"change of the loss after a step of length r = {LENGTH:g} (nats)")
    axes.set_ylabel("number of directions")
    axes.set_ylim(0, 1.45 * axes.get_ylim()[1])  # room for the legend
whole.axvline(downhill, color=RED, linewidth=3, label="against the gradient")
whole.axvline(-bound, color="black", linestyle=":", label="limit for a short step, ±r ‖g‖")
whole.axvline(bound, color="black", linestyle=":")
whole.set_title("Random steps hardly change the loss")
x = np.linspace(-4, 4, 200) * spread
bell = np.exp(-((x / spread) ** 2) / 2) / (spread * np.sqrt(2 * np.pi))
bell *= len(changes) * np.ptp(changes) / 15  # the area of the bars
close.plot(x, bell, color="black", label="predicted, with spread r ‖g‖ / √n")
close.set_title("The blue bars, magnified")
for axes in (whole, close):
    axes.legend(loc="upper center")
figure.savefig(args.out / "4_why_the_gradient.png")
print(f"Picture: {args.out / '4_why_the_gradient.png'}")

# %% [markdown]
# Would longer steps help in a random direction? And why not simply try many steps, and keep those
# that lower the loss? The search below does that, with steps of the same length. A step against
# the gradient takes the time of a few tries: one for the loss, the rest for `backward`.

# %%
lengths = np.geomspace(0.01, 30, 10 if args.quick else 30, dtype="f4")
directions = [-unit(gradient), *(random_direction() for _ in range(3))]
against, *along = ([height(start + r * d) for r in lengths] for d in directions)

point, search = start, [top]
for _ in common.progress(range(args.tries), "random search"):
    candidate = point + LENGTH * random_direction()
    if (found := height(candidate)) < search[-1]:
        point = candidate
    search.append(min(found, search[-1]))
point, descent = start, [top]
for _ in range(STEPS):
    point = point - LENGTH * unit(gradient_at(point))
    descent.append(height(point))
print(f"\nfrom {top:.4f}, keeping the steps that lower the loss:")
for tries in sorted({min(n, args.tries) for n in (100, 500, args.tries)}):
    print(f"  {tries:5,} random tries reach {search[tries]:.4f}")
print(f"against the gradient: 1 step reaches {descent[1]:.4f}, {STEPS} reach {descent[-1]:.4f}")
common.claim(
    "The best step against the gradient ends lower than any step in three random directions",
    min(against) < np.min(along), f"loss {min(against):.3f}, against {np.min(along):.3f}",
)  # fmt: skip
common.claim(
    "Too long a step raises the loss, even against the gradient",
    against[-1] > top, f"to {against[-1]:.2f} after a step of length {lengths[-1]:g}",
)  # fmt: skip
few = search[min(100, args.tries)]
common.claim(
    "One step against the gradient lowers the loss more than a hundred random tries",
    descent[1] < few, f"to {descent[1]:.3f}, against {few:.3f}",
)  # fmt: skip
common.claim(
    "Twenty steps against the gradient lower the loss more than all the random tries",
    descent[-1] < search[-1], f"to {descent[-1]:.3f}, against {search[-1]:.3f}",
)  # fmt: skip

figure, (walk, race) = plt.subplots(1, 2, figsize=(11, 4.4))
walk.plot(lengths, np.transpose(along), color=BLUE)
walk.plot(lengths, against, ".-", color=RED)
walk.axhline(top, color="black", linewidth=1, linestyle=":")
walk.set_ylim(0, 2 * top)
walk.set_xlabel("length of the step")
walk.set_ylabel("loss after the step (nats)")
walk.set_title("One step of any length, from the start")
walk.legend(walk.lines[2:], ["three random directions", "against the gradient", "start"])
race.plot(range(1, args.tries + 1), search[1:], color=BLUE)
race.plot(range(1, STEPS + 1), descent[1:], ".-", color=RED)
text = f"{STEPS} steps against\nthe gradient: {descent[-1]:.2f}"
race.text(1.2 * STEPS, descent[-1], text, color=RED)
text = f"{args.tries:,} random tries,\nthe better ones kept: {search[-1]:.2f}"
race.text(args.tries, 0.85 * search[-1], text, color=BLUE, ha="right", va="top")
race.set_ylim(0, None)
race.set_xlabel("steps or tries")
race.set_ylabel("loss (nats)")
race.set_title("Gradient descent and random search")
for axes in (walk, race):
    axes.set_xscale("log")
figure.savefig(args.out / "4_race.png")
print(f"Picture: {args.out / '4_race.png'}")
