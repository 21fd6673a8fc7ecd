"""`fastdrop train`: a network with dropout on a data set, and everything that is kept of the run."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Any

import click

from fastdrop import _config
from fastdrop.callbacks import ModelCheckpoint
from fastdrop.callbacks.files import literal
from fastdrop.cli.files import write_csv
from fastdrop.cli.numbers import number_text
from fastdrop.cli.options import (
    DATA,
    MAX_SEED,
    NETWORK,
    PATH,
    RATES,
    THREADS,
    TRAINING,
    load_part,
    make_recipe,
    with_options,
)
from fastdrop.cli.outputs import Outputs
from fastdrop.data import Dataset
from fastdrop.experiments.figures import plot_history
from fastdrop.experiments.recipe import Recipe
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import History
from fastdrop.sequential import Sequential
from fastdrop.serialization import save_checkpoint

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""


@click.command(context_settings={"show_default": True})
@with_options(DATA, NETWORK)
@click.option(
    "--rates",
    type=RATES,
    metavar="R,R,...",
    default=number_text(Recipe.rates),
    help="Dropout of the inputs, then of each hidden layer (last one repeated).",
)
@click.option("--widen", is_flag=True, help="Divide the units of each hidden layer by 1 - rate of the dropout behind it.")
@with_options(TRAINING)
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, help="Same seed, same bits, with any number of threads.")
@with_options(THREADS)
@click.option("-o", "--output", type=PATH, default="model.safetensors", help="The trained network.")
@click.option("--history", type=PATH, show_default="MODEL-history.csv", help="Loss and accuracy by epoch.")
@click.option("--plot", type=PATH, show_default="MODEL-history.png", help="The same as a picture (.png, .svg, .pdf).")
@click.option("--no-plot", is_flag=True, help="Draw no picture.")
@click.option(
    "--checkpoint", type=PATH, show_default="MODEL-checkpoint.safetensors", help="State of the training, after each epoch."
)
@click.option("--resume", is_flag=True, help="Continue from the checkpoint, with all other options as before.")
@click.option("--no-progress", is_flag=True, help="No progress bar, and no lines for the epochs.")
@click.option("-q", "--quiet", is_flag=True, help="Print the test accuracy alone.")
@click.pass_obj
def train(
    arguments: list[str],
    /,
    data: str,
    rows: int | None,
    validation_split: float,
    threads: int | None,
    resume: bool,
    no_progress: bool,
    quiet: bool,
    output: Path,
    history: Path | None,
    plot: Path | None,
    no_plot: bool,
    checkpoint: Path | None,
    **options: Any,
) -> int:
    """Train a network with dropout and save it.

    Images are flattened, unless there are --filters. Progress is measured on the test data, or on a part of the training data
    with --validation-split. Without --checkpoint the state of the training is saved on Ctrl-C only; either way the command that
    continues is printed.

    \b
    Examples:
      fastdrop train
      fastdrop train --data mnist --epochs 30 -o mnist.safetensors
      fastdrop train --data table.csv --hidden 256 --rates 0,0.3 --optimizer sgd
    """
    outputs = Outputs.of(output, history, plot, no_plot, checkpoint)
    recipe = make_recipe(**options)
    if threads is not None:
        _config.set_num_threads(threads)
    dataset, watched = load_part(data, rows, validation_split)
    recipe.check(dataset)
    dataset, watched = recipe.prepared(dataset), recipe.prepared(watched)
    net, optimizer = recipe.network(dataset), recipe.make_optimizer(len(watched.x_train))
    _say(quiet, f"{_describe(dataset)}\nnetwork {recipe.describe(dataset)}")
    callbacks = [] if checkpoint is None else [ModelCheckpoint(literal(outputs.checkpoint))]
    start = time.perf_counter()
    try:
        record = net.fit(
            watched.x_train,
            watched.y_train,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            optimizer=optimizer,
            loss=recipe.loss,
            validation_data=(watched.x_test, watched.y_test),
            callbacks=callbacks,
            progress=not (quiet or no_progress),
            resume=outputs.checkpoint if resume else None,
        )
    except KeyboardInterrupt:
        _save_state(outputs.checkpoint, net, optimizer, recipe.epochs)
        again = shlex.join(["fastdrop", *arguments, *([] if resume else ["--resume"])])
        click.echo(f"\ninterrupted; the state is in {outputs.checkpoint}\ncontinue with: {again}", err=True)
        return EXIT_INTERRUPTED
    net.save(outputs.model)
    _say(quiet, f"trained in {time.perf_counter() - start:.1f} s")
    if not math.isfinite(record.history["loss"][-1]):
        click.echo("warning: the loss is not finite: try a smaller --learning-rate, or inputs of about 0 to 1", err=True)
    test = net.evaluate(dataset.x_test, dataset.y_test, loss=recipe.loss)
    accuracy = f"test accuracy {100 * test['accuracy']:.2f} %"
    names = ("training, with dropout" if any(recipe.rates) else "training", "validation" if validation_split else "test")
    _write_record(outputs, record, f"{dataset.name}: {recipe.describe(dataset)}, {accuracy}", names)
    _say(quiet, outputs.describe())
    click.echo(f"{accuracy}, loss {test['loss']:.4f}")
    return 0


def _save_state(path: Path, net: Sequential, optimizer: AbstractOptimizer, epochs: int) -> None:
    """Save a run that ended between two steps; weights that a second Ctrl-C left half updated are no state to continue from."""
    progress = optimizer.progress
    if progress is None or not (progress.interrupted or progress.epoch == epochs):
        raise click.Abort
    save_checkpoint(path, net, optimizer)


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        click.echo(text)


def _describe(dataset: Dataset) -> str:
    """Return the size of a data set in a line."""
    rows = f"{len(dataset.x_train)} training and {len(dataset.x_test)} test rows"
    shape = dataset.x_train.shape[1:]
    features = f"{shape[0]} features" if len(shape) == 1 else f"{' x '.join(map(str, shape))} elements"
    return f"data {dataset.name}: {rows} of {features}, {dataset.classes} classes"


def _write_record(outputs: Outputs, record: History, title: str, names: tuple[str, str]) -> None:
    """Write the history as a table and as a picture."""
    rows = zip([epoch + 1 for epoch in record.epochs], *record.history.values(), strict=True)
    write_csv(outputs.history, ["epoch", *record.history], rows)
    if outputs.plot is not None:
        plot_history(outputs.plot, record.epochs, record.history, title, names)
