"""Poor conditioning and momentum: a long valley in two parameters of the linear model.

python examples/5_momentum.py --data mnist
"""

# %%
import common
from common import BLUE, RED

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(__doc__, steps=(50, "steps of each path"))
train_set, _ = common.load(args.data)
inputs, targets = train_set.data[:1000].view(-1, 784), train_set.targets[:1000]

# %% [markdown]
# Of the 7,850 parameters of the linear model, a little trained, we free two and freeze the
# others where they are: one weight of class 0, and the bias of class 7. The loss is then a
# surface over a plane, and we can see how gradient descent moves on it.
#
# The weight multiplies a pixel, the bias multiplies 1. Where the normalised pixel is close to
# 0 in most images, the surface hardly bends along the weight: a valley with steep walls and a
# flat floor. How unequal the two are is the condition number, the largest curvature over the
# smallest. We take the pixel with the smallest mean square.

# %%
model = nn.MLP()
for _ in range(100):
    optim.gradient_update(F.nll_loss(model(inputs), targets), model.parameters(), lr=0.1)
frozen_weight, frozen_bias = model.main[0].weight.detach(), model.main[0].bias.detach()
pixel = int((inputs * inputs).mean(dim=0).numpy().argmin())
here_weight, here_bias = np.zeros((10, 784), "f4"), np.zeros(10, "f4")
here_weight[0, pixel] = here_bias[7] = 1
here_weight, here_bias = mg.from_numpy(here_weight), mg.from_numpy(here_bias)


def loss_at(w, b):
    """The loss with the free weight and bias set to the scalars `w` and `b`."""
    weight = frozen_weight * (1 - here_weight) + w * here_weight
    bias = frozen_bias * (1 - here_bias) + b * here_bias
    return F.nll_loss(F.log_softmax(F.linear(inputs, weight, bias), dim=1), targets)


def free(w, b):
    return [mg.tensor(w, requires_grad=True), mg.tensor(b, requires_grad=True)]


# %% [markdown]
# The lowest point, from many steps; the curvature around it, from gradients left and right.

# %%
point, velocity = free(0.0, 0.0), [mg.zeros(()), mg.zeros(())]
for _ in range(1000):
    optim.momentum_update(loss_at(*point), point, velocity, lr=20, beta=0.9)
best = np.array([p.item() for p in point])


def gradient_at(position):
    point = free(*map(float, position))
    loss_at(*point).backward()
    return np.array([p.grad.item() for p in point])


STEP = 0.05
hessian = np.array([
    (gradient_at(best + h) - gradient_at(best - h)) / (2 * STEP) for h in STEP * np.eye(2)
])  # fmt: skip
curvatures = np.linalg.eigvalsh((hessian + hessian.T) / 2)
print(f"weight of class 0 at pixel {divmod(pixel, 28)}, bias of class 7")
print(f"lowest point: weight {best[0]:.4f}, bias {best[1]:.4f}, "
      f"loss {loss_at(*free(*map(float, best))).item():.4f}")  # fmt: skip
print(f"curvatures {curvatures[0]:.4f} and {curvatures[1]:.4f}: "
      f"condition number {curvatures[1] / curvatures[0]:.1f}")  # fmt: skip

# %% [markdown]
# The same start and the same learning rate for both: much more, and the steps across the
# valley would grow. Gradient descent crosses it quickly and then crawls along its floor.
# Momentum overshoots across the valley at first; but along the floor, where every gradient
# points the same way, its steps add up to 1 / (1 - β) times the size.

# %%
start = [float(best[0]) + 6, float(best[1]) - 3]
lr, beta = float(1 / curvatures[1]), 0.6
print(f"learning rate {lr:.4f}, beta {beta}, from weight {start[0]:.4f}, bias {start[1]:.4f}")
paths = {}
for name in ("gradient descent", "momentum"):
    point, velocity = free(*start), [mg.zeros(()), mg.zeros(())]
    path = [start]
    for _ in range(args.steps):
        if name == "momentum":
            optim.momentum_update(loss_at(*point), point, velocity, lr, beta)
        else:
            optim.gradient_update(loss_at(*point), point, lr)
        path.append([p.item() for p in point])
    paths[name] = np.array(path)
for name, path in paths.items():
    print(f"  {name}: distance to the lowest point after {args.steps} steps "
          f"{np.linalg.norm(path[-1] - best):.6f}, "
          f"ends at weight {path[-1, 0]:.6f}, bias {path[-1, 1]:.6f}")  # fmt: skip

# %% [markdown]
# The surface, the valley from above with the two paths, and how far each path still is from
# the lowest point.


# %%
@mg.no_grad()
def losses_on(weights, biases):
    return np.array([[loss_at(mg.tensor(float(w)), mg.tensor(float(b))).item() for w in weights]
                     for b in biases])  # fmt: skip


points = np.concatenate([*paths.values(), best[None]])
low, high = points.min(0), points.max(0)
low, high = low - 0.25 * (high - low), high + 0.25 * (high - low)
weights, biases = np.linspace(low[0], high[0], 31), np.linspace(low[1], high[1], 31)
surface = losses_on(weights, biases)

figure = plt.figure(figsize=(16, 4.8), dpi=110, layout="constrained")
spatial = figure.add_subplot(1, 3, 1, projection="3d")
plane, distance = figure.add_subplot(1, 3, 2), figure.add_subplot(1, 3, 3)
spatial.plot_surface(*np.meshgrid(weights, biases), surface, cmap="viridis", alpha=0.6)
spatial.zaxis.set_rotate_label(False)
spatial.set_zlabel("loss (nats)", labelpad=10, rotation=90)
spatial.set_box_aspect(None, zoom=0.85)  # or the label would be cut off
spatial.view_init(elev=30, azim=-125)
plane.contour(weights, biases, surface, levels=25, cmap="viridis", linewidths=0.8)
plane.plot(*best, "*", color="black", markersize=14, label="lowest point")
for (name, path), colour, marker in zip(paths.items(), (BLUE, RED), "os"):
    height = [loss_at(*free(*map(float, p))).item() for p in path]
    spatial.plot(*path.T, height, color=colour, linewidth=2, zorder=10)
    plane.plot(*path.T, marker=marker, color=colour, markersize=3, linewidth=1, label=name)
    distance.plot(np.linalg.norm(path - best, axis=1), color=colour, label=name)
for axes in (spatial, plane):
    axes.set_xlabel("weight of class 0")
    axes.set_ylabel("bias of class 7")
distance.set_xlabel("step")
distance.set_ylabel("distance to the lowest point")
distance.set_yscale("log")
for axes in (plane, distance):
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
figure.savefig(args.out / "5_momentum.png")
print(f"Picture: {args.out / '5_momentum.png'}")
