"""A fixed count: of 256 units at rate 0.5 exactly 128 are kept, of every mask row, in fused networks and whatever is skipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from assertions import assert_same_bits
from strategies import DTYPES, random_array

import fastdrop as fd
from fastdrop import fused, optim
from fastdrop._types import Array

ROWS, UNITS, KEPT = 96, 256, 128
SHARING = [1, 32, 40, "batch"]
NEVER = 10**9
"""Rows that no batch has."""


@pytest.fixture(params=[0, NEVER], ids=["skipping", "all the work"])
def skipping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether units that rows share are left out."""
    monkeypatch.setattr(fused, "COPYING_ROWS", request.param)
    monkeypatch.setattr(fused, "LEAST_ROWS", 1)
    return bool(request.param == 0)


@pytest.fixture
def compact_layers(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by an entry for each layer that is computed on compact matrices."""
    made: list[bool] = []

    class Counted(fused._CompactDense):
        def __init__(self, *arguments: Any) -> None:
            made.append(True)
            super().__init__(*arguments)

    monkeypatch.setattr(fused, "_CompactDense", Counted)
    return made


def network(shared_rows: Any, dtype: Any = "float32", rate: float = 0.5, units: int = UNITS, where: str = "end") -> fd.Sequential:
    """Units that are never 0 before dropout, which stands at the end, before or between dense layers."""
    dropout = fd.Dropout(rate, shared_rows=shared_rows, fixed_count=True)
    dense = fd.Dense(units, activation="sigmoid", bias_initializer="ones")
    layers = {"end": [dense, dropout], "between": [dense, dropout, fd.Dense(units)], "before": [dropout, fd.Dense(units)]}[where]
    net = fd.Sequential(layers, input_shape=(units,), seed=7, dtype=dtype)
    if where != "end":
        weight, bias = net.parameters()[-2:]
        weight.value = np.eye(units)
        bias.value = np.zeros(units)
    return net


def assert_exact(kept: Array, shared_rows: Any, row_offset: int = 0, count: int = KEPT) -> None:
    """So many are kept in every row; rows have the same ones exactly where they share a mask row."""
    assert kept.sum(axis=1).tolist() == [count] * len(kept)
    group = len(kept) + row_offset if shared_rows == "batch" else shared_rows
    for r in range(1, len(kept)):
        same = (r + row_offset) // group == (r + row_offset - 1) // group
        assert np.array_equal(kept[r], kept[r - 1]) == same, r


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("where", ["end", "between", "before"])
@pytest.mark.parametrize("shared_rows", SHARING)
def test_exactly_half_of_the_units_are_kept(
    shared_rows: Any, where: str, dtype: Any, skipping: bool, compact_layers: list[bool]
) -> None:
    """Forward and backward, and the same ones in both; all kept ones are scaled alike."""
    net, x = network(shared_rows, dtype, where=where), 1 + np.abs(random_array(0, (ROWS, UNITS), dtype))
    y, backward = net.forward(x, training=True)
    assert bool(compact_layers) == skipping
    kept = y != 0
    assert_exact(kept, shared_rows)
    before = x if where == "before" else fd.dense(x, *(p.value for p in net.parameters()[:2]), activation="sigmoid")[0]
    np.testing.assert_allclose(y[kept], 2 * before[kept], rtol=1e-6)
    dx = backward(np.ones_like(y), input_gradient=True)
    assert dx is not None
    if where == "before":
        assert_same_bits(dx != 0, kept)
        assert set(np.unique(dx)) == {0.0, 2.0}
    else:
        bias = net.parameters()[1].grad
        slope = 2 * before * (1 - before)
        np.testing.assert_allclose(bias, (slope * kept).sum(axis=0), rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-6)
        assert np.count_nonzero(bias) == np.count_nonzero(kept.any(axis=0))


@pytest.mark.parametrize(("low", "high"), [(0, 33), (33, 50), (50, 96)])
@pytest.mark.parametrize("shared_rows", SHARING)
def test_a_piece_of_a_batch_has_the_counts_of_the_whole(shared_rows: Any, low: int, high: int, skipping: bool) -> None:
    net, x = network(shared_rows), random_array(0, (ROWS, UNITS))
    whole = net.forward(x, True, step=3)[0]
    part = net.forward(x[low:high], True, step=3, row_offset=low)[0]
    assert_exact(part != 0, shared_rows, low)
    assert_same_bits(part != 0, whole[low:high] != 0)


def test_a_step_changes_the_weights_of_the_kept_units_alone(skipping: bool) -> None:
    """Plain SGD, one mask for the batch: the other half of the units has no gradient at all."""
    net, x = network("batch"), random_array(0, (ROWS, UNITS))
    weight, bias = (parameter.value.copy() for parameter in net.parameters())
    net.train_on_batch(x, np.zeros((ROWS, UNITS), "float32"), optim.SGD(1.0), "mean_squared_error")
    changed = net.parameters()[0].value != weight
    assert np.count_nonzero(changed.any(axis=0)) == KEPT
    assert_same_bits(net.parameters()[1].value != bias, changed.any(axis=0))


@pytest.mark.parametrize("shared_rows", [1, "batch"])
def test_every_layer_of_a_deep_network_has_its_count(shared_rows: Any, skipping: bool) -> None:
    """Three masks in a row, of other units in each step; the bias gradients tell what each of them kept."""
    layers: list[Any] = []
    for _ in range(3):
        dense = fd.Dense(UNITS, activation="sigmoid", bias_initializer="ones")
        layers += [dense, fd.Dropout(0.5, shared_rows=shared_rows, fixed_count=True)]
    net = fd.Sequential([*layers, fd.Dense(10)], input_shape=(20,), seed=1, dtype="float64")
    seen = []
    for step in range(3):
        net.zero_grad()
        y, backward = net.forward(random_array(step, (1 if shared_rows == 1 else ROWS, 20), "float64"), training=True)
        backward(np.cos(y))
        seen.append(np.array([net.parameters()[2 * i + 1].grad != 0 for i in range(3)]))
        assert seen[-1].sum(axis=1).tolist() == [KEPT] * 3
    masks = np.concatenate(seen)
    assert len({mask.tobytes() for mask in masks}) == 9


@pytest.mark.parametrize(("units", "rate", "dropped"), [(10, 0.3, 3), (5, 0.5, 2), (7, 0.5, 4), (129, 0.9, 116), (64, 0.01, 1)])
@pytest.mark.parametrize("shared_rows", [1, "batch"])
def test_other_counts_are_rounded_to_even(units: int, rate: float, dropped: int, shared_rows: Any, skipping: bool) -> None:
    net, x = network(shared_rows, rate=rate, units=units), random_array(0, (ROWS, units))
    kept = net.forward(x, training=True)[0] != 0
    assert kept.sum(axis=1).tolist() == [units - dropped] * ROWS
