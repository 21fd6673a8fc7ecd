"""The fused dense layer as one operation, and the work that it skips where rows share a mask.

`dense` computes ``y = drop_out(act(drop_in(x) @ weight + bias))``. Units that a mask drops for many rows at once are not
computed: x and y become `Kept` matrices, an array of the kept columns for each group of rows, and the products, forward and
backward, are those of compact matrices. A `Kept` y goes into the next layer as it is.

The idea is batchwise dropout: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015
(arXiv:1502.02478).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from fastdrop._types import ActivationKind, Array, Indices, MaskKind, Shape
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import PARTS_AT_ONCE, Part, Units, Update, as_matrix
from fastdrop.mask import BoundMask

COPYING_ROWS = 60
"""Rows whose products cost as much as the copies of the weight and of its gradient."""

LEAST_ROWS = 32
"""Fewest rows that share a mask for its units to be left out: of fewer, too many small products would be made."""
MOST_COPIES = 4
"""Segments up to which the copies of the weight are kept for the backward pass."""


class Kept(NamedTuple):
    """An array of which only the units are there that shared masks keep; the others, of its last axis, are +0.0.

    Attributes
    ----------
    parts : tuple of arrays, shapes (rows of the group, kept columns)
        Of the array as a matrix: its last axis are the columns.
    units : Units
        Of that matrix.
    shape : tuple of int
        Of the whole array.
    """

    parts: tuple[Array, ...]
    units: Units
    shape: Shape

    def reshape(self, shape: Shape) -> Kept:
        """Return the same as an array of another shape with the same last axis."""
        return self._replace(shape=shape)

    def rows(self, group: int, low: int, high: int) -> Array:
        """Return rows low .. high - 1 of the matrix, all in that group."""
        first = self.units.bounds[group]
        return self.parts[group][low - first : high - first]


Matrix: TypeAlias = Array | Kept
Gradient: TypeAlias = Array | Update | None
"""Where a parameter's gradient goes, see `backends.base`."""
Destination: TypeAlias = Gradient | list[Part]
"""The same, or a list: where units are left out, it takes the parts of the gradient as they are."""

DenseBackward: TypeAlias = Callable[[Any, bool, Destination, Destination, bool], Any]
"""``dx = backward(dy, want_dx, dweight, dbias, accumulate)``; dx and dy are `Kept` exactly where x and y are."""


def can_skip(mask: BoundMask | None) -> TypeGuard[BoundMask]:
    """Return whether many rows share the units that a mask drops."""
    if mask is None or mask.kind not in (MaskKind.BERNOULLI, MaskKind.FIXED_COUNT):
        return False
    return mask.group_rows >= LEAST_ROWS and mask.shared


def skips(*masks: BoundMask | None, copying_rows: int | None = None) -> bool:
    """Return whether it is worth the copies of the weight to leave out what the masks drop; then all do that can.

    That depends on rates, on how many rows share a mask row and are there, and on nothing else. Products of `copying_rows`, by
    default COPYING_ROWS, cost as much as the copies; both are of what is kept.
    """
    least = COPYING_ROWS if copying_rows is None else copying_rows
    able = [mask for mask in masks if can_skip(mask)]
    kept = math.prod(mask.keep_prob for mask in able)
    return bool(able) and min(mask.group_rows for mask in able) * (1 - kept) >= least * kept


def compact(backend: AbstractBackend, x: Array, units: Units, scale: float = 1.0) -> Kept:
    """Return what is kept of an array, scaled."""
    matrix, cut = x.reshape(units.bounds[-1], x.shape[-1]), zip(pairwise(units.bounds), units.kept, strict=True)
    return Kept(tuple(backend.gather(matrix[low:high], None, kept, scale) for (low, high), kept in cut), units, x.shape)


def expand(backend: AbstractBackend, x: Kept, scale: float = 1.0) -> Array:
    """Return the whole array, scaled."""
    out = backend.zeros((x.units.bounds[-1], x.shape[-1]), x.parts[0].dtype)
    for (low, high), kept, part in zip(pairwise(x.units.bounds), x.units.kept, x.parts, strict=True):
        backend.scatter(part, None, kept, out[low:high], False, scale)
    return out.reshape(x.shape)


def dense(
    backend: AbstractBackend,
    x: Matrix,
    weight: Array,
    bias: Array | None,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    keep: bool,
    out: Array | None = None,
) -> tuple[Matrix, DenseBackward]:
    """Return (y, backward); matrices as in `backends.base`. y may be `Kept` where rows share the output mask.

    A `Kept` x has no `input_mask`. With `keep` False there will be no backward pass. Where nothing is skipped, `out` may be y.
    """
    if isinstance(x, Kept) or skips(input_mask, output_mask):
        layer = _CompactDense(backend, x, weight, bias, activation, input_mask, output_mask, keep)
        return layer.y, layer.backward
    y, z = backend.dense_forward(x, weight, bias, activation, input_mask, output_mask, keep, out)

    def backward(dy: Matrix, want_dx: bool, dweight: Destination, dbias: Destination, accumulate: bool) -> Matrix | None:
        assert not isinstance(dy, Kept)
        assert not isinstance(dweight, list)
        assert not isinstance(dbias, list)
        return backend.dense_backward(
            dy, x, weight, y, z, activation, input_mask, output_mask, want_dx, dweight, dbias, accumulate
        )

    return y, backward


class _Segment(NamedTuple):
    """Rows low .. high - 1, which lie in one group of x and in one of y: the operands of a fused layer of its own."""

    low: int
    high: int
    x_group: int
    y_group: int
    x: Array
    weight: Array | None
    masks: tuple[BoundMask | None, BoundMask | None]
    y: Array
    z: Array | None


class _CompactDense:
    """One pass of `dense` on compact matrices, segment by segment of rows."""

    def __init__(
        self,
        backend: AbstractBackend,
        x: Matrix,
        weight: Array,
        bias: Array | None,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep: bool,
    ) -> None:
        self._backend, self._weight, self._activation, self._x = backend, weight, activation, x
        self._dx_scale: float | None = None
        if isinstance(x, Kept):
            self._kept_x = x
        elif can_skip(input_mask):
            self._dx_scale = input_mask.scale
            self._kept_x, input_mask = compact(backend, x, backend.units(input_mask), input_mask.scale), None
        else:
            self._kept_x = _as_kept(x)
        rows = self._kept_x.units.bounds[-1]
        self._y_units = backend.units(output_mask) if can_skip(output_mask) else Units((0, rows), (None,))
        cuts = list(common_groups(self._kept_x.units, self._y_units))
        self._segments: list[_Segment] = []
        ys: Sequence[Array]
        if keep or input_mask is not None or not (output_mask is None or can_skip(output_mask)):
            ys = self._forward(cuts, bias, input_mask, output_mask, keep)
        else:
            xs = [self._kept_x.rows(x_group, low, high) for low, high, x_group, _ in cuts]
            rows_of, columns_of = [self._kept_x.units.kept[i] for *_, i, _ in cuts], [self._y_units.kept[j] for *_, j in cuts]
            ys = backend.dense_forward_groups(xs, weight, bias, activation, output_mask, rows_of, columns_of)
        parts = _joined(backend, [y_group for *_, y_group in cuts], ys)
        self.y: Matrix = Kept(parts, self._y_units, (rows, weight.shape[1])) if can_skip(output_mask) else parts[0]

    def _forward(
        self,
        cuts: Sequence[tuple[int, int, int, int]],
        bias: Array | None,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep: bool,
    ) -> list[Array]:
        """Make the segments, and return their ys."""
        for low, high, x_group, y_group in cuts:
            columns = self._y_units.kept[y_group]
            mask_in = None if input_mask is None else input_mask.part(low, high)
            mask_out = output_mask
            if output_mask is not None:
                mask_out = output_mask.part(low, high) if columns is None else output_mask.factor(high - low, len(columns))
            xs = self._kept_x.rows(x_group, low, high)
            b = bias if bias is None or columns is None else self._backend.take(bias, columns)
            copy = self._weight_of(x_group, y_group) if keep else None
            w = self._backend.pack_weight(self._weight, self._kept_x.units.kept[x_group], columns) if copy is None else copy
            y, z = self._backend.dense_forward(xs, w, b, self._activation, mask_in, mask_out, keep)
            if len(cuts) > MOST_COPIES:
                copy = None
            self._segments.append(_Segment(low, high, x_group, y_group, xs, copy, (mask_in, mask_out), y, z))
        return [each.y for each in self._segments]

    def backward(self, dy: Matrix, want_dx: bool, dweight: Destination, dbias: Destination, accumulate: bool) -> Matrix | None:
        """Deliver the gradients of the parameters, and return dx where it is wanted."""
        dy, dxs = dy if isinstance(dy, Kept) else _as_kept(dy), []
        weight_total, bias_total = Total(self._backend, dweight, accumulate), Total(self._backend, dbias, accumulate)
        for low, high, x_group, y_group, x, copy, masks, y, z in self._segments:
            w = self._weight_of(x_group, y_group) if copy is None else copy
            dw = None if dweight is None else self._backend.empty(w.shape, w.dtype)
            db = None if dbias is None else self._backend.empty((w.shape[1],), w.dtype)
            dys = dy.rows(y_group, low, high)
            dx = self._backend.dense_backward(dys, x, w, y, z, self._activation, *masks, want_dx, dw, db, accumulate=False)
            columns = self._y_units.kept[y_group]
            weight_total.add(dw, self._kept_x.units.kept[x_group], columns)
            bias_total.add(db, None, columns)
            if dx is not None:
                dxs.append(dx)
        weight_total.finish()
        bias_total.finish()
        if not want_dx:
            return None
        kept_dx = self._kept_x._replace(parts=_joined(self._backend, [each.x_group for each in self._segments], dxs))
        if isinstance(self._x, Kept):
            return kept_dx
        return kept_dx.parts[0] if self._dx_scale is None else expand(self._backend, kept_dx, self._dx_scale)

    def _weight_of(self, x_group: int, y_group: int) -> Array:
        """Return the weight between two groups of units."""
        rows, columns = self._kept_x.units.kept[x_group], self._y_units.kept[y_group]
        return self._weight if rows is None and columns is None else self._backend.gather(self._weight, rows, columns)


class Total:
    """The gradient of a parameter, which comes in parts."""

    def __init__(self, backend: AbstractBackend, target: Destination, accumulate: bool) -> None:
        self._backend, self._target = backend, target
        self._parts: list[Part] = []
        self._sum: Array | None = None if isinstance(target, Update | list) else target
        self._adds = accumulate and self._sum is not None

    def add(self, gradient: Array | None, rows: Indices | None, columns: Indices | None) -> None:
        """Add the gradient, if there is one, of some rows and columns."""
        if gradient is None:
            return
        if len(self._parts) == PARTS_AT_ONCE and not isinstance(self._target, list):
            self._add_up()
        self._parts.append(Part(as_matrix(gradient), rows, columns))

    def finish(self) -> None:
        """Deliver what was added."""
        if isinstance(self._target, list):
            self._target.extend(self._parts)
        elif isinstance(self._target, Update) and self._sum is None:
            self._backend.update_parts(self._target, self._parts)
        elif self._target is not None:
            total = self._add_up()
            if isinstance(self._target, Update):
                self._backend.update(self._target, total)

    def _add_up(self) -> Array:
        """Add the parts to the sum, and return it."""
        if self._sum is None:
            assert isinstance(self._target, Update)
            self._sum = self._backend.empty(self._target.value.shape, self._target.value.dtype)
        self._backend.add_parts(self._parts, as_matrix(self._sum), self._adds)
        self._parts.clear()
        self._adds = True
        return self._sum


def _as_kept(x: Array) -> Kept:
    """Return a whole matrix as one of which everything is kept."""
    return Kept((x,), Units((0, len(x)), (None,)), x.shape)


def common_groups(x: Units, y: Units) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first row, last row, group of x, group of y) of all rows that share both."""
    i = j = 0
    for low, high in pairwise(sorted({*x.bounds, *y.bounds})):
        i += x.bounds[i + 1] <= low
        j += y.bounds[j + 1] <= low
        yield low, high, i, j


def _joined(backend: AbstractBackend, groups: Sequence[int], pieces: Sequence[Array]) -> tuple[Array, ...]:
    """Return the pieces of each group, which follow each other, as one array."""
    together = [[piece for at, piece in zip(groups, pieces, strict=True) if at == group] for group in range(groups[-1] + 1)]
    return tuple(backend.concatenate(each) for each in together)
