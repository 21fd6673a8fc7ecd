"""How good a search is: its regret against the full grid of dropout rates, on the handwritten digits.

The grid is every pair of rates 0, 0.1, ..., 0.8 of two hidden layers: 81 networks, trained to the end with each of five seeds.
The search, `fastdrop.tune`, has the same pairs to choose from, the same networks, epochs and held-out rows, and a third of the
grid's epochs. A seed is that of the search and of its networks; the rates that it finds are looked up twice:

- in the grid of its own seed, where the regret is what the search left behind;
- in the mean grid of all seeds, where the luck of single trainings is gone: what someone gets who trains the found rates anew.

A held-out row is 0.35 points. What was done is kept; the same command goes on.

python bench/tune.py
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

from results import Row, append, read

import fastdrop as fd

FOLDER = Path(__file__).parent / "results"
RATES = tuple(n / 10 for n in range(9))
SEEDS = (0, 1, 2, 3, 4)
RECIPE = fd.Recipe(hidden=(64, 64), rates=(0.0, 0.5), epochs=27, batch_size=32, learning_rate=0.003)
SPACE = fd.SearchSpace(learning_rates=(0.003, 0.003), units=(64, 64, 1))
BUDGET = len(RATES) ** 2 * RECIPE.epochs // 3
"""Epochs of a search: a third of the grid's."""
VALIDATION_SPLIT = 0.2

Grid = dict[tuple[float, float], float]


def train(rates: tuple[float, float], seed: int, data: fd.data.Dataset) -> float:
    """Return the validation accuracy after the last epoch."""
    recipe = replace(RECIPE, rates=(0.0, *rates), seed=seed)
    net = recipe.network(data)
    history = net.fit(
        data.x_train,
        data.y_train,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=recipe.make_optimizer(len(data.x_train)),
        loss=recipe.loss,
        validation_data=(data.x_test, data.y_test),
        progress=False,
    )
    return history.history["val_accuracy"][-1]


def grids(path: Path, data: fd.data.Dataset) -> dict[int, Grid]:
    """Return the grid of each seed; what is missing in the file is trained and added."""
    found: dict[int, Grid] = {seed: {} for seed in SEEDS}
    for row in read(path):
        found[row["seed"]][row["rate_1"], row["rate_2"]] = row["val_accuracy"]
    for seed, grid in found.items():
        for rates in itertools.product(RATES, RATES):
            if rates not in grid:
                grid[rates] = train(rates, seed, data)
                append(path, {"seed": seed, "rate_1": rates[0], "rate_2": rates[1], "val_accuracy": grid[rates]})
        print(f"grid, seed {seed}: best {max(grid.values()):.2%}, worst {min(grid.values()):.2%}", flush=True)
    return found


def search(seed: int, data: fd.data.Dataset, grid: Grid, means: Grid) -> Row:
    """Return a row of the table: what a search found, and its regret in points."""
    with tempfile.TemporaryDirectory() as folder:
        found = fd.tune(
            replace(RECIPE, seed=seed),
            data,
            budget=BUDGET,
            space=SPACE,
            validation_split=VALIDATION_SPLIT,
            storage=Path(folder) / "tune.db",
            name=f"digits-{seed}",
            seed=seed,
            progress=False,
        )
    rates = found.recipe.all_rates()[1:]
    assert found.best.accuracy == grid[rates], "the search trains the grid's networks"
    return {
        "seed": seed,
        "epochs": found.epochs,
        "grid_epochs": len(grid) * RECIPE.epochs,
        "trials": len(found.trials),
        "pruned": found.pruned,
        "rate_1": rates[0],
        "rate_2": rates[1],
        "val_accuracy": grid[rates],
        "best_of_grid": max(grid.values()),
        "regret": _points(max(grid.values()) - grid[rates]),
        "mean_val_accuracy": means[rates],
        "best_of_means": max(means.values()),
        "regret_of_means": _points(max(means.values()) - means[rates]),
        "regret_of_default": _points(max(means.values()) - means[0.5, 0.5]),
        "median_regret_of_grid": _points(max(means.values()) - sorted(means.values())[len(means) // 2]),
    }


def _points(difference: float) -> float:
    return round(100 * difference, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder of the CSV files")
    folder = parser.parse_args().output
    data = fd.data.load("digits").flat()
    grid = grids(folder / "tune_grid.csv", data.hold_out(VALIDATION_SPLIT))
    means = {rates: mean(grid[seed][rates] for seed in SEEDS) for rates in itertools.product(RATES, RATES)}
    table = folder / "tune.csv"
    done = {row["seed"] for row in read(table)}
    for seed in SEEDS:
        if seed not in done:
            append(table, search(seed, data, grid[seed], means))
    rows = read(table)
    for row in rows:
        print(
            f"seed {row['seed']}: {row['epochs']} of {row['grid_epochs']} epochs, rates {row['rate_1']:g}/{row['rate_2']:g}, "
            f"regret {row['regret']:.2f} in its own grid, {row['regret_of_means']:.2f} in the mean one"
        )
    own, of_means = (mean(row[name] for row in rows) for name in ("regret", "regret_of_means"))
    print(f"mean regret: {own:.3f} points in the seeds' own grids, {of_means:.3f} in the mean grid")
    print(
        f"of rates 0.5/0.5: {rows[0]['regret_of_default']:.2f} points; median of the grid: {rows[0]['median_regret_of_grid']:.2f}"
    )


if __name__ == "__main__":
    main()
