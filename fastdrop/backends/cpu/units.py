"""Compact matrices of kept units, and what comes back from them into whole ones.

Elements are independent, so that threads do not show in the result.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from fastdrop._types import Array, Indices
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.epilogue import clear
from fastdrop.backends.cpu.updates import SGD, KernelUpdate, update_row

prange = numba.prange

NANOSECONDS = 0.5
"""Estimated cost of an element that is gathered or scattered."""
Parts: TypeAlias = tuple[tuple[Array, ...], tuple[Indices, ...], tuple[Indices, ...]]
"""Gradients, rows and columns of PARTS_AT_ONCE parts."""
LINE_SIZE = 4096
"""Elements of rows that are updated together, where more than one row has so few."""


@device
def take_columns(row: Array, columns: Indices, target: Array) -> None:
    """Write those elements of a row, and zeros behind them."""
    for j in range(len(columns)):
        target[j] = row[np.uint64(columns[j])]
    clear(target[len(columns) :])


@kernel
def gather_kernel(x: Array, rows: Indices, columns: Indices, scale: float, out: Array, threads: int) -> None:
    """``out = x[rows][:, columns] * scale``."""
    factor = x.dtype.type(scale)
    for t in prange(threads):
        for i in range(t * len(rows) // threads, (t + 1) * len(rows) // threads):
            source, target = x[rows[i]], out[i]
            for j in range(len(columns)):
                target[j] = source[np.uint64(columns[j])] * factor


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
                    target[np.uint64(columns[j])] += source[j] * factor
            else:
                for j in range(len(columns)):
                    target[np.uint64(columns[j])] = source[j] * factor


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


@device
def put_rows(
    gradient: Array, rows: Indices, columns: Indices, low: int, high: int, adds: bool, target: Array, width: int
) -> bool:
    """Put, or add, a part's gradient of rows low .. high - 1 where it belongs, and return whether there is any.

    target (flat) is those rows, `width` wide.
    """
    first = k = first_from(rows, low)
    while k < len(rows) and rows[k] < high:
        source, line = gradient[k], target[(rows[k] - low) * width : (rows[k] - low + 1) * width]
        if adds:
            for j in range(len(columns)):
                line[np.uint64(columns[j])] += source[j]
        else:
            for j in range(len(columns)):
                line[np.uint64(columns[j])] = source[j]
        k += 1
    return k > first


@kernel
def add_parts_kernel(parts: Parts, accumulate: bool, out: Array, threads: int) -> None:
    """``out (+)= the sum of the parts``, from +0.0 on."""
    gradients, rows, columns = parts
    height, width = out.shape
    for t in prange(threads):
        for i in range(t * height // threads, (t + 1) * height // threads):
            target = out[i]
            if not accumulate:
                clear(target)
            for n in range(len(gradients)):
                put_rows(gradients[n], rows[n], columns[n], i, i + 1, True, target, width)


@kernel
def update_parts_kernel(update: KernelUpdate, parts: Parts, lines: Array, threads: int) -> None:
    """Update a matrix by the sum of the parts; where there is none the gradient is +0.0, which may still move it.

    lines (threads, one or several of its rows) is scratch: so many rows are done together.
    """
    kind, value, first, second, rates = update
    gradients, rows, columns = parts
    height, width = value.shape
    w, m, s = value.reshape(value.size), first.reshape(first.size), second.reshape(second.size)
    moves_all = kind != SGD or rates[1] != 0
    together = max(1, lines.shape[1] // max(width, 1))
    for t in prange(threads):
        low, high = t * height // threads, (t + 1) * height // threads
        for i in range(low, high, together):
            stop, moves = min(high, i + together), moves_all
            line = lines[t, : (stop - i) * width]
            clear(line)
            for n in range(len(gradients)):
                moves |= put_rows(gradients[n], rows[n], columns[n], i, stop, n > 0, line, width)
            if moves:
                start, end = i * width, stop * width
                update_row(kind, w[start:end], line, m[start:end], s[start:end], rates)
