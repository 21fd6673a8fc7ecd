"""Losses through the seam: on every backend, against sums written out row by row, and against difference quotients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from assertions import assert_agree, assert_near, assert_not_vacuous, assert_same_bits
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, dtypes, random_array, small_sizes

from fastdrop._types import Array
from fastdrop.backends.base import PROBABILITY_FLOOR, AbstractBackend

Row = list[float]


def _softmax_loss(z: Row, t: Row) -> float:
    top = max(z)
    logsumexp = top + math.log(math.fsum(math.exp(value - top) for value in z))
    return math.fsum(target * (logsumexp - value) for value, target in zip(z, t, strict=True))


def _sigmoid_loss(z: Row, t: Row) -> float:
    return math.fsum(max(v, 0.0) - v * target + math.log1p(math.exp(-abs(v))) for v, target in zip(z, t, strict=True))


def _categorical_loss(p: Row, t: Row) -> float:
    q = [value / math.fsum(p) for value in p]
    return -math.fsum(b * math.log(min(max(a, PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR)) for a, b in zip(q, t, strict=True))


def _squared_loss(p: Row, t: Row) -> float:
    return math.fsum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / len(p)


LOSSES: dict[str, Callable[[Row, Row], float]] = {
    "softmax_cross_entropy": _softmax_loss,
    "sigmoid_cross_entropy": _sigmoid_loss,
    "categorical_cross_entropy": _categorical_loss,
    "mean_squared_error": _squared_loss,
}
names = st.sampled_from(sorted(LOSSES))


def _outputs(name: str, seed: int, shape: tuple[int, int], dtype: npt.DTypeLike) -> Array:
    z = random_array(seed, shape)
    return (np.exp(z) if name == "categorical_cross_entropy" else 3 * z).astype(dtype)


def _soft_targets(seed: int, shape: tuple[int, int], dtype: npt.DTypeLike) -> Array:
    t = np.random.default_rng(seed).random(shape)
    return (t / t.sum(axis=1, keepdims=True)).astype(dtype)


def _total(name: str, outputs: Array, targets: Array, weights: Array | None, normalizer: float) -> float:
    rows = [LOSSES[name](z, t) for z, t in zip(outputs.tolist(), targets.tolist(), strict=True)]
    return (
        math.fsum(w * row for w, row in zip(np.ones(len(rows)) if weights is None else weights, rows, strict=True)) / normalizer
    )


def _numerical_gradient(name: str, outputs: Array, targets: Array, weights: Array | None, normalizer: float) -> Array:
    """Central differences in binary64, element by element."""
    gradient = np.empty(outputs.shape)
    for index in np.ndindex(outputs.shape):
        h = 1e-5 * max(1.0, abs(outputs[index]))
        up, down = outputs.astype(np.float64), outputs.astype(np.float64)
        up[index] += h
        down[index] -= h
        row = slice(index[0], index[0] + 1)
        w = None if weights is None else weights[row]
        above, below = (_total(name, moved[row], targets[row].astype(np.float64), w, normalizer) for moved in (up, down))
        gradient[index] = (above - below) / (2 * h)
    return gradient


@given(names, st.integers(0, 9), small_sizes, dtypes, st.booleans(), st.integers(0, 2**31))
def test_loss_and_gradient_agree_with_the_definition(
    backend: AbstractBackend,
    reference: AbstractBackend,
    name: str,
    rows: int,
    columns: int,
    dtype: np.dtype,
    weighted: bool,
    seed: int,
) -> None:
    outputs, targets = _outputs(name, seed, (rows, columns), dtype), _soft_targets(seed + 1, (rows, columns), dtype)
    weights = np.random.default_rng(seed + 2).random(rows) * 2 if weighted else None
    normalizer = float(max(rows, 1))
    loss, gradient = getattr(backend, name)(outputs, targets, weights, normalizer)
    assert type(loss) is float
    assert loss == pytest.approx(_total(name, outputs, targets, weights, normalizer), rel=1e-5 if dtype == np.float32 else 1e-12)
    assert gradient.shape == outputs.shape
    wanted = getattr(reference, name)(outputs.astype(np.float64), targets.astype(np.float64), weights, normalizer)[1]
    assert_agree(gradient, wanted.astype(dtype), 32)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative(backend: AbstractBackend, weighted: bool, name: str) -> None:
    outputs, targets = _outputs(name, 1, (4, 5), np.float64), _soft_targets(2, (4, 5), np.float64)
    weights = np.array([0.5, 2.0, 0.0, 1.0]) if weighted else None
    _, gradient = getattr(backend, name)(outputs, targets, weights, 7.0)
    assert_near(gradient, _numerical_gradient(name, outputs, targets, weights, 7.0), 1e-8)
    assert_not_vacuous(gradient)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "sigmoid_cross_entropy", "categorical_cross_entropy"])
def test_class_numbers_are_one_hot_rows(backend: AbstractBackend, name: str, dtype: np.dtype) -> None:
    outputs, labels = _outputs(name, 3, (33, 10), dtype), np.random.default_rng(4).integers(0, 10, 33)
    weights = np.random.default_rng(5).random(33)
    one_hot = np.eye(10, dtype=dtype)[labels]
    for w in (None, weights):
        loss, gradient = getattr(backend, name)(outputs, labels, w, 33.0)
        soft_loss, soft_gradient = getattr(backend, name)(outputs, one_hot, w, 33.0)
        assert loss == pytest.approx(soft_loss, rel=1e-6 if dtype == np.float32 else 1e-14)
        assert_agree(gradient, soft_gradient)


def test_one_column_takes_labels_zero_and_one(backend: AbstractBackend) -> None:
    logits, labels = random_array(6, (9, 1)), np.array([0, 1, 1, 0, 1, 0, 0, 1, 1])
    loss, gradient = backend.sigmoid_cross_entropy(logits, labels, None, 9.0)
    wanted_loss, wanted_gradient = backend.sigmoid_cross_entropy(logits, labels[:, None].astype(np.float32), None, 9.0)
    assert loss == wanted_loss
    assert_same_bits(gradient, wanted_gradient)
    assert (gradient[labels == 1] < 0).all()
    assert (gradient[labels == 0] > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_values(backend: AbstractBackend, dtype: np.dtype) -> None:
    zeros = np.zeros((2, 4), dtype)
    loss, gradient = backend.softmax_cross_entropy(zeros, np.array([0, 3]), None, 2.0)
    assert loss == pytest.approx(math.log(4), rel=1e-7)
    np.testing.assert_array_equal(gradient, np.array([[-3, 1, 1, 1], [1, 1, 1, -3]]) / 8)
    loss, gradient = backend.sigmoid_cross_entropy(zeros, np.ones((2, 4), dtype), None, 2.0)
    assert loss == pytest.approx(4 * math.log(2), rel=1e-7)
    np.testing.assert_array_equal(gradient, np.full((2, 4), -0.25))
    loss, gradient = backend.mean_squared_error(zeros, np.full((2, 4), 2.0, dtype), np.array([1.0, 3.0]), 2.0)
    assert loss == 8.0
    np.testing.assert_array_equal(gradient, np.array([[-0.5] * 4, [-1.5] * 4]))
    loss, gradient = backend.categorical_cross_entropy(np.ones((2, 4), dtype), np.array([1, 1]), None, 2.0)
    assert loss == pytest.approx(math.log(4), rel=1e-7)
    np.testing.assert_allclose(gradient, np.array([[0.125, -0.375, 0.125, 0.125]] * 2), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_large_logits_do_not_overflow(backend: AbstractBackend, size: float, dtype: np.dtype) -> None:
    z = np.array([[size, 0, -size], [-size, 0, size]], dtype)
    loss, gradient = backend.softmax_cross_entropy(z, np.array([0, 0]), None, 1.0)
    assert loss == pytest.approx(2 * float(z[0, 0]), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0], [-1, 0, 1]], atol=1e-6)
    loss, gradient = backend.sigmoid_cross_entropy(z, np.array([[1, 0, 0], [1, 0, 0]], dtype), None, 1.0)
    assert loss == pytest.approx(2 * float(z[0, 0]) + 2 * math.log(2), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0.5, 0], [-1, 0.5, 1]], atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_excluded_class_costs_nothing(backend: AbstractBackend, dtype: np.dtype) -> None:
    """A logit of -inf is a class of probability 0: finite loss and gradient where it is no target."""
    z = np.array([[0, -np.inf, 0]], dtype)
    for labels in (np.array([2]), np.array([[0, 0, 1]], dtype)):
        loss, gradient = backend.softmax_cross_entropy(z, labels, None, 1.0)
        assert loss == pytest.approx(math.log(2), rel=1e-6)
        np.testing.assert_allclose(gradient, [[0.5, 0, -0.5]], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_probabilities_are_clipped_and_normalised(backend: AbstractBackend, dtype: np.dtype) -> None:
    p = np.array([[0, 1, 1], [3, 0, 0]], dtype)
    loss, gradient = backend.categorical_cross_entropy(p, np.array([0, 0]), None, 1.0)
    assert loss == pytest.approx(-math.log(PROBABILITY_FLOOR) - math.log1p(-PROBABILITY_FLOOR), rel=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))
    scaled = [
        backend.categorical_cross_entropy(factor * np.array([[1, 2, 5]], dtype), np.array([1]), None, 1.0) for factor in (1, 4)
    ]
    assert scaled[0][0] == pytest.approx(math.log(4), rel=1e-6)
    assert scaled[1][0] == pytest.approx(scaled[0][0], rel=1e-7)
    np.testing.assert_allclose(scaled[1][1], scaled[0][1] / 4, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_zero_weights_and_empty_batches(backend: AbstractBackend, name: str) -> None:
    outputs, targets = _outputs(name, 8, (6, 3), np.float32), _soft_targets(9, (6, 3), np.float32)
    weights = np.array([1.0, 0, 0, 2.0, 0, 0])
    loss, gradient = getattr(backend, name)(outputs, targets, weights, 6.0)
    kept, kept_gradient = getattr(backend, name)(outputs[[0, 3]], targets[[0, 3]], weights[[0, 3]], 6.0)
    assert loss == pytest.approx(kept, rel=1e-12)
    assert not gradient[weights == 0].any()
    assert_agree(gradient[[0, 3]], kept_gradient)
    loss, gradient = getattr(backend, name)(outputs[:0], targets[:0], None, 1.0)
    assert (loss, gradient.shape) == (0.0, (0, 3))


@pytest.mark.parametrize("rows", [13, 1300])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_parts_of_a_batch_sum_to_the_whole(backend: AbstractBackend, name: str, rows: int) -> None:
    """With the whole batch's normalizer: gradients bit for bit, the loss to rounding of binary64."""
    outputs, targets = _outputs(name, 10, (rows, 7), np.float32), _soft_targets(11, (rows, 7), np.float32)
    loss, gradient = getattr(backend, name)(outputs, targets, None, float(rows))
    parts = [getattr(backend, name)(outputs[a:b], targets[a:b], None, float(rows)) for a, b in ((0, 5), (5, rows))]
    assert sum(part for part, _ in parts) == pytest.approx(loss, rel=1e-14)
    assert_same_bits(np.concatenate([part for _, part in parts]), gradient)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_nan_is_not_hidden(backend: AbstractBackend, name: str) -> None:
    outputs, targets = _outputs(name, 12, (4, 3), np.float32), _soft_targets(13, (4, 3), np.float32)
    outputs[1, 2] = np.nan
    loss, gradient = getattr(backend, name)(outputs, targets, None, 4.0)
    assert math.isnan(loss)
    assert np.isnan(gradient[1, 2])
    assert np.isfinite(gradient[[0, 2, 3]]).all()
