"""Products with rows of which only the elements that are not zero are listed, as portable vector code."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastdrop.backends.cpu._tile import VECTORS as PANEL_VECTORS
from fastdrop.backends.cpu._tile import put_sums, tile_columns
from fastdrop.backends.cpu._vector import I64, SIMD_BITS, element, first_lanes, load, splat, store, vector_type
from fastdrop.backends.formulas._formula import multiply_add, with_body

VECTORS = (12, 8, 4, 2, 1)
"""How many vectors of sums are held at a time."""
GROUP = {512: 2, 256: 4, 128: 4}[SIMD_BITS]
"""Panels that `multiply_listed` goes through at once: enough sums to hide the latency of an addition, and to stay in cache."""


# add_listed(values, places, first, count, b, b_at, c, c_at, width): c += sum of listed rows of b


def _add_listed_body(values: Any, places: Any, first: int, count: int, b: Any, b_at: int, c: Any, c_at: int, width: int) -> None:
    for t in range(first, first + count):
        at = b_at + int(places[t])
        c[c_at : c_at + width] += values[t] * b[at : at + width]


@with_body(_add_listed_body)
def add_listed(
    _typing: Any, values: Any, places: Any, first: Any, count: Any, b: Any, b_at: Any, c: Any, c_at: Any, width: Any
) -> Any:
    """``c[c_at + j] += values[t] * b[b_at + places[t] + j]`` for t = first .. first + count - 1 in order, and j < width."""
    vector, lanes = vector_type(c)
    suffix = f"v{lanes}f{c.dtype.bitwidth}"

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, places, first, count, b, b_at, c, c_at, width = args
        kinds = signature.args
        numbers, steps = element(context, builder, kinds[0], values, first), element(context, builder, kinds[1], places, first)
        source, put = element(context, builder, kinds[4], b, b_at), element(context, builder, kinds[6], c, c_at)
        align = kinds[6].dtype.bitwidth // 8

        def add(start: Any, many: int, mask: Any = None) -> None:
            """Emit the loop over the list, for so many vectors from column `start` on."""
            columns = [builder.add(start, I64(j * lanes)) for j in range(many)]
            pointers = [builder.gep(put, [column]) for column in columns]
            slots = [cgutils.alloca_once_value(builder, load(builder, pointer, vector, align, mask)) for pointer in pointers]
            with cgutils.for_range(builder, count) as loop:
                factor = splat(builder, vector, builder.load(builder.gep(numbers, [loop.index]), align=align))
                row = builder.gep(source, [builder.sext(builder.load(builder.gep(steps, [loop.index])), I64)])
                for slot, column in zip(slots, columns, strict=True):
                    operand = load(builder, builder.gep(row, [column]), vector, align, mask)
                    builder.store(multiply_add(builder, factor, operand, builder.load(slot), suffix), slot)
            for slot, pointer in zip(slots, pointers, strict=True):
                store(builder, builder.load(slot), pointer, align, mask)

        done = cgutils.alloca_once_value(builder, I64(0))
        for many in VECTORS:
            blocks = builder.sdiv(builder.sub(width, builder.load(done)), I64(many * lanes))
            with cgutils.for_range(builder, blocks):
                add(builder.load(done), many)
                builder.store(builder.add(builder.load(done), I64(many * lanes)), done)
        rest = builder.load(done)
        with builder.if_then(builder.icmp_signed("<", rest, width)):
            add(rest, 1, first_lanes(builder, lanes, builder.sub(width, rest)))
        return context.get_dummy_value()

    integer = types.intp
    return types.void(values, places, integer, integer, b, integer, c, integer, integer), code


# list_row(panel, at, height, depth, step, lists, to): the elements of a row of a panel that are not zero


def _integers(lists: Any) -> Any:
    """Return the elements of lists as integers of their width."""
    return lists.view(f"i{lists.itemsize}")


def _list_row_body(panel: Any, at: int, height: int, depth: int, step: int, lists: Any, to: int) -> int:
    n = to
    for k in range(depth):
        value = panel[at + k * height]
        lists[n], _integers(lists)[n + 1] = value, k * step
        n += 2 * int(value != 0)
    return (n - to) // 2


@with_body(_list_row_body)
def list_row(_typing: Any, panel: Any, at: Any, height: Any, depth: Any, step: Any, lists: Any, to: Any) -> Any:
    """List the elements ``panel[at + k * height]``, k < depth, that are not zero: from ``lists[to]`` on, and return how many.

    An entry of the list is the element, then ``k * step`` as an integer of the same width. What lies within two elements for
    each k is overwritten.
    """
    width = panel.dtype.bitwidth

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        panel, at, height, depth, step, lists, to = args
        integer = ir.IntType(width)
        source = builder.bitcast(element(context, builder, signature.args[0], panel, at), integer.as_pointer())
        put = builder.bitcast(element(context, builder, signature.args[5], lists, to), integer.as_pointer())
        before, body, done = builder.block, *(builder.append_basic_block(name) for name in ("list_body", "list_done"))
        builder.branch(body)
        builder.position_at_end(body)
        phis = [builder.phi(I64) for _ in range(3)]
        k, place, n = phis
        value = builder.load(builder.gep(source, [builder.mul(k, height)]), align=width // 8)
        builder.store(value, builder.gep(put, [n]), align=width // 8)
        small = builder.trunc(place, integer) if width < 64 else place
        builder.store(small, builder.gep(put, [builder.add(n, I64(1))]), align=width // 8)
        kept = builder.icmp_unsigned("!=", builder.shl(value, integer(1)), integer(0))  # both zeros are without the sign
        after = builder.add(k, I64(1)), builder.add(place, step), builder.add(n, builder.shl(builder.zext(kept, I64), I64(1)))
        for phi, next_one in zip(phis, after, strict=True):
            phi.add_incoming(I64(0), before)
            phi.add_incoming(next_one, body)
        builder.cbranch(builder.icmp_signed("<", after[0], depth), body, done)
        builder.position_at_end(done)
        return builder.lshr(after[2], I64(1))

    return types.intp(panel, *[types.intp] * 4, lists, types.intp), code


# multiply_listed(lists, at, count, b, b_at, panel, panels, c, c_at, columns, accumulate): a row of a times panels of b


def _multiply_listed_body(
    lists: Any, at: int, count: int, b: Any, b_at: int, panel: int, panels: int, c: Any, c_at: int, columns: int, accumulate: bool
) -> None:
    nr = int(tile_columns(c))
    for first in range(0, min(panels * nr, columns), nr):
        total = np.zeros(nr, c.dtype)
        for t in range(at, at + 2 * count, 2):
            row = b_at + first // nr * panel + int(_integers(lists)[t + 1])
            total += lists[t] * b[row : row + nr]
        target = c[c_at + first : c_at + min(first + nr, columns)]
        target[:] = total[: len(target)] + (target if accumulate else 0)


@with_body(_multiply_listed_body)
def multiply_listed(
    _typing: Any, lists: Any, at: Any, count: Any, b: Any, b_at: Any, panel: Any, panels: Any, c: Any, c_at: Any,
    columns: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """Multiply a row that `list_row` listed, `count` entries from ``lists[at]`` on, with panels of b: c (+)= the sums.

    An entry's place is where its row of a panel of b starts.
    Panels of b, NR columns wide, start at b_at and lie `panel` elements apart; `panels` of them, a literal, are taken. `columns`
    may be fewer or more than they have. The sum is formed and added as `tile_product` does it.
    """
    if not isinstance(panels, types.IntegerLiteral):
        return None
    vector, lanes = vector_type(c)
    suffix, many = f"v{lanes}f{c.dtype.bitwidth}", panels.literal_value * PANEL_VECTORS

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lists, at, count, b, b_at, panel, _panels, c, c_at, columns, accumulate = args
        kinds = signature.args
        entries, source = element(context, builder, kinds[0], lists, at), element(context, builder, kinds[3], b, b_at)
        put = element(context, builder, kinds[7], c, c_at)
        align = kinds[7].dtype.bitwidth // 8
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * lanes)) for _ in range(many)]
        with cgutils.for_range(builder, count) as loop:
            entry = builder.gep(entries, [builder.mul(loop.index, I64(2))])
            factor = splat(builder, vector, builder.load(entry, align=align))
            integer = ir.IntType(8 * align)
            number = builder.load(builder.bitcast(builder.gep(entry, [I64(1)]), integer.as_pointer()), align=align)
            place = builder.sext(number, I64) if align < 8 else number
            row = builder.gep(source, [place])
            for i, total in enumerate(sums):
                start = builder.gep(row, [builder.mul(panel, I64(i // PANEL_VECTORS))])
                operand = load(builder, builder.gep(start, [I64(i % PANEL_VECTORS * lanes)]), vector, align)
                builder.store(multiply_add(builder, factor, operand, builder.load(total), suffix), total)
        tile = [builder.load(total) for total in sums]
        adds = builder.icmp_unsigned("!=", accumulate, accumulate.type(0))
        inside = [first_lanes(builder, lanes, builder.sub(columns, I64(i * lanes))) for i in range(many)]
        whole = builder.icmp_signed(">=", columns, I64(many * lanes))
        with builder.if_else(whole) as branches:
            for branch, masks in zip(branches, (None, inside), strict=True):
                with branch:
                    put_sums(builder, tile, [builder.gep(put, [I64(i * lanes)]) for i in range(many)], adds, masks)
        return context.get_dummy_value()

    integer = types.intp
    ends = c, integer, integer, types.boolean
    return types.void(lists, integer, integer, b, integer, integer, panels, *ends), code
