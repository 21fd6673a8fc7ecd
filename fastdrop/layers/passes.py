"""A pass through layers: what they are told, and how a chain of steps runs forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from fastdrop._types import Array
from fastdrop.backends.base import Update
from fastdrop.layers.parameter import Parameter
from fastdrop.rng import Key

if TYPE_CHECKING:
    from fastdrop.layers.base import AbstractLayer

Updates: TypeAlias = dict[Parameter, Update]
"""Updates that a backward pass may apply instead of adding a gradient: it removes those that it has applied."""

InnerBackward: TypeAlias = Callable[[Array, bool, Updates], Array | None]
"""``dx = backward(dy, want_dx, updates)``: adds into the parameters' gradients, or applies their updates.

It may return None where dx is not wanted. Where there is nothing to train, it is only called for dx.
"""


class Source(NamedTuple):
    """Where a layer's masks come from: its stream, and the layers whose seed may hold, nearest first, the root last."""

    stream: int
    lineage: tuple[AbstractLayer, ...]


class Pass(NamedTuple):
    """One pass through a network: what its layers need to know beside x. `keep`: a backward pass may follow."""

    training: bool
    step: int
    row_offset: int
    sources: Mapping[AbstractLayer, Source]
    keep: bool

    def key(self, layer: AbstractLayer) -> Key:
        """Return the key of a layer's mask in this pass."""
        stream, lineage = self.sources[layer]
        return Key(seed_of(lineage), stream, self.step)


def seed_of(lineage: Sequence[AbstractLayer]) -> int:
    """Return the nearest seed that was given, else the root's."""
    for layer in lineage:
        if layer.own_seed is not None:
            return layer.own_seed
    return lineage[-1].seed


class Step(Protocol):
    """A layer, or several done as one."""

    @property
    def trainable(self) -> bool:
        """Whether a gradient of any parameter is wanted."""

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward) for a C-contiguous x of the parameters' dtype and a shape that fits."""

    def frozen(self) -> Step:
        """Return a step that infers what this one infers now, whatever is changed later; it has no backward pass."""


def run_chain(steps: Sequence[Step], x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
    """Run steps one after the other; the backward pass ends where nobody before needs a gradient."""
    backwards: list[InnerBackward] = []
    for step in steps:
        x, step_backward = step.apply(x, pass_)
        if pass_.keep:
            backwards.append(step_backward)

    def backward(dy: Array, want_dx: bool, updates: Updates) -> Array | None:
        first = 0 if want_dx else next((i for i, step in enumerate(steps) if step.trainable), len(steps))
        dx: Array | None = dy
        for i in range(len(backwards) - 1, first - 1, -1):
            assert dx is not None
            dx = backwards[i](dx, want_dx or i > first, updates)
        return dx if want_dx else None

    return x, backward
