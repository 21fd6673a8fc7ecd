"""Softmax of rows: ``y_j = exp(x_j - max) / sum_k exp(x_k - max)``; backward ``dx = y * (dy - sum(dy * y))``.

Sums are taken in binary64, in order.
"""

from __future__ import annotations

import math

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.formulas import activations as act

prange = numba.prange


@device
def softmax_row(x: Array, y: Array) -> float:
    """Write the softmax of x to y, which may be x, and return the logarithm of the sum of exp(x)."""
    n = len(x)
    highest = x[0]
    for j in range(n):
        highest = max(highest, x[j])
    for j in range(n):
        y[j] = act.exp(x[j] - highest)
    total = 0.0
    for j in range(n):
        total += y[j]
    inverse = x.dtype.type(1.0 / total)
    for j in range(n):
        y[j] *= inverse
    return np.float64(highest) + math.log(total)


@kernel
def softmax_forward_kernel(x: Array, y: Array, threads: int) -> None:
    """Softmax of every row of x (rows, classes)."""
    rows = len(x)
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            softmax_row(x[i], y[i])


@kernel
def softmax_backward_kernel(dy: Array, y: Array, dx: Array, threads: int) -> None:
    """``dx = y * (dy - sum(dy * y))`` for every row; dx may be dy."""
    rows, columns = y.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            total = 0.0
            for j in range(columns):
                total += np.float64(dy[i, j]) * np.float64(y[i, j])
            mean = y.dtype.type(total)
            for j in range(columns):
                dx[i, j] = y[i, j] * (dy[i, j] - mean)
