"""Monte-Carlo dropout: means over 100 passes of a network."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Architecture, MonteCarlo
from fastdrop.benchmark.peers.base import AbstractPeer

LARGE, SMALL = Architecture(), Architecture((64, 64, 64, 10))
BATCHES = (1, 64)


def cases(quick: bool) -> list[AbstractCase]:
    return [MonteCarlo(SMALL if quick else LARGE, batch) for batch in BATCHES]


def test_monte_carlo(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
