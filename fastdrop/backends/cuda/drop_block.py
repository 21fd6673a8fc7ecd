"""DropBlock: square blocks of a feature map are dropped together, and each row is scaled by ``elements / kept elements``."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, cuda, device, kernel, rounded
from fastdrop.backends.cuda._reductions import block_sum
from fastdrop.backends.cuda.conv2d import position

WORD_SHIFT, WORD_MASK = 6, 63


@device
def kept(bits: Any, first: int, i: int, j: int, c: int, valid_height: int, valid_width: int, channels: int, size: int) -> bool:
    """Return whether no dropped block covers element (i, j, c); the decisions of the row's seeds begin with bits[first]."""
    for p in range(max(0, i - size + 1), min(valid_height, i + 1)):
        for q in range(max(0, j - size + 1), min(valid_width, j + 1)):
            seed = (p * valid_width + q) * channels + c
            if (bits[first + (seed >> WORD_SHIFT)] >> np.uint64(seed & WORD_MASK)) & np.uint64(1) == np.uint64(0):
                return False
    return True


@kernel
def drop_block_kernel(
    x: Any, y: Any, rows: int, height: int, width: int, channels: int, size: int, bits: Any, words: int, one: Any
) -> None:
    """Drop blocks from each row and scale it, a block of threads for each; `words` words of decisions a row; y may be x."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread, elements = cuda.threadIdx.x, height * width * channels
    valid_height, valid_width = height - size + 1, width - size + 1
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        count = 0.0
        for e in range(thread, elements, BLOCK):
            _, i, j, c = position(e, height, width, channels)
            if kept(bits, row * words, i, j, c, valid_height, valid_width, channels, size):
                count += 1.0
        count = block_sum(shared, thread, count)
        scale = rounded(one, elements / max(count, 1.0))
        for e in range(thread, elements, BLOCK):
            _, i, j, c = position(e, height, width, channels)
            value = one - one
            if kept(bits, row * words, i, j, c, valid_height, valid_width, channels, size):
                value = x[row * elements + e] * scale
            y[row * elements + e] = value
