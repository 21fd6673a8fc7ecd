"""Gaussian noise: ``y = x * (1 + stddev * n)`` or ``y = x + stddev * n``, n the standard normals of the mask contract.

Source: Srivastava et al. 2014, section 10 (multiplicative noise).
"""

from __future__ import annotations

import numpy as np

from fastdrop import rng
from fastdrop._types import Array
from fastdrop.backends.operands import Normals
from fastdrop.backends.reference._arrays import deliver


def noise_forward(x: Array, normals: Normals, out: Array | None = None) -> Array:
    """Return ``x * (1 + stddev * n)`` or ``x + stddev * n``; normals are rounded once, from binary64."""
    n = rng.normals(normals.key, normals.domain, normals.first, x.size).reshape(x.shape).astype(x.dtype)
    scaled = x.dtype.type(normals.stddev) * n
    with np.errstate(all="ignore"):
        return deliver(x * (1 + scaled) if normals.multiplies else x + scaled, out)


def noise_backward(dy: Array, normals: Normals, out: Array | None = None) -> Array:
    """Return ``dx = dy * (1 + stddev * n)``, or a copy of dy where the noise is added."""
    return noise_forward(dy, normals, out) if normals.multiplies else deliver(dy.copy(), out)
