"""The machine that a figure belongs to, and how a process is held to some of its CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from fastdrop import _config

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Read by libraries when they start; those that look at the CPUs of the process need none."""
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


def facts() -> dict[str, Any]:
    """Return CPU, cores, threads, threading layer, versions, and the measured peaks of the threads in use."""
    from fastdrop.benchmark.peak import peaks

    known = _config.config()
    return {name: known[name] for name in FACTS} | peaks()
