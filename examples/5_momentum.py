"""Poor conditioning and momentum: a long valley in two parameters of the linear model.

python examples/5_momentum.py                the digits that come with scikit-learn
python examples/5_momentum.py --data mnist   MNIST
"""

# %%
import common
from common import BLUE, GREEN, ORANGE, RED

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import PillowWriter

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(
    __doc__,
    steps=(50, "steps of each path"),
    lr=(1.0, "learning rate of the paths, in units of 1 / largest curvature"),
    beta=(0.6, "momentum of the third path, below 1"),
)
if args.beta >= 1:
    raise SystemExit(f"error: --beta must be below 1, got {args.beta:g}")
train_set, _ = common.load(args.data)
inputs, targets = train_set.data[:1000].view(-1, 784), train_set.targets[:1000]

# %% [markdown]
# We train the linear model a little. Then we free two of its 7,850 parameters, one weight of
# class 0 and the bias of class 7, and freeze the others. The loss is then a surface over a
# plane, and we can see how gradient descent moves on it.
#
# The weight multiplies a pixel, the bias multiplies 1. We take the pixel whose square is smallest
# on average, so the surface curves less along the weight than along the bias: a valley with steep
# walls and a flat floor.

# %%
model = nn.MLP()
for _ in range(100):
    optim.gradient_update(F.nll_loss(model(inputs), targets), model.parameters(), lr=0.1)
pixel = int((inputs * inputs).mean(dim=0).numpy().argmin())
model.main[0].weight.data[0, pixel] = model.main[0].bias.data[7] = 0
frozen = model.main(inputs).detach().double()  # what the other parameters contribute
weight_input, bias_input = np.zeros((2, len(inputs), 10))
weight_input[:, 0], bias_input[:, 7] = inputs[:, pixel].numpy(), 1
weight_input, bias_input = mg.from_numpy(weight_input), mg.from_numpy(bias_input)


def loss_at(weight, bias):
    """The loss with the free weight and the free bias set to these scalars."""
    scores = frozen + weight * weight_input + bias * bias_input
    return F.nll_loss(F.log_softmax(scores, dim=1), targets)


def leaves(position):
    return [mg.tensor(x, dtype=mg.float64, requires_grad=True) for x in map(float, position)]


def path_from(start, lr, beta, steps=args.steps):
    """The points (weight, bias) that momentum visits; β = 0 is gradient descent."""
    point, path = leaves(start), [start]
    velocity = [mg.zeros_like(x) for x in point]
    for _ in range(steps):
        optim.momentum_update(loss_at(*point), point, velocity, lr, beta)
        path.append([x.item() for x in point])
    return np.array(path)


def gradient_at(position):
    point = leaves(position)
    loss_at(*point).backward()
    return np.array([x.grad.item() for x in point])


# %% [markdown]
# Many steps find the lowest point, and gradients on both sides of it give the curvatures there.
# The condition number κ is the largest curvature divided by the smallest. Near the lowest point,
# a rate above 2 / largest curvature makes the steps across the valley grow. Farther out, the loss
# can curve more, and then even a smaller rate does so. So the largest curvature limits the rate,
# and along the floor such a rate makes slow progress.

# %%
best = path_from([0, 0], lr=20, beta=0.9, steps=400)[-1]
assert np.abs(gradient_at(best)).max() < 1e-6  # the loss is convex: this is its lowest point
STEP = 0.05
sides = [(best + h, best - h) for h in STEP * np.eye(2)]
hessian = np.array([gradient_at(a) - gradient_at(b) for a, b in sides]) / (2 * STEP)
smallest, largest = np.linalg.eigvalsh((hessian + hessian.T) / 2)
condition = largest / smallest
predicted = (1 - condition**-0.5) ** 2
print(f"weight of class 0 at pixel {divmod(pixel, 28)}, bias of class 7")
print(f"lowest point: weight {best[0]:.4f}, bias {best[1]:.4f}, loss {loss_at(*best).item():.4f}")
common.claim(
    "The curvatures of the two parameters differ by a factor of more than ten",
    condition > 10, f"{smallest:.4f} and {largest:.4f}: {condition:.1f} times as large",
)  # fmt: skip

# %% [markdown]
# All paths have the same start and the same learning rate, 1 / largest curvature. Gradient
# descent (β = 0) crosses the valley quickly and then crawls along its floor. Momentum at first
# overshoots across the valley. Along the floor, where all gradients point the same way, its steps
# grow to 1 / (1 - β) times the size. But velocity is also slow to fade: with momentum β, the
# distance cannot shrink by more than a factor of √β per step. For a quadratic at this rate,
# (1 - 1/√κ)² is the best β.

# %%
OFFSET = np.array([6, -3])  # of the start from the lowest point
COLOURS = {0.0: BLUE, 0.3: GREEN, args.beta: RED, 0.9: ORANGE}
start, lr = best + OFFSET, args.lr / largest
paths = {beta: path_from(start, lr, beta) for beta in COLOURS}
tuned = {times: path_from(start, times / largest, 0) for times in np.arange(1, 2.15, 0.1)}


def away(path):
    """How far from the lowest point each step is."""
    return np.linalg.norm(path - best, axis=1)


times = min(tuned, key=lambda times: away(tuned[times])[-1])
print(f"learning rate {lr:.4f}, from weight {start[0]:.4f}, bias {start[1]:.4f}")
for beta, path in paths.items():
    print(f"  beta {beta:g}: {away(path)[-1]:.6f} away, at ({path[-1, 0]:.6f}, {path[-1, 1]:.6f})")
if (args.steps, args.lr, args.beta) == (50, 1, 0.6):
    left = np.abs((paths[0][5] - best) / OFFSET)
    common.claim(
        "Five steps of gradient descent leave less than a tenth of the bias's distance, but more "
        "than a third of the weight's",
        left[1] < 1 / 10 and left[0] > 1 / 3, f"{left[1]:.1%} and {left[0]:.1%}",
    )  # fmt: skip
    ends = {beta: away(path)[-1] for beta, path in paths.items()}
    tuned_end = away(tuned[times])[-1]
    common.claim(
        "With beta 0.6, the path ends nearer to the lowest point than gradient descent at the best "
        "of twelve rates",
        ends[0.6] < tuned_end,
        f"{ends[0.6]:.5f}, against {tuned_end:.5f} at {times:.1f} times the rate",
    )
    late, plain = away(paths[0.9])[-10:].mean(), away(paths[0])[-10:].mean()
    common.claim(
        "With beta 0.9, the last ten steps are farther away on average than those of gradient "
        "descent at the same rate", late > plain, f"{late:.3f}, against {plain:.3f}",
    )  # fmt: skip
    expected = min(ends, key=lambda beta: abs(beta - predicted))
    common.claim(
        "Among the four betas, the one that ends nearest is the one closest to the best for a "
        "quadratic", min(ends, key=ends.get) == expected, f"{expected:g}, near {predicted:.2f}",
    )  # fmt: skip
else:
    print("No claims about the paths: they are for the default --steps, --lr and --beta")

# %% [markdown]
# The valley from above, one panel for each β; darker is higher.

# %%
points = np.concatenate(list(paths.values()))
low, high = points.min(0) - 0.8, points.max(0) + 0.6
size = 16 if args.quick else 36
weights, biases = np.linspace(low[0], high[0], size), np.linspace(low[1], high[1], size)
with mg.no_grad():
    surface = np.array([[loss_at(w, b).item() for w in weights] for b in biases])
bottom, height = surface.min(), np.ptp(surface)
levels = bottom + height * np.linspace(0, 1, 10) ** 2  # closer together at the bottom


def draw_valley(axes):
    axes.contourf(weights, biases, surface, levels, cmap="Greys", vmax=bottom + 1.6 * height)
    axes.plot(*best, "*", color="black", markersize=14, label="lowest point")
    axes.grid(False)
    axes.set(aspect="equal", xlabel="weight of class 0", ylabel="bias of class 7")


def draw_path(axes, beta, path):
    axes.plot(*path.T, ".-", color=COLOURS.get(beta, RED), linewidth=1.5, markersize=8)
    draw_valley(axes)  # last, so that the star lies on the path
    axes.set_title(f"β = {beta:g}: {away(path)[-1]:.2g} away after {args.steps} steps")


figure, panels = plt.subplots(2, 2, figsize=(11, 7.6), sharex=True, sharey=True)
for axes, (beta, path) in zip(panels.flat, paths.items()):
    draw_path(axes, beta, path)
    axes.label_outer()
figure.savefig(args.out / "5_momentum.png")
print(f"Picture: {args.out / '5_momentum.png'}")

# %% [markdown]
# How far each path still has to go, along the floor and across the valley.

# %%
titles = "weight: along the floor (small curvature)", "bias: across it (large curvature)"
figure, panels = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
for i, (axes, title) in enumerate(zip(panels, titles)):
    for beta, path in paths.items():
        axes.plot(np.abs(path[:, i] - best[i]), color=COLOURS[beta], label=f"momentum β = {beta:g}")
    left = np.abs(tuned[times][:, i] - best[i])
    axes.plot(left, "k--", linewidth=1, label="β = 0, best of twelve rates")
    axes.set(title=title, xlabel="step", yscale="log")
panels[0].set(ylim=(1e-6, None), ylabel="distance to the lowest point")
panels[0].legend(loc="lower left")
figure.savefig(args.out / "5_distance.png")
print(f"Picture: {args.out / '5_distance.png'}")

# %% [markdown]
# The paths together, step by step.

# %%
figure, axes = plt.subplots(figsize=(6.5, 4.6))
style = {"markersize": 11, "markevery": [-1], "linewidth": 1.5}  # a ball and its trail
lines = {
    beta: axes.plot(*start, "o-", color=COLOURS[beta], label=f"β = {beta:g}", **style)[0]
    for beta in (0.9, 0.0, args.beta)  # the last one lies on top
}
draw_valley(axes)
handles = sorted(axes.lines, key=lambda line: line.get_label())
axes.legend(handles=handles, loc="lower left", framealpha=1, ncols=4, columnspacing=1)
axes.set_title("step 0")
figure.canvas.draw()
figure.set_layout_engine("none")  # keeps the first frame's layout: faster, and smaller
shown = range(0, args.steps + 1, 16 if args.quick else 1)
writer = PillowWriter(fps=6)
with writer.saving(figure, args.out / "5_momentum.gif", dpi=None):
    for step in common.progress(shown, "animation"):
        for beta, line in lines.items():
            line.set_data(*paths[beta][: step + 1].T)
        axes.set_title(f"Gradient descent (β = 0) and momentum: step {step}")
        writer.grab_frame()
print(f"Picture: {args.out / '5_momentum.gif'}")

# %%
common.sliders(
    lambda beta, rate: draw_path(plt.subplots()[1], beta, path_from(start, rate / largest, beta)),
    beta=(0, 0.95, 0.05),
    rate=(0.1, 2, 0.1),
)
