"""`Callback`, the base class, and callbacks of plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._network import Network
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Logs


class Callback:
    """Base class: override the hooks that are wanted.

    Attributes
    ----------
    net : Sequential
        The network that is trained; set by `fit`.
    optimizer : AbstractOptimizer
        Set by `fit`; ``optimizer.progress`` says where the run stands.
    stop_training : bool
        Set it to end the run after the step or epoch in hand.
    state_kinds : dict of str to type or tuple of types
        Attributes that `state_dict` returns, with the types that they may have; subclasses add theirs.
    """

    state_kinds: ClassVar[dict[str, Any]] = {"stop_training": bool}

    net: Network
    optimizer: AbstractOptimizer
    stop_training: bool = False

    def check(self) -> None:
        """Raise unless the run can be: asked before anything is changed, and again when a checkpoint is restored."""

    def on_train_begin(self) -> None:
        """Run before the first step; the state starts anew here. A resumed run restores it afterwards."""

    def on_train_end(self) -> None:
        """Run after the last step, and after an interruption by Ctrl-C."""

    def on_train_abort(self) -> None:
        """Run in place of `on_train_end` where an exception ends the run."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Run before an epoch (from 0); `logs` is empty."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Run after an epoch and its validation; what is added to `logs` becomes part of the history."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Run before a step (from 0 in each epoch); `logs` is empty."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Run after a step; `logs` are the means of the epoch so far."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: dicts, lists, numbers, strings, None and arrays."""
        return {name: getattr(self, name) for name in self.state_kinds}

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise unless `load_state_dict` can take the state; a class with a `state_dict` of its own checks there.

        Raises
        ------
        TypeError, ValueError: other names, or values of other kinds, than `state_kinds` says.
        """
        if type(self).state_dict is not Callback.state_dict:
            return
        kinds = self.state_kinds
        if set(state) != set(kinds):
            _validate.fail_value("state", f"a dict of {', '.join(kinds)}", f"one of {', '.join(map(str, state))}")
        for name, kind in kinds.items():
            _validate.instance(name, state[name], kind, "of a kind that a state may have")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        for name in self.state_kinds:
            setattr(self, name, state[name])


class LambdaCallback(Callback):
    """Runs the given functions as hooks; each takes the arguments of the hook of its name."""

    def __init__(
        self,
        on_epoch_begin: Callable[[int, Logs], Any] | None = None,
        on_epoch_end: Callable[[int, Logs], Any] | None = None,
        on_train_begin: Callable[[], Any] | None = None,
        on_train_end: Callable[[], Any] | None = None,
        on_train_batch_begin: Callable[[int, Logs], Any] | None = None,
        on_train_batch_end: Callable[[int, Logs], Any] | None = None,
    ) -> None:
        hooks = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        for name, hook in hooks.items():
            if hook is not None:
                setattr(self, name, _validate.callable_(name, hook))
