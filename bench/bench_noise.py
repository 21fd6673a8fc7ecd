"""Multiplicative Gaussian noise, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, GaussianDropout
from fastdrop.benchmark.peers.base import AbstractPeer

LOG2_SIZES, QUICK_LOG2_SIZES = (16, 20, 24), (16,)
RATE = 0.3


def cases(quick: bool) -> list[AbstractCase]:
    sizes = [1 << log2 for log2 in (QUICK_LOG2_SIZES if quick else LOG2_SIZES)]
    return [GaussianDropout(size, RATE, backward) for size in sizes for backward in (False, True)]


def test_noise(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
