"""IDX files: the format of MNIST and its relatives.

Big-endian: two zero bytes, one byte for the type, one for the number of axes, one int32 for each axis, then the elements.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Final

import numpy as np

from fastdrop import _validate
from fastdrop._types import Array
from fastdrop.data.dataset import Dataset, Floats, Labels, assemble, to_features, to_labels
from fastdrop.data.files import expect_end, fail_format, fail_missing, open_binary, read_exactly, without_compression

TYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 8
PARTS = (("train",), ("t10k", "test"))


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read one IDX file, gzipped or not.

    Parameters
    ----------
    path : path
        A name that ends in .gz or .xz is decompressed.

    Returns
    -------
    array : of the shape and type in the header, native byte order

    Raises
    ------
    FileNotFoundError: no such file. ValueError: wrong magic number, truncated, or longer than the header says.
    """
    file = _validate.path("path", path)
    with open_binary(file) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= MAX_AXES:
            fail_format(file, f"not an IDX file: it begins with {magic.hex(' ') or 'nothing'}")
        dtype = np.dtype(TYPES[magic[2]])
        shape = struct.unpack(f">{magic[3]}I", read_exactly(stream, 4 * magic[3], file))
        data = read_exactly(stream, math.prod(shape) * dtype.itemsize, file)
        expect_end(stream, file)
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _find(folder: Path, part: tuple[str, ...], kind: str) -> Path | None:
    """Return the file of a part, e.g. train-images-idx3-ubyte.gz; also with a dot before "idx" and with a prefix."""
    for file in sorted(folder.iterdir()):
        name = without_compression(file.name).replace(".", "-")
        if any(f"{word}-{kind}-idx" in name for word in part):
            return file
    return None


def has_idx(folder: Path) -> bool:
    """Return whether a folder holds images for training in IDX files."""
    return _find(folder, PARTS[0], "images") is not None


def images_of(file: Path) -> Floats:
    """Return the images of an IDX file, bytes as [0, 1]: shape (n, height, width, 1), other shapes as they are."""
    images = read_idx(file)
    return to_features(file, "images", images[..., np.newaxis] if images.ndim == 3 else images)


def load_idx(folder: Path) -> Dataset:
    """Return the data set in a folder of IDX files with MNIST's names; without a test part, a part of the training rows."""
    pairs: list[tuple[Floats, Labels]] = []
    for part in PARTS:
        images, labels = _find(folder, part, "images"), _find(folder, part, "labels")
        if images is None:
            continue
        if labels is None:
            fail_missing(folder / f"{part[0]}-labels-idx1-ubyte", f"the labels of {images.name} are missing")
        pairs.append((images_of(images), to_labels(labels, "labels", read_idx(labels))))
        if len(pairs[-1][0]) != len(pairs[-1][1]):
            fail_format(labels, f"{len(pairs[-1][1])} labels for the {len(pairs[-1][0])} images in {images.name}")
    return assemble(folder, folder.name, pairs[0], pairs[1] if len(pairs) > 1 else None)
