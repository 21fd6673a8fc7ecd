"""What a search may choose for a recipe: the rate of each hidden layer, the learning rate, the width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastdrop import _validate
from fastdrop.experiments.recipe import Recipe

FIRST_RATE = 0.5
"""Rate of every hidden layer in the first trial."""
PARTS, LARGEST = 4, 8
"""By default the width is a multiple of a quarter of the recipe's, at most eight of them."""
LEARNING_RATES_AROUND = 10
"""By default the learning rate is at most so many times larger or smaller than the recipe's."""
DIGITS = 3
"""Significant digits of learning rates."""
DECIMALS = 9
"""Decimals of rates: 0.1 * 3 is meant to be 0.3."""


@dataclass(frozen=True)
class SearchSpace:
    """What is searched around a recipe; two equal ends fix a value.

    Attributes
    ----------
    rates : (low, high, step)
        Dropout of each hidden layer, on its own.
    learning_rates : (low, high), optional
        On a logarithmic scale, in three digits; by default a tenth of the recipe's to ten times as much.
    units : (low, high, step), optional
        Units of the widest hidden layer; the others keep their proportion to it. By default a quarter of the recipe's, rounded
        down, to eight times that.
    """

    rates: tuple[float, float, float] = (0.0, 0.8, 0.1)
    learning_rates: tuple[float, float] | None = None
    units: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        low, high, step = _validate.sequence("rates", self.rates, "(low, high, step)", 3)
        rates = _validate.rate("rates", low), _validate.rate("rates", high), _validate.real("rates", step, 0, 1, open_low=True)
        _whole("rates", *rates)
        object.__setattr__(self, "rates", rates)
        if self.learning_rates is not None:
            ends = _validate.sequence("learning_rates", self.learning_rates, "(low, high)", 2)
            learning_rates = tuple(_validate.real("learning_rates", end, 0, open_low=True) for end in ends)
            _ordered("learning_rates", *learning_rates)
            object.__setattr__(self, "learning_rates", learning_rates)
        if self.units is not None:
            units = tuple(
                _validate.integer("units", value, 1) for value in _validate.sequence("units", self.units, "(low, high, step)", 3)
            )
            _whole("units", *units)
            object.__setattr__(self, "units", units)

    def ranges(self, recipe: Recipe) -> tuple[tuple[float, float], tuple[int, int, int]]:
        """Return (learning rates, units) around a recipe."""
        if not recipe.hidden:
            _validate.fail_value("build", "a recipe with a hidden layer, behind which units are dropped", "one without")
        center, part = recipe.initial_learning_rate, max(1, max(recipe.hidden) // PARTS)
        around = center / LEARNING_RATES_AROUND, center * LEARNING_RATES_AROUND
        return self.learning_rates or around, self.units or (part, LARGEST * part, part)

    def first(self, recipe: Recipe) -> dict[str, float]:
        """Return the first trial: rate 0.5 everywhere and all else as the recipe says, or what is nearest to it in the space."""
        (lowest, highest), units = self.ranges(recipe)
        return {
            **{f"rate_{layer + 1}": _nearest(FIRST_RATE, *self.rates) for layer in range(len(recipe.hidden))},
            "learning_rate": min(max(recipe.initial_learning_rate, lowest), highest),
            "units": int(_nearest(max(recipe.hidden), *units)),
        }

    def suggest(self, trial: Any, recipe: Recipe) -> Recipe:
        """Return the recipe that a trial of Optuna stands for."""
        learning_rates, units = self.ranges(recipe)
        low, high, step = self.rates
        for layer in range(len(recipe.hidden)):
            trial.suggest_float(f"rate_{layer + 1}", low, high, step=step)
        trial.suggest_float("learning_rate", *learning_rates, log=True)
        trial.suggest_int("units", units[0], units[1], step=units[2])
        return with_parameters(recipe, trial.params)


def with_parameters(recipe: Recipe, parameters: Mapping[str, float]) -> Recipe:
    """Return a recipe with the parameters of a trial."""
    rates = tuple(round(parameters[f"rate_{layer + 1}"], DECIMALS) for layer in range(len(recipe.hidden)))
    hidden = tuple(max(1, round(units * parameters["units"] / max(recipe.hidden))) for units in recipe.hidden)
    learning_rate = float(f"{parameters['learning_rate']:.{DIGITS}g}")
    return replace(recipe, rates=(recipe.all_rates()[0], *rates), hidden=hidden, learning_rate=learning_rate)


def _nearest(value: float, low: float, high: float, step: float) -> float:
    """Return what is nearest to a value in a range with steps."""
    return round(low + step * round((min(max(value, low), high) - low) / step), DECIMALS)


def _ordered(name: str, low: float, high: float) -> None:
    if low > high:
        _validate.fail_value(name, "(low, high, ...) with low <= high", f"{low} and {high}")


def _whole(name: str, low: float, high: float, step: float) -> None:
    """Raise unless whole steps lead from one end up to the other."""
    _ordered(name, low, high)
    steps = (high - low) / step
    if not math.isclose(steps, round(steps), abs_tol=1e-6):
        _validate.fail_value(name, "a range of whole steps", f"{low:g} to {high:g} in steps of {step:g}")
