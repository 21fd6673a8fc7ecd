"""Constraints on parameters, by Keras's names, applied in place after each update.

The norm of a unit's incoming weights is that of a column: over all axes of the parameter but the last; a vector is one column.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, cast

import numpy as np

from fastdrop import _configurable, _validate, arrays
from fastdrop._types import Array
from fastdrop.backends.select import backend_of

EPSILON: Final = 1e-7
"""Added to norms that are divided by (Keras's epsilon)."""


class AbstractConstraint(ABC):
    """What holds of a parameter after every update."""

    @abstractmethod
    def __call__(self, value: Array) -> None:
        """Change the parameter's array, C-contiguous, in place."""


class MaxNorm(AbstractConstraint):
    """Columns longer than `max_value` are scaled down to it: ``w *= clip(norm, 0, max_value) / (1e-7 + norm)``.

    Parameters
    ----------
    max_value : float >= 0

    Notes
    -----
    Source: Srebro and Shraibman 2005; Srivastava et al. 2014, section 5.1, who use it together with dropout.
    """

    def __init__(self, max_value: float = 2.0) -> None:
        self.max_value = _validate.real("max_value", max_value, 0.0)

    def __call__(self, value: Array) -> None:
        """Scale down the columns that are too long, in place."""
        backend_of(value).limit_column_norms(_columns(value), self.max_value)


class UnitNorm(AbstractConstraint):
    """Every column is divided by ``1e-7 + norm``."""

    def __call__(self, value: Array) -> None:
        """Normalise every column, in place."""
        here = arrays.on_host(value)
        columns = _columns(here)
        columns /= EPSILON + np.sqrt(np.square(columns).sum(axis=0))
        arrays.write(value, here)


class NonNeg(AbstractConstraint):
    """Negative elements become +0.0."""

    def __call__(self, value: Array) -> None:
        """Replace negative elements, in place."""
        here = arrays.on_host(value)
        here[here <= 0.0] = 0.0
        arrays.write(value, here)


CONSTRAINTS: Final = (MaxNorm, UnitNorm, NonNeg)


def _columns(value: Array) -> Array:
    """Return a view of the parameter as a matrix, a column a unit."""
    return value.reshape(-1, 1 if value.ndim == 1 else value.shape[-1])


def get(name: str, value: Any) -> AbstractConstraint | None:
    """Return the constraint given as an object, a name ("max_norm"), a description or None; `name` is the argument's."""
    return None if value is None else cast(AbstractConstraint, _configurable.get(name, value, CONSTRAINTS))
