"""How the panels of the register tile are packed, as portable vector code.

Notation: a panel of op(a) is (depth, height), one of op(b) (depth, NR), both in that order in memory; see `_tile`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastdrop.backends.cpu._tile import MR, VECTORS
from fastdrop.backends.cpu._vector import I32, I64, each_vector, element, first_lanes, load, store, vector_type
from fastdrop.backends.formulas._formula import with_body

A_PANEL, B_PANEL = 0, 1
"""Which panel to pack: MR rows of op(a) (or a lower tile's), or NR columns of op(b)."""


def _panel_vectors(panel: int, lanes: int) -> int:
    """Return how many vectors a row of a panel takes."""
    return VECTORS if panel == B_PANEL else -(-MR // lanes)


# copy_panel(source, at, stride, depth, width, target, to, height, panel): a panel whose rows lie in memory as they are packed
# copy_rows_panel(source, starts, at, depth, width, target, to, height): the same for op(a), each row with a start of its own


def _copy_panel_body(
    source: Any, at: int, stride: int, depth: int, width: int, target: Any, to: int, height: int, panel: int
) -> None:
    flat, packed = source.reshape(-1), target.reshape(-1)
    for k in range(depth):
        row = packed[to + k * height : to + (k + 1) * height]
        row[:] = 0
        row[: min(width, height)] = flat[at + k * stride : at + k * stride + min(width, height)]


def _copy_rows_panel_body(source: Any, starts: Any, at: int, depth: int, width: int, target: Any, to: int, height: int) -> None:
    for k in range(depth):
        _copy_panel_body(source, int(starts[k]) + at, 0, 1, width, target, to + k * height, height, A_PANEL)


def _emit_copy(
    context: Any, builder: Any, source: Any, target: Any, depth: Any, width: Any, height: Any, vectors: int, start: Any
) -> Any:
    """Emit the loop of a copied panel; source and target are (type, array, first element), `start` gives that of a row."""
    vector, lanes = vector_type(source[0])
    align = source[0].dtype.bitwidth // 8
    get, put = element(context, builder, *source), element(context, builder, *target)
    masks = [first_lanes(builder, lanes, builder.sub(width, I64(j * lanes))) for j in range(vectors)]
    whole = builder.icmp_signed(">=", width, I64(vectors * lanes))
    with builder.if_else(whole) as branches:
        for branch, masked in zip(branches, (False, True), strict=True):
            with branch, cgutils.for_range(builder, depth) as loop:
                row = builder.gep(get, [start(loop.index)])
                line = builder.gep(put, [builder.mul(loop.index, height)])
                for j in range(vectors):
                    pointer = builder.gep(row, [I64(j * lanes)])
                    value = load(builder, pointer, vector, align, masks[j] if masked else None)
                    store(builder, value, builder.gep(line, [I64(j * lanes)]), align)
    return context.get_dummy_value()


@with_body(_copy_panel_body)
def copy_panel(
    _typing: Any, source: Any, at: Any, stride: Any, depth: Any, width: Any, target: Any, to: Any, height: Any, panel: Any
) -> Any:
    """``target[to + k * height + q] = source[at + k * stride + q]`` for k < depth and q < height, 0 where q >= width.

    `panel` is a literal, `A_PANEL` or `B_PANEL`; `height` is at most its width. Up to one panel row beyond the last element is
    overwritten; nothing of source beyond `width` is touched.
    """
    if not isinstance(panel, types.IntegerLiteral):
        return None
    vectors = _panel_vectors(panel.literal_value, vector_type(source)[1])

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, at, stride, depth, width, target, to, height, _panel = args
        ends = (signature.args[0], source, at), (signature.args[5], target, to)
        return _emit_copy(context, builder, *ends, depth, width, height, vectors, lambda k: builder.mul(k, stride))

    integer = types.intp
    return types.void(source, integer, integer, integer, integer, target, integer, integer, panel), code


@with_body(_copy_rows_panel_body)
def copy_rows_panel(
    _typing: Any, source: Any, starts: Any, at: Any, depth: Any, width: Any, target: Any, to: Any, height: Any
) -> Any:
    """``target[to + k * height + q] = source[starts[k] + at + q]``, otherwise as `copy_panel` does for `A_PANEL`."""
    vectors = _panel_vectors(A_PANEL, vector_type(source)[1])

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, starts, at, depth, width, target, to, height = args
        ends = (signature.args[0], source, at), (signature.args[5], target, to)
        first = element(context, builder, signature.args[1], starts, I64(0))

        def start(k: Any) -> Any:
            return builder.load(builder.gep(first, [k]))

        return _emit_copy(context, builder, *ends, depth, width, height, vectors, start)

    integer = types.intp
    return types.void(source, starts, integer, integer, integer, target, integer, integer), code


# transpose_panel(source, at, stride, last, depth, target, to, height, panel): a panel whose columns lie in memory
# transpose_rows_panel(source, starts, at, last, depth, target, to, height): the same for op(a), each with a start of its own


def _transpose_panel_body(
    source: Any, at: int, stride: int, last: int, depth: int, target: Any, to: int, height: int, panel: int
) -> None:
    starts = [stride * row for row in range(last + 1)]
    _transpose_rows_panel_body(source, starts, at, last, depth, target, to, height)


def _transpose_rows_panel_body(
    source: Any, starts: Any, at: int, last: int, depth: int, target: Any, to: int, height: int
) -> None:
    flat, packed = source.reshape(-1), target.reshape(-1)
    for k in range(depth):
        for row in range(height):
            packed[to + k * height + row] = flat[at + int(starts[min(row, last)]) + k]


def _emit_transpose(
    context: Any, builder: Any, source: Any, target: Any, last: Any, depth: Any, height: Any, vectors: int, start: Any
) -> Any:
    """Emit the loop of a transposed panel; source and target are (type, array, first element), `start` gives that of a row."""
    vector, lanes = vector_type(source[0])
    align = source[0].dtype.bitwidth // 8
    first, put = element(context, builder, *source), element(context, builder, *target)
    rows = []
    for row in range(vectors * lanes):
        limited = builder.select(builder.icmp_signed("<", I64(row), last), I64(row), last)
        rows.append(start(limited))

    def square(k: Any, mask: Any) -> None:
        """Transpose `lanes` positions of all rows."""
        transposed = []
        for group in range(vectors):
            pointers = [builder.gep(first, [builder.add(row, k)]) for row in rows[group * lanes : (group + 1) * lanes]]
            transposed.append(_transposed(builder, [load(builder, pointer, vector, align, mask) for pointer in pointers]))
        for i in range(lanes):  # in this order, so that what a store leaves behind its row is overwritten by the next
            line = builder.gep(put, [builder.mul(builder.add(k, I64(i)), height)])
            for group, block in enumerate(transposed):
                store(builder, block[i], builder.gep(line, [I64(group * lanes)]), align)

    each_vector(builder, depth, lanes, square)
    return context.get_dummy_value()


@with_body(_transpose_panel_body)
def transpose_panel(
    _typing: Any, source: Any, at: Any, stride: Any, last: Any, depth: Any, target: Any, to: Any, height: Any, panel: Any
) -> Any:
    """``target[to + k * height + row] = source[at + min(row, last) * stride + k]`` for k < depth and row < height.

    `panel` is a literal, `A_PANEL` or `B_PANEL`; `height` is at most its width. What lies behind the last element is
    overwritten: up to as many panel rows as a vector has lanes. Nothing of source beyond k = depth is touched.
    """
    if not isinstance(panel, types.IntegerLiteral):
        return None
    vectors = _panel_vectors(panel.literal_value, vector_type(source)[1])

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, at, stride, last, depth, target, to, height, _panel = args
        ends = (signature.args[0], source, at), (signature.args[5], target, to)
        return _emit_transpose(context, builder, *ends, last, depth, height, vectors, lambda row: builder.mul(row, stride))

    integer = types.intp
    return types.void(source, integer, integer, integer, integer, target, integer, integer, panel), code


@with_body(_transpose_rows_panel_body)
def transpose_rows_panel(
    _typing: Any, source: Any, starts: Any, at: Any, last: Any, depth: Any, target: Any, to: Any, height: Any
) -> Any:
    """``target[to + k * height + row] = source[starts[min(row, last)] + at + k]``, as `transpose_panel` for `A_PANEL`."""
    vectors = _panel_vectors(A_PANEL, vector_type(source)[1])

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, starts, at, last, depth, target, to, height = args
        ends = (signature.args[0], source, at), (signature.args[5], target, to)
        first = element(context, builder, signature.args[1], starts, I64(0))

        def start(row: Any) -> Any:
            return builder.load(builder.gep(first, [row]))

        return _emit_transpose(context, builder, *ends, last, depth, height, vectors, start)

    integer = types.intp
    return types.void(source, starts, integer, integer, integer, target, integer, integer), code


def _transposed(builder: Any, block: list[Any]) -> list[Any]:
    """Transpose a square block of vectors: swap ever smaller off-diagonal halves."""
    lanes = len(block)
    half = lanes // 2
    while half:
        swapped = list(block)
        for row in range(lanes):
            if row & half:
                continue
            upper, lower = block[row], block[row + half]
            keep = [lane if not lane & half else lanes + lane - half for lane in range(lanes)]
            move = [lane + half if not lane & half else lanes + lane for lane in range(lanes)]
            for target, order in ((row, keep), (row + half, move)):
                swapped[target] = builder.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(I32, lanes), order))
        block = swapped
        half //= 2
    return block
