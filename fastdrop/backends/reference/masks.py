"""Random words and decision bits.

Source: the mask contract, version 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastdrop import rng
from fastdrop.mask import BoundMask
from fastdrop.rng import Key

BITS_PER_WORD = 64


def words(key: Key, domain: int, first: int, count: int) -> npt.NDArray[np.uint32]:
    """Return words first .. first + count - 1 of a domain: shape (count,)."""
    return rng.words(key, domain, first, count)


def decisions(mask: BoundMask, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Return the decisions of a rectangle as bits: shape (rows, ceil(columns / 64)), least significant bit first."""
    keep = mask.keep_rectangle(rows, columns)
    width = -(-keep.shape[1] // BITS_PER_WORD)
    padded = np.zeros((keep.shape[0], width * BITS_PER_WORD), dtype=np.bool_)
    padded[:, : keep.shape[1]] = keep
    packed = np.packbits(padded, axis=1, bitorder="little")
    return packed.view("<u8").astype(np.uint64)
