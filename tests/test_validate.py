"""Argument errors: each check and each of its texts, and those of keys, masks and functional operations, to the letter."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import _validate, activations, errors
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

KEY = fd.Key(1, 2, 3)
X = np.ones((2, 3), np.float32)
W = np.ones((3, 4), np.float32)
B = np.ones(4, np.float32)
MASK = fd.Mask(0.5, KEY)
F64 = X.astype(np.float64)
F32, F64_DTYPE = np.dtype(np.float32), np.dtype(np.float64)


class _FromElsewhere:
    """An array that cannot be had: on another device, say."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __dlpack__(self, **options: Any) -> Any:
        raise self._error


class _Stubborn:
    """An array that refuses NumPy, as tensors that record gradients do."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise RuntimeError("detach it first")


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


MEMORY = np.zeros(9, np.float32)
LEFT, RIGHT = MEMORY[:6].reshape(2, 3), MEMORY[3:].reshape(2, 3)

T, V = ArgumentTypeError, ArgumentValueError

Case = tuple[Callable[[], Any], type[Exception], str]

CHECKS: list[Case] = [
    (lambda: _validate.fail_type("a", "this", "that"), T, "`a` must be this, got that"),
    (lambda: _validate.fail_value("a", "this", "that", "(hint: so)"), V, "`a` must be this, got that (hint: so)"),
    # integer
    (lambda: _validate.integer("n", True, 0), T, "`n` must be an integer, got a bool"),
    (lambda: _validate.integer("n", np.True_, 0), T, "`n` must be an integer, got a bool"),
    (lambda: _validate.integer("n", 1.0, 0), T, "`n` must be an integer, got float"),
    (lambda: _validate.integer("n", "1", 0), T, "`n` must be an integer, got str"),
    (lambda: _validate.integer("n", None, 0), T, "`n` must be an integer, got NoneType"),
    (lambda: _validate.integer("n", -1, 0), V, "`n` must be at least 0, got -1"),
    (lambda: _validate.integer("n", 9, 0, 8), V, "`n` must be in [0, 8], got 9"),
    (lambda: _validate.optional_seed("seed", 2**64), V, "`seed` must be in [0, 18446744073709551615], got 18446744073709551616"),
    (lambda: _validate.optional_stream("stream", 2**32), V, "`stream` must be in [0, 4294967295], got 4294967296"),
    # real
    (lambda: _validate.real("a", "1"), T, "`a` must be a number, got str"),
    (lambda: _validate.real("a", True), T, "`a` must be a number, got bool"),
    (lambda: _validate.real("a", 1j), T, "`a` must be a number, got complex"),
    (lambda: _validate.real("a", np.ones(1)), T, "`a` must be a number, got ndarray"),
    (lambda: _validate.real("a", math.nan), V, "`a` must be finite, got nan"),
    (lambda: _validate.real("a", -math.inf), V, "`a` must be finite, got -inf"),
    (lambda: _validate.real("a", 10**400), V, "`a` must be within the range of float64, got a larger integer"),
    (lambda: _validate.real("a", 0, 0.0, open_low=True), V, "`a` must be in (0, inf), got 0.0"),
    (lambda: _validate.real("a", 1, 0.0, 1.0, open_high=True), V, "`a` must be in [0, 1), got 1.0"),
    (lambda: _validate.real("a", math.inf, 0.0), V, "`a` must be in [0, inf), got inf"),
    # rate
    (lambda: _validate.rate("rate", 1.5), V, "`rate` must be in [0, 1], got 1.5"),
    (lambda: _validate.rate("rate", -1e-9), V, "`rate` must be in [0, 1], got -1e-09"),
    (lambda: _validate.rate("rate", math.nan), V, "`rate` must be in [0, 1], got nan"),
    (lambda: _validate.rate("rate", None), T, "`rate` must be a number, got NoneType"),
    # words and kinds
    (lambda: _validate.boolean("flag", 1), T, "`flag` must be True or False, got int"),
    (lambda: _validate.choice("kind", 3, {"b", "a"}), T, "`kind` must be one of a, b, got int"),
    (lambda: _validate.choice("kind", "c", {"b", "a"}), V, "`kind` must be one of a, b, got 'c'"),
    (lambda: _validate.instance("net", 3, str, "a network"), T, "`net` must be a network, got int"),
    (lambda: _validate.callable_("f", 3), T, "`f` must be callable, got int"),
    (lambda: _validate.callable_("f", 3, "a function"), T, "`f` must be a function, got int"),
    # paths, sequences, shapes, dtypes
    (lambda: _validate.path("path", 3), T, "`path` must be a path, got int"),
    (lambda: _validate.path("path", b"a"), T, "`path` must be a path, got bytes"),
    (lambda: _validate.path("path", ""), V, "`path` must be the name of a file or folder, got ''"),
    (lambda: _validate.path("path", "a\0b"), V, "`path` must be the name of a file or folder, got 'a\\x00b'"),
    (lambda: _validate.sequence("s", "ab"), T, "`s` must be a list or tuple, got str"),
    (lambda: _validate.sequence("s", {1}), T, "`s` must be a list or tuple, got set"),
    (lambda: _validate.sequence("s", np.array(1)), T, "`s` must be a list or tuple, got ndarray"),
    (lambda: _validate.sequence("s", [1], "a pair", 2), V, "`s` must be a pair, got 1 entries"),
    (lambda: _validate.shape("shape", "ab"), T, "`shape` must be a tuple of integers, got str"),
    (lambda: _validate.shape("shape", b"ab"), T, "`shape` must be a tuple of integers, got bytes"),
    (lambda: _validate.shape("shape", np.array(3)), T, "`shape` must be a tuple of integers, got ndarray"),
    (lambda: _validate.shape("shape", 2.0), T, "`shape` must be a tuple of integers, got float"),
    (lambda: _validate.shape("shape", (2.0,)), T, "`shape` must be an integer, got float"),
    (lambda: _validate.shape("shape", (-1,)), V, "`shape` must be at least 0, got -1"),
    (lambda: _validate.shape("shape", ()), V, "`shape` must be a shape of at least one axis, got ()"),
    (lambda: _validate.dtype("dtype", "float16"), T, '`dtype` must be "float32" or "float64", got float16'),
    (lambda: _validate.dtype("dtype", ">f4"), T, '`dtype` must be "float32" or "float64", got >f4'),
    (lambda: _validate.dtype("dtype", "speed"), T, '`dtype` must be "float32" or "float64", got \'speed\''),
    (lambda: _validate.dtype("dtype", {"names": 3}), T, '`dtype` must be "float32" or "float64", got {\'names\': 3}'),
    (lambda: _validate.dtype("dtype", None), T, '`dtype` must be "float32" or "float64", got None'),
    # arrays
    (lambda: _validate.to_array("x", "abc"), T, "`x` must be an array, got str"),
    (lambda: _validate.to_array("x", None), T, "`x` must be an array, got NoneType"),
    (lambda: _validate.to_array("x", _Stubborn()), T, "`x` must be an array, got _Stubborn (detach it first)"),
    (
        lambda: _validate.to_array("x", _FromElsewhere(BufferError("not here"))),
        T,
        "`x` must be an array on the CPU, got _FromElsewhere (not here)",
    ),
    (
        lambda: _validate.float_array("x", np.ones(2, np.uint8)),
        T,
        '`x` must be a float32 or float64 array, got uint8 (hint: x.astype("float32"), and / 255 for images)',
    ),
    (
        lambda: _validate.float_array("x", [True]),
        T,
        '`x` must be a float32 or float64 array, got bool (hint: x.astype("float32"), and / 255 for images)',
    ),
    (
        lambda: _validate.float_array("x", np.ones(2, np.float16)),
        T,
        '`x` must be a float32 or float64 array, got float16 (hint: x.astype("float32"))',
    ),
    (lambda: _validate.float_array("x", np.ones(2, complex)), T, "`x` must be a float32 or float64 array, got complex128"),
    (lambda: _validate.float_array("x", np.array([None])), T, "`x` must be a float32 or float64 array, got object"),
    (lambda: _validate.float_array("x", 1.5), V, "`x` must be an array of at least one axis, got shape ()"),
    (lambda: _validate.float_array("x", X[0], min_ndim=2), V, "`x` must be an array of at least 2 axes, got shape (3,)"),
    (lambda: _validate.float_array("w", X, ndim=1), V, "`w` must be an array of 1 axes, got shape (2, 3)"),
    (lambda: _validate.numbers_array("y", ["a"]), T, "`y` must be an array of numbers, got <U1"),
    (
        lambda: _validate.all_true("y", np.array([True, False]), "positive", np.array([3, -1])),
        V,
        "`y` must be positive, got -1 at position 1",
    ),
    (lambda: _validate.same_length("y", np.ones(3), 4, "x"), V, "`y` must be of as many rows as `x` (4), got 3 rows"),
    (lambda: _validate.same_length("y", np.ones(()), 4, "x"), V, "`y` must be of as many rows as `x` (4), got shape ()"),
    (lambda: _validate.same_dtype("w", X, F64_DTYPE, "x"), T, "`w` must be of the dtype of `x` (float64), got float32"),
    (lambda: _validate.exact_shape("w", X, (9,)), V, "`w` must be of shape (9,), got (2, 3)"),
    (lambda: _validate.exact_shape("w", X, (9,), "as x is"), V, "`w` must be of shape (9,) as x is, got (2, 3)"),
    # out
    (lambda: _validate.out_array("out", [1.0], (1,), F32, "x", X), T, "`out` must be a NumPy array, got list"),
    (lambda: _validate.out_array("out", F64, (2, 3), F32, "x", X), T, "`out` must be of dtype float32, got float64"),
    (lambda: _validate.out_array("out", X.copy(), (3, 2), F32, "x", X), V, "`out` must be of shape (3, 2), got (2, 3)"),
    (
        lambda: _validate.out_array("out", np.asfortranarray(X), (2, 3), F32, "x", X),
        V,
        "`out` must be C-contiguous, aligned and writable, got an array that is not",
    ),
    (
        lambda: _validate.out_array("out", _read_only(X.copy()), (2, 3), F32, "x", X),
        V,
        "`out` must be C-contiguous, aligned and writable, got an array that is not",
    ),
    (
        lambda: _validate.disjoint_or_same("out", LEFT, "x", RIGHT),
        V,
        "`out` must be `x` itself or share no memory with it, got an array that overlaps it",
    ),
    (
        lambda: _validate.disjoint("out", X, "weight", X),
        V,
        "`out` must be disjoint from `weight`, got an array that shares memory with it",
    ),
    # layers
    (lambda: _validate.row_shape("d", (4,), (5,)), V, "`x` must be of shape (rows, 4) for layer 'd', got (rows, 5)"),
    (lambda: _validate.row_shape("d", (4,), ()), V, "`x` must be of shape (rows, 4) for layer 'd', got (rows,)"),
    (
        lambda: _validate.row_shape("d", (4,), (2, 5), last_axes=True),
        V,
        "`x` must be of shape (rows, ..., 4) for layer 'd', got (rows, 2, 5)",
    ),
    (
        lambda: _validate.row_axes("d", "steps, channels", (5,)),
        V,
        "`x` must be of shape (rows, steps, channels) for layer 'd', got (rows, 5)",
    ),
    (
        lambda: _validate.row_axes("d", "steps, channels", ()),
        V,
        "`x` must be of shape (rows, steps, channels) for layer 'd', got (rows,)",
    ),
    (lambda: _validate.instances("layers", "ab", int, "layers"), T, "`layers` must be a sequence of layers, got str"),
    (lambda: _validate.instances("layers", [], int, "layers"), V, "`layers` must be a sequence of layers, got none"),
    (lambda: _validate.instances("layers", [1, "b"], int, "layers"), T, "`layers` must be a sequence of layers, got str at 1"),
]

PUBLIC: list[Case] = [
    # keys
    (lambda: fd.Key(-1, 0, 0), V, "`seed` must be in [0, 18446744073709551615], got -1"),
    (lambda: fd.Key(2**64, 0, 0), V, "`seed` must be in [0, 18446744073709551615], got 18446744073709551616"),
    (lambda: fd.Key(0, 2**32, 0), V, "`stream` must be in [0, 4294967295], got 4294967296"),
    (lambda: fd.Key(0, 0, -1), V, "`step` must be in [0, 4294967295], got -1"),
    (lambda: fd.Key(0.5, 0, 0), T, "`seed` must be an integer, got float"),
    (lambda: fd.Key(None, 0, 0), T, "`seed` must be an integer, got NoneType"),
    (lambda: KEY.at(2**32), V, "`step` must be in [0, 4294967295], got 4294967296"),
    (lambda: KEY.on("1"), T, "`stream` must be an integer, got str"),
    (lambda: KEY.fold_in(2**56), V, "`i` must be in [0, 72057594037927935], got 72057594037927936"),
    (lambda: KEY.fold_in(-1), V, "`i` must be in [0, 72057594037927935], got -1"),
    # masks
    (lambda: fd.Mask(1.5, KEY), V, "`rate` must be in [0, 1], got 1.5"),
    (lambda: fd.Mask(math.nan, KEY), V, "`rate` must be in [0, 1], got nan"),
    (lambda: fd.Mask("0.5", KEY), T, "`rate` must be a number, got str"),
    (lambda: fd.Mask(0.5, 7), T, "`key` must be a fastdrop.Key, got int"),
    (lambda: fd.Mask(0.5, KEY, noise_shape="ab"), T, "`noise_shape` must be None or a tuple of integers and None, got str"),
    (lambda: fd.Mask(0.5, KEY, noise_shape=3), T, "`noise_shape` must be None or a tuple of integers and None, got int"),
    (lambda: fd.Mask(0.5, KEY, noise_shape=()), V, "`noise_shape` must be of at least one axis, got ()"),
    (lambda: fd.Mask(0.5, KEY, noise_shape=(0,)), V, "`noise_shape` must be at least 1, got 0"),
    (lambda: fd.Mask(0.5, KEY, noise_shape=(1.0,)), T, "`noise_shape` must be an integer, got float"),
    (lambda: fd.Mask(0.5, KEY, shared_rows=0), V, "`shared_rows` must be in [1, 288230376151711744], got 0"),
    (lambda: fd.Mask(0.5, KEY, shared_rows="all"), V, "`shared_rows` must be one of batch, got 'all'"),
    (lambda: fd.Mask(0.5, KEY, shared_rows=None), T, "`shared_rows` must be an integer, got NoneType"),
    (lambda: fd.Mask(0.5, KEY, fixed_count=1), T, "`fixed_count` must be True or False, got int"),
    (lambda: fd.Mask(0.5, KEY, row_offset=-1), V, "`row_offset` must be in [0, 288230376151711743], got -1"),
    (lambda: fd.Mask(0.5, KEY, row_offset=1.0), T, "`row_offset` must be an integer, got float"),
    (lambda: MASK.to_array(()), V, "`shape` must be a shape of at least one axis, got ()"),
    (lambda: MASK.to_array((2, -1)), V, "`shape` must be at least 0, got -1"),
    (lambda: MASK.to_array("ab"), T, "`shape` must be a tuple of integers, got str"),
    (lambda: MASK.bind(()), V, "`x` must be an array of at least one axis, got shape ()"),
    (
        lambda: fd.Mask(0.5, KEY, noise_shape=(1,)).to_array((2, 3)),
        V,
        "`noise_shape` must be of the rank of x (2), got (1,)",
    ),
    (
        lambda: fd.Mask(0.5, KEY, noise_shape=(None, 2)).to_array((2, 3)),
        V,
        "`noise_shape` must be 1, None or the extent of x (2, 3) on each axis, got (None, 2)",
    ),
    (
        lambda: fd.Mask(0.5, KEY, row_offset=2**58 - 2).to_array((3,)),
        V,
        "`row_offset` must be such that all mask elements are below 2**58 (rows of 1), got 288230376151711742",
    ),
    (
        lambda: fd.Mask(0.5, KEY, row_offset=2**55).to_array((2, 8)),
        V,
        "`row_offset` must be such that all mask elements are below 2**58 (rows of 8), got 36028797018963968",
    ),
    (
        lambda: fd.Mask(0.1, KEY, fixed_count=True).to_array((2, 3)),
        V,
        "`rate` must be such that some of 3 units of a row are dropped with fixed_count=True, "
        "got 0.1: nothing would be dropped every time",
    ),
    (
        lambda: fd.Mask(0.9, KEY, fixed_count=True).to_array((2, 3)),
        V,
        "`rate` must be such that some of 3 units of a row are dropped with fixed_count=True, "
        "got 0.9: everything would be dropped every time",
    ),
    (
        lambda: fd.Mask(0.4, KEY, fixed_count=True).to_array(7),
        V,
        "`rate` must be such that some of 1 units of a row are dropped with fixed_count=True, "
        "got 0.4: nothing would be dropped every time (hint: reshape to (1, n))",
    ),
    # dropout
    (lambda: fd.dropout(X, 0.5), T, "`mask` must be a fastdrop.Mask, got float"),
    (
        lambda: fd.dropout(np.ones(3, np.int64), fd.Mask(0.0, KEY)),
        T,
        '`x` must be a float32 or float64 array, got int64 (hint: x.astype("float32"), and / 255 for images)',
    ),
    (
        lambda: fd.dropout([1, 2], MASK),
        T,
        '`x` must be a float32 or float64 array, got int64 (hint: x.astype("float32"), and / 255 for images)',
    ),
    (lambda: fd.dropout(np.float32(1), MASK), V, "`x` must be an array of at least one axis, got shape ()"),
    (lambda: fd.dropout(X, MASK, out=F64), T, "`out` must be of dtype float32, got float64"),
    (lambda: fd.dropout(X, MASK, out=B), V, "`out` must be of shape (2, 3), got (4,)"),
    (
        lambda: fd.dropout(LEFT, MASK, out=RIGHT),
        V,
        "`out` must be `x` itself or share no memory with it, got an array that overlaps it",
    ),
    (lambda: fd.dropout(X, MASK)[1](F64), T, "`dy` must be of the dtype of `y` (float32), got float64"),
    (lambda: fd.dropout(X, MASK)[1](B), V, "`dy` must be of shape (2, 3), got (4,)"),
    (
        lambda: fd.dropout(X, MASK)[1](LEFT, out=RIGHT),
        V,
        "`out` must be `dy` itself or share no memory with it, got an array that overlaps it",
    ),
    # dense
    (lambda: fd.dense(X[0], W), V, "`x` must be an array of at least 2 axes, got shape (3,)"),
    (lambda: fd.dense(X, W[0]), V, "`weight` must be an array of 2 axes, got shape (4,)"),
    (lambda: fd.dense(X, W.T), V, "`x` must be of shape (..., 4) to fit `weight` (4, 3), got (2, 3)"),
    (lambda: fd.dense(F64, W), T, "`weight` must be of the dtype of `x` (float64), got float32"),
    (lambda: fd.dense(X, W, B.astype(np.float64)), T, "`bias` must be of the dtype of `x` (float32), got float64"),
    (lambda: fd.dense(X, W, B[:2]), V, "`bias` must be of shape (4,), got (2,)"),
    (lambda: fd.dense(X, W, W), V, "`bias` must be an array of 1 axes, got shape (3, 4)"),
    (
        lambda: fd.dense(X, W, activation="swish2"),
        V,
        "`activation` must be one of gelu, heaviside, leaky_relu, linear, relu, selu, sigmoid, silu, softmax, softplus, tanh, "
        "got 'swish2'",
    ),
    (
        lambda: fd.dense(X, W, activation=3),
        T,
        "`activation` must be one of gelu, heaviside, leaky_relu, linear, relu, selu, sigmoid, silu, softmax, softplus, tanh, "
        "got int",
    ),
    (
        lambda: fd.dense(X, W, activation=abs),
        T,
        "`activation` must be None, a name or a function of fastdrop.activations, got <built-in function abs>",
    ),
    (lambda: fd.dense(X, W, input_mask=0.5), T, "`input_mask` must be a fastdrop.Mask or None, got float"),
    (lambda: fd.dense(X, W, output_mask=KEY), T, "`output_mask` must be a fastdrop.Mask or None, got Key"),
    (lambda: fd.dense(X, W, out=X), V, "`out` must be of shape (2, 4), got (2, 3)"),
    (
        lambda: fd.dense(X, MEMORY.reshape(3, 3), out=RIGHT),
        V,
        "`out` must be disjoint from `weight`, got an array that shares memory with it",
    ),
    (
        lambda: fd.dense(X, np.ones((3, 3), np.float32), MEMORY[:3], out=LEFT),
        V,
        "`out` must be disjoint from `bias`, got an array that shares memory with it",
    ),
    (lambda: fd.dense(X, W)[1](X), V, "`dy` must be of shape (2, 4), got (2, 3)"),
    (lambda: fd.dense(X, W)[1](np.ones((2, 4))), T, "`dy` must be of the dtype of `y` (float32), got float64"),
    # activations
    (
        lambda: activations.relu([1, 2]),
        T,
        '`x` must be a float32 or float64 array, got int64 (hint: x.astype("float32"), and / 255 for images)',
    ),
    (lambda: activations.softmax(1.0), V, "`x` must be an array of at least one axis, got shape ()"),
]


@pytest.mark.parametrize("case", CHECKS + PUBLIC, ids=lambda case: case[2][:60])
def test_error_texts(case: Case) -> None:
    call, error, text = case
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text
    assert isinstance(caught.value, fd.FastdropError)
    assert isinstance(caught.value, TypeError if error is T else ValueError)


def test_every_check_has_a_case() -> None:
    """A new function of _validate needs its texts in CHECKS."""
    own = inspect.getmembers(_validate, lambda each: inspect.isfunction(each) and each.__module__ == _validate.__name__)
    checks = {name for name, _ in own if not name.startswith("_")}
    used = {name for call, _, _ in CHECKS for name in call.__code__.co_names}
    assert checks <= used, f"no case for {sorted(checks - used)}"


# What passes


def test_values_that_pass() -> None:
    assert _validate.integer("n", np.int64(3), 0) == 3
    assert type(_validate.integer("n", np.array(3), 0)) is int
    assert _validate.real("a", np.float32(0.5)) == 0.5
    assert _validate.real("a", np.array(2)) == 2.0
    assert _validate.real("a", Fraction(1, 4), 0.0, 1.0) == 0.25
    assert _validate.rate("rate", 0) == 0.0
    assert _validate.rate("rate", 1) == 1.0
    assert _validate.optional_seed("seed", None) is None
    assert _validate.boolean("flag", np.True_) is True
    assert _validate.path("path", Path("a")) == Path("a")
    assert _validate.sequence("s", np.array([1, 2]), "a pair", 2) == [1, 2]
    assert _validate.shape("shape", 3) == (3,)
    assert _validate.shape("shape", np.array([2, 3])) == (2, 3)
    assert _validate.dtype("dtype", "float32") == F32
    assert _validate.dtype("dtype", np.float64) == F64_DTYPE
    assert _validate.row_shape("d", (4,), (2, 4), last_axes=True) is None
    assert _validate.instances("layers", iter([1, 2]), int, "layers") == (1, 2)


def test_arrays_are_not_copied_without_need() -> None:
    assert _validate.float_array("x", X) is X
    big = X.astype(">f4")
    converted = _validate.float_array("x", big)
    assert converted.dtype == F32
    assert converted.dtype.isnative
    np.testing.assert_array_equal(converted, X)


def test_out_may_be_the_source_itself_or_elsewhere() -> None:
    assert _validate.out_array("out", X, (2, 3), F32, "x", X) is X
    view = X[:]
    assert _validate.out_array("out", view, (2, 3), F32, "x", X) is view
    memory = np.zeros(12, np.float32)
    assert _validate.out_array("out", memory[:6].reshape(2, 3), (2, 3), F32, "x", memory[6:].reshape(2, 3)).size == 6
    interleaved = memory[::2].reshape(2, 3), memory[1::2].reshape(2, 3)
    assert _validate.disjoint("out", interleaved[0], "x", interleaved[1]) is None


def test_nothing_is_changed_when_an_error_is_raised() -> None:
    """Each argument is checked before the first result is written."""
    out = np.full((2, 3), 7.0, np.float32)
    for call in (
        lambda: fd.dropout(X, fd.Mask(0.5, KEY, noise_shape=(5, 5)), out=out),
        lambda: fd.dense(X, np.ones((3, 3), np.float32), np.ones(2, np.float32), out=out),
        lambda: fd.dense(X, np.ones((3, 3), np.float32), input_mask=fd.Mask(0.5, KEY, noise_shape=(5, 5)), out=out),
        lambda: fd.dense(
            X, np.ones((3, 3), np.float32), activation="softmax", output_mask=fd.Mask(0.5, KEY, noise_shape=(9,)), out=out
        ),
        lambda: fd.dropout(X, MASK)[1](B, out=out),
    ):
        with pytest.raises(ArgumentValueError):
            call()
        assert (out == 7).all()


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ArgumentTypeError, TypeError),
        (errors.ArgumentValueError, ValueError),
        (errors.FileFormatError, ValueError),
        (errors.MissingFileError, FileNotFoundError),
        (errors.OutputError, OSError),
        (errors.StaleBackwardError, RuntimeError),
        (errors.StateError, RuntimeError),
        (errors.BackendError, RuntimeError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_derive_from_the_built_in_that_fits(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, errors.FastdropError)
    assert issubclass(error, builtin)
