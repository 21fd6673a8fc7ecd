"""How every operation hands over its result."""

from __future__ import annotations

import numpy as np

from fastdrop._types import Array


def deliver(result: Array, out: Array | None) -> Array:
    """Return `result`, C-contiguous, or `out` after it has received it."""
    if out is None:
        return np.ascontiguousarray(result)
    out[...] = result
    return out
