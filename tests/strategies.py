"""Hypothesis strategies: keys, rates, masks that fit a shape, arrays with their memory layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from fastdrop import Key, Mask
from fastdrop._types import Shape

Array = npt.NDArray[Any]

EDGES = [0, 1, 3, 4, 5, 6, 7, 13, 15, 16, 17, 65, 129, 1000, 1025]
"""Sizes around a generator block, a vector, a byte of bits, a word of bits, a register tile and a cache block."""

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]

RATES = [0.0, 2.0**-33, 2.0**-32, 0.001, 1 / 256, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.8, 0.999, 1 - 2.0**-32, 1.0]

dtypes = st.sampled_from(DTYPES)
small_sizes = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 13, 15, 16, 17, 33, 65])
rates = st.sampled_from(RATES) | st.floats(0.0, 1.0)
words32 = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
seeds = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**64 - 1]) | st.integers(0, 2**64 - 1)
keys = st.builds(Key, seeds, words32, words32)
row_offsets = st.sampled_from([0, 1, 5, 2**32 - 1, 2**40]) | st.integers(0, 1000)
shapes = st.lists(st.integers(0, 20) | st.just(65), min_size=1, max_size=4).filter(lambda s: math.prod(s) <= 5000).map(tuple)


@st.composite
def masks(draw: st.DrawFn, shape: Shape, fixed_count: bool | None = None) -> Mask:
    """Masks of every kind that fit arrays of `shape`."""
    entries = [st.sampled_from([1, None, extent] if extent else [1, None]) for extent in shape]
    noise_shape = draw(st.none() | st.tuples(*entries))
    mask_shape = shape if noise_shape is None else [e or extent for e, extent in zip(noise_shape, shape, strict=True)]
    row_size = math.prod(mask_shape[1:])
    rate = draw(rates)
    fixed = draw(st.booleans()) if fixed_count is None else fixed_count
    if fixed and row_size and 0 < rate < 1 and round(rate * row_size) in (0, row_size):
        fixed = False
    return Mask(
        rate,
        draw(keys),
        noise_shape=noise_shape,
        shared_rows=draw(st.sampled_from([1, 1, 2, 3, 1000, "batch"])),
        fixed_count=fixed,
        row_offset=draw(row_offsets),
    )


def random_array(seed: int, shape: Shape, dtype: npt.DTypeLike = np.float32) -> Array:
    """Standard normals, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def small_integers(seed: int, shape: Shape, dtype: npt.DTypeLike = np.float32, most: int = 4) -> Array:
    """Integers in [-most, most] as floats: sums of their products are exact."""
    return np.random.default_rng(seed).integers(-most, most + 1, shape).astype(dtype)


def _strided(array: Array) -> Array:
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), dtype=array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _unaligned(array: Array) -> Array:
    view = np.zeros(array.nbytes + 1, dtype=np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _read_only(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": _strided,
    "negative": lambda array: np.ascontiguousarray(array[::-1])[::-1],
    "unaligned": _unaligned,
    "read-only": _read_only,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
}
"""The same values in another memory layout."""
