"""Arrays in the memory of a GPU, as everything above the backends sees them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NoReturn, Self

import numpy as np

from fastdrop._types import Array, Shape
from fastdrop.errors import BackendError

SIMULATED_ARRAYS = ("numba.cuda.simulator", "numba_cuda.numba.cuda.simulator")
BFLOAT16 = "bfloat16"
"""Name of the dtype that the package ml_dtypes adds to NumPy."""
CUDA_DEVICE = 2
"""DLPack's number for the memory of a GPU."""


def is_foreign(value: Any) -> bool:
    """Return whether a value is another library's array in the memory of a GPU."""
    if isinstance(value, np.ndarray | list | tuple | int | float):
        return False
    if type(value).__module__.startswith(SIMULATED_ARRAYS):
        return True
    device = getattr(value, "__dlpack_device__", None)
    if device is not None:  # asked first: PyTorch's tensors that need a gradient raise at the other question
        return bool(device()[0] == CUDA_DEVICE)
    return hasattr(value, "__cuda_array_interface__")


def is_device(value: Any) -> bool:
    """Return whether a value is a `DeviceArray`; NumPy arrays are told at once."""
    return type(value) is not np.ndarray and isinstance(value, DeviceArray)


class DeviceArray(ABC):
    """An array in the memory of a GPU: C-contiguous, with just what layers and networks ask of an array.

    Anything that takes ``__cuda_array_interface__`` (CuPy, PyTorch, JAX, Numba) takes it without a copy.

    Parameters
    ----------
    memory : one-dimensional array of numba.cuda
        As many elements as the shape says; one for an array that has none.
    shape : tuple of int
    """

    __slots__ = ("dtype", "memory", "shape")

    def __init__(self, memory: Any, shape: Shape) -> None:
        self.memory = memory
        self.shape = shape
        self.dtype: np.dtype[Any] = memory.dtype

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def reshape(self, *shape: int | Shape) -> Self:
        """Return the same memory as an array of another shape; one extent may be -1."""
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        extents = [int(extent) for extent in wanted]  # type: ignore[arg-type]
        if -1 in extents:
            extents[extents.index(-1)] = self.size // max(1, -math.prod(extents))
        return type(self)(self.memory, tuple(extents))

    def __getitem__(self, rows: slice) -> Self:
        """Return consecutive rows: the same memory, and for all of them the same object that stands for it."""
        low, high, _ = rows.indices(len(self))
        row = math.prod(self.shape[1:])
        part = row and 0 < high - low < len(self)
        memory = self.memory[low * row : high * row] if part else self.memory
        return type(self)(memory, (max(0, high - low), *self.shape[1:]))

    def __float__(self) -> float:
        return float(self.copy_to_host().reshape(()))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec) if spec else str(self)

    # What is computed on the device, on the stream of the calling thread

    @abstractmethod
    def copy_to_host(self) -> Array:
        """Return a NumPy array of the same elements, when all work of this thread's stream is done."""

    @abstractmethod
    def copy(self) -> Self:
        """Return a copy."""

    @abstractmethod
    def astype(self, dtype: Any) -> Self:
        """Return the elements in another dtype: the array itself, if it is its own."""

    @abstractmethod
    def fill(self, value: float) -> None:
        """Write one value everywhere."""

    @abstractmethod
    def set(self, values: Array) -> None:
        """Overwrite with a NumPy array of the same shape."""

    @abstractmethod
    def __setitem__(self, rows: slice, values: Self) -> None: ...

    @abstractmethod
    def __add__(self, other: Self | float) -> Self: ...

    @abstractmethod
    def __iadd__(self, other: Self) -> Self: ...

    @abstractmethod
    def __mul__(self, factor: float) -> Self: ...

    @abstractmethod
    def __imul__(self, factor: float) -> Self: ...

    def __radd__(self, other: float) -> Self:
        return self + other

    def __rmul__(self, factor: float) -> Self:
        return self * factor

    def __truediv__(self, divisor: float) -> Self:
        return self * (1.0 / divisor)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.memory.__cuda_array_interface__, "shape": self.shape, "strides": None}

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise BackendError("an array on a GPU is not copied to the host unasked (hint: x.copy_to_host())")
