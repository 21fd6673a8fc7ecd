"""Losses with their gradients."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Loss
from fastdrop.benchmark.peers.base import AbstractPeer

NAMES = ("softmax_cross_entropy", "sigmoid_cross_entropy", "categorical_cross_entropy", "mean_squared_error")
SHAPES, QUICK_SHAPES = ((128, 10), (128, 1000), (4096, 10)), ((128, 10),)
"""(rows, classes)"""


def cases(quick: bool) -> list[AbstractCase]:
    return [Loss(name, *shape) for name in NAMES for shape in (QUICK_SHAPES if quick else SHAPES)]


def test_losses(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
