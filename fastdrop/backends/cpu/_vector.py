"""The few vector operations that LLVM does not find by itself, as portable vector code; each carries a plain Python body.

The Python body is the definition: it is what runs with NUMBA_DISABLE_JIT=1. The vector width follows the host's features and
never shows in a result. FASTDROP_SIMD=256 or 128 forces a narrower one.

Notation: LANES elements of float32 make a vector (half as many of float64); a decision word is a uint64 whose bit b is column
b of its 64 columns.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastdrop._config import load_numba

numba = load_numba()
from llvmlite import binding, ir  # noqa: E402
from numba import types  # noqa: E402

from fastdrop.backends.formulas._formula import multiply_add, with_body  # noqa: E402

SIMD_VARIABLE = "FASTDROP_SIMD"
FEATURES = binding.get_host_cpu_features()


def _simd_bits() -> int:
    forced = os.environ.get(SIMD_VARIABLE, "")
    native = 512 if FEATURES.get("avx512f") else 256 if FEATURES.get("avx2") else 128
    return int(forced) if forced in ("128", "256", "512") else native


SIMD_BITS = _simd_bits()
LANES = SIMD_BITS // 32
VECTORS = 2
NR = LANES * VECTORS
"""Columns of the register tile in float32; half of it in float64."""
MR = {512: 12, 256: 6, 128: 4}[SIMD_BITS]
"""Rows of the register tile: MR x VECTORS accumulators fit the registers beside the operands, with some to spare."""
TILE_COLUMNS = 0
"""Stands for the dtype's tile columns where a literal width is asked for."""
UNROLL = 4
WORD_BITS = 64
STREAM_ALIGNMENT = SIMD_BITS // 8
"""Bytes."""
GROUP_BLOCKS = 8
"""Philox blocks that `pack_decisions` takes at once: 128 decisions, two words."""

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return a pointer to element `index` of a 1-D C-contiguous array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _vector_type(array_type: Any) -> tuple[Any, int]:
    """Return (vector type, lanes) of an array of float32 or float64."""
    if array_type.dtype == types.float32:
        return ir.VectorType(ir.FloatType(), LANES), LANES
    return ir.VectorType(ir.DoubleType(), LANES // 2), LANES // 2


def _splat(builder: Any, vector: Any, value: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, value, I32(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def _load(builder: Any, pointer: Any, vector: Any, align: int) -> Any:
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=align)


def _store(builder: Any, value: Any, pointer: Any, align: int) -> Any:
    return builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=align)


# scale_kept(x, y, at, word, scale): 64 elements; stream_kept: the same past the caches


def _scale_kept_body(x: Any, y: Any, at: int, word: Any, scale: Any) -> None:
    for i in range(WORD_BITS):
        y[at + i] = x[at + i] * scale if (int(word) >> i) & 1 else 0.0


def _scale_kept(x: Any, y: Any, *, stream: bool) -> Any:
    """Return signature and code of `scale_kept` or `stream_kept`."""
    vector, lanes = _vector_type(x)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, at, word, scale = args
        source = _element(context, builder, signature.args[0], x, at)
        target = _element(context, builder, signature.args[1], y, at)
        factor, zero = _splat(builder, vector, scale), ir.Constant(vector, [0.0] * lanes)
        bits, align = ir.IntType(lanes), signature.args[0].dtype.bitwidth // 8
        for first in range(0, WORD_BITS, lanes):
            keep = builder.bitcast(builder.trunc(builder.lshr(word, I64(first)), bits), ir.VectorType(I1, lanes))
            values = _load(builder, builder.gep(source, [I64(first)]), vector, align)
            kept = builder.select(keep, builder.fmul(values, factor), zero)
            store = _store(builder, kept, builder.gep(target, [I64(first)]), align * lanes if stream else align)
            if stream:
                store.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return types.void(x, y, types.intp, types.uint64, x.dtype), code


@with_body(_scale_kept_body)
def scale_kept(_typing: Any, x: Any, y: Any, at: Any, word: Any, scale: Any) -> Any:
    """``y[at + i] = x[at + i] * scale`` where bit i of word is set, else +0.0; i = 0..63; x and y may be one array."""
    return _scale_kept(x, y, stream=False)


@with_body(_scale_kept_body)
def stream_kept(_typing: Any, x: Any, y: Any, at: Any, word: Any, scale: Any) -> Any:
    """`scale_kept` with stores past the caches; the address of ``y[at]`` is a multiple of STREAM_ALIGNMENT. See `fence`."""
    return _scale_kept(x, y, stream=True)


def _fence_body() -> None:
    pass


@with_body(_fence_body)
def fence(_typing: Any) -> Any:
    """Wait until what `stream_kept` stored is visible to other threads."""

    def code(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


# trailing_zeros(word)


def _trailing_zeros_body(word: Any) -> Any:
    value = int(word)
    return np.uint64((value & -value).bit_length() - 1 if value else WORD_BITS)


@with_body(_trailing_zeros_body)
def trailing_zeros(_typing: Any, word: Any) -> Any:
    """Return the number of the lowest set bit of a uint64, 64 for 0."""
    return types.uint64(types.uint64), lambda _context, builder, _signature, args: builder.cttz(args[0], I1(0))


# pack_decisions(words, stride, at, hi, keep, ties, to): 128 decisions


def _pack_decisions_body(words: Any, stride: int, at: int, hi: Any, keep: Any, ties: Any, to: int) -> None:
    blocks = np.stack([words[k * stride + at : k * stride + at + GROUP_BLOCKS] for k in range(4)], axis=1)
    stream = np.ascontiguousarray(blocks).astype("<u4").view(np.uint8).ravel()
    keep[to : to + 2] = np.packbits(stream > hi, bitorder="little").view("<u8")
    ties[to : to + 2] = np.packbits(stream == hi, bitorder="little").view("<u8")


@with_body(_pack_decisions_body)
def pack_decisions(_typing: Any, words: Any, stride: Any, at: Any, hi: Any, keep: Any, ties: Any, to: Any) -> Any:
    """Compare the bytes of eight Philox blocks with hi and pack the answers, in stream order.

    Word k of block at + i is ``words[k * stride + at + i]``. Bit b of ``keep[to], keep[to + 1]`` is set where byte b of the
    eight blocks is above hi, bit b of ``ties[to], ties[to + 1]`` where it equals hi.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words, stride, at, hi, keep, ties, to = args
        eight = ir.VectorType(I32, GROUP_BLOCKS)
        columns = []
        for k in range(4):
            index = builder.add(builder.mul(stride, I64(k)), at)
            columns.append(_load(builder, _element(context, builder, signature.args[0], words, index), eight, 4))
        pairs = [
            builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 16), list(range(16))))
            for a, b in (columns[:2], columns[2:])
        ]
        for half in range(2):  # four blocks, 64 bytes
            order = [8 * k + block for block in range(4 * half, 4 * half + 4) for k in range(4)]
            stream = builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(I32, 16), order))
            octets = builder.bitcast(stream, ir.VectorType(I8, WORD_BITS))
            limit = _splat(builder, octets.type, builder.trunc(hi, I8))
            for target, test, type_ in ((keep, ">", signature.args[4]), (ties, "==", signature.args[5])):
                packed = builder.bitcast(builder.icmp_unsigned(test, octets, limit), I64)
                pointer = _element(context, builder, type_, target, builder.add(to, I64(half)))
                builder.store(packed, pointer)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.intp, types.uint64, keep, ties, types.intp), code


# tile_columns(array): columns of the register tile for the array's dtype


def _tile_columns_body(array: Any) -> int:
    return NR * 4 // int(array.itemsize)


@with_body(_tile_columns_body)
def tile_columns(_typing: Any, array: Any) -> Any:
    """Return NR for an array of float32 and NR / 2 for float64, known when a kernel is compiled."""
    columns = NR * 32 // array.dtype.bitwidth
    return types.intp(array), lambda _context, _builder, _signature, _args: I64(columns)


# transpose_panel(source, at, stride, last, target, to, width): LANES positions of a panel


def _transpose_panel_body(source: Any, at: int, stride: int, last: int, target: Any, to: int, width: int) -> None:
    lanes, width = LANES * 4 // source.itemsize, width or _tile_columns_body(source)
    flat, panel = source.reshape(-1), target.reshape(-1)
    for k in range(lanes):
        for row in range(width):
            panel[to + k * width + row] = flat[at + min(row, last) * stride + k]


@with_body(_transpose_panel_body)
def transpose_panel(_typing: Any, source: Any, at: Any, stride: Any, last: Any, target: Any, to: Any, width: Any) -> Any:
    """``target[to + k * width + row] = source[at + min(row, last) * stride + k]`` for row < width, k < the dtype's lanes.

    `width` is a literal: MR, or TILE_COLUMNS for the dtype's tile columns. Up to one vector beyond the last element
    is overwritten.
    """
    if not isinstance(width, types.IntegerLiteral):
        return None
    vector, lanes = _vector_type(source)
    rows = width.literal_value or lanes * VECTORS

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, at, stride, last, target, to, _width = args
        align = signature.args[0].dtype.bitwidth // 8
        first = _element(context, builder, signature.args[0], source, at)
        put = _element(context, builder, signature.args[4], target, to)
        transposed = []
        for group in range(0, rows, lanes):
            block = []
            for row in range(group, group + lanes):
                limited = I64(min(row, rows - 1))
                limited = builder.select(builder.icmp_signed("<", limited, last), limited, last)
                pointer = builder.gep(first, [builder.mul(limited, stride)])
                block.append(_load(builder, pointer, vector, align))
            transposed.append(_transposed(builder, block))
        for k in range(lanes):  # in this order, so that what a store leaves behind its row is overwritten by the next
            for group, block in enumerate(transposed):
                _store(builder, block[k], builder.gep(put, [I64(k * rows + group * lanes)]), align)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(source, integer, integer, integer, target, integer, width), code


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


# tile_product(depth, a, a_at, b, b_at, c, c_at, row_stride, accumulate): the micro-kernel


def _tile_product_body(
    depth: int, a: Any, a_at: int, b: Any, b_at: int, c: Any, c_at: int, row_stride: int, accumulate: bool
) -> None:
    columns = _tile_columns_body(c)
    left = a.reshape(-1)[a_at : a_at + depth * MR].reshape(depth, MR)
    right = b.reshape(-1)[b_at : b_at + depth * columns].reshape(depth, columns)
    product, flat = left.T @ right, c.reshape(-1)
    for row in range(MR):
        start = c_at + row * row_stride
        flat[start : start + columns] = product[row] + (flat[start : start + columns] if accumulate else 0)


@with_body(_tile_product_body)
def tile_product(
    _typing: Any, depth: Any, a: Any, a_at: Any, b: Any, b_at: Any, c: Any, c_at: Any, row_stride: Any, accumulate: Any
) -> Any:
    """``c[MR, NR] (+)= a_panel.T @ b_panel``: the register-tiled micro-kernel that does all matrix work.

    a_panel is (depth, MR) from element a_at of a, b_panel (depth, NR) from b_at of b, the tile of c starts at c_at; NR is
    `tile_columns`; depth is a multiple of UNROLL, at least one. The sum over depth runs in order, one multiply-add a step, and
    is then added to c where `accumulate`.
    """
    vector, lanes = _vector_type(c)
    columns, suffix = lanes * VECTORS, f"v{lanes}f{c.dtype.bitwidth}"

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        depth, a, a_at, b, b_at, c, c_at, row_stride, accumulate = args
        align = signature.args[1].dtype.bitwidth // 8
        left = _element(context, builder, signature.args[1], a, a_at)
        right = _element(context, builder, signature.args[3], b, b_at)
        put = _element(context, builder, signature.args[5], c, c_at)

        def step(left: Any, right: Any, tile: list[Any], u: int) -> list[Any]:
            operands = [_load(builder, builder.gep(right, [I64(u * columns + j * lanes)]), vector, align) for j in range(VECTORS)]
            new = []
            for row in range(MR):
                factor = _splat(builder, vector, builder.load(builder.gep(left, [I64(u * MR + row)]), align=align))
                for j in range(VECTORS):
                    new.append(multiply_add(builder, factor, operands[j], tile[row * VECTORS + j], suffix))
            return new

        before = builder.block
        body, done = builder.append_basic_block("k_body"), builder.append_basic_block("k_done")
        builder.branch(body)
        builder.position_at_end(body)
        starts = [depth, left, right, *[ir.Constant(vector, [0.0] * lanes)] * (MR * VECTORS)]
        phis = [builder.phi(start.type) for start in starts]
        tile = phis[3:]
        for u in range(UNROLL):
            tile = step(phis[1], phis[2], tile, u)
        remaining = builder.sub(phis[0], I64(UNROLL))
        moved = builder.gep(phis[1], [I64(UNROLL * MR)]), builder.gep(phis[2], [I64(UNROLL * columns)])
        for phi, start, value in zip(phis, starts, [remaining, *moved, *tile], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed(">", remaining, I64(0)), body, done)
        builder.position_at_end(done)
        adds = builder.icmp_unsigned("!=", accumulate, accumulate.type(0))
        with builder.if_else(adds) as (add, store):
            for branch, adding in ((add, True), (store, False)):
                with branch:
                    for row in range(MR):
                        line = builder.gep(put, [builder.mul(row_stride, I64(row))])
                        for j in range(VECTORS):
                            pointer, value = builder.gep(line, [I64(j * lanes)]), tile[row * VECTORS + j]
                            value = builder.fadd(_load(builder, pointer, vector, align), value) if adding else value
                            _store(builder, value, pointer, align)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(integer, a, integer, b, integer, c, integer, integer, types.boolean), code
