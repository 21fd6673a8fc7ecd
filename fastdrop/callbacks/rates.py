"""Callbacks that set rates: the learning rate by the number of the epoch, the rates of dropout by that of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop.callbacks.base import Callback
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Logs
from fastdrop.rates import dropout_rates


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Parameters
    ----------
    schedule : function
        ``schedule(epoch, learning_rate) -> learning_rate``, with the epoch from 0 and the present rate.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        self.schedule = _validate.callable_("schedule", schedule)

    def check(self) -> None:
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


class DropoutScheduler(Callback):
    """Sets the rates of all dropout layers before each step: ``rate = final rate * schedule(step)``.

    Each layer has a final rate of its own: the one that it has when the run begins, and again after the run.

    Parameters
    ----------
    schedule : float in [0, 1] or function
        The factor: a constant, or ``schedule(step) -> factor``, with the optimiser's step count; ``fd.schedules.Curriculum`` and
        ``fd.schedules.Linear`` are such functions.

    Attributes
    ----------
    final_rates : dict of str to float
        By the layers' names.
    factor : float
        That of the last step; in the logs of an epoch as "dropout_factor".

    Raises
    ------
    TypeError, ValueError: neither a number in [0, 1] nor a function; in `fit`, a network without dropout layers, or a factor
    that is none.

    Notes
    -----
    Dropout layers are those of `set_dropout`. Validation within the run, and what is saved, has the rates of the step in hand. A
    layer with `fixed_count` cannot have a rate so small that it drops nothing.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> net = fd.Sequential([fd.Dropout(0.5), fd.Dense(2)], input_shape=(3,), seed=0)
    >>> scheduler = fd.callbacks.DropoutScheduler(fd.schedules.Curriculum(4))
    >>> x, y = np.ones((8, 3), "float32"), np.arange(8) % 2
    >>> history = net.fit(x, y, epochs=2, batch_size=4, callbacks=[scheduler], progress=False)
    >>> [round(factor, 4) for factor in history.history["dropout_factor"]], net.layers[0].rate
    ([0.9179, 0.9994], 0.5)
    """

    state_kinds: ClassVar[dict[str, Any]] = {**Callback.state_kinds, "final_rates": dict, "factor": float}

    def __init__(self, schedule: float | Callable[[int], float]) -> None:
        self.schedule = schedule if callable(schedule) else _validate.real("schedule", schedule, 0.0, 1.0)
        self.final_rates: dict[str, float] = {}
        self.factor = 1.0

    def check(self) -> None:
        """Refuse a network without dropout layers."""
        dropout_rates(self.net)

    def on_train_begin(self) -> None:
        """Take over the layers' rates as the final ones."""
        self.final_rates, self.factor = dropout_rates(self.net), 1.0

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:  # noqa: ARG002 (the signature of the hook)
        """Set the rates."""
        factor = self.schedule(self.optimizer.iterations) if callable(self.schedule) else self.schedule
        self.factor = _validate.real("schedule(step)", factor, 0.0, 1.0)
        self.net.set_strengths({name: rate * self.factor for name, rate in self.final_rates.items()})

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:  # noqa: ARG002 (the signature of the hook)
        """Log the factor."""
        logs["dropout_factor"] = self.factor

    def on_train_end(self) -> None:
        """Give the layers their final rates."""
        self.net.set_strengths(self.final_rates)

    def on_train_abort(self) -> None:
        """Give the layers their final rates."""
        self.on_train_end()

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise unless `load_state_dict` can take the state."""
        super().check_state(state)
        for name, rate in state["final_rates"].items():
            _validate.rate(name, rate)
