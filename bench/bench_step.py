"""Training steps with new masks each, loss and update included, and the libraries' own training loops."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Architecture, Fit, Step
from fastdrop.benchmark.peers.base import AbstractPeer

LARGE, SMALL = Architecture(), Architecture((64, 64, 64, 10))


def cases(quick: bool) -> list[AbstractCase]:
    if quick:
        return [Step(SMALL, 32), Fit(SMALL, 32)]
    return [Step(LARGE, 128), Fit(LARGE, 128), Step(SMALL, 32), Fit(SMALL, 32, steps=500)]


def test_step(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
