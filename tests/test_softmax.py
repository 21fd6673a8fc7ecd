"""Softmax through the seam: on every backend, against sums done one element at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from assertions import assert_agree, assert_near, assert_not_vacuous, assert_same_bits, guarded
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, dtypes, random_array, small_sizes

from fastdrop._types import Array
from fastdrop.backends.base import AbstractBackend

SOFTMAX_ULP = 16.0
"""Largest error in units of the last place of 1: some for exp, the rest for the sum over the classes."""


def _softmax(x: Array) -> Array:
    """By the definition, in binary64, each row's sum correctly rounded."""
    rows = []
    for row in x.astype(np.float64).tolist():
        e = [math.exp(value - max(row)) for value in row]
        rows.append([value / math.fsum(e) for value in e])
    return np.array(rows, dtype=np.float64).reshape(x.shape)


@given(st.integers(0, 12), small_sizes, dtypes, st.sampled_from([1.0, 30.0, 1000.0]), st.integers(0, 2**31))
def test_forward_and_backward(
    backend: AbstractBackend, rows: int, classes: int, dtype: np.dtype, spread: float, seed: int
) -> None:
    x, dy = (spread * random_array(seed, (rows, classes))).astype(dtype), random_array(seed + 1, (rows, classes), dtype)
    eps = float(np.finfo(dtype).eps)
    y = backend.softmax_forward(x)
    exact = _softmax(x)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    assert_near(y, exact, SOFTMAX_ULP * eps * np.maximum(exact, eps))
    saved = exact.astype(dtype)
    wide = saved.astype(np.float64), dy.astype(np.float64)
    wanted = wide[0] * (wide[1] - (wide[0] * wide[1]).sum(axis=1, keepdims=True))
    dx = backend.softmax_backward(dy, saved)
    assert dx.dtype == dtype
    assert_near(dx, wanted, SOFTMAX_ULP * eps * np.abs(dy).max(initial=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [n for n in EDGES if n])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_every_element_is_written_and_no_other(backend: AbstractBackend, rows: int, classes: int, dtype: np.dtype) -> None:
    x, dy = random_array(1, (rows, classes), dtype), random_array(2, (rows, classes), dtype)
    out, check = guarded((rows, classes), dtype)
    assert backend.softmax_forward(x, out) is out
    check()
    assert_same_bits(out, backend.softmax_forward(x))
    assert_near(out.sum(axis=1), np.ones(rows), 1e-5)
    gradient, check = guarded((rows, classes), dtype)
    assert backend.softmax_backward(dy, out, gradient) is gradient
    check()
    assert_same_bits(gradient, backend.softmax_backward(dy, out))


def test_out_may_be_an_input(backend: AbstractBackend) -> None:
    x, dy = random_array(3, (9, 33)), random_array(4, (9, 33))
    y = backend.softmax_forward(x)
    dx = backend.softmax_backward(dy, y)
    assert_not_vacuous(dx)
    assert backend.softmax_forward(x, x) is x
    assert_same_bits(x, y)
    assert backend.softmax_backward(dy, y, dy) is dy
    assert_same_bits(dy, dx)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_rows(backend: AbstractBackend, dtype: np.dtype) -> None:
    """-inf is probability 0; a row without a finite maximum, or with a NaN, is NaN and stays alone."""
    inf, nan, huge = np.inf, np.nan, np.finfo(dtype).max
    x = np.array([[0, 0, -inf], [nan, 0, 0], [inf, 0, 0], [-inf] * 3, [huge, huge, -huge], [-huge, -huge, -huge]], dtype)
    y = backend.softmax_forward(x)
    third = dtype.type(1) / dtype.type(3)
    assert_agree(y, np.array([[0.5, 0.5, 0], [nan] * 3, [nan] * 3, [nan] * 3, [0.5, 0.5, 0], [third] * 3], dtype))


@pytest.mark.parametrize("shift", [-1000.0, 0.0, 1000.0])
def test_a_shift_of_the_row_changes_nothing(backend: AbstractBackend, shift: float) -> None:
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    assert_same_bits(backend.softmax_forward(x + np.float32(shift)), backend.softmax_forward(x))


def test_rows_do_not_depend_on_one_another(backend: AbstractBackend) -> None:
    x = random_array(7, (300, 33))
    y = backend.softmax_forward(x)
    for row in (0, 1, 123, 124, 248, 299):
        assert_same_bits(backend.softmax_forward(x[row : row + 1].copy()), y[row : row + 1])
