"""Optimisers against Keras's formulas written out in binary64; state, schedules, configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastdrop as fd
from fastdrop import optim, schedules
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

Array = npt.NDArray[Any]


def network(dtype: str = "float64", **dense: Any) -> fd.Sequential:
    return fd.Sequential([fd.Dense(3, **dense), fd.Dense(2)], input_shape=(4,), seed=3, dtype=dtype)


def set_gradients(net: fd.Sequential, seed: int) -> list[Array]:
    generator = np.random.default_rng(seed)
    for parameter in net.parameters():
        parameter.grad = generator.standard_normal(parameter.value.shape)
    return [parameter.grad.copy() for parameter in net.parameters()]


def values(net: fd.Sequential) -> list[Array]:
    return [parameter.value.copy() for parameter in net.parameters()]


def sgd(w: Array, g: Array, v: Array, lr: float, momentum: float, nesterov: bool, decay: float) -> tuple[Array, Array]:
    w = w - w * decay * lr
    v = momentum * v - lr * g
    return w + (momentum * v - lr * g if nesterov else v), v


@given(
    momentum=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    nesterov=st.booleans(),
    decay=st.sampled_from([0.0, 0.1]),
    lr=st.floats(0, 0.5),
)
def test_sgd_follows_the_formula(momentum: float, nesterov: bool, decay: float, lr: float) -> None:
    net, optimizer = network(), optim.SGD(lr, momentum, nesterov, decay)
    expected = values(net)
    velocity = [np.zeros_like(w) for w in expected]
    for step in range(3):
        gradients = set_gradients(net, step)
        for i, (w, g) in enumerate(zip(expected, gradients, strict=True)):
            expected[i], velocity[i] = sgd(w, g, velocity[i], lr, momentum, nesterov, decay if w.ndim == 2 else 0.0)
        optimizer.step(net)
        for parameter, w in zip(net.parameters(), expected, strict=True):
            np.testing.assert_allclose(parameter.value, w, rtol=1e-12, atol=1e-14)
    assert optimizer.iterations == 3
    assert bool(optimizer.state["0.weight"]) == bool(momentum)


@pytest.mark.parametrize(("kind", "decay"), [(optim.Adam, 0.0), (optim.AdamW, 0.004)])
def test_adam_follows_the_formula(kind: Callable[[], optim.AbstractAdam], decay: float) -> None:
    net, optimizer = network(), kind()
    expected = values(net)
    start = [w.copy() for w in expected]
    m = [np.zeros_like(w) for w in expected]
    s = [np.zeros_like(w) for w in expected]
    for t in range(1, 6):
        gradients = set_gradients(net, t)
        for i, g in enumerate(gradients):
            expected[i] -= expected[i] * (decay if g.ndim == 2 else 0.0) * 0.001
            m[i] += (g - m[i]) * (1 - 0.9)
            s[i] += (g * g - s[i]) * (1 - 0.999)
            rate = 0.001 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            expected[i] -= rate * m[i] / (np.sqrt(s[i]) + 1e-7)
        optimizer.step(net)
    for parameter, w, before in zip(net.parameters(), expected, start, strict=True):
        np.testing.assert_allclose(parameter.value, w, rtol=1e-12, atol=1e-14)
        assert np.abs(parameter.value - before).min() > 1e-6
    np.testing.assert_allclose(optimizer.state["1.bias"]["mean"], m[3], rtol=1e-12)
    np.testing.assert_allclose(optimizer.state["1.bias"]["variance"], s[3], rtol=1e-12)


def test_defaults_are_keras() -> None:
    assert optim.SGD().get_config() == {
        "class": "SGD",
        "learning_rate": 0.01,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "clip_norm": None,
    }
    adam = {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "clip_norm": None}
    assert optim.Adam().get_config() == {"class": "Adam", **adam, "weight_decay": 0.0}
    assert optim.AdamW().get_config() == {"class": "AdamW", **adam, "weight_decay": 0.004}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_state_has_the_dtype_of_the_parameters(dtype: str) -> None:
    net, optimizer = network(dtype), optim.Adam()
    set_gradients(net, 0)
    optimizer.step(net)
    assert {array.dtype for slots in optimizer.state.values() for array in slots.values()} == {np.dtype(dtype)}
    assert list(optimizer.state) == [parameter.name for parameter in net.parameters()]


def test_clip_norm_is_global_and_comes_before_the_update() -> None:
    net, optimizer = network(), optim.SGD(1.0, clip_norm=0.5)
    before, gradients = values(net), set_gradients(net, 0)
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients))
    assert norm > 0.5
    optimizer.step(net)
    for parameter, w, g in zip(net.parameters(), before, gradients, strict=True):
        np.testing.assert_allclose(parameter.value, w - g * (0.5 / norm), rtol=1e-6)


def test_small_gradients_are_not_clipped() -> None:
    net, other = network(), network()
    for each, clip_norm in ((net, 1e6), (other, None)):
        set_gradients(each, 0)
        optim.SGD(0.1, clip_norm=clip_norm).step(each)
    for one, two in zip(values(net), values(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_constraints_come_after_the_update() -> None:
    net = network(weight_constraint=fd.MaxNorm(0.25))
    set_gradients(net, 0)
    optim.SGD(1.0).step(net)
    norms = np.sqrt((net.parameters()[0].value ** 2).sum(axis=0))
    np.testing.assert_allclose(norms, 0.25, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1, momentum=0.9), optim.AdamW()])
def test_frozen_parameters_stay(optimizer: optim.AbstractOptimizer) -> None:
    net = network()
    frozen = net.parameters()[0]
    frozen.trainable = False
    before = values(net)
    set_gradients(net, 0)
    optimizer.step(net)
    np.testing.assert_array_equal(frozen.value, before[0])
    assert frozen.name not in optimizer.state
    assert not np.array_equal(net.parameters()[1].value, before[1])


def test_a_step_makes_outstanding_backwards_stale() -> None:
    net = network("float32")
    _, backward = net.forward(np.ones((2, 4), np.float32), True)
    set_gradients(net, 0)
    optim.SGD().step(net)
    with pytest.raises(fd.FastdropError, match="changed between"):
        backward(np.ones((2, 2), np.float32))


def test_state_may_be_replaced() -> None:
    net, optimizer = network(), optim.SGD(0.0, momentum=1.0)
    shape = net.parameters()[0].value.shape
    optimizer.state["0.weight"] = {"velocity": np.asfortranarray(np.full(shape, 2.0))}
    before = values(net)
    optimizer.step(net)
    np.testing.assert_array_equal(net.parameters()[0].value, before[0] + 2.0)
    np.testing.assert_array_equal(net.parameters()[1].value, before[1])


@pytest.mark.parametrize(
    ("array", "kind", "text"),
    [
        (np.zeros((4, 2)), ArgumentValueError, "`velocity of 1.weight` must be of shape (3, 2), got (4, 2)"),
        (
            np.zeros((3, 2), np.float32),
            ArgumentTypeError,
            "`velocity of 1.weight` must be an array of dtype float64, got float32",
        ),
        ([0.0], ArgumentTypeError, "`velocity of 1.weight` must be an array of dtype float64, got list"),
    ],
)
def test_replaced_state_that_does_not_fit_changes_nothing(array: Any, kind: type[Exception], text: str) -> None:
    net, optimizer = network(), optim.SGD(0.1, momentum=0.9)
    set_gradients(net, 0)
    optimizer.step(net)
    optimizer.state["1.weight"]["velocity"] = array
    before = values(net)
    with pytest.raises(kind) as caught:
        optimizer.step(net)
    assert text in str(caught.value)
    assert optimizer.iterations == 1
    for parameter, w in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.value, w)


def test_learning_rate_may_be_a_schedule_of_the_steps() -> None:
    net, optimizer = network(), optim.SGD(schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25]))
    seen = []
    for _ in range(3):
        seen.append(optimizer.learning_rate)
        before, gradients = values(net), set_gradients(net, 0)
        optimizer.step(net)
        np.testing.assert_allclose(net.parameters()[1].value, before[1] - seen[-1] * gradients[1], rtol=1e-12)
    assert seen == [1.0, 0.5, 0.25]
    assert optimizer.schedule is not None
    optimizer.learning_rate = 0.125
    assert (optimizer.learning_rate, optimizer.schedule) == (0.125, None)
    optimizer.learning_rate = lambda step: 2.0 * step  # type: ignore[assignment]
    assert optimizer.learning_rate == 6.0


def test_a_schedule_that_fails_changes_nothing() -> None:
    net, optimizer = network(), optim.SGD(lambda step: -1.0)
    before = values(net)
    set_gradients(net, 0)
    with pytest.raises(ArgumentValueError, match=r"`learning_rate` must be in \[0, inf\), got -1.0"):
        optimizer.step(net)
    np.testing.assert_array_equal(net.parameters()[0].value, before[0])


OPTIMIZERS = [
    lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01, clip_norm=5.0),
    lambda: optim.Adam(schedules.CosineDecay(0.01, 10)),
    lambda: optim.AdamW(0.01, beta_1=0.8),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_state_dict_goes_on_with_the_same_bits(make: Callable[[], optim.AbstractOptimizer]) -> None:
    net, optimizer = network(), make()
    for step in range(3):
        set_gradients(net, step)
        optimizer.step(net)
    other, again = network(), type(optimizer)()
    other.load_state_dict(net.state_dict())
    again.load_state_dict(optimizer.state_dict())
    assert again.get_config() == optimizer.get_config()
    assert json.loads(json.dumps(again.get_config())) == optimizer.get_config()
    for each, its in ((net, optimizer), (other, again)):
        set_gradients(each, 9)
        its.step(each)
    assert again.iterations == optimizer.iterations == 4
    for one, two in zip(values(net), values(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_plain_function_as_schedule_is_kept() -> None:
    optimizer = optim.SGD(lambda step: 0.5)
    state = optimizer.state_dict()
    other = optim.SGD(lambda step: 0.25)
    other.load_state_dict(state)
    assert other.learning_rate == 0.25
    with pytest.raises(ArgumentValueError, match="must be the function that was used before"):
        optim.SGD().load_state_dict(state)


STATE = optim.SGD().state_dict()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "`d` must be what state_dict() of an optimiser returns, got nothing for 'config'"),
        (7, "`d` must be what state_dict() of an optimiser returns"),
        ({**STATE, "iterations": -1}, "`iterations` must be at least 0, got -1"),
        ({**STATE, "state": {"0.weight": {"momentum": np.zeros(3)}}}, "`state` must be one of velocity, got 'momentum'"),
        (
            {**STATE, "state": {"0.weight": {"velocity": np.zeros(3, int)}}},
            "`state of 0.weight` must be a float32 or float64 array",
        ),
        ({**STATE, "state": {"0.weight": 3}}, "`state` must be a dict of dicts, got int"),
        ({**STATE, "config": optim.Adam().get_config()}, "`optimizer.class` must be one of SGD, got 'Adam'"),
        ({**STATE, "config": {**STATE["config"], "momentum": 7}}, "`momentum` must be in [0, 1], got 7.0"),
        ({**STATE, "config": {**STATE["config"], "spin": 7}}, "`optimizer` must be a description of a SGD"),
    ],
)
def test_a_bad_state_dict_changes_nothing(state: Any, text: str) -> None:
    optimizer = optim.SGD(0.3, momentum=0.5)
    optimizer.iterations = 5
    with pytest.raises((ArgumentTypeError, ArgumentValueError)) as caught:
        optimizer.load_state_dict(state)
    assert text in str(caught.value)
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.iterations) == (0.3, 0.5, 5)


def test_names() -> None:
    assert [type(optim.get(name)) for name in ("sgd", "adam", "adamw")] == [optim.SGD, optim.Adam, optim.AdamW]
    optimizer = optim.SGD()
    assert optim.get(optimizer) is optimizer


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: optim.SGD(-0.1), ArgumentValueError, "`learning_rate` must be in [0, inf), got -0.1"),
    (lambda: optim.SGD(math.nan), ArgumentValueError, "`learning_rate` must be in [0, inf), got nan"),
    (lambda: optim.SGD("fast"), ArgumentTypeError, "`learning_rate` must be a number, got str"),  # type: ignore[arg-type]
    (lambda: optim.SGD(momentum=1.1), ArgumentValueError, "`momentum` must be in [0, 1], got 1.1"),
    (lambda: optim.SGD(nesterov=1), ArgumentTypeError, "`nesterov` must be True or False, got int"),  # type: ignore[arg-type]
    (lambda: optim.SGD(weight_decay=-1), ArgumentValueError, "`weight_decay` must be in [0, inf), got -1.0"),
    (lambda: optim.SGD(clip_norm=0), ArgumentValueError, "`clip_norm` must be in (0, inf), got 0.0"),
    (lambda: optim.Adam(beta_1=1), ArgumentValueError, "`beta_1` must be in [0, 1), got 1.0"),
    (lambda: optim.Adam(beta_2=-0.1), ArgumentValueError, "`beta_2` must be in [0, 1), got -0.1"),
    (lambda: optim.AdamW(epsilon=0), ArgumentValueError, "`epsilon` must be in (0, inf), got 0.0"),
    (lambda: optim.get("rmsprop"), ArgumentValueError, "`optimizer` must be one of adam, adamw, sgd, got 'rmsprop'"),
    (lambda: optim.get(3), ArgumentTypeError, "`optimizer` must be an optimiser such as"),  # type: ignore[arg-type]
    (lambda: optim.own("sgd"), ArgumentTypeError, "`optimizer` must be an optimiser such as fastdrop.optim.SGD(0.01), got str"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_bad_arguments(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
