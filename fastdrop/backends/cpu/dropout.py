"""Dropout on its own: ``y = keep ? x * scale : +0.0``, the same for the gradient, and ``keep ? x * scale + shift : fill``.

Decisions are made for PIECE columns at a time into scratch that stays in L1, then applied 64 elements a word.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import STREAM_ALIGNMENT, WORD_BITS, affine_kept, fence, numba, scale_kept, stream_kept
from fastdrop.backends.cpu.masks import ONE, U64, decide, scale_of
from fastdrop.backends.formulas._formula import select

prange = numba.prange

PIECE = 3072
"""Columns that are decided and then applied at a time."""
STREAM_BYTES = 1 << 25
"""Results from this size on do not stay in a cache anyway: they are stored past them, which spares reading them first."""
NANOSECONDS = 0.3
"""Estimated cost of an element."""


@device
def scale_kept_row(x: Array, y: Array, bits: U64, scale: np.floating) -> None:
    """``y[j] = x[j] * scale`` where bit j is set, else +0.0; x and y of one length, or one array."""
    n = len(x)
    full = n // WORD_BITS * WORD_BITS
    for j in range(0, full, WORD_BITS):
        scale_kept(x, y, j, bits[j // WORD_BITS], scale)
    if full < n:
        word = bits[full // WORD_BITS]
        zero = scale - scale
        for j in range(full, n):
            y[j] = select((word >> np.uint64(j - full)) & ONE != 0, x[j] * scale, zero)


@device
def stream_kept_row(x: Array, y: Array, bits: U64, scale: np.floating) -> None:
    """`scale_kept_row` with stores past the caches; y starts at a multiple of STREAM_ALIGNMENT."""
    full = len(x) // WORD_BITS * WORD_BITS
    for j in range(0, full, WORD_BITS):
        stream_kept(x, y, j, bits[j // WORD_BITS], scale)
    scale_kept_row(x[full:], y[full:], bits[full // WORD_BITS :], scale)


@device
def head_of(y: Array) -> int:
    """Return how many elements of y lie before the first multiple of STREAM_ALIGNMENT."""
    return min(len(y), -(y.ctypes.data // y.itemsize) % (STREAM_ALIGNMENT // y.itemsize))


@kernel
def dropout_kernel(x: Array, y: Array, plan: U64, stream: bool, bits: U64, threads: int) -> None:
    """Drop out x into y, both (rows, columns), past the caches if `stream`.

    Tasks are pieces of a row: the first one up to an aligned address, then PIECE columns each.
    """
    rows, columns = x.shape
    scale = x.dtype.type(scale_of(plan))
    pieces = columns // PIECE + 2
    tasks = rows * pieces
    for t in prange(threads):
        for task in range(t * tasks // threads, (t + 1) * tasks // threads):
            i, piece = task // pieces, task % pieces
            head = head_of(y[i]) if stream else 0
            low = head + (piece - 1) * PIECE if piece else 0
            high = min(columns, head + piece * PIECE)
            if low < high:
                decide(plan, i, 1, low, high - low, bits[t])
                if stream and piece:
                    stream_kept_row(x[i, low:high], y[i, low:high], bits[t], scale)
                else:
                    scale_kept_row(x[i, low:high], y[i, low:high], bits[t], scale)
        if stream:
            fence()


@device
def affine_kept_row(x: Array, y: Array, bits: U64, scale: np.floating, shift: np.floating, fill: np.floating) -> None:
    """``y[j] = x[j] * scale + shift`` where bit j is set, else fill; x and y of one length, or one array."""
    n = len(x)
    full = n // WORD_BITS * WORD_BITS
    for j in range(0, full, WORD_BITS):
        affine_kept(x, y, j, bits[j // WORD_BITS], scale, shift, fill)
    if full < n:
        word = bits[full // WORD_BITS]
        for j in range(full, n):
            y[j] = select((word >> np.uint64(j - full)) & ONE != 0, x[j] * scale + shift, fill)


@kernel
def affine_dropout_kernel(x: Array, y: Array, plan: U64, shift: float, fill: float, bits: U64, threads: int) -> None:
    """Drop out x into y, both (rows, columns), in the affine form; tasks are PIECE columns of a row."""
    rows, columns = x.shape
    number = x.dtype.type
    scale, shift_number, fill_number = number(scale_of(plan)), number(shift), number(fill)
    pieces = (columns + PIECE - 1) // PIECE
    tasks = rows * pieces
    for t in prange(threads):
        for task in range(t * tasks // threads, (t + 1) * tasks // threads):
            i, low = task // pieces, task % pieces * PIECE
            high = min(columns, low + PIECE)
            decide(plan, i, 1, low, high - low, bits[t])
            affine_kept_row(x[i, low:high], y[i, low:high], bits[t], scale, shift_number, fill_number)
