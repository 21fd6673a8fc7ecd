"""The losses as users call them: forms of labels, weights, normalizers, gradients, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, random_array

from fastdrop import losses
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FastdropError

Array = npt.NDArray[Any]

CLASSES = 4


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def naive(name: str, outputs: Array, targets: Array) -> Array:
    """Loss of each row in binary64, from the definition."""
    z, t = outputs.astype(np.float64), targets.astype(np.float64)
    if name == "softmax_cross_entropy":
        return -(t * np.log(softmax(z))).sum(-1)
    if name == "sigmoid_cross_entropy":
        p = 1 / (1 + np.exp(-z))
        return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(-1)
    if name == "categorical_cross_entropy":
        return -(t * np.log(z / z.sum(-1, keepdims=True))).sum(-1)
    return ((z - t) ** 2).mean(-1)


def make_outputs(name: str, seed: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    z = random_array(seed, shape, dtype)
    return np.exp(z) if name == "categorical_cross_entropy" else z


def make_targets(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).random(shape)


NAMES = sorted(losses.LOSSES)


@pytest.mark.parametrize("name", NAMES)
@given(
    rows=st.integers(1, 6),
    middle=st.sampled_from([(), (3,), (2, 2)]),
    columns=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    weighted=st.booleans(),
    normalizer=st.none() | st.floats(0.5, 100.0),
    seed=st.integers(0, 1000),
)
def test_value_is_the_weighted_sum_of_the_definition(
    name: str,
    rows: int,
    middle: tuple[int, ...],
    columns: int,
    dtype: np.dtype[Any],
    weighted: bool,
    normalizer: float | None,
    seed: int,
) -> None:
    shape = (rows, *middle, columns)
    outputs, targets = make_outputs(name, seed, shape, dtype), make_targets(seed + 1, shape)
    weights = np.random.default_rng(seed).random(shape[:-1]) if weighted else None
    value, gradient = losses.FUNCTIONS[name](outputs, targets, weights, normalizer)
    each = naive(name, outputs, targets.astype(dtype))
    expected = (each if weights is None else each * weights).sum() / (normalizer or math.prod(shape[:-1]))
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-5 if dtype == np.float32 else 1e-12, abs=1e-6)
    assert gradient.shape == shape
    assert gradient.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_along_a_random_direction(name: str, weighted: bool) -> None:
    shape, h = (5, 3, CLASSES), 1e-6
    outputs, targets = make_outputs(name, 1, shape, np.float64), make_targets(2, shape)
    weights = np.array([0.5, 1.0, 2.0, 0.0, 3.0]) if weighted else None
    direction = random_array(3, shape, np.float64)
    loss = losses.FUNCTIONS[name]
    _, gradient = loss(outputs, targets, weights)
    slope = (loss(outputs + h * direction, targets, weights)[0] - loss(outputs - h * direction, targets, weights)[0]) / (2 * h)
    assert abs(slope) > 1e-3
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("middle", [(), (3,)])
def test_class_numbers_equal_one_hot(name: str, middle: tuple[int, ...]) -> None:
    outputs = make_outputs(name, 1, (6, *middle, CLASSES), np.float32)
    numbers = np.random.default_rng(0).integers(0, CLASSES, (6, *middle))
    loss = losses.FUNCTIONS[name]
    expected, gradient = loss(outputs, np.eye(CLASSES)[numbers])
    forms = [numbers, numbers.astype(np.uint8), numbers.tolist(), numbers[..., None], np.eye(CLASSES, dtype=bool)[numbers]]
    for labels in forms:
        value, dz = loss(outputs, labels)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(dz, gradient, rtol=1e-6, atol=1e-7)


def test_sigmoid_of_one_column_takes_targets_in_both_shapes() -> None:
    z = random_array(0, (5, 1))
    bits = np.array([0, 1, 1, 0, 1])
    expected = losses.sigmoid_cross_entropy(z, bits[:, None].astype(np.float32))
    for labels in (bits, bits.astype(bool), bits.astype(np.float64), bits[:, None]):
        value, gradient = losses.sigmoid_cross_entropy(z, labels)
        assert value == pytest.approx(expected[0])
        np.testing.assert_allclose(gradient, expected[1], rtol=1e-6)
    assert losses.sigmoid_cross_entropy(z, [0.25] * 5)[0] > 0


def test_squared_error_of_one_column_takes_labels_without_it() -> None:
    p = random_array(0, (5, 1))
    assert losses.mean_squared_error(p, [1, 2, 3, 4, 5])[0] == losses.mean_squared_error(p, [[1], [2], [3], [4], [5]])[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_memory_layout_does_not_matter(name: str, layout: str) -> None:
    outputs, targets = make_outputs(name, 1, (6, CLASSES), np.float32), make_targets(2, (6, CLASSES))
    value, gradient = losses.FUNCTIONS[name](outputs, targets)
    other, other_gradient = losses.FUNCTIONS[name](LAYOUTS[layout](outputs), LAYOUTS[layout](targets))
    assert value == other
    np.testing.assert_array_equal(gradient, other_gradient)


@pytest.mark.parametrize("name", NAMES)
def test_micro_batches_add_up_to_the_batch(name: str) -> None:
    outputs, targets = make_outputs(name, 1, (10, CLASSES), np.float64), make_targets(2, (10, CLASSES))
    loss = losses.FUNCTIONS[name]
    value, gradient = loss(outputs, targets)
    parts = [loss(outputs[rows], targets[rows], normalizer=10) for rows in (slice(0, 3), slice(3, 4), slice(4, 10))]
    assert sum(part[0] for part in parts) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(np.concatenate([part[1] for part in parts]), gradient, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_rows_spread_over_middle_axes(name: str) -> None:
    outputs, targets = make_outputs(name, 1, (4, 3, CLASSES), np.float64), make_targets(2, (4, 3, CLASSES))
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    loss = losses.FUNCTIONS[name]
    spread = loss(outputs, targets, np.repeat(weights[:, None], 3, axis=1))
    value, gradient = loss(outputs, targets, weights)
    assert value == spread[0]
    np.testing.assert_array_equal(gradient, spread[1])
    assert not gradient[0].any()
    assert gradient[1:].any()


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_give_zero(name: str) -> None:
    value, gradient = losses.FUNCTIONS[name](np.empty((0, CLASSES), np.float32), np.empty((0, CLASSES)))
    assert value == 0.0
    assert gradient.shape == (0, CLASSES)


def test_inputs_are_not_written() -> None:
    outputs, targets = random_array(0, (3, CLASSES)), make_targets(1, (3, CLASSES)).astype(np.float32)
    before = outputs.copy(), targets.copy()
    for name in NAMES:
        losses.FUNCTIONS[name](np.abs(outputs), targets)
        losses.FUNCTIONS[name](outputs, targets)
    np.testing.assert_array_equal(outputs, before[0])
    np.testing.assert_array_equal(targets, before[1])


class TestSmooth:
    def test_mixes_with_the_uniform_distribution(self) -> None:
        np.testing.assert_allclose(losses.smooth([2, 0], 0.3, 3), [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], rtol=1e-15)

    def test_one_hot_and_class_numbers_agree(self) -> None:
        numbers = np.array([1, 0, 3])
        expected = losses.smooth(numbers, 0.1, CLASSES)
        np.testing.assert_array_equal(losses.smooth(np.eye(CLASSES)[numbers], 0.1, CLASSES), expected)
        np.testing.assert_array_equal(losses.smooth(numbers[:, None], 0.1, CLASSES), expected)

    @given(amount=st.floats(0.0, 1.0), classes=st.integers(1, 20))
    def test_rows_sum_to_one(self, amount: float, classes: int) -> None:
        targets = losses.smooth(np.arange(classes), amount, classes)
        assert targets.shape == (classes, classes)
        np.testing.assert_allclose(targets.sum(-1), 1.0, rtol=1e-14)
        assert losses.softmax_cross_entropy(np.zeros((classes, classes)), targets)[0] == pytest.approx(math.log(classes))


class TestGet:
    def test_names_and_functions_are_the_same_loss(self) -> None:
        for name, function in losses.FUNCTIONS.items():
            assert losses.get(name) is losses.get(function) is losses.LOSSES[name]

    def test_output_kinds(self) -> None:
        kinds = {name: loss.output_kind for name, loss in losses.LOSSES.items()}
        assert kinds == {
            "softmax_cross_entropy": "logits",
            "sigmoid_cross_entropy": "sigmoid_logits",
            "categorical_cross_entropy": "probabilities",
            "mean_squared_error": "values",
        }
        for name, kind in kinds.items():
            assert losses.for_output_kind(kind).name == name
        assert losses.for_output_kind(None).name == "softmax_cross_entropy"

    def test_a_function_of_the_user(self) -> None:
        def halved(outputs: Array, labels: Array, sample_weight: Any = None, normalizer: Any = None) -> tuple[float, Array]:
            assert (sample_weight, normalizer) == (None, 2.0)
            return float((outputs - labels).sum()) / normalizer, np.ones_like(outputs) / normalizer

        loss = losses.get(halved)
        assert (loss.name, loss.output_kind) == ("halved", None)
        value, gradient = loss.compute(np.ones((2, 1)), np.zeros((2, 1)), None, 2.0)
        assert value == 1.0
        np.testing.assert_array_equal(gradient, [[0.5], [0.5]])

    def test_a_namesake_of_the_user_is_not_taken_for_a_loss_of_ours(self) -> None:
        def mean_squared_error(outputs: Array, *_: Any, **__: Any) -> tuple[float, Array]:
            return 7.0, outputs

        assert losses.get(mean_squared_error).compute(np.ones((1, 1)), np.ones((1, 1)), None, None)[0] == 7.0

    def test_a_wrong_gradient_is_an_error(self) -> None:
        loss = losses.get(lambda outputs, *_, **__: (1.0, outputs[0]))
        with pytest.raises(ArgumentValueError, match=r"`loss gradient` must be of shape \(2, 3\), got \(3,\)"):
            loss.compute(np.ones((2, 3)), np.ones((2, 3)), None, None)


Z = np.zeros((3, CLASSES), np.float32)
SCE, BCE, CCE, MSE = (
    losses.softmax_cross_entropy,
    losses.sigmoid_cross_entropy,
    losses.categorical_cross_entropy,
    losses.mean_squared_error,
)
NAN = float("nan")

BAD: list[tuple[Callable[[], Any], type[FastdropError], str]] = [
    (lambda: SCE(Z, [0, 1, 4]), ArgumentValueError, "`labels` must be class numbers in [0, 3], got 4 at position 2"),
    (lambda: SCE(Z, [0, -1, 4]), ArgumentValueError, "`labels` must be class numbers in [0, 3], got -1 at position 1"),
    (lambda: BCE(Z, [0, 1, 4]), ArgumentValueError, "`labels` must be class numbers in [0, 3], got 4 at position 2"),
    (lambda: CCE(Z, [0, 1, 4]), ArgumentValueError, "`labels` must be class numbers in [0, 3], got 4 at position 2"),
    (lambda: SCE(Z, [0.0, 1.0, 2.0]), ArgumentTypeError, "`labels` must be class numbers (integers) or targets of 4 columns"),
    (lambda: SCE(Z, ["a", "b", "c"]), ArgumentTypeError, "`labels` must be class numbers (integers) or targets of 4 columns"),
    (
        lambda: SCE(Z, [0, 1]),
        ArgumentValueError,
        "`labels` must be of shape (3,) (class numbers) or (3, 4) (targets), got shape (2,)",
    ),
    (lambda: SCE(Z, Z[:, :3]), ArgumentValueError, "`labels` must be of shape (3,) (class numbers) or (3, 4) (targets)"),
    (lambda: BCE(Z, Z[:2]), ArgumentValueError, "`labels` must be of shape (3,) (class numbers) or (3, 4) (targets)"),
    (lambda: SCE(Z, Z - 1), ArgumentValueError, "`labels` must be finite targets >= 0, got -1.0 at position 0"),
    (lambda: SCE(Z, Z + NAN), ArgumentValueError, "`labels` must be finite targets >= 0, got nan at position 0"),
    (lambda: BCE(Z, Z + 1.5), ArgumentValueError, "`labels` must be targets in [0, 1], got 1.5 at position 0"),
    (lambda: BCE(Z[:, :1], [0, 1, 2]), ArgumentValueError, "`labels` must be targets in [0, 1], got 2 at position 2"),
    (lambda: MSE(Z, Z[:, 0]), ArgumentValueError, "`labels` must be of shape (3, 4), got (3,)"),
    (lambda: MSE(Z, Z + math.inf), ArgumentValueError, "`labels` must be finite, got inf at position 0"),
    (lambda: MSE(Z, Z.astype(complex)), ArgumentTypeError, "`labels` must be an array of numbers, got complex128"),
    (lambda: SCE(Z.astype(int), [0, 0, 0]), ArgumentTypeError, "`logits` must be a float32 or float64 array, got int64"),
    (lambda: MSE(Z.astype(np.float16), Z), ArgumentTypeError, "`predictions` must be a float32 or float64 array, got float16"),
    (lambda: CCE(np.float32(1), [0]), ArgumentValueError, "`probabilities` must be an array of at least one axis"),
    (lambda: SCE(Z[:, :0], [0, 0, 0]), ArgumentValueError, "`logits` must be of at least one column"),
    (lambda: SCE(Z, [0, 0, 0], [1.0, 2.0]), ArgumentValueError, "`sample_weight` must be of shape (3,), got (2,)"),
    (lambda: SCE(Z, [0, 0, 0], [1, NAN, 1]), ArgumentValueError, "`sample_weight` must be finite, got nan at position 1"),
    (lambda: SCE(Z, [0, 0, 0], "abc"), ArgumentTypeError, "`sample_weight` must be an array, got str"),
    (lambda: SCE(Z, [0, 0, 0], normalizer=0), ArgumentValueError, "`normalizer` must be in (0, inf), got 0.0"),
    (lambda: SCE(Z, [0, 0, 0], normalizer=NAN), ArgumentValueError, "`normalizer` must be in (0, inf), got nan"),
    (lambda: losses.get("hinge"), ArgumentValueError, "`loss` must be one of categorical_cross_entropy, mean_squared_error"),
    (lambda: losses.get(None), ArgumentTypeError, "`loss` must be one of"),  # type: ignore[arg-type]
    (lambda: losses.smooth([0], 1.5, 2), ArgumentValueError, "`amount` must be in [0, 1], got 1.5"),
    (lambda: losses.smooth([2], 0.5, 2), ArgumentValueError, "`labels` must be class numbers in [0, 1], got 2 at position 0"),
    (lambda: losses.smooth([0], 0.5, 0), ArgumentValueError, "`classes` must be at least 1, got 0"),
    (
        lambda: losses.smooth([[0.5, 1.5]], 0.5, 2),
        ArgumentValueError,
        "`labels` must be targets in [0, 1], got 1.5 at position 1",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_bad_arguments(call: Callable[[], Any], kind: type[FastdropError], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
