"""Units that shared masks keep: which they are, matrices of them alone, and the way back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from fastdrop._types import Array, Indices, Shape
from fastdrop.backends.operands import Units
from fastdrop.mask import BoundMask


def units(mask: BoundMask) -> Units:
    """Return the kept columns of each group of rows."""
    bounds = mask.groups()
    return Units(bounds, tuple(np.flatnonzero(mask.keep_row(low, 0, mask.columns)) for low, _ in pairwise(bounds)))


def place(rows: Indices | None, columns: Indices | None, shape: Shape) -> tuple[Array, ...]:
    """Return the index of a submatrix."""
    every_row, every_column = np.arange(shape[0]), np.arange(shape[1])
    return np.ix_(every_row if rows is None else rows, every_column if columns is None else columns)


def gather(x: Array, rows: Indices | None, columns: Indices | None, scale: float = 1.0) -> Array:
    """Return ``x[rows][:, columns] * scale``."""
    with np.errstate(all="ignore"):
        values: Array = x[place(rows, columns, x.shape)] * x.dtype.type(scale)
    return values


def scatter(
    values: Array, rows: Indices | None, columns: Indices | None, out: Array, accumulate: bool, scale: float = 1.0
) -> None:
    """``out[rows][:, columns] (+)= values * scale``."""
    at = place(rows, columns, out.shape)
    with np.errstate(all="ignore"):
        scaled = values * out.dtype.type(scale)
        out[at] = out[at] + scaled if accumulate else scaled
