"""Run the suites, in a new process for each number of threads, and write a CSV for each into a folder.

python bench/run.py                                     # everything: one thread, then all
python bench/run.py --threads 1 --suites step,dense -o /tmp/results
python bench/run.py --repeat 2                          # of each case the lesser median: for machines with other guests
python bench/run.py --quick --peers none
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from results import convert

from fastdrop import _config
from fastdrop.benchmark.machine import pinned

FOLDER = Path(__file__).parent


def run(suites: list[str], threads: int, options: list[str], record: Path) -> int:
    """Run pytest on the suites in a process that has so many CPUs; return its exit status."""
    files = [str(FOLDER / f"bench_{suite}.py") for suite in suites]
    command = [sys.executable, "-m", "pytest", *files, "-q", "-r", "fE", "--benchmark-only", "--benchmark-columns=median"]
    with pinned(threads) as environment:
        result = subprocess.run(
            [*command, f"--threads={threads}", f"--benchmark-json={record}", *options], env=environment, check=False
        )
    return result.returncode


def main() -> None:
    every = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    available = _config.available_cpus()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default=",".join(map(str, sorted({1, available}))), help="default: %(default)s")
    parser.add_argument("--suites", default=",".join(every), help="default: %(default)s")
    parser.add_argument("--repeat", type=int, default=1, help="run everything so many times and keep each case's least median")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER / "results", help="folder of the CSV files")
    arguments, options = parser.parse_known_args()
    suites = arguments.suites.split(",")
    if unknown := sorted(set(suites) - set(every)):
        parser.error(f"argument --suites: unknown: {', '.join(unknown)} (choose from {', '.join(every)})")
    with tempfile.TemporaryDirectory() as folder:
        records, failed = [], 0
        for repetition in range(arguments.repeat):
            for threads in map(int, arguments.threads.split(",")):
                records.append(Path(folder) / f"{repetition}-{threads}.json")
                failed |= run(suites, threads, options, records[-1])
        if written := [record for record in records if record.exists()]:
            print(*convert(written, arguments.output), sep="\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
