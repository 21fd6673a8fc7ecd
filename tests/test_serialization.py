"""Model files: what comes back, hostile files, files that cannot be written."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import fastdrop as fd
from fastdrop import _files, serialization
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FastdropError, FileFormatError, MissingFileError, OutputError

pytestmark = pytest.mark.usefixtures("without_fsync")

X = np.random.default_rng(0).standard_normal((7, 4, 3)).astype(np.float32)


def network(dtype: str = "float32") -> fd.Sequential:
    block = fd.Residual([fd.Dense(6, activation="gelu"), fd.Dropout(0.1), fd.Dense(12)])
    layers = [
        fd.Flatten(),
        fd.Dropout(0.25, noise_shape=(None, 1), seed=5),
        block,
        fd.Dropout(0.5, shared_rows=2, stream=9, mode="downscale_in_infer"),
        fd.Dense(5, activation="relu", weight_regularizer="l2", weight_constraint=fd.MaxNorm(3.0), bias_initializer="ones"),
        fd.Activation("tanh"),
        fd.Dense(2, use_bias=False),
    ]
    net = fd.Sequential(layers, input_shape=(4, 3), seed=2**63, dtype=dtype)
    net.output_kind, net.labels, net.step_count, net.epochs_completed = "logits", ["cat", "dög"], 17, 3
    return net


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    serialization.save(network(), path)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_of_a_network_comes_back(dtype: str, tmp_path: Path) -> None:
    net, path = network(dtype), tmp_path / "model"
    net.parameters()[0].value = net.parameters()[0].value * 1.5
    serialization.save(net, path)
    again = fd.load(str(path))
    np.testing.assert_array_equal(again(X), net(X))
    np.testing.assert_array_equal(again.forward(X, True)[0], net.forward(X, True)[0])
    facts = [(n.seed, n.step_count, n.epochs_completed, n.output_kind, n.labels, n.dtype, n.get_config()) for n in (net, again)]
    assert facts[0] == facts[1]
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
        assert again.state_dict()[name].dtype == np.dtype(dtype)
    assert again.penalty() == net.penalty() > 0


def test_tensors_have_the_names_of_the_parameters(saved: Path) -> None:
    tensors = load_file(saved)
    assert set(tensors) == set(network().state_dict())
    assert "2.0.weight" in tensors


def test_saving_twice_gives_the_same_file(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    serialization.save(fd.load(saved), again)
    facts = [_files.read(path).facts for path in (saved, again)]
    assert facts[0] == facts[1]


def test_metadata_say_what_the_file_is(saved: Path) -> None:
    size = struct.unpack("<Q", saved.read_bytes()[:8])[0]
    metadata = json.loads(saved.read_bytes()[8 : 8 + size])["__metadata__"]
    assert metadata["format"] == "fastdrop"
    assert (metadata["format_version"], metadata["mask_contract"], metadata["kind"]) == ("1", "1", "model")
    assert metadata["package_version"] == fd.__version__


def test_an_existing_file_is_replaced_and_keeps_its_mode(saved: Path) -> None:
    saved.chmod(0o640)
    net = network()
    net.labels = None
    serialization.save(net, saved)
    assert fd.load(saved).labels is None
    assert stat.S_IMODE(saved.stat().st_mode) == 0o640
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_link_is_followed(saved: Path) -> None:
    link = saved.parent / "link"
    link.symlink_to(saved)
    saved.write_bytes(b"")
    serialization.save(network(), link)
    assert link.is_symlink()
    assert fd.load(saved).seed == 2**63


def test_new_files_have_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        serialization.save(network(), tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o644


def test_nothing_is_pickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("load", "loads", "Unpickler", "dump", "dumps", "Pickler"):
        monkeypatch.delattr(pickle, name)
    serialization.save(fd.load(saved), saved)
    assert fd.load(saved).state_dict().keys() == network().state_dict().keys()


# Files that cannot be written


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none/model", "cannot be written: there is no folder"),
        (".", "cannot be written: it is a folder"),
        ("x" * 300, "cannot be written"),
        ("/dev/null", "/dev/null: cannot be written: it is no regular file"),
    ],
)
def test_targets_that_cannot_be_written(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        serialization.save(network(), tmp_path / name)
    assert text in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(caught.value, OSError)


def test_a_folder_without_permission(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="cannot be written: no permission in the folder"):
        serialization.save(network(), saved)


@pytest.mark.parametrize("failing", ["os.replace", "os.fsync"])
def test_a_full_disk_leaves_the_old_file(failing: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(failing, fail)
    with pytest.raises(OutputError, match=r"model\.safetensors: cannot be written: No space left on device"):
        serialization.save(network(), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(("path", "kind"), [(3, ArgumentTypeError), (None, ArgumentTypeError), ("a\0b", ArgumentValueError)])
def test_bad_paths(path: Any, kind: type[Exception]) -> None:
    for call in (lambda: serialization.save(network(), path), lambda: fd.load(path)):
        with pytest.raises(kind, match="`path` must be"):
            call()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("labels", [1, 2], "`labels` must be strings, got int"),
        ("labels", "ab", "`labels` must be a list or tuple, got str"),
        ("output_kind", "odds", "`output_kind` must be one of"),
    ],
)
def test_facts_that_could_not_be_read_again(name: str, value: Any, text: str, saved: Path) -> None:
    net, before = network(), saved.read_bytes()
    setattr(net, name, value)
    with pytest.raises((ArgumentTypeError, ArgumentValueError)) as caught:
        serialization.save(net, saved)
    assert text in str(caught.value)
    assert saved.read_bytes() == before


# Files that are not what they should be


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="none: no such file"):
        fd.load(tmp_path / "none")
    with pytest.raises(FileFormatError, match="must be a file, got a folder or device"):
        fd.load(tmp_path)
    assert issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(FileFormatError, ValueError)


def header(text: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text


RAW: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x01\x02",
    "text": b"epoch,loss\n0,1.5\n" * 10,
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94",
    "huge header": header(b"{}", 2**63),
    "header beyond the file": header(b"{}", 1000),
    "no JSON": header(b"not json at all"),
    "deep JSON": header(b'{"__metadata__":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "tensor beyond the file": header(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'),
    "sizes that overflow": header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + b"1234",
    "unknown dtype": header(b'{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}}') + b"1234",
}


@pytest.mark.parametrize("name", sorted(RAW))
def test_files_of_no_format(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(RAW[name])
    with pytest.raises(
        FileFormatError, match=r"model: (truncated, damaged or no safetensors file|a safetensors file, but no model)"
    ):
        fd.load(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0.0, 0.999))
def test_truncated_files(fraction: float, saved: Path) -> None:
    whole = saved.read_bytes()
    path = saved.parent / "cut"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(FileFormatError, match="cut: "):
        fd.load(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 3000), value=st.integers(0, 255))
def test_a_changed_byte_in_the_header_is_an_error_or_harmless(position: int, value: int, saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    data[position % (struct.unpack("<Q", data[:8])[0] + 8)] = value
    path = saved.parent / "changed"
    path.write_bytes(bytes(data))
    with contextlib.suppress(FileFormatError):
        assert fd.load(path)(X).shape == (7, 2)


def test_files_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for metadata in (None, {"format": "pt"}, {"format": "fastdrop"}, {"format": "fastdrop", "kind": "song", "facts": "{}"}):
        save_file({"a": np.zeros(3, np.float32)}, path, metadata)
        with pytest.raises(FileFormatError, match="a safetensors file, but no model or checkpoint of fastdrop"):
            fd.load(path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format_version": "2", "package_version": "9.0"}, "`format_version` must be 1, got '2' (written by version '9.0'"),
        ({"mask_contract": "2"}, "`mask_contract` must be 1, got '2'"),
        ({"facts": "[1, 2"}, "truncated, damaged or no safetensors file"),
        ({"facts": "[1, 2]"}, "facts must be an object, got list"),
        ({"facts": "[" * 100000}, "truncated, damaged or no safetensors file"),
        ({"facts": "{}"}, "config is missing"),
    ],
)
def test_metadata_that_do_not_fit(change: dict[str, str], text: str, saved: Path) -> None:
    data = saved.read_bytes()
    metadata = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    save_file(load_file(saved), saved, {**metadata, **change})
    with pytest.raises(FileFormatError) as caught:
        fd.load(saved)
    assert text in str(caught.value)
    assert "model.safetensors: " in str(caught.value)


def nested(levels: int) -> dict[str, Any]:
    config: dict[str, Any] = {"class": "Dense", "units": 2}
    for _ in range(levels):
        config = {"class": "Sequential", "layers": [config]}
    return config


Change = Callable[[_files.Container], None]

HOSTILE: dict[str, tuple[Change, str]] = {
    "no config": (lambda c: c.facts.pop("config"), "config is missing"),
    "config is a list": (lambda c: c.facts.update(config=[]), "`config` must be a dict"),
    "config of another class": (lambda c: c.facts.update(config={"class": "Dense", "units": 2}), "`config` must be"),
    "unknown class": (lambda c: c.facts["config"]["layers"][0].update({"class": "os.system"}), "must be one of"),
    "unknown argument": (lambda c: c.facts["config"]["layers"][0].update(command="rm"), "a description of a Flatten"),
    "rate out of range": (lambda c: c.facts["config"]["layers"][1].update(rate=1.5), "`rate` must be in [0, 1], got 1.5"),
    "huge layer": (lambda c: c.facts["config"]["layers"][6].update(units=10**15), "6.weight"),
    "layers is a number": (lambda c: c.facts["config"].update(layers=7), "layers"),
    "deep nesting": (lambda c: c.facts.update(config=nested(100)), ""),
    "frozen is a number": (lambda c: c.facts["config"].update(frozen=5), "frozen"),
    "frozen is unknown": (lambda c: c.facts["config"].update(frozen=["9.weight"]), "frozen"),
    "built shape is a string": (lambda c: c.facts["config"].update(built_shape="big"), "must be"),
    "missing tensor": (lambda c: c.tensors.pop("4.bias"), "4.bias"),
    "unknown tensor": (lambda c: c.tensors.update({"7.weight": np.zeros(3, np.float32)}), "7.weight"),
    "wrong shape": (lambda c: c.tensors.update({"4.bias": np.zeros(6, np.float32)}), "4.bias"),
    "wrong dtype": (lambda c: c.tensors.update({"4.bias": np.zeros(5, np.int32)}), "4.bias"),
    "other dtype": (lambda c: c.facts.update(dtype="float64"), "`dtype` must be that of the network (float32), got float64"),
    "negative steps": (lambda c: c.facts.update(step_count=-1), "`step_count` must be in [0, 4294967296], got -1"),
    "no seed": (lambda c: c.facts.pop("seed"), "seed is missing"),
    "seed too large": (lambda c: c.facts.update(seed=2**64), "`seed` must be in"),
    "unknown output kind": (lambda c: c.facts.update(output_kind="odds"), "`output_kind` must be one of"),
    "labels are a number": (lambda c: c.facts.update(labels=3), "`labels` must be a list or tuple, got int"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_facts(name: str, saved: Path) -> None:
    change, text = HOSTILE[name]
    container = _files.read(saved)
    change(container)
    _files.write(saved, container)
    with pytest.raises(FileFormatError) as caught:
        fd.load(saved)
    assert text in str(caught.value)
    assert "model.safetensors: " in str(caught.value)
    assert isinstance(caught.value, FastdropError)
