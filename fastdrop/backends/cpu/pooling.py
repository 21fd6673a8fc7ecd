"""Pooling of images (rows, height, width, channels): the largest element, or the mean, of each channel in each window.

A thread has whole images, and goes through the channels of a place together. Gradients are added up in the order of places.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop._types import Array
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import give_to_largest, numba
from fastdrop.backends.cpu.epilogue import add_row, clear
from fastdrop.backends.formulas._formula import select
from fastdrop.window import Window

prange = numba.prange

NANOSECONDS = 0.3
"""Estimated cost of an element."""


Taps: TypeAlias = npt.NDArray[np.int32]
"""Which element of its window is the largest, for each channel."""

Frame: TypeAlias = tuple[int, ...]
"""A window as kernels take it: image, size, stride, padding before, places, two numbers each."""


def frame_of(window: Window) -> Frame:
    """Return a window without dilation as kernels take it."""
    return *window.image, *window.size, *window.stride, *window.before, *window.places


@device
def spans(frame: Frame, i: int, j: int) -> tuple[int, int, int, int, int, int]:
    """Return, of the window at place (i, j), the position of its first element, and which rows and columns are in the image."""
    height, width, down, across, down_step, step, top, before, _, _ = frame
    y, x = i * down_step - top, j * step - before
    return y, x, max(0, -y), min(down, height - y), max(0, -x), min(across, width - x)


@device
def is_whole_four(frame: Frame) -> bool:
    """Return whether every window is 2 x 2, and within the image: the usual pooling."""
    height, width, down, across, down_step, step, top, before, tall, wide = frame
    inside = top == 0 and before == 0 and (tall - 1) * down_step + down <= height and (wide - 1) * step + across <= width
    return down == 2 and across == 2 and inside


@device
def better(value: Any, largest: Any) -> Any:
    """Return whether an element of a window is chosen in place of the largest one before it; NaN is larger than anything."""
    return (value > largest) | np.isnan(value)


@device
def largest_of_four(first: Array, second: Array, third: Array, fourth: Array, y: Array) -> None:
    """Write the largest of four elements of each channel."""
    for c in range(len(y)):
        value = first[c]
        value = select(better(second[c], value), second[c], value)
        value = select(better(third[c], value), third[c], value)
        y[c] = select(better(fourth[c], value), fourth[c], value)


@device
def keep_largest(row: Array, tap: int, largest: Array, taps: Taps) -> None:
    """Put an element of the window, of each channel, in place of the largest one so far; NaN is larger than anything."""
    for c in range(len(row)):
        value = row[c]
        later = better(value, largest[c])
        largest[c] = select(later, value, largest[c])
        taps[c] = select(later, np.int32(tap), taps[c])


@device
def choose(x: Array, i: int, j: int, frame: Frame, largest: Array, taps: Taps) -> None:
    """Write the largest elements of image x at place (i, j), and which elements of the window they are."""
    top, left, p_first, p_last, q_first, q_last = spans(frame, i, j)
    across = frame[3]
    source = x[top + p_first, left + q_first]
    for c in range(len(largest)):
        largest[c] = source[c]
        taps[c] = p_first * across + q_first
    for p in range(p_first, p_last):
        for q in range(q_first, q_last):
            if p > p_first or q > q_first:
                keep_largest(x[top + p, left + q], p * across + q, largest, taps)


@kernel
def max_pool_kernel(x: Array, frame: Frame, y: Array, taps: Taps, threads: int) -> None:
    """Write the largest elements; taps (threads, channels) is scratch."""
    rows, four = len(x), is_whole_four(frame)
    for t in prange(threads):
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            for i in range(frame[8]):
                for j in range(frame[9]):
                    if four:
                        left, upper, lower = j * frame[5], x[row, i * frame[4]], x[row, i * frame[4] + 1]
                        largest_of_four(upper[left], upper[left + 1], lower[left], lower[left + 1], y[row, i, j])
                    else:
                        choose(x[row], i, j, frame, y[row, i, j], taps[t])


@device
def give(source: Array, taps: Taps, tap: int, target: Array, add: bool) -> None:
    """Write, or add, the gradient of each channel whose largest element is this one of the window; zero to the others."""
    zero = source.dtype.type(0)
    if add:
        for c in range(len(target)):
            target[c] += select(taps[c] == np.int32(tap), source[c], zero)
    else:
        for c in range(len(target)):
            target[c] = select(taps[c] == np.int32(tap), source[c], zero)


@kernel
def max_pool_gradient_kernel(dy: Array, x: Array, frame: Frame, dx: Array, largest: Array, taps: Taps, threads: int) -> None:
    """Write dx: dy goes to the largest elements; largest and taps (threads, channels) are scratch."""
    rows, four = len(x), is_whole_four(frame)
    height, width, down, across, down_step, step, _, _, tall, wide = frame
    channels, apart = x.shape[3], down <= down_step and across <= step
    tiled = down == down_step and across == step and height == tall * down and width == wide * across
    flat_x, flat_dx, flat_dy = x.reshape(x.size), dx.reshape(dx.size), dy.reshape(dy.size)
    for t in prange(threads):
        own = taps[t]
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            if not tiled:
                dx[row] = dx.dtype.type(0)
            for i in range(tall):
                for j in range(wide):
                    top, left, p_first, p_last, q_first, q_last = spans(frame, i, j)
                    if four and apart:
                        upper = ((row * height + top) * width + left) * channels
                        lower, source = upper + width * channels, ((row * tall + i) * wide + j) * channels
                        give_to_largest(flat_x, upper, lower, flat_dy, source, channels, flat_dx)
                        continue
                    choose(x[row], i, j, frame, largest[t], own)
                    for p in range(p_first, p_last):
                        for q in range(q_first, q_last):
                            give(dy[row, i, j], own, p * across + q, dx[row, top + p, left + q], not tiled)


@kernel
def average_pool_kernel(x: Array, frame: Frame, y: Array, threads: int) -> None:
    """Write the means."""
    rows, channels = len(x), x.shape[3]
    for t in prange(threads):
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            for i in range(frame[8]):
                for j in range(frame[9]):
                    top, left, p_first, p_last, q_first, q_last = spans(frame, i, j)
                    total, count = y[row, i, j], x.dtype.type((p_last - p_first) * (q_last - q_first))
                    clear(total)
                    for p in range(p_first, p_last):
                        for q in range(q_first, q_last):
                            add_row(x[row, top + p, left + q], total, False)
                    for c in range(channels):
                        total[c] /= count


@kernel
def average_pool_gradient_kernel(dy: Array, frame: Frame, dx: Array, threads: int) -> None:
    """Write dx: every element of a window gets the same part of dy."""
    rows, channels = len(dy), dy.shape[3]
    for t in prange(threads):
        for row in range(t * rows // threads, (t + 1) * rows // threads):
            dx[row] = dx.dtype.type(0)
            for i in range(frame[8]):
                for j in range(frame[9]):
                    top, left, p_first, p_last, q_first, q_last = spans(frame, i, j)
                    source, count = dy[row, i, j], dy.dtype.type((p_last - p_first) * (q_last - q_first))
                    for p in range(p_first, p_last):
                        for q in range(q_first, q_last):
                            target = dx[row, top + p, left + q]
                            for c in range(channels):
                                target[c] += source[c] / count
