"""Initialisers of parameters, by Keras's names: where a network starts is a pure function of its seed, too.

Notation: u a uniform in (0, 1), n a standard normal, both element by element from domain 3 of the random stream; the stream
number is the ordinal of the parameter in its network (weight before bias, all counted), the step is 0. Values are computed in
binary64 and rounded once. fan_in and fan_out are the numbers of inputs and outputs of a unit.

- uniform: ``limit * (2u - 1)``; glorot ``limit = sqrt(6 / (fan_in + fan_out))``, he ``sqrt(6 / fan_in)``, lecun
  ``sqrt(3 / fan_in)``
- normal: ``stddev * n``, never truncated; glorot ``stddev = sqrt(2 / (fan_in + fan_out))``, he ``sqrt(2 / fan_in)``, lecun
  ``sqrt(1 / fan_in)``

Source: Glorot and Bengio 2010, equation 16; He et al. 2015, section 2.2; LeCun et al. 1998, section 4.6.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from fastdrop import _configurable, _validate, rng
from fastdrop._types import Array, Domain, Shape
from fastdrop.rng import Floats, Key

MODES: Final = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS: Final = ("uniform", "normal")
UNIFORM_VARIANCE: Final = 3.0
"""A uniform in (-limit, limit) has the variance ``limit**2 / 3``."""


class AbstractInitializer(ABC):
    """How the elements of a parameter start."""

    seed: int | None = None

    def __call__(self, shape: Shape, dtype: npt.DTypeLike, key: Key) -> Array:
        """Return the starting value, a new array.

        Parameters
        ----------
        shape : tuple of int
        dtype : float32 or float64
        key : Key
            The network's seed (which the initialiser's own replaces), the ordinal of the parameter as stream, step 0.
        """
        key = key if self.seed is None else Key(self.seed, key.stream, key.step)
        return self._values(shape, key).reshape(shape).astype(_validate.dtype("dtype", dtype))

    @abstractmethod
    def _values(self, shape: Shape, key: Key) -> Floats:
        """Return the elements in C order, in binary64."""


class Constant(AbstractInitializer):
    """Every element is `value`."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = _validate.real("value", value)

    def _values(self, shape: Shape, key: Key) -> Floats:  # noqa: ARG002
        return np.full(math.prod(shape), self.value)


class Zeros(AbstractInitializer):
    """Every element is 0."""

    def _values(self, shape: Shape, key: Key) -> Floats:  # noqa: ARG002
        return np.zeros(math.prod(shape))


class Ones(AbstractInitializer):
    """Every element is 1."""

    def _values(self, shape: Shape, key: Key) -> Floats:  # noqa: ARG002
        return np.ones(math.prod(shape))


class RandomUniform(AbstractInitializer):
    """Uniform between `minval` and `maxval`: ``middle + limit * (2u - 1)``, where limit is half their distance."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval = _validate.real("minval", minval)
        self.maxval = _validate.real("maxval", maxval, self.minval)
        self.seed = _validate.optional_seed("seed", seed)

    def _values(self, shape: Shape, key: Key) -> Floats:
        middle, limit = (self.maxval + self.minval) / 2, (self.maxval - self.minval) / 2
        return middle + _symmetric(limit, shape, key)


class RandomNormal(AbstractInitializer):
    """Normal: ``mean + stddev * n``, not truncated."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean = _validate.real("mean", mean)
        self.stddev = _validate.real("stddev", stddev, 0.0)
        self.seed = _validate.optional_seed("seed", seed)

    def _values(self, shape: Shape, key: Key) -> Floats:
        return self.mean + _normal(self.stddev, shape, key)


class VarianceScaling(AbstractInitializer):
    """Elements of variance ``scale / fan``: uniform or normal, not truncated.

    Parameters
    ----------
    scale : float > 0
    mode : "fan_in", "fan_out" or "fan_avg"
        Which fan: the inputs of a unit, its outputs, or their mean.
    distribution : "uniform" or "normal"
    seed : int in [0, 2**64), optional
        Replaces the network's seed for this parameter.
    """

    def __init__(self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal", seed: int | None = None) -> None:
        self.scale = _validate.real("scale", scale, 0.0, open_low=True)
        self.mode = _validate.choice("mode", mode, MODES)
        self.distribution = _validate.choice("distribution", distribution, DISTRIBUTIONS)
        self.seed = _validate.optional_seed("seed", seed)

    def _values(self, shape: Shape, key: Key) -> Floats:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        if self.distribution == "uniform":
            return _symmetric(math.sqrt(UNIFORM_VARIANCE * self.scale / fan), shape, key)
        return _normal(math.sqrt(self.scale / fan), shape, key)


class GlorotUniform(VarianceScaling):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))``: the default of weights."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_avg", "uniform", seed)


class GlorotNormal(VarianceScaling):
    """Normal of standard deviation ``sqrt(2 / (fan_in + fan_out))``."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_avg", "normal", seed)


class HeUniform(VarianceScaling):
    """Uniform within ``sqrt(6 / fan_in)``."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(2.0, "fan_in", "uniform", seed)


class HeNormal(VarianceScaling):
    """Normal of standard deviation ``sqrt(2 / fan_in)``."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(2.0, "fan_in", "normal", seed)


class LecunUniform(VarianceScaling):
    """Uniform within ``sqrt(3 / fan_in)``."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_in", "uniform", seed)


class LecunNormal(VarianceScaling):
    """Normal of standard deviation ``sqrt(1 / fan_in)``."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(1.0, "fan_in", "normal", seed)


INITIALIZERS: Final = (
    Zeros,
    Ones,
    Constant,
    RandomUniform,
    RandomNormal,
    VarianceScaling,
    GlorotUniform,
    GlorotNormal,
    HeUniform,
    HeNormal,
    LecunUniform,
    LecunNormal,
)


def _symmetric(limit: float, shape: Shape, key: Key) -> Floats:
    return limit * (2.0 * rng.uniforms(key, Domain.INITIALISERS, 0, math.prod(shape)) - 1.0)


def _normal(stddev: float, shape: Shape, key: Key) -> Floats:
    return stddev * rng.normals(key, Domain.INITIALISERS, 0, math.prod(shape))


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out): the last two axes, times all extents before them; both are the length of a vector."""
    if len(shape) == 1:
        return shape[0], shape[0]
    receptive_field = math.prod(shape[:-2])
    return shape[-2] * receptive_field, shape[-1] * receptive_field


def get(name: str, value: Any) -> AbstractInitializer:
    """Return the initialiser given as an object, a name ("glorot_uniform") or a description; `name` is the argument's."""
    return cast(AbstractInitializer, _configurable.get(name, value, INITIALIZERS))
