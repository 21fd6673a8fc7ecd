"""Activations of rows, and their derivatives; the formulas are in `backends.formulas.activations`."""

from __future__ import annotations

from typing import Any

from fastdrop._types import ActivationKind, Array
from fastdrop.backends.base import LEAKY_RELU_SLOPE
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.formulas import activations as act
from fastdrop.backends.formulas._formula import select

prange = numba.prange

LINEAR, RELU, LEAKY_RELU = int(ActivationKind.LINEAR), int(ActivationKind.RELU), int(ActivationKind.LEAKY_RELU)
SIGMOID, TANH, GELU = int(ActivationKind.SIGMOID), int(ActivationKind.TANH), int(ActivationKind.GELU)
SILU, SELU, SOFTPLUS = int(ActivationKind.SILU), int(ActivationKind.SELU), int(ActivationKind.SOFTPLUS)

NANOSECONDS = (0.1, 0.1, 0.1, 0.25, 0.3, 0.5, 0.3, 0.25, 0.4, 0.1)
"""Estimated cost of an element by activation, a little less than measured."""


@device
def activate_row(activation: int, z: Array, y: Array) -> None:
    """``y = act(z)``; y may be z."""
    n = len(z)
    if activation == LINEAR:
        for j in range(n):
            y[j] = z[j]
    elif activation == RELU:
        zero = z.dtype.type(0)
        for j in range(n):
            y[j] = select(z[j] <= zero, zero, z[j])
    elif activation == LEAKY_RELU:
        zero, slope = z.dtype.type(0), z.dtype.type(LEAKY_RELU_SLOPE)
        for j in range(n):
            y[j] = select(z[j] > zero, z[j], slope * z[j])
    elif activation == SIGMOID:
        for j in range(n):
            y[j] = act.sigmoid(z[j])
    elif activation == TANH:
        for j in range(n):
            y[j] = act.tanh(z[j])
    elif activation == GELU:
        for j in range(n):
            y[j] = act.gelu(z[j])
    elif activation == SILU:
        for j in range(n):
            y[j] = act.silu(z[j])
    elif activation == SELU:
        for j in range(n):
            y[j] = act.selu(z[j])
    elif activation == SOFTPLUS:
        for j in range(n):
            y[j] = act.softplus(z[j])
    else:
        for j in range(n):
            y[j] = act.heaviside(z[j])


@device
def gradient_row(activation: int, dy: Array, state: Array, scale: Any, dz: Array) -> None:
    """``dz = (dy * scale) * act'``; state is y for the activations of GRADIENT_FROM_OUTPUT, else z; dz may be dy."""
    n = len(dy)
    zero = dy.dtype.type(0)
    if activation == LINEAR:
        for j in range(n):
            dz[j] = dy[j] * scale
    elif activation == RELU:
        for j in range(n):
            dz[j] = select(state[j] <= zero, zero, dy[j] * scale)
    elif activation == LEAKY_RELU:
        slope = dy.dtype.type(LEAKY_RELU_SLOPE)
        for j in range(n):
            scaled = dy[j] * scale
            dz[j] = select(state[j] > zero, scaled, slope * scaled)
    elif activation == SIGMOID:
        for j in range(n):
            dz[j] = dy[j] * scale * act.sigmoid_grad(state[j])
    elif activation == TANH:
        for j in range(n):
            dz[j] = dy[j] * scale * act.tanh_grad(state[j])
    elif activation == GELU:
        for j in range(n):
            dz[j] = dy[j] * scale * act.gelu_grad(state[j])
    elif activation == SILU:
        for j in range(n):
            dz[j] = dy[j] * scale * act.silu_grad(state[j])
    elif activation == SELU:
        for j in range(n):
            dz[j] = dy[j] * scale * act.selu_grad(state[j])
    elif activation == SOFTPLUS:
        for j in range(n):
            dz[j] = dy[j] * scale * act.sigmoid(state[j])
    else:
        for j in range(n):
            dz[j] = zero


@kernel
def activation_kernel(x: Array, y: Array, activation: int, threads: int) -> None:
    """``y = act(x)``, both one-dimensional."""
    n = len(x)
    for t in prange(threads):
        low, high = t * n // threads, (t + 1) * n // threads
        activate_row(activation, x[low:high], y[low:high])
