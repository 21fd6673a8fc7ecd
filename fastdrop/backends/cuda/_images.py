"""The backend's operations on images."""

from __future__ import annotations

from typing import Any

from fastdrop._types import ActivationKind, MaskKind
from fastdrop.backends.base import needs_z
from fastdrop.backends.cuda import conv2d, dense, pooling
from fastdrop.backends.cuda._arrays import compute_dtype, empty
from fastdrop.backends.cuda._jit import launch
from fastdrop.backends.cuda._masks import prepare
from fastdrop.backends.cuda._matrices import MatrixOperations
from fastdrop.backends.cuda._products import multiply
from fastdrop.backends.operands import PackedWeight
from fastdrop.mask import BoundMask
from fastdrop.window import Window


class ImageOperations(MatrixOperations):
    """Convolution and pooling."""

    def conv2d_forward(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        window: Window,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep_z: bool,
    ) -> tuple[Any, Any]:
        filters, kernel = weight.shape[3], weight.data if isinstance(weight, PackedWeight) else weight
        z = empty((len(x) * window.positions, filters), x.dtype)
        source, matrix = self._dropped(x, input_mask), kernel.reshape(-1, filters)
        for low, high in conv2d.batches(source, window):
            part = z[low * window.positions : high * window.positions]
            multiply(conv2d.patches_of(source[low:high], window), matrix, part)
        kept = keep_z and needs_z(activation)
        y = empty(z.shape, z.dtype) if kept else z
        dense.finish(z, y, bias, activation, prepare(output_mask))
        shape = (len(x), *window.places, filters)
        return y.reshape(shape), z.reshape(shape) if kept else None

    def conv2d_backward(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        y: Any,
        z: Any,
        window: Window,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        want_dx: bool,
        dweight: Any,
        dbias: Any,
        accumulate: bool,
        sparse: bool = False,  # noqa: ARG002  (a hint that this backend has no use for)
    ) -> Any:
        if x.size == 0 or (output_mask is not None and output_mask.kind == MaskKind.DROP_ALL):
            return self._no_gradient(x, want_dx, accumulate, dweight, dbias)
        dy, filters = self.unpool(dy), weight.shape[3]
        rows = len(x) * window.positions
        state = (y if z is None else z).reshape(rows, filters)
        dz = dense.gradient(dy.reshape(rows, filters), state, activation, prepare(output_mask))
        dx: Any = None
        if want_dx:  # by the weight before its update
            dx, matrix = empty(x.shape, x.dtype), weight.reshape(-1, filters)
            for low, high in conv2d.batches(x, window):
                part = dz[low * window.positions : high * window.positions]
                conv2d.add_patches(dense.product(part, matrix, turn_b=True), window, dx[low:high])
            if input_mask is not None:
                self.dropout_backward(dx, input_mask, dx)
        self._deliver_bias(dz, dbias, accumulate)
        if dweight is not None:
            source = self._dropped(x, input_mask)
            target = self._gradient_array(dweight, accumulate).reshape(-1, filters)
            for low, high in conv2d.batches(source, window):
                part = dz[low * window.positions : high * window.positions]
                multiply(conv2d.patches_of(source[low:high], window), part, target, turn_a=True, accumulate=True)
            self._deliver(dweight, target)
        return dx

    def max_pool_forward(self, x: Any, window: Window) -> Any:
        y = empty((len(x), *window.places, x.shape[3]), x.dtype)
        launch(pooling.max_pool_kernel, y.size, x.memory, conv2d.geometry_of(window, x.shape[3]), y.memory, y.size)
        return y

    def max_pool_backward(self, dy: Any, x: Any, window: Window) -> Any:
        dx, geometry = empty(x.shape, x.dtype), conv2d.geometry_of(window, x.shape[3])
        one = compute_dtype(x.dtype)(1)
        launch(pooling.max_pool_gradient_kernel, dx.size, dy.memory, x.memory, geometry, dx.memory, dx.size, one)
        return dx

    def average_pool_forward(self, x: Any, window: Window) -> Any:
        y, geometry = empty((len(x), *window.places, x.shape[3]), x.dtype), conv2d.geometry_of(window, x.shape[3])
        launch(pooling.average_pool_kernel, y.size, x.memory, geometry, y.memory, y.size, compute_dtype(x.dtype)(1))
        return y

    def average_pool_backward(self, dy: Any, window: Window) -> Any:
        dx, geometry = empty((len(dy), *window.image, dy.shape[3]), dy.dtype), conv2d.geometry_of(window, dy.shape[3])
        launch(pooling.average_pool_gradient_kernel, dx.size, dy.memory, geometry, dx.memory, dx.size, compute_dtype(dy.dtype)(1))
        return dx
