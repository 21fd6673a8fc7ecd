"""Updates of parameters, in place, and what goes with them; formulas in `backends.base`, as Keras has them.

Arrays are one-dimensional views; elements are independent, so that threads do not show in the result. Sums of squares are
taken by columns, four rows at a time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.formulas._formula import fma

prange = numba.prange

CHUNK = 1024
"""Elements whose squares are added up one after the other: part of the definition of the result."""
NORM_EPSILON = 1e-7
"""Keras's epsilon, added to a norm before dividing by it."""


@kernel
def sgd_kernel(value: Array, grad: Array, learning_rate: Any, decay: Any, threads: int) -> None:
    """``w = (w - w * decay) - lr * g``; decay is the product of decay and learning rate."""
    n = len(value)
    for t in prange(threads):
        low, high = t * n // threads, (t + 1) * n // threads
        w, g = value[low:high], grad[low:high]
        for i in range(high - low):
            w[i] = fma(-learning_rate, g[i], fma(-decay, w[i], w[i]))


@kernel
def momentum_kernel(
    value: Array, grad: Array, velocity: Array, learning_rate: Any, momentum: Any, nesterov: bool, decay: Any, threads: int
) -> None:
    """``v = momentum * v - lr * g``; ``w += v``, or ``w += momentum * v - lr * g`` with Nesterov's rule."""
    n = len(value)
    for t in prange(threads):
        low, high = t * n // threads, (t + 1) * n // threads
        w, g, v = value[low:high], grad[low:high], velocity[low:high]
        if nesterov:
            for i in range(high - low):
                step = learning_rate * g[i]
                v[i] = fma(momentum, v[i], -step)
                w[i] = fma(-decay, w[i], w[i]) + fma(momentum, v[i], -step)
        else:
            for i in range(high - low):
                v[i] = fma(momentum, v[i], -(learning_rate * g[i]))
                w[i] = fma(-decay, w[i], w[i]) + v[i]


@kernel
def adam_kernel(value: Array, grad: Array, mean: Array, variance: Array, rates: Array, threads: int) -> None:
    """Adam; rates holds (step size, 1 - beta_1, 1 - beta_2, epsilon, decay times learning rate)."""
    n = len(value)
    step_size, rest_1, rest_2, epsilon, decay = rates[0], rates[1], rates[2], rates[3], rates[4]
    for t in prange(threads):
        low, high = t * n // threads, (t + 1) * n // threads
        w, g, m, v = value[low:high], grad[low:high], mean[low:high], variance[low:high]
        for i in range(high - low):
            m[i] = fma(g[i] - m[i], rest_1, m[i])
            v[i] = fma(fma(g[i], g[i], -v[i]), rest_2, v[i])
            w[i] = fma(-decay, w[i], w[i]) - step_size * m[i] / (np.sqrt(v[i]) + epsilon)


@device
def column_squares(matrix: Array, low: int, sums: npt.NDArray[np.float64]) -> None:
    """Write to sums the sum of squares of each column from `low` on, in binary64, four rows at a time."""
    rows, high = len(matrix), low + len(sums)
    fours = rows // 4 * 4
    sums[:] = 0.0
    for i in range(0, fours, 4):
        a, b, c, d = matrix[i, low:high], matrix[i + 1, low:high], matrix[i + 2, low:high], matrix[i + 3, low:high]
        for j in range(high - low):
            w, x, y, z = np.float64(a[j]), np.float64(b[j]), np.float64(c[j]), np.float64(d[j])
            sums[j] += fma(w, w, x * x) + fma(y, y, z * z)
    for i in range(fours, rows):
        row = matrix[i, low:high]
        for j in range(high - low):
            sums[j] += np.float64(row[j]) * np.float64(row[j])


@kernel
def square_sums_kernel(x: Array, sums: npt.NDArray[np.float64], threads: int) -> None:
    """Write to each of the sums that of the squares of every len(sums)-th element of x, at most CHUNK of them."""
    columns = len(sums)
    rows = len(x) // max(columns, 1)
    matrix, rest = x[: rows * columns].reshape(rows, columns), x[rows * columns :]
    for t in prange(threads):
        low, high = t * columns // threads, (t + 1) * columns // threads
        column_squares(matrix, low, sums[low:high])
        for j in range(low, min(high, len(rest))):
            sums[j] += np.float64(rest[j]) * np.float64(rest[j])


@kernel
def limit_norms_kernel(weight: Array, norms: npt.NDArray[np.float64], max_value: float, threads: int) -> None:
    """Scale columns of weight whose norm exceeds max_value; norms is scratch, one number a column."""
    rows, columns = weight.shape
    for t in prange(threads):
        low, high = t * columns // threads, (t + 1) * columns // threads
        factors = norms[low:high]
        column_squares(weight, low, factors)
        exceeded = 0
        for j in range(high - low):
            norm = math.sqrt(factors[j])
            exceeded += int(norm > max_value)
            factors[j] = max_value / (NORM_EPSILON + norm) if norm > max_value else 1.0
        if exceeded:
            for i in range(rows):
                row = weight[i, low:high]
                for j in range(high - low):
                    row[j] = np.float64(row[j]) * factors[j]
