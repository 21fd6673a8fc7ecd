"""Metrics: values per row, forms of labels, names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastdrop import metrics
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

OUTPUTS = np.array([[0.1, 0.9, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 5.0]], np.float32)


@pytest.mark.parametrize("labels", [[1, 1, 2], [[1], [1], [2]], np.eye(3)[[1, 1, 2]]])
def test_accuracy_of_classes(labels: Any) -> None:
    np.testing.assert_array_equal(metrics.accuracy(OUTPUTS, labels), [True, False, True])


def test_accuracy_over_middle_axes() -> None:
    hits = metrics.accuracy(np.stack([OUTPUTS, OUTPUTS]), [[1, 0, 2], [0, 0, 0]])
    np.testing.assert_array_equal(hits, [[True, True, True], [False, True, False]])


@pytest.mark.parametrize("labels", [[0, 1, 1], [[0.0], [1.0], [1.0]], [False, True, True]])
def test_accuracy_of_one_column(labels: Any) -> None:
    column = np.array([[-0.1], [0.2], [0.7]], np.float32)
    np.testing.assert_array_equal(metrics.accuracy(column, labels, "sigmoid_logits"), [True, True, True])
    np.testing.assert_array_equal(metrics.accuracy(column, labels, "probabilities"), [True, False, True])


def test_mean_absolute_error() -> None:
    values = metrics.mean_absolute_error(np.array([[1.0, 2.0], [3.0, 5.0]]), [[1, 1], [0, 0]])
    np.testing.assert_array_equal(values, [0.5, 4.0])
    np.testing.assert_array_equal(metrics.mean_absolute_error(np.array([[1.0], [3.0]]), [0, 4]), [1.0, 1.0])


def test_names_functions_and_the_users_own() -> None:
    def margin(outputs: Any, labels: Any) -> Any:
        return outputs[:, 0] - labels

    found = metrics.get(["accuracy", margin, metrics.mean_absolute_error], "sigmoid_logits")
    assert [metric.name for metric in found] == ["accuracy", "margin", "mean_absolute_error"]
    column = np.array([[0.2]])
    assert found[0].compute(column, np.array([1])).all()
    assert not metrics.get([metrics.accuracy], "probabilities")[0].compute(column, np.array([1])).any()
    assert found[1].compute(column, np.array([1])) == pytest.approx(-0.8)
    assert metrics.get((), None) == []


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ("accuracy", ArgumentTypeError, "`metrics` must be a list or tuple of names and functions, got str"),
        (["top5"], ArgumentValueError, "`metrics` must be one of accuracy, mean_absolute_error, got 'top5'"),
        ([3], ArgumentTypeError, "`metrics` must be one of accuracy, mean_absolute_error, got int"),
        (["accuracy", metrics.accuracy], ArgumentValueError, "`metrics` must be of different names"),
        ([type("loss", (), {"__call__": lambda *_: 0})()], ArgumentValueError, "and not 'loss'"),
    ],
)
def test_bad_metrics(given: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        metrics.get(given, None)
    assert text in str(caught.value)


@pytest.mark.parametrize("labels", [[0, 1], [[0, 1], [1, 0], [0, 0]]])
def test_labels_that_do_not_fit(labels: Any) -> None:
    with pytest.raises(ArgumentValueError, match=r"`labels` must be of shape \(3,\) or \(3, 3\)"):
        metrics.accuracy(OUTPUTS, labels)
    with pytest.raises(ArgumentValueError, match=r"`labels` must be of shape \(3, 3\)"):
        metrics.mean_absolute_error(OUTPUTS, labels)
