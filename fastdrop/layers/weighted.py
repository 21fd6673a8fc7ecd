"""`AbstractWeighted`: what layers with a weight and a bias have in common, alone or fused with their neighbours into one step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

from fastdrop import _configurable, _validate, activations, constraints, init, regularizers
from fastdrop._configurable import Config
from fastdrop._types import Array, Shape
from fastdrop.backends.operands import Update
from fastdrop.constraints import AbstractConstraint
from fastdrop.init import AbstractInitializer
from fastdrop.layers.activation import Activation
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.dropout import Dropout
from fastdrop.layers.parameter import Initial, Parameter
from fastdrop.layers.passes import InnerBackward, Pass, Step, Updates, run_chain
from fastdrop.regularizers import L1L2

DESCRIBED: Final = tuple(
    f"{which}_{part}" for which in ("weight", "bias") for part in ("initializer", "regularizer", "constraint")
)
"""Arguments that are objects with descriptions of their own."""


class AbstractWeighted(AbstractLayer):
    """A layer with a weight, a bias and an activation.

    Parameters
    ----------
    activation : None, a name or a function of `fastdrop.activations`
    use_bias : bool
    weight_initializer, bias_initializer : name or object of `fastdrop.init`
    weight_regularizer, bias_regularizer : None, name or object of `fastdrop.regularizers`
    weight_constraint, bias_constraint : None, name or object of `fastdrop.constraints`
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional
    """

    def __init__(
        self,
        activation: str | Callable[..., Array] | None,
        use_bias: bool,
        weight_initializer: str | AbstractInitializer | Config,
        bias_initializer: str | AbstractInitializer | Config,
        weight_regularizer: str | L1L2 | Config | None,
        bias_regularizer: str | L1L2 | Config | None,
        weight_constraint: str | AbstractConstraint | Config | None,
        bias_constraint: str | AbstractConstraint | Config | None,
        *,
        input_shape: Any,
        name: str | None,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name)
        self.activation = activations.name_of(activation)
        self.use_bias = _validate.boolean("use_bias", use_bias)
        self.weight_initializer = init.get("weight_initializer", weight_initializer)
        self.bias_initializer = init.get("bias_initializer", bias_initializer)
        self.weight_regularizer = regularizers.get("weight_regularizer", weight_regularizer)
        self.bias_regularizer = regularizers.get("bias_regularizer", bias_regularizer)
        self.weight_constraint = constraints.get("weight_constraint", weight_constraint)
        self.bias_constraint = constraints.get("bias_constraint", bias_constraint)
        self.weight: Parameter | None = None
        self.bias: Parameter | None = None

    @abstractmethod
    def _weight_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the weight for rows of x of that shape; its last axis is that of the bias."""

    @abstractmethod
    def steps(
        self,
        activation: Activation | None = None,
        input_dropout: Dropout | None = None,
        output_dropout: Dropout | None = None,
    ) -> tuple[Step, ...]:
        """Return the steps of the layer and its neighbours: one, and a second one for softmax."""

    def _create(self, input_shape: Shape) -> None:
        if self.weight is not None:
            return
        shape = self._weight_shape(input_shape)
        self.weight = Parameter(
            "weight",
            Initial(self.weight_initializer, shape),
            regularizer=self.weight_regularizer,
            constraint=self.weight_constraint,
        )
        if self.use_bias:
            self.bias = Parameter(
                "bias",
                Initial(self.bias_initializer, shape[-1:]),
                decays=False,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    @property
    def own_parameters(self) -> dict[str, Parameter]:
        """Weight, then bias."""
        return {name: p for name, p in (("weight", self.weight), ("bias", self.bias)) if p is not None}

    @property
    def is_built(self) -> bool:
        """Whether the weight exists."""
        return self.weight is not None

    @property
    def trainable(self) -> bool:
        """Whether a gradient of weight or bias is wanted."""
        weight, bias = self.weight, self.bias
        return (weight is not None and weight.trainable) or (bias is not None and bias.trainable)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward)."""
        return run_chain(self.steps(), x, pass_)

    def _arguments(self) -> Config:
        parts = {name: getattr(self, name) for name in DESCRIBED}
        own = {name: None if part is None else _configurable.describe(part) for name, part in parts.items()}
        return super()._arguments() | own


def gradient_target(parameter: Parameter, updates: Updates) -> Array | Update | None:
    """Return where a parameter's gradient goes: to its update, else into its array; nowhere while it is frozen."""
    if not parameter.trainable:
        return None
    update = updates.pop(parameter, None)
    return parameter.grad if update is None else update


def no_backward(_dy: Array, _want_dx: bool, _updates: Updates) -> Array | None:
    """Stand where a backward pass is never asked for."""
    return None
