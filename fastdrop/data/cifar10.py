"""CIFAR-10 binary files.

Records of 3073 bytes without a header: the label 0..9, then a 32 x 32 plane of red, one of green, one of blue, row by row.
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, binary version.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastdrop import _validate
from fastdrop.data.dataset import Dataset, assemble, to_unit
from fastdrop.data.files import CHUNK_BYTES, fail_format, open_binary, without_compression

SIDE = 32
CHANNELS = 3
RECORD_BYTES = 1 + CHANNELS * SIDE * SIDE
MAX_RECORDS = 1_000_000
"""Largest number of records that is read from one file (the original files hold 10000)."""

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

Bytes = npt.NDArray[np.uint8]


def _records(file: Path) -> Bytes:
    """Return the records of one file: shape (n, 3073)."""
    data = bytearray()
    with open_binary(file) as stream:
        while piece := stream.read(CHUNK_BYTES):
            data += piece
            if len(data) > MAX_RECORDS * RECORD_BYTES:
                fail_format(file, f"more than {MAX_RECORDS} records")
    if not data or len(data) % RECORD_BYTES:
        fail_format(file, f"truncated or no CIFAR-10 file: {len(data)} bytes are no multiple of a record's {RECORD_BYTES}")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
    bad = records[:, 0] >= len(LABELS)
    if bad.any():
        row = int(np.argmax(bad))
        fail_format(file, f"label out of range: {records[row, 0]} in record {row}, wanted 0 to {len(LABELS) - 1}")
    return records


def read_cifar10(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Read CIFAR-10 binary files, plain, gzipped or xz, one after the other.

    Parameters
    ----------
    paths : path or list of paths

    Returns
    -------
    images : uint8, shape (n, 32, 32, 3)
    labels : int64, shape (n,)

    Raises
    ------
    FileNotFoundError: no such file. ValueError: no whole number of records, or a label above 9.
    """
    several = paths if isinstance(paths, Iterable) and not isinstance(paths, str) else [paths]
    files = [_validate.path("paths", path) for path in several]
    if not files:
        _validate.fail_value("paths", "at least one file", "an empty list")
    records = [_records(file) for file in files]
    images = np.concatenate([part[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1) for part in records])
    labels = np.concatenate([part[:, 0] for part in records]).astype(np.int64)
    return np.ascontiguousarray(images), labels


def _files(folder: Path, start: str) -> list[Path]:
    """Return the batches whose names start so, in order; of one batch that is there twice, the uncompressed file."""
    found = {without_compression(file.name): file for file in sorted(folder.iterdir(), reverse=True)}
    return [found[name] for name in sorted(found) if name.startswith(start) and name.endswith(".bin")]


def has_cifar10(folder: Path) -> bool:
    """Return whether a folder holds CIFAR-10 training batches."""
    return bool(_files(folder, "data_batch"))


def load_cifar10(folder: Path) -> Dataset:
    """Return the data set in a folder of CIFAR-10 binary files; without a test batch, a part of the training rows."""
    parts = []
    for start in ("data_batch", "test_batch"):
        if files := _files(folder, start):
            images, labels = read_cifar10(files)
            parts.append((to_unit(images), labels))
    return assemble(folder, folder.name, parts[0], parts[1] if len(parts) > 1 else None, LABELS)
