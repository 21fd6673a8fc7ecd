"""`AlphaDropout`: dropout that keeps mean and variance, for networks of selu units.

Notation: q the probability of keeping, s = -SELU_SCALE * SELU_ALPHA, the value of selu at minus infinity. A dropped element
becomes s, and then all of them ``a * x + b``, so that mean 0 and variance 1 stay: ``a = (q + s**2 q (1 - q))**(-1/2)``,
``b = -a (1 - q) s``.

Source: Klambauer et al. 2017, section 3, "New dropout technique".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from fastdrop._types import Array, Shape
from fastdrop.backends.base import SELU_ALPHA, SELU_SCALE
from fastdrop.backends.select import backend_of
from fastdrop.layers.dropout import AbstractMasked
from fastdrop.layers.passes import InnerBackward, Pass
from fastdrop.mask import BoundMask

SATURATION: Final = -SELU_SCALE * SELU_ALPHA
"""The limit of selu at minus infinity, -1.758."""


class Affine(NamedTuple):
    """``keep ? scale * x + shift : fill``."""

    scale: float
    shift: float
    fill: float


def affine(keep_prob: float) -> Affine:
    """Return a, b and ``c = a * SATURATION + b`` for a probability of keeping; for 0, where c has the limit 0, all 0."""
    if keep_prob == 0.0:
        return Affine(0.0, 0.0, 0.0)
    scale = 1.0 / math.sqrt(keep_prob + SATURATION**2 * keep_prob * (1.0 - keep_prob))
    return Affine(scale, -scale * (1.0 - keep_prob) * SATURATION, scale * keep_prob * SATURATION)


class AlphaDropout(AbstractMasked):
    """Drop elements of x in training to selu's negative limit: ``y = keep ? a * x + b : c``; ``y = x`` in inference.

    Inputs of mean 0 and variance 1, which selu units have, keep both.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is DROPPED. May be assigned later.
    noise_shape : tuple of int or None, optional
        Shape of the mask, of the rank of x: each entry is 1 (shared along that axis), None or the exact extent.
    seed : int in [0, 2**64), optional
        Replaces the network's for this mask.
    shared_rows, fixed_count, stream, input_shape
        As in `Dropout`.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range.

    Notes
    -----
    With q = 1 - rate and s = -1.7581 (-SELU_SCALE * SELU_ALPHA): ``a = (q + s**2 q (1 - q))**(-1/2)``, ``b = -a (1 - q) s``,
    ``c = a s + b``. The gradient is ``keep ? a * dy : +0.0``. Rate 0 is the identity and costs nothing; rate 1 gives zeros, the
    limit of c, and one warning. Source: Klambauer et al. 2017, section 3.

    Randomness
    ----------
    The mask is that of `Dropout`.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.AlphaDropout(0.5, seed=0)(np.zeros((1, 4), "float32"), training=True).round(3)
    array([[ 0.779,  0.779, -0.779, -0.779]], dtype=float32)
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        *,
        shared_rows: int | str = 1,
        fixed_count: bool = False,
        stream: int | None = None,
        input_shape: Any = None,
    ) -> None:
        super().__init__(
            rate,
            noise_shape=noise_shape,
            shared_rows=shared_rows,
            fixed_count=fixed_count,
            seed=seed,
            stream=stream,
            input_shape=input_shape,
        )

    def _bind(self, shape: Shape, pass_: Pass, as_matrix: bool) -> BoundMask:
        return replace(super()._bind(shape, pass_, as_matrix), scale=affine(self.keep_prob(shape)).scale)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward); x itself where nothing is dropped."""
        bound = self.bound(x.shape, pass_) if pass_.training else None
        if bound is None:
            return x, lambda dy, _want_dx, _updates: dy
        mask, backend = bound, backend_of(x)
        _, shift, fill = affine(self.keep_prob(x.shape))
        y = backend.affine_dropout_forward(x, mask, shift, fill)
        return y, lambda dy, _want_dx, _updates: backend.dropout_backward(dy, mask)
