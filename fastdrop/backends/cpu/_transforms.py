"""The transforms of Winograd's minimal filtering, F(2 x 2, 3 x 3), as portable vector code.

Notation, after Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016: d is a 4 x 4 tile of an image, g a
3 x 3 filter. Their correlation, 2 x 2, is ``A.T @ (U * V) @ A`` with ``U = G @ g @ G.T`` and ``V = B.T @ d @ B``, elementwise
over channels and filters but for the sum over channels of ``U * V``. All factors are 0, 1, -1 and 1/2, so that nothing is
rounded where everything is a small integer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types

from fastdrop.backends.cpu._tile import VECTORS, tile_columns
from fastdrop.backends.cpu._vector import I64, each_vector, element, first_lanes, load, store, vector_type
from fastdrop.backends.formulas._formula import with_body

TILE, FILTER, RESULT = 4, 3, 2
"""Extents of a tile of an image, of a filter, and of their correlation."""
PRODUCTS = TILE * TILE
"""Elements of U and of V."""

Line: TypeAlias = list[Any]
Square: TypeAlias = list[Line]
Grid: TypeAlias = tuple[Any, int, Any, Any]
"""A square of elements: pointer to the first, extent, elements from row to row and from column to column."""
Add: TypeAlias = Callable[[Any, Any], Any]


def _image_line(d: Line, add: Add, subtract: Add, _halve: Callable[[Any], Any]) -> Line:
    return [subtract(d[0], d[2]), add(d[1], d[2]), subtract(d[2], d[1]), subtract(d[1], d[3])]


def _filter_line(g: Line, add: Add, subtract: Add, halve: Callable[[Any], Any]) -> Line:
    ends = add(g[0], g[2])
    return [g[0], halve(add(ends, g[1])), halve(subtract(ends, g[1])), g[2]]


def _result_line(m: Line, add: Add, subtract: Add, _halve: Callable[[Any], Any]) -> Line:
    return [add(add(m[0], m[1]), m[2]), subtract(subtract(m[1], m[2]), m[3])]


def _square(line: Callable[..., Line], square: Square, *operations: Any) -> Square:
    """Transform the columns of a square, then its rows."""
    columns = [line(list(column), *operations) for column in zip(*square, strict=True)]
    return [line(list(row), *operations) for row in zip(*columns, strict=True)]


def _plain(line: Callable[..., Line], square: Square) -> Square:
    """Transform a square of arrays."""
    return _square(line, square, np.add, np.subtract, lambda value: value / 2)


def _put(square: Square, target: Any, to: int, apart: int) -> None:
    """Write the arrays of a square, `apart` elements from each other."""
    for i, value in enumerate(value for row in square for value in row):
        target[to + i * apart : to + i * apart + len(value)] = value


def _emit(
    builder: Any, line: Callable[..., Line], sources: Square, targets: Square, vector: Any, align: int, mask: Any, stored: Any
) -> None:
    """Emit the transform of the vectors at `sources` to `targets`, the last one first, by masks of what is read and stored."""
    half = ir.Constant(vector, [0.5] * vector.count)
    square = [[load(builder, pointer, vector, align, mask) for pointer in row] for row in sources]
    done = _square(line, square, builder.fadd, builder.fsub, lambda value: builder.fmul(value, half))
    for values, pointers in zip(reversed(done), reversed(targets), strict=True):
        for value, pointer in zip(reversed(values), reversed(pointers), strict=True):
            store(builder, value, pointer, align, stored)


def _places(builder: Any, first: Any, extent: int, down: Any, across: Any) -> Square:
    """Emit the pointers to a square of elements."""
    rows = [builder.gep(first, [builder.mul(down, I64(p))]) for p in range(extent)]
    return [[builder.gep(row, [builder.mul(across, I64(q))]) for q in range(extent)] for row in rows]


def _emit_channels(
    builder: Any, line: Callable[..., Line], source: Grid, target: Grid, vector: Any, align: int, count: Any
) -> None:
    """Emit the transform of `count` channels from one grid to another: whole vectors of them, then one with what is left."""

    def emit(channel: Any, mask: Any) -> None:
        (first, *steps), (put, *put_steps) = source, target
        squares = (
            _places(builder, builder.gep(first, [channel]), *steps),
            _places(builder, builder.gep(put, [channel]), *put_steps),
        )
        _emit(builder, line, squares[0], squares[1], vector, align, mask, mask)

    each_vector(builder, count, vector.count, emit)


# transform_tile(x, at, down, across, values, to, apart, count)


def _transform_tile_body(x: Any, at: int, down: int, across: int, values: Any, to: int, apart: int, count: int) -> None:
    tile = [[x[at + p * down + q * across :][:count] for q in range(TILE)] for p in range(TILE)]
    _put(_plain(_image_line, tile), values, to, apart)


@with_body(_transform_tile_body)
def transform_tile(_typing: Any, x: Any, at: Any, down: Any, across: Any, values: Any, to: Any, apart: Any, count: Any) -> Any:
    """Write V of a tile of x for `count` channels: element i (of 16) of channel c to ``values[to + i * apart + c]``.

    The tile begins at ``x[at]``; its rows are `down` elements apart, its columns `across`.
    """
    vector, _ = vector_type(x)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, at, down, across, values, to, apart, count = args
        align = signature.args[0].dtype.bitwidth // 8
        source = element(context, builder, signature.args[0], x, at)
        target = element(context, builder, signature.args[4], values, to)
        grids = (source, TILE, down, across), (target, TILE, builder.mul(apart, I64(TILE)), apart)
        _emit_channels(builder, _image_line, *grids, vector, align, count)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(x, integer, integer, integer, values, integer, integer, integer), code


# transform_filter(weight, at, down, across, packed, to, apart, count)


def _transform_filter_body(weight: Any, at: int, down: int, across: int, packed: Any, to: int, apart: int, count: int) -> None:
    width = min(count, tile_columns(packed))
    taps = [[weight[at + p * down + q * across :][:width] for q in range(FILTER)] for p in range(FILTER)]
    zeros = np.zeros(tile_columns(packed) - width, packed.dtype)
    _put([[np.concatenate([value, zeros]) for value in row] for row in _plain(_filter_line, taps)], packed, to, apart)


@with_body(_transform_filter_body)
def transform_filter(
    _typing: Any, weight: Any, at: Any, down: Any, across: Any, packed: Any, to: Any, apart: Any, count: Any
) -> Any:
    """Write a row of a panel of U for a channel: element i (of 16) of filter f to ``packed[to + i * apart + f]``.

    The first tap begins at ``weight[at]``, others are `down` and `across` elements apart; beyond `count` filters are zeros.
    """
    vector, lanes = vector_type(weight)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        weight, at, down, across, packed, to, apart, count = args
        source = element(context, builder, signature.args[0], weight, at)
        target = element(context, builder, signature.args[4], packed, to)
        align = signature.args[0].dtype.bitwidth // 8
        for first in (I64(j * lanes) for j in range(VECTORS)):
            mask = first_lanes(builder, lanes, builder.sub(count, first))
            taps = _places(builder, builder.gep(source, [first]), FILTER, down, across)
            written = _places(builder, builder.gep(target, [first]), TILE, builder.mul(apart, I64(TILE)), apart)
            _emit(builder, _filter_line, taps, written, vector, align, mask, None)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(weight, integer, integer, integer, packed, integer, integer, integer), code


# transform_result(sums, at, apart, c, to, down, across, count)


def _transform_result_body(sums: Any, at: int, apart: int, c: Any, to: int, down: int, across: int, count: int) -> None:
    products = [sums[at + i * apart : at + i * apart + count] for i in range(PRODUCTS)]
    square = _plain(_result_line, [products[TILE * i : TILE * (i + 1)] for i in range(TILE)])
    for i in reversed(range(RESULT)):
        for j in reversed(range(RESULT)):
            start = to + i * down + j * across
            c[start : start + count] = square[i][j]


@with_body(_transform_result_body)
def transform_result(_typing: Any, sums: Any, at: Any, apart: Any, c: Any, to: Any, down: Any, across: Any, count: Any) -> Any:
    """Write the four results of a tile for `count` filters: (i, j) of filter f to ``c[to + i * down + j * across + f]``.

    Sum i (of 16) of filter f is ``sums[at + i * apart + f]``. Where down or across is 0, what is there for 0 stays.
    """
    vector, _ = vector_type(sums)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, at, apart, c, to, down, across, count = args
        source = element(context, builder, signature.args[0], sums, at)
        target = element(context, builder, signature.args[3], c, to)
        align = signature.args[0].dtype.bitwidth // 8
        grids = (source, TILE, builder.mul(apart, I64(TILE)), apart), (target, RESULT, down, across)
        _emit_channels(builder, _result_line, *grids, vector, align, count)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(sums, integer, integer, c, integer, integer, integer, integer), code
