"""Layers used alone, as in Keras, and their parameters."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import assert_not_vacuous, assert_same_bits, assert_varied
from gradients import directional_error
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_array

import fastdrop as fd
from fastdrop import activations
from fastdrop.errors import (
    AllDroppedWarning,
    ArgumentTypeError,
    ArgumentValueError,
    FastdropError,
    StaleBackwardError,
    StateError,
)
from fastdrop.layers import AbstractLayer, Parameter

ONES = np.ones((6, 10), np.float32)


# Dropout alone


def test_keras_example() -> None:
    data = np.arange(10).reshape(5, 2).astype(np.float32)
    layer = fd.Dropout(0.2, input_shape=(2,))
    out = layer(data, training=True)
    assert ((out == 0) | (out == data * np.float32(1.25))).all()
    assert layer(data) is data


@given(
    st.sampled_from([0.1, 0.5, 0.9]),
    st.sampled_from([(7, 13), (3, 4, 5), (9,)]),
    st.sampled_from([1, 3, "batch"]),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_the_mask_is_fd_mask_of_seed_stream_and_step(rate: float, shape: Any, shared: Any, step: int, offset: int) -> None:
    layer = fd.Dropout(rate, seed=5, shared_rows=shared)
    x = random_array(1, shape, np.float64)
    y, backward = layer.forward(x, True, step, offset)
    mask = fd.Mask(rate, fd.Key(5, 0, step), shared_rows=shared, row_offset=offset)
    wanted, functional_backward = fd.dropout(x, mask)
    assert_same_bits(y, wanted)
    dy = random_array(2, shape, np.float64)
    assert_same_bits(backward(dy, input_gradient=True), functional_backward(dy))
    assert backward(dy) is None


def test_noise_shape_fixed_count_and_pinned_stream_reach_the_mask() -> None:
    layer = fd.Dropout(0.5, (None, 1, None), 7, fixed_count=True, stream=9)
    keep = layer(np.ones((4, 3, 8), np.float32), training=True) != 0
    wanted = fd.Mask(0.5, fd.Key(7, 9, 0), noise_shape=(None, 1, None), fixed_count=True).to_array((4, 3, 8))
    assert_same_bits(keep, wanted)
    assert (keep.sum(axis=2) == 4).all()


def test_a_layer_counts_its_own_training_steps() -> None:
    layer = fd.Dropout(0.5, seed=1)
    for step in range(3):
        assert layer.step_count == step
        assert_same_bits(layer(ONES, training=True) != 0, fd.Mask(0.5, fd.Key(1, 0, step)).to_array(ONES.shape))
        layer(ONES)
        layer.forward(ONES, False)
        layer.forward(ONES, True, step=77)
    with pytest.raises(FastdropError):
        layer(np.ones((2, 2), np.int32), training=True)
    assert layer.step_count == 3


def test_the_seed_comes_from_the_operating_system_and_is_recorded() -> None:
    layers = [fd.Dropout(0.5) for _ in range(8)]
    assert len({layer.seed for layer in layers}) == 8
    for layer in layers:
        assert_same_bits(layer(ONES, training=True) != 0, fd.Mask(0.5, fd.Key(layer.seed, 0, 0)).to_array(ONES.shape))


def test_seed_and_rate_may_be_assigned() -> None:
    layer = fd.Dropout(0.5, seed=1)
    layer.seed, layer.rate = 2, 0.25
    assert layer.rate == 0.25
    keep = layer.forward(ONES, True, 0)[0] != 0
    assert_varied(keep)
    assert_same_bits(keep, fd.Mask(0.25, fd.Key(2, 0, 0)).to_array(ONES.shape))
    with pytest.raises(ArgumentValueError, match=r"`rate` must be in \[0, 1\], got 1.5"):
        layer.rate = 1.5
    with pytest.raises(ArgumentValueError, match=r"`seed` must be in \[0, 18446744073709551615\], got -1"):
        layer.seed = -1
    assert (layer.rate, layer.seed) == (0.25, 2)


def test_mode_may_be_assigned() -> None:
    layer = fd.Dropout(0.5, seed=1)
    scaled = layer.forward(ONES, True, 0)[0]
    layer.mode = "downscale_in_infer"
    assert_same_bits(layer.forward(ONES, True, 0)[0], scaled / 2)
    assert_varied(scaled != 0)


def test_rate_zero_is_the_identity_and_costs_nothing() -> None:
    layer = fd.Dropout(0.0)
    y, backward = layer.forward(ONES, True)
    assert y is ONES
    assert backward(ONES, input_gradient=True) is ONES
    assert layer(np.full((1, 1), np.nan, np.float32), training=True)[0, 0] != 0


@pytest.mark.parametrize("mode", ["upscale_in_train", "downscale_in_infer"])
def test_rate_one_gives_zeros_and_warns_once(mode: str) -> None:
    layer = fd.Dropout(1.0, mode=mode)
    x = np.full((2, 3), np.inf)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(3):
            y, backward = layer.forward(x, True, row_offset=step)
            assert_same_bits(y, np.zeros((2, 3)))
            assert_same_bits(backward(x, input_gradient=True), np.zeros((2, 3)))
        assert_same_bits(layer(x), x if mode == "upscale_in_train" else np.zeros((2, 3)))
    named = [warning.category for warning in caught if not issubclass(warning.category, RuntimeWarning)]  # NumPy's, JIT off
    assert named == [AllDroppedWarning]


def test_downscale_in_infer_scales_in_inference_only() -> None:
    layer = fd.Dropout(0.3, seed=4, mode="downscale_in_infer")
    mask = fd.Mask(0.3, fd.Key(4, 0, 0))
    x = random_array(1, (5, 8), np.float64)
    assert_same_bits(layer(x, training=True), np.where(mask.to_array((5, 8)), x, 0.0))
    y, backward = layer.forward(x, False)
    keep_prob = mask.keep_prob((5, 8))
    assert_same_bits(y, x * keep_prob)
    assert_same_bits(backward(x, input_gradient=True), x * keep_prob)


def test_downscale_in_infer_of_a_fixed_count_and_of_a_noise_shape_with_rows() -> None:
    layer = fd.Dropout(0.3, (5, 1, 7), fixed_count=True, mode="downscale_in_infer")
    x = random_array(1, (2, 4, 7), np.float64)
    assert_same_bits(layer(x), x * (5 / 7))
    assert (np.count_nonzero(layer(random_array(1, (5, 4, 7)), training=True)[:, 0], axis=1) == 5).all()


# Other layers alone


@pytest.mark.parametrize("name", sorted(activations.FUNCTIONS))
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5), (0, 5)])
def test_activation(name: str, shape: tuple[int, ...]) -> None:
    x = random_array(1, shape, np.float64)
    layer = fd.Activation(activations.FUNCTIONS[name])
    assert layer.activation == name
    y, backward = layer.forward(x, True)
    assert_same_bits(y, activations.FUNCTIONS[name](x))
    assert backward(x) is None
    assert backward(x, input_gradient=True).shape == shape


@pytest.mark.parametrize("name", sorted(set(activations.FUNCTIONS) - {"heaviside"}))
def test_activation_gradient(name: str) -> None:
    assert directional_error(fd.Activation(name), random_array(1, (4, 5), np.float64)) < 1e-6


def test_flatten() -> None:
    x = random_array(1, (3, 2, 4), np.float64)
    y, backward = fd.Flatten().forward(x, False)
    assert_same_bits(y, x.reshape(3, 8))
    assert_same_bits(backward(y, input_gradient=True), x)
    assert fd.Flatten()(np.ones(3)).shape == (3, 1)
    assert fd.Flatten()(np.ones((0, 2, 3))).shape == (0, 6)


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4), (0, 4), (2, 0, 4), (1, 4)])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "softmax"])
def test_dense_alone_is_fd_dense(shape: tuple[int, ...], activation: str | None) -> None:
    layer = fd.Dense(3, activation)
    x, dy = random_array(1, shape), random_array(2, (*shape[:-1], 3))
    y, backward = layer.forward(x, True)
    weight, bias = layer.parameters()
    assert (weight.name, bias.name, weight.decays, bias.decays) == ("weight", "bias", True, False)
    wanted, functional_backward = fd.dense(x, weight.value, bias.value, activation=activation)
    assert_same_bits(y, wanted)
    dx = backward(dy, input_gradient=True)
    for got, exact in zip((dx, weight.grad, bias.grad), functional_backward(dy), strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-6)
    assert dx.shape == shape


def test_dense_alone_is_float32_and_takes_other_axes_later() -> None:
    layer = fd.Dense(2)
    assert layer(np.ones((3, 4))).dtype == np.float32
    assert layer(np.ones((3, 5, 4), np.float32)).shape == (3, 5, 2)
    with pytest.raises(ArgumentValueError, match=r"`x` must be of shape \(rows, ..., 4\) for layer 'dense', got \(rows, 5\)"):
        layer(np.ones((3, 5)))


def test_dense_with_an_input_shape_has_parameters_before_the_first_call() -> None:
    layer = fd.Dense(2, input_shape=(3,), name="first")
    assert [p.shape for p in layer.parameters()] == [(3, 2), (2,)]
    with pytest.raises(ArgumentValueError, match=r"`x` must be of shape \(rows, 3\) for layer 'first', got \(rows, 4, 3\)"):
        layer(np.ones((5, 4, 3), np.float32))


def test_parameters_before_building_are_an_error() -> None:
    with pytest.raises(StateError, match="this Dense has no parameters yet: give `input_shape`, or call it first"):
        fd.Dense(2).parameters()
    assert fd.Dropout(0.5).parameters() == []


@pytest.mark.parametrize("inner", ["dense", "dropout", "none kept"])
def test_residual(inner: str) -> None:
    layers: dict[str, list[AbstractLayer]] = {
        "dense": [fd.Dense(5, "tanh"), fd.Dropout(0.5), fd.Dense(5)],
        "dropout": [fd.Dropout(0.5, seed=3), fd.Dropout(0.5)],
        "none kept": [fd.Dropout(0.0)],
    }
    chain = layers[inner]
    block = fd.Residual(chain)
    block.seed = 8
    x = random_array(1, (4, 5))
    y = block.forward(x, True, step=2)[0]
    f = x
    stream = 0
    for layer in chain:
        if isinstance(layer, fd.Dropout):
            key = fd.Key(3 if layer.own_seed == 3 else 8, stream, 2)
            f = fd.dropout(f, fd.Mask(layer.rate, key))[0]
            stream += 1
        else:
            f = layer(f)
    np.testing.assert_allclose(y, x + f, rtol=1e-6)
    assert_not_vacuous(f)


def test_residual_keeps_float64_and_names_its_parameters() -> None:
    assert fd.Residual([fd.Dropout(0.5)])(np.ones((2, 2))).dtype == np.float64
    block = fd.Residual([fd.Flatten(), fd.Dense(4)])
    assert block(np.ones((2, 4))).dtype == np.float32
    assert [p.name for p in block.parameters()] == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    "layer",
    [
        fd.Dropout(0.5, seed=1),
        fd.Dropout(0.5, seed=1, mode="downscale_in_infer"),
        fd.Residual([fd.Dropout(0.5), fd.Activation("tanh")]),
        fd.Residual([fd.Activation("gelu"), fd.Residual([fd.Dropout(0.5)])]),
        fd.Flatten(),
    ],
    ids=["upscale", "downscale", "residual", "nested", "flatten"],
)
def test_input_gradient(layer: AbstractLayer) -> None:
    assert directional_error(layer, random_array(1, (4, 5), np.float64)) < 1e-6


# Rules of every layer


def test_gradients_add_up_and_outstanding_passes_are_independent() -> None:
    layer = fd.Dense(3, "tanh")
    xs, dys = ([random_array(seed, (4, width)) for seed in range(first, first + 3)] for first, width in ((1, 5), (9, 3)))
    passes = [layer.forward(x, True) for x in xs]
    for i in (2, 0, 1):
        passes[i][1](dys[i])
    added = layer.parameters()[0].grad.copy()
    wanted = np.zeros_like(added)
    for x, dy in zip(xs, dys, strict=True):
        layer.parameters()[0].zero_grad()
        layer.forward(x, True)[1](dy)
        wanted += layer.parameters()[0].grad
    np.testing.assert_allclose(added, wanted, rtol=1e-4, atol=1e-5)
    assert_not_vacuous(wanted)


@pytest.mark.parametrize("change", ["assign", "in place", "bias"])
def test_stale_backward(change: str) -> None:
    layer = fd.Dense(3)
    y, backward = layer.forward(ONES, True)
    weight, bias = layer.parameters()
    if change == "assign":
        weight.value = weight.value
    else:
        (weight if change == "in place" else bias).mark_changed()
    name = "bias" if change == "bias" else "weight"
    with pytest.raises(StaleBackwardError, match=f"`{name}` was changed between this forward pass and its backward pass"):
        backward(y)
    assert not weight.grad.any()
    y, backward = layer.forward(ONES, True)
    backward(y)
    assert weight.grad.any()


def test_frozen_parameters_get_no_gradient() -> None:
    for frozen in ((0,), (1,), (0, 1)):
        layer = fd.Dense(3)
        y, backward = layer.forward(ONES, True)
        for i in frozen:
            layer.parameters()[i].trainable = False
        assert backward(y) is None
        assert [i for i in (0, 1) if not layer.parameters()[i].grad.any()] == list(frozen)
        assert backward(y, input_gradient=True).any()


def test_first_calls_from_several_threads_build_once() -> None:
    layer, x = fd.Dense(64), random_array(1, (8, 32))
    results: list[Any] = []
    barrier = threading.Barrier(4)

    def call() -> None:
        barrier.wait()
        results.append((layer.forward(x, True, step=0)[0], layer.weight))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for y, weight in results:
        assert weight is layer.weight
        assert_same_bits(y, results[0][0])


@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: x.tolist(), lambda x: x.astype(">f8"), lambda x: x[::-1][::-1]])
def test_any_form_of_input_gives_the_same_bits(make: Callable[[np.ndarray], Any]) -> None:
    x = random_array(1, (6, 4), np.float64)
    for layer in (fd.Dropout(0.5, seed=1), fd.Activation("tanh"), fd.Dense(3)):
        wanted = layer.forward(x, True, step=0)[0]
        got = layer.forward(make(x), True, step=0)[0]
        assert got.flags.c_contiguous
        assert_same_bits(got, wanted)


def test_float64_input_is_converted_once() -> None:
    layer, x = fd.Dense(3), random_array(1, (6, 4), np.float64)
    y, backward = layer.forward(x, True)
    assert_same_bits(y, layer(x.astype(np.float32)))
    dx = backward(y.astype(np.float64), input_gradient=True)
    assert dx.dtype == np.float32


# Parameters


def test_parameter() -> None:
    start = random_array(1, (3, 2))
    p = Parameter("w", start)
    assert_same_bits(p.grad, np.zeros((3, 2), np.float32))
    assert (p.trainable, p.decays, p.version, p.name) == (True, True, 0, "w")
    start[...] = 0
    assert p.value.any()
    p.value = np.ones((3, 2))[::-1]
    assert (p.version, p.value.dtype, p.value.flags.c_contiguous) == (1, np.float32, True)
    p.grad = np.ones((3, 2))
    p.zero_grad()
    assert not p.grad.any()
    assert repr(p) == "Parameter('w', shape=(3, 2), dtype=float32, trainable=True)"
    assert_same_bits(Parameter("w", start, start + 1).grad, start + 1)


@pytest.mark.parametrize(
    ("attribute", "value", "error", "text"),
    [
        ("value", np.ones((2, 3)), ArgumentValueError, "`value` must be of shape (3, 2), got (2, 3)"),
        ("grad", np.ones(3), ArgumentValueError, "`grad` must be of shape (3, 2), got (3,)"),
        ("value", np.ones((3, 2), int), ArgumentTypeError, "`value` must be a float32 or float64 array, got int64"),
        ("value", None, ArgumentTypeError, "`value` must be an array, got NoneType"),
        ("trainable", 1, ArgumentTypeError, "`trainable` must be True or False, got int"),
    ],
)
def test_parameter_errors(attribute: str, value: Any, error: type[Exception], text: str) -> None:
    p = Parameter("w", np.ones((3, 2), np.float32))
    with pytest.raises(error) as caught:
        setattr(p, attribute, value)
    assert text in str(caught.value)
    assert (p.version, p.trainable) == (0, True)


# Error texts


CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fd.Dropout(1.5), ArgumentValueError, "`rate` must be in [0, 1], got 1.5"),
    (lambda: fd.Dropout(float("nan")), ArgumentValueError, "`rate` must be in [0, 1], got nan"),
    (lambda: fd.Dropout("0.5"), ArgumentTypeError, "`rate` must be a number, got str"),
    (lambda: fd.Dropout(0.5, 3), ArgumentTypeError, "`noise_shape` must be None or a tuple of integers and None, got int"),
    (lambda: fd.Dropout(0.5, seed=1.0), ArgumentTypeError, "`seed` must be an integer, got float"),
    (lambda: fd.Dropout(0.5, stream=2**32), ArgumentValueError, "`stream` must be in [0, 4294967295], got 4294967296"),
    (lambda: fd.Dropout(0.5, shared_rows=0), ArgumentValueError, "`shared_rows` must be in [1,"),
    (
        lambda: fd.Dropout(0.5, mode="x"),
        ArgumentValueError,
        "`mode` must be one of downscale_in_infer, upscale_in_train, got 'x'",
    ),
    (lambda: fd.Dropout(0.5, input_shape=()), ArgumentValueError, "`input_shape` must be a shape of at least one axis, got ()"),
    (lambda: fd.Dense(0), ArgumentValueError, "`units` must be at least 1, got 0"),
    (lambda: fd.Dense(2.0), ArgumentTypeError, "`units` must be an integer, got float"),
    (lambda: fd.Dense(2, "swish"), ArgumentValueError, "`activation` must be one of gelu, heaviside"),
    (lambda: fd.Dense(2, np.tanh), ArgumentTypeError, "`activation` must be None, a name or a function of fastdrop.activations"),
    (lambda: fd.Dense(2, use_bias=1), ArgumentTypeError, "`use_bias` must be True or False, got int"),
    (lambda: fd.Dense(2, name=3), ArgumentTypeError, "`name` must be a string, got int"),
    (lambda: fd.Dense(2)(np.ones(3)), ArgumentValueError, "`x` must be of shape (rows, ..., fan_in) for layer 'dense'"),
    (lambda: fd.Residual([]), ArgumentValueError, "`layers` must be a sequence of layers of fastdrop, got none"),
    (lambda: fd.Residual(fd.Dense(2)), ArgumentTypeError, "`layers` must be a sequence of layers of fastdrop, got Dense"),
    (lambda: fd.Residual(["relu"]), ArgumentTypeError, "`layers` must be a sequence of layers of fastdrop, got str at 0"),
    (lambda: fd.Residual([fd.Dense(3)])(np.ones((2, 4))), ArgumentValueError, "(4,) keep it in a Residual, got (3,)"),
    (lambda: fd.Dropout(0.5)(np.arange(3)), ArgumentTypeError, 'got int64 (hint: x.astype("float32"), and / 255 for images)'),
    (lambda: fd.Dropout(0.0)([[1, 2]]), ArgumentTypeError, "`x` must be a float32 or float64 array, got int64"),
    (lambda: fd.Dropout(0.5)(ONES.astype(np.float16)), ArgumentTypeError, "`x` must be a float32 or float64 array, got float16"),
    (lambda: fd.Dropout(0.5)(np.float32(1)), ArgumentValueError, "`x` must be an array of at least one axis, got shape ()"),
    (lambda: fd.Dropout(0.5)(ONES, training=1), ArgumentTypeError, "`training` must be True or False, got int"),
    (lambda: fd.Dropout(0.5).forward(ONES, True, -1), ArgumentValueError, "`step` must be in [0, 4294967295], got -1"),
    (lambda: fd.Dropout(0.5).forward(ONES, True, 0, -1), ArgumentValueError, "`row_offset` must be in [0,"),
    (lambda: fd.Dropout(0.5, (3, 1))(ONES, True), ArgumentValueError, "`noise_shape` must be 1, None or the extent of x (6, 10)"),
    (lambda: fd.Dropout(0.01, fixed_count=True)(ONES, True), ArgumentValueError, "0.01: nothing would be dropped every time"),
    (lambda: fd.Dropout(0.5).forward(ONES, True)[1](ONES[1:]), ArgumentValueError, "`dy` must be of shape (6, 10), got (5, 10)"),
    (
        lambda: fd.Dropout(0.5).forward(ONES, True)[1](ONES > 0),
        ArgumentTypeError,
        "`dy` must be a float32 or float64 array, got bool",
    ),
    (
        lambda: fd.Dropout(0.5).forward(ONES, True)[1](ONES, 1),
        ArgumentTypeError,
        "`input_gradient` must be True or False, got int",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), CASES, ids=range(len(CASES)))
def test_error_texts(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_the_same_layer_twice_in_a_residual_is_an_error() -> None:
    layer = fd.Dropout(0.5)
    with pytest.raises(ArgumentValueError, match=r"`layers` must be different objects, got the same Dropout again at 1\.0"):
        fd.Residual([layer, fd.Residual([layer])])
