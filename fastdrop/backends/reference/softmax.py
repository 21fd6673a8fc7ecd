"""Softmax over the last axis of a matrix: ``y = exp(x - max(x)) / sum(exp(x - max(x)))``, row by row."""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.reference._arrays import deliver


def softmax_forward(x: Array, out: Array | None = None) -> Array:
    """Return the softmax of each row of x (rows, classes)."""
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(axis=1, keepdims=True, initial=-np.inf))
        return deliver(e / e.sum(axis=1, keepdims=True), out)


def softmax_backward(dy: Array, y: Array, out: Array | None = None) -> Array:
    """Return ``dx = y * (dy - sum(dy * y))``: the product with the Jacobian ``diag(y) - y y^T``."""
    with np.errstate(all="ignore"):
        return deliver(y * (dy - (dy * y).sum(axis=1, keepdims=True)), out)
