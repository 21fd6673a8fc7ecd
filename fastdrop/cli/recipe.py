"""What `fastdrop train` trains, and how: a network and an optimiser from a few numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import click

from fastdrop.constraints import MaxNorm
from fastdrop.data import Dataset
from fastdrop.layers import AbstractLayer, Dense, Dropout
from fastdrop.optim import SGD, AbstractOptimizer, Adam, AdamW
from fastdrop.rates import widen
from fastdrop.schedules import CosineDecay
from fastdrop.sequential import Sequential

LEARNING_RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.001}
SCHEDULES = ("constant", "cosine")

MAX_UNITS = 1 << 20
"""Bound on the units of a layer: beyond it, a number is a slip."""


@dataclass(frozen=True)
class Recipe:
    """The options of a training run that decide its result."""

    hidden: tuple[int, ...]
    rates: tuple[float, ...]
    activation: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float | None
    momentum: float
    weight_decay: float
    max_norm: float
    schedule: str
    seed: int
    widen: bool

    def all_rates(self) -> tuple[float, ...]:
        """Return the rate of the inputs and of each hidden layer; the last one given is repeated."""
        wanted = 1 + len(self.hidden)
        if len(self.rates) > wanted:
            raise click.UsageError(f"--rates has {len(self.rates)} numbers, but there are {wanted} places for dropout")
        return self.rates + self.rates[-1:] * (wanted - len(self.rates))

    def units(self) -> tuple[int, ...]:
        """Return the units of the hidden layers: as given, or widened by the rates of the dropout behind them."""
        if not self.widen:
            return self.hidden
        widened = tuple(widen(units, rate) for units, rate in zip(self.hidden, self.all_rates()[1:], strict=True))
        if any(units > MAX_UNITS for units in widened):
            raise click.UsageError(f"--widen makes a layer of {max(widened)} units, more than {MAX_UNITS}")
        return widened

    def network(self, dataset: Dataset) -> Sequential:
        """Return the network: dropout and dense layers in turn, dropout of rate 0 left out."""
        rates = self.all_rates()
        constraint = MaxNorm(self.max_norm) if self.max_norm else None
        layers: list[AbstractLayer] = [Dropout(rates[0])]
        for units, rate in zip(self.units(), rates[1:], strict=True):
            layers += [Dense(units, activation=self.activation, weight_constraint=constraint), Dropout(rate)]
        layers = [layer for layer in layers if not isinstance(layer, Dropout) or layer.rate > 0]
        features = dataset.x_train.shape[1]
        net = Sequential([*layers, Dense(dataset.classes)], input_shape=(features,), seed=self.seed)
        net.labels = list(dataset.labels)
        return net

    def make_optimizer(self, rows: int) -> AbstractOptimizer:
        """Return the optimiser; a cosine schedule falls to 0 at the last step over `rows` training rows."""
        rate = LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate
        steps = max(1, self.epochs * math.ceil(rows / self.batch_size))
        learning_rate = CosineDecay(rate, steps) if self.schedule == "cosine" else rate
        if self.optimizer == "sgd":
            return SGD(learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)
        return {"adam": Adam, "adamw": AdamW}[self.optimizer](learning_rate, weight_decay=self.weight_decay)

    def describe(self, dataset: Dataset) -> str:
        """Return the network and its training in a line."""
        units = "-".join(str(number) for number in (dataset.x_train.shape[1], *self.units(), dataset.classes))
        rates = "/".join(f"{rate:g}" for rate in self.all_rates())
        return f"{units}, {self.activation}, dropout {rates}, {self.optimizer}"
