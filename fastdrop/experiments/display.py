"""What a sweep shows while it runs: a table that grows by a line a run, and below it, on a terminal, how far the runs are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from fastdrop.experiments.results import Row

HEAD = ("rate", "seed", "loss", "accuracy", "val. loss", "val. accuracy", "best", "in epoch")
LINE = "{:>6} {:>6} {:>9} {:>9} {:>10} {:>14} {:>8} {:>9}"


class SweepDisplay:
    """The table and the bar, on stderr; a context manager."""

    def __init__(self, shown: bool, runs: int, epochs: int) -> None:
        self._stream = sys.stderr if shown else None
        self._runs, self._epochs = runs, epochs
        self._done: dict[tuple[float, int], int] = {}
        self._bar: Any = None

    def __enter__(self) -> SweepDisplay:
        if self._stream is not None and self._stream.isatty() and find_spec("tqdm") is not None:
            from tqdm import tqdm

            self._bar = tqdm(total=self._runs * self._epochs, unit="epoch", file=self._stream, dynamic_ncols=True)
        self._say(LINE.format(*HEAD))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def epoch(self, news: tuple[float, int, int, float]) -> None:
        """Show how far a run is: (rate, seed, epochs done, validation accuracy)."""
        rate, seed, epoch, accuracy = news
        self._count(rate, seed, epoch, f"rate {rate:g}, seed {seed}, epoch {epoch}: {accuracy:.2%}")

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

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif self._stream is not None:
            print(line, file=self._stream, flush=True)
