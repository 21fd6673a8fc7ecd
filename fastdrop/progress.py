"""Where a run of `fit` stands: what a checkpoint holds beside network and optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Final, Protocol, TypeAlias

from fastdrop import _validate

Logs: TypeAlias = dict[str, float]
Sums: TypeAlias = dict[str, tuple[float, int]]
"""Running sums of loss and metrics: (sum of values, their number) by name."""

HOOKS: Final = ("on_epoch_begin", "on_train_batch_end", "on_epoch_end")
"""Hooks that a checkpoint may be written in, with callbacks that have run already and others that have not."""


def add(sums: Sums, name: str, total: float, count: int) -> None:
    """Add the sum of `count` values to a running sum."""
    before, rows = sums.get(name, (0.0, 0))
    sums[name] = (before + total, rows + count)


def means(sums: Sums) -> Logs:
    """Return the means of what was summed."""
    return {name: total / count for name, (total, count) in sums.items()}


@dataclass(slots=True)
class History:
    """What `fit` returns.

    Attributes
    ----------
    history : dict of str to list of float
        "loss", one key for each metric, and both with "val_" in front where there are validation data: one value an epoch.
    epochs : list of int
        The epochs' numbers, from 0.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)

    @property
    def epoch(self) -> list[int]:
        """The epochs' numbers, by Keras's name."""
        return self.epochs

    def append(self, epoch: int, logs: Logs) -> None:
        """Add the values of one epoch.

        Raises
        ------
        TypeError: a value is no number.
        """
        self.epochs.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(_number(f"logs[{name!r}]", value))


class Stateful(Protocol):
    """A callback, as far as checkpoints are concerned."""

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes."""


@dataclass(slots=True)
class Event:
    """A call of one hook of all callbacks, while it lasts: those in `remaining` are still to run.

    A checkpoint written by one of the callbacks holds it, so that a resumed run can finish it.
    """

    hook: str
    number: int
    logs: Logs
    remaining: list[Stateful] = field(default_factory=list)


@dataclass(slots=True)
class StoredCallback:
    """A callback as a checkpoint describes it; `ran` is False where the pending event had not reached it yet."""

    kind: str
    state: dict[str, Any]
    ran: bool


@dataclass(slots=True)
class Progress:
    """The position of a run of `fit`, kept in ``optimizer.progress``.

    Attributes
    ----------
    epoch : int
        Epochs of this run that are complete.
    begun : bool
        Whether ``on_epoch_begin`` has been called for the epoch in hand.
    position : int
        Batches of the epoch in hand that are done.
    sums : Sums
        Running sums of loss and metrics in the epoch in hand.
    plan : dict
        Rows, batch size and shuffling: what must be equal to go on in the middle of an epoch.
    event : Event or None
        The hook that is being called.
    history : History
    callbacks : sequence of callbacks
        Those of the run; their state is read when a checkpoint is written.
    stored : list of StoredCallback
        Those of the checkpoint that this was read from, until a run goes on.
    interrupted : bool
        Whether the run was stopped by Ctrl-C before its end.
    """

    epoch: int = 0
    begun: bool = False
    position: int = 0
    sums: Sums = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    event: Event | None = None
    history: History = field(default_factory=History)
    callbacks: Sequence[Stateful] = ()
    stored: list[StoredCallback] = field(default_factory=list)
    interrupted: bool = False

    def end_epoch(self) -> None:
        """Count the epoch in hand as complete."""
        self.epoch += 1
        self.begun = False
        self.position = 0
        self.sums = {}

    def store_callbacks(self) -> list[StoredCallback]:
        """Return the callbacks as a checkpoint describes them."""
        remaining = () if self.event is None else self.event.remaining
        return self.stored + [
            StoredCallback(type(each).__name__, each.state_dict(), not any(each is other for other in remaining))
            for each in self.callbacks
        ]

    def to_facts(self) -> dict[str, Any]:
        """Return all that `from_facts` needs, arrays of callbacks included."""
        event = self.event
        return {
            "epoch": self.epoch,
            "begun": self.begun,
            "position": self.position,
            "sums": {name: (float(total), count) for name, (total, count) in self.sums.items()},
            "plan": self.plan,
            "event": event and {"hook": event.hook, "number": event.number, "logs": _logs(event.logs)},
            "history": asdict(self.history),
            "callbacks": [{"kind": each.kind, "state": each.state, "ran": each.ran} for each in self.store_callbacks()],
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Progress:
        """Return the progress that `to_facts` described.

        Raises
        ------
        KeyError, TypeError, ValueError: it is no such description.
        """
        history, event, plan = facts["history"], facts["event"], facts["plan"]
        sums = _validate.instance("sums", facts["sums"], dict, "a dict")
        stored = _validate.sequence("callbacks", facts["callbacks"])
        return cls(
            epoch=_validate.integer("epoch", facts["epoch"], 0),
            begun=_validate.boolean("begun", facts["begun"]),
            position=_validate.integer("position", facts["position"], 0),
            sums={name: _sum(entry) for name, entry in sums.items()},
            plan=_validate.instance("plan", plan, dict, "a dict"),
            event=None if event is None else _event(event),
            history=_history(_validate.instance("history", history, dict, "a dict")),
            stored=[_stored(entry) for entry in stored],
        )


def _number(name: str, value: Any) -> float:
    """Return a logged value; NaN and infinities are values."""
    return float(_validate.instance(name, value, Real, "a number"))


def _sum(entry: Any) -> tuple[float, int]:
    total, count = _validate.sequence("sums", entry, "pairs", 2)
    return _number("sums", total), _validate.integer("sums", count, 1)


def _logs(logs: Any) -> Logs:
    return {name: _number("logs", value) for name, value in _validate.instance("logs", logs, dict, "a dict").items()}


def _event(event: Any) -> Event:
    facts = _validate.instance("event", event, dict, "a dict")
    hook = _validate.choice("hook", facts["hook"], HOOKS)
    return Event(hook, _validate.integer("number", facts["number"], 0), _logs(facts["logs"]))


def _history(facts: dict[str, Any]) -> History:
    epochs = [_validate.integer("epochs", epoch, 0) for epoch in _validate.sequence("epochs", facts["epochs"])]
    lists = _validate.instance("history", facts["history"], dict, "a dict")
    values = {name: [_number("history", value) for value in _validate.sequence("history", lists[name])] for name in lists}
    return History(values, epochs)


def _stored(entry: Any) -> StoredCallback:
    facts = _validate.instance("callbacks", entry, dict, "a dict")
    kind = _validate.instance("kind", facts["kind"], str, "a string")
    state = _validate.instance("state", facts["state"], dict, "a dict")
    return StoredCallback(kind, state, _validate.boolean("ran", facts["ran"]))
