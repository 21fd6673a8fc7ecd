"""Products of kept units, of several groups of rows at once: each with rows and columns of its own of one weight.

They are those of `dense`: the same panels and tiles, the same order of summation. One kernel does several groups, because each
is so small that to start kernels for it, and to wait for all threads behind each of them, would take as long.
"""

from __future__ import annotations

from typing import TypeAlias

from fastdrop._types import Array, Indices
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._tile import MR, UNROLL, tile_columns, tile_product
from fastdrop.backends.cpu._vector import numba
from fastdrop.backends.cpu.dense import (
    KC,
    LINE,
    PANELS_AT,
    PANELS_AT_ONCE,
    SLACK,
    Scratch,
    pack_tiles,
    padded,
    panel_start,
    tile_height,
)
from fastdrop.backends.cpu.epilogue import finish_rows
from fastdrop.backends.cpu.masks import KEEP_ALL_PLAN, U64
from fastdrop.backends.cpu.units import take_columns

prange = numba.prange

GROUPS_AT_ONCE = 4
"""Groups that one kernel takes."""
Group: TypeAlias = tuple[Array, Indices, Indices, Array, Array]
"""(x, kept rows of the weight, kept columns, bias of those or an empty array, y)."""
Groups: TypeAlias = tuple[tuple[Array, ...], tuple[Indices, ...], tuple[Indices, ...], tuple[Array, ...], tuple[Array, ...]]
"""The same of GROUPS_AT_ONCE groups."""


def packed_size(rows: int, depth: int) -> int:
    """Return how many elements x takes as packed, or some more; see `dense.panel_start`."""
    return -(-rows // MR) * ((depth + UNROLL) * MR + (depth // KC + 1) * SLACK)


@device
def gather_panels(weight: Array, rows: Indices, columns: Indices, packed: Array) -> None:
    """Pack some rows and columns of the weight, as `dense.pack_panels` does."""
    kc, width, nr = len(rows), len(columns), tile_columns(weight)
    for k in range(padded(kc)):
        source = weight[rows[k] if k < kc else 0]
        for left in range(0, width, nr):
            to, count = left * padded(kc) + k * nr, min(nr, width - left) if k < kc else 0
            take_columns(source, columns[left : left + count], packed[to : to + nr])


@device
def multiply_kept(
    group: Group, weight: Array, first: int, last: int, activation: int, plan: U64, packed: Array, panels: Array, bits: U64
) -> None:
    """Write columns first .. last - 1 of y; packed is x."""
    x, rows, columns, bias, y = group
    height, depth = x.shape
    width, nr, flat = len(columns), tile_columns(y), y.reshape(y.size)
    tiles, finish = (height + MR - 1) // MR, (y, False, bias, activation)
    for left in range(first, last, PANELS_AT_ONCE * nr):
        right = min(last, left + PANELS_AT_ONCE * nr)
        for k0 in range(0, max(depth, 1), KC):
            kc = min(KC, depth - k0)
            gather_panels(weight, rows[k0 : k0 + kc], columns[left:right], panels)
            for j in range(left, right, nr):
                for tile in range(tiles):
                    i, at = tile * MR, panel_start(tile, tiles, k0, kc)
                    tile_product(
                        tile_height(height - i), padded(kc), packed, at, panels, (j - left) * padded(kc), flat, i * width + j,
                        width, height - i, right - j, k0 > 0,
                    )  # fmt: skip
        for i in range(0, height, MR):
            finish_rows(y, finish, plan, i, min(height, i + MR), left, right, bits)


@kernel
def kept_product_kernel(
    groups: Groups, count: int, weight: Array, activation: int, plan: U64, scratch: Scratch, threads: int
) -> None:
    """``y = act(x @ weight[rows][:, columns] + bias) * scale`` for the first `count` groups; the plan is that of the scale."""
    xs, rows, columns, biases, ys = groups
    packed, work, all_bits = scratch
    down = min(threads, count)
    across, share, nr = threads // down, len(packed) // threads, tile_columns(weight)
    for t in prange(down * across):
        own, bits, part = packed[t * share : (t + 1) * share], all_bits[t], t % across
        for g in range(t // across * count // down, (t // across + 1) * count // down):
            (height, depth), width = xs[g].shape, len(columns[g])
            tiles, panels = (height + MR - 1) // MR, (width + nr - 1) // nr
            pack_tiles(xs[g], False, KEEP_ALL_PLAN, 0, 0, tiles, tiles, 0, depth, False, own, work[t, :LINE], bits)
            first, last = part * panels // across * nr, min(width, (part + 1) * panels // across * nr)
            group = xs[g], rows[g], columns[g], biases[g], ys[g]
            multiply_kept(group, weight, first, last, activation, plan, own, work[t, PANELS_AT:], bits)
