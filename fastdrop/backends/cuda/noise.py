"""Normals as noise: ``x * (1 + stddev * n)`` or ``x + stddev * n``, the four normals of a Philox block by one thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import TARGET, cuda, device, kernel
from fastdrop.backends.cuda.masks import STEP, words_of
from fastdrop.backends.formulas import normal
from fastdrop.rng import WORDS_PER_BLOCK

normal_pair = normal.make(TARGET)


@device
def as_signed(word: np.uint64) -> Any:
    """Return the int32 of the same 32 bits."""
    return np.int32(np.int64(word) - ((np.int64(word) >> 31) << 32))


@kernel
def noise_kernel(
    x: Any, y: Any, size: int, fields: Any, domain: np.uint64, first: int, stddev: Any, multiplies: bool, one: Any
) -> None:
    """Element i takes normal ``first + i`` of the domain; flat, y may be x."""
    skip = first % WORDS_PER_BLOCK
    for block in range(cuda.grid(1), (skip + size + WORDS_PER_BLOCK - 1) // WORDS_PER_BLOCK, cuda.gridsize(1)):
        w0, w1, w2, w3 = words_of(fields, domain, fields[STEP], np.uint64(first // WORDS_PER_BLOCK + block))
        n0, n1 = normal_pair(stddev, as_signed(w0), as_signed(w1))
        n2, n3 = normal_pair(stddev, as_signed(w2), as_signed(w3))
        begin = block * WORDS_PER_BLOCK - skip
        for k in range(WORDS_PER_BLOCK):
            i = begin + k
            if 0 <= i < size:
                low = n0 if k == 0 else n1
                high = n2 if k == 2 else n3
                n = low if k < 2 else high
                value = x[i] * one
                y[i] = value * (one + n) if multiplies else value + n
