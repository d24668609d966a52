"""What the scripts share: Ctrl-C, the command line, data, claims, the look of pictures, sliders.

Import it first, so that Ctrl-C also works during the other imports, which take a second or more.
"""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator


def stop(*_: object) -> None:
    """End the script at once. (An exception can get lost in a callback, or in an import.)"""
    with contextlib.suppress(Exception):  # for example, another print is under way
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, b"Stopped by Ctrl-C.\n")
    os._exit(130)  # what shells expect: 128 plus the number of the signal


@contextlib.contextmanager
def interruptible(ends: bool = False) -> Iterator[None]:
    """Turn the first Ctrl-C inside into a KeyboardInterrupt; the next one ends the script.

    With `ends`, the first one ends it too, once the code inside has removed its half-made files.
    """
    pressed = False

    def first(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, stop)
        raise KeyboardInterrupt

    # In a notebook, or if others would wait for this process, Ctrl-C is left as it is.
    if PROCESSES > 1 or signal.getsignal(signal.SIGINT) is not stop:
        yield
        return
    try:
        signal.signal(signal.SIGINT, first)
        yield
    finally:
        signal.signal(signal.SIGINT, stop)
        if ends and pressed:
            stop()


# How many processes mpiexec or Slurm has started. Each gets one thread, unless told otherwise.
STARTED = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
PROCESSES = max(int(os.environ.get(name, 1)) for name in STARTED)
if PROCESSES > 1 and "OMP_NUM_THREADS" not in os.environ:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

interactive = sys.flags.interactive or hasattr(sys, "ps1") or "ipykernel" in sys.modules
# Where SIGINT is ignored, say in a shell's background job, it stays ignored.
if not interactive and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, stop)
    # Ctrl-C must not stop a script that has reached its end.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)

import argparse
import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from tqdm import tqdm

from minigrad import datasets, manual_seed
from minigrad.datasets import Digits

for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):  # a notebook's streams lack it
        # Their encoding may lack some of our characters. A job that is killed loses no line.
        stream.reconfigure(errors="minigrad.readable", line_buffering=True)

# Colours that are distinct in print and to colour-blind readers (Okabe and Ito)
BLUE, RED, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7"

# Text that is legible when a picture is shown at half its size
matplotlib.rcParams.update(
    {
        "figure.constrained_layout.use": True,
        "figure.dpi": 110,
        "savefig.dpi": "figure",
        "font.size": 12,
        "legend.fontsize": 11,
        "lines.linewidth": 2,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "image.cmap": "gray_r",  # ink is dark
    }
)


def number(kind: type[float], least: float) -> Callable[[str], float]:
    """A type for argparse: finite numbers that are at least `least`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            wanted = f"{kind.__name__} of at least {least:g}"
            raise argparse.ArgumentTypeError(f"wanted a finite {wanted}, got {text!r}")
        return value

    return parse


def arguments(
    description: str | None, **settings: tuple[float, str] | tuple[float, str, float]
) -> argparse.Namespace:
    """Read ``--data``, ``--seed``, ``--out``, ``--quick``; seed minigrad; make the folder.

    In a notebook they have their defaults, unless you call ``%run script.py --seed 1``.

    Parameters
    ----------
    description : str
        Its first line is the title of ``--help``.
    **settings : tuple (default, meaning) or (default, meaning, default with ``--quick``)
        Further options by name, each a positive number of the type of its default.

    Returns
    -------
    argparse.Namespace

    Raises
    ------
    SystemExit
        With one line that says what is wrong, if an option is not understood or the folder
        cannot be made.
    """
    title = (description or "minigrad").strip().splitlines()[0]
    parser = argparse.ArgumentParser(description=title)
    option = parser.add_argument
    option(
        "--data", choices=["digits", "mnist"], default="digits",
        help="scikit-learn's digits, or MNIST from $MINIGRAD_DATA or data/ (default: %(default)s)",
    )  # fmt: skip
    option("--seed", type=number(int, 0), default=0, help="seed of all random numbers (default: 0)")
    option(
        "--out", type=Path, default=Path("figures"), metavar="FOLDER",
        help="where the pictures go (default: %(default)s)",
    )  # fmt: skip
    option("--quick", action="store_true", help="do less of everything, for a first look")
    for name, (default, meaning, *quick) in settings.items():
        kind = number(type(default), 1 if isinstance(default, int) else 1e-12)
        usual = f"{default:g}" + "".join(f", with --quick {less:g}" for less in quick)
        option(f"--{name}", type=kind, help=f"{meaning} (default: {usual})")
    args = once(lambda: parser.parse_args(command_line()))
    for name, (default, _, *quick) in settings.items():
        if getattr(args, name) is None:
            setattr(args, name, quick[0] if quick and args.quick else default)
    make_folder(args.out, "--out")
    manual_seed(args.seed)
    return args


def command_line() -> list[str]:
    """The arguments after the script's name; none in a notebook."""
    return [] if "kernel_launcher" in sys.argv[0] else sys.argv[1:]


def make_folder(path: Path, option: str) -> None:
    """Make the folder now, so that a bad path is found before the training, not after it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"error: {option}: the folder cannot be made: {error}")


@functools.cache
def read(name: str) -> tuple[Digits, Digits]:
    """As `load`, but silent and cached, with the errors of `datasets`; MNIST may be downloaded."""
    if name == "digits":
        return datasets.load_digits_data(change_tensors=True)
    with interruptible(ends=True):
        return datasets.load_mnist_data(change_tensors=True, download=True)


TITLES = {"mnist": "MNIST", "digits": "scikit-learn's digits"}


def load(name: str, announce: bool = True) -> tuple[Digits, Digits]:
    """``(train_set, test_set)`` of the data called ``digits`` or ``mnist``, normalised.

    With `announce`, a printed line says which data these are.

    Raises
    ------
    SystemExit
        With one line that says what went wrong, if the data cannot be loaded.
    """
    try:
        data = read(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}")
    if announce:
        print(f"Data: {TITLES[name]}, {len(data[0])} to train, {len(data[1])} to test")
    return data


class Alone:
    """What `minigrad.distributed` offers, for one process and without MPI."""

    rank, size = 0, 1

    def broadcast(self, parameters: Iterable[Any]) -> None: ...

    def shard(self, *arrays: Any) -> tuple[Any, ...]:
        return arrays

    def average_gradients(
        self, parameters: Iterable[Any], count: int, *means: float
    ) -> list[float]:
        return list(means)


@functools.cache
def world() -> Any:
    """`minigrad.distributed` if several processes were started, else an `Alone`.

    From then on, rank 0 alone prints.
    """
    if PROCESSES == 1:
        return Alone()
    try:
        from minigrad import distributed
    except ImportError as error:
        raise SystemExit(f"error: {error}")
    if distributed.rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    return distributed


def once(function: Callable[[], Any]) -> Any:
    """Call `function` on rank 0 alone; return its result, or raise its SystemExit, on all ranks."""
    result, ended = None, None
    if world().rank == 0:
        try:
            result = function()
        except SystemExit as error:
            ended = error
    if world().size > 1:
        result, all_end = world().comm.bcast((result, ended is not None))
        if all_end and not ended:
            raise SystemExit  # silently: rank 0 says why
    if ended:
        raise ended
    return result


def claim(sentence: str, holds: bool, numbers: str = "") -> None:
    """Print a conclusion, the numbers behind it, and whether it holds in this run.

    The sentence is the same in every run and has no brackets. Slow tests run each script with
    ten seeds and expect every claim to hold.
    """
    verdict = "Holds" if holds else "DOES NOT HOLD"
    print(f"{verdict}: {sentence}" + (f" ({numbers})" if numbers else ""))


def progress(items: Iterable[Any], what: str) -> Iterable[Any]:
    """`items`, with a bar on stderr once they have taken more than three seconds."""
    return tqdm(items, desc=what, delay=3, leave=False)


def sliders(draw: Callable[..., Any], **settings: Any) -> None:
    """In a notebook that has ipywidgets, call `draw` again whenever a slider is moved.

    Each setting is what ``ipywidgets.interact`` takes: (least, greatest, step), or a list.
    """
    if "ipykernel" not in sys.modules:
        return
    with contextlib.suppress(ImportError):
        from IPython.display import display
        from ipywidgets import interactive

        widget = interactive(draw, **settings)
        for slider in widget.children[:-1]:
            slider.continuous_update = False  # training at every position it passes is slow
        display(widget)
