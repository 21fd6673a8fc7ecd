"""Constraints and regularisers: Keras's formulas, in place, through a layer and through a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assertions import assert_not_vacuous, assert_same_bits
from strategies import random_array

import fastdrop as fd
from fastdrop import _configurable, constraints, regularizers
from fastdrop.errors import ArgumentTypeError, ArgumentValueError


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_norm_limits_columns(dtype: Any) -> None:
    w = random_array(0, (9, 6), dtype) * np.array([0.1, 1, 2, 3, 0, 5], dtype)
    limited = w.copy()
    fd.MaxNorm(3.0)(limited)
    norms = np.linalg.norm(w, axis=0)
    assert (norms > 3).sum() in range(1, 6)
    np.testing.assert_allclose(limited, w * np.minimum(norms, 3) / (1e-7 + norms), rtol=1e-5, atol=1e-7)
    assert np.linalg.norm(limited, axis=0).max() <= 3.00001


def test_max_norm_of_a_vector_is_that_of_one_column() -> None:
    b = np.array([3.0, 4.0])
    fd.MaxNorm(1.0)(b)
    np.testing.assert_allclose(b, [0.6, 0.8], rtol=1e-6)
    assert fd.MaxNorm().max_value == 2.0


def test_unit_norm() -> None:
    w = random_array(1, (7, 3), np.float64)
    unit = w.copy()
    constraints.UnitNorm()(unit)
    np.testing.assert_allclose(unit, w / np.linalg.norm(w, axis=0), rtol=1e-6)


def test_non_neg_selects() -> None:
    w = np.array([[-1.0, 2.0], [-0.0, np.nan]])
    constraints.NonNeg()(w)
    assert_same_bits(w, np.array([[0.0, 2.0], [0.0, np.nan]]))


@pytest.mark.parametrize(
    ("regularizer", "l1", "l2"),
    [
        (regularizers.L1(0.3), 0.3, 0.0),
        (regularizers.L2(0.2), 0.0, 0.2),
        (regularizers.L1L2(0.3, 0.2), 0.3, 0.2),
        (regularizers.L1L2(), 0.0, 0.0),
        (regularizers.get("r", "l1"), 0.01, 0.0),
        (regularizers.get("r", "l2"), 0.0, 0.01),
        (regularizers.get("r", "l1_l2"), 0.0, 0.0),
    ],
)
def test_penalties(regularizer: regularizers.L1L2, l1: float, l2: float) -> None:
    w = random_array(2, (5, 4), np.float64)
    w[0, 0] = 0.0
    grad = np.ones_like(w)
    regularizer.add_gradient(w, grad)
    np.testing.assert_allclose(grad, 1 + l1 * np.sign(w) + 2 * l2 * w, rtol=1e-14)
    assert regularizer.value(w) == pytest.approx(l1 * np.abs(w).sum() + l2 * (w**2).sum(), rel=1e-14)
    again = regularizers.get("r", _configurable.describe(regularizer))
    assert (type(again), vars(again)) == (type(regularizer), vars(regularizer))


def regularised(**arguments: Any) -> fd.Sequential:
    return fd.Sequential([fd.Dense(4, "tanh", **arguments), fd.Dropout(0.5), fd.Dense(2)], (3,), seed=3, dtype="float64")


def test_penalty_of_a_network_and_its_gradient() -> None:
    plain, net = (
        regularised(),
        regularised(weight_regularizer="l2", bias_regularizer=regularizers.L1(0.5), bias_initializer="ones"),
    )
    net.load_state_dict(state := plain.state_dict() | {"0.bias": np.array([1.0, -2.0, 0.0, 3.0])})
    plain.load_state_dict(state)
    assert plain.penalty() == 0.0
    assert net.penalty() == pytest.approx(0.01 * (state["0.weight"] ** 2).sum() + 0.5 * 6.0, rel=1e-14)
    x, dy = random_array(4, (6, 3), np.float64), random_array(5, (6, 2), np.float64)
    for each in (plain, net):
        each.forward(x, True, step=0)[1](dy)
    weight, bias = (net.parameters()[i].grad - plain.parameters()[i].grad for i in (0, 1))
    np.testing.assert_allclose(weight, 0.02 * state["0.weight"], atol=1e-14)
    np.testing.assert_allclose(bias, [0.5, -0.5, 0.0, 0.5], atol=1e-14)
    assert_not_vacuous(weight)


def test_pieces_of_a_batch_count_the_penalty_once() -> None:
    whole, cut = regularised(weight_regularizer="l2"), regularised(weight_regularizer="l2")
    x, dy = random_array(4, (6, 3), np.float64), random_array(5, (6, 2), np.float64)
    whole.forward(x, True, step=7)[1](dy)
    for first in (0, 2, 4):
        cut.forward(x[first : first + 2], True, step=7, row_offset=first)[1](dy[first : first + 2])
    for a, b in zip(whole.parameters(), cut.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad, atol=1e-14)
        assert_not_vacuous(a.grad)


def test_a_frozen_parameter_has_no_penalty() -> None:
    net = regularised(weight_regularizer="l2")
    assert net.penalty() > 0
    net.parameters()[0].trainable = False
    assert net.penalty() == 0.0
    y, backward = net.forward(random_array(4, (6, 3), np.float64), True)
    backward(np.ones_like(y))
    assert not net.parameters()[0].grad.any()
    assert net.parameters()[1].grad.any()


@pytest.mark.parametrize("constraint", [fd.MaxNorm(3.5), constraints.UnitNorm(), constraints.NonNeg()])
def test_constraints_are_made_again_from_their_description(constraint: constraints.AbstractConstraint) -> None:
    again = constraints.get("c", _configurable.describe(constraint))
    assert (type(again), vars(again)) == (type(constraint), vars(constraint))


def test_names_and_errors() -> None:
    assert isinstance(constraints.get("c", "max_norm"), fd.MaxNorm)
    assert constraints.get("c", None) is None
    assert regularizers.get("r", None) is None
    with pytest.raises(ArgumentValueError, match=r"`max_value` must be in \[0, inf\), got -1"):
        fd.MaxNorm(-1)
    with pytest.raises(ArgumentValueError, match=r"`l2` must be in \[0, inf\), got -1"):
        regularizers.L2(-1)
    with pytest.raises(ArgumentValueError, match="`weight_constraint` must be one of max_norm, non_neg, unit_norm, got 'norm'"):
        fd.Dense(1, weight_constraint="norm")
    with pytest.raises(ArgumentTypeError, match="`bias_regularizer` must be one of l1, l1_l2, l2 or an object"):
        fd.Dense(1, bias_regularizer=0.01)
