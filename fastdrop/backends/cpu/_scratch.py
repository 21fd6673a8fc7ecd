"""Memory for kernels: buffers that belong to one Python thread, kept from call to call, grown when needed."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from fastdrop._types import Array, Shape
from fastdrop.backends.cpu._memory import aligned_empty

SMALL = 8192
"""Arrays of fewer elements are new each time: it takes less time than to look for one."""


class Scratch(threading.local):
    """Named buffers of the calling Python thread; what a buffer holds does not outlast the operation it was taken for."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, np.dtype[Any]], Array] = {}
        self.decisions: Array | None = None
        self.products: dict[np.dtype[Any], tuple[Array, Array, Array]] = {}

    def take(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return an array of that shape and dtype with undefined contents."""
        size = math.prod(shape)
        if size < SMALL:
            return np.empty(shape, dtype)
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name, dtype] = aligned_empty((size,), dtype)
        return buffer[:size].reshape(shape)
