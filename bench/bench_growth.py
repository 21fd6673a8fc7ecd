"""Training steps against batch and width, odd sizes included: does time grow as the work does?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastdrop.benchmark.cases import AbstractCase, Architecture, Step
from fastdrop.benchmark.peers import select
from fastdrop.benchmark.peers.base import AbstractPeer

BATCHES = (1, 2, 5, 6, 7, 13, 16, 32, 64, 65, 128, 129, 256, 512, 1000, 1024, 1025, 2048, 4096)
WIDTHS = (64, 65, 128, 129, 256, 512, 1000, 1024, 1025, 2048, 4096)
FIXED_BATCH, FIXED_WIDTH = 128, 512
PEERS = ("fastdrop", "NumPy", "torch eager", "JAX")
"""The others compile for seconds at every size, or have no dropout. With one thread it is this library alone."""


def of_width(width: int) -> Architecture:
    return Architecture((784, width, width, 10))


def cases(quick: bool) -> list[AbstractCase]:
    if quick:
        return [Step(of_width(FIXED_WIDTH), batch) for batch in (1, 7)]
    by_batch = [Step(of_width(FIXED_WIDTH), batch) for batch in BATCHES]
    return [*by_batch, *(Step(of_width(width), FIXED_BATCH) for width in WIDTHS if width != FIXED_WIDTH)]


def test_growth(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer, threads: int) -> None:
    if library.name not in PEERS or (threads == 1 and library.name != select.OWN):
        pytest.skip(f"{library.name} is left out")
    measure(case, library)
