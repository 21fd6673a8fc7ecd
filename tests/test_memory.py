"""No mask is stored: dropout needs memory for its arrays and nothing else."""

from __future__ import annotations

import sys

import pytest
from subprocesses import run

MIB = 1 << 20
ELEMENTS = 1 << 26
ALLOWED_MIB = 8


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory where Linux reports it")
def test_peak_memory_is_that_of_the_arrays() -> None:
    code = f"""
    from pathlib import Path
    import numpy as np
    import fastdrop as fd

    def work(n):
        x = np.ones((n // 1024, 1024), dtype="float32")
        y, backward = fd.dropout(x, fd.Mask(0.1, fd.Key(1, 2, 3)))
        dy = np.ones_like(y)
        return backward(dy), y

    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    work(1 << 22)
    before = peak()
    dx, y = work({ELEMENTS})
    assert 0 < np.count_nonzero(y[:100]) < 102400
    print(peak() - before)
    """
    arrays = 4 * 4 * (ELEMENTS - (1 << 22)) / MIB  # x, y, dy, dx in float32, less what the warm-up had already taken
    growth = float(run(code))
    assert arrays * 0.9 < growth < arrays + ALLOWED_MIB
