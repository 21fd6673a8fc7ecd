"""Dense: ``y = drop_out(act(drop_in(x) @ weight + bias))``.

Backward: ``dz = drop_out(dy * act'(z))``, ``dbias = sum(dz)``, ``dweight = drop_in(x).T @ dz``, ``dx = drop_in(dz @ weight.T)``.
Source: Srivastava et al. 2014, section 4.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import ActivationKind, Array, MaskKind
from fastdrop.backends.base import needs_z
from fastdrop.backends.operands import Update
from fastdrop.backends.reference._arrays import deliver
from fastdrop.backends.reference.activations import activation_backward, activation_forward
from fastdrop.backends.reference.dropout import apply_mask
from fastdrop.backends.reference.updates import update
from fastdrop.mask import BoundMask


def dense_forward(
    x: Array,
    weight: Array,
    bias: Array | None,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    keep_z: bool,
    out: Array | None = None,
) -> tuple[Array, Array | None]:
    """Return (y, z); z only where it is asked for and the backward pass needs it."""
    with np.errstate(all="ignore"):
        z = apply_mask(x, input_mask) @ weight
        if bias is not None:
            z = z + bias
    y = apply_mask(activation_forward(z, activation), output_mask)
    return deliver(y, out), (z if keep_z and needs_z(activation) else None)


def dense_backward(
    dy: Array,
    x: Array,
    weight: Array,
    y: Array,
    z: Array | None,
    activation: ActivationKind,
    input_mask: BoundMask | None,
    output_mask: BoundMask | None,
    want_dx: bool,
    dweight: Array | Update | None,
    dbias: Array | Update | None,
    accumulate: bool,
) -> Array | None:
    """Deliver the gradients of weight and bias where wanted, and return dx where wanted."""
    if output_mask is not None and output_mask.kind == MaskKind.DROP_ALL:
        deliver_gradient(np.zeros_like(weight), dweight, accumulate)
        deliver_gradient(np.zeros(weight.shape[1], weight.dtype), dbias, accumulate)
        return np.zeros(x.shape, x.dtype) if want_dx else None
    dz = apply_mask(activation_backward(dy, y if z is None else z, activation), output_mask)
    with np.errstate(all="ignore"):
        dx = np.ascontiguousarray(apply_mask(dz @ weight.T, input_mask)) if want_dx else None
        deliver_gradient(apply_mask(x, input_mask).T @ dz, dweight, accumulate)
        deliver_gradient(dz.sum(axis=0), dbias, accumulate)
    return dx


def deliver_gradient(gradient: Array, target: Array | Update | None, accumulate: bool) -> None:
    """Put a parameter's gradient where it goes: into an array, or to an update, as if added into an array of +0.0."""
    if isinstance(target, Update):
        update(target, np.zeros_like(gradient) + gradient)
    elif target is not None:
        target[...] = gradient + (target if accumulate else 0)
