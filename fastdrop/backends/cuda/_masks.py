"""Bound masks as the backend keeps them from one operation to the next."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastdrop._types import MaskKind
from fastdrop.backends.cuda import masks
from fastdrop.backends.cuda._arrays import empty, nothing, upload
from fastdrop.backends.cuda._jit import launch_blocks
from fastdrop.mask import NO_OFFSETS, BoundMask
from fastdrop.rng import Key


class Prepared(NamedTuple):
    """A plan, and the scale in binary64."""

    plan: masks.Plan
    scale: float


def _offsets(mask: BoundMask) -> Any:
    """Return the offsets on the device: those of the mask's origin, which are the same."""
    if mask.offsets is NO_OFFSETS:
        return nothing(np.dtype(np.int64))
    if mask.origin is not None:
        return prepare(mask.origin).plan[1]
    return upload(mask.offsets).memory


def prepare(mask: BoundMask | None) -> Prepared:
    """Return a mask as kernels take it, made once for a mask and step; None keeps everything."""
    if mask is None:
        return _keep_all()
    found: Prepared | None = mask.prepared.get("cuda")
    if found is None:
        fields = masks.mask_fields(mask)
        plan = masks.as_tuple(fields), _offsets(mask), nothing(np.dtype(np.uint64))
        count = mask.passes * fields[masks.PASS_CUTOFFS]
        if mask.kind == MaskKind.FIXED_COUNT and count:
            cutoffs = empty((count,), np.uint64)
            launch_blocks(masks.cutoffs_kernel, count, plan, cutoffs.memory)
            plan = plan[0], plan[1], cutoffs.memory
        found = mask.prepared["cuda"] = Prepared(plan, mask.scale)
    return found


@cache
def _keep_all() -> Prepared:
    fields = masks.as_tuple(masks.key_fields(Key(0, 0, 0)))
    return Prepared((fields, nothing(np.dtype(np.int64)), nothing(np.dtype(np.uint64))), 1.0)
