"""What the search needs of Optuna, the one module that imports it: storage, sampler, pruner, and trials that were lost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, OptunaError, UpdateFinishedTrialError
from optuna.trial import TrialState

from fastdrop import _validate
from fastdrop._files import check_writable
from fastdrop.errors import OutputError
from fastdrop.rng import Key

REDUCTION_FACTOR = 3
"""Of Hyperband: one trial in three is trained three times as long."""
HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 30
"""How often a running trial gives a sign of life, and after what silence it is given up."""
LOCK_SECONDS = 60
"""How long a process waits for another one that writes to the same SQLite file."""
SAMPLER_SEEDS = 2**32

STARTED, SURPLUS, RETRY_OF, TRAINING = "started", "surplus", "retry_of", "training"
"""Of a trial: it has begun; it was one too many; the number of the failed one that it repeats. Of a study: what it trains."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class NumberedSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """TPE whose random numbers depend on the seed and on the trial's number alone.

    So a study that was stopped goes on as it would have done, and processes that share a study draw different trials.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._inner: Any = None

    def before_trial(self, study: Any, trial: Any) -> None:  # noqa: ARG002 (Optuna names it)
        """Begin the trial's own random numbers."""
        seed = Key(self._seed, 0, 0).fold_in(trial.number).seed % SAMPLER_SEEDS
        self._inner = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """Return what is drawn together."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        """Draw what is drawn together."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Draw a parameter on its own."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging, as what is shown is our own, and from warning of what it calls experimental."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class Connection:
    """A study in a storage; the study is made if there is none of that name.

    Raises
    ------
    OutputError: the storage cannot be used.
    """

    def __init__(self, storage: str, name: str, seed: int, epochs: int) -> None:
        url, options = _url(storage), {} if "://" in storage else {"connect_args": {"timeout": LOCK_SECONDS}}
        try:
            self._database = optuna.storages.RDBStorage(
                url, engine_kwargs=options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
            )
        except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, RuntimeError, ValueError, KeyError) as error:
            raise OutputError(f"{_shown(storage)}: no data base that can keep a study: {_first_line(error)}") from error
        self.study = optuna.create_study(
            storage=self._database,
            study_name=name,
            direction="maximize",
            sampler=NumberedSampler(seed),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION_FACTOR),
            load_if_exists=True,
        )

    def close(self) -> None:
        """Let go of the storage."""
        self._database.remove_session()
        self._database.engine.dispose()


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Turn what goes wrong in a storage, in this process or a worker, into an OutputError."""
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError) as error:
        raise OutputError(f"{_shown(storage)}: {_first_line(error)}") from error


def prepare(study: Any, training: str, first: dict[str, Any]) -> None:
    """Queue the first trial of a new study.

    Raises
    ------
    ValueError: the study is an old one, which trains something else.
    """
    if not study.get_trials(deepcopy=False):
        study.set_user_attr(TRAINING, training)
        study.enqueue_trial(first, skip_if_exists=True)
    elif study.user_attrs.get(TRAINING) != training:
        got = repr(study.user_attrs.get(TRAINING, "of another program"))
        _validate.fail_value("name", f"that of a study of the same training, {training!r}", got)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _url(storage: str) -> str:
    """Return the URL of a storage: as it is, or that of an SQLite file."""
    if "://" in storage:
        return storage
    path = _validate.path("storage", storage)
    check_writable(path)
    url = sqlalchemy.engine.URL.create("sqlite", database=str(path.absolute()))
    return str(url.render_as_string(hide_password=False)).replace("{", "{{").replace("}", "}}")


def _shown(storage: str) -> str:
    """Return a storage's name without its password."""
    try:
        return str(sqlalchemy.engine.make_url(storage)) if "://" in storage else str(Path(storage))
    except sqlalchemy.exc.ArgumentError:
        return "`storage`"


def repair(study: Any) -> None:
    """Give up trials of processes that are gone, and queue every failed trial once more."""
    optuna.storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        born_dead = trial.state == TrialState.RUNNING and STARTED not in trial.user_attrs
        if born_dead and abs((datetime.now() - trial.datetime_start).total_seconds()) > GRACE_SECONDS:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    trials = study.get_trials(deepcopy=False)
    trials = [trial for trial in trials if SURPLUS not in trial.user_attrs]
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        if trial.state == TrialState.FAIL and trial.number not in retried:
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})


class _SurplusError(Exception):
    """Other processes have begun the last trials."""


def run_trial(study: Any, train: Callable[[Any], float], has_room: Callable[[Sequence[Any]], bool]) -> Any:
    """Do a trial and return its record, or None where another process has ended it.

    That took this one for dead, or (SQLite) it began the same queued trial at the same moment.

    `train` raises `optuna.TrialPruned` for a trial that is stopped early. What `has_room` says of the trials that began before
    this one decides whether it is done, now that other processes can see it.
    """
    records: list[Any] = []
    over = False

    def objective(trial: Any) -> float:
        nonlocal over
        try:
            trial.set_user_attr(STARTED, True)
            if not has_room(_before(study.get_trials(deepcopy=False), trial.number)):
                trial.set_user_attr(SURPLUS, True)
                raise _SurplusError
            value = train(trial)
        except (_SurplusError, UpdateFinishedTrialError, optuna.TrialPruned):
            over = True
            raise
        over = True
        return value

    try:
        study.optimize(objective, n_trials=1, catch=(_SurplusError,), callbacks=[lambda _, record: records.append(record)])
    except (ValueError, UpdateFinishedTrialError):  # a trial that has ended cannot end again
        if not over:
            raise
    return records[0] if records else None


def _before(trials: Sequence[Any], number: int) -> list[Any]:
    """Return the trials that ended, or that were begun before that one."""
    own = next(trial for trial in trials if trial.number == number)

    def came_first(trial: Any) -> bool:
        return (trial.datetime_start, trial.number) < (own.datetime_start, number)

    return [trial for trial in trials if trial.state.is_finished() or (trial.state == TrialState.RUNNING and came_first(trial))]


def importances(trials: Sequence[Any]) -> dict[str, float]:
    """Return the importance of each parameter, the largest first; none where there are fewer than two complete trials.

    By PED-ANOVA (Watanabe, Bansal and Hutter, "PED-ANOVA: efficiently quantifying hyperparameter importance in arbitrary
    subspaces", IJCAI 2023), of complete trials: how much a parameter decides whether a trial is among the best tenth.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few trials, or all alike: equal importances
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
