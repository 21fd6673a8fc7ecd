"""Bare matrix products as a dense layer needs them, and the whole layer: product, bias, activation, dropout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from fastdrop._types import ActivationKind, Array
from fastdrop.backends.select import backend
from fastdrop.benchmark.cases.base import AbstractCase, Prepare, check_close, check_dropped, rotation

KINDS = ("forward", "dx", "dweight")


class Operands(NamedTuple):
    """Arrays of a dense layer: x (batch, fan_in), weight (fan_in, fan_out), bias (fan_out,), dy (batch, fan_out)."""

    x: Array
    weight: Array
    bias: Array
    dy: Array


@dataclass(frozen=True)
class AbstractLayerCase(AbstractCase):
    """What products and layers share: shapes and operands.

    With `order` "F" the weight and its gradient lie in memory as (fan_out, fan_in), as some libraries have them.
    """

    batch: int
    fan_in: int
    fan_out: int
    order: Literal["C", "F"] = "C"
    dtype: str = "float32"

    @property
    def product_flops(self) -> float:
        """Operations of one product; all three have as many."""
        return 2.0 * self.batch * self.fan_in * self.fan_out

    @property
    def nbytes(self) -> float:
        sizes = self.batch * self.fan_in + self.fan_in * self.fan_out + self.batch * self.fan_out
        return float(sizes * np.dtype(self.dtype).itemsize)

    @cached_property
    def sets(self) -> list[Operands]:
        """Operands that are taken in turn, round by round."""
        return [self._operands(number) for number in range(rotation(self.nbytes))]

    def _operands(self, number: int) -> Operands:
        rng = np.random.default_rng(number)
        shapes = (self.batch, self.fan_in), (self.fan_in, self.fan_out), (self.fan_out,), (self.batch, self.fan_out)
        x, weight, bias, dy = (rng.uniform(-1, 1, shape).astype(self.dtype) for shape in shapes)
        weight *= np.sqrt(3 / self.fan_in)  # products of about 1, where activations are neither linear nor saturated
        return Operands(x, np.require(weight, requirements=[self.order]), bias, dy)


@dataclass(frozen=True)
class Product(AbstractLayerCase):
    """One product: "forward" x @ weight, "dx" dy @ weight.T, "dweight" x.T @ dy."""

    operation = "product"

    kind: str = "forward"

    @property
    def flops(self) -> float:
        return self.product_flops

    def factors(self, number: int) -> tuple[Array, Array, Array]:
        """Return the round's two factors, and an array for their product."""
        x, weight, _, dy = self.sets[number % len(self.sets)]
        a, b = {"forward": (x, weight), "dx": (dy, weight.T), "dweight": (x.T, dy)}[self.kind]
        return (
            a,
            b,
            np.empty((len(a), b.shape[1]), self.dtype, order="F" if self.kind == "dweight" and self.order == "F" else "C"),
        )

    def verify(self, prepare: Prepare) -> None:
        """The results are those of binary64, to rounding."""
        for number in range(min(2, len(self.sets))):
            a, b, _ = self.factors(number)
            check_close(prepare(number)(), a.astype(np.float64) @ b.astype(np.float64), self.dtype)


@dataclass(frozen=True)
class Dense(AbstractLayerCase):
    """A fused layer, forward, or, with `backward`, forward and backward: (y, dx, dweight, dbias)."""

    operation = "dense"

    activation: str = "relu"
    rate: float = 0.5
    backward: bool = False

    @property
    def flops(self) -> float:
        return self.product_flops * (3 if self.backward else 1)

    def verify(self, prepare: Prepare) -> None:
        """Kept elements are right, the right share is dropped, and the gradients belong to the mask that y shows."""
        x, weight, bias, dy = (array.astype(np.float64) for array in self.sets[0])
        reference, kind = backend("reference"), ActivationKind[self.activation.upper()]
        z = x @ weight + bias
        scaled = reference.activation_forward(z, kind) / (1 - self.rate)
        result = prepare(0)()
        y = np.asarray(result[0] if self.backward else result)
        kept = y != 0
        check_close(y, np.where(kept, scaled, 0), self.dtype)
        alive = np.abs(scaled) > 1e-3 * np.abs(scaled).max()
        check_dropped(int(np.count_nonzero(alive & ~kept)), int(np.count_nonzero(alive)), self.rate)
        if self.backward:
            dz = reference.activation_backward(np.where(kept, dy / (1 - self.rate), 0), z, kind)
            self._check_gradients(result[1:], (dz @ weight.T, x.T @ dz, dz.sum(axis=0)))

    def _check_gradients(self, gradients: tuple[Any, ...], expected: tuple[Array, ...]) -> None:
        for gradient, wanted in zip(gradients, expected, strict=True):
            check_close(gradient, wanted, self.dtype)
