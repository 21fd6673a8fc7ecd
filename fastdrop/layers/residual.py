"""`Residual`: a chain of layers beside the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._types import Array, Shape
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.chain import AbstractChain, opened
from fastdrop.layers.drop_path import DropPath
from fastdrop.layers.passes import InnerBackward, Pass, Step, Updates, run_chain


@dataclass(frozen=True, slots=True)
class ResidualStep:
    """``y = x + f(x)``, f the steps one after the other."""

    steps: tuple[Step, ...]
    gate: DropPath | None = None
    """The last layer of f, if it is one that may drop all of f."""

    @property
    def trainable(self) -> bool:
        """Whether a gradient of any parameter is wanted."""
        return any(step.trainable for step in self.steps)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward); ``dx = dy + df(dy)``. Where all of f is dropped, it is not computed."""
        if self.gate is not None and self.gate.drops_all(len(x), pass_):
            return x + 0.0, lambda dy, _want_dx, _updates: dy
        fx, inner = run_chain(self.steps, x, pass_)

        def backward(dy: Array, want_dx: bool, updates: Updates) -> Array | None:
            dfx = inner(dy, want_dx, updates)
            return None if dfx is None else dy + dfx

        return x + fx, backward

    def frozen(self) -> ResidualStep:
        """Return the same of frozen steps."""
        return ResidualStep(tuple(step.frozen() for step in self.steps))


class Residual(AbstractChain):
    """Compute ``y = x + f(x)``, f the inner layers one after the other; the shapes must agree.

    Parameters
    ----------
    layers : sequence of at least one layer
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional

    Raises
    ------
    TypeError, ValueError: no layers; the same layer twice; at the first call, inner layers that change the shape.

    Notes
    -----
    Source: He et al. 2016, equation 1.
    """

    opens: ClassVar[bool] = False

    def __init__(self, layers: Sequence[AbstractLayer], *, input_shape: Any = None, name: str | None = None) -> None:
        super().__init__(layers, input_shape=input_shape, name=name)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward), layer by layer."""
        return ResidualStep(self.layers, self.gate).apply(x, pass_)

    @property
    def gate(self) -> DropPath | None:
        """The last layer inside, nested networks opened, if it is a DropPath."""
        last = list(opened(self.layers))[-1]
        return last if isinstance(last, DropPath) else None

    def _output_shape(self, input_shape: Shape) -> Shape:
        shape = super()._output_shape(input_shape)
        if shape != input_shape:
            _validate.fail_value("layers", f"such that rows of shape {input_shape} keep it in a Residual", shape)
        return shape
