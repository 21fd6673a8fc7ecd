"""A small kernel for tests of the twins: it records which thread did which part."""

from __future__ import annotations

import numpy as np

from fastdrop.backends.cpu._jit import kernel, numba

prange = numba.prange


@kernel
def record_kernel(spin: int, ids: np.ndarray, sums: np.ndarray, threads: int) -> None:
    """Write the number of the thread that ran part t to ids[t]; the sums keep it busy."""
    for t in prange(len(ids) + 0 * threads):
        total = 0.0
        for i in range(spin):
            total += np.sqrt(float(i + t))
        sums[t] = total
        ids[t] = numba.get_thread_id()
