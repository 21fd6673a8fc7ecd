"""All matrix products: blocked loops around the one micro-kernel, with masked packing and a fused epilogue.

``c (+)= op(a) @ op(b)`` with op the identity or the transpose, after Van Zee and van de Geijn, "BLIS", ACM TOMS 41 (2015).

Notation: op(a) is (M, K), op(b) is (K, N). MR x NR is the register tile, KC the depth of a panel. op(a) is packed by all
threads, at most PACKED_AT_ONCE elements of it, in panels of MR rows (the last one as low as its rows allow). Then each
thread owns a rectangle of c and goes through it in blocks of PANELS_AT_ONCE panels of op(b), packed just before use. Dropout on
a is applied while it is packed; bias, activation and dropout on c when a row of tiles of a block is complete and still in cache.

Order of summation: for each element of c, panels of KC in order, each summed from 0 in order by multiply-adds and then added
to c. KC is part of the definition of the result; everything else (tile, blocks, threads, what is packed) is not.

Zeros of op(a), of dropped and of inactive units, are not multiplied where there are enough of them: the rows of a panel then
become lists of their other elements. Products with zero add nothing, so that the result is the same, as long as b is finite.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from fastdrop._types import Array, Indices
from fastdrop.backends.cpu import activations
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._lists import GROUP, list_row, multiply_listed
from fastdrop.backends.cpu._panels import A_PANEL, B_PANEL, copy_panel, transpose_panel
from fastdrop.backends.cpu._tile import HEIGHTS, MR, NR, UNROLL, stream_rows, tile_columns, tile_product
from fastdrop.backends.cpu._vector import LANES, numba
from fastdrop.backends.cpu.epilogue import Finish, clear, drop_rows, drops, finish_rows
from fastdrop.backends.cpu.masks import GROUP_BITS, SPAN, U64
from fastdrop.backends.cpu.units import take_columns
from fastdrop.backends.cpu.updates import NO_UPDATE, KernelUpdate, update_rows

prange = numba.prange

KC = 256
"""Depth of a panel: part of the definition of the result."""
MOST_TILES, LEAST_DEPTH = 80, 4 * KC
PACKED_AT_ONCE = MOST_TILES * MR * LEAST_DEPTH
"""Elements of op(a) that are packed at a time: MOST_TILES of a depth of LEAST_DEPTH, or more of the one and less of the other."""
PANELS_AT_ONCE = 8
SLACK = LANES * (LANES + 1)
"""Elements after a packed panel that packing may overwrite."""
STRIP_TILES = 384 // MR
"""Tiles of a strip: of the part of a, as it lies in memory, that is masked and packed together where op(a) is its transpose."""
STRIP_SPARE = 2 * GROUP_BITS
"""Most decisions by which `decide` may round up a row of a strip."""
STRIP_SIZE = SPAN * STRIP_TILES * MR // (STRIP_TILES * MR + STRIP_SPARE)
"""Most elements of a strip, whose rows are as many as can be decided at once."""
LINE = max(STRIP_SIZE, KC * (MR + 2), PANELS_AT_ONCE * NR * MR)
"""Elements of a thread's scratch for masked rows, for lists, and for sums of few rows."""
OWN_SIZE = 1 << 15
"""Elements of op(a), as packed, up to which each thread packs for itself; more is packed by all threads for all."""
LEAST_LISTED = 128
"""Fewest columns of a product for listing elements of op(a) to be worth it."""
MOST_LISTED = 7 / 16
"""Most elements of a panel that are not zero for it to be listed."""
FULL = -1
"""In place of counts: the panel is not listed."""
STREAM_ROWS = 16
"""Up to so many rows, packing b would cost more than it saves: its rows are read where they lie, STREAM_DEPTH at a time."""
STREAM_DEPTH = 8
WIDE_ROWS = 4
"""Below so many rows, more columns are taken at a time where op(b) is not packed first: it is read as it lies in memory."""
LOW_TILES = HEIGHTS[1:]

FLOPS_PER_NANOSECOND = 80.0
PACKING_NANOSECONDS, READING_NANOSECONDS = 0.3, 0.05
"""Estimated cost of an element: of packing it, and of reading it as it was packed before."""

PLAIN, TRANSPOSED, PACKED = range(3)
"""What op(b) is: b, its transpose, or b with panels that `pack_kernel` made."""

Scratch: TypeAlias = tuple[Array, Array, U64]
"""(packed, work, bits): packed is shared, the rest has one row a thread; work is (line, own, panels)."""

Part: TypeAlias = tuple[int, int, int, int]
"""(first and last row tile, first and last panel) of a rectangle of c."""

PACKED_SIZE = PACKED_AT_ONCE + PACKED_AT_ONCE // 4
"""Elements of op(a) as packed, with what lies between the panels."""
PANELS_SIZE = PANELS_AT_ONCE * KC * NR + SLACK
"""Elements of op(b) as packed by a thread."""
OWN_AT = -(-LINE // NR) * NR
PANELS_AT = OWN_AT + OWN_SIZE
WORK_SIZE = PANELS_AT + -(-PANELS_SIZE // NR) * NR
"""Panels start with a cache line, so that no vector of them lies in two."""


@lru_cache
def nanoseconds(rows: int, columns: int, depth: int, b_form: int, activation: int) -> float:
    """Return the estimated cost of a product, with whole panels and packing; remembered, as sizes come again."""
    width = (columns + NR - 1) // NR * NR
    reads = b_form == PACKED or (b_form == PLAIN and rows <= STREAM_ROWS)
    per_b = READING_NANOSECONDS if reads else PACKING_NANOSECONDS
    product = depth * (2.0 * rows * width / FLOPS_PER_NANOSECOND + PACKING_NANOSECONDS * rows + per_b * columns)
    return product + rows * columns * activations.NANOSECONDS[activation]


def packed_shape(depth: int, columns: int, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the shape of b (depth, columns) as `pack_kernel` packs it: a row of a panel in each row."""
    nr = NR * 4 // dtype.itemsize
    rows = max(UNROLL, depth // KC * KC + -(-(depth % KC) // UNROLL) * UNROLL)
    return rows * -(-columns // nr), nr


@device
def packing(tiles: int, depth: int) -> tuple[int, int]:
    """Return how many row tiles, and how deep, are packed at a time."""
    depth_at_once = max(LEAST_DEPTH, PACKED_AT_ONCE // (min(tiles, MOST_TILES) * MR * KC) * KC)
    return PACKED_AT_ONCE // (MR * max(KC, min(depth, depth_at_once))), depth_at_once


@device
def padded(kc: int) -> int:
    """Return the depth of a panel with the zeros that fill it up to a multiple of UNROLL, at least one."""
    return (max(kc, 1) + UNROLL - 1) // UNROLL * UNROLL


@device
def panel_start(tile: int, tiles: int, k0: int, kc: int) -> int:
    """Return where the packed panel of a row tile starts that begins at depth k0 (relative) and is kc deep."""
    return tiles * (k0 * MR + k0 // KC * SLACK) + tile * (padded(kc) * MR + SLACK)


@device
def tile_height(rows: int) -> int:
    """Return the lowest height of a tile that holds so many rows."""
    height = MR
    for lower in LOW_TILES:
        if lower >= rows:
            height = lower
    return height


@device
def grid(tiles: int, panels: int, threads: int, packing: int) -> tuple[int, int]:
    """Return into how many parts rows and columns are cut, so that the thread with most to do has least.

    A panel of op(b) costs about as much to pack as a tile of c to compute, a tile of op(a) as much as `packing` of those.
    """
    best, down, across = (tiles + 1) * (panels + packing) + 1, 1, 1
    for parts in range(1, threads + 1):
        rest = threads // parts
        wide, high = (panels + parts - 1) // parts, (tiles + rest - 1) // rest
        cost = wide * (high + 1) + packing * high
        if cost <= best:
            best, down, across = cost, rest, parts
    return down, across


@device
def pack_rows(
    a: Array, drop: U64, masked: bool, i: int, k0: int, kc: int, packed: Array, to: int, line: Array, bits: U64
) -> None:
    """Pack the tile of rows i.. of a (M, K), columns k0 .. k0 + kc - 1."""
    rows, depth = a.shape
    height = tile_height(rows - i)
    stop = min(i + height, rows)
    if masked:
        drop_rows(drop, a, i, stop, k0, k0 + kc, line, KC, bits)
        transpose_panel(line, 0, KC, stop - i - 1, kc, packed, to, height, A_PANEL)
    elif height == 1:  # a row of a is its own panel
        source, target = a[i, k0 : k0 + kc], packed[to : to + kc]
        for k in range(kc):
            target[k] = source[k]
    else:
        transpose_panel(a, i * depth + k0, depth, stop - i - 1, kc, packed, to, height, A_PANEL)
    packed[to + kc * height : to + padded(kc) * height] = 0


@device
def pack_columns(
    a: Array, drop: U64, masked: bool, i0: int, low: int, high: int, tiles: int, k0: int, base: int, kc: int,
    packed: Array, line: Array, bits: U64,
) -> None:  # fmt: skip
    """Pack tiles low .. high - 1 of columns i0.. of a (K, M), the transpose of op(a); rows k0 .. k0 + kc - 1."""
    columns = a.shape[1]
    strip_rows = SPAN // (min(STRIP_TILES, high - low) * MR + STRIP_SPARE)
    for k in range(k0, k0 + kc, strip_rows):
        stop = min(k0 + kc, k + strip_rows)
        for strip in range(low, high, STRIP_TILES):
            first, end = i0 + strip * MR, min(columns, i0 + min(high, strip + STRIP_TILES) * MR)
            if masked:
                drop_rows(drop, a, k, stop, first, end, line, end - first, bits)
            for i in range(first, end, MR):
                height = tile_height(columns - i)
                to = panel_start((i - i0) // MR, tiles, k0 - base, kc) + (k - k0) * height
                if masked:
                    copy_panel(line, i - first, end - first, stop - k, end - i, packed, to, height, A_PANEL)
                else:
                    copy_panel(a, k * columns + i, columns, stop - k, columns - i, packed, to, height, A_PANEL)
    for tile in range(low, high):
        height, to = tile_height(columns - i0 - tile * MR), panel_start(tile, tiles, k0 - base, kc)
        packed[to + kc * height : to + padded(kc) * height] = 0


@device
def list_panel(packed: Array, at: int, kc: int, height: int, line: Array) -> None:
    """List the elements of a packed panel that are not zero, in its place, if they are few.

    The list of a row starts at ``at + row * padded(kc)``; the place of an element is that of its row in a panel of op(b). How
    many entries there are stands behind the panel, a number for each row; or else `FULL`.
    """
    depth, nr = padded(kc), tile_columns(packed)
    counts = at + depth * MR
    packed[counts] = FULL
    panel = packed[at : at + kc * height]
    nonzero = 0
    for t in range(len(panel)):
        nonzero += panel[t] != 0
    if kc == 0 or nonzero > MOST_LISTED * len(panel):
        return
    for row in range(height):
        count = list_row(packed, at + row, height, kc, nr, line, row * depth)
        if 2 * count > depth:
            packed[counts] = FULL
            return
        packed[counts + row] = count
    for row in range(height):
        first, size = row * depth, 2 * int(packed[counts + row])
        target, source = packed[at + first : at + first + size], line[first : first + size]
        for t in range(size):
            target[t] = source[t]


@device
def pack_tiles(
    a: Array, transposed: bool, drop: U64, i0: int, low: int, high: int, tiles: int, base: int, end: int, listed: bool,
    packed: Array, line: Array, bits: U64,
) -> None:  # fmt: skip
    """Pack tiles low .. high - 1 of rows i0.. of op(a), depth base .. end - 1; panels may become lists where `listed`."""
    masked = drops(drop)
    for k0 in range(base, max(end, 1), KC):
        kc = min(KC, end - k0)
        if transposed:
            pack_columns(a, drop, masked, i0, low, high, tiles, k0, base, kc, packed, line, bits)
        else:
            for tile in range(low, high):
                to = panel_start(tile, tiles, k0 - base, kc)
                pack_rows(a, drop, masked, i0 + tile * MR, k0, kc, packed, to, line, bits)
        if listed:
            rows = a.shape[1] if transposed else a.shape[0]
            for tile in range(low, high):
                to = panel_start(tile, tiles, k0 - base, kc)
                list_panel(packed, to, kc, tile_height(rows - i0 - tile * MR), line)


@device
def pack_panels(b: Array, transposed: bool, k0: int, kc: int, left: int, right: int, columns: int, packed: Array) -> None:
    """Pack columns left .. right - 1 of op(b) (K, columns), rows k0 .. k0 + kc - 1, one panel after the other."""
    nr, to = tile_columns(b), 0
    for j in range(left, right, nr):
        if transposed:
            depth = b.shape[1]
            transpose_panel(b, j * depth + k0, depth, min(nr, columns - j) - 1, kc, packed, to, nr, B_PANEL)
        else:
            copy_panel(b, k0 * columns + j, columns, kc, columns - j, packed, to, nr, B_PANEL)
        packed[to + kc * nr : to + padded(kc) * nr] = 0
        to += padded(kc) * nr


@device
def stream(
    a: Array, at: int, height: int, b: Array, k0: int, kc: int, c: Array, i: int, stop: int, left: int, right: int,
    accumulate: bool, sums: Array,
) -> None:  # fmt: skip
    """Multiply a packed tile with rows k0 .. k0 + kc - 1 of b (K, N) where they lie, and put or add the result to c."""
    columns, width, rows = c.shape[1], right - left, stop - i
    b_flat = b.reshape(b.size)
    clear(sums[: rows * width])
    for k in range(0, kc, STREAM_DEPTH):
        to, start = at + k * height, (k0 + k) * columns + left
        if k + STREAM_DEPTH <= kc:
            for row in range(0, rows - 1, 2):
                stream_rows(a, to + row, height, b_flat, start, columns, sums, row * width, width, 2, STREAM_DEPTH)
            if rows % 2:
                row = rows - 1
                stream_rows(a, to + row, height, b_flat, start, columns, sums, row * width, width, 1, STREAM_DEPTH)
        else:
            for deep in range(kc - k):
                for row in range(rows):
                    source = start + deep * columns
                    stream_rows(a, to + deep * height + row, height, b_flat, source, columns, sums, row * width, width, 1, 1)
    zero = c.dtype.type(0)  # -0.0 becomes +0.0, as in a tile
    for row in range(rows):
        total, target = sums[row * width : (row + 1) * width], c[i + row, left:right]
        if accumulate:
            for j in range(width):
                target[j] += total[j] + zero
        else:
            for j in range(width):
                target[j] = total[j] + zero


@device
def multiply_lists(
    packed: Array, at: int, kc: int, b: Array, start: int, c: Array, i: int, stop: int, left: int, right: int, accumulate: bool
) -> None:
    """Multiply a listed panel with panels of op(b), from element `start` on, and put or add the result to c."""
    depth, columns, nr = padded(kc), c.shape[1], tile_columns(c)
    flat, panel = c.reshape(c.size), depth * nr
    for j in range(left, right, GROUP * nr):
        for row in range(i, stop):
            lists, count = at + (row - i) * depth, int(packed[at + depth * MR + row - i])
            source, to = start + (j - left) * depth, row * columns + j
            if right - j > (GROUP - 1) * nr:
                multiply_listed(packed, lists, count, b, source, panel, GROUP, flat, to, right - j, accumulate)
            else:
                for first in range(0, right - j, nr):
                    place = source + first * depth
                    multiply_listed(packed, lists, count, b, place, panel, 1, flat, to + first, right - j - first, accumulate)


@kernel
def pack_kernel(b: Array, packed: Array, threads: int) -> None:
    """Pack b (K, N), K at least 1: panels of a depth of KC one after the other, for all columns; then the next KC rows."""
    depth, columns = b.shape
    nr = tile_columns(b)
    panels = (columns + nr - 1) // nr
    for t in prange(threads):
        for panel in range(t * panels // threads, (t + 1) * panels // threads):
            for k0 in range(0, depth, KC):
                kc = min(KC, depth - k0)
                start = panels * k0 + panel * padded(kc)
                target = packed[start : start + padded(kc)]
                left = panel * nr
                pack_panels(b, False, k0, kc, left, min(columns, left + nr), columns, target.reshape(target.size))


@kernel
def pack_units_kernel(b: Array, chosen_rows: Indices, chosen_columns: Indices, packed: Array, threads: int) -> None:
    """Do what `pack_kernel` does, with some rows and columns of b."""
    depth, columns, nr = len(chosen_rows), len(chosen_columns), tile_columns(b)
    panels = (columns + nr - 1) // nr
    for t in prange(threads):
        for k0 in range(0, max(depth, 1), KC):
            kc = min(KC, depth - k0)
            for k in range(padded(kc)):
                source = b[chosen_rows[k0 + k] if k < kc else 0]
                for panel in range(t * panels // threads, (t + 1) * panels // threads):
                    target, left = packed[panels * k0 + panel * padded(kc) + k], panel * nr
                    width = min(nr, columns - left) if k < kc else 0
                    take_columns(source, chosen_columns[left : left + width], target)


@device
def multiply_rectangle(
    packed: Array, i0: int, tiles: int, part: Part, depths: tuple[int, int, int], b: Array, b_form: int, c: Array,
    accumulate: bool, finish: Finish, drop: U64, listed: bool, panels: Array, sums: Array, bits: U64,
) -> None:  # fmt: skip
    """Do all that there is to do for a part of c and depths base .. end - 1, of `depth` altogether.

    Where `listed`, counts stand behind the packed panels; see `list_panel`.
    """
    low, high, first, last = part
    base, end, depth = depths
    rows, columns = c.shape
    nr = tile_columns(c)
    c_flat = c.reshape(c.size)
    streamed = rows <= STREAM_ROWS and b_form == PLAIN
    width = PANELS_AT_ONCE * (max(1, WIDE_ROWS // rows) if streamed or b_form == PACKED else 1)
    for panel in range(first, last, width):
        left, right = panel * nr, min(columns, min(last, panel + width) * nr)
        for k0 in range(base, max(end, 1), KC):
            kc = min(KC, end - k0)
            source, start = panels, 0
            if b_form == PACKED:
                source, start = b.reshape(b.size), ((columns + nr - 1) // nr * k0 + panel * padded(kc)) * nr
            elif not streamed:
                pack_panels(b, b_form == TRANSPOSED, k0, kc, left, right, columns, source)
            for tile in range(low, high):
                i, at, adds = i0 + tile * MR, panel_start(tile, tiles, k0 - base, kc), accumulate or k0 > 0
                stop, height = min(rows, i + MR), tile_height(rows - i)
                if streamed:
                    stream(packed, at, height, b, k0, kc, c, i, stop, left, right, adds, sums)
                elif listed and packed[at + padded(kc) * MR] != FULL:
                    multiply_lists(packed, at, kc, source, start, c, i, stop, left, right, adds)
                else:
                    for j in range(left, right, nr):
                        panel_at, to = start + (j - left) * padded(kc), i * columns + j
                        tile_product(
                            height, padded(kc), packed, at, source, panel_at, c_flat, to, columns, stop - i, right - j, adds
                        )
                if k0 + kc == depth:
                    finish_rows(c, finish, drop, i, stop, left, right, bits)


@kernel
def product_kernel(
    a: Array,
    b: Array,
    c: Array,
    form: tuple[bool, int, bool],
    a_drop: U64,
    finish: Finish,
    c_drop: U64,
    update: KernelUpdate,
    scratch: Scratch,
    threads: int,
) -> None:
    """``c (+)= drop(op(a)) @ op(b)``, then what `finish` and c_drop say, see `finish_rows`; or else an update by c.

    form is (a transposed, what op(b) is, accumulate). a_drop's rows and columns are those of a as it lies in memory.
    """
    a_transposed, b_form, accumulate = form
    packed, work, all_bits = scratch
    rows, columns = c.shape
    depth, nr = a.shape[0] if a_transposed else a.shape[1], tile_columns(c)
    all_tiles, all_panels = (rows + MR - 1) // MR, (columns + nr - 1) // nr
    listed = columns >= LEAST_LISTED and (rows > STREAM_ROWS or b_form != PLAIN)
    tiles_at_once, depth_at_once = packing(all_tiles, depth)
    chunks = (all_tiles + tiles_at_once - 1) // tiles_at_once
    for chunk in range(chunks):
        i0 = chunk * all_tiles // chunks * MR
        tiles = (chunk + 1) * all_tiles // chunks - i0 // MR
        down, across = grid(tiles, all_panels, threads, 0)  # op(a) is packed before, or small
        if update[0] != NO_UPDATE:
            down, across = min(tiles, threads), 1  # whole rows: what a thread updates lies together
        for base in range(0, max(depth, 1), depth_at_once):
            end = min(depth, base + depth_at_once)
            shared = panel_start(tiles, tiles, (end - base) // KC * KC, (end - base) % KC) > OWN_SIZE
            for phase in range(0 if shared else 1, 2):  # one parallel loop for both phases: each is compiled by itself
                count = threads if phase == 0 else down * across
                for t in prange(count):
                    low, high = t // across * tiles // down, (t // across + 1) * tiles // down
                    own = packed if shared else work[t, OWN_AT:PANELS_AT]
                    if phase == 0:
                        low, high = t * tiles // threads, (t + 1) * tiles // threads
                    line = work[t, :OWN_AT]
                    if phase == 0 or not shared:
                        pack_tiles(a, a_transposed, a_drop, i0, low, high, tiles, base, end, listed, own, line, all_bits[t])
                    if phase == 1:
                        first, last = t % across * all_panels // across, (t % across + 1) * all_panels // across
                        multiply_rectangle(
                            own, i0, tiles, (low, high, first, last), (base, end, depth), b, b_form, c, accumulate, finish,
                            c_drop, listed, work[t, PANELS_AT:], line, all_bits[t],
                        )  # fmt: skip
                        if end == depth and update[0] != NO_UPDATE:
                            update_rows(update, c, i0 + low * MR, min(rows, i0 + high * MR))
