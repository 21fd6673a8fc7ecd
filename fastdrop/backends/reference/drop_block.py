"""DropBlock: square blocks of a feature map are dropped together, and each row is scaled by ``elements / kept elements``.

Source: Ghiasi et al. 2018, algorithm 1; normalised row by row rather than over the batch.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array, BoolArray
from fastdrop.backends.reference._arrays import deliver
from fastdrop.mask import BoundMask


def kept_elements(shape: tuple[int, ...], seeds: BoundMask, block_size: int) -> BoolArray:
    """Return the mask of an array of that shape: False in every block whose seed is dropped."""
    rows, height, width, channels = shape
    valid = height - block_size + 1, width - block_size + 1
    blocks = ~seeds.keep_rectangle((0, seeds.rows), (0, seeds.columns)).reshape(rows, *valid, channels)
    dropped = np.zeros(shape, dtype=np.bool_)
    for i in range(block_size):
        for j in range(block_size):
            dropped[:, i : i + valid[0], j : j + valid[1]] |= blocks
    return ~dropped


def drop_block_forward(x: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
    """Return x without the blocks, row by row times ``elements / kept elements``; +0.0 where nothing is kept."""
    keep = kept_elements(x.shape, seeds, block_size)
    counts = keep.sum(axis=(1, 2, 3), keepdims=True)
    scale = keep[0].size / np.maximum(counts, 1) if len(x) else counts
    with np.errstate(all="ignore"):
        scaled = x * scale.astype(x.dtype)
    return deliver(np.where(keep, scaled, x.dtype.type(0)), out)


def drop_block_backward(dy: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
    """Return what the forward pass makes of dy: it is linear with a diagonal matrix, its own transpose."""
    return drop_block_forward(dy, seeds, block_size, out)
