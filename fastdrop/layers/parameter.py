"""`Parameter`: a trainable array with its gradient."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any, Final

import numpy as np

from fastdrop import _validate, arrays
from fastdrop._types import Array, Shape
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend, backend_of, default_backend
from fastdrop.constraints import AbstractConstraint
from fastdrop.init import AbstractInitializer
from fastdrop.regularizers import L1L2
from fastdrop.rng import Key

DEFAULT_DTYPE: Final = np.dtype(np.float32)
UNPLACED: Final = Key(0, 0, 0)

DEVICES: Final = ("cpu", "cuda")

BUILDING: Final = threading.RLock()
"""Held while parameters are made, so that first calls from several threads make them once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Initial:
    """A value that is made when it is first asked for, so that an enclosing network can still say from which seed.

    `placed_by` is the layer or network whose seed and numbering `key` comes from; None before there is one.
    """

    initializer: AbstractInitializer
    shape: Shape
    dtype: np.dtype[Any] = DEFAULT_DTYPE
    key: Key = UNPLACED
    placed_by: object = None

    def make(self) -> Array:
        """Return the starting value."""
        return self.initializer(self.shape, self.dtype, self.key)


class Parameter:
    """An array that training changes, and its gradient.

    Parameters
    ----------
    name : str
        Unique within the network that was asked last: "1.weight".
    value : array, float32 or float64, or Initial
        Copied.
    grad : array of the shape of `value`, optional
        Zeros at first.
    trainable : bool
        False freezes it: no gradient, no update, no penalty.
    decays : bool
        Whether weight decay applies: True for weights, False for biases.
    regularizer, constraint : optional
        Penalty, and what holds after every update.

    Notes
    -----
    Assigning `value`, `mark_changed` after an update in place, and `load_state_dict` count as changes: a backward pass of an
    earlier forward pass then raises. Writing into the array itself is not noticed.
    """

    def __init__(
        self,
        name: str,
        value: Array | Initial,
        grad: Array | None = None,
        trainable: bool = True,
        *,
        decays: bool = True,
        regularizer: L1L2 | None = None,
        constraint: AbstractConstraint | None = None,
    ) -> None:
        self.name = name
        self.decays = decays
        self.regularizer = regularizer
        self.constraint = constraint
        self.version = 0
        self._initial = value if isinstance(value, Initial) else None
        self._value = None if isinstance(value, Initial) else _owned(value)
        self._grad: Array | None = None
        self.device = "cuda" if arrays.is_device(self._value) else "cpu"
        self.trainable = trainable
        if grad is not None:
            self.grad = grad

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype}, trainable={self.trainable})"

    @property
    def shape(self) -> Shape:
        """The shape of value and gradient."""
        initial = self._initial
        return self.value.shape if initial is None else initial.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of value and gradient."""
        initial = self._initial
        return self.value.dtype if initial is None else initial.dtype

    @property
    def value(self) -> Array:
        """The array itself: C-contiguous and writable. Assigning copies, after a check of the shape, to the same dtype."""
        if self._value is None:
            with BUILDING:
                if self._initial is not None:
                    self._value, self._initial = self._here(self._initial.make()), None
        assert self._value is not None
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self.replace(self.checked("value", value))

    @property
    def grad(self) -> Array:
        """The gradient: backward passes add into it. Assigning copies, after a check of the shape, to the same dtype."""
        if self._grad is None:
            self._grad = self._backend.zeros(self.shape, self.dtype)
        return self._grad

    @grad.setter
    def grad(self, grad: Any) -> None:
        self._grad = self.checked("grad", grad)

    @property
    def needs_grad(self) -> bool:
        """Whether an update needs the gradient's array: a penalty enters there, or it holds something else than +0.0."""
        grad = self._grad
        if self.regularizer is not None or grad is None:
            return self.regularizer is not None
        bits = arrays.on_host(grad)
        return bool(bits.view(f"u{bits.itemsize}").any())

    @property
    def trainable(self) -> bool:
        """Whether training changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        self._trainable = _validate.boolean("trainable", trainable)

    def checked(self, name: str, value: Any) -> Array:
        """Return a copy of `value` in this parameter's dtype; an error under that name unless it has its shape."""
        array = arrays.float_array(name, value)
        _validate.exact_shape(name, array, self.shape)
        return self._here(contiguous(array, self.dtype))

    @property
    def _backend(self) -> AbstractBackend:
        return backend("cuda") if self.device == "cuda" else default_backend()

    def _here(self, array: Array) -> Array:
        """Return a copy of an array where the parameter is."""
        return self._backend.copy_of(array)

    def to(self, device: str) -> None:
        """Move value and gradient to "cuda" or "cpu"; forward passes that are still outstanding cannot be gone back through."""
        if device != self.device:
            self.device = device
            self._value = None if self._value is None else self._here(self._value)
            self._grad = None if self._grad is None else self._here(self._grad)
            self.mark_changed()

    def replace(self, array: Array) -> None:
        """Make an array that `checked` returned the value."""
        self._value, self._initial = array, None
        self.mark_changed()

    def mark_changed(self) -> None:
        """Tell forward passes that are still outstanding that the value was changed in place."""
        self.version += 1

    def zero_grad(self) -> None:
        """Set the gradient to zero."""
        if self._grad is not None:
            self._grad.fill(0.0)

    def can_be_placed(self, parts: set[object]) -> bool:
        """Return whether the value is not made yet, and nobody but one of `parts` has said from which key it starts."""
        initial = self._initial
        return initial is not None and (initial.placed_by is None or initial.placed_by in parts)

    def place(self, dtype: np.dtype[Any], key: Key, by: object) -> None:
        """Say from which key a value that is not made yet starts."""
        if self._initial is not None:
            self._initial = dataclasses.replace(self._initial, dtype=dtype, key=key, placed_by=by)

    def penalty(self) -> float:
        """Return the regulariser's penalty; 0.0 while frozen."""
        return self.regularizer.value(self.value) if self.regularizer is not None and self.trainable else 0.0

    def add_penalty_gradient(self) -> None:
        """Add the gradient of `penalty` into the gradient."""
        if self.regularizer is not None and self.trainable:
            self.regularizer.add_gradient(self.value, self.grad)


def _owned(value: Any) -> Array:
    array = arrays.float_array("value", value)
    return backend_of(array).copy_of(array)
