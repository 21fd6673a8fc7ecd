"""Options of the benchmarks, the libraries that they compare, and the facts about the machine in every result.

pytest bench                                        # all that is installed, with all CPUs of the process
pytest bench --benchmark-disable --quick --peers none   # does it work?
pytest bench/bench_step.py --peers "JAX,torch eager" --threads 1
python bench/run.py                                 # everything, with one thread and with all: the committed results
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from fastdrop import _config
from fastdrop.benchmark import machine, timing
from fastdrop.benchmark.cases import AbstractCase
from fastdrop.benchmark.peers import select
from fastdrop.benchmark.peers.base import AbstractPeer

NONE = "none"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=_config.available_cpus(), help="threads of all libraries")
    parser.addoption("--peers", help=f'names of other libraries, separated by commas, or "{NONE}"; default: all installed')
    parser.addoption("--quick", action="store_true", help="small cases only")


def libraries(config: pytest.Config) -> list[str]:
    """Return the names of the libraries to compare, this one first."""
    chosen = config.getoption("--peers")
    if chosen is None:
        return select.installed()
    return [select.OWN, *(name for name in chosen.split(",") if name != NONE)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "library" in metafunc.fixturenames:
        metafunc.parametrize("library", libraries(metafunc.config), indirect=True)
    if "case" in metafunc.fixturenames:
        cases = metafunc.module.cases(metafunc.config.getoption("--quick"))
        metafunc.parametrize("case", cases, ids=identify)


def identify(case: AbstractCase) -> str:
    """Return a test id: what tells the case from others."""
    hidden = ("flops", "bytes")
    return "-".join(str(value) for name, value in case.facts().items() if name not in hidden)


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--threads"))


@pytest.fixture
def library(request: pytest.FixtureRequest, threads: int) -> AbstractPeer:
    """A library, set to the wanted number of threads."""
    peer = select.peer(request.param)
    if not peer.set_threads(threads):
        pytest.skip(f"{peer.name} takes what the process may use: start it with {threads} CPUs (bench/run.py does)")
    return peer


@pytest.fixture
def measure(benchmark: Any, threads: int) -> Callable[[AbstractCase, AbstractPeer], None]:
    """Return the function that times a case: verified first, then rounds of one unit of work each."""

    def run(case: AbstractCase, library: AbstractPeer) -> None:
        prepare = timing.prepare(case, library)
        if prepare is None:
            pytest.skip(f"{library.name} does not do this")
        numbers = count()
        benchmark.extra_info.update(
            library=library.name, version=library.version(), threads=threads, repeats=case.repeats, **case.facts()
        )
        benchmark.pedantic(
            lambda work: work(),
            setup=lambda: ((prepare(next(numbers)),), {}),
            rounds=case.rounds,
            warmup_rounds=case.warm_up_rounds,
        )

    return run


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Add what a figure means nothing without."""
    _config.set_num_threads(config.getoption("--threads"))
    output_json["machine"] = machine.facts()
