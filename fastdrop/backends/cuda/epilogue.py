"""What is done with finished products: bias, activation, dropout; and its backward pass.

Forward: ``y = keep ? scale * act(z + bias) : +0.0``. Backward: ``dz = keep ? dy * scale * act'(z) : +0.0``; the bias gradient is
the sum of dz over rows, in chunks of `CHUNK_ROWS` rows that are joined in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, cuda, kernel
from fastdrop.backends.cuda._tiles import decide_run, is_set, place
from fastdrop.backends.cuda.activations import activate, gradient
from fastdrop.backends.cuda.masks import RUN, Plan

CHUNK_ROWS = 32
"""Rows that are added up one after the other: part of the definition of the result."""


@kernel
def finish_kernel(
    z: Any, y: Any, rows: int, columns: int, bias: Any, has_bias: bool, activation: int, plan: Plan, scale: Any, one: Any
) -> None:
    """Add the bias to z in place, then write y; all flat, y may be z."""
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
                i = row * columns + column
                value = z[i] * one
                if has_bias:
                    value += bias[column]
                z[i] = value
                kept = one - one
                if is_set(bits, q):
                    kept = activate(activation, value, one) * scale
                y[i] = kept
        cuda.syncthreads()


@kernel
def gradient_kernel(
    dy: Any, state: Any, dz: Any, rows: int, columns: int, activation: int, plan: Plan, scale: Any, one: Any
) -> None:
    """Write dz; `state` is z, or y; all flat, dz may be dy."""
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
                i = row * columns + column
                value = one - one
                if is_set(bits, q):
                    value = gradient(activation, dy[i] * one * scale, state[i] * one, one)
                dz[i] = value
        cuda.syncthreads()


@kernel
def partial_sums_kernel(dz: Any, rows: int, columns: int, chunks: int, partial: Any, one: Any) -> None:
    """Write the sum over each chunk of rows to partial (chunks, columns), a thread for each."""
    for task in range(cuda.grid(1), chunks * columns, cuda.gridsize(1)):
        chunk = task // columns
        column, total = task - chunk * columns, one - one
        for row in range(chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)):
            total += dz[row * columns + column]
        partial[task] = total


@kernel
def join_kernel(partial: Any, columns: int, chunks: int, out: Any, accumulate: bool, one: Any) -> None:
    """``out (+)= sum over chunks``, in order."""
    for column in range(cuda.grid(1), columns, cuda.gridsize(1)):
        total = one - one
        for chunk in range(chunks):
            total += partial[chunk * columns + column]
        out[column] = out[column] + total if accumulate else total
