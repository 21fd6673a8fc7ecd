"""A training described by a few numbers: what the command line trains, sweeps and tunes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from fastdrop import _validate, activations
from fastdrop.constraints import MaxNorm
from fastdrop.data import Dataset
from fastdrop.layers import AbstractLayer, Conv2D, Dense, Dropout, Flatten, MaxPool2D
from fastdrop.optim import SGD, AbstractOptimizer, Adam, AdamW
from fastdrop.rates import widen
from fastdrop.schedules import CosineDecay
from fastdrop.sequential import Sequential

LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
SCHEDULES = ("constant", "cosine")
LOSSES = {"softmax": "softmax_cross_entropy", "sigmoid": "categorical_cross_entropy"}
"""Loss by the kind of outputs; sigmoid outputs are made probabilities by dividing each by their sum."""

MAX_UNITS = 1 << 20
"""Bound on the units of a layer: beyond it, a number is a slip."""
KERNEL, POOL = 3, 2
"""Sizes of the convolutions' kernels, and of the max-pooling behind each."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network for classes and its training: all that decides the result, beside the data.

    The network has a convolution (3 x 3, padding "same") and 2 x 2 max-pooling for each of `filters`, then a dense layer with
    dropout behind it for each of `hidden`, and an output for each class.

    Attributes
    ----------
    filters, hidden : tuple of int
    rates : tuple of float
        Dropout of the inputs, then of each hidden layer; the last one is repeated.
    activation : str
        Of all layers but the last.
    outputs : "softmax" or "sigmoid"
        Activation of the last layer; the loss is the cross-entropy of the outputs, divided by their sum.
    epochs, batch_size : int
    optimizer : "sgd", "adam" or "adamw"
    learning_rate : float, optional
        At the start; 0.1 for sgd and 0.001 for the others by default.
    schedule : "constant" or "cosine"
    momentum : float
        For sgd.
    weight_decay : float
    max_norm : float
        Largest norm of the weights of a hidden unit; 0 is no limit.
    seed : int
    widen : bool
        Divide the units of each hidden layer by 1 - rate of the dropout behind it.

    Raises
    ------
    TypeError, ValueError: an argument is not what is said here.

    Examples
    --------
    >>> import fastdrop as fd
    >>> recipe = fd.Recipe(hidden=(64, 32), rates=(0.0, 0.5), epochs=5)
    >>> recipe.describe(fd.data.load("digits"))
    '64-64-32-10, relu, dropout 0/0.5/0.5, adam'
    """

    filters: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (1024, 1024)
    rates: tuple[float, ...] = (0.2, 0.5)
    activation: str = "relu"
    outputs: str = "softmax"
    epochs: int = 30
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float | None = None
    schedule: str = "cosine"
    momentum: float = 0.9
    weight_decay: float = 0.0
    max_norm: float = 0.0
    seed: int = 0
    widen: bool = False

    def __post_init__(self) -> None:
        """Check each number and name; what they make together is checked where it is made."""
        for name in ("filters", "hidden"):
            entries = _validate.sequence(name, getattr(self, name), "a list of integers")
            object.__setattr__(self, name, tuple(_validate.integer(name, entry, 1, MAX_UNITS) for entry in entries))
        rates = _validate.sequence("rates", self.rates, "a list of rates")
        object.__setattr__(self, "rates", tuple(_validate.rate("rates", rate) for rate in rates))
        _validate.choice("activation", self.activation, activations.FUNCTIONS)
        _validate.choice("outputs", self.outputs, LOSSES)
        _validate.choice("optimizer", self.optimizer, LEARNING_RATES)
        _validate.choice("schedule", self.schedule, SCHEDULES)
        _validate.integer("epochs", self.epochs, 1)
        _validate.integer("batch_size", self.batch_size, 1)
        if self.learning_rate is not None:
            _validate.real("learning_rate", self.learning_rate, 0.0, open_low=True)
        _validate.real("momentum", self.momentum, 0.0, 1.0, open_high=True)
        _validate.real("weight_decay", self.weight_decay, 0.0)
        _validate.real("max_norm", self.max_norm, 0.0)
        _validate.integer("seed", self.seed, 0, _validate.MAX_SEED)
        _validate.boolean("widen", self.widen)

    @property
    def loss(self) -> str:
        """Name of the loss."""
        return LOSSES[self.outputs]

    @property
    def initial_learning_rate(self) -> float:
        """The learning rate at the start."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def all_rates(self) -> tuple[float, ...]:
        """Return the rate of the inputs and of each hidden layer."""
        wanted = 1 + len(self.hidden)
        if not 0 < len(self.rates) <= wanted:
            _validate.fail_value("rates", f"one to {wanted} numbers: there are {wanted} places for dropout", len(self.rates))
        return self.rates + self.rates[-1:] * (wanted - len(self.rates))

    def units(self) -> tuple[int, ...]:
        """Return the units of the hidden layers: as given, or widened."""
        if not self.widen:
            return self.hidden
        widened = tuple(widen(units, rate) for units, rate in zip(self.hidden, self.all_rates()[1:], strict=True))
        if any(units > MAX_UNITS for units in widened):
            _validate.fail_value("widen", f"such that no layer has more than {MAX_UNITS} units", f"{max(widened)} units")
        return widened

    def with_hidden_rate(self, rate: float, seed: int) -> Recipe:
        """Return the same with another rate of all hidden layers, and another seed."""
        return replace(self, rates=(self.all_rates()[0], rate), seed=seed)

    def differences(self) -> str:
        """Return what is not as by default, in a line, but for what a sweep says itself: hidden rates, seed, epochs, batches."""
        said = ("seed", "rates", "epochs", "batch_size")
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in said}
        defaults = {field.name: field.default for field in fields(self)}
        parts = [f"{name} {value}" for name, value in own.items() if value != defaults[name]]
        first = self.all_rates()[0]
        return ", ".join([*parts, *([f"input rate {first!r}"] if first else [])])

    @classmethod
    def around(cls, build: Any, epochs: Any, batch_size: Any) -> Recipe:
        """Return `build`, or the default recipe if it is none, with other epochs and batches unless they are None."""
        recipe = build if isinstance(build, Recipe) else cls()
        return replace(
            recipe,
            epochs=recipe.epochs if epochs is None else epochs,
            batch_size=recipe.batch_size if batch_size is None else batch_size,
        )

    def check(self, dataset: Dataset) -> None:
        """Raise unless a network can be made for the data."""
        if self.filters:
            count, shape = len(self.filters), dataset.x_train.shape[1:]
            if dataset.image_shape is None:
                wanted = "empty unless rows are images (height, width, channels)"
                _validate.fail_value("filters", wanted, f"{count} for rows of shape {shape}")
            if min(shape[:2]) < POOL**count:
                wanted = f"of no more layers than the images can be halved, each with pooling of {POOL} x {POOL}"
                _validate.fail_value("filters", wanted, f"{count} for rows of shape {shape}")
        self.network(dataset)

    def prepared(self, dataset: Dataset) -> Dataset:
        """Return the data as the network takes them: images for convolutions, else rows of features."""
        return dataset if self.filters else dataset.flat()

    def network(self, dataset: Dataset) -> Sequential:
        """Return the network, untrained; dropout of rate 0 is left out."""
        rates = self.all_rates()
        constraint = MaxNorm(self.max_norm) if self.max_norm else None
        common: dict[str, Any] = {"activation": self.activation, "weight_constraint": constraint}
        layers: list[AbstractLayer] = [Dropout(rates[0])]
        for filters in self.filters:
            layers += [Conv2D(filters, KERNEL, padding="same", **common), MaxPool2D(POOL)]
        if self.filters:
            layers.append(Flatten())
        for units, rate in zip(self.units(), rates[1:], strict=True):
            layers += [Dense(units, **common), Dropout(rate)]
        layers = [layer for layer in layers if not isinstance(layer, Dropout) or layer.rate > 0]
        last = Dense(dataset.classes, activation="sigmoid" if self.outputs == "sigmoid" else None)
        net = Sequential([*layers, last], input_shape=self.prepared(dataset).x_train.shape[1:], seed=self.seed)
        net.labels = list(dataset.labels)
        return net

    def make_optimizer(self, rows: int) -> AbstractOptimizer:
        """Return the optimiser; a cosine schedule falls to 0 at the last step over `rows` training rows."""
        steps = max(1, self.epochs * math.ceil(rows / self.batch_size))
        start = self.initial_learning_rate
        learning_rate = CosineDecay(start, steps) if self.schedule == "cosine" else start
        if self.optimizer == "sgd":
            return SGD(learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
        return {"adam": Adam, "adamw": AdamW}[self.optimizer](learning_rate, weight_decay=self.weight_decay)

    def describe(self, dataset: Dataset) -> str:
        """Return the network and its training in a line."""
        shape = self.prepared(dataset).x_train.shape[1:]
        parts = ["x".join(map(str, shape)), *(f"{filters}c" for filters in self.filters), *map(str, self.units())]
        rates = "/".join(f"{rate:g}" for rate in self.all_rates())
        outputs = "" if self.outputs == "softmax" else f", {self.outputs} outputs"
        return f"{'-'.join([*parts, str(dataset.classes)])}, {self.activation}, dropout {rates}, {self.optimizer}{outputs}"
