"""What a library is asked: its adapter has a method for each operation that it can do."""

from __future__ import annotations

from abc import ABC
from importlib import metadata
from typing import ClassVar

from fastdrop import _config
from fastdrop.benchmark.cases import AbstractCase, Prepare

SEED = 1


class AbstractPeer(ABC):
    """A library. Its methods, one for each operation that it has, take a case of that operation and return its `Prepare`.

    Attributes
    ----------
    name : str
        What it is called in tables.
    distribution : str
        What its version is looked up by.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]

    def version(self) -> str:
        """Return the installed version."""
        return metadata.version(self.distribution)

    def set_threads(self, threads: int) -> bool:
        """Use so many threads; False where it does not, as those that take what the process may use when they start."""
        return threads == _config.affinity()

    def prepare(self, case: AbstractCase) -> Prepare | None:
        """Return the case's `Prepare`, or None where this library does not do it."""
        method = getattr(self, case.operation, None)
        prepared: Prepare | None = None if method is None else method(case)
        return prepared
