"""What dropout does for a network: the experiments of Srivastava et al. 2014 on MNIST, and what sharing masks costs.

python bench/mnist.py networks --data mnist          # their table 2, three hidden layers of 1024 units
python bench/mnist.py passes --data mnist            # their figure 11, with the network of `networks`
python bench/mnist.py sharing --data fashion-mnist   # masks shared by 32 rows, or by the batch
python bench/mnist.py rates --data mnist             # training and validation error against the rate
python bench/mnist.py report --data mnist            # tables and pictures again, from the results
python bench/mnist.py networks --data digits --rows 500 --epochs 2 -o /tmp/results --runs /tmp/runs

Every run is done once. After Ctrl-C or a kill, the same command goes on from the last epoch. Configurations are chosen on rows
that are held out of the training rows, with the first seed; then all rows are trained on, with each seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import mean

import numpy as np
from curves import plot_curves, plot_passes, plot_rates
from experiment import Configuration, Experiment, curve
from results import Row, append, read
from table import table
from tqdm import trange

import fastdrop as fd
from fastdrop import data
from fastdrop._types import Array

FOLDER = Path(__file__).parent

SEEDS = (1, 2, 3)
PAPER = {"no dropout": 1.60, "dropout": 1.25, "dropout, max-norm": 1.06}
"""Test errors in percent of three hidden layers of 1024 units (the first: whatever standard network was best), table 2."""
PASSES, REPETITIONS = 200, 5
SHARED_ROWS: dict[str, int | str] = {"per row": 1, "32 rows": 32, "batch": "batch"}
RATES = ((0.0, 0.3), (0.1, 0.3), (0.2, 0.5))
"""Of inputs and hidden units."""

Groups = Mapping[str, Sequence[Configuration]]
"""Configurations to choose from, by what they are called."""


class Study:
    """The experiments on one data set.

    Parameters
    ----------
    experiment : Experiment
    rows : int
        To train on while others are held out.
    epochs : int, optional
        In place of each experiment's own.
    """

    def __init__(self, experiment: Experiment, rows: int, epochs: int | None) -> None:
        self.experiment = experiment
        name = experiment.dataset.name
        large = Configuration(data=name, hidden="1024-1024-1024", rows=rows, epochs=epochs or 100, seed=SEEDS[0])
        dropout = replace(large, input_rate=0.2, hidden_rate=0.5)
        self.networks: Groups = {
            "no dropout": [replace(large, epochs=epochs or 30)],
            "dropout": [dropout],
            "dropout, max-norm": [
                replace(dropout, max_norm=1.0),
                replace(dropout, max_norm=2.0),
                replace(dropout, max_norm=2.0, learning_rate=0.02, momentum=0.95),
                replace(dropout, max_norm=1.0, learning_rate=0.002),
                replace(dropout, max_norm=1.0, learning_rate=0.0005),
            ],
        }
        small = replace(large, hidden="1024-1024", epochs=epochs or 20)
        self.sharings: Groups = {
            label: [replace(small, shared_rows=shared, input_rate=first, hidden_rate=rate) for first, rate in RATES]
            for label, shared in SHARED_ROWS.items()
        }
        self.rates = [replace(small, hidden_rate=tenth / 10) for tenth in range(10)]

    def chosen(self, groups: Groups) -> dict[str, Configuration]:
        """Return the configuration of the least validation error in each group, of those that are finished."""
        best = {}
        for label, candidates in groups.items():
            errors = {run: row["validation_error"] for run in candidates if (row := self.experiment.row(run))}
            if errors:
                best[label] = min(errors, key=errors.__getitem__)
        return best

    def choose(self, groups: Groups) -> dict[str, Configuration]:
        """Train all candidates and return the chosen ones."""
        for run in chain.from_iterable(groups.values()):
            self.experiment.do(run)
        return self.chosen(groups)

    def on_all_rows(self, run: Configuration) -> Configuration:
        """Return the same training with the rows that were held out."""
        return replace(run, rows=len(self.experiment.dataset.x_train))

    def as_long(self, best: Mapping[str, Configuration]) -> dict[str, Configuration]:
        """Return trainings that take the seconds of the first one: more epochs where they are faster."""
        seconds = {label: self.experiment.do(run)["seconds_per_epoch"] for label, run in best.items()}
        longest = next(iter(seconds.values()))
        return {label: replace(run, epochs=round(run.epochs * longest / seconds[label])) for label, run in best.items()}

    def rows(self, run: Configuration) -> list[Row]:
        """Return the rows of a training with each seed, as far as it is finished."""
        return [row for seed in SEEDS if (row := self.experiment.row(replace(run, seed=seed)))]

    def path(self, name: str, ending: str = ".png") -> Path:
        """Return where a result of this data set goes."""
        return self.experiment.table.parent / f"{name}-{self.experiment.dataset.name}{ending}"


def do_networks(study: Study) -> None:
    """Train all candidates with the first seed, then the chosen ones on all rows with each seed."""
    best = study.choose(study.networks)
    for seed in SEEDS:
        for run in best.values():
            study.experiment.do(study.on_all_rows(replace(run, seed=seed)))


def show_networks(study: Study) -> None:
    """Print the table beside the paper's, and draw error against epoch and seconds."""
    best = study.chosen(study.networks)
    if not best:
        return
    body = []
    for label, run in best.items():
        row, whole = study.experiment.do(run), study.rows(study.on_all_rows(run))
        body.append(
            [
                label,
                f"{PAPER[label]:.2f}",
                _each(each["test_error"] for each in whole),
                f"{whole[0]['seconds_per_epoch']:.1f}" if whole else "-",
                *(f"{row[name]:.2f}" for name in ("test_error", "validation_error")),
                f"{row['best_epoch']} of {run.epochs}",
            ]
        )
    head = ["", "Srivastava et al.", "all rows: test error, %", "seconds an epoch, first seed"]
    print(table([*head, "five sixths: test error, %", "validation error, %", "best epoch"], body))
    curves = {label: study.rows(run) for label, run in best.items()}
    plot_curves(study.path("networks"), "Three hidden layers of 1024 relu units", curves, curves)


def do_sharings(study: Study) -> None:
    """Train with the chosen rates at equal epochs and at equal seconds, with each seed."""
    best = study.choose(study.sharings)
    for seed in SEEDS:
        for run in [*best.values(), *study.as_long(best).values()]:
            study.experiment.do(replace(run, seed=seed))


def show_sharings(study: Study) -> None:
    """Print and draw what sharing costs at equal epochs and at equal seconds."""
    best = study.chosen(study.sharings)
    if not best:
        return
    longer = study.as_long(best)
    body = []
    for label, run in best.items():
        for each in dict.fromkeys((run, longer[label])):
            rows = study.rows(each)
            if rows:
                seconds = min(row["seconds_per_epoch"] for row in rows)
                errors = [_each(row[name] for row in rows) for name in ("validation_error", "test_error")]
                rates = f"{run.input_rate:g}, {run.hidden_rate:g}"
                body.append([label, rates, each.epochs, f"{seconds:.2f}", f"{seconds * each.epochs:.0f}", *errors])
    head = ["masks", "rates", "epochs", "seconds an epoch", "seconds", "validation error, %", "test error, %"]
    print(table(head, body))
    by_epoch, by_seconds = ({label: study.rows(run) for label, run in runs.items()} for runs in (best, longer))
    plot_curves(study.path("sharing"), "Two hidden layers of 1024 units, shared masks", by_epoch, by_seconds)


def do_rates(study: Study) -> None:
    """Train with each rate."""
    for run in study.rates:
        study.experiment.do(run)


def show_rates(study: Study) -> None:
    """Print and draw training and validation error after the last epoch against the rate."""
    rows = [row for run in study.rates if (row := study.experiment.row(run))]
    if len(rows) < len(study.rates):
        return
    body = []
    for row in rows:
        training, validation = (curve(row, name)[-1] for name in ("training_errors", "validation_errors"))
        body.append([row["hidden_rate"], *(f"{value:.2f}" for value in (training, validation, validation - training))])
    print(table(["rate", "training error, %", "validation error, %", "gap"], body))
    plot_rates(study.path("rates"), rows)


def do_passes(study: Study) -> None:
    """Measure the mean of 1, 2, ... passes with the network that was trained with dropout, a row for each repetition."""
    experiment, path = study.experiment, study.path("passes", ".csv")
    run = study.choose({label: study.networks[label] for label in ["dropout"]})["dropout"]
    net, dataset = fd.load(experiment.network(run)), experiment.dataset
    scaling = _percent_wrong(net.predict_proba(dataset.x_test), dataset.y_test)
    for repetition in trange(len(read(path)), REPETITIONS):
        samples = net.predict_mc(dataset.x_test, PASSES, first_sample=repetition * PASSES, return_samples=True).samples
        sums = np.zeros(samples.shape[1:])
        errors = []
        for sample in samples:
            sums += sample
            errors.append(_percent_wrong(sums, dataset.y_test))
        means = " ".join(f"{error:.2f}" for error in errors)
        append(path, {"run": run.name, "repetition": repetition, "weight_scaling": f"{scaling:.2f}", "means": means})


def show_passes(study: Study) -> None:
    """Print and draw the error of means of passes beside that of weight scaling."""
    rows = read(study.path("passes", ".csv"))
    if rows:
        errors = np.array([curve(row, "means") for row in rows])
        shown = [passes for passes in (1, 2, 5, 10, 20, 50, 100, 200) if passes <= errors.shape[1]]
        body = [[passes, f"{errors[:, passes - 1].mean():.3f}", f"{errors[:, passes - 1].std():.3f}"] for passes in shown]
        print(
            table(["passes", "test error, %", "standard deviation"], [*body, ["weight scaling", rows[0]["weight_scaling"], ""]])
        )
        plot_passes(study.path("passes"), errors, rows[0]["weight_scaling"])


def _percent_wrong(outputs: Array, labels: Array) -> float:
    return 100 * float(np.mean(outputs.argmax(axis=1) != labels))


def _each(errors: Iterable[float]) -> str:
    """Return the mean and each value."""
    found = list(errors)
    return f"{mean(found):.2f} ({', '.join(f'{error:.2f}' for error in found)})" if found else "-"


EXPERIMENTS = {
    "networks": (do_networks, show_networks),
    "passes": (do_passes, show_passes),
    "sharing": (do_sharings, show_sharings),
    "rates": (do_rates, show_rates),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "report"])
    parser.add_argument("--data", required=True, help="what fastdrop.data.load takes")
    parser.add_argument("--runs", type=Path, default=FOLDER / "runs", help="folder of unfinished runs and of trained networks")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER / "results", help="folder of tables and pictures")
    parser.add_argument("--rows", type=int, default=50_000, help="to train on while others are held out")
    parser.add_argument("--epochs", type=int, help="in place of each experiment's own")
    arguments = parser.parse_args()
    experiment = Experiment(data.load(arguments.data), arguments.output / "training.csv", arguments.runs)
    study = Study(experiment, arguments.rows, arguments.epochs)
    if arguments.experiment != "report":
        do, show = EXPERIMENTS[arguments.experiment]
        do(study)
        show(study)
        return
    for name, (_, show) in EXPERIMENTS.items():
        print(f"### {name}\n")
        show(study)


if __name__ == "__main__":
    main()
