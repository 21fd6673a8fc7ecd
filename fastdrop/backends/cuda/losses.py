"""Losses and their gradients, a block of threads for each row, in binary64; the gradient is rounded once.

Notation: the factor of a row is ``w / normalizer``; its targets are a row of `targets`, or 1 for class `labels[row]` and 0 for
the others. A class number beyond the row gives a loss of NaN: on a device, labels are not looked at before.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastdrop.backends.base import PROBABILITY_FLOOR
from fastdrop.backends.cuda._jit import BLOCK, cuda, device, kernel, wide
from fastdrop.backends.cuda._reductions import block_sum
from fastdrop.backends.cuda.softmax import row_exponentials, row_maximum

LOW, HIGH = PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR


@device
def target(labels: Any, targets: Any, by_class: bool, row: int, column: int, columns: int) -> float:
    """Return what output `column` of a row should be."""
    if not by_class:
        value: float = wide(targets[row * columns + column])
        return value
    if labels[row] < 0 or labels[row] >= columns:
        return math.nan
    return 1.0 if labels[row] == column else 0.0


@kernel
def softmax_cross_entropy_kernel(
    z: Any,
    labels: Any,
    targets: Any,
    by_class: bool,
    weights: Any,
    weighted: bool,
    normalizer: float,
    grad: Any,
    row_losses: Any,
    rows: int,
    columns: int,
) -> None:
    """``l = sum_j t_j (logsumexp(z) - z_j)``, gradient ``softmax(z) * sum(t) - t``."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        factor = (weights[row] if weighted else 1.0) / normalizer
        first = row * columns
        largest = row_maximum(z, first, columns, shared, thread)
        total = row_exponentials(z, first, columns, largest, shared, thread)
        logsumexp = largest + math.log(total)
        loss, weight = 0.0, 0.0
        for j in range(thread, columns, BLOCK):
            t = target(labels, targets, by_class, row, j, columns)
            weight += t
            if t != 0:  # a class of probability 0 that is no target costs nothing: 0 * inf would be NaN
                loss += t * (logsumexp - wide(z[first + j]))
        loss, weight = block_sum(shared, thread, loss), block_sum(shared, thread, weight)
        for j in range(thread, columns, BLOCK):
            t = target(labels, targets, by_class, row, j, columns)
            grad[first + j] = (math.exp(wide(z[first + j]) - largest) / total * weight - t) * factor
        if thread == 0:
            row_losses[row] = loss * factor


@kernel
def sigmoid_cross_entropy_kernel(
    z: Any,
    labels: Any,
    targets: Any,
    by_class: bool,
    weights: Any,
    weighted: bool,
    normalizer: float,
    grad: Any,
    row_losses: Any,
    rows: int,
    columns: int,
) -> None:
    """``l = sum_j max(z_j, 0) - z_j t_j + log1p(exp(-|z_j|))``, gradient ``sigmoid(z) - t``; one column: labels are targets."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        factor = (weights[row] if weighted else 1.0) / normalizer
        first, loss = row * columns, 0.0
        for j in range(thread, columns, BLOCK):
            t = wide(labels[row]) if by_class and columns == 1 else target(labels, targets, by_class, row, j, columns)
            x = wide(z[first + j])
            e = math.exp(-abs(x))
            loss += (x if x > 0 or x != x else 0.0) - x * t + math.log1p(e)  # noqa: PLR0124  (NaN differs from itself)
            grad[first + j] = ((1.0 if x >= 0 else e) / (1.0 + e) - t) * factor
        loss = block_sum(shared, thread, loss)
        if thread == 0:
            row_losses[row] = loss * factor


@kernel
def categorical_cross_entropy_kernel(
    p: Any,
    labels: Any,
    targets: Any,
    by_class: bool,
    weights: Any,
    weighted: bool,
    normalizer: float,
    grad: Any,
    row_losses: Any,
    rows: int,
    columns: int,
) -> None:
    """``l = -sum_j t_j log(clip(q_j))``, ``q = p / sum(p)``; with ``g = dl/dq``, ``dl/dp_k = (g_k - sum_j g_j q_j) / sum(p)``."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        factor = (weights[row] if weighted else 1.0) / normalizer
        first, total = row * columns, 0.0
        for j in range(thread, columns, BLOCK):
            total += wide(p[first + j])
        total = block_sum(shared, thread, total)
        loss, inner = 0.0, 0.0
        for j in range(thread, columns, BLOCK):
            t, q = target(labels, targets, by_class, row, j, columns), wide(p[first + j]) / total
            loss -= t * math.log(clip(q))
            inner += slope(t, q) * q
        loss, inner = block_sum(shared, thread, loss), block_sum(shared, thread, inner)
        for j in range(thread, columns, BLOCK):
            t, q = target(labels, targets, by_class, row, j, columns), wide(p[first + j]) / total
            grad[first + j] = (slope(t, q) - inner) / total * factor
        if thread == 0:
            row_losses[row] = loss * factor


@device
def clip(q: float) -> float:
    """Return q between the floor and 1 less the floor; NaN stays."""
    low = LOW if q < LOW else q
    return HIGH if low > HIGH else low


@device
def slope(t: float, q: float) -> float:
    """Return dl/dq, 0 where q is clipped."""
    return 0.0 if q < LOW or q > HIGH else -t / q


@kernel
def mean_squared_error_kernel(
    p: Any,
    labels: Any,
    targets: Any,
    by_class: bool,
    weights: Any,
    weighted: bool,
    normalizer: float,
    grad: Any,
    row_losses: Any,
    rows: int,
    columns: int,
) -> None:
    """``l = mean_j (p_j - t_j)**2``, gradient ``2 (p - t) / columns``."""
    shared = cuda.shared.array(BLOCK, np.float64)
    thread = cuda.threadIdx.x
    for row in range(cuda.blockIdx.x, rows, cuda.gridDim.x):
        factor = (weights[row] if weighted else 1.0) / normalizer
        first, loss = row * columns, 0.0
        for j in range(thread, columns, BLOCK):
            difference = wide(p[first + j]) - target(labels, targets, by_class, row, j, columns)
            loss += difference * difference
            grad[first + j] = 2 * difference / columns * factor
        loss = block_sum(shared, thread, loss)
        if thread == 0:
            row_losses[row] = loss / columns * factor


@device
def largest_at(x: Any, first: int, columns: int) -> int:
    """Return where a row's largest element is, the first of equals, or the first NaN."""
    found = 0
    for j in range(1, columns):
        best, value = x[first + found], x[first + j]
        if value > best or (value != value and best == best):  # noqa: PLR0124  (NaN differs from itself)
            found = j
    return found


@kernel
def hits_kernel(outputs: Any, labels: Any, by_row: bool, threshold: float, hits: Any, rows: int, columns: int) -> None:
    """Write 1 for each row whose largest element is where the label says, else 0."""
    for row in range(cuda.grid(1), rows, cuda.gridsize(1)):
        if columns == 1:
            hit = (1 if outputs[row] > threshold else 0) == labels[row]
        elif by_row:
            hit = largest_at(outputs, row * columns, columns) == largest_at(labels, row * columns, columns)
        else:
            hit = largest_at(outputs, row * columns, columns) == labels[row]
        hits[row] = 1.0 if hit else 0.0
