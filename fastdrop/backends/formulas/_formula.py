"""What shared formulas are written with: the one decorator, and scalar operations that plain Python cannot say.

Each operation carries a plain Python body, which is what runs with NUMBA_DISABLE_JIT=1, and in a simulated kernel: there,
formulas are made again, for `PLAIN` in place of `COMPILED`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from fastdrop._config import load_numba

numba = load_numba()
from llvmlite import binding, ir  # noqa: E402
from numba import types  # noqa: E402
from numba.core import cgutils  # noqa: E402
from numba.extending import intrinsic, overload  # noqa: E402

Function = TypeVar("Function", bound=Callable[..., Any])
Code = Callable[..., Any]

JIT_DISABLED = bool(numba.config.DISABLE_JIT)
_FEATURES = binding.get_host_cpu_features()
HAS_FMA = bool(_FEATURES.get("fma", False) or _FEATURES.get("neon", False))


def formula(function: Function) -> Function:
    """Compile a scalar function for use inside the kernels of any backend.

    Inlining is forced, because a call would keep the loop around it from being vectorised.
    """
    return numba.njit(error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)  # type: ignore[no-any-return]


def with_body(body: Code) -> Callable[[Code], Code]:
    """Make an operation of a Numba intrinsic and the plain body that stands for it where the JIT is off."""
    return lambda typing: body if JIT_DISABLED else intrinsic(typing)


def by_dtype(single: Code, double: Code) -> Code:
    """Make a function that is `single` where its first argument is a float32, and `double` where it is a float64."""

    function = _by_dtype_body(single, double)
    if not JIT_DISABLED:
        choices = (lambda x, *rest: double(x, *rest)), (lambda x, *rest: single(x, *rest))  # noqa: PLW0108  (plain functions)
        overload(function)(lambda x, *rest: choices[x == types.float32])  # noqa: ARG005
    return function


def _by_dtype_body(single: Code, double: Code) -> Code:
    def function(x: Any, *rest: Any) -> Any:
        return double(x, *rest) if isinstance(x, float) else single(x, *rest)

    return function


def multiply_add(builder: Any, a: Any, b: Any, c: Any, suffix: str) -> Any:
    """Emit a * b + c, in one rounding where the machine can; in two, rather than by a slow library call, elsewhere."""
    if not (HAS_FMA or builder.module.triple.startswith("nvptx")):
        return builder.fadd(builder.fmul(a, b), c)
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), f"llvm.fma.{suffix}")
    return builder.call(function, [a, b, c])


def _select_body(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


@with_body(_select_body)
def select(_typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b, without a branch; a and b of one type."""
    if condition != types.boolean or a != b:
        return None
    return a(condition, a, b), lambda _context, builder, _signature, args: builder.select(
        builder.icmp_unsigned("!=", args[0], args[0].type(0)), args[1], args[2]
    )


def _fma_body(a: Any, b: Any, c: Any) -> Any:
    with np.errstate(all="ignore"):
        return type(a)(np.float64(a) * np.float64(b) + np.float64(c))


@with_body(_fma_body)
def fma(_typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c with one rounding; a, b, c of one floating type."""
    if a not in (types.float32, types.float64) or not (a == b == c):
        return None
    suffix = f"f{a.bitwidth}"
    return a(a, b, c), lambda _context, builder, _signature, args: multiply_add(builder, args[0], args[1], args[2], suffix)


def _bits_body(x: Any) -> Any:
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


@with_body(_bits_body)
def bits_of(_typing: Any, x: Any) -> Any:
    """Return the bits of a float32 or float64 as an integer of the same width."""
    integer = {types.float32: types.int32, types.float64: types.int64}.get(x)
    if integer is None:
        return None
    return integer(x), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(signature.return_type)
    )


def _from_bits_body(i: Any) -> Any:
    return i.view(np.float32 if i.dtype == np.int32 else np.float64)


@with_body(_from_bits_body)
def from_bits(_typing: Any, i: Any) -> Any:
    """Return the floating-point number that has the bits of an int32 or int64."""
    number = {types.int32: types.float32, types.int64: types.float64}.get(i)
    if number is None:
        return None
    return number(i), lambda context, builder, signature, args: builder.bitcast(
        args[0], context.get_value_type(signature.return_type)
    )


class Target(NamedTuple):
    """What formulas are made of: the decorator, the scalar operations, and how two dtypes become one function."""

    formula: Callable[[Any], Any]
    select: Code
    fma: Code
    bits_of: Code
    from_bits: Code
    by_dtype: Callable[[Code, Code], Code]


COMPILED: Final = Target(formula, select, fma, bits_of, from_bits, by_dtype)
"""For kernels of any backend."""
PLAIN: Final = Target(lambda function: function, _select_body, _fma_body, _bits_body, _from_bits_body, _by_dtype_body)
"""For kernels that are simulated: compiled formulas cannot be called from Python."""
