"""Masks of whole channels, of whole rows and over all steps: `SpatialDropout1D/2D/3D`, `DropPath`, locked masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_plausible, assert_same_bits, assert_varied
from gradients import directional_error
from strategies import random_array

import fastdrop as fd
from fastdrop import Key, Mask, fusion
from fastdrop.backends.select import default_backend
from fastdrop.errors import ArgumentTypeError, ArgumentValueError
from fastdrop.layers.dense import FusedDense
from fastdrop.layers.residual import ResidualStep

SPATIAL = {
    fd.SpatialDropout1D: ((6, 5, 8), (None, 1, None), "steps, channels"),
    fd.SpatialDropout2D: ((6, 3, 4, 8), (None, 1, 1, None), "height, width, channels"),
    fd.SpatialDropout3D: ((6, 3, 2, 4, 8), (None, 1, 1, 1, None), "depth, height, width, channels"),
}
RATES = [0.001, 0.1, 1 / 3, 0.77]

# Channels


@pytest.mark.parametrize("kind", SPATIAL)
@pytest.mark.parametrize("options", [{}, {"shared_rows": 2}, {"fixed_count": True}, {"mode": "downscale_in_infer"}], ids=str)
def test_spatial_dropout_is_dropout_with_a_noise_shape(kind: Any, options: dict) -> None:
    shape, noise_shape, _ = SPATIAL[kind]
    x = random_array(1, shape, np.float64)
    layer, plain = kind(0.4, 5, stream=2, **options), fd.Dropout(0.4, noise_shape, 5, stream=2, **options)
    for training in (True, False):
        (y, backward), (wanted, plain_backward) = (each.forward(x, training, 3, 7) for each in (layer, plain))
        assert_same_bits(y, wanted)
        assert_same_bits(backward(x, input_gradient=True), plain_backward(x, input_gradient=True))
    keep = layer.forward(np.ones(shape), True, 3, 7)[0].reshape(shape[0], -1, shape[-1]) != 0
    assert_varied(keep)
    assert (keep == keep[:, :1]).all()


@pytest.mark.parametrize("kind", SPATIAL)
@pytest.mark.parametrize("rate", RATES)
def test_share_of_channels(kind: Any, rate: float) -> None:
    shape = (500, *[1] * (len(SPATIAL[kind][0]) - 2), 200)
    y = kind(rate, seed=1)(np.ones(shape), training=True)
    assert_plausible(int((y == 0).sum()), y.size, rate)
    assert_near(y[y != 0], np.full(int((y != 0).sum()), 1 / (1 - rate)), 1e-8)


@pytest.mark.parametrize("kind", SPATIAL)
def test_rows_of_another_rank(kind: Any) -> None:
    shape, _, axes = SPATIAL[kind]
    name = kind.__name__.lower()
    for training in (True, False):
        with pytest.raises(
            ArgumentValueError, match=rf"`x` must be of shape \(rows, {axes}\) for layer '{name}', got \(rows, 8\)"
        ):
            kind(0.5)(np.ones((4, 8)), training=training)
    with pytest.raises(ArgumentValueError, match=rf"\(rows, {axes}\) for layer '{name}'"):
        fd.Sequential([kind(0.5)], input_shape=(*shape[1:], 2))
    with pytest.raises(TypeError):
        kind(0.5, noise_shape=(None, 1))


def test_spatial_dropout_is_fused_with_dense() -> None:
    net = fd.Sequential([fd.SpatialDropout1D(0.3), fd.Dense(7, "relu"), fd.SpatialDropout1D(0.5)], input_shape=(5, 6), seed=3)
    assert [type(step) for step in fusion.plan(net.layers)] == [FusedDense]
    x = random_array(1, (4, 5, 6))
    y, backward = net.forward(x, True, 2, 3)
    weight, bias = (parameter.value for parameter in net.parameters())
    masks = [Mask(rate, Key(3, stream, 2), noise_shape=(None, 1, None), row_offset=3) for stream, rate in enumerate((0.3, 0.5))]
    wanted, functional = fd.dense(x, weight, bias, activation="relu", input_mask=masks[0], output_mask=masks[1])
    assert_same_bits(y, wanted)
    assert_same_bits(backward(y, input_gradient=True), functional(y)[0])
    assert_not_vacuous(y)


# Rows


@pytest.mark.parametrize("shape", [(9,), (9, 4), (9, 3, 2, 5)])
@pytest.mark.parametrize("shared_rows", [1, 2, "batch"])
def test_drop_path_decides_once_a_row(shape: tuple[int, ...], shared_rows: int | str) -> None:
    x = np.abs(random_array(1, shape, np.float64)) + 1
    keep = [
        fd.DropPath(0.4, 5, shared_rows=shared_rows).forward(x, True, step, 7)[0].reshape(9, -1) / x.reshape(9, -1)
        for step in range(4)
    ]
    for step, each in enumerate(keep):
        mask = Mask(0.4, Key(5, 0, step), shared_rows=shared_rows, row_offset=7)
        decisions = mask.to_array((9,))
        assert_near(each, np.repeat(decisions[:, None] / (1 - 0.4), each.shape[1], 1), 1e-8)
    assert_varied(np.stack(keep))


@pytest.mark.parametrize("rate", RATES)
def test_share_of_rows(rate: float) -> None:
    y = fd.DropPath(rate, seed=1)(np.ones((20_000, 2)), training=True)
    assert_same_bits(y[:, 0], y[:, 1])
    assert_plausible(int((y[:, 0] == 0).sum()), len(y), rate)


def test_drop_path_as_huang_et_al_scale() -> None:
    """No factor in training, the probability of survival in inference."""
    layer, x = fd.DropPath(0.25, 1, mode="downscale_in_infer", shared_rows="batch"), np.ones((4, 2))
    assert_same_bits(layer(x), x * 0.75)
    seen = {float(layer(x, training=True).max()) for _ in range(20)}
    assert seen == {0.0, 1.0}


def block_net(**options: Any) -> fd.Sequential:
    branch = [fd.Dense(6, "relu"), fd.Dropout(0.2), fd.Dense(6), fd.DropPath(0.5, **options)]
    return fd.Sequential([fd.Residual(branch), fd.Dense(3)], input_shape=(6,), seed=3)


def test_stochastic_depth_passes_a_sample_through() -> None:
    block, x = block_net().layers[0], random_array(1, (40, 6))
    block.seed = 4
    plain = fd.Residual(block.layers[:3])
    plain.seed = 4
    y, dropped = block.forward(x, True, 2)[0], ~Mask(0.5, Key(4, 1, 2)).to_array((40,))
    assert_varied(dropped)
    assert_same_bits(y[dropped], x[dropped])
    branch = plain.forward(x, True, 2)[0] - x
    assert_near(y[~dropped], (x + 2 * branch)[~dropped], 1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_a_branch_that_is_dropped_as_a_whole_is_not_computed(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients are what they are otherwise; a branch of NaN is harmless."""
    net, x = block_net(shared_rows="batch"), random_array(1, (5, 6))
    block = net.layers[0] if not fused else net
    keep = [bool(Mask(0.5, Key(net.seed, 1, step)).to_array((1,))[0]) for step in range(8)]
    assert_varied(np.array(keep))
    if not fused:
        block.seed = net.seed
    calls: list[int] = []
    forward = default_backend().dense_forward
    monkeypatch.setattr(default_backend(), "dense_forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    for step, kept in enumerate(keep):
        calls.clear()
        net.zero_grad()
        y, backward = block.forward(x, True, step)
        assert len(calls) == (2 if kept else 0) + int(fused)
        gradient = backward(y, input_gradient=True)
        monkeypatch.setattr(fd.DropPath, "drops_all", lambda self, rows, pass_: False)
        wanted, plain_backward = block.forward(x, True, step)
        grads = [parameter.grad.copy() for parameter in net.parameters()]
        net.zero_grad()
        assert_same_bits(y, wanted)
        assert_same_bits(gradient, plain_backward(y, input_gradient=True))
        for got, parameter in zip(grads, net.parameters(), strict=True):
            assert_same_bits(np.abs(got), np.abs(parameter.grad))
        assert (grads[0] != 0).any() == kept
        monkeypatch.undo()
        monkeypatch.setattr(default_backend(), "dense_forward", lambda *a, **k: calls.append(1) or forward(*a, **k))


def test_stochastic_depth_trains_and_infers() -> None:
    """A step that drops the branch still decays its momentum, as a gradient of zeros does; inference computes all of it."""
    net, again = block_net(shared_rows="batch"), block_net(shared_rows="batch")
    x, labels = random_array(1, (12, 6)), np.arange(12) % 3
    optimizers = [fd.optim.SGD(0.1, momentum=0.9) for _ in range(2)]
    for step in range(6):
        net.train_on_batch(x, labels, optimizer=optimizers[0], loss="softmax_cross_entropy", step=step)
        logits, backward = again.forward(x, True, step)
        backward(fd.losses.softmax_cross_entropy(logits, labels)[1])
        optimizers[1].step(again)
        again.zero_grad()
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert_same_bits(a.value, b.value)
    assert_near(net.predictor()(x), net.predict(x), 1e-5)
    assert isinstance(fusion.plan(net.layers)[0], ResidualStep)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (fd.SpatialDropout1D(0.4, seed=1), (3, 4, 5)),
        (fd.SpatialDropout2D(0.4, seed=1), (3, 2, 2, 5)),
        (fd.SpatialDropout3D(0.4, seed=1), (2, 2, 2, 2, 5)),
        (fd.DropPath(0.4, seed=3), (9, 4)),
        (fd.Residual([fd.Activation("tanh"), fd.DropPath(0.4, seed=3)]), (9, 4)),
        (fd.Dropout(0.4, (None, 1, None), seed=1), (3, 6, 5)),
    ],
    ids=["1D", "2D", "3D", "path", "residual", "locked"],
)
def test_gradients(layer: Any, shape: tuple[int, ...]) -> None:
    assert directional_error(layer, random_array(1, shape, np.float64)) < 1e-6


def test_bad_arguments() -> None:
    for kind in (*SPATIAL, fd.DropPath):
        with pytest.raises(ArgumentValueError, match=r"`rate` must be in \[0, 1\], got 1.5"):
            kind(1.5)
        with pytest.raises(ArgumentTypeError, match="`seed` must be an integer, got float"):
            kind(0.5, 1.0)
        with pytest.raises(ArgumentValueError, match="`mode` must be one of"):
            kind(0.5, mode="x")


# Steps: the variational mask of Gal and Ghahramani 2016


def test_a_locked_mask_is_one_mask_for_all_steps_and_another_for_every_sequence() -> None:
    x = np.abs(random_array(1, (64, 20, 30), np.float64)) + 1
    layer = fd.Dropout(0.3, (None, 1, None), seed=2)
    keep = layer.forward(x, True, 0)[0] != 0
    assert (keep == keep[:, :1]).all()
    assert len(np.unique(keep[:, 0], axis=0)) == len(x)
    assert_plausible(int((~keep[:, 0]).sum()), 64 * 30, 0.3)
    assert_same_bits(keep[:, 0], Mask(0.3, Key(2, 0, 0)).to_array((64, 30)))


def test_a_locked_mask_is_the_same_for_a_sequence_step_by_step() -> None:
    """A loop over time that hands on one step at a time drops what the call with all steps drops; so do pieces of any length."""
    x = random_array(1, (5, 7, 4), np.float64)
    layer = fd.Dropout(0.5, (None, 1, None), seed=2)
    y, backward = layer.forward(x, True, 3)
    assert_varied(y != 0)
    single = fd.Dropout(0.5, seed=2)
    for t in range(7):
        assert_same_bits(single.forward(x[:, t], True, 3)[0], y[:, t])
    assert_same_bits(layer.forward(x[:, 2:5], True, 3)[0], y[:, 2:5])
    assert_same_bits(backward(x, input_gradient=True), y)


def test_a_locked_mask_in_a_network() -> None:
    """Between Dense layers over (rows, steps, units), as in a recurrent network unrolled."""
    layers = [fd.Dense(8, "tanh"), fd.Dropout(0.4, (None, 1, None)), fd.Dense(5)]
    net = fd.Sequential(layers, input_shape=(6, 3), seed=7)
    x = random_array(1, (4, 6, 3))
    y = net.forward(x, True, 1, 2)[0]
    hidden = layers[0](x)
    keep = Mask(0.4, Key(7, 0, 1), row_offset=2).to_array((4, 8))
    assert_varied(keep)
    dropped = np.where(keep[:, None], hidden * np.float32(1 / 0.6), np.float32(0))
    assert_near(y, layers[2](dropped), 1e-6)
