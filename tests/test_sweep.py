"""Sweeps: the table and the pictures, runs that are never done twice, and whatever may interrupt them."""

from __future__ import annotations

import math
import os
import random
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import complaints, interrupting, read
from subprocesses import environment

import fastdrop as fd
from fastdrop.cli.app import run
from fastdrop.data import Dataset
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FileFormatError, MissingFileError, OutputError, StateError
from fastdrop.experiments.jobs import Report, shares, work_off
from fastdrop.experiments.results import Results, Row, working_folder
from fastdrop.experiments.sweep import Sweep
from fastdrop.sequential import Sequential
from fastdrop.serialization import read_checkpoint

pytestmark = pytest.mark.usefixtures("without_fsync")

RECIPE = fd.Recipe(hidden=(8,), rates=(0.0,), epochs=2, batch_size=8)
RATES, SEEDS = [0.0, 0.5], [1, 2]
COLUMNS = ["configuration", "rate", "seed", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
SMALL = ["--hidden", "16", "--batch-size", "8", "--epochs", "3", "--rates", "0,0.5", "--seeds", "1,2"]
"""Options of a sweep that takes no time: four runs of 18 steps each."""
STEPS = 18

PNG_MAGIC = b"\x89PNG\r\n"
WAIT_SECONDS = 120


def small(rows: int = 24) -> Dataset:
    """Three classes of noise."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(rows, 4)).astype(np.float32), rng.integers(0, 3, rows)
    return Dataset("noise", x[:-8], y[:-8], x[-8:], y[-8:], ("a", "b", "c"))


def build(rate: float, seed: int) -> fd.Sequential:
    return fd.Sequential([fd.Dense(8, activation="relu"), fd.Dropout(rate), fd.Dense(3)], input_shape=(4,), seed=seed)


def sweep(output: str = "sweep.csv", **options: Any) -> Sweep:
    """A sweep of 4 runs of 2 epochs."""
    arguments = {"build": RECIPE, "data": small(), "rates": RATES, "seeds": SEEDS, "progress": False}
    return fd.sweep(output=output, **(arguments | options))


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by an entry for each epoch that is trained in this process."""
    trained: list[int] = []
    fit = Sequential.fit

    def watched(self: Sequential, *arguments: object, callbacks: list[object], **options: object) -> object:
        watcher = fd.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: trained.append(epoch))
        return fit(self, *arguments, callbacks=[*callbacks, watcher], **options)

    monkeypatch.setattr(Sequential, "fit", watched)
    return trained


# The table


def test_a_sweep_is_the_same_as_training_one_network_after_the_other(folder: Path):
    result = sweep()
    data = small()
    for rate in RATES:
        for seed in SEEDS:
            recipe = RECIPE.with_hidden_rate(rate, seed)
            net, optimizer = recipe.network(data), recipe.make_optimizer(len(data.x_train))
            history = net.fit(
                data.x_train,
                data.y_train,
                epochs=2,
                batch_size=8,
                optimizer=optimizer,
                validation_data=(data.x_test, data.y_test),
                progress=False,
            ).history
            rows = [row for row in result.rows if (row.rate, row.seed) == (rate, seed)]
            assert [row.epoch for row in rows] == [1, 2]
            for name, values in history.items():
                assert [getattr(row, name) for row in rows] == values
    assert os.listdir() == ["sweep.csv"]


def test_empty_lines_of_a_table_are_none(folder: Path, epochs: list[int]):
    first, count = sweep(), len(epochs)
    Path("sweep.csv").write_text(Path("sweep.csv").read_text().replace("\n", "\n\n"))
    assert sweep().rows == first.rows
    assert len(epochs) == count


def test_csv_and_sqlite_hold_the_same_rows(folder: Path):
    assert sweep().rows == sweep("sweep.db").rows
    header, *lines = read("sweep.csv")
    assert header == COLUMNS
    with closing(sqlite3.connect("sweep.db")) as connection:
        stored = connection.execute("SELECT * FROM epochs ORDER BY configuration, rate, seed, epoch").fetchall()
    assert [[str(value) for value in row] for row in stored] == lines
    assert len(lines) == 8
    assert {line[0] for line in lines} == {stored[0][0]}
    assert stored[0][0].startswith("hidden (8,); 2 epochs; batches of 8; softmax_cross_entropy; noise, 16 rows, checksum ")


@pytest.mark.parametrize("output", ["sweep.csv", "50% of #1?.db"])
def test_what_is_in_the_table_is_not_trained_again(folder: Path, epochs: list[int], output: str):
    first = sweep(output)
    assert len(epochs) == 8
    content = Path(output).read_bytes()
    assert sweep(output).rows == first.rows
    assert len(epochs) == 8
    assert Path(output).read_bytes() == content
    assert [row.rate for row in sweep(output, rates=[0.5, 0.25, 0.5], seeds=[2]).rows] == [0.25, 0.25, 0.5, 0.5]
    assert len(epochs) == 10


CHANGES: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 3},
    "batch size": {"batch_size": 4},
    "recipe": {"build": fd.Recipe(hidden=(4,), epochs=2, batch_size=8)},
    "input rate": {"build": fd.Recipe(hidden=(8,), rates=(0.1, 0.0), epochs=2, batch_size=8)},
    "another input rate": {"build": fd.Recipe(hidden=(8,), rates=(0.10000001, 0.0), epochs=2, batch_size=8)},
    "data": {"data": small(32)},
    "function": {"build": build, "epochs": 2},
    "optimizer": {"optimizer": lambda rows: fd.optim.SGD(0.1)},
    "name": {"configuration": "mine"},
}


def test_another_configuration_is_kept_apart(folder: Path, epochs: list[int]):
    first = sweep()
    total = 8
    for name, change in CHANGES.items():
        count = len(epochs)
        result = sweep(**change)
        assert len(epochs) > count, name
        total += len(result.rows)
        assert len(read("sweep.csv")) == 1 + total, name
    assert len({line[0] for line in read("sweep.csv")[1:]}) == 1 + len(CHANGES)
    assert "mine; 2 epochs" in {line[0][:14] for line in read("sweep.csv")}
    count = len(epochs)
    assert sweep().rows == first.rows
    assert len(epochs) == count


def test_changed_values_of_the_data_are_other_data(folder: Path, epochs: list[int]):
    sweep()
    data = small()
    data.y_test[0] = (data.y_test[0] + 1) % 3
    sweep(data=data)
    assert len(epochs) == 16


@pytest.mark.parametrize("output", ["a.csv", "a.db"])
def test_a_diverged_run_is_a_result(folder: Path, output: str):
    row = Row("", 0.5, 1, 1, math.nan, 0.25, math.inf, 0.5)
    Results(Path(output)).add([row])
    (read_back,) = Results(Path(output)).rows()
    assert repr(read_back) == repr(row)
    Sweep([read_back]).plot("a.png")
    Results(Path(output)).add([Row("", 0.5, 1, 1, 1.0, 0.25, 1.0, 0.5)])
    assert [row.loss for row in Results(Path(output)).rows()] == [1.0]


def test_the_largest_seed(folder: Path):
    seed = 2**63 - 1
    assert [row.seed for row in sweep("a.db", rates=[0.5], seeds=[seed]).rows] == [seed, seed]
    assert {row.seed for row in Results(Path("a.db")).rows()} == {seed}


def test_a_database_that_a_killed_writer_only_began_is_an_empty_one(folder: Path):
    Path("sweep.db").touch()
    assert len(sweep("sweep.db").rows) == 8


HEADER = ",".join(COLUMNS)
DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("t.csv", b"", "t.csv: its first line must be configuration,rate,"),
    "another table": ("t.csv", b"a,b\n1,2\n", "t.csv: its first line must be configuration,rate,"),
    "short line": ("t.csv", f"{HEADER}\nx,0.5,1\n".encode(), "t.csv: a row must have 8 values, got 3"),
    "no number": ("t.csv", f"{HEADER}\nx,0.5,1,one,1,1,1,1\n".encode(), "t.csv: invalid literal for int"),
    "no text": ("t.csv", b"\xff\xfe\x00", "t.csv: 'utf-8' codec can't decode"),
    "endless field": ("t.csv", b'"' + b"x" * 200_000, "t.csv: field larger than field limit"),
    "no database": ("t.db", b"rate,seed\n" * 200, "t.db: file is not a database"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_is_refused_and_left_alone(folder: Path, name: str):
    file, content, words = DAMAGED[name]
    Path(file).write_bytes(content)
    with pytest.raises(FileFormatError, match=f"^{re.escape(words)}"):
        sweep(file)
    assert Path(file).read_bytes() == content
    assert os.listdir() == [file]


def test_a_database_with_other_columns_is_refused(folder: Path):
    with closing(sqlite3.connect("t.db")) as connection:
        connection.execute("CREATE TABLE epochs (rate REAL)")
    with pytest.raises(FileFormatError, match=r"t\.db: no such column: configuration"):
        sweep("t.db")


# Stopped and continued


@pytest.mark.parametrize("output", ["parts.csv", "parts {a}.db"])
@pytest.mark.parametrize("stop", [0, 7, STEPS - 1, STEPS, 3 * STEPS - 1])
def test_after_ctrl_c_the_command_it_prints_goes_on_with_the_next_step(
    table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stop: int, output: str
):
    command = ["sweep", "--data", table, *SMALL, "--no-plot", "-q", "-o"]
    whole = f"whole{Path(output).suffix}"
    assert run([*command, whole]) == 0
    expected = capsys.readouterr().out
    steps: list[int] = []

    def watch(step: int) -> None:
        steps.append(step)
        if len(steps) == stop + 1:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        interrupting(patch, watch)
        assert run([*command, output]) == 130
        err = capsys.readouterr().err
        again = shlex.split(err.split("interrupted; continue with: ")[1])
        assert again == ["fastdrop", *command, output]
        assert run(again[1:]) == 0
    assert len(steps) == 4 * STEPS
    assert capsys.readouterr().out == expected
    assert Results(Path(output)).rows() == Results(Path(whole)).rows()
    if output.endswith(".csv"):
        assert Path(output).read_bytes() == Path(whole).read_bytes()
    assert sorted(os.listdir()) == sorted([output, whole, table])


def test_ctrl_c_while_data_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("fastdrop.cli.options.load", lambda path: signal.raise_signal(signal.SIGINT))
    assert run(["sweep"]) == 130
    assert complaints(capsys.readouterr().err) == ["interrupted"]
    assert os.listdir() == []


def test_a_run_that_was_written_but_not_cleared_away_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """As after a kill between the two, and in the middle of writing a checkpoint."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, missing_ok: None)
        sweep()
    assert len(os.listdir("sweep.csv-runs")) == 5
    Path("sweep.csv-runs/.fastdrop-0123456789abcdef.tmp").write_bytes(b"half")
    sweep()
    assert os.listdir() == ["sweep.csv"]


def fail_at(failing: int) -> Callable[[int], None]:
    def action(step: int) -> None:
        if step == failing:
            raise MemoryError

    return action


def test_a_state_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        interrupting(patch, fail_at(3))
        with pytest.raises(MemoryError):
            sweep()
    (file,) = Path("sweep.csv-runs").iterdir()
    state = file.read_bytes()
    file.write_bytes(state[:-9])
    with pytest.raises(FileFormatError, match=rf"^{re.escape(str(file))}: truncated.*\(without this file the run begins anew\)$"):
        sweep()
    file.write_bytes(state.replace(b'"format_version":"1"', b'"format_version":"2"'))
    with pytest.raises(FileFormatError, match="`format_version` must be 1, got '2'"):
        sweep()
    file.unlink()
    assert len(sweep().rows) == 8
    assert os.listdir() == ["sweep.csv"]


def test_two_sweeps_at_once_do_not_write_the_same_table(folder: Path):
    code = """
        import sys
        from pathlib import Path
        from fastdrop.experiments.results import working_folder
        with working_folder(Path("sweep.csv-runs")):
            print("here", flush=True)
            sys.stdin.read()
    """
    with start(code) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
        with pytest.raises(OutputError, match=r"^sweep.csv-runs: another sweep is at work here"):
            sweep()
        assert os.listdir() == ["sweep.csv-runs"]
        other.kill()
    sweep()
    assert os.listdir() == ["sweep.csv"]


def test_a_lock_that_its_last_holder_took_away_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    connect, paths = sqlite3.connect, []

    def connect_late(path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect(path, **options)
        connection.execute("SELECT * FROM sqlite_master")  # opens the file
        if not paths:
            path.unlink()
        paths.append(path)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_late)
    with working_folder(folder / "sweep.csv-runs"):
        assert paths == 2 * [folder / "sweep.csv-runs" / "lock"]
        assert paths[0].exists()


def test_the_folder_of_unfinished_runs_may_be_taken(folder: Path):
    Path("sweep.csv-runs").write_text("mine")
    with pytest.raises(OutputError, match=r"^sweep.csv-runs: cannot be a folder for unfinished runs"):
        sweep()
    assert os.listdir() == ["sweep.csv-runs"]


def start(code: str, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start Python on the code, in a process group of its own, with Ctrl-C as on a terminal."""
    head = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(code), *arguments],
        env=environment(**settings),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


LOGGED = """
    import sys
    from fastdrop.callbacks import LambdaCallback
    from fastdrop.sequential import Sequential
    fit = Sequential.fit
    log = open("log", "a")

    def logged(self, *arguments, callbacks, **options):
        begin = lambda epoch, logs: print(self.seed, epoch, file=log, flush=True)
        return fit(self, *arguments, callbacks=[*callbacks, LambdaCallback(on_epoch_begin=begin)], **options)

    Sequential.fit = logged
    from fastdrop.__main__ import main
    main()
"""
"""The program, which also writes a line for each epoch that it begins."""


def kill_at_random(command: list[str], chance: random.Random, **settings: str) -> int:
    """Run the program, kill it some time after it has begun some epochs, and return its exit code."""
    log = Path("log")
    begun = log.read_text().count("\n") if log.exists() else 0
    wanted = begun + chance.randint(1, 4)
    with start(LOGGED, *command, **settings) as process:
        end = time.monotonic() + WAIT_SECONDS
        while process.poll() is None and (not log.exists() or log.read_text().count("\n") < wanted):
            assert time.monotonic() < end
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
    return process.returncode


def killed_sweep(epochs: int, kills: int, **settings: str) -> None:
    """A sweep that is killed so often ends as one that never was, and begins at most one epoch again for each kill."""
    chance = random.Random(kills)
    network = ["--hidden", "32", "--batch-size", "16", "--epochs", str(epochs)]
    command = ["sweep", *network, "--rates", "0:0.6:0.3", "--seeds", "1,2", "--no-plot", "-o"]
    for output in ("killed.csv", "killed.db") if kills > 5 else ("killed.csv",):
        Path("log").unlink(missing_ok=True)
        codes = [kill_at_random([*command, output], chance, **settings) for _ in range(kills)]
        assert codes == [-signal.SIGKILL] * kills
        whole = f"whole{Path(output).suffix}"
        for name in (output, whole):
            with start(LOGGED, *command, name, **settings) as process:
                _, err = process.communicate(timeout=WAIT_SECONDS)
                assert process.returncode == 0, err
            if name == output:
                assert 6 * epochs <= Path("log").read_text().count("\n") <= 6 * epochs + kills
        assert Results(Path(output)).rows() == Results(Path(whole)).rows()
        if output.endswith(".csv"):
            assert Path(output).read_bytes() == Path(whole).read_bytes()
        assert len(read("killed.csv")) == 1 + 6 * epochs
        assert not Path("killed.csv-runs").exists()


def test_a_sweep_killed_five_times_ends_as_one_that_never_was(folder: Path):
    killed_sweep(4, 5, FASTDROP_BACKEND="reference")


@pytest.mark.slow
def test_a_sweep_killed_twenty_times_ends_as_one_that_never_was(folder: Path):
    killed_sweep(12, 20)


# Several processes


def test_threads_are_shared_out():
    assert shares(8, 3) == [3, 3, 2]
    assert shares(2, 2) == [1, 1]
    assert shares(1, 3) == [1, 1, 1]


NOTES = "NOTES"


def noted(rate: float, seed: int) -> fd.Sequential:
    """A network; who made it is noted in a file."""
    with open(os.environ[NOTES], "a") as file:
        print(os.getpid(), fd.get_num_threads(), rate, seed, file=file)
    return build(rate, seed)


def test_results_do_not_depend_on_the_number_of_processes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The processes share the threads, and are gone at the end."""
    monkeypatch.setenv(NOTES, "notes")
    options = {"build": noted, "epochs": 2, "batch_size": 8}
    sweep("one.csv", **options, processes=1)
    assert len(read("one.csv")) == 9
    Path("notes").unlink()
    sweep("two.csv", **options, processes=2)
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    notes = [line.split() for line in Path("notes").read_text().splitlines()]
    assert sorted((float(rate), int(seed)) for *_, rate, seed in notes) == [(rate, seed) for rate in RATES for seed in SEEDS]
    assert str(os.getpid()) not in {pid for pid, *_ in notes}
    assert sum(int(threads) for threads in {pid: threads for pid, threads, *_ in notes}.values()) <= max(2, fd.get_num_threads())
    assert not any(lives(int(pid)) for pid, *_ in notes)
    assert sorted(os.listdir()) == ["notes", "one.csv", "two.csv"]


def failing(rate: float, seed: int) -> fd.Sequential:
    """A network; that of the last run is what the environment says."""
    if (rate, seed) == (RATES[-1], SEEDS[-1]) and NOTES in os.environ:
        if os.environ[NOTES] == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyError(os.environ[NOTES])
    return build(rate, seed)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("dies", StateError, r"^a worker process died \(exit code -9\); the same call goes on$"),
        ("no such network", KeyError, "no such network"),
    ],
)
def test_after_a_worker_failed_the_same_call_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: str, error: type[Exception], words: str
):
    options = {"build": failing, "epochs": 2, "batch_size": 8}
    sweep("whole.csv", **options)
    with monkeypatch.context() as patch:
        patch.setenv(NOTES, how)
        with pytest.raises(error, match=words) as caught:
            sweep(**options, processes=2)
    assert how == "dies" or "in failing\n" in caught.value.__notes__[0]
    assert len(sweep(**options).rows) == 8
    assert Path("sweep.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(os.listdir()) == ["sweep.csv", "whole.csv"]


class OddError(Exception):
    """An error that can be pickled, and cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def odd_job(job: str, report: Report) -> str:
    if job == "odd":
        raise OddError("od", "d")
    if job == "wait":
        report(os.getpid())
        try:
            while True:
                time.sleep(0.01)
                report(None)
        except (OSError, KeyboardInterrupt):
            Path("stopped").touch()
            raise
    return job.upper()


def test_jobs_are_done_by_as_many_processes_as_there_are_jobs():
    assert sorted(work_off(odd_job, "abc", 2, print)) == [("a", "A"), ("b", "B"), ("c", "C")]
    assert list(work_off(odd_job, "ab", 1, print)) == [("a", "A"), ("b", "B")]
    assert list(work_off(odd_job, [], 3, print)) == []


def test_an_error_that_cannot_be_sent_is_told():
    with pytest.raises(StateError, match=r"^OddError: odd$"):
        list(work_off(odd_job, ["odd", "a"], 2, print))


def test_a_job_that_is_given_up_learns_of_it_with_its_next_report(folder: Path):
    pids: list[int] = []

    def stop(pid: int | None) -> None:
        if pid is not None:
            pids.append(pid)
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(work_off(odd_job, ["wait", "wait"], 2, stop))
    assert Path("stopped").exists()
    assert not any(lives(pid) for pid in pids)


def lives(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LONG = ["--hidden", "64", "--batch-size", "1", "--epochs", "3", "--rates", "0,0.5", "--no-plot", "--processes", "2"]
"""Two runs of 3 x 1438 steps."""


def finish_long(output: str) -> bytes:
    """Run the command, or what is left of it, in one process; return the table."""
    command = [sys.executable, "-m", "fastdrop", "sweep", *LONG, "--processes", "1", "-q", "-o", output]
    subprocess.run(command, env=environment(FASTDROP_BACKEND="reference"), check=True, stdout=subprocess.DEVNULL)
    return Path(output).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of the command when nothing stops it."""
    return finish_long(str(tmp_path_factory.mktemp("whole") / "whole.csv"))


@pytest.fixture
def processes(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A command at work on two long runs, and its workers."""
    with start("from fastdrop.__main__ import main; main()", "sweep", *LONG, FASTDROP_BACKEND="reference") as process:
        try:
            end = time.monotonic() + WAIT_SECONDS
            while not any(Path().glob("sweep.csv-runs/rate*")):
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.01)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
            workers = [pid for pid, line in lines.items() if "spawn_main" in line]
            assert len(workers) == 2
            yield process, workers
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_ends_the_workers_between_two_steps(
    processes: tuple[subprocess.Popen[str], list[int]], terminal: bool, whole: bytes
):
    """On a terminal Ctrl-C reaches all processes, elsewhere the parent alone."""
    process, workers = processes
    if terminal:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 130
    assert "interrupted; continue with: fastdrop" in err
    assert "Traceback" not in err
    assert not any(lives(pid) for pid in workers)
    assert any(read_checkpoint(path).progress.position > 0 for path in Path("sweep.csv-runs").iterdir())
    assert finish_long("sweep.csv") == whole


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_do_not_outlive_a_killed_parent(processes: tuple[subprocess.Popen[str], list[int]]):
    process, workers = processes
    before = epochs_saved()
    process.kill()
    process.wait()
    end = time.monotonic() + WAIT_SECONDS
    while any(lives(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert all(epoch <= before.get(name, 0) + 1 for name, epoch in epochs_saved().items())


SILENT = """
    import os, time
    from pathlib import Path
    from fastdrop.experiments.jobs import work_off

    def work(job, report):
        Path(f"{os.getpid()}.begun").touch()
        time.sleep(1000)

    if __name__ == "__main__":
        list(work_off(work, [1, 2], 2, print))
"""


def script(code: str) -> list[str]:
    """The command of a script."""
    Path("script.py").write_text(textwrap.dedent(code))
    return [sys.executable, "-W", "error", "script.py"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_workers_that_report_nothing_end_with_their_parent(folder: Path):
    with subprocess.Popen(script(SILENT), env=environment()) as process:
        end = time.monotonic() + WAIT_SECONDS
        while len(list(Path().glob("*.begun"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()
    workers = [int(path.stem) for path in Path().glob("*.begun")]
    while any(lives(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.01)


UNGUARDED = """
    import fastdrop as fd

    def build(rate, seed):
        return fd.Sequential([fd.Dense(8), fd.Dropout(rate), fd.Dense(10)], input_shape=(64,), seed=seed)

    data = fd.data.load("digits").flat()
    fd.sweep(build, data, [0, 0.5], epochs=1, processes=2)
"""
"""Its data are more than fits a pipe."""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (lambda: script(UNGUARDED), "a worker process died (exit code 1) before it was ready."),
        (
            lambda: [sys.executable, "-W", "error", "-c", textwrap.dedent(UNGUARDED)],
            "a worker process cannot import what it was given: Can't get attribute 'build' on <module '__main__'",
        ),
    ],
    ids=["script", "no file"],
)
def test_what_workers_cannot_import_is_told(folder: Path, command: Callable[[], list[str]], words: str):
    settings = environment(FASTDROP_BACKEND="reference")
    done = subprocess.run(command(), env=settings, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    assert done.returncode == 1
    assert f"fastdrop.errors.StateError: {words}" in done.stderr
    assert 'must stand behind `if __name__ == "__main__":`' in done.stderr
    assert not Path("sweep.csv-runs").exists()


def epochs_saved() -> dict[str, int]:
    """How far the runs are whose state is saved."""
    return {path.name: read_checkpoint(path).progress.epoch for path in Path("sweep.csv-runs").glob("rate*")}


# What comes of it


def rows_of(accuracies: dict[float, list[float]]) -> list[Row]:
    return [
        Row("", rate, seed, epoch, 1.0, 0.5, 2.0, accuracy if epoch == 2 else 0.99)
        for rate, seeds in accuracies.items()
        for seed, accuracy in enumerate(seeds)
        for epoch in (1, 2)
    ]


def test_the_best_rate_is_that_of_the_best_mean_after_the_last_epoch():
    result = Sweep(rows_of({0.5: [0.6, 0.9], 0.0: [0.75, 0.75], 0.25: [0.7, 0.79]}))
    assert result.rates == [0.0, 0.25, 0.5]
    assert result.best_rate == 0.0
    assert result.values("val_accuracy") == [[0.75, 0.75], [0.7, 0.79], [0.6, 0.9]]
    assert [(row.seed, row.epoch) for row in result.last(0.5)] == [(0, 2), (1, 2)]
    assert "rows" not in repr(result)


def test_a_build_function_takes_the_rows_as_they_are(folder: Path):
    made: list[tuple[float, int]] = []

    def images(rate: float, seed: int) -> fd.Sequential:
        made.append((rate, seed))
        layers = [fd.Flatten(), fd.Dense(8), fd.Dropout(rate), fd.Dense(10)]
        return fd.Sequential(layers, input_shape=(8, 8, 1), seed=seed)

    optimizer = [fd.optim.SGD(0.01), fd.optim.SGD(0.01)]
    result = fd.sweep(
        images, "digits", np.array([0.25, 0.75]), epochs=1, batch_size=64, optimizer=lambda rows: optimizer.pop(), progress=False
    )
    assert made == [(0.25, 0), (0.75, 0)]
    assert optimizer == []
    assert [(row.rate, row.seed, row.epoch) for row in result.rows] == [(0.25, 0, 1), (0.75, 0, 1)]
    assert "images; " in result.rows[0].configuration


def test_progress_is_a_line_a_run_when_there_is_no_terminal(folder: Path, capsys: pytest.CaptureFixture[str]):
    sweep(rates=[0.0])
    sweep(progress=True)
    head, *lines = complaints(capsys.readouterr().err)
    assert head.split()[:4] == ["rate", "seed", "loss", "accuracy"]
    assert [line.split()[:2] for line in lines] == [["0", "1"], ["0", "2"], ["0.5", "1"], ["0.5", "2"]]
    assert all(re.fullmatch(r" +[\d.]+ +\d( +\d\.\d{4} +[\d.]+%){2} +[\d.]+% +[12]", line) for line in lines)


@pytest.mark.parametrize("stopped", [True, False])
def test_the_bar_counts_the_epochs_of_all_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool):
    pytest.importorskip("tqdm")
    stream = Terminal()
    if stopped:
        with monkeypatch.context() as patch:
            interrupting(patch, fail_at(3))  # in the second epoch of the first run
            with pytest.raises(MemoryError):
                sweep()
    monkeypatch.setattr(sys, "stderr", stream)
    sweep(progress=True)
    assert re.search(r"8/8 \[[^\]]*\]\s*$", stream.text.rstrip("\n"))
    assert stream.text.count("\n") == 6  # the head, four runs, and the bar
    assert "rate 0.5, seed 2, epoch 2: " in stream.text


class Terminal:
    """What stderr is on a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_the_command_writes_table_and_pictures(table: str, capsys: pytest.CaptureFixture[str]):
    threads = fd.get_num_threads()
    assert run(["sweep", "--data", table, *SMALL, "--input-rate", "0.1", "--threads", "1", "-o", "out.csv"]) == 0
    fd.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert len(complaints(err)) == 5
    *files, best = out.splitlines()
    assert files == ["table out.csv", "plot out.png", "plot out.svg"]
    assert re.fullmatch(r"best rate (0|0\.5): validation accuracy \d+\.\d\d %", best)
    assert sorted(os.listdir()) == ["out.csv", "out.png", "out.svg", table]
    assert Path("out.png").read_bytes().startswith(PNG_MAGIC)
    svg = Path("out.svg").read_text()
    for text in ("table, 48 rows: 4-16-2, relu, adam, 3 epochs, 2 seeds", "accuracy (%)", "loss", "dropout rate"):
        assert f"<!-- {text} -->" in svg
    header, *lines = read("out.csv")
    assert header == COLUMNS
    assert len(lines) == 12
    assert ", input rate 0.1; 3 epochs; batches of 8; softmax_cross_entropy; table, 48 rows" in lines[0][0]


def test_ranges_of_rates_are_decimal(table: str):
    options = ["--hidden", "4", "--epochs", "1", "--rates", "0.0:0.9:0.1", "--seeds", "3:5:2", "--no-plot", "-q"]
    assert run(["sweep", "--data", table, *options, "--validation-split", "0.25", "--rows", "16"]) == 0
    lines = read("sweep.csv")[1:]
    assert [line[1] for line in lines[::2]] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
    assert {line[2] for line in lines} == {"3", "5"}
    assert "table, 12 rows" in lines[0][0]


# A newcomer's own images


@pytest.fixture
def images(folder: Path) -> str:
    """An archive of images in bytes without a channel axis, light ones and dark ones, with class names."""
    rng = np.random.default_rng(8)
    names = rng.choice(["dark", "light"], 80)
    x = (rng.integers(0, 100, (80, 9, 7)) + 120 * (names == "light")[:, np.newaxis, np.newaxis]).astype(np.uint8)
    np.savez(folder / "images.npz", x=x, y=names)
    return "images.npz"


def test_a_newcomers_images_are_trained_swept_and_predicted(images: str, capsys: pytest.CaptureFixture[str]):
    network = ["--data", images, "--filters", "4,8", "--hidden", "16", "--outputs", "sigmoid", "--rows", "48"]
    training = ["--epochs", "4", "--batch-size", "8", "--learning-rate", "0.01"]
    assert run(["train", *network, *training, "--rates", "0,0.3", "--no-progress"]) == 0
    out = capsys.readouterr().out
    assert "data images: 48 training and 16 test rows of 9 x 7 x 1 elements, 2 classes" in out
    assert "network 9x7x1-4c-8c-16-2, relu, dropout 0/0.3, adam, sigmoid outputs" in out
    net = fd.load("model.safetensors")
    assert net.input_shape == (9, 7, 1)
    assert net.output_kind == "probabilities"
    assert [type(layer).__name__ for layer in net.layers[:5]] == ["Conv2D", "MaxPool2D", "Conv2D", "MaxPool2D", "Flatten"]
    assert run(["sweep", *network, *training, "--rates", "0,0.3", "--no-plot", "-o", "images.db"]) == 0
    assert len(Results(Path("images.db")).rows()) == 8
    np.savez("new.npz", x=np.stack([np.full((9, 7), value, np.uint8) for value in (40, 180, 20)]))
    assert run(["predict", "model.safetensors", "new.npz"]) == 0
    header, *rows = read("predictions.csv")
    assert header == ["row", "class", "dark", "light"]
    assert [row[1] for row in rows] == ["dark", "light", "dark"]
    for row in rows:
        assert float(row[2]) + float(row[3]) == pytest.approx(1, abs=1e-6)


# Bad input


PYTHON: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "build": ({"build": 3}, ArgumentTypeError, "`build` must be a fastdrop.Recipe or a function of (rate, seed), got int"),
    "no hidden layer": ({"build": fd.Recipe(hidden=())}, ArgumentValueError, "`build` must be a recipe with a hidden layer"),
    "no network": (
        {"build": lambda rate, seed: None},
        ArgumentTypeError,
        "`build` must be a function that returns a Sequential, got NoneType",
    ),
    "convolution of a table": (
        {"build": fd.Recipe(filters=(4,))},
        ArgumentValueError,
        "`filters` must be empty unless rows are images (height, width, channels), got 1 for rows of shape (4,)",
    ),
    "too many poolings": (
        {"build": fd.Recipe(filters=(4, 4, 4, 4)), "data": "digits"},
        ArgumentValueError,
        "`filters` must be of no more layers than the images can be halved, each with pooling of 2 x 2, got 4 for rows of shape "
        "(8, 8, 1)",
    ),
    "widened without end": (
        {"build": fd.Recipe(hidden=(8,), widen=True), "rates": [0, 1.0]},
        ArgumentValueError,
        "`rate` must be in [0, 1), got 1.0",
    ),
    "data": ({"data": np.zeros(3)}, ArgumentTypeError, "`data` must be a Dataset or a path, got ndarray"),
    "data that are nowhere": ({"data": "nowhere"}, MissingFileError, "nowhere: no such file"),
    "rates": ({"rates": 0.5}, ArgumentTypeError, "`rates` must be a list of rates, got float"),
    "rate": ({"rates": [0.5, 1.5]}, ArgumentValueError, "`rates` must be in [0, 1], got 1.5"),
    "rate of text": ({"rates": ["0.5"]}, ArgumentTypeError, "`rates` must be a number, got str"),
    "NaN": ({"rates": [math.nan]}, ArgumentValueError, "`rates` must be in [0, 1], got nan"),
    "no rates": ({"rates": []}, ArgumentValueError, "`rates` must be not empty"),
    "seeds": ({"seeds": 3}, ArgumentTypeError, "`seeds` must be a list of integers, got int"),
    "seed": ({"seeds": [-1]}, ArgumentValueError, "`seeds` must be in [0, 9223372036854775807], got -1"),
    "large seed": ({"seeds": [2**63]}, ArgumentValueError, "`seeds` must be in [0, 9223372036854775807]"),
    "no seeds": ({"seeds": ()}, ArgumentValueError, "`seeds` must be not empty"),
    "epochs": ({"epochs": 0}, ArgumentValueError, "`epochs` must be at least 1, got 0"),
    "batch size": ({"batch_size": 1.5}, ArgumentTypeError, "`batch_size` must be an integer, got float"),
    "optimizer": (
        {"optimizer": fd.optim.SGD(0.1)},
        ArgumentTypeError,
        "`optimizer` must be a function of the number of rows, got SGD",
    ),
    "loss": ({"loss": "mse"}, ArgumentValueError, "`loss` must be one of "),
    "output": ({"output": 3}, ArgumentTypeError, "`output` must be a path, got int"),
    "ending": ({"output": "sweep.txt"}, OutputError, "sweep.txt: a table's name must end in .csv, .db, .sqlite, .sqlite3"),
    "folder": ({"output": "no/sweep.csv"}, OutputError, "no/sweep.csv: cannot be written: there is no folder "),
    "configuration": ({"configuration": 3}, ArgumentTypeError, "`configuration` must be a string, got int"),
    "processes": ({"processes": 0}, ArgumentValueError, "`processes` must be at least 1, got 0"),
    "function for processes": (
        {"processes": 2, "build": lambda rate, seed: build(seed, rate)},
        ArgumentValueError,
        "`build` must be importable by other processes, from the top of a module, got ",
    ),
    "optimizer for processes": (
        {"processes": 2, "optimizer": lambda rows: None},
        ArgumentValueError,
        "`optimizer` must be importable",
    ),
    "progress": ({"progress": 1}, ArgumentTypeError, "`progress` must be True or False, got int"),
}


@pytest.mark.parametrize("name", PYTHON)
def test_bad_arguments_leave_nothing_behind(folder: Path, name: str):
    options, error, words = PYTHON[name]
    with pytest.raises(error, match=re.escape(words)):
        sweep(**options)
    assert os.listdir() == []


def test_a_bad_name_of_a_picture():
    with pytest.raises(OutputError, match=r"p\.docx: a plot's name must end in \.png, \.svg, \.pdf"):
        Sweep(rows_of({0.0: [0.5]})).plot("p.docx")


RECIPES: dict[str, tuple[Any, str]] = {
    "filters": (3, "a list of integers, got int"),
    "hidden": ([0], "in [1, 1048576], got 0"),
    "rates": ((0.5, 2), "in [0, 1], got 2"),
    "activation": ("rellu", "one of "),
    "outputs": ("linear", "one of sigmoid, softmax, got 'linear'"),
    "epochs": (0, "at least 1, got 0"),
    "batch_size": ("8", "an integer, got str"),
    "optimizer": ("lion", "one of adam, adamw, sgd, got 'lion'"),
    "learning_rate": (0.0, "in (0, inf"),
    "schedule": ("step", "one of constant, cosine, got 'step'"),
    "momentum": (1.0, "in [0, 1), got 1"),
    "weight_decay": (-1, "in [0, inf"),
    "max_norm": (math.nan, "in [0, inf"),
    "seed": (2**64, "in [0, 18446744073709551615]"),
    "widen": (1, "True or False, got int"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_bad_recipe(name: str):
    value, words = RECIPES[name]
    with pytest.raises(fd.FastdropError, match=f"^`{name}` must be {re.escape(words)}"):
        fd.Recipe(**{name: value})


def test_a_recipe_takes_lists():
    assert fd.Recipe(hidden=[4], rates=np.array([0.5])) == fd.Recipe(hidden=(4,), rates=(0.5,))


COMMANDS: list[tuple[list[str], int, str]] = [
    (["--rates", "0:1:0.5"], 2, "1.0: each number must be at least 0 and below 1"),
    (["--rates", "0.5:0:0.1"], 2, "'0.5:0:0.1': a range must have at least one number, and at most 10000"),
    (["--rates", "0:0.9:0.00001"], 2, "a range must have at least one number, and at most 10000"),
    (["--rates", "0:0.9:0"], 2, "'0:0.9:0' is no range start:stop:step"),
    (["--rates", "0:0.9"], 2, "'0:0.9' is no range start:stop:step"),
    (["--rates", "0:nan:0.1"], 2, "'0:nan:0.1' is no range start:stop:step"),
    (["--rates", "0:x:0.1"], 2, "'0:x:0.1' is no range start:stop:step"),
    (["--rates", "inf:inf:1"], 2, "'inf:inf:1' is no range start:stop:step"),
    (["--rates", "0:inf:1"], 2, "'0:inf:1': a range must have at least one number, and at most 10000"),
    (["--rates", ""], 2, "'' is no list of numbers separated by commas"),
    (["--rates", "none"], 2, "'none' is no list of numbers separated by commas"),
    (["--seeds", "1:2:0.5"], 2, "is no list of numbers separated by commas"),
    (["--seeds", "9223372036854775808"], 2, "each number must be at least 0 and below 9.22337e+18"),
    (["--hidden", "none"], 2, "--hidden none: a sweep needs a hidden layer, behind which units are dropped"),
    (["--hidden", "0"], 2, "0: each number must be at least 1"),
    (["--input-rate", "1"], 2, "1.0 is not in the range 0<=x<1"),
    (["--processes", "0"], 2, "0 is not in the range x>=1"),
    (["--rows", "0"], 2, "0 is not in the range x>=1"),
    (["--outputs", "linear"], 2, "'linear' is not one of 'softmax', 'sigmoid'"),
    (["--filters", "8"], 1, "error: `filters` must be empty unless rows are images"),
    (["--data", "nowhere"], 1, "error: nowhere: no such file or folder"),
    (["--threads", "99999"], 1, "error: `n` must be in [1,"),
    (["-o", "no/sweep.csv"], 1, "error: no/sweep.png: cannot be written: there is no folder "),
    (["-o", "no/sweep.csv", "--no-plot"], 1, "error: no/sweep.csv: cannot be written: there is no folder "),
    (["-o", "sweep.txt"], 1, "error: sweep.txt: a table's name must end in .csv"),
]


@pytest.mark.parametrize(
    ("options", "code", "words"), COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_options_write_nothing(table: str, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str):
    assert run(["sweep", "--data", table, *options]) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert os.listdir() == [table]
