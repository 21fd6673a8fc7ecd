"""Callbacks: rules of Keras worked out by hand, files, errors."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import callbacks as cb
from fastdrop import optim, schedules, training
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FileFormatError, OutputError
from fastdrop.progress import History

pytestmark = pytest.mark.usefixtures("without_fsync")

FEATURES, CLASSES = 4, 3
X = np.random.default_rng(0).standard_normal((20, FEATURES)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, CLASSES, 20)


def network() -> fd.Sequential:
    return fd.Sequential([fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=1)


class Scripted(cb.Callback):
    """Puts values into the logs, one an epoch, before the callbacks behind it look at them."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name = name
        self.values = values

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs[self.name] = self.values[epoch]


def scripted(callback: cb.Callback, name: str, values: list[float], **keywords: Any) -> tuple[fd.Sequential, History]:
    """Train while the logs say what the script says."""
    net = network()
    arguments: dict[str, Any] = {"optimizer": optim.SGD(0.1), "progress": False, "batch_size": 8, **keywords}
    history = training.fit(net, X, Y, epochs=len(values), callbacks=[Scripted(name, values), callback], **arguments)
    return net, history


@pytest.mark.parametrize(
    ("arguments", "name", "values", "epochs"),
    [
        ({"patience": 0}, "score", [3, 2, 1, 1, 0], 4),
        ({"patience": 2}, "score", [3, 4, 2, 3, 3, 1], 5),
        ({"patience": 2}, "score", [3, 4, 2, 3, 1, 1], 6),
        ({"patience": 1}, "val_accuracy", [0.1, 0.2, 0.2, 0.1], 3),
        ({"patience": 1, "mode": "max"}, "score", [1, 2, 1, 3], 3),
        ({"patience": 1, "mode": "min"}, "my_accuracy", [3, 2, 1, 0], 4),
        ({"patience": 1, "min_delta": 0.5}, "score", [3, 2.6, 2.5, 2.0], 2),
        ({"patience": 1, "min_delta": 0.5}, "score", [3, 2.4, 1.8, 1.0], 4),
        ({"patience": 2, "baseline": 1.0}, "score", [3, 2, 1.5, 1.5, 0], 4),
        ({"patience": 1, "start_from_epoch": 3}, "score", [1, 2, 3, 4, 5, 6], 5),
        ({"patience": 1}, "score", [math.nan, 2.0, 1.0, math.nan, 0.5], 4),
    ],
)
def test_early_stopping(arguments: dict[str, Any], name: str, values: list[float], epochs: int) -> None:
    stopping = cb.EarlyStopping(name, **arguments)
    _, history = scripted(stopping, name, values)
    assert len(history.epochs) == epochs
    assert stopping.stop_training == (epochs < len(values) or stopping.stopped_epoch > 0)


@pytest.mark.parametrize(("values", "best"), [([3.0, 1.0, 2.0, 2.0, 2.0], 1), ([3.0, 2.0, 1.0], 2)])
def test_best_weights_are_restored_at_the_end(values: list[float], best: int) -> None:
    kept: list[dict[str, Any]] = []
    net = network()
    keep = cb.LambdaCallback(on_epoch_end=lambda *_: kept.append(net.state_dict()))
    stopping = cb.EarlyStopping("score", patience=2, restore_best_weights=True)
    training.fit(net, X, Y, epochs=len(values), callbacks=[Scripted("score", values), keep, stopping], progress=False)
    assert stopping.best_epoch == best
    assert len(kept) == min(len(values), best + 3)
    np.testing.assert_array_equal(net.state_dict()["0.weight"], kept[best]["0.weight"])
    assert best == len(kept) - 1 or not np.array_equal(kept[-1]["0.weight"], kept[best]["0.weight"])


def test_a_callback_starts_anew_in_every_run() -> None:
    stopping = cb.EarlyStopping("score", patience=1)
    for _ in range(2):
        _, history = scripted(stopping, "score", [1.0, 2.0, 3.0])
        assert len(history.epochs) == 2


@pytest.mark.parametrize(
    ("arguments", "values", "rates"),
    [
        ({"patience": 1, "factor": 0.5, "min_delta": 0.0}, [3, 3, 2, 2, 1], [1, 1, 0.5, 0.5, 0.25]),
        ({"patience": 2, "factor": 0.1, "min_delta": 0.0}, [3, 3, 3, 3, 3], [1, 1, 1, 0.1, 0.1]),
        ({"patience": 1, "factor": 0.5, "cooldown": 2, "min_delta": 0.0}, [3, 3, 3, 3, 3, 3], [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"patience": 1, "factor": 0.1, "min_lr": 0.5, "min_delta": 0.0}, [3, 3, 3, 3], [1, 1, 0.5, 0.5]),
        ({"patience": 1, "factor": 0.5, "min_delta": 1.0}, [3, 2.5, 1], [1, 1, 0.5]),
        ({"patience": 1, "factor": 0.5, "mode": "max", "min_delta": 0.0}, [3, 2, 4], [1, 1, 0.5]),
    ],
)
def test_reduce_lr_on_plateau(arguments: dict[str, Any], values: list[float], rates: list[float]) -> None:
    reduce = cb.ReduceLROnPlateau("score", **arguments)
    _, history = scripted(reduce, "score", values, optimizer=optim.SGD(1.0))
    assert history.history["learning_rate"] == pytest.approx(rates)


def test_learning_rate_scheduler() -> None:
    scheduler = cb.LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    _, history = scripted(scheduler, "score", [0.0] * 3, optimizer=optim.SGD(0.4))
    assert history.history["learning_rate"] == [0.4, 0.2, 0.1]


# Rates of dropout


def dropped(rate: float = 0.5) -> fd.Sequential:
    layers = [fd.Dropout(0.2), fd.Dense(6), fd.Residual([fd.GaussianDropout(rate)]), fd.GaussianNoise(0.1), fd.Dense(CLASSES)]
    return fd.Sequential(layers, input_shape=(FEATURES,), seed=1)


def rates_of_steps(net: fd.Sequential, callback: cb.Callback, epochs: int = 2) -> tuple[list[dict[str, float]], History]:
    """The strengths at each step of a run with three steps an epoch."""
    found: list[dict[str, float]] = []
    note = cb.LambdaCallback(on_train_batch_end=lambda *_: found.append(net.strengths()))
    history = training.fit(net, X, Y, epochs=epochs, batch_size=8, callbacks=[callback, note], progress=False)
    return found, history


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (0.5, [0.5] * 6),
        (0, [0.0] * 6),
        (schedules.Linear(0.0, 1.0, 4), [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        (schedules.PiecewiseConstantDecay([1], [1.0, 0.0]), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        (lambda step: 1 / (1 + step), [1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]),
    ],
)
def test_dropout_scheduler(schedule: Any, factors: list[float]) -> None:
    net = dropped()
    before = net.strengths()
    for _ in range(2):  # a second run has its own optimiser, whose steps are counted from 0 again
        found, history = rates_of_steps(net, cb.DropoutScheduler(schedule))
        assert found == [{"0.rate": 0.2 * f, "2.0.rate": 0.5 * f, "3.stddev": 0.1} for f in factors]
        assert history.history["dropout_factor"] == [factors[2], factors[5]]
        assert net.strengths() == before


def test_curriculum_dropout_is_that_of_the_paper() -> None:
    """The probability of keeping, (1 - theta) exp(-gamma t) + theta, gamma = 10 / T."""
    found, _ = rates_of_steps(dropped(), cb.DropoutScheduler(schedules.Curriculum(6)))
    for name, theta in (("0.rate", 0.8), ("2.0.rate", 0.5)):
        wanted = [(1 - theta) * math.exp(-10 / 6 * t) + theta for t in range(6)]
        assert [1 - rates[name] for rates in found] == pytest.approx(wanted, rel=1e-14)


def test_scheduled_steps_are_those_of_the_rates() -> None:
    """The bits of a loop that assigns the rates by hand."""
    net, by_hand, optimizer = dropped(), dropped(), optim.SGD(0.1)
    arguments: dict[str, Any] = {"shuffle": False, "batch_size": 8, "progress": False, "optimizer": optim.SGD(0.1)}
    training.fit(net, X, Y, callbacks=[cb.DropoutScheduler(schedules.Linear(0.2, 1.0, 2))], **arguments)
    for step, factor in enumerate((0.2, 0.6, 1.0)):
        by_hand.set_strengths({"0.rate": 0.2 * factor, "2.0.rate": 0.5 * factor})
        by_hand.train_on_batch(X[8 * step : 8 * step + 8], Y[8 * step : 8 * step + 8], optimizer)
    np.testing.assert_array_equal(net.state_dict()["1.weight"], by_hand.state_dict()["1.weight"])
    other = dropped()
    training.fit(other, X, Y, **{**arguments, "optimizer": optim.SGD(0.1)})
    assert not np.array_equal(net.state_dict()["1.weight"], other.state_dict()["1.weight"])


@pytest.mark.parametrize("factor", [1.5, -0.1, math.nan, "a"])
def test_a_schedule_of_dropout_that_returns_no_factor(factor: Any) -> None:
    net = dropped()
    before = net.strengths()
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match=r"`schedule\(step\)` must be (in \[0, 1\]|a number), got"):
        training.fit(net, X, Y, callbacks=[cb.DropoutScheduler(lambda step: factor)], progress=False)
    assert net.strengths() == before


def test_a_schedule_of_dropout_without_dropout() -> None:
    with pytest.raises(ArgumentValueError, match="`net` must be a network with dropout layers, got a Sequential without"):
        training.fit(network(), X, Y, callbacks=[cb.DropoutScheduler(0.5)], progress=False)


def test_lambda_callback_takes_every_hook() -> None:
    calls: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda *arguments: calls.append(f"{name}{len(arguments)}")

    hooks = ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end", "on_train_end"]
    callback = cb.LambdaCallback(**{name: note(name) for name in hooks})  # type: ignore[arg-type]
    training.fit(network(), X, Y, callbacks=[callback], progress=False)
    assert calls == [f"{name}{0 if name in ('on_train_begin', 'on_train_end') else 2}" for name in hooks]


# Files


def rows(path: Path, separator: str = ",") -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream, delimiter=separator))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_logger_writes_the_history(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("of another run")
    history = training.fit(network(), X, Y, epochs=3, callbacks=[cb.CSVLogger(path, separator)], progress=False)
    table = rows(path, separator)
    assert table[0] == ["epoch", "accuracy", "loss"]
    assert [int(row[0]) for row in table[1:]] == [0, 1, 2]
    assert [float(row[2]) for row in table[1:]] == history.history["loss"]
    assert [float(row[1]) for row in table[1:]] == history.history["accuracy"]


def test_csv_logger_appends(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for _ in range(2):
        training.fit(network(), X, Y, epochs=2, callbacks=[cb.CSVLogger(path, append=True)], progress=False)
    assert [row[0] for row in rows(path)] == ["epoch", "0", "1", "0", "1"]


def test_csv_logger_with_columns_that_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"

    class Late(cb.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            logs["late"] = 1.0
            if epoch == 1:
                del logs["accuracy"]

    training.fit(network(), X, Y, epochs=2, callbacks=[cb.CSVLogger(path), Late()], progress=False)
    training.fit(network(), X, Y, epochs=2, callbacks=[Late(), cb.CSVLogger(tmp_path / "two.csv")], progress=False)
    assert rows(path)[0] == ["epoch", "accuracy", "loss"]
    assert rows(tmp_path / "two.csv")[2][:2] == ["1", "NA"]


def test_model_checkpoint_names_files_by_epoch_and_values(tmp_path: Path) -> None:
    name = str(tmp_path / "{epoch:02d}-{loss:.2f}.safetensors")
    history = training.fit(network(), X, Y, epochs=3, callbacks=[cb.ModelCheckpoint(name)], progress=False)
    expected = {f"{epoch + 1:02d}-{loss:.2f}.safetensors" for epoch, loss in enumerate(history.history["loss"])}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_model_checkpoint_by_steps(tmp_path: Path) -> None:
    name = str(tmp_path / "{epoch}-{batch}")
    training.fit(network(), X, Y, epochs=3, batch_size=8, callbacks=[cb.ModelCheckpoint(name, save_freq=2)], progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"1-2", "2-1", "2-3", "3-2"}


@pytest.mark.parametrize(
    ("arguments", "values", "saved"),
    [
        ({}, [3, 1, 2, 0.5], {"1", "2", "4"}),
        ({"mode": "max"}, [1, 3, 2, 4], {"1", "2", "4"}),
        ({"initial_value_threshold": 2.0}, [3, 1, 2, 0.5], {"2", "4"}),
    ],
)
def test_model_checkpoint_saves_the_best_only(
    arguments: dict[str, Any], values: list[float], saved: set[str], tmp_path: Path
) -> None:
    checkpoint = cb.ModelCheckpoint(tmp_path / "{epoch}", monitor="score", save_best_only=True, **arguments)
    scripted(checkpoint, "score", values)
    assert {path.name for path in tmp_path.iterdir()} == saved


def test_model_checkpoint_of_weights_only(tmp_path: Path) -> None:
    path, net = tmp_path / "model.safetensors", network()
    training.fit(net, X, Y, callbacks=[cb.ModelCheckpoint(path, save_weights_only=True)], progress=False)
    np.testing.assert_array_equal(fd.load(path)(X), net(X))
    with pytest.raises(FileFormatError, match="must be a checkpoint, got a model"):
        training.fit(network(), X, Y, resume=path, progress=False)


def test_checkpoints_are_networks_too(tmp_path: Path) -> None:
    path, net = tmp_path / "run.safetensors", network()
    training.fit(net, X, Y, callbacks=[cb.ModelCheckpoint(path)], progress=False)
    loaded = fd.load(path)
    np.testing.assert_array_equal(loaded(X), net(X))
    assert (loaded.seed, loaded.step_count, loaded.epochs_completed, loaded.output_kind) == (1, 1, 1, "logits")


# Errors


@pytest.mark.parametrize(
    ("callback", "kind", "text"),
    [
        (
            cb.EarlyStopping(),
            ArgumentValueError,
            "`monitor` must be one of loss, accuracy without validation data, got 'val_loss'",
        ),
        (cb.ReduceLROnPlateau("val_accuracy"), ArgumentValueError, "(hint: fit(..., validation_data=(x, y)))"),
        (cb.ModelCheckpoint("x", save_best_only=True), ArgumentValueError, "`monitor` must be one of loss, accuracy without"),
        (cb.ModelCheckpoint("/none/such/x"), OutputError, "/none/such/x: cannot be written: there is no folder /none/such"),
        (cb.ModelCheckpoint("/dev/null"), OutputError, "/dev/null: cannot be written: it is no regular file"),
        (cb.CSVLogger("/none/such/x.csv"), OutputError, "/none/such/x.csv: cannot be written: there is no folder /none/such"),
        (cb.CSVLogger("/tmp"), OutputError, "/tmp: cannot be written: it is a folder"),
    ],
)
def test_what_cannot_work_is_found_before_training(callback: cb.Callback, kind: type[Exception], text: str) -> None:
    net = network()
    before = net.state_dict()
    with pytest.raises(kind) as caught:
        training.fit(net, X, Y, callbacks=[callback], progress=False)
    assert text in str(caught.value)
    assert (net.step_count, net.output_kind) == (0, None)
    np.testing.assert_array_equal(net.state_dict()["0.weight"], before["0.weight"])


@pytest.mark.parametrize("callback", [cb.LearningRateScheduler(lambda epoch, rate: rate), cb.ReduceLROnPlateau("loss")])
def test_schedules_are_not_overruled(callback: cb.Callback) -> None:
    optimizer = optim.SGD(schedules.CosineDecay(0.1, 10))
    with pytest.raises(ArgumentValueError, match="must be a number, to be changed by a callback, got CosineDecay"):
        training.fit(network(), X, Y, optimizer=optimizer, callbacks=[callback], progress=False)


def test_a_monitored_value_that_never_comes() -> None:
    with pytest.raises(ArgumentValueError, match="`monitor` must be one of loss, accuracy without validation data, got 'score'"):
        training.fit(network(), X, Y, callbacks=[cb.EarlyStopping("score")], progress=False)


def test_what_is_watched_is_known_before_training(tmp_path: Path) -> None:
    for callbacks, validated, known in (
        ([cb.EarlyStopping("val_acc")], True, "loss, accuracy, val_loss, val_accuracy, got 'val_acc'"),
        ([cb.EarlyStopping("learning_rate")], False, "loss, accuracy without"),
        ([cb.EarlyStopping("dropout"), cb.LearningRateScheduler(lambda _, rate: rate)], True, "val_accuracy, learning_rate, got"),
    ):
        net = network()
        with pytest.raises(ArgumentValueError, match=f"`monitor` must be one of .*{known}"):
            training.fit(net, X, Y, callbacks=callbacks, validation_data=(X, Y) if validated else None, progress=False)
        assert net.step_count == 0


class Failing(cb.Callback):
    """Raises at the second step."""

    def on_train_batch_begin(self, batch: int, logs: Any) -> None:
        if batch == 1:
            raise MemoryError


def test_rates_are_final_again_after_an_error() -> None:
    net = fd.Sequential([fd.Dropout(0.5), fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=1)
    scheduler = cb.DropoutScheduler(0.5)
    with pytest.raises(MemoryError):
        training.fit(net, X, Y, batch_size=2, callbacks=[scheduler, Failing()], progress=False)
    assert net.layers[0].rate == 0.5


@pytest.mark.parametrize(
    ("callback", "optimizer", "text"),
    [
        (lambda path: cb.DropoutScheduler(0.5), optim.SGD(), "a network with dropout layers"),
        (
            lambda path: cb.ReduceLROnPlateau("loss"),
            optim.SGD(fd.schedules.CosineDecay(0.1, 10)),
            "`optimizer.learning_rate` must",
        ),
        (
            lambda path: cb.LearningRateScheduler(max),
            optim.SGD(fd.schedules.CosineDecay(0.1, 10)),
            "`optimizer.learning_rate` must",
        ),
        (lambda path: cb.ModelCheckpoint(path / "no" / "file"), optim.SGD(), "cannot be written"),
        (lambda path: cb.CSVLogger(path / "no" / "file"), optim.SGD(), "cannot be written"),
    ],
    ids=["no dropout", "plateau", "rate", "checkpoint", "table"],
)
def test_callbacks_that_cannot_be_change_nothing(tmp_path: Path, callback: Any, optimizer: Any, text: str) -> None:
    net, optimizer = network(), copy.deepcopy(optimizer)
    training.fit(net, X, Y, epochs=1, optimizer=optimizer, progress=False)
    fd.save_checkpoint(tmp_path / "c", net, optimizer)
    training.fit(net, X, Y, epochs=1, optimizer=optimizer, progress=False)
    before, progress = net.state_dict(), optimizer.progress
    for resume in (None, tmp_path / "c"):
        with pytest.raises((ArgumentValueError, OutputError), match=text):
            training.fit(net, X, Y, epochs=3, optimizer=optimizer, callbacks=[callback(tmp_path)], progress=False, resume=resume)
        assert optimizer.progress is progress
        assert net.step_count == 2 * -(-len(X) // 32)
        np.testing.assert_array_equal(net.state_dict()["0.weight"], before["0.weight"])


def test_a_file_name_with_a_value_that_never_comes(tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match="`filepath` must be a format of epoch, batch, loss, accuracy"):
        training.fit(network(), X, Y, callbacks=[cb.ModelCheckpoint(tmp_path / "{val_loss}")], progress=False)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(FileFormatError, match="cannot be read as a table"):
        training.fit(network(), X, Y, callbacks=[cb.CSVLogger(path, append=True)], progress=False)
    assert path.read_bytes() == b"\xff\xfe\xff"


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: cb.EarlyStopping(3), ArgumentTypeError, "`monitor` must be the name of a value in the logs, got int"),  # type: ignore[arg-type]
    (lambda: cb.EarlyStopping(mode="best"), ArgumentValueError, "`mode` must be one of auto, max, min, got 'best'"),
    (lambda: cb.EarlyStopping(min_delta=-1), ArgumentValueError, "`min_delta` must be in [0, inf), got -1.0"),
    (lambda: cb.EarlyStopping(patience=-1), ArgumentValueError, "`patience` must be at least 0, got -1"),
    (lambda: cb.EarlyStopping(baseline=math.nan), ArgumentValueError, "`baseline` must be finite, got nan"),
    (lambda: cb.EarlyStopping(start_from_epoch=-1), ArgumentValueError, "`start_from_epoch` must be at least 0, got -1"),
    (lambda: cb.ReduceLROnPlateau(factor=1.0), ArgumentValueError, "`factor` must be in [0, 1), got 1.0"),
    (lambda: cb.ReduceLROnPlateau(min_lr=-1), ArgumentValueError, "`min_lr` must be in [0, inf), got -1.0"),
    (lambda: cb.ReduceLROnPlateau(cooldown=-1), ArgumentValueError, "`cooldown` must be at least 0, got -1"),
    (lambda: cb.ModelCheckpoint(3), ArgumentTypeError, "`filepath` must be a path, got int"),  # type: ignore[arg-type]
    (lambda: cb.ModelCheckpoint("x", save_freq=0), ArgumentValueError, "`save_freq` must be at least 1, got 0"),
    (lambda: cb.ModelCheckpoint("x", save_freq="step"), ArgumentValueError, "`save_freq` must be one of epoch, got 'step'"),
    (lambda: cb.ModelCheckpoint("x", save_best_only=1), ArgumentTypeError, "`save_best_only` must be True or False"),  # type: ignore[arg-type]
    (lambda: cb.CSVLogger(""), ArgumentValueError, "`filename` must be the name of a file or folder, got ''"),
    (lambda: cb.CSVLogger("x", "::"), ArgumentValueError, "`separator` must be a string of one character, got '::'"),
    (lambda: cb.LearningRateScheduler(0.1), ArgumentTypeError, "`schedule` must be callable, got float"),  # type: ignore[arg-type]
    (lambda: cb.DropoutScheduler(1.5), ArgumentValueError, "`schedule` must be in [0, 1], got 1.5"),
    (lambda: cb.DropoutScheduler("a"), ArgumentTypeError, "`schedule` must be a number, got str"),  # type: ignore[arg-type]
    (
        lambda: cb.DropoutScheduler(0.5).check_state({"stop_training": False, "final_rates": {"0.rate": 2.0}, "factor": 1.0}),
        ArgumentValueError,
        "`0.rate` must be in [0, 1], got 2.0",
    ),
    (lambda: cb.LambdaCallback(on_epoch_end=3), ArgumentTypeError, "`on_epoch_end` must be callable, got int"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_bad_arguments(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
