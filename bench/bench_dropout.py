"""Elementwise dropout, forward and backward, and the floor below it: a scaled copy."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Dropout, ScaledCopy
from fastdrop.benchmark.peers.base import AbstractPeer

LOG2_SIZES, QUICK_LOG2_SIZES = (16, 20, 24), (16,)
RATES = (0.1, 0.5)


def cases(quick: bool) -> list[AbstractCase]:
    sizes = [1 << log2 for log2 in (QUICK_LOG2_SIZES if quick else LOG2_SIZES)]
    dropouts = [Dropout(size, rate, backward) for size in sizes for rate in RATES for backward in (False, True)]
    return [*dropouts, *(ScaledCopy(size) for size in sizes)]


def test_dropout(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
