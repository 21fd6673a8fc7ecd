"""Work in several processes on one machine: each has its part of the threads, and the parent alone writes results."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

from fastdrop import _config
from fastdrop.errors import StateError

Report = Callable[[Any], None]
"""Tells the parent something while a job is done."""
Work = Callable[[Any, Report], Any]
"""Does a job; returns its result."""

POLL_SECONDS = 0.5


def work_off(work: Work, jobs: Iterable[Any], processes: int, report: Report) -> Iterator[tuple[Any, Any]]:
    """Yield (job, result) as they come; reports of work in hand go to `report`.

    Parameters
    ----------
    work : callable
        With several processes it must be importable by name, as everything that is sent to one.
    jobs : iterable
    processes : int >= 1
        One means this very process.
    report : callable
    """
    jobs = list(jobs)
    if processes == 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, work(job, report)
        return
    context = get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for number in range(len(jobs)):
        todo.put(number)
    count = min(processes, len(jobs))
    for _ in range(count):
        todo.put(None)
    threads = max(1, _config.get_num_threads() // count)
    workers = [context.Process(target=_worker, args=(work, jobs, todo, done, threads, os.getpid())) for _ in range(count)]
    with _running(workers):
        left = len(jobs)
        while left:
            try:
                kind, number, value = done.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if any(worker.exitcode not in (None, 0) for worker in workers):
                    raise StateError("a worker process died; the same call goes on from the last epoch") from None
                continue
            if kind == "error":
                raise value
            if kind == "report":
                report(value)
            else:
                left -= 1
                yield jobs[number], value


@contextmanager
def _running(workers: Sequence[BaseProcess]) -> Iterator[None]:
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _worker(work: Work, jobs: list[Any], todo: Any, done: Any, threads: int, parent: int) -> None:
    """Do jobs until there are no more, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _config.set_num_threads(threads)

    def report(value: Any) -> None:
        if os.getppid() != parent:
            os._exit(1)
        done.put(("report", None, value))

    while (number := todo.get()) is not None:
        try:
            done.put(("result", number, work(jobs[number], report)))
        except Exception as error:  # whatever it is, it is the caller's
            done.put(("error", number, error))
            return
