"""JAX, everything jitted, keys folded from the round's number within the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from fastdrop.backends.base import LEAKY_RELU_SLOPE
from fastdrop.benchmark.cases import (
    Activation,
    Dense,
    Dropout,
    GaussianDropout,
    Inference,
    MonteCarlo,
    Prepare,
    Softmax,
    Step,
    Work,
)
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.peers.base import SEED, AbstractPeer

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, LEAKY_RELU_SLOPE),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
}

ROWS_AT_ONCE = 1024
"""Of Monte-Carlo passes: two thirds of the time that all of 6400 rows take."""


def drop(key: Any, x: Any, rate: float) -> Any:
    """Return x dropped out."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def awaited(function: Callable[..., Any], sets: list[Any]) -> Prepare:
    """Return rounds of ``function(number, *operands)``, the operands in turn."""
    compiled = jax.jit(function)
    device_sets = jax.device_put(sets)

    def prepare(number: int) -> Work:
        operands = device_sets[number % len(sets)]
        return lambda: jax.block_until_ready(compiled(number, *operands))

    return prepare


def round_key(number: Any) -> Any:
    """Return the key of a round."""
    return jax.random.fold_in(jax.random.key(SEED), number)


class Jax(AbstractPeer):
    """The default generator (threefry)."""

    name, distribution = "JAX", "jax"

    def dropout(self, case: Dropout) -> Prepare:
        def forward(number: Any, x: Any) -> Any:
            return drop(round_key(number), x, case.rate)

        def backward(number: Any, dy: Any) -> Any:
            return jax.vjp(lambda x: forward(number, x), dy)[1](dy)[0]

        return awaited(backward if case.backward else forward, [(case.x,)])

    def gaussian_dropout(self, case: GaussianDropout) -> Prepare:
        def forward(number: Any, x: Any) -> Any:
            return x * (1 + case.stddev * jax.random.normal(round_key(number), x.shape))

        def backward(number: Any, dy: Any) -> Any:
            return jax.vjp(lambda x: forward(number, x), dy)[1](dy)[0]

        return awaited(backward if case.backward else forward, [(case.x,)])

    def activation(self, case: Activation) -> Prepare | None:
        return self._elementwise(ACTIVATIONS[case.name], case)

    def softmax(self, case: Softmax) -> Prepare | None:
        return self._elementwise(lambda x: jax.nn.softmax(x, axis=1), case)

    def _elementwise(self, function: Callable[[Any], Any], case: Activation | Softmax) -> Prepare | None:
        if case.dtype != "float32":
            return None

        def forward(number: Any, x: Any, dy: Any) -> Any:
            return function(x)

        def backward(number: Any, x: Any, dy: Any) -> Any:
            return jax.vjp(function, x)[1](dy)[0]

        return awaited(backward if case.backward else forward, [(case.x, case.dy)])

    def dense(self, case: Dense) -> Prepare | None:
        if case.dtype != "float32" or case.order != "C":
            return None
        activation = ACTIVATIONS[case.activation]

        def layer(number: Any, x: Any, weight: Any, bias: Any) -> Any:
            return drop(round_key(number), activation(x @ weight + bias), case.rate)

        def forward(number: Any, x: Any, weight: Any, bias: Any, dy: Any) -> Any:
            return layer(number, x, weight, bias)

        def forward_backward(number: Any, x: Any, weight: Any, bias: Any, dy: Any) -> Any:
            y, vjp = jax.vjp(lambda *operands: layer(number, *operands), x, weight, bias)
            return y, *vjp(dy)

        return awaited(forward_backward if case.backward else forward, case.sets)

    def step(self, case: Step) -> Prepare:
        rates = case.architecture.rates

        def loss_of(layers: Any, key: Any, x: Any, labels: Any) -> Any:
            for number, ((weight, bias), rate) in enumerate(zip(layers, rates, strict=True)):
                x = drop(jax.random.fold_in(key, number), jax.nn.relu(x) if number else x, rate) @ weight + bias
            return -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1).mean()

        def step(state: Any, number: Any, x: Any, labels: Any) -> Any:
            layers, velocities = state
            loss, gradients = jax.value_and_grad(loss_of)(layers, round_key(number), x, labels)
            velocities = jax.tree.map(lambda v, g: MOMENTUM * v - LEARNING_RATE * g, velocities, gradients)
            return (jax.tree.map(jnp.add, layers, velocities), velocities), loss

        compiled = jax.jit(step, donate_argnums=0)
        layers = jax.device_put(list(case.architecture.starting_values()))
        state = layers, jax.tree.map(jnp.zeros_like, layers)
        batches = jax.device_put(case.batches)

        def run(number: int) -> Any:
            nonlocal state
            state, loss = compiled(state, number, *batches[number % len(batches)])
            jax.block_until_ready(state)
            return float(loss)

        return lambda number: lambda: run(number)

    def inference(self, case: Inference) -> Prepare:
        layers = jax.device_put(list(case.architecture.starting_values()))

        def predict(layers: Any, x: Any) -> Any:
            for weight, bias in layers[:-1]:
                x = jax.nn.relu(x @ weight + bias)
            return x @ layers[-1][0] + layers[-1][1]

        compiled = jax.jit(predict)
        inputs = jax.device_put([x for x, _ in case.batches])
        return lambda number: lambda: compiled(layers, inputs[number % len(inputs)]).block_until_ready()

    def monte_carlo(self, case: MonteCarlo) -> Prepare:
        """Some passes at a time: their rows are ROWS_AT_ONCE at most, so that they stay in a cache."""
        layers = jax.device_put(list(case.architecture.starting_values()))
        rates, at_once = case.architecture.rates, min(case.passes, max(1, ROWS_AT_ONCE // case.batch))

        def probabilities(key: Any, layers: Any, x: Any) -> Any:
            for number, ((weight, bias), rate) in enumerate(zip(layers, rates, strict=True)):
                x = drop(jax.random.fold_in(key, number), jax.nn.relu(x) if number else x, rate) @ weight + bias
            return jax.nn.softmax(x)

        def means(number: Any, layers: Any, x: Any) -> Any:
            keys = jax.random.split(round_key(number), case.passes)
            return jax.lax.map(lambda key: probabilities(key, layers, x), keys, batch_size=at_once).mean(0)

        return awaited(means, [(layers, x) for x, _ in case.batches])
