"""NumPy, with the BLAS that it was built with, and networks written plainly."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from fastdrop import _config
from fastdrop._types import Array
from fastdrop.benchmark.cases import GaussianDropout, Inference, Prepare, Product, ScaledCopy, Step, SumOfSquares, Words, Work
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.peers.base import SEED, AbstractPeer


def limit_blas(threads: int) -> bool:
    """Limit the threads of the BLAS in use; without threadpoolctl, they are the CPUs of the process."""
    if find_spec("threadpoolctl") is None:
        return threads == _config.affinity()
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads, user_api="blas")
    return True


class PlainNetwork:
    """A dense network with dropout and momentum, as one writes it down."""

    def __init__(self, layers: list[tuple[Array, Array]], rates: tuple[float, ...]) -> None:
        self.layers = layers
        self.rates = rates
        self.velocities = [(np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in layers]
        self.rng = np.random.default_rng(SEED)

    def drop(self, x: Array, rate: float) -> tuple[Array, Array]:
        """Return x dropped out, and the scaled mask."""
        scaled = (self.rng.random(x.shape, np.float32) >= rate) * np.float32(1 / (1 - rate))
        return x * scaled, scaled

    def step(self, x: Array, labels: Array) -> float:
        """Train on a batch and return the loss."""
        inputs: list[Array] = []
        masks: list[Array] = []
        for (weight, bias), rate in zip(self.layers, self.rates, strict=True):
            dropped, mask = self.drop(np.maximum(x, 0) if inputs else x, rate)
            inputs.append(dropped)
            masks.append(mask)
            x = dropped @ weight + bias
        rows = np.arange(len(x))
        shifted = x - x.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        sums = exponentials.sum(axis=1, keepdims=True)
        loss = float((np.log(sums[:, 0]) - shifted[rows, labels]).mean())
        dz = exponentials / sums
        dz[rows, labels] -= 1
        dz /= len(x)
        for number in reversed(range(len(self.layers))):
            gradients = inputs[number].T @ dz, dz.sum(axis=0)
            if number:
                dz = (dz @ self.layers[number][0].T) * masks[number] * (inputs[number] > 0)
            for value, velocity, gradient in zip(self.layers[number], self.velocities[number], gradients, strict=True):
                velocity[...] = MOMENTUM * velocity - LEARNING_RATE * gradient
                value[...] += velocity
        return loss


class NumPy(AbstractPeer):
    """Matrix products into a given array; networks a line an operation."""

    name, distribution = "NumPy", "numpy"

    def set_threads(self, threads: int) -> bool:
        return limit_blas(threads)

    def scaled_copy(self, case: ScaledCopy) -> Prepare:
        x, out = case.x, case.x.copy()
        return lambda number: lambda: np.multiply(x, 2, out=out)

    def gaussian_dropout(self, case: GaussianDropout) -> Prepare:
        generator, stddev = np.random.default_rng(SEED), np.float32(case.stddev)

        def multiply() -> Array:
            noise = generator.standard_normal(case.elements, np.float32)
            noise *= stddev
            noise += 1
            noise *= case.x
            return noise

        return lambda number: multiply

    def sum_of_squares(self, case: SumOfSquares) -> Prepare:
        return lambda number: lambda: np.dot(case.x, case.x)

    def words(self, case: Words) -> Prepare:
        """Of its own Philox, which has words of 64 bits."""
        generator = np.random.Philox(SEED)
        return lambda number: lambda: generator.random_raw((case.count + 1) // 2).view(np.uint32)[: case.count]

    def product(self, case: Product) -> Prepare:
        sets = [case.factors(number) for number in range(len(case.sets))]

        def prepare(number: int) -> Work:
            a, b, out = sets[number % len(sets)]
            return lambda: np.matmul(a, b, out=out)

        return prepare

    def step(self, case: Step) -> Prepare:
        net = PlainNetwork(list(case.architecture.starting_values()), case.architecture.rates)

        def prepare(number: int) -> Work:
            x, labels = case.batches[number % len(case.batches)]
            return lambda: net.step(x, labels)

        return prepare

    def inference(self, case: Inference) -> Prepare:
        *hidden, (weight, bias) = case.architecture.starting_values()

        def predict(x: Array) -> Any:
            for w, b in hidden:
                x = np.maximum(x @ w + b, 0)
            return x @ weight + bias

        def prepare(number: int) -> Work:
            x, _ = case.batches[number % len(case.batches)]
            return lambda: predict(x)

        return prepare
