"""Callbacks that set the learning rate by the number of the epoch."""

from __future__ import annotations

from collections.abc import Callable

from fastdrop import _validate
from fastdrop.callbacks.base import Callback
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Logs


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Parameters
    ----------
    schedule : function
        ``schedule(epoch, learning_rate) -> learning_rate``, with the epoch from 0 and the present rate.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = _validate.callable_("schedule", schedule)

    def on_train_begin(self) -> None:
        """Refuse an optimiser that has a schedule of its own."""
        without_schedule(self.optimizer)

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:  # noqa: ARG002 (the signature of the hook)
        """Set the learning rate."""
        self.optimizer.learning_rate = self.schedule(epoch, self.optimizer.learning_rate)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:  # noqa: ARG002 (the signature of the hook)
        """Log the learning rate."""
        logs["learning_rate"] = self.optimizer.learning_rate


def without_schedule(optimizer: AbstractOptimizer) -> None:
    """Raise if the optimiser has a schedule of its own, which a callback would replace."""
    if optimizer.schedule is not None:
        _validate.fail_value("optimizer.learning_rate", "a number, to be changed by a callback", repr(optimizer.schedule))
