"""Data-parallel training: many processes descend one gradient.

The gradient of a mean over a batch is the mean of the gradients of its examples. So each process,
or rank, computes the gradient of its share of the batch, and the ranks average these gradients,
weighted by their numbers of examples. All ranks then make the same step from the same parameters,
so the parameters stay the same. MPI carries the numbers, through mpi4py::

    from minigrad import distributed

    distributed.broadcast(model.parameters())            # all ranks start alike
    for inputs, targets in minibatches(...):             # all ranks draw alike
        mine, labels = distributed.shard(inputs, targets)
        optimizer.zero_grad()
        if len(labels):                                  # a small batch leaves nothing for some
            F.nll_loss(model(mine), labels).backward()
        distributed.average_gradients(model.parameters(), len(labels))
        optimizer.step()

``mpiexec -n 4 python -m mpi4py script.py`` runs it on four processes; see docs/distributed.md.
In other libraries:

=====================  ==================================  ================================
here                   torch DistributedDataParallel       Horovod
=====================  ==================================  ================================
`broadcast`            its constructor does it             ``hvd.broadcast_parameters``
`shard`                ``DistributedSampler``              ``DistributedSampler``
`average_gradients`    hooks inside ``loss.backward()``    hooks inside ``loss.backward()``,
                                                           awaited in ``optimizer.step()``
=====================  ==================================  ================================

Both hide this in a wrapper, of the model or of the optimiser; here it is one line between
``backward()`` and ``step()``. Their way is faster: the gradients of the last layers travel while
those of the first are computed. Both divide by the number of ranks, not of examples, so with
uneven shares the result is not the gradient of the whole batch.

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
import time
from typing import Any

import numpy as np

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:  # RuntimeError: there is no MPI library
    raise ImportError(
        f"minigrad.distributed needs mpi4py and an MPI library: pip install mpi4py mpich ({error})"
    ) from error

from .optim import Tensors, _parameters
from .tensors import Tensor

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size

_names = "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"
_started = max(int(os.environ.get(name, 1)) for name in _names)
if _started > size == 1:
    raise RuntimeError(
        f"{_started} processes were started, but each is alone in MPI.COMM_WORLD: mpi4py uses "
        f"another MPI library, {MPI.get_vendor()[0]}. Start them by its own mpiexec (that of pip's "
        f"mpich is {os.path.join(sys.prefix, 'bin', 'mpiexec')}) or by srun --mpi=..."
    )

_show = sys.excepthook


def _end_all(*error: Any) -> None:
    """Show an uncaught error, then end all ranks: they would wait for this one."""
    try:
        print(f"Error on rank {rank} of {size}:", file=sys.stderr)
        _show(*error)
        sys.stdout.flush()
        time.sleep(0.5)  # mpiexec loses what it has not read before it ends the ranks
    finally:
        atexit.unregister(_leave)  # Abort returns: mpiexec ends this rank a little later
        comm.Abort(1)


if size > 1:
    sys.excepthook = _end_all

_agreed: set[Any] = set()  # shapes and dtypes on which `broadcast` has found all ranks to agree
_last: tuple[int, Any] = 0, None  # length and dtype of what was exchanged last


@atexit.register
def _leave() -> None:
    """Take part in one more exchange, with zeros: a rank that makes more steps notices."""
    if _last[0] and not MPI.Is_finalized():
        comm.Allreduce(MPI.IN_PLACE, np.zeros(*_last))


def _kinds(params: list[Tensor]) -> tuple[Any, ...]:
    return tuple((param.shape, param.dtype.name) for param in params)


def broadcast(parameters: Tensors) -> None:
    """Give all ranks the numbers that the parameters have on rank 0, in place.

    Call it on all ranks, once, before the first step. Optimisers and their state stay valid.

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
    everybody = comm.allgather(_kinds(params))
    for other, kinds in enumerate(everybody):
        if kinds != everybody[0]:
            raise RuntimeError(
                f"parameters must have the same shapes and dtypes on all ranks: rank 0 has "
                f"{everybody[0]}, rank {other} has {kinds}"
            )
    for param in params:
        numbers = param.array.copy()  # MPI wants them in C order
        comm.Bcast(numbers)
        param.set_numbers(..., numbers)
    _agreed.add(_kinds(params))


def shard(*arrays: Any) -> tuple[Any, ...]:
    """This rank's share of a batch that all ranks have drawn alike.

    The shares are slices, in the order of the ranks. Their lengths differ by one at most: four
    ranks get 2, 3, 2 and 3 of 10 rows. If there are fewer rows than ranks, some get none.

    Parameters
    ----------
    *arrays : Tensor, array or list, each of N rows

    Returns
    -------
    tuple
        One share of each: ``mine, labels = shard(inputs, targets)``, but ``(mine,) =
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
    """Replace each gradient by its mean over the examples of all ranks.

    Call it on all ranks, between ``loss.backward()`` and ``optimizer.step()``. If G is the gradient
    of a rank's mean loss over its ``count`` examples, the gradient of the mean loss over all
    examples is Σ count G / Σ count, with sums over the ranks. This is exact for uneven shares, too.
    One Allreduce of one flat array computes all of these sums.

    Parameters
    ----------
    parameters : iterable of Tensor
        Those that were given to `broadcast`. A gradient that is None on some ranks counts as 0
        there. If it is None on all, it stays None.
    count : int
        The number of this rank's examples. With 0, its gradients and means do not matter.
    *means : float
        Other means over this rank's examples, such as the loss itself.

    Returns
    -------
    list of float
        The means over the examples of all ranks, one for each of ``means``.

    Raises
    ------
    RuntimeError
        If `broadcast` has not been called with such parameters, or if another rank has ended.
    ValueError
        If ``count`` is negative, or 0 on all ranks.

    Notes
    -----
    The numbers travel as float64 if a parameter is float64, else as float32, which holds counts
    exactly up to 2²⁴ examples a step.
    """
    global _last
    params = _parameters(parameters, "parameters")
    if _kinds(params) not in _agreed:
        raise RuntimeError(
            "average_gradients: call broadcast() with the same parameters once, before the first "
            "step, so that all ranks start alike"
        )
    if count < 0:
        raise ValueError(f"count must be the number of this rank's examples, got {count}")
    given = [param.grad if count else None for param in params]
    head = [1, count, *(count * mean if count else 0 for mean in means)]
    head += [grad is not None for grad in given]
    parts = [np.zeros_like(p.array) if g is None else g.array for p, g in zip(params, given)]
    flat = np.concatenate([head, *map(np.ravel, parts)], dtype=np.result_type(*parts))
    flat[len(head) :] *= count
    _last = flat.size, flat.dtype
    comm.Allreduce(MPI.IN_PLACE, flat)
    ranks, total, *numbers = flat[: len(head)].tolist()
    if ranks < size:
        atexit.unregister(_leave)  # a rank that has ended takes part in nothing more
        raise RuntimeError(
            f"{size - ranks:g} of {size} ranks have ended, and this one makes one more step: "
            "all must make the same number of steps"
        )
    if not total:
        raise ValueError("count is 0 on all ranks: no rank has an example")
    flat /= total
    ends = np.cumsum([len(head), *(part.size for part in parts)])
    for param, start, end, is_there in zip(params, ends, ends[1:], numbers[len(means) :]):
        average = flat[start:end].reshape(param.shape).astype(param.dtype, copy=False)
        param.grad = Tensor(average) if is_there else None
    return [number / total for number in numbers[: len(means)]]
