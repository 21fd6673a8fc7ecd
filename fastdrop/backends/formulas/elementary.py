"""Exponential, logarithm, sine, cosine and the normal distribution's tail as polynomials that vectorise, in both dtypes.

Notation: n and r with ``x = n ln 2 + r``, |r| <= ln 2 / 2; p, h, s, c, v, w are the polynomials below, highest coefficient first.

- ``exp(r) - 1 = r + r**2 p(r)``
- ``log1p(u) = 2 q + 2 q**3 h(q**2)``, ``q = u / (2 + u)``, for u in [-1/2, 1]
- ``sin t = t + t**3 s(t**2)``, ``cos t = 1 + t**2 c(t**2)``, for t in [0, pi/4]
- ``exp(a**2 / 2) Q(a) = v(a) / w(a)`` for a >= 0, Q the upper tail of the normal distribution; all coefficients are positive

Coefficients derived here: interpolation at Chebyshev nodes in 50-digit arithmetic, rounded once. Those of v / w are nodes of
``(a - K) / (a + K)``, from a = 0 to where the tail underflows, with v(0) = 1/2 and w(0) = 1; K = 3.82 and 4.25 lose least to the
rounding. Relative error of the approximations: float32 1e-8 (exp), 3e-8 (log1p), 1.4e-8 (tail); float64 1e-17, 6e-17, 2.1e-17.
Absolute error of sine and cosine: float32 8.2e-9, float64 1.4e-17. The functions' errors in units in the last place are asserted
by tests.
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastdrop.backends.formulas._formula import Target

EXP_32 = (0.0013926213141530752, 0.008363203145563602, 0.041666556149721146, 0.16666576266288757, 0.5)
EXP_64 = (
    2.5100424157005067e-08, 2.7620138719733994e-07, 2.7557268378684192e-06, 2.480152119021773e-05, 0.00019841269863105968,
    0.0013888888917281794, 0.008333333333330051, 0.04166666666662399, 0.16666666666666669, 0.5000000000000001,
)  # fmt: skip
LOG1P_32 = (0.11612164974212646, 0.1085328757762909, 0.142961785197258, 0.19999852776527405, 0.3333333432674408)
LOG1P_64 = (
    0.07815288900461426, 0.03746071897775383, 0.05422589197440007, 0.05867139530651599, 0.06667589315724629,
    0.07692271982430275, 0.09090909948981357, 0.11111111099118386, 0.1428571428580005, 0.19999999999999762, 0.3333333333333333,
)  # fmt: skip
SIN_32 = (-0.00019587865972425789, 0.008332747966051102, -0.166666641831398)
SIN_64 = (
    1.5918115263265974e-10, -2.505113165023518e-08, 2.7557316101617874e-06, -0.00019841269836756774, 0.008333333333330948,
    -0.16666666666666666,
)  # fmt: skip
COS_32 = (2.4463754016323946e-05, -0.0013887588866055012, 0.04166664928197861, -0.5)
COS_64 = (
    -1.1367988423294987e-11, 2.0875886564482672e-09, -2.755731556524682e-07, 2.4801587293690305e-05, -0.001388888888888077,
    0.04166666666666664, -0.5,
)  # fmt: skip
TAIL_V_32 = (0.003715205704793334, 0.03801846131682396, 0.17562320828437805, 0.42825376987457275, 0.5)
TAIL_W_32 = (0.009312459267675877, 0.09530721604824066, 0.4493374228477478, 1.1712597608566284, 1.654392123222351, 1.0)
TAIL_V_64 = (
    1.9555847357071842e-07, 6.2297327405682155e-06, 9.69835489916594e-05, 0.0009613610173965991, 0.006678160900943365,
    0.033857261053553314, 0.12676115588006723, 0.34664073550107316, 0.6658330989508515, 0.8191651175257049, 0.5,
)  # fmt: skip
TAIL_W_64 = (
    4.901923991958258e-07, 1.5615624230951498e-05, 0.0002435918984707413, 0.002425390332878246, 0.01698178824472656,
    0.08724611173743817, 0.33400145288179495, 0.9491038320326428, 1.9556517211653055, 2.7754843703133334, 2.436214795854275, 1.0,
)  # fmt: skip
LOG2_E = 1.4426950408889634
LN2_HIGH_32, LN2_LOW_32 = 0.693359375, -2.12194440e-4
"""ln 2 in two parts, the first with few enough bits that n times it is exact (Cody and Waite 1980)."""
LN2_HIGH_64, LN2_LOW_64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10


def _make(
    target: Target, number: Any, integer: Any, mantissa: int, ln2: tuple[float, float], exp_c: Any, log1p_c: Any, sin_c: Any,
    cos_c: Any, tail_v: Any, tail_w: Any,
) -> SimpleNamespace:  # fmt: skip
    """Make the functions of one dtype."""
    formula, select, fma, bits_of, from_bits, _ = target
    exponent_bias = (1 << (8 * np.dtype(number).itemsize - mantissa - 2)) - 1
    magic = number(1.5 * 2.0**mantissa + exponent_bias)  # adding it rounds to an integer and leaves that, biased, in the low bits
    shift, log2_e, ln2_high, ln2_low = integer(mantissa), number(LOG2_E), number(ln2[0]), number(ln2[1])
    lowest = number(-exponent_bias * math.log(2.0))  # exp is 0 from here on down
    inverse_sqrt_two_pi, widest = number(1.0 / math.sqrt(2.0 * math.pi)), number(math.sqrt(-2.0 * float(lowest)))
    zero, half, one, two = number(0.0), number(0.5), number(1.0), number(2.0)

    def polynomial(coefficients: Any) -> Any:
        c, n = np.array(coefficients, dtype=number), len(coefficients)

        @formula
        def value(x: Any) -> Any:
            total = c[0]
            for k in range(1, n):
                total = fma(total, x, c[k])
            return total

        return value

    p, h, v, w = polynomial(exp_c), polynomial(log1p_c), polynomial(tail_v), polynomial(tail_w)
    s, c = polynomial(sin_c), polynomial(cos_c)

    @formula
    def reduced(a: Any, b: Any) -> Any:
        """Return (q, s), ``exp(a * b) = s + q * s``, s a power of two or 0; a * b is in [lowest, 0] and not rounded."""
        t = fma(a * b, log2_e, magic)
        n = t - magic
        r = fma(-n, ln2_low, fma(a, b, -n * ln2_high))
        return fma(r * r, p(r), r), from_bits(integer(bits_of(t) << shift))

    @formula
    def exp(x: Any) -> Any:
        """Return exp(x) for x <= 0."""
        q, s = reduced(select(x < lowest, lowest, x), one)
        return fma(q, s, s)

    @formula
    def expm1(x: Any) -> Any:
        """Return exp(x) - 1 for x <= 0."""
        q, s = reduced(select(x < lowest, lowest, x), one)
        return fma(q, s, s - one)

    @formula
    def log1p(u: Any) -> Any:
        """Return log(1 + u) for u in [-1/2, 1]."""
        q = u / (two + u)
        square = q * q
        return two * fma(q * square, h(square), q)

    @formula
    def sincos(t: Any) -> Any:
        """Return (sin t, cos t) for t in [0, pi/4]."""
        square = t * t
        return fma(t * square, s(square), t), fma(square, c(square), one)

    @formula
    def normal_tail(z: Any) -> Any:
        """Return (a, Q(a), density at a) of the normal distribution; a is |z|, cut where both are 0."""
        a = abs(z)
        a = select(a > widest, widest, a)
        q, s = reduced(a, -half * a)
        gauss = fma(q, s, s)
        return a, gauss * v(a) / w(a), gauss * inverse_sqrt_two_pi

    @formula
    def logistic_parts(z: Any) -> Any:
        """Return (a, e, 1 + e) with ``e = exp(-a)``; a is |z|, cut where e is 0."""
        a = abs(z)
        a = select(a > -lowest, -lowest, a)
        q, s = reduced(-a, one)
        e = fma(q, s, s)
        return a, e, one + e

    return SimpleNamespace(
        number=number, integer=integer, mantissa=mantissa, zero=zero, half=half, one=one, two=two, exp=exp, expm1=expm1,
        log1p=log1p, sincos=sincos, normal_tail=normal_tail, logistic_parts=logistic_parts,
    )  # fmt: skip


@cache
def make(target: Target) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Return the functions for float32 and those for float64."""
    return (
        _make(
            target, np.float32, np.int32, 23, (LN2_HIGH_32, LN2_LOW_32), EXP_32, LOG1P_32, SIN_32, COS_32, TAIL_V_32, TAIL_W_32
        ),
        _make(
            target, np.float64, np.int64, 52, (LN2_HIGH_64, LN2_LOW_64), EXP_64, LOG1P_64, SIN_64, COS_64, TAIL_V_64, TAIL_W_64
        ),
    )
