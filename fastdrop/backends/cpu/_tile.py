"""The register tile of all matrix products, and the micro-kernel, as portable vector code.

Notation: a panel of op(a) is (depth, height), one of op(b) (depth, NR), both in that order in memory; a tile of c is
height x NR. Heights are those of `HEIGHTS`: MR, and lower ones for the last rows of a matrix. As in `_vector`, plain Python
bodies define the operations, and the vector width never shows in a result.
"""

from __future__ import annotations

from typing import Any, Final

from fastdrop._config import load_numba

load_numba()
from llvmlite import ir  # noqa: E402  (Numba comes in through load_numba, with its environment prepared)
from numba import types  # noqa: E402

from fastdrop.backends.cpu._vector import (  # noqa: E402
    I64,
    LANES,
    SIMD_BITS,
    each_vector,
    element,
    first_lanes,
    load,
    splat,
    store,
    vector_type,
)  # fmt: skip
from fastdrop.backends.formulas._formula import multiply_add, with_body  # noqa: E402

VECTORS = 2
NR = LANES * VECTORS
"""Columns of the register tile in float32; half of it in float64."""
MR = {512: 12, 256: 6, 128: 4}[SIMD_BITS]
"""Rows of the register tile: MR x VECTORS accumulators fit the registers beside the operands, with some to spare."""
HEIGHTS: Final = {512: (12, 8, 4, 2, 1), 256: (6, 4, 2, 1), 128: (4, 2, 1)}[SIMD_BITS]
UNROLL = 4
"""The depth of a panel is a multiple of it."""


# tile_columns(array): columns of the register tile for the array's dtype


def _tile_columns_body(array: Any) -> int:
    return NR * 4 // int(array.itemsize)


@with_body(_tile_columns_body)
def tile_columns(_typing: Any, array: Any) -> Any:
    """Return NR for an array of float32 and NR / 2 for float64, known when a kernel is compiled."""
    columns = NR * 32 // array.dtype.bitwidth
    return types.intp(array), lambda _context, _builder, _signature, _args: I64(columns)


# tile_product(height, depth, a, a_at, b, b_at, c, c_at, c_stride, rows, columns, accumulate): the micro-kernel


def _tile_product_body(
    height: int, depth: int, a: Any, a_at: int, b: Any, b_at: int, c: Any, c_at: int, c_stride: int, rows: int, columns: int,
    accumulate: bool,
) -> None:  # fmt: skip
    nr = _tile_columns_body(c)
    width = min(columns, nr)
    left = a.reshape(-1)[a_at : a_at + depth * height].reshape(depth, height)
    right = b.reshape(-1)[b_at : b_at + depth * nr].reshape(depth, nr)
    product, flat_c = left.T @ right[:, :width], c.reshape(-1)
    for row in range(min(rows, height)):
        target = flat_c[c_at + row * c_stride : c_at + row * c_stride + width]
        target[:] = product[row] + (target if accumulate else 0)


def _emit_products(builder: Any, tall: int, depth: Any, left: Any, right: Any, vector: Any, align: int) -> list[Any]:
    """Emit the loop over depth for a tile so many rows tall; return its vectors."""
    lanes, suffix = vector.count, f"v{vector.count}f{8 * align}"
    before, body = builder.block, builder.append_basic_block("k_body")
    builder.branch(body)
    builder.position_at_end(body)
    starts = [depth, left, right, *[ir.Constant(vector, [0.0] * lanes)] * (tall * VECTORS)]
    phis = [builder.phi(start.type) for start in starts]
    tile = phis[3:]
    for u in range(UNROLL):
        places = [builder.gep(phis[2], [I64((u * VECTORS + j) * lanes)]) for j in range(VECTORS)]
        operands = [load(builder, place, vector, align) for place in places]
        sums, tile = tile, []
        for row in range(tall):  # a factor at a time: loaded all at once, they would push tile vectors out of registers
            factor = builder.load(builder.gep(phis[1], [I64(u * tall + row)]), align=align)
            spread = splat(builder, vector, factor)
            for j in range(VECTORS):
                tile.append(multiply_add(builder, spread, operands[j], sums[row * VECTORS + j], suffix))
    remaining = builder.sub(phis[0], I64(UNROLL))
    moved = builder.gep(phis[1], [I64(UNROLL * tall)]), builder.gep(phis[2], [I64(UNROLL * VECTORS * lanes)])
    for phi, start, value in zip(phis, starts, [remaining, *moved, *tile], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, body)
    done = builder.append_basic_block("k_done")
    builder.cbranch(builder.icmp_signed(">", remaining, I64(0)), body, done)
    builder.position_at_end(done)
    return tile


def put_sums(builder: Any, sums: list[Any], pointers: list[Any], adds: Any, masks: list[Any] | None) -> None:
    """Emit the stores of vectors of sums over a panel's depth, or of what the masks leave of them; `adds` is a condition.

    A sum of -0.0, from products that underflow, becomes +0.0: so it does not matter where products with zeros were left out.
    """
    vector = sums[0].type
    align = 4 if vector.element == ir.FloatType() else 8
    zero = ir.Constant(vector, [0.0] * vector.count)
    totals = [builder.fadd(total, zero) for total in sums]
    with builder.if_else(adds) as branches:
        for branch, adding in zip(branches, (True, False), strict=True):
            with branch:
                for i, total in enumerate(totals):
                    mask = None if masks is None else masks[i]
                    value = builder.fadd(load(builder, pointers[i], vector, align, mask), total) if adding else total
                    store(builder, value, pointers[i], align, mask)


@with_body(_tile_product_body)
def tile_product(
    _typing: Any, height: Any, depth: Any, a: Any, a_at: Any, b: Any, b_at: Any, c: Any, c_at: Any, c_stride: Any, rows: Any,
    columns: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """``c[rows, columns] (+)= a_panel.T @ b_panel``: the register-tiled micro-kernel that does all matrix work.

    a_panel is (depth, height) from element a_at of a, b_panel (depth, NR) from b_at of b; the tile of c starts at c_at. height
    is one of `HEIGHTS`, depth a multiple of UNROLL, at least one; rows and columns may exceed the tile. The sum over depth runs
    in order, one multiply-add a step, and is then added to c where `accumulate`.
    """
    vector, lanes = vector_type(c)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        height, depth, a, a_at, b, b_at, c, c_at, c_stride, rows, columns, accumulate = args
        align = signature.args[2].dtype.bitwidth // 8
        left = element(context, builder, signature.args[2], a, a_at)
        right = element(context, builder, signature.args[4], b, b_at)
        put = element(context, builder, signature.args[6], c, c_at)
        adds = builder.icmp_unsigned("!=", accumulate, accumulate.type(0))
        wide = builder.icmp_signed(">=", columns, I64(VECTORS * lanes))
        inside = [first_lanes(builder, lanes, builder.sub(columns, I64(j * lanes))) for j in range(VECTORS)]

        def places(tall: int) -> list[Any]:
            rows = [builder.gep(put, [builder.mul(c_stride, I64(row))]) for row in range(tall)]
            return [builder.gep(row, [I64(j * lanes)]) for row in rows for j in range(VECTORS)]

        end = builder.append_basic_block("tile_done")
        blocks = {tall: builder.append_basic_block(f"height_{tall}") for tall in HEIGHTS}
        choice = builder.switch(height, blocks[MR])
        for tall, block in blocks.items():
            if tall != MR:
                choice.add_case(I64(tall), block)
            builder.position_at_end(block)
            tile = _emit_products(builder, tall, depth, left, right, vector, align)
            whole = builder.and_(wide, builder.icmp_signed(">=", rows, I64(tall)))
            with builder.if_else(whole) as (all_of_it, part):
                with all_of_it:
                    put_sums(builder, tile, places(tall), adds, None)
                with part:
                    present = [splat(builder, inside[0].type, builder.icmp_signed("<", I64(row), rows)) for row in range(tall)]
                    masks = [builder.and_(row, columns) for row in present for columns in inside]
                    put_sums(builder, tile, places(tall), adds, masks)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(*[integer] * 2, a, integer, b, integer, c, *[integer] * 4, types.boolean), code


# stream_rows(a, a_at, a_stride, b, b_at, b_stride, sums, at, columns, rows, depth): without packing, for few rows


def _stream_rows_body(
    a: Any, a_at: int, a_stride: int, b: Any, b_at: int, b_stride: int, sums: Any, at: int, columns: int,
    rows: int, depth: int,
) -> None:  # fmt: skip
    left, right, flat = a.reshape(-1), b.reshape(-1), sums.reshape(-1)
    for row in range(rows):
        total = flat[at + row * columns : at + (row + 1) * columns]
        for k in range(depth):
            total += left[a_at + k * a_stride + row] * right[b_at + k * b_stride : b_at + k * b_stride + columns]


@with_body(_stream_rows_body)
def stream_rows(
    _typing: Any, a: Any, a_at: Any, a_stride: Any, b: Any, b_at: Any, b_stride: Any, sums: Any, at: Any,
    columns: Any, rows: Any, depth: Any,
) -> Any:  # fmt: skip
    """``sums[row, j] += a[k, row] * b[k, j]`` for k = 0, 1 ... depth - 1 in order, one multiply-add each, and j < columns.

    `rows` and `depth` are literals. Rows of a, b and sums start at ``a_at + k * a_stride``, ``b_at + k * b_stride`` and
    ``at + row * columns``.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(depth, types.IntegerLiteral)):
        return None
    vector, lanes = vector_type(sums)
    suffix = f"v{lanes}f{sums.dtype.bitwidth}"
    tall, deep = rows.literal_value, depth.literal_value

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, a_at, a_stride, b, b_at, b_stride, sums, at, columns, _rows, _depth = args
        align = signature.args[0].dtype.bitwidth // 8
        left = element(context, builder, signature.args[0], a, a_at)
        lines = [
            element(context, builder, signature.args[3], b, builder.add(b_at, builder.mul(b_stride, I64(k)))) for k in range(deep)
        ]
        puts = [
            element(context, builder, signature.args[6], sums, builder.add(at, builder.mul(columns, I64(r)))) for r in range(tall)
        ]
        factors = []
        for k in range(deep):
            start = builder.gep(left, [builder.mul(a_stride, I64(k))])
            factors.append([splat(builder, vector, builder.load(builder.gep(start, [I64(r)]), align=align)) for r in range(tall)])

        def step(j: Any, mask: Any) -> None:
            def get(pointer: Any) -> Any:
                return load(builder, builder.gep(pointer, [j]), vector, align, mask)

            totals = [get(put) for put in puts]
            for k in range(deep):
                operand = get(lines[k])
                totals = [multiply_add(builder, factors[k][r], operand, totals[r], suffix) for r in range(tall)]
            for put, total in zip(puts, totals, strict=True):
                store(builder, total, builder.gep(put, [j]), align, mask)

        each_vector(builder, columns, lanes, step)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(a, integer, integer, b, integer, integer, sums, integer, integer, rows, depth), code
