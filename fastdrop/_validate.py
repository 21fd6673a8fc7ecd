"""Checks of arguments: the only place that raises argument errors.

Every function takes the argument's name first and returns the value in the form that the rest of the package uses.
Error texts say what was wanted, what was given, and the argument: "`rate` must be in [0, 1], got 1.5".
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from fastdrop._device import BFLOAT16, is_device
from fastdrop._types import FLOAT_DTYPES, Array, Shape
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

MAX_SEED = 2**64 - 1
MAX_STREAM = 2**32 - 1
FLOAT_HINT = '(hint: x.astype("float32"), and / 255 for images)'


def fail_type(name: str, wanted: str, got: object, hint: str = "") -> NoReturn:
    """Raise the TypeError "`name` must be ..., got ..."."""
    raise ArgumentTypeError(f"`{name}` must be {wanted}, got {got}" + (f" {hint}" if hint else ""))


def fail_value(name: str, wanted: str, got: object, hint: str = "") -> NoReturn:
    """Raise the ValueError "`name` must be ..., got ..."."""
    raise ArgumentValueError(f"`{name}` must be {wanted}, got {got}" + (f" {hint}" if hint else ""))


def _kind(value: object) -> str:
    return type(value).__name__


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as an int in [low, high]; a bool or a float is a TypeError."""
    if type(value) is int and value >= low and (high is None or value <= high):
        return value
    if isinstance(value, bool | np.bool_):
        fail_type(name, "an integer", "a bool")
    try:
        number = operator.index(value)
    except TypeError:
        fail_type(name, "an integer", _kind(value))
    if number < low or (high is not None and number > high):
        wanted = f"at least {low}" if high is None else f"in [{low}, {high}]"
        fail_value(name, wanted, number)
    return number


def real(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> float:
    """Return `value` as a finite float in the interval; NaN is never inside."""
    if type(value) is float and low < value < high:
        return value
    scalar = value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(scalar, bool | np.bool_ | str) or not isinstance(scalar, numbers.Real):
        fail_type(name, "a number", _kind(value))
    try:
        number = float(scalar)
    except OverflowError:
        fail_value(name, "within the range of float64", "a larger integer")
    inside = (low < number if open_low else low <= number) and (number < high if open_high else number <= high)
    if not inside or math.isinf(number):
        left, right = "(" if open_low or low == -math.inf else "[", ")" if open_high or high == math.inf else "]"
        wanted = f"in {left}{low:g}, {high:g}{right}" if (low, high) != (-math.inf, math.inf) else "finite"
        fail_value(name, wanted, number)
    return number


def optional_seed(name: str, value: Any) -> int | None:
    """Return a seed of 64 bits, or None."""
    return None if value is None else integer(name, value, 0, MAX_SEED)


def optional_stream(name: str, value: Any) -> int | None:
    """Return the number of a stream, 32 bits, or None."""
    return None if value is None else integer(name, value, 0, MAX_STREAM)


def rate(name: str, value: Any) -> float:
    """Return a probability of dropping, in [0, 1]."""
    return real(name, value, 0.0, 1.0)


def boolean(name: str, value: Any) -> bool:
    """Return `value` as a bool; only bools are taken."""
    if value is True or value is False:
        return value
    if not isinstance(value, bool | np.bool_):
        fail_type(name, "True or False", _kind(value))
    return bool(value)


def choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return `value` if it is one of the allowed names."""
    if not isinstance(value, str):
        fail_type(name, f"one of {', '.join(sorted(allowed))}", _kind(value))
    if value not in allowed:
        fail_value(name, f"one of {', '.join(sorted(allowed))}", repr(value))
    return value


def instance(name: str, value: Any, wanted: type | tuple[type, ...], description: str) -> Any:
    """Return `value` if it is an instance of the class; `description` says in words what is wanted."""
    if not isinstance(value, wanted):
        fail_type(name, description, _kind(value))
    return value


def callable_(name: str, value: Any, description: str = "callable") -> Callable[..., Any]:
    """Return `value` if it can be called."""
    if not callable(value):
        fail_type(name, description, _kind(value))
    return value  # type: ignore[no-any-return]


def path(name: str, value: Any) -> Path:
    """Return a path; a string or anything with ``__fspath__`` is taken."""
    if not isinstance(value, str | os.PathLike) or isinstance(value, bytes):
        fail_type(name, "a path", _kind(value))
    if not os.fspath(value) or "\0" in os.fspath(value):
        fail_value(name, "the name of a file or folder", repr(os.fspath(value)))
    return Path(value)


def sequence(name: str, value: Any, description: str = "a list or tuple", *lengths: int) -> list[Any]:
    """Return the entries of a list, tuple or array, of one of the lengths if some are given; a string is not a sequence."""
    listed = value.ndim > 0 if isinstance(value, np.ndarray) else isinstance(value, Sequence)
    if isinstance(value, str | bytes) or not listed:
        fail_type(name, description, _kind(value))
    if lengths and len(value) not in lengths:
        fail_value(name, description, f"{len(value)} entries")
    return list(value)


def shape(name: str, value: Any) -> Shape:
    """Return a shape: a tuple of integers >= 0 with at least one entry; a single integer is taken as one axis."""
    entries = [value] if isinstance(value, numbers.Integral) else sequence(name, value, "a tuple of integers")
    if not entries:
        fail_value(name, "a shape of at least one axis", "()")
    return tuple(integer(name, entry, 0) for entry in entries)


def dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return float32 or float64 as a NumPy dtype."""
    if value is None:  # NumPy's default, float64, would be a surprise
        fail_type(name, '"float32" or "float64"', "None")
    try:
        result: np.dtype[Any] = np.dtype(value)
    except (TypeError, ValueError):
        fail_type(name, '"float32" or "float64"', repr(value))
    if result not in FLOAT_DTYPES:
        fail_type(name, '"float32" or "float64"', result)
    return result


NARROW_FLOATS = ("float16", BFLOAT16)
"""Floating-point numbers of 16 bits, which a GPU computes with in 32 bits."""


def to_array(name: str, value: Any) -> Array:
    """Return `value` as a NumPy array, without a copy where possible: arrays, ``__array__``, DLPack, lists; as it is on a GPU."""
    if is_device(value):
        return cast(Array, value)
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray) if type(value) is not np.ndarray else value
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            fail_type(name, "an array on the CPU", f"{_kind(value)} ({error})")
    if isinstance(value, str | bytes) or value is None:
        fail_type(name, "an array", _kind(value))
    try:
        return np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        fail_type(name, "an array", f"{_kind(value)} ({error})")


def float_array(name: str, value: Any, *, ndim: int | None = None, min_ndim: int = 1) -> Array:
    """Return `value` as a float32 or float64 array in native byte order, of the wanted number of axes.

    Integers, bools, complex, object and 16-bit floats are TypeErrors with the fix in the text.
    """
    array = to_array(name, value)
    if array.dtype not in FLOAT_DTYPES and not (is_device(value) and array.dtype.name in NARROW_FLOATS):
        native = array.dtype.newbyteorder("=")
        if native.kind in "iub":
            fail_type(name, "a float32 or float64 array", array.dtype, FLOAT_HINT)
        if native not in FLOAT_DTYPES:
            hint = '(hint: x.astype("float32"))' if native.kind == "f" else ""
            fail_type(name, "a float32 or float64 array", array.dtype, hint)
        array = array.astype(native)
    if ndim is not None and array.ndim != ndim:
        fail_value(name, f"an array of {ndim} axes", f"shape {array.shape}")
    if array.ndim < min_ndim:
        wanted = "an array of at least one axis" if min_ndim == 1 else f"an array of at least {min_ndim} axes"
        fail_value(name, wanted, f"shape {array.shape}")
    return array


def numbers_array(name: str, value: Any) -> Array:
    """Return `value` as an array of real numbers of any dtype: bools, integers or floats."""
    array = to_array(name, value)
    if array.dtype.kind not in "iubf":
        fail_type(name, "an array of numbers", array.dtype)
    return array


def all_true(name: str, inside: Any, wanted: str, array: Array) -> None:
    """Raise unless `inside` is True everywhere; the text shows the first value of `array` that is not as wanted."""
    if not np.all(inside):
        index = int(np.argmin(inside))
        fail_value(name, wanted, f"{array.reshape(-1)[index]} at position {index}")


def same_length(name: str, array: Array, length: int, other: str) -> None:
    """Raise unless `array` has as many rows as the argument `other`."""
    if array.ndim == 0 or len(array) != length:
        got = f"shape {array.shape}" if array.ndim == 0 else f"{len(array)} rows"
        fail_value(name, f"of as many rows as `{other}` ({length})", got)


def same_dtype(name: str, array: Array, dtype: np.dtype[Any], other: str) -> None:
    """Raise unless `array` has the dtype of the argument `other`."""
    if array.dtype != dtype:
        fail_type(name, f"of the dtype of `{other}` ({dtype})", array.dtype)


def exact_shape(name: str, array: Array, wanted: Shape, why: str = "") -> None:
    """Raise unless `array` has exactly the wanted shape."""
    if array.shape != wanted:
        fail_value(name, f"of shape {wanted}" + (f" {why}" if why else ""), array.shape)


def out_array(name: str, out: Any, shape: Shape, dtype: np.dtype[Any], source_name: str, source: Array) -> Array:
    """Return `out` if it may receive a result: C-contiguous, aligned, writable, exact shape and dtype.

    It may be the source itself (same memory, same layout); any other overlap with it is an error.
    """
    if not isinstance(out, np.ndarray):
        fail_type(name, "a NumPy array", _kind(out))
    if out.dtype != dtype:
        fail_type(name, f"of dtype {dtype}", out.dtype)
    exact_shape(name, out, shape)
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        fail_value(name, "C-contiguous, aligned and writable", "an array that is not")
    disjoint_or_same(name, out, source_name, source)
    return out


def disjoint_or_same(name: str, out: Array, other_name: str, other: Array) -> None:
    """Raise if `out` shares memory with `other` without being the very same array."""
    if not np.may_share_memory(out, other):
        return
    same = (
        out.__array_interface__["data"][0] == other.__array_interface__["data"][0]
        and out.strides == other.strides
        and out.shape == other.shape
        and out.dtype == other.dtype
    )
    if not same and np.shares_memory(out, other):
        fail_value(name, f"`{other_name}` itself or share no memory with it", "an array that overlaps it")


def disjoint(name: str, out: Array, other_name: str, other: Array) -> None:
    """Raise if `out` shares any memory with `other`."""
    if np.may_share_memory(out, other) and np.shares_memory(out, other):
        fail_value(name, f"disjoint from `{other_name}`", "an array that shares memory with it")


def row_shape(layer: str, wanted: Shape, got: Shape, *, last_axes: bool = False) -> None:
    """Raise unless rows of x, given to a layer, have the wanted shape (on the last axes only, with `last_axes`)."""
    fits = len(got) >= len(wanted) and got[len(got) - len(wanted) :] == wanted if last_axes else got == wanted
    if not fits:
        between = "..., " if last_axes else ""
        wanted_text, got_text = (", ".join(map(str, extents)) for extents in (wanted, got))
        fail_value(
            "x", f"of shape (rows, {between}{wanted_text}) for layer {layer!r}", f"(rows, {got_text})" if got else "(rows,)"
        )


def row_axes(layer: str, wanted: str, got: Shape) -> None:
    """Raise unless rows of x, given to a layer, have as many axes as `wanted` names: "steps, channels"."""
    if len(got) != len(wanted.split(", ")):
        fail_value(
            "x", f"of shape (rows, {wanted}) for layer {layer!r}", f"(rows, {', '.join(map(str, got))})" if got else "(rows,)"
        )


def instances(name: str, values: Any, wanted: type, description: str) -> tuple[Any, ...]:
    """Return a tuple of at least one instance of the class; `description` says in words what is wanted."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        fail_type(name, f"a sequence of {description}", _kind(values))
    members = tuple(values)
    if not members:
        fail_value(name, f"a sequence of {description}", "none")
    for i, member in enumerate(members):
        if not isinstance(member, wanted):
            fail_type(name, f"a sequence of {description}", f"{_kind(member)} at {i}")
    return members
