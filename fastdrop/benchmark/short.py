"""The short comparison that `fastdrop bench` shows: a handful of cases, all libraries."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fastdrop.benchmark.cases import AbstractCase, Architecture, Dense, Dropout, Inference, Step
from fastdrop.benchmark.machine import least_seconds
from fastdrop.benchmark.peers.base import AbstractPeer
from fastdrop.benchmark.peers.select import OWN
from fastdrop.benchmark.timing import measure

Cases: TypeAlias = dict[str, Sequence[AbstractCase]]

LARGE, SMALL = Architecture(), Architecture((64, 64, 64, 10))
SHAPE = 128, 1024, 1024

CASES: Final[Cases] = {
    "dropout, 2^20": [Dropout(1 << 20, 0.5)],
    "dense 128x1024x1024, forward": [Dense(*SHAPE, order=order) for order in ("C", "F")],
    "dense 128x1024x1024, forward and backward": [Dense(*SHAPE, order=order, backward=True) for order in ("C", "F")],
    f"step {LARGE.name}, batch 128": [Step(LARGE, 128)],
    f"step {SMALL.name}, batch 32": [Step(SMALL, 32)],
    f"inference {LARGE.name}, batch 1": [Inference(LARGE, 1)],
    f"inference {LARGE.name}, batch 64": [Inference(LARGE, 64)],
}
"""Each in the memory layouts that libraries have: the faster one counts."""
QUICK: Final[Cases] = {
    "dropout, 2^16": [Dropout(1 << 16, 0.5)],
    f"step {SMALL.name}, batch 32": [Step(SMALL, 32)],
    f"inference {SMALL.name}, batch 1": [Inference(SMALL, 1)],
}


@dataclass(frozen=True)
class Measurement:
    """The median seconds of a case in a library, and its share of the machine's peak."""

    case: str
    library: str
    version: str
    seconds: float
    share: float


def compare(
    cases: Cases,
    libraries: Sequence[AbstractPeer],
    machine: dict[str, Any],
    done: Callable[[], object],
) -> list[Measurement]:
    """Measure all cases in all libraries; `done` is called after each pair.

    What another library fails at is passed over with a warning.
    """
    found = []
    for title, variants in cases.items():
        for library in libraries:
            seconds = _least(variants, library)
            if seconds is not None:
                share = least_seconds(variants[0].facts(), machine) / seconds
                found.append(Measurement(title, library.name, library.version(), seconds, share))
            done()
    return found


def _least(variants: Sequence[AbstractCase], library: AbstractPeer) -> float | None:
    """Return the median seconds of the fastest variant, None where the library does none."""
    try:
        return min((seconds for case in variants if (seconds := measure(case, library)) is not None), default=None)
    except Exception as error:
        if library.name == OWN:
            raise
        # Whatever another library's fault is, the others are still to be compared.
        warnings.warn(f"{library.name} failed: {type(error).__name__}: {error}".split("\n")[0], UserWarning, stacklevel=2)
        return None
