"""Random words, and packed decisions."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Decisions, Words
from fastdrop.benchmark.peers.base import AbstractPeer

ROWS, COLUMNS = 128, 1024
RATES = (0.1, 0.5)


def cases(quick: bool) -> list[AbstractCase]:
    return [Words(1 << 12 if quick else 1 << 18), *(Decisions(16 if quick else ROWS, COLUMNS, rate) for rate in RATES)]


def test_masks(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
