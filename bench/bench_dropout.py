"""Elementwise dropout, float32, forward and backward, beside other libraries and beside a plain scaled copy.

    pytest bench/bench_dropout.py --benchmark-only                       # everything that is installed
    pytest bench/bench_dropout.py --benchmark-only -k "fastdrop or copy" --log2-sizes 16,20,24
    pytest bench/bench_dropout.py --benchmark-disable --log2-sizes 16    # does it work?

`out` is allocated beforehand (where a library has such an argument), every round has a new key, and every result is checked
before the clock starts. Compare the best times of one run with each other: figures of different runs differ by 20 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import pytest
from peers import PEERS, AbstractPeer, Fastdrop, Prepare

import fastdrop as fd
from fastdrop._types import MaskKind
from fastdrop.backends.select import default_backend

pytestmark = pytest.mark.filterwarnings("default")

ELEMENTS_TIMED = 1 << 28
"""So many elements are processed in all the rounds of one benchmark, within the bounds below."""
MIN_ROUNDS, MAX_ROUNDS = 10, 500
WARM_UP_ROUNDS = 3
SMALL = 16
"""log2 of the largest size that is timed with one thread: it stays in cache."""


def array(log2_size: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, 1 << log2_size).astype(np.float32)


def measure(benchmark: Any, prepare: Prepare, elements: int, facts: dict[str, Any]) -> None:
    """Time rounds of one call each; `ns_per_element` is that of the best."""
    numbers = count(1)
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, ELEMENTS_TIMED // elements))
    benchmark.extra_info.update(facts, elements=elements)
    benchmark.pedantic(
        lambda work: work(), setup=lambda: ((prepare(next(numbers)),), {}), rounds=rounds, warmup_rounds=WARM_UP_ROUNDS
    )
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_element"] = benchmark.stats.stats.min / elements * 1e9


@pytest.fixture
def threads(log2_size: int) -> Any:
    """One thread where the work stays in cache, else all; put back afterwards."""
    before = fd.get_num_threads()
    yield 1 if log2_size <= SMALL else before
    fd.set_num_threads(before)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_dropout(
    benchmark: Any,
    machine: dict[str, Any],
    threads: int,
    log2_size: int,
    peer: type[AbstractPeer],
    direction: str,
    rate: float,
) -> None:
    if not peer.installed():
        pytest.skip(f"{peer.package} is not installed")
    library = peer()
    if not library.set_threads(threads) and threads == 1:
        pytest.skip(f"{library.name} fixes its number of threads when it starts")
    x = array(log2_size)
    prepare = getattr(library, direction)(x, rate)
    library.verify(x, rate, 0, prepare(0)())
    facts = {"library": library.name, "version": library.version(), "threads": threads, "rate": rate, "direction": direction}
    measure(benchmark, prepare, x.size, machine | facts)


def numpy_copy(x: np.ndarray, out: np.ndarray) -> Callable[[], Any]:
    return lambda: np.multiply(x, 2, out=out)


def own_copy(x: np.ndarray, out: np.ndarray) -> Callable[[], Any]:
    backend, bound = default_backend(), fd.Mask(0.5, fd.Key(0, 0, 0)).bind(x.shape)
    factor = replace(bound, kind=MaskKind.KEEP_ALL, scale=2.0)
    return lambda: backend.dropout_forward(x, factor, out)


@pytest.mark.parametrize("copy", [numpy_copy, own_copy])
def test_scaled_copy(
    benchmark: Any,
    machine: dict[str, Any],
    threads: int,
    log2_size: int,
    copy: Callable[[np.ndarray, np.ndarray], Callable[[], Any]],
) -> None:
    """The floor: what reading and writing alone cost."""
    Fastdrop().set_threads(threads)
    x = array(log2_size)
    work = copy(x, np.empty_like(x))
    np.testing.assert_array_equal(work(), 2 * x)
    measure(benchmark, lambda number: work, x.size, machine | {"library": copy.__name__, "threads": threads})
