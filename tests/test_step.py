"""A training step: `train_on_batch` has the bits of its parts, whether or not updates are done inside the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import assert_same_bits
from strategies import DTYPES

import fastdrop as fd
from fastdrop import losses, optim
from fastdrop._types import Array
from fastdrop.errors import AllDroppedWarning, ArgumentTypeError, ArgumentValueError, StaleBackwardError
from fastdrop.layers import AbstractLayer, Parameter
from fastdrop.optim import AbstractOptimizer

FEATURES, CLASSES = 6, 5


class Signs(AbstractOptimizer):
    """A rule that no backend knows."""

    def __init__(self) -> None:
        super().__init__(0.01, 0.0, None)

    def _all_slots(self) -> tuple[str, ...]:
        return ()

    def _update(self, value: Array, grad: Array, slots: Any, learning_rate: float, weight_decay: float) -> None:
        value -= np.sign(grad) * value.dtype.type(learning_rate)


class Doubled(optim.SGD):
    """A known optimiser with a step of its own."""

    def step(self, net: Any) -> None:
        super().step(net)
        super().step(net)


class Opposite(optim.SGD):
    """A known optimiser with an update of its own."""

    def _update(self, value: Array, grad: Array, slots: Any, learning_rate: float, weight_decay: float) -> None:
        super()._update(value, -grad, slots, learning_rate, weight_decay)


OPTIMIZERS: dict[str, Callable[[], AbstractOptimizer]] = {
    "sgd": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optim.SGD(lambda step: 0.1 / (step + 1), momentum=0.9, nesterov=True),
    "decay": lambda: optim.SGD(0.1, momentum=0.5, weight_decay=0.1),
    "adam": lambda: optim.Adam(0.01),
    "adamw": lambda: optim.AdamW(0.01, weight_decay=0.1),
}
SEPARATE: dict[str, Callable[[], AbstractOptimizer]] = {
    "clip": lambda: optim.SGD(0.1, momentum=0.9, clip_norm=0.1),
    "own rule": Signs,
    "own step": lambda: Doubled(0.1),
    "own update": lambda: Opposite(0.1),
}


def plain(**dense: Any) -> list[AbstractLayer]:
    return [
        fd.Dropout(0.2),
        fd.Dense(33, activation="relu", **dense),
        fd.Dropout(0.5),
        fd.Dense(17, activation="tanh", **dense),
        fd.Dense(CLASSES),
    ]


def nested(**dense: Any) -> list[AbstractLayer]:
    block = fd.Residual([fd.Dense(FEATURES, activation="gelu", **dense), fd.Dropout(0.3), fd.Dense(FEATURES)])
    return [fd.Sequential([block, fd.Dense(9, activation="softmax")]), fd.Dropout(0.5), fd.Dense(CLASSES, use_bias=False)]


def network(dtype: Any = "float32", layers: Callable[..., list[AbstractLayer]] = plain, **dense: Any) -> fd.Sequential:
    return fd.Sequential(layers(**dense), input_shape=(FEATURES,), seed=4, dtype=dtype)


def batch(rows: int, step: int, dtype: Any = "float32") -> tuple[Array, Array]:
    generator = np.random.default_rng((rows, step))
    return generator.standard_normal((rows, FEATURES)).astype(dtype), generator.integers(0, CLASSES, rows)


def separate_step(net: fd.Sequential, x: Array, labels: Array, optimizer: AbstractOptimizer) -> float:
    logits, backward = net.forward(x, training=True)
    loss, gradient = losses.softmax_cross_entropy(logits, labels)
    backward(gradient)
    optimizer.step(net)
    net.zero_grad()
    return loss


def assert_same_state(one: fd.Sequential, two: fd.Sequential, first: AbstractOptimizer, second: AbstractOptimizer) -> None:
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert_same_bits(a.value, b.value)
    state, wanted = first.state_dict()["state"], second.state_dict()["state"]
    assert state.keys() == wanted.keys()
    for name, slots in state.items():
        assert slots.keys() == wanted[name].keys()
        for slot, array in slots.items():
            assert_same_bits(array, wanted[name][slot])
    assert first.iterations == second.iterations
    assert one.step_count == two.step_count


def with_array(net: fd.Sequential) -> list[str]:
    """Names of the parameters for which an array of the gradient was made."""
    return [parameter.name for parameter in net.parameters() if parameter._grad is not None]


def check(
    make: Callable[[], fd.Sequential],
    make_optimizer: Callable[[], AbstractOptimizer],
    rows: int = 5,
    dtype: Any = "float32",
    arrays: list[str] | None = None,
) -> None:
    """Three steps of both kinds; `arrays` are the parameters whose gradients must be made, by default none."""
    net, other, optimizer, its = make(), make(), make_optimizer(), make_optimizer()
    before = net.state_dict()
    for step in range(3):
        x, labels = batch(rows, step, dtype)
        assert net.train_on_batch(x, labels, optimizer) == separate_step(other, x, labels, its)
        assert_same_state(net, other, optimizer, its)
    assert with_array(net) == (arrays or [])
    assert any((net.state_dict()[name] != array).any() for name, array in before.items())
    for parameter in net.parameters():
        assert_same_bits(parameter.grad, np.zeros(parameter.shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 5, 128, 300])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_inside_the_backward_pass(name: str, rows: int, dtype: np.dtype) -> None:
    check(lambda: network(dtype), OPTIMIZERS[name], rows, dtype)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_residual_and_nested_networks(name: str) -> None:
    check(lambda: network(layers=nested), OPTIMIZERS[name], 7)


@pytest.mark.parametrize("constraint", ["max_norm", "unit_norm", "non_neg"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_constraints_hold_after_the_update(name: str, constraint: str) -> None:
    check(lambda: network(weight_constraint=constraint, bias_constraint="non_neg"), OPTIMIZERS[name])


def test_the_mask_may_drop_everything() -> None:
    with pytest.warns(AllDroppedWarning):
        check(lambda: network(layers=lambda: [fd.Dense(8), fd.Dropout(1.0), fd.Dense(CLASSES)]), OPTIMIZERS["decay"])


# Where updates need the gradients


@pytest.mark.parametrize("name", SEPARATE)
def test_optimizers_that_need_all_gradients(name: str) -> None:
    check(network, SEPARATE[name], arrays=[parameter.name for parameter in network().parameters()])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_penalties_enter_through_the_gradient(name: str) -> None:
    check(lambda: network(weight_regularizer="l2"), OPTIMIZERS[name], arrays=["1.weight", "3.weight"])


def test_frozen_parameters_have_no_update() -> None:
    def frozen() -> fd.Sequential:
        net = network()
        for i in (0, 3):
            net.parameters()[i].trainable = False
        return net

    check(frozen, OPTIMIZERS["momentum"])
    net, start = frozen(), frozen().state_dict()
    net.train_on_batch(*batch(5, 0), optim.SGD(0.1))
    changed = [name for name, array in net.state_dict().items() if (array != start[name]).any()]
    assert changed == ["1.bias", "3.weight", "4.weight", "4.bias"]


@pytest.mark.parametrize("value", [1.0, -0.0, np.nan])
def test_gradients_that_were_there_take_part(value: float) -> None:
    net, other, optimizer, its = network(), network(), optim.SGD(0.1, 0.9), optim.SGD(0.1, 0.9)
    for each in (net, other):
        gradient = each.parameters()[2].grad
        gradient[-1, -1] = value
        assert each.parameters()[4].grad.any() == np.False_
    x, labels = batch(5, 0)
    assert net.parameters()[2].needs_grad
    assert not net.parameters()[4].needs_grad
    net.train_on_batch(x, labels, optimizer)
    separate_step(other, x, labels, its)
    assert_same_state(net, other, optimizer, its)
    assert with_array(net) == ["3.weight", "4.weight"]
    assert_same_bits(net.parameters()[2].grad, np.zeros(net.parameters()[2].shape, np.float32))
    assert not net.parameters()[2].needs_grad


def test_a_parameter_in_two_layers() -> None:
    def tied() -> fd.Sequential:
        first, second = fd.Dense(FEATURES, activation="tanh"), fd.Dense(FEATURES)
        first.build((FEATURES,))
        second.weight, second.bias = first.weight, first.bias
        return fd.Sequential([first, second, fd.Dense(CLASSES)], input_shape=(FEATURES,), seed=4)

    check(tied, OPTIMIZERS["momentum"], arrays=["1.weight", "1.bias", "1.weight", "1.bias", "2.weight", "2.bias"])


@pytest.mark.parametrize("optimizer", [optim.SGD(0.5, momentum=0.9), optim.SGD(0.5, momentum=0.9, clip_norm=1.0)])
def test_a_parameter_in_two_layers_is_one(optimizer: AbstractOptimizer) -> None:
    """It is updated once by the sum of its gradients, counts once in the norm, and has one penalty."""
    first, second = (fd.Dense(2, use_bias=False, weight_regularizer=fd.regularizers.L2(0.25)) for _ in range(2))
    first.build((2,))
    second.weight = first.weight
    net = fd.Sequential([first, second], input_shape=(2,))
    weight = first.weight
    assert weight is not None
    weight.value[...] = [[1, 0], [0, 1]]
    assert net.penalty() == 0.25 * 2
    x, dy = np.array([[1, 2]], np.float32), np.array([[4, -4]], np.float32)
    _, backward = net.forward(x, training=True)
    wanted = 2 * (x.T @ dy) + 2 * 0.25 * weight.value
    before, norm = weight.value.copy(), float(np.sqrt((wanted**2).sum()))
    optimizer.backward_and_step(net, backward, dy)
    if optimizer.clip_norm:
        wanted /= norm
    np.testing.assert_allclose(weight.value, before - np.float32(0.5) * wanted, rtol=1e-6)
    weight.grad[...] = wanted
    assert net.clip_grads(1e9) == pytest.approx(float(np.sqrt((wanted**2).sum())))


class Scale(AbstractLayer):
    """A layer that knows nothing of updates: one factor for all elements."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = Parameter("factor", np.full(1, 1.5, np.float32))

    @property
    def trainable(self) -> bool:
        return True

    @property
    def own_parameters(self) -> dict[str, Parameter]:
        return {"factor": self.factor}

    def apply(self, x: Array, pass_: Any) -> Any:
        def backward(dy: Array, want_dx: bool, updates: Any) -> Array:
            self.factor.grad += (dy * x).sum()
            return dy * self.factor.value

        return x * self.factor.value, backward


def test_a_layer_that_leaves_its_update() -> None:
    check(lambda: network(layers=lambda: [fd.Dense(9), Scale(), fd.Dense(CLASSES)]), OPTIMIZERS["adam"], arrays=["1.factor"])


# What counts as a change, and what changes nothing


def test_updates_inside_the_backward_pass_make_other_passes_stale() -> None:
    net = network()
    x, labels = batch(5, 0)
    _, backward = net.forward(x, True)
    versions = [parameter.version for parameter in net.parameters()]
    net.train_on_batch(x, labels, optim.SGD(0.1))
    assert all(p.version == version + 1 for p, version in zip(net.parameters(), versions, strict=True))
    with pytest.raises(StaleBackwardError):
        backward(np.ones((5, CLASSES), np.float32))


@pytest.mark.parametrize(
    ("break_it", "kind", "text"),
    [
        (lambda o: setattr(o, "_learning_rate", lambda step: -1.0), ArgumentValueError, "`learning_rate` must be in [0, inf)"),
        (
            lambda o: o.state["4.bias"].update(velocity=np.zeros(3, np.float32)),
            ArgumentValueError,
            "`velocity of 4.bias` must be of shape (5,)",
        ),
        (lambda o: o.state["4.bias"].update(velocity=[0.0]), ArgumentTypeError, "`velocity of 4.bias` must be an array"),
    ],
)
def test_an_optimizer_that_does_not_fit_changes_nothing(break_it: Any, kind: type[Exception], text: str) -> None:
    net, optimizer = network(), optim.SGD(0.1, momentum=0.9)
    net.train_on_batch(*batch(5, 0), optimizer)
    net.parameters()[0].grad[0, 0] = 3.0
    break_it(optimizer)
    before, state = net.state_dict(), optimizer.state["1.weight"]["velocity"].copy()
    with pytest.raises(kind) as caught:
        net.train_on_batch(*batch(5, 1), optimizer)
    assert text in str(caught.value)
    assert (net.step_count, optimizer.iterations) == (1, 1)
    assert net.parameters()[0].grad[0, 0] == 3.0
    assert_same_bits(optimizer.state["1.weight"]["velocity"], state)
    for name, array in net.state_dict().items():
        assert_same_bits(array, before[name])


def test_the_learning_rate_is_asked_for_once_a_step() -> None:
    asked = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.1

    net, optimizer = network(), optim.SGD(schedule)
    for step in range(3):
        net.train_on_batch(*batch(5, step), optimizer)
    assert asked == [0, 1, 2]


def test_fit_makes_no_gradients() -> None:
    net = network()
    x, labels = batch(22, 0)
    net.fit(x, labels, epochs=2, batch_size=8, progress=False)
    assert with_array(net) == []
