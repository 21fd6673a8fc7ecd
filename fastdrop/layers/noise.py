"""`GaussianDropout` and `GaussianNoise`: normal noise as a factor and as a term.

Notation: n the standard normals of the mask contract (domain 2), element by element as masks count them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._configurable import Config
from fastdrop._types import MONTE_CARLO_DOMAIN, Array, Domain
from fastdrop.backends.operands import Normals
from fastdrop.backends.select import backend_of
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.passes import InnerBackward, Pass


class AbstractNoise(AbstractLayer):
    """A layer that puts noise of a standard deviation on every element of x in training; ``y = x`` in inference."""

    random: ClassVar[bool] = True
    multiplies: ClassVar[bool]
    """Whether the noise is a factor ``1 + stddev * n``, else a term ``stddev * n``."""

    @property
    @abstractmethod
    def stddev(self) -> float:
        """Standard deviation of the noise."""

    @property
    def varies(self) -> bool:
        """Whether it multiplies: noise that is added is silent in Monte-Carlo inference."""
        return self.multiplies and super().varies

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward); x itself where there is no noise. In Monte-Carlo passes, noise that is added is silent."""
        silent = pass_.monte_carlo is not None and not self.multiplies
        if not pass_.training or self.stddev == 0.0 or silent:
            return x, lambda dy, _want_dx, _updates: dy
        row_size, backend = math.prod(x.shape[1:]), backend_of(x)
        pass_.check_elements(len(x), row_size)
        domain = Domain.NOISE + (0 if pass_.monte_carlo is None else MONTE_CARLO_DOMAIN)
        parts = []
        for rows, one in pass_.each(x):
            normals = Normals(one.key(self), pass_.row_offset * row_size, self.stddev, self.multiplies, domain)
            parts.append(backend.noise_forward(rows, normals))
        return backend.concatenate(parts), lambda dy, _want_dx, _updates: backend.noise_backward(dy, normals)

    def _arguments(self) -> Config:
        return super()._arguments() | {"seed": self.own_seed}


class GaussianDropout(AbstractNoise):
    """Multiply elements of x by normal noise of mean 1 in training: ``y = x * (1 + sqrt(rate / (1 - rate)) * n)``.

    Parameters
    ----------
    rate : float in [0, 1)
        The noise has the variance that dropout of this rate gives to ``keep * scale``. May be assigned later.
    seed : int in [0, 2**64), optional
        Replaces the network's for this noise.
    stream : int in [0, 2**32), optional
        Pins the stream, which otherwise is the number of this layer among the random ones of its network; 0 for a layer alone.
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range. Rate 1 would be noise of infinite variance.

    Notes
    -----
    The noise is generated again in the backward pass: ``dx = dy * (1 + stddev * n)``. Rate 0 is the identity and costs nothing.
    Normals are those of the mask contract, to 4 float32 units in the last place of the radius; in float64, to binary64. Source:
    Srivastava et al. 2014, section 10.

    Randomness
    ----------
    Depends on seed, stream, step and the position in the batch alone, as masks do.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.GaussianDropout(0.5, seed=0)(np.ones((1, 3), "float32"), training=True).round(3)
    array([[ 1.564,  0.23 , -0.119]], dtype=float32)
    """

    multiplies: ClassVar[bool] = True
    strength_name: ClassVar[str] = "rate"

    def __init__(self, rate: float, seed: int | None = None, *, stream: int | None = None, input_shape: Any = None) -> None:
        super().__init__(input_shape=input_shape, seed=seed, stream=stream)
        self.rate = rate

    @property
    def rate(self) -> float:
        """Rate of the dropout whose variance the noise has."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._rate = self.check_strength(rate)

    def check_strength(self, value: Any) -> float:
        """Return `value` if it may be the rate."""
        return _validate.real("rate", value, 0.0, 1.0, open_high=True)

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise, ``sqrt(rate / (1 - rate))``."""
        return math.sqrt(self.rate / (1.0 - self.rate))


class GaussianNoise(AbstractNoise):
    """Add normal noise to elements of x in training: ``y = x + stddev * n``.

    Parameters
    ----------
    stddev : float >= 0
        Standard deviation of the noise. May be assigned later.
    seed, stream, input_shape
        As in `GaussianDropout`.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range.

    Notes
    -----
    ``dx = dy``. A standard deviation of 0 is the identity and costs nothing. Source: Bishop 1995, "Training with noise is
    equivalent to Tikhonov regularization".

    Randomness
    ----------
    As `GaussianDropout`.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.GaussianNoise(0.1, seed=0)(np.ones((1, 3), "float32"), training=True).round(3)
    array([[1.056, 0.923, 0.888]], dtype=float32)
    """

    multiplies: ClassVar[bool] = False
    strength_name: ClassVar[str] = "stddev"

    def __init__(self, stddev: float, seed: int | None = None, *, stream: int | None = None, input_shape: Any = None) -> None:
        super().__init__(input_shape=input_shape, seed=seed, stream=stream)
        self.stddev = stddev

    @property
    def stddev(self) -> float:
        """Standard deviation of the noise."""
        return self._stddev

    @stddev.setter
    def stddev(self, stddev: float) -> None:
        self._stddev = self.check_strength(stddev)

    def check_strength(self, value: Any) -> float:
        """Return `value` if it may be the standard deviation."""
        return _validate.real("stddev", value, 0.0)
