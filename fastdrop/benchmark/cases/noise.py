"""Multiplicative Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastdrop.benchmark.cases.base import DEVIATIONS, Prepare
from fastdrop.benchmark.cases.dropout import AbstractArrayCase


@dataclass(frozen=True)
class GaussianDropout(AbstractArrayCase):
    """x * (1 + stddev * n), or, with `backward`, a gradient times the noise of a forward pass that is not timed."""

    operation = "gaussian_dropout"

    elements: int
    rate: float
    backward: bool = False
    dtype: str = "float32"

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise."""
        return math.sqrt(self.rate / (1 - self.rate))

    def verify(self, prepare: Prepare) -> None:
        """The noise has mean 0, the variance, and the fourth moment of a normal, but for chance."""
        y = np.asarray(prepare(0)())
        assert y.dtype == self.dtype, f"{y.dtype} in place of {self.dtype}"
        n = (y.astype(np.float64) / self.x - 1) / self.stddev
        for power, moment, variance in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
            assert abs(float(np.mean(n**power)) - moment) <= DEVIATIONS * math.sqrt(variance / self.elements)
