"""The functional interface: what is accepted, what comes back, and the gradients, on every backend."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from assertions import assert_agree, assert_not_vacuous, assert_same_bits, assert_varied, guarded
from device import sums_in_one_order
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, LAYOUTS, dtypes, masks, random_array, shapes, small_integers

import fastdrop as fd
from fastdrop import activations
from fastdrop._types import Array, Shape
from fastdrop.backends.base import AbstractBackend

pytestmark = [
    pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning"),
    pytest.mark.usefixtures("on_backend"),
]

KEY = fd.Key(31, 4, 1)
NAMES = sorted(activations.FUNCTIONS)


# Dropout


@given(st.data(), shapes, dtypes, st.integers(0, 2**31))
@settings(max_examples=80)
def test_dropout_is_a_selection_and_so_is_its_gradient(data: st.DataObject, shape: Shape, dtype: np.dtype, seed: int) -> None:
    """y is x * scale where kept and +0.0 elsewhere; the gradient of sum(y) is scale where kept and 0 elsewhere."""
    mask = data.draw(masks(shape))
    x = random_array(seed, shape, dtype)
    y, backward = fd.dropout(x, mask)
    keep, scale = mask.to_array(shape), dtype.type(mask.bind(shape).scale)
    assert_same_bits(y, np.where(keep, x * scale, dtype.type(0)))
    assert y.flags.c_contiguous
    assert not np.shares_memory(x, y)
    assert_same_bits(backward(np.ones_like(y)), np.where(keep, scale, dtype.type(0)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(33, 17), (5, 4, 6), (130,)])
def test_dropout_does_not_depend_on_the_memory_layout(shape: Shape, layout: str, dtype: np.dtype) -> None:
    x, dy = random_array(1, shape, dtype), random_array(2, shape, dtype)
    mask = fd.Mask(0.4, KEY, row_offset=3)
    wanted, wanted_backward = fd.dropout(x, mask)
    assert_not_vacuous(wanted)
    y, backward = fd.dropout(LAYOUTS[layout](x), mask)
    assert_same_bits(y, wanted)
    assert_same_bits(backward(LAYOUTS[layout](dy)), wanted_backward(dy))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_in_place(dtype: np.dtype) -> None:
    x, dy = random_array(3, (65, 17), dtype), random_array(4, (65, 17), dtype)
    mask = fd.Mask(0.3, KEY)
    y, backward = fd.dropout(x, mask)
    dx = backward(dy)
    same, backward = fd.dropout(x, mask, out=x)
    assert same is x
    assert_same_bits(x, y)
    assert backward(dy, out=dy) is dy
    assert_same_bits(dy, dx)


@pytest.mark.parametrize("n", EDGES)
def test_dropout_into_out(n: int) -> None:
    x = np.abs(random_array(5, (3, n))) + 1
    out, check = guarded((3, n), np.float32)
    y, backward = fd.dropout(x, fd.Mask(0.5, KEY), out=out)
    assert y is out
    check()
    dx, check = guarded((3, n), np.float32)
    assert backward(x, out=dx) is dx
    check()
    assert_same_bits(dx, y)


def test_masks_are_the_same_for_both_dtypes() -> None:
    mask = fd.Mask(0.5, KEY)
    single, _ = fd.dropout(np.ones((40, 30), np.float32), mask)
    double, _ = fd.dropout(np.ones((40, 30)), mask)
    assert_varied(single != 0)
    np.testing.assert_array_equal(single, double)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (1,), (1, 1), (2, 0, 3)])
def test_dropout_of_empty_and_of_single_elements(shape: Shape) -> None:
    y, backward = fd.dropout(np.ones(shape, np.float32), fd.Mask(0.5, KEY))
    assert y.shape == backward(y).shape == shape


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_batch_cut_in_pieces_is_the_same_dropout(rows: int) -> None:
    x = random_array(6, (rows, 3, 7))
    whole, _ = fd.dropout(x, fd.Mask(0.4, KEY, row_offset=11))
    for cut in {0, 1, rows // 2, rows}:
        first, _ = fd.dropout(x[:cut], fd.Mask(0.4, KEY, row_offset=11))
        second, _ = fd.dropout(x[cut:], fd.Mask(0.4, KEY, row_offset=11 + cut))
        assert_same_bits(np.concatenate([first, second]), whole)


# What is taken as an array


class _OnlyDLPack:
    """An array of another library: only DLPack, no ``__array__``."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class _OnlyArray:
    """An object that NumPy can convert."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self._array


class _Subclass(np.ndarray):
    """A subclass whose products must not be used."""

    def __mul__(self, other: object) -> Any:
        raise AssertionError("the subclass's own operator was used")


CONVERSIONS: dict[str, Callable[[Array], Any]] = {
    "dlpack": _OnlyDLPack,
    "array": _OnlyArray,
    "list": lambda array: array.tolist(),
    "subclass": lambda array: array.view(_Subclass),
}


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_arrays_of_other_kinds(convert: str) -> None:
    x, weight = random_array(7, (5, 6), np.float64), random_array(8, (6, 3), np.float64)
    mask = fd.Mask(0.5, KEY)
    foreign = CONVERSIONS[convert]
    y, backward = fd.dropout(foreign(x), mask)
    assert type(y) is np.ndarray
    assert_same_bits(y, fd.dropout(x, mask)[0])
    assert_same_bits(backward(foreign(x)), y)
    assert_same_bits(fd.dense(foreign(x), foreign(weight))[0], fd.dense(x, weight)[0])


# Dense


def _dense(x: Array, weight: Array, bias: Array | None, name: str, keep_in: Array, keep_out: Array, scale: float) -> Array:
    """By the formula, in the dtype of x; masks as arrays, one scale for both."""
    z = np.where(keep_in, x * x.dtype.type(scale), x.dtype.type(0)) @ weight
    z = z if bias is None else z + bias
    return np.where(keep_out, activations.FUNCTIONS[name](z) * x.dtype.type(scale), x.dtype.type(0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lead", [(7,), (3, 5), (2, 3, 4)])
def test_dense_is_the_formula(lead: Shape, name: str, dtype: np.dtype) -> None:
    x, weight, bias = random_array(9, (*lead, 13), dtype), random_array(10, (13, 17), dtype), random_array(11, (17,), dtype)
    input_mask, output_mask = fd.Mask(0.5, KEY, row_offset=2), fd.Mask(0.5, KEY.on(5), row_offset=2)
    keep_in, keep_out = input_mask.to_array(x.shape), output_mask.to_array((*lead, 17))
    y, backward = fd.dense(x, weight, bias, activation=name, input_mask=input_mask, output_mask=output_mask)
    assert_agree(y, _dense(x, weight, bias, name, keep_in, keep_out, 2.0), 64)
    assert_varied(y != 0)
    assert y.flags.c_contiguous
    dx, dweight, dbias = backward(np.ones_like(y))
    assert (dx.shape, dweight.shape, dbias.shape) == (x.shape, weight.shape, bias.shape)
    assert not dx[~keep_in].any()
    by_function, _ = fd.dense(
        x, weight, bias, activation=getattr(activations, name), input_mask=input_mask, output_mask=output_mask
    )
    assert_same_bits(by_function, y)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["relu", "tanh", "softmax"])
def test_dense_does_not_depend_on_the_memory_layout(name: str, layout: str) -> None:
    shapes_ = {"x": (9, 33), "weight": (33, 17), "bias": (17,), "dy": (9, 17)}
    plain = {n: random_array(i, s) for i, (n, s) in enumerate(shapes_.items())}
    other = {n: LAYOUTS[layout](array) for n, array in plain.items()}
    masks_ = {"input_mask": fd.Mask(0.2, KEY), "output_mask": fd.Mask(0.5, KEY.on(5))}
    y, backward = fd.dense(plain["x"], plain["weight"], plain["bias"], activation=name, **masks_)
    got, got_backward = fd.dense(other["x"], other["weight"], other["bias"], activation=name, **masks_)
    assert_same_bits(got, y)
    assert_not_vacuous(y)
    for mine, right in zip(got_backward(other["dy"]), backward(plain["dy"]), strict=True):
        assert_same_bits(mine, right)


def test_dense_without_what_is_optional() -> None:
    x, weight = small_integers(1, (5, 7)), small_integers(2, (7, 3))
    y, backward = fd.dense(x, weight)
    assert_same_bits(y, x @ weight)
    dx, dweight, dbias = backward(y)
    assert dbias is None
    assert_same_bits(dx, y @ weight.T)
    assert_same_bits(dweight, x.T @ y)
    nothing, again, _ = backward(y, input_gradient=False)
    assert nothing is None
    assert_same_bits(again, dweight)
    assert backward(y, False)[0] is None


def test_dense_gradients_are_fresh_arrays() -> None:
    x, weight, bias = random_array(1, (5, 7)), random_array(2, (7, 7)), random_array(3, (7,))
    dy = random_array(4, (5, 7))
    _, backward = fd.dense(x, weight, bias)
    first, second = backward(dy), backward(dy)
    for mine, other in zip(first, second, strict=True):
        assert_same_bits(mine, other)
        assert not np.shares_memory(mine, other)
        for source in (x, weight, bias, dy):
            assert not np.shares_memory(mine, source)


@pytest.mark.parametrize("name", ["relu", "gelu", "softmax"])
def test_dense_into_out(name: str) -> None:
    x, weight, bias = random_array(1, (3, 5, 17)), random_array(2, (17, 13)), random_array(3, (13,))
    mask = fd.Mask(0.5, KEY)
    wanted, wanted_backward = fd.dense(x, weight, bias, activation=name, output_mask=mask)
    out, check = guarded((3, 5, 13), np.float32)
    y, backward = fd.dense(x, weight, bias, activation=name, output_mask=mask, out=out)
    assert y is out
    check()
    assert_same_bits(out, wanted)
    for mine, right in zip(backward(wanted), wanted_backward(wanted), strict=True):
        assert_same_bits(mine, right)


@pytest.mark.parametrize("name", ["linear", "relu", "tanh", "softmax"])
def test_dense_out_may_be_x(name: str) -> None:
    x, weight = random_array(1, (9, 17)), random_array(2, (17, 17))
    y, backward = fd.dense(x.copy(), weight, activation=name)
    gradients = backward(y)
    buffer = x.copy()
    same, backward = fd.dense(buffer, weight, activation=name, out=buffer)
    assert same is buffer
    assert_same_bits(buffer, y)
    for mine, right in zip(backward(y), gradients, strict=True):
        if right is not None:
            assert_same_bits(mine, right)


@pytest.mark.parametrize("extents", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1)])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "softmax"])
def test_dense_of_empty_and_of_single_elements(name: str, extents: tuple[int, int, int]) -> None:
    rows, fan_in, fan_out = extents
    mask = fd.Mask(0.5, KEY)
    y, backward = fd.dense(
        np.ones((rows, 2, fan_in), np.float32), np.ones((fan_in, fan_out), np.float32), np.zeros(fan_out, np.float32),
        activation=name, input_mask=mask, output_mask=mask,
    )  # fmt: skip
    assert y.shape == (rows, 2, fan_out)
    dx, dweight, dbias = backward(np.ones_like(y))
    assert (dx.shape, dweight.shape, dbias.shape) == ((rows, 2, fan_in), (fan_in, fan_out), (fan_out,))


@pytest.mark.parametrize("name", ["relu", "silu", "softmax"])
def test_dense_of_a_batch_cut_in_pieces(on_backend: AbstractBackend, name: str) -> None:
    """Bit for bit where the products are ours; the reference leaves the order of sums to the BLAS library of NumPy."""
    same = assert_same_bits if sums_in_one_order(on_backend) else assert_agree
    x, dy = random_array(1, (23, 3, 65)), random_array(3, (23, 3, 33))
    weight = random_array(2, (65, 33)) / np.float32(16)  # logits so small that softmax does not magnify their rounding

    def run(first: int, last: int) -> tuple[Array, Array]:
        input_mask, output_mask = (fd.Mask(0.3, KEY.on(i), row_offset=7 + first) for i in range(2))
        y, backward = fd.dense(x[first:last], weight, activation=name, input_mask=input_mask, output_mask=output_mask)
        return y, backward(dy[first:last])[0]

    y, dx = run(0, 23)
    assert_not_vacuous(y)
    for cut in (1, 8, 22):
        for first, last in ((0, cut), (cut, 23)):
            part_y, part_dx = run(first, last)
            same(part_y, y[first:last])
            same(part_dx, dx[first:last])


# Gradients


def _directional(loss: Callable[[Array], float], at: Array, direction: Array) -> float:
    """Central difference of a loss along a direction, extrapolated once (error of order h**4)."""

    def difference(h: float) -> float:
        return (loss(at + h * direction) - loss(at - h * direction)) / (2 * h)

    return (4 * difference(1e-4) - difference(2e-4)) / 3


SMOOTH = sorted(set(NAMES) - {"heaviside"})


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("argument", ["x", "weight", "bias"])
def test_dense_gradients_along_random_directions(argument: str, masked: bool, name: str) -> None:
    """In binary64, with a frozen key; seeds at which no pre-activation lies near a kink."""
    arrays = {
        "x": random_array(1, (6, 7), np.float64),
        "weight": random_array(2, (7, 5), np.float64),
        "bias": random_array(3, (5,)),
    }
    arrays["bias"] = arrays["bias"].astype(np.float64)
    dy = random_array(4, (6, 5), np.float64)
    options = {"input_mask": fd.Mask(0.3, KEY), "output_mask": fd.Mask(0.5, KEY.on(5))} if masked else {}
    z = fd.dense(**arrays, input_mask=options.get("input_mask"))[0]
    assert np.abs(z).min() > 5e-3, "a kink is too near"

    def loss(value: Array) -> float:
        return float((fd.dense(**arrays | {argument: value}, activation=name, **options)[0] * dy).sum())

    gradients = dict(zip(arrays, fd.dense(**arrays, activation=name, **options)[1](dy), strict=True))
    for seed in range(3):
        direction = random_array(10 + seed, arrays[argument].shape, np.float64)
        expected = _directional(loss, arrays[argument], direction)
        assert float((gradients[argument] * direction).sum()) == pytest.approx(expected, rel=1e-7, abs=1e-8)
        assert expected != 0


@pytest.mark.parametrize("options", [{}, {"shared_rows": 2}, {"fixed_count": True}, {"noise_shape": (None, 1, None)}])
def test_dropout_gradient_is_its_transpose(options: dict[str, Any]) -> None:
    """``<dropout(x), dy> == <x, backward(dy)>``: dropout is linear."""
    x, dy = random_array(1, (4, 5, 6), np.float64), random_array(2, (4, 5, 6), np.float64)
    y, backward = fd.dropout(x, fd.Mask(0.5, KEY, **options))
    assert_varied(y != 0)
    assert float((y * dy).sum()) == pytest.approx(float((x * backward(dy)).sum()), rel=1e-13)


def test_heaviside_has_no_gradient() -> None:
    _, backward = fd.dense(random_array(1, (6, 7)), random_array(2, (7, 5)), random_array(3, (5,)), activation="heaviside")
    assert not any(gradient.any() for gradient in backward(random_array(4, (6, 5))))


def test_softmax_with_dropout_is_three_passes() -> None:
    x, weight, bias, dy = random_array(1, (9, 7)), random_array(2, (7, 5)), random_array(3, (5,)), random_array(4, (9, 5))
    mask = fd.Mask(0.5, KEY)
    y, backward = fd.dense(x, weight, bias, activation="softmax", output_mask=mask)
    z, dense_backward = fd.dense(x, weight, bias)
    p = activations.softmax(z)
    wanted, dropout_backward = fd.dropout(p, mask)
    assert_same_bits(y, wanted)
    dp = dropout_backward(dy)
    dz = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    for mine, right in zip(backward(dy), dense_backward(dz), strict=True):
        assert_agree(mine, right, 32)


# Callbacks and threads


def test_many_forwards_may_be_outstanding() -> None:
    weight = random_array(0, (9, 9))
    runs = []
    for step in range(6):
        x, mask = random_array(step, (4, 9)), fd.Mask(0.5, KEY.at(step))
        runs.append((fd.dense(x, weight, activation="relu", output_mask=mask)[1], fd.dropout(x, mask)[1], x))
    dy = random_array(99, (4, 9))
    alone = []
    for step in range(6):
        x, mask = random_array(step, (4, 9)), fd.Mask(0.5, KEY.at(step))
        dense_gradients = fd.dense(x, weight, activation="relu", output_mask=mask)[1](dy)
        alone.append((dense_gradients, fd.dropout(x, mask)[1](dy)))
    for step in (3, 0, 5, 1, 4, 2, 3):
        dense_backward, dropout_backward, _ = runs[step]
        assert_same_bits(dense_backward(dy)[0], alone[step][0][0])
        assert_same_bits(dense_backward(dy)[1], alone[step][0][1])
        assert_same_bits(dropout_backward(dy), alone[step][1])


def test_the_mask_is_that_of_the_call() -> None:
    """A mask object that changes afterwards does not change a backward pass that is outstanding."""
    mask = fd.Mask(0.5, KEY)
    _, backward = fd.dropout(np.ones((8, 8), np.float32), mask)
    wanted = backward(np.ones((8, 8), np.float32))
    mask.key = KEY.at(77)
    mask.row_offset = 5
    assert_same_bits(backward(np.ones((8, 8), np.float32)), wanted)


def test_dropout_keeps_neither_input_nor_mask_alive() -> None:
    """No mask is stored, and x is not needed: only a few integers wait for the backward pass."""
    x = np.ones((64, 64), np.float32)
    y, backward = fd.dropout(x, fd.Mask(0.5, KEY))
    held = [weakref.ref(x), weakref.ref(y)]
    del x, y
    gc.collect()
    assert [ref() for ref in held] == [None, None]
    assert_varied(backward(np.ones((64, 64), np.float32)) != 0)


def test_calls_from_many_threads() -> None:
    weight = random_array(0, (65, 33))

    def work(seed: int) -> list[Array]:
        x, mask = random_array(seed, (17, 65)), fd.Mask(0.4, KEY.at(seed))
        y, backward = fd.dense(x, weight, activation="tanh", input_mask=mask, output_mask=mask)
        dropped, dropout_backward = fd.dropout(x, mask)
        return [y, *backward(y)[:2], dropped, dropout_backward(x)]

    alone = [work(seed) for seed in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, range(16)))
    for mine, right in zip(together, alone, strict=True):
        for a, b in zip(mine, right, strict=True):
            assert_same_bits(a, b)


# NaN and inf, on the way through


def test_nan_and_inf_follow_the_mask() -> None:
    x = np.full((50, 20), np.nan, np.float32)
    x[:, ::2] = -np.inf
    mask = fd.Mask(0.5, KEY)
    keep = mask.to_array(x.shape)
    assert_varied(keep)
    y, backward = fd.dropout(x, mask)
    assert_same_bits(y[~keep], np.zeros(int((~keep).sum()), np.float32))
    assert_same_bits(y[keep], x[keep])
    assert_same_bits(backward(x), y)


def test_no_warnings_for_overflow_and_nan() -> None:
    """Warnings are errors here: float arithmetic on extreme values is silent."""
    extreme = np.array([[np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45]] * 2, np.float32)
    for name in NAMES:
        y, backward = fd.dense(extreme, np.ones((6, 2), np.float32), activation=name, output_mask=fd.Mask(0.5, KEY))
        assert y.shape == (2, 2)
        assert backward(np.full_like(y, np.inf))[1].shape == (6, 2)
    y, _ = fd.dropout(extreme, fd.Mask(0.9, KEY))
    assert y.shape == extreme.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(129, 128), (128, 129), (300, 257)])
def test_large_matrices_that_lie_by_columns(shape: tuple[int, int], dtype: np.dtype) -> None:
    """They are copied by blocks; the result has the bits that it has of matrices that lie by rows."""
    x, weight, dy = (
        random_array(1, (shape[1], shape[0]), dtype),
        random_array(2, shape, dtype),
        random_array(3, (shape[1],) * 2, dtype),
    )
    y, backward = fd.dense(x, weight)
    other, backward_of_other = fd.dense(np.asfortranarray(x), np.asfortranarray(weight))
    assert_same_bits(other, y)
    for got, wanted in zip(backward_of_other(np.asfortranarray(dy))[:2], backward(dy)[:2], strict=True):
        assert_same_bits(got, wanted)
