"""`load`: what lies at a path, recognised; and the embedded digits."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from fastdrop import _validate
from fastdrop.data.cifar10 import has_cifar10, load_cifar10
from fastdrop.data.dataset import IMAGE_AXES, Dataset, Floats, assemble, to_labels, to_unit
from fastdrop.data.files import fail_format, fail_missing, without_compression
from fastdrop.data.idx import has_idx, images_of, load_idx
from fastdrop.data.npz import load_npz, load_npz_inputs, read_npz, with_channel
from fastdrop.data.table import is_csv, load_csv, read_csv

DIGITS = "digits"
DIGITS_FILE = Path(__file__).parent / "digits.npz"
DIGITS_MAX = 16
"""Largest value of a pixel of the embedded digits."""

WANTED = "wanted a folder of IDX or CIFAR-10 files, a .npz archive or a folder with one, a .csv table, or the name digits"


def load_digits() -> Dataset:
    """Return the embedded digits: 1797 images of 8 x 8, of which the last fifth (shuffled) is the test part.

    Source: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0;
    see digits.txt beside the data.
    """
    arrays = read_npz(DIGITS_FILE)
    x, y = to_unit(arrays["x"], DIGITS_MAX), to_labels(DIGITS_FILE, "y", arrays["y"])
    return assemble(DIGITS_FILE, DIGITS, (x, y), None)


def load(path: str | os.PathLike[str] = DIGITS) -> Dataset:
    """Load a data set, whatever its format.

    Parameters
    ----------
    path : path
        A folder of IDX files with MNIST's names (plain or gzipped); a folder of CIFAR-10 binary files (data_batch_*.bin,
        test_batch.bin; plain, .gz or .xz); a .npz archive (x_train, y_train, x_test, y_test, or x, y; x of shape (n, features),
        or of images, (n, height, width) or (n, height, width, channels)), or a folder with one such archive; a .csv table whose
        label is the column called label, class or target, or the last one; or "digits", the embedded handwritten digits.

    Returns
    -------
    dataset : Dataset
        float32 inputs, images as (n, height, width, channels) in [0, 1]; int64 class numbers; the classes' names. Where the
        files have no test part, the last fifth of the rows after a fixed shuffle is held out.

    Raises
    ------
    FileNotFoundError: nothing there, or no known data in the folder. ValueError: a malformed file; the text names it.

    Examples
    --------
    >>> load("digits").x_train.shape
    (1438, 8, 8, 1)
    """
    if path == DIGITS:
        return load_digits()
    place = _existing(path)
    if place.is_dir():
        if has_idx(place):
            return load_idx(place)
        return load_cifar10(place) if has_cifar10(place) else fail_missing(place, f"no known data in this folder; {WANTED}")
    if place.suffix == ".npz":
        return load_npz(place)
    return load_csv(place) if is_csv(without_compression(place.name)) else fail_format(place, f"unknown kind of file; {WANTED}")


def load_inputs(path: str | os.PathLike[str], input_shape: int | Sequence[int]) -> Floats:
    """Load the rows to predict, as a network takes them: labels are not needed, and ignored if there are any.

    Parameters
    ----------
    path : path
        What `load` takes (the test part is used), a single file of IDX images, an archive with x alone, a table without labels.
    input_shape : int or tuple of int
        Shape of a row of the network's inputs. Images become rows of features, and those images, where their numbers agree.

    Returns
    -------
    x : float32 array, shape (rows, *input_shape)

    Raises
    ------
    FileNotFoundError, ValueError: as `load`; also rows of another number of features, or images of another shape.
    """
    shape = _validate.shape("input_shape", input_shape)
    features = math.prod(shape)
    x = with_channel(_inputs(path, features))
    if x.ndim == len(shape) + 1 == IMAGE_AXES and x.shape[1:] != shape:
        fail_format(Path(path), f"images of shape {x.shape[1:]}, but the network takes {shape}")
    if math.prod(x.shape[1:]) != features:
        fail_format(Path(path), f"rows of {math.prod(x.shape[1:])} features, but the network takes {features}")
    return x.reshape(len(x), *shape)


def _inputs(path: str | os.PathLike[str], features: int) -> Floats:
    if path == DIGITS:
        return load_digits().x_test
    place = _existing(path)
    if place.is_dir():
        return load(place).x_test
    name = without_compression(place.name)
    if name.endswith(".npz"):
        return load_npz_inputs(place)
    if is_csv(name):
        return read_csv(place, features=features).x
    return images_of(place) if "idx" in name else fail_format(place, f"unknown kind of file; {WANTED}")


def _existing(path: str | os.PathLike[str]) -> Path:
    """Return the path of what exists there: of the archive in a folder, if that is all that is known in it."""
    place = _validate.path("path", path)
    if not place.exists():
        fail_missing(place)
    archives = list(place.glob("*.npz"))
    return archives[0] if len(archives) == 1 and not has_idx(place) and not has_cifar10(place) else place
