"""Named arrays in a file, such as the parameters of a model."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import as_array
from .tensors import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def check_state(state: Any) -> None:
    """Raise a TypeError with a hint unless ``state`` is a mapping."""
    if isinstance(state, Mapping):
        return
    hint = ""
    if hasattr(state, "state_dict"):  # a model or an optimiser
        hint = "; pass its state_dict()"
    elif callable(state):
        hint = "; call it: its () is missing"
    elif isinstance(state, (str, os.PathLike)):
        hint = "; mg.load(path) reads a file, mg.save(state, path) writes one"
    raise TypeError(f"state must map names to Tensors, got {type(state).__name__}{hint}")


def named_array(name: str, value: Any) -> np.ndarray:
    """A value of a state as an array; the error names it if it is not made of numbers."""
    try:
        return as_array(value)
    except (TypeError, ValueError) as error:
        hint = "; each dict needs a file of its own" if isinstance(value, Mapping) else f": {error}"
        wanted = "must be a Tensor or an array of numbers"
        raise type(error)(f"state[{name!r}] {wanted}, got {type(value).__name__}{hint}") from None


def save(state: Mapping[str, ArrayLike], path: str | os.PathLike[str]) -> None:
    """Write named Tensors or arrays to one .npz file: completely, or not at all.

    Parameters
    ----------
    state : mapping from name to Tensor or array
        Such as ``model.state_dict()``.
    path : path
        A file that already exists is replaced.

    Raises
    ------
    TypeError
        If ``state`` is not a mapping from strings, a value is not made of real numbers, or
        ``path`` is not a path.
    OSError
        If the file cannot be written. An existing file is then unchanged.
    """
    check_state(state)
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be a file name, got {type(path).__name__}")
    for name in state:
        if not isinstance(name, str):  # 1 and "1" would become one name
            raise TypeError(f"names must be strings, got {name!r}")
    arrays = {name: named_array(name, value) for name, value in state.items()}
    # Write under another name, then rename: no reader ever sees half a file.
    aside = Path(f"{path}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with zipfile.ZipFile(aside, "w") as archive:  # not np.savez: it reserves some names
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what `save` has written.

    Returns
    -------
    dict from name to Tensor

    Raises
    ------
    TypeError
        If ``path`` is not a path.
    OSError
        If the file cannot be opened.
    RuntimeError
        If the file is damaged, or is not a file of named arrays. Nothing in it is ever executed,
        as a pickle would be.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"path must be a file name, got {type(path).__name__}; "
            "to fill a model, write model.load_state_dict(mg.load(path))"
        )
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds one array; write from_numpy(numpy.load(path))")
            if any(member.endswith("data.pkl") for member in archive.zip.namelist()):
                state = "{name: x.numpy() for name, x in model.state_dict().items()}"
                raise ValueError(f"it is PyTorch's; write numpy.savez('a.npz', **{state}) there")
            # by the names in the file: archive["a.npy"] would be the array "a" if there is one
            inside = zip(archive.files, archive.zip.namelist(), strict=True)
            return {name: Tensor(archive[member]) for name, member in inside}
        except Exception as error:  # whatever a damaged file causes in zipfile and NumPy
            raise RuntimeError(f"{path} is not an intact file of named arrays: {error}") from error
