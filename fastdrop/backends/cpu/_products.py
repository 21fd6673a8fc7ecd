"""The products of the CPU backend, and what all its operations need: scratch, and masks as kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdrop._types import ActivationKind, Array, Indices, MaskKind
from fastdrop.backends.base import AbstractBackend, needs_z
from fastdrop.backends.cpu import activations, dense, dropout, epilogue, masks, units
from fastdrop.backends.cpu._arguments import NO_BIAS, NO_DROP, indices_of, kernel_update, readable, unfinished
from fastdrop.backends.cpu._jit import max_scratch_threads
from fastdrop.backends.cpu._kept import GROUPS_AT_ONCE, kept_product_kernel, packed_size
from fastdrop.backends.cpu._memory import aligned_empty
from fastdrop.backends.cpu._scratch import Scratch
from fastdrop.backends.operands import PackedWeight, Update
from fastdrop.mask import BoundMask

BACKWARD_FACTOR = 1.5
"""How much more the derivative of an activation costs than its value."""


class ProductOperations(AbstractBackend):
    """Dense layers."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._threads = max_scratch_threads()

    def _decision_scratch(self) -> masks.U64:
        if self._scratch.decisions is None:
            self._scratch.decisions = np.empty((self._threads, masks.SCRATCH_WORDS), np.uint64)
        return self._scratch.decisions

    def _plan(self, mask: BoundMask | None) -> masks.U64:
        """Return the plan of a mask; None keeps all."""
        if mask is None:
            return NO_DROP
        if mask.kind == MaskKind.KEEP_ALL:
            return masks.factor_plan(mask.scale)
        plan: masks.U64 | None = mask.prepared.get("cpu")
        if plan is None:
            plan = mask.prepared["cpu"] = self._prepare(mask)
        return plan

    def _prepare(self, mask: BoundMask) -> masks.U64:
        """Return what `_plan` does; only the key differs from the mask's origin, except where cutoffs depend on it."""
        if mask.origin is None or mask.kind == MaskKind.FIXED_COUNT:
            return masks.make_plan(mask, self._threads)
        plan = self._plan(mask.origin).copy()
        masks.set_key(plan, mask.key)
        return plan

    def _product_scratch(self, dtype: np.dtype[Any]) -> dense.Scratch:
        """Return the scratch of `dense.product_kernel`; pages that are not used take no memory."""
        scratch = self._scratch.products.get(dtype)
        if scratch is None:
            packed, work = np.empty(dense.PACKED_SIZE, dtype), aligned_empty((self._threads, dense.WORK_SIZE), dtype)
            scratch = self._scratch.products[dtype] = packed, work, self._decision_scratch()
        return scratch

    def _product(
        self,
        a: Array,
        b: Array,
        c: Array,
        form: tuple[bool, int, bool],
        a_drop: masks.U64,
        finish: epilogue.Finish,
        c_drop: masks.U64,
        update: Update | None = None,
    ) -> None:
        """``c (+)= drop(op(a)) @ op(b)``, finished, or an update by c; see `dense.product_kernel`."""
        rows, columns = c.shape
        if rows == 0 or columns == 0:
            return
        work = dense.nanoseconds(rows, columns, a.shape[0 if form[0] else 1], form[1], finish[3])
        changes, scratch = kernel_update(update, c), self._product_scratch(c.dtype)
        dense.product_kernel(work, readable(a), readable(b), c, form, a_drop, finish, c_drop, changes, scratch)

    def pack_weight(self, weight: Array, rows: Indices | None = None, columns: Indices | None = None) -> PackedWeight:
        chosen = indices_of(rows, weight.shape[0]), indices_of(columns, weight.shape[1])
        depth, width = map(len, chosen)
        data = aligned_empty(dense.packed_shape(depth, width, weight.dtype), weight.dtype)
        if rows is None and columns is None:
            dense.pack_kernel(weight.size * dense.PACKING_NANOSECONDS, readable(weight), data)
        else:
            dense.pack_units_kernel(depth * width * units.NANOSECONDS, readable(weight), *chosen, data)
        return PackedWeight(data, (depth, width))

    def dense_forward(
        self,
        x: Array,
        weight: Array | PackedWeight,
        bias: Array | None,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep_z: bool,
        out: Array | None = None,
    ) -> tuple[Array, Array | None]:
        y = self.empty((x.shape[0], weight.shape[1]), x.dtype) if out is None else out
        z = self.empty(y.shape, y.dtype) if keep_z and needs_z(activation) else None
        b, b_form = (weight.data, dense.PACKED) if isinstance(weight, PackedWeight) else (weight, dense.PLAIN)
        finish = y, z is not None, NO_BIAS[y.dtype] if bias is None else readable(bias), int(activation)
        input_drop, output_drop = self._plan(input_mask), self._plan(output_mask)
        self._product(x, b, y if z is None else z, (False, b_form, False), input_drop, finish, output_drop)
        return y, z

    def dense_forward_groups(
        self,
        xs: Sequence[Array],
        weight: Array,
        bias: Array | None,
        activation: ActivationKind,
        mask: BoundMask | None,
        rows: Sequence[Indices | None],
        columns: Sequence[Indices | None],
    ) -> tuple[Array, ...]:
        if any(packed_size(*x.shape) > dense.PACKED_SIZE // self._threads for x in xs):
            return super().dense_forward_groups(xs, weight, bias, activation, mask, rows, columns)
        plan, w, groups = NO_DROP if mask is None else masks.factor_plan(mask.scale), readable(weight), []
        for x, some_rows, some_columns in zip(xs, rows, columns, strict=True):
            chosen = indices_of(some_columns, w.shape[1])
            b = NO_BIAS[w.dtype] if bias is None else bias.take(chosen)
            y = self.empty((len(x), len(chosen)), w.dtype)
            groups.append((readable(x), indices_of(some_rows, w.shape[0]), chosen, b, y))
        for first in range(0, len(groups), GROUPS_AT_ONCE):
            some = groups[first : first + GROUPS_AT_ONCE]
            work = sum(dense.nanoseconds(*y.shape, x.shape[1], dense.PLAIN, int(activation)) for x, *_, y in some)
            xs_to_ys = zip(*some, *some[:1] * (GROUPS_AT_ONCE - len(some)), strict=True)
            kept_product_kernel(work, tuple(xs_to_ys), len(some), w, int(activation), plan, self._product_scratch(w.dtype))
        return tuple(y for *_, y in groups)

    def dense_backward(
        self,
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
        if output_mask is not None and output_mask.kind == MaskKind.DROP_ALL:
            return self._no_gradient(x, want_dx, dweight, dbias, accumulate)
        dz = self._gradient(dy, y if z is None else z, activation, output_mask, dbias, accumulate)
        input_drop = self._plan(input_mask)
        dx = self.empty(x.shape, x.dtype) if want_dx else None
        if dx is not None:
            self._product(dz, weight, dx, (False, dense.TRANSPOSED, False), NO_DROP, unfinished(dx), input_drop)
        if dweight is not None:
            grad, update = self._destination("gradient", dweight)
            form = True, dense.PLAIN, accumulate and update is None
            self._product(x, dz, grad, form, input_drop, unfinished(grad), NO_DROP, update)
        return dx

    def _destination(self, name: str, gradient: Array | Update) -> tuple[Array, Update | None]:
        """Return (the array that a gradient is computed into, scratch of that name for an update; the update by it)."""
        if isinstance(gradient, Update):
            return self._scratch.take(name, gradient.value.shape, gradient.value.dtype), gradient
        return gradient, None

    def _no_gradient(
        self, x: Array, want_dx: bool, dweight: Array | Update | None, dbias: Array | Update | None, accumulate: bool
    ) -> Array | None:
        """Do what `dense_backward` does where the output mask drops everything."""
        for target in (dweight, dbias):
            if isinstance(target, Update):
                self.update(target, np.zeros_like(target.value))
            elif target is not None and not accumulate:
                target.fill(0)
        return np.zeros(x.shape, x.dtype) if want_dx else None

    def _gradient(
        self,
        dy: Array,
        state: Array,
        activation: ActivationKind,
        mask: BoundMask | None,
        dbias: Array | Update | None,
        accumulate: bool,
        out: Array | None = None,
    ) -> Array:
        """Return dz (rows, columns), and deliver its column sums to dbias."""
        if dbias is None and mask is None and activation == ActivationKind.LINEAR and out is None:
            return dy
        dz = self._scratch.take("dz", dy.shape, dy.dtype) if out is None else out
        rows, columns = dy.shape
        chunks = -(-rows // epilogue.CHUNK_ROWS)
        partial = self._scratch.take("partial", (chunks, columns), dy.dtype)
        total, update = self._destination("bias", NO_BIAS[dy.dtype] if dbias is None else dbias)
        work = dy.size * (activations.NANOSECONDS[activation] * BACKWARD_FACTOR + dropout.NANOSECONDS)
        epilogue.gradient_kernel(
            work,
            readable(dy),
            readable(state),
            dz,
            partial,
            int(activation),
            self._plan(mask),
            total,
            accumulate and update is None,
            kernel_update(update, total),
            self._decision_scratch(),
        )
        return dz
