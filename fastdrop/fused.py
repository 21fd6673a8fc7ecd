"""The fused dense layer as one operation, and the work that it skips where rows share a mask.

`dense` computes ``y = drop_out(act(drop_in(x) @ weight + bias))``. Units that a mask drops for many rows at once are not
computed: x and y become `Kept` matrices, an array of the kept columns for each group of rows, and the products, forward and
backward, are those of compact matrices. A `Kept` y goes into the next layer as it is.

The idea is batchwise dropout: Graham, Reizenstein, Robinson, "Efficient batchwise dropout training using submatrices", 2015
(arXiv:1502.02478).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from fastdrop._types import ActivationKind, Array, Indices, MaskKind, Shape
from fastdrop.backends.base import AbstractBackend, Units, Update
from fastdrop.mask import BoundMask

COPYING_ROWS = 30
"""Rows whose products cost as much as a copy of the weight."""

LEAST_ROWS = 16
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

DenseBackward: TypeAlias = Callable[[Any, bool, Gradient, Gradient, bool], Any]
"""``dx = backward(dy, want_dx, dweight, dbias, accumulate)``; dx and dy are `Kept` exactly where x and y are."""


def can_skip(mask: BoundMask | None) -> TypeGuard[BoundMask]:
    """Return whether many rows share the units that a mask drops."""
    if mask is None or mask.kind not in (MaskKind.BERNOULLI, MaskKind.FIXED_COUNT):
        return False
    return mask.group_rows >= LEAST_ROWS and mask.shared


def skips(*masks: BoundMask | None, copying_rows: int | None = None) -> bool:
    """Return whether it is worth the copy of the weight to leave out what one of the masks drops; then all do that can.

    That depends on rates, on how many rows share a mask row and are there, and on nothing else. Products of `copying_rows`, by
    default COPYING_ROWS, cost as much as a copy.
    """
    least = COPYING_ROWS if copying_rows is None else copying_rows
    return any(can_skip(mask) and mask.group_rows * (1 - mask.keep_prob) >= least * mask.keep_prob for mask in masks)


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

    def backward(dy: Matrix, want_dx: bool, dweight: Gradient, dbias: Gradient, accumulate: bool) -> Matrix | None:
        assert not isinstance(dy, Kept)
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
        for low, high, x_group, y_group in cuts:
            columns = self._y_units.kept[y_group]
            mask_in = None if input_mask is None else input_mask.part(low, high)
            mask_out = output_mask
            if output_mask is not None:
                mask_out = output_mask.part(low, high) if columns is None else output_mask.factor(high - low, len(columns))
            xs = self._kept_x.rows(x_group, low, high)
            b = bias if bias is None or columns is None else backend.take(bias, columns)
            copy = self._weight_of(x_group, y_group) if keep else None
            w = backend.pack_weight(weight, self._kept_x.units.kept[x_group], columns) if copy is None else copy
            y, z = backend.dense_forward(xs, w, b, activation, mask_in, mask_out, keep)
            if len(cuts) > MOST_COPIES:
                copy = None
            self._segments.append(_Segment(low, high, x_group, y_group, xs, copy, (mask_in, mask_out), y, z))
        parts = _joined(backend, [each.y_group for each in self._segments], [each.y for each in self._segments])
        self.y: Matrix = Kept(parts, self._y_units, (rows, weight.shape[1])) if can_skip(output_mask) else parts[0]

    def backward(self, dy: Matrix, want_dx: bool, dweight: Gradient, dbias: Gradient, accumulate: bool) -> Matrix | None:
        """Deliver the gradients of the parameters, and return dx where it is wanted."""
        dy, dxs = dy if isinstance(dy, Kept) else _as_kept(dy), []
        single = len(self._segments) == 1
        weight_total = Total(self._backend, dweight, accumulate, single)
        bias_total = Total(self._backend, dbias, accumulate, single)
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
    """The gradient of a parameter, of which the segments' gradients are some rows and columns each."""

    def __init__(self, backend: AbstractBackend, target: Gradient, accumulate: bool, single: bool) -> None:
        self._backend = backend
        self._update: Update | None = target if isinstance(target, Update) else None
        self._sum: Array | None = None if isinstance(target, Update) else target
        if self._sum is not None and not accumulate:
            self._sum.fill(0)
        if self._update is not None and not single:
            self._sum = backend.zeros(self._update.value.shape, self._update.value.dtype)

    def add(self, gradient: Array | None, rows: Indices | None, columns: Indices | None) -> None:
        """Add a segment's gradient; a single one is the update's own."""
        if self._sum is not None and gradient is not None:
            self._backend.scatter(_as_matrix(gradient), rows, columns, _as_matrix(self._sum), accumulate=True)
        elif self._update is not None and gradient is not None:
            self._backend.update(self._update, gradient, rows, columns)

    def finish(self) -> None:
        """Update by the sum, if that is still to be done."""
        if self._update is not None and self._sum is not None:
            self._backend.update(self._update, self._sum)


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


def _as_matrix(array: Array) -> Array:
    """Return a vector as a matrix of one row, and a matrix as it is."""
    return array if array.ndim == 2 else array.reshape(1, -1)


def _joined(backend: AbstractBackend, groups: Sequence[int], pieces: Sequence[Array]) -> tuple[Array, ...]:
    """Return the pieces of each group, which follow each other, as one array."""
    together = [[piece for at, piece in zip(groups, pieces, strict=True) if at == group] for group in range(groups[-1] + 1)]
    return tuple(backend.concatenate(each) for each in together)
