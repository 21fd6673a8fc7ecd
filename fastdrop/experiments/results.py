"""Tables of results: a row an epoch, in a CSV file or an SQLite data base, written whole runs at a time.

A file never holds a part of a run, whatever interrupts the writing. Rows of a CSV file are in order of configuration, rate, seed
and epoch, so that the same runs give the same file.
"""

from __future__ import annotations

import csv
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final

from fastdrop._files import check_writable, reading, remove_leftovers, replacing
from fastdrop.errors import FileFormatError, OutputError

DATABASES = (".db", ".sqlite", ".sqlite3")
TABLES = (".csv", *DATABASES)
MAX_SEED: Final = 2**63 - 1
"""Largest integer of SQLite."""


@dataclass(frozen=True, order=True)
class Row:
    """One epoch of one run. Values are those of `fit`'s history: training with dropout, validation without."""

    configuration: str
    rate: float
    seed: int
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float

    @property
    def key(self) -> tuple[str, float, int, int]:
        """What there is one row of."""
        return self.configuration, self.rate, self.seed, self.epoch


COLUMNS = {field.name: {"str": str, "float": float, "int": int}[str(field.type)] for field in fields(Row)}
KEY = ("configuration", "rate", "seed", "epoch")
SQL_TYPES = {str: "TEXT", float: "REAL", int: "INTEGER"}


class Results:
    """The rows in a file, which is made by the first run that is added.

    Parameters
    ----------
    path : Path
        Ends in .csv, or in .db, .sqlite or .sqlite3 for a data base.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in TABLES:
            raise OutputError(f"{path}: a table's name must end in {', '.join(TABLES)}")
        check_writable(path)
        self.path = path
        self._is_database = path.suffix.lower() in DATABASES

    def rows(self) -> list[Row]:
        """Return all rows, in order.

        Raises
        ------
        FileFormatError: the file is no such table.
        """
        if not self.path.exists():
            return []
        with reading(self.path):
            return sorted(_row(values) for values in (self._read_database() if self._is_database else self._read_csv()))

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of a run; rows that were there of the same epochs are replaced."""
        if self._is_database:
            self._write_database(rows)
            return
        everything = {row.key: row for row in [*self.rows(), *rows]}
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(astuple(row) for row in sorted(everything.values()))

    def _read_csv(self) -> Sequence[Sequence[Any]]:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                lines = [line for line in csv.reader(file) if line]
        except csv.Error as error:
            raise FileFormatError(str(error)) from error
        if not lines or lines[0] != list(COLUMNS):
            raise FileFormatError(f"its first line must be {','.join(COLUMNS)}")
        return lines[1:]

    def _read_database(self) -> Sequence[Sequence[Any]]:
        """Return the rows, none if there is no table; opened for writing, for what a killed writer left may have to be undone."""
        try:
            with closing(sqlite3.connect(self.path)) as connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'epochs'").fetchall():
                    return []
                return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM epochs").fetchall()
        except sqlite3.Error as error:
            raise FileFormatError(str(error)) from error

    def _write_database(self, rows: Iterable[Row]) -> None:
        columns = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in COLUMNS.items())
        marks = ", ".join("?" * len(COLUMNS))
        try:
            with closing(sqlite3.connect(self.path)) as connection, connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS epochs ({columns}, PRIMARY KEY ({', '.join(KEY)}))")
                connection.executemany(f"INSERT OR REPLACE INTO epochs VALUES ({marks})", [astuple(row) for row in rows])
        except sqlite3.Error as error:
            raise OutputError(f"{self.path}: cannot be written: {error}") from error


def _row(values: Sequence[Any]) -> Row:
    """Return the row that the values of a file say; SQLite keeps NaN as NULL."""
    if len(values) != len(COLUMNS):
        raise FileFormatError(f"a row must have {len(COLUMNS)} values, got {len(values)}")
    entries: list[Any] = [
        math.nan if value is None else kind(value) for kind, value in zip(COLUMNS.values(), values, strict=True)
    ]
    return Row(*entries)


@contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """Make a folder for what is unfinished, within the context of this process alone; it goes when nothing is left in it.

    Raises
    ------
    OutputError: it cannot be made, or another process is at work in it.
    """
    lock = folder / "lock"
    with closing(_locked(lock)):
        remove_leftovers(folder)
        try:
            yield
        finally:
            with suppress(OSError):  # not empty
                lock.unlink(missing_ok=True)
                folder.rmdir()


def _locked(path: Path) -> sqlite3.Connection:
    """Return a connection that holds the lock of a file, one that other processes see too, until it is closed."""
    while True:
        try:
            path.parent.mkdir(exist_ok=True)
            path.touch()
            found = path.stat().st_ino
            connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{path.parent}: cannot be a folder for unfinished runs: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode = OFF")  # nothing is ever written
            connection.execute("BEGIN EXCLUSIVE")  # a lock of the operating system, which ends with the process
        except sqlite3.Error as error:
            connection.close()
            raise OutputError(f"{path.parent}: another sweep is at work here ({error})") from error
        with suppress(FileNotFoundError):  # of a process that ended in between, and took the file with it
            if path.stat().st_ino == found:
                return connection
        connection.close()
