"""Tables of results: a row an epoch, in a CSV file or an SQLite data base, written whole runs at a time.

A file never holds a part of a run, whatever interrupts the writing. Rows are in order of configuration, rate, seed and epoch, so
that the same runs give the same file.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from fastdrop._files import check_writable, reading, replacing
from fastdrop.errors import FileFormatError, OutputError

DATABASES = (".db", ".sqlite", ".sqlite3")
TABLES = (".csv", *DATABASES)


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


COLUMNS = {field.name: {"str": str, "float": float, "int": int}[str(field.type)] for field in fields(Row)}
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
        """Return all rows.

        Raises
        ------
        FileFormatError: the file is no such table.
        """
        if not self.path.exists():
            return []
        with reading(self.path):
            return sorted(Row(*(kind(text) for kind, text in zip(COLUMNS.values(), row, strict=True))) for row in self._read())

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of a run."""
        if not self._is_database:
            everything = sorted([*self.rows(), *rows])
            with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                writer.writerows(astuple(row) for row in everything)
            return
        columns = ", ".join(f"{name} {SQL_TYPES[kind]}" for name, kind in COLUMNS.items())
        try:
            with closing(sqlite3.connect(self.path)) as connection, connection:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS epochs ({columns}, PRIMARY KEY (configuration, rate, seed, epoch))"
                )
                marks = ", ".join("?" * len(COLUMNS))
                connection.executemany(f"INSERT INTO epochs VALUES ({marks})", [astuple(row) for row in rows])
        except sqlite3.Error as error:
            raise OutputError(f"{self.path}: cannot be written: {error}") from error

    def _read(self) -> list[tuple[str, ...]]:
        if self._is_database:
            try:
                with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
                    return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM epochs").fetchall()
            except sqlite3.Error as error:
                raise FileFormatError(f"{self.path}: {error}") from error
        with self.path.open(encoding="utf-8", newline="") as file:
            header, *lines = csv.reader(file)
        if header != list(COLUMNS):
            raise FileFormatError(f"{self.path}: its columns must be {', '.join(COLUMNS)}")
        return [tuple(line) for line in lines]
