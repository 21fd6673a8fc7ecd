"""`MaxPool2D`, `AvgPool2D`, `GlobalAveragePool2D`: channels of images, made smaller."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from fastdrop import _validate
from fastdrop._types import Array, Shape
from fastdrop.backends.operands import Unpooled
from fastdrop.backends.select import backend_of
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.passes import InnerBackward, Pass, Step, Updates
from fastdrop.window import PADDINGS, Pair, Window, pair, window_of

AXES = "height, width, channels"


class AbstractPool2D(AbstractLayer):
    """Make one element of those in each window, channel by channel, of images x (rows, height, width, channels).

    Parameters
    ----------
    pool_size : int or (int, int)
        Height and width of the window.
    strides : int or (int, int), optional
        Distance of the windows; by default as large as they are.
    padding : "valid" or "same"
        Windows within the image alone; or so many that height and width of y are ``ceil(extent / stride)``. What lies outside of
        the image is never chosen and never counted.
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range; at the first call, x that does not fit.
    """

    def __init__(
        self,
        pool_size: int | tuple[int, int] = 2,
        strides: int | tuple[int, int] | None = None,
        padding: str = "valid",
        *,
        input_shape: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.pool_size = pair("pool_size", pool_size)
        self.strides = self.pool_size if strides is None else pair("strides", strides)
        self.padding = _validate.choice("padding", padding, PADDINGS)

    @property
    def leaves_most_out(self) -> bool:
        """Whether most elements of x are in one window, or none, of at least four."""
        return math.prod(self.pool_size) >= 4 and all(step >= n for step, n in zip(self.strides, self.pool_size, strict=True))

    def window(self, image: Pair) -> Window:
        """Return the window on images of that height and width."""
        return window_of(image, self.pool_size, self.strides, (1, 1), self.padding, f"layer {self.name!r}")

    def _output_shape(self, input_shape: Shape) -> Shape:
        _validate.row_axes(self.name, AXES, input_shape)
        return (*self.window((input_shape[0], input_shape[1])).places, input_shape[2])

    @abstractmethod
    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward)."""


class MaxPool2D(AbstractPool2D):
    """Take the largest element of each window; arguments of `AbstractPool2D`. Of equal ones, the first gets the gradient.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.MaxPool2D(2)(np.arange(8, dtype="float32").reshape(1, 2, 4, 1))[0, :, :, 0]
    array([[5., 7.]], dtype=float32)
    """

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:  # noqa: ARG002
        """Return (y, backward)."""
        window, backend = self.window((x.shape[1], x.shape[2])), backend_of(x)
        return backend.max_pool_forward(x, window), lambda dy, _want_dx, _updates: backend.max_pool_backward(dy, x, window)


@dataclass(frozen=True, slots=True)
class LateMaxPool2D:
    """`MaxPool2D` behind a step that works out its gradient itself, in pieces."""

    pool: MaxPool2D

    @property
    def trainable(self) -> bool:
        """Whether a gradient of any parameter is wanted."""
        return self.pool.trainable

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward), which returns an `Unpooled`."""
        window, (y, _) = self.pool.window((x.shape[1], x.shape[2])), self.pool.apply(x, pass_)

        def backward(dy: Array, want_dx: bool, updates: Updates) -> Any:  # noqa: ARG001
            return Unpooled(dy, x, window)

        return y, backward

    def frozen(self) -> Step:
        """Return what infers the same."""
        return self.pool.frozen()


class AvgPool2D(AbstractPool2D):
    """Take the mean of each window; arguments of `AbstractPool2D`.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.AvgPool2D(2)(np.arange(8, dtype="float32").reshape(1, 2, 4, 1))[0, :, :, 0]
    array([[2.5, 4.5]], dtype=float32)
    """

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:  # noqa: ARG002
        """Return (y, backward)."""
        window, backend = self.window((x.shape[1], x.shape[2])), backend_of(x)
        return backend.average_pool_forward(x, window), lambda dy, _want_dx, _updates: backend.average_pool_backward(dy, window)


class GlobalAveragePool2D(AbstractLayer):
    """Take the mean of each channel over height and width: y is (rows, channels).

    Parameters
    ----------
    keepdims : bool
        Leave height and width as axes of extent 1.
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind; at the first call, x that does not fit, or without elements.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.GlobalAveragePool2D()(np.arange(8, dtype="float32").reshape(1, 2, 2, 2))
    array([[3., 4.]], dtype=float32)
    """

    def __init__(self, keepdims: bool = False, *, input_shape: Any = None, name: str | None = None) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.keepdims = _validate.boolean("keepdims", keepdims)

    def _output_shape(self, input_shape: Shape) -> Shape:
        _validate.row_axes(self.name, AXES, input_shape)
        if 0 in input_shape[:2]:
            _validate.fail_value("x", f"of height and width at least 1 for layer {self.name!r}", input_shape)
        return (1, 1, input_shape[2]) if self.keepdims else input_shape[2:]

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:  # noqa: ARG002
        """Return (y, backward)."""
        image, backend = (x.shape[1], x.shape[2]), backend_of(x)
        window = window_of(image, image, image, (1, 1), "valid", f"layer {self.name!r}")
        y = backend.average_pool_forward(x, window)
        shape = (len(x), *self._output_shape(x.shape[1:]))

        def backward(dy: Array, _want_dx: bool, _updates: object) -> Array:
            return backend.average_pool_backward(dy.reshape(y.shape), window)

        return y.reshape(shape), backward
