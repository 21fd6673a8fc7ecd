"""Updates of a parameter, and norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fastdrop._types import Array
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM, AbstractCase, Prepare, check_close

ARRAYS = {"sgd": 3, "momentum": 5, "adam": 7}
"""Arrays that a rule reads or writes, those that it does both with twice."""
VERIFIED_UPDATES = 3
DECAY_STEPS = 1000
"""Without a gradient the state of each rule is subnormal after them, unless something is done about it."""
SUM_ERROR = 1e-4
"""Allowed relative error of a sum, which other libraries add up in float32."""
MAX_NORM = 1.0
DTYPE = "float32"


@dataclass(frozen=True)
class Update(AbstractCase):
    """One step of an optimiser on one parameter, in place, with a constant gradient; returns the parameter.

    `dead` is the part of the columns whose gradient is 0 from the second step on, as that of units that are never active again.
    """

    operation = "update"

    rule: str
    rows: int
    columns: int
    dead: float = 0.0

    @property
    def nbytes(self) -> float:
        return float(ARRAYS[self.rule] * self.value.nbytes)

    @property
    def dead_columns(self) -> int:
        """Number of the first columns that are dead."""
        return round(self.dead * self.columns)

    @cached_property
    def value(self) -> Array:
        """The starting value."""
        return np.random.default_rng(0).normal(size=(self.rows, self.columns)).astype(DTYPE)

    @cached_property
    def grad(self) -> Array:
        """The gradient: no element is near 0."""
        return np.random.default_rng(1).choice([-1.0, 1.0], (self.rows, self.columns)).astype(DTYPE)

    def age(self, update: Callable[[], Any], value: Array, grad: Array) -> None:
        """Where columns are dead, do a step with the whole gradient, and then so many that their state has decayed."""
        if self.dead:
            update()
            grad[:, : self.dead_columns] = 0
            for _ in range(DECAY_STEPS):
                update()
            value[...] = self.value

    def verify(self, prepare: Prepare) -> None:
        """Updates with one gradient give what a formula says; dead columns stay."""
        results = [np.array(prepare(number)()) for number in range(VERIFIED_UPDATES)]
        dead, first = self.dead_columns, 1 + (1 + DECAY_STEPS if self.dead else 0)
        moved = {
            "sgd": VERIFIED_UPDATES,
            "momentum": sum((1 - MOMENTUM**step) / (1 - MOMENTUM) for step in range(first, first + VERIFIED_UPDATES)),
            "adam": VERIFIED_UPDATES,  # a gradient of one sign and size moves it by the learning rate
        }[self.rule]
        wanted = self.value - np.float64(LEARNING_RATE) * moved * self.grad
        check_close(results[-1][:, dead:], wanted[:, dead:], DTYPE)
        np.testing.assert_array_equal(results[-1][:, :dead], results[0][:, :dead])


@dataclass(frozen=True)
class SumOfSquares(AbstractCase):
    """The sum of the squares of all elements."""

    operation = "sum_of_squares"

    elements: int

    @property
    def nbytes(self) -> float:
        return float(self.x.nbytes)

    @cached_property
    def x(self) -> Array:
        """The elements."""
        return np.random.default_rng(0).normal(size=self.elements).astype(DTYPE)

    def verify(self, prepare: Prepare) -> None:
        """The sum is that of binary64."""
        np.testing.assert_allclose(float(prepare(0)()), np.square(self.x, dtype=np.float64).sum(), rtol=SUM_ERROR)


@dataclass(frozen=True)
class ColumnNorms(AbstractCase):
    """Limiting the norms of a weight's columns in place; none is above the limit after the first round."""

    operation = "column_norms"

    rows: int
    columns: int

    @property
    def nbytes(self) -> float:
        return float(self.weight.nbytes)

    @cached_property
    def weight(self) -> Array:
        """A weight whose norms are far above the limit."""
        return np.random.default_rng(0).normal(size=(self.rows, self.columns)).astype(DTYPE)

    def verify(self, prepare: Prepare) -> None:
        """All norms are the limit, to rounding."""
        weight = np.asarray(prepare(0)())
        check_close(weight, self.weight * (MAX_NORM / np.linalg.norm(self.weight.astype(np.float64), axis=0)), DTYPE)
