"""The operations on images of the CPU backend: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from fastdrop._types import ActivationKind, Array, Indices, MaskKind
from fastdrop.backends.base import needs_z
from fastdrop.backends.cpu import _winograd, conv2d, dense, epilogue, masks, pooling
from fastdrop.backends.cpu._arguments import NO_BIAS, NO_DROP, readable, unfinished
from fastdrop.backends.cpu._memory import aligned_empty
from fastdrop.backends.cpu._products import ProductOperations
from fastdrop.backends.operands import PackedWeight, Unpooled, Update
from fastdrop.mask import BoundMask
from fastdrop.window import Pair, Window

Convolution: TypeAlias = Callable[[Array, Array, epilogue.Finish, masks.U64], None]
"""``convolve(x, c, finish, c_drop)``: ``c = patches(x) @ weight``, finished; c is a matrix."""


class ImageOperations(ProductOperations):
    """Convolutions, as products with patches, and pooling."""

    def _starts(self) -> Indices:
        return self._scratch.take("starts", (self._threads, dense.KC), np.dtype(np.int64))

    def _dropped(self, x: Array, mask: BoundMask | None) -> Array:
        """Return drop(x), in scratch; x itself without a mask."""
        return x if mask is None else self.dropout_forward(x, mask, self._scratch.take("images", x.shape, x.dtype))

    def _whole(self, x: Array, before: Pair, image: Pair, upsampling: Pair = (1, 1)) -> Array:
        """Return x, in scratch with padding, and zeros between its elements, unless that is how large its images are."""
        if before == (0, 0) and upsampling == (1, 1) and image == x.shape[1:3]:
            return x
        whole = self._scratch.take("padded", (len(x), *image, x.shape[3]), x.dtype)
        conv2d.pad_kernel(whole.size * conv2d.NANOSECONDS, readable(x), before, upsampling, whole)
        return whole

    def _patched(self, x: Array, window: Window, upsampling: Pair = (1, 1)) -> tuple[Array, conv2d.Geometry]:
        """Return the elements of x, in scratch with their padding if the window leaves the images, and the window on them."""
        image, reach = window.image, conv2d.reach_of(window)
        if window.before != (0, 0) or upsampling != (1, 1) or reach[0] > image[0] or reach[1] > image[1]:
            image = reach
        whole = self._whole(x, window.before, image, upsampling)
        return readable(whole).reshape(-1), conv2d.geometry_of(window, image, x.shape[3])

    def pack_filters(self, weight: Array, window: Window) -> PackedWeight:
        return self._packed(weight, window, (1, 1))

    def _packed(self, weight: Array, window: Window, upsampling: Pair) -> PackedWeight:
        """Return a weight as the convolution of images with upsampling - 1 zeros between their elements reads it."""
        channels, filters = weight.shape[2:]
        if not _winograd.applies(window, upsampling, channels, filters, weight.dtype):
            return PackedWeight(self.pack_weight(weight.reshape(-1, filters)).data, weight.shape)
        u = aligned_empty(_winograd.packed_shape(channels, filters, weight.dtype), weight.dtype)
        flat = readable(weight).reshape(-1)
        _winograd.filters_kernel(u.size * dense.PACKING_NANOSECONDS, flat, channels, filters, u)
        return PackedWeight(u, weight.shape)

    def _convolution(self, packed: PackedWeight, window: Window, upsampling: Pair) -> Convolution:
        """Return the convolution with filters that were packed for it."""
        channels, filters = packed.shape[2:]
        if _winograd.applies(window, upsampling, channels, filters, packed.data.dtype):
            return self._filtering(packed, window)
        depth = window.taps * channels

        def convolve(x: Array, c: Array, finish: epilogue.Finish, c_drop: masks.U64) -> None:
            images, geometry = self._patched(x, window, upsampling)
            work = dense.nanoseconds(*c.shape, depth, dense.PACKED, finish[3])
            given = images, geometry, depth, packed.data, c, finish, c_drop
            conv2d.patches_kernel(work, *given, self._product_scratch(c.dtype), self._starts())

        return convolve

    def _filtering(self, packed: PackedWeight, window: Window) -> Convolution:
        """Return the convolution by Winograd's minimal filtering."""
        channels, filters = packed.shape[2:]
        image = _winograd.image_of(window)

        def convolve(x: Array, c: Array, finish: epilogue.Finish, c_drop: masks.U64) -> None:
            whole = readable(self._whole(x, window.before, image)).reshape(-1)
            room = self._scratch.take("room", (self._threads, sum(_winograd.scratch_sizes(channels, filters))), c.dtype)
            work = dense.nanoseconds(len(c) // _winograd.SAVED, filters, window.taps * channels, dense.PACKED, finish[3])
            given = whole, (*image, channels), window.places, packed.data, c, finish, c_drop, room
            _winograd.winograd_kernel(work, *given, self._decision_scratch())

        return convolve

    def _add_patches(self, dz: Array, window: Window, weight: Array, dx: Array) -> None:
        """Write the gradient of images: each patch of ``dz @ weight.T`` is added where it lies; both are matrices."""
        (top, left), (height, width), channels = window.before, conv2d.reach_of(window), dx.shape[3]
        whole = self._scratch.take("padded", (len(dx), height, width * channels), dz.dtype)
        geometry = conv2d.geometry_of(window, (height, width), channels)
        tall, wide = window.places
        at_once = tall
        if len(dx) == 1:  # more images would not be here if each had too many patches
            at_once = max(1, conv2d.BATCH_BYTES // (wide * weight.shape[0] * dz.itemsize))
        for first in range(0, tall, at_once):
            count = min(at_once, tall - first)
            rows = dz.reshape(len(dx), tall, -1)[:, first : first + count].reshape(-1, dz.shape[1])
            patches = self._scratch.take("patches", (len(rows), len(weight)), dz.dtype)
            self._product(rows, weight, patches, (False, dense.TRANSPOSED, False), NO_DROP, unfinished(patches), NO_DROP)
            work = (whole.size * count / tall + patches.size) * conv2d.NANOSECONDS
            conv2d.add_patches_kernel(work, patches, geometry, first, count, whole)
        inner = whole.reshape(len(dx), height, width, channels)[:, top : top + dx.shape[1], left : left + dx.shape[2]]
        dx[:, inner.shape[1] :] = 0
        dx[:, :, inner.shape[2] :] = 0
        dx[:, : inner.shape[1], : inner.shape[2]] = inner

    def _listed_image_gradient(self, dz: Array, window: Window, weight: Array, dx: Array) -> None:
        """Write the gradient of images by the elements of dz that are not zero; weight (taps, filters, channels)."""
        filters = dz.shape[3]
        positions = conv2d.listed_lines(window, filters) * window.places[1]
        values = self._scratch.take("values", (self._threads, positions * filters), dz.dtype)
        places = self._scratch.take("list", values.shape, np.dtype(np.int32))
        counts = self._scratch.take("counts", (self._threads, positions), np.dtype(np.int64))
        geometry = conv2d.geometry_of(window, window.image, dx.shape[3])
        work = dz.size * window.taps * dx.shape[3] / dense.FLOPS_PER_NANOSECOND
        conv2d.listed_image_gradient_kernel(work, readable(dz), weight, geometry, window.before, dx, values, places, counts)

    def conv2d_forward(
        self,
        x: Array,
        weight: Array | PackedWeight,
        bias: Array | None,
        window: Window,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep_z: bool,
    ) -> tuple[Array, Array | None]:
        filters = weight.shape[3]
        y = self.empty((len(x), *window.places, filters), x.dtype)
        z = self.empty(y.shape, y.dtype) if keep_z and needs_z(activation) else None
        packed = weight if isinstance(weight, PackedWeight) else self.pack_filters(weight, window)
        convolve = self._convolution(packed, window, (1, 1))
        offsets = NO_BIAS[y.dtype] if bias is None else readable(bias)
        size = x.itemsize * x.shape[3] * math.prod(conv2d.reach_of(window))
        for low, high in _batches(len(x), size, input_mask, output_mask):
            finished = y[low:high].reshape(-1, filters)
            c = finished if z is None else z[low:high].reshape(-1, filters)
            finish = finished, z is not None, offsets, int(activation)
            drop_in, drop_out = (None if mask is None else mask.of_rows(low, high, len(x)) for mask in (input_mask, output_mask))
            source = self._dropped(x[low:high], drop_in)
            convolve(source, c, finish, self._plan(drop_out))
        return y, z

    def conv2d_backward(
        self,
        dy: Array | Unpooled,
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
        sparse: bool = False,
    ) -> Array | None:
        if x.size == 0 or (output_mask is not None and output_mask.kind == MaskKind.DROP_ALL):
            return self._no_gradient(x, want_dx, dweight, dbias, accumulate)
        filters, state = weight.shape[3], y if z is None else z
        dx = self.empty(x.shape, x.dtype) if want_dx else None
        weight_grad, bias_grad = _gradient_array(dweight, accumulate), _gradient_array(dbias, accumulate)
        write_image_gradient, widest = self._image_gradient(window, weight, sparse) if want_dx else (None, filters)
        add_weight_gradient = None if weight_grad is None else self._weight_gradient(window, weight_grad, sparse)
        size = x.itemsize * max(window.positions * max(widest, filters), math.prod(x.shape[1:]))
        for low, high in _batches(len(x), size, input_mask, output_mask):
            drop_in, drop_out = (None if mask is None else mask.of_rows(low, high, len(x)) for mask in (input_mask, output_mask))
            dys, own = (self._unpooled(dy, low, high), True) if isinstance(dy, Unpooled) else (dy[low:high], False)
            rows = dys.reshape(-1, filters), state[low:high].reshape(-1, filters)
            dz = self._gradient(*rows, activation, drop_out, bias_grad, accumulate=True, out=rows[0] if own else None)
            images = dz.reshape(-1, *window.places, filters)
            if dx is not None and write_image_gradient is not None:
                write_image_gradient(images, dx[low:high])
                if drop_in is not None:
                    self.dropout_backward(dx[low:high], drop_in, dx[low:high])
            if add_weight_gradient is not None:
                add_weight_gradient(self._dropped(x[low:high], drop_in), images)
        for gradient, target in ((weight_grad, dweight), (bias_grad, dbias)):
            if isinstance(target, Update) and gradient is not None:
                self.update(target, gradient)
        return dx

    def _image_gradient(self, window: Window, weight: Array, sparse: bool) -> tuple[Callable[[Array, Array], None], int]:
        """Return (a function of dz that writes dx, the most elements that it makes of a place)."""
        channels, filters = weight.shape[2:]
        if sparse and channels >= conv2d.LEAST_LISTED:
            exchanged = np.ascontiguousarray(weight.transpose(0, 1, 3, 2)).reshape(-1, filters, channels)
            return (lambda dz, dx: self._listed_image_gradient(dz, window, exchanged, dx)), filters
        if conv2d.adds_patches(window, channels, filters, weight.dtype):
            matrix = weight.reshape(-1, filters)
            return (lambda dz, dx: self._add_patches(dz.reshape(-1, filters), window, matrix, dx)), len(matrix)
        turned = np.ascontiguousarray(weight[::-1, ::-1].transpose(0, 1, 3, 2))
        transposed = window.transposed()
        convolve = self._convolution(self._packed(turned, *transposed), *transposed)

        def write(dz: Array, dx: Array) -> None:
            c = dx.reshape(-1, channels)
            convolve(dz, c, unfinished(c), NO_DROP)

        return write, filters

    def _weight_gradient(self, window: Window, grad: Array, sparse: bool) -> Callable[[Array, Array], None]:
        """Return a function of (x, dz) that adds to the gradient of a weight."""
        c, scratch = grad.reshape(-1, grad.shape[3]), self._product_scratch(grad.dtype)

        def add_listed(x: Array, dz: Array) -> None:
            images, geometry = self._patched(x, window)
            lists = (c.shape[1], conv2d.band_of(geometry) * window.places[1])
            values, places = self._scratch.take("values", lists, c.dtype), self._scratch.take("list", lists, np.dtype(np.int64))
            counts = aligned_empty((c.shape[1],), np.dtype(np.int64))  # or two threads would write to one cache line
            given = images, geometry, readable(dz), np.zeros(c.T.shape, c.dtype), values, places, counts
            conv2d.listed_weight_gradient_kernel(dz.size * len(c) / dense.FLOPS_PER_NANOSECOND, *given)
            c[...] += given[3].T

        def add(x: Array, dz: Array) -> None:
            images, geometry = self._patched(x, window)
            matrix = readable(dz).reshape(-1, c.shape[1])
            work = dense.nanoseconds(*c.shape, len(matrix), dense.PLAIN, int(ActivationKind.LINEAR))
            given = images, geometry, matrix, c, unfinished(c), NO_DROP
            conv2d.patches_gradient_kernel(work, *given, scratch, self._starts())

        return add_listed if sparse and window.size[1] * grad.shape[2] >= conv2d.LEAST_LISTED else add

    def max_pool_forward(self, x: Array, window: Window) -> Array:
        y = self.empty((len(x), *window.places, x.shape[3]), x.dtype)
        scratch = self._scratch.take("taps", (self._threads, x.shape[3]), np.dtype(np.int32))
        pooling.max_pool_kernel(x.size * pooling.NANOSECONDS, readable(x), pooling.frame_of(window), y, scratch)
        return y

    def max_pool_backward(self, dy: Array, x: Array, window: Window) -> Array:
        return self._max_pool_gradient(dy, x, window, self.empty(x.shape, x.dtype))

    def _unpooled(self, late: Unpooled, low: int, high: int) -> Array:
        """Return a gradient of images low .. high - 1 that was left for later, in scratch."""
        x = late.x[low:high]
        return self._max_pool_gradient(late.dy[low:high], x, late.window, self._scratch.take("unpooled", x.shape, x.dtype))

    def _max_pool_gradient(self, dy: Array, x: Array, window: Window, dx: Array) -> Array:
        taps = self._scratch.take("taps", (self._threads, x.shape[3]), np.dtype(np.int32))
        largest = self._scratch.take("largest", taps.shape, x.dtype)
        pooling.max_pool_gradient_kernel(
            2 * x.size * pooling.NANOSECONDS, readable(dy), readable(x), pooling.frame_of(window), dx, largest, taps
        )
        return dx

    def average_pool_forward(self, x: Array, window: Window) -> Array:
        y = self.empty((len(x), *window.places, x.shape[3]), x.dtype)
        pooling.average_pool_kernel(x.size * pooling.NANOSECONDS, readable(x), pooling.frame_of(window), y)
        return y

    def average_pool_backward(self, dy: Array, window: Window) -> Array:
        dx = self.empty((len(dy), *window.image, dy.shape[3]), dy.dtype)
        pooling.average_pool_gradient_kernel(dx.size * pooling.NANOSECONDS, readable(dy), pooling.frame_of(window), dx)
        return dx


def _batches(count: int, size: int, *masks: BoundMask | None) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of images that are worked on together: of `size` bytes each, and of one pass of a mask."""
    per_pass = count // max(1 if mask is None else mask.passes for mask in masks)
    at_once = max(1, conv2d.BATCH_BYTES // max(1, size))
    for start in range(0, count, max(1, per_pass)):
        for low in range(start, start + per_pass, at_once):
            yield low, min(start + per_pass, low + at_once)


def _gradient_array(target: Any, accumulate: bool) -> Array | None:
    """Return the array that a gradient is added into: the target itself, or a new one for an update."""
    if target is None:
        return None
    if isinstance(target, Update):
        return np.zeros_like(target.value)
    if not accumulate:
        target.fill(0)
    array: Array = target
    return array
