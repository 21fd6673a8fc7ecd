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
from fastdrop.backends.cpu.softmax import softmax_row
from fastdrop.backends.formulas import activations as act

prange = numba.prange

Labels = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]


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
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            log_sum = softmax_row(logits[i], grad[i])
            if len(labels):
                factor = grad.dtype.type(factors[i])
                losses[i] = factors[i] * (log_sum - np.float64(logits[i, labels[i]]))
                for j in range(columns):
                    grad[i, j] *= factor
                grad[i, labels[i]] -= factor
            else:
                total, loss = 0.0, 0.0
                for j in range(columns):
                    target = np.float64(targets[i, j])
                    total += target
                    if target != 0.0:
                        loss += target * (log_sum - np.float64(logits[i, j]))
                losses[i] = factors[i] * loss
                for j in range(columns):
                    grad[i, j] = (np.float64(grad[i, j]) * total - np.float64(targets[i, j])) * factors[i]


@kernel
def sigmoid_cross_entropy_kernel(
    logits: Array, labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = sum_j max(z, 0) - z t + log1p(exp(-|z|))``; ``dz = (sigmoid(z) - t) * factor``."""
    rows, columns = logits.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            loss = 0.0
            for j in range(columns):
                z, target = logits[i, j], target_of(labels, targets, i, j)
                loss += np.float64(act.softplus(z)) - np.float64(z) * target
                grad[i, j] = (np.float64(act.sigmoid(z)) - target) * factors[i]
            losses[i] = factors[i] * loss


@kernel
def categorical_cross_entropy_kernel(
    probabilities: Array, labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = -sum_j t_j log(clip(q_j))``, ``q = p / sum(p)``; gradient through both, zero where q is clipped."""
    rows, columns = probabilities.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            total = 0.0
            for j in range(columns):
                total += np.float64(probabilities[i, j])
            loss, inner = 0.0, 0.0
            for j in range(columns):
                q, target = np.float64(probabilities[i, j]) / total, target_of(labels, targets, i, j)
                clipped = min(max(q, PROBABILITY_FLOOR), 1.0 - PROBABILITY_FLOOR)
                if target != 0.0:
                    loss -= target * math.log(clipped)
                if clipped == q:
                    inner += target
            for j in range(columns):
                q, target = np.float64(probabilities[i, j]) / total, target_of(labels, targets, i, j)
                inside = PROBABILITY_FLOOR <= q <= 1.0 - PROBABILITY_FLOOR
                slope = target / q if inside else 0.0
                grad[i, j] = (inner - slope) / total * factors[i]
            losses[i] = factors[i] * loss


@kernel
def mean_squared_error_kernel(
    predictions: Array, labels: Labels, targets: Array, factors: Float64, grad: Array, losses: Float64, threads: int
) -> None:
    """``l = mean_j (p - t)**2``; ``dp = 2 (p - t) / columns * factor``."""
    rows, columns = predictions.shape
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            loss = 0.0
            for j in range(columns):
                difference = np.float64(predictions[i, j]) - target_of(labels, targets, i, j)
                loss += difference * difference
                grad[i, j] = 2.0 * difference / columns * factors[i]
            losses[i] = factors[i] * loss / columns
