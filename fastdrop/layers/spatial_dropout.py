"""`SpatialDropout1D`, `SpatialDropout2D`, `SpatialDropout3D`: whole feature maps are dropped.

Source: Tompson et al. 2015, section 3.2.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._types import Shape
from fastdrop.layers.dropout import UPSCALE, Dropout


class AbstractSpatialDropout(Dropout):
    """Drop channels of each row: `Dropout` whose mask is constant over all axes between the first and the last.

    Parameters
    ----------
    rate : float in [0, 1]
        Probability that a channel is DROPPED. May be assigned later.
    seed : int in [0, 2**64), optional
        Replaces the network's for this mask.
    shared_rows, fixed_count, stream, mode, input_shape
        As in `Dropout`; a mask row has one unit a channel.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range; at the first call, x of another number of axes.

    Notes
    -----
    Channels are the last axis. PyTorch's Dropout1d, Dropout2d and Dropout3d do the same where they are the second one.
    """

    axes: ClassVar[str]
    """Names of the axes of a row of x."""

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        shared_rows: int | str = 1,
        fixed_count: bool = False,
        stream: int | None = None,
        mode: str = UPSCALE,
        input_shape: Any = None,
    ) -> None:
        noise_shape = None, *[1] * self.axes.count(","), None
        super().__init__(
            rate,
            noise_shape,
            seed,
            shared_rows=shared_rows,
            fixed_count=fixed_count,
            stream=stream,
            mode=mode,
            input_shape=input_shape,
        )

    def _output_shape(self, input_shape: Shape) -> Shape:
        _validate.row_axes(self.name, self.axes, input_shape)
        return input_shape


class SpatialDropout1D(AbstractSpatialDropout):
    """Drop channels of x (rows, steps, channels) at all steps together; arguments of `AbstractSpatialDropout`.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.SpatialDropout1D(0.5, seed=0)(np.ones((1, 2, 4), "float32"), training=True)
    array([[[2., 2., 0., 0.],
            [2., 2., 0., 0.]]], dtype=float32)
    """

    axes: ClassVar[str] = "steps, channels"


class SpatialDropout2D(AbstractSpatialDropout):
    """Drop channels of x (rows, height, width, channels) as whole maps; arguments of `AbstractSpatialDropout`.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> y = fd.SpatialDropout2D(0.5, seed=0)(np.ones((1, 8, 8, 4), "float32"), training=True)
    >>> y[0, 3, 5]
    array([2., 2., 0., 0.], dtype=float32)
    """

    axes: ClassVar[str] = "height, width, channels"


class SpatialDropout3D(AbstractSpatialDropout):
    """Drop channels of x (rows, depth, height, width, channels) as whole volumes; arguments of `AbstractSpatialDropout`.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> y = fd.SpatialDropout3D(0.5, seed=0)(np.ones((1, 4, 8, 8, 4), "float32"), training=True)
    >>> y[0, 1, 3, 5]
    array([2., 2., 0., 0.], dtype=float32)
    """

    axes: ClassVar[str] = "depth, height, width, channels"
