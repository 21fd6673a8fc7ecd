"""Gaussian noise through the seam, on every backend: normals of the contract, to their stated error; and the two layers."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
from assertions import assert_agree, assert_near, assert_not_vacuous, assert_same_bits, guarded
from gradients import directional_error
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, dtypes, keys, random_array, shapes

import fastdrop as fd
from fastdrop import Key
from fastdrop._types import MONTE_CARLO_DOMAIN, Array, Domain, Shape
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.formulas._formula import JIT_DISABLED
from fastdrop.backends.formulas.normal import normal_pair
from fastdrop.backends.operands import Normals
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

KEY = Key(4, 5, 6)
RADIUS_ULP = {"float32": 4.0, "float64": 4.0}
"""Largest error of a normal, in units in the last place of its radius: the contract's bound, and the same in binary64."""
FIRSTS = [0, 1, 2, 3, 4, 2**32 - 7, 2**34 + 5, 2**58 - 1025]


def exact_normals(pairs: Array) -> tuple[Array, Array]:
    """Return (normals, radii) of word pairs (n, 2), twice n of each, in extended precision."""
    w0, w1 = pairs[:, 0].astype(np.longdouble), pairs[:, 1].astype(np.longdouble)
    unit, pi = np.longdouble(2) ** -32, 4 * np.arctan(np.longdouble(1))
    log_u0 = np.where(w0 >= 2**31, np.log1p(-(2**32 - w0 - 0.5) * unit), np.log((w0 + 0.5) * unit))
    radius, angle = np.sqrt(-2 * log_u0), 2 * pi * ((w1 + 0.5) * unit)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1), np.repeat(radius, 2)


def assert_normals(got: Array, pairs: Array, ulps: float) -> None:
    wanted, radius = exact_normals(pairs)
    error = np.abs(got.astype(np.longdouble) - wanted) / np.spacing(radius.astype(got.dtype)).astype(np.longdouble)
    worst = int(np.argmax(error))
    assert error[worst] <= ulps, f"{float(error[worst]):.2f} ulp of the radius at words {pairs[worst // 2]}"


# The normals


@pytest.mark.parametrize("first", FIRSTS)
def test_normals_are_those_of_the_contract(backend: AbstractBackend, first: int) -> None:
    got = backend.noise_forward(np.zeros(9), Normals(KEY, first, 1.0, False))
    wanted = np.array([oracle.normal(4, 5, 6, Domain.NOISE, first + i) for i in range(9)])
    assert_near(got, wanted, 1e-14)


def test_another_domain(backend: AbstractBackend) -> None:
    """Monte-Carlo inference has its own."""
    domain = Domain.NOISE + MONTE_CARLO_DOMAIN
    got = backend.noise_forward(np.zeros(5), Normals(KEY, 3, 1.0, False, domain))
    assert_near(got, np.array([oracle.normal(4, 5, 6, domain, 3 + i) for i in range(5)]), 1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stated_error_of_normals(backend: AbstractBackend, reference: AbstractBackend, dtype: np.dtype) -> None:
    count = 1 << 16
    got = backend.noise_forward(np.zeros(count, dtype), Normals(KEY, 0, 1.0, False))
    words = reference.words(KEY, Domain.NOISE, 0, count)
    # The reference multiplies 2 pi by u before it takes the cosine: one rounding of an angle up to 2 pi.
    ulps = 2 * math.pi if backend.name == "reference" else RADIUS_ULP[dtype.name]
    assert_normals(got, words.reshape(-1, 2), ulps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stated_error_at_the_ends_of_every_fold(dtype: np.dtype) -> None:
    """Words around 0, each eighth of the range, and its end: the smallest and largest radius, and angles beside the axes."""
    near = np.array([(edge + i) % 2**32 for edge in range(0, 2**32 + 1, 2**29) for i in range(-5, 5)], dtype=np.uint32)
    pairs = np.stack(np.meshgrid(near, near), axis=-1).reshape(-1, 2)
    signed = pairs.view(np.int32)

    def fill(one: np.floating, words: Array, out: Array) -> None:
        for i in range(len(words)):
            out[2 * i], out[2 * i + 1] = normal_pair(one, words[i, 0], words[i, 1])

    if not JIT_DISABLED:
        from fastdrop._config import load_numba

        fill = load_numba().njit(error_model="numpy")(fill)
    got = np.empty(2 * len(pairs), dtype)
    fill(dtype.type(1), signed, got)
    assert_normals(got, pairs, RADIUS_ULP[dtype.name])
    assert np.isfinite(got).all()


def test_moments_and_tails(backend: AbstractBackend) -> None:
    """Mean, variance, third and fourth moment within six standard errors, and the share beyond two."""
    n = backend.noise_forward(np.zeros(1 << 18), Normals(KEY, 0, 1.0, False))
    count = len(n)
    for power, wanted, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float(np.mean(n**power)) - wanted) < 6 * math.sqrt(variance / count)
    beyond = math.erfc(math.sqrt(2))
    assert abs(float(np.mean(np.abs(n) > 2)) - beyond) < 6 * math.sqrt(beyond * (1 - beyond) / count)
    assert abs(float(np.mean(n[:-1] * n[1:]))) < 6 / math.sqrt(count)


# What is done with them


@given(keys, st.sampled_from(FIRSTS[:-1]), shapes, dtypes, st.booleans(), st.integers(0, 99))
def test_forward_and_backward_are_the_definition(
    backend: AbstractBackend, key: Key, first: int, shape: Shape, dtype: np.dtype, multiplies: bool, seed: int
) -> None:
    x, normals = random_array(seed, shape, dtype), Normals(key, first, 0.7, multiplies)
    n = backend.noise_forward(np.zeros(shape, dtype), Normals(key, first, 0.7, False))
    assert_agree(backend.noise_forward(x, normals), x * (1 + n) if multiplies else x + n)
    assert_agree(backend.noise_backward(x, normals), x * (1 + n) if multiplies else x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("multiplies", [False, True])
def test_every_element_is_written_and_no_other(backend: AbstractBackend, multiplies: bool, n: int, dtype: np.dtype) -> None:
    x, normals = random_array(n, (n,), dtype), Normals(KEY, 5, 0.5, multiplies)
    for operation in (backend.noise_forward, backend.noise_backward):
        out, check = guarded((n,), dtype)
        assert operation(x, normals, out) is out
        check()
        assert_same_bits(out, operation(x, normals))
        buffer = x.copy()
        assert_same_bits(operation(buffer, normals, buffer), out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_element_has_its_bits_wherever_the_array_begins(backend: AbstractBackend, dtype: np.dtype) -> None:
    """Pieces of any length, some read-only, against the whole, which is cut among threads."""
    whole = random_array(1, (60_003,), dtype)
    wanted = backend.noise_forward(whole, Normals(KEY, 7, 0.5, True))
    assert_not_vacuous(wanted)
    whole.flags.writeable = False
    for low, high in ((0, 1), (1, 4), (3, 2000), (1279, 2563), (30_000, 60_003)):
        assert_same_bits(backend.noise_forward(whole[low:high], Normals(KEY, 7 + low, 0.5, True)), wanted[low:high])


# The layers


@pytest.mark.parametrize("rate", [0.001, 0.1, 1 / 3, 0.5, 0.77])
def test_gaussian_dropout_has_the_mean_and_variance_of_dropout(rate: float) -> None:
    x = np.full(1 << 16, 3.0)
    y = fd.GaussianDropout(rate, seed=1)(x, training=True) / 3
    variance = rate / (1 - rate)
    assert abs(float(y.mean()) - 1) < 6 * math.sqrt(variance / len(x))
    assert abs(float(y.var()) - variance) < 6 * variance * math.sqrt(2 / len(x))


@pytest.mark.parametrize("stddev", [1e-3, 0.5, 30.0])
def test_gaussian_noise_adds(stddev: float) -> None:
    x = random_array(1, (250, 250), np.float64)
    added = fd.GaussianNoise(stddev, seed=1)(x, training=True) - x
    assert abs(float(added.mean())) < 6 * stddev / math.sqrt(x.size)
    assert abs(float(added.var()) - stddev**2) < 6 * stddev**2 * math.sqrt(2 / x.size)


def test_elements_are_counted_as_masks_count_them() -> None:
    """Row r of a batch at row_offset o takes normals (o + r) * row_size + j of the layer's stream, seed and step."""
    y = fd.GaussianNoise(1.0, seed=9, stream=3).forward(np.zeros((2, 3, 2)), True, 8, 5)[0]
    wanted = [oracle.normal(9, 3, 8, Domain.NOISE, (5 + r) * 6 + j) for r in range(2) for j in range(6)]
    assert_near(y.reshape(-1), np.array(wanted), 1e-14)


@pytest.mark.parametrize("layer", [fd.GaussianDropout(0.4, seed=1), fd.GaussianNoise(0.4, seed=1)], ids=lambda each: each.name)
def test_gradient(layer: fd.GaussianDropout) -> None:
    assert directional_error(layer, random_array(1, (4, 5), np.float64)) < 1e-6


def test_rate_and_stddev_may_be_assigned() -> None:
    dropout, noise = fd.GaussianDropout(0.5, seed=1), fd.GaussianNoise(0.5, seed=1)
    x = np.ones((4, 5))
    before = dropout.forward(x, True, 0)[0] - 1, noise.forward(x, True, 0)[0] - 1
    dropout.rate, noise.stddev = 0.2, 1.0
    assert_near(dropout.forward(x, True, 0)[0] - 1, before[0] / 2, 1e-12)
    assert_near(noise.forward(x, True, 0)[0] - 1, before[1] * 2, 1e-12)
    with pytest.raises(ArgumentValueError, match=r"`rate` must be in \[0, 1\), got 1.0"):
        dropout.rate = 1.0
    with pytest.raises(ArgumentValueError, match=r"`stddev` must be in \[0, inf\), got -0.5"):
        noise.stddev = -0.5
    assert (dropout.rate, noise.stddev) == (0.2, 1.0)


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentValueError, match=r"`rate` must be in \[0, 1\), got nan"):
        fd.GaussianDropout(math.nan)
    with pytest.raises(ArgumentTypeError, match="`stddev` must be a number, got str"):
        fd.GaussianNoise("1")
    with pytest.raises(ArgumentValueError, match=r"`stream` must be in \[0, 4294967295\], got -1"):
        fd.GaussianNoise(0.1, stream=-1)
    with pytest.raises(ArgumentValueError, match=r"`row_offset` must be such that all elements are below 2\*\*58 \(rows of 8\)"):
        fd.GaussianNoise(0.1).forward(np.ones((2, 8)), True, row_offset=2**55)
