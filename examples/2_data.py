"""The data: what a network sees of a digit, and why it is normalised.

python examples/2_data.py --data mnist
"""

# %%
import common
from common import BLUE, RED

import matplotlib.pyplot as plt
import numpy as np

args = common.arguments(__doc__)
train_set, test_set = common.load(args.data)

# %% [markdown]
# An image is 28 x 28 numbers, 0 for the paper and 255 for the ink. Most of them are 0,
# none is negative, and their scale is arbitrary. Gradient descent works best on inputs that are
# neither large nor all of one sign: we subtract the mean and divide by the standard deviation.
#
# Both are those of the training set, and the test set is normalised with the same two numbers.
# Its own statistics are something that a model in use could not know: whoever uses them, even
# for something as harmless as a mean, no longer tests what will happen on new data.

# %%
images, test_images = train_set.data.numpy(), test_set.data.numpy()  # normalised
mean, std = train_set.mean, train_set.std
print(f"{len(train_set)} images to train, {len(test_set)} to test")
print(f"mean and standard deviation of the training set, 0 to 255: {mean:.4f} and {std:.4f}")
print(f"after normalisation, training set: {images.mean():.4f} and {images.std():.4f}")
print(f"after normalisation, test set: {test_images.mean():.4f} and {test_images.std():.4f}")
print(f"paper is {images.min():.4f}, ink is {images.max():.4f}")

# %% [markdown]
# Three digits, with the number of every pixel written into it.

# %%
chosen = np.random.default_rng(args.seed).permutation(len(train_set))[:3]
figure, rows = plt.subplots(2, 3, figsize=(30, 20.6), dpi=110, layout="constrained")
for column, index in enumerate(chosen):
    normalised = images[index]
    for axes, image, text in (
        (rows[0, column], normalised * std + mean, "{:.0f}"),
        (rows[1, column], normalised, "{:.1f}"),
    ):
        axes.imshow(image, cmap="gray")
        middle = (image.min() + image.max()) / 2
        for (i, j), value in np.ndenumerate(image):
            colour = "white" if value < middle else "black"
            number = text.format(value.round(1) + 0.0)  # + 0.0: no "-0.0"
            axes.text(j, i, number, color=colour, fontsize=10.5, ha="center", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
    rows[0, column].set_title(
        f"{train_set.targets[index].item()}, as stored (0 to 255)", fontsize=34
    )
    rows[1, column].set_title(f"{train_set.targets[index].item()}, normalised", fontsize=34)
figure.savefig(args.out / "2_data_digits.png")

# %% [markdown]
# The histogram has two heaps, paper and ink, with the greys of the strokes' edges between
# them. Normalisation moves and stretches it, and changes nothing else.

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 4), dpi=110, layout="constrained")
edges = np.arange(-2, 259, 4)
counts, _ = np.histogram(images, (edges - mean) / std)
for axes, middle, width, bins, label in (
    (panels[0], mean, std, edges, "pixel value as stored (0 to 255)"),
    (panels[1], 0, 1, (edges - mean) / std, "pixel value, normalised (standard deviations)"),
):
    axes.stairs(100 * counts / images.size, bins, fill=True, color=BLUE)
    axes.axvline(middle, color=RED, label=f"mean, {middle:.2f}")
    label_of_width = f"± one standard deviation, {width:.2f}"
    axes.axvspan(middle - width, middle + width, color=RED, alpha=0.15, label=label_of_width)
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("share of the pixels (%)")
    axes.legend()
figure.savefig(args.out / "2_data_histogram.png")
print(f"Pictures: {args.out / '2_data_digits.png'}, {args.out / '2_data_histogram.png'}")
