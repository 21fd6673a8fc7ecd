"""`fastdrop bench`: this library and the installed others on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from fastdrop import _config
from fastdrop._files import check_writable
from fastdrop.benchmark import machine
from fastdrop.benchmark.peers import select
from fastdrop.benchmark.short import CASES, QUICK, Measurement, compare
from fastdrop.cli.files import write_csv
from fastdrop.errors import MissingDependencyError

SLOW_START = "torch.compile"
"""Compiles for seconds for each case."""


@click.command(context_settings={"show_default": True})
@click.option("--threads", type=click.IntRange(1), show_default="all available CPUs", help="Number of threads, and of CPUs.")
@click.option("--quick", is_flag=True, help="A few small cases only.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the figures into a table too.")
@click.option("--no-progress", is_flag=True, help="No progress bar.")
def bench(threads: int | None, quick: bool, csv_path: Path | None, no_progress: bool) -> None:
    """Measure this library and those of NumPy, torch, JAX, Keras, onnxruntime and scikit-learn that are installed.

    Every result is checked before it is timed; times are medians. "of peak" is the share of what the machine could do at best,
    by its measured multiply-adds and copies. It takes about a minute, and longer when kernels are compiled for the first time.
    torch.compile is left out: it compiles for seconds for each case.

    \b
    Examples:
      fastdrop bench
      fastdrop bench --threads 1 --csv bench.csv
    """
    if find_spec("tabulate") is None:
        raise MissingDependencyError('the table needs the package tabulate: pip install "fastdrop-nn[app]"')
    if csv_path is not None:
        check_writable(csv_path)
    with machine.pinned(threads or _config.available_cpus()):
        _config.set_num_threads(threads or _config.available_cpus())
        facts = machine.facts()
        measured = _measure(quick, facts, no_progress)
    click.echo(f"{_describe(facts)}\n\n{_table(measured)}")
    if csv_path is not None:
        header = ["case", "library", "version", "median_us", "share_of_peak", *facts]
        write_csv(csv_path, header, [_row(each, facts) for each in measured])


def _measure(quick: bool, facts: dict[str, Any], no_progress: bool) -> list[Measurement]:
    """Measure all cases in all libraries that can use the threads, with a progress bar on a terminal."""
    from tqdm import tqdm

    cases = QUICK if quick else CASES
    names = [name for name in select.installed() if name != SLOW_START]
    libraries = select.with_threads(names, _config.get_num_threads())
    with tqdm(total=len(cases) * len(libraries), unit="case", leave=False, disable=no_progress or None) as bar:
        return compare(cases, libraries, facts, bar.update)


def _describe(facts: dict[str, Any]) -> str:
    """Return the machine in two lines."""
    copies = ", ".join(f"{facts[name]:g} {name.split()[2]}" for name in facts if name.startswith("copy"))
    versions = ", ".join(f"{name} {facts[name]}" for name in ("fastdrop", "numba", "numpy", "python"))
    peak = f"peak {facts['peak float32 GF/s']:g} GF/s, copies (GB/s): {copies}"
    return f"{facts['cpu']}, {facts['threads']} thread(s), {versions}\n{peak}"


def _row(each: Measurement, facts: dict[str, Any]) -> list[object]:
    return [each.case, each.library, each.version, round(each.seconds * 1e6, 2), round(each.share, 3), *facts.values()]


def _table(measured: Sequence[Measurement]) -> str:
    """Return milliseconds by case and library, and this library's share of the peak."""
    from tabulate import tabulate

    libraries = list(dict.fromkeys(each.library for each in measured))
    cells = {(each.case, each.library): each for each in measured}
    body = [
        [
            case,
            *(f"{cells[case, name].seconds * 1e3:.3g}" if (case, name) in cells else "-" for name in libraries),
            f"{cells[case, select.OWN].share:.0%}",
        ]
        for case in dict.fromkeys(each.case for each in measured)
    ]
    align = ["left", *["right"] * (len(libraries) + 1)]
    text: str = tabulate(body, ["milliseconds", *libraries, "of peak"], disable_numparse=True, colalign=align)
    return text
