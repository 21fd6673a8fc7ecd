"""Prediction: whole or in pieces, probabilities by output kind, nothing drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import inference
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, StateError

X = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)


def network(units: int = 3) -> fd.Sequential:
    layers = [fd.Dropout(0.5), fd.Dense(8, activation="relu"), fd.Dropout(0.5), fd.Dense(units)]
    return fd.Sequential(layers, input_shape=(6,), seed=1)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 49, 50, 1000])
def test_pieces_give_the_bits_of_the_whole(batch_size: int) -> None:
    net = network()
    np.testing.assert_array_equal(inference.predict(net, X, batch_size), inference.predict(net, X))


def test_many_rows_are_cut_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    whole = inference.predict(net, X)
    monkeypatch.setattr(inference, "PREDICTION_ROWS", 20)
    np.testing.assert_array_equal(inference.predict(net, X), whole)


def test_wide_rows_are_cut_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between layers there are never more elements than the bound, unless one row has more; in evaluation, too."""
    net = network()
    whole, measured = inference.predict(net, X), net.evaluate(X, np.zeros(50, int))
    assert net.widest((6,)) == 8
    rows: list[int] = []
    apply = fd.Sequential.apply
    monkeypatch.setattr(fd.Sequential, "apply", lambda net, x, pass_: (rows.append(len(x)), apply(net, x, pass_))[1])
    for elements, most in ((8 * 7 + 1, 7), (7, 1)):
        monkeypatch.setattr(inference, "ELEMENTS_AT_ONCE", elements)
        rows.clear()
        np.testing.assert_array_equal(inference.predict(net, X), whole)
        assert (sum(rows), max(rows)) == (50, most)
        rows.clear()
        assert net.evaluate(X, np.zeros(50, int)) == pytest.approx(measured, rel=1e-5)
        assert (sum(rows), max(rows)) == (50, most)


def test_the_widest_place_may_be_within() -> None:
    inner = fd.Residual([fd.Dense(9), fd.Dense(4)])
    assert fd.Sequential([fd.Dense(4), inner, fd.Dense(2)]).widest((3,)) == 9
    assert fd.Sequential([fd.Dense(4)]).widest((7,)) == 7


def test_nothing_is_drawn_and_nothing_counted() -> None:
    net = network()
    first = inference.predict(net, X)
    np.testing.assert_array_equal(inference.predict(net, X), first)
    np.testing.assert_array_equal(first, net(X, training=False))
    assert net.step_count == 0
    assert not np.array_equal(first, net(X, training=True))


def test_results_are_new_arrays() -> None:
    net = fd.Sequential([fd.Dropout(0.5)], input_shape=(6,), seed=1)
    y = inference.predict(net, X)
    np.testing.assert_array_equal(y, X)
    assert not np.shares_memory(y, X)
    net.output_kind = "probabilities"
    assert not np.shares_memory(inference.predict_proba(net, X), X)


def test_dtypes_and_empty_batches() -> None:
    net = network()
    assert inference.predict(net, X.astype(np.float64)).dtype == np.float32
    np.testing.assert_array_equal(inference.predict(net, X.astype(np.float64)), inference.predict(net, X))
    assert inference.predict(net, X[:0]).shape == (0, 3)


def test_probabilities_of_logits() -> None:
    net = network()
    net.output_kind = "logits"
    z = net(X).astype(np.float64)
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    probabilities = inference.predict_proba(net, X, batch_size=7)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)


def test_probabilities_of_sigmoid_logits() -> None:
    net = network(1)
    net.output_kind = "sigmoid_logits"
    np.testing.assert_allclose(inference.predict_proba(net, X), 1 / (1 + np.exp(-net(X))), rtol=1e-5)


def test_outputs_that_are_probabilities() -> None:
    net = fd.Sequential([fd.Dense(3, activation="softmax")], input_shape=(6,), seed=1)
    net.output_kind = "probabilities"
    outputs = net(X)
    np.testing.assert_array_equal(inference.predict_proba(net, X), outputs / outputs.sum(axis=1, keepdims=True))


def test_outputs_whose_sum_is_not_one_are_divided_by_it() -> None:
    """As the loss takes them, which trains sigmoid units against classes."""
    net = fd.Sequential([fd.Dense(10, activation="sigmoid", weight_initializer="zeros")], input_shape=(6,), seed=1)
    net.output_kind = "probabilities"
    np.testing.assert_allclose(inference.predict_proba(net, X), np.full((len(X), 10), 0.1), rtol=1e-6)
    np.testing.assert_allclose(net.predict_mc(X, 2).entropy, np.log(10), rtol=1e-6)


def test_a_single_probability_stays() -> None:
    net = fd.Sequential([fd.Dense(1, activation="sigmoid")], input_shape=(6,), seed=1)
    net.output_kind = "probabilities"
    np.testing.assert_array_equal(inference.predict_proba(net, X), net(X))


@pytest.mark.parametrize(("kind", "text"), [(None, "is not known"), ("values", "is 'values'")])
def test_outputs_that_are_none(kind: str | None, text: str) -> None:
    net = network()
    net.output_kind = kind
    with pytest.raises(StateError, match=f"`output_kind` {text}"):
        inference.predict_proba(net, X)


@pytest.mark.parametrize(
    ("x", "batch_size", "kind", "text"),
    [
        (X.astype(int), None, ArgumentTypeError, "`x` must be a float32 or float64 array, got int64"),
        (X, 0, ArgumentValueError, "`batch_size` must be at least 1, got 0"),
        (X, 2.0, ArgumentTypeError, "`batch_size` must be an integer, got float"),
        (X[:, :2], None, ArgumentValueError, "`x` must be of shape (rows, 6)"),
    ],
)
def test_bad_arguments(x: Any, batch_size: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        inference.predict(network(), x, batch_size)
    assert text in str(caught.value)
