"""`DropBlock2D`: dropout of square blocks of feature maps.

Source: Ghiasi et al. 2018, algorithm 1 and equation 1.
"""

from __future__ import annotations

from typing import Any

from fastdrop import _validate
from fastdrop._types import Array, Shape
from fastdrop.backends.select import backend_of
from fastdrop.layers.dropout import AbstractMasked
from fastdrop.layers.passes import InnerBackward, Pass
from fastdrop.mask import BoundMask

AXES = "height, width, channels"


def seed_rate(rate: float, block_size: int, height: int, width: int) -> float:
    """Return gamma, the probability that a position is the seed of a dropped block; 1 for rate 1."""
    places = (height - block_size + 1) * (width - block_size + 1)
    return 1.0 if rate == 1.0 else min(1.0, rate * (height * width) / (block_size**2 * places))


class DropBlock2D(AbstractMasked):
    """Drop square blocks of x (rows, height, width, channels) in training, channel by channel; ``y = x`` in inference.

    Every position at which a block fits is, with probability gamma, the seed (the first corner) of a block of ``block_size`` by
    ``block_size`` elements of its channel that is dropped. What is kept of a row is multiplied by ``elements / kept elements``.

    Parameters
    ----------
    rate : float in [0, 1]
        About the share of elements that are DROPPED. May be assigned later.
    block_size : int >= 1
        Not above height and width; 1 is dropout, but for the scale.
    seed : int in [0, 2**64), optional
        Replaces the network's for this mask.
    shared_rows, stream, input_shape
        As in `Dropout`; a mask row has one unit a seed.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range; at the first call, x of another number of axes, or
    smaller than a block.

    Notes
    -----
    ``gamma = rate / block_size**2 * (height * width) / ((height - block_size + 1) * (width - block_size + 1))``, which neglects
    that blocks overlap: the share that is dropped is less than `rate`, ``1 - (1 - gamma)**n`` at an element that n blocks reach
    (``block_size**2`` of them within, fewer near the border). The scale is that of each row alone (the
    paper's is the mean over the batch), so that a row does not depend on others; a row that is dropped as a whole is +0.0. Rate 0
    is the identity and costs nothing; rate 1 gives zeros, and one warning.

    Randomness
    ----------
    Decisions on seeds are those of a mask of rate gamma for an array (rows, height - block_size + 1, width - block_size + 1,
    channels).

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.DropBlock2D(0.4, 2, seed=3)(np.ones((1, 4, 4, 1), "float32"), training=True)[0, :, :, 0]
    array([[2., 2., 0., 0.],
           [2., 2., 0., 0.],
           [2., 0., 0., 2.],
           [2., 0., 0., 2.]], dtype=float32)
    """

    def __init__(
        self,
        rate: float,
        block_size: int,
        seed: int | None = None,
        *,
        shared_rows: int | str = 1,
        stream: int | None = None,
        input_shape: Any = None,
    ) -> None:
        super().__init__(rate, shared_rows=shared_rows, seed=seed, stream=stream, input_shape=input_shape)
        self._block_size = _validate.integer("block_size", block_size, 1)

    @property
    def block_size(self) -> int:
        """Height and width of a block."""
        return self._block_size

    def _output_shape(self, input_shape: Shape) -> Shape:
        _validate.row_axes(self.name, AXES, input_shape)
        if self.block_size > min(input_shape[:2]):
            _validate.fail_value("block_size", f"at most height and width of x {input_shape[:2]}", self.block_size)
        return input_shape

    def _bind(self, shape: Shape, pass_: Pass, as_matrix: bool) -> BoundMask:
        rows, height, width, channels = shape
        seeds = (height - self.block_size + 1) * (width - self.block_size + 1) * channels
        gamma = seed_rate(self.rate, self.block_size, height, width)
        return pass_.bind(self._mask.varied(rate=gamma), (rows, seeds), as_matrix=as_matrix)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward); x itself where nothing is dropped."""
        bound = self.bound(x.shape, pass_, as_matrix=True) if pass_.training else None
        if bound is None:
            return x, lambda dy, _want_dx, _updates: dy
        seeds, size, backend = bound, self.block_size, backend_of(x)
        y = backend.drop_block_forward(x, seeds, size)
        return y, lambda dy, _want_dx, _updates: backend.drop_block_backward(dy, seeds, size)
