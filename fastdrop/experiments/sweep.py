"""`sweep`: the same training with one dropout rate after the other.

Every run is done once: its epochs become rows of a table when it is finished; until then its state is saved after every epoch.
So a sweep that was stopped, by Ctrl-C or by a kill, goes on with the same call, and ends with the same table.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from fastdrop import _validate, losses
from fastdrop.callbacks import Callback, ModelCheckpoint
from fastdrop.callbacks.files import literal
from fastdrop.data import Dataset, load
from fastdrop.errors import FileFormatError
from fastdrop.experiments.display import SweepDisplay
from fastdrop.experiments.jobs import Report, check_can_be_sent, work_off
from fastdrop.experiments.recipe import Recipe
from fastdrop.experiments.results import MAX_SEED, Results, Row, working_folder
from fastdrop.losses import LossFunction
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
        net = self.build(job.rate, job.seed)
        _validate.instance("build", net, Sequential, "a function that returns a Sequential")
        return net

    def checkpoint(self, job: Job) -> Path:
        """Return where the state of an unfinished run is."""
        digest = hashlib.sha256(self.configuration.encode()).hexdigest()[:12]
        return self.folder / f"rate-{job.rate!r}-seed-{job.seed}-{digest}.safetensors"

    def __call__(self, job: Job, report: Report) -> list[Row]:
        """Do what is left of a run and return its rows.

        Raises
        ------
        KeyboardInterrupt: after Ctrl-C, when the state is saved. FileFormatError: the saved state cannot be read.
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
                callbacks=[ModelCheckpoint(literal(path)), _Reporter(job, report)],
                progress=False,
                resume=path if path.exists() else None,
            )
        except FileFormatError as error:
            raise FileFormatError(f"{error} (without this file the run begins anew)") from error
        except KeyboardInterrupt:
            progress = optimizer.progress
            if progress is not None and (progress.interrupted or progress.epoch == self.epochs):
                save_checkpoint(path, net, optimizer)
            raise
        values = [history.history[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
        epochs = zip(history.epochs, *values, strict=True)
        return [Row(self.configuration, job.rate, job.seed, epoch + 1, *row) for epoch, *row in epochs]


class _Reporter(Callback):
    """Tells that a run begins, and how far it is after every epoch."""

    def __init__(self, job: Job, report: Report) -> None:
        self.job, self.report = job, report

    def on_train_begin(self) -> None:
        """Report where the run begins."""
        progress = self.optimizer.progress
        self.report((self.job.rate, self.job.seed, 0 if progress is None else progress.epoch, None))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Report the epoch."""
        self.report((self.job.rate, self.job.seed, epoch + 1, logs["val_accuracy"]))


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
        """Draw accuracy and loss after the last epoch, of training and validation, and the gap in accuracy, against the rate.

        Lines are means over the seeds, bands reach from the least to the largest.

        Parameters
        ----------
        path : path
            Ends in .png, .svg or .pdf.
        title : str

        Raises
        ------
        MissingDependencyError: Matplotlib is not installed. OutputError: the file cannot be written.
        """
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
    loss: str | LossFunction | None = None,
    output: PathLike = "sweep.csv",
    configuration: str = "",
    processes: int = 1,
    progress: bool = True,
) -> Sweep:
    """Train the same network with each of the rates and seeds.

    Parameters
    ----------
    build : Recipe or callable
        A recipe, whose hidden layers take the rate; or a function of (rate, seed) that returns a `Sequential`, which takes the
        rows as they are in `data`.
    data : Dataset or path
        What `fastdrop.data.load` returns, or takes; its test part is the validation data.
    rates : sequence of float in [0, 1]
    seeds : sequence of int in [0, 2^63)
    epochs, batch_size, optimizer, loss : optional
        Of `fit`; in place of a recipe's. `optimizer` is a function of the number of training rows that returns a new one. The
        defaults are those of `Recipe`: Adam whose rate falls along a cosine, and softmax cross-entropy.
    output : path
        The table, .csv or .db (SQLite). Unfinished runs are kept beside it, in a folder named after it.
    configuration : str
        What the training is called in the table, together with epochs, batches, loss and data: runs of another one are no
        results of this sweep. By default what in a recipe is not its default, or the names of the functions `build` and
        `optimizer`, whose contents nobody can tell apart.
    processes : int >= 1
        Runs that are done at the same time, each with its part of the threads and its own copy of the data. Results do not
        depend on it. With more than one, what is given must be importable by other processes, and a script that calls this
        needs ``if __name__ == "__main__":``.
    progress : bool
        Show each finished run, and how far the others are, on stderr.

    Returns
    -------
    sweep : Sweep

    Raises
    ------
    TypeError, ValueError: bad arguments. OutputError: the table cannot be written, or another sweep is writing it.
    FileFormatError: `output` is no such table, or the state of an unfinished run is damaged. StateError: a process died.
    KeyboardInterrupt: after Ctrl-C; the same call goes on.

    Notes
    -----
    A run is written to the table when it is finished. After Ctrl-C the same call goes on with the next step, after a kill with
    the epoch in hand, and ends with the table of a sweep that was never stopped; runs in the table are not done again.

    Examples
    --------
    >>> import fastdrop as fd
    >>> result = fd.sweep(fd.Recipe(hidden=(64,)), "digits", [0, 0.25, 0.5], seeds=[1, 2], epochs=10)
    >>> result.plot("sweep.png")
    """
    rates = [_validate.rate("rates", rate) for rate in _validate.sequence("rates", rates, "a list of rates")]
    seeds = [_validate.integer("seeds", seed, 0, MAX_SEED) for seed in _validate.sequence("seeds", seeds, "a list of integers")]
    for name, values in (("rates", rates), ("seeds", seeds)):
        if not values:
            _validate.fail_value(name, "not empty", "none")
    processes = _validate.integer("processes", processes, 1)
    shown = _validate.boolean("progress", progress)
    results = Results(_validate.path("output", output))
    training = _training(build, data, epochs, batch_size, optimizer, loss, configuration, results.path)
    if isinstance(training.build, Recipe):
        for rate in rates:
            training.build.with_hidden_rate(rate, seeds[0]).units()
    check_can_be_sent(processes, build=training.build, optimizer=training.optimizer, loss=training.loss)
    wanted = [Job(rate, seed) for rate in dict.fromkeys(rates) for seed in dict.fromkeys(seeds)]
    with working_folder(training.folder), SweepDisplay(shown, len(wanted), training.epochs) as display:
        rows = _of(results.rows(), training.configuration, wanted, training.epochs)
        finished: dict[Job, list[Row]] = {}
        for row in rows:
            finished.setdefault(Job(row.rate, row.seed), []).append(row)
        for job, old in finished.items():
            training.checkpoint(job).unlink(missing_ok=True)
            display.finished(old)
        todo = [job for job in wanted if job not in finished]
        with closing(work_off(training, todo, processes, display.epoch)) as work:
            for job, new in work:
                results.add(new)
                training.checkpoint(job).unlink(missing_ok=True)
                display.finished(new)
                rows += new
    return Sweep(sorted(rows))


def _training(
    build: Any, data: Any, epochs: int | None, batch_size: int | None, optimizer: Any, loss: Any, configuration: str, output: Path
) -> Training:
    """Return what the runs have in common, checked."""
    recipe = Recipe.around(build, epochs, batch_size)
    if not isinstance(build, Recipe):
        _validate.callable_("build", build, "a fastdrop.Recipe or a function of (rate, seed)")
    elif not build.hidden:
        _validate.fail_value("build", "a recipe with a hidden layer, behind which units are dropped", "hidden ()")
    if optimizer is not None:
        _validate.callable_("optimizer", optimizer, "a function of the number of rows")
    loss = recipe.loss if loss is None else loss
    losses.get(loss)
    _validate.instance("configuration", configuration, str, "a string")
    _validate.instance("data", data, (Dataset, str, os.PathLike), "a Dataset or a path")
    dataset = data if isinstance(data, Dataset) else load(data)
    names = [configuration]
    if isinstance(build, Recipe):
        recipe.check(dataset)
        build, dataset = recipe, recipe.prepared(dataset)
        names = names if configuration else [recipe.differences()]
    elif not configuration:
        names = [name_of(build)]
    if optimizer is not None and not configuration:
        names.append(name_of(optimizer))
    parts = [
        *filter(None, names),
        f"{recipe.epochs} epochs",
        f"batches of {recipe.batch_size}",
        loss if isinstance(loss, str) else name_of(loss),
        f"{dataset.name}, {len(dataset.x_train)} rows, checksum {checksum(dataset):08x}",
    ]
    folder = output.with_name(f"{output.name}-runs")
    optimizer = optimizer or recipe.make_optimizer
    return Training(build, dataset, recipe.epochs, recipe.batch_size, optimizer, loss, "; ".join(parts), folder)


def name_of(function: Any) -> str:
    """Return what a function is called, the same in every process."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def checksum(dataset: Dataset) -> int:
    """Return a number that changes with the data."""
    number = 0
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        number = zlib.crc32(np.ascontiguousarray(array).data, number)
    return number


def _of(rows: list[Row], configuration: str, jobs: list[Job], epochs: int) -> list[Row]:
    """Return the rows of the wanted runs that are complete."""
    wanted = set(jobs)
    own = [row for row in rows if row.configuration == configuration and Job(row.rate, row.seed) in wanted]
    complete = {(row.rate, row.seed) for row in own if row.epoch == epochs}
    return [row for row in own if (row.rate, row.seed) in complete]
