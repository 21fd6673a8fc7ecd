"""Device memory: new arrays, copies to and from the host, and what kernels take for an array that is not there."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from fastdrop._device import DeviceArray
from fastdrop._types import Array, Shape
from fastdrop.backends.cuda._jit import cuda, kernel, launch, stream


def empty(shape: Shape, dtype: Any) -> DeviceArray:
    """Return a new array, not filled."""
    return DeviceArray(cuda.device_array(max(1, math.prod(shape)), np.dtype(dtype), stream=stream()), shape)


def upload(array: Array) -> DeviceArray:
    """Return a copy of a NumPy array on the device."""
    flat = np.array(array, order="C").reshape(-1)
    return DeviceArray(cuda.to_device(flat if flat.size else np.zeros(1, array.dtype), stream=stream()), array.shape)


@kernel
def fill_kernel(out: Any, size: int, value: Any) -> None:
    """Write one value everywhere."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = value


def fill(out: DeviceArray, value: float) -> DeviceArray:
    """Write one value everywhere and return the array."""
    launch(fill_kernel, out.size, out.memory, out.size, compute_dtype(out.dtype)(value))
    return out


def zeros(shape: Shape, dtype: Any) -> DeviceArray:
    """Return a new array of +0.0."""
    return fill(empty(shape, dtype), 0.0)


@cache
def nothing(dtype: Any) -> Any:
    """Return the memory of an array that is not there."""
    return cuda.to_device(np.zeros(1, dtype))


def compute_dtype(dtype: np.dtype[Any]) -> Any:
    """Return the type that elements are computed in: float32 for narrower ones."""
    return np.float64 if dtype == np.float64 else np.float32
