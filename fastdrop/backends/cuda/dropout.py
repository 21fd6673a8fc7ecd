"""Elementwise dropout: ``y = keep ? x * scale : +0.0``, and with a shift and a fill for AlphaDropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, cuda, kernel, multiplied
from fastdrop.backends.cuda._tiles import RUN_MASK, RUN_SHIFT, decide_run, is_set, place
from fastdrop.backends.cuda._vectors import drop_vector
from fastdrop.backends.cuda.masks import BLOCK_BITS, BLOCK_MASK, ROW_SIZE, RUN, Plan, of_block, place_of

LANE_MASK = (1 << RUN) - 1
BLOCK_RUNS = BLOCK + 1
"""Runs that a block of threads decides for its vectors."""


@kernel
def dropout_kernel(x: Any, y: Any, rows: int, columns: int, plan: Plan, scale: Any, shift: Any, fill: Any, affine: bool) -> None:
    """Write ``keep ? x * scale : fill``, where `affine` with the shift added; x and y are flat and may be one array."""
    bits = cuda.shared.array(BLOCK, np.uint32)
    runs = (columns + RUN - 1) // RUN
    total, thread = rows * runs, cuda.threadIdx.x
    for base in range(cuda.blockIdx.x * BLOCK, total, cuda.gridDim.x * BLOCK):
        decide_run(plan, bits, thread, base, runs, total)
        cuda.syncthreads()
        for step in range(RUN):
            q = step * BLOCK + thread
            row, column = place(base, q, runs, total, columns)
            if row >= 0:
                i, value = row * columns + column, fill
                if is_set(bits, q):
                    value = multiplied(scale, x[i]) + shift if affine else x[i] * scale
                y[i] = value
        cuda.syncthreads()


@kernel
def plain_kernel(x: Any, y: Any, size: int, plan: Plan, scale: Any, lanes: int) -> None:
    """`dropout_kernel` for Bernoulli masks whose elements lie one after the other, all of an array as one row.

    x and y begin at multiples of 16 bytes, which are `lanes` elements. A thread decides one block of the generator, and then
    takes vectors next to those of its neighbours; the block of threads decides one block more, into which its last vector may
    reach.
    """
    bits = cuda.shared.array(BLOCK_RUNS, np.uint32)
    fields = plan[0]
    step, mask_row, offset, _ = place_of(plan, 0)
    start = mask_row * fields[ROW_SIZE] + offset
    number, skip = start >> BLOCK_BITS, int(start & BLOCK_MASK)
    runs, thread = (skip + size + RUN - 1) // RUN, cuda.threadIdx.x
    for base in range(cuda.blockIdx.x * BLOCK, runs, cuda.gridDim.x * BLOCK):
        for run in range(thread, BLOCK_RUNS, BLOCK):
            bits[run] = np.uint32(of_block(fields, step, number + np.uint64(base + run)))
        cuda.syncthreads()
        first = base * RUN - skip
        low, high = (max(first, 0) + lanes - 1) // lanes, (min(first + BLOCK * RUN, size) + lanes - 1) // lanes
        for vector in range(low + thread, high, BLOCK):
            i = vector * lanes
            at = i - first
            pair = int(bits[at >> RUN_SHIFT]) | int(bits[(at >> RUN_SHIFT) + 1]) << RUN
            keep = np.uint32((pair >> (at & RUN_MASK)) & LANE_MASK)
            if i + lanes <= size:
                drop_vector(x, y, i, keep, scale)
            else:
                for k in range(size - i):
                    y[i + k] = x[i + k] * scale if (int(keep) >> k) & 1 else scale - scale
        cuda.syncthreads()
