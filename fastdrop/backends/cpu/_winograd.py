"""Convolutions of 3 x 3 by Winograd's minimal filtering: 16 products in place of 36 for 2 x 2 results, see `_transforms`.

Notation: the image is cut into tiles of 4 x 4, two apart, one for each 2 x 2 results. For each of the 16 elements of a
transformed tile, the elements of all tiles and channels are a matrix (tiles, channels), those of the filters one (channels,
filters), and their product is one of 16 `sums` (tiles, filters), of which the results are made. The products are those of
`dense`; a thread has `BLOCK` tiles in hand, so that all of that stays in its cache.

Order of summation: that of `dense` along channels, then as the transforms are written; the tile decides alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._panels import A_PANEL, transpose_panel
from fastdrop.backends.cpu._tile import MR, UNROLL, tile_columns, tile_product
from fastdrop.backends.cpu._transforms import FILTER, PRODUCTS, RESULT, transform_filter, transform_result, transform_tile
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.dense import KC, PANELS_AT_ONCE, SLACK, padded, panel_start, tile_height
from fastdrop.backends.cpu.dense import packed_shape as dense_shape
from fastdrop.backends.cpu.epilogue import Finish, finish_rows
from fastdrop.backends.cpu.masks import U64
from fastdrop.window import Pair, Window

prange = numba.prange

BLOCK = 4 * MR
"""Tiles that a thread works on at a time."""
GAP = 16
"""Elements between two of the 16 matrices, without which the same places of all of them could fall into one set of a cache."""
LEAST_CHANNELS = 32
"""Fewest channels, and filters, whose products cost more than the transforms."""
LEAST_TILES = 4
"""Fewest tiles of an image: below, the transform of the filters costs more than it saves."""
SAVED = 2
"""How many times less work it is, about."""
MOST_WIDTH = 1024
"""Most channels and filters, together: a thread's transformed tiles and their sums are as many."""
MOST_BYTES = 1 << 23
"""Most bytes that transformed filters may take."""


def applies(window: Window, upsampling: Pair, channels: int, filters: int, dtype: np.dtype[Any]) -> bool:
    """Return whether a convolution is done in this way: the shape of an image alone decides."""
    size, moves = (FILTER, FILTER), (window.stride, window.dilation, upsampling)
    return (
        window.size == size
        and all(move == (1, 1) for move in moves)
        and min(channels, filters) >= LEAST_CHANNELS
        and math.prod(tiles_of(window)) >= LEAST_TILES
        and channels + filters <= MOST_WIDTH
        and PRODUCTS * channels * filters * dtype.itemsize <= MOST_BYTES
    )


def tiles_of(window: Window) -> Pair:
    """Return how many tiles an image has down and across."""
    return -(-window.places[0] // RESULT), -(-window.places[1] // RESULT)


def image_of(window: Window) -> Pair:
    """Return height and width of an image with the padding that its tiles need."""
    down, across = tiles_of(window)
    return RESULT * down + FILTER - 1, RESULT * across + FILTER - 1


def packed_shape(channels: int, filters: int, dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """Return the shape of what `filters_kernel` makes."""
    return PRODUCTS, *dense_shape(channels, filters, dtype)


def scratch_sizes(channels: int, filters: int) -> tuple[int, int, int]:
    """Return how many elements a thread needs for transformed tiles, for their sums, and for panels of one of the 16."""
    panels = BLOCK // MR * ((channels + UNROLL) * MR + (channels // KC + 1) * SLACK)
    return PRODUCTS * (BLOCK * channels + GAP), PRODUCTS * (BLOCK * filters + GAP), panels


@kernel
def filters_kernel(weight: Array, channels: int, filters: int, packed: Array, threads: int) -> None:
    """Transform a weight (9 * channels * filters), and pack each of its 16 matrices as `pack_kernel` does."""
    flat, nr = packed.reshape(packed.size), tile_columns(packed)
    panels, apart = (filters + nr - 1) // nr, packed.size // PRODUCTS
    across = channels * filters
    for t in prange(threads):
        for panel in range(t * panels // threads, (t + 1) * panels // threads):
            for k0 in range(0, channels, KC):
                kc = min(KC, channels - k0)
                to = (panels * k0 + panel * padded(kc)) * nr
                for k in range(kc):
                    at, count = (k0 + k) * filters + panel * nr, filters - panel * nr
                    transform_filter(weight, at, FILTER * across, across, flat, to + k * nr, apart, count)
                for i in range(PRODUCTS):
                    start = i * apart + to
                    flat[start + kc * nr : start + padded(kc) * nr] = 0


@device
def finish_places(c: Array, finish: Finish, c_drop: U64, first: int, stop: int, bits: U64) -> None:
    """Finish rows first .. stop - 1 of c, as many decisions at once as a product has."""
    columns, width = c.shape[1], PANELS_AT_ONCE * tile_columns(c)
    for i in range(first, stop, MR):
        for left in range(0, columns, width):
            finish_rows(c, finish, c_drop, i, min(stop, i + MR), left, min(columns, left + width), bits)


@device
def pack_matrix(values: Array, at: int, count: int, depth: int, packed: Array) -> None:
    """Pack all panels of the matrix (count, depth) that begins at ``values[at]``."""
    tiles = (count + MR - 1) // MR
    for k0 in range(0, depth, KC):
        kc = min(KC, depth - k0)
        for tile in range(tiles):
            i, to = tile * MR, panel_start(tile, tiles, k0, kc)
            height = tile_height(count - i)
            last = min(height, count - i) - 1
            transpose_panel(values, at + i * depth + k0, depth, last, kc, packed, to, height, A_PANEL)
            packed[to + kc * height : to + padded(kc) * height] = 0


@device
def multiply_matrix(packed: Array, count: int, depth: int, u: Array, sums: Array, at: int, columns: int) -> None:
    """Write the product of what `pack_matrix` packed with one of the matrices of filters, (count, columns), to ``sums[at]``."""
    tiles, nr = (count + MR - 1) // MR, tile_columns(sums)
    panels, flat = (columns + nr - 1) // nr, u.reshape(u.size)
    for left in range(0, panels, PANELS_AT_ONCE):
        for k0 in range(0, depth, KC):
            kc = min(KC, depth - k0)
            for tile in range(tiles):
                i, start = tile * MR, panel_start(tile, tiles, k0, kc)
                height = tile_height(count - i)
                for panel in range(left, min(panels, left + PANELS_AT_ONCE)):
                    j, panel_at = panel * nr, (panels * k0 + panel * padded(kc)) * nr
                    tile_product(
                        height, padded(kc), packed, start, flat, panel_at, sums, at + i * columns + j, columns, count - i,
                        columns - j, k0 > 0,
                    )  # fmt: skip


@kernel
def winograd_kernel(
    x: Array, image: tuple[int, int, int], places: tuple[int, int], u: Array, c: Array, finish: Finish, c_drop: U64,
    room: Array, all_bits: U64, threads: int,
) -> None:  # fmt: skip
    """``c = patches(x) @ weight``, then what `finish` and c_drop say; see `patches_kernel`.

    x is all elements of images (height, width, channels) as large as `image_of` says; u (16, panels) what `filters_kernel`
    makes; room (threads, the sum of `scratch_sizes`) and all_bits are scratch.
    """
    height, width, channels = image
    tall, wide = places
    filters, down, across = c.shape[1], (tall + 1) // RESULT, (wide + 1) // RESULT
    apart, sums_apart = BLOCK * channels + GAP, BLOCK * filters + GAP
    lines = len(c) // (tall * wide) * down
    flat = c.reshape(c.size)
    for t in prange(threads):
        values, sums = room[t, : PRODUCTS * apart], room[t, PRODUCTS * apart : PRODUCTS * (apart + sums_apart)]
        packed = room[t, PRODUCTS * (apart + sums_apart) :]
        done, last = t * lines // threads, (t + 1) * lines // threads
        for first in range(done * across, last * across, BLOCK):
            count = min(BLOCK, last * across - first)
            for tile in range(count):
                row, j = (first + tile) // across, (first + tile) % across
                at = ((row // down * height + row % down * RESULT) * width + j * RESULT) * channels
                transform_tile(x, at, width * channels, channels, values, tile * channels, apart, channels)
            for i in range(PRODUCTS):
                pack_matrix(values, i * apart, count, channels, packed)
                multiply_matrix(packed, count, channels, u[i], sums, i * sums_apart, filters)
            for tile in range(count):
                row, j = (first + tile) // across, (first + tile) % across
                i = row % down * RESULT
                to = ((row // down * tall + i) * wide + j * RESULT) * filters
                below, right = (wide if i + 1 < tall else 0) * filters, (1 if j * RESULT + 1 < wide else 0) * filters
                transform_result(sums, tile * filters, sums_apart, flat, to, below, right, filters)
            while (done + 1) * across <= first + count:
                i = done % down * RESULT
                begin = (done // down * tall + i) * wide
                finish_places(c, finish, c_drop, begin, begin + min(RESULT, tall - i) * wide, all_bits[t])
                done += 1
