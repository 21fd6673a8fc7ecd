"""Dropout: ``y = keep ? x * scale : +0.0``, and the same of dy in the backward pass; ``keep ? x * scale + shift : fill``.

Source: Srivastava et al. 2014, section 4 (inverted form); the affine form: Klambauer et al. 2017, section 3.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.reference._arrays import deliver
from fastdrop.mask import BoundMask


def apply_mask(x: Array, mask: BoundMask | None) -> Array:
    """Return ``keep ? x * scale : +0.0`` as a new array of the shape of x; x itself without a mask."""
    if mask is None:
        return x
    keep = mask.keep_rectangle((0, mask.rows), (0, mask.columns)).reshape(x.shape)
    with np.errstate(all="ignore"):
        scaled = x * x.dtype.type(mask.scale)
    y: Array = np.where(keep, scaled, x.dtype.type(0))
    return y


def dropout_forward(x: Array, mask: BoundMask, out: Array | None = None) -> Array:
    """Return ``y = keep ? x * scale : +0.0``."""
    return deliver(apply_mask(x, mask), out)


def dropout_backward(dy: Array, mask: BoundMask, out: Array | None = None) -> Array:
    """Return ``dx = keep ? dy * scale : +0.0``: dropout is linear with a diagonal matrix, its own transpose."""
    return deliver(apply_mask(dy, mask), out)


def affine_dropout_forward(x: Array, mask: BoundMask, shift: float, fill: float, out: Array | None = None) -> Array:
    """Return ``y = keep ? x * scale + shift : fill``."""
    keep = mask.keep_rectangle((0, mask.rows), (0, mask.columns)).reshape(x.shape)
    number = x.dtype.type
    with np.errstate(all="ignore"):
        moved = x * number(mask.scale) + number(shift)
    return deliver(np.where(keep, moved, number(fill)), out)
