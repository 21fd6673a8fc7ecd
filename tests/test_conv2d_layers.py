"""`Conv2D`: alone, fused with its neighbours, in networks that train, infer, are saved and converted; what memory it takes."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_same_bits
from gradients import directional_error
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, random_array
from subprocesses import run
from test_convolved import never
from test_fused import OPTIMIZERS

import fastdrop as fd
from fastdrop import Key, Mask, activations, fusion
from fastdrop._types import ActivationKind, Array
from fastdrop.backends.cpu.backend import CpuBackend
from fastdrop.errors import ArgumentTypeError, ArgumentValueError
from fastdrop.layers import AbstractLayer
from fastdrop.layers.conv2d import FusedConv2D
from fastdrop.layers.dense import FusedDense
from fastdrop.window import window_of

SEED = 21
IMAGE = (6, 5, 4)

# Alone


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "same": {"padding": "same", "activation": "tanh"},
    "strides": {"strides": (2, 1), "padding": "same", "activation": "gelu"},
    "dilation": {"dilation_rate": (1, 2), "use_bias": False},
    "groups": {"groups": 2, "activation": "sigmoid"},
    "softmax": {"activation": "softmax"},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_the_layer_is_the_operation(name: str, dtype: np.dtype) -> None:
    layer, x = fd.Conv2D(6, (3, 2), **OPTIONS[name]), random_array(0, (5, *IMAGE), dtype)
    layer.dtype = dtype
    y, backward = layer.forward(x, True)
    parameters = layer.parameters()
    assert [p.name for p in parameters] == ["weight", "bias"][: len(parameters)]
    assert parameters[0].shape == (3, 2, 4 // layer.groups, 6)
    assert parameters[0].dtype == dtype
    options = {name: getattr(layer, name) for name in ("strides", "padding", "groups", "activation")}
    operands = [p.value for p in parameters]
    wanted, functional = fd.conv2d(x, *operands, dilation=layer.dilation_rate, **options)
    assert_same_bits(y, wanted)
    assert layer.output_shape(IMAGE) == y.shape[1:]
    dy = random_array(1, y.shape, dtype)
    dx = backward(dy, input_gradient=True)
    for mine, right in zip([dx, *(p.grad for p in parameters)], functional(dy), strict=False):
        assert_same_bits(mine, right)
        assert_not_vacuous(right)
    assert_same_bits(layer(x), y)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("which", ["x", "weight", "bias"])
def test_gradients(which: str, name: str) -> None:
    layer, x = fd.Conv2D(6, (3, 2), bias_initializer="he_normal", **OPTIONS[name]), random_array(0, (3, *IMAGE), np.float64)
    layer.dtype = np.dtype(np.float64)
    layer.seed = 1
    layer.build(IMAGE)
    parameter = None if which == "x" else getattr(layer, which)
    if which == "x" or parameter is not None:
        assert directional_error(layer, x, parameter) < 1e-6


def test_arguments_are_those_of_keras() -> None:
    layer = fd.Conv2D(8, 3, 2, "same", 2, 1, "relu", False, "he_normal", name="first")
    found = layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate, layer.groups, layer.activation, layer.use_bias
    assert found == ((3, 3), (2, 2), "same", (2, 2), 1, "relu", False)
    layer.build(IMAGE)
    assert layer.bias is None
    assert fd.Conv2D(8, [1, 2], strides=[2, 3]).strides == (2, 3)


@pytest.mark.parametrize(("groups", "fan"), [(1, 36), (2, 18)])
def test_starting_values_have_the_variance_of_their_fan_in(groups: int, fan: int) -> None:
    """He et al. 2015: 2 / fan_in, of height x width x channels of a group."""
    layer = fd.Conv2D(2000, 3, groups=groups, weight_initializer="he_normal")
    layer.seed = 3
    layer.build((3, 3, 4))
    assert layer.weight is not None
    assert layer.weight.value.size == 2000 * fan
    assert np.mean(np.square(layer.weight.value)) == pytest.approx(2 / fan, rel=0.03)


def test_max_norm_holds_for_each_filter() -> None:
    """Over height, width and channels together, which is Keras's MaxNorm with axis (0, 1, 2)."""
    net = fd.Sequential([fd.Conv2D(5, 3, weight_constraint=fd.MaxNorm(0.7)), fd.Flatten(), fd.Dense(3)], IMAGE, seed=SEED)
    x, labels = random_array(0, (8, *IMAGE)), np.arange(8) % 3
    for _ in range(3):
        net.train_on_batch(x, labels, fd.optim.SGD(0.5))
    norms = np.sqrt(np.square(net.parameters()[0].value).sum(axis=(0, 1, 2)))
    assert norms.shape == (5,)
    assert norms.max() == pytest.approx(0.7, rel=1e-5)


# Fused


def _plain(layers: Sequence[AbstractLayer], x: Any, step: int, offset: int, streams: Iterator[int]) -> Any:
    """The network in training, layer by layer, through the functional interface alone."""
    for layer in layers:
        if isinstance(layer, fd.Dropout):
            key, noise_shape = fd.Key(SEED, next(streams), step), layer.noise_shape
            x = fd.dropout(x, fd.Mask(layer.rate, key, noise_shape=noise_shape, row_offset=offset))[0]
        elif isinstance(layer, fd.Conv2D):
            assert layer.weight is not None
            bias = None if layer.bias is None else layer.bias.value
            options = {"strides": layer.strides, "padding": layer.padding, "groups": layer.groups}
            x = fd.conv2d(x, layer.weight.value, bias, activation=layer.activation, **options)[0]
        elif isinstance(layer, fd.Activation):
            x = activations.FUNCTIONS[layer.activation](x)
        elif isinstance(layer, fd.Residual):
            x = x + _plain(layer.layers, x, step, offset, streams)
        else:
            assert isinstance(layer, fd.Sequential | fd.MaxPool2D)
            x = _plain(layer.layers, x, step, offset, streams) if isinstance(layer, fd.Sequential) else layer(x)
    return x


NAMES = ["linear", "relu", "tanh", "gelu", "softmax"]


def _chains() -> st.SearchStrategy[list[AbstractLayer]]:
    """Layers for images of four channels, nested in networks and residuals."""
    leaves = st.one_of(
        st.builds(fd.Dropout, st.sampled_from([0.0, 0.3, 0.5])),
        st.builds(fd.SpatialDropout2D, st.sampled_from([0.3, 0.5])),
        st.builds(
            lambda name, groups, bias: fd.Conv2D(4, 3, padding="same", groups=groups, activation=name, use_bias=bias),
            st.sampled_from(NAMES), st.sampled_from([1, 1, 2]), st.booleans(),
        ),
        st.builds(fd.Activation, st.sampled_from(NAMES)),
        st.builds(fd.MaxPool2D, st.just(2), st.just(1), st.just("same")),
    )  # fmt: skip
    return st.recursive(
        st.lists(leaves, min_size=1, max_size=5),
        lambda inner: st.lists(leaves | inner.map(fd.Residual) | inner.map(fd.Sequential), min_size=1, max_size=4),
        max_leaves=3,
    )


@given(_chains(), st.sampled_from([5, 0]), st.integers(0, 5), st.integers(0, 5))
def test_any_network_equals_its_layers_one_by_one(layers: Any, rows: int, step: int, offset: int) -> None:
    """The same bits, where nothing is left out."""
    net = fd.Sequential(layers, IMAGE, seed=SEED)
    x = random_array(1, (rows, *IMAGE))
    y = never(lambda: net.forward(x, True, step, offset)[0])
    assert_same_bits(y, _plain(net.layers, x, step, offset, itertools.count()))


@given(_chains())
@settings(max_examples=15)
def test_gradients_of_any_network(layers: Any) -> None:
    """Along a random direction of all parameters and of x together, in float64, with a frozen step."""
    net = fd.Sequential([fd.Conv2D(4, 1, activation="tanh"), *layers, fd.Conv2D(2, 2)], IMAGE, seed=SEED, dtype="float64")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, *IMAGE))
    start = [p.value.copy() for p in net.parameters()]
    directions = [rng.standard_normal(p.shape) for p in net.parameters()]
    along_x, dy = rng.standard_normal(x.shape), rng.standard_normal(net.forward(x, True, step=1)[0].shape)

    def loss(t: float) -> float:
        for p, value, direction in zip(net.parameters(), start, directions, strict=True):
            p.value = value + t * direction
        return float((net.forward(x + t * along_x, True, step=1)[0] * dy).sum())

    h = 1e-7
    slope = (loss(h) - loss(-h)) / (2 * h)
    loss(0.0)
    dx = net.forward(x, True, step=1)[1](dy, input_gradient=True)
    terms = [(dx * along_x).sum(), *((p.grad * d).sum() for p, d in zip(net.parameters(), directions, strict=True))]
    assert sum(terms) == pytest.approx(slope, rel=1e-5, abs=1e-5)
    assert abs(slope) > 1e-3, "vacuous"


def test_groups_and_steps() -> None:
    def groups_of(*layers: AbstractLayer) -> list[str]:
        return ["+".join(type(layer).__name__ for layer in group) for group in fusion.groups(layers)]

    C, A, S = fd.Conv2D, fd.Activation, fd.SpatialDropout2D
    assert groups_of(fd.Dropout(0.2), C(3, 1, activation="relu"), S(0.5), C(3, 1), A("tanh"), fd.Dropout(0.5), fd.Dense(3)) == [
        "Dropout+Conv2D+SpatialDropout2D",
        "Conv2D+Activation+Dropout",
        "Dense",
    ]
    assert groups_of(C(3, 1), fd.MaxPool2D(), S(0.5), C(3, 1), A("softmax"), S(0.5)) == [
        "Conv2D",
        "MaxPool2D",
        "SpatialDropout2D+Conv2D",
        "Activation",
        "SpatialDropout2D",
    ]
    assert groups_of(C(3, 1, activation="softmax"), S(0.5), fd.DropBlock2D(0.1, 2), C(3, 1)) == [
        "Conv2D",
        "SpatialDropout2D",
        "DropBlock2D",
        "Conv2D",
    ]
    layers = [S(0.2), C(4, 1), A("relu"), fd.Dropout(0.5), C(2, 1, activation="softmax"), fd.Dense(2), fd.Dense(2)]
    steps = fusion.plan(layers)
    assert [type(step) for step in steps] == [FusedConv2D, FusedConv2D, fd.Activation, FusedDense, FusedDense]
    assert (steps[0].input_dropout, steps[0].output_dropout) == (layers[0], layers[3])


@pytest.mark.parametrize("drop", [fd.Dropout, fd.SpatialDropout2D])
def test_downscaling_in_training_and_in_inference(drop: Any) -> None:
    mode = "downscale_in_infer"
    layers = [drop(0.2, mode=mode), fd.Conv2D(5, 3, activation="tanh"), drop(0.4, mode=mode)]
    net = fd.Sequential(layers, IMAGE, seed=1, dtype="float64")
    x = random_array(1, (7, *IMAGE), np.float64)
    weight, bias = (p.value for p in net.parameters())
    noise_shape = layers[0].noise_shape
    masks = [fd.Mask(rate, fd.Key(1, stream, 0), noise_shape=noise_shape) for stream, rate in enumerate((0.2, 0.4))]
    hidden = fd.conv2d(np.where(masks[0].to_array(x.shape), x, 0), weight, bias, activation="tanh")[0]
    trained = net.forward(x, True, 0)[0]
    assert_near(trained, np.where(masks[1].to_array(hidden.shape), hidden, 0), 1e-12)
    assert_near(net(x), fd.conv2d(x * 0.8, weight, bias, activation="tanh")[0] * 0.6, 1e-9)
    assert_not_vacuous(net(x))
    assert_not_vacuous(trained)


def test_the_factor_of_the_papers_rule_goes_into_the_next_kernel() -> None:
    mode = "downscale_in_infer"
    layers = [
        fd.Conv2D(4, 3, activation="relu"),
        fd.MaxPool2D(2, 1),
        fd.SpatialDropout2D(0.4, mode=mode),
        fd.Conv2D(6, 2, activation="relu"),
        fd.Dropout(0.5, mode=mode),
        fd.GlobalAveragePool2D(),
        fd.Dense(3),
    ]
    net = fd.Sequential(layers, IMAGE, seed=1, dtype="float64")
    new, x = net.to_upscale_in_train(), random_array(1, (7, *IMAGE), np.float64)
    assert_near(new(x), net(x), 1e-12)
    assert_near(new.forward(x, True, 3)[0], net.forward(x, True, 3)[0], 1e-12)
    assert_not_vacuous(net(x))
    for name, factor in {"0.weight": 1, "3.weight": 0.6, "6.weight": 0.5}.items():
        assert_near(new.state_dict()[name], net.state_dict()[name] * factor, 1e-9)


# Networks


def _network(dtype: str = "float32", **dropout: Any) -> fd.Sequential:
    layers = [
        fd.Conv2D(8, 3, padding="same", activation="relu", name="first"),
        fd.SpatialDropout2D(0.3, **dropout),
        fd.Conv2D(12, 3, strides=(1, 2), activation="tanh"),
        fd.MaxPool2D(2),
        fd.Dropout(0.4),
        fd.Conv2D(6, (2, 1), groups=2),
        fd.Flatten(),
        fd.Dense(3),
    ]
    return fd.Sequential(layers, (8, 7, 3), seed=3, dtype=dtype)


def _batch(step: int = 0, dtype: str = "float32", rows: int = 12) -> tuple[Array, Array]:
    return random_array(step, (rows, 8, 7, 3), dtype), np.arange(rows) % 3


@pytest.mark.parametrize("shared_rows", [1, "batch", 5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_has_the_bits_of_its_parts(name: str, shared_rows: Any) -> None:
    nets, optimizers = [_network(shared_rows=shared_rows) for _ in range(2)], [OPTIMIZERS[name]() for _ in range(2)]
    before = nets[0].state_dict()
    before = {key: value.copy() for key, value in before.items()}
    for step in range(3):
        x, labels = _batch(step)
        loss = nets[0].train_on_batch(x, labels, optimizers[0])
        logits, backward = nets[1].forward(x, True)
        wanted, gradient = fd.losses.softmax_cross_entropy(logits, labels)
        backward(gradient)
        optimizers[1].step(nets[1])
        nets[1].zero_grad()
        assert loss == wanted
    for key, value in nets[0].state_dict().items():
        assert_same_bits(value, nets[1].state_dict()[key])
        assert_not_vacuous(value - before[key])


@pytest.mark.parametrize("shared_rows", ["batch", 5])
def test_training_with_channels_left_out_is_that_of_all_the_work(shared_rows: Any) -> None:
    """In float64, where rounding does not grow to anything in a few steps."""

    def train() -> list[Array]:
        net, optimizer = _network("float64", shared_rows=shared_rows), fd.optim.SGD(0.1, momentum=0.9)
        for step in range(4):
            net.train_on_batch(*_batch(step, "float64"), optimizer)
        return [p.value for p in net.parameters()]

    for got, wanted in zip(train(), never(train), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_a_batch_in_pieces() -> None:
    """The rows of pieces are those of the batch, and their gradients add up to the batch's."""
    x, labels = _batch(0, "float64")
    whole, pieces = _network("float64"), _network("float64")
    logits, backward = whole.forward(x, True, step=0)
    backward(fd.losses.softmax_cross_entropy(logits, labels)[1])
    for low, high in ((0, 1), (1, 8), (8, 12)):
        part, backward = pieces.forward(x[low:high], True, step=0, row_offset=low)
        assert_near(part, logits[low:high], 1e-12)
        backward(fd.losses.softmax_cross_entropy(part, labels[low:high], normalizer=12.0)[1])
    for got, wanted in zip(pieces.parameters(), whole.parameters(), strict=True):
        np.testing.assert_allclose(got.grad, wanted.grad, rtol=1e-9, atol=1e-12)
        assert_not_vacuous(wanted.grad)


def test_frozen_layers_stay_as_they_are() -> None:
    """Their gradients are not computed, those before them are the same."""
    x, labels = _batch()
    nets = [_network() for _ in range(2)]
    second = [p for p in nets[1].parameters() if p.name.startswith("2.")]
    assert len(second) == 2
    for parameter in second:
        parameter.trainable = False
    for net in nets:
        logits, backward = net.forward(x, True)
        backward(fd.losses.softmax_cross_entropy(logits, labels)[1])
    for mine, right in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
        if mine.name.startswith("2."):
            assert not mine.grad.any()
        else:
            assert_same_bits(mine.grad, right.grad)
        assert right.grad.any()
    before = [p.value.copy() for p in second]
    nets[1].zero_grad()
    nets[1].train_on_batch(x, labels, fd.optim.Adam(0.01))
    for parameter, value in zip(second, before, strict=True):
        assert_same_bits(parameter.value, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_networks_are_written_and_read_again(dtype: str, tmp_path: Path, without_fsync: None) -> None:
    net, (x, labels) = _network(dtype), _batch(0, dtype)
    net.train_on_batch(x, labels, fd.optim.SGD(0.1))
    again = fd.Sequential.from_config(json.loads(json.dumps(net.get_config())))
    assert again.get_config() == net.get_config()
    again.load_state_dict(net.state_dict())
    net.save(tmp_path / "net.safetensors")
    loaded = fd.load(tmp_path / "net.safetensors")
    assert net(x).dtype == dtype
    assert_not_vacuous(net(x))
    for same in (again, loaded):
        assert_same_bits(same.forward(x, True, 3, 1)[0], net.forward(x, True, 3, 1)[0])
        assert_same_bits(same(x), net(x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("last", [None, "softmax"])
def test_a_predictor_gives_the_networks_bits_and_is_frozen(last: str | None, dtype: str) -> None:
    layers = [fd.SpatialDropout2D(0.2, mode="downscale_in_infer"), fd.Conv2D(5, 3, activation="relu"), fd.Dropout(0.4)]
    net = fd.Sequential([*layers, fd.Conv2D(3, 1, activation=last), fd.GlobalAveragePool2D()], (8, 7, 3), seed=3, dtype=dtype)
    predictor, (x, labels) = net.predictor(), _batch(0, dtype)
    before = predictor(x)
    assert_same_bits(before, net.predict(x))
    assert_not_vacuous(before)
    for rows in (1, 5):
        assert_same_bits(predictor(x[:rows]), before[:rows])
        assert_same_bits(net.predict(x, batch_size=rows), before)
    net.train_on_batch(x, labels, fd.optim.SGD(0.5))
    net.layers[0].rate = 0.9
    assert_same_bits(predictor(x), before)
    assert (net.predict(x) != before).any()


@pytest.mark.parametrize("shared_rows", [None, "batch"])
def test_monte_carlo_dropout(shared_rows: Any) -> None:
    """The samples are the passes one by one, by the masks of the second set of domains."""
    net, (x, _) = _network("float64"), _batch(0, "float64", 5)
    net.output_kind = "logits"
    found = net.predict_mc(x, 6, seed=9, shared_rows=shared_rows, return_samples=True)
    pieces = [net.predict_mc(x, 1, seed=9, first_sample=i, shared_rows=shared_rows, return_samples=True) for i in range(6)]
    assert found.samples is not None
    assert found.samples.shape == (6, 5, 3)
    for i, piece in enumerate(pieces):
        assert piece.samples is not None
        assert_near(found.samples[i], piece.samples[0], 1e-12)
    assert_near(found.mean, found.samples.mean(axis=0), 1e-12)
    assert (found.std > 0).all()


def test_monte_carlo_masks_are_those_of_the_contract() -> None:
    """The output is +0.0 where a mask of domains 8 and 9 drops."""
    net = fd.Sequential([fd.Conv2D(4, 3), fd.Dropout(0.5)], (6, 5, 3), seed=3)
    x, net.output_kind = random_array(0, (5, 6, 5, 3)), "values"
    found = net.predict_mc(x, 4, seed=9, return_samples=True)
    assert found.samples is not None
    for i, sample in enumerate(found.samples):
        bound = fd.Mask(0.5, fd.Key(9, 0, i)).bind((5, 48), as_matrix=True, domain_base=8)
        assert_same_bits(sample.reshape(5, 48) != 0, bound.keep_rectangle((0, 5), (0, 48)))


def test_summary() -> None:
    lines = [line.split() for line in fusion.table(_network(), (8, 7, 3)).splitlines()[2:]]
    assert lines == [
        ["0", "first", "(8,", "7,", "8)", "224", "1"],
        ["1", "spatialdropout2d", "(8,", "7,", "8)", "1", "rate", "0.3,", "stream", "0"],
        ["2", "conv2d", "(6,", "3,", "12)", "876"],
        ["3", "maxpool2d", "(3,", "1,", "12)"],
        ["4", "dropout", "(3,", "1,", "12)", "2", "rate", "0.4,", "stream", "1"],
        ["5", "conv2d", "(2,", "1,", "6)", "78", "2"],
        ["6", "flatten", "(12,)"],
        ["7", "dense", "(3,)", "39"],
    ]


def test_networks_learn() -> None:
    """Where in the image a bright spot lies."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(0, 0.1, (40, 8, 7, 3)).astype(np.float32), rng.integers(0, 2, 40)
    x[np.arange(40), 4 * labels + 1, 3] += 2
    net = _network()
    history = net.fit(x, labels, epochs=10, batch_size=8, optimizer=fd.optim.Adam(0.01), progress=False)
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert net.evaluate(x, labels)["accuracy"] > 0.95


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fd.Conv2D(0, 3), ArgumentValueError, "`filters` must be at least 1, got 0"),
    (lambda: fd.Conv2D(8.0, 3), ArgumentTypeError, "`filters` must be an integer, got float"),
    (lambda: fd.Conv2D(8, 0), ArgumentValueError, "`kernel_size` must be at least 1, got 0"),
    (lambda: fd.Conv2D(8, (3, 3, 3)), ArgumentValueError, "`kernel_size` must be an integer or two of them, got 3 entries"),
    (lambda: fd.Conv2D(8, "3"), ArgumentTypeError, "`kernel_size` must be an integer, got str"),
    (lambda: fd.Conv2D(8, 3, 0), ArgumentValueError, "`strides` must be at least 1, got 0"),
    (lambda: fd.Conv2D(8, 3, padding="full"), ArgumentValueError, "`padding` must be one of same, valid, got 'full'"),
    (lambda: fd.Conv2D(8, 3, dilation_rate=(1, 0)), ArgumentValueError, "`dilation_rate` must be at least 1, got 0"),
    (lambda: fd.Conv2D(8, 3, groups=0), ArgumentValueError, "`groups` must be at least 1, got 0"),
    (lambda: fd.Conv2D(8, 3, groups=3), ArgumentValueError, "`groups` must be a divisor of the 8 filters, got 3"),
    (lambda: fd.Conv2D(8, 3, activation="swoosh"), ArgumentValueError, "`activation` must be one of"),
    (lambda: fd.Conv2D(8, 3, use_bias=1), ArgumentTypeError, "`use_bias` must be True or False, got int"),
    (lambda: fd.Conv2D(8, 3, weight_initializer="nice"), ArgumentValueError, "`weight_initializer` must be one of"),
    (lambda: fd.Conv2D(8, 3, bias_constraint=3), ArgumentTypeError, "`bias_constraint` must be"),
    (
        lambda: fd.Conv2D(8, 3)(np.ones((2, 5, 5), "f4")),
        ArgumentValueError,
        "`x` must be of shape (rows, height, width, channels) for layer 'conv2d', got (rows, 5, 5)",
    ),
    (
        lambda: fd.Conv2D(8, 3)(np.ones((2, 5, 2, 4), "f4")),
        ArgumentValueError,
        "`x` must be of height and width that fit the window of layer 'conv2d', 3 at least, got (5, 2)",
    ),
    (
        lambda: fd.Conv2D(8, 3)(np.ones((2, 5, 5, 0), "f4")),
        ArgumentValueError,
        "`x` must be of channels that are a multiple of 1, at least one each, for layer 'conv2d', got (5, 5, 0)",
    ),
    (
        lambda: fd.Conv2D(8, 3, groups=4).build((5, 5, 6)),
        ArgumentValueError,
        "`x` must be of channels that are a multiple of 4, at least one each, for layer 'conv2d', got (5, 5, 6)",
    ),
    (lambda: fd.Conv2D(8, 3)(np.ones((2, 5, 5, 4), int)), ArgumentTypeError, "`x` must be"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert text in str(caught.value)


def test_other_images_later() -> None:
    """Of another size they fit, of other channels not; nothing is changed."""
    layer = fd.Conv2D(4, 3, groups=2)
    layer.build((5, 5, 6))
    assert layer.weight is not None
    value = layer.weight.value.copy()
    assert layer(np.ones((2, 9, 7, 6), "f4")).shape == (2, 7, 5, 4)
    with pytest.raises(ArgumentValueError, match=r"`x` must be of 6 channels for layer 'conv2d', got \(5, 5, 4\)"):
        layer(np.ones((2, 5, 5, 4), "f4"))
    assert_same_bits(layer.weight.value, value)


# Memory

MIB = 1 << 20
SCRATCH_MIB = 16


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory where Linux reports it")
@pytest.mark.parametrize(("images", "filters"), [((128, 32, 32, 3), 64), ((128, 16, 16, 64), 128)])
def test_no_array_of_patches_is_made(images: tuple[int, ...], filters: int) -> None:
    """Peak memory grows by the results and gradients, and by no more than some scratch."""
    code = f"""
    from pathlib import Path
    import numpy as np
    from fastdrop import Key, Mask
    from fastdrop._types import ActivationKind
    from fastdrop.backends.cpu._scratch import Scratch
    from fastdrop.backends.select import backend
    from fastdrop.window import window_of

    cpu, relu = backend("cpu"), ActivationKind.RELU

    def resident(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

    def convolve(images, filters):
        window = window_of(images[1:3], (3, 3), (1, 1), (1, 1), "same", "`weight`")
        shapes = images, (3, 3, images[3], filters), (filters,), (*images[:3], filters)
        x, weight, bias, dy = (np.ones(shape, "float32") for shape in shapes)
        first, last = (
            Mask(0.3, Key(1, i, 3)).bind(shape, as_matrix=True) for i, shape in enumerate(((len(x), x[0].size), dy.shape))
        )
        dweight, dbias = np.zeros_like(weight), np.zeros_like(bias)
        cpu._scratch = Scratch()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        y, z = cpu.conv2d_forward(x, weight, bias, window, relu, first, last, True)
        dx = cpu.conv2d_backward(dy, x, weight, y, z, window, relu, first, last, True, dweight, dbias, True)
        return resident("VmHWM") - before, (y.nbytes + dx.nbytes) / {MIB}

    convolve((30, 16, 16, {images[3]}), {filters})  # which compiles
    print(*convolve({images}, {filters}))
    """
    growth, results = map(float, run(code).split())
    assert growth < results + SCRATCH_MIB
    assert growth > 0.5 * results


@pytest.mark.parametrize(
    ("image", "size", "filters", "sparse"),
    [((256, 256, 64), 3, 64, True), ((512, 512, 3), 5, 8, False), ((4, 4, 32), 3, 4096, False), ((16, 16, 512), 3, 512, False)],
    ids=["listed", "patches", "many filters", "wide"],
)
def test_no_scratch_is_much_larger_than_the_image(image: tuple[int, ...], size: int, filters: int, sparse: bool) -> None:
    cpu = CpuBackend()
    window = window_of(image[:2], (size, size), (1, 1), (1, 1), "same", "`weight`")
    shapes = (1, *image), (size, size, image[2], filters), (1, *image[:2], filters)
    x, weight, dy = (np.ones(shape, "float32") for shape in shapes)
    mask = Mask(0.3, Key(1, 0, 0)).bind((1, x.size), as_matrix=True)
    y, z = cpu.conv2d_forward(x, weight, None, window, ActivationKind.RELU, mask, None, True)
    gradients = True, np.zeros_like(weight), None, True, sparse
    cpu.conv2d_backward(dy, x, weight, y, z, window, ActivationKind.RELU, mask, None, *gradients)
    packed, work, _ = cpu._scratch.products[x.dtype]
    arrays = [packed, work, *cpu._scratch._buffers.values()]
    assert len(arrays) >= 4
    assert max(array.nbytes for array in arrays) < x.nbytes + weight.nbytes + y.nbytes + (SCRATCH_MIB << 20)
