"""Gradient check of layers along one random direction, after Chainer's gradient_check."""

from __future__ import annotations

import numpy as np
from assertions import assert_not_vacuous

from fastdrop.layers import AbstractLayer, Parameter


def directional_error(layer: AbstractLayer, x: np.ndarray, parameter: Parameter | None = None) -> float:
    """Relative difference of the gradient along a random direction and the slope of sum(y * dy), with a frozen step."""
    rng = np.random.default_rng(0)
    y, backward = layer.forward(x, True, step=3)
    dy = rng.standard_normal(y.shape)
    dx = backward(dy, input_gradient=True)
    direction = rng.standard_normal(x.shape if parameter is None else parameter.shape)
    gradient = dx if parameter is None else parameter.grad
    assert_not_vacuous(gradient)

    def loss(t: float) -> float:
        if parameter is None:
            return float((layer.forward(x + t * direction, True, step=3)[0] * dy).sum())
        start = parameter.value.copy()
        parameter.value = start + t * direction
        value = float((layer.forward(x, True, step=3)[0] * dy).sum())
        parameter.value = start
        return value

    h = 1e-6
    slope = (loss(h) - loss(-h)) / (2 * h)
    along = float((gradient * direction).sum())
    return abs(slope - along) / max(abs(slope), abs(along), 1e-3)
