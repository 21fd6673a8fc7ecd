"""Rates that change between steps: of one layer, of a whole network, in snapshots and files; and widths that make up for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_same_bits
from strategies import random_array
from test_random_layers import LAYERS, shape_of

import fastdrop as fd
from fastdrop import optim
from fastdrop.callbacks import LambdaCallback
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FileFormatError
from fastdrop.layers import AbstractLayer

RATE, OTHER = 0.3, 0.45
"""The rate of LAYERS, and another one."""
MODES = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "DropPath"}
"""Layers with a mode."""


def assign(layer: Any, value: float) -> None:
    setattr(layer, layer.strength_name, value)


def network(name: str, value: float, **given: Any) -> fd.Sequential:
    """The layer between others, so that it is fused where that is possible."""
    layer = LAYERS[name](**given)
    assign(layer, value)
    shape = shape_of(name)[1:]
    before = [fd.Dense(shape[-1], activation="relu")] if len(shape) == 1 else []
    net = fd.Sequential([*before, layer, fd.Flatten(), fd.Dense(3)], input_shape=shape, seed=2)
    net.output_kind = "logits"
    return net


def the_layer(net: fd.Sequential) -> Any:
    return next(layer for layer in net.layers if layer.strength_name)


def passed(net: fd.Sequential, x: np.ndarray, step: int) -> list[np.ndarray]:
    y, backward = net.forward(x, True, step)
    net.zero_grad()
    dx = backward(np.cos(y), input_gradient=True)
    assert dx is not None
    return [y, dx, *(parameter.grad.copy() for parameter in net.parameters())]


# One layer


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_has_the_rate_of_its_moment(name: str) -> None:
    """Forward and backward passes, and Monte-Carlo inference, are those of a network that always had the rate."""
    x = random_array(1, shape_of(name))
    changing, always = network(name, RATE), network(name, OTHER)
    before = passed(changing, x, 4)
    assign(the_layer(changing), OTHER)
    for got, wanted in zip(passed(changing, x, 4), passed(always, x, 4), strict=True):
        assert_same_bits(got, wanted)
    assert_same_bits(changing.predict_mc(x, 3).std, always.predict_mc(x, 3).std)
    assign(the_layer(changing), RATE)
    after = passed(changing, x, 4)
    assert not np.array_equal(before[0], passed(always, x, 4)[0])
    for got, wanted in zip(after, before, strict=True):
        assert_same_bits(got, wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_a_backward_pass_has_the_rate_of_its_forward_pass(name: str) -> None:
    x = random_array(1, shape_of(name))
    net = network(name, RATE)
    wanted = passed(net, x, 4)
    net.zero_grad()
    y, backward = net.forward(x, True, 4)
    assign(the_layer(net), OTHER)
    dx = backward(np.cos(y), input_gradient=True)
    assert dx is not None
    for got, first in zip([y, dx, *(parameter.grad for parameter in net.parameters())], wanted, strict=True):
        assert_same_bits(got, first)


@pytest.mark.parametrize("name", LAYERS)
def test_a_run_goes_on_with_the_rate_that_a_hook_has_set(name: str) -> None:
    x, labels = random_array(1, shape_of(name, 24)), np.arange(24) % 3
    nets = [network(name, RATE) for _ in range(2)]
    change = LambdaCallback(on_train_batch_end=lambda batch, _logs: assign(the_layer(nets[0]), OTHER) if batch == 1 else None)
    nets[0].fit(
        x, labels, batch_size=8, shuffle=False, optimizer=optim.SGD(0.1), loss="softmax_cross_entropy",
        callbacks=[change], progress=False,
    )  # fmt: skip
    optimizer = optim.SGD(0.1)
    for step, rate in enumerate((RATE, RATE, OTHER)):
        assign(the_layer(nets[1]), rate)
        rows = slice(8 * step, 8 * step + 8)
        nets[1].train_on_batch(x[rows], labels[rows], optimizer, "softmax_cross_entropy", step=step)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert_same_bits(a.value, b.value)


@pytest.mark.parametrize("name", sorted(MODES))
def test_inference_by_the_papers_rule_has_the_rate_of_its_moment_and_a_snapshot_that_of_its_own(name: str) -> None:
    x = random_array(1, shape_of(name))
    net = network(name, RATE, mode="downscale_in_infer")
    before, snapshot = net.predict(x), net.predictor()
    assign(the_layer(net), OTHER)
    assert_same_bits(net.predict(x), network(name, OTHER, mode="downscale_in_infer").predict(x))
    assert not np.array_equal(net.predict(x), before)
    assert_same_bits(snapshot(x), before)


# All layers of a network


def everything() -> fd.Sequential:
    block = fd.Residual([fd.DropConnect(4, 0.6), fd.Sequential([fd.AlphaDropout(0.1)]), fd.DropPath(0.25)])
    layers: list[AbstractLayer] = [
        fd.Dropout(0.2), fd.GaussianNoise(0.3), fd.Dense(4), fd.GaussianDropout(0.5), block, fd.Sequential([fd.Dropout(0.4)])
    ]  # fmt: skip
    return fd.Sequential(layers, input_shape=(4,), seed=1)


def test_strengths_are_named_by_the_layers_places() -> None:
    wanted = {
        "0.rate": 0.2,
        "1.stddev": 0.3,
        "3.rate": 0.5,
        "4.0.rate": 0.6,
        "4.1.0.rate": 0.1,
        "4.2.rate": 0.25,
        "5.0.rate": 0.4,
    }
    net = everything()
    assert net.strengths() == wanted
    net.set_strengths({"1.stddev": 2, "4.0.rate": 0.7})
    assert net.strengths() == {**wanted, "1.stddev": 2.0, "4.0.rate": 0.7}
    assert fd.Dropout(0.3).strengths() == {"rate": 0.3}
    assert fd.Dense(3).strengths() == {}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_the_family_is_found(name: str) -> None:
    net = fd.Sequential([LAYERS[name]()])
    if name == "GaussianNoise":
        with pytest.raises(ArgumentValueError, match="`net` must be a network with dropout layers, got a Sequential without"):
            fd.set_dropout(net, OTHER)
    else:
        fd.set_dropout(net, OTHER)
        assert net.layers[0].rate == OTHER  # type: ignore[attr-defined]


def test_set_dropout() -> None:
    net, x = everything(), random_array(0, (5, 4))
    fd.set_dropout(net, OTHER)
    assert set(net.strengths().values()) == {OTHER, 0.3}
    assert net.strengths()["1.stddev"] == 0.3
    y = net.forward(x, True, 3)[0]
    again = fd.Sequential.from_config(net.get_config())
    assert_same_bits(again.forward(x, True, 3)[0], y)
    fd.set_dropout(net, 0)
    net.layers[1].stddev = 0.0  # type: ignore[attr-defined]
    assert_same_bits(net.forward(x, True, 3)[0], net(x))


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ({"0.rate": 0.1, "3.rate": 1.0}, ArgumentValueError, "`rate` must be in [0, 1), got 1.0"),
        ({"0.rate": 0.1, "1.stddev": -1.0}, ArgumentValueError, "`stddev` must be in [0, inf), got -1.0"),
        ({"0.rate": 0.1, "4.0.rate": "a"}, ArgumentTypeError, "`rate` must be a number, got str"),
        ({"0.rate": 0.1, "2.rate": 0.1}, ArgumentValueError, "`strengths` must be one of 0.rate, 1.stddev, 3.rate"),
    ],
)
def test_nothing_changes_where_one_rate_is_bad(values: dict[str, Any], kind: type[Exception], text: str) -> None:
    net = everything()
    before = net.strengths()
    with pytest.raises(kind) as caught:
        net.set_strengths(values)
    assert text in str(caught.value)
    assert net.strengths() == before


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fd.set_dropout(everything(), 1.5), ArgumentValueError, "`rate` must be in [0, 1], got 1.5"),
    (lambda: fd.set_dropout(everything(), float("nan")), ArgumentValueError, "`rate` must be in [0, 1], got nan"),
    (lambda: fd.set_dropout(everything(), "a"), ArgumentTypeError, "`rate` must be a number, got str"),  # type: ignore[arg-type]
    (lambda: fd.set_dropout([fd.Dropout(0.1)], 0.5), ArgumentTypeError, "`net` must be a network or layer, got list"),  # type: ignore[arg-type]
    (lambda: fd.set_dropout(fd.Dense(3), 0.5), ArgumentValueError, "`net` must be a network with dropout layers, got a Dense"),
    (lambda: fd.widen(8, 1), ArgumentValueError, "`rate` must be in [0, 1), got 1.0"),
    (lambda: fd.widen(8, -0.1), ArgumentValueError, "`rate` must be in [0, 1), got -0.1"),
    (lambda: fd.widen(0, 0.5), ArgumentValueError, "`units` must be at least 1, got 0"),
    (lambda: fd.widen(8.0, 0.5), ArgumentTypeError, "`units` must be an integer, got float"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_bad_arguments(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)


def test_a_layer_of_rate_one_warns_once() -> None:
    net, x = fd.Sequential([fd.Dropout(1.0)]), np.ones((2, 3), "float32")
    with pytest.warns(UserWarning, match="rate"):
        net(x, training=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (0.5, 1.0):
            fd.set_dropout(net, rate)
            net(x, training=True)


@pytest.mark.parametrize(
    ("units", "rate", "wanted"),
    [(1024, 0.5, 2048), (800, 0.0, 800), (9, 0.1, 10), (800, 0.2, 1000), (1, 0.9, 10), (10, 0.3, 14), (5, 0.2, 6), (3, 0.2, 4)],
)
def test_widen(units: int, rate: float, wanted: int) -> None:
    assert fd.widen(units, rate) == wanted
    assert type(fd.widen(units, rate)) is int


# Files


@pytest.mark.parametrize("name", LAYERS)
def test_a_run_is_resumed_with_the_rate_of_its_checkpoint(name: str, tmp_path: Path, without_fsync: None) -> None:
    """The network that goes on was made with another rate; the one that stopped had its rate changed on the way."""
    x, labels, path = random_array(1, shape_of(name, 24)), np.arange(24) % 3, tmp_path / "run.safetensors"
    arguments: dict[str, Any] = {"epochs": 2, "batch_size": 8, "optimizer": optim.SGD(0.1), "progress": False}
    net = network(name, RATE)

    def change(batch: int, _logs: Any) -> None:
        if net.step_count == 2:
            assign(the_layer(net), OTHER)
            fd.save_checkpoint(path, net, arguments["optimizer"])

    net.fit(x, labels, **arguments, callbacks=[LambdaCallback(on_train_batch_end=change)])
    again = network(name, 0.0)
    again.fit(x, labels, **{**arguments, "optimizer": None}, resume=path)
    assert the_layer(again).strengths() == the_layer(net).strengths() == {the_layer(net).strength_name: OTHER}
    for a, b in zip(again.parameters(), net.parameters(), strict=True):
        assert_same_bits(a.value, b.value)
    assert fd.load(path).strengths() == net.strengths()
    other, optimizer = network(name, 0.0), optim.SGD()
    fd.load_checkpoint(path, other, optimizer)
    assert other.strengths() == net.strengths()
    net.save(path)
    assert fd.load(path).strengths() == net.strengths()


def test_a_checkpoint_of_other_dropout_changes_nothing(tmp_path: Path, without_fsync: None) -> None:
    path = tmp_path / "run.safetensors"
    nets = [
        fd.Sequential([fd.Dense(2), last], input_shape=(3,), seed=i) for i, last in enumerate((fd.Dropout(0.5), fd.Flatten()))
    ]
    fd.save_checkpoint(path, nets[0], optim.SGD())
    before = nets[1].state_dict()
    with pytest.raises(FileFormatError, match=r"`config\.layers\.1` must be that of the network \(\{'class': 'Flatten'\}\), got"):
        fd.load_checkpoint(path, nets[1], optim.SGD())
    assert nets[1].seed == 1
    assert_same_bits(nets[1].state_dict()["0.weight"], before["0.weight"])
