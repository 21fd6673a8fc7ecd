"""Pictures of a training step's time: against batch and width, for this library and others, and against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_growth import FIXED_BATCH, FIXED_WIDTH
from results import Row

INCHES, DOTS_PER_INCH = (9.6, 4.4), 150
COLOURS = {"fastdrop": "#cc3311", "NumPy": "#999999", "torch eager": "#0077bb", "JAX": "#009988"}
"""Colours that differ for everyone (Paul Tol's "vibrant" scheme)."""
TICKS = (1, 4, 16, 64, 256, 1024, 4096)


def width(row: Row) -> int:
    """Return the width of the row's network."""
    return int(row["architecture"].split("-")[1])


def sweep(rows: Sequence[Row], library: str, against: str) -> list[tuple[int, float]]:
    """Return (size, microseconds) of a library, sorted by size; `against` is "batch" or "width"."""
    if against == "batch":
        found = [(row["batch"], row) for row in rows if width(row) == FIXED_WIDTH]
    else:
        found = [(width(row), row) for row in rows if row["batch"] == FIXED_BATCH]
    return sorted((size, row["median_us"]) for size, row in found if row["library"] == library)


def plot_growth(rows: Sequence[Row], path: Path) -> None:
    """Draw both sweeps at the largest number of threads into a PNG file."""
    from matplotlib.figure import Figure

    threads = max(row["threads"] for row in rows)
    shown = [row for row in rows if row["threads"] == threads]
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(f"Training step of 784-width-width-10 with dropout, {threads} threads, median", fontsize=11)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, against in zip(panels, ("batch", "width"), strict=True):
        _draw(axes, shown, against)
    panels[0].set(title=f"width {FIXED_WIDTH}", ylabel="milliseconds")
    panels[1].set(title=f"batch {FIXED_BATCH}")
    panels[0].legend(frameon=False)
    figure.savefig(path)


def _draw(axes: Any, rows: Sequence[Row], against: str) -> None:
    """Draw one sweep of all libraries, both axes logarithmic."""
    for library, colour in COLOURS.items():
        points = sweep(rows, library, against)
        if points:
            sizes, times = zip(*points, strict=True)
            style = {"linewidth": 2.2, "zorder": 3} if library == "fastdrop" else {"linewidth": 1.2}
            axes.plot(sizes, [time / 1e3 for time in times], color=colour, marker="o", markersize=3, label=library, **style)
    axes.set(xscale="log", yscale="log", xlabel=against)
    low, high = axes.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    tidy(axes)


def tidy(axes: Any) -> None:
    """Give a panel a light grid, and no frame."""
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plot_rates(rows: Sequence[Row], path: Path) -> None:
    """Draw the time of a step against the rate of all its layers, with and without skipping, into a PNG file."""
    from matplotlib.figure import Figure

    threads = max(row["threads"] for row in rows)
    uniform = [row for row in rows if row["threads"] == threads and len(set(str(row["rates"]).split("/"))) == 1]
    found = {
        shared: sorted((float(str(row["rates"]).split("/")[0]), row) for row in uniform if row["shared_rows"] == shared)
        for shared in (1, "batch")
    }
    start = found[1][0][1]
    figure = Figure(figsize=(6.4, 4.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for shared, colour, name in ((1, "#999999", "a mask for each row"), ("batch", "#cc3311", 'shared_rows="batch"')):
        rates, shown = zip(*found[shared], strict=True)
        axes.plot(
            rates, [row["median_us"] / 1e3 for row in shown], color=colour, marker="o", markersize=3, linewidth=2.2, label=name
        )
    work = [row["gflops"] * row["median_us"] for row in shown]
    ideal = [start["median_us"] / 1e3 * each / (start["gflops"] * start["median_us"]) for each in work]
    axes.plot(rates, ideal, color="#009988", linestyle="--", linewidth=1.2, label="ideal: the share of products that is left")
    axes.set(
        title=f"Training step of 784-1024-1024-10, batch 128, {threads} threads",
        xlabel="rate of all layers",
        ylabel="milliseconds",
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
