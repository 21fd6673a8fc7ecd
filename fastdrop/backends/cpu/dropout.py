"""Dropout on its own: ``y = keep ? x * scale : +0.0``, and the same for the gradient.

Decisions are made for at most SPAN columns at a time into scratch that stays in L1, then applied 64 elements a word.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import WORD_BITS, numba, scale_kept
from fastdrop.backends.cpu.masks import ONE, SPAN, U64, decide
from fastdrop.backends.formulas._formula import select

prange = numba.prange

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


@kernel
def dropout_kernel(
    x: Array,
    y: Array,
    plan: U64,
    offsets: npt.NDArray[np.int64],
    cutoffs: U64,
    scale: np.floating,
    raw: npt.NDArray[np.uint32],
    bits: U64,
    threads: int,
) -> None:
    """Drop out x into y, both (rows, columns); tasks are spans of a row."""
    rows, columns = x.shape
    spans = (columns + SPAN - 1) // SPAN
    tasks = rows * spans
    for t in prange(threads):
        for task in range(t * tasks // threads, (t + 1) * tasks // threads):
            i, first = task // spans, task % spans * SPAN
            count = min(SPAN, columns - first)
            decide(plan, offsets, cutoffs, i, first, count, raw[t], bits[t])
            scale_kept_row(x[i, first : first + count], y[i, first : first + count], bits[t], scale)
