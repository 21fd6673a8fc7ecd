"""Inference, alone and from two Python threads at once."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Architecture, Inference, Serving
from fastdrop.benchmark.peers.base import AbstractPeer

LARGE, SMALL = Architecture(), Architecture((64, 64, 64, 10))
BATCHES = (1, 64)


def cases(quick: bool) -> list[AbstractCase]:
    architecture = SMALL if quick else LARGE
    alone = [Inference(architecture, batch) for batch in BATCHES]
    return [*alone, *(Serving(architecture, batch, callers) for batch in BATCHES for callers in (1, 2))]


def test_inference(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
