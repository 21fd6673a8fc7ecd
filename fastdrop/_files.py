"""Files that are written whole or not at all, and the container of models and checkpoints: safetensors, never pickle.

A container is a safetensors file. Its metadata are strings: "format" ("fastdrop"), "format_version", "kind" ("model" or
"checkpoint"), "mask_contract", "package_version", and "facts", a JSON object of all that is no array.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from fastdrop import _validate
from fastdrop._types import Array
from fastdrop._version import __version__
from fastdrop.errors import FastdropError, FileFormatError, MissingFileError, OutputError, StateError

FORMAT: Final = "fastdrop"
FORMAT_VERSION: Final = 1
MASK_CONTRACT: Final = 1
"""Version of the mask contract: masks of another version are other masks."""

TEMPORARY: Final = f".{FORMAT}-*.tmp"
"""Names of files that are being written."""

ARRAY: Final = "__array__"
"""Key that stands for an array in packed values, with the tensor's name."""

Tensors: TypeAlias = dict[str, Array]
Facts: TypeAlias = dict[str, Any]


def check_writable(path: Path) -> None:
    """Raise an OutputError unless a file of that name can be written or replaced."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise OutputError(f"{path}: cannot be written: there is no folder {folder}")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path}: cannot be written: it is {'a folder' if path.is_dir() else 'no regular file'}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot be written: no permission in the folder {folder}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name in the folder of `path`; what was written there becomes `path` at the end, in one step.

    Raises
    ------
    OutputError: it cannot be written; `path` is as it was before, whatever happens.
    """
    check_writable(path)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(TEMPORARY.replace("*", secrets.token_hex(8)))
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing, from a folder in which nobody else writes."""
    for path in folder.glob(TEMPORARY):
        path.unlink(missing_ok=True)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what comes of a file's contents into a FileFormatError that names the file, be it checked for or not."""
    try:
        yield
    except KeyError as error:
        raise FileFormatError(f"{path}: {error.args[0]} is missing") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError, StateError) as error:
        raise FileFormatError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class Container:
    """What a file holds."""

    kind: str
    tensors: Tensors
    facts: Facts


def write(path: Path, container: Container) -> None:
    """Write a container, replacing the file of that name in one step."""
    from safetensors.numpy import save

    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "kind": container.kind,
        "mask_contract": str(MASK_CONTRACT),
        "package_version": __version__,
        "facts": json.dumps(container.facts),
    }
    tensors = {name: np.require(array, requirements=["C"]) for name, array in container.tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def read(path: Path) -> Container:
    """Read a container.

    Raises
    ------
    MissingFileError: no such file. FileFormatError: truncated, damaged, of another program or of a newer version.
    """
    if not os.path.exists(path):
        raise MissingFileError(f"{path}: no such file")
    if not os.path.isfile(path):
        raise FileFormatError(f"{path}: must be a file, got a folder or device")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            _check_versions(path, metadata)
            facts = json.loads(metadata["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FastdropError:
        raise
    except Exception as error:
        # A parser of hostile bytes may raise anything; whatever it is, the file is not what it should be.
        raise FileFormatError(f"{path}: truncated, damaged or no safetensors file: {error}") from error
    if not isinstance(facts, dict):
        raise FileFormatError(f"{path}: facts must be an object, got {type(facts).__name__}")
    return Container(metadata["kind"], tensors, facts)


def _check_versions(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT or metadata.get("kind") not in ("model", "checkpoint") or "facts" not in metadata:
        raise FileFormatError(f"{path}: a safetensors file, but no model or checkpoint of fastdrop")
    for name, known in (("format_version", FORMAT_VERSION), ("mask_contract", MASK_CONTRACT)):
        if metadata.get(name) != str(known):
            raise FileFormatError(
                f"{path}: `{name}` must be {known}, got {metadata.get(name)!r} "
                f"(written by version {metadata.get('package_version')!r}, this is {__version__})"
            )


def pack(value: Any, name: str, tensors: Tensors) -> Any:
    """Return `value` (dicts, lists, numbers, strings, None and arrays) as JSON-able values; arrays go into `tensors`.

    Raises
    ------
    TypeError: anything else is in it.
    """
    if isinstance(value, np.ndarray):
        tensors[name] = value
        return {ARRAY: name}
    if isinstance(value, dict):
        return {_key(name, key): pack(entry, f"{name}/{key}", tensors) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [pack(entry, f"{name}/{index}", tensors) for index, entry in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if value is not None and not isinstance(value, bool | int | float | str):
        _validate.fail_type(name, "made of dicts, lists, numbers, strings, None and arrays", type(value).__name__)
    return value


def unpack(value: Any, tensors: Mapping[str, Array]) -> Any:
    """Return what `pack` was given (tuples as lists).

    Raises
    ------
    KeyError: a tensor is missing.
    """
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return tensors[str(value[ARRAY])]
        return {key: unpack(entry, tensors) for key, entry in value.items()}
    return [unpack(entry, tensors) for entry in value] if isinstance(value, list) else value


def _key(name: str, key: Any) -> str:
    if not isinstance(key, str):
        _validate.fail_type(name, "of string keys", type(key).__name__)
    return key
