"""Activations and their gradients, in cache and from memory."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop._types import ActivationKind
from fastdrop.benchmark.cases import AbstractCase, Activation
from fastdrop.benchmark.peers.base import AbstractPeer

NAMES = [kind.name.lower() for kind in ActivationKind if kind not in (ActivationKind.LINEAR, ActivationKind.HEAVISIDE)]
CACHED, LARGE = 1 << 16, 1 << 22


def cases(quick: bool) -> list[AbstractCase]:
    cached = [
        Activation(name, CACHED, backward, dtype)
        for dtype in (("float32",) if quick else ("float32", "float64"))
        for name in NAMES
        for backward in (False, True)
    ]
    return cached if quick else [*cached, *(Activation(name, LARGE) for name in ("relu", "gelu"))]


def test_activations(measure: Callable[..., None], case: AbstractCase, library: AbstractPeer) -> None:
    measure(case, library)
