"""The CUDA backend behind NumPy arrays: what goes in is copied to the device, what comes out, or was written, is copied back."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from fastdrop._device import DeviceArray
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Part, Update

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
MOST_SIMULATED = 6_000
"""Elements of all arrays of an operation that are simulated: at 20 us to 1 ms each."""


def sums_in_one_order(backend: AbstractBackend) -> bool:
    """Whether the order of a product's sums is the same for any number of rows: a library may choose another."""
    if backend.name == "cuda":
        from fastdrop.backends.cuda._products import best_multiply, multiply_tiled

        return best_multiply() is multiply_tiled
    return backend.name == "cpu"


class OnDevice:
    """A CUDA backend that takes and gives NumPy arrays, for tests of the seam."""

    def __init__(self, backend: AbstractBackend) -> None:
        self._backend = backend
        self.name = backend.name
        self.implementation = type(backend)

    def __getattr__(self, operation: str) -> Any:
        function = getattr(self._backend, operation)

        def run(*args: Any, **kwargs: Any) -> Any:
            copies: list[tuple[np.ndarray, DeviceArray]] = []

            def there(value: Any) -> Any:
                if isinstance(value, Update):
                    arrays = (there(each) for each in value[1:4])
                    return Update(value.kind, *arrays, value.rates)
                if isinstance(value, list):
                    return [there(each) for each in value]
                if isinstance(value, Part):
                    return value._replace(gradient=there(value.gradient))
                if not isinstance(value, np.ndarray) or value.dtype.kind != "f":  # packed weights are there already
                    return value
                for known, copy in copies:
                    if known is value:
                        return copy
                from fastdrop.backends.cuda._arrays import upload

                copies.append((value, upload(value)))
                return copies[-1][1]

            def back(value: Any) -> Any:
                if type(value) is tuple:
                    return tuple(map(back, value))
                for known, copy in copies:
                    if copy is value:
                        return known
                if not isinstance(value, DeviceArray):
                    return value
                return float(value) if value.ndim == 0 else value.copy_to_host()

            given, named = [there(value) for value in args], {name: there(value) for name, value in kwargs.items()}
            if SIMULATED and sum(copy.size for _, copy in copies) > MOST_SIMULATED:
                pytest.skip("arrays are too large for simulated kernels")
            result = function(*given, **named)
            for mine, copy in copies:
                written = copy.copy_to_host()
                if mine.flags.writeable and written.tobytes() != mine.tobytes():
                    mine[...] = written
            return back(result)

        return run
