"""Activations, softmax and losses: operations whose cost is that of their elements. Checked against the reference."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastdrop._types import ActivationKind, Array, Shape
from fastdrop.backends.select import backend
from fastdrop.benchmark.cases.base import AbstractCase, Prepare, check_close

LOSS_ERROR = 1e-5
"""Allowed relative error of a loss, a float32 sum in other libraries."""


def normal(*shape: int, dtype: str, number: int = 0) -> Array:
    """Return normal numbers, the same every time."""
    return np.random.default_rng(number).normal(size=shape).astype(dtype)


class AbstractElementwise(AbstractCase):
    """What the cases share that are a function, or, with `backward`, its derivative times a gradient."""

    backward: bool
    dtype: str

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """Shape of all arrays."""

    @property
    def nbytes(self) -> float:
        return float((3 if self.backward else 2) * self.x.nbytes)

    @cached_property
    def x(self) -> Array:
        """The input."""
        return normal(*self.shape, dtype=self.dtype)

    @cached_property
    def dy(self) -> Array:
        """The gradient."""
        return normal(*self.shape, dtype=self.dtype, number=1)


@dataclass(frozen=True)
class Activation(AbstractElementwise):
    """act(x), or, with `backward`, dy * act'(x)."""

    operation = "activation"

    name: str
    elements: int
    backward: bool = False
    dtype: str = "float32"

    @property
    def shape(self) -> Shape:
        return (self.elements,)

    @property
    def kind(self) -> ActivationKind:
        """The activation."""
        return ActivationKind[self.name.upper()]

    def verify(self, prepare: Prepare) -> None:
        """The result is the reference's, to rounding."""
        operations, x, dy = backend("reference"), self.x.astype(np.float64), self.dy.astype(np.float64)
        expected = (
            operations.activation_backward(dy, x, self.kind) if self.backward else operations.activation_forward(x, self.kind)
        )
        check_close(prepare(0)(), expected, self.dtype)


@dataclass(frozen=True)
class Softmax(AbstractElementwise):
    """The softmax of each row, or, with `backward`, the gradient of its input from the output's."""

    operation = "softmax"

    rows: int
    classes: int
    backward: bool = False
    dtype: str = "float32"

    @property
    def shape(self) -> Shape:
        return self.rows, self.classes

    @cached_property
    def y(self) -> Array:
        """The output, for the backward pass."""
        return backend("reference").softmax_forward(self.x)

    def verify(self, prepare: Prepare) -> None:
        """The result is the reference's, to rounding."""
        operations, y = backend("reference"), self.y.astype(np.float64)
        check_close(prepare(0)(), operations.softmax_backward(self.dy.astype(np.float64), y) if self.backward else y, self.dtype)


@dataclass(frozen=True)
class Loss(AbstractCase):
    """A loss and its gradient, from class numbers (mean_squared_error: from targets)."""

    operation = "loss"

    name: str
    rows: int
    classes: int
    dtype: str = "float32"

    @property
    def nbytes(self) -> float:
        return float(2 * self.outputs.nbytes + self.labels.nbytes)

    @cached_property
    def outputs(self) -> Array:
        """Outputs of a network: logits, or probabilities for categorical_cross_entropy."""
        x = normal(self.rows, self.classes, dtype=self.dtype)
        return backend("reference").softmax_forward(x) if self.name == "categorical_cross_entropy" else x

    @cached_property
    def labels(self) -> Array:
        """Class numbers, or targets."""
        if self.name == "mean_squared_error":
            return normal(self.rows, self.classes, dtype=self.dtype, number=1)
        return np.random.default_rng(1).integers(0, self.classes, self.rows)

    def verify(self, prepare: Prepare) -> None:
        """Loss and gradient are the reference's, to rounding."""
        value, gradient = prepare(0)()
        labels = self.labels if self.labels.ndim == 1 else self.labels.astype(np.float64)
        compute = getattr(backend("reference"), self.name)
        wanted_value, wanted_gradient = compute(self.outputs.astype(np.float64), labels, None, float(self.rows))
        np.testing.assert_allclose(float(value), wanted_value, rtol=LOSS_ERROR)
        check_close(gradient, wanted_gradient, self.dtype)
