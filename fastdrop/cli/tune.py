"""`fastdrop tune`: the search for the rate of each hidden layer, the learning rate and the width."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fastdrop import _config
from fastdrop.cli.numbers import number_span, number_text
from fastdrop.cli.options import (
    COUNT,
    DATA,
    MAX_SEED,
    NETWORK,
    PART,
    THREADS,
    TRAINING,
    load_part,
    make_recipe,
    with_options,
)
from fastdrop.cli.outputs import pictures_beside
from fastdrop.errors import ArgumentValueError
from fastdrop.experiments.recipe import MAX_UNITS, Recipe
from fastdrop.experiments.space import SearchSpace
from fastdrop.experiments.tune import TRIALS, VALIDATION_SPLIT, Tuning
from fastdrop.experiments.tune import tune as run_tune

SPLIT = click.FloatRange(0, 1, min_open=True, max_open=True)
RATES = number_span(float, 0.0, 1.0, 3)
LEARNING_RATES = number_span(float, 0.0, float("inf"), 2)
UNITS = number_span(int, 1, MAX_UNITS, 3)


@click.command(context_settings={"show_default": True})
@with_options(DATA[:2])
@click.option(
    "--validation-split", type=SPLIT, default=VALIDATION_SPLIT, help="Part of the training data to measure the trials on."
)
@click.option("--trials", type=COUNT, show_default=f"{TRIALS}, or as the budget allows", help="Trials, earlier calls included.")
@click.option("--budget", type=COUNT, metavar="EPOCHS", help="Largest number of epochs of all trials together.")
@click.option("--rates", type=RATES, metavar="A:B:STEP", default="0.0:0.8:0.1", help="Dropout of each hidden layer.")
@click.option(
    "--learning-rates", type=LEARNING_RATES, metavar="A:B", show_default="--learning-rate / 10 to * 10", help="Log scale."
)
@click.option("--units", type=UNITS, metavar="A:B:STEP", show_default="--hidden / 4 to * 2", help="Of the widest hidden layer.")
@click.option("--input-rate", type=PART, default=0.0, help="Dropout of the inputs.")
@with_options(NETWORK, TRAINING)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, help="Of the search and of the networks.")
@with_options(THREADS)
@click.option("--processes", type=COUNT, default=1, help="Trials at the same time; they share the threads.")
@click.option("-o", "--output", metavar="FILE|URL", default="tune.db", help="SQLite file, or URL of a data base to share.")
@click.option("--name", help="Of the study in it.  [default: one for each training and space]")
@click.option("--no-plot", is_flag=True, help="Draw no pictures.")
@click.option("-q", "--quiet", is_flag=True, help="Print the command that trains the best network alone.")
@click.pass_obj
def tune(
    arguments: list[str],
    /,
    data: str,
    rows: int | None,
    validation_split: float,
    trials: int | None,
    budget: int | None,
    rates: tuple[float, float, float],
    learning_rates: tuple[float, float] | None,
    units: tuple[int, int, int] | None,
    input_rate: float,
    threads: int | None,
    processes: int,
    output: str,
    name: str | None,
    no_plot: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Search for the dropout rate of each hidden layer, the learning rate and the width (needs the extra "tune").

    Trials are proposed by Optuna's TPE, the first one with rate 0.5 everywhere, and stopped early by Hyperband. They are measured
    on a part of the training data; the test data are not looked at. After Ctrl-C, or a kill, the same command goes on.

    \b
    Examples:
      fastdrop tune --hidden 256,256 --epochs 10 --trials 30
      fastdrop tune --data images.npz --filters 32,64 --hidden 256 --units 256 --processes 2 -o images.db
      fastdrop tune --data mnist -o postgresql://user@host/study     the same on as many machines as there are
    """
    path = Path("tune.db" if "://" in output else output)
    pictures = pictures_beside(path, no_plot)
    try:
        space = SearchSpace(rates, learning_rates, units)
    except ArgumentValueError as error:
        raise click.UsageError(str(error)) from error
    if not options["hidden"]:
        raise click.UsageError("--hidden none: a search needs a hidden layer, behind which units are dropped")
    recipe = make_recipe(rates=(input_rate, 0.5), **options)
    if budget is not None and budget < recipe.epochs:
        raise click.UsageError(f"--budget {budget}: not enough for a trial of {recipe.epochs} --epochs")
    if threads is not None:
        _config.set_num_threads(threads)
    dataset, _ = load_part(data, rows, 0.0)
    try:
        found = run_tune(
            recipe,
            dataset,
            trials=trials,
            budget=budget,
            space=space,
            validation_split=validation_split,
            storage=output,
            name=name,
            seed=recipe.seed,
            processes=processes,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; continue with: {shlex.join(['fastdrop', *arguments])}", err=True)
        raise
    for picture in pictures:
        found.plot(picture, f"{dataset.name}: {recipe.describe(dataset).partition(', dropout')[0]}")
        if not quiet:
            click.echo(f"plot {picture}")
    if not quiet:
        click.echo(_summary(found))
    click.echo(shlex.join(_command(found.recipe, data, rows)))


def _summary(found: Tuning) -> str:
    """Return the study, the importances and the best trial, in lines."""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in found.importances.items())
    importances = [f"importance {parts}"] if parts else []
    trials = f"trials {len(found.trials)}, stopped early {found.pruned}, epochs {found.epochs}"
    best = f"best trial {found.best.number}: validation accuracy {100 * found.best.accuracy:.2f} %; train it with:"
    return "\n".join([f"study {found.name}: {trials}", *importances, best])


def _command(recipe: Recipe, data: str, rows: int | None) -> list[str]:
    """Return the command that trains a recipe: options that are not as by default."""
    words = ["fastdrop", "train", "--data", data, *([] if rows is None else ["--rows", str(rows)])]
    for option in fields(Recipe):
        value = getattr(recipe, option.name)
        if value != option.default:
            text = number_text(value) if isinstance(value, tuple) else str(value)
            words += [f"--{option.name.replace('_', '-')}", text]
    return words
