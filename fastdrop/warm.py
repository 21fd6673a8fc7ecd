"""Compiling ahead of time: so that the first request or the first step does not wait."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastdrop import _validate
from fastdrop._types import ActivationKind, Array, Shape, UpdateKind
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Normals, Part, Update
from fastdrop.backends.select import backend, default_backend
from fastdrop.layers.parameter import DEVICES
from fastdrop.mask import Mask
from fastdrop.rng import Key
from fastdrop.window import window_of

SMALL, LARGE = (2, 4), (512, 512)
"""Shapes that the serial and the parallel kernels take."""
WIDE = 32
"""Channels of images that all kernels take."""


def warmup(dtype: Any = "float32", device: str = "cpu") -> float:
    """Compile every kernel for a dtype, or load it from the cache, and return the seconds that took.

    Parameters
    ----------
    dtype : "float32" or "float64"
    device : "cpu" or "cuda"

    Raises
    ------
    TypeError: any other dtype. ValueError: any other device. BackendError: no GPU that can be used.
    """
    kind, on_gpu = _validate.dtype("dtype", dtype), _validate.choice("device", device, DEVICES) == "cuda"
    start = time.perf_counter()
    for shape in (SMALL,) if on_gpu else (SMALL, LARGE):
        run_all(backend("cuda") if on_gpu else default_backend(), shape, kind)
    return time.perf_counter() - start


def run_all(backend: AbstractBackend, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Run every operation once on arrays of that shape."""
    run_layers(backend, shape, dtype)
    rows, columns = shape
    x, weight = _half(backend, dtype, shape), _half(backend, dtype, (columns, columns))
    bias, labels = backend.zeros((columns,), dtype), backend.copy_of(np.zeros(rows, np.int64))
    bound = Mask(0.3, Key(0, 0, 0), fixed_count=True).bind(shape, as_matrix=True)
    backend.dense_forward(x, backend.pack_weight(weight), bias, ActivationKind.TANH, None, None, False)
    backend.words(Key(0, 0, 0), 0, 0, rows)
    backend.decisions(bound, (0, rows), (0, columns))
    kept = np.arange(0, columns, 2)
    half = backend.gather(weight, kept, kept)
    backend.scatter(half, kept, kept, weight, accumulate=True)
    backend.pack_weight(weight, kept, kept)
    some = [backend.gather(x, None, kept)] * 2
    backend.dense_forward_groups(some, weight, bias, ActivationKind.TANH, None, [kept] * 2, [kept] * 2)
    backend.affine_dropout_forward(x, bound, 0.0, 0.0)
    seeds = Mask(0.3, Key(0, 0, 0)).bind(shape, as_matrix=True)
    backend.drop_block_backward(backend.drop_block_forward(x.reshape(rows, 1, columns, 1), seeds, 1), seeds, 1)
    _run_images(backend, x.reshape(rows, 2, columns // 4, 2))
    noise = Normals(Key(0, 0, 0), 0, 1.0, multiplies=True)
    backend.noise_backward(backend.noise_forward(x, noise), noise)
    backend.activation_backward(x, backend.activation_forward(x, ActivationKind.TANH), ActivationKind.TANH)
    backend.softmax_backward(x, backend.softmax_forward(x))
    for loss in (backend.softmax_cross_entropy, backend.sigmoid_cross_entropy, backend.categorical_cross_entropy):
        loss(x, labels, None, 1.0)
    backend.mean_squared_error(x, x, None, 1.0)
    backend.sum_of(backend.hits(x, labels, 0.5))
    value = backend.copy_of(x)
    update = Update(UpdateKind.ADAM, value, backend.zeros(shape, dtype), backend.zeros(shape, dtype), np.full(5, 0.1, dtype))
    backend.update(update, x)
    backend.update_later(update, x)
    backend.finish_updates()
    parts = [Part(backend.gather(x, None, kept), None, kept)]
    backend.update_parts(update, parts)
    backend.add_parts(parts, value, accumulate=True)
    backend.sum_of_squares(x)
    backend.limit_column_norms(value, 1.0)
    backend.take(backend.concatenate([x, x]), np.arange(rows))
    x *= 0.5
    x += x
    x.fill(0.0)


def run_layers(backend: AbstractBackend, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """Run dense layers and dropout once on arrays of that shape."""
    x, weight, bias = _half(backend, dtype, shape), _half(backend, dtype, (shape[1],) * 2), backend.zeros((shape[1],), dtype)
    for mask in (Mask(0.3, Key(0, 0, 0)), Mask(0.3, Key(0, 0, 0), fixed_count=True)):
        bound = mask.bind(shape, as_matrix=True)
        y, z = backend.dense_forward(x, weight, bias, ActivationKind.TANH, bound, bound, True)
        gradients = backend.empty(weight.shape, dtype), backend.empty(bias.shape, dtype)
        backend.dense_backward(x, x, weight, y, z, ActivationKind.TANH, bound, bound, True, *gradients, accumulate=False)
        for each in (bound, mask.bind(shape)):
            backend.dropout_backward(backend.dropout_forward(x, each), each)


def _half(backend: AbstractBackend, dtype: np.dtype[Any], shape: Shape) -> Array:
    return backend.copy_of(np.full(shape, 0.5, dtype))


def _run_images(backend: AbstractBackend, x: Array) -> None:
    """Run every operation on images once, and convolutions that go other ways: strides, many channels, zeros in the gradient."""
    weight, bias, kind = _half(backend, x.dtype, (3, 3, 2, 2)), backend.zeros((2,), x.dtype), ActivationKind.TANH
    for strides in ((1, 1), (2, 2)):
        window = window_of((x.shape[1], x.shape[2]), (3, 3), strides, (1, 1), "same", "`weight`")
        y, z = backend.conv2d_forward(x, weight, bias, window, kind, None, None, True)
        gradients = backend.empty(weight.shape, x.dtype), backend.empty(bias.shape, x.dtype)
        backend.conv2d_backward(y, x, weight, y, z, window, kind, None, None, True, *gradients, accumulate=False)
    wide, weight = (_half(backend, x.dtype, shape) for shape in ((len(x), 4, 4, WIDE), (3, 3, WIDE, WIDE)))
    window = window_of((4, 4), (3, 3), (1, 1), (1, 1), "same", "`weight`")
    y, z = backend.conv2d_forward(wide, weight, None, window, kind, None, None, True)
    dweight = backend.empty(weight.shape, x.dtype)
    backend.conv2d_backward(y, wide, weight, y, z, window, kind, None, None, True, dweight, None, accumulate=False, sparse=True)
    window = window_of((x.shape[1], x.shape[2]), (2, 2), (2, 2), (1, 1), "same", "x")
    backend.max_pool_backward(backend.max_pool_forward(x, window), x, window)
    backend.average_pool_backward(backend.average_pool_forward(x, window), window)
