"""Callbacks that write files, each replaced in one step."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._files import check_writable, replacing
from fastdrop.callbacks.base import Callback
from fastdrop.callbacks.monitor import AbstractMonitor
from fastdrop.errors import FileFormatError
from fastdrop.progress import Logs
from fastdrop.serialization import PathLike, save, save_checkpoint


def literal(path: PathLike) -> str:
    """Return a path as `ModelCheckpoint` takes it, with braces that mean themselves."""
    return os.fspath(path).replace("{", "{{").replace("}", "}}")


class ModelCheckpoint(AbstractMonitor):
    """Writes a checkpoint after epochs or steps: `fit(..., resume=filepath)` goes on exactly there, and `load` takes it too.

    Parameters
    ----------
    filepath : str or path
        May contain ``{epoch}`` and ``{batch}`` (from 1) and logged values, formatted as in "{epoch:02d}-{val_loss:.2f}".
    monitor, mode
        As in `AbstractMonitor`; only for `save_best_only`.
    save_best_only : bool
        Write only when the monitored value is better than ever before.
    save_weights_only : bool
        Write the network alone, as ``net.save`` does.
    save_freq : "epoch" or int >= 1
        After every epoch, or after so many steps.
    initial_value_threshold : float, optional
        What the monitored value must be better than at first.
    """

    state_kinds: ClassVar[dict[str, Any]] = {**AbstractMonitor.state_kinds, "steps_since_save": int}

    def __init__(
        self,
        filepath: PathLike,
        monitor: str = "val_loss",
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        self.filepath = _validate.path("filepath", filepath)
        self.save_best_only = _validate.boolean("save_best_only", save_best_only)
        self.save_weights_only = _validate.boolean("save_weights_only", save_weights_only)
        if isinstance(save_freq, str):
            self.save_freq: str | int = _validate.choice("save_freq", save_freq, ("epoch",))
        else:
            self.save_freq = _validate.integer("save_freq", save_freq, 1)
        threshold = initial_value_threshold
        self.initial_value_threshold = None if threshold is None else _validate.real("initial_value_threshold", threshold)
        self.steps_since_save = 0

    @property
    def watches(self) -> bool:
        """Whether the monitored value is looked at."""
        return self.save_best_only

    def check(self) -> None:
        """Check that the file can be written, before any training is done for nothing."""
        if "{" not in str(self.filepath.parent):
            check_writable(self.filepath)

    def on_train_begin(self) -> None:
        """Start counting anew."""
        self.best, self.steps_since_save = self.initial_value_threshold, 0

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write after every `save_freq` steps."""
        if self.save_freq == "epoch":
            return
        self.steps_since_save += 1
        if self.steps_since_save >= int(self.save_freq):
            self.steps_since_save = 0
            progress = self.optimizer.progress
            self._save(0 if progress is None else progress.epoch, logs, batch)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write after an epoch."""
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _save(self, epoch: int, logs: Logs, batch: int = 0) -> None:
        if self.save_best_only:
            value = self.watched(logs)
            if not self.improves(value, self.best):
                return
            self.best = value
        path = self._path(epoch, batch, logs)
        if self.save_weights_only:
            save(self.net, path)
        else:
            save_checkpoint(path, self.net, self.optimizer)

    def _path(self, epoch: int, batch: int, logs: Logs) -> Path:
        try:
            return Path(str(self.filepath).format(epoch=epoch + 1, batch=batch + 1, **logs))
        except (KeyError, IndexError, ValueError) as error:
            _validate.fail_value("filepath", f"a format of epoch, batch, {', '.join(logs)}", f"{str(self.filepath)!r} ({error})")


class CSVLogger(Callback):
    """Writes a table of the history, a row an epoch; the file is replaced in one step, so that it is never half a table.

    Parameters
    ----------
    filename : str or path
    separator : str of one character
    append : bool
        Go on below the rows of a file that exists. A resumed run always goes on below the rows of its checkpoint.
    """

    state_kinds: ClassVar[dict[str, Any]] = {**Callback.state_kinds, "rows": list}

    def __init__(self, filename: PathLike, separator: str = ",", append: bool = False) -> None:
        self.filename = _validate.path("filename", filename)
        self.separator: str = _validate.instance("separator", separator, str, "a string of one character")
        if len(separator) != 1:
            _validate.fail_value("separator", "a string of one character", repr(separator))
        self.append = _validate.boolean("append", append)
        self.rows: list[list[str]] = []

    def check(self) -> None:
        """Check that the file can be written."""
        check_writable(self.filename)

    def on_train_begin(self) -> None:
        """Begin the table, or read it to append."""
        self.rows = []
        if self.append and self.filename.exists():
            self.rows = list(csv.reader(io.StringIO(_text(self.filename), newline=""), delimiter=self.separator))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write the table with one more row."""
        if not self.rows:
            self.rows.append(["epoch", *sorted(logs)])
        names = self.rows[0][1:]
        self.rows.append([str(epoch), *(str(logs.get(name, "NA")) for name in names)])
        with replacing(self.filename) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, delimiter=self.separator, lineterminator="\n").writerows(self.rows)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: cannot be read as a table: {error}") from error
