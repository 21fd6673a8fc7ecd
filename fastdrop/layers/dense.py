"""`Dense`: a fully connected layer, alone or fused with its neighbours into one step.

Formulas: ``y = drop_out(act(drop_in(x) @ weight + bias))``; backward as in `fastdrop.backends.base`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fastdrop import _validate, activations, fused
from fastdrop._configurable import Config
from fastdrop._types import ActivationKind, Array, MaskKind, Shape
from fastdrop.backends.operands import PackedWeight, Update
from fastdrop.backends.select import backend_of
from fastdrop.constraints import AbstractConstraint
from fastdrop.fused import Kept
from fastdrop.init import AbstractInitializer
from fastdrop.layers.activation import Activation
from fastdrop.layers.dropout import Dropout
from fastdrop.layers.parameter import Parameter
from fastdrop.layers.passes import InnerBackward, Pass, Step, Updates
from fastdrop.layers.weighted import AbstractWeighted, gradient_target, no_backward
from fastdrop.mask import BoundMask
from fastdrop.regularizers import L1L2


class Dense(AbstractWeighted):
    """Compute ``y = activation(x @ weight + bias)`` over the last axis of x.

    Parameters
    ----------
    units : int >= 1
        fan_out, the extent of y's last axis.
    activation : None, a name or a function of `fastdrop.activations`
    use_bias : bool
    weight_initializer, bias_initializer : name or object of `fastdrop.init`
    weight_regularizer, bias_regularizer : None, name or object of `fastdrop.regularizers`
    weight_constraint, bias_constraint : None, name or object of `fastdrop.constraints`
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional

    Attributes
    ----------
    weight : Parameter, shape (fan_in, fan_out); bias : Parameter, shape (fan_out,)
        None before the layer is built, and for a bias that is not used.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.Dense(2, activation="relu", weight_initializer="ones")(np.ones((1, 3), "float32"))
    array([[3., 3.]], dtype=float32)
    """

    weight_dropout: Dropout | None = None
    """What drops out the weight, in a layer that does."""

    def __init__(
        self,
        units: int,
        activation: str | Callable[..., Array] | None = None,
        use_bias: bool = True,
        weight_initializer: str | AbstractInitializer | Config = "glorot_uniform",
        bias_initializer: str | AbstractInitializer | Config = "zeros",
        weight_regularizer: str | L1L2 | Config | None = None,
        bias_regularizer: str | L1L2 | Config | None = None,
        weight_constraint: str | AbstractConstraint | Config | None = None,
        bias_constraint: str | AbstractConstraint | Config | None = None,
        *,
        input_shape: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            weight_regularizer,
            bias_regularizer,
            weight_constraint,
            bias_constraint,
            input_shape=input_shape,
            name=name,
        )
        self.units = _validate.integer("units", units, 1)

    def _output_shape(self, input_shape: Shape) -> Shape:
        if self.weight is not None:
            _validate.row_shape(self.name, self.weight.shape[:1], input_shape, last_axes=True)
        elif not input_shape or input_shape[-1] == 0:
            _validate.fail_value("x", f"of shape (rows, ..., fan_in) for layer {self.name!r}, fan_in at least 1", input_shape)
        return (*input_shape[:-1], self.units)

    def _weight_shape(self, input_shape: Shape) -> Shape:
        return input_shape[-1], self.units

    def steps(
        self,
        activation: Activation | None = None,
        input_dropout: Dropout | None = None,
        output_dropout: Dropout | None = None,
    ) -> tuple[Step, ...]:
        """Return the steps of the layer and its neighbours: one, and a second one for softmax."""
        name = self.activation if activation is None else activation.activation
        if name == activations.SOFTMAX:
            return FusedDense(self, ActivationKind.LINEAR, input_dropout), Activation(activations.SOFTMAX)
        return (FusedDense(self, ActivationKind[name.upper()], input_dropout, output_dropout),)


@dataclass(frozen=True, slots=True)
class FusedDense:
    """Dropout, Dense, activation and dropout in one operation; softmax is none of these activations.

    Where `gives_kept`, a y of which a shared mask keeps some units alone goes to the next step as `Kept`, which takes it.
    """

    dense: Dense
    activation: ActivationKind
    input_dropout: Dropout | None = None
    output_dropout: Dropout | None = None
    gives_kept: bool = False

    @property
    def trainable(self) -> bool:
        """Whether a gradient of weight or bias is wanted."""
        return self.dense.trainable

    @property
    def takes_kept(self) -> bool:
        """Whether x may be `Kept`; dx is then, too."""
        return self.input_dropout is None and self.dense.weight_dropout is None

    def apply(self, x: Any, pass_: Pass) -> tuple[Any, InnerBackward]:
        """Return (y, backward); x of more than two axes goes through as a matrix of all its rows."""
        weight, bias = self.dense.weight, self.dense.bias
        assert weight is not None
        weight_dropout = self.dense.weight_dropout
        if weight_dropout is not None and pass_.monte_carlo is not None and pass_.monte_carlo.passes > 1:
            whole = replace(self, gives_kept=False)
            return backend_of(x).concatenate([whole.apply(rows, one)[0] for rows, one in pass_.each(x)]), no_backward
        w, weight_mask = weight.value, None
        backend = backend_of(w)
        if weight_dropout is not None:
            weight_mask = weight_dropout.bind(w.shape, pass_.without_rows(), as_matrix=False)
            w = w if weight_mask is None else backend.dropout_forward(w, weight_mask)
        all_dropped = weight_mask is not None and weight_mask.kind == MaskKind.DROP_ALL
        if all_dropped:
            x = backend.zeros(x.shape, x.dtype)  # inf times a dropped weight is 0, too
        x_shape, y_shape = x.shape, (*x.shape[:-1], self.dense.units)
        input_mask, output_mask = _bind(self.input_dropout, x_shape, pass_), _bind(self.output_dropout, y_shape, pass_)
        if len(x_shape) != 2:
            x = x.reshape((math.prod(x_shape[:-1]), x_shape[-1]))
        b = None if bias is None else bias.value
        y, inner = fused.dense(backend, x, w, b, self.activation, input_mask, output_mask, pass_.keep)
        units = y.units if isinstance(y, Kept) and not self.gives_kept else None
        matrix_shape = y.shape
        if isinstance(y, Kept) and units is not None:
            y = fused.expand(backend, y)

        def backward(dy: Any, want_dx: bool, updates: Updates) -> Any:
            dweight = gradient_target(weight, updates) if weight_mask is None else _dropped_gradient(weight)
            dbias = None if bias is None else gradient_target(bias, updates)
            dy = dy if len(y_shape) == 2 else dy.reshape(matrix_shape)
            dy = dy if units is None else fused.compact(backend, dy, units)
            dx = inner(dy, want_dx, dweight, dbias, True)
            if all_dropped and dx is not None:
                dx.fill(0)
            if weight_mask is not None and dweight is not None and not isinstance(dweight, Update):
                backend.scatter(backend.dropout_backward(dweight, weight_mask, dweight), None, None, weight.grad, True)
            return dx if dx is None or len(x_shape) == 2 else dx.reshape(x_shape)

        return y if len(y_shape) == 2 else y.reshape(y_shape), backward

    def frozen(self) -> FrozenDense:
        """Return the same with a packed copy of the weight."""
        weight, bias = self.dense.weight, self.dense.bias
        assert weight is not None
        return FrozenDense(
            backend_of(weight.value).pack_weight(weight.value),
            None if bias is None else backend_of(bias.value).copy_of(bias.value),
            self.activation,
            copy.copy(self.input_dropout),
            copy.copy(self.output_dropout),
        )


@dataclass(frozen=True, slots=True)
class FrozenDense:
    """`FusedDense` in inference alone, with parameters of its own."""

    weight: PackedWeight
    bias: Array | None
    activation: ActivationKind
    input_dropout: Dropout | None
    output_dropout: Dropout | None

    trainable: ClassVar[bool] = False

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, nothing that is ever called)."""
        x_shape, y_shape = x.shape, (*x.shape[:-1], self.weight.shape[1])
        input_mask, output_mask = _bind(self.input_dropout, x_shape, pass_), _bind(self.output_dropout, y_shape, pass_)
        if x.ndim != 2:
            x = x.reshape(math.prod(x_shape[:-1]), x_shape[-1])
        backend, masks = backend_of(x), (input_mask, output_mask)
        y, _ = backend.dense_forward(x, self.weight, self.bias, self.activation, *masks, keep_z=False)
        return y if len(y_shape) == 2 else y.reshape(y_shape), no_backward

    def frozen(self) -> FrozenDense:
        """Return this."""
        return self


def _bind(dropout: Dropout | None, shape: Shape, pass_: Pass) -> BoundMask | None:
    """Return the mask of a neighbour, if there is one."""
    return None if dropout is None else dropout.bind(shape, pass_, as_matrix=True)


def _dropped_gradient(weight: Parameter) -> Array | None:
    """Return an array for the gradient of what stands in place of a weight; None while it is frozen."""
    return backend_of(weight.value).zeros(weight.shape, weight.dtype) if weight.trainable else None
