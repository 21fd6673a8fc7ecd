"""`fit` and `train_on_batch`: arguments are checked here, before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastdrop import _validate, losses, optim
from fastdrop import metrics as metric_table
from fastdrop._network import Network
from fastdrop._run import Run, do_step
from fastdrop._types import Array
from fastdrop.backends.select import in_kind, received
from fastdrop.callbacks import (
    Callback,
    CSVLogger,
    DropoutScheduler,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from fastdrop.callbacks.monitor import AbstractMonitor
from fastdrop.evaluation import evaluate, prepare
from fastdrop.losses import LossFunction
from fastdrop.metrics import MetricArgument
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import History
from fastdrop.serialization import PathLike, read_checkpoint

__all__ = ["evaluate", "fit", "train_on_batch"]

DEFAULT_OPTIMIZER = "adam"
DEFAULT_LOSS = "softmax_cross_entropy"

LOGGED: Final = {
    CSVLogger: "", DropoutScheduler: "dropout_factor", EarlyStopping: "", LearningRateScheduler: "learning_rate",
    ModelCheckpoint: "", ReduceLROnPlateau: "learning_rate",
}  # fmt: skip
"""What callbacks put into the logs; those of users may add anything."""


def train_on_batch(
    net: Network,
    x: Any,
    labels: Any,
    optimizer: AbstractOptimizer,
    loss: str | LossFunction = DEFAULT_LOSS,
    sample_weight: Any = None,
    step: int | None = None,
    row_offset: int = 0,
) -> float:
    """Do one step: forward, loss, backward, update; the gradients are zeros afterwards.

    Parameters
    ----------
    net : Sequential
    x : array, shape (rows, ...), float32 or float64
    labels : array of as many rows
        As the loss takes them.
    optimizer : AbstractOptimizer
    loss : str or function
        Sets ``net.output_kind``, unless it is a function of the user's.
    sample_weight : array, shape (rows,), optional
    step : int, optional
        Step of the masks; by default the network counts.
    row_offset : int >= 0
        Number of the first row within its batch.

    Returns
    -------
    loss : float, or on a GPU an array without axes
        Before the update, without penalties.

    Raises
    ------
    TypeError, ValueError: bad arguments; weights and counters are unchanged then.

    Notes
    -----
    The bits are those of ``net.forward``, the loss, ``backward``, ``optimizer.step`` and ``net.zero_grad``. Gradients that were
    there before take part in the update.
    """
    optim.own(optimizer)
    resolved = losses.get(loss)

    def compute(outputs: Array) -> tuple[float, Array]:
        checked = resolved.check("labels", labels, outputs.shape, outputs.dtype)
        return resolved.compute(outputs, checked, losses.check_weights(sample_weight, outputs.shape[:-1]), None)

    value, _ = do_step(net, received(x), compute, optimizer, step, row_offset)
    net.output_kind = resolved.output_kind or net.output_kind
    return in_kind(value, x)


def fit(
    net: Network,
    x: Any,
    y: Any,
    epochs: int = 1,
    batch_size: int = 32,
    optimizer: str | AbstractOptimizer | None = None,
    loss: str | LossFunction = DEFAULT_LOSS,
    validation_data: Any = None,
    sample_weight: Any = None,
    shuffle: bool = True,
    metrics: MetricArgument = ("accuracy",),
    callbacks: Sequence[Callback] | None = None,
    progress: bool = True,
    resume: PathLike | None = None,
) -> History:
    """Train a network.

    Parameters
    ----------
    net : Sequential
    x : array, shape (rows, ...), float32 or float64
    y : array of as many rows
        Labels as the loss takes them.
    epochs : int >= 0
        With `resume`, the total.
    batch_size : int >= 1
        The last batch of an epoch may be shorter.
    optimizer : AbstractOptimizer or "sgd", "adam", "adamw"
        By default Adam, or that of the checkpoint.
    loss : str or function
        Sets ``net.output_kind``, unless it is a function of the user's.
    validation_data : (x, y) or (x, y, sample_weight), optional
        Measured after each epoch: "val_loss" and so on.
    sample_weight : array, shape (rows,), optional
        Weights the loss, not the metrics.
    shuffle : bool
        Visit the rows in an order that depends on the network's seed and `epochs_completed` alone.
    metrics : sequence of str and functions
        Measured on the training batches and on the validation data.
    callbacks : sequence of Callback, optional
    progress : bool
        Show a bar on a terminal (with tqdm installed), else a line an epoch, on stderr.
    resume : str or path, optional
        A checkpoint, from which to go on: same data and arguments give the bits of a run that was never stopped.

    Returns
    -------
    history : History
        Of all epochs, those before the checkpoint included.

    Raises
    ------
    TypeError, ValueError: bad arguments; nothing is changed then. MissingFileError, FileFormatError: a bad checkpoint.
    KeyboardInterrupt: after Ctrl-C, at the end of the step in hand; `save_checkpoint` then keeps all that was done.

    Notes
    -----
    The loss includes L1 and L2 penalties. Values of training are means over the steps' batches as they were trained on.
    """
    epochs = _validate.integer("epochs", epochs, 0)
    batch_size = _validate.integer("batch_size", batch_size, 1)
    shuffle = _validate.boolean("shuffle", shuffle)
    shown = _validate.boolean("progress", progress)
    checkpoint = None if resume is None else read_checkpoint(_validate.path("resume", resume))
    if optimizer is None:
        optimizer = DEFAULT_OPTIMIZER if checkpoint is None else checkpoint.make_optimizer()
    optimizer = optim.get(optimizer)
    resolved = losses.get(loss)
    measured = metric_table.get(metrics, resolved.output_kind or net.output_kind)
    checked = _callbacks(callbacks, ["loss", *(metric.name for metric in measured)], validation_data is not None)
    data = prepare(net, resolved, x, y, sample_weight)
    validation = None
    if validation_data is not None:
        parts = _validate.sequence("validation_data", validation_data, "(x, y) or (x, y, sample_weight)", 2, 3)
        validation = prepare(net, resolved, parts[0], parts[1], parts[2] if len(parts) > 2 else None, "validation ")
    plan = {"rows": len(data), "batch_size": batch_size, "shuffle": shuffle}
    run = Run(net, optimizer, resolved, measured, checked, data, validation, plan)
    return run.go(epochs, shown, checkpoint)


def _callbacks(callbacks: Any, names: Sequence[str], validated: bool) -> list[Callback]:
    """Return the callbacks as a list; what one of them watches must be among the logged values, as far as these are known."""
    entries = _validate.sequence("callbacks", () if callbacks is None else callbacks, "a list of callbacks")
    for callback in entries:
        _validate.instance("callbacks", callback, Callback, "a list of fastdrop.callbacks.Callback")
    if not all(type(callback) in LOGGED for callback in entries):
        return entries
    names = [*names, *(f"val_{name}" for name in names if validated), *(LOGGED[type(callback)] for callback in entries)]
    for callback in entries:
        if isinstance(callback, AbstractMonitor) and callback.watches and callback.monitor not in names:
            without, hint = ("", "") if validated else (" without validation data", "(hint: fit(..., validation_data=(x, y)))")
            wanted = f"one of {', '.join(filter(None, names))}{without}"
            _validate.fail_value("monitor", wanted, repr(callback.monitor), hint)
    return entries
