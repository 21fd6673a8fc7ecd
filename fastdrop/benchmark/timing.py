"""Timing a case: what `fastdrop bench` does by itself, and `bench/` with pytest-benchmark."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

from fastdrop import _config
from fastdrop.benchmark.cases import AbstractCase, Prepare
from fastdrop.benchmark.peers.base import AbstractPeer

REST_SECONDS = 0.15
"""Threads of a BLAS or of another library wait busily for more work for some time (OpenBLAS's: 0.1 s): until they sleep."""


def prepare(case: AbstractCase, library: AbstractPeer) -> Prepare | None:
    """Return the case's `Prepare`, verified and ready to be timed; None where the library does not do it.

    Raises
    ------
    AssertionError: the library's result is wrong.
    """
    case = replace(case)  # its data go when it goes
    prepared = library.prepare(case)
    if prepared is not None:
        case.verify(prepared)
        if _config.get_num_threads() > 1:
            time.sleep(REST_SECONDS)
    return prepared


def measure(case: AbstractCase, library: AbstractPeer) -> float | None:
    """Return the median seconds of a unit of the case; see `prepare`."""
    prepared = prepare(case, library)
    if prepared is None:
        return None
    times = []
    for number in range(case.warm_up_rounds + case.rounds):
        work = prepared(number)
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times[case.warm_up_rounds :]) / case.repeats
