"""The command line: results, messages, exit codes, and what is left on disk."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import complaints, interrupting, read

import fastdrop as fd
from fastdrop import _config
from fastdrop.cli.app import run

SMALL = ["--hidden", "16", "--batch-size", "8", "--epochs", "3", "--no-progress"]
"""A network and a run that take no time."""

PNG_MAGIC = b"\x89PNG\r\n"


def test_train_writes_model_history_and_plot(table: str, capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--data", table, *SMALL]) == 0
    out, err = capsys.readouterr()
    assert complaints(err) == []
    assert "data table: 48 training and 12 test rows of 4 features, 2 classes" in out
    assert "network 4-16-2, relu, dropout 0.2/0.5, adam" in out
    shown = re.search(r"^test accuracy (\d+\.\d\d) %, loss (\d\.\d{4})$", out, re.MULTILINE)
    assert shown is not None
    assert sorted(os.listdir()) == ["model-history.csv", "model-history.png", "model.safetensors", "table.csv"]
    header, *rows = read("model-history.csv")
    assert header == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert f"{100 * float(rows[-1][4]):.2f}" == shown[1]
    assert Path("model-history.png").read_bytes().startswith(PNG_MAGIC)
    net = fd.load("model.safetensors")
    data = fd.data.load(table)
    assert net.labels == ["left", "right"]
    result = net.evaluate(data.x_test, data.y_test, loss="softmax_cross_entropy")
    assert f"{100 * result['accuracy']:.2f}" == shown[1]


def test_the_default_data_are_digits(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--hidden", "64", "--epochs", "8", "--learning-rate", "0.01", "--quiet", "--no-plot"]) == 0
    out, err = capsys.readouterr()
    assert complaints(err) == []
    accuracy = re.fullmatch(r"test accuracy (\d+\.\d\d) %, loss \d\.\d{4}\n", out)
    assert accuracy is not None
    assert float(accuracy[1]) > 80
    assert sorted(os.listdir()) == ["model-history.csv", "model.safetensors"]


def test_the_same_seed_gives_the_same_file_and_another_seed_another(table: str):
    runs = {"a": ["--seed", "5", "--threads", "1"], "b": ["--seed", "5"], "c": ["--seed", "6"]}
    before = fd.get_num_threads()
    for name, options in runs.items():
        assert run(["train", "--data", table, *SMALL, "--no-plot", "-o", f"{name}.safetensors", *options]) == 0
        fd.set_num_threads(before)
    weights = {name: fd.load(f"{name}.safetensors").state_dict() for name in runs}
    names = list(weights["a"])
    assert all(np.array_equal(weights["a"][name], weights["b"][name]) for name in names)
    assert not all(np.array_equal(weights["a"][name], weights["c"][name]) for name in names)


def test_other_outputs_are_named_after_the_model(table: str):
    assert run(["train", "--data", table, *SMALL, "-o", "v1.5.safetensors"]) == 0
    assert sorted(os.listdir()) == [table, "v1.5-history.csv", "v1.5-history.png", "v1.5.safetensors"]


@pytest.mark.parametrize(
    ("options", "described"),
    [
        (["--rates", "0"], "4-16-2, relu, dropout 0/0, adam"),
        (["--hidden", "none", "--rates", "0.1", "--schedule", "constant"], "4-2, relu, dropout 0.1, adam"),
        (["--hidden", "8,4", "--rates", "0,0.25", "--activation", "tanh"], "4-8-4-2, tanh, dropout 0/0.25/0.25, adam"),
        (["--optimizer", "sgd", "--weight-decay", "0.01", "--max-norm", "3"], "4-16-2, relu, dropout 0.2/0.5, sgd"),
        (["--optimizer", "adamw", "--learning-rate", "0.01", "--momentum", "0.5"], "4-16-2, relu, dropout 0.2/0.5, adamw"),
        (["--validation-split", "0.25", "--plot", "p.svg"], "4-16-2, relu, dropout 0.2/0.5, adam"),
        (["--widen"], "4-32-2, relu, dropout 0.2/0.5, adam"),
        (["--widen", "--hidden", "8,6,4", "--rates", "0.5,0.2,0"], "4-10-6-4-2, relu, dropout 0.5/0.2/0/0, adam"),
        (["--widen", "--hidden", "none", "--rates", "0.2"], "4-2, relu, dropout 0.2, adam"),
    ],
)
def test_options_of_train(table: str, capsys: pytest.CaptureFixture[str], options: list[str], described: str):
    assert run(["train", "--data", table, *SMALL, *options]) == 0
    assert f"network {described}\n" in capsys.readouterr().out


def test_max_norm_and_dropout_reach_the_network(table: str):
    assert run(["train", "--data", table, *SMALL, "--no-plot", "--max-norm", "0.25", "--rates", "0.1,0.3"]) == 0
    net = fd.load("model.safetensors")
    assert [layer.rate for layer in net.layers if isinstance(layer, fd.Dropout)] == [0.1, 0.3]
    hidden, output = (parameter.value for parameter in net.parameters() if parameter.name.endswith("weight"))
    assert np.linalg.norm(hidden, axis=0).max() <= 0.25 * (1 + 1e-6)
    assert np.linalg.norm(output, axis=0).max() > 0.25


def test_widened_layers_are_those_of_the_network(table: str):
    assert run(["train", "--data", table, *SMALL, "--no-plot", "--widen", "--rates", "0.5,0.75"]) == 0
    assert [parameter.shape for parameter in fd.load("model.safetensors").parameters()] == [(4, 64), (64,), (64, 2), (2,)]


def test_a_width_beyond_reason_is_no_network(table: str, capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--data", "nowhere", "--widen", "--rates", "0,0.99999"]) == 2
    assert "`widen` must be such that no layer has more than 1048576 units, got 102400000 units" in capsys.readouterr().err
    assert os.listdir() == [table]


def test_progress_is_a_line_an_epoch_when_there_is_no_terminal(table: str, capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--data", table, *SMALL[:-1], "--no-plot"]) == 0
    lines = complaints(capsys.readouterr().err)
    assert [line.split(" - ")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


# Ctrl-C, checkpoints


@pytest.mark.parametrize("stop", [0, 4, 5, 6, 17])
def test_ctrl_c_saves_and_the_command_it_prints_continues_to_the_same_bits(
    table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: int
):
    command = ["train", "--data", table, *SMALL, "--no-plot"]
    assert run([*command, "-o", "whole.safetensors"]) == 0
    with monkeypatch.context() as patch:
        interrupting(patch, lambda step: signal.raise_signal(signal.SIGINT) if step == stop else None)
        assert run([*command, "-o", "two parts.safetensors"]) == 130
    err = capsys.readouterr().err
    assert "interrupted; the state is in two parts-checkpoint.safetensors" in err
    assert not Path("two parts.safetensors").exists()
    again = shlex.split(err.split("continue with: ")[1])
    assert again == ["fastdrop", *command, "-o", "two parts.safetensors", "--resume"]
    assert run(again[1:]) == 0
    whole, parts = fd.load("whole.safetensors").state_dict(), fd.load("two parts.safetensors").state_dict()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)
    assert read("whole-history.csv") == read("two parts-history.csv")


def test_ctrl_c_ends_a_process_with_its_state_saved(table: str):
    # A test run may itself be started with SIGINT ignored, which children inherit.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from fastdrop.__main__ import main; main()"
    )
    command = [sys.executable, "-c", program, "train", "--data", table, "--hidden", "4", "--epochs", "1000000", "--no-plot"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if line.startswith("epoch 3/"))
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted; the state is in model-checkpoint.safetensors" in err
    assert "Traceback" not in err
    assert sorted(os.listdir()) == ["model-checkpoint.safetensors", table]


def test_a_second_ctrl_c_within_a_step_saves_nothing(
    table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def twice(step: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    interrupting(monkeypatch, twice)
    assert run(["train", "--data", table, *SMALL, "--no-plot"]) == 130
    assert complaints(capsys.readouterr().err)[-1] == "interrupted"
    assert os.listdir() == [table]


def test_ctrl_c_while_data_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("fastdrop.cli.options.load", lambda path: signal.raise_signal(signal.SIGINT))
    assert run(["train"]) == 130
    assert complaints(capsys.readouterr().err)[-1] == "interrupted"
    assert os.listdir() == []


def test_a_checkpoint_of_every_epoch_continues_a_run_that_was_killed(table: str, monkeypatch: pytest.MonkeyPatch):
    command = ["train", "--data", table, *SMALL, "--no-plot"]
    assert run([*command, "-o", "whole.safetensors"]) == 0

    def die(step: int) -> None:
        if step == 13:
            raise MemoryError

    with monkeypatch.context() as patch:
        interrupting(patch, die)
        assert run([*command, "--checkpoint", "{state}.safetensors"]) == 1
    assert run([*command, "--checkpoint", "{state}.safetensors", "--resume"]) == 0
    whole, parts = fd.load("whole.safetensors").state_dict(), fd.load("model.safetensors").state_dict()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


# predict, info, the rest


def test_predict_writes_classes_and_probabilities(table: str, capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--data", table, *SMALL, "--no-plot", "-q"]) == 0
    capsys.readouterr()
    assert run(["predict", "model.safetensors", table, "-o", "classes.csv"]) == 0
    assert capsys.readouterr().out == "60 rows predicted: classes.csv\n"
    header, *rows = read("classes.csv")
    assert header == ["row", "class", "left", "right"]
    assert [int(row[0]) for row in rows] == list(range(60))
    probabilities = np.array([row[2:] for row in rows], float)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert [row[1] for row in rows] == [["left", "right"][k] for k in probabilities.argmax(axis=1)]
    expected = fd.load("model.safetensors").predict_proba(fd.data.load_inputs(table, 4))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)
    assert len({row[1] for row in rows}) == 2


def test_predict_with_a_network_of_images_and_one_output(folder: Path):
    net = fd.Sequential([fd.Flatten(), fd.Dense(1)], input_shape=(8, 8, 1), seed=0)
    digits = fd.data.load("digits")
    net.fit(digits.x_train, (digits.y_train == 0)[:, np.newaxis].astype("float32"), loss="sigmoid_cross_entropy", progress=False)
    net.save("model.safetensors")
    assert run(["predict", "model.safetensors", "digits"]) == 0
    header, *rows = read("predictions.csv")
    assert header == ["row", "class", "0", "1"]
    assert len(rows) == 359
    zero = float(rows[0][2])
    assert zero + float(rows[0][3]) == pytest.approx(1, abs=1e-6)
    assert rows[0][1] == ("0" if zero >= 0.5 else "1")


@pytest.mark.parametrize(
    ("net", "data", "line"),
    [
        (fd.Sequential([fd.Flatten()]), "digits", "error: m: this network knows no input shape, so no rows can be read for it"),
        (
            fd.Sequential([fd.Dense(2)], input_shape=(8, 8)),
            "digits",
            "error: a network with outputs of shape (8, 2) a row does not tell classes apart",
        ),
        (fd.Sequential([fd.Dense(2)], input_shape=(64,)), "digits", "error: m: 3 labels for 2 outputs"),
    ],
)
def test_networks_that_tell_no_classes(
    folder: Path, capsys: pytest.CaptureFixture[str], net: fd.Sequential, data: str, line: str
):
    net.output_kind = "logits"
    net.labels = ["a", "b", "c"]
    net.save("m")
    assert run(["predict", "m", data]) == 1
    assert capsys.readouterr().err == line + "\n"
    assert os.listdir() == ["m"]


def test_a_loss_that_is_not_finite_is_said(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("huge.csv").write_text("".join(f"{sign}1e18,{sign}1e17,{'ab'[sign == '-']}\n" for sign in ["", "-"] * 20))
    options = ["--hidden", "4", "--optimizer", "sgd", "--learning-rate", "1e30", "--no-plot", "--no-progress", "--epochs", "2"]
    assert run(["train", "--data", "huge.csv", *options]) == 0
    assert complaints(capsys.readouterr().err) == [
        "warning: the loss is not finite: try a smaller --learning-rate, or inputs of about 0 to 1"
    ]


def test_info_names_versions_and_threads(capsys: pytest.CaptureFixture[str]):
    assert run(["info"]) == 0
    out = capsys.readouterr().out
    for word in (
        "fastdrop",
        "python",
        "numpy",
        "numba",
        "cpu",
        "affinity",
        "cpu quota",
        "threads",
        "threading layer",
        "cache",
        "gpu",
    ):
        assert re.search(rf"^{word} +\S", out, re.MULTILINE), word


def test_info_names_the_gpu_and_what_uses_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(_config, "GPU_FILES", (tmp_path / "none",))
    assert _config.config()["gpu"] == "none found"
    monkeypatch.setattr(_config, "GPU_FILES", (tmp_path / "none", tmp_path))
    monkeypatch.setattr(_config, "CUDA_PACKAGES", ("no-such-distribution", "numpy"))
    assert _config.config()["gpu"] == f"found, numpy {np.__version__}"
    monkeypatch.setattr(_config, "CUDA_PACKAGES", ())
    assert _config.config()["gpu"] == 'found, not used: pip install "fastdrop-nn[cuda13]"'


@pytest.fixture
def few_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with NumPy alone, whatever is installed; Numba has all its threads before one CPU is left to the process."""
    _config.load_numba()
    monkeypatch.setattr("fastdrop.benchmark.peers.select.installed", lambda: ["fastdrop", "NumPy", "torch.compile"])


@pytest.mark.usefixtures("few_libraries")
def test_bench_compares_and_writes_a_table(folder: Path, capsys: pytest.CaptureFixture[str]):
    threads = fd.get_num_threads()
    assert run(["bench", "--quick", "--threads", "1", "--csv", "b.csv", "--no-progress"]) == 0
    fd.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert complaints(err) == []
    machine, peak, empty, header, _, *lines = out.splitlines()
    assert ", 1 thread(s), fastdrop" in machine
    assert re.fullmatch(r"peak [\d.]+ GF/s, copies \(GB/s\): [\d.]+ core, [\d.]+ shared, [\d.]+ memory", peak)
    assert empty == ""
    assert header.split() == ["milliseconds", "fastdrop", "NumPy", "of", "peak"]
    assert [line.split("  ")[0] for line in lines] == [
        "dropout, 2^16",
        "step 64-64-64-10, batch 32",
        "inference 64-64-64-10, batch 1",
    ]
    assert all(re.search(r" [\d.]+ +([\d.]+|-) +\d+%$", line) for line in lines)
    head, *rows = read("b.csv")
    assert head[:5] == ["case", "library", "version", "median_us", "share_of_peak"]
    assert {"cpu", "threads", "threading layer", "numba", "peak float32 GF/s", "copy in memory GB/s"} <= set(head)
    assert [row[1] for row in rows] == ["fastdrop", "fastdrop", "NumPy", "fastdrop", "NumPy"]
    assert all(float(row[3]) > 0 and float(row[4]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--threads", "0"], 2, "Error: Invalid value for '--threads': 0 is not in the range x>=1."),
        (["--threads", "two"], 2, "Error: Invalid value for '--threads': 'two' is not a valid integer range."),
        (["extra"], 2, "Error: Got unexpected extra argument (extra)"),
        (["--csv", "nowhere/b.csv"], 1, "error: nowhere/b.csv: cannot be written: there is no folder "),
    ],
)
def test_bad_options_of_bench(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, line: str):
    assert run(["bench", "--quick", *options]) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(line)
    assert os.listdir() == []


@pytest.mark.parametrize("command", [[], ["train"], ["sweep"], ["predict"], ["bench"], ["info"]])
def test_help_shows_what_there_is(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert run([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: fastdrop")
    if command != ["info"]:
        assert "Examples:\n" in out
    if command == ["train"]:
        assert re.search(r"\[default:\s+1024,1024\]", out)
        assert "--widen" in out


@pytest.mark.parametrize("module", [True, False])
def test_the_program_in_a_process_of_its_own(folder: Path, module: bool):
    program = (
        [sys.executable, "-m", "fastdrop"] if module else [sys.executable, "-c", "from fastdrop.__main__ import main; main()"]
    )
    result = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"fastdrop, version {fd.__version__}\n", "")
    result = subprocess.run([*program, "predict", "nothing", "digits"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "error: nothing: no such file\n")


def without(package: str) -> str:
    return f"import sys; sys.modules['{package}'] = None; sys.argv[0] = 'fastdrop'; from fastdrop.__main__ import main; main()"


@pytest.mark.parametrize(
    ("package", "arguments", "line"),
    [
        ("click", ["info"], 'error: the command line needs the package click: pip install "fastdrop-nn[app]"'),
        (
            "matplotlib",
            ["train"],
            'error: the plot needs the package matplotlib: pip install "fastdrop-nn[app]", or use --no-plot',
        ),
        ("tabulate", ["bench"], 'error: the table needs the package tabulate: pip install "fastdrop-nn[app]"'),
    ],
)
def test_a_missing_package_is_one_line(folder: Path, package: str, arguments: list[str], line: str):
    result = subprocess.run([sys.executable, "-c", without(package), *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line + "\n")
    assert os.listdir() == []


def test_a_warning_is_one_line_without_a_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    import warnings

    def warn() -> None:
        warnings.simplefilter("always")
        warnings.warn("all dropped", UserWarning, stacklevel=1)

    monkeypatch.setattr("fastdrop._config.show_config", warn)
    assert run(["info"]) == 0
    assert capsys.readouterr().err == "warning: all dropped\n"
