"""The softmax of rows, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Softmax
from fastdrop.benchmark.peers.base import AbstractPeer

SHAPES, QUICK_SHAPES = ((128, 10), (128, 1000), (4096, 10)), ((128, 10),)
"""(rows, classes)"""


def cases(quick: bool) -> list[AbstractCase]:
    return [Softmax(*shape, backward) for shape in (QUICK_SHAPES if quick else SHAPES) for backward in (False, True)]


def test_softmax(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
