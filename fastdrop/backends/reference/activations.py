"""Elementwise activations f(z) and their derivatives.

Notation: z is the input, y = f(z), s the sigmoid of z, Phi and phi the standard normal distribution function and density.

- linear: z, 1; relu: 0 if z <= 0 else z; leaky_relu: z if z > 0 else 0.2 z
- sigmoid: s, s (1 - s); tanh: 1 - tanh(z)**2; silu: z s, s (1 + z (1 - s)); softplus: log(1 + exp(z)), s
- gelu: z Phi(z), Phi(z) + z phi(z)
- selu: SCALE * (z if z > 0 else ALPHA * (exp(z) - 1)), SCALE * (1 if z > 0 else ALPHA * exp(z))
- heaviside: 1 if z >= 0 else 0, derivative 0

NaN gives NaN; at +-inf every value and derivative is its limit. A factor that is 0 by definition (relu, heaviside) selects,
so that nothing leaks from an infinite gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fastdrop._types import ActivationKind, Array
from fastdrop.backends.base import LEAKY_RELU_SLOPE, SELU_ALPHA, SELU_SCALE
from fastdrop.backends.reference._arrays import deliver

SATURATED: Final = 1000.0
"""Beyond +-SATURATED s, Phi and phi are exactly 0 or 1 in binary64: as a factor z may be clipped there, for 0 * inf is NaN."""

_erfc: Final = np.frompyfunc(math.erfc, 1, 1)


def _bounded(z: Array) -> Array:
    return z.clip(-SATURATED, SATURATED)


def sigmoid(z: Array) -> Array:
    """Return 1 / (1 + exp(-z)), without overflow on either side."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def softplus(z: Array) -> Array:
    """Return log(1 + exp(z)), without overflow."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def normal_cdf(z: Array) -> Array:
    """Return Phi(z) in binary64."""
    return 0.5 * np.asarray(_erfc(-z.astype(np.float64) / math.sqrt(2)), dtype=np.float64)


def _gelu(z: Array) -> Array:
    y: Array = np.where(z < 0, _bounded(z), z) * normal_cdf(z)
    return y


def _gelu_grad(z: Array) -> Array:
    w = _bounded(z.astype(np.float64))
    grad: Array = normal_cdf(z) + w * np.exp(-0.5 * w * w) / math.sqrt(2 * math.pi)
    return grad


def _silu_grad(z: Array) -> Array:
    # sigmoid(-z) is 1 - s without the cancellation
    grad: Array = sigmoid(z) * (1 + _bounded(z) * sigmoid(-z))
    return grad


FORWARD: Final[dict[ActivationKind, Callable[[Array], Any]]] = {
    ActivationKind.LINEAR: np.array,
    ActivationKind.RELU: lambda z: np.where(z <= 0, 0, z),
    ActivationKind.LEAKY_RELU: lambda z: np.where(z > 0, z, LEAKY_RELU_SLOPE * z),
    ActivationKind.SIGMOID: sigmoid,
    ActivationKind.TANH: np.tanh,
    ActivationKind.GELU: _gelu,
    ActivationKind.SILU: lambda z: np.where(z < 0, _bounded(z), z) * sigmoid(z),
    ActivationKind.SELU: lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(z)),
    ActivationKind.SOFTPLUS: softplus,
    ActivationKind.HEAVISIDE: lambda z: np.heaviside(z, 1),
}

GRADIENT: Final[dict[ActivationKind, Callable[[Array, Array], Any]]] = {
    ActivationKind.LINEAR: lambda dy, _z: np.array(dy),
    ActivationKind.RELU: lambda dy, z: np.where(z <= 0, 0, dy),
    ActivationKind.LEAKY_RELU: lambda dy, z: np.where(z > 0, dy, LEAKY_RELU_SLOPE * dy),
    ActivationKind.SIGMOID: lambda dy, z: dy * (sigmoid(z) * sigmoid(-z)),
    ActivationKind.TANH: lambda dy, z: dy * (1 - np.tanh(z) ** 2),
    ActivationKind.GELU: lambda dy, z: dy * _gelu_grad(z),
    ActivationKind.SILU: lambda dy, z: dy * _silu_grad(z),
    ActivationKind.SELU: lambda dy, z: dy * (SELU_SCALE * np.where(z > 0, 1, SELU_ALPHA * np.exp(z))),
    ActivationKind.SOFTPLUS: lambda dy, z: dy * sigmoid(z),
    ActivationKind.HEAVISIDE: lambda dy, _z: np.zeros_like(dy),
}
"""``dy * f'(z)`` of (dy, z). For the kinds of `GRADIENT_FROM_OUTPUT`, z may be the output instead: it has the same sign."""


def activation_forward(x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
    """Return f(x), computed in the dtype of x (gelu: in binary64, rounded once)."""
    with np.errstate(all="ignore"):
        return deliver(np.asarray(FORWARD[activation](x), dtype=x.dtype), out)


def activation_backward(dy: Array, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
    """Return ``dy * f'(x)``; x is the input of the forward pass."""
    with np.errstate(all="ignore"):
        return deliver(np.asarray(GRADIENT[activation](dy, x), dtype=x.dtype), out)
