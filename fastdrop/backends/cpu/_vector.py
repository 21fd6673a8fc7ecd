"""The few vector operations that LLVM does not find by itself, as portable vector code; each carries a plain Python body.

The Python body is the definition: it is what runs with NUMBA_DISABLE_JIT=1. The vector width follows the host's features and
never shows in a result. FASTDROP_SIMD=256 or 128 forces a narrower one.

Notation: LANES elements of float32 make a vector (half as many of float64); a decision word is a uint64 whose bit b is column
b of its 64 columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdrop._config import load_numba

numba = load_numba()
from llvmlite import binding, ir  # noqa: E402
from numba import types  # noqa: E402
from numba.core import cgutils  # noqa: E402

from fastdrop.backends.formulas._formula import with_body  # noqa: E402

SIMD_VARIABLE = "FASTDROP_SIMD"
FEATURES = binding.get_host_cpu_features()


def _simd_bits() -> int:
    forced = os.environ.get(SIMD_VARIABLE, "")
    native = 512 if FEATURES.get("avx512f") else 256 if FEATURES.get("avx2") else 128
    return int(forced) if forced in ("128", "256", "512") else native


SIMD_BITS = _simd_bits()
LANES = SIMD_BITS // 32
WORD_BITS = 64
STREAM_ALIGNMENT = SIMD_BITS // 8
"""Bytes."""
GROUP_BLOCKS = 8
"""Philox blocks that `pack_decisions` takes at once: 128 decisions, two words."""

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)


def element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return a pointer to element `index` of a 1-D C-contiguous array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def vector_type(array_type: Any) -> tuple[Any, int]:
    """Return (vector type, lanes) of an array of float32 or float64."""
    if array_type.dtype == types.float32:
        return ir.VectorType(ir.FloatType(), LANES), LANES
    return ir.VectorType(ir.DoubleType(), LANES // 2), LANES // 2


def splat(builder: Any, vector: Any, value: Any) -> Any:
    """Emit a vector of one value."""
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, value, I32(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def first_lanes(builder: Any, lanes: int, count: Any) -> Any:
    """Emit a mask whose lanes below count are set."""
    numbers = ir.Constant(ir.VectorType(I64, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, numbers.type, count))


def each_vector(builder: Any, count: Any, lanes: int, step: Callable[[Any, Any], None]) -> None:
    """Emit ``step(first, mask)`` for all of so many elements: a loop over whole vectors, whose mask is None, and the rest."""
    whole = builder.sdiv(count, I64(lanes))
    with cgutils.for_range(builder, whole) as loop:
        step(builder.mul(loop.index, I64(lanes)), None)
    done = builder.mul(whole, I64(lanes))
    with builder.if_then(builder.icmp_signed("<", done, count)):
        step(done, first_lanes(builder, lanes, builder.sub(count, done)))


def _masked(builder: Any, kind: str, result: Any, vector: Any, *args: Any) -> Any:
    name = f"llvm.masked.{kind}.v{vector.count}f{64 if vector.element == ir.DoubleType() else 32}.p0"
    function = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def load(builder: Any, pointer: Any, vector: Any, align: int, mask: Any = None) -> Any:
    """Emit a load of a vector; with a mask of its lanes, zeros elsewhere: what lies in memory there is not touched."""
    source = builder.bitcast(pointer, vector.as_pointer())
    if mask is None:
        return builder.load(source, align=align)
    return _masked(builder, "load", vector, vector, source, I32(align), mask, ir.Constant(vector, [0.0] * vector.count))


def store(builder: Any, value: Any, pointer: Any, align: int, mask: Any = None) -> Any:
    """Emit a store of a vector, or of the lanes of a mask."""
    target = builder.bitcast(pointer, value.type.as_pointer())
    if mask is None:
        return builder.store(value, target, align=align)
    return _masked(builder, "store", ir.VoidType(), value.type, value, target, I32(align), mask)


# scale_kept(x, y, at, word, scale): 64 elements; stream_kept: the same past the caches; affine_kept: with shift and fill


def _scale_kept_body(x: Any, y: Any, at: int, word: Any, scale: Any) -> None:
    for i in range(WORD_BITS):
        y[at + i] = x[at + i] * scale if (int(word) >> i) & 1 else 0.0


def _affine_kept_body(x: Any, y: Any, at: int, word: Any, scale: Any, shift: Any, fill: Any) -> None:
    for i in range(WORD_BITS):
        y[at + i] = x[at + i] * scale + shift if (int(word) >> i) & 1 else fill


def _scale_kept(x: Any, y: Any, *, stream: bool, affine: bool = False) -> Any:
    """Return signature and code of `scale_kept`, `stream_kept` or `affine_kept`."""
    vector, lanes = vector_type(x)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, at, word, scale, *moved = args
        source = element(context, builder, signature.args[0], x, at)
        target = element(context, builder, signature.args[1], y, at)
        factor, dropped = splat(builder, vector, scale), ir.Constant(vector, [0.0] * lanes)
        if affine:
            shift, dropped = (splat(builder, vector, value) for value in moved)
        bits, align = ir.IntType(lanes), signature.args[0].dtype.bitwidth // 8
        for first in range(0, WORD_BITS, lanes):
            keep = builder.bitcast(builder.trunc(builder.lshr(word, I64(first)), bits), ir.VectorType(I1, lanes))
            values = load(builder, builder.gep(source, [I64(first)]), vector, align)
            scaled = builder.fmul(values, factor)
            kept = builder.select(keep, builder.fadd(scaled, shift) if affine else scaled, dropped)
            stored = store(builder, kept, builder.gep(target, [I64(first)]), align * lanes if stream else align)
            if stream:
                stored.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
        return context.get_dummy_value()

    return types.void(x, y, types.intp, types.uint64, *[x.dtype] * (3 if affine else 1)), code


@with_body(_scale_kept_body)
def scale_kept(_typing: Any, x: Any, y: Any, at: Any, word: Any, scale: Any) -> Any:
    """``y[at + i] = x[at + i] * scale`` where bit i of word is set, else +0.0; i = 0..63; x and y may be one array."""
    return _scale_kept(x, y, stream=False)


@with_body(_scale_kept_body)
def stream_kept(_typing: Any, x: Any, y: Any, at: Any, word: Any, scale: Any) -> Any:
    """`scale_kept` with stores past the caches; the address of ``y[at]`` is a multiple of STREAM_ALIGNMENT. See `fence`."""
    return _scale_kept(x, y, stream=True)


@with_body(_affine_kept_body)
def affine_kept(_typing: Any, x: Any, y: Any, at: Any, word: Any, scale: Any, shift: Any, fill: Any) -> Any:
    """``y[at + i] = x[at + i] * scale + shift`` where bit i of word is set, else fill; i = 0..63; x and y may be one array."""
    return _scale_kept(x, y, stream=False, affine=True)


def _fence_body() -> None:
    pass


@with_body(_fence_body)
def fence(_typing: Any) -> Any:
    """Wait until what `stream_kept` stored is visible to other threads."""

    def code(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


# give_to_largest(x, upper, lower, dy, at, channels, dx): the gradient of the largest of two by two elements


def _give_to_largest_body(x: Any, upper: int, lower: int, dy: Any, at: int, channels: int, dx: Any) -> None:
    starts = upper, upper + channels, lower, lower + channels
    for c in range(channels):
        chosen = 0
        for tap in (1, 2, 3):
            value = x[starts[tap] + c]
            if value > x[starts[chosen] + c] or value != value:  # noqa: PLR0124  (NaN)
                chosen = tap
        for tap, start in enumerate(starts):
            dx[start + c] = dy[at + c] if tap == chosen else 0.0


@with_body(_give_to_largest_body)
def give_to_largest(_typing: Any, x: Any, upper: Any, lower: Any, dy: Any, at: Any, channels: Any, dx: Any) -> Any:
    """Write ``dy[at + c]`` to the largest of four elements of channel c, in dx, and +0.0 to the others; all arrays are flat.

    They are at ``upper + c``, ``upper + channels + c`` and the same from `lower`. The first of equals, and the last NaN, counts
    as the largest.
    """
    vector, lanes = vector_type(x)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, upper, lower, dy, at, channels, dx = args
        align = signature.args[0].dtype.bitwidth // 8
        starts = upper, builder.add(upper, channels), lower, builder.add(lower, channels)
        sources = [element(context, builder, signature.args[0], x, start) for start in starts]
        targets = [element(context, builder, signature.args[6], dx, start) for start in starts]
        given, zero = element(context, builder, signature.args[3], dy, at), ir.Constant(vector, [0.0] * lanes)

        def step(c: Any, mask: Any) -> None:
            values = [load(builder, builder.gep(source, [c]), vector, align, mask) for source in sources]
            gradient = load(builder, builder.gep(given, [c]), vector, align, mask)
            largest, parts = values[0], [gradient]
            for value in values[1:]:
                later = builder.or_(builder.fcmp_ordered(">", value, largest), builder.fcmp_unordered("uno", value, value))
                largest = builder.select(later, value, largest)
                parts = [builder.select(later, zero, part) for part in parts] + [builder.select(later, gradient, zero)]
            for part, target in zip(parts, targets, strict=True):
                store(builder, part, builder.gep(target, [c]), align, mask)

        each_vector(builder, channels, lanes, step)
        return context.get_dummy_value()

    integer = types.intp
    return types.void(x, integer, integer, dy, integer, integer, dx), code


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
            columns.append(load(builder, element(context, builder, signature.args[0], words, index), eight, 4))
        pairs = [
            builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, 16), list(range(16))))
            for a, b in (columns[:2], columns[2:])
        ]
        for half in range(2):  # four blocks, 64 bytes
            order = [8 * k + block for block in range(4 * half, 4 * half + 4) for k in range(4)]
            stream = builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(I32, 16), order))
            octets = builder.bitcast(stream, ir.VectorType(I8, WORD_BITS))
            limit = splat(builder, octets.type, builder.trunc(hi, I8))
            for target, test, type_ in ((keep, ">", signature.args[4]), (ties, "==", signature.args[5])):
                packed = builder.bitcast(builder.icmp_unsigned(test, octets, limit), I64)
                pointer = element(context, builder, type_, target, builder.add(to, I64(half)))
                builder.store(packed, pointer)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.intp, types.uint64, keep, ties, types.intp), code
