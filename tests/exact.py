"""Activations and their derivatives in decimal arithmetic, to far more digits than binary64 holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, getcontext, localcontext
from functools import cache

from fastdrop._types import ActivationKind

DIGITS = 60
SELU_ALPHA = Decimal("1.6732632423543772848170429916717")
SELU_SCALE = Decimal("1.0507009873554804934193349852946")
SLOPE = Decimal("0.2")


@cache
def _pi(digits: int) -> Decimal:
    """Machin 1706: ``pi / 4 = 4 arctan(1/5) - arctan(1/239)``."""

    def arctan_of_inverse(x: int) -> Decimal:
        return sum((Decimal((-1) ** n) / ((2 * n + 1) * Decimal(x) ** (2 * n + 1)) for n in range(digits)), Decimal(0))

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))


def _sigmoid(z: Decimal) -> Decimal:
    return 1 / (1 + (-z).exp()) if z >= 0 else z.exp() / (1 + z.exp())


def _tanh(z: Decimal) -> Decimal:
    e = (-2 * abs(z)).exp()
    return ((1 - e) / (1 + e)).copy_sign(z)


def _density(z: Decimal) -> Decimal:
    return (-z * z / 2).exp() / (2 * _pi(getcontext().prec)).sqrt()


def _normal_cdf(z: Decimal) -> Decimal:
    """``1/2 + phi(z) * sum of z**(2n+1) / (2n+1)!!``; the sum has positive terms, the difference loses digits that are there."""
    if abs(z) > 40:
        return Decimal(z > 0)
    term = total = abs(z)
    n = 1
    while term > total.scaleb(-getcontext().prec):
        n += 2
        term = term * z * z / n
        total += term
    half = _density(z) * total
    return Decimal("0.5") + half.copy_sign(z)


def _selu_grad(z: Decimal) -> Decimal:
    return SELU_SCALE * (1 if z > 0 else SELU_ALPHA * z.exp())


def _silu_grad(z: Decimal) -> Decimal:
    s = _sigmoid(z)
    return s * (1 + z * (1 - s))


def _softplus(z: Decimal) -> Decimal:
    return max(z, Decimal(0)) + (1 + (-abs(z)).exp()).ln()


Function = Callable[[Decimal], Decimal]

VALUE: dict[ActivationKind, Function] = {
    ActivationKind.LINEAR: lambda z: z,
    ActivationKind.RELU: lambda z: max(z, Decimal(0)),
    ActivationKind.LEAKY_RELU: lambda z: z if z > 0 else SLOPE * z,
    ActivationKind.SIGMOID: _sigmoid,
    ActivationKind.TANH: _tanh,
    ActivationKind.GELU: lambda z: z * _normal_cdf(z),
    ActivationKind.SILU: lambda z: z * _sigmoid(z),
    ActivationKind.SELU: lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * (z.exp() - 1)),
    ActivationKind.SOFTPLUS: _softplus,
    ActivationKind.HEAVISIDE: lambda z: Decimal(z >= 0),
}

GRADIENT: dict[ActivationKind, Function] = {
    ActivationKind.LINEAR: lambda z: Decimal(1),
    ActivationKind.RELU: lambda z: Decimal(z > 0),
    ActivationKind.LEAKY_RELU: lambda z: Decimal(1) if z > 0 else SLOPE,
    ActivationKind.SIGMOID: lambda z: _sigmoid(z) * _sigmoid(-z),
    ActivationKind.TANH: lambda z: 1 - _tanh(z) ** 2,
    ActivationKind.GELU: lambda z: _normal_cdf(z) + z * _density(z),
    ActivationKind.SILU: _silu_grad,
    ActivationKind.SELU: _selu_grad,
    ActivationKind.SOFTPLUS: _sigmoid,
    ActivationKind.HEAVISIDE: lambda z: Decimal(0),
}


@cache
def evaluate(kind: ActivationKind, z: float, gradient: bool = False) -> Decimal:
    """Return f(z) or f'(z) of a finite z: enough digits also where large terms cancel."""
    with localcontext() as context:
        # exp(-z**2 / 2) against 1 (gelu), and 1 - exp(-2 |z|) at tiny z (tanh, selu), are what is lost.
        lost = 0.45 * min(abs(z), 40.0) ** 2 + (0 if z == 0 else max(0.0, -math.log10(abs(z))))
        context.prec = DIGITS + int(lost)
        context.Emin, context.Emax = -999999, 999999
        return (GRADIENT if gradient else VALUE)[kind](Decimal(z))
