"""Train a multi-layer perceptron on handwritten digits by mini-batch gradient descent.

python examples/train_mlp.py                    MNIST if it can be had, else the digits
python examples/train_mlp.py --optimizer adam   one of the variants of gradient descent
python examples/train_mlp.py --hidden           softmax regression: no hidden layer
python examples/train_mlp.py --help             all settings
"""

import common

import argparse
import math
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

import minigrad as mg
from minigrad import datasets, functional as F, nn, optim, plot

EPOCHS = {"mnist": 10, "digits": 60}  # the digits are so few that they need more rounds
OPTIMIZERS = {  # with the learning rates that they have by default
    "gd": (optim.SGD, 0.1),
    "momentum": (lambda params, lr: optim.SGD(params, lr, momentum=0.9), 0.02),
    "rmsprop": (optim.RMSprop, 0.001),
    "adam": (optim.Adam, 0.001),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    count, positive, seed = (
        common.number(int, 1),
        common.number(float, 1e-12),
        common.number(int, 0),
    )
    option(
        "--data",
        choices=["auto", "mnist", "digits"],
        default="auto",
        help="MNIST is looked for in $MINIGRAD_DATA, or else in data/ (default: %(default)s, "
        "which is MNIST if it is there or can be downloaded, else scikit-learn's digits)",
    )
    option(
        "--hidden",
        type=count,
        nargs="*",
        default=[200, 100, 50],
        metavar="UNITS",
        help="sizes of the hidden layers, separated by spaces (default: 200 100 50)",
    )
    option(
        "--epochs",
        type=count,
        help=f"rounds over the data (default: {EPOCHS['mnist']} for MNIST, "
        f"{EPOCHS['digits']} for the digits)",
    )
    option("--batch-size", type=count, default=64, help="examples per step (default: %(default)s)")
    option(
        "--optimizer",
        choices=OPTIMIZERS,
        default="gd",
        help="gradient descent, with momentum 0.9, RMSprop or Adam (default: %(default)s)",
    )
    rates = ", ".join(f"{lr:g} for {name}" for name, (_, lr) in OPTIMIZERS.items())
    option(
        "--lr",
        type=positive,
        help=f"learning rate of the first step; it falls evenly to 0 (default: {rates})",
    )
    option(
        "--seed",
        type=seed,
        default=0,
        help="of the weights, the validation split and the batches (default: %(default)s)",
    )
    option(
        "--out",
        type=Path,
        default=Path("figures"),
        metavar="FOLDER",
        help="for the picture train_mlp.png (default: %(default)s)",
    )
    option(
        "--save",
        type=Path,
        metavar="MODEL.npz",
        help="where to save the parameters, for mg.load (default: nowhere)",
    )
    args = parser.parse_args()
    args.lr = args.lr or OPTIMIZERS[args.optimizer][1]
    return args


def load(name):
    """The data set called `name`, and the name of the one that was loaded."""
    if name != "auto":
        return common.load(name), name
    try:
        return common.load_mnist(), "mnist"
    except (ImportError, OSError, RuntimeError) as error:
        print(f"No MNIST: {error}")
    return common.load("digits"), "digits"


@mg.no_grad()
def evaluate(model, inputs, targets):
    """Loss, accuracy and the predicted classes."""
    log_probs = model(inputs)
    predictions = log_probs.argmax(1)
    return (
        F.nll_loss(log_probs, targets).item(),
        (predictions == targets).float().mean().item(),
        predictions,
    )


def train(model, train_data, valid_data, args):
    """Descend for `args.epochs` epochs, or until Ctrl-C; return the history of the curves."""
    optimizer = OPTIMIZERS[args.optimizer][0](model.parameters(), args.lr)
    history = {"train_loss": [], "train_accuracy": [], "valid_loss": [], "valid_accuracy": []}
    steps = math.ceil(len(train_data[0]) / args.batch_size) * args.epochs
    try:
        with tqdm(total=steps, unit="step", mininterval=0.5) as bar, common.interruptible():
            for epoch in range(1, args.epochs + 1):
                bar.set_description(f"epoch {epoch}/{args.epochs}")
                losses, correct = [], 0
                for inputs, targets in datasets.minibatches(*train_data, args.batch_size):
                    log_probs = model(inputs)
                    loss = F.nll_loss(log_probs, targets)
                    optimizer.lr = args.lr * (1 - bar.n / steps)  # ever smaller: the noise of
                    optimizer.zero_grad()  # mini-batches then no longer moves the parameters
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item() * len(targets))
                    correct += (log_probs.argmax(1) == targets).sum().item()
                    bar.update()
                    if not math.isfinite(losses[-1]):
                        smaller = min(args.lr / 10, OPTIMIZERS[args.optimizer][1])
                        raise SystemExit(
                            f"error: the loss is {losses[-1]} at step {bar.n} (epoch {epoch}): "
                            f"the steps are too large. Try --lr {smaller:g}"
                        )
                loss, accuracy, _ = evaluate(model, *valid_data)
                history["train_loss"].append(sum(losses) / len(train_data[0]))
                history["train_accuracy"].append(correct / len(train_data[0]))
                history["valid_loss"].append(loss)
                history["valid_accuracy"].append(accuracy)
                bar.set_postfix_str(
                    f"loss {history['train_loss'][-1]:.4f}, valid loss {loss:.4f}, "
                    f"valid accuracy {accuracy:.2%}"
                )
    except KeyboardInterrupt:
        print("Stopped: here is what was learnt so far.")
    return history


def report_confusions(targets, predictions):
    """Print for each digit how many are recognised and what it is most often taken for."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (targets.numpy(), predictions.numpy()), 1)
    print("digit   right   most often taken for")
    for digit, row in enumerate(counts):
        total, right = row.sum(), row[digit]
        row[digit] = 0
        mistake = f"{row.argmax()} ({row.max()} of {total})" if row.any() else "nothing else"
        print(f"{digit:5} {right / total:7.1%}   {mistake}")


def main():
    args = parse_arguments()
    try:  # now rather than after the training
        args.out.mkdir(parents=True, exist_ok=True)
        if args.save:
            args.save.parent.mkdir(parents=True, exist_ok=True)
            if args.save.is_dir():
                raise IsADirectoryError(f"--save wants a file, but {args.save} is a folder")
    except OSError as error:
        raise SystemExit(f"error: {error}")
    mg.manual_seed(args.seed)
    (train_set, test_set), name = load(args.data)
    args.epochs = args.epochs or EPOCHS[name]

    order = np.random.default_rng(args.seed).permutation(len(train_set))
    valid, rest = order[: len(order) // 10], order[len(order) // 10 :]
    train_data = train_set.data[rest], train_set.targets[rest]
    valid_data = train_set.data[valid], train_set.targets[valid]
    title = {"mnist": "MNIST", "digits": "scikit-learn's digits"}[name]
    print(f"Data: {title}, {len(rest)} to train, {len(valid)} to validate, {len(test_set)} to test")

    model = nn.MLP(hidden_dims=args.hidden)
    print(model)
    started = time.perf_counter()
    history = train(model, train_data, valid_data, args)
    seconds = time.perf_counter() - started

    _, accuracy, predictions = evaluate(model, test_set.data, test_set.targets)
    epochs = len(history["train_loss"])
    print(f"Test accuracy: {accuracy:.2%} after epoch {epochs}, {seconds:.1f} s of training")
    report_confusions(test_set.targets, predictions)
    if epochs:
        picture = args.out / "train_mlp.png"
        layers = "-".join(map(str, [784, *args.hidden, 10]))
        plot.training_curves(
            history, picture, f"{title}: MLP {layers}, test accuracy {accuracy:.2%}"
        )
        print(f"Curves: {picture}")
    if args.save:
        with common.interruptible(ends=True):
            mg.save(model.state_dict(), args.save)
        print(f"Parameters: {args.save}")


if __name__ == "__main__":
    main()
