"""The data: what a network sees of a digit, and why the pixels are normalised.

python examples/2_data.py                the digits that come with scikit-learn
python examples/2_data.py --data mnist   MNIST
"""

# %%
import common
from common import BLUE, ORANGE, RED

import matplotlib.pyplot as plt
import numpy as np

import minigrad as mg
from minigrad import functional as F, nn, optim

args = common.arguments(__doc__, steps=(100, "steps of gradient descent at each rate", 10))
train_set, test_set = common.load(args.data)

# %% [markdown]
# An image is 28 x 28 numbers, from 0 for the paper to 255 for the blackest ink. None is negative,
# and the scale is arbitrary. To normalise them, we subtract the mean and divide by the standard
# deviation.
#
# Both come from the training set, and the test set is normalised with the same two numbers. A
# model in use cannot know the statistics of the images to come. A test with statistics of its
# own would not show how the model does on them.

# %%
images, test_images = train_set.data.numpy(), test_set.data.numpy()  # normalised
mean, std = train_set.mean, train_set.std
print(f"{len(train_set)} images to train, {len(test_set)} to test")
print(f"mean and standard deviation of the training set, 0 to 255: {mean:.4f} and {std:.4f}")
print(f"after normalisation, training set: {images.mean():.4f} and {images.std():.4f}")
print(f"after normalisation, test set: {test_images.mean():.4f} and {test_images.std():.4f}")
print(f"paper becomes {images.min():.4f}, the blackest ink {images.max():.4f}")

# %% [markdown]
# These are two digits, with the number of each pixel written into it. Once normalised, paper is
# below 0 (blue) and dark ink above 0 (red).

# %%
order = np.random.default_rng(args.seed).permutation(len(train_set))
columns = 1 if args.quick else 2
width = 1.2 + 3.25 * columns
edges = {"left": 0.01, "right": 1 - 0.85 / width, "bottom": 0.01, "top": 0.95, "wspace": 0.04}
# Without a layout engine, which would lay out thousands of numbers twice
figure, rows = plt.subplots(
    2, columns, figsize=(width, 7), squeeze=False, layout="none", gridspec_kw=edges
)
limit = images.max()
ink, around_0 = {"vmin": 0, "vmax": 255}, {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
for row, scale, offset, places, dark, label, look in (
    (rows[0], std, mean, 0, 0.5, "as stored", ink),
    (rows[1], 1, 0, 1, 0.85, "normalised", around_0),
):
    for axes, index in zip(row, order):
        pixels = images[index] * scale + offset
        drawn = axes.imshow(pixels, **look)
        for (i, j), value in np.ndenumerate(pixels):
            text = f"{value.round(1) + 0.0:.{places}f}".replace("0.", ".")  # + 0.0: no "-0.0"
            colour = "white" if drawn.norm(value) > dark else "black"
            axes.text(j, i, text, color=colour, size=3.8, ha="center", va="center")
        axes.grid(False)
        axes.set(xticks=[], yticks=[], title=f"{train_set.targets[index].item()}, {label}")
    figure.colorbar(drawn, ax=row, pad=0.01, fraction=0.025, aspect=30, label=f"pixel, {label}")
figure.savefig(args.out / "2_data_digits.png", dpi=215)  # small numbers

# %% [markdown]
# Normalisation shifts and rescales the histogram and changes nothing else, so one picture with
# two scales shows both.

# %%
stored_edges = np.arange(-4, 261, 8)
counts, _ = np.histogram(images, (stored_edges - mean) / std)
heights = 100 * counts / images.size
paper = 100 * (images == images.min()).mean()
black = 100 * (images > (249.5 - mean) / std).mean()
grey = 100 - paper - black
print(f"Pixels: {paper:.1f}% paper (0), {grey:.1f}% grey, {black:.1f}% black (250 and above)")
common.claim("More than half of the pixels are paper", paper > 50, f"{paper:.1f}%")

figure, axes = plt.subplots(figsize=(8, 4.6))
axes.stairs(heights, stored_edges, fill=True, color=BLUE)
axes.axvline(mean, color=RED, label="mean")
axes.axvspan(mean - std, mean + std, color=RED, alpha=0.15, label="± one standard deviation")
top = 1.5 * np.sort(heights)[-2]
text = f"paper: {paper:.0f}%, far above\nthe top of this picture"
axes.annotate(text, (4, top), (70, 0.9 * top), arrowprops={"arrowstyle": "->"}, va="center")
axes.set(xlabel="pixel as stored (0 to 255)", ylabel="share of the pixels, in bins of 8 (%)")
axes.set_ylim(0, top)
above = axes.secondary_xaxis(
    "top", functions=(lambda stored: (stored - mean) / std, lambda value: value * std + mean)
)
above.set_xlabel("the same pixel, normalised (standard deviations from the mean)")
axes.legend(loc="upper right")
figure.savefig(args.out / "2_data_histogram.png")

# %% [markdown]
# Our network is an MLP (multi-layer perceptron). Its first layer computes 50 hidden units, each a
# weighted sum of the 784 pixels; ReLU sets the negative ones to 0. The second layer computes 10
# outputs, one for each class, here a digit. Log-softmax turns them into log-probabilities. The
# loss is the negative log-likelihood: the mean of -log(probability of the right class).
#
# Why normalise? The gradient of a weight in the first layer is proportional to its input, so the
# scale of the inputs decides which learning rates are too large. Dividing by 255 corrects the
# scale. It leaves all inputs on one side of 0, so all images have a large part in common. In that
# direction the loss has its largest curvature, which limits the rate in all directions.
# Subtracting the mean removes much of it.
#
# We train the same network on the same images from the same start, on three scales.

# %%
normalised, targets = images[order[:1000]].reshape(-1, 784), train_set.targets[order[:1000]]
stored = normalised * std + mean
scales = {
    "stored, 0 to 255": (stored, RED, "s:"),
    "divided by 255, 0 to 1": (stored / 255, ORANGE, "^--"),
    "normalised": (normalised, BLUE, "o-"),
}
rates = 10 ** np.arange(-4.5, 0.6, 0.5)


def loss_after(inputs, lr):
    """The loss after the steps, always from the same start."""
    mg.manual_seed(args.seed)
    model = nn.MLP(in_dim=784, out_dim=10, hidden_dims=[50])
    for _ in range(args.steps):
        optim.gradient_update(F.nll_loss(model(inputs), targets), model.parameters(), lr)
    return F.nll_loss(model(inputs), targets).item()


jobs = common.progress([(name, lr) for name in scales for lr in rates], "training")
ends = {job: loss_after(mg.tensor(scales[job[0]][0]), job[1]) for job in jobs}

figure, axes = plt.subplots(figsize=(9, 5))
axes.axhline(np.log(10), color="gray", linewidth=1, label="guessing: log 10")
print(f"\nLoss after {args.steps} steps at the rates", *(f"{lr:.2g}" for lr in rates))
best, share = {}, {}
for name, (inputs, colour, style) in scales.items():
    losses = np.array([ends[name, lr] for lr in rates])
    best[name] = losses.min()
    print(f"{name:>22}:", *(f"{loss:.3f}" for loss in losses))
    sizes = np.linalg.eigvalsh(inputs.T @ inputs)  # of the inputs, along each direction
    share[name] = sizes[-1] / sizes.sum()
    label = f"{name}: at best {losses.min():.3f}, at rate {rates[losses.argmin()]:.2g}"
    axes.loglog(rates, losses, style, color=colour, label=label)
axes.set(xlabel="learning rate", ylabel=f"loss after {args.steps} steps (nats)")
axes.set_title("The same network learns most from normalised inputs")
axes.legend(loc="lower left")
figure.savefig(args.out / "2_data_rates.png")

claim, (raw, scaled, normal) = common.claim, scales
good = min(rates, key=lambda lr: ends[normal, lr])
numbers = f"{best[normal]:.3f}, {best[scaled]:.3f}, {best[raw]:.3f}"
claim("At the best rate for each, normalised inputs reach less than half the loss of stored ones",
      best[normal] < best[raw] / 2, numbers)  # fmt: skip
claim("At the best rate for each, normalised inputs reach a lower loss than those divided by 255",
      best[normal] < best[scaled], numbers)  # fmt: skip
claim("At the best rate for normalised inputs, the loss of stored ones ends above 2 nats",
      ends[raw, good] > 2, f"{ends[raw, good]:.3f}")  # fmt: skip
claim("Inputs divided by 255 have a larger part in common than normalised ones",
      share[scaled] > share[normal], f"{share[scaled]:.0%}, {share[normal]:.0%}")  # fmt: skip
names = ("digits", "histogram", "rates")
print("Pictures:", ", ".join(str(args.out / f"2_data_{name}.png") for name in names))
