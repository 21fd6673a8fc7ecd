"""What tests of the command line share: what was said, what was written, and interruptions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import count

import pytest

from fastdrop.callbacks import LambdaCallback
from fastdrop.sequential import Sequential


def complaints(err: str) -> list[str]:
    """The lines on stderr, without the notice of a first compilation."""
    return [line for line in err.splitlines() if line and not line.startswith("fastdrop: compiling")]


def read(path: str) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def interrupting(monkeypatch: pytest.MonkeyPatch, action: Callable[[int], None]) -> None:
    """Let `action` see the number of every step, at its end."""
    fit = Sequential.fit
    steps = count()

    def watched(self: Sequential, *arguments: object, callbacks: list[object], **options: object) -> object:
        watcher = LambdaCallback(on_train_batch_end=lambda batch, logs: action(next(steps)))
        return fit(self, *arguments, callbacks=[*callbacks, watcher], **options)

    monkeypatch.setattr(Sequential, "fit", watched)
