"""Data that belong together, checked once; loss and metrics over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fastdrop import _validate, arrays, losses
from fastdrop import metrics as metric_table
from fastdrop._network import Network
from fastdrop._types import Array
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend_of
from fastdrop.inference import rows_at_once
from fastdrop.losses import Loss, LossFunction, Weights
from fastdrop.metrics import Metric, MetricArgument
from fastdrop.progress import Logs, Sums, add, means

EVALUATION_ROWS = 256
"""Most rows of a batch where nothing is trained, unless said otherwise."""


@dataclass(frozen=True, slots=True)
class Data:
    """Rows of x with their labels and weights, as network and loss take them."""

    x: Array
    labels: Array
    weights: Weights | None

    def __len__(self) -> int:
        return len(self.x)


class Batches:
    """The batches of an epoch; the last may be short.

    With an order the rows are gathered into one buffer: a batch is valid until the next is asked for.
    """

    def __init__(self, data: Data, batch_size: int, order: npt.NDArray[np.int64] | None = None) -> None:
        self.data = data
        self.batch_size = min(batch_size, len(data))
        self.order = order
        self._x = data.x if order is None else backend_of(data.x).empty((self.batch_size, *data.x.shape[1:]), data.x.dtype)

    def __len__(self) -> int:
        return (len(self.data) + self.batch_size - 1) // self.batch_size

    def __getitem__(self, batch: int) -> Data:
        rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        x, labels, weights = self.data.x, self.data.labels, self.data.weights
        if self.order is None:
            return Data(x[rows], labels[rows], None if weights is None else weights[rows])
        chosen = self.order[rows]
        gathered = backend_of(x).take(x, chosen, self._x[: len(chosen)])
        chosen_labels = backend_of(labels).take(labels, chosen)
        return Data(gathered, chosen_labels, None if weights is None else backend_of(weights).take(weights, chosen))


def prepare(net: Network, loss: Loss, x: Any, y: Any, sample_weight: Any = None, prefix: str = "") -> Data:
    """Return data that fit network and loss, in the network's dtype; `prefix` stands before the names in errors.

    Raises
    ------
    TypeError, ValueError: they do not fit, or there is no row.
    """
    x = arrays.float_array(f"{prefix}x", x)
    labels = arrays.to_array(f"{prefix}y", y)
    _validate.same_length(f"{prefix}y", labels, len(x), f"{prefix}x")
    if len(x) == 0:
        _validate.fail_value(f"{prefix}x", "of at least one row", f"shape {x.shape}")
    x = contiguous(x, net.dtype)  # gathering rows of any other array would copy all of it each time
    shape = (len(x), *net(x[:0]).shape[1:])
    return Data(x, loss.check(f"{prefix}y", labels, shape, net.dtype), losses.check_weights(sample_weight, shape[:-1]))


def add_batch(sums: Sums, loss: float, measured: Sequence[Metric], outputs: Array, labels: Array) -> None:
    """Add loss and metrics of one batch to running sums over rows."""
    rows = len(outputs)
    add(sums, "loss", loss * rows, rows)
    for metric in measured:
        here = outputs, labels
        if arrays.is_device(outputs):
            if metric.is_accuracy:
                hits = cast(Any, metric.compute(outputs, labels))
                add(sums, metric.name, backend_of(hits).sum_of(hits), hits.size)
                continue
            here = arrays.on_host(outputs), arrays.on_host(labels)
        values = np.asarray(metric.compute(*here))
        if values.ndim:
            add(sums, metric.name, float(values.sum(dtype=np.float64)), values.size)
        else:
            add(sums, metric.name, float(values) * rows, rows)


def measure(net: Network, data: Data, loss: Loss, measured: Sequence[Metric], batch_size: int | None = None) -> Logs:
    """Return the means of loss (with penalties) and metrics over all rows, in inference."""
    sums: Sums = {}
    penalty = net.penalty()
    batches = Batches(data, batch_size or rows_at_once(net.widest(data.x.shape[1:]), EVALUATION_ROWS))
    for batch in range(len(batches)):
        part = batches[batch]
        outputs = net(part.x)
        value, _ = loss.compute(outputs, part.labels, part.weights, None)
        add_batch(sums, value + penalty if penalty else value, measured, outputs, part.labels)
    return {name: float(value) for name, value in means(sums).items()}


def evaluate(
    net: Network,
    x: Any,
    y: Any,
    loss: str | LossFunction | None = None,
    metrics: MetricArgument = ("accuracy",),
    batch_size: int | None = None,
    sample_weight: Any = None,
) -> dict[str, float]:
    """Return loss and metrics of a network on data.

    Parameters
    ----------
    net : Sequential
    x : array, shape (rows, ...), float32 or float64
    y : array of as many rows
        Labels as the loss takes them.
    loss : str or function, optional
        By default the one that the network was trained with, if it is one of `fastdrop.losses`, else softmax_cross_entropy.
    metrics : sequence of str and functions
    batch_size : int >= 1, optional
        Rows at a time, by default 256 or as many as have 2^22 elements between two layers.
    sample_weight : array, shape (rows,), optional
        Weights the loss, not the metrics.

    Returns
    -------
    values : dict
        "loss" (with L1 and L2 penalties) and each metric: means over the rows.

    Raises
    ------
    TypeError, ValueError: bad arguments.
    """
    batch_size = None if batch_size is None else _validate.integer("batch_size", batch_size, 1)
    resolved = losses.for_output_kind(net.output_kind) if loss is None else losses.get(loss)
    measured = metric_table.get(metrics, resolved.output_kind or net.output_kind)
    return measure(net, prepare(net, resolved, x, y, sample_weight), resolved, measured, batch_size)
