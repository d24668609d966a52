"""Dtypes, comparisons, indices, masks: every number is the intended one."""

import operator

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import minigrad as mg
from minigrad import functional as F
from minigrad.testing import broadcasting_tensors

INTEGERS = ["uint8", "int8", "int16", "int32", "int64"]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
FINITE = st.floats(allow_nan=False, allow_infinity=False)


def within(dtype):
    return st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_integers_are_divided_as_numbers(dtype, data):
    """On either side, though the dtype of the other operand would wrap them."""
    shape = data.draw(st.sampled_from([(), (2,)]))
    pixels = np.full(shape, data.draw(within(dtype)), dtype)
    number = data.draw(st.integers(-(2**40), 2**40) | st.sampled_from([256, 1000, -1, 0.5]))
    for ours, exact in (
        (mg.tensor(pixels) / number, np.divide(pixels.astype("f8"), number)),
        (number / mg.tensor(pixels), np.divide(number, pixels.astype("f8"))),
        (mg.tensor(pixels) / mg.tensor(number), np.divide(pixels.astype("f8"), number)),
    ):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours.numpy(), exact, rtol=1e-6)


@pytest.mark.parametrize("compare", COMPARISONS)
@given(dtype=st.sampled_from(INTEGERS), data=st.data())
def test_comparisons_with_integers_compare_the_numbers(compare, dtype, data):
    numbers = data.draw(st.lists(within(dtype), min_size=1, max_size=3))
    other = data.draw(st.integers(-(2**70), 2**70) | st.sampled_from([300, -1, 0.5]) | FINITE)
    x = mg.tensor(np.array(numbers, dtype))
    if not isinstance(other, float) or max(map(abs, numbers)) < 2**53:
        assert compare(x, other).tolist() == [compare(number, other) for number in numbers]
    second = data.draw(st.sampled_from([d for d in INTEGERS if d != "uint64"]))
    others = [data.draw(within(second)) for _ in numbers]
    expected = [compare(a, b) for a, b in zip(numbers, others)]
    assert compare(x, mg.tensor(np.array(others, second))).tolist() == expected


@given(dtype=st.sampled_from(INTEGERS), number=st.integers(-(2**65), 2**65), data=st.data())
def test_what_a_dtype_cannot_hold_is_an_error(dtype, number, data):
    """In arithmetic on either side, in place, in assignment, and in a new Tensor."""
    info, x = np.iinfo(dtype), mg.tensor(np.zeros(2, dtype))

    def assign(value):
        x[0] = value

    def assign_in_place(value):
        nonlocal x
        x *= value

    ways = [lambda n: x + n, lambda n: n * x, assign, lambda n: mg.tensor([n], dtype=dtype)]
    ways += [lambda n: x + np.int64(n), lambda n: x + mg.tensor(n)] if abs(number) < 2**63 else []
    way = data.draw(st.sampled_from([*ways, assign_in_place]))
    if info.min <= number <= info.max:
        way(number)
    else:
        with pytest.raises((OverflowError, TypeError), match=r"holds integers from|real numbers"):
            way(number)
        assert x.tolist() == [0, 0]


def test_floats_that_an_integer_dtype_cannot_hold():
    x = mg.tensor(np.zeros(2, "u1"))
    for number in (256.0, -1.0, np.nan, np.inf):
        with pytest.raises(OverflowError, match="uint8 holds integers from 0 to 255"):
            x[0] = number
    x[0] = 2.75  # truncated, as in PyTorch
    assert x.tolist() == [2, 0]


@pytest.mark.parametrize(
    "data, dtype",
    [
        ([np.float64(0.1)], "float64"),
        ([np.float32(0.1)], "float32"),
        ([np.float32(0.1), 0.5], "float32"),
        ([[0.5], [np.float64(0.1)]], "float64"),
        ([np.array([0.1]), np.array([0.2])], "float64"),
        ([mg.tensor(0.1, dtype=mg.float64), mg.tensor(0.2)], "float64"),
        ([mg.tensor([0.1]), mg.tensor([0.2])], "float32"),
        ((np.int64(1), 0.5), "float32"),
        ([True, 0.5], "float32"),
        ([np.int64(1), 2], "int64"),
    ],
)
def test_a_list_has_the_dtype_of_what_is_in_it(data, dtype):
    x = mg.tensor(data)
    assert x.dtype == dtype
    assert x.tolist() == np.array([np.asarray(part) for part in data], dtype).tolist()
    assert (mg.zeros(2, dtype=mg.int64) + data).dtype == dtype


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 3), (0, 0), ()])
@pytest.mark.parametrize("rank", ["whole", "first", "in a tuple"])
def test_masks_select_as_in_pytorch(shape, rank):
    if not shape and rank != "whole":
        return
    numbers = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    results = []
    for lib in (mg, torch):
        x = lib.tensor(numbers.tolist()).reshape(shape)
        y = lib.ones(shape)
        mask = x > 1
        if rank != "whole":
            mask = x.sum(tuple(range(1, len(shape)))) > 1 if len(shape) > 1 else mask
        index = (mask, ...) if rank == "in a tuple" else mask
        y[index] = 5
        results.append((tuple(x[index].shape), x[index].tolist(), y.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "make_index",
    [
        *[lambda lib, i=i: i for i in (0, -1, [], [1, 1], slice(1), None, ..., (), True)],
        *[lambda lib, i=i: lib.tensor(i) for i in (0, -1, [1, 1], [True, False], True)],
        lambda lib: lib.zeros(0, dtype=lib.int64),
        lambda lib: (0, [1]),
        lambda lib: (0, 1),
        lambda lib: (lib.tensor(0), lib.tensor([1])),
        lambda lib: (slice(None), lib.tensor([True, False])),
        lambda lib: slice(lib.tensor(0), lib.tensor(1)),
    ],
)
def test_indices_select_as_in_pytorch(make_index):
    results = []
    for lib in (mg, torch):
        x = lib.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        chosen = x[make_index(lib)]
        chosen.sum().backward()
        results.append((tuple(chosen.shape), chosen.tolist(), x.grad.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "make_index",
    [
        lambda lib: (0, slice(None), [0, 1]),
        lambda lib: ([0, 1], slice(None), 0),
        lambda lib: (0, None, ..., lib.tensor([0, 1])),
        lambda lib: (..., 0, [0, 1]),
        lambda lib: (lib.tensor([True, False]), 0),
        lambda lib: (lib.tensor(1), lib.tensor([True]), [0, 2]),
        lambda lib: (0, lib.tensor([[True, False, True]])),
        lambda lib: ([0, 1], 0, [1, 2]),
        lambda lib: (0, slice(None), (0, 1)),
        lambda lib: (0, ..., range(2)),
    ],
)
def test_an_integer_beside_an_array_picks_first(make_index):
    results = []
    for lib in (mg, torch):
        x = lib.arange(6.0).reshape(2, 1, 3).requires_grad_()
        try:
            out = x[make_index(lib)]
        except IndexError:
            results.append(IndexError)
            continue
        (out * out).sum().backward()
        y = x.detach()
        y[make_index(lib)] = 9
        results.append((tuple(out.shape), out.tolist(), x.grad.tolist(), y.tolist()))
    assert results[0] == results[1]


def test_a_list_of_lists_is_refused():
    x = mg.arange(4).reshape(2, 2)
    with pytest.raises(IndexError, match=r"x\[rows, columns\]"):
        x[[[0, 1], [1, 0]]]
    assert x[np.array([[0, 1]])].shape == (1, 2, 2) and x[[0, 1], [1, 0]].tolist() == [1, 2]


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), 0.5, np.int64(2), 2, True])
@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", "float32", "float64"])
def test_numpy_numbers_beside_a_tensor_are_numbers(number, dtype):
    ours = mg.tensor([1, 0], dtype=dtype) * number
    theirs = torch.tensor([1, 0], dtype=getattr(torch, dtype)) * number
    assert f"torch.{ours.dtype}" == str(theirs.dtype) and ours.tolist() == theirs.tolist()


def test_true_beside_integers_and_arrays_is_refused():
    x = mg.zeros(2, 3, 4)
    with pytest.raises(IndexError, match="must not mix True or False"):
        x[True, 0, [0, 1]] = 5.0


def test_integers_are_never_wrapped():
    for make in (
        lambda: mg.tensor(2.0**63, dtype=mg.int64),
        lambda: mg.tensor([-1, 2**63]),
        lambda: mg.full_like(mg.zeros(2, dtype=mg.int64), np.nan),
        lambda: mg.full_like(mg.zeros(2, dtype=mg.uint8), 300.0),
        lambda: mg.randint(0, 1000, (100,), dtype=mg.uint8),
    ):
        with pytest.raises(OverflowError, match="holds integers"):
            make()
    assert mg.tensor(2.0**62, dtype=mg.int64).item() == 2**62


def test_squares_of_integers_are_refused():
    a, b = mg.tensor([250], dtype=mg.uint8), mg.tensor([0], dtype=mg.uint8)
    with pytest.raises(RuntimeError, match="uint8 and uint8; use x.float"):
        F.mse_loss(a, b, "sum")
    assert F.mse_loss(a.float(), b, "sum").item() == 62500


def test_max_of_two_tensors_is_the_larger_one():
    for lib in (mg, torch):
        x = lib.tensor([[1.0, 9.0], [3.0, 4.0]])
        assert lib.max(x, lib.tensor(5.0)).tolist() == [[5, 9], [5, 5]]
        assert lib.min(x, lib.tensor([2.0, 5.0])).tolist() == [[1, 5], [2, 4]]


def test_an_index_of_uint8_is_refused():
    x, places = mg.arange(3), np.array([0, 1], "u1")
    for index in (places, mg.tensor(places), (mg.tensor(places), ...)):
        with pytest.raises(
            IndexError, match=r"index.long\(\) for positions, or index > 0 for a mask"
        ):
            x[index]
        with pytest.raises(IndexError, match="a uint8 index"):
            x[index] = 1
    assert x[mg.tensor(places).long()].tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(0,), (2,), (3, 0), (0, 2), (1, 1)])
def test_a_mask_must_fit(shape):
    x, mask = mg.zeros(3, 2), mg.zeros(*shape, dtype=bool)
    with pytest.raises(IndexError, match=r"mask of shape .* does not fit shape \(3, 2\)"):
        x[mask]
    with pytest.raises(IndexError, match=r"mask of shape .* does not fit shape \(3, 2\)"):
        x[mask] = 1


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x - x, lambda x: -x, lambda x: x**x, lambda x: x @ x, lambda x: x.abs(),
        lambda x: x.argmax(), lambda x: x.argmin(), lambda x: x % x, lambda x: x // x,
    ],
)  # fmt: skip
def test_bools_are_refused_where_pytorch_refuses_them(refused):
    for lib in (mg, torch):
        with pytest.raises(RuntimeError):
            refused(lib.tensor([True, False]))
    with pytest.raises(RuntimeError, match=r"not defined for bools; convert with x.long\(\)"):
        refused(mg.tensor([True, False]))


def test_relu_keeps_the_sign_of_zero():
    assert np.signbit(F.relu(mg.tensor([-0.0, 0.0, -1.0])).numpy()).tolist() == [True, False, False]


def test_elements_are_views_as_in_pytorch():
    for lib in (mg, torch):
        x, flat = lib.zeros(2, 2), lib.zeros(3)
        x[0, 1].zero_()
        element, last = x[0, 1], flat[-1]
        element += 5
        last += 2
        for number in flat:
            number += 1
        assert x.tolist() == [[0, 5], [0, 0]] and flat.tolist() == [1, 1, 3]


@pytest.mark.parametrize(
    "index, value",
    [
        (0, [5.0]), (0, [[5.0]]), ((0, 0), [5.0]), (slice(0, 1), [[[1.0, 2.0]]]), (0, [1.0, 2.0]),
        (slice(None), [1.0, 2.0]), (slice(None), 3.0), ([0, 1], [[7.0]]), ((0, 0), 4.0),
        (0, [[1.0], [2.0]]), (0, [1.0, 2.0, 3.0]), ((0, 0), [1.0, 2.0]),
    ],
)  # fmt: skip
def test_assignment_fits_what_fits_in_pytorch(index, value):
    results = []
    for lib in (mg, torch):
        x = lib.zeros(2, 2)
        try:
            x[index] = lib.tensor(value)
        except (RuntimeError, ValueError):
            pass
        else:
            results.append(True)
        results.append(x.tolist())
    assert results[: len(results) // 2] == results[len(results) // 2 :]


@pytest.mark.parametrize("dim", [0, -1, (), None, (0,), 1, -2])
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_dims_of_a_single_number_are_those_of_pytorch(name, dim):
    results = []
    for lib in (mg, torch):
        x = lib.tensor(2.0, requires_grad=True)
        try:
            out = getattr(x, name)(dim)
        except IndexError as error:
            results.append(type(error))
            continue
        out.backward()
        results.append((out.item(), tuple(out.shape), x.grad.item()))
    assert (
        issubclass(results[0], IndexError) if results[1] is IndexError else results[0] == results[1]
    )


def test_no_dims_are_all_dims():
    x = mg.ones(2, 3)
    for dim in ((), [], None):
        assert x.sum(dim).shape == () and x.mean(dim, keepdim=True).shape == (1, 1)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3), (1, 0, 2)])
def test_no_elements_are_printed_with_their_shape(shape):
    for name in ("float32", "float64", "int64"):
        ours, theirs = mg.zeros(shape, dtype=name), torch.zeros(shape, dtype=getattr(torch, name))
        assert repr(ours) == repr(theirs).replace("torch.", "")


def test_view_shares_or_raises_as_in_pytorch():
    weights = [mg.nn.Linear(3, 2).weight, torch.nn.Linear(3, 2).weight]
    for lib, weight in zip((mg, torch), weights):
        with lib.no_grad():
            before = weight[0, 0].item()
            weight.view(-1)[0] += 1
            assert weight[0, 0].item() == pytest.approx(before + 1)
            weight.view(3, 2)
            with pytest.raises(RuntimeError, match="reshape"):
                weight.T.view(-1)
            weight.T.reshape(-1)[0] += 1  # a copy
            assert weight[0, 0].item() == pytest.approx(before + 1)


@given(data=st.data())
def test_a_result_can_be_viewed_in_any_shape(data):
    drawn = data.draw(st.tuples(broadcasting_tensors(2), broadcasting_tensors(2)))
    x, y = data.draw(st.sampled_from(drawn))
    for made in (x + y, x.T * 2, x > y, (x * y).exp(), x.sum(0), x.clone(), F.relu(x)):
        flat = made.view(-1)
        assert flat.numel() == 0 or np.may_share_memory(flat.array, made.array)
        np.testing.assert_array_equal(flat.array, made.array.reshape(-1))


# Dimensions


@pytest.mark.parametrize("name", ["all", "any"])
@pytest.mark.parametrize("dim", [None, 0, -1, (0, 1), [1, 2], ()])
@pytest.mark.parametrize("keepdim", [False, True])
def test_all_and_any_along_dims(name, dim, keepdim):
    x = mg.tensor([[[1.0, 0.0], [2.0, -1.0]], [[0.0, 0.0], [np.nan, 3.0]]])
    theirs = getattr(torch, name)(torch.tensor(x.numpy()), dim=dim, keepdim=keepdim)
    for ours in (getattr(x, name)(dim, keepdim), getattr(mg, name)(x, dim=dim, keepdim=keepdim)):
        assert ours.dtype == np.bool_ and ours.tolist() == theirs.tolist()
    if not keepdim and dim != ():  # NumPy's function finds the method
        axis = tuple(dim) if isinstance(dim, list) else dim
        assert getattr(np, name)(x, axis=axis).tolist() == theirs.tolist()


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 2)])
def test_log_softmax_without_dim_is_that_of_pytorch_or_an_error(shape):
    """In three dimensions, PyTorch takes the first of them, in four the second."""
    x = mg.randn(*shape)
    if len(shape) > 2:
        with pytest.raises(TypeError, match=f"log_softmax: input has {len(shape)} dims"):
            F.log_softmax(x)
        return
    expected = torch.nn.functional.log_softmax(torch.tensor(x.numpy()))
    np.testing.assert_allclose(F.log_softmax(x).numpy(), expected.numpy(), rtol=1e-5)
