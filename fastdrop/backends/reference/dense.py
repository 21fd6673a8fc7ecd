"""Dense: ``y = drop_out(act(drop_in(x) @ weight + bias))``.

Backward: ``dz = drop_out(dy * act'(z))``, ``dbias = sum(dz)``, ``dweight = drop_in(x).T @ dz``, ``dx = drop_in(dz @ weight.T)``.
Source: Srivastava et al. 2014, section 4.
"""

from __future__ import annotations

import numpy as np

from fastdrop._types import ActivationKind, Array, MaskKind
from fastdrop.backends.base import needs_z, no_gradient
from fastdrop.backends.reference._arrays import deliver
from fastdrop.backends.reference.activations import activation_backward, activation_forward
from fastdrop.backends.reference.dropout import apply_mask
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
    dweight: Array | None,
    dbias: Array | None,
    accumulate: bool,
) -> Array | None:
    """Fill `dweight` and `dbias` where wanted, and return dx where wanted."""
    if output_mask is not None and output_mask.kind == MaskKind.DROP_ALL:
        return no_gradient(x, want_dx, dweight, dbias, accumulate)
    dz = apply_mask(activation_backward(dy, y if z is None else z, activation), output_mask)
    with np.errstate(all="ignore"):
        if dbias is not None:
            dbias[...] = dz.sum(axis=0) + (dbias if accumulate else 0)
        if dweight is not None:
            dweight[...] = apply_mask(x, input_mask).T @ dz + (dweight if accumulate else 0)
        return np.ascontiguousarray(apply_mask(dz @ weight.T, input_mask)) if want_dx else None
