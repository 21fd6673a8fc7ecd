"""Accesses of 16 bytes: neighbouring elements of an array in one instruction."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir

from fastdrop.backends.cuda._jit import SIMULATED, numba

VECTOR_BYTES: Final = 16

types, intrinsic = numba.types, numba.extending.intrinsic


def _drop_vector_body(x: Any, y: Any, i: int, keep: Any, scale: Any) -> None:
    for k in range(VECTOR_BYTES // x.dtype.itemsize):
        y[i + k] = x[i + k] * scale if (int(keep) >> k) & 1 else np.float32(0)


def _drop_vector_typing(_typing: Any, x: Any, y: Any, _i: Any, _keep: Any, scale: Any) -> Any:
    """Emit a load, a multiplication in the type of `scale`, a selection by the bits of `keep`, and a store."""
    lanes = VECTOR_BYTES * 8 // x.dtype.bitwidth

    is_bfloat = x.dtype.bitwidth == 16 and x.dtype != types.float16  # its bits are the upper half of a float32's
    i16, i32 = ir.IntType(16), ir.IntType(32)

    def widened(builder: Any, loaded: Any, wide: Any) -> Any:
        """Widen the 16-bit floats of words one by one: a vector of eight halves would be loaded in pieces."""
        values = ir.Constant(wide, ir.Undefined)
        for k in range(lanes):
            word = builder.extract_element(loaded, i32(k // 2))
            if is_bfloat:
                upper = builder.shl(word, i32(16)) if k % 2 == 0 else builder.and_(word, i32(0xFFFF0000))
                one = builder.bitcast(upper, wide.element)
            else:
                bits = builder.trunc(builder.lshr(word, i32(16 * (k % 2))), i16)
                one = builder.fpext(builder.bitcast(bits, ir.HalfType()), wide.element)
            values = builder.insert_element(values, one, i32(k))
        return values

    def rounded(builder: Any, values: Any, integer: Any) -> Any:
        """Round a vector of float32 to the upper halves of their bits, to nearest even; NaN stays NaN."""
        bits = builder.bitcast(values, integer)

        def constant(number: int) -> Any:
            return ir.Constant(integer, [number] * lanes)

        odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
        nearest = builder.add(bits, builder.add(constant(0x7FFF), odd))
        quiet = builder.or_(bits, constant(0x00400000))
        chosen = builder.select(builder.fcmp_unordered("uno", values, values), quiet, nearest)
        return builder.trunc(builder.lshr(chosen, constant(16)), ir.VectorType(i16, lanes))

    def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number = context.get_value_type(scale)
        wide, is_narrow = ir.VectorType(number, lanes), x.dtype.bitwidth == 16
        integer, words = ir.VectorType(i32, lanes), ir.VectorType(i32, VECTOR_BYTES // 4)

        def vector_at(array_type: Any, value: Any) -> Any:
            data = context.make_array(array_type)(context, builder, value).data
            return builder.bitcast(builder.gep(data, [arguments[2]]), words.as_pointer())

        def splat(value: Any, vector: Any) -> Any:
            one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, i32(0))
            return builder.shuffle_vector(one, one, ir.Constant(integer, [0] * lanes))

        loaded = builder.load(vector_at(x, arguments[0]), align=VECTOR_BYTES)
        values = widened(builder, loaded, wide) if is_narrow else builder.bitcast(loaded, wide)
        values = builder.fmul(values, splat(arguments[4], wide))
        bits = builder.and_(splat(arguments[3], integer), ir.Constant(integer, [1 << k for k in range(lanes)]))
        kept = builder.icmp_unsigned("!=", bits, ir.Constant(integer, [0] * lanes))
        values = builder.select(kept, values, ir.Constant(wide, [0.0] * lanes))
        if is_bfloat:
            values = rounded(builder, values, integer)
        elif is_narrow:
            values = builder.fptrunc(values, ir.VectorType(ir.HalfType(), lanes))
        builder.store(builder.bitcast(values, words), vector_at(y, arguments[1]), align=VECTOR_BYTES)
        return context.get_dummy_value()

    return types.void(x, y, types.int64, types.uint32, scale), code


drop_vector = _drop_vector_body if SIMULATED else intrinsic(_drop_vector_typing)
"""``drop_vector(x, y, i, keep, scale)``: 16 bytes from element i on, ``y = keep ? x * scale : +0.0``; addresses are aligned."""
