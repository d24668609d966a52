"""Named arrays in a file, such as the parameters of a model."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .arrays import as_array
from .tensors import Tensor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def save(state: Mapping[str, ArrayLike], path: str | os.PathLike[str]) -> None:
    """Write Tensors or arrays under their names into one .npz file, wholly or not at all.

    Parameters
    ----------
    state : mapping from name to Tensor or array
        Such as ``model.state_dict()``.
    path : path
        A file that is there already is replaced.

    Raises
    ------
    TypeError
        If a value is not made of real numbers.
    OSError
        If the file cannot be written; what was there before is still there.
    """
    arrays = {name: as_array(value) for name, value in state.items()}
    # Under another name first, then renamed: no reader ever sees half a file.
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
    OSError
        If the file cannot be opened.
    RuntimeError
        If it is damaged, or something else than a file of named arrays. Nothing in it is
        ever executed, as a pickle would be.
    """
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            return {name: Tensor(archive[name]) for name in archive.files}
        except Exception as error:  # whatever a damaged file provokes in zipfile and NumPy
            raise RuntimeError(f"{path} is no whole file of named arrays: {error}") from error
