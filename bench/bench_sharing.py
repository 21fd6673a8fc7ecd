"""What skipping saves where rows share masks: a layer, training steps, Monte-Carlo passes; next to masks of each row's own."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Architecture, SharedDense, SharedMonteCarlo, SharedStep, Step
from fastdrop.benchmark.peers.base import AbstractPeer

LARGE, SMALL = Architecture(), Architecture((64, 64, 64, 10))
SHARING = (1, 32, "batch")
RATES = tuple(rate / 10 for rate in range(9))
"""Of all layers alike, for the picture of time against rate."""
SWEPT = (784, 1024, 1024, 10)


def cases(quick: bool) -> list[AbstractCase]:
    if quick:
        return [SharedDense(64, 128, 128), SharedStep(SMALL, 64), SharedMonteCarlo(SMALL, 64)]
    layers = [SharedDense(128, 1024, 1024, shared_rows=sharing) for sharing in SHARING]
    steps = [SharedStep(LARGE, 128, sharing, momentum) for momentum in (0.0, 0.9) for sharing in SHARING]
    swept = [SharedStep(Architecture(SWEPT, (rate,) * 3), 128, sharing) for rate in RATES for sharing in (1, "batch")]
    return [*layers, *steps, *swept, Step(LARGE, 128), SharedMonteCarlo(LARGE, 64)]


def test_sharing(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
