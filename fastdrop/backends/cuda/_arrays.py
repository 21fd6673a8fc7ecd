"""Device memory: arrays and what layers do with them directly, copies to and from the host, and what stands for no array."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Self, final

import numpy as np

from fastdrop._device import DeviceArray
from fastdrop._types import Array, Shape
from fastdrop.backends.cuda._jit import IS_SUCCESSOR, SIMULATED, cuda, kernel, launch, stream, stream_handle


@kernel
def add_kernel(x: Any, y: Any, out: Any, size: int) -> None:
    """``out = x + y``; flat, out may be x or y."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = x[i] + y[i]


@kernel
def shift_kernel(x: Any, shift: Any, out: Any, size: int) -> None:
    """``out = x + shift``; flat, out may be x."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = x[i] + shift


@kernel
def scale_kernel(x: Any, factor: Any, out: Any, size: int) -> None:
    """``out = x * factor``; flat, of any two dtypes, out may be x."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = x[i] * factor


@kernel
def fill_kernel(out: Any, size: int, value: Any) -> None:
    """Write one value everywhere."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = value


@final
class CudaArray(DeviceArray):
    """An array in the memory of a GPU, or of Numba's simulator."""

    __slots__ = ()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """With the stream on which the array is written; 1 is the default stream there."""
        return {**super().__cuda_array_interface__, "stream": stream_handle() or 1}

    def _new(self, dtype: Any = None) -> CudaArray:
        return empty(self.shape, self.dtype if dtype is None else dtype)

    def _scaled(self, factor: float, out: CudaArray) -> CudaArray:
        number = np.result_type(compute_dtype(self.dtype), compute_dtype(out.dtype)).type
        launch(scale_kernel, self.size, self.memory, number(factor), out.memory, self.size)
        return out

    def copy_to_host(self) -> Array:
        current = stream()
        values = np.asarray(self.memory.copy_to_host(stream=current))
        if current:
            current.synchronize()
        return values[: self.size].reshape(self.shape)

    def copy(self) -> CudaArray:
        return self._scaled(1.0, self._new())

    def astype(self, dtype: Any) -> CudaArray:
        return self if self.dtype == dtype else self._scaled(1.0, self._new(dtype))

    def fill(self, value: float) -> None:
        launch(fill_kernel, self.size, self.memory, self.size, compute_dtype(self.dtype)(value))

    def set(self, values: Array) -> None:
        if self.size:
            self.memory[: self.size].copy_to_device(np.ascontiguousarray(values, self.dtype).reshape(-1), stream=stream())

    def __setitem__(self, rows: slice, values: Any) -> None:
        values._scaled(1.0, self[rows])

    def __add__(self, other: Any) -> CudaArray:
        return self._sum(other, self._new())

    def __iadd__(self, other: Any) -> Self:
        self._sum(other, self)
        return self

    def _sum(self, other: Any, out: CudaArray) -> CudaArray:
        if isinstance(other, DeviceArray):
            launch(add_kernel, self.size, self.memory, other.memory, out.memory, self.size)
        else:
            launch(shift_kernel, self.size, self.memory, compute_dtype(self.dtype)(other), out.memory, self.size)
        return out

    def __mul__(self, factor: float) -> CudaArray:
        return self._scaled(factor, self._new())

    def __imul__(self, factor: float) -> Self:
        self._scaled(factor, self)
        return self


def empty(shape: Shape, dtype: Any) -> CudaArray:
    """Return a new array, not filled."""
    return CudaArray(cuda.device_array(max(1, math.prod(shape)), np.dtype(dtype), stream=stream()), shape)


def upload(array: Array) -> CudaArray:
    """Return a copy of a NumPy array on the device."""
    flat = np.array(array, order="C").reshape(-1)
    return CudaArray(cuda.to_device(flat if flat.size else np.zeros(1, array.dtype), stream=stream()), array.shape)


def zeros(shape: Shape, dtype: Any) -> CudaArray:
    """Return a new array of +0.0."""
    new = empty(shape, dtype)
    new.fill(0.0)
    return new


@cache
def nothing(dtype: Any) -> Any:
    """Return the memory of an array that is not there."""
    memory = cuda.device_array(1, dtype, stream=stream())  # not by a copy: the host has no buffers of bfloat16
    launch(fill_kernel, 1, memory, 1, compute_dtype(dtype)(0))
    return memory


def compute_dtype(dtype: np.dtype[Any]) -> Any:
    """Return the type that elements are computed in: float32 for narrower ones, their own for integers."""
    if dtype.kind in "iub":
        return dtype.type
    return np.float64 if dtype == np.float64 else np.float32


def address(array: DeviceArray) -> int:
    """Return where an array begins."""
    return int(array.memory.__cuda_array_interface__["data"][0])


def aligned(*arrays: DeviceArray) -> bool:
    """Return whether arrays begin at multiples of 16 bytes, and the compiler takes accesses of so many."""
    return SIMULATED or (not IS_SUCCESSOR and all(address(array) % 16 == 0 for array in arrays))
