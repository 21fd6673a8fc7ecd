"""Memory of arrays: results whose memory is used again, and arrays that start with a cache line.

The system gives back a large array's memory when the array goes, and clears every page of the next one when it is first written.
In a training step that costs as much as the work on the array, in virtual machines several times as much. So a few large blocks
are kept for the arrays to come.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array, Shape

CACHE_LINE: Final = 64
"""Bytes."""
LEAST: Final = 1 << 20
"""Arrays of fewer bytes are new each time: for them the allocator keeps memory itself."""
MOST: Final = 1 << 28
"""Bytes that are kept while no array uses them."""
SLACK: Final = 1.25
"""How many times as large as an array a kept block may be."""


def aligned_empty(shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Return an array with undefined contents that starts with a cache line, so that no vector of it lies in two."""
    size, spare = math.prod(shape), CACHE_LINE // dtype.itemsize
    buffer = np.empty(size + spare, dtype)
    start = -(buffer.ctypes.data // dtype.itemsize) % spare
    return buffer[start : start + size].reshape(shape)


class Blocks:
    """Blocks of memory that no array uses, the latest last; all Python threads share them.

    New memory takes the place of as much that is kept, so that arrays and blocks together are never larger than the arrays
    alone once were. A block may come back at any moment, when garbage is collected in whatever this does, or in a forked
    process: so nothing here waits for the lock, and who does not get it does without.

    Parameters
    ----------
    most : int
        Bytes that are kept; the blocks that have waited longest go first.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.nbytes = 0
        self._free: list[npt.NDArray[np.uint8]] = []
        self._returned: deque[npt.NDArray[np.uint8]] = deque()
        self._lock = threading.Lock()

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """Return a C-contiguous array with undefined contents."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < LEAST:
            return np.empty(shape, dtype)
        block = self._take(nbytes)
        if block is None:
            block = aligned_empty((nbytes,), np.dtype(np.uint8))
        return np.asarray(_Lease(block, shape, dtype, self))

    def give_back(self, block: npt.NDArray[np.uint8]) -> None:
        """Keep a block for arrays to come."""
        self._returned.append(block)
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _take(self, nbytes: int) -> npt.NDArray[np.uint8] | None:
        """Return the latest block that fits; if none does, make room for a new one and return None."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            self._settle()
            for i in reversed(range(len(self._free))):
                if nbytes <= self._free[i].nbytes <= nbytes * SLACK:
                    self.nbytes -= self._free[i].nbytes
                    return self._free.pop(i)
            self._shrink(max(0, self.nbytes - nbytes))
            return None
        finally:
            self._lock.release()

    def _settle(self) -> None:
        """Take in what came back."""
        while self._returned:
            self._free.append(self._returned.popleft())
            self.nbytes += self._free[-1].nbytes
        self._shrink(self.most)

    def _shrink(self, nbytes: int) -> None:
        """Keep at most so much."""
        while self.nbytes > nbytes:
            self.nbytes -= self._free.pop(0).nbytes


class _Lease:
    """What an array and all views of it hold: when the last of them goes, the block is free."""

    def __init__(self, block: npt.NDArray[np.uint8], shape: Shape, dtype: np.dtype[Any], blocks: Blocks) -> None:
        self._block, self._blocks = block, blocks
        interface = block.__array_interface__
        self.__array_interface__ = interface | {"shape": tuple(shape), "typestr": dtype.str, "descr": dtype.descr}

    def __del__(self) -> None:
        self._blocks.give_back(self._block)


empty: Final = Blocks().empty
"""For the results of operations."""
