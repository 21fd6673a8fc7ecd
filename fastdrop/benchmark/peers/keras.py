"""Keras on TensorFlow: networks as Keras has them, single operations as TensorFlow functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from fastdrop.benchmark.cases import (
    Architecture,
    Dense,
    Dropout,
    Fit,
    GaussianDropout,
    ImageFit,
    ImageNetwork,
    ImageStep,
    Inference,
    MonteCarlo,
    Prepare,
    Step,
    Work,
)
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.cases.convolution import KERNEL, POOL
from fastdrop.benchmark.peers.base import SEED, AbstractPeer

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": tf.nn.relu, "tanh": tf.tanh, "gelu": tf.nn.gelu}


def network(architecture: Architecture) -> Any:
    """Return the compiled model with its starting values."""
    keras.utils.set_random_seed(SEED)
    layers: list[Any] = [keras.Input(architecture.units[:1])]
    for number, (rate, units) in enumerate(zip(architecture.rates, architecture.units[1:], strict=True), 1):
        activation = "relu" if number < len(architecture.rates) else None
        layers += [keras.layers.Dropout(rate), keras.layers.Dense(units, activation=activation)]
    model = keras.Sequential(layers)
    model.set_weights([array for layer in architecture.starting_values() for array in layer])
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def image_network(described: ImageNetwork) -> Any:
    """Return the compiled model with its starting values."""
    keras.utils.set_random_seed(SEED)
    layers: list[Any] = [keras.Input((described.extent, described.extent, described.channels))]
    for filters in described.filters:
        layers += [keras.layers.Conv2D(filters, KERNEL, padding="same", activation="relu"), keras.layers.MaxPooling2D(POOL)]
    layers.append(keras.layers.Flatten())
    for units in described.hidden:
        layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(described.rate)]
    model = keras.Sequential([*layers, keras.layers.Dense(described.classes)])
    model.set_weights([array for layer in described.starting_values() for array in layer])
    model.compile(keras.optimizers.Adam(LEARNING_RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def function(python_function: Callable[..., Any], sets: list[Any]) -> Prepare:
    """Return rounds of a TensorFlow function, the operands in turn."""
    compiled = tf.function(python_function)
    tensors = [tuple(map(tf.constant, operands)) for operands in sets]

    def prepare(number: int) -> Work:
        operands = tensors[number % len(tensors)]
        return lambda: tf.nest.map_structure(lambda tensor: tensor.numpy(), compiled(*operands))

    return prepare


class Keras(AbstractPeer):
    """TensorFlow's default generator."""

    name, distribution = "Keras", "keras"

    def version(self) -> str:
        return f"{super().version()}, TensorFlow {tf.__version__}"

    def dropout(self, case: Dropout) -> Prepare:
        def forward(x: Any) -> Any:
            return tf.nn.dropout(x, case.rate)

        def backward(dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(dy)
                y = forward(dy)
            return tape.gradient(y, dy, dy)

        return function(backward if case.backward else forward, [(case.x,)])

    def gaussian_dropout(self, case: GaussianDropout) -> Prepare:
        layer = keras.layers.GaussianDropout(case.rate, seed=SEED)

        def forward(x: Any) -> Any:
            return layer(x, training=True)

        def backward(dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(dy)
                y = forward(dy)
            return tape.gradient(y, dy, dy)

        return function(backward if case.backward else forward, [(case.x,)])

    def dense(self, case: Dense) -> Prepare | None:
        if case.order != "C":
            return None

        def forward(x: Any, weight: Any, bias: Any, dy: Any) -> Any:
            return tf.nn.dropout(ACTIVATIONS[case.activation](tf.matmul(x, weight) + bias), case.rate)

        def forward_backward(x: Any, weight: Any, bias: Any, dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch([x, weight, bias])
                y = forward(x, weight, bias, dy)
            return y, *tape.gradient(y, [x, weight, bias], dy)

        return function(forward_backward if case.backward else forward, case.sets)

    def step(self, case: Step) -> Prepare:
        model = network(case.architecture)
        return lambda number: lambda: model.train_on_batch(*case.batches[number % len(case.batches)])

    def fit(self, case: Fit) -> Prepare:
        model, (x, labels) = network(case.architecture), case.data

        def run() -> Any:
            return model.fit(x, labels, batch_size=case.batch, verbose=0).history["loss"][-1]

        return lambda number: run

    def image_step(self, case: ImageStep) -> Prepare | None:
        if case.order != "NHWC":
            return None
        model = image_network(case.network)
        return lambda number: lambda: model.train_on_batch(*case.batches[number % len(case.batches)])

    def image_fit(self, case: ImageFit) -> Prepare:
        model, (x, labels) = image_network(case.network), case.data

        def run() -> Any:
            return model.fit(x, labels, batch_size=case.batch, verbose=0).history["loss"][-1]

        return lambda number: run

    def inference(self, case: Inference) -> Prepare:
        model = network(case.architecture)
        return function(lambda x: model(x, training=False), [(x,) for x, _ in case.batches])

    def monte_carlo(self, case: MonteCarlo) -> Prepare:
        """All passes at once: the rows repeated."""
        model = network(case.architecture)

        def means(x: Any) -> Any:
            outputs = tf.nn.softmax(model(tf.tile(x, (case.passes, 1)), training=True))
            return tf.reduce_mean(tf.reshape(outputs, (case.passes, len(x), -1)), 0)

        return function(means, [(x,) for x, _ in case.batches])
