"""`fit`, `train_on_batch` and `evaluate`: equal to the loop written out, bit for bit; bad input; Ctrl-C; what is shown."""

from __future__ import annotations

import io
import signal
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastdrop as fd
from fastdrop import losses, optim, rng, training
from fastdrop.callbacks import Callback, LambdaCallback
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, MissingFileError
from fastdrop.progress import History

Array = npt.NDArray[Any]

FEATURES, CLASSES, ROWS = 5, 3, 22


def network(seed: int = 1, dtype: str = "float32", **dense: Any) -> fd.Sequential:
    layers = [fd.Dropout(0.1), fd.Dense(8, activation="relu", **dense), fd.Dropout(0.4), fd.Dense(CLASSES)]
    return fd.Sequential(layers, input_shape=(FEATURES,), seed=seed, dtype=dtype)


def data(rows: int = ROWS, seed: int = 0) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, FEATURES)).astype(np.float32)
    return x, (x @ np.random.default_rng(99).standard_normal((FEATURES, CLASSES))).argmax(axis=1)


X, Y = data()


def fit(net: fd.Sequential, *arguments: Any, **keywords: Any) -> History:
    return training.fit(net, *arguments, **{"progress": False, **keywords})


def assert_same_weights(one: fd.Sequential, two: fd.Sequential) -> None:
    states = one.state_dict(), two.state_dict()
    assert list(states[0]) == list(states[1])
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)


def test_fit_is_the_loop_written_out() -> None:
    net, optimizer = network(), optim.SGD(0.1, momentum=0.9)
    history = fit(net, X, Y, epochs=3, batch_size=8, optimizer=optimizer)
    other, its = network(), optim.SGD(0.1, momentum=0.9)
    expected: dict[str, list[float]] = {"loss": [], "accuracy": []}
    for epoch in range(3):
        order = rng.shuffle_order(1, epoch, ROWS)
        total, hits = 0.0, 0
        for start in range(0, ROWS, 8):
            rows = order[start : start + 8]
            logits, backward = other.forward(X[rows], training=True)
            loss, dlogits = losses.softmax_cross_entropy(logits, Y[rows])
            backward(dlogits)
            its.step(other)
            other.zero_grad()
            total += loss * len(rows)
            hits += int((logits.argmax(axis=1) == Y[rows]).sum())
        expected["loss"].append(total / ROWS)
        expected["accuracy"].append(hits / ROWS)
    assert_same_weights(net, other)
    assert history.history == expected
    assert history.epochs == history.epoch == [0, 1, 2]
    assert (net.step_count, net.epochs_completed, net.output_kind) == (9, 3, "logits")
    assert len(set(expected["loss"])) == 3


def test_train_on_batch_is_the_loop_written_out() -> None:
    net, optimizer, other, its = network(), optim.Adam(0.01), network(), optim.Adam(0.01)
    weights = np.linspace(0, 2, ROWS)
    for step in (None, None, 7, None):
        loss = training.train_on_batch(net, X, Y, optimizer, sample_weight=weights, step=step, row_offset=4)
        logits, backward = other.forward(X, training=True, step=step, row_offset=4)
        expected, dlogits = losses.softmax_cross_entropy(logits, Y, weights)
        backward(dlogits)
        its.step(other)
        other.zero_grad()
        assert loss == expected
    assert_same_weights(net, other)
    assert net.step_count == other.step_count == 3
    assert not any(parameter.grad.any() for parameter in net.parameters())


def test_a_second_fit_goes_on() -> None:
    net, optimizer = network(), optim.SGD(0.1, momentum=0.9)
    whole = fit(net, X, Y, epochs=4, batch_size=8, optimizer=optimizer)
    other, its = network(), optim.SGD(0.1, momentum=0.9)
    first = fit(other, X, Y, epochs=1, batch_size=8, optimizer=its)
    second = fit(other, X, Y, epochs=3, batch_size=8, optimizer=its)
    assert_same_weights(net, other)
    assert whole.history["loss"] == first.history["loss"] + second.history["loss"]
    assert second.epochs == [0, 1, 2]


def test_fit_learns() -> None:
    x, y = data(300)
    net = network()
    history = fit(net, x, y, epochs=30, optimizer=optim.Adam(0.01), validation_data=data(100, seed=5))
    assert history.history["val_accuracy"][-1] > 0.85 > history.history["val_accuracy"][0]
    assert history.history["val_loss"][-1] < 0.5 * history.history["val_loss"][0]


def test_validation_is_evaluate() -> None:
    net, validation = network(), (*data(30, seed=4), np.linspace(0, 1, 30))
    history = fit(net, X, Y, validation_data=validation)
    x, y, weights = validation
    values = training.evaluate(net, x, y, sample_weight=weights)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert values == {"loss": history.history["val_loss"][0], "accuracy": history.history["val_accuracy"][0]}
    logits = net(x)
    assert values["loss"] == pytest.approx(losses.softmax_cross_entropy(logits, y, weights)[0], rel=1e-6)
    assert values["accuracy"] == (logits.argmax(1) == y).mean()


def test_evaluate_does_not_depend_on_the_batches() -> None:
    net = network()
    whole = training.evaluate(net, X, Y, batch_size=1000)
    for batch_size in (1, 7, 22):
        values = training.evaluate(net, X, Y, batch_size=batch_size)
        assert values["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert values["accuracy"] == whole["accuracy"]
    assert (net.step_count, net.output_kind) == (0, None)


def test_evaluate_takes_the_loss_that_fits_the_outputs() -> None:
    net = network()
    fit(net, X, np.eye(CLASSES)[Y], loss="mean_squared_error")
    assert net.output_kind == "values"
    expected = losses.mean_squared_error(net(X), np.eye(CLASSES)[Y])[0]
    assert training.evaluate(net, X, np.eye(CLASSES)[Y])["loss"] == pytest.approx(expected)


def test_without_shuffling_rows_come_in_order() -> None:
    net, other = network(), network()
    fit(net, X, Y, batch_size=8, shuffle=False, optimizer=optim.SGD(0.1))
    optimizer = optim.SGD(0.1)
    for start in range(0, ROWS, 8):
        training.train_on_batch(other, X[start : start + 8], Y[start : start + 8], optimizer)
    assert_same_weights(net, other)


def test_the_loss_of_fit_includes_penalties() -> None:
    net = network(weight_regularizer="l2")
    penalty, validation = net.penalty(), (X, Y)
    assert penalty > 0.01
    plain = fit(network(), X, Y, batch_size=ROWS, shuffle=False, optimizer=optim.SGD(0.0))
    history = fit(net, X, Y, batch_size=ROWS, shuffle=False, optimizer=optim.SGD(0.0), validation_data=validation)
    assert history.history["loss"][0] == pytest.approx(plain.history["loss"][0] + penalty, rel=1e-12)
    bare = losses.softmax_cross_entropy(net(X), Y)[0]
    assert history.history["val_loss"][0] == pytest.approx(bare + penalty, rel=1e-6)
    assert training.train_on_batch(net, X, Y, optim.SGD(0.0), step=0) == pytest.approx(plain.history["loss"][0], rel=1e-12)


def test_rows_of_weight_zero_change_nothing() -> None:
    net, other = network(), network()
    weights = np.repeat([1.0, 0.0], 11)
    spoiled = np.where(weights == 1, Y, (Y + 1) % CLASSES)
    for each, labels in ((net, Y), (other, spoiled)):
        fit(each, X, labels, sample_weight=weights, optimizer=optim.SGD(0.1))
    assert_same_weights(net, other)


@pytest.mark.parametrize("labels", [Y.tolist(), Y[:, None], Y.astype(np.uint8), np.eye(CLASSES)[Y]])
def test_forms_of_labels(labels: Any) -> None:
    net, other = network(), network()
    one = fit(net, X, Y, epochs=2, optimizer=optim.SGD(0.1))
    two = fit(other, X, labels, epochs=2, optimizer=optim.SGD(0.1))
    assert one.history["accuracy"] == two.history["accuracy"]
    assert one.history["loss"] == pytest.approx(two.history["loss"], rel=1e-6)


def test_smoothed_labels() -> None:
    net = network()
    history = fit(net, X, losses.smooth(Y, 0.2, CLASSES), optimizer="sgd")
    assert history.history["loss"][0] > 0
    assert net.output_kind == "logits"


@pytest.mark.parametrize(("dtype", "other"), [("float32", "float64"), ("float64", "float32")])
def test_inputs_of_the_other_dtype_are_converted(dtype: str, other: str) -> None:
    net, same = network(dtype=dtype), network(dtype=dtype)
    fit(net, X.astype(other), Y, optimizer=optim.SGD(0.1))
    fit(same, X.astype(dtype), Y, optimizer=optim.SGD(0.1))
    assert_same_weights(net, same)


def test_losses_and_metrics_of_the_user() -> None:
    def absolute(outputs: Array, labels: Array, sample_weight: Any = None, normalizer: Any = None) -> tuple[float, Array]:
        targets = np.eye(CLASSES, dtype=outputs.dtype)[labels]
        rows = len(outputs) if normalizer is None else normalizer
        return float(np.abs(outputs - targets).sum() / rows), np.sign(outputs - targets) / rows

    def largest(outputs: Array, labels: Array) -> Array:
        return outputs.max(axis=1)

    def rows(outputs: Array, labels: Array) -> int:
        return len(labels)

    net = network()
    history = fit(net, X, Y, epochs=3, batch_size=11, optimizer=optim.SGD(0.1), loss=absolute, metrics=[largest, rows])
    assert list(history.history) == ["loss", "largest", "rows"]
    assert history.history["loss"][2] < history.history["loss"][0]
    assert history.history["rows"] == [11.0] * 3
    assert net.output_kind is None


def test_binary_classification() -> None:
    x, y = data(200)
    net = fd.Sequential([fd.Dense(1)], input_shape=(FEATURES,), seed=0)
    history = fit(net, x, y == 1, epochs=30, loss="sigmoid_cross_entropy", optimizer=optim.Adam(0.05))
    assert net.output_kind == "sigmoid_logits"
    assert history.history["accuracy"][-1] == pytest.approx(((net(x)[:, 0] > 0) == (y == 1)).mean(), abs=0.05)
    assert history.history["accuracy"][-1] > 0.7


def test_images_and_unbuilt_networks() -> None:
    x = X.reshape(ROWS, FEATURES, 1)
    net = fd.Sequential([fd.Flatten(), fd.Dense(CLASSES)], seed=0)
    fit(net, x, Y)
    assert net.parameters()[0].value.shape == (FEATURES, CLASSES)


def test_rows_with_middle_axes() -> None:
    x = np.random.default_rng(0).standard_normal((12, 4, FEATURES)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, CLASSES, (12, 4))
    net = fd.Sequential([fd.Dense(CLASSES)], input_shape=(4, FEATURES), seed=0)
    history = fit(net, x, y, batch_size=5, sample_weight=np.ones(12))
    assert training.evaluate(net, x, y)["accuracy"] == (net(x).argmax(-1) == y).mean()
    assert 0 < history.history["loss"][0] < 10


def test_no_epochs() -> None:
    net = network()
    before = net.state_dict()
    assert fit(net, X, Y, epochs=0) == History()
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_gradients_left_behind_do_not_enter_fit() -> None:
    net, other = network(), network()
    for parameter in net.parameters():
        parameter.grad = np.ones(parameter.value.shape, np.float32)
    for each in (net, other):
        fit(each, X, Y, optimizer=optim.SGD(0.1))
    assert_same_weights(net, other)


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_train_begin(self) -> None:
        self.calls.append(("train_begin",))

    def on_train_end(self) -> None:
        self.calls.append(("train_end",))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        self.calls.append(("epoch_begin", epoch, sorted(logs)))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.calls.append(("epoch_end", epoch, sorted(logs), self.net.epochs_completed))
        logs["added"] = 1.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float]) -> None:
        self.calls.append(("batch_begin", batch))

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self.calls.append(("batch_end", batch, sorted(logs)))


def test_hooks_are_called_in_order() -> None:
    recorder = Recorder()
    optimizer = optim.SGD()
    history = fit(network(), X, Y, epochs=2, batch_size=16, optimizer=optimizer, callbacks=[recorder], validation_data=(X, Y))
    step = [[("batch_begin", b), ("batch_end", b, ["accuracy", "loss"])] for b in range(2)]
    keys = ["accuracy", "loss", "val_accuracy", "val_loss"]
    epochs = [[("epoch_begin", e, []), *step[0], *step[1], ("epoch_end", e, keys, e + 1)] for e in range(2)]
    assert recorder.calls == [("train_begin",), *epochs[0], *epochs[1], ("train_end",)]
    assert history.history["added"] == [1.0, 1.0]
    assert recorder.optimizer is optimizer


def test_stop_training_ends_the_epoch_in_hand() -> None:
    class Stopper(Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
            self.stop_training = self.net.step_count == 4

    net = network()
    history = fit(net, X, Y, epochs=5, batch_size=8, callbacks=[Stopper()])
    assert (net.step_count, net.epochs_completed, history.epochs) == (4, 2, [0, 1])


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(2), 3, True])
def test_logs_of_callbacks_are_numbers(value: Any) -> None:
    log = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(extra=value))
    history = fit(network(), X, Y, callbacks=[log])
    assert history.history["extra"] == [float(value)]
    assert type(history.history["extra"][0]) is float


def test_logs_of_callbacks_that_are_no_numbers() -> None:
    log = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(extra="good"))
    with pytest.raises(ArgumentTypeError, match=r"`logs\['extra'\]` must be a number, got str"):
        fit(network(), X, Y, callbacks=[log])


# Bad input

NET = network()
OPTIMIZER = optim.SGD(0.1)
NAN_WEIGHTS = np.full(ROWS, np.nan)

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epochs": -1}, ArgumentValueError, "`epochs` must be at least 0, got -1"),
    ({"epochs": 1.5}, ArgumentTypeError, "`epochs` must be an integer, got float"),
    ({"batch_size": 0}, ArgumentValueError, "`batch_size` must be at least 1, got 0"),
    ({"x": X.astype(int)}, ArgumentTypeError, "`x` must be a float32 or float64 array, got int64"),
    ({"x": X[:, :3]}, ArgumentValueError, "got"),
    ({"x": X[:0], "y": Y[:0]}, ArgumentValueError, "`x` must be of at least one row, got shape (0, 5)"),
    ({"x": "digits"}, ArgumentTypeError, "`x` must be an array, got str"),
    ({"y": Y[:-1]}, ArgumentValueError, "`y` must be of as many rows as `x` (22), got 21 rows"),
    ({"y": 3}, ArgumentValueError, "`y` must be of as many rows as `x` (22), got shape ()"),
    ({"y": Y + 1}, ArgumentValueError, "`y` must be class numbers in [0, 2], got 3 at position"),
    ({"y": Y - 1}, ArgumentValueError, "`y` must be class numbers in [0, 2], got -1 at position"),
    ({"y": Y.astype(float)}, ArgumentTypeError, "`y` must be class numbers (integers) or targets of 3 columns, got float64"),
    ({"y": None}, ArgumentTypeError, "`y` must be an array, got NoneType"),
    ({"loss": "hinge"}, ArgumentValueError, "`loss` must be one of"),
    ({"loss": 3}, ArgumentTypeError, "`loss` must be one of"),
    ({"optimizer": "rmsprop"}, ArgumentValueError, "`optimizer` must be one of adam, adamw, sgd"),
    ({"optimizer": optim.SGD}, ArgumentTypeError, "`optimizer` must be an optimiser such as"),
    ({"metrics": "accuracy"}, ArgumentTypeError, "`metrics` must be a list or tuple"),
    ({"metrics": ["f1"]}, ArgumentValueError, "`metrics` must be one of accuracy, mean_absolute_error"),
    ({"sample_weight": np.ones(3)}, ArgumentValueError, "`sample_weight` must be of shape (22,), got (3,)"),
    ({"sample_weight": NAN_WEIGHTS}, ArgumentValueError, "`sample_weight` must be finite, got nan at position 0"),
    ({"shuffle": 1}, ArgumentTypeError, "`shuffle` must be True or False, got int"),
    ({"progress": "bar"}, ArgumentTypeError, "`progress` must be True or False, got str"),
    ({"callbacks": [print]}, ArgumentTypeError, "`callbacks` must be a list of fastdrop.callbacks.Callback"),
    ({"callbacks": Recorder()}, ArgumentTypeError, "`callbacks` must be a list of callbacks, got Recorder"),
    ({"validation_data": X}, ArgumentValueError, "`validation_data` must be (x, y) or (x, y, sample_weight), got 22 entries"),
    ({"validation_data": 0.2}, ArgumentTypeError, "`validation_data` must be (x, y) or (x, y, sample_weight), got float"),
    ({"validation_data": (X, Y[1:])}, ArgumentValueError, "`validation y` must be of as many rows as `validation x` (22)"),
    ({"validation_data": (X, Y + 1)}, ArgumentValueError, "`validation y` must be class numbers in [0, 2]"),
    ({"resume": "nowhere.safetensors"}, MissingFileError, "nowhere.safetensors: no such file"),
    ({"resume": 3}, ArgumentTypeError, "`resume` must be a path, got int"),
]


@pytest.mark.parametrize(("change", "kind", "text"), BAD)
def test_bad_input_of_fit_changes_nothing(change: dict[str, Any], kind: type[Exception], text: str) -> None:
    before = NET.state_dict()
    arguments = {"x": X, "y": Y, "optimizer": OPTIMIZER, **change}
    with pytest.raises(kind) as caught:
        fit(NET, arguments.pop("x"), arguments.pop("y"), **arguments)
    assert text in str(caught.value)
    assert (NET.step_count, NET.epochs_completed, NET.output_kind, OPTIMIZER.iterations) == (0, 0, None, 0)
    for name, array in NET.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"labels": Y + 1}, ArgumentValueError, "`labels` must be class numbers in [0, 2]"),
        ({"labels": Y[1:]}, ArgumentValueError, "`labels` must be of shape (22,) (class numbers) or (22, 3) (targets)"),
        ({"x": X.astype(int)}, ArgumentTypeError, "`x` must be a float32 or float64 array"),
        ({"optimizer": "sgd"}, ArgumentTypeError, "`optimizer` must be an optimiser such as fastdrop.optim.SGD(0.01), got str"),
        ({"loss": "hinge"}, ArgumentValueError, "`loss` must be one of"),
        ({"sample_weight": np.ones(3)}, ArgumentValueError, "`sample_weight` must be of shape (22,), got (3,)"),
        ({"step": -1}, ArgumentValueError, "`step` must be in [0, 4294967295], got -1"),
        ({"row_offset": -1}, ArgumentValueError, "`row_offset` must be in"),
        ({"optimizer": optim.SGD(lambda step: -1)}, ArgumentValueError, "`learning_rate` must be in [0, inf), got -1.0"),
    ],
)
def test_bad_input_of_train_on_batch_changes_nothing(change: dict[str, Any], kind: type[Exception], text: str) -> None:
    net = network()
    before = net.state_dict()
    with pytest.raises(kind) as caught:
        training.train_on_batch(net, **{"x": X, "labels": Y, "optimizer": optim.SGD(0.1), **change})
    assert text in str(caught.value)
    assert (net.step_count, net.output_kind) == (0, None)
    assert not any(parameter.grad.any() for parameter in net.parameters())
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"batch_size": 0}, ArgumentValueError, "`batch_size` must be at least 1, got 0"),
        ({"y": Y[1:]}, ArgumentValueError, "`y` must be of as many rows as `x`"),
        ({"loss": "hinge"}, ArgumentValueError, "`loss` must be one of"),
        ({"metrics": ["loss"]}, ArgumentValueError, "`metrics` must be one of"),
    ],
)
def test_bad_input_of_evaluate(change: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        training.evaluate(NET, **{"x": X, "y": Y, **change})
    assert text in str(caught.value)


# Ctrl-C


def interrupting(step: int, times: int = 1) -> LambdaCallback:
    """A callback that presses Ctrl-C while step number `step` runs."""

    def press(batch: int, logs: dict[str, float]) -> None:
        if len(pressed) < step:
            pressed.append(batch)
            if len(pressed) == step:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

    pressed: list[int] = []
    return LambdaCallback(on_train_batch_begin=press)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_ctrl_c_waits_for_the_end_of_the_step(step: int) -> None:
    net, optimizer, recorder = network(), optim.SGD(0.1), Recorder()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(net, X, Y, epochs=5, batch_size=8, optimizer=optimizer, callbacks=[interrupting(step), recorder])
    assert signal.getsignal(signal.SIGINT) is handler
    assert net.step_count == optimizer.iterations == step
    assert recorder.calls[-2:] == [("batch_end", (step - 1) % 3, ["accuracy", "loss"]), ("train_end",)]
    assert optimizer.progress is not None
    assert optimizer.progress.interrupted
    assert (optimizer.progress.epoch, optimizer.progress.position) == ((step - 1) // 3, (step - 1) % 3 + 1)


def test_a_second_ctrl_c_is_immediate() -> None:
    net, recorder = network(), Recorder()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(net, X, Y, batch_size=8, callbacks=[interrupting(2, times=2), recorder])
    assert signal.getsignal(signal.SIGINT) is handler
    assert net.step_count == 1
    assert recorder.calls[-1][0] == "batch_end"


def test_ctrl_c_in_the_last_step_is_not_lost() -> None:
    net, optimizer = network(), optim.SGD(0.1)
    with pytest.raises(KeyboardInterrupt):
        fit(net, X, Y, batch_size=8, optimizer=optimizer, callbacks=[LambdaCallback(on_epoch_end=lambda *_: _press())])
    assert net.epochs_completed == 1
    assert optimizer.progress is not None
    assert not optimizer.progress.interrupted


def test_ctrl_c_between_epochs() -> None:
    net, optimizer = network(), optim.SGD(0.1)
    with pytest.raises(KeyboardInterrupt):
        fit(net, X, Y, epochs=3, optimizer=optimizer, callbacks=[LambdaCallback(on_epoch_end=lambda *_: _press())])
    assert net.epochs_completed == 1
    assert optimizer.progress is not None
    assert optimizer.progress.interrupted
    assert optimizer.progress.history.epochs == [0]


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_other_threads_leave_ctrl_c_alone() -> None:
    seen = []

    def work() -> None:
        look = LambdaCallback(on_epoch_end=lambda *_: seen.append(signal.getsignal(signal.SIGINT)))
        fit(network(), X, Y, callbacks=[look])

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]


def test_ignored_interrupts_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = fit(network(), X, Y, epochs=2, callbacks=[interrupting(1)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert history.epochs == [0, 1]


# What is shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    training.fit(network(), X, Y, epochs=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert " s - loss: " in lines[0]
    assert " - accuracy: " in lines[0]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    training.fit(network(), X, Y, epochs=2, batch_size=8)
    shown = terminal.getvalue()
    assert "epoch 2/2: 100%" in shown
    assert "3/3" in shown
    assert "loss: " in shown


def test_an_interrupted_bar_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyboardInterrupt):
        training.fit(network(), X, Y, batch_size=8, callbacks=[interrupting(2)])
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize("stream", [None, Terminal()])
def test_nothing_when_nothing_is_wanted(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    training.fit(network(), X, Y, progress=stream is None)
    assert stream is None or stream.getvalue() == ""
