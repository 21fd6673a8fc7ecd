"""What sharing masks saves: steps, a layer, and Monte-Carlo passes in which dropped units are skipped."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fastdrop._types import ActivationKind, Shape
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import as_matrix
from fastdrop.backends.select import backend
from fastdrop.benchmark.cases.base import MOMENTUM, Prepare, check_close
from fastdrop.benchmark.cases.dense import AbstractLayerCase
from fastdrop.benchmark.cases.network import MonteCarlo, Step
from fastdrop.fused import Kept, expand
from fastdrop.mask import Mask
from fastdrop.rng import Key


@dataclass(frozen=True)
class SharedStep(Step):
    """A training step in which `shared_rows` rows share a mask; 1 is dropout as usual. Momentum 0 is plain SGD."""

    operation = "shared_step"

    shared_rows: int | str = "batch"
    momentum: float = MOMENTUM

    @property
    def flops(self) -> float:
        """Operations on kept units, in the mean, where rows share masks."""
        if self.shared_rows == 1:
            return super().flops
        kept = [1 - rate for rate in self.architecture.rates] + [1.0]
        expected = [units * share for units, share in zip(self.architecture.units, kept, strict=True)]
        products = [2 * self.batch * fan_in * fan_out for fan_in, fan_out in pairwise(expected)]
        return 3 * sum(products) - products[0]


@dataclass(frozen=True)
class SharedDense(AbstractLayerCase):
    """Forward and backward pass of a relu layer with a layer before and one behind: masks on x and y, shared by `shared_rows`.

    Returns (y, dx, dweight, dbias). Where units are left out, x and dy are given, and all results returned, as what is kept of
    them: a `Kept` matrix, or a list of the parts of a gradient.
    """

    operation = "shared_dense"

    rate: float = 0.5
    shared_rows: int | str = "batch"

    @property
    def flops(self) -> float:
        return 3 * self.product_flops * (1.0 if self.shared_rows == 1 else (1 - self.rate) ** 2)

    def masks(self, number: int) -> tuple[Mask, Mask]:
        """Return the round's masks of x and y."""
        first, last = (Mask(self.rate, Key(0, stream, number), shared_rows=self.shared_rows) for stream in range(2))
        return first, last

    def verify(self, prepare: Prepare) -> None:
        """The results are those of whole matrices in binary64, to rounding."""
        x, weight, bias, dy = (array.astype(np.float64) for array in self.sets[0])
        keep_x, keep_y = (mask.to_array(array.shape) for mask, array in zip(self.masks(0), (x, dy), strict=True))
        scale, reference = 1 / (1 - self.rate), backend("reference")
        x = np.where(keep_x, x * scale, 0)
        z = x @ weight + bias
        dz = reference.activation_backward(np.where(keep_y, dy * scale, 0), z, ActivationKind.RELU)
        dx = np.where(keep_x, dz @ weight.T * (scale if self.shared_rows == 1 else 1), 0)  # a kept x was scaled before
        expected = np.where(keep_y, np.maximum(z, 0) * scale, 0), dx, x.T @ dz, dz.sum(axis=0)
        for result, wanted in zip(prepare(0)(), expected, strict=True):
            check_close(_whole(reference, result, wanted.shape), wanted, self.dtype)


def _whole(reference: AbstractBackend, result: Any, shape: Shape) -> Any:
    """Return the array of that shape of which only a part may be given."""
    if isinstance(result, Kept):
        return expand(reference, result)
    if isinstance(result, list):
        total = np.zeros(shape, result[0].gradient.dtype)
        reference.add_parts(result, as_matrix(total), accumulate=True)
        return total
    return result


@dataclass(frozen=True)
class SharedMonteCarlo(MonteCarlo):
    """Monte-Carlo passes in each of which all rows share a mask."""

    operation = "shared_monte_carlo"
