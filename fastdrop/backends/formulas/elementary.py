"""Exponential, logarithm and error function as polynomials that vectorise, in float32 and float64.

Notation: n and r with ``x = n ln 2 + r``, |r| <= ln 2 / 2; p, h, w are the polynomials below, highest coefficient first.

- ``exp(r) - 1 = r + r**2 p(r)``
- ``log1p(u) = 2 s + 2 s**3 h(s**2)``, ``s = u / (2 + u)``, for u in [0, 1]
- ``(1 + 2 a) exp(a**2) erfc(a) = w((a - K) / (a + K))`` for a >= 0, the form of Shepherd and Laframboise, Math. Comp. 36 (1981)

Coefficients derived here: interpolation at Chebyshev nodes in 50-digit arithmetic, rounded once. Relative error of the
polynomials: float32 1e-8 (exp), 3e-8, 8e-8; float64 1e-17, 6e-17, 2.5e-16. The functions' errors in units in the last place
are asserted by tests.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastdrop.backends.formulas._formula import bits_of, fma, formula, from_bits, select

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
ERFC_32 = (
    0.00016586757556069642, -0.00018247801926918328, -0.0014083577552810311, 0.0010404807981103659, 0.008700217120349407,
    -0.007940706796944141, -0.05421590059995651, 0.16403527557849884, -0.16603060066699982, -0.0927630364894867,
    1.2769783735275269,
)  # fmt: skip
ERFC_64 = (
    -2.7293941332533855e-09, -1.952790162974837e-09, 3.256499083798513e-08, 1.8778501156468795e-08, -2.4996538037405243e-07,
    -5.0816911811698186e-08, 1.7438577411359181e-06, -9.79297529099823e-07, -1.143961526007595e-05, 2.238759272534769e-05,
    5.164737123871838e-05, -0.0002901553656394713, 0.00029371408777227685, 0.0017556261692276722, -0.00974657962081509,
    0.028362277371370044, -0.058693398584491845, 0.09230432116435616, -0.10880393014193915, 0.08227673848999159,
    0.0035854154854663067, -0.14024059858554522, 1.2375126308378275,
)  # fmt: skip
ERFC_POINT_32, ERFC_POINT_64 = 2.0, 3.75
LOG2_E = 1.4426950408889634
LN2_HIGH_32, LN2_LOW_32 = 0.693359375, -2.12194440e-4
"""ln 2 in two parts, the first with few enough bits that n times it is exact (Cody and Waite 1980)."""
LN2_HIGH_64, LN2_LOW_64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10


def _make(
    number: Any, integer: Any, mantissa: int, low: float, high: float, exp_c: Any, log1p_c: Any, erfc_c: Any,
    erfc_point: float, ln2: tuple[float, float],
) -> SimpleNamespace:  # fmt: skip
    """Compile the functions of one dtype; results are clamped to exp(low) and exp(high), where they are 0 and inf."""
    exp_c, log1p_c, erfc_c = (np.array(c, dtype=number) for c in (exp_c, log1p_c, erfc_c))
    exp_n, log1p_n, erfc_n = len(exp_c), len(log1p_c), len(erfc_c)
    bits = 8 * np.dtype(number).itemsize
    bias, shift = integer((1 << (bits - mantissa - 2)) - 1), integer(mantissa)
    magic = number(1.5 * 2.0**mantissa)  # adding it rounds to an integer, which is left in the low bits
    magic_bits = magic.view(integer)
    log2_e, ln2_high, ln2_low = number(LOG2_E), number(ln2[0]), number(ln2[1])
    lowest, highest, point, sqrt_half = number(low), number(high), number(erfc_point), number(math.sqrt(0.5))
    zero, half, one, two = number(0.0), number(0.5), number(1.0), number(2.0)

    @formula
    def reduced(x: Any) -> Any:
        """Return (q, s1, s2) with ``exp(x) = (1 + q) * s1 * s2``; two factors, because 2**n may be no normal number."""
        x = select(x > highest, highest, select(x < lowest, lowest, x))
        t = fma(x, log2_e, magic)
        n = t - magic
        r = fma(-n, ln2_low, fma(-n, ln2_high, x))
        p = exp_c[0]
        for k in range(1, exp_n):
            p = fma(p, r, exp_c[k])
        i = integer(bits_of(t) - magic_bits)
        i1 = integer(i >> integer(1))
        i2 = integer(i - i1)
        s1 = from_bits(integer(integer(i1 + bias) << shift))
        s2 = from_bits(integer(integer(i2 + bias) << shift))
        return fma(r * r, p, r), s1, s2

    @formula
    def exp(x: Any) -> Any:
        q, s1, s2 = reduced(x)
        return (one + q) * s1 * s2

    @formula
    def expm1(x: Any) -> Any:
        """Return exp(x) - 1 for x <= 0."""
        q, s1, s2 = reduced(x)
        s = s1 * s2
        return fma(q, s, s - one)

    @formula
    def log1p(u: Any) -> Any:
        """Return log(1 + u) for u in [0, 1]."""
        s = u / (two + u)
        square = s * s
        h = log1p_c[0]
        for k in range(1, log1p_n):
            h = fma(h, square, log1p_c[k])
        return two * fma(s * square, h, s)

    @formula
    def normal_tail(z: Any) -> Any:
        """Return (Q(|z|), exp(-z**2 / 2)), Q the upper tail of the normal distribution; z**2 is taken without rounding error."""
        square = z * z
        gauss = exp(-half * square)
        gauss = fma(-gauss, select(gauss == zero, zero, half * fma(z, z, -square)), gauss)
        a = abs(z) * sqrt_half
        a = select(a > highest, highest, a)
        shifted, doubled = a + point, fma(two, a, one)
        inverse = one / (shifted * doubled)
        t = (a - point) * doubled * inverse
        w = erfc_c[0]
        for k in range(1, erfc_n):
            w = fma(w, t, erfc_c[k])
        return half * gauss * w * (shifted * inverse), gauss

    @formula
    def sigmoid_parts(z: Any) -> Any:
        """Return (e, 1 + e) with ``e = exp(-|z|)``."""
        e = exp(-abs(z))
        return e, one + e

    return SimpleNamespace(
        number=number, zero=zero, half=half, one=one, two=two, exp=exp, expm1=expm1, log1p=log1p, normal_tail=normal_tail,
        sigmoid_parts=sigmoid_parts,
    )  # fmt: skip


SINGLE = _make(np.float32, np.int32, 23, -104.0, 89.0, EXP_32, LOG1P_32, ERFC_32, ERFC_POINT_32, (LN2_HIGH_32, LN2_LOW_32))
DOUBLE = _make(np.float64, np.int64, 52, -746.0, 710.0, EXP_64, LOG1P_64, ERFC_64, ERFC_POINT_64, (LN2_HIGH_64, LN2_LOW_64))
