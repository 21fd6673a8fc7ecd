"""Training runs that are each done once: a row of a CSV when finished, a checkpoint an epoch until then.

The same call goes on where a run was stopped, by Ctrl-C or by a kill, and gives the bits of one that was never stopped.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from results import Row, append, read

import fastdrop as fd
from fastdrop import _config
from fastdrop._types import Array
from fastdrop.callbacks import Callback, ModelCheckpoint
from fastdrop.data import Dataset
from fastdrop.layers import AbstractLayer
from fastdrop.optim import SGD, AbstractOptimizer, Adam
from fastdrop.progress import Logs
from fastdrop.schedules import CosineDecay

Part: TypeAlias = tuple[Array, Array]

ERRORS = ("training_errors", "validation_errors", "test_errors")
HELD_OUT = 1 / 6
"""Part of the training rows that a network is chosen on: 10,000 of 60,000."""
SAMPLE = 10_000
"""Training rows whose error without dropout is measured: as many as are held out."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """All that decides the result of a run.

    The network has relu units, dropout before each layer, and an output for each class; the learning rate falls to 0 along a
    cosine. `rows` are those trained on: up to five sixths of the training rows, or all of them (then none are held out).
    `max_norm` 0 is no constraint, `momentum` 0 is Adam.
    """

    data: str
    hidden: str
    rows: int
    input_rate: float = 0.0
    hidden_rate: float = 0.0
    shared_rows: int | str = 1
    max_norm: float = 0.0
    learning_rate: float = 0.001
    momentum: float = 0.0
    batch_size: int = 128
    epochs: int
    seed: int = 1

    @property
    def name(self) -> str:
        """Tells the run from all others, in names of files too."""
        return "_".join(str(value) for value in asdict(self).values())

    def network(self, dataset: Dataset) -> fd.Sequential:
        """Return the network, untrained."""
        constraint = fd.MaxNorm(self.max_norm) if self.max_norm else None
        layers: list[AbstractLayer] = [fd.Dropout(self.input_rate, shared_rows=self.shared_rows)]
        for units in map(int, self.hidden.split("-")):
            layers.append(fd.Dense(units, activation="relu", weight_initializer="he_normal", weight_constraint=constraint))
            layers.append(fd.Dropout(self.hidden_rate, shared_rows=self.shared_rows))
        return fd.Sequential([*layers, fd.Dense(dataset.classes)], input_shape=dataset.x_train.shape[1:], seed=self.seed)

    def optimizer(self) -> AbstractOptimizer:
        """Return the optimiser."""
        schedule = CosineDecay(self.learning_rate, self.epochs * math.ceil(self.rows / self.batch_size))
        return SGD(schedule, momentum=self.momentum) if self.momentum else Adam(schedule)


class Records(Callback):
    """Adds to the logs the seconds that an epoch's steps took, and errors in percent, without dropout."""

    def __init__(self, parts: dict[str, Part]) -> None:
        self.parts = parts

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        logs["seconds"] = self.ended - self.begun
        for name, (x, y) in self.parts.items():
            logs[name] = 100 * (1 - self.net.evaluate(x, y)["accuracy"])


class Experiment:
    """A data set, the CSV of finished runs, and the folder where runs keep their state and their networks."""

    def __init__(self, dataset: Dataset, table: Path, folder: Path) -> None:
        self.dataset, self.table, self.folder = dataset.flat(), table, folder
        self.held_out = self.dataset.hold_out(HELD_OUT)

    def row(self, run: Configuration) -> Row | None:
        """Return the row of a run, None if it is not finished."""
        wanted = {name: str(value) for name, value in asdict(run).items()}
        return next((row for row in read(self.table) if wanted == {name: str(row[name]) for name in wanted}), None)

    def do(self, run: Configuration) -> Row:
        """Return the row of a run, after doing what is left of it.

        The best epoch is the first of the least validation error, or the last one where nothing is held out.
        """
        found = self.row(run)
        if found is not None:
            return found
        print(run.name, file=sys.stderr)
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint, (x, y) = self.folder / f"{run.name}.checkpoint", self._training(run)
        parts = {"training_errors": (x[:SAMPLE], y[:SAMPLE]), "test_errors": (self.dataset.x_test, self.dataset.y_test)}
        if self._holds_out(run):
            parts["validation_errors"] = (self.held_out.x_test, self.held_out.y_test)
        keeping = ModelCheckpoint(
            self.network(run), "validation_errors", save_best_only=self._holds_out(run), save_weights_only=True
        )
        history = run.network(self.dataset).fit(
            x,
            y,
            epochs=run.epochs,
            batch_size=run.batch_size,
            optimizer=run.optimizer(),
            callbacks=[Records(parts), keeping, ModelCheckpoint(checkpoint)],
            resume=checkpoint if checkpoint.exists() else None,
        )
        append(self.table, asdict(run) | _summary(history.history))
        checkpoint.unlink()
        return self.do(run)

    def network(self, run: Configuration) -> Path:
        """Return where the network of a run's best epoch is."""
        return self.folder / f"{run.name}.safetensors"

    def _holds_out(self, run: Configuration) -> bool:
        return run.rows <= len(self.held_out.x_train)

    def _training(self, run: Configuration) -> Part:
        source = self.held_out if self._holds_out(run) else self.dataset
        return source.x_train[: run.rows], source.y_train[: run.rows]


def _summary(history: dict[str, list[float]]) -> Row:
    """Return what the row of a run tells of its epochs; errors in percent, seconds those of the fastest epoch.

    Others may have shared the machine with the rest.
    """
    validation = history.get("validation_errors")
    best = len(history["loss"]) - 1 if validation is None else validation.index(min(validation))
    curves = {name: history.get(name, []) for name in ERRORS}
    return {
        "cpu": _config.config()["cpu"],
        "threads": _config.get_num_threads(),
        "seconds_per_epoch": round(min(history["seconds"]), 3),
        "best_epoch": best + 1,
        **{name.removesuffix("s"): f"{curve[best]:.2f}" if curve else "" for name, curve in curves.items()},
        **{name: " ".join(f"{error:.2f}" for error in curve) for name, curve in curves.items()},
    }


def curve(row: Row, name: str) -> list[float]:
    """Return a value for each epoch."""
    return [float(text) for text in str(row[name]).split()]
