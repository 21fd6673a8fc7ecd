"""`tune`: the search for dropout rates, learning rate and width, with Optuna's Hyperband and TPE.

All trials are in a data base. So a search that was stopped, by Ctrl-C or by a kill, goes on with the same call, and several
processes and machines can work on one. Only the trials in hand are lost; they are tried again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from fastdrop import _validate, losses
from fastdrop.callbacks import Callback
from fastdrop.data import Dataset, load
from fastdrop.errors import MissingDependencyError, StateError
from fastdrop.experiments.display import TuneDisplay
from fastdrop.experiments.jobs import Report, check_can_be_sent, work_off
from fastdrop.experiments.recipe import Recipe
from fastdrop.experiments.space import SearchSpace, with_parameters
from fastdrop.experiments.sweep import checksum, name_of
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Logs
from fastdrop.sequential import Sequential
from fastdrop.serialization import PathLike

Build = Callable[[Any], Sequential | tuple[Sequential, AbstractOptimizer]]

TRIALS = 50
VALIDATION_SPLIT = 0.2
POLL_SECONDS = 1.0
"""How often a process looks whether others have finished the last trials."""


@dataclass(frozen=True)
class Trial:
    """One trial that was finished.

    Attributes
    ----------
    number : int
    parameters : dict from name to value
    accuracies : list of float
        Validation accuracy after each epoch.
    pruned : bool
        Whether it was stopped before its last epoch, because others were better.
    """

    number: int
    parameters: dict[str, Any]
    accuracies: list[float]
    pruned: bool

    @property
    def accuracy(self) -> float:
        """Validation accuracy after the last epoch."""
        return self.accuracies[-1]


@dataclass(frozen=True)
class Tuning:
    """A search.

    Attributes
    ----------
    name : str
        Of the study, for `optuna.load_study`.
    trials : list of Trial
        In their order.
    importances : dict from name to float
        How much each parameter decides; the sum is 1. Empty where there are fewer than two complete trials.
    epochs : int
        Epochs of all trials, the lost ones included.
    base : Recipe or None
        The recipe around which was searched.
    """

    name: str
    trials: list[Trial] = field(repr=False)
    importances: dict[str, float]
    epochs: int
    base: Recipe | None = field(repr=False)

    @property
    def best(self) -> Trial:
        """The trial of the highest validation accuracy, of those with all epochs; the first of equal ones."""
        complete = [trial for trial in self.trials if not trial.pruned]
        if not complete:
            raise StateError("no trial has been finished")
        return max(complete, key=lambda trial: (trial.accuracy, -trial.number))

    @property
    def pruned(self) -> int:
        """How many trials were stopped early."""
        return sum(trial.pruned for trial in self.trials)

    @property
    def recipe(self) -> Recipe:
        """The recipe of the best trial."""
        if self.base is None:
            raise StateError("the networks are those of a function, not of a recipe: their parameters are in `best`")
        return with_parameters(self.base, self.best.parameters)

    def plot(self, path: PathLike, title: str = "") -> None:
        """Draw the accuracies of the trials and the importances of the parameters; the name says the kind of file."""
        from fastdrop.experiments.figures import plot_tuning

        plot_tuning(_validate.path("path", path), self, title)


@dataclass(frozen=True)
class Search:
    """What all trials have in common; called, it does one."""

    build: Recipe | Build
    space: SearchSpace
    dataset: Dataset
    epochs: int
    batch_size: int
    loss: Any
    trials: int | None = None
    budget: int | None = None
    storage: str = ""
    name: str = ""
    seed: int = 0

    @cached_property
    def connection(self) -> Any:
        """The study, kept open by each process for itself."""
        from fastdrop.experiments.search import Connection

        return Connection(self.storage, self.name, self.seed, self.epochs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "connection"}

    def __call__(self, _job: int, report: Report) -> Trial | None:
        """Do a trial, if there is one left to do."""
        from fastdrop.experiments.search import quiet, run_trial

        with quiet():
            study = self.connection.study
            if not self.room(study.get_trials(deepcopy=False), self.epochs):
                return None
            record = run_trial(study, lambda trial: self.train(trial, report), self._has_room)
        return next(iter(_finished([] if record is None else [record])), None)

    def _has_room(self, trials: Sequence[Any]) -> bool:
        return self.room(trials, self.epochs) > 0

    def train(self, trial: Any, report: Report) -> float:
        """Train the network of a trial and return its validation accuracy.

        Raises
        ------
        optuna.TrialPruned: it was stopped early.
        """
        from optuna import TrialPruned

        data = self.dataset
        net, optimizer = self._network(trial)
        reporter = _Reporter(trial, self.epochs, report)
        history = net.fit(
            data.x_train,
            data.y_train,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optimizer,
            loss=self.loss,
            validation_data=(data.x_test, data.y_test),
            callbacks=[reporter],
            progress=False,
        )
        if reporter.pruned:
            raise TrialPruned
        return history.history["val_accuracy"][-1]

    def _network(self, trial: Any) -> tuple[Sequential, AbstractOptimizer]:
        rows = len(self.dataset.x_train)
        if isinstance(self.build, Recipe):
            recipe = self.space.suggest(trial, self.build)
            return recipe.network(self.dataset), recipe.make_optimizer(rows)
        built = self.build(trial)
        default = Recipe(epochs=self.epochs, batch_size=self.batch_size)
        net, optimizer = built if isinstance(built, tuple) else (built, default.make_optimizer(rows))
        wanted = "a function that returns a network, or (network, optimizer)"
        _validate.instance("build", net, Sequential, wanted)
        return net, _validate.instance("build", optimizer, AbstractOptimizer, wanted)

    def room(self, trials: Sequence[Any], epochs: int) -> int:
        """Return how many more trials may begin now, if none of them takes more than so many epochs."""
        finished, running, spent = _count(trials)
        rooms = []
        if self.trials is not None:
            rooms.append(self.trials - finished - running)
        if self.budget is not None:
            rooms.append((self.budget - spent - running * self.epochs) // epochs)
        return max(0, min(rooms))

    def is_done(self, trials: Sequence[Any]) -> bool:
        """Return whether no trial will have to be begun, whatever becomes of those that others have in hand."""
        finished, _, spent = _count(trials)
        enough = self.trials is not None and finished >= self.trials
        return enough or (self.budget is not None and spent + self.epochs > self.budget)


class _Reporter(Callback):
    """Reports each epoch, and stops a trial that Hyperband gives up."""

    def __init__(self, trial: Any, epochs: int, report: Report) -> None:
        self.trial, self.epochs, self.report = trial, epochs, report
        self.pruned = False

    def on_train_begin(self) -> None:
        """Report the beginning."""
        self.report((self.trial.number, 0, None))

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Report the epoch; a trial in its last one is not stopped."""
        self.trial.report(logs["val_accuracy"], epoch + 1)
        self.report((self.trial.number, epoch + 1, logs["val_accuracy"]))
        self.pruned = self.stop_training = epoch + 1 < self.epochs and self.trial.should_prune()


def _count(trials: Sequence[Any]) -> tuple[int, int, int]:
    """Return (finished trials, running ones, epochs of all that are not running)."""
    states = [trial.state.name for trial in trials]
    spent = sum(len(trial.intermediate_values) for trial in trials if trial.state.name != "RUNNING")
    return states.count("COMPLETE") + states.count("PRUNED"), states.count("RUNNING"), spent


def _finished(records: Sequence[Any]) -> list[Trial]:
    """Return the finished ones of Optuna's records of trials, without those that were given up before their first epoch."""
    return [
        Trial(
            record.number,
            dict(record.params),
            [value for _, value in sorted(record.intermediate_values.items())],
            record.state.name == "PRUNED",
        )
        for record in records
        if record.state.name in ("COMPLETE", "PRUNED") and record.intermediate_values
    ]


def tune(
    build: Recipe | Build,
    data: Any,
    *,
    trials: int | None = None,
    budget: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    loss: Any = None,
    space: SearchSpace | None = None,
    first: Mapping[str, Any] | None = None,
    validation_split: float = VALIDATION_SPLIT,
    storage: PathLike = "tune.db",
    name: str | None = None,
    seed: int = 0,
    processes: int = 1,
    progress: bool = True,
) -> Tuning:
    """Search for the parameters of the highest validation accuracy.

    Trials are proposed by TPE and stopped early by Hyperband, with epochs as the resource and a reduction factor of 3.

    Parameters
    ----------
    build : Recipe or callable
        A recipe, around which `space` is searched; or a function of an Optuna trial that asks it for parameters
        (``trial.suggest_float("dropout", 0, 0.8, step=0.1)``) and returns a network, or (network, optimizer). The default
        optimiser is that of `Recipe`: Adam whose rate falls along a cosine.
    data : Dataset or path
        What `fastdrop.data.load` returns, or takes. Its test part is not looked at.
    trials : int >= 1, optional
        Trials to finish, those of earlier calls included; 50 by default, or as many as the budget allows.
    budget : int >= epochs, optional
        Largest number of epochs of all trials together; no trial is begun that could exceed it.
    epochs, batch_size, loss : optional
        Of `fit`; in place of a recipe's, or of its defaults.
    space : SearchSpace, optional
        What may be chosen for a recipe: by default, rates of 0 to 0.8 in steps of 0.1 for each hidden layer on its own, the
        learning rate, and the width.
    first : dict from name to value, optional
        Parameters of the first trial of a function; others are drawn. A recipe is first tried with rate 0.5 everywhere.
    validation_split : float in (0, 1)
        Part of the training rows, by a fixed shuffle, that is held out to measure the trials on.
    storage : path or URL
        An SQLite file, or any data base that Optuna can use, such as "postgresql://user@host/study", which several machines
        can share.
    name : str, optional
        Of the study in the storage; by default one that goes with the training, the space and the seed.
    seed : int >= 0
        Of the search. With one process the same seed gives the same study. The networks have their own.
    processes : int >= 1
        Trials at the same time, each with its part of the threads. With more than one, what is given must be importable by
        other processes, and a script that calls this needs ``if __name__ == "__main__":``.
    progress : bool
        Show each finished trial, and how far the search is, on stderr.

    Returns
    -------
    tuning : Tuning
        When all trials are finished, those that other machines have in hand included.

    Raises
    ------
    MissingDependencyError: Optuna is not installed. TypeError, ValueError: bad arguments; a study of that name is of another
    training. OutputError: the storage cannot be used. StateError: a process died. KeyboardInterrupt: after Ctrl-C; the same
    call goes on.

    Notes
    -----
    A trial that failed, or whose process has given no sign of life for half a minute, is tried again with the same parameters.

    Source: Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar, "Hyperband: a novel bandit-based approach to hyperparameter
    optimization", JMLR 18 (2018), as Optuna does it: a trial goes on if it is in the best third of those that have come as far.

    Examples
    --------
    >>> import fastdrop as fd
    >>> def build(trial):
    ...     rate = trial.suggest_float("dropout", 0, 0.8, step=0.1)
    ...     layers = [fd.Dense(64, activation="relu"), fd.Dropout(rate), fd.Dense(10)]
    ...     return fd.Sequential(layers, input_shape=(64,), seed=0)
    >>> found = fd.tune(build, fd.data.load("digits").flat(), first={"dropout": 0.5})  # doctest: +SKIP
    """
    search = _search(build, data, epochs, batch_size, loss, space, validation_split)
    if trials is None and budget is None:
        trials = TRIALS
    if trials is not None:
        trials = _validate.integer("trials", trials, 1)
    if budget is not None:
        budget = _validate.integer("budget", budget, search.epochs)
    search = replace(search, trials=trials, budget=budget, storage=_storage(storage))
    search = replace(search, seed=_validate.integer("seed", seed, 0, _validate.MAX_SEED))
    queued = _first(search, first)
    training = _training(search)
    own_name = f"{search.dataset.name}-{hashlib.sha256(training.encode()).hexdigest()[:12]}"
    search = replace(search, name=own_name if name is None else _validate.instance("name", name, str, "a name"))
    processes, progress = _validate.integer("processes", processes, 1), _validate.boolean("progress", progress)
    check_can_be_sent(processes, build=search.build, loss=search.loss)
    return _run(search, training, queued, processes, progress)


def _search(
    build: Any, data: Any, epochs: int | None, batch_size: int | None, loss: Any, space: Any, validation_split: float
) -> Search:
    """Return what concerns the training, checked; the rest is open."""
    recipe = Recipe.around(build, epochs, batch_size)
    split = _validate.real("validation_split", validation_split, 0, 1, open_low=True, open_high=True)
    if not isinstance(build, Recipe):
        _validate.callable_("build", build, "a fastdrop.Recipe or a function of a trial")
        if space is not None:
            _validate.fail_value("space", "left out: a function asks its trial for the parameters", "a space")
    space = SearchSpace() if space is None else _validate.instance("space", space, SearchSpace, "a fastdrop.SearchSpace")
    dataset = data if isinstance(data, Dataset) else load(data)
    if isinstance(build, Recipe):
        recipe.check(dataset)
        build, dataset = recipe, recipe.prepared(dataset)
    loss = recipe.loss if loss is None else loss
    losses.get(loss)
    return Search(build, space, dataset.hold_out(split), recipe.epochs, recipe.batch_size, loss)


def _first(search: Search, first: Any) -> dict[str, Any]:
    """Return the parameters of the first trial."""
    if isinstance(search.build, Recipe):
        if first is not None:
            _validate.fail_value("first", "left out: the first trial of a recipe is rate 0.5 everywhere", "parameters")
        return search.space.first(search.build)
    return dict(_validate.instance("first", {} if first is None else first, Mapping, "a dict from name to value"))


def _storage(storage: Any) -> str:
    """Return a path or URL as text."""
    return storage if isinstance(storage, str) and "://" in storage else str(_validate.path("storage", storage).absolute())


def _training(search: Search) -> str:
    """Return in a line what the trials of a study have in common, and what is searched."""
    build, data = search.build, search.dataset
    if isinstance(build, Recipe):
        parts = [build.differences() or "the default network", str(search.space), f"network seed {build.seed}"]
    else:
        parts = [name_of(build)]
    parts += [
        f"{search.epochs} epochs",
        f"batches of {search.batch_size}",
        f"{data.name}, {len(data.x_train)} rows and {len(data.x_test)} held out, checksum {checksum(data):08x}",
        search.loss if isinstance(search.loss, str) else name_of(search.loss),
        f"seed {search.seed}",
    ]
    return "; ".join(parts)


def _run(search: Search, training: str, first: dict[str, Any], processes: int, progress: bool) -> Tuning:
    """Do what is left of a search."""
    if find_spec("optuna") is None:
        raise MissingDependencyError('the search needs the package optuna: pip install "fastdrop-nn[tune]"')
    from fastdrop.experiments.search import importances, prepare, quiet, repair, storage_errors

    with quiet(), storage_errors(search.storage), closing(search.connection) as connection:
        study = connection.study
        prepare(study, training, first)
        with TuneDisplay(progress, search.trials, search.epochs) as display:
            for trial in _finished(study.get_trials(deepcopy=False)):
                display.finished(trial.number, trial.accuracies, trial.parameters)
            while True:
                repair(study)
                records = study.get_trials(deepcopy=False)
                if search.is_done(records):
                    break
                if not search.room(records, search.epochs):  # others have the last ones in hand
                    time.sleep(POLL_SECONDS)
                    continue
                with closing(work_off(search, range(search.room(records, 1)), processes, display.epoch)) as work:
                    for _, trial in work:
                        if trial is not None:
                            display.finished(trial.number, trial.accuracies, trial.parameters)
        base = search.build if isinstance(search.build, Recipe) else None
        return Tuning(search.name, _finished(records), importances(records), _count(records)[2], base)
