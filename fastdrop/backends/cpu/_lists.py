"""Products with rows of which only the elements that are not zero are listed, as portable vector code."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from fastdrop.backends.cpu._vector import I64, element, first_lanes, load, splat, store, vector_type
from fastdrop.backends.formulas._formula import multiply_add, with_body

VECTORS = (12, 8, 4, 2, 1)
"""How many vectors of sums are held at a time."""


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
