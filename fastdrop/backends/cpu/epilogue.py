"""What is done with a finished row of results: bias, activation, dropout; and its backward pass.

Forward, row by row while it is in L1: ``y = keep ? scale * act(z + bias) : +0.0``.
Backward: ``dz = keep ? dy * scale * act'(z) : +0.0``, and the bias gradient, the sum of dz over rows, in chunks of
`CHUNK_ROWS` rows that are joined in order, so that it does not depend on the threads. relu needs no mask: its output is
positive exactly where it was active and kept.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.activations import LINEAR, RELU, activate_row, gradient_row
from fastdrop.backends.cpu.dropout import scale_kept_row
from fastdrop.backends.cpu.masks import KEEP_ALL, KIND, SPAN, U64, decide

prange = numba.prange

Drop: TypeAlias = tuple[U64, npt.NDArray[np.int64], U64, Any]
"""(plan, offsets, cutoffs, scale): a mask as kernels take it; `NO_DROP` stands for None."""

CHUNK_ROWS = 32
"""Rows whose bias gradients are added up one after the other: part of the definition of the result."""
CHUNK_COLUMNS = 512


@device
def drops(drop: Drop) -> bool:
    """Return whether a mask does anything at all."""
    plan, _offsets, _cutoffs, scale = drop
    return int(plan[KIND]) != KEEP_ALL or scale != 1


@device
def drop_row(drop: Drop, i: int, column: int, scale: Any, x: Array, y: Array, raw: npt.NDArray[np.uint32], bits: U64) -> None:
    """``y = keep ? x * scale : +0.0`` for columns column .. column + len(x) - 1 of matrix row i; y may be x."""
    plan, offsets, cutoffs, _scale = drop
    n = len(x)
    for first in range(0, n, SPAN):
        last = min(n, first + SPAN)
        decide(plan, offsets, cutoffs, i, column + first, last - first, raw, bits)
        scale_kept_row(x[first:last], y[first:last], bits, scale)


@device
def finish_row(
    z: Array, y: Array, bias: Array, activation: int, drop: Drop, i: int, column: int, raw: npt.NDArray[np.uint32], bits: U64
) -> None:
    """Add the bias (if it has elements) to z in place, then write the activated and dropped-out row to y, which may be z."""
    if len(bias):
        for j in range(len(z)):
            z[j] += bias[j]
    if activation != LINEAR:
        activate_row(activation, z, y)
        z = y
    if drops(drop):
        drop_row(drop, i, column, drop[3], z, y, raw, bits)


@kernel
def gradient_kernel(
    dy: Array,
    state: Array,
    dz: Array,
    partial: Array,
    activation: int,
    drop: Drop,
    raw: npt.NDArray[np.uint32],
    bits: U64,
    threads: int,
) -> None:
    """Write dz, all (rows, columns), and the sum of each chunk of rows to partial (chunks, columns), unless that is empty."""
    rows, columns = dy.shape
    across = (columns + CHUNK_COLUMNS - 1) // CHUNK_COLUMNS
    tasks = (rows + CHUNK_ROWS - 1) // CHUNK_ROWS * across
    masked = drops(drop) and activation != RELU
    one = dy.dtype.type(1)
    for t in prange(threads):
        for task in range(t * tasks // threads, (t + 1) * tasks // threads):
            chunk, low = task // across, task % across * CHUNK_COLUMNS
            high = min(columns, low + CHUNK_COLUMNS)
            for i in range(chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)):
                row = dz[i, low:high]
                gradient_row(activation, dy[i, low:high], state[i, low:high], drop[3], row)
                if masked:
                    drop_row(drop, i, low, one, row, row, raw[t], bits[t])
                if len(partial):
                    total = partial[chunk, low:high]
                    if i == chunk * CHUNK_ROWS:
                        for j in range(high - low):
                            total[j] = row[j]
                    else:
                        for j in range(high - low):
                            total[j] += row[j]


@kernel
def join_kernel(partial: Array, out: Array, accumulate: bool, threads: int) -> None:
    """``out (+)= sum over chunks of partial``, chunk after chunk."""
    columns = len(out)
    for t in prange(threads):
        low, high = t * columns // threads, (t + 1) * columns // threads
        total = out[low:high]
        if not accumulate:
            for j in range(high - low):
                total[j] = 0
        for chunk in range(len(partial)):
            part = partial[chunk, low:high]
            for j in range(high - low):
                total[j] += part[j]
