"""Which backend does the work: the only place that imports a backend, and only when it is used.

Arrays decide: those in the memory of a GPU belong to the CUDA backend, all others to the CPU's.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np

from fastdrop import _validate
from fastdrop._device import DeviceArray, is_device, is_foreign
from fastdrop.backends.base import AbstractBackend

BACKENDS = ("cpu", "reference", "cuda")
Result = TypeVar("Result")

BACKEND_VARIABLE = "FASTDROP_BACKEND"
"""Environment variable that replaces the CPU backend by name, e.g. ``reference`` to audit a result."""


@cache
def backend(name: str) -> AbstractBackend:
    """Return the backend of that name; a single object each.

    Raises
    ------
    ValueError: no such backend.
    """
    _validate.choice("backend", name, BACKENDS)
    if name == "reference":
        from fastdrop.backends.reference.backend import ReferenceBackend

        return ReferenceBackend()
    if name == "cuda":
        from fastdrop.backends.cuda.backend import CudaBackend

        return CudaBackend()
    from fastdrop.backends.cpu.backend import CpuBackend

    return CpuBackend()


@cache
def default_backend() -> AbstractBackend:
    """Return the backend for NumPy arrays: "cpu", or the one named by FASTDROP_BACKEND."""
    return backend(os.environ.get(BACKEND_VARIABLE, "cpu"))


def backend_of(array: Any) -> AbstractBackend:
    """Return the backend that an array belongs to."""
    return backend("cuda") if is_device(array) else default_backend()


def received(value: Any, name: str = "x", *, to_write: bool = False) -> Any:
    """Return what a user gave: an array of any library on a GPU as a `DeviceArray`, everything else as it is.

    `name` is the argument's in errors; what is `to_write` into must be the array itself, never a copy.
    """
    if type(value) is np.ndarray or isinstance(value, DeviceArray) or not is_foreign(value):
        return value
    backend("cuda")
    from fastdrop.backends.cuda.interop import receive

    return receive(value, name, to_write=to_write)


def in_kind(result: Result, like: Any) -> Result:
    """Return a result as an array of the library that the user's array belongs to."""
    if not is_device(result) or is_device(like) or not is_foreign(like):
        return result
    from fastdrop.backends.cuda.interop import give

    return cast(Result, give(cast(Any, result), like))
