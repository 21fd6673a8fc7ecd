"""Which backend does the work: the only place that imports a backend, and only when it is used."""

from __future__ import annotations

import os
from functools import cache

from fastdrop import _validate
from fastdrop.backends.base import AbstractBackend

BACKENDS = ("cpu", "reference", "cuda")
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
