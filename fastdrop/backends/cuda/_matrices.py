"""The backend's dense layers, and what they share with convolutions: gradients into arrays and updates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastdrop._device import DeviceArray
from fastdrop._types import ActivationKind, Indices, MaskKind
from fastdrop.backends.base import AbstractBackend, needs_z
from fastdrop.backends.cuda import _jit, dense, updates
from fastdrop.backends.cuda._arrays import compute_dtype, empty, zeros
from fastdrop.backends.cuda._jit import BLOCK, IS_SUCCESSOR, MOST_BLOCKS, launch
from fastdrop.backends.cuda._masks import prepare
from fastdrop.backends.cuda._products import multiply
from fastdrop.backends.operands import PackedWeight, Update
from fastdrop.mask import BoundMask

MOST_RATES = 5
MOST_TOGETHER = 16
"""Parameters that a launch updates: their arrays are arguments, of which there may be 4 KiB."""


def _numbers(rates: Any, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return rates as kernels take them."""
    number = compute_dtype(dtype)
    return tuple(number(rate) for rate in rates) + (number(0),) * (MOST_RATES - len(rates))


def _chunks(groups: dict[tuple[Any, ...], list[Any]]) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    """Yield the updates of each group, so many at a time as a launch takes."""
    for key, updates_alike in groups.items():
        for first in range(0, len(updates_alike), MOST_TOGETHER):
            yield key, updates_alike[first : first + MOST_TOGETHER]


class _Left(threading.local):
    """Updates that a thread has left for later."""

    def __init__(self) -> None:
        self.updates: list[tuple[Update, Any]] = []


class MatrixOperations(AbstractBackend):
    """Dense layers and updates."""

    def __init__(self) -> None:
        self._left = _Left()

    def _dropped(self, x: Any, mask: BoundMask | None) -> Any:
        """Return x, dropped out."""
        return x if mask is None else self.dropout_forward(x, mask)

    def _gradient_array(self, target: Any, accumulate: bool) -> DeviceArray:
        """Return the array that a gradient is added into: the target itself, or a new one for an update."""
        if isinstance(target, Update):
            return zeros(target.value.shape, target.value.dtype)
        array: DeviceArray = target
        if not accumulate:
            array.fill(0.0)
        return array

    def _deliver(self, target: Any, gradient: Any) -> None:
        """Update by a gradient, where that is wanted."""
        if isinstance(target, Update):
            self.update_later(target, gradient)

    def _deliver_bias(self, dz: DeviceArray, target: Any, accumulate: bool) -> None:
        if target is not None:
            gradient = self._gradient_array(target, accumulate)
            dense.column_sums(dz, gradient, True)
            self._deliver(target, gradient)

    def _no_gradient(self, x: DeviceArray, want_dx: bool, accumulate: bool, *targets: Any) -> DeviceArray | None:
        """Deliver gradients of +0.0."""
        for target in targets:
            if target is not None:
                self._deliver(target, self._gradient_array(target, accumulate))
        return zeros(x.shape, x.dtype) if want_dx else None

    def pack_weight(self, weight: Any, rows: Indices | None = None, columns: Indices | None = None) -> PackedWeight:
        data = self.gather(weight, rows, columns)
        return PackedWeight(data, (data.shape[0], data.shape[1]))

    def dense_forward(
        self,
        x: Any,
        weight: Any,
        bias: Any,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep_z: bool,
        out: Any = None,
    ) -> tuple[Any, Any]:
        matrix: Any = weight.data if isinstance(weight, PackedWeight) else weight
        kept = keep_z and needs_z(activation)
        shape = x.shape[0], matrix.shape[1]
        y = empty(shape, x.dtype) if out is None else out
        z = empty(shape, x.dtype) if kept else y
        multiply(self._dropped(x, input_mask), matrix, z)
        dense.finish(z, y, bias, activation, prepare(output_mask))
        return y, z if kept else None

    def dense_backward(
        self,
        dy: Any,
        x: Any,
        weight: Any,
        y: Any,
        z: Any,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        want_dx: bool,
        dweight: Any,
        dbias: Any,
        accumulate: bool,
    ) -> Any:
        if output_mask is not None and output_mask.kind == MaskKind.DROP_ALL:
            return self._no_gradient(x, want_dx, accumulate, dweight, dbias)
        dz = dense.gradient(dy, y if z is None else z, activation, prepare(output_mask))
        dx: Any = None
        if want_dx:
            dx = dense.product(dz, weight, turn_b=True)
            if input_mask is not None:
                self.dropout_backward(dx, input_mask, dx)
        if dweight is not None:
            target = empty(weight.shape, weight.dtype) if isinstance(dweight, Update) else dweight
            into = accumulate and not isinstance(dweight, Update)
            multiply(self._dropped(x, input_mask), dz, target, turn_a=True, accumulate=into)
            self._deliver(dweight, target)
        self._deliver_bias(dz, dbias, accumulate)
        return dx

    def update_later(self, update: Any, grad: Any) -> None:
        self._left.updates.append((update, grad))

    def finish_updates(self, *, forget: bool = False) -> None:
        left, self._left.updates = self._left.updates, []
        if forget:
            return
        if IS_SUCCESSOR:  # whose compiler does not take tuples of arrays
            for update, grad in left:
                self.update(update, grad)
            return
        groups: dict[tuple[Any, ...], list[Any]] = {}
        for each in left:  # one launch for all that is done alike: weights, and biases if they do not decay
            kind, value, *_, rates = each[0]
            groups.setdefault((int(kind), value.dtype, tuple(rates)), []).append(each)
        for (kind, dtype, rates), found in _chunks(groups):
            memories = zip(*((grad.memory, *(array.memory for array in update[1:4])) for update, grad in found), strict=True)
            sizes = tuple(update.value.size for update, _ in found)
            blocks = min(MOST_BLOCKS, -(-max(sizes) // BLOCK))
            _jit.start(updates.update_all_kernel, (blocks, len(found)), BLOCK, kind, *memories, _numbers(rates, dtype), sizes)

    def update(self, update: Any, grad: Any) -> None:
        kind, value, first, second, rates = update
        arrays = value.memory, first.memory, second.memory, _numbers(rates, value.dtype)
        launch(updates.update_kernel, value.size, int(kind), grad.memory, *arrays, value.size)
