"""Random words, and the decisions that masks are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastdrop.benchmark.cases.base import DEVIATIONS, AbstractCase, Prepare
from fastdrop.mask import Mask
from fastdrop.rng import Key

KEY = Key(1, 0, 0)


@dataclass(frozen=True)
class Words(AbstractCase):
    """Random 32-bit words of a counter-based generator."""

    operation = "words"

    count: int

    @property
    def nbytes(self) -> float:
        return 4.0 * self.count

    def verify(self, prepare: Prepare) -> None:
        """Words of 32 bits, whose mean is that of the uniform distribution, but for chance."""
        found = np.asarray(prepare(0)())
        assert found.dtype == np.uint32
        assert found.shape == (self.count,)
        deviation = 2**32 / np.sqrt(12 * self.count)
        assert abs(found.mean() - (2**32 - 1) / 2) < DEVIATIONS * deviation


@dataclass(frozen=True)
class Decisions(AbstractCase):
    """The decision bits of a mask, packed."""

    operation = "decisions"

    rows: int
    columns: int
    rate: float

    @property
    def nbytes(self) -> float:
        return self.rows * self.columns / 8

    def mask(self, number: int) -> Mask:
        """Return the mask of a round."""
        return Mask(self.rate, KEY.at(number))

    def verify(self, prepare: Prepare) -> None:
        """The bits are the contract's."""
        bits = np.unpackbits(np.asarray(prepare(0)()).view(np.uint8), axis=1, bitorder="little")[:, : self.columns]
        np.testing.assert_array_equal(bits.astype(bool), self.mask(0).to_array((self.rows, self.columns)))
