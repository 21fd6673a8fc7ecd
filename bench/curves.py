"""The pictures of the training experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiment import curve
from plot import DOTS_PER_INCH, INCHES, tidy
from results import Row

HALF = (INCHES[0] / 2, INCHES[1])
PALETTE = ("#0077bb", "#cc3311", "#009988")
"""Colours that differ for everyone (Paul Tol's "vibrant" scheme)."""

Curves = Mapping[str, Sequence[Row]]
"""Runs with several seeds, by what they are called."""


def plot_curves(path: Path, title: str, by_epoch: Curves, by_seconds: Curves) -> None:
    """Draw validation error against epoch and against seconds of training: means over seeds, between least and largest.

    Seconds are those of the fastest epoch: others may have shared the machine.
    """
    figure = _figure(INCHES)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw(left, by_epoch, lambda row: 1.0)
    _draw(right, by_seconds, lambda row: row["seconds_per_epoch"])
    left.set(xlabel="epoch", ylabel="validation error, %")
    right.set(xlabel="seconds of training")
    left.legend(frameon=False)
    figure.savefig(path)


def _draw(axes: Any, curves: Curves, step: Any) -> None:
    for (label, rows), colour in zip(curves.items(), PALETTE, strict=False):
        if rows:
            errors = np.array([curve(row, "validation_errors") for row in rows])
            x = np.arange(1, errors.shape[1] + 1) * min(step(row) for row in rows)
            axes.plot(x, errors.mean(axis=0), color=colour, linewidth=1.4, label=label)
            axes.fill_between(x, errors.min(axis=0), errors.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    axes.set(yscale="log", xlim=(0, None))
    _plain_percent(axes)
    tidy(axes)


def _plain_percent(axes: Any) -> None:
    """Write the ticks of a logarithmic axis as numbers, also between powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def plot_rates(path: Path, rows: Sequence[Row]) -> None:
    """Draw training and validation error after the last epoch, and the gap between them, against the rate."""
    rates = [row["hidden_rate"] for row in rows]
    training, validation = (np.array([curve(row, name)[-1] for row in rows]) for name in ("training_errors", "validation_errors"))
    figure = _figure(HALF)
    axes = figure.subplots()
    series = {"validation": validation, "training, without dropout": training, "gap": validation - training}
    for (label, values), colour in zip(series.items(), PALETTE, strict=True):
        axes.plot(rates, values, color=colour, marker="o", markersize=3, label=label)
    axes.set(xlabel="rate of the hidden units", ylabel="error, %", ylim=(0, None))
    axes.legend(frameon=False)
    tidy(axes)
    figure.savefig(path)


def plot_passes(path: Path, errors: Any, weight_scaling: float) -> None:
    """Draw the error of the mean of passes against their number (means of the rows, one standard deviation around them)."""
    figure = _figure(HALF)
    axes = figure.subplots()
    passes = np.arange(1, errors.shape[1] + 1)
    middle, deviation = errors.mean(axis=0), errors.std(axis=0)
    axes.plot(passes, middle, color=PALETTE[0], label="mean of passes")
    axes.fill_between(passes, middle - deviation, middle + deviation, color=PALETTE[0], alpha=0.2, linewidth=0)
    axes.axhline(weight_scaling, color=PALETTE[1], linewidth=1.2, label="weight scaling")
    axes.set(xlabel="passes", ylabel="test error, %", xscale="log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if tick <= len(passes)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)
    tidy(axes)
    figure.savefig(path)


def _figure(inches: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=inches, dpi=DOTS_PER_INCH, layout="constrained")
