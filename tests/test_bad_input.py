"""One table of bad input over the whole public interface.

Every case names the exception and the essential words of its message; nothing may have changed afterwards: weights, gradients and
counters of the network, state of the optimiser, the arrays that were passed in, and every file in the folder.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastdrop as fd
from fastdrop.callbacks import CSVLogger, EarlyStopping, LambdaCallback, ModelCheckpoint
from fastdrop.cli.app import run
from fastdrop.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    FileFormatError,
    MissingFileError,
    OutputError,
    StaleBackwardError,
    StateError,
)

KEY = fd.Key(1, 0, 0)
LOSS = "softmax_cross_entropy"


class CommandError(Exception):
    """What a command wrote on stderr, after its exit code."""


@dataclass
class World:
    """A trained network and all that can be done wrong with it, in a folder with files that must survive."""

    folder: Path
    net: fd.Sequential
    optimizer: fd.optim.SGD
    x: np.ndarray
    y: np.ndarray

    def mask(self, rate: float = 0.5, **options: Any) -> fd.Mask:
        return fd.Mask(rate, KEY, **options)

    def fit(self, **options: Any) -> Any:
        arguments = {"x": self.x, "y": self.y, "epochs": 1, "batch_size": 4, "optimizer": self.optimizer, "progress": False}
        return self.net.fit(**(arguments | options))

    def file(self, name: str, content: bytes = b"") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def command(self, *arguments: str) -> None:
        """Run a command of the program; raise a CommandError unless it succeeds."""
        text = io.StringIO()
        with contextlib.redirect_stderr(text):
            code = run(list(arguments))
        if code:
            raise CommandError(f"exit {code}: {text.getvalue()}")

    def state(self) -> list[Any]:
        """Everything that bad input must leave alone."""
        parameters = [(p.name, p.value.tobytes(), p.grad.tobytes(), p.trainable) for p in self.net.parameters()]
        slots = {name: {slot: array.tobytes() for slot, array in slots.items()} for name, slots in self.optimizer.state.items()}
        counters = (self.net.step_count, self.net.epochs_completed, self.net.output_kind, self.net.labels, self.net.seed)
        return [parameters, slots, counters, self.optimizer.iterations, self.x.tobytes(), self.y.tobytes()]

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(12, 5)).astype(np.float32), rng.integers(0, 3, 12)
    net = fd.Sequential([fd.Dense(4, activation="relu"), fd.Dropout(0.5), fd.Dense(3)], input_shape=(5,), seed=2)
    optimizer = fd.optim.SGD(0.1, momentum=0.9)
    net.fit(x, y, epochs=1, batch_size=4, optimizer=optimizer, loss=LOSS, progress=False)
    net.save(tmp_path / "model.safetensors")
    fd.save_checkpoint(tmp_path / "checkpoint.safetensors", net, optimizer)
    (tmp_path / "folder").mkdir()
    return World(tmp_path, net, optimizer, x, y)


@dataclass(frozen=True)
class Case:
    name: str
    error: type[BaseException]
    words: str
    action: Callable[[World], Any]


def safetensors_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def rewritten(world: World, **changes: str) -> Path:
    """A copy of the model with other metadata."""
    content = (world.folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= changes
    return world.file("other.safetensors", safetensors_file(json.dumps(header).encode(), content[8 + length :]))


def model_bytes(world: World) -> bytes:
    return (world.folder / "model.safetensors").read_bytes()


def stale(world: World) -> Any:
    y, backward = world.net.forward(world.x, True, step=0)
    weight = world.net.parameters()[0]
    before = weight.value.copy()
    weight.value = before
    return backward(np.ones_like(y))


def overlapping(world: World) -> Any:
    buffer = np.zeros(20, np.float32)
    return fd.dropout(buffer[:16], world.mask(), out=buffer[4:])


def read_only(world: World) -> np.ndarray:
    out = np.empty_like(world.x)
    out.flags.writeable = False
    return out


def dense_out_is_weight(world: World) -> Any:
    square = np.ones((5, 5), np.float32)
    return fd.dense(square.copy(), square, out=square)


IDX_HEADER = struct.pack(">4B3I", 0, 0, 8, 3, 2, 2, 2)
A, V, F = ArgumentTypeError, ArgumentValueError, FileFormatError

MASKS = [
    Case("rate above 1", V, "`rate` must be in [0, 1], got 1.5", lambda w: w.mask(1.5)),
    Case("rate below 0", V, "`rate` must be in [0, 1], got -0.1", lambda w: fd.Dropout(-0.1)),
    Case("rate NaN", V, "`rate` must be in [0, 1], got nan", lambda w: fd.Dropout(float("nan"))),
    Case("rate is text", A, "`rate` must be a number, got str", lambda w: w.mask("0.5")),
    Case("rate is a bool", A, "`rate` must be a number, got bool", lambda w: fd.Dropout(True)),
    Case("key is a number", A, "`key` must be a fastdrop.Key, got int", lambda w: fd.Mask(0.5, 3)),
    Case("seed of 65 bits", V, "`seed` must be in [0, 18446744073709551615]", lambda w: fd.Key(2**64, 0, 0)),
    Case("negative step", V, "`step` must be in [0, 4294967295], got -1", lambda w: KEY.at(-1)),
    Case("stream is a float", A, "`stream` must be an integer, got float", lambda w: KEY.on(1.0)),
    Case("fold_in too far", V, "`i` must be in [0, 72057594037927935]", lambda w: KEY.fold_in(2**56)),
    Case("noise shape of another rank", V, "of the rank of x (2)", lambda w: fd.dropout(w.x, w.mask(noise_shape=(1,)))),
    Case("noise shape that does not fit", V, "1, None or the extent", lambda w: fd.dropout(w.x, w.mask(noise_shape=(12, 4)))),
    Case("shared_rows 0", V, "`shared_rows` must be in [1,", lambda w: w.mask(shared_rows=0)),
    Case("shared_rows is a word", V, "`shared_rows` must be one of batch, got 'rows'", lambda w: w.mask(shared_rows="rows")),
    Case("negative row_offset", V, "`row_offset` must be in [0,", lambda w: w.mask(row_offset=-1)),
    Case("elements beyond 2**58", V, "below 2**58", lambda w: fd.dropout(w.x, w.mask(row_offset=2**57))),
    Case("fixed count of one unit", V, "reshape to (1, n)", lambda w: fd.dropout(w.x[:, 0], w.mask(0.3, fixed_count=True))),
]

ARRAYS = [
    Case(
        "integers into dropout",
        A,
        "`x` must be a float32 or float64 array, got uint8",
        lambda w: fd.dropout(w.x.astype("u1"), w.mask()),
    ),
    Case("integers, the fix", A, 'x.astype("float32"), and / 255', lambda w: w.net(w.x.astype(int))),
    Case("half precision", A, "got float16", lambda w: fd.dropout(w.x.astype("f2"), w.mask())),
    Case("complex numbers", A, "got complex64", lambda w: w.net(w.x.astype("c8"))),
    Case("text for x", A, "`x` must be an array, got str", lambda w: fd.dropout("x", w.mask())),
    Case("x without axes", V, "at least one axis", lambda w: fd.dropout(np.float32(1), w.mask())),
    Case("mask is a rate", A, "`mask` must be a fastdrop.Mask", lambda w: fd.dropout(w.x, 0.5)),
    Case(
        "out of another shape", V, "`out` must be of shape (12, 5), got (5, 12)", lambda w: fd.dropout(w.x, w.mask(), out=w.x.T)
    ),
    Case("out of another dtype", A, "`out` must be of dtype float32", lambda w: fd.dropout(w.x, w.mask(), out=np.empty((12, 5)))),
    Case("out that overlaps x", V, "share no memory", overlapping),
    Case("out that is read-only", V, "C-contiguous, aligned and writable", lambda w: fd.dropout(w.x, w.mask(), out=read_only(w))),
    Case("out is a list", A, "`out` must be a NumPy array, got list", lambda w: fd.dropout(w.x, w.mask(), out=[0.0])),
    Case("out is the weight", V, "disjoint from `weight`", dense_out_is_weight),
    Case("gradient of another shape", V, "`dy` must be of shape (12, 5)", lambda w: fd.dropout(w.x, w.mask())[1](w.x[:3])),
    Case("weight that does not fit", V, "of shape (..., 4) to fit `weight`", lambda w: fd.dense(w.x, np.ones((4, 2), "f4"))),
    Case("mixed dtypes", A, "`weight` must be of the dtype of `x` (float32)", lambda w: fd.dense(w.x, np.ones((5, 2)))),
    Case(
        "bias of another length",
        V,
        "`bias` must be of shape (2,)",
        lambda w: fd.dense(w.x, np.ones((5, 2), "f4"), np.ones(3, "f4")),
    ),
    Case(
        "unknown activation",
        V,
        "`activation` must be one of",
        lambda w: fd.dense(w.x, np.ones((5, 2), "f4"), activation="swoosh"),
    ),
]

NETWORKS = [
    Case("no units", V, "`units` must be at least 1, got 0", lambda w: fd.Dense(0)),
    Case("units as a float", A, "`units` must be an integer, got float", lambda w: fd.Dense(1.5)),
    Case(
        "unknown mode", V, "`mode` must be one of downscale_in_infer, upscale_in_train", lambda w: fd.Dropout(0.5, mode="upscale")
    ),
    Case(
        "a layer twice",
        V,
        "`layers` must be different objects, got the same Dense again at 1",
        lambda w: fd.Sequential([layer := fd.Dense(5), layer], input_shape=(5,)),
    ),
    Case("no layers", V, "`layers` must be a sequence of layers of fastdrop, got none", lambda w: fd.Sequential([])),
    Case(
        "something that is no layer",
        A,
        "`layers` must be a sequence of layers of fastdrop, got str at 1",
        lambda w: fd.Sequential([fd.Dense(2), "relu"]),
    ),
    Case(
        "a pinned stream twice",
        V,
        "`stream` must be different for each mask of a network, got 0 twice",
        lambda w: fd.Sequential([fd.Dropout(0.1), fd.Dropout(0.1, stream=0)], input_shape=(5,), seed=0),
    ),
    Case("network dtype", A, '`dtype` must be "float32" or "float64"', lambda w: fd.Sequential([fd.Dense(2)], dtype="float16")),
    Case("x of another width", V, "`x` must be of shape (rows, 5)", lambda w: w.net(w.x[:, :3])),
    Case("training is missing", TypeError, "missing 1 required positional argument: 'training'", lambda w: w.net.forward(w.x)),
    Case("weights changed before backward", StaleBackwardError, "`0.weight` was changed between", stale),
    Case(
        "weight of another shape",
        V,
        "`value` must be of shape (5, 4), got (4, 5)",
        lambda w: setattr(w.net.parameters()[0], "value", np.ones((4, 5), "f4")),
    ),
    Case("state with a name missing", V, "missing ['0.bias'", lambda w: w.net.load_state_dict({"0.weight": np.ones((5, 4))})),
    Case(
        "state with a bad shape",
        V,
        "`2.weight` must be of shape (4, 3), got (2, 2)",
        lambda w: w.net.load_state_dict(w.net.state_dict() | {"2.weight": np.ones((2, 2), "f4")}),
    ),
    Case(
        "probabilities of an untrained net",
        StateError,
        "`output_kind` is not known",
        lambda w: fd.Sequential([fd.Dense(2)]).predict_proba(w.x),
    ),
    Case("clip to nothing", V, "`max_norm` must be in (0, inf", lambda w: w.net.clip_grads(0)),
    Case("negative max-norm", V, "`max_value` must be in [0, inf), got -1.0", lambda w: fd.MaxNorm(-1)),
]

TRAINING = [
    Case("negative epochs", V, "`epochs` must be at least 0, got -1", lambda w: w.fit(epochs=-1)),
    Case("epochs as a float", A, "`epochs` must be an integer, got float", lambda w: w.fit(epochs=1.0)),
    Case("batch size 0", V, "`batch_size` must be at least 1, got 0", lambda w: w.fit(batch_size=0)),
    Case("label out of range", V, "class numbers in [0, 2], got 3", lambda w: w.fit(y=w.y + 1)),
    Case("negative label", V, "class numbers in [0, 2], got -2", lambda w: w.fit(y=w.y - 3)),
    Case(
        "labels as floats",
        A,
        "must be class numbers (integers) or targets of 3 columns, got float64",
        lambda w: w.fit(y=w.y.astype(float)),
    ),
    Case("too few labels", V, "`y` must be of as many rows as `x` (12), got 11 rows", lambda w: w.fit(y=w.y[:-1])),
    Case(
        "one-hot of another width",
        V,
        "(12,) (class numbers) or (12, 3) (targets), got shape (12, 4)",
        lambda w: w.fit(y=np.eye(4, dtype="f4")[w.y]),
    ),
    Case("unknown loss", V, "`loss` must be one of categorical_cross_entropy,", lambda w: w.fit(loss="hinge")),
    Case("unknown optimiser", V, "`optimizer` must be one of adam, adamw, sgd", lambda w: w.fit(optimizer="sdg")),
    Case("unknown metric", V, "`metrics` must be one of accuracy,", lambda w: w.fit(metrics=("precision",))),
    Case(
        "callback that is none",
        A,
        "`callbacks` must be a list of fastdrop.callbacks.Callback",
        lambda w: w.fit(callbacks=[print]),
    ),
    Case("validation data without labels", V, "(x, y) or (x, y, sample_weight)", lambda w: w.fit(validation_data=(w.x,))),
    Case("validation label out of range", V, "class numbers in [0, 2], got 4", lambda w: w.fit(validation_data=(w.x, w.y + 3))),
    Case("nothing to monitor", V, "without validation data", lambda w: w.fit(callbacks=[EarlyStopping()])),
    Case("sample weights NaN", V, "`sample_weight` must be finite, got nan", lambda w: w.fit(sample_weight=np.full(12, np.nan))),
    Case(
        "too few sample weights", V, "`sample_weight` must be of shape (12,), got (3,)", lambda w: w.fit(sample_weight=np.ones(3))
    ),
    Case("negative learning rate", V, "`learning_rate` must be in [0, inf", lambda w: fd.optim.SGD(-0.1)),
    Case("momentum 1.5", V, "`momentum` must be in [0, 1", lambda w: fd.optim.SGD(0.1, momentum=1.5)),
    Case(
        "label for one batch",
        V,
        "class numbers in [0, 2], got 8",
        lambda w: w.net.train_on_batch(w.x, w.y + 7, optimizer=w.optimizer, loss=LOSS),
    ),
    Case("labels for evaluate", V, "class numbers in [0, 2], got 8", lambda w: w.net.evaluate(w.x, w.y + 7, loss=LOSS)),
    Case("smoothing too much", V, "`amount` must be in [0, 1", lambda w: fd.losses.smooth(w.y, 1.5, 3)),
]

FILES = [
    Case("no such model", MissingFileError, "nowhere: no such file", lambda w: fd.load(w.folder / "nowhere")),
    Case("model is a folder", F, "must be a file", lambda w: fd.load(w.folder / "folder")),
    Case("model path is a number", A, "`path` must be a path, got int", lambda w: fd.load(7)),
    Case("empty model", F, "truncated, damaged or no safetensors file", lambda w: fd.load(w.file("m", b""))),
    Case("truncated model", F, "truncated, damaged", lambda w: fd.load(w.file("m", model_bytes(w)[:-5]))),
    Case(
        "model with a huge header", F, "truncated, damaged", lambda w: fd.load(w.file("m", safetensors_file(b"{}", length=2**60)))
    ),
    Case(
        "model with a header that is no JSON", F, "truncated, damaged", lambda w: fd.load(w.file("m", safetensors_file(b"[[[")))
    ),
    Case("pickle for a model", F, "truncated, damaged", lambda w: fd.load(w.file("m", b"\x80\x04cos\nsystem\n(S'true'\ntR."))),
    Case("model of another program", F, "no model or checkpoint of fastdrop", lambda w: fd.load(rewritten(w, format="pt"))),
    Case(
        "model of a newer version",
        F,
        "`format_version` must be 1, got '99'",
        lambda w: fd.load(rewritten(w, format_version="99")),
    ),
    Case("model of another mask contract", F, "`mask_contract` must be 1", lambda w: fd.load(rewritten(w, mask_contract="2"))),
    Case("model without an architecture", F, "config is missing", lambda w: fd.load(rewritten(w, facts="{}"))),
    Case(
        "model with hostile facts",
        F,
        "`config.class` must be one of Activation, AlphaDropout,",
        lambda w: fd.load(rewritten(w, facts='{"config": {"class": "os.system"}}')),
    ),
    Case(
        "a model is no checkpoint",
        F,
        "must be a checkpoint, got a model",
        lambda w: fd.load_checkpoint("model.safetensors", w.net, w.optimizer),
    ),
    Case(
        "checkpoint of another optimiser",
        F,
        "`optimizer.class` must be one of Adam, got 'SGD'",
        lambda w: fd.load_checkpoint("checkpoint.safetensors", w.net, fd.optim.Adam()),
    ),
    Case("resume from nowhere", MissingFileError, "nowhere: no such file", lambda w: w.fit(resume="nowhere")),
    Case("save into a folder that is not there", OutputError, "there is no folder", lambda w: w.net.save(w.folder / "no" / "m")),
    Case("save over a folder", OutputError, "it is a folder", lambda w: w.net.save(w.folder / "folder")),
    Case(
        "checkpoint below a file",
        OutputError,
        "cannot be written",
        lambda w: fd.save_checkpoint("model.safetensors/x", w.net, w.optimizer),
    ),
    Case(
        "callback that cannot write",
        OutputError,
        "no/c: cannot be written: there is no folder",
        lambda w: w.fit(callbacks=[ModelCheckpoint("no/c")]),
    ),
    Case(
        "log that cannot be written",
        OutputError,
        "no/l.csv: cannot be written: there is no folder",
        lambda w: w.fit(callbacks=[CSVLogger("no/l.csv")]),
    ),
    Case("no such data", MissingFileError, "nowhere: no such file or folder", lambda w: fd.data.load("nowhere")),
    Case("a folder without data", MissingFileError, "no known data in this folder", lambda w: fd.data.load("folder")),
    Case(
        "images cut short",
        F,
        "truncated: its header promises 8 bytes",
        lambda w: fd.data.read_idx(w.file("i", IDX_HEADER + b"123")),
    ),
    Case("gzip cut short", F, "damaged, truncated", lambda w: fd.data.read_idx(w.file("i.gz", gzip.compress(IDX_HEADER)[:-9]))),
    Case("CIFAR-10 label", F, "label out of range: 77", lambda w: fd.data.read_cifar10(w.file("c", b"M" + bytes(3072)))),
    Case("archive that is none", F, "damaged, truncated", lambda w: fd.data.load(w.file("a.npz", b"PK\3\4"))),
    Case("table with words", F, "line 2: not a number: 'two'", lambda w: fd.data.load(w.file("t.csv", b"1,2,a\n1,two,b\n"))),
    Case("ragged table", F, "line 2: 2 columns", lambda w: fd.data.load(w.file("t.csv", b"1,2,a\n1,b\n"))),
]

COMMANDS = [
    Case("unknown command", CommandError, "exit 2: Usage: fastdrop", lambda w: w.command("fly")),
    Case("unknown option", CommandError, "No such option", lambda w: w.command("train", "--speed", "9")),
    Case("rate of 1", CommandError, "exit 2:", lambda w: w.command("train", "--rates", "1")),
    Case("rates that are no numbers", CommandError, "no list of numbers", lambda w: w.command("train", "--rates", "a,b")),
    Case(
        "more rates than layers",
        CommandError,
        "`rates` must be one to 2 numbers: there are 2 places for dropout, got 3",
        lambda w: w.command("train", "--hidden", "4", "--rates", "0,0,0"),
    ),
    Case("negative epochs for the program", CommandError, "exit 2:", lambda w: w.command("train", "--epochs", "-1")),
    Case(
        "data that are not there",
        CommandError,
        "exit 1: error: nowhere: no such file",
        lambda w: w.command("train", "--data", "nowhere"),
    ),
    Case(
        "output that cannot be written",
        CommandError,
        "exit 1: error: no/m: cannot be written",
        lambda w: w.command("train", "-o", "no/m"),
    ),
    Case("two outputs of one name", CommandError, "same name", lambda w: w.command("train", "-o", "m.csv", "--history", "m.csv")),
    Case(
        "a plot of no known kind", CommandError, "must end in .png, .svg, .pdf", lambda w: w.command("train", "--plot", "p.docx")
    ),
    Case(
        "too many threads", CommandError, "exit 1: error: `n` must be in [1,", lambda w: w.command("train", "--threads", "99999")
    ),
    Case(
        "resume without a checkpoint", CommandError, "exit 1: error: model-checkpoint", lambda w: w.command("train", "--resume")
    ),
    Case(
        "prediction with no model",
        CommandError,
        "exit 1: error: nowhere: no such file",
        lambda w: w.command("predict", "nowhere", "digits"),
    ),
    Case(
        "prediction of other data",
        CommandError,
        "rows of 64 features, but the network takes 5",
        lambda w: w.command("predict", "model.safetensors", "digits"),
    ),
]

TABLE = MASKS + ARRAYS + NETWORKS + TRAINING + FILES + COMMANDS


def test_the_table_is_long_enough():
    assert len(TABLE) >= 60
    assert len({case.name for case in TABLE}) == len(TABLE)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_bad_input_is_refused_and_nothing_changes(world: World, case: Case):
    before, files = world.state(), world.files()
    with pytest.raises(case.error) as caught:
        case.action(world)
    if case.error is not TypeError:
        assert type(caught.value) is case.error
    assert case.words in str(caught.value)
    assert world.state() == before
    after = world.files()
    assert {name: after.get(name) for name in files} == files


def test_a_refused_command_writes_no_file_at_all(world: World):
    files = world.files()
    for case in COMMANDS:
        with pytest.raises(CommandError):
            case.action(world)
    assert world.files() == files


def test_ctrl_c_in_training_ends_between_two_steps_and_loses_nothing(world: World):
    """What was done so far is what the same steps do one by one, and a checkpoint of it continues."""
    twin = fd.load("model.safetensors")
    other = fd.optim.SGD(0.1, momentum=0.9)
    fd.load_checkpoint("checkpoint.safetensors", twin, other)
    interrupt = LambdaCallback(on_train_batch_end=lambda batch, logs: signal.raise_signal(signal.SIGINT) if batch == 1 else None)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        world.fit(epochs=2, callbacks=[interrupt])
    assert signal.getsignal(signal.SIGINT) is handler
    assert world.optimizer.iterations == other.iterations + 2
    fd.save_checkpoint("stopped.safetensors", world.net, world.optimizer)
    world.fit(epochs=2, resume="stopped.safetensors")
    twin.fit(world.x, world.y, epochs=2, batch_size=4, optimizer=other, progress=False)
    for one, two in zip(world.net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(one.value, two.value)
