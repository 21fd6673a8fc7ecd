"""`Activation`: a nonlinearity as a layer of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastdrop import activations
from fastdrop._types import ActivationKind, Array
from fastdrop.backends.select import backend_of
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.passes import InnerBackward, Pass, Updates


class Activation(AbstractLayer):
    """Apply an activation to every element; "softmax" over the last axis.

    Parameters
    ----------
    activation : None, a name or a function of `fastdrop.activations`
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional
    """

    def __init__(
        self, activation: str | Callable[..., Array] | None, *, input_shape: Any = None, name: str | None = None
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.activation = activations.name_of(activation)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:  # noqa: ARG002
        """Return (y, backward); x itself for "linear"."""
        backend = backend_of(x)
        kind = activations.get(self.activation)
        if kind == ActivationKind.LINEAR:
            return x, lambda dy, _want_dx, _updates: dy
        if isinstance(kind, ActivationKind):
            y = backend.activation_forward(x, kind)
            return y, lambda dy, _want_dx, _updates: backend.activation_backward(dy, x, kind)
        shape = (x.size // max(1, x.shape[-1]), x.shape[-1])
        y = backend.softmax_forward(x.reshape(shape))

        def softmax_backward(dy: Array, _want_dx: bool, _updates: Updates) -> Array:
            return backend.softmax_backward(dy.reshape(shape), y).reshape(x.shape)

        return y.reshape(x.shape), softmax_backward
