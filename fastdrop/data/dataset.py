"""`Dataset`: training and test arrays with their class names, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastdrop import _validate, rng
from fastdrop._types import Array, Shape
from fastdrop.data.files import fail_format

MAX_CLASSES = 1 << 16
"""Largest number of classes: a label beyond it is taken for damage (a network would have one output for each)."""

TEST_FRACTION = 5
"""Where there is no test part, one row in so many is held out."""

SPLIT_SEED = 0
"""Seed of the shuffle before a split: the same rows are held out everywhere."""

MAX_DIGITS = 18
"""Longest label that is read as a whole number."""

UINT8_MAX = 255
IMAGE_AXES = 4

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Dataset:
    """Training and test data, ready for a network.

    Attributes
    ----------
    name : str
        What was loaded, for titles.
    x_train, x_test : float32 arrays, shape (n, features), or (n, height, width, channels) for images
        Pixels are in [0, 1].
    y_train, y_test : int64 arrays, shape (n,)
        Class numbers, from 0.
    labels : tuple of str
        The name of each class.
    """

    name: str
    x_train: Floats
    y_train: Labels
    x_test: Floats
    y_test: Labels
    labels: tuple[str, ...]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.labels)

    @property
    def image_shape(self) -> Shape | None:
        """(height, width, channels) of images, None for tables."""
        return self.x_train.shape[1:] if self.x_train.ndim == IMAGE_AXES else None

    def flat(self) -> Dataset:
        """Return the same data with one axis of features: what a dense network takes. No copy is made."""
        return replace(self, x_train=flatten(self.x_train), x_test=flatten(self.x_test))

    def hold_out(self, fraction: float) -> Dataset:
        """Return the training rows alone, a part of them (by a fixed shuffle) in the place of the test rows.

        Parameters
        ----------
        fraction : float in (0, 1)
            Part that is held out: at least one row, and at least one stays.
        """
        fraction = _validate.real("fraction", fraction, 0, 1, open_low=True, open_high=True)
        rows = len(self.x_train)
        if rows < 2:
            _validate.fail_value("fraction", "used on at least two rows", rows)
        train, held_out = split(self.x_train, self.y_train, min(rows - 1, max(1, round(fraction * rows))))
        return replace(self, x_train=train[0], y_train=train[1], x_test=held_out[0], y_test=held_out[1])


def flatten(x: Floats) -> Floats:
    """Return x as (rows, features), without a copy."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def to_unit(images: Array, maximum: int = UINT8_MAX) -> Floats:
    """Return ``images / maximum`` in float32: bytes 0..maximum become 0..1."""
    return np.divide(images, np.float32(maximum), dtype=np.float32)


def to_features(path: Path, name: str, x: Array) -> Floats:
    """Return an array of inputs in float32: bytes are taken for pixels, everything else keeps its values.

    Raises
    ------
    FileFormatError: not numbers, no rows or no features, NaN or inf (also after rounding to float32).
    """
    if x.dtype.kind not in "biuf":
        fail_format(path, f"{name} must hold numbers, got {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        fail_format(path, f"{name} must be of shape (rows, features, ...) with at least one of each, got {x.shape}")
    if x.dtype == np.uint8:
        return to_unit(x)
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(x, dtype=np.float32)
    finite = np.isfinite(features).reshape(len(features), -1).all(axis=1)
    if not finite.all():
        fail_format(path, f"{name} holds NaN or inf (or numbers beyond float32), first in row {int(np.argmin(finite))}")
    return features


def to_labels(path: Path, name: str, y: Array) -> Labels:
    """Return class numbers as int64; shape (n,) or (n, 1).

    Raises
    ------
    FileFormatError: not integers, another shape, a number below 0 or beyond what is taken for a class.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind not in "iu" or y.ndim != 1:
        fail_format(path, f"{name} must be one column of class numbers or names, got shape {y.shape} of {y.dtype}")
    bad = (y < 0) | (y >= MAX_CLASSES)
    if bad.any():
        row = int(np.argmax(bad))
        fail_format(path, f"{name}: label out of range: {y[row]} in row {row}, wanted 0 to {MAX_CLASSES - 1}")
    return y.astype(np.int64)


def name_classes(path: Path, parts: list[Array]) -> tuple[list[Labels], list[str]]:
    """Return (class numbers of each part, class names) of labels in text: in numerical order if all are whole numbers.

    Raises
    ------
    FileFormatError: not one column a part, text that is not valid Unicode, too many classes.
    """
    if any(y.ndim != 1 for y in parts):
        fail_format(path, "class names must be one column")
    found, numbers = np.unique(np.concatenate(parts), return_inverse=True)
    try:
        names = found.tolist()
        " ".join(names).encode()
    except ValueError:
        fail_format(path, "class names are not valid text")
    if len(names) > MAX_CLASSES:
        fail_format(path, f"{len(names)} different labels: at most {MAX_CLASSES} are taken for classes")
    if all(name.isdecimal() and len(name) <= MAX_DIGITS for name in names):
        order = sorted(range(len(names)), key=lambda number: (int(names[number]), names[number]))
        numbers, names = np.argsort(order)[numbers], [names[number] for number in order]
    ends = np.cumsum([len(y) for y in parts])[:-1]
    return [part.astype(np.int64) for part in np.split(numbers, ends)], names


def same_count(path: Path, x: Array, y: Array) -> None:
    """Raise a FileFormatError unless there are as many labels as rows."""
    if len(x) != len(y):
        fail_format(path, f"{len(x)} rows of data but {len(y)} labels")


def number_labels(*parts: Labels) -> tuple[str, ...]:
    """Return the names "0", "1", ... up to the largest class number."""
    return tuple(str(number) for number in range(1 + max(int(part.max()) for part in parts)))


def assemble(
    path: Path, name: str, train: tuple[Floats, Labels], test: tuple[Floats, Labels] | None, labels: Sequence[str] | None = None
) -> Dataset:
    """Return a Dataset after checking counts and shapes; without a test part, the last fifth of the shuffled rows becomes one.

    Raises
    ------
    FileFormatError: counts or shapes that do not agree, or fewer than two rows to split.
    """
    for x, y in (train, test) if test else (train,):
        same_count(path, x, y)
    if test is None:
        rows = len(train[0])
        if rows < 2:
            fail_format(path, "needs at least two rows, to train on one and test on another")
        train, test = split(*train, max(1, rows // TEST_FRACTION))
    if train[0].shape[1:] != test[0].shape[1:]:
        fail_format(path, f"training rows of shape {train[0].shape[1:]} but test rows of shape {test[0].shape[1:]}")
    return Dataset(name, *train, *test, tuple(labels) if labels else number_labels(train[1], test[1]))


def split(x: Floats, y: Labels, held_out: int) -> tuple[tuple[Floats, Labels], tuple[Floats, Labels]]:
    """Return (training part, held-out part): the last `held_out` rows in the order of a fixed shuffle are held out."""
    order = rng.shuffle_order(SPLIT_SEED, 0, len(x))
    train, test = np.split(order, [len(x) - held_out])
    return (x[train], y[train]), (x[test], y[test])
