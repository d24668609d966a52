"""Random graphs: the gradients of all leaves, compared with PyTorch's on the same graph.

A graph is drawn as a list of steps. Each step applies an operation to values that already exist,
leaves or results. So values are reused, diamonds and self-additions arise, and views are taken of
views.
"""

import numpy as np
import torch
import torch.nn.functional
from hypothesis import given, settings, strategies as st

import minigrad as mg
from minigrad import functional
from minigrad.explaining import describe
from minigrad.layout import arrange
from minigrad.testing import arrays

SHAPES = [(), (1,), (3,), (1, 3), (2, 1), (2, 3), (3, 2), (2, 1, 3)]


def broadcasts(a, b):
    return all(m == n or 1 in (m, n) for m, n in zip(a.shape[::-1], b.shape[::-1]))


def fitted(operation):
    """`operation` of a and b, or of a and the sum of b if their shapes do not fit."""
    return lambda F, a, b: operation(a, b if broadcasts(a, b) else b.sum())


# All but sums keep numbers within a few powers of ten: exp, log, pow and / see tanh first.
STEPS = {
    "add": fitted(lambda a, b: a + b),
    "add to itself": lambda F, a, b: a + a,
    "subtract": fitted(lambda a, b: a - b),
    "multiply": fitted(lambda a, b: a.tanh() * b),
    "divide": fitted(lambda a, b: a / (b.tanh() + 3)),
    "power": fitted(lambda a, b: (a.tanh() + 3) ** b.tanh()),
    "square": lambda F, a, b: a.tanh() * a.tanh(),
    "negate": lambda F, a, b: -a,
    "exp": lambda F, a, b: a.tanh().exp(),
    "log": lambda F, a, b: (a.tanh() + 3).log(),
    "relu": lambda F, a, b: F.relu(a),
    "log_softmax": lambda F, a, b: F.log_softmax(a, dim=-1) if a.ndim else a,
    "matmul": lambda F, a, b: a.tanh() @ a.tanh().transpose(-1, -2) if a.ndim > 1 else a * b.sum(),
    "linear": lambda F, a, b: F.linear(a.tanh(), a.tanh().view(-1, a.shape[-1])) if a.ndim else a,
    "sum": lambda F, a, b: a.sum(),
    "sum of columns": lambda F, a, b: a.sum(-1, keepdim=True) if a.ndim else a,
    "mean": lambda F, a, b: a.mean(),
    "max": lambda F, a, b: a.max(),
    "flat": lambda F, a, b: a.reshape(-1),
    "transpose": lambda F, a, b: a.transpose(0, -1) if a.ndim else a,
    "first": lambda F, a, b: a[0] if a.ndim else a,
    "all but the first, twice": lambda F, a, b: a[[*range(1, len(a)), 0, 0]] if a.ndim else a,
    "every other": lambda F, a, b: a[..., ::2] if a.ndim else a,
    "clone": lambda F, a, b: a.clone(),
    "cut": lambda F, a, b: a.detach(),
    "in place": fitted(lambda a, b: add_in_place(a.clone(), b)),
}


def add_in_place(a, b):
    a += b.sum()
    a *= 2
    return a


@st.composite
def graphs(draw):
    """Arrays for the leaves, and steps as (operation, number of a, number of b)."""
    leaves = draw(st.lists(st.sampled_from(SHAPES).flatmap(arrays), min_size=1, max_size=3))
    steps = []
    for i in range(draw(st.integers(1, 12))):
        values = st.integers(0, len(leaves) + i - 1)
        steps.append((draw(st.sampled_from(sorted(STEPS))), draw(values), draw(values)))
    return leaves, steps


def run(leaves, steps, F):
    """The weighted sum of all values of a graph; each has a different weight."""
    values = list(leaves)
    for name, a, b in steps:
        values.append(STEPS[name](F, values[a], values[b]))
    total = values[0].sum() * 0
    for i, value in enumerate(values):
        total = total + value.sum() * (1 + i / 10)
    return total


@settings(max_examples=300)
@given(graphs())
def test_gradients_of_all_leaves_are_those_of_pytorch(graph):
    inputs, steps = graph
    ours = [mg.Tensor(a, requires_grad=True) for a in inputs]
    theirs = [torch.tensor(a.copy(), requires_grad=True) for a in inputs]
    total, expected = run(ours, steps, functional), run(theirs, steps, torch.nn.functional)
    np.testing.assert_allclose(total.item(), expected.item(), rtol=1e-9, atol=1e-9)
    total.backward()
    expected.backward(retain_graph=True)
    total.backward()  # once more: gradients add up
    expected.backward()
    for x, y in zip(ours, theirs):
        largest = y.grad.abs().max()
        np.testing.assert_allclose(x.grad, y.grad, rtol=1e-9, atol=1e-9 * max(1, largest))


@given(graphs())
def test_the_description_of_a_sweep_adds_up_to_the_gradients(graph):
    inputs, steps = graph
    leaves = [mg.Tensor(a, requires_grad=True) for a in inputs]
    total = run(leaves, steps, functional)
    values, turns = describe(total, {f"leaf {i}": x for i, x in enumerate(leaves)})
    total.backward()
    at = {turn.node: i for i, turn in enumerate(turns)}
    received = {}
    for i, turn in enumerate(turns):
        for sent in filter(None, turn.contributions):
            so_far = received.setdefault(sent.to, [])
            assert sent.first == (not so_far) and at[sent.to] > i
            so_far.append(sent)
    for node, all_sent in received.items():
        assert [sent.last for sent in all_sent] == [False] * (len(all_sent) - 1) + [True]
        np.testing.assert_array_equal(all_sent[-1].total, turns[at[node]].gradient)
        summed = sum(sent.sent for sent in all_sent)
        np.testing.assert_allclose(summed, turns[at[node]].gradient, rtol=1e-9, atol=1e-9)
    names = {value.name: node for node, value in values.items()}
    assert len(names) == len(values)
    for i, x in enumerate(leaves):
        np.testing.assert_array_equal(turns[at[names[f"leaf {i}"]]].gradient, x.grad)


@settings(max_examples=30)
@given(graphs())
def test_no_place_of_a_picture_is_taken_twice(graph):
    inputs, steps = graph
    total = run([mg.Tensor(a, requires_grad=True) for a in inputs], steps, functional)
    nodes = list(describe(total)[0])
    where, leads_to = arrange(nodes)
    assert len({*where.values()}) == len(where)
    assert {row for column, row in where.values() if column == 0} == {r for _, r in where.values()}
    for place, all_below in leads_to.items():  # arrows lead from each row to the next
        assert all(where[below][1] == where[place][1] - 1 for below in all_below)
