"""Networks: streams, seeds, steps, pieces of a batch, parameters, states, descriptions and conversion."""

from __future__ import annotations

import copy
import itertools
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import assert_near, assert_not_vacuous, assert_same_bits, assert_varied
from hypothesis import given
from hypothesis import strategies as st
from strategies import random_array

import fastdrop as fd
from fastdrop import regularizers
from fastdrop.backends.select import default_backend
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, StaleBackwardError, StateError
from fastdrop.layers import AbstractLayer

X = random_array(1, (6, 4))
DY = random_array(2, (6, 2))


def small(**arguments: Any) -> fd.Sequential:
    layers = [fd.Dropout(0.3), fd.Dense(5, "tanh"), fd.Dropout(0.5), fd.Dense(2)]
    return fd.Sequential(layers, **{"input_shape": (4,), "seed": 3} | arguments)


def streams(root: AbstractLayer) -> list[int]:
    return [root.stream_of(node.layer) for node in root.walk() if node.layer.random]


# Streams and seeds


def test_streams_are_numbered_depth_first_and_pinned_ones_replace_their_own_number_only() -> None:
    net = fd.Sequential(
        [
            fd.Dropout(0.1),
            fd.Dropout(0.0),
            fd.Residual([fd.Dropout(0.5, stream=77), fd.Sequential([fd.Dropout(0.5)])]),
            fd.Dropout(1.0),
            fd.Dropout(0.5),
        ]
    )
    assert streams(net) == [0, 1, 77, 3, 4, 5]
    assert streams(net.layers[2]) == [77, 1]


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [fd.Dropout(0.5, stream=1), fd.Dropout(0.5)],
        lambda: [fd.Dropout(0.5), fd.Residual([fd.Dropout(0.0, stream=0)])],
        lambda: [fd.Dropout(0.5, stream=9), fd.Dropout(0.5, seed=4, stream=9)],
    ],
)
def test_two_masks_of_one_stream_are_an_error(layers: Callable[[], list[AbstractLayer]]) -> None:
    with pytest.raises(ArgumentValueError, match=r"`stream` must be different for each mask of a network, got . twice"):
        fd.Sequential(layers())


def test_masks_of_a_network_are_fd_masks_of_its_keys() -> None:
    """Layers that only drop: the output shows each mask."""
    ones = np.ones((8, 16), np.float32)
    for i, (seed, stream) in enumerate([(3, 0), (9, 1), (3, 40)]):
        layers = [fd.Dropout(0.0) for _ in range(3)]
        layers[1].seed = 9
        layers[2] = fd.Dropout(0.0, stream=40)
        layers[i].rate = 0.5
        net = fd.Sequential(layers, seed=3)
        keep = net.forward(ones, True, step=6, row_offset=2)[0] != 0
        assert_varied(keep)
        assert_same_bits(keep, fd.Mask(0.5, fd.Key(seed, stream, 6), row_offset=2).to_array((8, 16)))


def test_a_network_without_seed_draws_and_records_one() -> None:
    first, second = small(seed=None), small(seed=None)
    assert first.seed != second.seed
    assert_same_bits(first.forward(X, True)[0], small(seed=first.seed).forward(X, True)[0])
    second.load_state_dict(first.state_dict())
    second.seed = first.seed
    assert_same_bits(first.forward(X, True, 5)[0], second.forward(X, True, 5)[0])


def test_an_enclosing_network_decides_seed_and_dtype_of_nested_ones() -> None:
    def nested(inner_shape: Any, **inner: Any) -> fd.Sequential:
        inside = fd.Sequential([fd.Dropout(0.5), fd.Dense(4)], inner_shape, **inner)
        return fd.Sequential([fd.Dense(4), inside, fd.Dropout(0.5), fd.Dense(2)], (4,), seed=3, dtype="float64")

    flat = fd.Sequential([fd.Dense(4), fd.Dropout(0.5), fd.Dense(4), fd.Dropout(0.5), fd.Dense(2)], (4,), seed=3, dtype="float64")
    wanted = flat.forward(X, True, step=1)[0]
    for net in (nested(None), nested((4,)), nested((4,), dtype="float64")):
        assert [p.name for p in net.parameters()][2:4] == ["1.1.weight", "1.1.bias"]
        assert_same_bits(net.forward(X, True, step=1)[0], wanted)
        assert net.layers[1].dtype == np.float64
        assert net.layers[1](X).dtype == np.float64
    assert not np.array_equal(nested((4,), seed=8).forward(X, True, step=1)[0], wanted)


def test_values_that_exist_are_kept_by_an_enclosing_network() -> None:
    inner = fd.Sequential([fd.Dense(3)], (4,), seed=1)
    state = inner.state_dict()
    outer = fd.Sequential([inner, fd.Dense(2)], seed=2)
    assert_same_bits(outer.state_dict()["0.0.weight"], state["0.weight"])
    with pytest.raises(ArgumentTypeError, match=r"`0\.0\.weight` must be of the network's dtype \(float64\), got float32"):
        fd.Sequential([inner, fd.Dense(2)], dtype="float64")
    assert inner.dtype == np.float32
    assert inner(X).dtype == np.float32


def test_asking_a_layer_does_not_renumber_what_its_network_numbered() -> None:
    asked, untouched = small(), small()
    asked.layers[3].parameters()
    asked.layers[1](X)
    for name, value in untouched.state_dict().items():
        assert_same_bits(asked.state_dict()[name], value)
    assert [p.name for p in asked.layers[3].parameters()] == ["weight", "bias"]
    assert [p.name for p in asked.parameters()][2:] == ["3.weight", "3.bias"]


def test_the_same_layer_in_two_networks_shares_its_parameters() -> None:
    shared = fd.Dense(3)
    one, two = fd.Sequential([shared], (4,), seed=1), fd.Sequential([fd.Dropout(0.5), shared, fd.Dense(1)], (4,), seed=2)
    assert one.parameters()[0] is two.parameters()[0]
    assert_same_bits(one.state_dict()["0.weight"], fd.Sequential([fd.Dense(3)], (4,), seed=1).state_dict()["0.weight"])


# Steps, pieces, outstanding passes


def test_only_training_without_a_step_counts() -> None:
    net, other = small(), small()
    for step in range(3):
        y = net(X, training=True)
        assert_same_bits(y, other.forward(X, True, step=step)[0])
        net(X)
        net.forward(X, False)
    assert (net.step_count, other.step_count) == (3, 0)
    net.step_count = 1
    assert_same_bits(net.forward(X, True)[0], other.forward(X, True, step=1)[0])


@given(st.lists(st.integers(0, 6), max_size=3), st.integers(0, 3))
def test_pieces_of_a_batch(cuts: list[int], step: int) -> None:
    whole, pieces = (small(dtype="float64") for _ in range(2))
    x, dy = X.astype(np.float64), DY.astype(np.float64)
    y, backward = whole.forward(x, True, step)
    dx = backward(dy, input_gradient=True)
    bounds = [0, *sorted(cuts), 6]
    for first, last in itertools.pairwise(bounds):
        part, part_backward = pieces.forward(x[first:last], True, step, first)
        if default_backend().name == "cpu":  # the reference's products are only the same to rounding
            assert_same_bits(part, y[first:last])
        assert_near(part, y[first:last], 1e-13)
        assert_near(part_backward(dy[first:last], input_gradient=True), dx[first:last], 1e-13)
    for a, b in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert_near(a.grad, b.grad, 1e-12)


def test_outstanding_passes_in_any_order_and_stale_ones() -> None:
    net, single = small(), small()
    passes = [net.forward(X * k, True, step=k) for k in (1, 2, 3)]
    for k in (2, 1, 3):
        passes[k - 1][1](DY)
        single.forward(X * k, True, step=k)[1](DY)
    for a, b in zip(net.parameters(), single.parameters(), strict=True):
        assert_same_bits(a.grad, b.grad)
    net.zero_grad()
    assert not any(p.grad.any() for p in net.parameters())
    net.load_state_dict({"3.bias": np.ones(2)}, strict=False)
    with pytest.raises(StaleBackwardError, match=r"`3\.bias` was changed between this forward pass and its backward pass"):
        passes[0][1](DY)
    assert not any(p.grad.any() for p in net.parameters())


def test_many_threads_with_steps_given() -> None:
    net = small()
    wanted = [(net.forward(X, True, step)[0], net.forward(X, True, step)[1](DY, input_gradient=True)) for step in range(8)]
    for parameter in net.parameters():
        parameter.trainable = False
    results: dict[int, Any] = {}

    def work(step: int) -> None:
        for _ in range(20):
            y, backward = net.forward(X, True, step)
            results[step] = (y, backward(DY, input_gradient=True))

    threads = [threading.Thread(target=work, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in range(8):
        for got, exact in zip(results[step], wanted[step], strict=True):
            assert_same_bits(got, exact)
    assert net.step_count == 0


# Backward


def test_backward_returns_dx_only_if_asked() -> None:
    net = small()
    assert net.forward(X, True)[1](DY) is None
    dx = net.forward(X, True)[1](DY, input_gradient=True)
    assert (dx.shape, dx.dtype) == (X.shape, np.float32)
    assert_not_vacuous(dx, 0.3)


def test_frozen_parameters_get_no_gradient_and_nothing_before_the_first_trainable_one_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[bool, bool, bool]] = []
    backend = default_backend()
    original = type(backend).dense_backward

    def recorded(self: Any, *arguments: Any, **named: Any) -> Any:
        want_dx, dweight, dbias = arguments[8:11]
        asked.append((want_dx, dweight is not None, dbias is not None))
        return original(self, *arguments, **named)

    monkeypatch.setattr(type(backend), "dense_backward", recorded)
    net, free = (fd.Sequential([fd.Dense(4), fd.Dropout(0.5), fd.Dense(4), fd.Dense(2)], (4,), seed=1) for _ in range(2))
    free.forward(X, True, 0)[1](DY)
    assert asked == [(True, True, True), (True, True, True), (False, True, True)]
    asked.clear()
    for i in (0, 1, 3):
        net.parameters()[i].trainable = False
    net.forward(X, True, 0)[1](DY)
    assert asked == [(True, True, True), (False, True, False)]
    assert [bool(p.grad.any()) for p in net.parameters()] == [False, False, True, False, True, True]
    assert_same_bits(net.parameters()[2].grad, free.parameters()[2].grad)
    asked.clear()
    for p in net.parameters():
        p.trainable = False
    assert net.forward(X, True, 0)[1](DY) is None
    assert asked == []


def test_the_backward_pass_ends_at_the_first_trainable_layer_inside_a_residual() -> None:
    net, plain = (
        fd.Sequential([*first, fd.Residual([fd.Dense(4), fd.Dense(4)])], (4,), seed=1) for first in ([fd.Flatten()], [])
    )
    for each in (net, plain):
        assert each.forward(X, True)[1](X) is None
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        assert_same_bits(a.grad, b.grad)
        assert_not_vacuous(a.grad)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4)])
def test_empty_and_single_rows(shape: tuple[int, ...]) -> None:
    net = small()
    x = random_array(1, shape)
    y, backward = net.forward(x, True)
    assert y.shape == (shape[0], 2)
    assert backward(y, input_gradient=True).shape == shape
    assert net(x).shape == (shape[0], 2)


def test_clip_grads() -> None:
    net = small()
    net.forward(X, True)[1](DY)
    net.parameters()[3].trainable = False
    grads = [p.grad.copy() for p in net.parameters()]
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads[:3]))
    assert net.clip_grads(2 * norm) == pytest.approx(norm, rel=1e-12)
    for p, g in zip(net.parameters(), grads, strict=True):
        assert_same_bits(p.grad, g)
    assert net.clip_grads(norm / 4) == pytest.approx(norm, rel=1e-12)
    for p, g in list(zip(net.parameters(), grads, strict=True))[:3]:
        np.testing.assert_allclose(p.grad, g / 4, rtol=1e-6)
    assert_same_bits(net.parameters()[3].grad, grads[3])
    assert net.clip_grads(1e9) == pytest.approx(norm / 4, rel=1e-6)
    net.parameters()[0].grad[0, 0] = np.inf
    assert net.clip_grads(1.0) == math.inf
    assert_near(net.parameters()[1].grad, grads[1] / 4, 1e-6)


# Building


def test_a_network_without_input_shape_is_built_by_its_first_call() -> None:
    net = small(input_shape=None)
    net.zero_grad()
    for call in (net.parameters, net.state_dict, net.summary, lambda: net.load_state_dict({})):
        with pytest.raises(StateError, match="this Sequential has no parameters yet: give `input_shape`, or call it first"):
            call()
    with pytest.raises(ArgumentTypeError, match="`x` must be a float32 or float64 array, got int64"):
        net(np.ones((2, 4), int))
    assert net.input_shape is None
    assert_same_bits(net(X), small()(X))
    assert net.input_shape == (4,)
    with pytest.raises(ArgumentValueError, match=r"`x` must be of shape \(rows, ..., 4\) for layer 'dense', got \(rows, 5\)"):
        net(np.ones((2, 5), np.float32))


def test_a_first_call_that_fails_builds_nothing() -> None:
    net = fd.Sequential([fd.Dense(3), fd.Residual([fd.Dense(4)])])
    with pytest.raises(ArgumentValueError, match="keep it in a Residual"):
        net(X)
    assert net.layers[0].weight is None
    assert net.input_shape is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: fd.Sequential([fd.Dropout(0.3, input_shape=(4,)), fd.Dense(5, "tanh"), fd.Dropout(0.5), fd.Dense(2)], seed=3),
        lambda: fd.Sequential(
            [fd.Sequential([fd.Dropout(0.3, input_shape=(4,)), fd.Dense(5, "tanh"), fd.Dropout(0.5)]), fd.Dense(2)], seed=3
        ),
        lambda: small(input_shape=[4]),
        lambda: small(input_shape=4),
        lambda: small(input_shape=np.int64(4)),
    ],
)
def test_where_the_input_shape_may_come_from(make: Callable[[], fd.Sequential]) -> None:
    net = make()
    assert net.input_shape == (4,)
    assert len(net.parameters()) == 4
    assert_same_bits(net.forward(X, True, 0)[0], small().forward(X, True, 0)[0])
    with pytest.raises(ArgumentValueError, match=r"`x` must be of shape \(rows, 4\) for layer '\w+', got \(rows, 1, 4\)"):
        net(X[:, None])


def test_float64_networks_and_conversion_of_input() -> None:
    single, double = small(), small(dtype=np.float64)
    assert double(X).dtype == np.float64
    assert_near(double(X), single(X), 1e-6)
    assert_same_bits(single(X.astype(np.float64)), single(X))
    assert_same_bits(double(X.astype(np.float64)), double(X))
    assert all(p.value.dtype == p.grad.dtype == np.float64 for p in double.parameters())


# States


def test_state_dict_is_a_copy_and_can_be_loaded() -> None:
    net, other = small(), small(seed=9)
    state = net.state_dict()
    assert list(state) == ["1.weight", "1.bias", "3.weight", "3.bias"] == [p.name for p in net.parameters()]
    state["1.weight"][...] = 7
    assert not (net.parameters()[0].value == 7).any()
    other.load_state_dict(net.state_dict())
    assert_same_bits(other(X), net(X))
    other.load_state_dict({name: value.astype(np.float64).tolist() for name, value in net.state_dict().items()})
    assert_same_bits(other(X), net(X))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"9.weight": np.ones(1)},
            ArgumentValueError,
            "`d` must be a state of this network, got missing [] and unknown ['9.weight']",
        ),
        ({"1.bias": None, "3.weight": ...}, ArgumentValueError, "got missing ['3.weight'] and unknown []"),
        ({"3.bias": np.ones(3)}, ArgumentValueError, "`3.bias` must be of shape (2,), got (3,)"),
        ({"3.bias": np.ones(2, int)}, ArgumentTypeError, "`3.bias` must be a float32 or float64 array, got int64"),
    ],
)
def test_a_bad_state_changes_nothing(change: dict[str, Any], error: type[Exception], text: str) -> None:
    net = small()
    before = net.state_dict()
    state = {name: value + 1 for name, value in before.items()} | change
    with pytest.raises(error) as caught:
        net.load_state_dict({name: value for name, value in state.items() if value is not ...})
    assert text in str(caught.value)
    for name, value in net.state_dict().items():
        assert_same_bits(value, before[name])
    net.forward(X, True)[1](DY)


def test_loading_leniently() -> None:
    net = small()
    before = net.state_dict()
    net.load_state_dict({"1.bias": np.ones(5), "unknown": None}, strict=False)
    assert net.state_dict()["1.bias"].all()
    assert_same_bits(net.state_dict()["3.weight"], before["3.weight"])
    with pytest.raises(ArgumentTypeError, match="`d` must be a dict of arrays, got list"):
        net.load_state_dict([])
    with pytest.raises(ArgumentTypeError, match="`strict` must be True or False, got int"):
        net.load_state_dict(before, strict=1)


# Descriptions


def everything() -> fd.Sequential:
    return fd.Sequential(
        [
            fd.Flatten(input_shape=(2, 3)),
            fd.Dropout(0.2, (None, None), seed=5, shared_rows=2, stream=8, mode="downscale_in_infer"),
            fd.Dense(
                6,
                "relu",
                True,
                "he_normal",
                fd.init.Constant(0.5),
                "l2",
                regularizers.L1L2(0.1, 0.2),
                fd.MaxNorm(3.0),
                "non_neg",
                name="first",
            ),
            fd.Residual([fd.Dense(6, use_bias=False), fd.Activation("gelu"), fd.Dropout(0.5, fixed_count=True)]),
            fd.Sequential([fd.Dropout(0.5, shared_rows="batch"), fd.Dense(3)], seed=2**64 - 1),
            fd.Activation("softmax"),
        ],
        seed=2**63 + 1,
    )


def test_a_description_makes_the_same_network() -> None:
    net = everything()
    net.parameters()[1].trainable = False
    config = json.loads(json.dumps(net.get_config()))
    again = fd.Sequential.from_config(config)
    assert again.get_config() == net.get_config()
    x = random_array(1, (4, 2, 3))
    assert_same_bits(again.forward(x, True)[0], net.forward(x, True)[0])
    assert_same_bits(again(x), net(x))
    assert [p.trainable for p in again.parameters()] == [p.trainable for p in net.parameters()]
    assert again.penalty() == net.penalty() > 0
    assert again.parameters()[0].constraint.max_value == 3.0
    assert again.layers[2].name == "first"


def test_a_network_built_by_a_call_is_described_as_built() -> None:
    net = small(input_shape=None)
    assert net.get_config()["built_shape"] is None
    net(X)
    again = fd.Sequential.from_config(net.get_config())
    assert len(again.parameters()) == 4
    assert again.get_config()["input_shape"] is None


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"class": "Dense"}, ArgumentValueError, "`config` must be a description of a Dense"),
        ({"class": "Dropout", "layers": ...}, ArgumentValueError, "`config` must be a description of a Dropout"),
        ({"class": "os.system"}, ArgumentValueError, "`config.class` must be one of Activation, AlphaDropout"),
        ({"layers": 3}, ArgumentTypeError, "`layers` must be a sequence of layers of fastdrop, got int"),
        ({"layers": [3]}, ArgumentTypeError, "`config` must be a dict, got int"),
        ({"layers": [{"class": "Dense", "units": "3"}]}, ArgumentTypeError, "`units` must be an integer, got str"),
        ({"layers": [{"class": "Dense"}]}, ArgumentValueError, "missing a required argument: 'units'"),
        ({"seed": -1}, ArgumentValueError, "`seed` must be in"),
        ({"dtype": "int8"}, ArgumentTypeError, '`dtype` must be "float32" or "float64", got int8'),
        ({"frozen": ["x"]}, ArgumentValueError, "`config.frozen` must be one of 1.bias, 1.weight"),
        ({"frozen": 5}, ArgumentTypeError, "`config.frozen` must be a list of names, got int"),
        ({"built_shape": [5]}, ArgumentValueError, "`x` must be of shape (rows, 4) for layer 'sequential', got (rows, 5)"),
        ({"layers": [{"class": "Flatten"}], "built_shape": "4"}, ArgumentTypeError, "`input_shape` must be a tuple of integers"),
    ],
)
def test_bad_descriptions(change: dict[str, Any], error: type[Exception], text: str) -> None:
    config = {key: value for key, value in (small().get_config() | change).items() if value is not ...}
    with pytest.raises(error) as caught:
        fd.Sequential.from_config(config)
    assert text in str(caught.value)


def test_other_bad_descriptions() -> None:
    with pytest.raises(ArgumentTypeError, match="`config` must be a dict, got list"):
        fd.Sequential.from_config([])
    with pytest.raises(ArgumentTypeError, match="`config` must be the description of a Sequential, got Flatten"):
        fd.Sequential.from_config({"class": "Flatten"})
    config: dict[str, Any] = {"class": "Flatten"}
    for _ in range(3000):
        config = {"class": "Residual", "layers": [config]}
    with pytest.raises(ArgumentValueError, match="`config` must be a description that is not nested so deeply"):
        fd.Sequential.from_config(config)


def test_summary_prints_and_returns_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    net = small()
    net.parameters()[1].trainable = False
    text = net.summary()
    assert capsys.readouterr().out == text + "\n"
    assert text.endswith("37 parameters (5 frozen), float32, seed 3")
    shown: list[str] = []
    assert net.summary(print_fn=shown.append) == shown[0] == text


def test_a_network_can_be_copied() -> None:
    net = small()
    net.forward(X, True)
    twin = copy.deepcopy(net)
    assert_same_bits(twin.forward(X, True, 1)[0], net.forward(X, True, 1)[0])
    twin.parameters()[0].value = np.zeros((4, 5))
    assert net.parameters()[0].value.any()
    assert twin.step_count == 1


# Conversion


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_conversion_from_the_papers_rule(dtype: str) -> None:
    mode = "downscale_in_infer"
    net = fd.Sequential(
        [
            fd.Dropout(0.2, mode=mode),
            fd.Dense(8, "sigmoid"),
            fd.Dropout(0.5, mode=mode),
            fd.Activation("relu"),
            fd.Dropout(0.3, mode=mode),
            fd.Flatten(),
            fd.Sequential([fd.Dropout(0.5), fd.Dense(6)]),
            fd.Residual([fd.Dropout(0.25, mode=mode, fixed_count=True), fd.Activation("leaky_relu"), fd.Dense(6, "tanh")]),
            fd.Dense(2),
        ],
        (5,),
        seed=4,
        dtype=dtype,
    )
    net.step_count, net.epochs_completed, net.output_kind, net.labels = 7, 2, "logits", ["a", "b"]
    net.parameters()[1].trainable = False
    before = net.state_dict()
    new = net.to_upscale_in_train()
    x = random_array(1, (7, 5), dtype)
    tolerance = 20 * float(np.finfo(dtype).eps)
    assert_near(new(x), net(x), tolerance)
    assert_near(new.forward(x, True, 3)[0], net.forward(x, True, 3)[0], 4 * tolerance)
    assert_not_vacuous(net(x))
    keep = {rate: fd.Mask(rate, fd.Key(0, 0, 0)).keep_prob((1, 1)) for rate in (0.2, 0.5, 0.3)}
    factors = {"1.weight": keep[0.2], "6.1.weight": keep[0.5] * keep[0.3], "7.2.weight": 4 / 6}
    for name, value in new.state_dict().items():
        exact = before[name].astype(np.float64) * factors.get(name, 1.0)
        assert_same_bits(value, exact.astype(dtype))
        assert_same_bits(net.state_dict()[name], before[name])
    assert all(node.layer.mode == "upscale_in_train" for node in new.walk() if isinstance(node.layer, fd.Dropout))
    assert (new.step_count, new.epochs_completed, new.output_kind, new.labels, new.seed) == (7, 2, "logits", ["a", "b"], 4)
    assert [p.trainable for p in new.parameters()] == [p.trainable for p in net.parameters()]
    assert new.to_upscale_in_train().get_config() == new.get_config()


def paper(rate: float = 0.5) -> fd.Dropout:
    return fd.Dropout(rate, mode="downscale_in_infer")


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (lambda: [paper(), fd.Activation("tanh"), fd.Dense(2)], "`layers.1` must be positively homogeneous to stand between the"),
        (
            lambda: [fd.Dense(3), paper(), fd.Residual([fd.Dense(3)]), fd.Dense(2)],
            "Dropout at 1 and the next Dense or Conv2D, got residual (Residual)",
        ),
        (
            lambda: [fd.Residual([fd.Dense(4), paper()]), fd.Dense(2)],
            "`layers.0.1` must be followed by a Dense or Conv2D, whose weight takes",
        ),
        (
            lambda: [fd.Dense(2), paper()],
            "`layers.1` must be followed by a Dense or Conv2D, whose weight takes its factor, got a Dropout at the end",
        ),
    ],
)
def test_conversion_errors_name_the_layer(layers: Callable[[], list[AbstractLayer]], text: str) -> None:
    net = fd.Sequential(layers(), (4,), seed=0)
    with pytest.raises(ArgumentValueError) as caught:
        net.to_upscale_in_train()
    assert text in str(caught.value)


def test_conversion_through_noise_and_into_a_dropped_weight() -> None:
    """In inference and in training, where GaussianDropout and DropBlock2D have the same bits but for the factor."""
    layers = [paper(0.5), fd.GaussianDropout(0.3), fd.Flatten(), fd.DropConnect(3, 0.2)]
    blocks = [fd.Activation("relu"), paper(0.3), fd.DropBlock2D(0.3, 2), fd.Flatten(), fd.Dense(3)]
    for chain, shape in ((layers, (4,)), (blocks, (4, 4, 2))):
        net = fd.Sequential(chain, shape, seed=0)
        new, x = net.to_upscale_in_train(), random_array(1, (6, *shape))
        assert_near(new(x), net(x), 1e-6)
        assert_near(new.forward(x, True, 3)[0], net.forward(x, True, 3)[0], 1e-5)


def test_conversion_needs_no_layers_where_nothing_is_scaled() -> None:
    net = fd.Sequential([paper(0.0), fd.Activation("tanh"), fd.Dense(2), fd.Dropout(0.5)], (4,), seed=0)
    assert_same_bits(net.to_upscale_in_train()(X), net(X))
    with pytest.raises(StateError, match="this Sequential has no parameters yet"):
        small(input_shape=None).to_upscale_in_train()
    for call in (fd.Sequential([paper()]).to_upscale_in_train, fd.Sequential([paper()]).summary):
        with pytest.raises(StateError, match="this Sequential has no input shape yet: give `input_shape`, or call it first"):
            call()


# Constructor and methods


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fd.Sequential([]), ArgumentValueError, "`layers` must be a sequence of layers of fastdrop, got none"),
        (
            lambda: fd.Sequential([fd.Dense]),
            ArgumentTypeError,
            "`layers` must be a sequence of layers of fastdrop, got ABCMeta at 0",
        ),
        (lambda: small(seed=1.5), ArgumentTypeError, "`seed` must be an integer, got float"),
        (lambda: small(seed=2**64), ArgumentValueError, "`seed` must be in [0, 18446744073709551615], got 18446744073709551616"),
        (lambda: small(dtype="float16"), ArgumentTypeError, '`dtype` must be "float32" or "float64", got float16'),
        (lambda: small(dtype="nonsense"), ArgumentTypeError, '`dtype` must be "float32" or "float64", got \'nonsense\''),
        (lambda: small(input_shape=(4, -1)), ArgumentValueError, "`input_shape` must be at least 0, got -1"),
        (lambda: small(input_shape="4"), ArgumentTypeError, "`input_shape` must be a tuple of integers, got str"),
        (lambda: small(input_shape=(0,)), ArgumentValueError, "fan_in at least 1, got (0,)"),
        (lambda: small()(X[:, :3]), ArgumentValueError, "`x` must be of shape (rows, 4) for layer 'sequential', got (rows, 3)"),
        (lambda: small()(X[0]), ArgumentValueError, "`x` must be of shape (rows, 4) for layer 'sequential', got (rows,)"),
        (lambda: small()(X > 0), ArgumentTypeError, "`x` must be a float32 or float64 array, got bool"),
        (lambda: small().forward(X), TypeError, "missing 1 required positional argument: 'training'"),
        (lambda: small().forward(X, "yes"), ArgumentTypeError, "`training` must be True or False, got str"),
        (lambda: small().forward(X, True, 2**32), ArgumentValueError, "`step` must be in [0, 4294967295], got 4294967296"),
        (lambda: small().forward(X, True, 1.0), ArgumentTypeError, "`step` must be an integer, got float"),
        (lambda: small().forward(X, True, 0, 2**58), ArgumentValueError, "`row_offset` must be in [0,"),
        (lambda: small().forward(X, True)[1](DY[:, :1]), ArgumentValueError, "`dy` must be of shape (6, 2), got (6, 1)"),
        (lambda: small().clip_grads(0), ArgumentValueError, "`max_norm` must be in (0, inf), got 0.0"),
    ],
)
def test_error_texts(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "layers",
    [
        lambda d: [d, fd.Dropout(0.5), d],
        lambda d: [fd.Sequential([d]), d],
        lambda d: [fd.Residual([fd.Sequential([fd.Flatten(), d])]), fd.Residual([d])],
    ],
)
def test_the_same_layer_in_two_places_is_an_error(layers: Callable[[AbstractLayer], list[AbstractLayer]]) -> None:
    with pytest.raises(ArgumentValueError, match="`layers` must be different objects, got the same Dense again at "):
        fd.Sequential(layers(fd.Dense(3)))


def test_training_and_inference_are_methods() -> None:
    x = random_array(1, (60, 4))
    labels = (x[:, 0] > 0).astype(np.int64)
    net = small()
    history = net.fit(x, labels, epochs=3, optimizer=fd.optim.SGD(0.1), progress=False)
    assert len(history.history["loss"]) == 3
    assert (net.output_kind, net.epochs_completed, net.step_count) == ("logits", 3, 6)
    assert set(net.evaluate(x, labels)) == {"loss", "accuracy"}
    assert_same_bits(net.predict(x), net(x))
    assert_near(net.predict_proba(x).sum(axis=1), np.ones(60), 1e-6)
    net.train_on_batch(x, labels, optimizer=fd.optim.SGD(0.1))
    assert net.step_count == 7
    assert not any(p.grad.any() for p in net.parameters())


def test_saved_networks_come_back(tmp_path: Any) -> None:
    net = everything()
    net.save(tmp_path / "net.safetensors")
    again = fd.load(tmp_path / "net.safetensors")
    x = random_array(1, (4, 2, 3))
    assert_same_bits(again(x), net(x))
    assert_same_bits(again.forward(x, True, 3)[0], net.forward(x, True, 3)[0])
