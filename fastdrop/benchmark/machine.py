"""The machine that a figure belongs to, and how a process is held to some of its CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from fastdrop import _config

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Read by libraries when they start; those that look at the CPUs of the process need none."""
CORE_CACHE_BYTES, SHARED_CACHE_BYTES = 1 << 20, 1 << 25
FACTS: Final = ("cpu", "cpus", "affinity", "threads", "threading layer", "platform", "python", "numpy", "numba", "fastdrop")


@contextmanager
def pinned(threads: int) -> Iterator[dict[str, str]]:
    """Hold this process, and those that it starts, to so many CPUs for a while; give the environment for a new process.

    Libraries that were loaded before keep the threads that they have.
    """
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    try:
        if before:
            os.sched_setaffinity(0, sorted(before)[:threads])
        yield {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    finally:
        if before:
            os.sched_setaffinity(0, before)


def least_seconds(case: Mapping[str, Any], machine: Mapping[str, Any]) -> float:
    """Return the least time for a case's `facts`: that of its multiply-adds in registers, or of a copy of as many bytes.

    The copy is one within the cache that holds so many bytes, as far as caches are usual. Work in place can be faster: it
    need not read what it overwrites.
    """
    nbytes = case["bytes"]
    place = "core cache" if nbytes <= CORE_CACHE_BYTES else "shared cache" if nbytes <= SHARED_CACHE_BYTES else "memory"
    peak = machine[f"peak {case.get('dtype', 'float32')} GF/s"]
    return float(max(case["flops"] / peak, nbytes / machine[f"copy in {place} GB/s"]) / 1e9)


def facts() -> dict[str, Any]:
    """Return CPU, cores, threads, threading layer, versions, and the measured peaks of the threads in use."""
    from fastdrop.benchmark.peak import peaks

    known = _config.config()
    return {name: known[name] for name in FACTS} | peaks()
