"""Patches of images, and the way back: convolutions are products with them, a workspace's worth of images at a time.

Notation: a *geometry* is (height, width, channels, size, stride, dilation, before, places), the last five for both axes each;
the patches of an image are (places, taps, channels).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastdrop._device import DeviceArray
from fastdrop.backends.cuda._arrays import compute_dtype, empty
from fastdrop.backends.cuda._jit import cuda, device, kernel, launch
from fastdrop.window import Window

WORKSPACE_BYTES: Final = 64 << 20
"""Most memory for patches, unless those of one image need more."""


@device
def position(at: int, height: int, width: int, channels: int) -> tuple[int, int, int, int]:
    """Return (row, i, j, channel) of an element of images."""
    rest, c = at // channels, at % channels
    rest, j = rest // width, rest % width
    return rest // height, rest % height, j, c


@kernel
def patches_kernel(x: Any, geometry: Any, out: Any, size: int, zero: Any) -> None:
    """Write the patches of images; padding is +0.0."""
    height, width, channels, kh, kw, sh, sw, dh, dw, top, left, ph, pw = geometry
    for at in range(cuda.grid(1), size, cuda.gridsize(1)):
        rest, c = at // channels, at % channels
        rest, q = rest // kw, rest % kw
        rest, p = rest // kh, rest % kh
        rest, v = rest // pw, rest % pw
        r, u = rest // ph, rest % ph
        i, j = u * sh - top + p * dh, v * sw - left + q * dw
        value = zero
        if 0 <= i < height and 0 <= j < width:
            value = x[((r * height + i) * width + j) * channels + c] + zero
        out[at] = value


@device
def place_of(i: int, tap: int, step: int, apart: int, before: int, places: int) -> int:
    """Return at which place the window has element i as its element `tap`; -1 for none."""
    distance = i + before - tap * apart
    if distance < 0 or distance % step != 0 or distance // step >= places:
        return -1
    return distance // step


@kernel
def add_patches_kernel(patches: Any, geometry: Any, dx: Any, size: int, one: Any) -> None:
    """Write to each element of images the sum of what the patches hold of it, tap by tap."""
    height, width, channels, kh, kw, sh, sw, dh, dw, top, left, ph, pw = geometry
    for at in range(cuda.grid(1), size, cuda.gridsize(1)):
        r, i, j, c = position(at, height, width, channels)
        total = one - one
        for p in range(kh):
            u = place_of(i, p, sh, dh, top, ph)
            for q in range(kw):
                v = place_of(j, q, sw, dw, left, pw)
                if u >= 0 and v >= 0:
                    total += patches[((((r * ph + u) * pw + v) * kh + p) * kw + q) * channels + c]
        dx[at] = total


def geometry_of(window: Window, channels: int) -> tuple[int, ...]:
    """Return a window as kernels take it."""
    pairs = window.size, window.stride, window.dilation, window.before, window.places
    return *window.image, channels, *(extent for pair in pairs for extent in pair)


def patches_of(x: DeviceArray, window: Window) -> DeviceArray:
    """Return the patches of images as a matrix (rows * positions, taps * channels)."""
    channels = x.shape[3]
    out = empty((len(x) * window.positions, window.taps * channels), x.dtype)
    launch(patches_kernel, out.size, x.memory, geometry_of(window, channels), out.memory, out.size, compute_dtype(x.dtype)(0))
    return out


def add_patches(patches: DeviceArray, window: Window, dx: DeviceArray) -> None:
    """Write the images of which patches, as a matrix, are the gradient."""
    geometry, one = geometry_of(window, dx.shape[3]), compute_dtype(dx.dtype)(1)
    launch(add_patches_kernel, dx.size, patches.memory, geometry, dx.memory, dx.size, one)


def batches(x: DeviceArray, window: Window) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of images whose patches are made together."""
    each = window.positions * window.taps * x.shape[3] * x.dtype.itemsize
    at_once = max(1, WORKSPACE_BYTES // max(1, each))
    for low in range(0, len(x), at_once):
        yield low, min(len(x), low + at_once)
