"""`Dropout`: a mask as a layer.

Source: Srivastava et al. 2014, section 4; mode "upscale_in_train" is the inverted form of section 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from fastdrop import _validate
from fastdrop._configurable import Config
from fastdrop._types import Array, MaskKind, Shape
from fastdrop.backends.select import backend_of
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.passes import InnerBackward, Pass
from fastdrop.mask import BoundMask, Mask
from fastdrop.rng import Key

UPSCALE: Final = "upscale_in_train"
DOWNSCALE: Final = "downscale_in_infer"
MODES: Final = (UPSCALE, DOWNSCALE)

NO_KEY: Final = Key(0, 0, 0)
KEEP_ALL: Final = Mask(0.0, NO_KEY)


class AbstractMasked(AbstractLayer):
    """A layer with a mask; its arguments are those of `Dropout`."""

    random: ClassVar[bool] = True
    strength_name: ClassVar[str] = "rate"

    def __init__(
        self,
        rate: float,
        *,
        noise_shape: Sequence[int | None] | None = None,
        shared_rows: int | str = 1,
        fixed_count: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._mask = Mask(rate, NO_KEY, noise_shape=noise_shape, shared_rows=shared_rows, fixed_count=fixed_count)
        self._last_bound: tuple[tuple[object, ...], BoundMask] | None = None

    @property
    def rate(self) -> float:
        """Probability that an element is dropped."""
        return self._mask.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._mask = self._mask.varied(rate=self.check_strength(rate))

    @property
    def noise_shape(self) -> tuple[int | None, ...] | None:
        """Shape of the mask, None for that of x."""
        return self._mask.noise_shape

    def keep_prob(self, shape: Shape) -> float:
        """Return the probability that an element of an x of that shape is kept, whatever its number of rows."""
        mask = self._mask_of(shape)
        rows = (mask.noise_shape or (None,))[0] or shape[0]
        return mask.keep_prob((rows, *shape[1:]))

    def bound(self, shape: Shape, pass_: Pass, *, as_matrix: bool = False) -> BoundMask | None:
        """Return the mask of a training pass for an x of that shape; None where nothing is dropped.

        Binding is remembered, as only the key changes often.
        """
        asked = self._mask, shape, pass_.row_offset, pass_.monte_carlo, as_matrix
        remembered = self._last_bound
        if remembered is None or remembered[0] != asked:
            remembered = self._last_bound = asked, self._bind(shape, pass_, as_matrix)
        return None if remembered[1].kind == MaskKind.KEEP_ALL else remembered[1].at(pass_.key(self))

    def _mask_of(self, shape: Shape) -> Mask:  # noqa: ARG002
        """Return the mask for an x of that shape, at row offset 0."""
        return self._mask

    def _bind(self, shape: Shape, pass_: Pass, as_matrix: bool) -> BoundMask:
        """Return what `bound` does, without its key."""
        return pass_.bind(self._mask_of(shape), shape, as_matrix=as_matrix)

    def _arguments(self) -> Config:
        mask = self._mask
        noise_shape = None if mask.noise_shape is None else list(mask.noise_shape)
        own = {
            "noise_shape": noise_shape,
            "seed": self.own_seed,
            "shared_rows": mask.shared_rows,
            "fixed_count": mask.fixed_count,
        }
        return super()._arguments() | own


class Dropout(AbstractMasked):
    """Drop elements of x in training: ``y = keep ? x * scale : +0.0``; ``y = x`` in inference.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that an element is DROPPED. May be assigned later.
    noise_shape : tuple of int or None, optional
        Shape of the mask, of the rank of x: each entry is 1 (shared along that axis), None or the exact extent.
    seed : int in [0, 2**64), optional
        Replaces the network's for this mask.
    shared_rows : int >= 1 or "batch"
        So many consecutive rows (or all) share one mask row.
    fixed_count : bool
        Drop exactly ``round_half_even(rate * row_size)`` units of each mask row.
    stream : int in [0, 2**32), optional
        Pins the stream, which otherwise is the number of this mask in its network; 0 for a layer used alone.
    mode : "upscale_in_train" or "downscale_in_infer"
        Where the factor goes: ``1 / keep_prob`` in training, or (the original paper's rule) ``keep_prob`` in inference.
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range.

    Notes
    -----
    Rate 0 is the identity and costs nothing; rate 1 gives zeros, and one warning.

    Randomness
    ----------
    Depends on seed, stream, step and the position in the batch alone (`Mask`).

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.Dropout(0.5, seed=0)(np.ones((1, 4), "float32"), training=True)
    array([[2., 2., 0., 0.]], dtype=float32)
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
        mode: str = UPSCALE,
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
        self.mode = mode

    @property
    def mode(self) -> str:
        """Where the factor goes: "upscale_in_train" or "downscale_in_infer"."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = _validate.choice("mode", mode, MODES)
        self._last_bound = None

    def bind(self, shape: Shape, pass_: Pass, *, as_matrix: bool) -> BoundMask | None:
        """Return what this layer does in a pass to an x of that shape, as a mask; None for nothing at all."""
        if pass_.training:
            return self.bound(shape, pass_, as_matrix=as_matrix)
        keep_prob = 1.0 if self.mode == UPSCALE else self.keep_prob(shape)
        if keep_prob == 1.0:
            return None
        kind = MaskKind.KEEP_ALL if keep_prob else MaskKind.DROP_ALL
        return replace(KEEP_ALL.bind(shape, as_matrix=as_matrix), kind=kind, scale=keep_prob)

    def _bind(self, shape: Shape, pass_: Pass, as_matrix: bool) -> BoundMask:
        bound = super()._bind(shape, pass_, as_matrix)
        return bound if self.mode == UPSCALE else replace(bound, scale=1.0)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward); x itself where nothing is dropped."""
        bound = self.bind(x.shape, pass_, as_matrix=False)
        if bound is None:
            return x, lambda dy, _want_dx, _updates: dy
        mask, backend = bound, backend_of(x)
        return backend.dropout_forward(x, mask), lambda dy, _want_dx, _updates: backend.dropout_backward(dy, mask)
