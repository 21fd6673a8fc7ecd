"""A run that was stopped anywhere and resumed has the bits of one that was never stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

import fastdrop as fd
from fastdrop import _files, optim, schedules, training
from fastdrop.callbacks import (
    Callback,
    CSVLogger,
    DropoutScheduler,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FileFormatError, MissingFileError, OutputError, StateError
from fastdrop.progress import History

Array = npt.NDArray[Any]

pytestmark = pytest.mark.usefixtures("without_fsync")

FEATURES, CLASSES, ROWS, BATCH, EPOCHS = 4, 3, 20, 8, 4
STEPS = 3 * EPOCHS

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((ROWS, FEATURES)).astype(np.float32)
Y = GENERATOR.integers(0, CLASSES, ROWS)
WEIGHTS = GENERATOR.random(ROWS)
VALIDATION = (GENERATOR.standard_normal((9, FEATURES)).astype(np.float32), GENERATOR.integers(0, CLASSES, 9))


def network(seed: int, **arguments: Any) -> fd.Sequential:
    hidden = fd.Dense(6, activation="tanh", weight_regularizer="l2")
    layers = [fd.Dropout(0.2), hidden, fd.Dropout(0.5, **arguments), fd.Dense(CLASSES)]
    return fd.Sequential(layers, input_shape=(FEATURES,), seed=seed)


OPTIMIZERS: dict[str, Callable[[], optim.AbstractOptimizer]] = {
    "sgd": lambda: optim.SGD(0.2),
    "nesterov": lambda: optim.SGD(0.2, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam on a schedule": lambda: optim.Adam(schedules.CosineDecay(0.05, 10, warmup_target=0.1, warmup_steps=3)),
    "adamw, clipped": lambda: optim.AdamW(0.05, clip_norm=0.5),
}

CALLBACKS: dict[str, Callable[[], list[Callback]]] = {
    "none": list,
    "early stopping": lambda: [EarlyStopping("val_loss", patience=1, restore_best_weights=True)],
    "rates": lambda: [
        LearningRateScheduler(lambda epoch, rate: rate * 0.7),
        ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=0.05),
    ],
    "dropout": lambda: [DropoutScheduler(schedules.Curriculum(STEPS))],
}

WITHOUT = {("adam on a schedule", "rates"), ("nesterov", "dropout"), ("adamw, clipped", "dropout")}
"""Callbacks do not change the learning rate of an optimiser with a schedule; those of dropout do not depend on its kind."""
RUNS = [(kind, chosen) for kind in OPTIMIZERS for chosen in CALLBACKS if (kind, chosen) not in WITHOUT]


def fit(net: fd.Sequential, optimizer: optim.AbstractOptimizer | None, callbacks: list[Callback], **keywords: Any) -> History:
    arguments: dict[str, Any] = {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "validation_data": VALIDATION,
        "sample_weight": WEIGHTS,
        "progress": False,
        **keywords,
    }
    return training.fit(net, X, Y, optimizer=optimizer, callbacks=callbacks, **arguments)


class StoppedError(Exception):
    """What ends a run in these tests, as a crash would."""


class Saver(Callback):
    """Writes a checkpoint in one hook of the run, and ends it there."""

    def __init__(self, path: Path, hook: str, count: int) -> None:
        self.path = path
        self.hook = hook
        self.left = count

    def _run(self, hook: str) -> None:
        if hook == self.hook:
            self.left -= 1
            if self.left == 0:
                fd.save_checkpoint(self.path, self.net, self.optimizer)
                raise StoppedError

    def on_epoch_begin(self, epoch: int, logs: Any) -> None:
        self._run("on_epoch_begin")

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self._run("on_epoch_end")

    def on_train_batch_begin(self, batch: int, logs: Any) -> None:
        self._run("on_train_batch_begin")

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        self._run("on_train_batch_end")


def assert_same_run(one: tuple[fd.Sequential, History], two: tuple[fd.Sequential, History]) -> None:
    (net, history), (other, others) = one, two
    assert others.history == history.history
    assert others.epochs == history.epochs
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array, err_msg=name)
    facts = [(each.seed, each.step_count, each.epochs_completed, each.output_kind) for each in (net, other)]
    assert facts[0] == facts[1]


def stopped_in_every_hook(count_by_hook: dict[str, int]) -> list[tuple[str, int]]:
    return [(hook, count) for hook, most in count_by_hook.items() for count in range(1, most + 1)]


EVERYWHERE = stopped_in_every_hook(
    {"on_train_batch_end": STEPS, "on_train_batch_begin": STEPS, "on_epoch_begin": EPOCHS, "on_epoch_end": EPOCHS}
)


@pytest.mark.parametrize("saver_first", [True, False])
@pytest.mark.parametrize(("kind", "chosen"), RUNS)
def test_stopped_in_any_hook(kind: str, chosen: str, saver_first: bool, tmp_path: Path) -> None:
    net = network(1)
    whole = net, fit(net, OPTIMIZERS[kind](), CALLBACKS[chosen]())
    assert len(set(whole[1].history["loss"])) > 1
    resumed_runs = 0
    for i, (hook, count) in enumerate(EVERYWHERE):
        path = tmp_path / f"{i}.safetensors"
        saver, others = Saver(path, hook, count), CALLBACKS[chosen]()
        try:
            fit(network(1), OPTIMIZERS[kind](), [saver, *others] if saver_first else [*others, saver])
        except StoppedError:
            resumed_runs += 1
        else:
            continue  # early stopping ended the run before the hook
        again = network(2)
        assert_same_run(whole, (again, fit(again, OPTIMIZERS[kind](), CALLBACKS[chosen](), resume=path)))
    assert resumed_runs >= len(EVERYWHERE) // 2


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_interrupted_by_ctrl_c_and_saved(step: int, shuffle: bool, tmp_path: Path) -> None:
    class Press(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any) -> None:
            if self.net.step_count == step - 1:
                signal.raise_signal(signal.SIGINT)

    def stopping() -> EarlyStopping:
        return EarlyStopping("val_loss", patience=9, restore_best_weights=True)

    net, path = network(1), tmp_path / "run.safetensors"
    whole = net, fit(net, optim.SGD(0.2, momentum=0.9), [stopping()], shuffle=shuffle)
    other, optimizer = network(1), optim.SGD(0.2, momentum=0.9)
    with pytest.raises(KeyboardInterrupt):
        fit(other, optimizer, [Press(), stopping()], shuffle=shuffle)
    assert other.step_count == step
    fd.save_checkpoint(path, other, optimizer)
    again = network(2)
    assert_same_run(whole, (again, fit(again, None, [stopping()], shuffle=shuffle, resume=path)))


@pytest.mark.parametrize("step", [1, 5, 6])
def test_scheduled_dropout_after_ctrl_c(step: int, tmp_path: Path) -> None:
    """The layers have their final rates after the run, and those of the schedule when it goes on."""

    class Press(Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if self.net.step_count == step:
                signal.raise_signal(signal.SIGINT)

    def scheduler() -> DropoutScheduler:
        return DropoutScheduler(schedules.Linear(0.0, 1.0, STEPS))

    net, path = network(1), tmp_path / "run.safetensors"
    whole = net, fit(net, optim.SGD(0.2), [scheduler()])
    other, optimizer = network(1), optim.SGD(0.2)
    with pytest.raises(KeyboardInterrupt):
        fit(other, optimizer, [Press(), scheduler()])
    assert other.strengths() == {"0.rate": 0.2, "2.rate": 0.5}
    fd.save_checkpoint(path, other, optimizer)
    again = network(2)
    assert_same_run(whole, (again, fit(again, None, [scheduler()], resume=path)))


def test_stopped_again_and_again(tmp_path: Path) -> None:
    """A chain of runs, each of one step: resumed, and saved by the callback that the checkpoint knows already."""
    net, path = network(1), tmp_path / "run.safetensors"
    whole = net, fit(net, optim.Adam(0.05), [EarlyStopping(patience=9)])
    with pytest.raises(StoppedError):
        fit(network(1), optim.Adam(0.05), [Saver(path, "on_train_batch_end", 1), EarlyStopping(patience=9)])
    for _ in range(STEPS - 1):
        again = network(2)
        with pytest.raises(StoppedError):
            fit(again, None, [Saver(path, "on_train_batch_end", 1), EarlyStopping(patience=9)], resume=path)
    assert_same_run(whole, (again, fit(again, None, [EarlyStopping(patience=9)], resume=path)))


class Counter(Callback):
    """Counts epochs, with a state that the base class looks after."""

    state_kinds: ClassVar[dict[str, Any]] = {**Callback.state_kinds, "epochs": int}

    def __init__(self) -> None:
        self.epochs = 0

    def on_train_begin(self) -> None:
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.epochs += 1
        logs["epochs"] = self.epochs


class ArrayCounter(Counter):
    """The same, with a state of its own kind."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": np.ones(self.epochs, np.float32), "epochs": np.int64(self.epochs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["epochs"] == len(state["seen"])
        self.epochs = state["epochs"]


@pytest.mark.parametrize("kind", [Counter, ArrayCounter])
def test_a_hook_that_was_left_is_finished_once(kind: type[Counter], tmp_path: Path) -> None:
    """Saved while one callback had seen the end of the epoch and another had not; then saved again while finishing that."""

    path = tmp_path / "run.safetensors"
    for order in ("before", "behind"):
        saver, counter = Saver(path, "on_epoch_end", 2), kind()
        with pytest.raises(StoppedError):
            fit(network(1), optim.SGD(), [saver, counter] if order == "before" else [counter, saver])
        counter, saver = kind(), Saver(path, "on_epoch_end", 2)
        with pytest.raises(StoppedError):
            fit(network(2), None, [counter, saver] if order == "before" else [saver, counter], resume=path)
        counter = kind()
        history = fit(network(3), None, [counter], resume=path)
        assert history.history["epochs"] == [1, 2, 3, 4]
        assert counter.epochs == 4


@pytest.mark.parametrize("save_freq", ["epoch", 1, 2, 5])
def test_model_checkpoint_is_resumed_from(save_freq: str | int, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    net = network(1)
    whole = net, fit(net, optim.SGD(0.2, momentum=0.9), [EarlyStopping(patience=9)])
    crash = Saver(tmp_path / "unused", "on_train_batch_end", 8)
    callbacks = [ModelCheckpoint(path, save_freq=save_freq), EarlyStopping(patience=9), crash]
    with pytest.raises(StoppedError):
        fit(network(1), optim.SGD(0.2, momentum=0.9), callbacks)
    again = network(2)
    resumed = fit(again, None, [ModelCheckpoint(path, save_freq=save_freq), EarlyStopping(patience=9)], resume=path)
    assert_same_run(whole, (again, resumed))


def test_csv_logger_goes_on_below_the_rows_of_the_checkpoint(tmp_path: Path) -> None:
    whole, table, path = tmp_path / "whole.csv", tmp_path / "table.csv", tmp_path / "run.safetensors"
    fit(network(1), optim.SGD(0.2), [CSVLogger(whole)])
    with pytest.raises(StoppedError):
        fit(network(1), optim.SGD(0.2), [CSVLogger(table), Saver(path, "on_train_batch_end", 7)])
    table.write_text(table.read_text() + "left by a run that went on longer than its checkpoint\n")
    fit(network(2), None, [CSVLogger(table)], resume=path)
    assert table.read_text() == whole.read_text()


def test_epochs_is_the_total(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    net = network(1)
    whole = net, fit(net, optim.SGD(0.2, momentum=0.9), [])
    half, optimizer = network(1), optim.SGD(0.2, momentum=0.9)
    fit(half, optimizer, [], epochs=2)
    fd.save_checkpoint(path, half, optimizer)
    again = network(2)
    assert_same_run(whole, (again, fit(again, None, [], resume=path)))
    assert fit(network(2), None, [], epochs=1, resume=path).epochs == [0, 1]


def test_the_second_run_of_a_network_is_resumed_in_its_own_count(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    net, optimizer = network(1), optim.SGD(0.2, momentum=0.9)
    fit(net, optimizer, [], epochs=2)
    whole = net, fit(net, optimizer, [])
    other, its = network(1), optim.SGD(0.2, momentum=0.9)
    fit(other, its, [], epochs=2)
    with pytest.raises(StoppedError):
        fit(other, its, [Saver(path, "on_train_batch_end", 5)])
    again = network(2)
    assert_same_run(whole, (again, fit(again, None, [], resume=path)))
    assert (again.epochs_completed, whole[1].epochs) == (6, [0, 1, 2, 3])


def test_a_run_that_stopped_early_stays_stopped(tmp_path: Path) -> None:
    def stopping() -> EarlyStopping:
        return EarlyStopping("loss", min_delta=10.0, patience=1)

    path = tmp_path / "run.safetensors"
    net, optimizer = network(1), optim.SGD(0.2)
    history = fit(net, optimizer, [stopping(), ModelCheckpoint(path)])
    assert history.epochs == [0, 1]
    again = network(2)
    assert_same_run((net, history), (again, fit(again, None, [stopping()], resume=path)))
    assert fit(network(2), None, [], resume=path).epochs == [0, 1, 2, 3]


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    net, optimizer = network(1), optim.Adam(0.05)
    other, its = network(2), optim.Adam()
    for step in range(6):
        if step == 3:
            fd.save_checkpoint(path, net, optimizer)
            fd.load_checkpoint(path, other, its)
        for each, updates in ((net, optimizer), (other, its)):
            if each is net or step >= 3:
                training.train_on_batch(each, X, Y, updates)
    assert (its.iterations, its.learning_rate, other.step_count, other.seed) == (6, 0.05, 6, 1)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    assert fit(other, None, [], resume=path, epochs=1).epochs == [0]


def test_a_loaded_checkpoint_can_be_saved_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    net = network(1)
    whole = net, fit(net, optim.SGD(0.2), [EarlyStopping(patience=2)])
    with pytest.raises(StoppedError):
        fit(network(1), optim.SGD(0.2), [Saver(first, "on_epoch_end", 2), EarlyStopping(patience=2)])
    again, optimizer = network(2), optim.SGD()
    fd.load_checkpoint(first, again, optimizer)
    fd.save_checkpoint(second, again, optimizer)
    again = network(3)
    assert_same_run(whole, (again, fit(again, None, [EarlyStopping(patience=2)], resume=second)))


def test_a_schedule_that_is_a_function_is_given_again(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    net = network(1)
    whole = net, fit(net, optim.SGD(lambda step: 0.3 / (1 + step)), [])
    with pytest.raises(StoppedError):
        fit(network(1), optim.SGD(lambda step: 0.3 / (1 + step)), [Saver(path, "on_train_batch_end", 5)])
    again = network(2)
    assert_same_run(whole, (again, fit(again, optim.SGD(lambda step: 0.3 / (1 + step)), [], resume=path)))
    with pytest.raises(FileFormatError, match="must be the function that was used before"):
        fit(network(2), None, [], resume=path)


def test_labels_frozen_parameters_and_dtype(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    net = fd.Sequential([fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=1, dtype="float64")
    net.labels = ["a", "b", "c"]
    net.parameters()[1].trainable = False
    optimizer = optim.Adam()
    fit(net, optimizer, [], epochs=1)
    fd.save_checkpoint(path, net, optimizer)
    other = fd.Sequential([fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=2, dtype="float64")
    fd.load_checkpoint(path, other, optim.Adam())
    assert other.labels == ["a", "b", "c"]
    loaded = fd.load(path)
    assert [parameter.trainable for parameter in loaded.parameters()] == [True, False]
    np.testing.assert_array_equal(loaded(X), net(X))


# Files that do not fit


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint in the middle of an epoch."""
    path = tmp_path / "run.safetensors"
    with pytest.raises(StoppedError):
        fit(network(1), optim.SGD(0.2, momentum=0.9), [Saver(path, "on_train_batch_end", 5), EarlyStopping(patience=2)])
    return path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 4}, "`resume` must be a checkpoint of a run with {'rows': 20, 'batch_size': 4, 'shuffle': True}"),
        ({"shuffle": False}, "`resume` must be a checkpoint of a run with {'rows': 20, 'batch_size': 8, 'shuffle': False}"),
        ({"metrics": ()}, "`resume` must be a checkpoint with the metrics ['loss'], got ['accuracy', 'loss']"),
    ],
)
def test_other_arguments_within_an_epoch(saved: Path, change: dict[str, Any], text: str) -> None:
    net = network(2)
    before = net.state_dict()
    with pytest.raises(ArgumentValueError) as caught:
        fit(net, None, [], resume=saved, **change)
    assert text in str(caught.value)
    np.testing.assert_array_equal(net.state_dict()["1.weight"], before["1.weight"])


def test_another_network_or_optimizer_is_an_error_and_nothing_changes(saved: Path, tmp_path: Path) -> None:
    wide = fd.Sequential([fd.Dropout(0.2), fd.Dense(7), fd.Dropout(0.5), fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=2)
    short = fd.Sequential([fd.Dropout(0.2), fd.Dense(6), fd.Dropout(0.5)], input_shape=(FEATURES,), seed=2)
    bare = fd.Sequential([fd.Dense(6)], input_shape=(FEATURES,), seed=2)
    double = fd.Sequential(
        [fd.Dropout(0.2), fd.Dense(6), fd.Dropout(0.5), fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=2, dtype="float64"
    )
    other = network(2, mode="downscale_in_infer")
    others = (
        (wide, r"`config\.layers\.1\.units` must be that of the network \(7\), got 6"),
        (short, r"`config\.layers` must be of 3 entries, as that of the network, got 4"),
        (bare, r"`config\.layers` must be of 1 entries"),
        (other, r"`config\.layers\.2\.mode` must be that of the network \(downscale_in_infer\), got upscale_in_train"),
        (double, "`dtype` must be that of the network"),
    )
    for net, text in others:
        before, optimizer = net.state_dict(), optim.SGD(0.5)
        with pytest.raises(FileFormatError, match=text):
            fd.load_checkpoint(saved, net, optimizer)
        assert (net.seed, net.step_count, optimizer.learning_rate, optimizer.state) == (2, 0, 0.5, {})
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, before[name])
    net = network(2)
    before = net.state_dict()
    with pytest.raises(FileFormatError, match=r"`optimizer\.class` must be one of Adam, got 'SGD'"):
        fd.load_checkpoint(saved, net, optim.Adam())
    np.testing.assert_array_equal(net.state_dict()["1.weight"], before["1.weight"])


def test_a_network_without_parameters_yet(saved: Path) -> None:
    net = fd.Sequential(network(2).layers, seed=2)
    net = fd.Sequential.from_config({name: value for name, value in net.get_config().items() if name != "built_shape"})
    with pytest.raises(StateError, match="has no parameters yet"):
        fd.load_checkpoint(saved, net, optim.SGD())
    assert fit(net, None, [], resume=saved).epochs == [0, 1, 2, 3]


def test_frozen_parameters_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    net, optimizer = network(2), optim.SGD()
    net.parameters()[0].trainable = False
    fd.save_checkpoint(tmp_path / "c", net, optimizer)
    other = network(3)
    other.parameters()[2].trainable = False
    fd.load_checkpoint(tmp_path / "c", other, optimizer)
    assert [parameter.trainable for parameter in other.parameters()] == [False, True, True, True]


def test_names_rates_and_starting_values_may_differ(tmp_path: Path) -> None:
    fd.save_checkpoint(tmp_path / "c", network(2), optim.SGD())
    other = network(3)
    other.layers[0].rate, other.layers[1].name = 0.3, "another"
    fd.load_checkpoint(tmp_path / "c", other, optim.SGD())
    assert other.layers[0].rate == 0.2


def test_wrong_kinds_of_files_and_arguments(saved: Path, tmp_path: Path) -> None:
    net = network(2)
    with pytest.raises(MissingFileError, match="no such file"):
        fd.load_checkpoint(tmp_path / "none", net, optim.SGD())
    with pytest.raises(FileFormatError, match="must be a file, got a folder"):
        fd.load_checkpoint(tmp_path, net, optim.SGD())
    with pytest.raises(ArgumentTypeError, match="`optimizer` must be an optimiser"):
        fd.load_checkpoint(saved, net, "sgd")  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="`optimizer` must be an optimiser"):
        fd.save_checkpoint(saved, net, None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="`path` must be a path, got int"):
        fd.save_checkpoint(3, net, optim.SGD())  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="there is no folder"):
        fd.save_checkpoint(tmp_path / "none" / "run", net, optim.SGD())


def change_facts(path: Path, keys: tuple[str, ...], value: Any) -> None:
    """Rewrite one entry of a checkpoint's facts."""
    container = _files.read(path)
    place: Any = container.facts
    for key in keys[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    place[keys[-1]] = value
    _files.write(path, container)


DAMAGE: list[tuple[tuple[str, ...], Any, str]] = [
    (("training",), 3, "`training` must be a dict, got int"),
    (("network",), [], "`network` must be a dict, got list"),
    (("network", "step_count"), -1, "`step_count` must be in [0, 4294967296], got -1"),
    (("network", "seed"), 1.5, "`seed` must be an integer, got float"),
    (("network", "output_kind"), "noise", "`output_kind` must be one of"),
    (("network", "labels"), [1], "`labels` must be strings, got int"),
    (("training", "optimizer"), {}, "config is missing"),
    (("training", "optimizer", "config", "class"), "Lion", "`optimizer` must be one of adam, adamw, sgd, got 'lion'"),
    (("training", "optimizer", "config", "momentum"), 7, "`momentum` must be in [0, 1], got 7.0"),
    (("training", "optimizer", "iterations"), "many", "`iterations` must be an integer, got str"),
    (("training", "optimizer", "state", "9.weight"), {}, "`state` must be of the network's parameters, got 9.weight"),
    (("training", "optimizer", "state", "1.weight", "velocity"), {"__array__": "nowhere"}, "nowhere is missing"),
    (
        ("training", "optimizer", "state", "1.weight", "velocity"),
        {"__array__": "1.bias"},
        "`velocity of 1.weight` must be of shape",
    ),
    (("training", "progress", "epoch"), -1, "`epoch` must be at least 0, got -1"),
    (("training", "progress", "begun"), 1, "`begun` must be True or False, got int"),
    (("training", "progress", "position"), None, "`position` must be an integer, got NoneType"),
    (("training", "progress", "sums"), {"loss": [1.0]}, "`sums` must be pairs, got 1 entries"),
    (("training", "progress", "sums"), {"loss": ["a", 2]}, "`sums` must be a number, got str"),
    (("training", "progress", "event"), {"hook": "eval", "number": 0, "logs": {}}, "`hook` must be one of"),
    (("training", "progress", "history"), {"epochs": [0], "history": {"loss": 3}}, "`history` must be a list or tuple, got int"),
    (("training", "progress", "callbacks"), [3], "`callbacks` must be a dict, got int"),
    (("training", "progress", "callbacks", "1", "state"), {"wait": 0}, "`state` must be a dict of stop_training, best"),
    (
        ("training", "progress", "callbacks", "1", "state", "wait"),
        "long",
        "`wait` must be of a kind that a state may have, got str",
    ),
]


@pytest.mark.parametrize(("keys", "value", "text"), DAMAGE, ids=["/".join(keys) for keys, _, _ in DAMAGE])
def test_hostile_checkpoints(saved: Path, keys: tuple[str, ...], value: Any, text: str) -> None:
    change_facts(saved, keys, value)
    net = network(2)
    before = net.state_dict()
    with pytest.raises(FileFormatError) as caught:
        fit(net, None, [EarlyStopping(patience=2)], resume=saved)
    assert text in str(caught.value)
    assert saved.name in str(caught.value)
    assert (net.seed, net.step_count, net.output_kind) == (2, 0, None)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_state_that_cannot_be_written_leaves_the_old_file(saved: Path) -> None:
    class Odd(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"handle": object()}

    class Numbered(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"by epoch": {0: 1.0}}

    before = saved.read_bytes()
    with pytest.raises(ArgumentTypeError, match="must be of string keys, got int"):
        fit(network(1), optim.SGD(), [Numbered(), ModelCheckpoint(saved)])
    with pytest.raises(ArgumentTypeError, match="must be made of dicts, lists, numbers, strings, None and arrays, got object"):
        fit(network(1), optim.SGD(), [Odd(), ModelCheckpoint(saved)])
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
