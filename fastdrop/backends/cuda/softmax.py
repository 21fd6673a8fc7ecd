"""Softmax of rows, a block of threads each, in binary64 within."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, cuda, device, kernel, wide
from fastdrop.backends.cuda._reductions import block_max, block_sum, larger


@device
def row_maximum(x: Any, first: int, columns: int, shared: Any, thread: int) -> float:
    """Return the largest element of a row."""
    largest = -math.inf
    for j in range(thread, columns, BLOCK):
        largest = larger(largest, wide(x[first + j]))
    maximum: float = block_max(shared, thread, largest)
    return maximum


@device
def row_exponentials(x: Any, first: int, columns: int, largest: float, shared: Any, thread: int) -> float:
    """Return the sum of ``exp(x - largest)`` over a row."""
    total = 0.0
    for j in range(thread, columns, BLOCK):
        total += math.exp(wide(x[first + j]) - largest)
    together: float = block_sum(shared, thread, total)
    return together


@kernel
def softmax_forward_kernel(x: Any, y: Any, rows: int, columns: int) -> None:
    """Write the softmax of each row; y may be x."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        first = row * columns
        largest = row_maximum(x, first, columns, shared, thread)
        total = row_exponentials(x, first, columns, largest, shared, thread)
        for j in range(thread, columns, BLOCK):
            y[first + j] = math.exp(wide(x[first + j]) - largest) / total


@kernel
def softmax_backward_kernel(dy: Any, y: Any, dx: Any, rows: int, columns: int) -> None:
    """``dx = y * (dy - sum(dy * y))``, row by row; dx may be dy."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        first, total = row * columns, 0.0
        for j in range(thread, columns, BLOCK):
            total += wide(dy[first + j]) * wide(y[first + j])
        total = block_sum(shared, thread, total)
        for j in range(thread, columns, BLOCK):
            dx[first + j] = wide(y[first + j]) * (wide(dy[first + j]) - total)
