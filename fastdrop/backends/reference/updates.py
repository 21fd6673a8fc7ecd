"""Optimiser updates and norms, in place, in the dtype of the parameters. Formulas and defaults are Keras's."""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array, UpdateKind
from fastdrop.backends.operands import Update

NORM_EPSILON = 1e-7
"""Keeps the norm's inverse finite (Keras's epsilon)."""


def update(update: Update, grad: Array) -> None:
    """Do what `update` says, in place.

    Source: Sutskever et al. 2013 (momentum); Kingma and Ba 2015, end of section 2; decoupled decay: Loshchilov and Hutter 2019,
    algorithm 2.
    """
    kind, value, first, second, rates = update
    rate, decay = rates[:2]
    with np.errstate(all="ignore"):
        value -= value * decay
        match kind:
            case UpdateKind.SGD:
                value -= rate * grad
            case UpdateKind.MOMENTUM:
                first[...] = _flushed(rates[2] * first - rate * grad)
                value += first
            case UpdateKind.NESTEROV:
                first[...] = _flushed(rates[2] * first - rate * grad)
                value += rates[2] * first - rate * grad
            case UpdateKind.ADAM:
                first[...] = _flushed(first + (grad - first) * rates[2])
                second[...] = _flushed(second + (grad * grad - second) * rates[3])
                value -= rate * first / (np.sqrt(second) + rates[4])


def _flushed(x: Array) -> Array:
    return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x.dtype.type(0), x)


def sum_of_squares(x: Array) -> float:
    """Return the sum of squares of all elements, in binary64."""
    with np.errstate(all="ignore"):
        return float(np.square(x, dtype=np.float64).sum())


def limit_column_norms(weight: Array, max_value: float) -> None:
    """Scale down the columns whose norm exceeds `max_value`: ``w *= max / (1e-7 + norm)``; the others stay as they are."""
    with np.errstate(all="ignore"):
        norm = np.sqrt(np.square(weight, dtype=np.float64).sum(axis=0))
        weight *= np.where(norm > max_value, max_value / (NORM_EPSILON + norm), 1).astype(weight.dtype)
