"""Dense through the seam: on every backend, against the definition written with NumPy."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from assertions import (
    assert_agree,
    assert_at_most_twice_the_error,
    assert_near,
    assert_not_vacuous,
    assert_same_bits,
    assert_varied,
    guarded,
)
from device import sums_in_one_order
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, LAYOUTS, dtypes, masks, random_array, small_integers, small_sizes

from fastdrop import Key, Mask
from fastdrop._types import ActivationKind, Array, Shape, UpdateKind
from fastdrop.backends.base import AbstractBackend, needs_z
from fastdrop.backends.operands import Update
from fastdrop.mask import BoundMask

pytestmark = pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")

KEY = Key(21, 2, 9)
KINDS = list(ActivationKind)
LINEAR, RELU, ADAM = ActivationKind.LINEAR, ActivationKind.RELU, UpdateKind.ADAM


def _matrix(mask: Mask | None, shape: Shape) -> BoundMask | None:
    return None if mask is None else mask.bind(shape, as_matrix=True)


def _drop(x: Array, mask: Mask | None, shape: Shape) -> Array:
    """Dropout of the matrix x, seen as an array of `shape`; the scale is rounded to the dtype of x."""
    if mask is None:
        return x
    with np.errstate(all="ignore"):
        scaled = x * x.dtype.type(mask.bind(shape).scale)
    return np.where(mask.to_array(shape).reshape(x.shape), scaled, x.dtype.type(0))


@dataclasses.dataclass
class Case:
    """One dense layer: arrays as matrices, masks that count the rows of `x_shape` and `y_shape`."""

    x: Array
    weight: Array
    bias: Array | None
    dy: Array
    kind: ActivationKind
    input_mask: Mask | None
    output_mask: Mask | None
    x_shape: Shape
    y_shape: Shape

    def bound(self) -> tuple[BoundMask | None, BoundMask | None]:
        return _matrix(self.input_mask, self.x_shape), _matrix(self.output_mask, self.y_shape)

    def as_dtype(self, dtype: Any) -> Case:
        arrays = {name: getattr(self, name) for name in ("x", "weight", "bias", "dy")}
        return dataclasses.replace(self, **{name: None if a is None else a.astype(dtype) for name, a in arrays.items()})

    def forward(self, backend: AbstractBackend, out: Array | None = None) -> tuple[Array, Array | None]:
        return backend.dense_forward(self.x, self.weight, self.bias, self.kind, *self.bound(), True, out)

    def backward(self, backend: AbstractBackend, y: Array, z: Array | None) -> tuple[Array, Array, Array]:
        dweight, dbias = (np.full(shape, np.nan, self.x.dtype) for shape in (self.weight.shape, self.dy.shape[1:]))
        dx = backend.dense_backward(
            self.dy, self.x, self.weight, y, z, self.kind, *self.bound(), True, dweight, dbias, accumulate=False
        )
        assert dx is not None
        return dx, dweight, dbias

    def expected_forward(self, reference: AbstractBackend) -> tuple[Array, Array]:
        """(y, z) by the formula, in the dtype of the arrays."""
        z = _drop(self.x, self.input_mask, self.x_shape) @ self.weight
        z = z if self.bias is None else z + self.bias
        return _drop(reference.activation_forward(z, self.kind), self.output_mask, self.y_shape), z

    def expected_backward(self, reference: AbstractBackend, z: Array) -> tuple[Array, Array, Array]:
        """(dx, dweight, dbias) by the formula."""
        dz = _drop(reference.activation_backward(self.dy, z, self.kind), self.output_mask, self.y_shape)
        dx = _drop(dz @ self.weight.T, self.input_mask, self.x_shape)
        return dx, _drop(self.x, self.input_mask, self.x_shape).T @ dz, dz.sum(axis=0)


def _case(
    rows: int | Shape,
    fan_in: int,
    fan_out: int,
    *,
    make: Any = random_array,
    dtype: Any = np.float32,
    kind: ActivationKind = LINEAR,
    input_mask: Mask | None = None,
    output_mask: Mask | None = None,
    bias: bool = True,
    seed: int = 0,
) -> Case:
    lead = (rows,) if isinstance(rows, int) else rows
    count = math.prod(lead)
    return Case(
        make(seed, (count, fan_in), dtype),
        make(seed + 1, (fan_in, fan_out), dtype),
        make(seed + 2, (fan_out,), dtype) if bias else None,
        make(seed + 3, (count, fan_out), dtype),
        kind,
        input_mask,
        output_mask,
        (*lead, fan_in),
        (*lead, fan_out),
    )


@given(
    st.data(),
    st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    small_sizes,
    small_sizes,
    st.sampled_from(KINDS),
    st.booleans(),
    dtypes,
    st.integers(0, 2**31),
)
@settings(max_examples=120)
def test_forward_and_backward_are_the_definition(
    backend: AbstractBackend,
    reference: AbstractBackend,
    data: st.DataObject,
    lead: Shape,
    fan_in: int,
    fan_out: int,
    kind: ActivationKind,
    bias: bool,
    dtype: np.dtype,
    seed: int,
) -> None:
    """Random shapes, masks and activations, within the rounding errors of sums of that many terms."""
    input_mask = data.draw(st.none() | masks((*lead, fan_in)))
    output_mask = data.draw(st.none() | masks((*lead, fan_out)))
    case = _case(
        lead, fan_in, fan_out, dtype=dtype, kind=kind, input_mask=input_mask, output_mask=output_mask, bias=bias, seed=seed
    )
    rows, eps = len(case.x), float(np.finfo(dtype).eps)
    wanted, z = case.expected_forward(reference)
    y, kept_z = case.forward(backend)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    dropped_x = np.abs(_drop(case.x, input_mask, case.x_shape))
    terms = dropped_x @ np.abs(case.weight) + (0 if case.bias is None else np.abs(case.bias)) + 1
    assert_near(y, wanted, 4 * (fan_in + 8) * eps * np.abs(_drop(terms, output_mask, case.y_shape)))
    assert (kept_z is not None) == needs_z(kind)
    if kept_z is not None:
        assert_near(kept_z, z, 4 * (fan_in + 8) * eps * terms)

    dx, dweight, dbias = case.backward(backend, wanted, z if needs_z(kind) else None)
    wanted_dx, wanted_dweight, wanted_dbias = case.expected_backward(reference, z)
    dz_terms = 2 * np.abs(_drop(case.dy, output_mask, case.y_shape))
    dx_terms = np.abs(_drop(dz_terms @ np.abs(case.weight).T, input_mask, case.x_shape))
    assert_near(dx, wanted_dx, 4 * (fan_out + 8) * eps * dx_terms)
    assert_near(dweight, wanted_dweight, 4 * (rows + 8) * eps * (dropped_x.T @ dz_terms))
    assert_near(dbias, wanted_dbias, 4 * (rows + 8) * eps * dz_terms.sum(axis=0))
    assert (dx.dtype, dweight.dtype, dbias.dtype) == (dtype, dtype, dtype)


HALF = Mask(0.5, KEY)
EXACT_MASKS = {
    "none": (None, None),
    "input": (Mask(0.75, KEY, row_offset=5), None),
    "output": (None, Mask(0.5, KEY.on(7), row_offset=5)),
    "both": (HALF, Mask(0.5, KEY.on(7))),
    "shared": (Mask(0.5, KEY, shared_rows=3), Mask(0.5, KEY.on(7), shared_rows="batch")),
    "columns": (Mask(0.5, KEY, noise_shape=(1, None)), Mask(0.5, KEY.on(7), noise_shape=(1, None))),
    "rows": (Mask(0.5, KEY, noise_shape=(None, 1)), Mask(0.5, KEY.on(7), noise_shape=(1, None))),
}


def _check_exactly(case: Case, backend: AbstractBackend, reference: AbstractBackend, vacuous: bool = False) -> None:
    """Small integers: every sum is exact, so every result has one right answer."""
    y, z = case.forward(backend)
    wanted_y, wanted_z = case.expected_forward(reference)
    assert np.abs(wanted_z).max(initial=0) < 2**23
    assert_same_bits(np.abs(y), np.abs(wanted_y))
    np.testing.assert_array_equal(y, wanted_y)
    assert z is None
    got, wanted = case.backward(backend, y, None), case.expected_backward(reference, wanted_z)
    for mine, right in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(mine, right)
        if not vacuous and right.size >= 64:
            assert_not_vacuous(right, 0.01)
    if not vacuous and y.size >= 64:
        assert_not_vacuous(wanted_y)


@pytest.mark.parametrize(
    ("n", "name"), [(n, name) for n in EDGES for name in EXACT_MASKS if n < 1000 or name in ("none", "both")]
)
@pytest.mark.parametrize("axis", ["b", "i", "o"])
def test_small_integers_are_exact_at_edges(
    backend: AbstractBackend, reference: AbstractBackend, axis: str, n: int, name: str
) -> None:
    """Each extent in turn at every edge, the others at awkward sizes."""
    extents = {"b": 5, "i": 13, "o": 17} | {axis: n}
    input_mask, output_mask = EXACT_MASKS[name]
    case = _case(
        extents["b"], extents["i"], extents["o"], make=small_integers, kind=RELU, input_mask=input_mask, output_mask=output_mask
    )
    _check_exactly(case, backend, reference, vacuous=n < 13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT_MASKS)
@pytest.mark.parametrize("extents", [(129, 1025, 65), (65, 129, 1000), (1, 1025, 129), (2, 1000, 1025), (257, 17, 33)])
def test_small_integers_are_exact_in_larger_layers(
    backend: AbstractBackend, reference: AbstractBackend, extents: tuple[int, int, int], name: str, dtype: np.dtype
) -> None:
    input_mask, output_mask = EXACT_MASKS[name]
    case = _case(*extents, make=small_integers, dtype=dtype, kind=LINEAR, input_mask=input_mask, output_mask=output_mask)
    _check_exactly(case, backend, reference, vacuous=name == "rows" and extents[0] < 13)


@pytest.mark.parametrize("extents", [(33, 16, 64), (129, 1000, 128)])
def test_small_integers_are_exact_with_fixed_counts(
    backend: AbstractBackend, reference: AbstractBackend, extents: tuple[int, int, int]
) -> None:
    """Half of an even number of units: the scale is 2."""
    input_mask, output_mask = (Mask(0.5, KEY.on(i), fixed_count=True, shared_rows=2, row_offset=5) for i in range(2))
    case = _case(*extents, make=small_integers, kind=RELU, input_mask=input_mask, output_mask=output_mask)
    _check_exactly(case, backend, reference)


@pytest.mark.parametrize("kind", [LINEAR, ActivationKind.LEAKY_RELU, ActivationKind.HEAVISIDE])
def test_small_integers_without_bias(backend: AbstractBackend, reference: AbstractBackend, kind: ActivationKind) -> None:
    case = _case((4, 5), 13, 31, make=small_integers, kind=kind, input_mask=HALF, bias=False)
    y, _ = case.forward(backend)
    np.testing.assert_array_equal(y, case.expected_forward(reference)[0])
    assert_not_vacuous(y)


@pytest.mark.parametrize("kind", [LINEAR, RELU, ActivationKind.TANH, ActivationKind.GELU])
@pytest.mark.parametrize("extents", [(65, 129, 33), (17, 1025, 65), (128, 784, 96), (7, 16, 1000)])
def test_error_is_at_most_twice_that_of_plain_numpy(
    backend: AbstractBackend, reference: AbstractBackend, extents: tuple[int, int, int], kind: ActivationKind
) -> None:
    """float32 against binary64; rates whose scale is exact in both."""
    case = _case(*extents, kind=kind, input_mask=Mask(0.5, KEY), output_mask=Mask(0.75, KEY.on(1)))
    case.weight /= np.float32(math.sqrt(extents[1]))
    wide = case.as_dtype(np.float64)
    exact_y, exact_z = wide.expected_forward(reference)
    plain_y = case.expected_forward(reference)[0]
    y, z = case.forward(backend)
    assert_at_most_twice_the_error(y, plain_y, exact_y)
    assert_not_vacuous(exact_y)
    saved_z = exact_z.astype(np.float32)
    exact = wide.expected_backward(reference, saved_z.astype(np.float64))
    plain = case.expected_backward(reference, saved_z)
    got = case.backward(backend, exact_y.astype(np.float32), None if z is None else saved_z)
    for mine, theirs, right in zip(got, plain, exact, strict=True):
        assert_at_most_twice_the_error(mine, theirs, right)
        assert_not_vacuous(right)


@pytest.mark.skipif(np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps, reason="no floats wider than binary64 here")
@pytest.mark.parametrize("extents", [(65, 129, 33), (17, 1025, 16)])
def test_error_in_binary64(backend: AbstractBackend, extents: tuple[int, int, int]) -> None:
    case = _case(*extents, dtype=np.float64)
    y, _ = case.forward(backend)
    wide = case.as_dtype(np.longdouble)
    assert wide.bias is not None
    assert_at_most_twice_the_error(y, case.x @ case.weight + case.bias, wide.x @ wide.weight + wide.bias)


# What is written, and what is not


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extents", [(1, 5, 1), (6, 3, 17), (13, 16, 33), (65, 65, 129), (1, 65, 1000), (0, 3, 4), (3, 0, 4)])
def test_results_are_written_whole_and_nothing_else(
    backend: AbstractBackend, extents: tuple[int, int, int], dtype: np.dtype
) -> None:
    rows, fan_in, fan_out = extents
    case = _case(*extents, dtype=dtype, kind=RELU, input_mask=HALF, output_mask=Mask(0.5, KEY.on(1)))
    out, check = guarded((rows, fan_out), dtype)
    y, z = case.forward(backend, out)
    assert y is out
    check()
    assert_same_bits(out, case.forward(backend)[0])
    dweight, check_weight = guarded((fan_in, fan_out), dtype)
    dbias, check_bias = guarded((fan_out,), dtype)
    dx = backend.dense_backward(
        case.dy, case.x, case.weight, y, z, RELU, *case.bound(), want_dx=True, dweight=dweight, dbias=dbias, accumulate=False
    )
    check_weight()
    check_bias()
    for mine, right in zip((dx, dweight, dbias), case.backward(backend, y, z), strict=True):
        assert_same_bits(mine, right)


def test_inputs_are_not_written(backend: AbstractBackend) -> None:
    case = _case(9, 17, 33, kind=ActivationKind.SILU, input_mask=HALF, output_mask=HALF)
    for array in (case.x, case.weight, case.bias, case.dy):
        array.flags.writeable = False
    y, z = case.forward(backend)
    for array in (y, z):
        array.flags.writeable = False
    case.backward(backend, y, z)
    assert_not_vacuous(y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extents", [(5, 13, 17), (33, 65, 129), (300, 16, 16)])
def test_accumulate_adds(backend: AbstractBackend, extents: tuple[int, int, int], dtype: np.dtype) -> None:
    """Integers, so that adding is exact whatever the order."""
    case = _case(*extents, make=small_integers, dtype=dtype, output_mask=HALF)
    y, z = case.forward(backend)
    _, dweight, dbias = case.backward(backend, y, z)
    sum_weight, sum_bias = np.full_like(dweight, 3), np.full_like(dbias, 5)
    for _ in range(2):
        backend.dense_backward(case.dy, case.x, case.weight, y, z, LINEAR, *case.bound(), False, sum_weight, sum_bias, True)
    assert_same_bits(sum_weight, 2 * dweight + 3)
    assert_same_bits(sum_bias, 2 * dbias + 5)
    assert_not_vacuous(dweight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("extents", [(1, 5, 1), (5, 13, 17), (128, 65, 129), (300, 16, 16), (0, 3, 4), (3, 0, 4)])
@pytest.mark.parametrize("kind", UpdateKind)
@pytest.mark.parametrize("output_mask", [None, HALF, Mask(1.0, KEY)], ids=["none", "half", "all"])
def test_an_update_is_that_by_the_gradient(
    backend: AbstractBackend, output_mask: Mask | None, kind: UpdateKind, extents: tuple[int, int, int], dtype: np.dtype
) -> None:
    """Same bits as a gradient that is added into +0.0 and then applied; dx is by the weight before."""
    case = _case(*extents, dtype=dtype, kind=RELU, input_mask=HALF, output_mask=output_mask)
    assert case.bias is not None
    y, z = case.forward(backend)
    gradients = np.zeros_like(case.weight), np.zeros_like(case.bias)
    arguments = case.dy, case.x, case.weight, y, z, RELU, *case.bound()
    wanted_dx = backend.dense_backward(*arguments, True, *gradients, True)
    wanted = [_update(kind, value.copy()) for value in (case.weight, case.bias)]
    got = [_update(kind, value) for value in (case.weight, case.bias)]
    for update, gradient in zip(wanted, gradients, strict=True):
        backend.update(update, gradient)
    dx = backend.dense_backward(*arguments, True, *got, True)
    assert wanted_dx is not None
    assert dx is not None
    assert_same_bits(dx, wanted_dx)
    for mine, right, gradient in zip(got, wanted, gradients, strict=True):
        for array, other in zip(mine[1:], right[1:], strict=True):
            assert_same_bits(array, other)
        if extents[0] > 100 and (output_mask is None or output_mask.rate < 1):
            assert_not_vacuous(gradient)


def test_a_gradient_that_rounds_to_minus_zero_updates_as_plus_zero(backend: AbstractBackend) -> None:
    """The velocity, -0.0 before, tells them apart."""
    x, dy, weight = np.full((8, 48), 1e-30, np.float32), np.full((8, 96), -1e-30, np.float32), np.ones((48, 96), np.float32)
    got, wanted = (_update(UpdateKind.MOMENTUM, weight.copy()) for _ in range(2))
    for update in (got, wanted):
        update.first.fill(-0.0)
    backend.update(wanted, np.zeros_like(weight))
    backend.dense_backward(dy, x, weight, dy, None, LINEAR, None, None, False, got, None, accumulate=False)
    assert_same_bits(got.first, wanted.first)
    assert_same_bits(got.value, wanted.value)


@pytest.mark.parametrize("accumulate", [False, True])
def test_an_update_beside_an_array_or_nothing(backend: AbstractBackend, accumulate: bool) -> None:
    case = _case(33, 17, 13, kind=RELU)
    assert case.bias is not None
    y, z = case.forward(backend)
    arguments = case.dy, case.x, case.weight.copy(), y, z, RELU, None, None, False
    dweight, dbias = np.ones_like(case.weight), np.ones_like(case.bias)
    backend.dense_backward(*arguments, dweight, dbias, accumulate)
    updated = [_update(UpdateKind.SGD, value.copy()) for value in (case.weight, case.bias) for _ in range(2)]
    other_weight, other_bias = np.ones_like(case.weight), np.ones_like(case.bias)
    backend.dense_backward(*arguments, updated[0], other_bias, accumulate)
    backend.dense_backward(*arguments, other_weight, updated[2], accumulate)
    backend.dense_backward(*arguments, updated[1], None, accumulate)
    backend.dense_backward(*arguments, None, updated[3], accumulate)
    assert_same_bits(other_weight, dweight)
    assert_same_bits(other_bias, dbias)
    assert_same_bits(updated[0].value, updated[1].value)
    assert_same_bits(updated[2].value, updated[3].value)
    assert_not_vacuous(updated[0].value - case.weight)
    assert_not_vacuous(updated[2].value - case.bias)


def _update(kind: UpdateKind, value: Array) -> Update:
    """An update of `value` with slots of +1.0."""
    nothing = np.empty((0,) * value.ndim, value.dtype)
    first, second = (np.ones_like(value) if kind in kinds else nothing for kinds in (set(UpdateKind) - {UpdateKind.SGD}, {ADAM}))
    rates = (0.1, 0.01, 0.5, 0.25, 1e-7)[: 5 if kind == ADAM else 3]
    return Update(kind, value, first, second, np.array(rates, value.dtype))


def test_only_what_is_wanted(backend: AbstractBackend) -> None:
    """Each of dx, dweight and dbias alone equals its part of the whole, bit for bit."""
    case = _case(33, 65, 17, kind=ActivationKind.TANH, input_mask=HALF, output_mask=HALF)
    y, z = case.forward(backend)
    dx, dweight, dbias = case.backward(backend, y, z)
    arguments = (case.dy, case.x, case.weight, y, z, case.kind, *case.bound())
    assert_same_bits(backend.dense_backward(*arguments, True, None, None, accumulate=False), dx)
    for full, others in ((dweight, (True, False)), (dbias, (False, True))):
        buffer = np.full_like(full, np.nan)
        pair = [buffer if wanted else None for wanted in others]
        assert backend.dense_backward(*arguments, False, *pair, accumulate=False) is None
        assert_same_bits(buffer, full)


@pytest.mark.parametrize("kind", KINDS)
def test_z_is_kept_only_when_asked_for_and_needed(backend: AbstractBackend, kind: ActivationKind) -> None:
    case = _case(5, 7, 13, kind=kind, output_mask=HALF)
    y, z = case.forward(backend)
    without, nothing = backend.dense_forward(case.x, case.weight, case.bias, kind, *case.bound(), False)
    assert nothing is None
    assert (z is not None) == needs_z(kind)
    assert_same_bits(y, without)


# Masks


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_zero_changes_no_bit(backend: AbstractBackend, dtype: np.dtype) -> None:
    plain = _case(9, 65, 33, dtype=dtype, kind=RELU)
    masked = dataclasses.replace(plain, input_mask=Mask(0.0, KEY), output_mask=Mask(0.0, KEY))
    y, z = plain.forward(backend)
    assert_same_bits(masked.forward(backend)[0], y)
    for mine, right in zip(masked.backward(backend, y, z), plain.backward(backend, y, z), strict=True):
        assert_same_bits(mine, right)
        assert_not_vacuous(right)


@pytest.mark.parametrize("kind", KINDS)
def test_rate_one_gives_zeros_and_never_nan(backend: AbstractBackend, kind: ActivationKind) -> None:
    """Dropped input: only the bias is left. Dropped output: nothing, forward and backward, whatever the values were."""
    case = _case(5, 7, 13, kind=kind, input_mask=Mask(1.0, KEY))
    case.x[:] = np.array([np.nan, np.inf, -np.inf, 1, 2, 3, 4], np.float32)
    y, z = case.forward(backend)
    assert case.bias is not None
    assert_agree(y, np.broadcast_to(backend.activation_forward(case.bias, kind), (5, 13)).copy())
    dx, dweight, _ = case.backward(backend, y, z)
    assert not dx.any()
    assert not dweight.any()
    silent = dataclasses.replace(case, input_mask=None, output_mask=Mask(1.0, KEY))
    silent.x[:] = 1
    y, z = silent.forward(backend)
    assert_same_bits(y, np.zeros_like(y))
    for gradient in silent.backward(backend, y, z):
        assert not gradient.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropped_inputs_do_not_leak(backend: AbstractBackend, dtype: np.dtype) -> None:
    """NaN and inf in dropped elements of x, and in dy where the output is dropped, change no bit."""
    case = _case(17, 65, 33, dtype=dtype, kind=RELU, input_mask=Mask(0.4, KEY), output_mask=Mask(0.4, KEY.on(1)))
    keep_x, keep_y = Mask(0.4, KEY).to_array(case.x_shape), Mask(0.4, KEY.on(1)).to_array(case.y_shape)
    assert_varied(keep_x)
    assert_varied(keep_y)
    y, z = case.forward(backend)
    gradients = case.backward(backend, y, z)
    assert (y[~keep_y] == 0).all()
    assert not np.signbit(y[~keep_y]).any()
    for poison in (np.nan, np.inf, -np.inf):
        poisoned = dataclasses.replace(case, x=np.where(keep_x, case.x, poison), dy=np.where(keep_y, case.dy, poison))
        poisoned = poisoned.as_dtype(dtype)
        assert_same_bits(poisoned.forward(backend)[0], y)
        for mine, right in zip(poisoned.backward(backend, y, z), gradients, strict=True):
            assert_same_bits(mine, right)


@pytest.mark.parametrize("kind", [LINEAR, RELU, ActivationKind.SIGMOID, ActivationKind.GELU])
def test_kept_nan_reaches_its_own_row_only(backend: AbstractBackend, kind: ActivationKind) -> None:
    case = _case(9, 17, 33, kind=kind, output_mask=Mask(0.5, KEY))
    clean, _ = case.forward(backend)
    case.x[4, 3] = np.nan
    y, _ = case.forward(backend)
    keep = Mask(0.5, KEY).to_array(case.y_shape)
    assert_varied(keep[4])
    assert np.isnan(y[4][keep[4]]).all()
    assert_same_bits(y[4][~keep[4]], np.zeros(int((~keep[4]).sum()), np.float32))
    others = np.arange(9) != 4
    assert_same_bits(y[others], clean[others])


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_unit_has_no_gradient_whatever_it_was(backend: AbstractBackend, kind: ActivationKind) -> None:
    """NaN or inf before the activation does not reach the gradients through a unit that was dropped."""
    case = _case(9, 17, 33, kind=kind, output_mask=Mask(0.5, KEY))
    keep = Mask(0.5, KEY).to_array(case.y_shape)
    dropped = int(np.flatnonzero(~keep[4])[0])
    assert case.bias is not None
    y, z = case.forward(backend)
    for poison in (np.nan, np.inf, -np.inf):
        if z is not None:
            z[4, dropped] = poison
        case.dy[4, dropped] = poison
        for gradient in case.backward(backend, y, z):
            assert np.isfinite(gradient).all()
            assert_not_vacuous(gradient, 0.0 if kind == ActivationKind.HEAVISIDE else 0.05)


def test_infinite_values_follow_ieee(backend: AbstractBackend) -> None:
    x = np.array([[np.inf, 1.0], [-np.inf, 1.0], [np.inf, -np.inf]], np.float32)
    weight, bias = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, 1.0]], np.float32), np.zeros(3, np.float32)
    y, _ = backend.dense_forward(x, weight, bias, RELU, None, None, False)
    np.testing.assert_array_equal(y, [[np.inf, 0, np.nan], [0, np.inf, np.nan], [np.nan, 0, np.nan]])


def test_factors_without_decisions(backend: AbstractBackend, reference: AbstractBackend) -> None:
    """A bound mask that keeps all is a factor (the original rule's inference); one of scale 1 only drops (its training)."""
    case = _case(5, 13, 17, make=small_integers, kind=RELU)
    keep_all = Mask(0.0, KEY)
    factors = [
        dataclasses.replace(keep_all.bind(shape, as_matrix=True), scale=scale)
        for shape, scale in ((case.x_shape, 0.5), (case.y_shape, 0.25))
    ]
    y, _ = backend.dense_forward(case.x, case.weight, case.bias, RELU, *factors, True)
    assert case.bias is not None
    z = case.x / 2 @ case.weight + case.bias
    assert_same_bits(y, np.where(z <= 0, 0, z / 4).astype(np.float32))
    dropping = dataclasses.replace(HALF.bind(case.y_shape, as_matrix=True), scale=1.0)
    y, _ = backend.dense_forward(case.x, case.weight, case.bias, RELU, None, dropping, True)
    wanted = np.where(HALF.to_array(case.y_shape), case.expected_forward(reference)[0], 0)
    np.testing.assert_array_equal(y, wanted)
    assert_not_vacuous(wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [2, 7, 33, 129])
@pytest.mark.parametrize("kind", [RELU, ActivationKind.GELU])
def test_a_batch_cut_in_pieces_gives_the_same_rows(
    backend: AbstractBackend, kind: ActivationKind, rows: int, dtype: np.dtype
) -> None:
    """Bit for bit where the products are ours; the reference leaves the order of sums to the BLAS library of NumPy."""
    same = assert_same_bits if sums_in_one_order(backend) else assert_agree
    offset, fan_in, fan_out = 5, 129, 65

    def piece(first: int, last: int) -> Case:
        whole = _case(rows, fan_in, fan_out, dtype=dtype, kind=kind)
        return dataclasses.replace(
            whole,
            x=whole.x[first:last].copy(),
            dy=whole.dy[first:last].copy(),
            input_mask=Mask(0.2, KEY, row_offset=offset + first),
            output_mask=Mask(0.5, KEY.on(1), row_offset=offset + first),
            x_shape=(last - first, fan_in),
            y_shape=(last - first, fan_out),
        )

    whole = piece(0, rows)
    y, z = whole.forward(backend)
    dx, _, _ = whole.backward(backend, y, z)
    assert_not_vacuous(y)
    for first, last in ((0, 1), (1, rows), (rows // 2, rows)):
        part = piece(first, last)
        part_y, part_z = part.forward(backend)
        same(part_y, y[first:last])
        part_dx, _, _ = part.backward(backend, part_y, part_z)
        same(part_dx, dx[first:last])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", [(1,), (16, 17), (50, 100, 150), (100, 112, 199)])
def test_gradients_of_pieces_of_a_batch_add_up(backend: AbstractBackend, cuts: tuple[int, ...], dtype: np.dtype) -> None:
    """To rounding: within each piece sums are in order, but begin at 0."""
    rows, fan_in, fan_out = 200, 65, 129
    x, weight, bias, dy = (
        random_array(seed, shape, dtype)
        for seed, shape in enumerate(((rows, fan_in), (fan_in, fan_out), (fan_out,), (rows, fan_out)))
    )

    def add(first: int, last: int, dweight: Array, dbias: Array) -> None:
        part, grad = x[first:last], dy[first:last]
        input_mask, output_mask = (
            Mask(rate, KEY.on(stream), row_offset=5 + first).bind(array.shape, as_matrix=True)
            for stream, (rate, array) in enumerate(((0.2, part), (0.5, grad)))
        )
        y, z = backend.dense_forward(part, weight, bias, ActivationKind.GELU, input_mask, output_mask, True)
        backend.dense_backward(
            grad, part, weight, y, z, ActivationKind.GELU, input_mask, output_mask, False, dweight, dbias, accumulate=True
        )

    whole, sums = ((np.zeros_like(weight), np.zeros_like(bias)) for _ in range(2))
    add(0, rows, *whole)
    for first, last in itertools.pairwise((0, *cuts, rows)):
        add(first, last, *sums)
    eps = float(np.finfo(dtype).eps)
    dz_terms = 2 * 1.2 * np.abs(dy)  # the scale of the mask, and the steepest slope of gelu, are below these
    assert_near(sums[0], whole[0], 4 * (rows + 8) * eps * (1.25 * np.abs(x).T @ dz_terms))
    assert_near(sums[1], whole[1], 4 * (rows + 8) * eps * dz_terms.sum(axis=0))
    for right in whole:
        assert_not_vacuous(right)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"big-endian"}))
@pytest.mark.parametrize("extents", [(2, 65, 33), (16, 300, 129), (200, 257, 300)])
def test_the_memory_layout_changes_no_bit(backend: AbstractBackend, extents: tuple[int, int, int], layout: str) -> None:
    """Of activations on the CPU backend; the reference leaves the order of sums to the BLAS library of NumPy."""
    same = assert_agree if backend.name == "reference" else assert_same_bits
    plain = _case(*extents, kind=ActivationKind.GELU, input_mask=HALF, output_mask=Mask(0.3, KEY.on(1)))
    arrays = {name: LAYOUTS[layout](getattr(plain, name)) for name in ("x", "weight", "bias", "dy")}
    other = dataclasses.replace(plain, **arrays)
    y, z = plain.forward(backend)
    assert_not_vacuous(y)
    for mine, right in zip(
        (*other.forward(backend), *other.backward(backend, y, z)), (y, z, *plain.backward(backend, y, z)), strict=True
    ):
        same(mine, right)


@pytest.mark.parametrize("extents", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_empty_extents(backend: AbstractBackend, masked: bool, extents: tuple[int, int, int]) -> None:
    """No rows: zero gradients. No inputs: the bias. No outputs: empty."""
    mask = HALF if masked else None
    case = _case(*extents, kind=RELU, input_mask=mask, output_mask=mask)
    y, z = case.forward(backend)
    assert y.shape == (extents[0], extents[2])
    assert case.bias is not None
    if extents == (3, 0, 4):
        assert_same_bits(y, _drop(np.maximum(case.bias, 0) + np.zeros((3, 1), np.float32), mask, case.y_shape))
    dx, dweight, dbias = case.backward(backend, y, z)
    assert dx.shape == case.x.shape
    assert not dx.any()
    assert dweight.shape == case.weight.shape
    assert not dweight.any()
    if extents[0] == 0:
        assert not dbias.any()


def test_one_element(backend: AbstractBackend) -> None:
    x, weight, bias = (np.full(shape, value, np.float32) for shape, value in (((1, 1), 3), ((1, 1), -2), ((1,), 10)))
    y, z = backend.dense_forward(x, weight, bias, LINEAR, None, None, True)
    assert (y.tolist(), z) == ([[4.0]], None)
    dweight, dbias = np.empty((1, 1), np.float32), np.empty(1, np.float32)
    dx = backend.dense_backward(np.full((1, 1), 5, np.float32), x, weight, y, z, LINEAR, None, None, True, dweight, dbias, False)
    assert dx is not None
    assert (dx.tolist(), dweight.tolist(), dbias.tolist()) == ([[-10.0]], [[15.0]], [5.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_output_mask_of_rate_1_gives_zeros_whatever_x_holds(backend: AbstractBackend, dtype: type):
    x, weight = np.full((3, 4), np.inf, dtype), np.full((4, 5), np.nan, dtype)
    with pytest.warns(UserWarning, match="drops everything"):
        bound = Mask(1.0, KEY).bind((3, 5), as_matrix=True)
    y, z = backend.dense_forward(x, weight, None, LINEAR, None, bound, True)
    dweight, dbias = np.full_like(weight, np.nan), np.full(5, np.nan, dtype)
    dx = backend.dense_backward(np.full((3, 5), np.inf, dtype), x, weight, y, z, LINEAR, None, bound, True, dweight, dbias, False)
    for zeros in (y, dx, dweight, dbias):
        assert_same_bits(zeros, np.zeros_like(zeros))
    kept = np.ones_like(weight)
    assert backend.dense_backward(y, x, weight, y, z, LINEAR, None, bound, False, kept, None, True) is None
    assert_same_bits(kept, np.ones_like(kept))
