"""`DropConnect`: a dense layer by hand with a masked weight, and all that a Dense layer can do."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_plausible, assert_same_bits, assert_varied
from gradients import directional_error
from strategies import DTYPES, random_array

import fastdrop as fd
from fastdrop import Key, Mask, fusion
from fastdrop.errors import AllDroppedWarning, ArgumentTypeError, ArgumentValueError
from fastdrop.layers.dense import FusedDense


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 9), (2, 3, 9), (1, 9), (0, 9)])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "softmax"])
def test_it_is_a_dense_layer_of_the_masked_weight(shape: tuple[int, ...], activation: str | None, dtype: np.dtype) -> None:
    net = fd.Sequential([fd.DropConnect(7, 0.3, activation)], shape[1:], 5, dtype=dtype)
    x, dy = random_array(1, shape, dtype), random_array(2, (*shape[:-1], 7), dtype)
    weight, bias = net.parameters()
    bias.value = random_array(3, (7,))
    mask = Mask(0.3, Key(5, 0, 4))
    dropped, drop = fd.dropout(weight.value, mask)
    assert_varied(mask.to_array((9, 7)))
    wanted, functional = fd.dense(x, dropped, bias.value, activation=activation)
    y, backward = net.forward(x, True, 4, 11)
    assert_same_bits(y, wanted)
    dx, dweight, dbias = functional(dy)
    assert_same_bits(backward(dy, input_gradient=True), dx)
    assert_near(weight.grad, drop(dweight), 1e-6)
    assert_near(bias.grad, dbias, 1e-6)
    assert not weight.grad[~mask.to_array((9, 7))].any()


def test_backward_passes_add_into_the_same_array() -> None:
    layer, x = fd.DropConnect(3, 0.5, input_shape=(4,), seed=1), random_array(1, (2, 4))
    y, backward = layer.forward(x, True, 0)
    backward(np.ones_like(y))
    weight = layer.parameters()[0]
    grad, once = weight.grad, weight.grad.copy()
    backward(np.ones_like(y))
    assert weight.grad is grad
    assert_same_bits(grad, 2 * once)


def test_inference_takes_the_weight_as_it_is() -> None:
    layer = fd.DropConnect(7, 0.5, "relu", input_shape=(9,), seed=1)
    x = random_array(1, (6, 9))
    weight, bias = layer.parameters()
    assert_same_bits(layer(x), fd.dense(x, weight.value, bias.value, activation="relu")[0])
    net = fd.Sequential([layer, fd.Dense(2)])
    assert_near(net.predictor()(x), net.predict(x), 1e-5)


def test_the_mean_over_all_masks_is_inference() -> None:
    """A linear layer of 3 x 2 weights, each of the 64 masks by its probability."""
    layer = fd.DropConnect(2, 0.25, input_shape=(3,), seed=1, weight_initializer="glorot_normal")
    x, weight = random_array(1, (4, 3)), layer.parameters()[0].value.astype(np.float64)
    mean = np.zeros((4, 2))
    for bits in itertools.product((0, 1), repeat=6):
        keep = np.array(bits).reshape(3, 2)
        mean += 0.75 ** keep.sum() * 0.25 ** (6 - keep.sum()) * (x @ (keep * weight / 0.75))
    assert_near(layer(x), mean, 1e-6)
    assert_near(np.mean([layer.forward(x, True, step)[0] for step in range(4000)], axis=0), mean, 0.1)


@pytest.mark.parametrize("rate", [0.001, 0.1, 1 / 3, 0.77])
def test_share_of_weights(rate: float) -> None:
    layer = fd.DropConnect(300, rate, use_bias=False, weight_initializer="ones", seed=1)
    y = layer(np.eye(400, dtype=np.float32), training=True)
    assert_plausible(int((y == 0).sum()), y.size, rate)
    assert_near(y[y != 0], np.full(int((y != 0).sum()), 1 / (1 - rate)), 1e-5)


def test_pieces_of_a_batch_share_the_mask() -> None:
    net = fd.Sequential([fd.DropConnect(7, 0.5, "tanh"), fd.Dense(3)], input_shape=(9,), seed=2)
    x = random_array(1, (8, 9))
    whole = net.forward(x, True, 3)[0]
    for low, high in ((0, 3), (3, 8)):
        assert_same_bits(net.forward(x[low:high], True, 3, low)[0], whole[low:high])
    assert (net.forward(x, True, 4)[0] != whole).any()


def test_it_fuses_with_its_neighbours() -> None:
    net = fd.Sequential(
        [fd.Dropout(0.2), fd.DropConnect(7, 0.3), fd.Activation("relu"), fd.Dropout(0.5)], input_shape=(9,), seed=3
    )
    assert [type(step) for step in fusion.plan(net.layers)] == [FusedDense]
    x = random_array(1, (6, 9))
    weight, bias = (parameter.value for parameter in net.parameters())
    masks = [Mask(rate, Key(3, stream, 1)) for stream, rate in enumerate((0.2, 0.3, 0.5))]
    wanted, _ = fd.dense(x, fd.dropout(weight, masks[1])[0], bias, activation="relu", input_mask=masks[0], output_mask=masks[2])
    assert_same_bits(net.forward(x, True, 1)[0], wanted)
    assert_not_vacuous(wanted)
    text = net.summary(lambda _: None)
    assert "rate 0.3, stream 1" in text


@pytest.mark.parametrize("parameter", [0, 1])
def test_gradient(parameter: int) -> None:
    net = fd.Sequential([fd.DropConnect(5, 0.4, "tanh")], input_shape=(6,), seed=2, dtype="float64")
    x = random_array(1, (4, 6), np.float64)
    assert directional_error(net, x, net.parameters()[parameter]) < 1e-6
    assert directional_error(net, x) < 1e-6


def make(**options: Any) -> fd.Sequential:
    layers = [fd.DropConnect(16, 0.3, "relu", **options), fd.Dropout(0.2), fd.DropConnect(3, 0.1)]
    return fd.Sequential(layers, input_shape=(6,), seed=1)


@pytest.mark.parametrize(
    "options", [{}, {"weight_regularizer": "l2", "weight_constraint": fd.MaxNorm(0.5)}], ids=["plain", "all"]
)
@pytest.mark.parametrize(
    "optimizer", [fd.optim.SGD(0.1), fd.optim.SGD(0.1, momentum=0.9), fd.optim.AdamW(0.01)], ids=["sgd", "momentum", "adamw"]
)
def test_train_on_batch_is_forward_backward_and_step(optimizer: Any, options: dict) -> None:
    x, labels = random_array(1, (12, 6)), np.arange(12) % 3
    nets = [make(**options) for _ in range(2)]
    optimizers = [type(optimizer)(**{k: v for k, v in optimizer.get_config().items() if k != "class"}) for _ in range(2)]
    start = [p.value.copy() for p in nets[0].parameters()]
    for _ in range(4):
        nets[0].train_on_batch(x, labels, optimizer=optimizers[0], loss="softmax_cross_entropy")
        logits, backward = nets[1].forward(x, True)
        backward(fd.losses.softmax_cross_entropy(logits, labels)[1])
        optimizers[1].step(nets[1])
        nets[1].zero_grad()
    for a, b, before in zip(nets[0].parameters(), nets[1].parameters(), start, strict=True):
        assert_same_bits(a.value, b.value)
        assert (a.value != before).any()
    if options:
        assert (np.linalg.norm(nets[0].parameters()[0].value, axis=0) <= 0.5 + 1e-5).all()
        assert nets[0].penalty() > 0


def test_a_frozen_weight_stays(tmp_path: Path) -> None:
    net = make()
    net.parameters()[0].trainable = False
    before = [parameter.value.copy() for parameter in net.parameters()]
    net.fit(random_array(1, (12, 6)), np.arange(12) % 3, epochs=2, progress=False)
    changed = [bool((p.value != b).any()) for p, b in zip(net.parameters(), before, strict=True)]
    assert changed == [False, True, True, True]
    net.save(tmp_path / "net.safetensors")
    again = fd.load(tmp_path / "net.safetensors")
    assert again.get_config() == net.get_config()
    x = random_array(2, (5, 6))
    assert_same_bits(again.forward(x, True, 9)[0], net.forward(x, True, 9)[0])


def test_rate_zero_is_dense_and_rate_one_leaves_the_bias() -> None:
    x = random_array(1, (4, 6))
    layer = fd.DropConnect(5, 0.0, input_shape=(6,), seed=1, bias_initializer="ones")
    assert_same_bits(layer(x, training=True), layer(x))
    layer.rate = 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            y, backward = layer.forward(x, True, step)
            assert_same_bits(y, np.ones((4, 5), np.float32))
            assert not backward(y, input_gradient=True).any()
        whatever = np.full((4, 6), np.inf, np.float32)
        y, backward = layer.forward(whatever, True, 3)
        assert_same_bits(y, np.ones((4, 5), np.float32))
        assert not backward(np.full((4, 5), 3, np.float32), input_gradient=True).any()
    assert [each.category for each in caught if each.category is not RuntimeWarning] == [AllDroppedWarning]
    weight, bias = layer.parameters()
    assert not weight.grad.any()
    assert (bias.grad == 24).all()


def test_seed_and_stream() -> None:
    x = np.eye(40, dtype=np.float32)
    layer = fd.DropConnect(30, 0.5, use_bias=False, weight_initializer="ones", seed=4, stream=6)
    for net in (layer, fd.Sequential([layer], input_shape=(40,), seed=9)):
        assert_same_bits(net.forward(x, True, 2)[0] != 0, Mask(0.5, Key(4, 6, 2)).to_array((40, 30)))


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentValueError, match=r"`rate` must be in \[0, 1\], got -0.5"):
        fd.DropConnect(5, -0.5)
    with pytest.raises(ArgumentTypeError, match="`seed` must be an integer, got str"):
        fd.DropConnect(5, 0.5, seed="1")
    with pytest.raises(ArgumentValueError, match="`stream` must be in"):
        fd.DropConnect(5, 0.5, stream=-1)
    with pytest.raises(ArgumentValueError, match="`units` must be at least 1, got 0"):
        fd.DropConnect(0, 0.5)
    with pytest.raises(ArgumentValueError, match=r"`x` must be of shape \(rows, ..., fan_in\) for layer 'dropconnect'"):
        fd.DropConnect(5, 0.5)(np.ones(3))
