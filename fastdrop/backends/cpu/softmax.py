"""Softmax of rows: ``y_j = exp(x_j - max) / sum_k exp(x_k - max)``; backward ``dx = y * (dy - sum(dy * y))``.

Sums are taken in binary64, in four chains that take turns and are joined in order: part of the definition of the
result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.formulas import activations as act
from fastdrop.backends.formulas._formula import bits_of, formula, from_bits

prange = numba.prange

BLOCK = 4096
"""Elements whose exponentials are taken at once, so that short rows fill vectors as well."""


def summing(term: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of (a, b, c) that returns the sum of ``term(a_j, b_j, c)``; a and b are arrays, c is a number."""
    term = formula(term)

    @formula
    def total(a: Array, b: Array, c: float) -> float:
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(len(a)):
            s0, s1, s2, s3 = s1, s2, s3, s0 + term(a[j], b[j], c)
        return (s0 + s1) + (s2 + s3)

    return total


sum_of = summing(lambda a, _b, _c: np.float64(a))
dot = summing(lambda a, b, _c: np.float64(a) * np.float64(b))


@device
def rows_at_once(columns: int) -> int:
    """Return how many rows make a block."""
    return max(1, BLOCK // columns)


@device
def highest_of(x: Array) -> Any:
    """Return the largest element of x, where a NaN may count as the largest or not at all.

    By comparing integers, whose order of evaluation LLVM may choose: the bits ascend with the positive numbers and descend
    with the negative ones.
    """
    top = bottom = bits_of(x[0])
    for j in range(len(x)):
        bits = bits_of(x[j])
        top, bottom = max(top, bits), min(bottom, bits)
    return from_bits(top if top >= 0 else bottom)


@device
def exp_rows(x: Array, y: Array) -> None:
    """``y = exp(x - max of its row)``; x and y (rows, columns), y may be x."""
    for i in range(len(x)):
        highest = highest_of(x[i])
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] - highest
    flat = y.reshape(-1)
    for j in range(len(flat)):
        flat[j] = act.exp(flat[j])


@kernel
def softmax_forward_kernel(x: Array, y: Array, threads: int) -> None:
    """Softmax of every row of x (rows, classes)."""
    rows, columns = x.shape
    step = rows_at_once(columns)
    for t in prange(threads):
        low, high = t * rows // threads, (t + 1) * rows // threads
        for first in range(low, high, step):
            last = min(high, first + step)
            exp_rows(x[first:last], y[first:last])
            for i in range(first, last):
                inverse = y.dtype.type(1.0 / sum_of(y[i], y[i], 0.0))
                for j in range(columns):
                    y[i, j] *= inverse


@kernel
def softmax_backward_kernel(dy: Array, y: Array, dx: Array, threads: int) -> None:
    """``dx = y * (dy - sum(dy * y))`` for every row; dx may be dy."""
    rows, columns = y.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            mean = y.dtype.type(dot(dy[i], y[i], 0.0))
            for j in range(columns):
                dx[i, j] = y[i, j] * (dy[i, j] - mean)
