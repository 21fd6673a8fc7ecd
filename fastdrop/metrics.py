"""Metrics: per-row values of (outputs, labels) whose mean over the rows of an epoch is reported.

A metric is a name, a function of this module, or any function ``(outputs, labels) -> per-row values`` with a ``__name__``.
Labels arrive as the loss takes them: class numbers of the outputs' leading axes, or targets of the outputs' shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from fastdrop import _validate, arrays
from fastdrop._types import Array
from fastdrop.backends.select import backend_of

MetricFunction: TypeAlias = Callable[[Array, Array], Any]
MetricArgument: TypeAlias = Sequence[str | Callable[..., Any]]

PROBABILITY_THRESHOLD: Final = 0.5
LOGIT_THRESHOLD: Final = 0.0


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is ready to use: its name in logs, and ``compute(outputs, labels) -> per-row values``."""

    name: str
    compute: MetricFunction

    @property
    def is_accuracy(self) -> bool:
        """Whether it is `accuracy`, which is computed where the outputs are."""
        return isinstance(self.compute, partial) and self.compute.func is accuracy


def accuracy(outputs: Any, labels: Any, output_kind: str | None = None) -> Array:
    """Return for each row whether the most likely class is the label.

    Parameters
    ----------
    outputs : array, shape (..., columns)
    labels : array, shape (...) of class numbers, or shape (..., columns) of targets
    output_kind : str, optional
        With one column the outputs are compared with 0 if they are "sigmoid_logits", else with 0.5.

    Returns
    -------
    hits : bool array, shape (...)

    Raises
    ------
    ValueError: the shapes do not fit.
    """
    outputs, labels = arrays.to_array("outputs", outputs), arrays.to_array("labels", labels)
    leading, columns = outputs.shape[:-1], outputs.shape[-1]
    if labels.shape not in (leading, (*leading, 1), outputs.shape):
        _validate.fail_value("labels", f"of shape {leading} or {outputs.shape}", labels.shape)
    threshold = LOGIT_THRESHOLD if output_kind == "sigmoid_logits" else PROBABILITY_THRESHOLD
    rows = math.prod(leading)
    goals = labels.reshape(rows, columns) if columns > 1 and labels.shape == outputs.shape else labels.reshape(rows)
    return backend_of(outputs).hits(outputs.reshape(rows, columns), goals, threshold).reshape(leading)


def mean_absolute_error(outputs: Any, labels: Any) -> Array:
    """Return for each row the mean of ``|p - t|`` over the last axis.

    Raises
    ------
    ValueError: `labels` does not have the shape of `outputs` (or of its leading axes, with one column).
    """
    outputs, labels = _validate.to_array("outputs", outputs), _validate.numbers_array("labels", labels)
    if labels.shape == outputs.shape[:-1] and outputs.shape[-1] == 1:
        labels = labels[..., None]
    _validate.exact_shape("labels", labels, outputs.shape)
    return np.asarray(np.abs(outputs - labels).mean(axis=-1))


FUNCTIONS: Final[dict[str, Callable[..., Array]]] = {function.__name__: function for function in (accuracy, mean_absolute_error)}


def get(metrics: Any, output_kind: str | None) -> list[Metric]:
    """Return the metrics of a list of names and functions, for outputs of a kind.

    Raises
    ------
    TypeError: not a list or tuple, or an entry is neither. ValueError: an unknown name, a name twice, or "loss".
    """
    entries = _validate.sequence("metrics", metrics, "a list or tuple of names and functions")
    found = [_get(metric, output_kind) for metric in entries]
    names = ["loss", *(metric.name for metric in found)]
    if len(set(names)) < len(names):
        _validate.fail_value("metrics", "of different names, and not 'loss'", names[1:])
    return found


def _get(metric: Any, output_kind: str | None) -> Metric:
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        function: Callable[..., Any] = metric
    else:
        name = _validate.choice("metrics", metric, FUNCTIONS)
        function = FUNCTIONS[name]
    return Metric(name, partial(accuracy, output_kind=output_kind) if function is accuracy else function)
