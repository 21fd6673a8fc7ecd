"""Schedules: functions of the optimiser's step count; those of learning rates have Keras's names, arguments and formulas.

A schedule is any function ``schedule(step) -> learning rate``, or, for `callbacks.DropoutScheduler`, ``schedule(step) -> factor``
of the rates of dropout. The classes here can also be written to checkpoints. Notation: s step, lr0 initial learning rate.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from fastdrop import _validate
from fastdrop._configurable import describe

GAMMA_STEPS: Final = 10.0
"""``gamma * total_steps`` as Morerio et al. advise: at the end of training dropout has its final rate but for a part of 5e-5."""


class AbstractSchedule(ABC):
    """A schedule with a JSON-able configuration. Final subclasses below."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate, or another value, at a step."""

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, all of which are attributes, and the name of the class."""
        return describe(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class AbstractDecay(AbstractSchedule):
    """A schedule of ``s / decay_steps``; with `staircase` the quotient is rounded down."""

    def __init__(self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False) -> None:
        self.initial_learning_rate = _validate.real("initial_learning_rate", initial_learning_rate, 0.0)
        self.decay_steps = _validate.integer("decay_steps", decay_steps, 1)
        self.decay_rate = _validate.real("decay_rate", decay_rate, 0.0)
        self.staircase = _validate.boolean("staircase", staircase)

    def periods(self, step: int) -> float:
        """Return ``s / decay_steps``, rounded down with `staircase`."""
        return step // self.decay_steps if self.staircase else step / self.decay_steps


class ExponentialDecay(AbstractDecay):
    """``lr0 * decay_rate ** (s / decay_steps)``; with `staircase` the quotient is rounded down."""

    def __call__(self, step: int) -> float:
        """Return the learning rate at a step."""
        return self.initial_learning_rate * math.pow(self.decay_rate, self.periods(step))


class InverseTimeDecay(AbstractDecay):
    """``lr0 / (1 + decay_rate * s / decay_steps)``; with `staircase` the quotient is rounded down."""

    def __call__(self, step: int) -> float:
        """Return the learning rate at a step."""
        return self.initial_learning_rate / (1.0 + self.decay_rate * self.periods(step))


class PolynomialDecay(AbstractSchedule):
    """``(lr0 - end) * (1 - s / decay_steps) ** power + end``.

    Beyond `decay_steps` the rate stays at `end_learning_rate`; with `cycle`, decay_steps becomes its next multiple >= s.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
    ) -> None:
        self.initial_learning_rate = _validate.real("initial_learning_rate", initial_learning_rate, 0.0)
        self.decay_steps = _validate.integer("decay_steps", decay_steps, 1)
        self.end_learning_rate = _validate.real("end_learning_rate", end_learning_rate, 0.0)
        self.power = _validate.real("power", power, 0.0)
        self.cycle = _validate.boolean("cycle", cycle)

    def __call__(self, step: int) -> float:
        """Return the learning rate at a step."""
        steps = self.decay_steps * max(1, math.ceil(step / self.decay_steps)) if self.cycle else self.decay_steps
        remaining = 1.0 - min(step, steps) / steps
        return (self.initial_learning_rate - self.end_learning_rate) * math.pow(remaining, self.power) + self.end_learning_rate


class CosineDecay(AbstractSchedule):
    """``peak * ((1 - alpha) * (1 + cos(pi * s' / decay_steps)) / 2 + alpha)``, after a linear warm-up.

    Without `warmup_target` peak is lr0 and s' is s. With it, the rate first rises from lr0 to peak = warmup_target in
    `warmup_steps` steps, and s' counts from there.

    Source: Loshchilov and Hutter 2017, "SGDR", equation 5.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = _validate.real("initial_learning_rate", initial_learning_rate, 0.0)
        self.decay_steps = _validate.integer("decay_steps", decay_steps, 1)
        self.alpha = _validate.real("alpha", alpha, 0.0, 1.0)
        self.warmup_target = None if warmup_target is None else _validate.real("warmup_target", warmup_target, 0.0)
        self.warmup_steps = _validate.integer("warmup_steps", warmup_steps, 0)

    def __call__(self, step: int) -> float:
        """Return the learning rate at a step."""
        if self.warmup_target is None:
            return self._decayed(step, self.initial_learning_rate)
        if step < self.warmup_steps:
            rise = self.warmup_target - self.initial_learning_rate
            return self.initial_learning_rate + rise * (step / self.warmup_steps)
        return self._decayed(step - self.warmup_steps, self.warmup_target)

    def _decayed(self, step: int, peak: float) -> float:
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(step, self.decay_steps) / self.decay_steps))
        return peak * ((1.0 - self.alpha) * cosine + self.alpha)


class PiecewiseConstantDecay(AbstractSchedule):
    """``values[i]`` for boundaries[i - 1] < s <= boundaries[i]: one value more than boundaries."""

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        self.boundaries = [_validate.integer("boundaries", entry, 0) for entry in _validate.sequence("boundaries", boundaries)]
        self.values = [_validate.real("values", entry, 0.0) for entry in _validate.sequence("values", values)]
        if sorted(set(self.boundaries)) != self.boundaries:
            _validate.fail_value("boundaries", "increasing", self.boundaries)
        if len(self.values) != len(self.boundaries) + 1:
            _validate.fail_value("values", f"one more than `boundaries` ({len(self.boundaries)})", f"{len(self.values)} values")

    def __call__(self, step: int) -> float:
        """Return the learning rate at a step."""
        return self.values[sum(step > boundary for boundary in self.boundaries)]


class Linear(AbstractSchedule):
    """``start + (end - start) * s / steps``, and `end` beyond `steps`."""

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.start = _validate.real("start", start, 0.0)
        self.end = _validate.real("end", end, 0.0)
        self.steps = _validate.integer("steps", steps, 1)

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        passed = min(step, self.steps) / self.steps
        return (1.0 - passed) * self.start + passed * self.end


class Curriculum(AbstractSchedule):
    """``1 - exp(-gamma * s)``, ``gamma = 10 / total_steps``: the part of its final rate that dropout has at a step.

    Source: Morerio et al. 2017, "Curriculum dropout": the probability of keeping falls from 1 as
    ``(1 - keep_prob) * exp(-gamma * s) + keep_prob``, keep_prob the final one.
    """

    def __init__(self, total_steps: int) -> None:
        self.total_steps = _validate.integer("total_steps", total_steps, 1)

    def __call__(self, step: int) -> float:
        """Return the value at a step."""
        return -math.expm1(-GAMMA_STEPS * step / self.total_steps)


SCHEDULES: Final = (
    CosineDecay,
    Curriculum,
    ExponentialDecay,
    InverseTimeDecay,
    Linear,
    PiecewiseConstantDecay,
    PolynomialDecay,
)
