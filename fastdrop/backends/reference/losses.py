"""Losses and their gradients: ``sum_i w_i l_i / normalizer``, in binary64, the gradient rounded once.

Notation: z logits, p probabilities or predictions, t targets (one-hot rows of class numbers), l_i the loss of row i,
w_i its weight. A precondition, not checked here: normalizer > 0 and class numbers in range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.base import PROBABILITY_FLOOR
from fastdrop.backends.reference.activations import sigmoid, softplus
from fastdrop.backends.reference.softmax import softmax_forward

Floats = npt.NDArray[np.float64]


def _targets(labels: Array, columns: int) -> Floats:
    if labels.ndim == 2:
        return labels.astype(np.float64)
    one_hot: Floats = (labels[:, None] == np.arange(columns)).astype(np.float64)
    return one_hot


def _total(
    row_losses: Floats, row_gradients: Floats, weights: Floats | None, normalizer: float, dtype: np.dtype[np.floating]
) -> tuple[float, Array]:
    """Return the weighted sum of the losses and the gradient in the wanted dtype."""
    if weights is not None:
        row_losses, row_gradients = row_losses * weights, row_gradients * weights[:, None]
    return float(row_losses.sum()) / normalizer, (row_gradients / normalizer).astype(dtype)


def softmax_cross_entropy(logits: Array, labels: Array, weights: Floats | None, normalizer: float) -> tuple[float, Array]:
    """``l = sum_j t_j (logsumexp(z) - z_j)``, gradient ``softmax(z) * sum(t) - t``."""
    z, t = logits.astype(np.float64), _targets(labels, logits.shape[1])
    with np.errstate(all="ignore"):
        largest = z.max(axis=1, keepdims=True, initial=-np.inf)
        logsumexp = largest + np.log(np.exp(z - largest).sum(axis=1, keepdims=True))
        # A class of probability 0 (z = -inf) that is no target costs nothing: 0 * inf would be NaN.
        losses = np.where(t == 0, 0, t * (logsumexp - z)).sum(axis=1)
        return _total(losses, softmax_forward(z) * t.sum(axis=1, keepdims=True) - t, weights, normalizer, logits.dtype)


def sigmoid_cross_entropy(logits: Array, labels: Array, weights: Floats | None, normalizer: float) -> tuple[float, Array]:
    """``l = sum_j max(z_j, 0) - z_j t_j + log1p(exp(-|z_j|))``, gradient ``sigmoid(z) - t``."""
    z = logits.astype(np.float64)
    one_column = labels.ndim == 1 and logits.shape[1] == 1
    t = labels[:, None].astype(np.float64) if one_column else _targets(labels, logits.shape[1])
    with np.errstate(all="ignore"):
        losses = (softplus(z) - z * t).sum(axis=1)
        return _total(losses, sigmoid(z) - t, weights, normalizer, logits.dtype)


def categorical_cross_entropy(
    probabilities: Array, labels: Array, weights: Floats | None, normalizer: float
) -> tuple[float, Array]:
    """``l = -sum_j t_j log(clip(q_j))`` with ``q = p / sum(p)``; the gradient passes both, and is zero where q is clipped.

    With ``g_j = dl/dq_j = -t_j / q_j``: ``dl/dp_k = (g_k - sum_j g_j q_j) / sum(p)``.
    """
    p, t = probabilities.astype(np.float64), _targets(labels, probabilities.shape[1])
    low, high = PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR
    with np.errstate(all="ignore"):
        total = p.sum(axis=1, keepdims=True)
        q = p / total
        clipped = np.clip(q, low, high)
        losses = -(t * np.log(clipped)).sum(axis=1)
        g = np.where((q < low) | (q > high), 0, -t / clipped)
        return _total(losses, (g - (g * q).sum(axis=1, keepdims=True)) / total, weights, normalizer, probabilities.dtype)


def mean_squared_error(predictions: Array, labels: Array, weights: Floats | None, normalizer: float) -> tuple[float, Array]:
    """``l = mean_j (p_j - t_j)**2``, gradient ``2 (p - t) / columns``."""
    difference = predictions.astype(np.float64) - labels.astype(np.float64)
    with np.errstate(all="ignore"):
        columns = predictions.shape[1]
        losses = (difference * difference).sum(axis=1) / columns
        return _total(losses, 2 * difference / columns, weights, normalizer, predictions.dtype)
