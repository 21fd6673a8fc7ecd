"""A pass through layers: what they are told, and how a chain of steps runs forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from fastdrop import _validate
from fastdrop._types import MONTE_CARLO_DOMAIN, Array, Shape
from fastdrop.backends.operands import Update
from fastdrop.layers.parameter import Parameter
from fastdrop.mask import MAX_ELEMENTS, BoundMask, Mask
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


class MonteCarlo(NamedTuple):
    """So many passes of Monte-Carlo inference at once: x holds the rows of each, one pass after the other.

    `seed` stands in place of the root's, `shared_rows`, unless None, in place of the masks' own.
    """

    passes: int
    seed: int
    shared_rows: int | str | None


class Pass(NamedTuple):
    """One pass through a network: what its layers need to know beside x. `keep`: a backward pass may follow.

    With `monte_carlo` it is several passes, in training as far as dropout goes, and `step` is the number of the first.
    """

    training: bool
    step: int
    row_offset: int
    sources: Mapping[AbstractLayer, Source]
    keep: bool
    monte_carlo: MonteCarlo | None = None

    def key(self, layer: AbstractLayer) -> Key:
        """Return the key of a layer's mask in this pass, the first one of several."""
        stream, lineage = self.sources[layer]
        return Key(seed_of(lineage, None if self.monte_carlo is None else self.monte_carlo.seed), stream, self.step)

    def bind(self, mask: Mask, shape: Shape, *, as_matrix: bool) -> BoundMask:
        """Return a layer's mask bound to an x of that shape; its key is still that of `mask`."""
        moved = mask.varied(row_offset=self.row_offset)
        if self.monte_carlo is None:
            return moved.bind(shape, as_matrix=as_matrix)
        passes, _, shared_rows = self.monte_carlo
        if shared_rows is not None:
            moved = moved.varied(shared_rows=shared_rows)
        return moved.bind((shape[0] // passes, *shape[1:]), as_matrix=as_matrix, domain_base=MONTE_CARLO_DOMAIN, passes=passes)

    def check_elements(self, rows: int, row_size: int) -> None:
        """Raise unless the random stream reaches over all rows, of which each takes so many elements."""
        if (self.row_offset + rows) * row_size > MAX_ELEMENTS:
            _validate.fail_value("row_offset", f"such that all elements are below 2**58 (rows of {row_size})", self.row_offset)

    def without_rows(self) -> Pass:
        """Return the same pass for a mask that has nothing to do with the rows of a batch."""
        passes = None if self.monte_carlo is None else self.monte_carlo._replace(shared_rows=None)
        return self._replace(row_offset=0, monte_carlo=passes)

    def each(self, x: Array) -> Iterator[tuple[Array, Pass]]:
        """Yield (rows of x, pass) for each of the passes."""
        if self.monte_carlo is None:
            yield x, self
            return
        one, passes = self.monte_carlo._replace(passes=1), self.monte_carlo.passes
        count = len(x) // passes
        for i in range(passes):
            yield x[i * count : (i + 1) * count], self._replace(step=self.step + i, monte_carlo=one)


def seed_of(lineage: Sequence[AbstractLayer], root_seed: int | None = None) -> int:
    """Return the nearest seed that was given, else the root's, in whose place `root_seed` stands unless None."""
    *below, root = lineage
    given = (layer.own_seed for layer in below if layer.own_seed is not None)
    return next(given, root.seed if root_seed is None else root_seed)


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
