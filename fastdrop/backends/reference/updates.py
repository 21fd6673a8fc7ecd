"""Optimiser updates and norms, in place, in the dtype of the parameters. Formulas and defaults are Keras's."""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array

NORM_EPSILON = 1e-7
"""Keeps the norm's inverse finite (Keras's epsilon)."""


def sgd_update(
    value: Array,
    grad: Array,
    velocity: Array | None,
    learning_rate: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """``w -= w * decay * lr``; ``v = momentum * v - lr * g``; ``w += v``, or with Nesterov ``w += momentum * v - lr * g``."""
    with np.errstate(all="ignore"):
        if weight_decay:
            value -= value * weight_decay * learning_rate
        if velocity is None:
            value -= learning_rate * grad
            return
        velocity[...] = momentum * velocity - learning_rate * grad
        value += momentum * velocity - learning_rate * grad if nesterov else velocity


def adam_update(
    value: Array,
    grad: Array,
    mean: Array,
    variance: Array,
    learning_rate: float,
    step_size: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    weight_decay: float,
) -> None:
    """Adam with decoupled decay: ``w -= w * decay * lr``, then the update.

    ``m += (g - m)(1 - beta_1)``; ``v += (g*g - v)(1 - beta_2)``; ``w -= step_size * m / (sqrt(v) + epsilon)``.
    Source: Kingma and Ba 2015, end of section 2; decoupled decay: Loshchilov and Hutter 2019, algorithm 2.
    """
    with np.errstate(all="ignore"):
        if weight_decay:
            value -= value * weight_decay * learning_rate
        mean += (grad - mean) * (1 - beta_1)
        variance += (grad * grad - variance) * (1 - beta_2)
        value -= step_size * mean / (np.sqrt(variance) + epsilon)


def sum_of_squares(x: Array) -> float:
    """Return the sum of squares of all elements, in binary64."""
    with np.errstate(all="ignore"):
        return float(np.square(x, dtype=np.float64).sum())


def limit_column_norms(weight: Array, max_value: float) -> None:
    """Scale down the columns whose norm exceeds `max_value`: ``w *= max / (1e-7 + norm)``; the others stay as they are."""
    with np.errstate(all="ignore"):
        norm = np.sqrt(np.square(weight, dtype=np.float64).sum(axis=0))
        weight *= np.where(norm > max_value, max_value / (NORM_EPSILON + norm), 1).astype(weight.dtype)
