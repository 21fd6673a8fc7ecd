"""Arguments of kernels: inputs as they take them, and what stands where there is nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fastdrop._types import FLOAT_DTYPES, ActivationKind, Array, Indices
from fastdrop.backends.cpu import epilogue, masks, units, updates
from fastdrop.backends.operands import PARTS_AT_ONCE, Part, Update, contiguous


def readable(array: Array) -> Array:
    """Return the array as kernels take inputs: C-contiguous, aligned, and of the type of a writable one; seldom copied.

    So every kernel is compiled once. None writes into its inputs.
    """
    if array.flags.carray:
        return array
    array = contiguous(array)
    return array if array.flags.carray else np.asarray(_Alias(array))


class _Alias:
    """Memory of a read-only array, as that of a writable one."""

    def __init__(self, array: Array) -> None:
        self._array = array
        interface = array.__array_interface__
        self.__array_interface__ = interface | {"data": (interface["data"][0], False)}


@functools.lru_cache(maxsize=64)
def _every(count: int) -> Indices:
    return np.arange(count)


def indices_of(indices: Indices | None, count: int) -> Indices:
    """Return the numbers of rows or columns; None means all."""
    return _every(count) if indices is None else indices


NO_DROP: Final = masks.KEEP_ALL_PLAN
NO_BIAS: Final = {dtype: np.zeros(0, dtype) for dtype in FLOAT_DTYPES}
NO_TARGETS: Final = {dtype: np.zeros((0, 0), dtype) for dtype in FLOAT_DTYPES}
NO_LABELS: Final = np.zeros(0, dtype=np.int64)
"""What kernels are given where there is none."""


def _no_update(dtype: np.dtype[Any], ndim: int) -> updates.KernelUpdate:
    nothing = np.zeros((0,) * ndim, dtype)
    return updates.NO_UPDATE, nothing, nothing, nothing, nothing.reshape(-1)


NO_UPDATE: Final = {(dtype, ndim): _no_update(dtype, ndim) for dtype in FLOAT_DTYPES for ndim in (1, 2)}
"""By dtype and axes of the parameter."""


def kernel_update(update: Update | None, like: Array) -> updates.KernelUpdate:
    """Return an update as kernels take it; `like` has the parameter's axes and dtype."""
    return NO_UPDATE[like.dtype, like.ndim] if update is None else (int(update.kind), *update[1:])


def unfinished(c: Array) -> epilogue.Finish:
    """Return that nothing but dropout is done with a product."""
    return c, False, NO_BIAS[c.dtype], int(ActivationKind.LINEAR)


def kernel_parts(parts: Sequence[Part], like: Array) -> units.Parts:
    """Return parts of a matrix like that as kernels take them; empty ones stand where there are none."""
    height, width = like.shape
    given = [(readable(part.gradient), indices_of(part.rows, height), indices_of(part.columns, width)) for part in parts]
    nothing = NO_TARGETS[like.dtype], NO_LABELS, NO_LABELS
    gradients, rows, columns = zip(*given, *[nothing] * (PARTS_AT_ONCE - len(given)), strict=True)
    return gradients, rows, columns
