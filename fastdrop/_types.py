"""Type aliases and the enumerations that the seam between backends is written in."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Indices: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Shape: TypeAlias = tuple[int, ...]
Backward: TypeAlias = Callable[..., Any]

FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class ActivationKind(IntEnum):
    """Elementwise activations, numbered as the kernels switch on them."""

    LINEAR = 0
    RELU = 1
    LEAKY_RELU = 2
    SIGMOID = 3
    TANH = 4
    GELU = 5
    SILU = 6
    SELU = 7
    SOFTPLUS = 8
    HEAVISIDE = 9


class UpdateKind(IntEnum):
    """Rules of an optimiser's update, numbered as the kernels switch on them."""

    SGD = 0
    MOMENTUM = 1
    NESTEROV = 2
    ADAM = 3


class MaskKind(IntEnum):
    """How a bound mask decides."""

    KEEP_ALL = 0
    DROP_ALL = 1
    BERNOULLI = 2
    FIXED_COUNT = 3


class Domain(IntEnum):
    """Domains of the random stream: the top byte of counter word 1."""

    DECISION_BYTES = 0
    TIE_WORDS = 1
    NOISE = 2
    INITIALISERS = 3
    SHUFFLES = 4
    FIXED_COUNT_RANKS = 5
    FOLD_IN = 6
    AUGMENTATION = 7


MONTE_CARLO_DOMAIN = 8
"""Added to a domain for Monte-Carlo inference, where step is the number of the pass."""
