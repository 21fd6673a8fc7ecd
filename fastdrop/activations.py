"""Activation functions by name, and as functions on arrays.

Notation: z is the input (pre-activation), f the activation.

- linear: z; relu: max(z, 0); leaky_relu: z if z > 0 else 0.2 z
- sigmoid: 1 / (1 + exp(-z)); tanh; silu: z sigmoid(z); softplus: log(1 + exp(z))
- gelu: z Phi(z), Phi the normal distribution function (by erf, not the tanh approximation); Hendrycks and Gimpel 2016
- selu: 1.0507... * (z if z > 0 else 1.6732... * (exp(z) - 1)); Klambauer et al. 2017
- heaviside: 1 if z >= 0 else 0, derivative 0
- softmax: exp(z) / sum(exp(z)) over the last axis
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from fastdrop import _validate, arrays
from fastdrop._types import ActivationKind, Array
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend_of, in_kind

SOFTMAX: Final = "softmax"
ActivationId: TypeAlias = ActivationKind | Literal["softmax"]


def _apply(activation: ActivationKind, x: Any) -> Array:
    array = contiguous(arrays.float_array("x", x))
    return in_kind(backend_of(array).activation_forward(array, activation), x)


def linear(x: Any) -> Array:
    """Return a copy of x."""
    return _apply(ActivationKind.LINEAR, x)


def relu(x: Any) -> Array:
    """Return max(x, 0)."""
    return _apply(ActivationKind.RELU, x)


def leaky_relu(x: Any) -> Array:
    """Return x where x > 0, else 0.2 x."""
    return _apply(ActivationKind.LEAKY_RELU, x)


def sigmoid(x: Any) -> Array:
    """Return 1 / (1 + exp(-x))."""
    return _apply(ActivationKind.SIGMOID, x)


def tanh(x: Any) -> Array:
    """Return the hyperbolic tangent of x."""
    return _apply(ActivationKind.TANH, x)


def gelu(x: Any) -> Array:
    """Return x Phi(x), Phi the standard normal distribution function."""
    return _apply(ActivationKind.GELU, x)


def silu(x: Any) -> Array:
    """Return x sigmoid(x)."""
    return _apply(ActivationKind.SILU, x)


def selu(x: Any) -> Array:
    """Return the scaled exponential linear unit of x."""
    return _apply(ActivationKind.SELU, x)


def softplus(x: Any) -> Array:
    """Return log(1 + exp(x))."""
    return _apply(ActivationKind.SOFTPLUS, x)


def heaviside(x: Any) -> Array:
    """Return 1 where x >= 0, else 0; its derivative is taken as 0."""
    return _apply(ActivationKind.HEAVISIDE, x)


def softmax(x: Any) -> Array:
    """Return the softmax of x over its last axis."""
    array = contiguous(arrays.float_array("x", x))
    columns = array.shape[-1]
    rows = array.reshape(-1, columns) if array.size else array.reshape(0, max(1, columns))
    return in_kind(backend_of(array).softmax_forward(rows).reshape(array.shape), x)


FUNCTIONS: Final[dict[str, Callable[[Any], Array]]] = {
    function.__name__: function
    for function in (linear, relu, leaky_relu, sigmoid, tanh, gelu, silu, selu, softplus, heaviside, softmax)
}


def name_of(activation: str | Callable[..., Array] | None) -> str:
    """Return the name of an activation given as None ("linear"), a name, or a function of this module."""
    if activation is None:
        return "linear"
    if callable(activation):
        name = getattr(activation, "__name__", "")
        if FUNCTIONS.get(name) is not activation:
            _validate.fail_type("activation", "None, a name or a function of fastdrop.activations", repr(activation))
        return name
    return _validate.choice("activation", activation, FUNCTIONS)


def get(activation: str | Callable[..., Array] | None) -> ActivationId:
    """Return the activation's number in the kernels, or `SOFTMAX`, which is an operation of its own."""
    name = name_of(activation)
    return SOFTMAX if name == SOFTMAX else ActivationKind[name.upper()]
