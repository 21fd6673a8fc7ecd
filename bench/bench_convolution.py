"""The convolutions of a small network for CIFAR-10, and its training step."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Convolution, ImageFit, ImageNetwork, ImageStep
from fastdrop.benchmark.cases.dense import KINDS
from fastdrop.benchmark.peers.base import AbstractPeer

NETWORK, QUICK_NETWORK = ImageNetwork(), ImageNetwork(8, 1, (8, 8), (16,))
SHAPES = ((128, 32, 3, 64), (128, 16, 64, 128), (128, 8, 128, 256))
"""(batch, extent, channels, filters): the layers of the network."""
QUICK_SHAPES = ((4, 8, 3, 8),)
ORDERS = ("NHWC", "NCHW")


def cases(quick: bool) -> list[AbstractCase]:
    network, batch = (QUICK_NETWORK, 16) if quick else (NETWORK, 128)
    shapes = QUICK_SHAPES if quick else SHAPES
    found: list[AbstractCase] = [
        Convolution(*shape, order=order, kind=kind) for shape in shapes for kind in KINDS for order in ORDERS
    ]
    found += [ImageStep(network, batch, order) for order in ORDERS]
    return [*found, ImageFit(network, batch)]


def test_convolution(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
