"""Activations of elements, and their derivatives; the formulas are in `backends.formulas.activations`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop._types import ActivationKind
from fastdrop.backends.base import LEAKY_RELU_SLOPE
from fastdrop.backends.cuda._jit import TARGET, cuda, device, kernel
from fastdrop.backends.formulas import activations

_formulas = activations.make(TARGET)
sigmoid, sigmoid_grad, tanh, tanh_grad = _formulas.sigmoid, _formulas.sigmoid_grad, _formulas.tanh, _formulas.tanh_grad
gelu, gelu_grad, silu, silu_grad = _formulas.gelu, _formulas.gelu_grad, _formulas.silu, _formulas.silu_grad
selu, selu_grad, softplus, heaviside = _formulas.selu, _formulas.selu_grad, _formulas.softplus, _formulas.heaviside

LINEAR, RELU, LEAKY_RELU = int(ActivationKind.LINEAR), int(ActivationKind.RELU), int(ActivationKind.LEAKY_RELU)
SIGMOID, TANH, GELU = int(ActivationKind.SIGMOID), int(ActivationKind.TANH), int(ActivationKind.GELU)
SILU, SELU, SOFTPLUS = int(ActivationKind.SILU), int(ActivationKind.SELU), int(ActivationKind.SOFTPLUS)

SLOPE_32, SLOPE_64 = np.float32(LEAKY_RELU_SLOPE), np.float64(LEAKY_RELU_SLOPE)

leak = TARGET.by_dtype(TARGET.formula(lambda z: z * SLOPE_32), TARGET.formula(lambda z: z * SLOPE_64))


@device
def activate(activation: int, z: Any, one: Any) -> Any:
    """Return act(z); z and one, 1.0, are of one dtype."""
    zero = one - one
    y = z
    if activation == RELU:
        y = zero if z <= zero else z
    elif activation == LEAKY_RELU:
        y = z if z > zero else leak(z)
    elif activation == SIGMOID:
        y = sigmoid(z)
    elif activation == TANH:
        y = tanh(z)
    elif activation == GELU:
        y = gelu(z)
    elif activation == SILU:
        y = silu(z)
    elif activation == SELU:
        y = selu(z)
    elif activation == SOFTPLUS:
        y = softplus(z)
    elif activation != LINEAR:
        y = heaviside(z)
    return y


@device
def gradient(activation: int, dy: Any, z: Any, one: Any) -> Any:
    """Return ``dy * act'(z)``; for the kinds of `GRADIENT_FROM_OUTPUT`, z may be the output."""
    zero = one - one
    dz = dy
    if activation == RELU:
        dz = zero if z <= zero else dy
    elif activation == LEAKY_RELU:
        dz = dy if z > zero else leak(dy)
    elif activation == SIGMOID:
        dz = dy * sigmoid_grad(z)
    elif activation == TANH:
        dz = dy * tanh_grad(z)
    elif activation == GELU:
        dz = dy * gelu_grad(z)
    elif activation == SILU:
        dz = dy * silu_grad(z)
    elif activation == SELU:
        dz = dy * selu_grad(z)
    elif activation == SOFTPLUS:
        dz = dy * sigmoid(z)
    elif activation != LINEAR:
        dz = zero
    return dz


@kernel
def activation_kernel(x: Any, y: Any, size: int, activation: int, one: Any) -> None:
    """``y = act(x)``; flat, y may be x."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        y[i] = activate(activation, x[i] * one, one)


@kernel
def gradient_kernel(dy: Any, x: Any, dx: Any, size: int, activation: int, one: Any) -> None:
    """``dx = dy * act'(x)``; flat, dx may be dy."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        dx[i] = gradient(activation, dy[i] * one, x[i] * one, one)
