"""Activations and their derivatives as scalar formulas, for float32 and float64.

Notation: z is the pre-activation, ``f`` the function, ``f_grad`` its derivative at z (the derivative of the input, never of
the output). Formulas are written so that neither overflow nor cancellation costs accuracy:

- sigmoid: ``e = exp(-|z|)``; 1 / (1 + e) or e / (1 + e); derivative ``e / (1 + e)**2``
- tanh: ``t = expm1(-2 |z|)``; ``-t / (2 + t)`` with the sign of z; derivative ``4 e / (1 + e)**2``, ``e = exp(-2 |z|)``
- gelu: ``z Phi(z)``, ``Phi(z) = erfc(-z / sqrt 2) / 2``; derivative ``Phi(z) + z exp(-z**2 / 2) / sqrt(2 pi)``
- silu: ``z s``; derivative ``s (1 + z (1 - s))``, s the sigmoid
- selu: scale * (z or alpha * expm1(z)); derivative scale or scale * alpha * exp(z)
- softplus: ``max(z, 0) + log1p(exp(-|z|))``; derivative the sigmoid
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from fastdrop.backends.formulas._formula import by_dtype, fma, formula, select
from fastdrop.backends.formulas.elementary import DOUBLE, SINGLE

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
"""Fixed point (mean 0, variance 1) of Klambauer et al. 2017, equation 14."""
SATURATED = 1000.0
"""Beyond +-SATURATED the sigmoid, the normal distribution function and its density are 0 or 1 in both dtypes."""


def _make(f: SimpleNamespace) -> SimpleNamespace:
    """Compile the activations of one dtype from its elementary functions."""
    zero, one, two, number = f.zero, f.one, f.two, f.number
    exp, expm1, log1p, normal_tail, sigmoid_parts = f.exp, f.expm1, f.log1p, f.normal_tail, f.sigmoid_parts
    inverse_sqrt_two_pi = number(1.0 / math.sqrt(2.0 * math.pi))
    bound, four, scale, scale_alpha = number(SATURATED), number(4.0), number(SELU_SCALE), number(SELU_SCALE * SELU_ALPHA)

    @formula
    def sigmoid(z: Any) -> Any:
        e, total = sigmoid_parts(z)
        return select(z >= zero, one, e) / total

    @formula
    def sigmoid_grad(z: Any) -> Any:
        e, total = sigmoid_parts(z)
        return e / (total * total)

    @formula
    def tanh(z: Any) -> Any:
        t = expm1(-two * abs(z))
        size = -t / (two + t)
        return select(z < zero, -size, select(z == zero, z, size))

    @formula
    def tanh_grad(z: Any) -> Any:
        e, total = sigmoid_parts(two * z)
        return four * e / (total * total)

    @formula
    def bounded(z: Any) -> Any:
        """Return z cut to where its factor is exactly 0 beyond, because 0 * inf is NaN."""
        return select(z > bound, bound, select(z < -bound, -bound, z))

    @formula
    def gelu(z: Any) -> Any:
        tail, _ = normal_tail(z)
        return select(z < zero, bounded(z), z) * select(z < zero, tail, one - tail)

    @formula
    def gelu_grad(z: Any) -> Any:
        tail, gauss = normal_tail(z)
        return fma(bounded(z) * inverse_sqrt_two_pi, gauss, select(z < zero, tail, one - tail))

    @formula
    def silu(z: Any) -> Any:
        return select(z < zero, bounded(z), z) * sigmoid(z)

    @formula
    def silu_grad(z: Any) -> Any:
        e, total = sigmoid_parts(z)
        s = select(z >= zero, one, e) / total
        rest = select(z >= zero, e, one) / total
        return s * fma(bounded(z), rest, one)

    @formula
    def selu(z: Any) -> Any:
        return select(z > zero, scale * z, scale_alpha * expm1(select(z > zero, zero, z)))

    @formula
    def selu_grad(z: Any) -> Any:
        return select(z > zero, scale, scale_alpha * exp(select(z > zero, zero, z)))

    @formula
    def softplus(z: Any) -> Any:
        return select(z <= zero, zero, z) + log1p(exp(-abs(z)))

    @formula
    def heaviside(z: Any) -> Any:
        return select(z >= zero, one, select(z < zero, zero, z))

    return SimpleNamespace(**{name: value for name, value in locals().items() if name not in ("f", "number")})


_SINGLE, _DOUBLE = _make(SINGLE), _make(DOUBLE)

exp = by_dtype(_SINGLE.exp, _DOUBLE.exp)
log1p = by_dtype(_SINGLE.log1p, _DOUBLE.log1p)
sigmoid = by_dtype(_SINGLE.sigmoid, _DOUBLE.sigmoid)
sigmoid_grad = by_dtype(_SINGLE.sigmoid_grad, _DOUBLE.sigmoid_grad)
tanh = by_dtype(_SINGLE.tanh, _DOUBLE.tanh)
tanh_grad = by_dtype(_SINGLE.tanh_grad, _DOUBLE.tanh_grad)
gelu = by_dtype(_SINGLE.gelu, _DOUBLE.gelu)
gelu_grad = by_dtype(_SINGLE.gelu_grad, _DOUBLE.gelu_grad)
silu = by_dtype(_SINGLE.silu, _DOUBLE.silu)
silu_grad = by_dtype(_SINGLE.silu_grad, _DOUBLE.silu_grad)
selu = by_dtype(_SINGLE.selu, _DOUBLE.selu)
selu_grad = by_dtype(_SINGLE.selu_grad, _DOUBLE.selu_grad)
softplus = by_dtype(_SINGLE.softplus, _DOUBLE.softplus)
heaviside = by_dtype(_SINGLE.heaviside, _DOUBLE.heaviside)
