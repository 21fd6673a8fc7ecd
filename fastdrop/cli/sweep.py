"""`fastdrop sweep`: the same training with one dropout rate after the other, and the picture of what the rate does."""

from __future__ import annotations

import shlex
from pathlib import Path
from statistics import mean
from typing import Any

import click

from fastdrop import _config
from fastdrop.cli.numbers import number_list, number_range
from fastdrop.cli.options import (
    COUNT,
    DATA,
    NETWORK,
    PART,
    PATH,
    THREADS,
    TRAINING,
    load_part,
    make_recipe,
    with_options,
)
from fastdrop.cli.outputs import pictures_beside
from fastdrop.cli.train import EXIT_INTERRUPTED
from fastdrop.experiments.results import MAX_SEED
from fastdrop.experiments.sweep import sweep as run_sweep

RATES = number_range(number_list(float, 0.0, 1.0))
SEEDS = number_range(number_list(int, 0, MAX_SEED + 1))


@click.command(context_settings={"show_default": True})
@with_options(DATA)
@click.option(
    "--rates", type=RATES, metavar="LIST", default="0.0:0.9:0.1", help='Of all hidden layers: "0,0.5" or "start:stop:step".'
)
@click.option("--seeds", type=SEEDS, metavar="LIST", default="0", help="A run for each seed and rate.")
@click.option("--input-rate", type=PART, default=0.0, help="Dropout of the inputs.")
@with_options(NETWORK, TRAINING, THREADS)
@click.option("--processes", type=COUNT, default=1, help="Runs at the same time; they share the threads.")
@click.option("-o", "--output", type=PATH, default="sweep.csv", help="A row an epoch: .csv, or .db (SQLite).")
@click.option("--no-plot", is_flag=True, help="Draw no pictures.")
@click.option("-q", "--quiet", is_flag=True, help="Print the best rate alone.")
@click.pass_obj
def sweep(
    arguments: list[str],
    /,
    data: str,
    rows: int | None,
    validation_split: float,
    rates: tuple[float, ...],
    seeds: tuple[int, ...],
    input_rate: float,
    threads: int | None,
    processes: int,
    output: Path,
    no_plot: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Train the same network with each dropout rate, and draw accuracy and loss against the rate.

    Each run is written to the table when it is finished. After Ctrl-C, or a kill, the same command goes on with the last epoch.

    \b
    Examples:
      fastdrop sweep --epochs 10
      fastdrop sweep --data cifar-10 --filters 64,128,256 --hidden 512,512 --seeds 1,2,3 --rows 10000 --epochs 40
      fastdrop sweep --data images.npz --rates 0,0.2,0.5 --processes 2 -o images.db
    """
    pictures = pictures_beside(output, no_plot)
    if not options["hidden"]:
        raise click.UsageError("--hidden none: a sweep needs a hidden layer, behind which units are dropped")
    recipe = make_recipe(rates=(input_rate, 0.0), **options)
    if threads is not None:
        _config.set_num_threads(threads)
    dataset, watched = load_part(data, rows, validation_split)
    try:
        result = run_sweep(
            recipe, watched, rates, [int(seed) for seed in seeds], output=output, processes=processes, progress=not quiet
        )
    except KeyboardInterrupt:
        click.echo(f"\ninterrupted; continue with: {shlex.join(['fastdrop', *arguments])}", err=True)
        return EXIT_INTERRUPTED
    network = [part for part in recipe.describe(dataset).split(", ") if not part.startswith("dropout")]
    parts = [f"{dataset.name}, {len(watched.x_train)} rows: {', '.join(network)}", f"{recipe.epochs} epochs", _count(seeds)]
    for picture in pictures:
        result.plot(picture, ", ".join(parts))
    if not quiet:
        click.echo("\n".join([f"table {output}", *(f"plot {picture}" for picture in pictures)]))
    accuracies = [row.val_accuracy for row in result.last(result.best_rate)]
    click.echo(f"best rate {result.best_rate:g}: validation accuracy {100 * mean(accuracies):.2f} %")
    return 0


def _count(seeds: tuple[float, ...]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
