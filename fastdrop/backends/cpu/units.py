"""Compact matrices of kept units, and what comes back from them into whole ones.

Elements are independent, so that threads do not show in the result.
"""

from __future__ import annotations

from fastdrop._types import Array, Indices
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.epilogue import clear
from fastdrop.backends.cpu.updates import SGD, KernelUpdate, update_row

prange = numba.prange

NANOSECONDS = 0.5
"""Estimated cost of an element that is gathered or scattered."""
LINE_SIZE = 1024
"""Elements of rows that are updated together, where more than one row has so few."""


@kernel
def gather_kernel(x: Array, rows: Indices, columns: Indices, scale: float, out: Array, threads: int) -> None:
    """``out = x[rows][:, columns] * scale``."""
    factor = x.dtype.type(scale)
    for t in prange(threads):
        for i in range(t * len(rows) // threads, (t + 1) * len(rows) // threads):
            source, target = x[rows[i]], out[i]
            for j in range(len(columns)):
                target[j] = source[columns[j]] * factor


@kernel
def scatter_kernel(
    values: Array, rows: Indices, columns: Indices, scale: float, accumulate: bool, out: Array, threads: int
) -> None:
    """``out[rows][:, columns] (+)= values * scale``."""
    factor = values.dtype.type(scale)
    for t in prange(threads):
        for i in range(t * len(rows) // threads, (t + 1) * len(rows) // threads):
            source, target = values[i], out[rows[i]]
            if accumulate:
                for j in range(len(columns)):
                    target[columns[j]] += source[j] * factor
            else:
                for j in range(len(columns)):
                    target[columns[j]] = source[j] * factor


@device
def first_from(rows: Indices, low: int) -> int:
    """Return how many of the ascending numbers are below `low`."""
    left, right = 0, len(rows)
    while left < right:
        middle = (left + right) // 2
        if rows[middle] < low:
            left = middle + 1
        else:
            right = middle
    return left


@kernel
def update_units_kernel(update: KernelUpdate, grad: Array, rows: Indices, columns: Indices, lines: Array, threads: int) -> None:
    """Update a matrix by the gradient of some rows and columns; that of the others is +0.0, which may still move them.

    lines (threads, one or several of its rows) is scratch: so many rows are done together.
    """
    kind, value, first, second, rates = update
    height, width = value.shape
    w, m, s = value.reshape(value.size), first.reshape(first.size), second.reshape(second.size)
    moves_all = kind != SGD or rates[1] != 0
    together = max(1, lines.shape[1] // max(width, 1))
    for t in prange(threads):
        low, high = t * height // threads, (t + 1) * height // threads
        k = first_from(rows, low)
        for i in range(low, high, together):
            stop, before = min(high, i + together), k
            start, end = i * width, stop * width
            line = lines[t, : end - start]
            clear(line)
            while k < len(rows) and rows[k] < stop:
                source, target = grad[k], line[(rows[k] - i) * width : (rows[k] - i + 1) * width]
                for j in range(len(columns)):
                    target[columns[j]] = source[j]
                k += 1
            if k > before or moves_all:
                update_row(kind, w[start:end], line, m[start:end], s[start:end], rates)
