"""What all cases share, and the checks that they are made of.

For a case a library gives a function of the round's number (`Prepare`): it makes ready what lies beside the work itself and
returns the work, which is timed: new random numbers every round, the end awaited, the result returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from fastdrop._types import Array

Work: TypeAlias = Callable[[], Any]
Prepare: TypeAlias = Callable[[int], Work]

LEARNING_RATE, MOMENTUM = 0.01, 0.9
"""Of all optimisers."""

RELATIVE_ERROR = {"float32": 1e-5, "float64": 1e-13}
"""Allowed error, in units of the largest element: some ten times that of a product of the largest size measured."""
DEVIATIONS = 6
"""Allowed deviation of a share of zeros from its expectation, in standard deviations."""
ROTATED_BYTES = 1 << 24
"""Operands are taken in turn from sets of so many bytes together: more than a core's own caches hold."""
MAX_ROTATION = 8

SAMPLE_NANOSECONDS = 1.5e8
"""All rounds of a case take about so long, within the bounds below."""
MIN_ROUNDS, MAX_ROUNDS = 8, 200
WARM_UP_NANOSECONDS = 2.5e8
"""Work before the rounds that are timed: until every thread has a core of its own, which takes up to 0.1 s after a pause."""
MIN_WARM_UP_ROUNDS = 3
FLOPS_PER_NANOSECOND, BYTES_PER_NANOSECOND, CALL_NANOSECONDS = 40, 4, 20_000
"""Speeds of a slow library, from which the number of rounds follows: it is the same for all libraries."""


@dataclass(frozen=True)
class AbstractCase(ABC):
    """One piece of work that libraries are asked to do. Final subclasses: a file of `cases` each."""

    operation: ClassVar[str]
    """Name of the method of a library that does it."""

    @property
    def repeats(self) -> int:
        """How many units of the work (steps, calls) a round holds."""
        return 1

    @property
    def flops(self) -> float:
        """Floating-point operations of the matrix products of a unit."""
        return 0.0

    @property
    @abstractmethod
    def nbytes(self) -> float:
        """Bytes that a unit must read and write, each array once."""

    @abstractmethod
    def verify(self, prepare: Prepare) -> None:
        """Raise an AssertionError unless the work does what the case asks for."""

    @property
    def rounds(self) -> int:
        """Rounds to time: fixed by the case alone."""
        return int(np.clip(SAMPLE_NANOSECONDS / self._round_nanoseconds, MIN_ROUNDS, MAX_ROUNDS))

    @property
    def warm_up_rounds(self) -> int:
        """Rounds before those: fixed by the case alone, too."""
        return int(np.clip(WARM_UP_NANOSECONDS / self._round_nanoseconds, MIN_WARM_UP_ROUNDS, MAX_ROUNDS))

    @property
    def _round_nanoseconds(self) -> float:
        unit = self.flops / FLOPS_PER_NANOSECOND + self.nbytes / BYTES_PER_NANOSECOND + CALL_NANOSECONDS
        return unit * self.repeats

    def facts(self) -> dict[str, Any]:
        """Return what describes the case in a table."""
        return {"operation": self.operation, **asdict(self), "flops": self.flops, "bytes": self.nbytes}


def rotation(nbytes: float) -> int:
    """Return how many sets of operands of that size are taken in turn."""
    return int(np.clip(ROTATED_BYTES / nbytes, 1, MAX_ROTATION))


def check_close(result: Any, expected: Array, dtype: str) -> None:
    """Check that a result has the expected dtype and, to rounding, values; elements of any size next to the largest."""
    array = np.asarray(result)
    assert array.dtype == dtype, f"{array.dtype} in place of {dtype}"
    np.testing.assert_allclose(array, expected, rtol=0, atol=RELATIVE_ERROR[dtype] * float(np.abs(expected).max(initial=0)))


def check_dropped(dropped: int, elements: int, rate: float) -> None:
    """Check that the share of dropped elements is the rate, but for chance."""
    assert abs(dropped - elements * rate) <= DEVIATIONS * np.sqrt(elements * rate * (1 - rate)) + 1
