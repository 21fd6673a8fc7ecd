"""Inference: nothing is drawn, nothing is dropped."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np

from fastdrop import _validate, activations, arrays
from fastdrop._network import Network
from fastdrop._types import Array
from fastdrop.backends.select import backend_of, in_kind
from fastdrop.errors import StateError

PROBABILISTIC_KINDS: Final = ("logits", "sigmoid_logits", "probabilities")
OUTPUT_KINDS: Final = (*PROBABILISTIC_KINDS, "values")
"""What `output_kind` may be, if it is known."""
PREDICTION_ROWS = 1024
"""Most rows at a time by default."""
ELEMENTS_AT_ONCE = 1 << 22
"""Most elements of an array between layers where rows are cut by default, unless one row has more: memory stays bounded."""


def rows_at_once(widest: int, most: int) -> int:
    """Return how many rows of x, `most` at most, go together through a network whose `widest` row has so many elements."""
    return max(1, min(most, ELEMENTS_AT_ONCE // max(1, widest)))


def predict(net: Network, x: Any, batch_size: int | None = None) -> Array:
    """Return the outputs of a network.

    Parameters
    ----------
    net : Sequential
    x : array, shape (rows, ...), float32 or float64
    batch_size : int >= 1, optional
        Rows at a time, by default 1024 or as many as have 2^22 elements between two layers; the results do not depend on it.

    Returns
    -------
    outputs : array, shape (rows, ...), dtype of the network, new

    Raises
    ------
    TypeError, ValueError: bad arguments.
    """
    given, x = x, arrays.float_array("x", x)
    if batch_size is None:
        size = rows_at_once(net.widest(x.shape[1:]), PREDICTION_ROWS)
    else:
        size = _validate.integer("batch_size", batch_size, 1)
    first, backend = net(x[:size]), backend_of(x)
    if len(x) <= size:
        return in_kind(backend.copy_of(first) if backend.same_memory(first, x) else first, given)
    outputs = backend.empty((len(x), *first.shape[1:]), first.dtype)
    outputs[:size] = first
    for start in range(size, len(x), size):
        outputs[start : start + size] = net(x[start : start + size])
    return in_kind(outputs, given)


def predict_proba(net: Network, x: Any, batch_size: int | None = None) -> Array:
    """Return probabilities: softmax of logits, sigmoid of sigmoid logits, or outputs that are such, divided by their sum.

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
    kind = known_kind(net, PROBABILISTIC_KINDS)
    return probabilities(predict(net, x, batch_size), kind)


def known_kind(net: Network, wanted: Collection[str]) -> str:
    """Return what the outputs are, if it is one of the kinds that are wanted."""
    kind = net.output_kind
    if kind is None or kind not in wanted:
        known = "is not known" if kind is None else f"is {kind!r}"
        raise StateError(
            f"it must be known what the outputs are, one of {', '.join(wanted)}, and `output_kind` {known}: "
            "train with fit and a loss for it, or set net.output_kind"
        )
    return kind


def probabilities(outputs: Array, kind: str) -> Array:
    """Return the probabilities that outputs of such a kind say; the outputs themselves if they are "values".

    Probabilities of classes are divided by their sum, as the loss of such outputs takes them; a row of zeros stays.
    """
    if kind == "logits":
        return activations.softmax(outputs)
    if kind == "sigmoid_logits":
        return activations.sigmoid(outputs)
    return _to_sum_one(outputs) if kind == "probabilities" and outputs.shape[-1] > 1 else outputs


def _to_sum_one(outputs: Array) -> Array:
    array = arrays.float_array("outputs", outputs)
    values = arrays.on_host(array)
    sums = values.sum(axis=-1, keepdims=True)
    return in_kind(backend_of(array).copy_of(values / np.where(sums > 0, sums, 1)), outputs)
