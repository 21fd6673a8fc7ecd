"""The predictor: the network's bits, frozen, from any number of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from assertions import assert_same_bits

import fastdrop as fd
from fastdrop._types import ActivationKind
from fastdrop.backends.select import backend

ROWS = (1, 2, 5, 13, 16, 17, 70)


def network(dtype: str = "float32", mode: str = "upscale_in_train", last: str | None = None) -> fd.Sequential:
    inner = [fd.Dropout(0.3), fd.Dense(40, activation="tanh"), fd.Dropout(0.5)]
    return fd.Sequential(
        [
            fd.Dropout(0.2, mode=mode),
            fd.Dense(300, activation="relu"),
            fd.Dropout(0.5, mode=mode),
            fd.Dense(40, activation="gelu"),
            fd.Residual(inner),
            fd.Dense(7, activation=last),
        ],
        input_shape=(37,),
        seed=3,
        dtype=dtype,
    )


def rows(count: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 37)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["upscale_in_train", "downscale_in_infer"])
@pytest.mark.parametrize("last", [None, "softmax"])
def test_a_predictor_gives_the_networks_bits(dtype: str, mode: str, last: str | None) -> None:
    net = network(dtype, mode, last)
    predictor = net.predictor()
    for count in ROWS:
        x = rows(count, dtype)
        assert np.count_nonzero(net.predict(x))
        assert_same_bits(predictor(x), net.predict(x))


@pytest.mark.parametrize("fan_in", [1, 4, 5, 255, 256, 257, 300, 1030])
@pytest.mark.parametrize("fan_out", [1, 16, 31, 32, 33, 257, 1100])
def test_a_packed_weight_stands_for_the_weight(fan_in: int, fan_out: int) -> None:
    ops, rng = backend("cpu"), np.random.default_rng(fan_in)
    weight = rng.standard_normal((fan_in, fan_out)).astype("float32")
    packed = ops.pack_weight(weight)
    assert packed.shape == weight.shape
    for count in ROWS:
        x = rng.standard_normal((count, fan_in)).astype("float32")
        kind = ActivationKind.RELU
        wanted, _ = ops.dense_forward(x, weight, None, kind, None, None, False)
        got, _ = ops.dense_forward(x, packed, None, kind, None, None, False)
        assert_same_bits(got, wanted)


def test_a_predictor_is_frozen() -> None:
    net = network(mode="downscale_in_infer")
    predictor, x = net.predictor(), rows(9)
    before = predictor(x)
    labels = np.arange(9) % 7
    for _ in range(3):
        net.train_on_batch(x, labels, optimizer=fd.optim.SGD(0.1), loss="softmax_cross_entropy")
    net.layers[0].rate = 0.9
    net.parameters()[1].value = np.ones(300, "float32")
    assert_same_bits(predictor(x), before)
    assert not np.array_equal(net.predict(x), before)


def test_many_threads_call_one_predictor() -> None:
    predictor = network().predictor()
    batches = [rows(count) for count in ROWS * 20]
    wanted = [predictor(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        for got, expected in zip(pool.map(predictor, batches), wanted, strict=True):
            assert_same_bits(got, expected)


def test_a_result_is_not_the_input() -> None:
    predictor = fd.Sequential([fd.Dropout(0.5)], input_shape=(3,)).predictor()
    x = np.ones((2, 3), "float32")
    assert not np.may_share_memory(predictor(x), x)


def test_bad_input() -> None:
    predictor = network().predictor()
    with pytest.raises(ValueError, match=r"`x` must be of shape \(rows, 37\)"):
        predictor(np.zeros((2, 36), "float32"))
    with pytest.raises(TypeError, match="`x`"):
        predictor(np.zeros((2, 37), dtype=int))
    with pytest.raises(RuntimeError, match=r"no input shape|no parameters"):
        fd.Sequential([fd.Dense(2)]).predictor()
