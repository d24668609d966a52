"""Named arrays in a file: the parameters of a model, the cache of a data set."""

import os
import tempfile
from pathlib import Path

import numpy as np

from .tensor import Tensor


def save(state, path):
    """Write Tensors or arrays under their names into one .npz file, wholly or not at all.

    Parameters
    ----------
    state : mapping from name to Tensor or array
        Such as ``model.state_dict()``.
    path : path
        A file that is there already is replaced.
    """
    path = Path(path)
    # Under another name first, then renamed: no reader ever sees half a file.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **{key: np.asarray(value) for key, value in state.items()})
        os.chmod(name, 0o644)  # mkstemp's files are its owner's alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def load(path):
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
