"""Tables in text: one row a line, one column of labels."""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from fastdrop import _validate
from fastdrop.data.dataset import Dataset, Floats, assemble, name_classes, to_features
from fastdrop.data.files import MAX_BYTES, fail_format, open_binary

LABEL_NAMES = ("label", "class", "target")
DELIMITERS = ",;\t"


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """A table of numbers.

    Attributes
    ----------
    x : float32 array, shape (rows, features)
    labels : tuple of str, or None
        The label of each row as it stands in the file; None where there is no label column.
    names : tuple of str, or None
        The names of the features; None where the file has no header.
    """

    x: Floats
    labels: tuple[str, ...] | None
    names: tuple[str, ...] | None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _named_label(fields: list[str]) -> int | None:
    """Return the number of the column that is called label, class or target."""
    lower = [field.strip().lower() for field in fields]
    return next((lower.index(name) for name in LABEL_NAMES if name in lower), None)


def _rows(file: Path, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of the lines that are not blank."""
    lines = iter(text)
    line = 1
    try:
        first = next(lines, "")
        reader = csv.reader(chain([first], lines), delimiter=max(DELIMITERS, key=first.count), strict=True)
        for fields in reader:
            line = reader.line_num
            if any(field.strip() for field in fields):
                yield line, fields
    except csv.Error as error:
        fail_format(file, f"after line {line}: {error}")
    except UnicodeDecodeError:
        fail_format(file, f"not a text file in UTF-8 (after line {line})")


def read_csv(path: str | os.PathLike[str], *, features: int | None = None) -> Table:
    """Read a table: numbers, and labels in the column called label, class or target, else in the last one.

    Parameters
    ----------
    path : path
        UTF-8 text, plain, gzipped or xz; separated by commas, semicolons or tabs; a first line that is not numbers is a header.
    features : int, optional
        A table without a header that has exactly so many columns has no labels.

    Returns
    -------
    table : Table

    Raises
    ------
    FileNotFoundError: no such file. ValueError: not text, no rows, rows of different lengths, a field that is no finite number.
    """
    file = _validate.path("path", path)
    values, labels = array("f"), []
    names: tuple[str, ...] | None = None
    label_column: int | None = None
    width = 0
    with open_binary(file) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        for line, fields in _rows(file, text):
            if width == 0:
                width, named = len(fields), _named_label(fields)
                header = named is not None or not all(map(_is_number, fields[: max(1, width - 1)]))
                label_column = named if named is not None else None if width == features else width - 1
                if header:
                    names = tuple(field.strip() for number, field in enumerate(fields) if number != label_column)
                    continue
            if len(fields) != width:
                fail_format(file, f"line {line}: {len(fields)} columns, the first line has {width}")
            if label_column is not None:
                labels.append(_label(file, line, fields.pop(label_column)))
            _append(values, file, line, fields)
    if not values:
        fail_format(file, "no rows with features")
    x = to_features(file, "the table", np.frombuffer(values, np.float32).reshape(-1, width - (label_column is not None)))
    return Table(x, None if label_column is None else tuple(labels), names)


def _label(file: Path, line: int, field: str) -> str:
    label = field.strip()
    if not label:
        fail_format(file, f"line {line}: the label is empty")
    return label


def _append(values: array[float], file: Path, line: int, fields: list[str]) -> None:
    """Append the numbers of one row."""
    try:
        values.extend(map(float, fields))
    except ValueError:
        bad = next(field for field in fields if not _is_number(field))
        fail_format(file, f"line {line}: not a number: {bad!r}")
    if len(values) * values.itemsize > MAX_BYTES:
        fail_format(file, f"more than {MAX_BYTES} bytes of numbers")


def is_csv(name: str) -> bool:
    """Return whether a file name (without .gz or .xz) is that of a table."""
    return name.endswith((".csv", ".tsv"))


def load_csv(path: Path) -> Dataset:
    """Return the data set in a table: classes are the different labels, in the order of numbers or of the alphabet."""
    table = read_csv(path)
    (y,), names = name_classes(path, [np.array(table.labels)])
    return assemble(path, path.name.split(".")[0], (table.x, y), None, names)
