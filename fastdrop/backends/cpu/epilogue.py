"""What is done with finished rows of results: bias, activation, dropout; and its backward pass.

Forward, tile by tile while it is in L1: ``y = keep ? scale * act(z + bias) : +0.0``.
Backward: ``dz = keep ? dy * scale * act'(z) : +0.0``, and the bias gradient, the sum of dz over rows, in chunks of
`CHUNK_ROWS` rows that are joined in order, so that it does not depend on the threads. relu needs no mask: its output is
positive exactly where it was active and kept.
"""

from __future__ import annotations

from typing import TypeAlias

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import WORD_BITS, numba
from fastdrop.backends.cpu.activations import LINEAR, RELU, activate_row, gradient_row
from fastdrop.backends.cpu.dropout import scale_kept_row
from fastdrop.backends.cpu.masks import KEEP_ALL, KIND, U64, decide, scale_of
from fastdrop.backends.cpu.updates import NO_UPDATE, KernelUpdate, update_row

prange = numba.prange

Finish: TypeAlias = tuple[Array, bool, Array, int]
"""(y, whether y is another array than z, bias, activation)."""

CHUNK_ROWS = 32
"""Rows whose bias gradients are added up one after the other: part of the definition of the result."""
CHUNK_COLUMNS = 512
NARROW = 128
"""Most columns of rows that are too short to be done one by one."""


@device
def leaves_out(plan: U64) -> bool:
    """Return whether a mask drops anything; else it is a factor."""
    return int(plan[KIND]) != KEEP_ALL


@device
def drops(plan: U64) -> bool:
    """Return whether a mask does anything at all."""
    return leaves_out(plan) or scale_of(plan) != 1


@device
def drop_rows(plan: U64, x: Array, i: int, stop: int, left: int, right: int, y: Array, stride: int, bits: U64) -> None:
    """Write rows i .. stop - 1, columns left .. right - 1 of x, dropped out, to y, `stride` elements a row; see `decide`."""
    scale = x.dtype.type(scale_of(plan))
    words = (right - left + WORD_BITS - 1) // WORD_BITS
    decide(plan, i, stop - i, left, right - left, bits)
    for row in range(i, stop):
        to = (row - i) * stride
        scale_kept_row(x[row, left:right], y[to : to + right - left], bits[(row - i) * words :], scale)


@device
def finish_rows(z: Array, finish: Finish, plan: U64, i: int, stop: int, left: int, right: int, bits: U64) -> None:
    """Finish rows i .. stop - 1, columns left .. right - 1: decisions of all of them at once, see `decide`.

    Adds the bias (if it has elements) to z in place, then writes the activated and dropped-out rows to y: `apart`, or z itself.
    """
    y, apart, bias, activation = finish
    scale = z.dtype.type(scale_of(plan))
    masked, scaled, columns = leaves_out(plan), scale != 1, right - left
    words = (columns + WORD_BITS - 1) // WORD_BITS
    part = bias[left:right]
    if masked:
        decide(plan, i, stop - i, left, columns, bits)
    if not (masked or scaled or apart or len(bias) or activation != LINEAR):
        return
    for row in range(i, stop):
        source, target = z[row, left:right], y[row, left:right]
        if len(bias):
            for j in range(columns):
                source[j] += part[j]
        if apart:
            for j in range(columns):
                target[j] = source[j]
        activate_row(activation, target)
        if masked:
            scale_kept_row(target, target, bits[(row - i) * words :], scale)
        elif scaled:
            for j in range(columns):
                target[j] *= scale


@kernel
def gradient_kernel(
    dy: Array,
    state: Array,
    dz: Array,
    partial: Array,
    activation: int,
    plan: U64,
    dbias: Array,
    accumulate: bool,
    update: KernelUpdate,
    bits: U64,
    threads: int,
) -> None:
    """Write dz, all (rows, columns), and ``dbias (+)= its sum over rows``, by which the bias is updated.

    partial (chunks, columns) is scratch for the sums of each chunk of rows. Where dbias is empty, only dz is wanted.
    """
    rows, columns = dy.shape
    across = (columns + CHUNK_COLUMNS - 1) // CHUNK_COLUMNS
    tasks = (rows + CHUNK_ROWS - 1) // CHUNK_ROWS * across
    scale = dy.dtype.type(scale_of(plan))
    masked = leaves_out(plan) and activation != RELU
    one, wanted, narrow = dy.dtype.type(1), len(dbias) > 0, columns <= NARROW
    flat_dy, flat_state, flat_dz = dy.reshape(dy.size), state.reshape(state.size), dz.reshape(dz.size)
    for phase in range(2 if wanted else 1):  # one parallel loop for both phases: each is compiled by itself
        for t in prange(threads):
            if phase == 1:
                join_chunks(partial, t * columns // threads, (t + 1) * columns // threads, dbias, accumulate, update)
                continue
            for task in range(t * tasks // threads, (t + 1) * tasks // threads):
                chunk, low = task // across, task % across * CHUNK_COLUMNS
                high, first, stop = min(columns, low + CHUNK_COLUMNS), chunk * CHUNK_ROWS, min(rows, (chunk + 1) * CHUNK_ROWS)
                if narrow:
                    start, end = first * columns, stop * columns
                    gradient_row(activation, flat_dy[start:end], flat_state[start:end], scale, flat_dz[start:end])
                for i in range(first, stop):
                    row = dz[i, low:high]
                    if not narrow:
                        gradient_row(activation, dy[i, low:high], state[i, low:high], scale, row)
                    if masked:
                        decide(plan, i, 1, low, high - low, bits[t])
                        scale_kept_row(row, row, bits[t], one)
                    if wanted:
                        add_row(row, partial[chunk, low:high], i % CHUNK_ROWS == 0)


@device
def clear(row: Array) -> None:
    """Write zeros: a loop, which is vectorised where an assignment to a slice is not."""
    for j in range(len(row)):
        row[j] = 0


@device
def add_row(row: Array, total: Array, first: bool) -> None:
    """``total += row``, or the row itself if it is the first."""
    if first:
        for j in range(len(row)):
            total[j] = row[j]
    else:
        for j in range(len(row)):
            total[j] += row[j]


@device
def join_chunks(partial: Array, low: int, high: int, out: Array, accumulate: bool, update: KernelUpdate) -> None:
    """``out (+)= sum over chunks of partial``, chunk after chunk, for columns low .. high - 1; then the update by it."""
    total = out[low:high]
    if not accumulate:
        clear(total)
    for chunk in range(len(partial)):
        add_row(partial[chunk, low:high], total, False)
    kind, value, first, second, rates = update
    if kind != NO_UPDATE:
        update_row(kind, value[low:high], total, first[low:high], second[low:high], rates)
