"""DropBlock: each row of x (rows, height, width, channels) without the blocks of its dropped seeds, times ``elements / kept``.

A row's mask is made in one thread's scratch, a byte an element: seeds are few, and each clears its block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import WORD_BITS, numba, trailing_zeros
from fastdrop.backends.cpu.masks import ALL, ONE, SPAN, U64, ZERO, decide
from fastdrop.backends.formulas._formula import select

prange = numba.prange

NANOSECONDS = 1.0
"""Estimated cost of an element."""

Bytes = npt.NDArray[np.uint8]


@device
def clear_block(keep: Bytes, seed: int, block_size: int, width: int, channels: int) -> None:
    """Clear the block of a seed in a row's mask (height * width * channels)."""
    valid = (width - block_size + 1) * channels
    corner = seed // valid * width * channels + seed % valid
    for i in range(block_size):
        for j in range(block_size):
            keep[corner + (i * width + j) * channels] = np.uint8(0)


@device
def clear_blocks(plan: U64, row: int, seeds: int, block_size: int, width: int, channels: int, keep: Bytes, bits: U64) -> None:
    """Clear the blocks of all seeds of a row that its decisions drop."""
    for done in range(0, seeds, SPAN):
        count = min(SPAN, seeds - done)
        decide(plan, row, 1, done, count, bits)
        for k in range((count + WORD_BITS - 1) // WORD_BITS):
            left = min(WORD_BITS, count - k * WORD_BITS)
            dropped = ~bits[k] & (ALL >> np.uint64(WORD_BITS - left))
            while dropped != ZERO:
                clear_block(keep, done + k * WORD_BITS + int(trailing_zeros(dropped)), block_size, width, channels)
                dropped &= dropped - ONE


@kernel
def drop_block_kernel(
    x: Array, y: Array, width: int, channels: int, plan: U64, seeds: int, block_size: int, keep: Bytes, bits: U64, threads: int
) -> None:
    """Drop blocks of x into y, both (rows, height * width * channels); keep is (threads, as many). y may be x."""
    rows, elements = x.shape
    zero = x.dtype.type(0)
    for t in prange(threads):
        own = keep[t]
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            own[:] = np.uint8(1)
            clear_blocks(plan, row, seeds, block_size, width, channels, own, bits[t])
            kept = 0
            for j in range(elements):
                kept += int(own[j])
            scale = x.dtype.type(elements / max(1, kept))
            source, target = x[row], y[row]
            for j in range(elements):
                target[j] = select(own[j] != 0, source[j] * scale, zero)
