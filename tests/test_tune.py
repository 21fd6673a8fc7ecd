"""The search: what is tried, what is kept, and how it goes on after it was stopped."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from subprocesses import run as run_python
from subprocesses import start

import fastdrop as fd
from fastdrop.cli.app import run
from fastdrop.data import Dataset
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FastdropError, MissingDependencyError, OutputError, StateError
from fastdrop.experiments import Trial, Tuning, search
from fastdrop.experiments.tune import Search

optuna = pytest.importorskip("optuna")

EPOCHS = 9
"""Three brackets of Hyperband: 1, 3 and 9 epochs."""
RECIPE = fd.Recipe(hidden=(8, 6), rates=(0.1, 0.3), epochs=EPOCHS, batch_size=16, learning_rate=0.02)
PARAMETERS = ["rate_1", "rate_2", "learning_rate", "units"]


def make_data() -> Dataset:
    """Three classes that overlap."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 3, 160)
    x = (rng.normal(size=(160, 4)) + np.eye(3, 4)[y] * 2).astype(np.float32)
    return Dataset("clouds", x[:120], y[:120], x[120:], y[120:], ("a", "b", "c"))


DATA = make_data()


def build_small(trial: Any) -> fd.Sequential:
    """The counterpart of the Keras-Tuner example."""
    rate = trial.suggest_float("dropout", 0, 0.8, step=0.1)
    layers = [fd.Dense(8, activation="relu"), fd.Dropout(rate), fd.Dense(3)]
    return fd.Sequential(layers, input_shape=(4,), seed=0)


def build_pair(trial: Any) -> tuple[fd.Sequential, fd.optim.AbstractOptimizer]:
    return build_small(trial), fd.optim.Adam(trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    """A search of twenty trials, done at once."""
    return tune(trials=20, storage=tmp_path_factory.mktemp("many") / "tune.db")


def tune(build: Any = RECIPE, data: Any = DATA, **options: Any) -> Tuning:
    return fd.tune(build, data, **{"trials": 6, "progress": False, **options})


@contextmanager
def study_of(found: Tuning, storage: str = "tune.db"):
    """The study as another program sees it."""
    with search.quiet():
        database = optuna.storages.RDBStorage(f"sqlite:///{storage}")
        yield optuna.load_study(study_name=found.name, storage=database)
        database.remove_session()
        database.engine.dispose()


def states(found: Tuning) -> list[str]:
    with study_of(found) as study:
        return [trial.state.name for trial in study.trials]


def test_the_first_trial_is_the_default_everywhere():
    found = tune(trials=1)
    assert found.trials[0].parameters == {"rate_1": 0.5, "rate_2": 0.5, "learning_rate": 0.02, "units": 8}
    assert found.best == found.trials[0]
    assert found.recipe == replace(RECIPE, rates=(0.1, 0.5, 0.5))
    assert found.importances == {}


def test_what_is_tried_is_in_the_space(many: Tuning):
    found = many
    assert [trial.number for trial in found.trials] == list(range(20))
    rates = {trial.parameters[name] for trial in found.trials for name in ("rate_1", "rate_2")}
    assert len(rates) > 4
    assert all(abs(10 * rate - round(10 * rate)) < 1e-9 and 0 <= rate < 0.8001 for rate in rates)
    assert {trial.parameters["units"] for trial in found.trials} <= {2, 4, 6, 8, 10, 12, 14, 16}
    assert all(0.002 <= trial.parameters["learning_rate"] <= 0.2 for trial in found.trials)
    assert any(trial.parameters["rate_1"] != trial.parameters["rate_2"] for trial in found.trials)
    assert sorted(found.importances) == sorted(PARAMETERS)
    assert sum(found.importances.values()) == pytest.approx(1)
    assert list(found.importances.values()) == sorted(found.importances.values(), reverse=True)


def test_a_space_of_ones_own():
    space = fd.SearchSpace(rates=(0.2, 0.4, 0.2), learning_rates=(0.01, 0.01), units=(16, 16, 1))
    found = tune(trials=6, space=space)
    assert {trial.parameters[name] for trial in found.trials for name in ("rate_1", "rate_2")} == {0.2, 0.4}
    assert found.trials[0].parameters == {"rate_1": 0.4, "rate_2": 0.4, "learning_rate": 0.01, "units": 16}
    assert found.recipe.hidden == (16, 12), "the other layers keep their proportion"
    assert found.recipe.learning_rate == 0.01
    assert found.recipe.all_rates()[0] == 0.1, "the inputs keep their rate"


def test_values_are_those_of_training_the_recipe():
    found = tune(trials=4)
    part = DATA.hold_out(0.2)
    net = found.recipe.network(part)
    history = net.fit(
        part.x_train,
        part.y_train,
        epochs=EPOCHS,
        batch_size=16,
        optimizer=found.recipe.make_optimizer(len(part.x_train)),
        validation_data=(part.x_test, part.y_test),
        progress=False,
    )
    assert history.history["val_accuracy"] == found.best.accuracies


def test_the_test_part_is_not_looked_at():
    blind = replace(DATA, x_test=np.full_like(DATA.x_test, np.nan), y_test=np.zeros_like(DATA.y_test))
    assert tune(trials=3).trials == tune(data=blind, trials=3, storage="other.db").trials


def test_the_same_seed_gives_the_same_study(many: Tuning):
    assert tune(trials=4).trials == many.trials[:4]
    other = tune(trials=4, seed=1)
    assert other.name != many.name
    assert other.trials[0] == many.trials[0]
    assert [trial.parameters for trial in other.trials[1:]] != [trial.parameters for trial in many.trials[1:4]]


def test_a_study_goes_on_as_if_it_had_never_stopped(many: Tuning):
    first = tune(trials=5)
    assert tune(trials=5) == first
    tune(trials=13)
    assert tune(trials=20) == many


def test_bad_trials_are_stopped_early_and_counted(many: Tuning):
    found = many
    lengths = [len(trial.accuracies) for trial in found.trials]
    assert {length for length, trial in zip(lengths, found.trials, strict=True) if trial.pruned} <= {1, 3}
    assert all((length == EPOCHS) != trial.pruned for length, trial in zip(lengths, found.trials, strict=True))
    assert 0 < found.pruned < 20
    assert found.epochs == sum(lengths) < 20 * EPOCHS
    assert not found.best.pruned
    assert found.best.accuracy == max(trial.accuracy for trial in found.trials if not trial.pruned)


def test_what_is_kept_is_what_is_returned():
    found = tune(trials=8)
    with study_of(found) as study:
        assert [trial.state.name == "PRUNED" for trial in study.trials] == [trial.pruned for trial in found.trials]
        assert [trial.value for trial in study.trials] == [trial.accuracy for trial in found.trials]
        assert study.best_trial.number == found.best.number


def test_a_budget_is_not_exceeded():
    found = tune(trials=None, budget=40)
    assert 40 - EPOCHS < found.epochs <= 40
    assert len(found.trials) > 40 // EPOCHS
    assert tune(trials=None, budget=40) == found
    assert len(tune(trials=3, budget=40, storage="few.db").trials) == 3


@pytest.mark.parametrize("limits", [{"budget": 4}, {"budget": 11}, {"trials": 2}])
def test_several_processes_begin_no_trial_too_many(limits: dict[str, int]):
    """Those that would be, when two begin at the same time, end at once, and are not tried again."""
    options = {"trials": None, **limits, "epochs": 4, "processes": 3, "space": fd.SearchSpace(rates=(0.2, 0.2, 0.1))}
    found = tune(**options)
    assert found.epochs <= limits.get("budget", 8)
    assert len(found.trials) == limits.get("trials", len(found.trials))
    assert tune(**options) == found


def build_none(trial: Any) -> fd.Sequential:
    """Refuses high rates, in Optuna's way."""
    if trial.suggest_float("dropout", 0, 0.8, step=0.1) > 0.35:
        raise optuna.TrialPruned
    return fd.Sequential([fd.Dense(3)], input_shape=(4,), seed=0)


def test_a_trial_may_be_refused_before_its_first_epoch(folder: Path):
    found = tune(build_none, epochs=2, trials=5, first={"dropout": 0.8})
    assert 0 < len(found.trials) < 5
    assert states(found).count("PRUNED") >= 5 - len(found.trials)
    assert tune(build_none, epochs=2, trials=5, first={"dropout": 0.8}) == found
    found.plot(folder / "tune.png")


def test_other_data_of_the_same_name_and_size_are_another_study():
    other = replace(DATA, x_train=-5 * DATA.x_train)
    assert tune(trials=1).name != tune(data=other, trials=1).name


def test_a_bad_loss_leaves_no_study(folder: Path):
    with pytest.raises(ArgumentValueError, match="`loss`"):
        tune(build_small, epochs=1, loss="nope")
    assert list(folder.iterdir()) == []


def test_a_space_is_the_same_in_whatever_kind_of_sequence():
    whole = fd.SearchSpace(rates=[0, 1, 0.5], learning_rates=[1, 2], units=[4, 8, 4])
    assert whole == fd.SearchSpace(rates=(0.0, 1.0, 0.5), learning_rates=(1.0, 2.0), units=(4, 8, 4))
    assert str(whole) == str(fd.SearchSpace(rates=(0.0, 1.0, 0.5), learning_rates=(1.0, 2.0), units=(4, 8, 4)))


def test_several_processes_share_a_study():
    found = tune(trials=8, processes=2)
    assert len(found.trials) == 8
    assert found.trials[0].parameters["rate_1"] == 0.5
    assert len({tuple(trial.parameters.values()) for trial in found.trials}) == 8
    assert states(found).count("RUNNING") == 0
    alone = tune(trials=1, storage="alone.db").trials[0]
    assert found.trials[0].accuracies[: len(alone.accuracies)] == alone.accuracies[: len(found.trials[0].accuracies)]


def test_networks_of_a_function():
    found = tune(build_small, epochs=3, first={"dropout": 0.5})
    assert found.trials[0].parameters == {"dropout": 0.5}
    assert {len(trial.accuracies) for trial in found.trials} <= {1, 3}
    with pytest.raises(StateError, match="of a function, not of a recipe"):
        _ = found.recipe
    pair = tune(build_pair, epochs=3, storage="pair.db")
    assert set(pair.best.parameters) == {"dropout", "learning_rate"}


def test_the_optimizer_of_a_function_is_used():
    def still(trial: Any) -> Any:
        return build_small(trial), fd.optim.SGD(1e-30)

    def moving(trial: Any) -> Any:
        return build_small(trial), fd.optim.SGD(0.3)

    options = {"trials": 1, "epochs": 4, "first": {"dropout": 0.0}}
    assert len(set(tune(still, **options).best.accuracies)) == 1
    assert tune(moving, **options).best.accuracy > tune(still, **options).best.accuracy


class Stop:
    """A build function that is interrupted in some trials."""

    def __init__(self, error: BaseException, numbers: set[int]) -> None:
        self.error, self.numbers = error, numbers

    def __call__(self, trial: Any) -> fd.Sequential:
        net = build_small(trial)
        if trial.number in self.numbers:
            raise self.error
        return net


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of luck")])
def test_a_failed_trial_is_tried_again(error: BaseException):
    with pytest.raises(type(error)):
        tune(Stop(error, {2}), epochs=3)
    found = tune(Stop(error, set()), epochs=3)
    assert [trial.number for trial in found.trials] == [0, 1, 3, 4, 5, 6]
    with study_of(found) as study:
        failed, again = study.trials[2], study.trials[3]
        assert failed.state.name == "FAIL"
        assert again.user_attrs[search.RETRY_OF] == 2
        assert again.params == failed.params
    assert tune(Stop(error, set()), epochs=3) == found, "once"


def test_a_trial_that_others_gave_up_is_tried_again():
    """As after a sleep: the process comes back and its trial is no longer its own."""
    stolen: list[int] = []

    def build(trial: Any) -> fd.Sequential:
        net = build_small(trial)
        if trial.number == 1:
            trial.study.tell(1, state=optuna.trial.TrialState.FAIL)
            stolen.append(1)
        return net

    found = tune(build, epochs=3)
    assert stolen == [1]
    assert [trial.number for trial in found.trials] == [0, 2, 3, 4, 5, 6]
    with study_of(found) as study:
        assert study.trials[1].params in [trial.params for trial in study.trials[2:]]


def test_a_trial_that_another_process_has_done_counts_once(monkeypatch: pytest.MonkeyPatch):
    train = Search.train

    def in_two_processes(self: Search, trial: Any, report: Any) -> float:
        value = train(self, trial, report)
        if trial.number == 1:
            trial.study.tell(1, value)
        return value

    monkeypatch.setattr(Search, "train", in_two_processes)
    found = tune(build_small, epochs=1, trials=4)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert states(found) == 4 * ["COMPLETE"]


def test_a_trial_that_died_at_birth_does_not_stay(monkeypatch: pytest.MonkeyPatch):
    found = tune(trials=2)
    with study_of(found) as study:
        study.ask()
    monkeypatch.setattr(search, "GRACE_SECONDS", 1)
    time.sleep(1.1)
    found = tune(trials=5)
    assert len(found.trials) == 5
    assert states(found)[2] == "FAIL"
    assert "RUNNING" not in states(found)


KILLED = """
    import os, sys
    sys.path.insert(0, {tests!r})
    from fastdrop.experiments import search
    search.HEARTBEAT_SECONDS, search.GRACE_SECONDS = 1, 2
    import fastdrop as fd, test_tune

    def build(trial):
        net = test_tune.build_small(trial)
        if trial.number == 3:
            print("now", flush=True)
            import time
            time.sleep(60)
        return net

    build.__qualname__ = "build_small"
    fd.tune(build, test_tune.DATA, trials=6, epochs=3, progress=False)
"""


def test_a_killed_process_leaves_no_trial_running(monkeypatch: pytest.MonkeyPatch):
    process = start(KILLED.format(tests=str(Path(__file__).parent)))
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n", process.communicate()
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    monkeypatch.setattr(search, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(search, "GRACE_SECONDS", 2)
    found = tune(build_small, epochs=3)
    assert len(found.trials) == 6
    with study_of(found) as study:
        assert [trial.state.name for trial in study.trials].count("FAIL") == 1
        assert study.trials[3].state.name == "FAIL"
        assert [trial.user_attrs.get(search.RETRY_OF) for trial in study.trials].count(3) == 1
        assert "RUNNING" not in [trial.state.name for trial in study.trials]


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]):
    before = optuna.logging.get_verbosity()
    tune(trials=3)
    with pytest.raises(RuntimeError):
        tune(Stop(RuntimeError("x"), {1}), epochs=2)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if not line.startswith("fastdrop: compiling")] == []
    assert optuna.logging.get_verbosity() == before


def test_finished_trials_are_shown(capsys: pytest.CaptureFixture[str]):
    found = tune(trials=6, progress=True)
    head, *lines = capsys.readouterr().err.splitlines()
    assert head.split() == ["trial", "epochs", "val.", "accuracy", "best", "parameters"]
    assert len(lines) == 6
    for line, trial in zip(lines, found.trials, strict=True):
        number, epochs, accuracy, _, *parameters = line.split()
        assert (number, epochs) == (str(trial.number), f"{len(trial.accuracies)}/{EPOCHS}")
        assert accuracy == f"{trial.accuracy:.2%}"
        assert parameters[:2] == ["rate_1", f"{trial.parameters['rate_1']:.4g},"]
    assert lines[-1].split()[3] == f"{found.best.accuracy:.2%}"
    tune(trials=6, progress=True)
    assert capsys.readouterr().err.splitlines() == [head, *lines], "those of earlier calls too"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"trials": 0}, ArgumentValueError, "`trials` must be at least 1, got 0"),
        ({"trials": 2.0}, ArgumentTypeError, "`trials` must be an integer, got float"),
        ({"budget": 8}, ArgumentValueError, "`budget` must be at least 9, got 8"),
        ({"epochs": 0}, ArgumentValueError, "`epochs` must be at least 1, got 0"),
        ({"processes": 0}, ArgumentValueError, "`processes` must be at least 1, got 0"),
        ({"seed": -1}, ArgumentValueError, "`seed` must be in [0, 18446744073709551615], got -1"),
        ({"validation_split": 0}, ArgumentValueError, "`validation_split` must be in (0, 1), got 0.0"),
        ({"validation_split": 1}, ArgumentValueError, "`validation_split` must be in (0, 1), got 1.0"),
        ({"build": 3}, ArgumentTypeError, "`build` must be a fastdrop.Recipe or a function of a trial, got int"),
        (
            {"build": fd.Recipe(hidden=(), rates=(0,))},
            ArgumentValueError,
            "`build` must be a recipe with a hidden layer, behind which units are dropped, got one without",
        ),
        (
            {"build": build_small, "space": fd.SearchSpace()},
            ArgumentValueError,
            "`space` must be left out: a function asks its trial for the parameters, got a space",
        ),
        ({"space": (0, 0.8)}, ArgumentTypeError, "`space` must be a fastdrop.SearchSpace, got tuple"),
        (
            {"first": {"rate_1": 0.1}},
            ArgumentValueError,
            "`first` must be left out: the first trial of a recipe is rate 0.5 everywhere, got parameters",
        ),
        ({"build": build_small, "first": 3}, ArgumentTypeError, "`first` must be a dict from name to value, got int"),
        ({"name": 3}, ArgumentTypeError, "`name` must be a name, got int"),
        ({"storage": 3}, ArgumentTypeError, "`storage` must be a path, got int"),
        ({"progress": 1}, ArgumentTypeError, "`progress` must be True or False, got int"),
    ],
)
def test_bad_arguments(folder: Path, options: dict[str, Any], error: type[FastdropError], text: str):
    with pytest.raises(error) as caught:
        tune(**options)
    assert str(caught.value) == text
    assert list(folder.iterdir()) == [], "nothing was begun"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rates": (0, 0.8)}, ArgumentValueError, "`rates` must be (low, high, step), got 2 entries"),
        ({"rates": (0, 1.1, 0.1)}, ArgumentValueError, "`rates` must be in [0, 1], got 1.1"),
        ({"rates": (0.5, 0.1, 0.1)}, ArgumentValueError, "`rates` must be (low, high, ...) with low <= high, got 0.5 and 0.1"),
        ({"rates": (0, 0.5, 0.2)}, ArgumentValueError, "`rates` must be a range of whole steps, got 0 to 0.5 in steps of 0.2"),
        ({"rates": (0, 0.5, 0)}, ArgumentValueError, "`rates` must be in (0, 1], got 0.0"),
        ({"learning_rates": (0, 1)}, ArgumentValueError, "`learning_rates` must be in (0, inf), got 0.0"),
        ({"learning_rates": 0.1}, ArgumentTypeError, "`learning_rates` must be (low, high), got float"),
        ({"units": (8, 12, 3)}, ArgumentValueError, "`units` must be a range of whole steps, got 8 to 12 in steps of 3"),
        ({"units": (0, 12, 3)}, ArgumentValueError, "`units` must be at least 1, got 0"),
        ({"units": (8.0, 12, 3)}, ArgumentTypeError, "`units` must be an integer, got float"),
    ],
)
def test_bad_spaces(options: dict[str, Any], error: type[FastdropError], text: str):
    with pytest.raises(error) as caught:
        fd.SearchSpace(**options)
    assert str(caught.value) == text


def test_what_other_processes_cannot_import(folder: Path):
    with pytest.raises(ArgumentValueError, match="`build` must be importable by other processes, from the top of a module, got"):
        tune(lambda trial: 3, processes=2)
    assert list(folder.iterdir()) == []


def test_a_function_must_return_a_network():
    for build in (lambda trial: 3, lambda trial: (build_small(trial), "adam")):
        with pytest.raises(
            ArgumentTypeError, match=re.escape("`build` must be a function that returns a network, or (network, ")
        ):
            tune(build, epochs=2, storage=f"{id(build)}.db")


def test_a_study_of_another_training_is_refused():
    tune(trials=1, name="mine")
    with pytest.raises(
        ArgumentValueError, match=r"`name` must be that of a study of the same training, .*; seed 1', got .*seed 0"
    ):
        tune(trials=1, name="mine", seed=1)
    found = tune(trials=1, seed=1)
    assert found.name != "mine"
    assert tune(trials=2, name="mine").trials[0].number == 0


def test_a_foreign_study_is_refused():
    with study_of(tune(trials=1)) as study, search.quiet():
        optuna.create_study(storage=study._storage, study_name="theirs").optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(ArgumentValueError, match="got 'of another program'"):
        tune(trials=1, name="theirs")


def test_bad_storages(folder: Path):
    (folder / "text.db").write_text("no data base at all, but long enough to be read as one" * 40)
    with pytest.raises(OutputError, match=r"text.db: no data base that can keep a study: .*file is not a database"):
        tune(storage="text.db")
    with pytest.raises(OutputError, match="there is no folder"):
        tune(storage="nowhere/tune.db")
    with pytest.raises(OutputError) as caught:
        tune(storage="postgresql+nothing://me:secret@host/db")
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith("postgresql+nothing://me:***@host/db: no data base")
    with pytest.raises(OutputError, match="no data base"):
        tune(storage="://")


@pytest.mark.parametrize("name", ["with {braces} and % and #.db", "a?b.db", "ü.db"])
def test_names_of_files(folder: Path, name: str):
    tune(trials=1, storage=name)
    assert sorted(path.name for path in folder.iterdir()) == [name]


def test_a_url_is_the_same_storage(folder: Path):
    first = tune(trials=2)
    assert tune(trials=2, storage=f"sqlite:///{folder}/tune.db") == first


def test_without_optuna(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[Search.__module__], "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=re.escape('pip install "fastdrop-nn[tune]"')):
        tune(trials=1)


def test_optuna_is_loaded_by_a_search_alone():
    code = "import sys, fastdrop as fd, fastdrop.cli.app; fd.tune, fd.SearchSpace(); print('optuna' in sys.modules)"
    assert run_python(code) == "False"


def test_pictures(many: Tuning, folder: Path):
    for name in ("a.png", "a.svg"):
        many.plot(name, "clouds: $x$")
    assert (folder / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert (folder / "a.svg").read_text(encoding="utf-8").count("<g id=") > 50
    with pytest.raises(OutputError, match="must end in"):
        many.plot("a.txt")
    tune(trials=1, storage="one.db").plot("one.png")


def test_nothing_finished_has_no_best():
    empty = Tuning("none", [Trial(0, {}, [0.5], True)], {}, 1, None)
    with pytest.raises(StateError, match="no trial has been finished"):
        _ = empty.best


# The command line


@pytest.fixture
def table(folder: Path) -> str:
    rows = np.column_stack([DATA.x_train, DATA.y_train])
    (folder / "table.csv").write_text("\n".join(",".join(map(str, row)) for row in [["a", "b", "c", "d", "class"], *rows]) + "\n")
    return "table.csv"


COMMAND = ["tune", "--hidden", "8,6", "--epochs", "9", "--batch-size", "16", "--trials", "6"]


def test_the_command_prints_what_trains_the_best(table: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run([*COMMAND, "--data", table, "--rows", "80", "--learning-rate", "0.02", "--optimizer", "adamw", "--seed", "3"]) == 0
    out, _ = capsys.readouterr()
    *_, study, importance, best, command = out.splitlines()
    assert study.startswith("study table-")
    assert re.search(r": trials 6, stopped early \d, epochs \d+$", study)
    assert importance.startswith("importance ")
    accuracy = re.fullmatch(r"best trial \d: validation accuracy (\d+\.\d\d) %; train it with:", best)
    assert accuracy is not None
    assert sorted(path.name for path in folder.iterdir()) == ["table.csv", "tune.db", "tune.png", "tune.svg"]
    program, *arguments = shlex.split(command)
    assert program == "fastdrop"
    assert arguments[:5] == ["train", "--data", table, "--rows", "80"]
    assert run([*arguments, "--validation-split", "0.2", "--quiet"]) == 0
    last = (folder / "model-history.csv").read_text().splitlines()[-1]
    assert f"{100 * float(last.split(',')[-1]):.2f}" == accuracy[1]


def test_the_same_command_goes_on(table: str, capsys: pytest.CaptureFixture[str]):
    more = ["--data", table, "--units", "8", "--learning-rates", "0.01:0.1", "--rates", "0:0.4:0.2", "--no-plot", "--quiet"]
    assert run([*COMMAND, *more]) == 0
    first = capsys.readouterr()
    assert first.out.startswith(f"fastdrop train --data {table} --hidden 8,6 --rates 0.0,")
    assert [line for line in first.err.splitlines() if not line.startswith("fastdrop: compiling")] == []
    start = time.perf_counter()
    assert run([*COMMAND, *more]) == 0
    assert capsys.readouterr().out == first.out
    assert time.perf_counter() - start < 5


def test_an_interrupted_command_says_how_to_go_on(
    table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Search, "train", interrupted)
    assert run([*COMMAND, "--data", table, "-o", "my study.db"]) == 130
    assert "interrupted; continue with: fastdrop tune --hidden 8,6" in capsys.readouterr().err
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--hidden", "none"], "a search needs a hidden layer"),
        (["--budget", "3"], "--budget 3: not enough for a trial of 9 --epochs"),
        (["--units", "8:12:3"], "`units` must be a range of whole steps"),
        (["--units", "1:2"], "'1:2' is no number, and no range low:high:step"),
        (["--learning-rates", "x"], "'x' is no number, and no range low:high"),
        (["--rates", "0:2:0.1"], "each number must be at least 0 and below 1"),
        (["--validation-split", "0"], "0 is not in the range 0<x<1"),
    ],
)
def test_wrong_usage(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str):
    assert run([*COMMAND, *options]) == 2
    assert text in capsys.readouterr().err
    assert list(folder.iterdir()) == []
