"""Random programs give the same numbers in minigrad as in PyTorch, or an error.

This covers everything that programs.py can write. The last test checks the check: it plants faults,
and the programs of an ordinary run must find each of them.
"""

import functools
import inspect
import textwrap

import numpy as np
import pytest
from programs import Program, check, program, quiet, shrink

import minigrad as mg
from minigrad import (
    arrays,
    changes,
    creation,
    engine,
    more_ops,
    nn,
    ops,
    optim,
    recording,
    tensors,
)  # fmt: skip

BLOCKS, BLOCK = 8, 150
FAILURE = "silent difference"
drawn = functools.cache(program)


@pytest.fixture(autouse=True)
def in_quiet():
    with quiet():
        yield


@functools.cache
def verdict(seed):
    """The verdict without planted faults."""
    return check(drawn(seed))


def show(seed):
    """A program that fails, the lines that it needs to fail, and how it fails."""
    short = shrink(drawn(seed))
    return f"\n{drawn(seed)}\n\nin short:\n{short}\n\n{check(short).text}"


def run_block(seeds):
    failing = [seed for seed in seeds if verdict(seed).kind == FAILURE]
    assert not failing, f"programs {failing}; the first:\n{show(failing[0])}"


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_number_is_silently_wrong(block):
    run_block(range(block * BLOCK, (block + 1) * BLOCK))


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_no_number_is_silently_wrong_in_many_more(block):
    run_block(range(10_000 + block * 1000, 10_000 + (block + 1) * 1000))


def test_a_seed_always_draws_the_same_program():
    assert program(5).lines == program(5).lines != program(6).lines


def test_a_program_can_be_pasted():
    line = "a = lib.tensor([1, 2], dtype=float32, requires_grad=True)"
    names = {}
    exec(
        str(Program([line, "with no_grad(): b = copy.copy(a)", "F.relu(a).sum().backward()"])),
        names,
    )
    assert names["a"].grad.tolist() == [1, 1] and names["b"].tolist() == [1, 2]


def test_programs_mostly_run_to_their_end():
    seeds = range(BLOCKS * BLOCK)
    whole = [seed for seed in seeds if verdict(seed).step == len(drawn(seed).lines)]
    assert len(whole) > 0.5 * len(seeds)
    lines = "\n".join(line for seed in whole for line in drawn(seed).lines)
    assert lines.count("backward(") > 0.8 * len(seeds)


# Faults. Each is a function that damages minigrad.


def method(names, make):
    """Replace methods of Tensor by the result of `make` for each."""

    def plant(patch):
        for name in names.split():
            old = getattr(mg.Tensor, name, None)
            patch.setattr(mg.Tensor, name, make(old), raising=False)

    return plant


def edit(owner, name, old, new):
    """Change the source of a function or method."""

    def plant(patch):
        source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        assert old in source, f"{name} has no {old!r} any more: edit something else"
        function = inspect.unwrap(getattr(owner, name))
        made = {}
        exec(
            "from __future__ import annotations\n" + source.replace(old, new),
            function.__globals__,
            made,
        )
        patch.setattr(owner, name, made[name])

    return plant


def skip(owner, name):
    """Make a function do nothing."""
    return lambda patch: patch.setattr(owner, name, lambda *_: None)


def wrapped(old):
    """Numbers are wrapped to the dtype."""
    return lambda a, b: old(a, b % 256 if a.dtype == np.uint8 and type(b) is int else b)


def truncated(old):
    """An integer Tensor truncates what it is divided by."""
    return lambda a, b: old(a, int(b) if a.dtype.kind == "i" and isinstance(b, float) else b)


def read_as_integers(old):
    """A mask without elements is read as an empty list of integers."""

    def getitem(a, index):
        empty = isinstance(index, mg.Tensor) and index.numel() == 0
        return old(a, np.zeros(index.shape, int) if empty else index)

    return getitem


def uncopied(old):
    """The gradient of an indexed Tensor goes where the index points at the time of `backward`."""

    @mg.operation
    def getitem(x, *, index):
        raw = lambda: index.array if isinstance(index, mg.Tensor) else index

        def to_x(G):
            grad = np.zeros(x.shape, G.dtype)
            np.add.at(grad, raw(), G)
            return grad

        return x[raw()], to_x

    plain = lambda index: isinstance(index, (list, mg.Tensor))
    return lambda a, index: (
        getitem(a, index=index) if plain(index) and len(index) else old(a, index)
    )


def sharing(a):
    copied = mg.Tensor(a.detach().numpy(), a.requires_grad)
    copied.grad = a.grad
    return copied


def forgetting(a, gradient):
    a._grad = mg.tensor(np.asarray(gradient, a.dtype))


def rebinding(a):
    a.array = np.zeros_like(a.array)
    return a


def assign_array(model, state):
    for name, parameter in model.named_parameters():
        parameter.array = state[name].array


PLANTED = {
    "division truncates the divisor": method("__truediv__", truncated),
    "comparisons wrap": method("__lt__ __le__ __gt__ __ge__ __eq__ __ne__", wrapped),
    "a mask without elements is read as integers": method("__getitem__", read_as_integers),
    "an index is not copied": method("__getitem__", uncopied),
    "copy.copy shares the gradient": method("__copy__", lambda old: sharing),
    "detach copies": method("detach", lambda old: lambda a: mg.tensor(a.array)),
    "zero_ rebinds": method("zero_", lambda old: rebinding),
    "a += b rebinds": method("__iadd__", lambda old: mg.Tensor.__add__),
    "double() gives float32": method("double", lambda old: mg.Tensor.float),
    "gradients of two backwards are not summed": method("accumulate", lambda old: forgetting),
    "gradients of two uses are not summed":
        edit(engine, "sweep", "so_far + contribution", "contribution"),
    "unbroadcast takes the mean": edit(engine, "unbroadcast", "grad.sum", "grad.mean"),
    "view copies": edit(mg.Tensor, "view", "if out.numel() and", "if False and"),
    "clone shares": edit(ops, "clone", "x.copy()", "x"),
    "sub sends G": edit(ops, "sub", "-G", "G"),
    "div forgets the sign": edit(ops, "div", "-G * (out / y)", "G * (out / y)"),
    "pow forgets the exponent": edit(ops, "pow", "y * x **", "x **"),
    "matmul reverses the rows on the way back": edit(ops, "matmul", "multiplied(rows.swapaxes(-1, -2)", "multiplied(np.flip(rows.swapaxes(-1, -2), -1)"),
    "an element picked twice receives once":
        edit(ops, "getitem", "np.add.at(grad, index, G)", "grad[index] = G"),
    "a sum of uint8 wraps": edit(ops, "sum", '== "f"', 'in "fu"'),
    "a mean forgets n": edit(ops, "mean", "G / n", "G"),
    "sum forgets keepdim": edit(ops, "sum", ", keepdim)", ")"),
    "transpose swaps nothing on the way back":
        edit(ops, "transpose", "G.swapaxes(dim0, dim1)", "G.reshape(x.shape)"),
    "ties share a maximum along a dimension":
        edit(more_ops, "extreme", "np.put_along_axis(grad, index, G.reshape(index.shape), dim)",
             "ties = x == x.max(dim, keepdims=True); "
             "grad[...] = ties * G.reshape(index.shape) / ties.sum(dim, keepdims=True)"),
    "log_softmax forgets dim": edit(ops, "log_softmax", "as_dim(dim,", "as_dim(-1,"),
    "nll_loss forgets N": edit(ops, "nll_loss", "G / N", "G"),
    "SGD forgets its velocity": edit(optim.SGD, "_plan", "self.lr, self.momentum)", "self.lr, 0.0)"),
    "Adam counts no steps": edit(optim.Adam, "_plan", "float(t)", "1.0"),
    "load_state_dict shares":
        lambda patch: patch.setattr(nn.Module, "load_state_dict", assign_array),
    # Lists, dtypes, indices
    "a list of float64 becomes float32":
        edit(creation, "as_array", "*(floats or {float32})", "float32"),
    "what a dtype cannot hold is cut off":
        edit(tensors, "as_array", "if not np.all(fits", "if False and np.all(fits"),
    "a mean of float16 is narrowed before it is divided":
        edit(ops, "mean", "add_up(x, dims, keepdim)", "add_up(x, dims, keepdim).astype(x.dtype)"),
    "no dims are no dims": edit(ops, "as_dims", "in (None, (), [])", "is None"),
    "a mask need not fit": edit(arrays, "as_index", "if mask and", "if False and"),
    "an integer beside an array moves dimensions":
        edit(tensors, "index_steps", "if not (any(arrays)", "if True or not (any(arrays)"),
    "an element is a copy": edit(ops, "getitem", "not isinstance(out, Array)", "False"),
    # Changes in place
    "changed arrays are not noticed": skip(changes, "refuse_changed_arrays"),
    "changed leaves are not noticed": skip(changes, "refuse_changed_leaves"),
    "shared memory is not noticed": skip(changes, "is_shared"),
    "a change of a view is not noticed":
        edit(changes, "owner_of", 'getattr(array, "base", None) is not None', "False"),
    "a step of an optimiser is not noticed":
        edit(optim.Optimizer, "step", "changes.note_change(*[arrays[0]", "list([arrays[0]"),
    "a loaded state is not noticed":
        edit(nn.Module, "load_state_dict", "parameter.set_numbers(..., ", "parameter.array.__setitem__(..., "),
    "an assignment is not noticed":
        edit(mg.Tensor, "__setitem__", "changes.note_change(target)", "pass"),
    # Recording
    "no_grad does not reach into generators":
        lambda patch: patch.setattr(recording, "_generator", lambda function: function),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault, monkeypatch):
    seeds = [seed for seed in range(BLOCKS * BLOCK) if verdict(seed).kind != FAILURE]
    PLANTED[fault](monkeypatch)
    found = next((seed for seed in seeds if check(drawn(seed)).kind == FAILURE), None)
    assert found is not None, f"{len(seeds)} programs pass with this fault"
    print("found by", found)
