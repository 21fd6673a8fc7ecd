"""Elementwise dropout, and the copy that is its floor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fastdrop._types import Array
from fastdrop.benchmark.cases.base import AbstractCase, Prepare, check_close, check_dropped


class AbstractArrayCase(AbstractCase):
    """What the cases of one array share."""

    elements: int
    dtype: str

    @property
    def nbytes(self) -> float:
        return 2.0 * self.elements * np.dtype(self.dtype).itemsize

    @cached_property
    def x(self) -> Array:
        """The array, or the gradient: no element is 0."""
        return np.random.default_rng(0).uniform(0.5, 1.5, self.elements).astype(self.dtype)


@dataclass(frozen=True)
class Dropout(AbstractArrayCase):
    """Dropout of an array, or, with `backward`, of a gradient by the mask of a forward pass that is not timed."""

    operation = "dropout"

    elements: int
    rate: float
    backward: bool = False
    dtype: str = "float32"

    def verify(self, prepare: Prepare) -> None:
        """Every element is 0 or x / (1 - rate), and the right share of them is 0."""
        y = np.asarray(prepare(0)())
        kept = y != 0
        check_close(y[kept], self.x[kept] / (1 - self.rate), self.dtype)
        check_dropped(int(np.count_nonzero(~kept)), self.elements, self.rate)


@dataclass(frozen=True)
class ScaledCopy(AbstractArrayCase):
    """Twice an array into another one: what reading and writing alone cost."""

    operation = "scaled_copy"

    elements: int
    dtype: str = "float32"

    def verify(self, prepare: Prepare) -> None:
        """The result is exact."""
        np.testing.assert_array_equal(prepare(0)(), 2 * self.x)
