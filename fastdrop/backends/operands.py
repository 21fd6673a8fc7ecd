"""What operations of a backend take besides arrays."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from fastdrop._device import is_device
from fastdrop._types import Array, Domain, Indices, Shape, UpdateKind
from fastdrop.rng import Key
from fastdrop.window import Window

BLOCK = 128
"""Rows and columns of a matrix that are transposed together: few enough that their cache lines stay at hand."""


class Update(NamedTuple):
    """What an optimiser does to one parameter in a step, in place; arrays are C-contiguous and of one dtype.

    Notation: w value, g gradient, lr learning rate. First of all ``w -= w * decay``; decay is weight decay times lr.

    - SGD: rates (lr, decay); ``w -= lr * g``
    - MOMENTUM: rates (lr, decay, momentum); ``v = momentum * v - lr * g; w += v``
    - NESTEROV: as MOMENTUM, but ``w += momentum * v - lr * g``
    - ADAM: rates (lr * sqrt(1 - beta_2**t) / (1 - beta_1**t), decay, 1 - beta_1, 1 - beta_2, epsilon);
      ``m += (g - m) * rates[2]; s += (g * g - s) * rates[3]; w -= rates[0] * m / (sqrt(s) + epsilon)``

    Where v, m or s becomes subnormal it becomes zero: the running means of units whose gradient stays zero would end there and
    never leave, and arithmetic with such numbers takes a CPU some hundred cycles.

    Attributes
    ----------
    kind : UpdateKind
    value : array
    first, second : arrays of the shape of `value`
        v, or m and s; any arrays of as many axes, the value itself for example, where the kind needs none.
    rates : array, shape (2,), (3,) or (5,)
        Rounded once, to the dtype of `value`.
    """

    kind: UpdateKind
    value: Array
    first: Array
    second: Array
    rates: Array


class Normals(NamedTuple):
    """Standard normals n as noise, one for each element of an array: element i in C order takes number ``first + i`` of a domain.

    Attributes
    ----------
    key : Key
    first : int
        All numbers are below 2**58.
    stddev : float
        Binary64; rounded to the compute dtype by the operation.
    multiplies : bool
        ``y = x * (1 + stddev * n)``, else ``y = x + stddev * n``.
    domain : int
    """

    key: Key
    first: int
    stddev: float
    multiplies: bool
    domain: int = Domain.NOISE


class PackedWeight(NamedTuple):
    """A copy of a weight of that shape in the order in which a backend's products read it: a backend's own business."""

    data: Array
    shape: Shape


class Part(NamedTuple):
    """The gradient, a matrix, of some rows and columns of a parameter (of a vector, as one row); that of the others is +0.0.

    Indices are ascending, None means all.
    """

    gradient: Array
    rows: Indices | None
    columns: Indices | None


PARTS_AT_ONCE = 4
"""Parts of a gradient that are best held before they are added up."""


class Units(NamedTuple):
    """The columns of a matrix that a mask keeps, for each group of consecutive rows that share it.

    Attributes
    ----------
    bounds : tuple of int
        First row of each group, and at the end the number of rows.
    kept : tuple of int64 arrays
        For each group the kept columns, ascending. None: all of them.
    """

    bounds: tuple[int, ...]
    kept: tuple[Indices | None, ...]


class Unpooled(NamedTuple):
    """The gradient by images x, of which max-pooling gave dy its gradient: not computed yet, so that it can be in pieces."""

    dy: Array
    x: Array
    window: Window


def as_matrix(array: Array) -> Array:
    """Return a vector as a matrix of one row, and a matrix as it is."""
    return array if array.ndim == 2 else array.reshape(1, -1)


def contiguous(array: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return the array C-contiguous, aligned, and of a dtype: itself, if it is."""
    if is_device(array):
        return cast(Array, array if dtype is None else array.astype(dtype))
    flags = array.flags
    if flags.c_contiguous and flags.aligned and (dtype is None or array.dtype == dtype):
        return cast(Array, array)
    if array.ndim == 2 and flags.f_contiguous and array.size > BLOCK * BLOCK:
        return _by_blocks(array, dtype)
    return np.require(array, dtype, ["C", "A"])


def _by_blocks(matrix: Array, dtype: np.dtype[Any] | None) -> Array:
    """Return a C-contiguous copy of a matrix that lies in memory column by column."""
    copy = np.empty(matrix.shape, dtype or matrix.dtype)
    for i in range(0, matrix.shape[0], BLOCK):
        for j in range(0, matrix.shape[1], BLOCK):
            copy[i : i + BLOCK, j : j + BLOCK] = matrix[i : i + BLOCK, j : j + BLOCK]
    return copy
