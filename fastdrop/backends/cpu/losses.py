"""Losses of rows and their gradients; formulas in `backends.base`.

Each kernel writes a row's weighted loss, in binary64, to `losses`, and its gradient to `grad`; the rows are added up outside, in
one fixed order. `labels` are class numbers (rows,) or, where that array is empty, `targets` are (rows, columns).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.base import PROBABILITY_FLOOR
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.softmax import exp_rows, highest_of, rows_at_once, sum_of, summing
from fastdrop.backends.formulas import activations as act
from fastdrop.backends.formulas._formula import select

prange = numba.prange

Labels = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

cross_entropy = summing(lambda t, z, log_sum: select(t != 0, np.float64(t) * (log_sum - np.float64(z)), 0.0))
squared_distance = summing(lambda a, b, _c: (np.float64(a) - np.float64(b)) ** 2)


@device
def target_of(labels: Labels, targets: Array, i: int, j: int) -> float:
    """Return target j of row i."""
    if len(labels):
        return 1.0 if labels[i] == j else 0.0
    return np.float64(targets[i, j])


@kernel
def softmax_cross_entropy_kernel(
    logits: Array, labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = sum_j t_j (logsumexp(z) - z_j)``; ``dz = (softmax(z) sum(t) - t) * factor``."""
    rows, columns = logits.shape
    step = rows_at_once(columns)
    for t in prange(threads):
        low, high = t * rows // threads, (t + 1) * rows // threads
        for first in range(low, high, step):
            last = min(high, first + step)
            exp_rows(logits[first:last], grad[first:last])
            for i in range(first, last):
                z, g, factor = logits[i], grad[i], factors[i]
                total = sum_of(g, g, 0.0)
                log_sum = np.float64(highest_of(z)) + math.log(total)
                if len(labels):
                    losses[i] = factor * (log_sum - np.float64(z[labels[i]]))
                    share = g.dtype.type(factor / total)
                    for j in range(columns):
                        g[j] *= share
                    g[labels[i]] -= g.dtype.type(factor)
                else:
                    losses[i] = factor * cross_entropy(targets[i], z, log_sum)
                    weight = sum_of(targets[i], targets[i], 0.0) / total
                    for j in range(columns):
                        g[j] = (np.float64(g[j]) * weight - np.float64(targets[i, j])) * factor


@kernel
def sigmoid_cross_entropy_kernel(
    logits: Array, labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = sum_j max(z, 0) - z t + log1p(exp(-|z|))``; ``dz = (sigmoid(z) - t) * factor``."""
    rows, columns = logits.shape
    step = rows_at_once(columns)
    for t in prange(threads):
        low, high = t * rows // threads, (t + 1) * rows // threads
        for first in range(low, high, step):
            last = min(high, first + step)
            z, g = logits[first:last].reshape(-1), grad[first:last].reshape(-1)
            for k in range(len(z)):
                g[k] = act.softplus(-abs(z[k]))
            for i in range(first, last):
                for j in range(columns):
                    x = np.float64(logits[i, j])
                    grad[i, j] = np.float64(grad[i, j]) + (max(x, 0.0) - x * target_of(labels, targets, i, j))
                losses[i] = factors[i] * sum_of(grad[i], grad[i], 0.0)
            for k in range(len(z)):
                g[k] = act.sigmoid(z[k])
            for i in range(first, last):
                for j in range(columns):
                    grad[i, j] = (np.float64(grad[i, j]) - target_of(labels, targets, i, j)) * factors[i]


@kernel
def categorical_cross_entropy_kernel(
    probabilities: Array, labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = -sum_j t_j log(clip(q_j))``, ``q = p / sum(p)``; gradient through both, zero where q is clipped."""
    rows, columns = probabilities.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            p = probabilities[i]
            inverse = 1.0 / sum_of(p, p, 0.0)
            loss, inner = 0.0, 0.0
            for j in range(columns):
                target = target_of(labels, targets, i, j)
                if target != 0.0:
                    q = np.float64(p[j]) * inverse
                    clipped = min(max(q, PROBABILITY_FLOOR), 1.0 - PROBABILITY_FLOOR)
                    loss -= target * math.log(clipped)
                    if clipped == q:
                        inner += target
            factor = inverse * factors[i]
            for j in range(columns):
                q, target = np.float64(p[j]) * inverse, target_of(labels, targets, i, j)
                inside = (q >= PROBABILITY_FLOOR) & (q <= 1.0 - PROBABILITY_FLOOR)
                grad[i, j] = (inner - select(inside, target / q, 0.0)) * factor
            losses[i] = factors[i] * loss


@kernel
def mean_squared_error_kernel(
    predictions: Array, _labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = mean_j (p - t)**2``; ``dp = 2 (p - t) / columns * factor``."""
    rows, columns = predictions.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            factor = factors[i] / columns
            losses[i] = factor * squared_distance(predictions[i], targets[i], 0.0)
            for j in range(columns):
                grad[i, j] = 2.0 * factor * (np.float64(predictions[i, j]) - np.float64(targets[i, j]))
