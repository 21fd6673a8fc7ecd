"""One Philox4x32-10 block, in masked uint64: products are exact and nothing wraps.

Source: Salmon, Moraes, Dror, Shaw, SC'11, section 4.3; constants as in Random123.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fastdrop import rng
from fastdrop.backends.formulas._formula import COMPILED, Target

Words: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

M0 = np.uint64(rng.PHILOX_M4X32_0)
M1 = np.uint64(rng.PHILOX_M4X32_1)
W0 = np.uint64(rng.PHILOX_W32_0)
W1 = np.uint64(rng.PHILOX_W32_1)
MASK = np.uint64(rng.MASK32)
HALF = np.uint64(32)
ROUNDS = rng.PHILOX_ROUNDS


def make(target: Target) -> Callable[..., Words]:
    """Return the function of one block."""

    @target.formula
    def philox_block(c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64) -> Words:
        """Return the four words of counter (c0, c1, c2, c3) under key (k0, k1), each in a uint64."""
        for _ in range(ROUNDS):
            p0 = c0 * M0
            p1 = c2 * M1
            c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & MASK, (p0 >> HALF) ^ c3 ^ k1, p0 & MASK
            k0 = (k0 + W0) & MASK
            k1 = (k1 + W1) & MASK
        return c0, c1, c2, c3

    return philox_block  # type: ignore[no-any-return]


philox_block = make(COMPILED)
