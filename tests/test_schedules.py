"""Schedules: values worked out by hand from the formulas of Keras and of the papers, and their descriptions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from fastdrop import _configurable, schedules
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

CASES: list[tuple[schedules.AbstractSchedule, dict[int, float]]] = [
    (schedules.ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.1 * 0.5**0.5, 10: 0.05, 20: 0.025}),
    (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), {0: 0.1, 9: 0.1, 10: 0.05, 19: 0.05}),
    (schedules.InverseTimeDecay(0.1, 10, 1.0), {0: 0.1, 10: 0.05, 30: 0.025}),
    (schedules.InverseTimeDecay(0.1, 10, 1.0, staircase=True), {9: 0.1, 10: 0.05, 19: 0.05}),
    (schedules.PolynomialDecay(1.0, 10, 0.2), {0: 1.0, 5: 0.6, 10: 0.2, 99: 0.2}),
    (schedules.PolynomialDecay(1.0, 10, 0.0, power=2.0), {5: 0.25}),
    (schedules.PolynomialDecay(1.0, 10, 0.0, cycle=True), {0: 1.0, 10: 0.0, 15: 0.25, 20: 0.0}),
    (schedules.CosineDecay(1.0, 10), {0: 1.0, 5: 0.5, 10: 0.0, 99: 0.0}),
    (schedules.CosineDecay(1.0, 10, alpha=0.1), {0: 1.0, 5: 0.55, 10: 0.1, 99: 0.1}),
    (schedules.CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=4), {0: 0.0, 1: 0.25, 4: 1.0, 9: 0.5, 14: 0.0}),
    (schedules.Linear(0.0, 1.0, 4), {0: 0.0, 1: 0.25, 4: 1.0, 99: 1.0}),
    (schedules.Linear(0.5, 0.1, 8), {0: 0.5, 2: 0.4, 8: 0.1, 9: 0.1}),
    (schedules.Curriculum(20), {0: 0.0, 1: 1 - math.exp(-0.5), 20: 1 - math.exp(-10), 99999: 1.0}),
    (schedules.PiecewiseConstantDecay([2, 5], [1.0, 0.5, 0.1]), {0: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.1, 99: 0.1}),
]


@pytest.mark.parametrize(("schedule", "values"), CASES, ids=[repr(schedule) for schedule, _ in CASES])
def test_values(schedule: schedules.AbstractSchedule, values: dict[int, float]) -> None:
    for step, expected in values.items():
        assert schedule(step) == pytest.approx(expected, rel=1e-14, abs=1e-16)
        assert type(schedule(step)) is float


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CASES], ids=repr)
def test_description_makes_it_again(schedule: schedules.AbstractSchedule) -> None:
    config = json.loads(json.dumps(schedule.get_config()))
    again = _configurable.make("schedule", config, schedules.SCHEDULES)
    assert type(again) is type(schedule)
    assert [again(step) for step in range(30)] == [schedule(step) for step in range(30)]
    assert repr(again) == repr(schedule)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: schedules.ExponentialDecay(-1, 10, 0.5),
        ArgumentValueError,
        "`initial_learning_rate` must be in [0, inf), got -1.0",
    ),
    (lambda: schedules.ExponentialDecay(math.nan, 10, 0.5), ArgumentValueError, "`initial_learning_rate` must be in"),
    (lambda: schedules.ExponentialDecay(1, 0, 0.5), ArgumentValueError, "`decay_steps` must be at least 1, got 0"),
    (lambda: schedules.InverseTimeDecay(1, 2.5, 0.5), ArgumentTypeError, "`decay_steps` must be an integer, got float"),  # type: ignore[arg-type]
    (lambda: schedules.InverseTimeDecay(1, 2, 0.5, 1), ArgumentTypeError, "`staircase` must be True or False, got int"),  # type: ignore[arg-type]
    (lambda: schedules.CosineDecay(1, 2, 1.5), ArgumentValueError, "`alpha` must be in [0, 1], got 1.5"),
    (lambda: schedules.CosineDecay(1, 2, warmup_steps=-1), ArgumentValueError, "`warmup_steps` must be at least 0, got -1"),
    (lambda: schedules.PolynomialDecay(1, 2, power=-1), ArgumentValueError, "`power` must be in [0, inf), got -1.0"),
    (
        lambda: schedules.PiecewiseConstantDecay([5, 2], [1, 1, 1]),
        ArgumentValueError,
        "`boundaries` must be increasing, got [5, 2]",
    ),
    (lambda: schedules.Linear(-0.1, 1, 5), ArgumentValueError, "`start` must be in [0, inf), got -0.1"),
    (lambda: schedules.Linear(0, math.inf, 5), ArgumentValueError, "`end` must be in [0, inf), got inf"),
    (lambda: schedules.Linear(0, 1, 0), ArgumentValueError, "`steps` must be at least 1, got 0"),
    (lambda: schedules.Curriculum(0), ArgumentValueError, "`total_steps` must be at least 1, got 0"),
    (lambda: schedules.PiecewiseConstantDecay([5], [1]), ArgumentValueError, "`values` must be one more than `boundaries` (1)"),
    (lambda: schedules.PiecewiseConstantDecay("ab", [1]), ArgumentTypeError, "`boundaries` must be a list or tuple, got str"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD)
def test_bad_arguments(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
