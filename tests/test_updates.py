"""Optimiser updates and norms through the seam: on every backend, against the formulas in binary64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_same_bits, guarded
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, dtypes, random_array

from fastdrop._types import Array, UpdateKind
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Update

ROUNDINGS = 8
"""Elementary operations of an update, each at most one rounding of its largest operand."""

rates = st.sampled_from([0.0, 1e-3, 0.1, 1.0])
sizes = st.sampled_from(EDGES)
seeds = st.integers(0, 2**31)


def _update(kind: UpdateKind, value: Array, slots: tuple[Array, ...], *rates: float) -> Update:
    nothing = np.empty((0,) * value.ndim, value.dtype)
    first, second, *_ = *slots, nothing, nothing
    return Update(kind, value, first, second, np.array(rates, value.dtype))


def _check(got: Array, wanted: Array, *operands: Array) -> None:
    largest = np.max([np.abs(operand.astype(np.float64)) for operand in (wanted, *operands)], axis=0)
    assert_near(got, wanted, ROUNDINGS * float(np.finfo(got.dtype).eps) * largest)


@given(sizes, dtypes, rates, st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.booleans(), st.sampled_from([0.0, 0.004]), seeds)
def test_sgd_with_momentum(
    backend: AbstractBackend, n: int, dtype: np.dtype, rate: float, momentum: float, nesterov: bool, decay: float, seed: int
) -> None:
    w, g, v = (random_array(seed + i, (n,), dtype) for i in range(3))
    w64, g64, v64 = (a.astype(np.float64) for a in (w, g, v))
    new_v = momentum * v64 - rate * g64
    new_w = w64 - w64 * decay * rate + (momentum * new_v - rate * g64 if nesterov else new_v)
    value, grad, velocity = w.copy(), g.copy(), v.copy()
    kind = UpdateKind.NESTEROV if nesterov else UpdateKind.MOMENTUM
    assert backend.update(_update(kind, value, (velocity,), rate, decay * rate, momentum), grad) is None
    assert_same_bits(grad, g)
    _check(velocity, new_v, v, g)
    _check(value, new_w, w, v, g)


@given(sizes, dtypes, rates, st.sampled_from([0.0, 0.004]), seeds)
def test_sgd_without_momentum(backend: AbstractBackend, n: int, dtype: np.dtype, rate: float, decay: float, seed: int) -> None:
    w, g = (random_array(seed + i, (n,), dtype) for i in range(2))
    value, grad = w.copy(), g.copy()
    backend.update(_update(UpdateKind.SGD, value, (), rate, decay * rate), grad)
    assert_same_bits(grad, g)
    _check(value, w.astype(np.float64) * (1 - decay * rate) - rate * g.astype(np.float64), w, g)


@given(sizes, dtypes, st.sampled_from([1e-3, 0.1]), st.sampled_from([0.0, 0.004]), st.sampled_from([1, 2, 1000]), seeds)
def test_adam(backend: AbstractBackend, n: int, dtype: np.dtype, rate: float, decay: float, t: int, seed: int) -> None:
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-7
    step_size = rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    w, g, m = (random_array(seed + i, (n,), dtype) for i in range(3))
    v = np.square(random_array(seed + 3, (n,), dtype))
    w64, g64, m64, v64 = (a.astype(np.float64) for a in (w, g, m, v))
    new_m = beta_1 * m64 + (1 - beta_1) * g64
    new_v = beta_2 * v64 + (1 - beta_2) * g64**2
    step = step_size * new_m / (np.sqrt(new_v) + epsilon)
    value, grad, mean, variance = w.copy(), g.copy(), m.copy(), v.copy()
    rates = step_size, decay * rate, 1 - beta_1, 1 - beta_2, epsilon
    assert backend.update(_update(UpdateKind.ADAM, value, (mean, variance), *rates), grad) is None
    assert_same_bits(grad, g)
    _check(mean, new_m, m, g)
    _check(variance, new_v, v, g * g)
    _check(value, w64 * (1 - decay * rate) - step, w, step * (1 + np.abs(m64 / np.where(new_m == 0, 1, new_m))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_from_nothing_steps_by_the_learning_rate(backend: AbstractBackend, dtype: np.dtype) -> None:
    """The first step of Adam is the learning rate times the sign of the gradient, whatever its size; a zero gradient, none."""
    grad = np.array([5.0, -5.0, 1e3, -1e3, 0.0], dtype)
    value, mean, variance = (np.zeros(5, dtype) for _ in range(3))
    rates = 0.1 * math.sqrt(0.001) / 0.1, 0.0, 0.1, 0.001, 1e-7
    backend.update(_update(UpdateKind.ADAM, value, (mean, variance), *rates), grad)
    np.testing.assert_allclose(value, [-0.1, 0.1, -0.1, 0.1, 0], rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [UpdateKind.MOMENTUM, UpdateKind.NESTEROV, UpdateKind.ADAM])
def test_state_that_becomes_subnormal_becomes_zero(backend: AbstractBackend, kind: UpdateKind, dtype: np.dtype) -> None:
    """Without gradients it decays down to the smallest normal number, and then it is gone; NaN stays."""
    least = np.finfo(dtype).smallest_normal
    state = np.array([least, -least, 4 * least, -4 * least, 0, np.nan], dtype)
    value, first, second = np.ones(len(state), dtype), state.copy(), np.abs(state)
    rates = (0.0, 0.0, 0.5, 0.5, 1e-7)[: 5 if kind == UpdateKind.ADAM else 3]
    backend.update(_update(kind, value, (first, second)[: SLOTS[kind]], *rates), np.zeros_like(value))
    wanted = np.array([0, 0, 2 * least, -2 * least, 0, np.nan], dtype)
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(second, np.abs(wanted) if kind == UpdateKind.ADAM else np.abs(state))


SLOTS = {UpdateKind.SGD: 0, UpdateKind.MOMENTUM: 1, UpdateKind.NESTEROV: 1, UpdateKind.ADAM: 2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 17, 129, 1025])
@pytest.mark.parametrize("kind", UpdateKind)
def test_matrices_are_updated_in_place_and_nothing_else(
    backend: AbstractBackend, kind: UpdateKind, n: int, dtype: np.dtype
) -> None:
    buffers, checks = zip(*(guarded((n, 3), dtype) for _ in range(2 + SLOTS[kind])), strict=True)
    for i, buffer in enumerate(buffers):
        buffer[...] = np.abs(random_array(i, (n, 3), dtype))
    grad, value, *slots = buffers
    before = [buffer.copy() for buffer in buffers]
    rates = (0.1, 0.001, 0.5, 0.25, 1e-7)[: 5 if kind == UpdateKind.ADAM else 3]
    backend.update(_update(kind, value, tuple(slots), *rates), grad)
    flat = [buffer.reshape(-1).copy() for buffer in before]
    backend.update(_update(kind, flat[1], tuple(flat[2:]), *rates), flat[0])
    for buffer, wanted, check in zip(buffers, flat, checks, strict=True):
        assert_same_bits(buffer.reshape(-1), wanted)
        check()
    assert_same_bits(grad, before[0])
    for buffer, old in zip(buffers[1:], before[1:], strict=True):
        assert_not_vacuous(buffer - old)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 16, 1025, 300_001])
@pytest.mark.parametrize("kind", UpdateKind)
def test_elements_are_updated_alone(backend: AbstractBackend, kind: UpdateKind, n: int, dtype: np.dtype) -> None:
    """The bits of an element do not depend on where it stands, nor on the number of threads."""
    rates = (0.1, 0.001, 0.5, 0.25, 1e-7)[: 5 if kind == UpdateKind.ADAM else 3]
    grad, *arrays = (np.abs(random_array(i, (n,), dtype)) for i in range(2 + SLOTS[kind]))
    tail = [array[n // 3 :].copy() for array in (grad, *arrays)]
    backend.update(_update(kind, arrays[0], tuple(arrays[1:]), *rates), grad)
    backend.update(_update(kind, tail[1], tuple(tail[2:]), *rates), tail[0])
    for whole, part in zip(arrays, tail[1:], strict=True):
        assert_same_bits(whole[n // 3 :], part)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [*EDGES, 70_001])
def test_sum_of_squares(backend: AbstractBackend, n: int, dtype: np.dtype) -> None:
    x = random_array(1, (n,), dtype)
    got = backend.sum_of_squares(x)
    assert type(got) is float
    assert got == pytest.approx(math.fsum(v * v for v in x.astype(np.float64).tolist()), rel=1e-12)
    assert backend.sum_of_squares(np.zeros((3, n), dtype)) == 0.0


def test_sum_of_squares_is_added_in_binary64(backend: AbstractBackend) -> None:
    assert backend.sum_of_squares(np.full(3, 1e30, np.float32)) == pytest.approx(3 * float(np.float32(1e30)) ** 2, rel=1e-12)
    assert backend.sum_of_squares(np.array([1e8, 1.0], np.float32)) == 1e16 + 1
    assert math.isnan(backend.sum_of_squares(np.array([1.0, np.nan], np.float32)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 5, 16, 17, 65])
def test_column_norms_are_limited(backend: AbstractBackend, columns: int, dtype: np.dtype) -> None:
    """Columns above the limit are scaled down to it; the others, zero columns included, keep every bit."""
    weight, check = guarded((9, columns), dtype)
    weight[...] = random_array(1, (9, columns), dtype)
    weight[:, 0] = 0
    weight[:, columns // 2 :] *= 10
    before = weight.copy()
    norms = np.sqrt(np.square(before.astype(np.float64)).sum(axis=0))
    above = norms > 3.0
    assert backend.limit_column_norms(weight, 3.0) is None
    check()
    assert_same_bits(weight[:, ~above], before[:, ~above])
    if columns > 1:
        assert above.any()
        assert not above.all()
    wanted = before[:, above] * (3.0 / (1e-7 + norms[above]))
    assert_near(weight[:, above], wanted, 4 * float(np.finfo(dtype).eps) * np.abs(wanted))
