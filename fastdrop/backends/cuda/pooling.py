"""Pooling of images: a thread for each element of the result; geometries as in `conv2d`."""

from __future__ import annotations

import math
from typing import Any

from fastdrop.backends.cuda._jit import cuda, device, kernel
from fastdrop.backends.cuda.conv2d import place_of, position


@device
def chosen_tap(x: Any, geometry: Any, r: int, u: int, v: int, c: int) -> int:
    """Return which element of the window at place (u, v) is the largest: the first of equals, the last of several NaN."""
    height, width, channels, kh, kw, sh, sw, dh, dw, top, left, _, _ = geometry
    tap, largest = -1, -math.inf
    for p in range(kh):
        i = u * sh - top + p * dh
        for q in range(kw):
            j = v * sw - left + q * dw
            if 0 <= i < height and 0 <= j < width:
                value = float(x[((r * height + i) * width + j) * channels + c])
                if tap < 0 or value > largest or value != value:  # noqa: PLR0124  (NaN differs from itself)
                    tap, largest = p * kw + q, value
    return tap


@device
def count_of(geometry: Any, u: int, v: int) -> int:
    """Return how many elements of the window at a place are no padding."""
    height, width, _, kh, kw, sh, sw, dh, dw, top, left, _, _ = geometry
    rows, columns = 0, 0
    for p in range(kh):
        rows += 1 if 0 <= u * sh - top + p * dh < height else 0
    for q in range(kw):
        columns += 1 if 0 <= v * sw - left + q * dw < width else 0
    return rows * columns


@kernel
def max_pool_kernel(x: Any, geometry: Any, y: Any, size: int) -> None:
    """Write the largest element of each channel in each window."""
    height, width, channels, _, kw, sh, sw, dh, dw, top, left, ph, pw = geometry
    for at in range(cuda.grid(1), size, cuda.gridsize(1)):
        r, u, v, c = position(at, ph, pw, channels)
        tap = chosen_tap(x, geometry, r, u, v, c)
        i, j = u * sh - top + tap // kw * dh, v * sw - left + tap % kw * dw
        y[at] = x[((r * height + i) * width + j) * channels + c]


@kernel
def max_pool_gradient_kernel(dy: Any, x: Any, geometry: Any, dx: Any, size: int, one: Any) -> None:
    """Write to each element the sum of dy over the windows that have chosen it."""
    height, width, channels, kh, kw, sh, sw, dh, dw, top, left, ph, pw = geometry
    for at in range(cuda.grid(1), size, cuda.gridsize(1)):
        r, i, j, c = position(at, height, width, channels)
        total = one - one
        for p in range(kh):
            u = place_of(i, p, sh, dh, top, ph)
            for q in range(kw):
                v = place_of(j, q, sw, dw, left, pw)
                if u >= 0 and v >= 0 and chosen_tap(x, geometry, r, u, v, c) == p * kw + q:
                    total += dy[((r * ph + u) * pw + v) * channels + c]
        dx[at] = total


@kernel
def average_pool_kernel(x: Any, geometry: Any, y: Any, size: int, one: Any) -> None:
    """Write the mean of each channel in each window."""
    height, width, channels, kh, kw, sh, sw, dh, dw, top, left, ph, pw = geometry
    for at in range(cuda.grid(1), size, cuda.gridsize(1)):
        r, u, v, c = position(at, ph, pw, channels)
        total = one - one
        for p in range(kh):
            i = u * sh - top + p * dh
            for q in range(kw):
                j = v * sw - left + q * dw
                if 0 <= i < height and 0 <= j < width:
                    total += x[((r * height + i) * width + j) * channels + c]
        y[at] = total / (one * count_of(geometry, u, v))


@kernel
def average_pool_gradient_kernel(dy: Any, geometry: Any, dx: Any, size: int, one: Any) -> None:
    """Write to each element its part of dy of the windows that hold it."""
    height, width, channels, kh, kw, sh, sw, dh, dw, top, left, ph, pw = geometry
    for at in range(cuda.grid(1), size, cuda.gridsize(1)):
        r, i, j, c = position(at, height, width, channels)
        total = one - one
        for p in range(kh):
            u = place_of(i, p, sh, dh, top, ph)
            for q in range(kw):
                v = place_of(j, q, sw, dw, left, pw)
                if u >= 0 and v >= 0:
                    total += dy[((r * ph + u) * pw + v) * channels + c] / (one * count_of(geometry, u, v))
        dx[at] = total
