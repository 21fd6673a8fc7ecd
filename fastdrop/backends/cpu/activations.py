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

PIECE = 2048
"""Elements that are copied and then activated in cache."""


@device
def activate_row(activation: int, y: Array) -> None:
    """``y = act(y)``: in place, so that no check for overlapping arrays stands before vector code."""
    n = len(y)
    if activation == RELU:
        zero = y.dtype.type(0)
        for j in range(n):
            y[j] = select(y[j] <= zero, zero, y[j])
    elif activation == LEAKY_RELU:
        zero, slope = y.dtype.type(0), y.dtype.type(LEAKY_RELU_SLOPE)
        for j in range(n):
            y[j] = select(y[j] > zero, y[j], slope * y[j])
    elif activation == SIGMOID:
        for j in range(n):
            y[j] = act.sigmoid(y[j])
    elif activation == TANH:
        for j in range(n):
            y[j] = act.tanh(y[j])
    elif activation == GELU:
        for j in range(n):
            y[j] = act.gelu(y[j])
    elif activation == SILU:
        for j in range(n):
            y[j] = act.silu(y[j])
    elif activation == SELU:
        for j in range(n):
            y[j] = act.selu(y[j])
    elif activation == SOFTPLUS:
        for j in range(n):
            y[j] = act.softplus(y[j])
    elif activation != LINEAR:
        for j in range(n):
            y[j] = act.heaviside(y[j])


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
    """``y = act(x)``, both one-dimensional; y may be x."""
    n = len(x)
    for t in prange(threads):
        low, high = t * n // threads, (t + 1) * n // threads
        for start in range(low, high, PIECE):
            stop = min(high, start + PIECE)
            source, target = x[start:stop], y[start:stop]
            for j in range(len(target)):
                target[j] = source[j]
            activate_row(activation, target)
