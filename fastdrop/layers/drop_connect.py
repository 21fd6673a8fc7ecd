"""`DropConnect`: a Dense layer whose weight is dropped out.

Formulas: ``y = activation(x @ (keep ? weight * scale : +0.0) + bias)``; ``dweight = keep ? d * scale : +0.0``, d the gradient of
what stands in place of the weight.

Source: Wan et al. 2013, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._configurable import Config
from fastdrop._types import Array
from fastdrop.constraints import AbstractConstraint
from fastdrop.init import AbstractInitializer
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.dense import Dense
from fastdrop.layers.dropout import Dropout
from fastdrop.regularizers import L1L2


class DropConnect(Dense):
    """Compute a `Dense` layer whose connections are dropped in training: one mask over the weight for a step.

    Parameters
    ----------
    units : int >= 1
        fan_out, the extent of y's last axis.
    rate : float in [0, 1]
        Probability that an element of the weight is DROPPED. May be assigned later.
    activation, use_bias, weight_initializer, ..., bias_constraint
        As in `Dense`.
    seed : int in [0, 2**64), optional
        Replaces the network's for this layer's mask and starting values.
    stream : int in [0, 2**32), optional
        Pins the stream of the mask.
    input_shape, name
        As in `Dense`.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range.

    Notes
    -----
    Kept weights are multiplied by ``1 / keep_prob`` in training, so that inference takes the weight as it is: the mean network.
    Wan et al. (section 3.2) instead sample their units' inputs from normals of matching moments, which is not done here; they
    draw a mask for every example, and mask biases, which here are never dropped. Rate 0 is `Dense`; rate 1 leaves the bias, and
    gives one warning. Penalties and constraints are on the weight itself.

    Randomness
    ----------
    The mask is that of an array (fan_in, fan_out): it depends on seed, stream and step, not on `row_offset`, so that all parts
    of a batch have the same.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> fd.DropConnect(4, 0.5, weight_initializer="ones", seed=0)(np.ones((1, 1), "float32"), training=True)
    array([[2., 2., 0., 0.]], dtype=float32)
    """

    strength_name: ClassVar[str] = "rate"

    weight_dropout: Dropout

    def __init__(
        self,
        units: int,
        rate: float,
        activation: str | Callable[..., Array] | None = None,
        use_bias: bool = True,
        weight_initializer: str | AbstractInitializer | Config = "glorot_uniform",
        bias_initializer: str | AbstractInitializer | Config = "zeros",
        weight_regularizer: str | L1L2 | Config | None = None,
        bias_regularizer: str | L1L2 | Config | None = None,
        weight_constraint: str | AbstractConstraint | Config | None = None,
        bias_constraint: str | AbstractConstraint | Config | None = None,
        *,
        seed: int | None = None,
        stream: int | None = None,
        input_shape: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            units,
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
        self.own_seed = _validate.optional_seed("seed", seed)
        self.weight_dropout = Dropout(rate, stream=stream)
        self.weight_dropout.name = "weight dropout"

    @property
    def rate(self) -> float:
        """Probability that an element of the weight is dropped."""
        return self.weight_dropout.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self.weight_dropout.rate = rate

    @property
    def children(self) -> tuple[AbstractLayer, ...]:
        """The dropout of the weight."""
        return (self.weight_dropout,)

    def _arguments(self) -> Config:
        return super()._arguments() | {"seed": self.own_seed, "stream": self.weight_dropout.stream}
