"""Initialisers: the contract's uniforms and normals, Keras's names, and deferred values."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from assertions import assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from oracle import word

import fastdrop as fd
from fastdrop import _configurable, init
from fastdrop._types import Domain
from fastdrop.errors import ArgumentTypeError, ArgumentValueError
from fastdrop.init import AbstractInitializer
from fastdrop.rng import Key

SHAPE = (6, 5)


def uniforms(seed: int, ordinal: int, n: int) -> np.ndarray:
    return np.array([(word(seed, ordinal, 0, Domain.INITIALISERS, i) + 0.5) / 2**32 for i in range(n)])


def normals(seed: int, ordinal: int, n: int) -> np.ndarray:
    u = uniforms(seed, ordinal, n + n % 2)
    radius = [math.sqrt(-2 * math.log(v)) for v in u[0::2]]
    pairs = [(r * math.cos(2 * math.pi * v), r * math.sin(2 * math.pi * v)) for r, v in zip(radius, u[1::2], strict=True)]
    return np.array(pairs).reshape(-1)[:n]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("glorot_uniform", math.sqrt(6 / (6 + 5))),
        ("he_uniform", math.sqrt(6 / 6)),
        ("lecun_uniform", math.sqrt(3 / 6)),
        ("random_uniform", 0.05),
    ],
)
def test_uniform_initialisers_are_the_words_of_the_contract(name: str, limit: float) -> None:
    wanted = (limit * (2 * uniforms(5, 3, 30) - 1)).reshape(SHAPE)
    assert_same_bits(init.get("i", name)(SHAPE, "float64", Key(5, 3, 0)), wanted)
    assert_same_bits(init.get("i", name)(SHAPE, "float32", Key(5, 3, 0)), wanted.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "stddev"),
    [
        ("glorot_normal", math.sqrt(2 / (6 + 5))),
        ("he_normal", math.sqrt(2 / 6)),
        ("lecun_normal", math.sqrt(1 / 6)),
        ("random_normal", 0.05),
    ],
)
def test_normal_initialisers_are_not_truncated(name: str, stddev: float) -> None:
    wanted = (stddev * normals(5, 3, 30)).reshape(SHAPE)
    got = init.get("i", name)(SHAPE, "float64", Key(5, 3, 0))
    np.testing.assert_allclose(got, wanted, rtol=1e-13)
    many = init.get("i", name)((1000, 1000), "float32", Key(1, 0, 0))
    deviation = {"random_normal": 0.05, "he_normal": math.sqrt(2 / 1000)}.get(name, math.sqrt(1 / 1000))
    assert many.std() == pytest.approx(deviation, rel=0.01)
    assert np.abs(many).max() > 4 * deviation


def test_constants() -> None:
    key = Key(0, 0, 0)
    assert_same_bits(init.get("i", "zeros")(SHAPE, "float32", key), np.zeros(SHAPE, np.float32))
    assert_same_bits(init.get("i", "ones")(SHAPE, "float64", key), np.ones(SHAPE))
    assert_same_bits(init.Constant(0.1)(SHAPE, "float32", key), np.full(SHAPE, 0.1, np.float32))


@given(st.floats(-10, 10), st.floats(0, 10))
def test_random_uniform_stays_in_its_interval(low: float, width: float) -> None:
    values = init.RandomUniform(low, low + width)((40,), "float64", Key(1, 2, 0))
    assert (values >= low - 1e-12).all()
    assert (values <= low + width + 1e-12).all()


def test_random_normal_has_a_mean() -> None:
    shifted, plain = (init.RandomNormal(mean, 0.5)((9,), "float64", Key(1, 0, 0)) for mean in (3.0, 0.0))
    np.testing.assert_allclose(shifted, plain + 3.0, rtol=1e-15)


def test_variance_scaling_counts_the_fan_that_is_asked_for() -> None:
    values = {m: init.VarianceScaling(3.0, m, "uniform")((4, 9), "float64", Key(0, 0, 0)) for m in init.MODES}
    np.testing.assert_allclose(values["fan_in"] * math.sqrt(4 / 9), values["fan_out"], rtol=1e-14)
    np.testing.assert_allclose(values["fan_in"] * math.sqrt(4 / 6.5), values["fan_avg"], rtol=1e-14)


@pytest.mark.parametrize(("shape", "wanted"), [((7,), (7, 7)), ((3, 5), (3, 5)), ((2, 2, 3, 5), (12, 20))])
def test_fans(shape: tuple[int, ...], wanted: tuple[int, int]) -> None:
    assert init.fans(shape) == wanted


def test_the_own_seed_of_an_initialiser_replaces_the_networks_and_keeps_the_ordinal() -> None:
    own, given_by_network = init.HeNormal(seed=9), init.HeNormal()
    assert_same_bits(own(SHAPE, "float32", Key(1, 4, 0)), given_by_network(SHAPE, "float32", Key(9, 4, 0)))


def test_weights_follow_the_ordinal_of_the_parameter_in_the_network() -> None:
    net = fd.Sequential(
        [fd.Dense(3), fd.Dense(4, use_bias=False), fd.Residual([fd.Dense(4, weight_initializer="he_normal")]), fd.Dense(2)],
        input_shape=(5,),
        seed=11,
    )
    state = net.state_dict()
    assert list(state) == ["0.weight", "0.bias", "1.weight", "2.0.weight", "2.0.bias", "3.weight", "3.bias"]
    for name, ordinal, kind in [
        ("0.weight", 0, "glorot_uniform"),
        ("1.weight", 2, "glorot_uniform"),
        ("2.0.weight", 3, "he_normal"),
    ]:
        assert_same_bits(state[name], init.get("i", kind)(state[name].shape, "float32", Key(11, ordinal, 0)))
    assert_same_bits(state["3.weight"], init.GlorotUniform()((4, 2), "float32", Key(11, 5, 0)))
    assert not state["3.bias"].any()


@pytest.mark.parametrize("name", sorted(_configurable.names(init.INITIALIZERS)))
def test_every_initialiser_is_made_again_from_its_description(name: str) -> None:
    initializer: AbstractInitializer = init.get("i", name)
    again = init.get("i", json.loads(json.dumps(_configurable.describe(initializer))))
    assert type(again) is type(initializer)
    assert vars(again) == vars(initializer)


def test_arguments_survive_the_description() -> None:
    again = init.get("i", _configurable.describe(init.VarianceScaling(0.7, "fan_out", "uniform", seed=2**64 - 1)))
    assert vars(again) == {"scale": 0.7, "mode": "fan_out", "distribution": "uniform", "seed": 2**64 - 1}


CASES: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: fd.Dense(1, weight_initializer="glorot"),
        ArgumentValueError,
        "`weight_initializer` must be one of constant, glorot_n",
    ),
    (lambda: fd.Dense(1, weight_initializer=3), ArgumentTypeError, "`weight_initializer` must be one of constant"),
    (lambda: fd.Dense(1, bias_initializer=None), ArgumentTypeError, "or an object of that kind, got NoneType"),
    (lambda: init.Constant("1"), ArgumentTypeError, "`value` must be a number, got str"),
    (lambda: init.RandomUniform(1, 0), ArgumentValueError, "`maxval` must be in [1, inf), got 0.0"),
    (lambda: init.RandomNormal(0, -1), ArgumentValueError, "`stddev` must be in [0, inf), got -1.0"),
    (lambda: init.VarianceScaling(0), ArgumentValueError, "`scale` must be in (0, inf), got 0.0"),
    (lambda: init.VarianceScaling(1, "fan"), ArgumentValueError, "`mode` must be one of fan_avg, fan_in, fan_out, got 'fan'"),
    (lambda: init.HeNormal(seed=-1), ArgumentValueError, "`seed` must be in [0, 18446744073709551615], got -1"),
    (lambda: init.get("i", {"class": "Nope"}), ArgumentValueError, "`i.class` must be one of Constant,"),
    (lambda: init.get("i", {}), ArgumentTypeError, "`i.class` must be one of Constant,"),
    (lambda: init.get("i", {"class": "Zeros", "a": 1}), ArgumentValueError, "`i` must be a description of a Zeros, got ['a']"),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=range(len(CASES)))
def test_error_texts(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
