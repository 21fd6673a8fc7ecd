"""Activations and their derivatives as scalar formulas, for float32 and float64.

Notation: z is the pre-activation, ``f`` the function, ``f_grad`` its derivative at z (the derivative of the input, never of
the output); Q(a) is the upper tail of the normal or logistic distribution at ``a = |z|``, q(a) the density there. Formulas are
written so that neither overflow nor cancellation costs accuracy, with one division each:

- sigmoid: ``e = exp(-|z|)``; 1 / (1 + e) or e / (1 + e); derivative ``e / (1 + e)**2``
- tanh: ``t = expm1(-2 |z|)``; ``-t / (2 + t)`` with the sign of z; derivative 4 sigmoid'(2 z)
- gelu (normal) and silu (logistic): z times the distribution function, ``max(z, 0) - a Q``; derivative d or 1 - d,
  ``d = Q - a q``
- selu: scale * (z or alpha * expm1(z)); derivative scale or scale * alpha * exp(z)
- softplus: ``max(z, 0) + log1p(exp(-|z|))``; derivative the sigmoid
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastdrop.backends.base import SELU_ALPHA, SELU_SCALE
from fastdrop.backends.formulas import elementary
from fastdrop.backends.formulas._formula import COMPILED, Target

NAMES = (
    "exp", "log1p", "sigmoid", "sigmoid_grad", "tanh", "tanh_grad", "gelu", "gelu_grad", "silu", "silu_grad", "selu", "selu_grad",
    "softplus", "heaviside",
)  # fmt: skip


def _make(target: Target, f: SimpleNamespace) -> SimpleNamespace:
    """Make the activations of one dtype from its elementary functions."""
    formula, select, fma, bits_of, from_bits, _ = target
    zero, one, two, number, integer = f.zero, f.one, f.two, f.number, f.integer
    exp, expm1, log1p, normal_tail, logistic_parts = f.exp, f.expm1, f.log1p, f.normal_tail, f.logistic_parts
    four, scale, scale_alpha = number(4.0), number(SELU_SCALE), number(SELU_SCALE * SELU_ALPHA)
    sign = integer(np.iinfo(integer).min)

    @formula
    def copysign(size: Any, z: Any) -> Any:
        return from_bits(integer(integer(bits_of(size) & ~sign) | integer(bits_of(z) & sign)))

    @formula
    def sigmoid(z: Any) -> Any:
        _, e, total = logistic_parts(z)
        return select(z < zero, e, one) / total

    @formula
    def sigmoid_grad(z: Any) -> Any:
        _, e, total = logistic_parts(z)
        return e / (total * total)

    @formula
    def tanh(z: Any) -> Any:
        t = expm1(-two * abs(z))
        return copysign(t / (two + t), z)

    @formula
    def tanh_grad(z: Any) -> Any:
        return four * sigmoid_grad(two * z)

    @formula
    def logistic_tail(z: Any) -> Any:
        """Return (a, Q(a), q(a)) of the logistic distribution; a is |z|, cut where both are 0."""
        a, e, total = logistic_parts(z)
        inverse = one / total
        tail = e * inverse
        return a, tail, tail * inverse

    def gated(tail_of: Any) -> tuple[Any, Any]:
        """Make z times a distribution function, and its derivative."""

        @formula
        def value(z: Any) -> Any:
            a, tail, _ = tail_of(z)
            return fma(-a, tail, select(z <= zero, zero, z))

        @formula
        def grad(z: Any) -> Any:
            a, tail, density = tail_of(z)
            d = fma(-a, density, tail)
            return select(z < zero, d, one - d)

        return value, grad

    gelu, gelu_grad = gated(normal_tail)
    silu, silu_grad = gated(logistic_tail)

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

    return SimpleNamespace(**{name: value for name, value in locals().items() if name in NAMES})


def make(target: Target) -> SimpleNamespace:
    """Return the functions called NAMES, each for both dtypes."""
    single, double = (_make(target, functions) for functions in elementary.make(target))
    return SimpleNamespace(**{name: target.by_dtype(getattr(single, name), getattr(double, name)) for name in NAMES})


_compiled = make(COMPILED)
exp = _compiled.exp
log1p = _compiled.log1p
sigmoid = _compiled.sigmoid
sigmoid_grad = _compiled.sigmoid_grad
tanh = _compiled.tanh
tanh_grad = _compiled.tanh_grad
gelu = _compiled.gelu
gelu_grad = _compiled.gelu_grad
silu = _compiled.silu
silu_grad = _compiled.silu_grad
selu = _compiled.selu
selu_grad = _compiled.selu_grad
softplus = _compiled.softplus
heaviside = _compiled.heaviside
