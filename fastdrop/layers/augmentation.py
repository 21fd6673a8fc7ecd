"""`RandomFlip` and `RandomCrop`: images of a batch, each changed at random in training.

Notation: m the number of a row, ``row_offset`` included; words are those of domain 7 of the mask contract's random stream.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop import _validate, arrays
from fastdrop._configurable import Config
from fastdrop._types import Array, Domain, Indices, Shape
from fastdrop.backends.select import backend_of, default_backend
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.passes import InnerBackward, Pass

AXES = "height, width, channels"
WORDS = 2
"""Words of the random stream that a row takes: number 2m and 2m + 1."""
HALF, WORD_BITS = 1 << 31, 32
MAX_PADDING = 1 << 20
MODES = ("horizontal", "vertical", "horizontal_and_vertical")

Words: TypeAlias = npt.NDArray[np.uint32]


class AbstractAugmentation(AbstractLayer):
    """A layer that moves the elements of images x (rows, height, width, channels) in training; ``y = x`` in inference.

    Monte-Carlo inference leaves images as they are, too.
    """

    random: ClassVar[bool] = True

    @property
    def varies(self) -> bool:
        """No: there is none in Monte-Carlo inference."""
        return False

    def _output_shape(self, input_shape: Shape) -> Shape:
        _validate.row_axes(self.name, AXES, input_shape)
        return input_shape

    @abstractmethod
    def _moved(self, x: Array, words: Words, *, back: bool) -> Array:
        """Return the images moved as each row's words say, or, of a gradient, moved back; words is (rows, WORDS)."""

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward)."""
        if not pass_.training or pass_.monte_carlo is not None or len(x) == 0:
            return x, lambda dy, _want_dx, _updates: dy
        pass_.check_elements(len(x), WORDS)
        words = default_backend().words(pass_.key(self), Domain.AUGMENTATION, pass_.row_offset * WORDS, len(x) * WORDS)
        each = words.reshape(len(x), WORDS)
        return self._anywhere(x, each, back=False), lambda dy, _want_dx, _updates: self._anywhere(dy, each, back=True)

    def _anywhere(self, x: Array, words: Words, *, back: bool) -> Array:
        """Do `_moved` on the host, with copies there and back for images on a GPU."""
        if not arrays.is_device(x):
            return self._moved(x, words, back=back)
        return backend_of(x).copy_of(self._moved(arrays.on_host(x), words, back=back))

    def _arguments(self) -> Config:
        return super()._arguments() | {"seed": self.own_seed}


class RandomFlip(AbstractAugmentation):
    """Mirror each image with probability 1/2 in training.

    Parameters
    ----------
    mode : "horizontal", "vertical" or "horizontal_and_vertical"
        Left and right change places, or top and bottom, or each of both by itself.
    seed : int in [0, 2**64), optional
        Replaces the network's for this layer.
    stream : int in [0, 2**32), optional
        Pins the stream, which otherwise is the number of this layer among the random ones of its network; 0 for a layer alone.
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range; at the first call, x that are no images.

    Randomness
    ----------
    Row m is mirrored horizontally where word 2m is below 2**31, vertically where word 2m + 1 is. It depends on seed, stream, step
    and m alone.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.RandomFlip(seed=1)(np.arange(6, dtype="float32").reshape(2, 1, 3, 1), training=True)[:, 0, :, 0]
    array([[2., 1., 0.],
           [3., 4., 5.]], dtype=float32)
    """

    def __init__(
        self, mode: str = "horizontal", seed: int | None = None, *, stream: int | None = None, input_shape: Any = None
    ) -> None:
        super().__init__(input_shape=input_shape, seed=seed, stream=stream)
        self.mode = _validate.choice("mode", mode, MODES)

    def _moved(self, x: Array, words: Words, *, back: bool) -> Array:  # noqa: ARG002 (a mirror image of a mirror image)
        y = x.copy()
        for axis, direction in ((2, "horizontal"), (1, "vertical")):
            if direction in self.mode:
                chosen = words[:, 2 - axis] < HALF
                y[chosen] = np.flip(y[chosen], axis)
        return y


class RandomCrop(AbstractAugmentation):
    """Move each image by up to `padding` elements along height and width in training; what comes in from outside is zeros.

    That is what padding all sides and cropping to the old size at random does.

    Parameters
    ----------
    padding : int in [0, 2^20]
    seed, stream, input_shape
        As in `RandomFlip`.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range; at the first call, x that are no images.

    Randomness
    ----------
    Row m is moved by ``word * (2 * padding + 1) // 2**32 - padding``, up by that of word 2m and to the
    left by that of word 2m + 1.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.RandomCrop(1, seed=2)(np.arange(1, 5, dtype="float32").reshape(1, 2, 2, 1), training=True)[0, :, :, 0]
    array([[0., 1.],
           [0., 3.]], dtype=float32)
    """

    def __init__(self, padding: int, seed: int | None = None, *, stream: int | None = None, input_shape: Any = None) -> None:
        super().__init__(input_shape=input_shape, seed=seed, stream=stream)
        self.padding = _validate.integer("padding", padding, 0, MAX_PADDING)

    def _moved(self, x: Array, words: Words, *, back: bool) -> Array:
        distances = (words.astype(np.int64) * (2 * self.padding + 1) >> WORD_BITS) - self.padding
        i, j = (_sources(distance, extent, back) for distance, extent in zip(distances.T, x.shape[1:3], strict=True))
        rows = np.arange(len(x))[:, None, None]
        y = x[rows, np.maximum(i, 0)[:, :, None], np.maximum(j, 0)[:, None, :]]
        y[(i < 0)[:, :, None] | (j < 0)[:, None, :]] = 0
        return y


def _sources(distances: Indices, extent: int, back: bool) -> Indices:
    """Return for each row and position where its element comes from, -1 for outside: (rows, extent)."""
    sources = np.arange(extent) + (-distances if back else distances)[:, None]
    return np.where((sources >= 0) & (sources < extent), sources, -1)
