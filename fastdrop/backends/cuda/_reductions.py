"""Sums and maxima over the threads of a block, in one order whatever the launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, cuda, device, kernel, wide

CHUNK = 4096
"""Elements that one block adds up: part of the definition of the result."""


@device
def larger(a: Any, b: Any) -> Any:
    """Return the larger number, or NaN."""
    return b if b > a or b != b else a  # noqa: PLR0124  (NaN differs from itself)


@device
def reduced(shared: Any, thread: int, value: Any, by_largest: bool) -> Any:
    """Return the largest of every thread's values, or their sum, to all of them."""
    shared[thread] = value
    cuda.syncthreads()
    width = BLOCK // 2
    while width > 0:
        if thread < width:
            a, b = shared[thread], shared[thread + width]
            shared[thread] = larger(a, b) if by_largest else a + b
        cuda.syncthreads()
        width //= 2
    total = shared[0]
    cuda.syncthreads()
    return total


@device
def block_sum(shared: Any, thread: int, value: Any) -> Any:
    """Return the sum of every thread's value, to all of them."""
    return reduced(shared, thread, value, False)


@device
def block_max(shared: Any, thread: int, value: Any) -> Any:
    """Return the largest of every thread's values, to all of them; NaN where there is one."""
    return reduced(shared, thread, value, True)


@kernel
def total_kernel(values: Any, size: int, out: Any) -> None:
    """Write the sum of a float64 array to out[0]: one block."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread, total = cuda.threadIdx.x, 0.0
    for i in range(thread, size, BLOCK):
        total += values[i]
    total = block_sum(shared, thread, total)
    if thread == 0:
        out[0] = total


@kernel
def square_sums_kernel(x: Any, size: int, partial: Any) -> None:
    """Write the sum of squares of each chunk, in binary64: a block for each."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for chunk in range(cuda.blockIdx.x, (size + CHUNK - 1) // CHUNK, cuda.gridDim.x):
        total = 0.0
        for i in range(chunk * CHUNK + thread, min(size, (chunk + 1) * CHUNK), BLOCK):
            total += wide(x[i]) * wide(x[i])
        total = block_sum(shared, thread, total)
        if thread == 0:
            partial[chunk] = total
