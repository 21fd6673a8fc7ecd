"""NumPy archives. Arrays are decoded here rather than by `np.load`, so that no header makes memory, and nothing is unpickled."""

from __future__ import annotations

import math
import os
import sys
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from fastdrop import _validate
from fastdrop._types import Array
from fastdrop.data.dataset import IMAGE_AXES, Dataset, Floats, assemble, name_classes, to_features, to_labels
from fastdrop.data.files import expect_end, fail_format, read_exactly, reporting_damage

PLAIN_KINDS = "biufU"
"""Kinds of elements that are read: bool, integers, floats, text."""

PAIRS = (("x_train", "y_train"), ("x_test", "y_test"))
UNDIVIDED = (("x", "y"),)
INPUTS = ("x_test", "x", "x_train")


def read_npy(stream: IO[bytes], path: Path, name: str) -> Array:
    """Read one array of the .npy format: plain numbers or text, never objects."""
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except ValueError as error:
        fail_format(path, f"array {name}: no NumPy header ({str(error).splitlines()[0]})")
    if dtype.hasobject:
        fail_format(path, f"array {name} holds Python objects, which are never unpickled")
    if dtype.kind not in PLAIN_KINDS or dtype.itemsize == 0 or min(shape, default=0) < 0:
        fail_format(path, f"array {name} must hold numbers or text, got {dtype} of shape {shape}")
    data = read_exactly(stream, math.prod(shape) * dtype.itemsize, path, f"array {name}: its header promises")
    expect_end(stream, path)
    if dtype.kind == "U" and np.frombuffer(data, dtype.byteorder + "u4").max(initial=0) > sys.maxunicode:
        fail_format(path, f"array {name} is not valid text")
    array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    return array


def read_npz(path: str | os.PathLike[str], names: Collection[str] | None = None) -> dict[str, Array]:
    """Read the arrays of a .npz archive.

    Parameters
    ----------
    path : path
    names : collection of str, optional
        Only these, where they exist. Default: all.

    Returns
    -------
    arrays : dict from name to array

    Raises
    ------
    FileNotFoundError: no such file. ValueError: damaged archive, or an array that is truncated or holds Python objects.
    """
    file = _validate.path("path", path)
    arrays: dict[str, Array] = {}
    with reporting_damage(file), zipfile.ZipFile(file) as archive:
        for entry in archive.namelist():
            name = entry.removesuffix(".npy")
            if names is None or name in names:
                with archive.open(entry) as stream:
                    arrays[name] = read_npy(stream, file, name)
    return arrays


def load_npz(path: Path) -> Dataset:
    """Return the data set in an archive with x_train, y_train, x_test, y_test, or x_train and y_train, or x and y."""
    arrays = read_npz(path, {name for pair in PAIRS + UNDIVIDED for name in pair})
    parts = [pair for pair in (PAIRS if "x_train" in arrays else UNDIVIDED) if pair[0] in arrays]
    if not parts:
        fail_format(path, "no array x_train or x in the archive")
    for x_name, y_name in parts:
        if y_name not in arrays:
            fail_format(path, f"no array {y_name} in the archive, but {x_name}")
    inputs = [with_channel(to_features(path, x_name, arrays[x_name])) for x_name, _ in parts]
    if all(arrays[y_name].dtype.kind == "U" for _, y_name in parts):
        outputs, labels = name_classes(path, [arrays[y_name] for _, y_name in parts])
    else:
        outputs, labels = [to_labels(path, y_name, arrays[y_name]) for _, y_name in parts], None
    train, *test = zip(inputs, outputs, strict=True)
    return assemble(path, path.stem, train, test[0] if test else None, labels)


def with_channel(x: Floats) -> Floats:
    """Return images of shape (n, height, width) with one channel, anything else as it is."""
    return x[..., np.newaxis] if x.ndim == IMAGE_AXES - 1 else x


def load_npz_inputs(path: Path) -> Floats:
    """Return the rows to predict: x_test, else x, else x_train."""
    arrays = read_npz(path, INPUTS)
    name = next((name for name in INPUTS if name in arrays), None)
    return fail_format(path, "no array x or x_test in the archive") if name is None else to_features(path, name, arrays[name])
