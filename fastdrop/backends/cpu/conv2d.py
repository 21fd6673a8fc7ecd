"""Convolutions as products with the patches of images, which are gathered while panels are packed: no array of them is made.

Notation: the patches of images (rows, height, width, channels) are a matrix (M, K), a row for each place of the window on each
image, a column for each element of the window and channel. Forward it is ``c = patches(x) @ b``; the gradient by the weight is
``c += patches(x).T @ dz``. The gradient by the image is the convolution of dz with the weight turned around, or, where that
is less work, each patch's gradient added into the image.

Convolutions of 3 x 3 with many channels are done in another way: see `_winograd`.

Where most of dz is known to be zero, as behind max-pooling, its other elements are listed, and only they are multiplied.

Images that a window leaves are copied with their padding first, some at a time, so that element k of patch m lies at
``starts[m] + offset(k)``. Each thread packs what it needs, then goes through the blocked loops of `dense`. Order of summation:
that of `dense`, along K, and along M for the gradient by the weight.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array, Indices
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._lists import add_listed
from fastdrop.backends.cpu._panels import copy_rows_panel, transpose_rows_panel
from fastdrop.backends.cpu._tile import MR, tile_columns
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.dense import (
    KC,
    PACKED,
    PANELS_AT,
    PLAIN,
    SLACK,
    Scratch,
    grid,
    multiply_rectangle,
    padded,
    panel_start,
    tile_height,
)
from fastdrop.backends.cpu.epilogue import Finish, add_row, clear
from fastdrop.backends.cpu.masks import U64
from fastdrop.window import Pair, Window

prange = numba.prange

Places: TypeAlias = npt.NDArray[np.int64]

Geometry: TypeAlias = tuple[int, ...]
"""A window as kernels take it: height, width and channels of the images; size, stride, dilation and places."""

PANEL_SIZE = KC * MR + SLACK
"""Elements of a packed panel, with what lies between two."""
MOST_PANELS = 40
"""Most panels of patches that a thread packs at a time: they stay in its cache beside a block of b."""
BATCH_BYTES = 1 << 21
"""Images, or gradients of results, that are worked on at a time where they have to be made first."""
NANOSECONDS = 0.3
"""Estimated cost of an element that is copied or added."""
GATHERING = 3
"""Tiles of c that take as long to compute as a tile of patches to pack."""
PANEL_BYTES = 128
"""A row of a panel of b, of the widest vectors there are."""
ADDITION = 24
"""How many multiply-adds of a product cost as much as adding an element of a patch."""
BAND_ELEMENTS = 8192
"""Elements of images, as many as stay in the nearest cache, whose listed gradients are worked off together."""
LISTED_ELEMENTS = 1 << 16
"""Elements of gradients of results that a thread lists at a time for the gradient by the image."""
LEAST_LISTED = 32
"""Fewest elements in a row for a product with listed elements to be worth it."""


def geometry_of(window: Window, image: Pair, channels: int) -> Geometry:
    """Return a window as kernels take it, on images of that height and width, which it does not leave."""
    return *image, channels, *window.size, *window.stride, *window.dilation, *window.places


def reach_of(window: Window) -> Pair:
    """Return height and width of an image of which all that the window sees is a part, from its first element on."""
    height, width = (
        (count - 1) * step + (n - 1) * apart + 1
        for count, step, n, apart in zip(window.places, window.stride, window.size, window.dilation, strict=True)
    )
    return height, width


def band_of(geometry: Geometry) -> int:
    """Return how many rows of places are listed together for the gradient by the weight."""
    _, width, channels, _, _, step, _, _, _, tall, _ = geometry
    return min(tall, max(1, BAND_ELEMENTS // (width * channels * step)))


def listed_lines(window: Window, filters: int) -> int:
    """Return how many lines of places are listed together for the gradient by the image: all, unless they are too many."""
    reach = (window.size[0] - 1) * window.dilation[0] // window.stride[0] + 1
    return min(window.places[0], max(reach, LISTED_ELEMENTS // max(1, window.places[1] * filters)))


def adds_patches(window: Window, channels: int, filters: int, dtype: np.dtype[Any]) -> bool:
    """Return whether the gradient by the image is less work patch by patch than as a convolution: few channels, or strides.

    The two have other orders of summation, so that nothing of the machine may decide.
    """
    nr = PANEL_BYTES // dtype.itemsize
    patch, whole = window.taps * channels, -(-channels // nr) * nr
    by_patch = window.positions * (filters * -(-patch // nr) * nr + ADDITION * patch)
    return by_patch < math.prod(window.image) * window.taps * filters * whole


@device
def patch_start(geometry: Geometry, m: int) -> int:
    """Return where patch m begins."""
    height, width, channels, _, _, down_step, step, _, _, down, places = geometry
    image, place = m // (down * places), m % (down * places)
    return ((image * height + place // places * down_step) * width + place % places * step) * channels


@device
def run_of(geometry: Geometry, k: int) -> tuple[int, int]:
    """Return where element k of a patch lies behind its beginning, and how many elements from there on lie together."""
    _, width, channels, _, across, _, _, down_apart, apart, _, _ = geometry
    tap, channel = k // channels, k % channels
    p, q = tap // across, tap % across
    offset = (p * down_apart * width + q * apart) * channels + channel
    return offset, (across - q if apart == 1 else 1) * channels - channel


@device
def pack_patch_rows(
    x: Array, geometry: Geometry, rows: int, i0: int, tiles: int, base: int, end: int, packed: Array, starts: Indices
) -> None:
    """Pack tiles of rows i0.. of the patches of x (all elements), columns base .. end - 1."""
    for tile in range(tiles):
        i = i0 + tile * MR
        height = tile_height(rows - i)
        stop = min(i + height, rows)
        for row in range(i, stop):
            starts[row - i] = patch_start(geometry, row)
        for k0 in range(base, end, KC):
            kc = min(KC, end - k0)
            to, k = panel_start(tile, tiles, k0 - base, kc), k0
            while k < k0 + kc:
                offset, together = run_of(geometry, k)
                count = min(together, k0 + kc - k)
                transpose_rows_panel(x, starts, offset, stop - i - 1, count, packed, to + (k - k0) * height, height)
                k += count
            packed[to + kc * height : to + padded(kc) * height] = 0


@device
def pack_patch_columns(
    x: Array, geometry: Geometry, columns: int, i0: int, tiles: int, k0: int, kc: int, packed: Array, starts: Indices
) -> None:
    """Pack tiles of columns i0.. of the patches, rows k0 .. k0 + kc - 1: of their transpose, as deep as there are places."""
    for k in range(kc):
        starts[k] = patch_start(geometry, k0 + k)
    for tile in range(tiles):
        i, to = i0 + tile * MR, panel_start(tile, tiles, 0, kc)
        height = tile_height(columns - i)
        offset, together = run_of(geometry, i)
        width = min(height, columns - i)
        if width <= together:
            copy_rows_panel(x, starts, offset, kc, width, packed, to, height)
        else:
            for j in range(width):
                offset, _ = run_of(geometry, i + j)
                for k in range(kc):
                    packed[to + k * height + j] = x[starts[k] + offset]
        packed[to + kc * height : to + padded(kc) * height] = 0


@kernel
def pad_kernel(x: Array, before: Pair, upsampling: Pair, y: Array, threads: int) -> None:
    """Write images x with zeros around, and upsampling - 1 of them between their elements, to y, as far as they fit."""
    rows, height, width, _ = y.shape
    top, left = before
    down, across = upsampling
    for t in prange(threads):
        for line in range(t * rows * height // threads, (t + 1) * rows * height // threads):
            row, i = line // height, line % height - top
            target = y[row, line % height].reshape(width * x.shape[3])
            clear(target)
            if i % down or i < 0 or i // down >= x.shape[1]:
                continue
            if across == 1:
                count = min(x.shape[2], width - left) * x.shape[3]
                source = x[row, i // down].reshape(x.shape[2] * x.shape[3])
                add_row(source[:count], target[left * x.shape[3] :], True)
            else:
                for j in range(min(x.shape[2], (width - left + across - 1) // across)):
                    y[row, line % height, left + j * across] = x[row, i // down, j]


@kernel
def add_patches_kernel(patches: Array, geometry: Geometry, first: int, tall: int, y: Array, threads: int) -> None:
    """Write images y (rows, height, width * channels), sums of their patches (M, K), or add to them.

    The patches are those of `tall` rows of places from `first` on, of each image; those from 0 on come first.
    """
    height, _, channels, down, across, down_step, step, down_apart, apart, _, wide = geometry
    row_size = across * channels
    run = row_size if apart == 1 else channels
    for t in prange(threads):
        for line in range(t * len(y) * height // threads, (t + 1) * len(y) * height // threads):
            row, at = line // height, line % height
            target = y[row, at]
            if first == 0:
                clear(target)
            for p in range(down - 1, -1, -1):
                i, rest = (at - p * down_apart) // down_step - first, (at - p * down_apart) % down_step
                if rest or i < 0 or i >= tall:
                    continue
                for j in range(wide):
                    source = patches[(row * tall + i) * wide + j]
                    for k in range(0, row_size, run):
                        to = (j * step + k // channels * apart) * channels
                        add_row(source[p * row_size + k : p * row_size + k + run], target[to : to + run], False)


@kernel
def patches_kernel(
    x: Array, geometry: Geometry, depth: int, b: Array, c: Array, finish: Finish, c_drop: U64, scratch: Scratch,
    starts: Indices, threads: int
) -> None:  # fmt: skip
    """``c = patches(x) @ b``, then what `finish` and c_drop say; b (depth, columns of c) as `pack_kernel` packs it.

    starts (threads, KC) is scratch.
    """
    packed, work, all_bits = scratch
    rows, columns = c.shape
    all_tiles, panels = (rows + MR - 1) // MR, (columns + tile_columns(c) - 1) // tile_columns(c)
    parts = min(threads, len(packed) // PANEL_SIZE)
    share = len(packed) // parts
    most = min(MOST_PANELS, share // PANEL_SIZE)
    deep = min(most, (depth + KC - 1) // KC)
    for t in prange(parts):
        own, line = packed[t * share : (t + 1) * share], work[t]
        last = (t + 1) * all_tiles // parts
        for tile in range(t * all_tiles // parts, last, most // deep):
            tiles = min(most // deep, last - tile)
            for base in range(0, depth, deep * KC):
                end = min(depth, base + deep * KC)
                pack_patch_rows(x, geometry, rows, tile * MR, tiles, base, end, own, starts[t])
                multiply_rectangle(
                    own, tile * MR, tiles, (0, tiles, 0, panels), (base, end, depth), b, PACKED, c, False, finish, c_drop, False,
                    work[t, PANELS_AT:], line, all_bits[t],
                )  # fmt: skip


@kernel
def patches_gradient_kernel(
    x: Array,
    geometry: Geometry,
    dz: Array,
    c: Array,
    finish: Finish,
    c_drop: U64,
    scratch: Scratch,
    starts: Indices,
    threads: int,
) -> None:
    """``c += patches(x).T @ dz``, dz (M, columns of c); `finish` and c_drop do nothing."""
    packed, work, all_bits = scratch
    rows, columns = c.shape
    depth = len(dz)
    all_tiles, panels = (rows + MR - 1) // MR, (columns + tile_columns(c) - 1) // tile_columns(c)
    down, across = grid(all_tiles, panels, min(threads, len(packed) // PANEL_SIZE), GATHERING)
    share = len(packed) // (down * across)
    at_once = share // PANEL_SIZE
    for t in prange(down * across):
        own, line = packed[t * share : (t + 1) * share], work[t]
        last = (t // across + 1) * all_tiles // down
        part = t % across * panels // across, (t % across + 1) * panels // across
        for tile in range(t // across * all_tiles // down, last, at_once):
            tiles = min(at_once, last - tile)
            for k0 in range(0, depth, KC):
                kc = min(KC, depth - k0)
                pack_patch_columns(x, geometry, rows, tile * MR, tiles, k0, kc, own, starts[t])
                multiply_rectangle(
                    own, tile * MR, tiles, (0, tiles, *part), (k0, k0 + kc, depth), dz, PLAIN, c, True, finish,
                    c_drop, False, work[t, PANELS_AT:], line, all_bits[t],
                )  # fmt: skip


@device
def list_elements(row: Array, step: int, values: Array, places: Array, first: int) -> int:
    """List the elements of a row that are not zero, element f at place ``f * step``; return how many there are."""
    count = first
    for f in range(len(row)):
        values[count] = row[f]
        places[count] = f * step
        count += int(row[f] != 0)
    return count - first


@kernel
def listed_image_gradient_kernel(
    dz: Array,
    weight: Array,
    geometry: Geometry,
    before: Pair,
    dx: Array,
    values: Array,
    places: Array,
    counts: Places,
    threads: int,
) -> None:
    """Write dx (rows, height, width, channels), where most of dz (rows, *places, filters) is zero.

    weight (taps, filters, channels) has its last two axes exchanged. values and places (threads, elements of some lines of dz)
    and counts (threads, places of them) are scratch; how many lines `listed_lines` says.
    """
    _, _, channels, down, across, down_step, step, down_apart, apart, tall, wide = geometry
    rows, height, width, _ = dx.shape
    filters = dz.shape[3]
    matrix = weight.reshape(weight.size)
    listed = counts.shape[1] // wide
    most = height if listed >= tall else listed * down_step - (down - 1) * down_apart
    for t in prange(threads):
        own_values, own_places = values[t], places[t]
        line, last = t * rows * height // threads, (t + 1) * rows * height // threads
        while line < last:  # an image, or what of it is this thread's and is listed at a time: lines top .. bottom - 1
            row, top = line // height, line % height
            bottom = min(height, top + last - line, top + most)
            line += bottom - top
            image = dx[row].reshape(height * width * channels)
            clear(image[top * width * channels : bottom * width * channels])
            first = max(0, (top + before[0] - (down - 1) * down_apart + down_step - 1) // down_step)
            for i in range(first, min(tall, (bottom - 1 + before[0]) // down_step + 1)):
                for j in range(wide):
                    m = (i - first) * wide + j
                    counts[t, m] = list_elements(dz[row, i, j], channels, own_values, own_places, m * filters)
            for tap in range(down * across):
                y, x = tap // across * down_apart - before[0], tap % across * apart - before[1]
                for i in range(max(0, (top - y + down_step - 1) // down_step), min(tall, (bottom - 1 - y) // down_step + 1)):
                    for j in range(wide):
                        if x + j * step < 0 or x + j * step >= width:
                            continue
                        m, at = (i - first) * wide + j, ((y + i * down_step) * width + x + j * step) * channels
                        add_listed(
                            own_values,
                            own_places,
                            m * filters,
                            counts[t, m],
                            matrix,
                            tap * filters * channels,
                            image,
                            at,
                            channels,
                        )


@kernel
def listed_weight_gradient_kernel(
    x: Array, geometry: Geometry, dz: Array, total: Array, values: Array, places: Places, counts: Places, threads: int
) -> None:
    """``total[f] += sum over m of dz[m, f] * patch m``, where most of dz (rows, *places, filters) is zero; x is all elements.

    total is (filters, K). values and places (filters, places of a band) and counts (filters,) are scratch.
    """
    _, _, channels, _, across, _, _, _, apart, tall, wide = geometry
    rows, filters = len(dz), dz.shape[3]
    depth, run = total.shape[1], (across if apart == 1 else 1) * channels
    flat = total.reshape(total.size)
    band = values.shape[1] // wide
    for t in prange(threads):
        low, high = t * filters // threads, (t + 1) * filters // threads
        for row in range(rows):
            for top in range(0, tall, band):
                for f in range(low, high):
                    counts[f] = 0
                for i in range(top, min(tall, top + band)):
                    for j in range(wide):
                        start, source = patch_start(geometry, (row * tall + i) * wide + j), dz[row, i, j]
                        for f in range(low, high):
                            at = counts[f]
                            values[f, at], places[f, at] = source[f], start
                            counts[f] = at + int(source[f] != 0)
                for f in range(low, high):
                    for k in range(0, depth, run):
                        offset, _ = run_of(geometry, k)
                        add_listed(values[f], places[f], 0, counts[f], x, offset, flat, f * depth + k, run)
