"""What formulas are made of for numba-cuda-mlir, which does not take the operations that Numba's own compiler emits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba_cuda_mlir import cuda
from numba_cuda_mlir.numba_cuda import types
from numba_cuda_mlir.numba_cuda.extending import overload

from fastdrop.backends.formulas._formula import Target

libdevice = cuda.libdevice


def _formula(function: Callable[..., Any]) -> Any:
    return cuda.jit(device=True)(function)


def _by_dtype(single: Any, double: Any) -> Any:
    """Make one function of two, of one, two or three arguments; those below only stand for it where kernels are typed."""
    narrow = types.float32, types.int32
    match single.py_func.__code__.co_argcount:
        case 1:

            def unary(x: Any) -> Any:
                return x

            overload(unary)(lambda x: (lambda x: single(x)) if x in narrow else (lambda x: double(x)))  # noqa: PLW0108
            return unary
        case 2:

            def binary(x: Any, y: Any) -> Any:
                return x, y

            overload(binary)(lambda x, y: (lambda x, y: single(x, y)) if x in narrow else (lambda x, y: double(x, y)))  # noqa: ARG005, PLW0108
            return binary

    def ternary(x: Any, y: Any, z: Any) -> Any:
        return x, y, z

    overload(ternary)(lambda x, y, z: (lambda x, y, z: single(x, y, z)) if x in narrow else (lambda x, y, z: double(x, y, z)))  # noqa: ARG005, PLW0108
    return ternary


@_formula
def _select(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@_formula
def _fma(a: Any, b: Any, c: Any) -> Any:
    return cuda.fma(a, b, c)


@_formula
def _bits_32(x: Any) -> Any:
    return libdevice.float_as_int(x)


@_formula
def _bits_64(x: Any) -> Any:
    return libdevice.double_as_longlong(x)


@_formula
def _from_bits_32(x: Any) -> Any:
    return libdevice.int_as_float(x)


@_formula
def _from_bits_64(x: Any) -> Any:
    return libdevice.longlong_as_double(x)


MLIR = Target(_formula, _select, _fma, _by_dtype(_bits_32, _bits_64), _by_dtype(_from_bits_32, _from_bits_64), _by_dtype)
