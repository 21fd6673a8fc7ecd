"""Opening data files: compressed or not, damage reported by file name, nothing allocated on the word of a header."""

from __future__ import annotations

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from fastdrop.errors import FileFormatError, MissingFileError

MAX_BYTES = 1 << 34
"""Largest array that is read, in bytes: whatever claims more is taken for a damaged or hostile file."""

CHUNK_BYTES = 1 << 22
"""A file is read in pieces of this size, so that memory grows with what is really there."""

DECOMPRESSORS: Final[dict[str, Any]] = {".gz": gzip.open, ".xz": lzma.open}

DAMAGE = (EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""What the decompressors raise for damaged, truncated, encrypted or unreadable files (NotImplementedError is a RuntimeError)."""


def fail_format(path: Path, problem: str) -> NoReturn:
    """Raise the FileFormatError "path: problem"."""
    raise FileFormatError(f"{path}: {problem}")


def fail_missing(path: Path, problem: str = "no such file or folder") -> NoReturn:
    """Raise the MissingFileError "path: problem"."""
    raise MissingFileError(f"{path}: {problem}")


@contextmanager
def reporting_damage(path: Path) -> Iterator[None]:
    """Turn the decompressors' errors into a FileFormatError that names the file."""
    try:
        yield
    except FileNotFoundError:
        fail_missing(path)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or "it ends too early"
        raise FileFormatError(f"{path}: damaged, truncated or unreadable: {reason}") from error


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its name ends in .gz or .xz; see `reporting_damage` for the errors."""
    with reporting_damage(path):
        opener = DECOMPRESSORS.get(path.suffix, open)
        with opener(path, "rb") as stream:
            yield stream


def read_exactly(stream: IO[bytes], count: int, path: Path, what: str = "its header promises") -> bytearray:
    """Return exactly `count` bytes; fewer in the stream is a FileFormatError."""
    if count > MAX_BYTES:
        fail_format(path, f"{what} {count} bytes, more than the {MAX_BYTES} that are read")
    data = bytearray()
    while len(data) < count:
        piece = stream.read(min(CHUNK_BYTES, count - len(data)))
        if not piece:
            fail_format(path, f"truncated: {what} {count} bytes, {len(data)} are there")
        data += piece
    return data


def expect_end(stream: IO[bytes], path: Path) -> None:
    """Raise a FileFormatError unless the stream is at its end (which also checks a compressed file's checksum)."""
    if stream.read(1):
        fail_format(path, "more data than its header promises")


def without_compression(name: str) -> str:
    """Return a file name without its .gz or .xz."""
    return name.removesuffix(".gz").removesuffix(".xz")
