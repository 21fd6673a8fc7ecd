"""All matrix products: blocked loops around the one micro-kernel, with masked packing and a fused epilogue.

``c (+)= op(a) @ op(b)`` with op the identity or the transpose, after Van Zee and van de Geijn, "BLIS", ACM TOMS 41 (2015).

Notation: op(a) is (M, K), op(b) is (K, N). MR x NR is the register tile, KC the depth of a panel. op(a) is packed by all
threads, at most ROWS_AT_ONCE x DEPTH_AT_ONCE of it, in panels of MR rows; then each task owns a block of c and packs, just
before use, the KC x NR panel of op(b) that its tiles share in L1. Dropout on a is applied while it is packed; bias, activation
and dropout on c when a block is complete and still in cache.

Order of summation: for each element of c, panels of KC in order, each summed from 0 in order by multiply-adds and then added
to c. KC is part of the definition of the result; everything else (tile, blocks, threads) is not.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import LANES, MR, TILE_COLUMNS, UNROLL, numba, tile_columns, tile_product, transpose_panel
from fastdrop.backends.cpu.epilogue import Drop, drop_row, drops, finish_row
from fastdrop.backends.cpu.masks import SPAN, U64

prange = numba.prange

KC = 256
"""Depth of a panel: part of the definition of the result."""
DEPTH_AT_ONCE = 4 * KC
ROWS_AT_ONCE = 80 * MR
PANELS_PER_BLOCK = 4
"""Panels of op(b), NR columns each, that a task takes at least where there are enough."""
TASKS_PER_THREAD = 2
SLACK = LANES
"""Elements after a packed panel that `transpose_panel` may overwrite."""
LINE = max(SPAN, MR * KC)
"""Elements of a thread's scratch for masked rows."""

FLOPS_PER_NANOSECOND = 80.0

Raw: TypeAlias = npt.NDArray[np.uint32]
Scratch: TypeAlias = tuple[Array, Array, Array, Array, Raw, U64]
"""(packed, panel, edge, line, raw, bits): packed is shared, the rest has one row a thread."""


def packed_size(rows: int, depth: int) -> int:
    """Return how many elements packing (rows, depth) at a time takes."""
    rows, depth = min(rows, ROWS_AT_ONCE), min(depth, DEPTH_AT_ONCE)
    tiles, panels = -(-rows // MR), -(-depth // KC)
    return tiles * (MR * (depth + UNROLL) + SLACK * panels)


@device
def padded(kc: int) -> int:
    """Return the depth of a panel with the zeros that fill it up to a multiple of UNROLL."""
    return (kc + UNROLL - 1) // UNROLL * UNROLL


@device
def panel_start(tile: int, tiles: int, k0: int, kc: int) -> int:
    """Return where the packed panel of a row tile starts that begins at depth k0 (relative) and is kc deep."""
    return tiles * (k0 * MR + k0 // KC * SLACK) + tile * (padded(kc) * MR + SLACK)


@device
def transpose_into(source: Array, at: int, stride: int, last: int, kc: int, target: Array, to: int) -> None:
    """Pack rows of source, their k contiguous, into an MR-wide panel; rows beyond `last` repeat it."""
    lanes = tile_columns(source) // 2
    k = 0
    while k + lanes <= kc:
        transpose_panel(source, at + k, stride, last, target, to + k * MR, MR)
        k += lanes
    flat, panel = source.reshape(source.size), target
    while k < kc:
        for row in range(MR):
            panel[to + k * MR + row] = flat[at + min(row, last) * stride + k]
        k += 1
    panel[to + kc * MR : to + padded(kc) * MR] = 0


@device
def pack_rows(
    a: Array, drop: Drop, masked: bool, i0: int, low: int, high: int, tiles: int, k0: int, base: int, kc: int,
    packed: Array, line: Array, raw: Raw, bits: U64,
) -> None:  # fmt: skip
    """Pack tiles low .. high - 1 of rows i0.. of a (M, K), columns k0 .. k0 + kc - 1; base is the depth where packing began."""
    rows, depth = a.shape
    for tile in range(low, high):
        i = i0 + tile * MR
        last = min(MR, rows - i) - 1
        to = panel_start(tile, tiles, k0 - base, kc)
        if masked:
            for row in range(last + 1):
                target = line[row * KC : row * KC + kc]
                drop_row(drop, i + row, k0, drop[3], a[i + row, k0 : k0 + kc], target, raw, bits)
            transpose_into(line, 0, KC, last, kc, packed, to)
        else:
            transpose_into(a, i * depth + k0, depth, last, kc, packed, to)


@device
def pack_columns(
    a: Array, drop: Drop, masked: bool, i0: int, low: int, high: int, tiles: int, k0: int, base: int, kc: int,
    packed: Array, line: Array, raw: Raw, bits: U64,
) -> None:  # fmt: skip
    """Pack tiles low .. high - 1 of columns i0.. of a (K, M), the transpose of op(a); rows k0 .. k0 + kc - 1."""
    columns = a.shape[1]
    per_span = SPAN // MR
    for span in range(low, high, per_span):
        stop = min(high, span + per_span)
        first, end = i0 + span * MR, min(columns, i0 + stop * MR)
        for k in range(kc):
            source, values = a[k0 + k, first:end], line[: end - first]
            if masked:
                drop_row(drop, k0 + k, first, drop[3], source, values, raw, bits)
            else:
                for row in range(end - first):
                    values[row] = source[row]
            for tile in range(span, stop):
                to = panel_start(tile, tiles, k0 - base, kc) + k * MR
                panel, start = packed[to : to + MR], (tile - span) * MR
                if start + MR <= len(values):
                    part = values[start : start + MR]
                    for row in range(MR):
                        panel[row] = part[row]
                else:
                    for row in range(MR):
                        panel[row] = values[min(start + row, len(values) - 1)]
        for tile in range(span, stop):
            to = panel_start(tile, tiles, k0 - base, kc)
            packed[to + kc * MR : to + padded(kc) * MR] = 0


@device
def pack_panel(b: Array, transposed: bool, k0: int, kc: int, j: int, columns: int, panel: Array) -> None:
    """Pack columns j .. j + NR - 1 of op(b), rows k0 .. k0 + kc - 1; columns beyond the last are filled with what is there."""
    nr = tile_columns(b)
    if transposed:
        depth = b.shape[1]
        last, lanes = min(nr, columns - j) - 1, nr // 2
        k = 0
        while k + lanes <= kc:
            transpose_panel(b, j * depth + k0 + k, depth, last, panel, k * nr, TILE_COLUMNS)
            k += lanes
        while k < kc:
            for q in range(nr):
                panel[k * nr + q] = b[j + min(q, last), k0 + k]
            k += 1
    elif j + nr <= columns:
        for k in range(kc):
            source, target = b[k0 + k, j : j + nr], panel[k * nr : (k + 1) * nr]
            for q in range(nr):
                target[q] = source[q]
    else:
        for k in range(kc):
            for q in range(nr):
                panel[k * nr + q] = b[k0 + k, min(j + q, columns - 1)]
    panel[kc * nr : padded(kc) * nr] = 0


@device
def multiply_block(
    c: Array, packed: Array, tiles: int, kc: int, offset: int, i0: int, low: int, high: int, j: int, panel: Array, edge: Array,
    accumulate: bool,
) -> None:  # fmt: skip
    """Add the products of row tiles low .. high - 1 with one panel of op(b) to c; offset is the panels' relative depth."""
    rows, columns = c.shape
    nr = tile_columns(c)
    flat = c.reshape(c.size)
    for tile in range(low, high):
        i = i0 + tile * MR
        at = panel_start(tile, tiles, offset, kc)
        whole = i + MR <= rows and j + nr <= columns
        target, to, stride = (flat, i * columns + j, columns) if whole else (edge, 0, nr)
        tile_product(padded(kc), packed, at, panel, 0, target, to, stride, accumulate and whole)
        if not whole:
            for row in range(min(MR, rows - i)):
                for q in range(min(nr, columns - j)):
                    old = c[i + row, j + q] if accumulate else c.dtype.type(0)
                    c[i + row, j + q] = old + edge[row * nr + q]


@kernel
def product_kernel(
    a: Array,
    b: Array,
    c: Array,
    y: Array,
    form: tuple[bool, bool, bool],
    a_drop: Drop,
    bias: Array,
    activation: int,
    c_drop: Drop,
    scratch: Scratch,
    threads: int,
) -> None:
    """``c (+)= drop(op(a)) @ op(b)``, then ``c += bias`` and ``y = drop(act(c))``; y may be c.

    form is (a transposed, b transposed, accumulate). a_drop's rows and columns are those of a as it lies in memory.
    """
    a_transposed, b_transposed, accumulate = form
    packed, panels, edges, lines, raws, all_bits = scratch
    rows, columns = c.shape
    depth = a.shape[0] if a_transposed else a.shape[1]
    nr = tile_columns(c)
    masked = drops(a_drop)
    finish = len(bias) > 0 or activation != 0 or drops(c_drop)
    across = (columns + nr * PANELS_PER_BLOCK - 1) // (nr * PANELS_PER_BLOCK)
    for i0 in range(0, rows, ROWS_AT_ONCE):
        tiles = (min(rows - i0, ROWS_AT_ONCE) + MR - 1) // MR
        down = min(tiles, max(1, (TASKS_PER_THREAD * threads + across - 1) // across))
        for base in range(0, max(depth, 1), DEPTH_AT_ONCE):
            end = min(depth, base + DEPTH_AT_ONCE)
            for t in prange(threads):
                low, high = t * tiles // threads, (t + 1) * tiles // threads
                for k0 in range(base, end, KC):
                    kc = min(KC, end - k0)
                    if a_transposed:
                        pack_columns(
                            a, a_drop, masked, i0, low, high, tiles, k0, base, kc, packed, lines[t], raws[t], all_bits[t]
                        )
                    else:
                        pack_rows(a, a_drop, masked, i0, low, high, tiles, k0, base, kc, packed, lines[t], raws[t], all_bits[t])
            tasks = down * across
            for t in prange(threads):
                for task in range(t * tasks // threads, (t + 1) * tasks // threads):
                    low, high = task // across * tiles // down, (task // across + 1) * tiles // down
                    left = task % across * nr * PANELS_PER_BLOCK
                    right = min(columns, left + nr * PANELS_PER_BLOCK)
                    for k0 in range(base, end, KC):
                        kc = min(KC, end - k0)
                        for j in range(left, right, nr):
                            pack_panel(b, b_transposed, k0, kc, j, columns, panels[t])
                            multiply_block(
                                c, packed, tiles, kc, k0 - base, i0, low, high, j, panels[t], edges[t], accumulate or k0 > 0
                            )
                    if end == depth and finish:
                        part = bias[left:right] if len(bias) else bias
                        for i in range(i0 + low * MR, min(rows, i0 + high * MR)):
                            finish_row(
                                c[i, left:right], y[i, left:right], part, activation, c_drop, i, left, raws[t], all_bits[t]
                            )
