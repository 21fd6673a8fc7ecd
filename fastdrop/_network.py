"""What training, inference and serialization use of a network and of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fastdrop._types import Array, Backward, Shape


class TrainedParameter(Protocol):
    """A parameter as an optimiser sees it; one that is not `trainable` is frozen."""

    trainable: bool

    @property
    def name(self) -> str:
        """Unique within the network, for example "1.weight"."""

    @property
    def value(self) -> Array:
        """The array itself: C-contiguous and writable."""

    @property
    def grad(self) -> Array:
        """The gradient, of the shape and dtype of the value."""

    @property
    def needs_grad(self) -> bool:
        """Whether an update needs the gradient's array, because something else than one backward pass goes into it."""

    @property
    def constraint(self) -> Callable[[Array], None] | None:
        """Changes the value in place after an update."""

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: True for weights, False for biases."""

    def mark_changed(self) -> None:
        """Tell forwards that are still outstanding that the value was changed in place."""


class Network(Protocol):
    """A network as `fit`, `evaluate`, `predict` and checkpoints see it."""

    seed: int
    step_count: int
    epochs_completed: int
    output_kind: str | None
    labels: list[str] | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    def widest(self, input_shape: Shape) -> int:
        """Return the most elements of a row between layers."""

    def __call__(self, x: Any, training: bool = False) -> Array:
        """Return the outputs."""

    def forward(self, x: Any, training: bool, step: int | None = None, row_offset: int = 0) -> tuple[Array, Backward]:
        """Return (outputs, backward)."""

    def parameters(self) -> Sequence[TrainedParameter]:
        """Return all parameters, frozen ones included."""

    def zero_grad(self) -> None:
        """Set every gradient to zero."""

    def penalty(self) -> float:
        """Return the sum of the L1 and L2 penalties."""

    def clip_grads(self, max_norm: float) -> float:
        """Scale the gradients down to a global norm; return the norm before."""

    def strengths(self) -> dict[str, float]:
        """Return the rates of dropout and standard deviations of noise by name: {"0.rate": 0.2, "3.stddev": 0.1}."""

    def checked_strengths(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return some or all of these if they may be assigned."""

    def set_strengths(self, values: Mapping[str, Any]) -> None:
        """Assign some or all of these, after checking them."""

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""

    def load_state_dict(self, d: Mapping[str, Any], strict: bool = True) -> None:
        """Replace the parameters."""

    def get_config(self) -> dict[str, Any]:
        """Return the architecture as JSON-able values."""
