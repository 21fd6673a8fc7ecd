"""How kernels go through a matrix with a mask: first each thread of a block decides a run of 16 columns, then neighbouring
threads take neighbouring elements.

Notation: a matrix of `columns` has ``runs = ceil(columns / 16)`` runs a row, `total` of them. In a round, a block has the runs
from `base` on, as many as it has threads, and goes through their elements in 16 steps: element q = step * BLOCK + thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, device
from fastdrop.backends.cuda.masks import RUN, Plan, decide

RUN_SHIFT, RUN_MASK = 4, RUN - 1


@device
def decide_run(plan: Plan, bits: Any, thread: int, base: int, runs: int, total: int) -> None:
    """Write the decisions of this thread's run."""
    run = base + thread
    if run < total:
        row = run // runs
        bits[thread] = np.uint32(decide(plan, row, (run - row * runs) * RUN))


@device
def place(base: int, q: int, runs: int, total: int, columns: int) -> tuple[int, int]:
    """Return (row, column) of element q of this round; (-1, 0) for one beyond the matrix."""
    run = base + (q >> RUN_SHIFT)
    if run >= total:
        return -1, 0
    row = 0 if runs == total else run // runs
    column = (run - row * runs) * RUN + (q & RUN_MASK)
    return (row, column) if column < columns else (-1, 0)


@device
def is_set(bits: Any, q: int) -> bool:
    """Return whether element q of this round is kept."""
    return (int(bits[q >> RUN_SHIFT]) >> (q & RUN_MASK)) & 1 != 0


def runs_of(columns: int) -> int:
    """Return how many runs a row has."""
    return -(-columns // RUN)


def blocks_for(rows: int, columns: int) -> int:
    """Return how many blocks of threads the runs of a matrix need."""
    return -(-rows * runs_of(columns) // BLOCK)
