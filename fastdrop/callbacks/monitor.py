"""Callbacks that watch a logged value, with Keras's arguments and rules."""

from __future__ import annotations

import math
from types import NoneType
from typing import Any, ClassVar, Final

from fastdrop import _validate
from fastdrop._types import Array
from fastdrop.callbacks.base import Callback
from fastdrop.callbacks.rates import without_schedule
from fastdrop.progress import Logs

MODES: Final = ("auto", "min", "max")
LARGER_IS_BETTER: Final = ("acc", "accuracy", "auc")
"""Monitored values of which more is better in mode "auto": those whose names end so (Keras's rule)."""


class AbstractMonitor(Callback):
    """A callback that watches one value of the logs.

    Parameters
    ----------
    monitor : str
        Name in the logs.
    mode : "auto", "min" or "max"
        Whether less or more is better; "auto" goes by the name.
    min_delta : float >= 0
        A smaller change is no improvement.
    """

    state_kinds: ClassVar[dict[str, Any]] = {**Callback.state_kinds, "best": (int, float, NoneType)}

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        self.monitor: str = _validate.instance("monitor", monitor, str, "the name of a value in the logs")
        self.mode = _validate.choice("mode", mode, MODES)
        self.min_delta = _validate.real("min_delta", min_delta, 0.0)
        self.best: float | None = None

    def improves(self, value: float, reference: float | None) -> bool:
        """Return whether a value is better than another by more than `min_delta`; NaN never is, all else is better than None."""
        if math.isnan(value) or reference is None:
            return not math.isnan(value)
        larger = self.mode == "max" or (self.mode == "auto" and self.monitor.endswith(LARGER_IS_BETTER))
        return value - self.min_delta > reference if larger else value + self.min_delta < reference

    @property
    def watches(self) -> bool:
        """Whether the monitored value is looked at."""
        return True

    def watched(self, logs: Logs) -> float:
        """Return the monitored value."""
        return logs[_validate.choice("monitor", self.monitor, logs)]


class EarlyStopping(AbstractMonitor):
    """Ends the run when the monitored value has not improved for `patience` epochs.

    Parameters
    ----------
    monitor, min_delta, mode
        As in `AbstractMonitor`.
    patience : int >= 0
    baseline : float, optional
        The value must also improve on this for the count of epochs to start anew.
    restore_best_weights : bool
        At the end of the run, go back to the weights of the best epoch (not after Ctrl-C, so that the run can go on).
    start_from_epoch : int >= 0
        Epochs before this one are not looked at.
    """

    state_kinds: ClassVar[dict[str, Any]] = {
        **AbstractMonitor.state_kinds,
        "wait": int,
        "stopped_epoch": int,
        "best_epoch": int,
        "best_weights": dict,
    }

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = _validate.integer("patience", patience, 0)
        self.baseline = None if baseline is None else _validate.real("baseline", baseline)
        self.restore_best_weights = _validate.boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = _validate.integer("start_from_epoch", start_from_epoch, 0)
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.best_weights: dict[str, Array] = {}

    def on_train_begin(self) -> None:
        """Start counting anew."""
        self.best, self.wait, self.stopped_epoch, self.best_epoch, self.best_weights = None, 0, 0, 0, {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Compare with the best epoch so far."""
        if epoch < self.start_from_epoch:
            return
        value = self.watched(logs)
        if self.restore_best_weights and not self.best_weights:
            self._remember(epoch)
        self.wait += 1
        if self.improves(value, self.best):
            self.best = value
            self._remember(epoch)
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.stop_training = True

    def _remember(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = self.net.state_dict()

    def on_train_end(self) -> None:
        """Restore the best weights."""
        progress = self.optimizer.progress
        if self.best_weights and not (progress is not None and progress.interrupted):
            self.net.load_state_dict(self.best_weights)


class ReduceLROnPlateau(AbstractMonitor):
    """Multiplies the learning rate by `factor` when the monitored value has not improved for `patience` epochs.

    Parameters
    ----------
    monitor, mode, min_delta
        As in `AbstractMonitor`.
    factor : float in [0, 1)
    patience : int >= 0
    cooldown : int >= 0
        Epochs after a reduction that do not count.
    min_lr : float >= 0
        The learning rate is not reduced below this.
    """

    state_kinds: ClassVar[dict[str, Any]] = {**AbstractMonitor.state_kinds, "wait": int, "cooldown_counter": int}

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = _validate.real("factor", factor, 0.0, 1.0, open_high=True)
        self.patience = _validate.integer("patience", patience, 0)
        self.cooldown = _validate.integer("cooldown", cooldown, 0)
        self.min_lr = _validate.real("min_lr", min_lr, 0.0)
        self.wait = 0
        self.cooldown_counter = 0

    def check(self) -> None:
        """Refuse an optimiser that has a schedule of its own."""
        without_schedule(self.optimizer)

    def on_train_begin(self) -> None:
        """Start counting anew."""
        self.best, self.wait, self.cooldown_counter = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:  # noqa: ARG002 (the signature of the hook)
        """Compare with the best epoch so far, and log the learning rate."""
        value = self.watched(logs)
        rate = self.optimizer.learning_rate
        logs["learning_rate"] = rate
        cooling = self.cooldown_counter > 0
        if cooling:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self.optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
