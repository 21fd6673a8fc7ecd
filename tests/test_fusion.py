"""Fused networks against the same layers one by one, through the functional interface alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_array

import fastdrop as fd
from fastdrop import activations, fusion
from fastdrop.layers import AbstractLayer
from fastdrop.layers.conv2d import FusedConv2D
from fastdrop.layers.dense import FusedDense
from fastdrop.layers.pooling import LateMaxPool2D

SEED = 21
SMOOTH = ["linear", "tanh", "gelu", "sigmoid", "softplus", "softmax"]


def plain_forward(layers: Sequence[AbstractLayer], x: Any, step: int, offset: int, streams: Iterator[int]) -> Any:
    """The network in training, layer by layer: what fusion must not change."""
    for layer in layers:
        if isinstance(layer, fd.Dropout):
            number = next(streams)
            key = fd.Key(
                SEED if layer.own_seed is None else layer.own_seed, number if layer.stream is None else layer.stream, step
            )
            x = fd.dropout(x, fd.Mask(layer.rate, key, row_offset=offset))[0]
        elif isinstance(layer, fd.Dense):
            weight, bias = layer.weight.value, None if layer.bias is None else layer.bias.value
            x = fd.dense(x, weight, bias, activation=layer.activation)[0]
        elif isinstance(layer, fd.Activation):
            x = activations.FUNCTIONS[layer.activation](x)
        elif isinstance(layer, fd.Flatten):
            x = x.reshape(len(x), -1)
        elif isinstance(layer, fd.Residual):
            x = x + plain_forward(layer.layers, x, step, offset, streams)
        else:
            assert isinstance(layer, fd.Sequential)
            x = plain_forward(layer.layers, x, step, offset, streams)
    return x


WIDTH = 5


def chains(names: list[str]) -> st.SearchStrategy[list[AbstractLayer]]:
    """Layers for rows of WIDTH units, nested in networks and residuals, with the activations named."""
    leaves = st.one_of(
        st.builds(fd.Dropout, st.sampled_from([0.0, 0.3, 0.5])),
        st.builds(fd.Dense, st.just(WIDTH), st.sampled_from(names), st.booleans()),
        st.builds(fd.Activation, st.sampled_from(names)),
    )
    return st.recursive(
        st.lists(leaves, min_size=1, max_size=5),
        lambda inner: st.lists(leaves | inner.map(fd.Residual) | inner.map(fd.Sequential), min_size=1, max_size=5),
        max_leaves=3,
    )


@given(
    chains(["relu", "leaky_relu", *SMOOTH]),
    st.sampled_from([(7, WIDTH), (2, 3, WIDTH), (0, WIDTH)]),
    st.integers(0, 5),
    st.integers(0, 5),
)
def test_any_network_equals_its_layers_one_by_one(layers: Any, shape: tuple[int, ...], step: int, offset: int) -> None:
    net = fd.Sequential(layers, shape[1:], seed=SEED)
    x = random_array(1, shape)
    y = net.forward(x, True, step, offset)[0]
    assert_same_bits(y, plain_forward(net.layers, x, step, offset, itertools.count()))


@given(chains(SMOOTH))
@settings(max_examples=25)
def test_gradients_of_any_smooth_network(layers: Any) -> None:
    """Along a random direction of all parameters and of x together, in float64, with a frozen step."""
    net = fd.Sequential([fd.Dense(WIDTH, "tanh"), *layers, fd.Dense(2)], (WIDTH,), seed=SEED, dtype="float64")
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((4, WIDTH)), rng.standard_normal((4, 2))
    start = [p.value.copy() for p in net.parameters()]
    directions = [rng.standard_normal(p.shape) for p in net.parameters()]
    along_x = rng.standard_normal(x.shape)

    def loss(t: float) -> float:
        for p, value, direction in zip(net.parameters(), start, directions, strict=True):
            p.value = value + t * direction
        return float((net.forward(x + t * along_x, True, step=1)[0] * dy).sum())

    h = 1e-5
    slope = (loss(h) - loss(-h)) / (2 * h)
    loss(0.0)
    dx = net.forward(x, True, step=1)[1](dy, input_gradient=True)
    terms = [(dx * along_x).sum(), *((p.grad * d).sum() for p, d in zip(net.parameters(), directions, strict=True))]
    assert sum(terms) == pytest.approx(slope, rel=1e-6, abs=1e-6)
    assert abs(slope) > 1e-3, "vacuous"


def groups_of(*layers: AbstractLayer) -> list[str]:
    return ["+".join(type(layer).__name__ for layer in group) for group in fusion.groups(layers)]


def test_groups() -> None:
    D, A, P = fd.Dense, fd.Activation, fd.Dropout
    assert groups_of(P(0.2), D(3, "relu"), P(0.5), D(3), A("tanh"), P(0.5), D(3)) == [
        "Dropout+Dense+Dropout",
        "Dense+Activation+Dropout",
        "Dense",
    ]
    assert groups_of(P(0.2), P(0.2), D(3), P(0.5), P(0.5), D(3)) == ["Dropout", "Dropout+Dense+Dropout", "Dropout+Dense"]
    assert groups_of(D(3, "softmax"), P(0.5), D(3), A("softmax"), P(0.5)) == ["Dense", "Dropout+Dense", "Activation", "Dropout"]
    assert groups_of(D(3, "relu"), A("tanh"), P(0.5)) == ["Dense", "Activation", "Dropout"]
    assert groups_of(D(3), P(0.5), A("relu"), P(0.1)) == ["Dense+Dropout", "Activation", "Dropout"]
    assert groups_of(P(0.5), fd.Residual([D(3)]), P(0.5), fd.Flatten(), D(3)) == [
        "Dropout",
        "Residual",
        "Dropout",
        "Flatten",
        "Dense",
    ]
    assert groups_of(P(0.2), fd.Sequential([D(3)]), A("relu"), fd.Sequential([P(0.5), D(1)])) == [
        "Dropout+Dense+Activation+Dropout",
        "Dense",
    ]
    assert groups_of(P(0.5)) == ["Dropout"]


def test_a_fused_group_is_one_step() -> None:
    layers = [fd.Dropout(0.2), fd.Dense(4), fd.Activation("relu"), fd.Dropout(0.5), fd.Dense(2, "softmax")]
    steps = fusion.plan(layers)
    assert [type(step) for step in steps] == [FusedDense, FusedDense, fd.Activation]
    assert steps[0].input_dropout is layers[0]
    assert steps[0].output_dropout is layers[3]


def test_gradients_of_fused_layers_are_those_of_the_layers_alone() -> None:
    net = fd.Sequential([fd.Dropout(0.2), fd.Dense(6), fd.Activation("relu"), fd.Dropout(0.5), fd.Dense(3)], (8,), seed=SEED)
    x, dy = random_array(1, (10, 8)), random_array(2, (10, 3))
    y, backward = net.forward(x, True, step=4)
    dx = backward(dy, input_gradient=True)
    w0, b0, w1, b1 = (p.value for p in net.parameters())
    x1, back1 = fd.dropout(x, fd.Mask(0.2, fd.Key(SEED, 0, 4)))
    h, back2 = fd.dense(x1, w0, b0, activation="relu")
    h1, back3 = fd.dropout(h, fd.Mask(0.5, fd.Key(SEED, 1, 4)))
    out, back4 = fd.dense(h1, w1, b1)
    assert_same_bits(y, out)
    dh1, dw1, db1 = back4(dy)
    dx1, dw0, db0 = back2(back3(dh1))
    for got, wanted in zip([dx, *(p.grad for p in net.parameters())], [back1(dx1), dw0, db0, dw1, db1], strict=True):
        assert_not_vacuous(wanted, 0.2)
        assert_near(got, wanted, 1e-5)


@pytest.mark.parametrize("shape", [(6, 3, 8), (2, 2, 2, 8)])
def test_more_than_two_axes_and_noise_shapes_fuse(shape: tuple[int, ...]) -> None:
    noise_shape = (None,) + (1,) * (len(shape) - 2) + (None,)
    net = fd.Sequential([fd.Dropout(0.3), fd.Dense(4, "tanh"), fd.Dropout(0.5, noise_shape)], shape[1:], seed=1)
    x = random_array(1, shape)
    y = net.forward(x, True, step=2, row_offset=5)[0]
    weight, bias = (p.value for p in net.parameters())
    masked = fd.dropout(x, fd.Mask(0.3, fd.Key(1, 0, 2), row_offset=5))[0]
    mask = fd.Mask(0.5, fd.Key(1, 1, 2), noise_shape=noise_shape, row_offset=5)
    assert_same_bits(y, fd.dropout(fd.dense(masked, weight, bias, activation="tanh")[0], mask)[0])
    assert_not_vacuous(y)


@pytest.mark.parametrize("offset", [0, 3])
def test_downscaling_fuses_in_training_and_in_inference(offset: int) -> None:
    mode = "downscale_in_infer"
    net = fd.Sequential([fd.Dropout(0.2, mode=mode), fd.Dense(5, "tanh"), fd.Dropout(0.4, mode=mode)], (6,), seed=1)
    x = random_array(1, (7, 6))
    weight, bias = (p.value for p in net.parameters())
    masks = [fd.Mask(rate, fd.Key(1, stream, 0), row_offset=offset) for stream, rate in enumerate((0.2, 0.4))]
    keep_in, keep_out = masks[0].to_array((7, 6)), masks[1].to_array((7, 5))
    trained = net.forward(x, True, 0, offset)[0]
    hidden = fd.dense(np.where(keep_in, x, np.float32(0)), weight, bias, activation="tanh")[0]
    assert_same_bits(trained, np.where(keep_out, hidden, np.float32(0)))
    p_in, p_out = (np.float32(mask.keep_prob(shape)) for mask, shape in zip(masks, ((7, 6), (7, 5)), strict=True))
    assert_near(net(x), fd.dense(x * p_in, weight, bias, activation="tanh")[0] * p_out, 1e-6)
    assert_not_vacuous(net(x))


def test_summary_table_shows_groups_streams_and_counts() -> None:
    net = fd.Sequential(
        [
            fd.Dropout(0.2),
            fd.Dense(8, name="first"),
            fd.Dropout(0.5),
            fd.Residual([fd.Dense(8), fd.Dropout(0.25, stream=9)]),
            fd.Dense(3),
        ],
        (1000,),
    )
    lines = fusion.table(net, (1000,)).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["0", "dropout", "(1000,)", "1", "rate", "0.2,", "stream", "0"],
        ["1", "first", "(8,)", "8,008", "1"],
        ["2", "dropout", "(8,)", "1", "rate", "0.5,", "stream", "1"],
        ["3", "residual", "(8,)"],
        ["3.0", "dense", "(8,)", "72", "2"],
        ["3.1", "dropout", "(8,)", "2", "rate", "0.25,", "stream", "9"],
        ["4", "dense", "(3,)", "27"],
    ]
    assert lines[0].split() == ["layer", "output", "shape", "parameters", "fused", "dropout"]


@pytest.mark.parametrize(
    ("following", "pooled"),
    [
        ((fd.MaxPool2D(2),), True),
        ((fd.MaxPool2D((1, 4), (2, 5)),), True),
        ((fd.MaxPool2D(2, 1),), False),
        ((fd.MaxPool2D((1, 3)),), False),
        ((fd.AvgPool2D(2),), False),
        ((fd.Dropout(0.5), fd.MaxPool2D(2)), True),
        ((fd.Flatten(),), False),
        ((), False),
    ],
)
def test_max_pooling_behind_a_convolution_is_known(following: tuple[AbstractLayer, ...], pooled: bool) -> None:
    """Where most of its gradient is zeros."""
    step, *behind = fusion.plan([fd.Conv2D(3, 3, activation="relu"), *following])
    assert isinstance(step, FusedConv2D)
    assert step.pooled is pooled
    assert [type(each) for each in behind if isinstance(each, LateMaxPool2D)] == [LateMaxPool2D] * pooled
