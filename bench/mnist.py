"""What dropout does for a network: the experiments of Srivastava et al. 2014 on MNIST, and what sharing masks costs.

python bench/mnist.py networks --data ../shared/data/mnist          # their table 2, three hidden layers of 1024 units
python bench/mnist.py passes --data ../shared/data/mnist            # their figure 11, with the network of `networks`
python bench/mnist.py sharing --data ../shared/data/fashion-mnist   # masks shared by 32 rows, or by the batch
python bench/mnist.py rates --data ../shared/data/mnist             # training and validation error against the rate
python bench/mnist.py report --data ../shared/data/mnist            # tables and pictures again, from the results
python bench/mnist.py networks --data digits --rows 500 --epochs 2 -o /tmp/results --runs /tmp/runs

Every run is done once. After Ctrl-C or a kill, the same command goes on from the last epoch. Configurations are chosen on rows
that are held out of the training rows, with the first seed; then come the other seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean

import numpy as np
from curves import Curves, plot_curves, plot_passes, plot_rates
from experiment import HELD_OUT, Configuration, Experiment, curve
from results import Row, append, read
from table import table

import fastdrop as fd
from fastdrop import data

FOLDER = Path(__file__).parent

SEEDS = (1, 2, 3)
PAPER = {"no dropout": 1.60, "dropout": 1.25, "dropout, max-norm": 1.06}
"""Test errors in percent of three hidden layers of 1024 units (the first: whatever standard network was best), table 2."""
PASSES, REPETITIONS = 200, 5
SHARED_ROWS = {"per row": 1, "32 rows": 32, "batch": "batch"}
RATES = ((0.0, 0.3), (0.0, 0.5), (0.1, 0.3), (0.2, 0.5))
"""Of inputs and hidden units."""

Groups = Mapping[str, Sequence[Configuration]]
"""Configurations to choose from, by what they are called."""


class Study:
    """The experiments on one data set.

    Parameters
    ----------
    experiment : Experiment
    rows : int
        To train on, while others are held out.
    epochs : int, optional
        In place of each experiment's own.
    """

    def __init__(self, experiment: Experiment, rows: int, epochs: int | None) -> None:
        self.experiment, self.epochs = experiment, epochs
        self.basis = Configuration(data=experiment.dataset.name, hidden="1024-1024", rows=rows, epochs=epochs or 30, seed=SEEDS[0])
        self.results = experiment.table.parent

    @property
    def networks(self) -> Groups:
        basis = replace(self.basis, hidden="1024-1024-1024", epochs=self.epochs or 100)
        dropout = replace(basis, input_rate=0.2, hidden_rate=0.5)
        return {
            "no dropout": [basis],
            "dropout": [dropout],
            "dropout, max-norm": [replace(dropout, max_norm=2.0)],
        }

    @property
    def sharings(self) -> Groups:
        return {
            label: [replace(self.basis, shared_rows=shared, input_rate=first, hidden_rate=rate) for first, rate in RATES]
            for label, shared in SHARED_ROWS.items()
        }

    @property
    def rates(self) -> list[Configuration]:
        return [replace(self.basis, hidden_rate=tenth / 10) for tenth in range(10)]
