"""Train a multi-layer perceptron on handwritten digits by mini-batch gradient descent.

python examples/train_mlp.py                    MNIST if available, else the small digits
python examples/train_mlp.py --optimizer adam   another variant of gradient descent
python examples/train_mlp.py --hidden           softmax regression: no hidden layer
python examples/train_mlp.py --help             all settings

mpiexec -n 4 python -m mpi4py examples/train_mlp.py   the same on four processes, which share
                                                      each batch (see docs/distributed.md)
"""

# %%
import common

import argparse
import json
import math
import os
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

import minigrad as mg
from minigrad import datasets, functional as F, nn, optim, plot
from minigrad.creation import generator

# %% [markdown]
# The curvature of the loss limits the learning rate. If λ is the largest eigenvalue of the
# Hessian, gradient descent overshoots at rates above 2 / λ, and the accuracy swings from epoch
# to epoch. So the digits get a smaller default rate, and more steps: batches of 16.

# %%
EPOCHS = {"mnist": 10, "digits": 60}  # there are few digits, so they need more epochs
BATCH_SIZE = {"mnist": 64, "digits": 16}
OPTIMIZERS = {  # with their default learning rates
    "gd": (optim.SGD, {"mnist": 0.1, "digits": 0.01}),
    "momentum": (partial(optim.SGD, momentum=0.9), {"mnist": 0.02, "digits": 0.005}),
    "rmsprop": (optim.RMSprop, {"mnist": 0.001, "digits": 0.0003}),
    "adam": (optim.Adam, {"mnist": 0.001, "digits": 0.0003}),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    count, positive = common.number(int, 1), common.number(float, 1e-12)
    # fmt: off
    option("--data", choices=["auto", "mnist", "digits"], default="auto",
           help="MNIST is read from $MINIGRAD_DATA or data/; auto means MNIST if it is there or "
           "can be downloaded, else scikit-learn's digits (default: %(default)s)")
    option("--hidden", type=count, nargs="*", default=[200, 100, 50], metavar="UNITS",
           help="sizes of the hidden layers, separated by spaces (default: 200 100 50)")
    option("--epochs", type=count, help=f"passes over the data (default: {EPOCHS['mnist']} for "
           f"MNIST, {EPOCHS['digits']} for the digits)")
    option("--batch-size", type=count, help=f"examples per step (default: {BATCH_SIZE['mnist']} "
           f"for MNIST, {BATCH_SIZE['digits']} for the digits)")
    option("--optimizer", choices=OPTIMIZERS, default="gd",
           help="gradient descent, with momentum 0.9, RMSprop or Adam (default: %(default)s)")
    rates = ", ".join(f"{lr['mnist']:g} or {lr['digits']:g} for {name}"
                      for name, (_, lr) in OPTIMIZERS.items())
    option("--lr", type=positive, help="learning rate of the first step; it falls linearly to 0 "
           f"(default, for MNIST or the digits: {rates})")
    option("--seed", type=common.number(int, 0), default=0,
           help="of the weights, the validation split and the batches (default: %(default)s)")
    option("--threads", type=count, help="how many threads share a large product "
           f"(default: {mg.get_num_threads()})")
    option("--out", type=Path, default=Path("figures"), metavar="FOLDER",
           help="for the pictures (default: %(default)s)")
    option("--save", type=Path, metavar="FILE.npz",
           help="after each epoch, save all that --resume needs: parameters, optimiser, history")
    option("--resume", action="store_true",
           help="continue from the file given by --save, if it is there")
    # fmt: on
    args = parser.parse_args(common.command_line())
    common.make_folder(args.out, "--out")  # now rather than after the training
    if args.resume and not args.save:
        parser.error("--resume needs --save FILE.npz, the file to continue from")
    if args.save:
        common.make_folder(args.save.parent, "--save")
        if args.save.is_dir():
            raise SystemExit(f"error: --save wants a file, but {args.save} is a folder")
    return args


def find(name):
    """The name of the data set to use; MNIST is downloaded if it is missing."""
    if name == "auto":
        try:
            common.read("mnist")
            return "mnist"
        except (ImportError, OSError, RuntimeError) as error:
            print(f"No MNIST: {error}")
            return "digits"
    common.load(name, announce=False)
    return name


world = common.world()  # one process, or those that mpiexec has started
args = common.once(parse_arguments)
if args.threads:
    mg.set_num_threads(args.threads)
mg.manual_seed(args.seed)
args.data = data = common.once(lambda: find(args.data))
train_set, test_set = common.load(data, announce=False)
args.epochs = args.epochs or EPOCHS[data]
args.batch_size = args.batch_size or BATCH_SIZE[data]
make_optimizer, rates = OPTIMIZERS[args.optimizer]
args.lr = args.lr or rates[data]
names = "data", "hidden", "epochs", "batch_size", "optimizer", "lr", "seed"
settings = {name: getattr(args, name) for name in names}  # of one training, also if interrupted

order = np.random.default_rng(args.seed).permutation(len(train_set))
valid, rest = order[: len(order) // 10], order[len(order) // 10 :]
train_data = train_set.data[rest], train_set.targets[rest]
valid_data = train_set.data[valid], train_set.targets[valid]
title = common.TITLES[data]
print(f"Data: {title}, {len(rest)} to train, {len(valid)} to validate, {len(test_set)} to test")
if world.size > 1:
    print(f"Processes: {world.size}; threads of each: {mg.get_num_threads()}")

model = nn.MLP(hidden_dims=args.hidden)
print(model)

# %% [markdown]
# A checkpoint holds all that the next steps depend on: the parameters, the state of the optimiser
# and of the random generator, the settings, and the curves so far.


# %%
def save_checkpoint(parts, rows):
    """Write what `resume` needs, completely or not at all (see `mg.save`)."""
    states = {name: part.state_dict() for name, part in parts.items()}
    state = {f"{name}.{key}": numbers for name in states for key, numbers in states[name].items()}
    rest = json.dumps([settings, generator.bit_generator.state, rows])
    state["rest"] = np.frombuffer(rest.encode(), np.uint8)  # a file holds arrays of numbers only
    mg.save(state, args.save)


def read_checkpoint():
    """Return the saved states, random state and rows, or None before the first checkpoint."""
    if not args.save.exists():  # so the same command starts a job and restarts it
        print(f"Nothing to resume: {args.save} does not exist yet")
        return None
    try:
        state = mg.load(args.save)
        before, random, rows = json.loads(state.pop("rest").numpy().tobytes())
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise SystemExit(f"error: {args.save} is not a checkpoint: {error!r}")
    if changed := [name for name in settings if before.get(name) != settings[name]]:
        of_both = (f"{name} {before.get(name)}, now {settings[name]}" for name in changed)
        raise SystemExit(f"error: {args.save} was made with other settings: {'; '.join(of_both)}")
    print(f"Resumed: {args.save}, after epoch {len(rows) - 1}")
    return state, random, rows


def resume(parts):
    """Continue from the checkpoint, if there is one; return its rows."""
    if not (found := common.once(read_checkpoint)):
        return []
    state, generator.bit_generator.state, rows = found
    for name, part in parts.items():
        start = f"{name}."
        own = {key.removeprefix(start): state[key] for key in state if key.startswith(start)}
        part.load_state_dict(own)
    return rows


# %% [markdown]
# The model is not trained on the validation examples. Before the first step, their loss is about
# that of guessing, log 10 = 2.30, and about nine of ten are misread: epoch 0 of the curves.


# %%
@mg.no_grad()
def evaluate(model, inputs, targets):
    """Loss, accuracy and the log-probabilities."""
    log_probs = model(inputs)
    accuracy = (log_probs.argmax(1) == targets).float().mean().item()
    return F.nll_loss(log_probs, targets).item(), accuracy, log_probs


def back_propagate(model, inputs, targets):
    """Compute the gradients; return the loss and the accuracy, both means over the examples."""
    if not len(targets):  # a batch can be smaller than the number of processes
        return 0.0, 0.0
    log_probs = model(inputs)
    loss = F.nll_loss(log_probs, targets)
    loss.backward()
    return loss.item(), (log_probs.argmax(1) == targets).float().mean().item()


def why_slow(waited):
    """A line that says why the steps are much slower than they could be; None if they are not.

    `waited` is the share of the time in which the training had no CPU. It computes or spins all
    the time, so the share is nearly 0 on any machine that has nothing else to do.
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "Slow: NUMBA_DISABLE_JIT is set, so the kernels run as plain Python."
    if waited < 0.25:
        return None
    crowded = mg.get_num_threads() > (os.cpu_count() or 1)
    cause = "there are more --threads than CPUs" if crowded else "other processes use them"
    return f"Slow: the training spends {waited:.0%} of its time waiting for a CPU, because {cause}."


def train(model, what, checkpoints=False):
    """Descend for `args.epochs` epochs, or until Ctrl-C; return the history of the curves."""
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters, lr=args.lr)
    parts = {"model": model, "optimizer": optimizer}  # of a checkpoint
    rows = []  # one per epoch
    if checkpoints and args.resume:
        rows = resume(parts)
    world.broadcast(parameters)  # each process starts from the same numbers
    per_epoch = math.ceil(len(rest) / args.batch_size)
    step, steps = per_epoch * max(len(rows) - 1, 0), per_epoch * args.epochs
    started = None
    bar_format = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"  # 80 columns
    bar = tqdm(
        total=steps, initial=step, mininterval=0.5, dynamic_ncols=True, bar_format=bar_format,
        disable=world.rank > 0,
    )  # fmt: skip
    with bar, common.interruptible():
        try:
            for epoch in range(len(rows), args.epochs + 1):
                bar.set_description(f"{what} {max(epoch, 1)}/{args.epochs}", refresh=False)
                loss_sum = correct = 0.0
                batches = datasets.minibatches(*train_data, args.batch_size) if epoch else ()
                for batch in batches:
                    inputs, targets = world.shard(*batch)
                    optimizer.lr = args.lr * (1 - step / steps)  # ever smaller: at the end, the
                    optimizer.zero_grad()  # noise of mini-batches no longer moves the parameters
                    means = back_propagate(model, inputs, targets)
                    loss, right = world.average_gradients(parameters, len(targets), *means)
                    optimizer.step()
                    step += 1
                    loss_sum += loss * len(batch[1])
                    correct += right * len(batch[1])
                    if started is None:  # from here on: the first step may compile the kernels
                        started, computed = time.perf_counter(), time.thread_time()
                    bar.update()
                    if not math.isfinite(loss):  # on all ranks alike, and one of them says so
                        raise SystemExit(
                            world.rank
                            or f"error: the loss is {loss} at step {step} (epoch {epoch}): the "
                            f"steps are too large. Try --lr {min(args.lr / 10, rates[data]):g}"
                        )
                loss, accuracy, _ = evaluate(model, *valid_data)
                rows.append((loss_sum / len(rest), correct / len(rest), loss, accuracy))
                if checkpoints and args.save and world.rank == 0:
                    save_checkpoint(parts, rows)
                bar.set_postfix_str(f"valid loss {loss:.4f}, accuracy {accuracy:.2%}")
                if epoch == 0:  # untrained
                    continue
                seconds = time.perf_counter() - started
                waited = 1 - (time.thread_time() - computed) / seconds
                if seconds > 2 and not slow and (why := why_slow(waited)):
                    slow.append(why)
                    bar.write(why)
        except KeyboardInterrupt:
            bar.write("Stopped: here is what was learnt so far.")
    train_loss, train_accuracy, valid_loss, valid_accuracy = zip(*rows) if rows else [()] * 4
    return {
        "train_loss": train_loss[1:], "train_accuracy": train_accuracy[1:],
        "valid_loss": valid_loss, "valid_accuracy": valid_accuracy,
    }  # fmt: skip


slow = []  # the line that says why the steps are slow, once it has been printed
started = time.perf_counter()
history = train(model, "epoch", checkpoints=True)
seconds = time.perf_counter() - started
epochs = len(history["train_loss"])

# %% [markdown]
# How far can the accuracy be trusted? Each test image is read rightly or wrongly, so the share
# p of the N that are right has the standard error √(p (1 - p) / N) of a binomial distribution.
# Another N images would give a share that differs by one or two such errors.

# %%
_, accuracy, log_probs = evaluate(model, test_set.data, test_set.targets)
deviation = math.sqrt(accuracy * (1 - accuracy) / len(test_set))
print(f"Test accuracy: {100 * accuracy:.1f}% ± {100 * deviation:.1f} (binomial standard error "
      f"of {len(test_set)} images) after epoch {epochs}, {seconds:.1f} s of training")  # fmt: skip

written, read = test_set.targets.numpy(), log_probs.argmax(1).numpy()
counts = np.zeros((10, 10), int)
np.add.at(counts, (written, read), 1)
print("digit   right   most often taken for")
for digit, row in enumerate(counts):
    total, right = row.sum(), row[digit]
    row[digit] = 0
    mistake = f"{row.argmax()} ({row.max()} of {total})" if row.any() else "nothing else"
    print(f"{digit:5} {right / total:7.1%}   {mistake}")
if args.save:
    print(f"Checkpoint: {args.save}")

# %% [markdown]
# Which digits are misread, and how sure was the model? The surest mistakes come first.

# %%
probabilities = np.exp(log_probs.numpy().max(1))
wrong = np.flatnonzero(read != written)
shown = wrong[np.argsort(-probabilities[wrong])][:24]
if len(shown) and world.rank == 0:
    lines = math.ceil(len(shown) / 8)
    figure, panels = plt.subplots(lines, 8, figsize=(11, 0.6 + 1.9 * lines))
    surest = f"; the {len(shown)} surest mistakes" if len(shown) < len(wrong) else ""
    figure.suptitle(f"Misread: {len(wrong)} of {len(test_set)} (probability given){surest}")
    for axes in panels.flat:
        axes.axis("off")
    for axes, i in zip(panels.flat, shown):
        axes.imshow(test_set.data[i].numpy())
        axes.set_title(f"{written[i]}, read as {read[i]}\n({probabilities[i]:.0%})", fontsize=12)
    picture = args.out / "train_mlp_mistakes.png"
    figure.savefig(picture)
    print(f"Mistakes: {picture}")

# %% [markdown]
# Is the hidden layer worth it? The linear model, softmax regression, is trained likewise.

# %%
baselines = {}
if epochs == args.epochs and args.hidden:
    linear = train(nn.MLP(hidden_dims=[]), "linear")
    if len(linear["train_loss"]) == args.epochs:
        baselines["linear model, validation"] = (
            linear["valid_loss"][-1],
            linear["valid_accuracy"][-1],
        )
        both = history["valid_accuracy"][-1], linear["valid_accuracy"][-1]
        print("Validation accuracy: {:.1%} (the linear model: {:.1%})".format(*both))

picture = args.out / "train_mlp.png"
title += f": MLP {'-'.join(map(str, [784, *args.hidden, 10]))}, test accuracy "
title += f"{100 * accuracy:.1f}% ± {100 * deviation:.1f}"
print(f"Curves: {picture}")
if world.rank == 0:
    plot.training_curves(history, picture, title, baselines)  # a notebook shows it
