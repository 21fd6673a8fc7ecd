"""What `fit` shows while it runs: a bar on a terminal (with tqdm), else a line an epoch; both on stderr."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from typing import Any, TextIO

from fastdrop.progress import Logs

REFRESH_SECONDS = 0.1


class AbstractDisplay:
    """What `fit` tells of its progress; nothing of it need be shown. Final subclasses: `Silent`, `Lines`, `Bar`."""

    def begin_epoch(self, epoch: int, position: int) -> None:
        """Start an epoch, or go on with it at a position."""

    def step(self, logs: Logs) -> None:
        """Count a step."""

    def end_epoch(self, logs: Logs) -> None:
        """Show the epoch's results."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Silent(AbstractDisplay):
    """Nothing."""


class Lines(AbstractDisplay):
    """One line an epoch."""

    def __init__(self, stream: TextIO, epochs: int) -> None:
        self.stream = stream
        self.epochs = epochs
        self.epoch = 0
        self.started = time.perf_counter()

    def begin_epoch(self, epoch: int, position: int) -> None:  # noqa: ARG002 (a bar needs it)
        """Start the clock."""
        self.epoch = epoch
        self.started = time.perf_counter()

    def end_epoch(self, logs: Logs) -> None:
        """Write the line."""
        seconds = time.perf_counter() - self.started
        self.stream.write(f"epoch {self.epoch + 1}/{self.epochs} - {seconds:.1f} s - {_text(logs, ' - ')}\n")
        self.stream.flush()


class Bar(AbstractDisplay):
    """One bar an epoch."""

    def __init__(self, stream: TextIO, epochs: int, batches: int) -> None:
        self.stream = stream
        self.epochs = epochs
        self.batches = batches
        self.bar: Any = None
        self.refreshed = 0.0

    def begin_epoch(self, epoch: int, position: int) -> None:
        """Open the bar."""
        from tqdm import tqdm

        self.close()
        title = f"epoch {epoch + 1}/{self.epochs}"
        self.bar = tqdm(total=self.batches, initial=position, desc=title, unit="step", file=self.stream, dynamic_ncols=True)

    def step(self, logs: Logs) -> None:
        """Move the bar, and now and then renew the text."""
        now = time.perf_counter()
        if now - self.refreshed > REFRESH_SECONDS:
            self.refreshed = now
            self.bar.set_postfix_str(_text(logs, ", "), refresh=False)
        self.bar.update()

    def end_epoch(self, logs: Logs) -> None:
        """Show the results and close the bar."""
        self.bar.set_postfix_str(_text(logs, ", "))
        self.close()

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def make(wanted: bool, epochs: int, batches: int) -> AbstractDisplay:
    """Return what fits the terminal."""
    stream = sys.stderr
    if not wanted or stream is None:
        return Silent()
    return Bar(stream, epochs, batches) if stream.isatty() and find_spec("tqdm") is not None else Lines(stream, epochs)


def _text(logs: Logs, separator: str) -> str:
    return separator.join(f"{name}: {value:.4g}" for name, value in logs.items())
