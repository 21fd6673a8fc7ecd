"""`Predictor`: a frozen snapshot of a network, for servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from fastdrop import _validate, arrays
from fastdrop._types import Array, Shape
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend_of, in_kind
from fastdrop.layers.passes import Pass, Step, run_chain

INFERENCE: Final = Pass(training=False, step=0, row_offset=0, sources={}, keep=False)


class Predictor:
    """What a network infers now, whatever happens to it later: ``y = predictor(x)``, from any number of threads at once.

    Made by ``net.predictor()``. Weights are copied into the order in which the products read them; the results are those of
    ``net.predict`` at that moment, bit for bit.

    Attributes
    ----------
    input_shape : tuple of int
        Shape of a row of x.
    dtype : float32 or float64
        x is converted to it.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> predictor = fd.Sequential([fd.Dense(2)], input_shape=(3,), seed=0).predictor()
    >>> predictor(np.zeros((1, 3), "float32"))
    array([[0., 0.]], dtype=float32)
    """

    __slots__ = ("_on_device", "_steps", "dtype", "input_shape")

    def __init__(self, steps: Sequence[Step], input_shape: Shape, dtype: np.dtype[Any], on_device: bool) -> None:
        self._steps = tuple(step.frozen() for step in steps)
        self.input_shape = input_shape
        self.dtype = dtype
        self._on_device = on_device

    def __call__(self, x: Any) -> Array:
        """Return the outputs.

        Parameters
        ----------
        x : array, shape (rows, *input_shape), float32 or float64

        Returns
        -------
        y : array, shape (rows, ...), dtype of the network, new

        Raises
        ------
        TypeError, ValueError: bad arguments.
        """
        given, x = x, arrays.float_array("x", x)
        arrays.same_place("x", x, "network", self._on_device)
        _validate.row_shape("predictor", self.input_shape, x.shape[1:])
        y, _ = run_chain(self._steps, contiguous(x, self.dtype), INFERENCE)
        backend = backend_of(y)
        own = not self._on_device and y.base is None and y is not x
        return in_kind(y if own or not backend.same_memory(x, y) else backend.copy_of(y), given)
