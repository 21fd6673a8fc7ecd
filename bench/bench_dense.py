"""The products of a dense layer alone, and the whole layer: product, bias, activation and dropout in one."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop.benchmark.cases import AbstractCase, Dense, Product
from fastdrop.benchmark.cases.dense import KINDS
from fastdrop.benchmark.peers.base import AbstractPeer

SHAPES = (
    (64, 784, 512),
    (128, 784, 1024),
    (256, 2048, 2048),
    (128, 3072, 512),
    (128, 1024, 4096),
    (1024, 1024, 1024),
    (128, 1024, 1024),
)
"""(batch, fan_in, fan_out); the last one also with other activations."""
QUICK_SHAPES = ((128, 256, 256),)
RATES = (0.1, 0.5)
ORDERS = ("C", "F")
"""How the weight lies in memory: some libraries have it transposed, and which is faster is not known beforehand."""


def cases(quick: bool) -> list[AbstractCase]:
    shapes = QUICK_SHAPES if quick else SHAPES
    products = [
        Product(*shape, order=order, dtype=dtype, kind=kind)
        for dtype, orders in (("float32", ORDERS), ("float64", ORDERS[:1]))
        for shape in shapes
        for kind in KINDS
        for order in orders
    ]
    layers = [
        Dense(*shape, order=order, rate=rate, backward=backward)
        for shape in shapes
        for rate in RATES
        for backward in (False, True)
        for order in ORDERS
    ]
    activated = [
        Dense(*shapes[-1], activation=activation, backward=backward)
        for activation in ("tanh", "gelu")
        for backward in (False, True)
    ]
    return [*products, *layers, *activated]


def test_dense(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
