"""What a sweep or a search shows: a table that grows by a line a run, and below it, on a terminal, how far it is."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from fastdrop.experiments.results import Row

HEAD = ("rate", "seed", "loss", "accuracy", "val. loss", "val. accuracy", "best", "in epoch")
LINE = "{:>6} {:>6} {:>9} {:>9} {:>10} {:>14} {:>8} {:>9}"


TUNE_HEAD = ("trial", "epochs", "val. accuracy", "best", "parameters")
TUNE_LINE = "{:>6} {:>8} {:>14} {:>8}  {}"


class AbstractDisplay(ABC):
    """The table and the bar, on stderr; a context manager."""

    def __init__(self, shown: bool, head: str, total: int | None, unit: str) -> None:
        self._stream = sys.stderr if shown else None
        self._head, self._total, self._unit = head, total, unit
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._stream is not None and self._stream.isatty() and find_spec("tqdm") is not None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit=self._unit, file=self._stream, dynamic_ncols=True)
        self._say(self._head)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    @abstractmethod
    def epoch(self, news: Any) -> None:
        """Show an epoch."""

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif self._stream is not None:
            print(line, file=self._stream, flush=True)


class SweepDisplay(AbstractDisplay):
    """The runs of a sweep; the bar counts epochs."""

    def __init__(self, shown: bool, runs: int, epochs: int) -> None:
        super().__init__(shown, LINE.format(*HEAD), runs * epochs, "epoch")
        self._epochs = epochs
        self._done: dict[tuple[float, int], int] = {}

    def epoch(self, news: tuple[float, int, int, float | None]) -> None:
        """Show how far a run is: (rate, seed, epochs done, validation accuracy, None at its beginning)."""
        rate, seed, epoch, accuracy = news
        self._count(rate, seed, epoch, f"rate {rate:g}, seed {seed}, epoch {epoch}{_after(accuracy)}")

    def finished(self, rows: Sequence[Row]) -> None:
        """Show the result of a run."""
        last, best = rows[-1], max(rows, key=lambda row: (row.val_accuracy, -row.epoch))
        values = f"{last.loss:.4f}", f"{last.accuracy:.2%}", f"{last.val_loss:.4f}", f"{last.val_accuracy:.2%}"
        self._say(LINE.format(f"{last.rate:g}", last.seed, *values, f"{best.val_accuracy:.2%}", best.epoch))
        self._count(last.rate, last.seed, self._epochs)

    def _count(self, rate: float, seed: int, epochs: int, text: str = "") -> None:
        """Set the bar to the epochs that all runs have done, those before an interruption included."""
        self._done[rate, seed] = epochs
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(sum(self._done.values()) - self._bar.n)


class TuneDisplay(AbstractDisplay):
    """The trials of a search; the bar counts them."""

    def __init__(self, shown: bool, trials: int | None, epochs: int) -> None:
        super().__init__(shown, TUNE_LINE.format(*TUNE_HEAD), trials, "trial")
        self._epochs, self._best = epochs, 0.0

    def epoch(self, news: tuple[int, int, float | None]) -> None:
        """Show how far a trial is: (trial, epochs done, validation accuracy, None at its beginning)."""
        if self._bar is not None:
            trial, epoch, accuracy = news
            self._bar.set_postfix_str(f"trial {trial}, epoch {epoch}{_after(accuracy)}; best {self._best:.2%}")

    def finished(self, number: int, accuracies: Sequence[float], parameters: Mapping[str, Any]) -> None:
        """Show a finished trial; one with fewer epochs was stopped early."""
        if len(accuracies) == self._epochs:
            self._best = max(self._best, accuracies[-1])
        values = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in parameters.items()}
        said = ", ".join(f"{name} {value}" for name, value in values.items())
        epochs = f"{len(accuracies)}/{self._epochs}"
        self._say(TUNE_LINE.format(number, epochs, f"{accuracies[-1]:.2%}", f"{self._best:.2%}", said))
        if self._bar is not None:
            self._bar.update()


def _after(accuracy: float | None) -> str:
    return "" if accuracy is None else f": {accuracy:.2%}"
