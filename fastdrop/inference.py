"""Inference: nothing is drawn, nothing is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop import _validate, activations
from fastdrop._network import Network
from fastdrop._types import Array
from fastdrop.errors import StateError

PREDICTION_ROWS = 1024
"""Rows at a time by default: memory stays bounded, and the results do not depend on it."""


def predict(net: Network, x: Any, batch_size: int | None = None) -> Array:
    """Return the outputs of a network.

    Parameters
    ----------
    net : Sequential
    x : array, shape (rows, ...), float32 or float64
    batch_size : int >= 1, optional
        Rows at a time; the results do not depend on it.

    Returns
    -------
    outputs : array, shape (rows, ...), dtype of the network, new

    Raises
    ------
    TypeError, ValueError: bad arguments.
    """
    x = _validate.float_array("x", x)
    size = PREDICTION_ROWS if batch_size is None else _validate.integer("batch_size", batch_size, 1)
    first = net(x[:size])
    if len(x) <= size:
        return first.copy() if np.may_share_memory(first, x) else first
    outputs = np.empty((len(x), *first.shape[1:]), first.dtype)
    outputs[:size] = first
    for start in range(size, len(x), size):
        outputs[start : start + size] = net(x[start : start + size])
    return outputs


def predict_proba(net: Network, x: Any, batch_size: int | None = None) -> Array:
    """Return probabilities: softmax of logits, sigmoid of sigmoid logits, or the outputs if they are probabilities already.

    Parameters
    ----------
    net, x, batch_size
        As in `predict`.

    Returns
    -------
    probabilities : array of the shape and dtype of the outputs, new

    Raises
    ------
    StateError: ``net.output_kind`` is None (the network was not trained by `fit`, nor was it set) or "values".
    TypeError, ValueError: bad arguments.
    """
    kind = net.output_kind
    if kind not in ("logits", "sigmoid_logits", "probabilities"):
        known = "is not known" if kind is None else f"is {kind!r}"
        raise StateError(
            f"probabilities need to know what the outputs are, and `output_kind` {known}: "
            "train with fit and a loss for classes, or set net.output_kind"
        )
    outputs = predict(net, x, batch_size)
    if kind == "probabilities":
        return outputs
    return activations.softmax(outputs) if kind == "logits" else activations.sigmoid(outputs)
