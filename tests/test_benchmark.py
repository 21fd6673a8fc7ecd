"""What is measured is right, and what is wrong is noticed before it is timed."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from subprocesses import environment, run

import fastdrop as fd
from fastdrop._config import load_numba
from fastdrop.benchmark import machine, timing
from fastdrop.benchmark.cases import (
    AbstractCase,
    Activation,
    Architecture,
    ColumnNorms,
    Decisions,
    Dense,
    Dropout,
    Fit,
    GaussianDropout,
    Inference,
    Loss,
    MonteCarlo,
    Prepare,
    Product,
    ScaledCopy,
    Serving,
    Softmax,
    Step,
    SumOfSquares,
    Update,
    Words,
)
from fastdrop.benchmark.cases.dense import KINDS
from fastdrop.benchmark.peers import select
from fastdrop.benchmark.peers.base import AbstractPeer
from fastdrop.benchmark.short import CASES, QUICK, compare

load_numba()
from llvmlite import binding  # noqa: E402

BENCH = Path(__file__).parents[1] / "bench"
NET = Architecture((64, 64, 64, 10))
SHAPE = 24, 40, 56
CASES_OF_ALL_OPERATIONS: list[AbstractCase] = [
    *(Dropout(4099, rate, backward) for rate in (0.1, 0.5) for backward in (False, True)),
    ScaledCopy(1000),
    *(GaussianDropout(20_000, rate, backward) for rate in (0.1, 0.5) for backward in (False, True)),
    *(Product(*SHAPE, order, dtype, kind) for kind in KINDS for order in ("C", "F") for dtype in ("float32", "float64")),
    *(Dense(*SHAPE, order, activation="gelu", backward=backward) for order in ("C", "F") for backward in (False, True)),
    *(Activation(name, 1000, backward) for name in ("relu", "tanh") for backward in (False, True)),
    *(Softmax(12, 10, backward) for backward in (False, True)),
    *(Loss(name, 12, 10) for name in ("softmax_cross_entropy", "categorical_cross_entropy", "mean_squared_error")),
    *(Update(rule, 7, 13) for rule in ("sgd", "momentum", "adam")),
    *(Update(rule, 7, 13, dead=0.25) for rule in ("momentum", "adam")),
    SumOfSquares(5000),
    ColumnNorms(30, 20),
    Words(4096),
    Decisions(5, 130, 0.1),
    Step(NET, 32),
    Fit(NET, 32),
    Inference(NET, 3),
    Serving(NET, 3, 2),
    MonteCarlo(NET, 3),
]
LIGHT_PEERS = [name for name in select.installed() if name in (select.OWN, "NumPy", "scikit-learn")]


def identify(case: AbstractCase) -> str:
    return "-".join(str(value) for value in case.facts().values())


def own_does(case: AbstractCase) -> bool:
    """Whether this library does the case: it takes weights in C order alone."""
    return getattr(case, "order", "C") == "C"


@pytest.mark.parametrize("name", LIGHT_PEERS)
@pytest.mark.parametrize("case", CASES_OF_ALL_OPERATIONS, ids=identify)
def test_results_are_verified(case: AbstractCase, name: str) -> None:
    library = select.peer(name)
    if not library.set_threads(fd.get_num_threads()):
        pytest.skip(f"{name} takes other threads here")
    prepare = library.prepare(case)
    if prepare is None:
        assert name != select.OWN or not own_does(case)
    else:
        case.verify(prepare)


class Wrong(AbstractPeer):
    """This library, with a change to every result."""

    name = distribution = "wrong"

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def prepare(self, case: AbstractCase) -> Prepare | None:
        prepare = select.peer(select.OWN).prepare(case)
        assert prepare is not None
        return lambda number: lambda: self.change(prepare(number)())


def larger(result: Any) -> Any:
    """Change a result in its fourth figure."""
    if isinstance(result, tuple | list):
        return [larger(each) for each in result]
    return np.asarray(result) * np.asarray(result).dtype.type(1.001)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        *(
            (case, larger)
            for case in CASES_OF_ALL_OPERATIONS
            if not isinstance(case, Step | Words | Decisions | GaussianDropout) and own_does(case)
        ),
        (Dropout(4099, 0.5), lambda y: np.full_like(y, 0)),
        (Dropout(4099, 0.5), lambda y: np.where(np.arange(4099) < 900, 0, y)),
        (GaussianDropout(20_000, 0.5), lambda y: y * np.float32(1.1)),
        (GaussianDropout(20_000, 0.5), lambda y: y - y.mean() + (y - y.mean())[::-1]),
        (GaussianDropout(20_000, 0.5), np.abs),
        (GaussianDropout(20_000, 0.5), lambda y: y.astype(np.float64)),
        (Product(*SHAPE), lambda y: y.astype(np.float64)),
        (Dense(*SHAPE, activation="gelu"), lambda y: np.where(np.arange(56) < 30, 0, y)),
        (Dense(*SHAPE, backward=True), lambda all_: (all_[0] * 0, *all_[1:])),
        (Words(4096), lambda words: words // 2),
        (Decisions(5, 130, 0.1), lambda bits: ~bits),
        (MonteCarlo(NET, 3), lambda mean: np.full_like(mean, 0.1)),
        (Step(NET, 32), lambda loss: 2.5),
        (Fit(NET, 32), lambda loss: 2.5),
    ],
    ids=lambda value: identify(value) if isinstance(value, AbstractCase) else None,
)
def test_wrong_results_are_noticed(case: AbstractCase, change: Callable[[Any], Any]) -> None:
    with pytest.raises(AssertionError):
        timing.prepare(case, Wrong(change))


def test_the_rounds_of_a_case_are_those_of_all_libraries() -> None:
    assert Dropout(1 << 24, 0.5).rounds < Dropout(1 << 16, 0.5).rounds
    assert Fit(NET, 32).rounds < Step(NET, 32).rounds
    assert Fit(NET, 32, steps=7).repeats == 7


def test_operands_are_taken_in_turn() -> None:
    case = Product(*SHAPE)
    assert len(case.sets) > 1
    assert not np.array_equal(case.sets[0].x, case.sets[1].x)
    assert case.sets[0].weight.flags.c_contiguous
    assert replace(case, order="F").sets[0].weight.flags.f_contiguous


def test_a_measurement_is_of_one_unit_of_work() -> None:
    seconds = timing.measure(Step(NET, 8), select.peer(select.OWN))
    each = timing.measure(Fit(NET, 8), select.peer(select.OWN))
    assert seconds is not None
    assert each is not None
    assert 0.2 < each / seconds < 5
    assert timing.measure(Product(*SHAPE, order="F"), select.peer(select.OWN)) is None


def test_another_library_that_fails_is_passed_over() -> None:
    libraries = [select.peer(select.OWN), Wrong(larger)]
    facts = {"peak float32 GF/s": 100.0, **{f"copy in {place} GB/s": 50.0 for place in ("core cache", "shared cache", "memory")}}
    done: list[int] = []
    with pytest.warns(UserWarning, match="wrong failed: AssertionError"):
        found = compare({"dropout": [Dropout(1000, 0.5)]}, libraries, facts, lambda: done.append(1))
    assert [(each.case, each.library) for each in found] == [("dropout", "fastdrop")]
    assert 0 < found[0].share < 1
    assert len(done) == 2
    with pytest.raises(AssertionError):
        compare({"broken": [Broken(10, 0.5)]}, libraries[:1], facts, lambda: None)


class Broken(Dropout):
    """A case that nothing passes."""

    def verify(self, prepare: Prepare) -> None:
        raise AssertionError


@pytest.mark.parametrize("cases", [CASES, QUICK])
def test_every_short_case_is_one_of_this_library(cases: dict[str, list[AbstractCase]]) -> None:
    own = select.peer(select.OWN)
    assert all(any(own.prepare(case) is not None for case in variants) for variants in cases.values())


def test_libraries_by_name() -> None:
    assert select.installed()[:2] == [select.OWN, "NumPy"]
    assert select.peer("NumPy") is select.peer("NumPy")
    assert select.peer("NumPy").version() == np.__version__
    with pytest.raises(ValueError, match="`peer` must be one of"):
        select.peer("nothing")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no CPU affinity")
def test_a_process_is_held_to_some_cpus_and_let_go() -> None:
    before = os.sched_getaffinity(0)
    with machine.pinned(1) as environment:
        assert len(os.sched_getaffinity(0)) == 1
        code = (
            "import os, fastdrop as fd; print(len(os.sched_getaffinity(0)), fd.get_num_threads(), os.environ['OMP_NUM_THREADS'])"
        )
        assert run(code, OMP_NUM_THREADS=environment["OMP_NUM_THREADS"]) == "1 1 1"
    assert os.sched_getaffinity(0) == before


def test_facts_of_the_machine() -> None:
    facts = machine.facts()
    assert set(machine.FACTS) <= set(facts)
    assert facts["fastdrop"] == fd.__version__
    assert facts["peak float32 GF/s"] > facts["peak float64 GF/s"] > 0
    assert facts["copy in memory GB/s"] > 0
    least = machine.least_seconds({"flops": 2e9, "bytes": 10.0}, facts)
    assert least == pytest.approx(2 / facts["peak float32 GF/s"])
    least = machine.least_seconds({"flops": 0.0, "bytes": 1e9, "dtype": "float64"}, facts)
    assert least == pytest.approx(1 / facts["copy in memory GB/s"])


def test_the_scripts_make_tables_and_a_picture(tmp_path: Path) -> None:
    """A quick run of this library alone, as the committed results are made."""
    for script, *options in (
        ("run.py", "--quick", "--peers=none", "--threads=1", "--repeat=2", "--suites=dropout,growth,losses", "-o", tmp_path),
        ("table.py", tmp_path),
    ):
        command = [sys.executable, BENCH / script, *options]
        result = subprocess.run(command, env=environment(), text=True, capture_output=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dropout.csv", "growth.csv", "growth.png", "losses.csv"]
    lines = (tmp_path / "dropout.csv").read_text().splitlines()
    assert lines[0] == "# runs: 2"
    assert [line.split(":")[0] for line in lines if line.startswith("# ")][1:5] == ["# date", "# cpu", "# cpus", "# affinity"]
    head, *rows = csv.DictReader([line for line in lines if not line.startswith("#")])
    assert head["library"] == "fastdrop"
    assert float(head["min_us"]) <= float(head["median_us"]) <= float(head["q3_us"])
    assert 0 < float(head["share_of_peak"]) < 1.5
    assert len(rows) == 4
    for title in ("### Dropout", "### Roofline: losses", "### Growth"):
        assert title in result.stdout


def test_of_repeated_runs_each_case_keeps_its_least_median(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    from results import quietest

    cases = [("ours", 1, 5.0), ("ours", 2, 3.0), ("peer", 1, 7.0), ("ours", 1, 4.0), ("ours", 2, 6.0), ("peer", 1, 8.0)]
    rows = [{"library": library, "threads": threads, "median_us": median, "min_us": 1.0} for library, threads, median in cases]
    assert [row["median_us"] for row in quietest(rows)] == [4.0, 3.0, 7.0]


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not binding.get_host_cpu_features().get("fma"), reason="looks for x86's FMA"
)
def test_the_peak_is_that_of_multiply_adds_in_registers() -> None:
    code = """
        from fastdrop.benchmark.peak import flops, multiply_adds_kernel
        flops("float32")
        serial = multiply_adds_kernel.serial
        print(serial.inspect_asm(serial.signatures[0]))
    """
    assembly = run(code, FASTDROP_CACHE="0", NUMBA_NUM_THREADS="1")
    loop = max(re.split(r"^\S+:|^\s+j\w+\s.*$", assembly, flags=re.MULTILINE), key=lambda block: block.count("vfmadd"))
    assert loop.count("vfmadd") >= 12
    assert "(%r" not in "".join(line for line in loop.splitlines() if "vfmadd" in line)
    register = "zmm" if binding.get_host_cpu_features().get("avx512f") else "ymm"
    assert len(set(re.findall(rf"vfmadd\w+\s.*%({register}\d+)$", loop, re.MULTILINE))) == 12
