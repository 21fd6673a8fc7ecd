"""Affine dropout through the seam, on every backend, and `AlphaDropout`: mean and variance stay."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_plausible, assert_same_bits, assert_varied, guarded
from gradients import directional_error
from strategies import DTYPES, EDGES, random_array

import fastdrop as fd
from fastdrop import Key, Mask
from fastdrop.backends.base import AbstractBackend
from fastdrop.errors import AllDroppedWarning

KEY = Key(4, 5, 6)
SATURATION = -1.0507009873554805 * 1.6732632423543772


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", EDGES)
@pytest.mark.parametrize("options", [{}, {"shared_rows": 2}, {"noise_shape": (None, 1)}, {"fixed_count": True}])
def test_affine_dropout_is_the_definition(backend: AbstractBackend, options: dict, columns: int, dtype: np.dtype) -> None:
    if options.get("fixed_count") and columns == 1:
        return
    x = random_array(columns, (5, columns), dtype)
    x.reshape(-1)[::7] = np.inf
    mask = Mask(0.5, KEY, row_offset=5, **options)
    keep, bound = mask.to_array(x.shape), mask.bind(x.shape)
    out, check = guarded(x.shape, dtype)
    assert backend.affine_dropout_forward(x, bound, 0.3, -0.7, out) is out
    check()
    number = dtype.type
    assert_same_bits(out, np.where(keep, x * number(bound.scale) + number(0.3), number(-0.7)))
    buffer = x.copy()
    assert_same_bits(backend.affine_dropout_forward(buffer, bound, 0.3, -0.7, buffer), out)


def test_affine_dropout_of_large_arrays(backend: AbstractBackend) -> None:
    x, mask = random_array(1, (2**17 + 5,)), Mask(0.1, KEY, row_offset=3)
    keep, scale = mask.to_array(x.shape), np.float32(mask.bind(x.shape).scale)
    got = backend.affine_dropout_forward(x, mask.bind(x.shape), 1.5, 2.5)
    assert_same_bits(got, np.where(keep, x * scale + np.float32(1.5), np.float32(2.5)))


# The layer


@pytest.mark.parametrize("rate", [0.001, 0.05, 0.1, 1 / 3, 0.5, 0.9])
def test_mean_and_variance_stay(rate: float) -> None:
    """Over the mask exactly, by the formula; over samples of selu units' moments within six standard errors."""
    layer, count = fd.AlphaDropout(rate, seed=1), 1 << 16
    two = layer(np.tile([-1.0, 1.0], count // 2), training=True)
    scale = 1 / math.sqrt((1 - rate) * (1 + rate * SATURATION**2))
    shift, dropped = -scale * rate * SATURATION, scale * SATURATION - scale * rate * SATURATION
    # the contract rounds a rate to 32 bits
    assert_near(np.unique(two), np.sort(np.array([shift - scale, shift + scale, dropped])), 1e-8)
    assert_plausible(int((np.abs(two - dropped) < 1e-8).sum()), count, rate)
    mean = (1 - rate) * shift + rate * dropped
    second = (1 - rate) * (scale**2 + shift**2) + rate * dropped**2
    assert abs(mean) < 1e-12
    assert abs(second - 1) < 1e-12
    y = fd.AlphaDropout(rate, seed=2)(random_array(3, (count,), np.float64), training=True)
    assert abs(float(y.mean())) < 6 / math.sqrt(count)
    assert abs(float(y.var()) - 1) < 6 * math.sqrt(float(np.mean((y**2 - 1) ** 2)) / count)


def test_the_mask_is_that_of_dropout() -> None:
    x = random_array(1, (6, 4, 5), np.float64)
    options = {"noise_shape": (None, 1, None), "shared_rows": 2, "seed": 3, "stream": 8}
    y, backward = fd.AlphaDropout(0.3, **options).forward(x, True, 7, 9)
    keep = fd.Dropout(0.3, **options).forward(np.ones_like(x), True, 7, 9)[0] != 0
    assert_varied(keep)
    assert len(np.unique(y[~keep])) == 1
    dx = backward(np.ones_like(x), input_gradient=True)
    assert_same_bits(dx != 0, keep)
    assert_near(y[keep], (dx * x)[keep] + float(np.median((y - dx * x)[keep])), 1e-12)


def test_a_fixed_count_has_its_own_keep_prob() -> None:
    y = fd.AlphaDropout(0.3, fixed_count=True, seed=1)(np.zeros((50, 7)), training=True)
    assert len(np.unique(y)) == 2
    assert (np.count_nonzero(y < 0, axis=1) == 2).all()
    assert abs(float(y.mean())) < 1e-12


def test_inference_and_rate_zero_are_the_identity() -> None:
    x = random_array(1, (3, 4))
    assert fd.AlphaDropout(0.5)(x) is x
    y, backward = fd.AlphaDropout(0.0).forward(x, True)
    assert y is x
    assert backward(x, input_gradient=True) is x


def test_rate_one_gives_zeros_and_warns_once() -> None:
    """The limit of the dropped value, a s + b, as the rate goes to 1."""
    layer, x = fd.AlphaDropout(1.0), np.full((2, 3), np.inf)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            y, backward = layer.forward(x, True, row_offset=step)
            assert_same_bits(y, np.zeros((2, 3)))
            assert_same_bits(backward(x, input_gradient=True), np.zeros((2, 3)))
    assert [each.category for each in caught if each.category is not RuntimeWarning] == [AllDroppedWarning]
    near = fd.AlphaDropout(1 - 2.0**-30, seed=1)(np.ones((2, 3)), training=True)
    assert (np.abs(near) < 1e-4).all()


def test_rate_may_be_assigned() -> None:
    layer, x = fd.AlphaDropout(0.5, seed=1), np.zeros(1000)
    before = layer.forward(x, True, 0)[0]
    layer.rate = 0.1
    after = layer.forward(x, True, 0)[0]
    assert_same_bits(after, fd.AlphaDropout(0.1, seed=1).forward(x, True, 0)[0])
    assert (np.unique(before) != np.unique(after)).all()
    assert_not_vacuous(after)


def test_gradient() -> None:
    assert directional_error(fd.AlphaDropout(0.4, seed=1), random_array(1, (4, 5), np.float64)) < 1e-6


def test_a_deep_selu_network_keeps_its_activations_normal() -> None:
    """Lecun-normal weights, selu and alpha dropout: mean near 0 and variance near 1 after sixteen layers."""
    layers = [
        layer for _ in range(16) for layer in (fd.Dense(256, "selu", weight_initializer="lecun_normal"), fd.AlphaDropout(0.1))
    ]
    y = fd.Sequential(layers, input_shape=(256,), seed=1).forward(random_array(1, (128, 256)), True, 0)[0]
    assert abs(float(y.mean())) < 0.15
    assert 0.7 < float(y.var()) < 1.4
