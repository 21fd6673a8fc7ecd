"""Turn a pytest-benchmark JSON file of `bench_dropout.py` into a CSV and the README's table.

pytest bench/bench_dropout.py --benchmark-only --log2-sizes 16,20,24 --benchmark-json=dropout.json
python bench/table.py dropout.json bench/results/dropout.csv > table.md
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("library", "version", "direction", "rate", "elements", "threads", "min_us", "median_us", "ns_per_element", "rounds")
ORDER = ("fastdrop", "torch eager", "torch.compile", "jax", "tensorflow", "numpy_copy", "own_copy")
TITLES = {
    "numpy_copy": "`np.multiply(x, 2, out=)`",
    "own_copy": "own kernel, scaled copy",
    "jax": "JAX",
    "tensorflow": "TensorFlow",
}
MICROSECONDS = 1e6


def row(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one benchmark."""
    facts, stats = benchmark["extra_info"], benchmark["stats"]
    return {
        **{name: facts.get(name, "") for name in COLUMNS},
        "min_us": round(stats["min"] * MICROSECONDS, 2),
        "median_us": round(stats["median"] * MICROSECONDS, 2),
        "ns_per_element": round(stats["min"] * 1e9 / facts["elements"], 4),
        "rounds": stats["rounds"],
    }


def machine(benchmarks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts that all benchmarks of the file share."""
    shared = dict(benchmarks[0]["extra_info"])
    for each in benchmarks:
        shared = {name: value for name, value in shared.items() if each["extra_info"].get(name) == value}
    return shared


def table(rows: list[dict[str, Any]]) -> str:
    """Return nanoseconds an element, forward, best of all rounds, by library and size."""
    sizes = sorted({row["elements"] for row in rows})
    head = ["forward, ns an element"] + [f"2^{size.bit_length() - 1}, rate {rate}" for size in sizes for rate in (0.1, 0.5)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for library in ORDER:
        cells = []
        for size in sizes:
            for rate in (0.1, 0.5):
                found = [
                    each["ns_per_element"]
                    for each in rows
                    if each["library"] == library and each["elements"] == size
                    and each["direction"] in ("forward", "") and each["rate"] in (rate, "")
                ]  # fmt: skip
                cells.append(f"{found[0]:.2f}" if found else "-")
        lines.append(f"| {TITLES.get(library, library)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(source: str, target: str) -> None:
    """Write the CSV, its machine facts in comment lines, and print the table."""
    record = json.loads(Path(source).read_text())
    rows = [row(each) for each in record["benchmarks"]]
    rows.sort(key=lambda each: (each["elements"], each["direction"], str(each["rate"]), each["library"]))
    facts = {"date": record["datetime"][:10], **machine(record["benchmarks"])}
    with Path(target).open("w", newline="") as file:
        file.writelines(f"# {name}: {value}\n" for name, value in facts.items())
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
