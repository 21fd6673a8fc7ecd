"""Gaussian noise: ``y = x * (1 + stddev * n)`` or ``y = x + stddev * n``.

Normals are made for PIECE elements at a time into scratch that stays in L1, and then applied.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import GROUP_BLOCKS, numba
from fastdrop.backends.cpu.masks import BLOCKS_AT, RAW_AT, SPAN_BLOCKS, STEP, U64, fill_blocks
from fastdrop.backends.formulas.normal import normal_pair
from fastdrop.rng import WORDS_PER_BLOCK

prange = numba.prange

NORMALS = SPAN_BLOCKS * WORDS_PER_BLOCK
"""Normals that a thread's scratch holds: a block of words gives as many normals."""
PIECE = NORMALS - GROUP_BLOCKS * WORDS_PER_BLOCK
"""Elements whose normals fit, wherever within a block they start."""
NANOSECONDS = 1.4
"""Estimated cost of an element."""


@device
def fill_noise(plan: U64, domain: np.uint64, first: np.uint64, count: int, stddev: np.floating, bits: U64, noise: Array) -> None:
    """Write ``stddev * n`` for normals first .. first + count - 1 of a domain, and for those beside them in their blocks."""
    blocks = (int(first & np.uint64(WORDS_PER_BLOCK - 1)) + count + WORDS_PER_BLOCK - 1) // WORDS_PER_BLOCK
    blocks = (blocks + GROUP_BLOCKS - 1) // GROUP_BLOCKS * GROUP_BLOCKS  # so that no scalar loop has to do the rest
    numbers, raw = bits[BLOCKS_AT : BLOCKS_AT + blocks], bits[RAW_AT:].view(np.uint32)
    for k in range(blocks):
        numbers[k] = first // np.uint64(WORDS_PER_BLOCK) + np.uint64(k)
    fill_blocks(plan, domain, plan[STEP : STEP + 1], numbers, raw)
    words = raw.view(np.int32)
    w0, w1 = words[:blocks], words[SPAN_BLOCKS : SPAN_BLOCKS + blocks]
    w2, w3 = words[2 * SPAN_BLOCKS : 2 * SPAN_BLOCKS + blocks], words[3 * SPAN_BLOCKS : 3 * SPAN_BLOCKS + blocks]
    for k in range(blocks):
        noise[4 * k], noise[4 * k + 1] = normal_pair(stddev, w0[k], w1[k])
        noise[4 * k + 2], noise[4 * k + 3] = normal_pair(stddev, w2[k], w3[k])


@kernel
def noise_kernel(
    x: Array,
    y: Array,
    plan: U64,
    domain: np.uint64,
    first: np.uint64,
    stddev: float,
    multiplies: bool,
    bits: U64,
    noise: Array,
    threads: int,
) -> None:
    """Put noise on x, one-dimensional; element i takes normal number ``first + i``. y may be x."""
    n = len(x)
    factor, one = x.dtype.type(stddev), x.dtype.type(1)
    for t in prange(threads):
        for low in range(t * n // threads, (t + 1) * n // threads, PIECE):
            high = min((t + 1) * n // threads, low + PIECE)
            start = first + np.uint64(low)
            fill_noise(plan, domain, start, high - low, factor, bits[t], noise[t])
            skip = int(start & np.uint64(WORDS_PER_BLOCK - 1))
            source, target, own = x[low:high], y[low:high], noise[t, skip : skip + high - low]
            if multiplies:
                for j in range(len(target)):
                    target[j] = source[j] * (one + own[j])
            else:
                for j in range(len(target)):
                    target[j] = source[j] + own[j]
