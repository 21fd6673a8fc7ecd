"""Whole networks: training steps, `fit`, inference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from fastdrop._types import Array
from fastdrop.benchmark.cases.base import DEVIATIONS, RELATIVE_ERROR, AbstractCase, Prepare, check_close, rotation

Batch: TypeAlias = tuple[Array, Array]

DTYPE = "float32"
INPUT_NORM = 4.0
"""About the norm of a row: networks of 512 units and more learn in a few steps, and do not diverge on one row."""
VERIFIED_STEPS = 16
FIT_ROUNDS = 5
"""An epoch is a mean over its steps already."""
CALLS = 200
"""Calls of all callers together in a round."""
MC_PASSES = 100
VERIFIED_ROWS, VERIFIED_PASSES = 8, 400
"""The means of Monte-Carlo passes are compared with those of so many others, in binary64, for the first rows."""
FINAL_STEPS = 3
"""The mean loss of so many steps at the end is compared with that of as many at the start."""


@dataclass(frozen=True)
class Architecture:
    """A dense network: relu between the layers, dropout of `rates` before each of them."""

    units: tuple[int, ...] = (784, 1024, 1024, 10)
    rates: tuple[float, ...] = (0.2, 0.5, 0.5)

    @property
    def name(self) -> str:
        """The units, joined by hyphens."""
        return "-".join(map(str, self.units))

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(self.units))

    def flops(self, rows: int) -> float:
        """Return the operations of the products of a forward pass."""
        return 2.0 * rows * sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.units))

    def starting_values(self) -> Iterator[Batch]:
        """Yield weight (fan_in, fan_out) and bias of each layer, the same every time (Glorot's uniform)."""
        rng = np.random.default_rng(0)
        for fan_in, fan_out in pairwise(self.units):
            limit = np.sqrt(6 / (fan_in + fan_out))
            yield rng.uniform(-limit, limit, (fan_in, fan_out)).astype(DTYPE), rng.uniform(-limit, limit, fan_out).astype(DTYPE)

    def rows(self, count: int, number: int = 0) -> Batch:
        """Return inputs and labels: each class around a centre of its own, noise of half its size."""
        classes, features, rng = self.units[-1], self.units[0], np.random.default_rng(number)
        centres = np.random.default_rng(0).choice([-1.0, 1.0], (classes, features))
        labels = rng.integers(0, classes, count)
        x = centres[labels] + rng.normal(0, 0.5, (count, features))
        return (x * (INPUT_NORM / np.sqrt(features))).astype(DTYPE), labels


@dataclass(frozen=True)
class AbstractNetworkCase(AbstractCase):
    """What the cases of networks share."""

    architecture: Architecture
    batch: int

    def facts(self) -> dict[str, Any]:
        """Return what describes the case in a table; the network by its units and rates."""
        rates = "/".join(f"{rate:g}" for rate in self.architecture.rates)
        return super().facts() | {"architecture": self.architecture.name, "rates": rates}

    @cached_property
    def batches(self) -> list[Batch]:
        """Inputs and labels that are taken in turn, round by round."""
        nbytes = self.batch * self.architecture.units[0] * np.dtype(DTYPE).itemsize
        return [self.architecture.rows(self.batch, number) for number in range(rotation(nbytes))]


@dataclass(frozen=True)
class Step(AbstractNetworkCase):
    """A training step: forward with new masks, loss, backward, update by SGD with momentum; returns the loss."""

    operation = "step"

    @property
    def flops(self) -> float:
        first = 2.0 * self.batch * self.architecture.units[0] * self.architecture.units[1]
        return 3 * self.architecture.flops(self.batch) - first  # nobody needs the gradient of the inputs

    @property
    def nbytes(self) -> float:
        return 5.0 * self.architecture.parameters * np.dtype(DTYPE).itemsize  # weights and velocity read and written, gradient

    def verify(self, prepare: Prepare) -> None:
        """The loss falls on one batch."""
        losses = [float(prepare(step * len(self.batches))()) for step in range(VERIFIED_STEPS)]
        assert np.mean(losses[-FINAL_STEPS:]) < np.mean(losses[:FINAL_STEPS]), losses


@dataclass(frozen=True)
class Fit(Step):
    """One epoch of the library's own training loop, of so many steps; returns the mean loss."""

    operation = "fit"

    steps: int = 50

    @property
    def repeats(self) -> int:
        return self.steps

    @property
    def rounds(self) -> int:
        return FIT_ROUNDS

    @cached_property
    def data(self) -> Batch:
        """Inputs and labels of an epoch."""
        return self.architecture.rows(self.batch * self.steps)

    def verify(self, prepare: Prepare) -> None:
        """The second epoch's loss is below the first one's."""
        first, second = float(prepare(0)()), float(prepare(1)())
        assert second < first, (first, second)


@dataclass(frozen=True)
class Inference(AbstractNetworkCase):
    """Outputs (logits) of the network."""

    operation = "inference"

    @property
    def flops(self) -> float:
        return self.architecture.flops(self.batch)

    @property
    def nbytes(self) -> float:
        return float(self.architecture.parameters * np.dtype(DTYPE).itemsize)

    def verify(self, prepare: Prepare) -> None:
        """The logits are those of binary64, to rounding."""
        for number in range(min(2, len(self.batches))):
            self.check(number, prepare(number)())

    def check(self, number: int, outputs: Any) -> None:
        """Check the outputs for the round's inputs."""
        *hidden, (weight, bias) = self.architecture.starting_values()
        y = self.batches[number % len(self.batches)][0].astype(np.float64)
        for hidden_weight, hidden_bias in hidden:
            y = np.maximum(y @ hidden_weight + hidden_bias, 0)
        check_close(outputs, y @ weight + bias, DTYPE)


@dataclass(frozen=True)
class MonteCarlo(AbstractNetworkCase):
    """Probabilities (softmax of the outputs) as means over passes with dropout, a mask of its own for each row and pass."""

    operation = "monte_carlo"

    passes: int = MC_PASSES

    @property
    def flops(self) -> float:
        return self.architecture.flops(self.batch * self.passes)

    @property
    def nbytes(self) -> float:
        return float(self.architecture.parameters * np.dtype(DTYPE).itemsize)

    def verify(self, prepare: Prepare) -> None:
        """The means differ from those over other passes by no more than chance, and in every round."""
        means = [np.asarray(prepare(turn * len(self.batches))(), np.float64) for turn in range(2)]
        samples = self.passes_in_binary64(self.batches[0][0][:VERIFIED_ROWS])
        error = DEVIATIONS * samples.std(axis=0) * np.sqrt(1 / self.passes + 1 / VERIFIED_PASSES)
        for mean in means:
            assert mean.shape == (self.batch, self.architecture.units[-1])
            np.testing.assert_allclose(mean.sum(axis=1), 1, rtol=RELATIVE_ERROR[DTYPE])
            assert (np.abs(mean[:VERIFIED_ROWS] - samples.mean(axis=0)) <= error).all()
        assert (means[0] != means[1]).any(axis=1).all()

    def passes_in_binary64(self, x: Array) -> Array:
        """Return probabilities (VERIFIED_PASSES, rows, classes)."""
        rng = np.random.default_rng(0)
        y = np.tile(x.astype(np.float64), (VERIFIED_PASSES, 1))
        for number, (rate, (weight, bias)) in enumerate(
            zip(self.architecture.rates, self.architecture.starting_values(), strict=True)
        ):
            y = np.maximum(y, 0) if number else y
            y = np.where(rng.random(y.shape) < rate, 0, y / (1 - rate)) @ weight + bias
        powers = np.exp(y - y.max(axis=1, keepdims=True))
        probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
        return probabilities.reshape(VERIFIED_PASSES, len(x), -1)


@dataclass(frozen=True)
class Serving(Inference):
    """Inference from `callers` Python threads at once, each with one thread of its own; returns the last outputs of each."""

    operation = "serving"

    callers: int = 1

    @property
    def repeats(self) -> int:
        return CALLS

    def verify(self, prepare: Prepare) -> None:
        """Every caller gets the outputs of its own inputs."""
        for caller, outputs in enumerate(prepare(0)()):
            self.check(caller, outputs)
