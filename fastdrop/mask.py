"""`Mask`: the description of a dropout mask, and `BoundMask`: the same, bound to the shape of an array.

Source: the mask contract, version 1 (README, "The mask contract").
"""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fastdrop import _validate, rng
from fastdrop._types import BoolArray, Domain, MaskKind, Shape
from fastdrop.errors import AllDroppedWarning
from fastdrop.rng import TWO_POW_32, Key

MAX_ELEMENTS = 1 << 58
TIE_BITS = 24
WORD_BITS = 32
BATCH = 0
"""Value of `BoundMask.group` for ``shared_rows="batch"``."""
NO_OFFSETS: Final = np.zeros(1, dtype=np.int64)
"""Rows of a matrix that are rows of the array."""


def threshold_of(rate: float) -> int:
    """Return ``round_half_even(rate * 2**32)``: P(drop) is exactly threshold / 2**32."""
    return round(rate * TWO_POW_32)


def bernoulli_scale(threshold: int) -> float:
    """Return ``2**32 / (2**32 - threshold)`` in binary64; 0.0 where everything is dropped."""
    return 0.0 if threshold == TWO_POW_32 else TWO_POW_32 / (TWO_POW_32 - threshold)


@dataclass(eq=False, slots=True)
class BoundMask:
    """A mask bound to an array that is seen as a matrix of `rows` x `columns`: what every backend operation takes.

    The matrix holds the rows of `passes` passes, one pass after the other: matrix row i is row ``i % pass_rows`` of pass
    ``i // pass_rows`` (pass_rows = rows // passes), whose step is that many after the key's. Row i of a pass belongs to array
    row ``r = i // inner`` (inner = len(offsets)); its mask row is ``m = (row_offset + r) // group``, or 0 for group 0; column j
    is mask element ``m * row_size + offsets[i % inner] + j * column_step``.

    Attributes
    ----------
    kind : MaskKind
    key : Key
    threshold : int
        ``hi << 24 | lo`` for Bernoulli masks; the number of dropped units a mask row for fixed counts.
    scale : float
        What a kept element is multiplied by (binary64; rounded to the compute dtype by the operation).
    rows, columns, row_size, row_offset, group, column_step : int
    offsets : int64 array, shape (inner,)
    domain_base : int
        0, or 8 for Monte-Carlo inference.
    passes : int
        1, or as many passes of Monte-Carlo inference as are done at once.
    origin : BoundMask, optional
        That which `at` made it from.
    prepared : dict
        What a backend, by its name, has made of it, for the next operation with the same mask.
    """

    kind: MaskKind
    key: Key
    threshold: int
    scale: float
    rows: int
    columns: int
    row_size: int
    row_offset: int
    group: int
    column_step: int
    offsets: npt.NDArray[np.int64]
    domain_base: int = 0
    passes: int = 1
    origin: BoundMask | None = field(default=None, init=False, repr=False)
    prepared: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def at(self, key: Key) -> BoundMask:
        """Return the same mask at another key."""
        mask = BoundMask(
            self.kind,
            key,
            self.threshold,
            self.scale,
            self.rows,
            self.columns,
            self.row_size,
            self.row_offset,
            self.group,
            self.column_step,
            self.offsets,
            self.domain_base,
            self.passes,
        )
        mask.origin = self
        return mask

    def part(self, low: int, high: int) -> BoundMask:
        """Return the mask of matrix rows low .. high - 1, which begin and end with rows of the array, within one pass."""
        number, first = divmod(low, self.pass_rows)
        row_offset = self.row_offset + first // len(self.offsets)
        return replace(self, key=self.key.at(self.key.step + number), rows=high - low, row_offset=row_offset, passes=1)

    def of_rows(self, low: int, high: int, count: int) -> BoundMask:
        """Return the mask of rows low .. high - 1 of an array of `count` rows: itself for all of them, else within one pass."""
        each = self.rows // max(1, count)
        return self if high - low == count else self.part(low * each, high * each)

    def factor(self, rows: int, columns: int) -> BoundMask:
        """Return what multiplies all elements of a matrix by the scale."""
        return BoundMask(MaskKind.KEEP_ALL, self.key, 0, self.scale, rows, columns, columns, 0, BATCH, 1, NO_OFFSETS)

    @property
    def keep_prob(self) -> float:
        """The probability that an element is kept, where the mask is random."""
        return 1 - self.threshold / (self.row_size if self.kind == MaskKind.FIXED_COUNT else TWO_POW_32)

    @property
    def shared(self) -> bool:
        """Whether all columns of a matrix row are elements of their own, the same ones for all rows that share a mask row."""
        return self.column_step == 1 and (self.offsets is NO_OFFSETS or not self.offsets.any())

    @property
    def group_rows(self) -> int:
        """Matrix rows that share a mask row."""
        return self.pass_rows if self.group == BATCH else min(self.pass_rows, self.group * len(self.offsets))

    def groups(self) -> tuple[int, ...]:
        """Return the first matrix row of each group that shares a mask row, and at the end the number of rows."""
        starts = [0]
        if self.group != BATCH:
            inner = len(self.offsets)
            first = -self.row_offset % self.group or self.group
            starts.extend(range(first * inner, self.pass_rows, self.group * inner))
        return *(number * self.pass_rows + start for number in range(self.passes) for start in starts), self.rows

    @property
    def pass_rows(self) -> int:
        """Matrix rows of a pass."""
        return self.rows // self.passes

    def place(self, row: int) -> tuple[Key, int]:
        """Return (key, mask row) of a matrix row."""
        if self.passes == 1:
            return self.key, self.mask_row(row)
        number, row = divmod(row, self.pass_rows)
        return self.key.at(self.key.step + number), self.mask_row(row)

    def mask_row(self, row: int) -> int:
        """Return the mask row of a row of a pass."""
        return 0 if self.group == BATCH else (self.row_offset + row // len(self.offsets)) // self.group

    def keep_row(self, row: int, first: int, count: int) -> BoolArray:
        """Return the decisions for columns first .. first + count - 1 of a matrix row, in plain NumPy."""
        if self.kind in (MaskKind.KEEP_ALL, MaskKind.DROP_ALL):
            return np.full(count, self.kind == MaskKind.KEEP_ALL)
        key, mask_row = self.place(row)
        positions = int(self.offsets[row % len(self.offsets)]) + (first + np.arange(count)) * self.column_step
        if self.kind == MaskKind.FIXED_COUNT:
            return fixed_count_keep(key, mask_row, self.row_size, self.threshold, self.domain_base)[positions]
        if count == 0:
            return np.empty(0, dtype=np.bool_)
        low, high = int(positions[0]), int(positions[-1])
        keep = bernoulli_keep(key, mask_row * self.row_size + low, high - low + 1, self.threshold, self.domain_base)
        return keep[positions - low]

    def keep_rectangle(self, rows: tuple[int, int], columns: tuple[int, int]) -> BoolArray:
        """Return the decisions of the rectangle rows[0]:rows[1] x columns[0]:columns[1], in plain NumPy."""
        whole = self.row_size == len(self.offsets) * self.columns
        if self.kind == MaskKind.BERNOULLI and self.group == 1 and whole and self.passes == 1:
            # Matrix rows lie one after the other in the stream.
            first, count = self.row_offset * self.row_size + rows[0] * self.columns, (rows[1] - rows[0]) * self.columns
            together = bernoulli_keep(self.key, first, count, self.threshold, self.domain_base)
            return together.reshape(rows[1] - rows[0], self.columns)[:, columns[0] : columns[1]]
        keep = np.empty((rows[1] - rows[0], columns[1] - columns[0]), dtype=np.bool_)
        previous: tuple[Key, int, int] | None = None
        for i, row in enumerate(range(*rows)):
            place = (*self.place(row), int(self.offsets[row % len(self.offsets)]))
            keep[i] = keep[i - 1] if place == previous else self.keep_row(row, columns[0], keep.shape[1])
            previous = place
        return keep


def bernoulli_keep(key: Key, first: int, count: int, threshold: int, domain_base: int = 0) -> BoolArray:
    """Return the Bernoulli decisions of mask elements first .. first + count - 1: True means kept.

    With ``hi = threshold >> 24``, ``lo = threshold & 0xffffff``: dropped if the element's byte is below hi, kept if above;
    if equal, dropped if and only if the top 24 bits of its tie word are below lo.
    """
    hi, lo = threshold >> TIE_BITS, threshold & ((1 << TIE_BITS) - 1)
    u = rng.stream_bytes(key, Domain.DECISION_BYTES + domain_base, first, count)
    keep = u > hi
    ties = np.flatnonzero(u == hi)
    if len(ties):
        at = ties.astype(np.uint64) + np.uint64(first)
        keep[ties] = rng.words_at(key, Domain.TIE_WORDS + domain_base, at) >> np.uint32(WORD_BITS - TIE_BITS) >= lo
    return keep


def fixed_count_keep(key: Key, mask_row: int, row_size: int, dropped: int, domain_base: int = 0) -> BoolArray:
    """Return the decisions of one mask row that drops exactly `dropped` units: those with the smallest (word, j)."""
    ranks = rng.words(key, Domain.FIXED_COUNT_RANKS + domain_base, mask_row * row_size, row_size)
    keep = np.ones(row_size, dtype=np.bool_)
    keep[np.argsort(ranks, kind="stable")[:dropped]] = False
    return keep


def _level_of_caller() -> int:
    """Return the stacklevel that makes a warning name the line outside this package that led to it."""
    package, level = __name__.partition(".")[0], 2
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _noise_shape(value: Any) -> tuple[int | None, ...] | None:
    if value is None:
        return None
    entries = _validate.sequence("noise_shape", value, "None or a tuple of integers and None")
    if not entries:
        _validate.fail_value("noise_shape", "of at least one axis", "()")
    return tuple(None if entry is None else _validate.integer("noise_shape", entry, 1) for entry in entries)


def checked_shared_rows(value: Any) -> int | str:
    """Return the argument `shared_rows`: an integer, or "batch"."""
    if isinstance(value, str):
        return _validate.choice("shared_rows", value, ("batch",))
    return _validate.integer("shared_rows", value, 1, MAX_ELEMENTS)


class Mask:
    """A dropout mask as a pure function of position: a description, no array.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is DROPPED.
    key : Key
        Seed, stream and step.
    noise_shape : tuple of int or None, optional
        Shape of the mask, of the rank of x: each entry is 1 (shared along that axis), None or the exact extent.
    shared_rows : int >= 1 or "batch"
        So many consecutive rows (or all rows) share one mask row.
    fixed_count : bool
        Drop exactly ``round_half_even(rate * row_size)`` units of each mask row.
    row_offset : int >= 0
        Global number of the array's first row, for a batch that is cut in pieces.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range, at construction.

    Randomness
    ----------
    Depends on the key, the row number and the position within the row alone: not on memory layout, threads or backend.

    Examples
    --------
    >>> Mask(0.5, Key(0, 0, 0)).to_array((2, 4))
    array([[ True,  True, False, False],
           [ True,  True, False,  True]])
    """

    __slots__ = ("_warned", "fixed_count", "key", "noise_shape", "rate", "row_offset", "shared_rows")

    def __init__(
        self,
        rate: float,
        key: Key,
        *,
        noise_shape: Sequence[int | None] | None = None,
        shared_rows: int | str = 1,
        fixed_count: bool = False,
        row_offset: int = 0,
    ) -> None:
        self.rate = _validate.rate("rate", rate)
        self.key: Key = _validate.instance("key", key, Key, "a fastdrop.Key")
        self.noise_shape = _noise_shape(noise_shape)
        self.shared_rows = checked_shared_rows(shared_rows)
        self.fixed_count = _validate.boolean("fixed_count", fixed_count)
        self.row_offset = _validate.integer("row_offset", row_offset, 0, MAX_ELEMENTS - 1)
        self._warned = [False]

    def __repr__(self) -> str:
        return (
            f"Mask({self.rate}, {self.key}, noise_shape={self.noise_shape}, shared_rows={self.shared_rows!r}, "
            f"fixed_count={self.fixed_count}, row_offset={self.row_offset})"
        )

    def varied(self, **attributes: Any) -> Mask:
        """Return the same mask with other, valid, attributes; the two warn once between them."""
        mask = copy.copy(self)
        for name, value in attributes.items():
            setattr(mask, name, value)
        return mask

    def _mask_shape(self, shape: Shape) -> Shape:
        """Return the mask's own shape for an array of `shape`, checked entry by entry."""
        if len(shape) == 0:
            _validate.fail_value("x", "an array of at least one axis", "shape ()")
        if self.noise_shape is None:
            return shape
        if len(self.noise_shape) != len(shape):
            _validate.fail_value("noise_shape", f"of the rank of x ({len(shape)})", self.noise_shape)
        for entry, extent in zip(self.noise_shape, shape, strict=True):
            if entry not in (None, 1, extent):
                _validate.fail_value("noise_shape", f"1, None or the extent of x {shape} on each axis", self.noise_shape)
        return tuple(extent if entry is None else entry for entry, extent in zip(self.noise_shape, shape, strict=True))

    def bind(self, shape: Shape, *, as_matrix: bool = False, domain_base: int = 0, passes: int = 1) -> BoundMask:
        """Bind the mask to an array of `shape`, or to those of so many passes one after the other, seen as a matrix.

        With `as_matrix` the columns are the last axis (what a matrix product needs); otherwise as many trailing axes as lie
        together in the mask, down to one single row for a plain mask.

        Raises
        ------
        ValueError: a noise shape that does not fit; elements beyond 2**58; a fixed count that is always none or all.
        """
        mask_shape = self._mask_shape(shape)
        row_size = math.prod(mask_shape[1:])
        batch = self.shared_rows == "batch" or (self.noise_shape is not None and self.noise_shape[0] == 1)
        group = BATCH if batch else int(self.shared_rows)
        mask_rows = 1 if group == BATCH else (self.row_offset + max(shape[0], 1) - 1) // group + 1
        if mask_rows * row_size > MAX_ELEMENTS:
            wanted = f"such that all mask elements are below 2**58 (rows of {row_size})"
            _validate.fail_value("row_offset", wanted, self.row_offset)
        kind, threshold, scale = self._decision(row_size)
        row_offset = self.row_offset
        if not as_matrix and mask_shape == shape and group == 1 and kind != MaskKind.FIXED_COUNT:
            rows, columns, column_step, group = 1, math.prod(shape), 1, BATCH
            offsets = np.array([row_offset * row_size], dtype=np.int64)
        elif (not as_matrix or len(shape) <= 2) and mask_shape[1:] == shape[1:]:
            rows, columns, column_step, offsets = shape[0], row_size, 1, NO_OFFSETS
        else:
            rows, columns, column_step = math.prod(shape[:-1]), shape[-1], int(mask_shape[-1] == shape[-1])
            positions = np.arange(row_size, dtype=np.int64).reshape(mask_shape[1:])[..., :1]
            offsets = np.array(np.broadcast_to(positions, (*shape[1:-1], min(1, shape[-1])))).reshape(-1)
            offsets = offsets if len(offsets) else NO_OFFSETS
        return BoundMask(
            kind,
            self.key,
            threshold,
            scale,
            rows * passes,
            columns,
            row_size,
            row_offset,
            group,
            column_step,
            offsets,
            domain_base,
            passes,
        )

    def _decision(self, row_size: int) -> tuple[MaskKind, int, float]:
        """Return (kind, threshold or dropped count, scale) for mask rows of `row_size` units."""
        if self.fixed_count:
            dropped = round(self.rate * row_size)
            if row_size == 0 or self.rate == 0.0:
                return MaskKind.KEEP_ALL, 0, 1.0
            if self.rate == 1.0:
                self._warn_all_dropped()
                return MaskKind.DROP_ALL, row_size, 0.0
            if dropped in (0, row_size):
                every = "nothing" if dropped == 0 else "everything"
                hint = " (hint: reshape to (1, n))" if row_size == 1 else ""
                wanted = f"such that some of {row_size} units of a row are dropped with fixed_count=True"
                _validate.fail_value("rate", wanted, f"{self.rate}: {every} would be dropped every time{hint}")
            return MaskKind.FIXED_COUNT, dropped, 1.0 / ((row_size - dropped) / row_size)
        threshold = threshold_of(self.rate)
        if threshold == 0:
            return MaskKind.KEEP_ALL, 0, 1.0
        if threshold == TWO_POW_32:
            self._warn_all_dropped()
            return MaskKind.DROP_ALL, threshold, 0.0
        return MaskKind.BERNOULLI, threshold, bernoulli_scale(threshold)

    def _warn_all_dropped(self) -> None:
        if not self._warned[0]:
            self._warned[0] = True
            text = f"rate {self.rate} drops everything: outputs and gradients are zero"
            warnings.warn(text, AllDroppedWarning, _level_of_caller())

    def keep_prob(self, shape: Shape) -> float:
        """Return the exact probability that an element of an array of `shape` is kept."""
        kind, threshold, _ = self._decision(math.prod(self._mask_shape(shape)[1:]))
        if kind == MaskKind.FIXED_COUNT:
            row_size = math.prod(self._mask_shape(shape)[1:])
            return (row_size - threshold) / row_size
        return {MaskKind.KEEP_ALL: 1.0, MaskKind.DROP_ALL: 0.0}.get(kind, (TWO_POW_32 - threshold) / TWO_POW_32)

    def to_array(self, shape: int | Sequence[int]) -> BoolArray:
        """Return the mask of an array of `shape`: bool, True = kept. For someone who wants to look; nothing needs it."""
        full = _validate.shape("shape", shape)
        bound = self.bind(full)
        return bound.keep_rectangle((0, bound.rows), (0, bound.columns)).reshape(full)
