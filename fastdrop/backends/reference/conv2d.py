"""Convolution of images: ``y = drop_out(act(conv(drop_in(x), weight) + bias))``, a product with the patches of the windows.

Notation: the patches of x are (rows, *places, *size, channels): at each place the elements that the window has there.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import ActivationKind, Array, MaskKind
from fastdrop.backends.base import needs_z
from fastdrop.backends.operands import Update
from fastdrop.backends.reference.activations import activation_backward, activation_forward
from fastdrop.backends.reference.dense import deliver_gradient
from fastdrop.backends.reference.dropout import apply_mask
from fastdrop.mask import BoundMask
from fastdrop.window import Window


def tap_slices(window: Window, p: int, q: int) -> tuple[slice, slice]:
    """Return which rows and columns of a padded image element (p, q) of the window takes at all places."""
    starts = p * window.dilation[0], q * window.dilation[1]
    first, second = (
        slice(start, start + (count - 1) * step + 1, step)
        for start, count, step in zip(starts, window.places, window.stride, strict=True)
    )
    return first, second


def padded_image(window: Window) -> tuple[int, int]:
    """Return height and width of a padded image, which holds all windows and the image."""
    height, width = (
        max(extent + before, (count - 1) * step + (n - 1) * apart + 1)
        for extent, before, count, step, n, apart in zip(
            window.image, window.before, window.places, window.stride, window.size, window.dilation, strict=True
        )
    )
    return height, width


def padded(x: Array, window: Window, fill: float) -> Array:
    """Return x with its padding, filled."""
    rows, height, width, channels = x.shape
    top, left = window.before
    whole = np.full((rows, *padded_image(window), channels), fill, x.dtype)
    whole[:, top : top + height, left : left + width] = x
    return whole


def cut(whole: Array, window: Window) -> Array:
    """Return padded images without their padding."""
    (top, left), (height, width) = window.before, window.image
    return np.ascontiguousarray(whole[:, top : top + height, left : left + width])


def patches(x: Array, window: Window) -> Array:
    """Return the patches of x as a matrix (rows * positions, taps * channels)."""
    whole = padded(x, window, 0.0)
    taps = [whole[(slice(None), *tap_slices(window, p, q))] for p in range(window.size[0]) for q in range(window.size[1])]
    return np.stack(taps, axis=3).reshape(len(x) * window.positions, window.taps * x.shape[3])


def conv2d_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    keep_z: bool,
) -> tuple[Array, Array | None]:
    """Return (y, z); z only where it is asked for and the backward pass needs it."""
    with np.errstate(all="ignore"):
        z = patches(apply_mask(x, input_mask), window) @ weight.reshape(-1, weight.shape[3])
        if bias is not None:
            z = z + bias
    z = z.reshape(len(x), *window.places, weight.shape[3])
    y = apply_mask(activation_forward(z, activation), output_mask)
    return np.ascontiguousarray(y), (z if keep_z and needs_z(activation) else None)


def conv2d_backward(
    dy: Array,
    x: Array,
    weight: Array,
    y: Array,
    z: Array | None,
    window: Window,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    want_dx: bool,
    dweight: Array | Update | None,
    dbias: Array | Update | None,
    accumulate: bool,
) -> Array | None:
    """Deliver the gradients of weight and bias where wanted, and return dx where wanted."""
    filters = weight.shape[3]
    if output_mask is not None and output_mask.kind == MaskKind.DROP_ALL:
        deliver_gradient(np.zeros_like(weight), dweight, accumulate)
        deliver_gradient(np.zeros(filters, weight.dtype), dbias, accumulate)
        return np.zeros(x.shape, x.dtype) if want_dx else None
    dz = apply_mask(activation_backward(dy, y if z is None else z, activation), output_mask)
    dx = None
    with np.errstate(all="ignore"):
        if want_dx:
            whole = np.zeros((len(x), *padded_image(window), x.shape[3]), x.dtype)
            for p in range(window.size[0]):
                for q in range(window.size[1]):
                    whole[(slice(None), *tap_slices(window, p, q))] += dz @ weight[p, q].T
            dx = np.ascontiguousarray(apply_mask(cut(whole, window), input_mask))
        flat = dz.reshape(-1, filters)
        deliver_gradient((patches(apply_mask(x, input_mask), window).T @ flat).reshape(weight.shape), dweight, accumulate)
        deliver_gradient(flat.sum(axis=0), dbias, accumulate)
    return dx
