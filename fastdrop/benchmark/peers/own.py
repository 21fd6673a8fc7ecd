"""This library."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from fastdrop import _config, functional, fused
from fastdrop._types import ActivationKind, Array, Domain, MaskKind
from fastdrop._version import __version__
from fastdrop.backends.operands import Normals
from fastdrop.backends.select import default_backend
from fastdrop.benchmark.cases import (
    Activation,
    Architecture,
    ColumnNorms,
    Convolution,
    Decisions,
    Dense,
    Dropout,
    Fit,
    GaussianDropout,
    ImageFit,
    ImageNetwork,
    ImageStep,
    Inference,
    Loss,
    MonteCarlo,
    Prepare,
    Product,
    ScaledCopy,
    Serving,
    SharedDense,
    SharedMonteCarlo,
    SharedStep,
    Softmax,
    Step,
    SumOfSquares,
    Update,
    Words,
    Work,
)
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.cases.convolution import KERNEL, POOL
from fastdrop.benchmark.cases.updates import MAX_NORM
from fastdrop.benchmark.peers.base import SEED, AbstractPeer
from fastdrop.layers import AbstractLayer, Conv2D, Flatten, MaxPool2D
from fastdrop.layers import Dense as DenseLayer
from fastdrop.layers import Dropout as DropoutLayer
from fastdrop.mask import Mask
from fastdrop.optim import SGD, Adam
from fastdrop.rng import Key
from fastdrop.sequential import Sequential
from fastdrop.window import window_of


def mask(rate: float, number: int) -> Mask:
    """Return the mask of a round."""
    return Mask(rate, Key(SEED, 0, number))


def network(architecture: Architecture, shared_rows: int | str = 1) -> Sequential:
    """Return the network with its starting values."""
    *hidden, outputs = architecture.units[1:]
    *rates, last_rate = architecture.rates
    layers = [
        layer
        for rate, units in zip(rates, hidden, strict=True)
        for layer in (DropoutLayer(rate, shared_rows=shared_rows), DenseLayer(units, activation="relu"))
    ]
    layers += [DropoutLayer(last_rate, shared_rows=shared_rows), DenseLayer(outputs)]
    net = Sequential(layers, input_shape=architecture.units[:1], seed=SEED)
    values = [array for layer in architecture.starting_values() for array in layer]
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.value = value
    return net


def image_network(described: ImageNetwork) -> Sequential:
    """Return the network with its starting values."""
    layers: list[AbstractLayer] = []
    for filters in described.filters:
        layers += [Conv2D(filters, KERNEL, padding="same", activation="relu"), MaxPool2D(POOL)]
    layers.append(Flatten())
    for units in described.hidden:
        layers += [DenseLayer(units, activation="relu"), DropoutLayer(described.rate)]
    sides = described.extent, described.extent, described.channels
    net = Sequential([*layers, DenseLayer(described.classes)], input_shape=sides, seed=SEED)
    values = [array for layer in described.starting_values() for array in layer]
    for parameter, value in zip(net.parameters(), values, strict=True):
        parameter.value = value
    return net


class Fastdrop(AbstractPeer):
    """Fused kernels, masks of the contract."""

    name = "fastdrop"

    def version(self) -> str:
        return __version__

    def set_threads(self, threads: int) -> bool:
        _config.set_num_threads(threads)
        return True

    def dropout(self, case: Dropout) -> Prepare:
        x, out = case.x, case.x.copy()

        def prepare(number: int) -> Work:
            drawn = mask(case.rate, number)
            if not case.backward:
                return lambda: functional.dropout(x, drawn, out=out)[0]
            _, backward = functional.dropout(x, drawn, out=out)
            return lambda: backward(x, out=out)

        return prepare

    def gaussian_dropout(self, case: GaussianDropout) -> Prepare:
        """The seam's operation; a gradient is treated as x is."""
        x, out, backend = case.x, case.x.copy(), default_backend()
        operation = backend.noise_backward if case.backward else backend.noise_forward
        return lambda number: lambda: operation(x, Normals(Key(SEED, 0, number), 0, case.stddev, True), out)

    def scaled_copy(self, case: ScaledCopy) -> Prepare:
        x, out, backend = case.x, case.x.copy(), default_backend()
        factor = replace(mask(0.5, 0).bind(x.shape), kind=MaskKind.KEEP_ALL, scale=2.0)
        return lambda number: lambda: backend.dropout_forward(x, factor, out)

    def product(self, case: Product) -> Prepare | None:
        """The seam's operations, without bias, activation or mask."""
        if case.order != "C":
            return None
        backend, linear = default_backend(), ActivationKind.LINEAR
        outs = [case.factors(number)[2] for number in range(len(case.sets))]

        def backward(number: int, dweight: Array | None) -> Array | None:
            x, weight, _, dy = case.sets[number]
            dx = backend.dense_backward(
                dy, x, weight, dy, None, linear, None, None, dweight is None, dweight, None, accumulate=False
            )
            return dx if dweight is None else dweight

        def prepare(number: int) -> Work:
            at = number % len(case.sets)
            x, weight, _, _ = case.sets[at]
            if case.kind == "forward":
                return lambda: backend.dense_forward(x, weight, None, linear, None, None, False, outs[at])[0]
            return lambda: backward(at, outs[at] if case.kind == "dweight" else None)

        return prepare

    def convolution(self, case: Convolution) -> Prepare | None:
        """The seam's operations, without bias, activation or mask."""
        if case.order != "NHWC":
            return None
        backend, linear, sides = default_backend(), ActivationKind.LINEAR, (case.extent, case.extent)
        window = window_of(sides, (KERNEL, KERNEL), (1, 1), (1, 1), "same", "x")
        dweight = np.empty_like(case.sets[0][1]) if case.kind == "dweight" else None

        def backward(number: int) -> Array | None:
            x, weight, dy = case.sets[number]
            dx = backend.conv2d_backward(
                dy, x, weight, dy, None, window, linear, None, None, dweight is None, dweight, None, accumulate=False
            )
            return dx if dweight is None else dweight

        def prepare(number: int) -> Work:
            at = number % len(case.sets)
            x, weight, _ = case.sets[at]
            if case.kind == "forward":
                return lambda: backend.conv2d_forward(x, weight, None, window, linear, None, None, False)[0]
            return lambda: backward(at)

        return prepare

    def image_step(self, case: ImageStep) -> Prepare | None:
        if case.order != "NHWC":
            return None
        net, optimizer = image_network(case.network), Adam(LEARNING_RATE)

        def prepare(number: int) -> Work:
            x, labels = case.batches[number % len(case.batches)]
            return lambda: net.train_on_batch(x, labels, optimizer)

        return prepare

    def image_fit(self, case: ImageFit) -> Prepare:
        net, optimizer, (x, labels) = image_network(case.network), Adam(LEARNING_RATE), case.data

        def run() -> float:
            return net.fit(x, labels, batch_size=case.batch, optimizer=optimizer, progress=False).history["loss"][-1]

        return lambda number: run

    def dense(self, case: Dense) -> Prepare | None:
        if case.order != "C":
            return None

        def layer(number: int, drawn: Mask) -> object:
            x, weight, bias, dy = case.sets[number]
            y, backward = functional.dense(x, weight, bias, activation=case.activation, output_mask=drawn)
            return (y, *backward(dy)) if case.backward else y

        def prepare(number: int) -> Work:
            drawn = mask(case.rate, number)
            return lambda: layer(number % len(case.sets), drawn)

        return prepare

    def shared_dense(self, case: SharedDense) -> Prepare:
        """As a network does it; gradients of the parameters are compact where units are left out."""
        backend = default_backend()
        whole: list[fused.Destination] = [np.empty_like(array) for array in case.sets[0][1:3]]

        def prepare(number: int) -> Work:
            x, weight, bias, dy = case.sets[number % len(case.sets)]
            first, last = (drawn.bind(a.shape, as_matrix=True) for drawn, a in zip(case.masks(number), (x, dy), strict=True))
            skipped = fused.skips(first, last)
            inputs = fused.compact(backend, x, backend.units(first), first.scale) if skipped else x
            gradient = fused.compact(backend, dy, backend.units(last)) if skipped else dy

            def work() -> tuple[object, ...]:
                input_mask = None if skipped else first
                dweight, dbias = ([], []) if skipped else whole
                y, backward = fused.dense(backend, inputs, weight, bias, ActivationKind.RELU, input_mask, last, keep=True)
                return y, backward(gradient, True, dweight, dbias, False), dweight, dbias

            return work

        return prepare

    def activation(self, case: Activation) -> Prepare:
        operations, out = default_backend(), case.x.copy()
        if case.backward:
            return lambda number: lambda: operations.activation_backward(case.dy, case.x, case.kind, out)
        return lambda number: lambda: operations.activation_forward(case.x, case.kind, out)

    def softmax(self, case: Softmax) -> Prepare:
        operations, out = default_backend(), case.x.copy()
        if case.backward:
            return lambda number: lambda: operations.softmax_backward(case.dy, case.y, out)
        return lambda number: lambda: operations.softmax_forward(case.x, out)

    def loss(self, case: Loss) -> Prepare:
        compute = getattr(default_backend(), case.name)
        return lambda number: lambda: compute(case.outputs, case.labels, None, float(case.rows))

    def update(self, case: Update) -> Prepare:
        """The optimiser's step on a network of one weight."""
        net = Sequential([DenseLayer(case.columns, use_bias=False)], input_shape=(case.rows,), seed=SEED)
        (parameter,) = net.parameters()
        parameter.value, parameter.grad[...] = case.value.copy(), case.grad
        optimizer = {
            "sgd": SGD(LEARNING_RATE),
            "momentum": SGD(LEARNING_RATE, momentum=MOMENTUM),
            "adam": Adam(LEARNING_RATE),
        }[case.rule]

        def update() -> Array:
            optimizer.step(net)
            return parameter.value

        case.age(update, parameter.value, parameter.grad)
        return lambda number: update

    def sum_of_squares(self, case: SumOfSquares) -> Prepare:
        return lambda number: lambda: default_backend().sum_of_squares(case.x)

    def column_norms(self, case: ColumnNorms) -> Prepare:
        weight = case.weight.copy()

        def limit() -> Array:
            default_backend().limit_column_norms(weight, MAX_NORM)
            return weight

        return lambda number: limit

    def words(self, case: Words) -> Prepare:
        return lambda number: lambda: default_backend().words(Key(SEED, 0, number), Domain.DECISION_BYTES, 0, case.count)

    def decisions(self, case: Decisions) -> Prepare:
        def prepare(number: int) -> Work:
            bound = case.mask(number).bind((case.rows, case.columns), as_matrix=True)
            return lambda: default_backend().decisions(bound, (0, case.rows), (0, case.columns))

        return prepare

    def step(self, case: Step) -> Prepare:
        return self._step(case, network(case.architecture), SGD(LEARNING_RATE, momentum=MOMENTUM))

    def shared_step(self, case: SharedStep) -> Prepare:
        return self._step(case, network(case.architecture, case.shared_rows), SGD(LEARNING_RATE, momentum=case.momentum))

    def _step(self, case: Step, net: Sequential, optimizer: SGD) -> Prepare:

        def prepare(number: int) -> Work:
            x, labels = case.batches[number % len(case.batches)]
            return lambda: net.train_on_batch(x, labels, optimizer)

        return prepare

    def fit(self, case: Fit) -> Prepare:
        net, optimizer, (x, labels) = network(case.architecture), SGD(LEARNING_RATE, momentum=MOMENTUM), case.data

        def run() -> float:
            return net.fit(x, labels, batch_size=case.batch, optimizer=optimizer, progress=False).history["loss"][-1]

        return lambda number: run

    def inference(self, case: Inference) -> Prepare:
        predict = network(case.architecture).predictor()

        def prepare(number: int) -> Work:
            x, _ = case.batches[number % len(case.batches)]
            return lambda: predict(x)

        return prepare

    def monte_carlo(self, case: MonteCarlo) -> Prepare:
        """With standard deviations, entropies and mutual information, which `predict_mc` computes in any case."""
        return self._monte_carlo(case, network(case.architecture))

    def shared_monte_carlo(self, case: SharedMonteCarlo) -> Prepare:
        return self._monte_carlo(case, network(case.architecture, "batch"))

    def _monte_carlo(self, case: MonteCarlo, net: Sequential) -> Prepare:
        net.output_kind = "logits"

        def prepare(number: int) -> Work:
            x, _ = case.batches[number % len(case.batches)]
            return lambda: net.predict_mc(x, case.passes, first_sample=number * case.passes).mean

        return prepare

    def serving(self, case: Serving) -> Prepare:
        predict, pool = network(case.architecture).predictor(), ThreadPoolExecutor(case.callers)
        calls = case.repeats // case.callers

        def serve(caller: int) -> Any:
            x, _ = case.batches[caller % len(case.batches)]
            for _ in range(calls):
                y = predict(x)
            return y

        def run() -> list[Any]:
            threads = _config.get_num_threads()
            _config.set_num_threads(1)
            try:
                return list(pool.map(serve, range(case.callers)))
            finally:
                _config.set_num_threads(threads)

        return lambda number: run
