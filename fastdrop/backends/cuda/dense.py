"""Dense layers: products by `_products`, everything else by kernels before and after them."""

from __future__ import annotations

from fastdrop._device import DeviceArray
from fastdrop._types import ActivationKind
from fastdrop.backends.cuda._arrays import compute_dtype, empty, nothing
from fastdrop.backends.cuda._jit import launch, launch_blocks
from fastdrop.backends.cuda._masks import Prepared
from fastdrop.backends.cuda._products import multiply
from fastdrop.backends.cuda._tiles import blocks_for
from fastdrop.backends.cuda.epilogue import CHUNK_ROWS, finish_kernel, gradient_kernel, join_kernel, partial_sums_kernel


def finish(z: DeviceArray, y: DeviceArray, bias: DeviceArray | None, activation: ActivationKind, mask: Prepared) -> None:
    """Add the bias to z (rows, columns) and write y, which may be z."""
    rows, columns = z.shape
    number = compute_dtype(z.dtype)
    launch_blocks(
        finish_kernel,
        blocks_for(rows, columns),
        z.memory,
        y.memory,
        rows,
        columns,
        nothing(z.dtype) if bias is None else bias.memory,
        bias is not None,
        int(activation),
        mask.plan,
        number(mask.scale),
        number(1),
    )


def gradient(dy: DeviceArray, state: DeviceArray, activation: ActivationKind, mask: Prepared) -> DeviceArray:
    """Return dz (rows, columns); state is z or y."""
    rows, columns = dy.shape
    dz, number = empty(dy.shape, dy.dtype), compute_dtype(dy.dtype)
    launch_blocks(
        gradient_kernel,
        blocks_for(rows, columns),
        dy.memory,
        state.memory,
        dz.memory,
        rows,
        columns,
        int(activation),
        mask.plan,
        number(mask.scale),
        number(1),
    )
    return dz


def column_sums(dz: DeviceArray, out: DeviceArray, accumulate: bool) -> None:
    """``out (+)= sum over rows of dz``."""
    rows, columns = dz.shape
    chunks, number = -(-rows // CHUNK_ROWS), compute_dtype(dz.dtype)
    partial = empty((chunks, columns), number)
    launch(partial_sums_kernel, chunks * columns, dz.memory, rows, columns, chunks, partial.memory, number(1))
    launch(join_kernel, columns, partial.memory, columns, chunks, out.memory, accumulate, number(1))


def product(a: DeviceArray, b: DeviceArray, turn_b: bool = False) -> DeviceArray:
    """Return ``a @ op(b)``."""
    c = empty((a.shape[0], b.shape[0 if turn_b else 1]), a.dtype)
    multiply(a, b, c, turn_b=turn_b)
    return c
