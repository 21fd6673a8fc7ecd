"""The fused convolution as one operation: groups of channels, and channels that shared masks drop and that are not computed.

`conv2d` computes ``y = drop_out(act(conv(drop_in(x), weight) + bias))``. Both need convolutions from some channels to some
filters: pieces. Each is computed on gathered arrays and its results are scattered; see `fastdrop.fused` for the idea of skipping.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from fastdrop._types import ActivationKind, Array, Indices, MaskKind, Shape
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Units, Unpooled, Update
from fastdrop.fused import Gradient, Total, can_skip, common_groups, skips
from fastdrop.mask import BoundMask
from fastdrop.window import Window

COPYING_ROWS = 150
"""Places whose products cost as much as the copies of a weight and of its gradient that a piece needs."""

ConvBackward: TypeAlias = Callable[[Array | Unpooled, bool, Gradient, Gradient, bool], Array | None]
"""``dx = backward(dy, want_dx, dweight, dbias, accumulate)``."""


def input_shape(shape: Shape, noise_shape: tuple[int | None, ...] | None) -> Shape:
    """Return the shape in which images are best masked: each as one row, unless the mask tells its axes apart."""
    return shape if noise_shape is not None else (shape[0], math.prod(shape[1:]))


def conv2d(
    backend: AbstractBackend,
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    keep: bool,
    sparse: bool = False,
) -> tuple[Array, ConvBackward]:
    """Return (y, backward); arrays and masks as in `backends.base`, `groups` divides channels and filters.

    With `keep` False there will be no backward pass. `sparse` says that most of dy will be zeros.
    """
    by_channel = tuple(
        mask if mask is not None and mask.columns == columns else None
        for mask, columns in ((input_mask, x.shape[3]), (output_mask, weight.shape[3]))
    )
    if groups > 1:
        return _grouped(backend, x, weight, bias, window, groups, activation, input_mask, output_mask, keep)
    if len(x) and skips(*by_channel, copying_rows=COPYING_ROWS):
        return _skipping(backend, x, weight, bias, window, activation, input_mask, output_mask, by_channel, keep)
    y, z = backend.conv2d_forward(x, weight, bias, window, activation, input_mask, output_mask, keep)

    def backward(dy: Array | Unpooled, want_dx: bool, dweight: Gradient, dbias: Gradient, accumulate: bool) -> Array | None:
        masks = input_mask, output_mask
        return backend.conv2d_backward(
            dy, x, weight, y, z, window, activation, *masks, want_dx, dweight, dbias, accumulate, sparse
        )

    return y, backward


class _Piece(NamedTuple):
    """A convolution from some channels to some filters, for rows low .. high - 1; None means all of them."""

    low: int
    high: int
    channels: Indices | None
    filters: Indices | None
    weight_rows: Indices | None
    masks: tuple[BoundMask | None, BoundMask | None]
    scale: float
    """Of the channels, in place of a mask."""


def _grouped(
    backend: AbstractBackend,
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    groups: int,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    keep: bool,
) -> tuple[Array, ConvBackward]:
    """Do each group by itself, between dropout of the whole arrays; nothing where all of y is dropped."""
    pieces = []
    for group in range(0 if output_mask is not None and output_mask.kind == MaskKind.DROP_ALL else groups):
        channels, filters = (np.arange(group * n // groups, (group + 1) * n // groups) for n in (x.shape[3], weight.shape[3]))
        pieces.append(_Piece(0, len(x), channels, filters, None, (None, None), 1.0))
    dropped = x if input_mask is None else backend.dropout_forward(x, input_mask)
    y, inner = _in_pieces(backend, dropped, weight, bias, window, activation, pieces, keep)
    if output_mask is not None:
        backend.dropout_forward(y, output_mask, y)

    def backward(dy: Array | Unpooled, want_dx: bool, dweight: Gradient, dbias: Gradient, accumulate: bool) -> Array | None:
        dy = backend.unpool(dy)
        dy = dy if output_mask is None else backend.dropout_backward(dy, output_mask)
        dx = inner(dy, want_dx, dweight, dbias, accumulate)
        return dx if dx is None or input_mask is None else backend.dropout_backward(dx, input_mask, dx)

    return y, backward


def _skipping(
    backend: AbstractBackend,
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    by_channel: tuple[BoundMask | None, ...],
    keep: bool,
) -> tuple[Array, ConvBackward]:
    """Leave out the channels and filters that all of many rows drop."""
    image = math.prod(window.image), window.positions
    units = [_units(backend, mask, len(x), size) for mask, size in zip(by_channel, image, strict=True)]
    pieces = []
    for low, high, x_group, y_group in common_groups(*units):
        channels, filters = units[0].kept[x_group], units[1].kept[y_group]
        if filters is not None and len(filters) == 0:
            continue
        mask_in, mask_out = (None if mask is None else mask.of_rows(low, high, len(x)) for mask in (input_mask, output_mask))
        scale, rows = 1.0, None
        if channels is not None and mask_in is not None:
            scale, whole, mask_in = mask_in.scale, mask_in, None
            if len(channels) == 0:  # in place of none, one that is dropped
                channels = np.zeros(1, np.int64)
                mask_in = replace(whole.factor(whole.rows, 1), kind=MaskKind.DROP_ALL)
            rows = (np.arange(window.taps)[:, None] * x.shape[3] + channels).ravel()
        if mask_out is not None and filters is not None:
            mask_out = mask_out.factor((high - low) * window.positions, len(filters))
        pieces.append(_Piece(low, high, channels, filters, rows, (mask_in, mask_out), scale))
    return _in_pieces(backend, x, weight, bias, window, activation, pieces, keep)


def _units(backend: AbstractBackend, mask: BoundMask | None, count: int, size: int) -> Units:
    """Return the channels that a mask keeps, by groups of images, which have so many matrix rows each."""
    if not can_skip(mask):
        return Units((0, count), (None,))
    units = backend.units(mask)
    return Units(tuple(bound // size for bound in units.bounds), units.kept)


def _in_pieces(
    backend: AbstractBackend,
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    activation: ActivationKind,
    pieces: list[_Piece],
    keep: bool,
) -> tuple[Array, ConvBackward]:
    """Compute the pieces; what belongs to none of them is +0.0."""
    channels, filters = x.shape[3], weight.shape[3]
    y = backend.zeros((len(x), *window.places, filters), x.dtype)
    matrix = weight.reshape(-1, filters)

    def columns_of(array: Array, low: int, high: int, columns: Indices | None, scale: float = 1.0) -> Array:
        part = array[low:high]
        if columns is None and scale == 1.0:
            return part
        chosen = backend.gather(part.reshape(-1, part.shape[3]), None, columns, scale)
        return chosen.reshape(*part.shape[:3], chosen.shape[1])

    def weight_of(piece: _Piece) -> Array:
        chosen = backend.gather(matrix, piece.weight_rows, piece.filters)
        return chosen.reshape(*window.size, -1, chosen.shape[1])

    done = []
    for piece in pieces:
        xs = columns_of(x, piece.low, piece.high, piece.channels, piece.scale)
        b = bias if bias is None or piece.filters is None else backend.take(bias, piece.filters)
        ys, zs = backend.conv2d_forward(xs, weight_of(piece), b, window, activation, *piece.masks, keep)
        part = y[piece.low : piece.high].reshape(-1, filters)
        backend.scatter(ys.reshape(-1, ys.shape[3]), None, piece.filters, part, False)
        if keep:
            done.append((piece, xs, ys, zs))

    def backward(dy: Array | Unpooled, want_dx: bool, dweight: Gradient, dbias: Gradient, accumulate: bool) -> Array | None:
        dy, dx = backend.unpool(dy), backend.zeros(x.shape, x.dtype) if want_dx else None
        weight_total = Total(backend, _as_matrix(dweight, filters), accumulate)
        bias_total = Total(backend, dbias, accumulate)
        for piece, xs, ys, zs in done:
            w, dys = weight_of(piece), columns_of(dy, piece.low, piece.high, piece.filters)
            dw = None if dweight is None else backend.empty(w.shape, w.dtype)
            db = None if dbias is None else backend.empty((w.shape[3],), w.dtype)
            dxs = backend.conv2d_backward(dys, xs, w, ys, zs, window, activation, *piece.masks, want_dx, dw, db, accumulate=False)
            weight_total.add(None if dw is None else dw.reshape(-1, w.shape[3]), piece.weight_rows, piece.filters)
            bias_total.add(db, None, piece.filters)
            if dx is not None and dxs is not None:
                part = dx[piece.low : piece.high].reshape(-1, channels)
                backend.scatter(dxs.reshape(-1, dxs.shape[3]), None, piece.channels, part, False, piece.scale)
        weight_total.finish()
        bias_total.finish()
        return dx

    return y, backward


def _as_matrix(target: Gradient, filters: int) -> Gradient:
    """Return a gradient's target as a view with a column a filter."""
    if isinstance(target, Update):
        value, first, second = (array.reshape(-1, filters) for array in target[1:4])
        return target._replace(value=value, first=first, second=second)
    return None if target is None else target.reshape(-1, filters)
