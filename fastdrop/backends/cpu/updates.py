"""Updates of parameters, in place, and what goes with them; formulas in `backends.operands`, as Keras has them.

Arrays are one-dimensional views; elements are independent, so that threads do not show in the result. Sums of squares are
taken by columns, four rows at a time.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array, UpdateKind
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.formulas._formula import fma
from fastdrop.backends.formulas.subnormal import flush

prange = numba.prange

SGD, MOMENTUM, NESTEROV = int(UpdateKind.SGD), int(UpdateKind.MOMENTUM), int(UpdateKind.NESTEROV)

NO_UPDATE = -1
"""Kind of an update that does nothing."""
KernelUpdate: TypeAlias = tuple[int, Array, Array, Array, Array]
"""An `Update` as kernels take it: (kind, value, first, second, rates)."""

CHUNK = 1024
"""Elements whose squares are added up one after the other: part of the definition of the result."""
NORM_EPSILON = 1e-7
"""Keras's epsilon, added to a norm before dividing by it."""


@device
def update_rows(update: KernelUpdate, grad: Array, i: int, stop: int) -> None:
    """Update rows i .. stop - 1 of a matrix by those of its gradient."""
    kind, value, first, second, rates = update
    start, end = i * value.shape[1], stop * value.shape[1]
    g, w, m, s = grad.reshape(grad.size), value.reshape(value.size), first.reshape(first.size), second.reshape(second.size)
    update_row(kind, w[start:end], g[start:end], m[start:end], s[start:end], rates)


@device
def update_row(kind: int, w: Array, g: Array, first: Array, second: Array, rates: Array) -> None:
    """Update a row w of a parameter by its gradient g; the other arguments are those of an `Update`, cut like w."""
    if kind == SGD:
        sgd_row(w, g, rates)
    elif kind == MOMENTUM:
        momentum_row(w, g, first, rates)
    elif kind == NESTEROV:
        nesterov_row(w, g, first, rates)
    else:
        adam_row(w, g, first, second, rates)


@device
def sgd_row(w: Array, g: Array, rates: Array) -> None:
    """``w = (w - w * decay) - lr * g``."""
    rate, decay, zero = rates[0], rates[1], rates.dtype.type(0)
    for i in range(len(w)):
        w[i] = fma(-rate, g[i] + zero, fma(-decay, w[i], w[i]))


@device
def momentum_row(w: Array, g: Array, v: Array, rates: Array) -> None:
    """``v = momentum * v - lr * g``; ``w = (w - w * decay) + v``."""
    rate, decay, momentum, zero = rates[0], rates[1], rates[2], rates.dtype.type(0)
    for i in range(len(w)):
        v[i] = flush(fma(momentum, v[i], -(rate * (g[i] + zero))))
        w[i] = fma(-decay, w[i], w[i]) + v[i]


@device
def nesterov_row(w: Array, g: Array, v: Array, rates: Array) -> None:
    """``v = momentum * v - lr * g``; ``w = (w - w * decay) + (momentum * v - lr * g)``."""
    rate, decay, momentum, zero = rates[0], rates[1], rates[2], rates.dtype.type(0)
    for i in range(len(w)):
        step = rate * (g[i] + zero)
        v[i] = flush(fma(momentum, v[i], -step))
        w[i] = fma(-decay, w[i], w[i]) + fma(momentum, v[i], -step)


@device
def adam_row(w: Array, g: Array, m: Array, s: Array, rates: Array) -> None:
    """``m += (g - m) rest_1``; ``s += (g * g - s) rest_2``; ``w = (w - w * decay) - rate * m / (sqrt(s) + epsilon)``."""
    rate, decay, rest_1, rest_2, epsilon = rates[0], rates[1], rates[2], rates[3], rates[4]
    for i in range(len(w)):
        m[i] = flush(fma(g[i] - m[i], rest_1, m[i]))
        s[i] = flush(fma(fma(g[i], g[i], -s[i]), rest_2, s[i]))
        w[i] = fma(-decay, w[i], w[i]) - rate * m[i] / (np.sqrt(s[i]) + epsilon)


@kernel
def update_kernel(kind: int, value: Array, grad: Array, first: Array, second: Array, rates: Array, threads: int) -> None:
    """Update a parameter by its gradient, all as one row; see `update_row`."""
    n = len(value)
    for t in prange(threads):
        low, high = t * n // threads, (t + 1) * n // threads
        update_row(kind, value[low:high], grad[low:high], first[low:high], second[low:high], rates)


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
