"""Data-parallel training: many processes descend one gradient.

The gradient of a mean over a batch is the mean of the gradients of its examples. So each process,
or rank, takes a share of the batch, computes the gradient of its own share, and the ranks average:
each weighs its gradient by its number of examples. Then all ranks make the same step from the same
parameters, and stay the same. MPI carries the numbers, through mpi4py:

    from minigrad import distributed

    distributed.broadcast(model.parameters())            # all ranks start alike
    for inputs, targets in minibatches(...):             # all ranks draw alike
        mine, labels = distributed.shard(inputs, targets)
        optimizer.zero_grad()
        if len(labels):                                  # a small batch may leave a rank none
            F.nll_loss(model(mine), labels).backward()
        distributed.average_gradients(model.parameters(), len(labels))
        optimizer.step()

``mpiexec -n 4 python -m mpi4py script.py`` runs it on four processes; docs/distributed.md says
more. Beside other libraries:

=====================  ==================================  ================================
here                   torch DistributedDataParallel       Horovod
=====================  ==================================  ================================
`broadcast`            its constructor does it             ``hvd.broadcast_parameters``
`shard`                ``DistributedSampler``              ``DistributedSampler``
`average_gradients`    hooks inside ``loss.backward()``    hooks inside ``loss.backward()``,
                                                           awaited in ``optimizer.step()``
=====================  ==================================  ================================

What they hide, in a wrapper around the model or the optimiser, is one line here, between
``backward()`` and ``step()``. They gain speed by it: they exchange the gradients of the last
layers while those of the first are still computed. And they divide by the number of ranks, not of
examples, so that with uneven shares the result is not the gradient of the whole batch.

Attributes
----------
comm : mpi4py.MPI.Intracomm
    All processes: ``MPI.COMM_WORLD``.
rank, size : int
    The number of this process, from 0, and how many there are.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI library
    raise ImportError(
        f"minigrad.distributed needs mpi4py and an MPI library: pip install mpi4py mpich ({error})"
    ) from error

from .optim import Tensors, _parameters
from .tensors import Tensor

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size

for _name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
    _started = os.environ.get(_name, "1")
    if size == 1 and _started != "1":
        _library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
        raise RuntimeError(
            f"{_started} processes were started ({_name}), but each is alone in MPI.COMM_WORLD: "
            f"mpiexec is not that of mpi4py's MPI library, which is {_library}. Use its mpiexec; "
            f"that of pip's mpich is {os.path.join(sys.prefix, 'bin', 'mpiexec')}"
        )


def _then_abort(show: Callable[..., Any]) -> Callable[..., None]:
    """A hook for uncaught errors: show it, then end all ranks, which would wait for this one."""

    def hook(*error: Any) -> None:
        if getattr(error[0], "exc_type", None) is SystemExit:  # which ends a thread in silence
            return
        try:
            print(f"Error on rank {rank} of {size}:", file=sys.stderr)
            show(*error)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            comm.Abort(1)

    return hook


if size > 1:
    sys.excepthook = _then_abort(sys.excepthook)
    threading.excepthook = _then_abort(threading.excepthook)

_agreed: set[tuple[Any, ...]] = set()  # shapes and dtypes of which all ranks have the same
_sent: list[np.ndarray] = []  # nothing, or an array like the last one that was exchanged


@atexit.register
def _leave() -> None:
    """Take part in one more exchange, with zeros, in which a rank that makes more steps notices."""
    if _sent and not MPI.Is_finalized():
        comm.Allreduce(MPI.IN_PLACE, _sent[0])


def _kinds(params: list[Tensor]) -> tuple[Any, ...]:
    return tuple((param.shape, param.dtype.name) for param in params)


def broadcast(parameters: Tensors) -> None:
    """Give all ranks the numbers that the parameters have on rank 0, in place.

    Call it once, before the first step, on all ranks: an optimiser and its state stay valid.

    Parameters
    ----------
    parameters : iterable of Tensor
        float32 or float64, as for an optimiser.

    Raises
    ------
    RuntimeError
        On all ranks, if one has other shapes or dtypes than rank 0. Nothing has changed then.
    """
    params = _parameters(parameters, "parameters")
    for other, kinds in enumerate(everybody := comm.allgather(_kinds(params))):
        if kinds != everybody[0]:
            raise RuntimeError(
                f"parameters must have the same shapes and dtypes on all ranks; rank 0 has "
                f"{everybody[0]}, rank {other} has {kinds}: build the same model on all"
            )
    for param in params:
        numbers = param.array.copy()  # MPI wants them in C order
        comm.Bcast(numbers)
        param.set_numbers(..., numbers)
    _agreed.add(_kinds(params))


def shard(*arrays: Any) -> tuple[Any, ...]:
    """This rank's share of a batch that all ranks have drawn alike.

    The shares are slices, in the order of the ranks. Their lengths differ by one at most: of 10
    rows, 4 ranks get 2, 3, 2, 3. Of fewer rows than ranks, some get none.

    Parameters
    ----------
    *arrays : Tensor, array or list, each of N rows

    Returns
    -------
    tuple
        One share of each: ``mine, labels = shard(inputs, targets)``, and ``(mine,) =
        shard(inputs)``.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"shard: the arrays must have the same length, got {lengths}")
    return tuple(a[len(a) * rank // size : len(a) * (rank + 1) // size] for a in arrays)


def average_gradients(parameters: Tensors, count: int, *means: float) -> list[float]:
    """Replace each gradient by the mean over the examples of all ranks.

    Call it on all ranks, between ``loss.backward()`` and ``optimizer.step()``. If the loss of
    each rank is the mean over its `count` examples, the result is the gradient of the mean over
    all examples, however uneven the shares are: Σ count · G / Σ count, where the sums run over
    the ranks. It is one Allreduce of one flat array in which the counts travel along.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those that were given to `broadcast`. A gradient that is None counts as 0, unless it is
        None on all ranks: then it stays None.
    count : int
        The number of this rank's examples; a rank that has 0 sends zeros.
    *means : float
        Other means over this rank's examples, such as the loss.

    Returns
    -------
    list of float
        The means over the examples of all ranks, one for each of `means`.

    Raises
    ------
    RuntimeError
        If `broadcast` has not seen such parameters.
    ValueError
        If `count` is not an integer from 0 on, or is 0 on all ranks.

    Notes
    -----
    The numbers travel in float64 if a parameter is float64, else in float32, in which counts are
    exact up to 2²⁴ examples a step. MPI does not notice if one rank gives more `means` than
    another, or makes more steps: docs/distributed.md says what happens.
    """
    params = _parameters(parameters, "parameters")
    if (kinds := _kinds(params)) not in _agreed:
        raise RuntimeError(
            "average_gradients: call distributed.broadcast(parameters) once before the first "
            "step, with the same parameters, so that all ranks start alike"
        )
    if not isinstance(count, (int, np.integer)) or count < 0:
        raise ValueError(f"count must be a number of examples, 0 or more, got {count!r}")
    ends = accumulate((param.array.size for param in params), initial=0)
    places = [slice(*ends) for ends in pairwise(ends)]
    length, known = places[-1].stop, slice(-len(params) - 1, -1)
    # all gradients, the means, the count; for each gradient whether it is there; this rank
    dtype = np.result_type(*(dtype for _, dtype in kinds))
    flat = np.zeros(length + len(means) + 1 + len(params) + 1, dtype)
    _sent[:] = [np.zeros_like(flat)]
    weighted = slice(length + len(means) + 1)
    if count:
        for param, place in zip(params, places):
            if param.grad is not None:
                flat[place] = param.grad.array.ravel()
        flat[length : weighted.stop] = *means, 1
        flat[weighted] *= count
        flat[known] = [param.grad is not None for param in params]
    flat[-1] = 1
    comm.Allreduce(MPI.IN_PLACE, flat)
    if flat[-1] != size:
        raise RuntimeError(
            f"average_gradients: {size - int(flat[-1])} of {size} ranks have ended: all ranks "
            "must make the same number of steps"
        )
    if not (total := flat[weighted][-1]):
        raise ValueError("count is 0 on all ranks: there is no example to average over")
    flat[weighted] /= total
    for param, place, is_there in zip(params, places, flat[known]):
        average = flat[place].reshape(param.shape).astype(param.dtype, copy=False)
        param.grad = Tensor(average) if is_there else None
    return [float(mean) for mean in flat[length : length + len(means)]]
