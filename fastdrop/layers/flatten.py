"""`Flatten`: each row as a vector."""

from __future__ import annotations

import math
from typing import Any

from fastdrop._types import Array, Shape
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.passes import InnerBackward, Pass


class Flatten(AbstractLayer):
    """Turn x of shape (rows, a, b, ...) into (rows, a * b * ...), in C order, without a copy; (rows,) into (rows, 1).

    Parameters
    ----------
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional
    """

    def __init__(self, *, input_shape: Any = None, name: str | None = None) -> None:
        super().__init__(input_shape=input_shape, name=name)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:  # noqa: ARG002
        """Return (y, backward), a view of x."""
        y = x.reshape(len(x), *self._output_shape(x.shape[1:]))
        return y, lambda dy, _want_dx, _updates: dy.reshape(x.shape)

    def _output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)
