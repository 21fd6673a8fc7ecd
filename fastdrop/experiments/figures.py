"""Pictures: loss and accuracy of a training run by epoch, and of a sweep by rate; trials of a search and what decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdrop._files import replacing
from fastdrop.errors import MissingDependencyError, OutputError

if TYPE_CHECKING:
    from fastdrop.experiments.sweep import Sweep
    from fastdrop.experiments.tune import Tuning

PICTURES = (".png", ".svg", ".pdf")
INCHES, WIDE_INCHES = (9.6, 4.0), (12.6, 4.0)
DOTS_PER_INCH = 150
TRAINING, HELD_OUT, INK, GRID, FAINT = "#4477aa", "#cc5533", "#222222", "#dddddd", "#999999"
FEW_EPOCHS = 40
"""Up to so many epochs each one gets a marker."""


def check_plot(path: Path) -> None:
    """Raise unless a picture of that kind can be drawn: the name's ending, and Matplotlib."""
    if path.suffix.lower() not in PICTURES:
        raise OutputError(f"{path}: a plot's name must end in {', '.join(PICTURES)}")
    if find_spec("matplotlib") is None:
        raise MissingDependencyError('the plot needs the package matplotlib: pip install "fastdrop-nn[app]", or use --no-plot')


def plot_history(
    path: Path, epochs: Sequence[int], history: Mapping[str, Sequence[float]], title: str, names: tuple[str, str]
) -> None:
    """Draw training and held-out loss and accuracy against the epoch into a file of the kind that its name says.

    Parameters
    ----------
    path : Path
    epochs : sequence of int
        Numbers of the epochs, from 0.
    history : dict from name to one value an epoch
        loss, accuracy, val_loss, val_accuracy.
    title : str
    names : pair of str
        What the two curves are called: the rows trained on, and the rows held out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    loss, accuracy = figure.subplots(1, 2)
    _curves(loss, epochs, history["loss"], history["val_loss"], names, "{:.4f}")
    loss.set_title("loss (cross-entropy)")
    if any(value > 0 for value in (*history["loss"], *history["val_loss"])):
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        loss.yaxis.set_minor_formatter(NullFormatter())
    _curves(accuracy, epochs, _percent(history["accuracy"]), _percent(history["val_accuracy"]), names, "{:.2f}")
    accuracy.set_title("accuracy (%)")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def _curves(
    axes: Any, epochs: Sequence[int], training: Sequence[float], held_out: Sequence[float], names: tuple[str, str], form: str
) -> None:
    """Draw two curves against the epoch's number from 1; the legend says where they end."""
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch + 1 for epoch in epochs]
    marker = "o" if len(numbers) <= FEW_EPOCHS else None
    for values, label, color in zip((training, held_out), names, (TRAINING, HELD_OUT), strict=True):
        axes.plot(numbers, values, color=color, marker=marker, markersize=3, label=f"{label}: {form.format(values[-1])}")
    axes.set(xlabel="epoch", xlim=(0.5, numbers[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    _tidy(axes)
    axes.legend(frameon=False)


def _tidy(axes: Any) -> None:
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plot_sweep(path: Path, sweep: Sweep, title: str) -> None:
    """Draw accuracy and loss after the last epoch, and how far training and validation are apart, against the rate.

    Lines are means over the seeds, bands reach from the least to the largest. Training values are those of `fit`: with dropout.
    """
    from matplotlib.figure import Figure

    check_plot(path)
    figure = Figure(figsize=WIDE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    accuracy, loss, gap = figure.subplots(1, 3)
    accuracies = [[_percent(seeds) for seeds in sweep.values(name)] for name in ("accuracy", "val_accuracy")]
    losses = [sweep.values(name) for name in ("loss", "val_loss")]
    for axes, (training, validation), name in ((accuracy, accuracies, "accuracy (%)"), (loss, losses, "loss")):
        _band(axes, sweep.rates, training, TRAINING, "training, with dropout")
        _band(axes, sweep.rates, validation, HELD_OUT, "validation")
        axes.set_title(name)
        axes.legend(frameon=False)
    gaps = [[one - other for one, other in zip(*pair, strict=True)] for pair in zip(*accuracies, strict=True)]
    _band(gap, sweep.rates, gaps, INK, "")
    gap.axhline(0, color=GRID, linewidth=1)
    gap.set_title("gap: training - validation accuracy (points)")
    for axes in (accuracy, loss, gap):
        axes.set(xlabel="dropout rate")
        _tidy(axes)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def _band(axes: Any, rates: Sequence[float], values: Sequence[Sequence[float]], color: str, label: str) -> None:
    """Draw the mean over the seeds of each rate, between the least and the largest."""
    means = [sum(seeds) / len(seeds) for seeds in values]
    axes.plot(rates, means, color=color, marker="o", markersize=4, linewidth=1.6, label=label)
    axes.fill_between(
        rates, [min(seeds) for seeds in values], [max(seeds) for seeds in values], color=color, alpha=0.2, linewidth=0
    )


def plot_tuning(path: Path, tuning: Tuning, title: str) -> None:
    """Draw the accuracies of a search's trials in their order, with the best so far, and the importances of the parameters.

    The axis of accuracies leaves out pruned trials far below all complete ones.

    Raises
    ------
    StateError: no trial has been finished. OutputError, MissingDependencyError: the picture cannot be drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    check_plot(path)
    highest = tuning.best.accuracy
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    history, importance = figure.subplots(1, 2)
    complete, pruned = ([trial for trial in tuning.trials if trial.pruned == stopped] for stopped in (False, True))
    accuracies = [100 * trial.accuracy for trial in complete]
    numbers = [trial.number for trial in complete]
    stopped = [100 * trial.accuracy for trial in pruned]
    history.scatter(
        [trial.number for trial in pruned], stopped, color=FAINT, marker="x", s=16, linewidth=1, label="stopped early"
    )
    history.scatter(numbers, accuracies, color=TRAINING, s=16, label="all epochs")
    ends = [*numbers, tuning.trials[-1].number]
    best = list(accumulate([*accuracies, *accuracies[-1:]], max))
    history.step(ends, best, where="post", color=HELD_OUT, linewidth=1.4, label=f"best so far: {100 * highest:.2f}")
    low, high = min(accuracies), max([*accuracies, *stopped])
    margin = max(high - low, 1) / 5
    history.set(xlabel="trial", ylim=(low - margin, min(high + margin / 2, 100.5)))
    history.set_title("validation accuracy (%)")
    history.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    figure.legend(frameon=False, loc="outside lower left", ncols=3)
    names = list(tuning.importances)[::-1]
    bars = importance.barh(names, [tuning.importances[name] for name in names], color=TRAINING, height=0.6)
    importance.bar_label(bars, fmt="%.2f", padding=3)
    importance.margins(x=0.12)
    importance.set_title("importance of the parameters" if names else "importance: needs two complete trials")
    for axes in (history, importance):
        _tidy(axes)
    importance.grid(visible=False, axis="y")
    if not names:
        importance.set_axis_off()
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())
