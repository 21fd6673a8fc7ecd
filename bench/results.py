"""Results: pytest-benchmark's JSON files as tables, a CSV for each suite with the machine's facts above it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastdrop.benchmark.machine import facts as machine_facts
from fastdrop.benchmark.machine import least_seconds

Row = dict[str, Any]

PEAKS = ("peak ", "copy in ")
"""How the names of measured facts about a machine begin."""

COMMENT = "# "
MICROSECONDS = 1e6
STATISTICS = ("min", "q1", "median", "q3")
FIGURES = (*(f"{name}_us" for name in STATISTICS), "rounds", "gflops", "gbytes", "share_of_peak")


def rows(record: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of each suite in a JSON record."""
    found: dict[str, list[Row]] = {}
    for benchmark in record["benchmarks"]:
        suite = Path(benchmark["fullname"].split("::")[0]).stem.removeprefix("bench_")
        found.setdefault(suite, []).append(_row(benchmark, record["machine"]))
    return found


def _row(benchmark: dict[str, Any], machine: dict[str, Any]) -> Row:
    """Return facts and figures of one benchmark, times for one unit of its work."""
    facts, stats = dict(benchmark["extra_info"]), benchmark["stats"]
    least = least_seconds(facts, machine)
    flops, nbytes, repeats = facts.pop("flops"), facts.pop("bytes"), facts.pop("repeats")
    seconds = {name: stats[name] / repeats for name in STATISTICS}
    return {
        **facts,
        **{f"{name}_us": round(value * MICROSECONDS, 3) for name, value in seconds.items()},
        "rounds": stats["rounds"],
        "gflops": round(flops / seconds["median"] / 1e9, 2),
        "gbytes": round(nbytes / seconds["median"] / 1e9, 2),
        "share_of_peak": round(least / seconds["median"], 3),
    }


def quietest(found: Iterable[Row]) -> list[Row]:
    """Return the rows, of those with the same facts the one of the least median: every library's alike."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in found:
        facts = tuple(value for name, value in row.items() if name not in FIGURES)
        if facts not in best or row["median_us"] < best[facts]["median_us"]:
            best[facts] = row
    return list(best.values())


def with_best_peaks(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records with the highest peaks that were measured with as many threads: a machine is never slower than that."""
    best: dict[tuple[int, str], float] = {}
    for machine in (record["machine"] for record in records):
        for name in (name for name in machine if name.startswith(PEAKS)):
            place = machine["threads"], name
            best[place] = max(machine[name], best.get(place, 0.0))
    return [
        record
        | {"machine": {name: best.get((record["machine"]["threads"], name), value) for name, value in record["machine"].items()}}
        for record in records
    ]


def machine_lines(records: Iterable[dict[str, Any]]) -> list[str]:
    """Return the facts about machine and runs, a line each; what differs between numbers of threads once for each.

    Where runs were repeated, the facts are those of the first, peaks apart.
    """
    runs = [{"date": record["datetime"][:10], **record["machine"]} for record in records]
    facts = [next(run for run in runs if run["threads"] == threads) for threads in dict.fromkeys(run["threads"] for run in runs)]
    lines = [f"runs: {len(runs) // len(facts)}"]
    for name in facts[0]:
        values = [each[name] for each in facts]
        if len(set(values)) == 1:
            lines.append(f"{name}: {values[0]}")
        else:
            lines += [f"{name} (threads {each['threads']}): {each[name]}" for each in facts if name != "threads"]
    return lines


def convert(sources: Iterable[Path], folder: Path) -> list[Path]:
    """Write the CSV of each suite in the JSON files, of repeated runs the quietest row of each case; return their paths."""
    records = with_best_peaks([json.loads(source.read_text(encoding="utf-8")) for source in sources])
    lines = machine_lines(records)
    suites: dict[str, list[Row]] = {}
    for record in records:
        for suite, found in rows(record).items():
            suites.setdefault(suite, []).extend(found)
    folder.mkdir(parents=True, exist_ok=True)
    return [_write(folder / f"{suite}.csv", lines, quietest(found)) for suite, found in suites.items()]


def _write(path: Path, lines: Iterable[str], found: list[Row]) -> Path:
    facts = list(dict.fromkeys(name for row in found for name in row if name not in FIGURES))
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{COMMENT}{line}\n" for line in lines)
        writer = csv.DictWriter(file, [*facts, *FIGURES], restval="")
        writer.writeheader()
        writer.writerows(found)
    return path


def append(path: Path, row: Row) -> None:
    """Add a row to a CSV; a new file begins with the facts about the machine."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            file.writelines(f"{COMMENT}{name}: {value}\n" for name, value in machine_facts().items())
            writer.writeheader()
        writer.writerow(row)


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV, numbers as numbers; none where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if not line.startswith(COMMENT))
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(lines)]


def _value(text: str) -> Any:
    """Return a number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False}.get(text, text)
