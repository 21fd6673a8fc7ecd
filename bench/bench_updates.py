"""Optimisers' updates of one weight, and norms."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, ColumnNorms, SumOfSquares, Update
from fastdrop.benchmark.cases.updates import ARRAYS
from fastdrop.benchmark.peers.base import AbstractPeer

WIDTHS, QUICK_WIDTHS = (256, 1024), (64,)


def cases(quick: bool) -> list[AbstractCase]:
    widths = QUICK_WIDTHS if quick else WIDTHS
    updates = [Update(rule, width, width) for rule in ARRAYS for width in widths]
    aged = [Update(rule, widths[-1], widths[-1], dead=0.25) for rule in ("momentum", "adam")]
    norms = [case for width in widths for case in (SumOfSquares(width * width), ColumnNorms(width, width))]
    return [*updates, *aged, *norms]


def test_updates(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
