"""Arguments that are arrays, of NumPy's or on a GPU: checked like `_validate` does it, whoever they belong to."""

from __future__ import annotations

from typing import Any, cast

from fastdrop import _validate
from fastdrop._device import is_device
from fastdrop._types import Array
from fastdrop.backends.select import received

__all__ = ["float_array", "host_copy", "is_device", "on_host", "same_place", "to_array", "write"]


def float_array(name: str, value: Any, *, ndim: int | None = None, min_ndim: int = 1) -> Array:
    """Return `value` as an array of floating-point numbers, as `_validate.float_array`; on a GPU also of 16 bits."""
    return _validate.float_array(name, received(value, name), ndim=ndim, min_ndim=min_ndim)


def to_array(name: str, value: Any) -> Array:
    """Return `value` as an array, as `_validate.to_array`."""
    return _validate.to_array(name, received(value, name))


def on_host(array: Any) -> Array:
    """Return an array as NumPy's: itself, if it is one."""
    return cast(Array, array.copy_to_host() if is_device(array) else array)


def host_copy(array: Any) -> Array:
    """Return a copy of an array as NumPy's."""
    return cast(Array, array.copy_to_host() if is_device(array) else array.copy())


def write(target: Any, values: Array) -> None:
    """Write values on the host into an array that is elsewhere; nothing to do for the array itself."""
    if target is not values:
        target.set(values)


def same_place(name: str, array: Any, other: str, on_device: bool) -> None:
    """Raise unless an array is where another argument or the network is."""
    if is_device(array) != on_device:
        places = ("on the host", "on the GPU")
        hint = "(hint: net.to)" if other == "network" else "(hint: numba.cuda.to_device, or copy_to_host)"
        _validate.fail_value(name, f"{places[on_device]}, as `{other}`", f"an array {places[not on_device]}", hint)
