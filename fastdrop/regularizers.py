"""Penalties on parameters, by Keras's names and formulas: ``l1 * sum|w| + l2 * sum(w**2)``."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from fastdrop import _configurable, _validate, arrays
from fastdrop._types import Array
from fastdrop.backends.select import backend_of


class L1L2:
    """The penalty ``l1 * sum|w| + l2 * sum(w**2)`` of a parameter w.

    Parameters
    ----------
    l1, l2 : float >= 0

    Notes
    -----
    The gradient is ``l1 * sign(w) + 2 * l2 * w``, with sign(0) = 0. The value is added up in binary64.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = _validate.real("l1", l1, 0.0)
        self.l2 = _validate.real("l2", l2, 0.0)

    def value(self, w: Array) -> float:
        """Return the penalty as a float."""
        total = 0.0
        if self.l1:
            total += self.l1 * float(np.abs(arrays.on_host(w)).sum(dtype=np.float64))
        if self.l2:
            total += self.l2 * backend_of(w).sum_of_squares(w)
        return total

    def add_gradient(self, w: Array, grad: Array) -> None:
        """Add the gradient of the penalty into `grad`."""
        if self.l1:
            signs = np.sign(arrays.on_host(w))
            grad += self.l1 * (backend_of(w).copy_of(signs) if arrays.is_device(w) else signs)
        if self.l2:
            grad += 2.0 * self.l2 * w


class L1(L1L2):
    """The penalty ``l1 * sum|w|``."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """The penalty ``l2 * sum(w**2)``."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


REGULARIZERS: Final = (L1, L2, L1L2)


def get(name: str, value: Any) -> L1L2 | None:
    """Return the regulariser given as an object, a name ("l2"), a description or None; `name` is the argument's."""
    return None if value is None else cast(L1L2, _configurable.get(name, value, REGULARIZERS))
