"""`sweep`: the same training with one dropout rate after the other.

Every run is done once: its epochs become rows of a table when it is finished; until then its state is saved after every epoch.
So a sweep that was stopped, by Ctrl-C or by a kill, goes on with the same call, and ends with the same table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from fastdrop import _validate
from fastdrop.callbacks import Callback, ModelCheckpoint
from fastdrop.data import Dataset, load
from fastdrop.experiments.display import SweepDisplay
from fastdrop.experiments.jobs import Report, work_off
from fastdrop.experiments.recipe import Recipe
from fastdrop.experiments.results import Results, Row
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Logs
from fastdrop.sequential import Sequential
from fastdrop.serialization import PathLike, save_checkpoint

Build = Callable[[float, int], Sequential]


@dataclass(frozen=True)
class Job:
    """One run."""

    rate: float
    seed: int


@dataclass(frozen=True)
class Training:
    """What all runs of a sweep have in common.

    `build` is a recipe, or a function of (rate, seed).
    """

    build: Recipe | Build
    dataset: Dataset
    epochs: int
    batch_size: int
    optimizer: Callable[[int], AbstractOptimizer]
    loss: Any
    configuration: str
    folder: Path

    def network(self, job: Job) -> Sequential:
        """Return the network of a run, untrained."""
        if isinstance(self.build, Recipe):
            return self.build.with_hidden_rate(job.rate, job.seed).network(self.dataset)
        return self.build(job.rate, job.seed)

    def checkpoint(self, job: Job) -> Path:
        """Return where the state of an unfinished run is."""
        digest = hashlib.sha256(self.configuration.encode()).hexdigest()[:12]
        return self.folder / f"rate-{job.rate!r}-seed-{job.seed}-{digest}.safetensors"

    def __call__(self, job: Job, report: Report) -> list[Row]:
        """Do what is left of a run and return its rows.

        Raises
        ------
        KeyboardInterrupt: after Ctrl-C, when the state is saved.
        """
        path, net, data = self.checkpoint(job), self.network(job), self.dataset
        optimizer = self.optimizer(len(data.x_train))
        try:
            history = net.fit(
                data.x_train,
                data.y_train,
                epochs=self.epochs,
                batch_size=self.batch_size,
                optimizer=optimizer,
                loss=self.loss,
                validation_data=(data.x_test, data.y_test),
                callbacks=[ModelCheckpoint(path), _Reporter(job, report)],
                progress=False,
                resume=path if path.exists() else None,
            )
        except KeyboardInterrupt:
            progress = optimizer.progress
            if progress is not None and (progress.interrupted or progress.epoch == self.epochs):
                save_checkpoint(path, net, optimizer)
            raise
        values = [history.history[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
        epochs = zip(history.epochs, *values, strict=True)
        return [Row(self.configuration, job.rate, job.seed, epoch + 1, *row) for epoch, *row in epochs]


class _Reporter(Callback):
    """Tells how far a run is, after every epoch."""

    def __init__(self, job: Job, report: Report) -> None:
        self.job, self.report = job, report

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Report the epoch."""
        self.report((self.job.rate, self.job.seed, epoch + 1, dict(logs)))


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep.

    Attributes
    ----------
    rows : list of Row
        A row an epoch: configuration, rate, seed, epoch, loss, accuracy, val_loss, val_accuracy.
    """

    rows: list[Row] = field(repr=False)

    @property
    def rates(self) -> list[float]:
        """The rates, ascending."""
        return sorted({row.rate for row in self.rows})

    def last(self, rate: float) -> list[Row]:
        """Return the last epoch of each run with a rate, a row a seed."""
        seeds = sorted({row.seed for row in self.rows if row.rate == rate})
        return [
            max((row for row in self.rows if (row.rate, row.seed) == (rate, seed)), key=lambda row: row.epoch) for seed in seeds
        ]

    def values(self, name: str) -> list[list[float]]:
        """Return a value of the last epochs: a list a rate, a number a seed."""
        return [[getattr(row, name) for row in self.last(rate)] for rate in self.rates]

    @property
    def best_rate(self) -> float:
        """The rate of the highest validation accuracy after the last epoch, the mean over seeds; the smallest of equal ones."""
        return max(self.rates, key=lambda rate: (mean(row.val_accuracy for row in self.last(rate)), -rate))

    def plot(self, path: PathLike, title: str = "") -> None:
        """Draw accuracy and loss, of training and validation, and their gap against the rate; the name says the kind of file."""
        from fastdrop.experiments.figures import plot_sweep

        plot_sweep(_validate.path("path", path), self, title)


def sweep(
    build: Recipe | Build,
    data: Any,
    rates: Sequence[float],
    seeds: Sequence[int] = (0,),
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    optimizer: Callable[[int], AbstractOptimizer] | None = None,
    loss: Any = None,
    output: PathLike = "sweep.csv",
    configuration: str = "",
    processes: int = 1,
    progress: bool = True,
) -> Sweep:
    """Train the same network with each of the rates and seeds.

    Parameters
    ----------
    build : Recipe or callable
        A recipe, whose hidden layers take the rate; or a function of (rate, seed) that returns a network.
    data : Dataset or path
        What `fastdrop.data.load` returns, or takes; its test part is the validation data.
    rates : sequence of float in [0, 1]
    seeds : sequence of int >= 0
    epochs, batch_size, optimizer, loss : optional
        Of `fit`; in place of a recipe's. `optimizer` is a function of the number of training rows that returns a new one. The
        defaults are those of `Recipe`: Adam whose rate falls along a cosine, and softmax cross-entropy.
    output : path
        The table, .csv or .db (SQLite). Unfinished runs are kept beside it, in a folder named after it.
    configuration : str
        What the training is called in the table: runs of another one are no results of this sweep. By default what a recipe
        says that is not its default; the name of a function.
    processes : int >= 1
        Runs that are done at the same time, each with its part of the threads. Results do not depend on it. With more than one,
        what is given must be importable by other processes.
    progress : bool
        Show each finished run, and how far the others are, on stderr.

    Returns
    -------
    sweep : Sweep

    Raises
    ------
    TypeError, ValueError: bad arguments. OutputError: the table cannot be written. FileFormatError: `output` is no such table.
    KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    rates = [_validate.rate("rates", rate) for rate in _validate.sequence("rates", rates, "a list of rates")]
    seeds = [_validate.integer("seeds", seed, 0, _validate.MAX_SEED) for seed in _validate.sequence("seeds", seeds, "a list")]
    if not rates or not seeds:
        _validate.fail_value("rates" if not rates else "seeds", "not empty", "none")
    processes = _validate.integer("processes", processes, 1)
    training = _training(build, data, epochs, batch_size, optimizer, loss, configuration, Path(output))
    results = Results(Path(output))
    wanted = [Job(rate, seed) for rate in dict.fromkeys(rates) for seed in dict.fromkeys(seeds)]
    rows = _of(results.rows(), training.configuration, wanted, training.epochs)
    finished = {(row.rate, row.seed) for row in rows}
    todo = [job for job in wanted if (job.rate, job.seed) not in finished]
    training.folder.mkdir(exist_ok=True)
    with SweepDisplay(_validate.boolean("progress", progress), len(wanted), training.epochs) as display:
        for rate, seed in sorted(finished):
            display.finished([row for row in rows if (row.rate, row.seed) == (rate, seed)])
        for job, new in work_off(training, todo, processes, display.epoch):
            results.add(new)
            training.checkpoint(job).unlink(missing_ok=True)
            display.finished(new)
            rows += new
    if not any(training.folder.iterdir()):
        training.folder.rmdir()
    return Sweep(sorted(rows))


def _training(
    build: Any, data: Any, epochs: int | None, batch_size: int | None, optimizer: Any, loss: Any, configuration: str, output: Path
) -> Training:
    """Return what the runs have in common, checked."""
    recipe = build if isinstance(build, Recipe) else Recipe()
    epochs = recipe.epochs if epochs is None else _validate.integer("epochs", epochs, 1)
    batch_size = recipe.batch_size if batch_size is None else _validate.integer("batch_size", batch_size, 1)
    recipe = replace(recipe, epochs=epochs, batch_size=batch_size)
    dataset = data if isinstance(data, Dataset) else load(data)
    if isinstance(build, Recipe):
        recipe.check(dataset)
        build, dataset = recipe, recipe.prepared(dataset)
        name = configuration or recipe.differences()
    else:
        _validate.callable_("build", build, "a fastdrop.Recipe or a function of (rate, seed)")
        name = configuration or getattr(build, "__qualname__", repr(build))
    optimizer = recipe.make_optimizer if optimizer is None else _validate.callable_("optimizer", optimizer, "a function of rows")
    loss = recipe.loss if loss is None else loss
    parts = [
        *([name] if name else []),
        f"{epochs} epochs",
        f"batches of {batch_size}",
        f"{dataset.name}, {len(dataset.x_train)} rows",
        str(loss),
    ]
    folder = output.with_name(f"{output.stem}-runs")
    return Training(build, dataset, epochs, batch_size, optimizer, loss, "; ".join(parts), folder)


def _of(rows: list[Row], configuration: str, jobs: list[Job], epochs: int) -> list[Row]:
    """Return the rows of the wanted runs that are complete."""
    wanted = {(job.rate, job.seed) for job in jobs}
    own = [row for row in rows if row.configuration == configuration and (row.rate, row.seed) in wanted]
    complete = {(row.rate, row.seed) for row in own if row.epoch == epochs}
    return [row for row in own if (row.rate, row.seed) in complete]
