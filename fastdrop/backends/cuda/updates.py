"""Optimiser updates in place, and the limit of column norms."""

from __future__ import annotations

import math
from typing import Any

from fastdrop._types import UpdateKind
from fastdrop.backends.cuda._jit import TARGET, cuda, device, kernel, wide
from fastdrop.backends.formulas import subnormal

SGD, MOMENTUM, ADAM = int(UpdateKind.SGD), int(UpdateKind.MOMENTUM), int(UpdateKind.ADAM)
NORM_EPSILON = 1e-7
"""Keeps the norm's inverse finite (Keras's epsilon)."""
flush = subnormal.make(TARGET)


@device
def change(kind: int, i: int, g: Any, value: Any, first: Any, second: Any, rates: Any) -> None:
    """Do to element i what `backends.operands.Update` says, by the gradient g."""
    w = value[i] - value[i] * rates[1]
    if kind == SGD:
        value[i] = w - rates[0] * g
    elif kind == ADAM:
        m = flush(first[i] + (g - first[i]) * rates[2])
        s = flush(second[i] + (g * g - second[i]) * rates[3])
        first[i], second[i] = m, s
        value[i] = w - rates[0] * m / (math.sqrt(s) + rates[4])
    else:
        v = flush(rates[2] * first[i] - rates[0] * g)
        first[i] = v
        value[i] = w + v if kind == MOMENTUM else w + (rates[2] * v - rates[0] * g)


@kernel
def update_kernel(kind: int, grad: Any, value: Any, first: Any, second: Any, rates: Any, size: int) -> None:
    """Update all elements; flat."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        change(kind, i, grad[i], value, first, second, rates)


@kernel
def update_all_kernel(kind: int, grads: Any, values: Any, firsts: Any, seconds: Any, rates: Any, sizes: Any) -> None:
    """Update all elements of several parameters, a row of blocks for each; tuples of flat arrays."""
    k = cuda.blockIdx.y
    grad, value, first, second = grads[k], values[k], firsts[k], seconds[k]
    for i in range(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, sizes[k], cuda.gridDim.x * cuda.blockDim.x):
        change(kind, i, grad[i], value, first, second, rates)


@kernel
def limit_norms_kernel(weight: Any, rows: int, columns: int, max_value: float) -> None:
    """Scale down every column whose norm exceeds `max_value`: a thread for each column, whose rows lie side by side."""
    for column in range(cuda.grid(1), columns, cuda.gridsize(1)):
        total = 0.0
        for row in range(rows):
            w = wide(weight[row * columns + column])
            total += w * w
        norm = math.sqrt(total)
        if norm > max_value:
            for row in range(rows):
                weight[row * columns + column] *= max_value / (NORM_EPSILON + norm)
