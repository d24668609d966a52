"""The strategies and checks in `minigrad.testing`."""

import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import find, given, strategies as st

import minigrad as mg
from minigrad import changes
from minigrad.testing import (
    DAMAGES,
    arrays,
    broadcasting_tensors,
    check_operation,
    damage,
    shapes,
    tensors,
)


@pytest.mark.parametrize(
    "layout",
    [
        lambda a: a.flags.c_contiguous and a.ndim == 2,
        lambda a: a.flags.f_contiguous and not a.flags.c_contiguous,
        lambda a: not a.flags.f_contiguous and not a.flags.c_contiguous and min(a.strides) > 0,
        lambda a: a.ndim and min(a.strides) < 0,
        lambda a: not a.flags.writeable,
        lambda a: a.ndim == 0,
        lambda a: a.size == 0,
        lambda a: a.ndim == 3 and 1 in a.shape and a.any(),
    ],
)
def test_arrays_come_in_every_layout(layout):
    find(arrays(), layout)


@given(arrays(shape=(2, 3), dtype="float32", min_value=1, max_value=2, unique=True))
def test_arrays_are_what_was_asked_for(array):
    assert array.shape == (2, 3) and array.dtype == np.float32
    assert array.min() >= 1 and array.max() <= 2 and len(set(array.ravel())) == 6


@given(tensors(shapes(min_dims=1), min_value=0.5))
def test_tensors(x):
    assert isinstance(x, mg.Tensor) and x.requires_grad and x.dtype == np.float64
    assert x.ndim > 0 and (x.detach().numpy() >= 0.5).all()


@given(broadcasting_tensors(3, requires_grad=False))
def test_broadcasting_tensors(drawn):
    a, b, c = drawn
    assert (a + b + c).shape == np.broadcast_shapes(a.shape, b.shape, c.shape)
    assert not (a + b + c).requires_grad


def test_a_wrong_gradient_is_reported_with_both_values():
    square = mg.operation(lambda x: (x**2, lambda G: 4 * x * G))
    with pytest.raises(mg.GradcheckError) as raised:
        mg.gradcheck(square, mg.tensor([3.0, 1.0], dtype=mg.float64, requires_grad=True))
    found = re.findall(
        r"element \(0,\), which is 3: analytic gradient (.*), .* (.*) \(of", str(raised)
    )
    analytic, numeric = map(float, found[0])
    assert abs(analytic / numeric - 2) < 1e-6


# check_operation, for a user's operation


@mg.operation
def logistic(x):
    out = 1 / (1 + np.exp(-x))
    return out, lambda G: G * out * (1 - out)


def test_check_operation_takes_several_arguments():
    check_operation(logistic, tensors())
    check_operation(lambda x, y: logistic(x) * y, broadcasting_tensors(2))
    check_operation(
        lambda x, y, n: (x @ y) * n, tensors((2, 3)), tensors((3, 1)), st.integers(1, 3)
    )
    check_operation(lambda x: x.sum(), tensors())  # all gradients are equal: none is misplaced


def test_check_operation_needs_draws_that_show_something():
    with pytest.raises(mg.GradcheckError, match="the gradient is 0 on all"):
        check_operation(lambda x: x * 0, tensors())
    with pytest.raises(mg.GradcheckError, match="half of the gradient would not be noticed"):
        with mock.patch("minigrad.testing.gradcheck", lambda f, x: f(x).sum().backward()):
            check_operation(lambda x: x * x, tensors(min_value=1))  # nothing is ever compared


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_check_operation_notices_each_damage(change):
    with pytest.raises(mg.GradcheckError, match="finite difference"):
        check_operation(lambda x: damage(logistic(x), change), tensors(shape=(2, 3)))


@pytest.mark.parametrize(
    "low, high",
    [(1e-50, 1), (0, 1 - 1e-9), (0.1, 0.3), (-1 - 1e-9, -1e-50), (0.1, 0.1), (1e-50, 1e-49)],
)
def test_what_is_drawn_is_within_its_bounds(low, high):
    @given(arrays(shape=(3,), min_value=low, max_value=high))
    def check(drawn):
        assert ((low <= drawn) & (drawn <= high)).all()

    check()


def test_a_vjp_that_uses_changed_numbers_is_noticed(monkeypatch):
    square = mg.operation(lambda x: (x * x, lambda G: G * 2 * x))
    check_operation(square, tensors(shape=(2,)))
    monkeypatch.setattr(changes, "changed_since", lambda array, moment: False)
    with pytest.raises(mg.GradcheckError, match="after a change of input 0, backward gives"):
        check_operation(square, tensors(shape=(2,)))
    of_result = mg.operation(lambda x: (lambda out: (out, lambda G: G * out))(np.exp(x)))
    with pytest.raises(mg.GradcheckError, match="after a change of its result, backward gives"):
        check_operation(of_result, tensors(shape=(2,)))
