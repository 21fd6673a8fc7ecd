"""From the original paper's rule (activations times keep_prob in inference) to inverted dropout.

A factor a > 0 passes through positively homogeneous layers, ``f(a x) = a f(x)``, into the next weight (of a Dense or Conv2D):
``W (keep_prob x) = (keep_prob W) x`` in inference, and in training ``W (m x) = (keep_prob W) (m x / keep_prob)``.

Source: Srivastava et al. 2014, section 4 ("W_test = p W", p their probability of retaining) and section 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from fastdrop import _validate
from fastdrop._types import Shape
from fastdrop.layers.activation import Activation
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.chain import opened
from fastdrop.layers.drop_block import DropBlock2D
from fastdrop.layers.dropout import DOWNSCALE, Dropout
from fastdrop.layers.flatten import Flatten
from fastdrop.layers.noise import GaussianDropout
from fastdrop.layers.pooling import AbstractPool2D, GlobalAveragePool2D
from fastdrop.layers.residual import Residual
from fastdrop.layers.weighted import AbstractWeighted

HOMOGENEOUS: Final = frozenset({"linear", "relu", "leaky_relu"})
"""Activations with ``f(a x) = a f(x)`` for every a > 0."""


def weight_factors(
    layers: Iterable[AbstractLayer], input_shape: Shape, paths: Mapping[AbstractLayer, str]
) -> dict[AbstractWeighted, float]:
    """Return what each weight is multiplied by when all Dropouts scale in training instead.

    `paths` names the layers for errors.

    Raises
    ------
    ValueError: something else than a positively homogeneous layer lies between such a Dropout and the next weight.
    """
    factors: dict[AbstractWeighted, float] = {}
    factor, origin = 1.0, ""
    shape = input_shape
    for layer in opened(layers):
        if isinstance(layer, AbstractWeighted):
            factors[layer] = factor
            factor = 1.0
        elif isinstance(layer, Dropout):
            if layer.mode == DOWNSCALE:
                factor *= layer.keep_prob((1, *shape))
                origin = paths[layer]
        elif not _is_homogeneous(layer) and factor != 1.0:
            wanted = f"positively homogeneous to stand between the Dropout at {origin} and the next Dense or Conv2D"
            _validate.fail_value(f"layers.{paths[layer]}", wanted, f"{layer.name} ({type(layer).__name__})")
        if isinstance(layer, Residual):
            factors |= weight_factors(layer.layers, shape, paths)
        shape = layer.output_shape(shape)
    if factor != 1.0:
        _validate.fail_value(
            f"layers.{origin}", "followed by a Dense or Conv2D, whose weight takes its factor", "a Dropout at the end"
        )
    return factors


def _is_homogeneous(layer: AbstractLayer) -> bool:
    if isinstance(layer, Activation):
        return layer.activation in HOMOGENEOUS
    return isinstance(layer, Flatten | GaussianDropout | DropBlock2D | AbstractPool2D | GlobalAveragePool2D)
