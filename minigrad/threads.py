"""Several threads share one large matrix product, or one large array.

A large product is cut into blocks of rows or columns. The thread that needs the product and the
workers, our own threads that wait for such jobs, each take the next free block until none is
left. The cut depends on the sizes alone, so the bits of the result do not depend on the number
of threads, or on how busy the machine is.

A BLAS has threads of its own. They wait for each other in each product, and if another program
is busy, one of them is always late: a step then takes many times as long. So the library uses
one thread while a product of ours runs, and gets its threads back afterwards. A worker that is
late finds no block left, and no other thread waits for it.

The threads communicate through one array of integers, `crew`. Compiled code changes it by atomic
operations, which no other thread can interrupt. That costs a microsecond or two; to hand a job
from one Python thread to another takes fifty.

`parts` cuts large arrays for elementwise kernels in the same way.
"""

import atexit
import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as untyped_intrinsic
from numpy import ndarray as Array

from .blas import PLAIN, ROWS, SYMBOLS, found
from .caching import kernel

SMALL = 262_144  # up to this many multiplications, OpenBLAS itself uses one thread
SMALL_VECTOR = 9_000  # the same for a matrix and a vector, or for two vectors
MOST = 16  # the most blocks of a product, unless small blocks are faster
MOST_SMALL = 60_000  # the most small blocks, which are counted in 16 bits

# Indices into `crew`. What different threads write is in different cache lines (64 bytes):
# threads that write into one line slow each other down.
FREE = 0  # the first free block and the end of the free ones, in 16 bits each; the job's number
DONE = 8  # how many blocks are done
OWNER = 16  # 1 while a thread uses the crew; others then work alone
ASLEEP = 24  # how many workers sleep
LOCK, INSIDE, BEFORE = 32, 33, 34  # guards the next two: jobs under way, the library's threads
PAUSE = 35  # 1 while no job may begin
THREADS, PIPE, STOP = 40, 41, 42  # how many threads; the pipe that wakes workers; 1 to end them
ALONE, PENALTY = 48, 49  # how much work to do without workers, and how much next time
MISSED = 50  # for how many jobs in a row no worker came
JOB, JOB_SIZE = 56, 13  # where the job for `block` is, and how many numbers it has
CREW_SIZE = JOB + JOB_SIZE
crew = np.zeros(CREW_SIZE, np.int64)
crew[PENALTY] = LEAST_PENALTY = 256  # in the unit of `work_in`: some 4 ms
MOST_PENALTY = 1 << 18  # some 4 s


# What compiled code calls: these names are in the kernels cached on disk (see `blas`)


def _find_controls() -> Any:
    """The library's functions that set and get its number of threads; None if not OpenBLAS."""
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
        return library.scipy_openblas_set_num_threads64_, library.scipy_openblas_get_num_threads64_
    except (AttributeError, OSError):
        return None


def _find_system() -> Any:
    """The system's functions that let other threads run and that write to a pipe."""
    if os.name == "posix":
        return ctypes.CDLL(None).sched_yield, ctypes.CDLL(None).write
    return ctypes.CDLL("kernel32").SwitchToThread, ctypes.CDLL("ucrtbase")._write


_compiled = found and not cast(Any, numba.config).DISABLE_JIT  # kernels call BLAS directly
controls: Any = _find_controls() if _compiled else None
_functions = dict(zip(("yield", "write"), _find_system()))
_functions |= dict(zip(("set", "get"), controls or _find_system()))  # never called without controls
for _name, _function in _functions.items():
    binding.add_symbol(f"minigrad_{_name}", ctypes.cast(_function, ctypes.c_void_p).value)
binding.add_symbol("minigrad_crew", crew.ctypes.data)

_external = cast(Any, types.ExternalFunction)
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = cast(Any, untyped_intrinsic)
let_others_run = _external("minigrad_yield", types.int32())
write = _external("minigrad_write", types.int64(types.int32, types.uintp, types.int64))
set_library_threads = _external("minigrad_set", types.void(types.int32))
get_library_threads = _external("minigrad_get", types.int32())
_places = [types.int32] * 3 + [types.int64] * 3  # BLAS's flags, and M, N, K
_matrices = [types.uintp, types.int64] * 2
sgemm, dgemm = (
    _external(SYMBOLS[str(x)], types.void(*_places, x, *_matrices, x, types.uintp, types.int64))
    for x in (types.float32, types.float64)
)


@intrinsic
def the_crew(_: Any) -> Any:
    """The address of `crew`; otherwise Numba would compile a copy of it into the kernel."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        nothing = ir.FunctionType(ir.VoidType(), [])
        symbol = cast(Any, cgutils).get_or_insert_function(builder.module, nothing, "minigrad_crew")
        return builder.bitcast(symbol, ir.IntType(64).as_pointer())

    return cast(Any, types).CPointer(types.int64)(), generate


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@intrinsic
def add(_: Any, array: Any, i: Any, number: Any) -> Any:
    """Atomically, ``array[i] += number``; return the number before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def change(_: Any, array: Any, i: Any, old: Any, new: Any) -> Any:
    """Atomically, set ``array[i]`` to ``new`` if it is ``old``; return whether it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        pair = builder.cmpxchg(place, arguments[2], arguments[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.int64, types.int64, types.int64), generate


@intrinsic
def float32_at(_: Any, address: Any) -> Any:
    """A pointer to the float32 numbers at this address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return cast(Any, types).CPointer(types.float32)(types.int64), generate


@intrinsic
def call(_: Any, function: Any, places: Any, start: Any, stop: Any) -> Any:
    """Call the C function at this address; see `parts`."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        integer, (address, *others) = ir.IntType(64), arguments
        kind = ir.FunctionType(ir.VoidType(), [integer] * 3)  # an address is an integer here
        builder.call(builder.inttoptr(address, kind.as_pointer()), others)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


# A job: the arguments of gemm, the size of a number in bytes, and the number of blocks. If that
# size is 0, it is instead a function, the address of its data (see `parts`) and, in the places of
# M and N, the length of its arrays and the work.


@kernel
def gemm(how_a: int, how_b: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int,
         c: int, ldc: int, size: int) -> None:  # fmt: skip
    """c = a @ b for matrices at these addresses, whose numbers have ``size`` bytes."""
    if size == 4:
        sgemm(ROWS, how_a, how_b, m, n, k, np.float32(1), a, lda, b, ldb, np.float32(0), c, ldc)
    else:
        dgemm(ROWS, how_a, how_b, m, n, k, 1.0, a, lda, b, ldb, 0.0, c, ldc)


@kernel
def block(job: Array, i: int) -> None:
    """Compute block i of a job."""
    how_a, how_b, m, n, k, a, lda, b, ldb, c, ldc, size, blocks = (
        job[0], job[1], job[2], job[3], job[4], job[5], job[6], job[7], job[8], job[9], job[10],
        job[11], job[12],
    )  # fmt: skip
    if size == 0:
        function, places, length = job[0], job[1], job[2]
        call(function, places, length * i // blocks, length * (i + 1) // blocks)
        return
    if m >= n:
        start, m = m * i // blocks, m * (i + 1) // blocks - m * i // blocks
        a += size * start * (lda if how_a == PLAIN else 1)
        c += size * start * ldc
    else:
        start, n = n * i // blocks, n * (i + 1) // blocks - n * i // blocks
        b += size * start * (1 if how_b == PLAIN else ldb)
        c += size * start
    gemm(how_a, how_b, m, n, k, a, lda, b, ldb, c, ldc, size)


@kernel
def blocks_of(m: int, n: int, k: int) -> int:
    """How many blocks a product is cut into, along the longer of its sides.

    Each block repeats some work, because gemm first copies both matrices in an order of its own;
    longer blocks repeat less. On recent processors, OpenBLAS needs no copies for up to 10⁶
    multiplications. For a few rows or columns, that is up to three times as fast.
    """
    work, longer, shorter = m * n * k, max(m, n), min(m, n)
    if work <= 1_000_000:
        return 1
    if shorter <= 16 and 16 * shorter * k <= 500_000:
        return min(work // 500_000, MOST_SMALL)
    return max(2, min(MOST, longer // 512))


@kernel
def next_block(crew: Array, helps: bool) -> int:
    """Take a free block; -1 if there is none.

    Workers take the first, and the thread that they help takes the last. So in the next job on
    the same arrays, each core is likely to have its part in its cache.
    """
    while True:
        free: int = crew[FREE]
        first, end = free >> 16 & 0xFFFF, free & 0xFFFF
        if first == end:
            return -1
        if change(crew, FREE, free, free + 0x10000 if helps else free - 1):
            return first if helps else end - 1


@kernel
def serve(crew: Array, patience: int) -> None:
    """Take blocks of whatever job there is, until there has been none for a while.

    If workers are not to be called, it ends at once: while other programs are busy, a worker that
    waits takes processor time from the thread that it should help.
    """
    turns = 0
    while turns < patience and crew[ALONE] == 0 and crew[STOP] == 0:
        i = next_block(crew, True)
        if i >= 0:
            block(crew[JOB:], i)
            add(crew, DONE, 1)
            turns = 0
        let_others_run()
        turns += 1
    add(crew, ASLEEP, 1)


@kernel
def give_way(crew: Array) -> bool:
    """Release the lock if there is a pause; this thread may not have seen it begin."""
    if crew[PAUSE]:
        add(crew, LOCK, -1)
        return True
    return False


@kernel
def enter_library(crew: Array) -> None:
    """Make the library use one thread."""
    while crew[PAUSE] or not change(crew, LOCK, 0, 1) or give_way(crew):
        let_others_run()
    if crew[INSIDE] == 0:
        crew[BEFORE] = get_library_threads()
        if crew[BEFORE] != 1:
            set_library_threads(1)
    crew[INSIDE] += 1
    add(crew, LOCK, -1)


@kernel
def leave_library(crew: Array) -> None:
    """Give the library its threads back, unless another product of ours is under way."""
    while not change(crew, LOCK, 0, 1):
        let_others_run()
    crew[INSIDE] -= 1
    if crew[INSIDE] == 0 and crew[BEFORE] != 1:
        set_library_threads(crew[BEFORE])
    add(crew, LOCK, -1)


@kernel
def work_in(job: Array) -> int:
    """The work of a job, in units of some 10 to 20 µs: a million multiplications, or a part."""
    return 1 + int(job[2] * job[3] * job[4] // 1_000_000 if job[11] else job[3])


@kernel
def share(crew: Array, job: Array) -> None:
    """Compute all blocks, together with the workers that have time."""
    blocks = job[12]
    for place in range(JOB_SIZE):
        crew[JOB + place] = job[place]
    crew[DONE] = 0
    job_number = (crew[FREE] >> 32) + 1
    change(crew, FREE, crew[FREE], (job_number << 32) + blocks)
    sleepers = min(crew[ASLEEP], blocks - 1)
    if sleepers > 0:
        add(crew, ASLEEP, -sleepers)
        write(crew[PIPE], crew.ctypes.data, sleepers)
    i, own = next_block(crew, False), 0
    while i >= 0:
        block(job, i)
        add(crew, DONE, 1)
        i, own = next_block(crew, False), own + 1
    crew[MISSED] = crew[MISSED] + 1 if own == blocks else 0
    turns = 0
    while add(crew, DONE, 0) < blocks:
        let_others_run()
        turns += 1
    # If another program has interrupted a worker, or none came for many jobs, do without workers
    # for a while (see `serve`).
    if crew[MISSED] > 20 or turns > 500 + 500 * work_in(job) // blocks:
        crew[MISSED] = 0
        crew[ALONE] = crew[PENALTY]
        crew[PENALTY] = min(2 * crew[PENALTY], MOST_PENALTY)
    elif own < blocks:
        crew[PENALTY] = max(crew[PENALTY] - (crew[PENALTY] >> 6), LEAST_PENALTY)


@kernel
def do(crew: Array, job: Array) -> None:
    """Compute all blocks, with the workers if they are there and free."""
    enter_library(crew)
    if crew[ALONE] > 0:
        crew[ALONE] = max(crew[ALONE] - work_in(job), 0)
    elif job[12] > 1 and crew[THREADS] > 1 and change(crew, OWNER, 0, 1):
        share(crew, job)
        add(crew, OWNER, -1)
        job[12] = 0
    for i in range(job[12]):
        block(job, i)
    leave_library(crew)


@kernel
def multiply(how_a: int, how_b: int, m: int, n: int, k: int, a: int, lda: int, b: int, ldb: int,
             c: int, size: int) -> None:  # fmt: skip
    """c = a @ b, with gemm's arguments as integers and the matrices by their addresses."""
    crew = numba.carray(the_crew(), CREW_SIZE)  # type: ignore[attr-defined]
    if m * n * k <= SMALL or crew[THREADS] == 0:
        gemm(how_a, how_b, m, n, k, a, lda, b, ldb, c, n, size)
        return
    job = np.empty(JOB_SIZE, np.int64)
    job[0], job[1], job[2], job[3], job[4], job[5] = how_a, how_b, m, n, k, a
    job[6], job[7], job[8], job[9], job[10], job[11] = lda, b, ldb, c, n, size
    job[12] = blocks_of(m, n, k)
    do(crew, job)


@kernel
def run_parts(function: int, places: int, length: int, work: int) -> None:
    """Call a C function for all parts of arrays of this length; see `parts`."""
    crew = numba.carray(the_crew(), CREW_SIZE)  # type: ignore[attr-defined]
    job = np.zeros(JOB_SIZE, np.int64)
    job[0], job[1], job[2], job[3] = function, places, length, work
    job[12] = min(MOST, length, work)
    do(crew, job)


# How many threads

OWN_GROUP, CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def default_num_threads() -> int:
    """MINIGRAD_NUM_THREADS, or else the smallest of OPENBLAS_NUM_THREADS, OMP_NUM_THREADS, the
    number of CPUs that this process may use, and the number of blocks."""
    if own := os.environ.get("MINIGRAD_NUM_THREADS"):
        if not own.isdecimal() or int(own) < 1:
            raise ValueError(f"MINIGRAD_NUM_THREADS must be a positive integer, got {own!r}")
        return int(own)
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    limits = [MOST, len(affinity(0)), *_quotas()]
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        with contextlib.suppress(ValueError):
            limits.append(int(os.environ.get(name, "")) or MOST)
    return max(1, min(limits))


def _quotas() -> list[int]:
    """How many CPUs the control groups of this process allow, on Linux (containers)."""
    quotas = []
    with contextlib.suppress(OSError, IndexError):
        own = CONTROL_GROUPS / OWN_GROUP.read_text().split("::")[1].strip().lstrip("/")
        for folder in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):  # "max" means no limit
                time, period = map(int, (folder / "cpu.max").read_text().split())
                quotas.append(time // period)
    return quotas


def get_num_threads() -> int:
    """How many threads share a large product or a large array; see `set_num_threads`."""
    return _wanted


def set_num_threads(n: int) -> None:
    """Let up to ``n`` threads share a large matrix product, as in PyTorch.

    They also share large float32 arrays in ReLU, log-softmax and gradient descent. Results are
    the same for any number, bit for bit.

    The default is the environment variable MINIGRAD_NUM_THREADS or, if that is not set, the
    smallest of OPENBLAS_NUM_THREADS, OMP_NUM_THREADS, the number of CPUs that the process may use
    (its affinity, and the quota of its control group) and 16, the usual limit of blocks.

    The number applies to minigrad's products only. NumPy's own use as many threads as before,
    except that one which runs at the same moment in another Python thread uses one. With a BLAS
    other than OpenBLAS, the number has no effect: the library decides.

    Raises
    ------
    ValueError
        If ``n`` is not a positive integer.
    """
    global _wanted
    if not isinstance(n, (int, np.integer)) or n < 1 or isinstance(n, bool):
        raise ValueError(f"set_num_threads: n must be a positive integer, got {n!r}")
    with _starting:
        try:
            _stop()
            _wanted = int(n)
            crew[THREADS] = _wanted if controls else 0
        finally:
            crew[PAUSE] = 0


def start() -> None:
    """Start the workers, unless they are running; to be called before a large job."""
    global _ready
    if _ready:
        return
    with _starting:
        if not _ready and crew[THREADS] > 1:
            with contextlib.suppress(OSError, RuntimeError):  # too many files or threads
                _pipe[:] = os.pipe()
                crew[PIPE] = _pipe[1]
                for _ in range(min(crew[THREADS], 64) - 1):
                    worker = threading.Thread(target=_work, args=(_pipe[0],), daemon=True)
                    worker.start()
                    _workers.append(worker)
        _ready = True


def _work(pipe: int) -> None:
    while True:
        serve(crew, PATIENCE)
        if crew[STOP]:
            return
        os.read(pipe, 1)  # sleeps


def _stop() -> None:
    """Let no product begin, wait until none is under way, and end the workers."""
    global _ready
    _ready = False
    crew[PAUSE] = 1
    while True:
        time.sleep(0)  # lets others run, and see the pause
        if not (crew[LOCK] or crew[INSIDE] or crew[LOCK]):
            break
    if _workers:
        crew[STOP] = 1
        os.write(_pipe[1], b"." * len(_workers))
        for worker in _workers:
            worker.join()
        _workers.clear()
    for end in _pipe:
        os.close(end)
    _pipe.clear()
    crew[STOP] = crew[ASLEEP] = 0


def _before_fork() -> None:
    """A child has only one thread: a lock that another thread holds now would stay locked there.

    The library has such locks too, and is called before and after each product.
    """
    _starting.acquire()
    _stop()


def _after_fork() -> None:
    crew[PAUSE] = 0
    _starting.release()


def _after_fork_in_child() -> None:
    crew[LOCK] = 0  # another thread may have been about to give way
    _after_fork()


PATIENCE = 2000  # turns, some 0.2 µs each if nothing else runs
_wanted = default_num_threads()
crew[THREADS] = _wanted if controls else 0
_ready = False  # whether `start` has nothing left to do
_starting = threading.RLock()  # a signal handler may interrupt its holder
_workers: list[threading.Thread] = []
_pipe: list[int] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
atexit.register(set_num_threads, 1)
