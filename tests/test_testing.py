"""The strategies that `minigrad.testing` offers."""

import re

import numpy as np
import pytest
from hypothesis import find, given

import minigrad as mg
from minigrad.testing import arrays, broadcasting_tensors, shapes, tensors


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
    def square(x):
        return mg.record(x.array**2, (x,), lambda grad: (4 * x.array * grad,)).sum()

    with pytest.raises(mg.GradcheckError) as raised:
        mg.gradcheck(square, mg.tensor([3.0, 1.0], dtype=mg.float64, requires_grad=True))
    found = re.findall(
        r"element \(0,\), which is 3: analytic gradient (.*), .* (.*) \(of", str(raised)
    )
    analytic, numeric = map(float, found[0])
    assert abs(analytic / numeric - 2) < 1e-6
