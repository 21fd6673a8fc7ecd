"""Subnormal numbers, with which arithmetic takes a CPU some hundred cycles: what is kept from step to step is rid of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdrop.backends.formulas._formula import COMPILED, Target


def make(target: Target) -> Any:
    """Make the function that returns its argument, or zero where that is subnormal."""
    return target.by_dtype(_make(target, np.float32), _make(target, np.float64))


def _make(target: Target, number: Any) -> Any:
    select, zero, least = target.select, number(0.0), number(np.finfo(number).smallest_normal)

    @target.formula
    def flush(x: Any) -> Any:
        return select(abs(x) < least, zero, x)

    return flush


flush = make(COMPILED)
"""Return x, or zero where x is subnormal; NaN stays."""
