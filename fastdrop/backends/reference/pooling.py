"""Pooling of images: the largest element, or the mean, of each channel in each window."""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array, Indices
from fastdrop.backends.reference.conv2d import cut, padded, padded_image, tap_slices
from fastdrop.window import Window


def _chosen(x: Array, window: Window) -> tuple[Array, Indices]:
    """Return the largest elements, and which elements of their windows they are."""
    whole = padded(x, window, -np.inf)
    inside = padded(np.ones((1, *x.shape[1:3], 1), np.bool_), window, False)
    largest = np.full((len(x), *window.places, x.shape[3]), -np.inf, x.dtype)
    tap = np.full(largest.shape, -1, np.int64)
    for p in range(window.size[0]):
        for q in range(window.size[1]):
            place = (slice(None), *tap_slices(window, p, q))
            value = whole[place]
            better = inside[place] & ((value > largest) | (tap < 0) | np.isnan(value))
            largest = np.where(better, value, largest)
            tap = np.where(better, p * window.size[1] + q, tap)
    return largest, tap


def max_pool_forward(x: Array, window: Window) -> Array:
    """Return the largest element of each channel in each window."""
    return _chosen(x, window)[0]


def max_pool_backward(dy: Array, x: Array, window: Window) -> Array:
    """Return dx: dy goes to the element that was chosen."""
    tap = _chosen(x, window)[1]
    whole = np.zeros((len(x), *padded_image(window), x.shape[3]), dy.dtype)
    for p in range(window.size[0]):
        for q in range(window.size[1]):
            whole[(slice(None), *tap_slices(window, p, q))] += np.where(tap == p * window.size[1] + q, dy, dy.dtype.type(0))
    return cut(whole, window)


def _counts(window: Window, dtype: np.dtype) -> Array:
    """Return how many elements of each window are no padding: (1, *places, 1)."""
    inside = padded(np.ones((1, *window.image, 1), dtype), window, 0.0)
    taps = (inside[(slice(None), *tap_slices(window, p, q))] for p in range(window.size[0]) for q in range(window.size[1]))
    return np.asarray(sum(taps))


def average_pool_forward(x: Array, window: Window) -> Array:
    """Return the mean of each channel in each window."""
    whole = padded(x, window, 0.0)
    taps = (whole[(slice(None), *tap_slices(window, p, q))] for p in range(window.size[0]) for q in range(window.size[1]))
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(sum(taps) / _counts(window, x.dtype))


def average_pool_backward(dy: Array, window: Window) -> Array:
    """Return dx: every element of a window gets the same part."""
    part = dy / _counts(window, dy.dtype)
    whole = np.zeros((len(dy), *padded_image(window), dy.shape[3]), dy.dtype)
    for p in range(window.size[0]):
        for q in range(window.size[1]):
            whole[(slice(None), *tap_slices(window, p, q))] += part
    return cut(whole, window)
