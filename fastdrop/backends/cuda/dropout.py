"""Elementwise dropout: ``y = keep ? x * scale : +0.0``, and with a shift and a fill for AlphaDropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.cuda._jit import BLOCK, cuda, kernel
from fastdrop.backends.cuda._tiles import decide_run, is_set, place
from fastdrop.backends.cuda.masks import RUN, Plan


@kernel
def dropout_kernel(x: Any, y: Any, rows: int, columns: int, plan: Plan, scale: Any, shift: Any, fill: Any, affine: bool) -> None:
    """Write ``keep ? x * scale : fill``, where `affine` with the shift added; x and y are flat and may be one array."""
    bits = cuda.shared.array(BLOCK, np.uint32)
    runs = (columns + RUN - 1) // RUN
    total, thread = rows * runs, cuda.threadIdx.x
    for base in range(cuda.blockIdx.x * BLOCK, total, cuda.gridDim.x * BLOCK):
        decide_run(plan, bits, thread, base, runs, total)
        cuda.syncthreads()
        for step in range(RUN):
            q = step * BLOCK + thread
            row, column = place(base, q, runs, total, columns)
            if row >= 0:
                i, value = row * columns + column, fill
                if is_set(bits, q):
                    value = x[i] * scale
                    if affine:
                        value += shift
                y[i] = value
        cuda.syncthreads()
