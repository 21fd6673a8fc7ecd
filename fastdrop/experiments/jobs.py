"""Work in several processes on one machine: each has its part of the threads, and the parent alone writes results."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from threading import Event, Thread
from typing import Any

from fastdrop import _config, _validate
from fastdrop.errors import StateError

Report = Callable[[Any], None]
"""Tells the parent something while a job is done."""
Work = Callable[[Any, Report], Any]
"""Does a job; returns its result."""

STOP_SECONDS = 60.0
"""How long a worker may take to end the step in hand and save its state."""
GUARD = """
Other processes import the script that they are started from: what they are given must be defined in a file, at the top of a
module, and what the script does must stand behind `if __name__ == "__main__":`."""
NOT_STARTED, DIED = f" before it was ready.{GUARD}", "; the same call goes on"
"""What to do about the death of a worker."""


def work_off(work: Work, jobs: Iterable[Any], processes: int, report: Report) -> Generator[tuple[Any, Any]]:
    """Yield (job, result) as they come; reports of work in hand go to `report`.

    Parameters
    ----------
    work : callable
        With several processes it must be importable by name, as everything that is sent to one.
    jobs : iterable
    processes : int >= 1
        One means this very process.
    report : callable

    Raises
    ------
    StateError: a process died, or cannot import `work`. Whatever `work` raises.

    Notes
    -----
    However it ends, the workers get a SIGINT each, which `work` may use to save what it has done; its next report then raises a
    KeyboardInterrupt. If this process is killed, they end at once.
    """
    todo = list(jobs)
    count = min(processes, len(todo))
    if count <= 1:
        for job in todo:
            yield job, work(job, report)
        return
    with _running(shares(_config.get_num_threads(), count)) as workers:
        for pipe, worker in workers.items():
            with _alive(worker, NOT_STARTED):
                pipe.send(work)
        in_hand: dict[Connection, Any] = dict.fromkeys(workers)
        ready: set[Connection] = set()
        while in_hand:
            for pipe in [pipe for pipe in wait(in_hand) if isinstance(pipe, Connection)]:
                with _alive(workers[pipe], DIED if pipe in ready else NOT_STARTED):
                    kind, value = pipe.recv()
                if kind == "error":
                    raise value
                if kind == "report":
                    report(value)
                    continue
                job = in_hand.pop(pipe)
                if todo:
                    in_hand[pipe] = todo.pop(0)
                    with _alive(workers[pipe], DIED):
                        pipe.send(in_hand[pipe])
                if kind == "ready":
                    ready.add(pipe)
                else:
                    yield job, value


def shares(threads: int, processes: int) -> list[int]:
    """Return how many of the threads each process has: at least one, and in all no more, if there are enough."""
    return [max(1, threads // processes + (number < threads % processes)) for number in range(processes)]


def can_be_sent(value: Any) -> bool:
    """Return whether a value can be sent to another process."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(value))
    except Exception:  # what cannot be sent may raise anything
        return False
    return True


def check_can_be_sent(processes: int, **values: Any) -> None:
    """Raise a ValueError that names the first of the values that several processes cannot be given."""
    for name, value in values.items():
        if processes > 1 and not can_be_sent(value):
            _validate.fail_value(name, "importable by other processes, from the top of a module", repr(value))


@contextmanager
def _alive(worker: BaseProcess, advice: str) -> Iterator[None]:
    """Turn the end of a worker's pipe into an error that says so, and what to do."""
    try:
        yield
    except (EOFError, OSError):
        worker.join(STOP_SECONDS)
        raise StateError(f"a worker process died (exit code {worker.exitcode}){advice}") from None


@contextmanager
def _running(threads: Sequence[int]) -> Iterator[dict[Connection, BaseProcess]]:
    """Start a worker for each share of the threads; within the context they can be spoken to, and after it they are gone."""
    context = get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        with _interrupts_held_back():
            for share in threads:
                pipe, theirs = context.Pipe()
                with theirs:
                    workers[pipe] = context.Process(target=_worker, args=(theirs, share), daemon=True)
                    workers[pipe].start()
        yield workers
    except BaseException:
        for worker in workers.values():
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signal.SIGINT)
        raise
    finally:
        for pipe in workers:
            pipe.close()
        started = [worker for worker in workers.values() if worker.pid is not None]
        try:
            end = time.monotonic() + STOP_SECONDS
            for worker in started:
                worker.join(max(0.0, end - time.monotonic()))
        finally:
            for worker in started:
                worker.terminate()
                worker.join()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait; a process that is started here begins so, and is not interrupted while it imports."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would start it, and that lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _worker(pipe: Connection, threads: int) -> None:
    """Receive work, then do jobs until the pipe is closed or an interruption ends one."""
    Thread(target=_end_with_parent, daemon=True).start()
    # Not SIG_IGN: `fit` waits for the end of a step only where SIGINT has a function.
    interrupted = Event()
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _config.set_num_threads(threads)

    def report(value: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        pipe.send(("report", value))

    with suppress(EOFError, OSError, KeyboardInterrupt):
        data = pipe.recv_bytes()
        try:
            work = ForkingPickler.loads(data)
        except Exception as error:  # importing may raise anything
            pipe.send(("error", StateError(f"a worker process cannot import what it was given: {error}{GUARD}")))
            return
        del data
        pipe.send(("ready", None))
        while not interrupted.is_set():
            job = pipe.recv()
            try:
                answer = "result", work(job, report)
            except Exception as error:  # whatever it is, it is the caller's
                error.add_note(f"in a worker process:\n{traceback.format_exc()}")
                answer = "error", error if can_be_sent(error) else StateError(f"{type(error).__name__}: {error}")
            pipe.send(answer)


def _end_with_parent() -> None:
    """End this process when its parent does: whoever comes after that is alone with the files."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
