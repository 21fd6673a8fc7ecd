"""Matrices of some rows and columns alone, and the way back."""

from __future__ import annotations

from typing import Any

from fastdrop.backends.cuda._jit import cuda, kernel


@kernel
def gather_kernel(
    x: Any,
    width: int,
    rows: Any,
    every_row: bool,
    columns: Any,
    every_column: bool,
    scale: Any,
    out: Any,
    height: int,
    across: int,
) -> None:
    """``out = x[rows][:, columns] * scale``; out is (height, across), x has `width` columns; both flat."""
    for i in range(cuda.grid(1), height * across, cuda.gridsize(1)):
        row = i // across
        column = i - row * across
        source_row = row if every_row else rows[row]
        source_column = column if every_column else columns[column]
        out[i] = x[source_row * width + source_column] * scale


@kernel
def scatter_kernel(
    values: Any,
    rows: Any,
    every_row: bool,
    columns: Any,
    every_column: bool,
    scale: Any,
    accumulate: bool,
    out: Any,
    width: int,
    height: int,
    across: int,
) -> None:
    """``out[rows][:, columns] (+)= values * scale``; values is (height, across), out has `width` columns; both flat."""
    for i in range(cuda.grid(1), height * across, cuda.gridsize(1)):
        row = i // across
        column = i - row * across
        to_row = row if every_row else rows[row]
        to = to_row * width + (column if every_column else columns[column])
        value = values[i] * scale
        out[to] = out[to] + value if accumulate else value
