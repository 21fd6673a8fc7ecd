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

    lines (threads, 2 * its columns) is scratch.
    """
    kind, value, first, second, rates = update
    height, width = value.shape
    w, m, s = value.reshape(value.size), first.reshape(first.size), second.reshape(second.size)
    moves_all = kind != SGD or rates[1] != 0
    for t in prange(threads):
        low, high = t * height // threads, (t + 1) * height // threads
        line, nothing = lines[t, :width], lines[t, width:]
        clear(lines[t])
        k = first_from(rows, low)
        for i in range(low, high):
            kept = k < len(rows) and rows[k] == i
            if kept:
                source = grad[k]
                for j in range(len(columns)):
                    line[columns[j]] = source[j]
                k += 1
            if kept or moves_all:
                start, end = i * width, (i + 1) * width
                update_row(kind, w[start:end], line if kept else nothing, m[start:end], s[start:end], rates)
