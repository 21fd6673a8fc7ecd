"""DropBlock through the seam, on every backend, against its definition in plain Python; and the layer."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_same_bits, assert_varied, guarded
from gradients import directional_error
from strategies import DTYPES, random_array

import fastdrop as fd
from fastdrop import Key, Mask
from fastdrop._types import Array, BoolArray
from fastdrop.backends.base import AbstractBackend
from fastdrop.errors import AllDroppedWarning, ArgumentValueError
from fastdrop.layers.drop_block import seed_rate

KEY = Key(4, 5, 6)
SHAPES = [
    (3, 5, 6, 4, 2),
    (2, 7, 7, 1, 7),
    (2, 4, 9, 13, 1),
    (1, 3, 3, 65, 3),
    (4, 12, 10, 3, 4),
    (2, 40, 40, 5, 3),
    (0, 4, 4, 2, 2),
]
"""(rows, height, width, channels, block_size)"""


def keep_by_definition(seeds: Mask, shape: tuple[int, ...], size: int) -> BoolArray:
    rows, height, width, channels = shape
    kept_seeds = seeds.to_array((rows, (height - size + 1) * (width - size + 1) * channels))
    kept_seeds = kept_seeds.reshape(rows, height - size + 1, width - size + 1, channels)
    keep = np.ones(shape, dtype=bool)
    for row, i, j, channel in np.argwhere(~kept_seeds):
        keep[row, i : i + size, j : j + size, channel] = False
    return keep


def by_definition(x: Array, keep: BoolArray) -> Array:
    y = np.zeros_like(x)
    for row in range(len(x)):
        if keep[row].any():
            scale = x.dtype.type(keep[row].size / int(keep[row].sum()))
            y[row][keep[row]] = x[row][keep[row]] * scale
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared_rows", [1, 2, "batch"])
@pytest.mark.parametrize("gamma", [0.03, 0.5])
def test_forward_and_backward_are_the_definition(
    backend: AbstractBackend, gamma: float, shared_rows: int | str, shape: tuple[int, ...], dtype: np.dtype
) -> None:
    *shape, size = shape
    x = np.abs(random_array(1, tuple(shape), dtype)) + 1
    seeds = Mask(gamma, KEY, shared_rows=shared_rows, row_offset=5)
    keep = keep_by_definition(seeds, x.shape, size)
    wanted = by_definition(x, keep)
    columns = (shape[1] - size + 1) * (shape[2] - size + 1) * shape[3]
    for operation in (backend.drop_block_forward, backend.drop_block_backward):
        out, check = guarded(x.shape, dtype)
        assert operation(x, seeds.bind((shape[0], columns), as_matrix=True), size, out) is out
        check()
        assert_same_bits(out, wanted)
        buffer = x.copy()
        assert_same_bits(operation(buffer, seeds.bind((shape[0], columns), as_matrix=True), size, buffer), wanted)
    if x.size > 1000:
        assert_varied(keep)


def test_special_values_vanish_where_dropped(backend: AbstractBackend) -> None:
    x = np.full((4, 9, 9, 3), np.nan)
    seeds = Mask(0.1, KEY)
    keep = keep_by_definition(seeds, x.shape, 3)
    assert_varied(keep)
    y = backend.drop_block_forward(x, seeds.bind((4, 7 * 7 * 3), as_matrix=True), 3)
    assert_same_bits(np.isnan(y), keep)
    assert_same_bits(y[~keep], np.zeros((~keep).sum()))


# The layer


def test_the_seeds_are_a_mask_of_rate_gamma() -> None:
    x = random_array(1, (5, 8, 10, 3), np.float64)
    layer = fd.DropBlock2D(0.4, 3, seed=9, stream=2)
    y = layer.forward(x, True, 7, 4)[0]
    seeds = Mask(0.4 / 9 * 80 / (6 * 8), Key(9, 2, 7), row_offset=4)
    assert_same_bits(y, by_definition(x, keep_by_definition(seeds, x.shape, 3)))
    assert_not_vacuous(y, 0.4)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_share_that_is_dropped(size: int, rate: float) -> None:
    """At an element that n blocks reach, ``1 - (1 - gamma)**n``: everywhere, and on the mean, which is below the rate."""
    height, width, rows = 9, 12, 20_000
    y = fd.DropBlock2D(rate, size, seed=3)(np.ones((rows, height, width, 1), np.float32), training=True)
    gamma = seed_rate(rate, size, height, width)
    reach = [np.array([min(i, extent - size) - max(0, i - size + 1) + 1 for i in range(extent)]) for extent in (height, width)]
    wanted = 1 - (1 - gamma) ** np.outer(*reach)
    got = (y[..., 0] == 0).mean(axis=0)
    assert_near(got, wanted, 6 * np.sqrt(wanted * (1 - wanted) / rows) + 1e-9)
    assert wanted.mean() <= rate + 1e-12
    assert wanted.mean() >= 0.75 * rate


def test_every_row_keeps_its_sum() -> None:
    """On a constant input the scale of a row makes up for what it lost."""
    y = fd.DropBlock2D(0.3, 3, seed=1)(np.ones((50, 10, 10, 4)), training=True)
    sums = y.sum(axis=(1, 2, 3))
    assert_near(sums, np.full(50, 400.0), 1e-9)
    assert_varied(y != 0)


def test_a_row_that_is_dropped_as_a_whole_is_zero() -> None:
    """One block, of the size of the image: a row is all or nothing, and never NaN."""
    x = np.full((200, 5, 5, 1), 2.0)
    y, backward = fd.DropBlock2D(0.5, 5, seed=1).forward(x, True)
    whole = y.reshape(200, -1)
    assert_varied(whole[:, 0] != 0)
    assert ((whole == 0).all(axis=1) | (whole == 2).all(axis=1)).all()
    assert_same_bits(backward(x, input_gradient=True), y)


def test_rate_zero_and_rate_one() -> None:
    x = random_array(1, (3, 6, 6, 2))
    layer = fd.DropBlock2D(0.0, 3)
    assert layer(x, training=True) is x
    layer.rate = 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            y, backward = layer.forward(x * np.float32(math.inf), True, row_offset=step)
            assert_same_bits(y, np.zeros_like(x))
            assert_same_bits(backward(x, input_gradient=True), np.zeros_like(x))
    assert [each.category for each in caught if each.category is not RuntimeWarning] == [AllDroppedWarning]


def test_gradient() -> None:
    assert directional_error(fd.DropBlock2D(0.3, 2, seed=1), random_array(1, (4, 5, 6, 2), np.float64)) < 1e-6


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentValueError, match="`block_size` must be at least 1, got 0"):
        fd.DropBlock2D(0.1, 0)
    with pytest.raises(ArgumentValueError, match=r"`block_size` must be at most height and width of x \(8, 4\), got 5"):
        fd.DropBlock2D(0.1, 5)(np.ones((2, 8, 4, 1)))
    with pytest.raises(ArgumentValueError, match=r"`x` must be of shape \(rows, height, width, channels\).* got \(rows, 8, 8\)"):
        fd.DropBlock2D(0.1, 5)(np.ones((2, 8, 8)))
