"""`DropPath`: stochastic depth, for the end of a branch in a `Residual`.

Source: Huang et al. 2016, equation 2; Larsson et al. 2017, section 3 (drop-path, local sampling).
"""

from __future__ import annotations

from typing import Any

from fastdrop._types import Shape
from fastdrop.backends.select import default_backend
from fastdrop.layers.dropout import UPSCALE, Dropout
from fastdrop.layers.passes import Pass
from fastdrop.mask import Mask


class DropPath(Dropout):
    """Drop whole rows of x, all axes but the first together: ``y = keep ? x * scale : +0.0``, one decision a row.

    At the end of a `Residual` it makes ``y = x + keep * scale * f(x)``: a sample whose branch is dropped passes through as it is.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that a row is DROPPED. May be assigned later.
    seed : int in [0, 2**64), optional
        Replaces the network's for this mask.
    shared_rows : int >= 1 or "batch"
        So many consecutive rows share one decision; "batch" is the rule of Huang et al., whose layers are dropped for a whole
        mini-batch. The branch of a `Residual` is not computed in a step that drops it for all rows.
    stream, mode, input_shape
        As in `Dropout`; Huang et al. use "downscale_in_infer".

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range.

    Notes
    -----
    Called DropPath in timm and keras-cv, StochasticDepth (mode "row" or "batch") in torchvision.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> block = fd.Residual([fd.Activation("relu"), fd.DropPath(0.5, seed=0)])
    >>> block(np.ones((4, 2), "float32"), training=True)
    array([[3., 3.],
           [3., 3.],
           [1., 1.],
           [1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        shared_rows: int | str = 1,
        stream: int | None = None,
        mode: str = UPSCALE,
        input_shape: Any = None,
    ) -> None:
        super().__init__(rate, None, seed, shared_rows=shared_rows, stream=stream, mode=mode, input_shape=input_shape)

    def _mask_of(self, shape: Shape) -> Mask:
        return self._mask.varied(noise_shape=(None, *[1] * (len(shape) - 1)))

    def drops_all(self, rows: int, pass_: Pass) -> bool:
        """Return whether a pass drops all of so many rows."""
        if not pass_.training:
            return False
        bound = self._bind((rows, 1), pass_, as_matrix=False).at(pass_.key(self))
        return not default_backend().decisions(bound, (0, bound.rows), (0, bound.columns)).any()
