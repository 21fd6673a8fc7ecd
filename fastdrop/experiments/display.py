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

    def epoch(self, news: tuple[float, int, int, dict[str, float]]) -> None:
        """Count an epoch of a run: (rate, seed, epoch, logs)."""
        if self._bar is not None:
            rate, seed, epoch, logs = news
            self._bar.set_postfix_str(f"rate {rate:g}, seed {seed}, epoch {epoch}: {logs['val_accuracy']:.2%}", refresh=False)
            self._bar.update()

    def finished(self, rows: Sequence[Row]) -> None:
        """Show the result of a run."""
        last, best = rows[-1], max(rows, key=lambda row: (row.val_accuracy, -row.epoch))
        if self._bar is not None and self._bar.n < self._bar.total and not self._bar.postfix:
            self._bar.update(len(rows))
        values = f"{last.loss:.4f}", f"{last.accuracy:.2%}", f"{last.val_loss:.4f}", f"{last.val_accuracy:.2%}"
        self._say(LINE.format(f"{last.rate:g}", last.seed, *values, f"{best.val_accuracy:.2%}", best.epoch))

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif self._stream is not None:
            print(line, file=self._stream, flush=True)
