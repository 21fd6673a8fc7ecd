"""Options that several commands have: the data, the network and its training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from fastdrop import activations
from fastdrop.cli.numbers import number_list, number_text
from fastdrop.data import Dataset, load
from fastdrop.errors import ArgumentValueError
from fastdrop.experiments.recipe import LEARNING_RATES, LOSSES, MAX_UNITS, SCHEDULES, Recipe

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_SEED = 2**64 - 1
UNITS = number_list(int, 1, MAX_UNITS, none=True)
RATES = number_list(float, 0.0, 1.0)
POSITIVE = click.FloatRange(0, min_open=True)
NOT_NEGATIVE = click.FloatRange(0)
PART = click.FloatRange(0, 1, max_open=True)
COUNT = click.IntRange(1)
PATH = click.Path(path_type=Path)
ACTIVATIONS = [name for name in activations.FUNCTIONS if name not in ("softmax", "heaviside")]

DATA = (
    click.option("--data", default="digits", metavar="PATH", help='Folder of IDX or CIFAR-10 files, .npz, .csv, or "digits".'),
    click.option("--rows", type=COUNT, show_default="all", help="Take so many training rows, the first ones."),
    click.option(
        "--validation-split", type=PART, default=0.0, help="Part of the training data to watch instead of the test data."
    ),
)
NETWORK = (
    click.option(
        "--filters",
        type=UNITS,
        metavar="N,N,...",
        default=number_text(Recipe.filters),
        help="Convolutions of images, 3 x 3 and pooled.",
    ),
    click.option(
        "--hidden",
        type=UNITS,
        metavar="N,N,...",
        default=number_text(Recipe.hidden),
        help='Units of the hidden layers, or "none".',
    ),
    click.option("--activation", type=click.Choice(ACTIVATIONS), default=Recipe.activation, help="Of the hidden layers."),
    click.option("--outputs", type=click.Choice(list(LOSSES)), default=Recipe.outputs, help="Activation of the last layer."),
)
TRAINING = (
    click.option("--epochs", type=COUNT, default=Recipe.epochs, help="Passes over the training data."),
    click.option("--batch-size", type=COUNT, default=Recipe.batch_size, help="Rows in a step."),
    click.option("--optimizer", type=click.Choice(list(LEARNING_RATES)), default=Recipe.optimizer, help="Rule of the updates."),
    click.option("--learning-rate", type=POSITIVE, show_default="sgd 0.1, others 0.001", help="At the start."),
    click.option("--schedule", type=click.Choice(SCHEDULES), default=Recipe.schedule, help="How the learning rate goes on."),
    click.option("--momentum", type=PART, default=Recipe.momentum, help="For sgd."),
    click.option("--weight-decay", type=NOT_NEGATIVE, default=Recipe.weight_decay, help="Decoupled from the gradient."),
    click.option(
        "--max-norm", type=NOT_NEGATIVE, default=Recipe.max_norm, help="Largest norm of a hidden unit's weights; 0: no limit."
    ),
)
THREADS = (click.option("--threads", type=COUNT, show_default="all available CPUs", help="Number of threads."),)


def with_options(*groups: tuple[Callable[[Any], Any], ...]) -> Callable[[Command], Command]:
    """Give a command the options of the groups, in their order."""

    def decorate(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def load_part(data: str, rows: int | None, validation_split: float) -> tuple[Dataset, Dataset]:
    """Return (the data set, the same with what is trained on and watched in place of its parts)."""
    dataset = load(data)
    if rows is not None:
        dataset = replace(dataset, x_train=dataset.x_train[:rows], y_train=dataset.y_train[:rows])
    return dataset, dataset.hold_out(validation_split) if validation_split else dataset


def make_recipe(**options: Any) -> Recipe:
    """Return the recipe that the options make; one that makes no sense is wrong usage."""
    try:
        recipe = Recipe(**options)
        recipe.all_rates()
        recipe.units()
    except ArgumentValueError as error:
        raise click.UsageError(str(error)) from error
    return recipe
