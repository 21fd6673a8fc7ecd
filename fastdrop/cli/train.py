"""`fastdrop train`: a dense network with dropout on a data set, and everything that is kept of the run."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Any

import click

from fastdrop import _config, activations
from fastdrop.callbacks import ModelCheckpoint
from fastdrop.cli.files import write_csv
from fastdrop.cli.numbers import number_list
from fastdrop.cli.outputs import Outputs
from fastdrop.cli.plot import plot_history
from fastdrop.cli.recipe import LEARNING_RATES, MAX_UNITS, SCHEDULES, Recipe
from fastdrop.data import Dataset, load
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import History
from fastdrop.sequential import Sequential
from fastdrop.serialization import save_checkpoint

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""

MAX_SEED = 2**64 - 1
UNITS = number_list(int, 1, MAX_UNITS, none=True)
RATES = number_list(float, 0.0, 1.0)
POSITIVE = click.FloatRange(0, min_open=True)
NOT_NEGATIVE = click.FloatRange(0)
PART = click.FloatRange(0, 1, max_open=True)
COUNT = click.IntRange(1)
PATH = click.Path(path_type=Path)
ACTIVATIONS = [name for name in activations.FUNCTIONS if name not in ("softmax", "heaviside")]
OPTIMIZERS = list(LEARNING_RATES)
LOSS = "softmax_cross_entropy"


@click.command(context_settings={"show_default": True})
@click.option("--data", default="digits", metavar="PATH", help='Folder of IDX or CIFAR-10 files, .npz, .csv, or "digits".')
@click.option("--hidden", type=UNITS, metavar="N,N,...", default="1024,1024", help='Units of the hidden layers, or "none".')
@click.option(
    "--rates",
    type=RATES,
    metavar="R,R,...",
    default="0.2,0.5",
    help="Dropout of the inputs, then of each hidden layer (last one repeated).",
)
@click.option("--widen", is_flag=True, help="Divide the units of each hidden layer by 1 - rate of the dropout behind it.")
@click.option("--activation", type=click.Choice(ACTIVATIONS), default="relu", help="Of the hidden layers.")
@click.option("--epochs", type=COUNT, default=30, help="Passes over the training data.")
@click.option("--batch-size", type=COUNT, default=128, help="Rows in a step.")
@click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="adam", help="Rule of the updates.")
@click.option("--learning-rate", type=POSITIVE, show_default="sgd 0.1, others 0.001", help="At the start.")
@click.option("--schedule", type=click.Choice(SCHEDULES), default="cosine", help="How the learning rate goes on.")
@click.option("--momentum", type=PART, default=0.9, help="For sgd.")
@click.option("--weight-decay", type=NOT_NEGATIVE, default=0.0, help="Decoupled from the gradient.")
@click.option("--max-norm", type=NOT_NEGATIVE, default=0.0, help="Largest norm of a hidden unit's weights; 0: no limit.")
@click.option("--validation-split", type=PART, default=0.0, help="Part of the training data to watch instead of the test data.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, help="Same seed, same bits, with any number of threads.")
@click.option("--threads", type=COUNT, show_default="all available CPUs", help="Number of threads.")
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
    """Train a dense network with dropout and save it.

    Images are flattened. Progress is measured on the test data, or on a part of the training data with --validation-split.
    Without --checkpoint the state of the training is saved on Ctrl-C only; either way the command that continues is printed.

    \b
    Examples:
      fastdrop train
      fastdrop train --data mnist --epochs 30 -o mnist.safetensors
      fastdrop train --data table.csv --hidden 256 --rates 0,0.3 --optimizer sgd
    """
    outputs = Outputs.of(output, history, plot, no_plot, checkpoint)
    recipe = Recipe(**options)
    recipe.all_rates()
    recipe.units()
    if threads is not None:
        _config.set_num_threads(threads)
    dataset = load(data).flat()
    watched = dataset.hold_out(validation_split) if validation_split else dataset
    net, optimizer = recipe.network(dataset), recipe.make_optimizer(len(watched.x_train))
    _say(quiet, f"{_describe(dataset)}\nnetwork {recipe.describe(dataset)}")
    callbacks = [] if checkpoint is None else [ModelCheckpoint(_without_fields(outputs.checkpoint))]
    start = time.perf_counter()
    try:
        record = net.fit(
            watched.x_train,
            watched.y_train,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            optimizer=optimizer,
            loss=LOSS,
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
    test = net.evaluate(dataset.x_test, dataset.y_test, loss=LOSS)
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


def _without_fields(path: Path) -> str:
    """Return a path in which braces mean themselves."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _describe(dataset: Dataset) -> str:
    """Return the size of a data set in a line."""
    rows = f"{len(dataset.x_train)} training and {len(dataset.x_test)} test rows"
    return f"data {dataset.name}: {rows} of {dataset.x_train.shape[1]} features, {dataset.classes} classes"


def _write_record(outputs: Outputs, record: History, title: str, names: tuple[str, str]) -> None:
    """Write the history as a table and as a picture."""
    rows = zip([epoch + 1 for epoch in record.epochs], *record.history.values(), strict=True)
    write_csv(outputs.history, ["epoch", *record.history], rows)
    if outputs.plot is not None:
        plot_history(outputs.plot, record.epochs, record.history, title, names)
