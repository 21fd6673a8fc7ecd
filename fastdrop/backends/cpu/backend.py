"""`CpuBackend`: makes inputs contiguous, allocates results, and launches the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from fastdrop._types import ActivationKind, Array, Indices, Shape
from fastdrop.backends.cpu import _memory, activations, drop_block, dropout, losses, masks, noise, softmax, units, updates
from fastdrop.backends.cpu._arguments import NO_LABELS, NO_TARGETS, indices_of, kernel_parts, readable
from fastdrop.backends.cpu._images import ImageOperations
from fastdrop.backends.cpu._jit import Kernel
from fastdrop.backends.cpu._vector import WORD_BITS
from fastdrop.backends.operands import PARTS_AT_ONCE, Normals, Part, Units, Update, as_matrix
from fastdrop.mask import BoundMask
from fastdrop.rng import Key

LOSS_NANOSECONDS = 1.5
SUM_NANOSECONDS = 0.1
UPDATE_NANOSECONDS = (0.3, 0.3, 0.3, 0.6)
"""Estimated cost of an element by `UpdateKind`."""


def _size(parts: Sequence[Part]) -> int:
    """Return how many elements the parts have."""
    return sum(part.gradient.size for part in parts)


class CpuBackend(ImageOperations):
    """Array operations by Numba kernels. Stateless but for memory: scratch of the calling thread, and blocks kept for results."""

    name: ClassVar[str] = "cpu"

    # Arrays

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        return _memory.empty(shape, dtype)

    # Random words and decisions

    def words(self, key: Key, domain: int, first: int, count: int) -> npt.NDArray[np.uint32]:
        out = np.empty(count, dtype=np.uint32)
        masks.words_kernel(count * masks.WORD_NANOSECONDS, masks.key_plan(key), np.uint64(domain), np.uint64(first), out)
        return out

    def decisions(self, mask: BoundMask, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.uint64]:
        width = columns[1] - columns[0]
        out = np.empty((rows[1] - rows[0], -(-width // WORD_BITS)), dtype=np.uint64)
        work = out.size * WORD_BITS * dropout.NANOSECONDS
        masks.decisions_kernel(work, self._plan(mask), rows[0], columns[0], width, out, self._decision_scratch())
        return out

    # Units that shared masks keep

    def units(self, mask: BoundMask) -> Units:
        bounds = mask.groups()
        kept = []
        for low, _ in pairwise(bounds):
            bits = self.decisions(mask, (low, low + 1), (0, mask.columns))
            bytes_of_bits = bits[0].astype("<u8", copy=False).view(np.uint8)
            kept.append(np.unpackbits(bytes_of_bits, bitorder="little").view(np.bool_).nonzero()[0])
        return Units(bounds, tuple(kept))

    def gather(self, x: Array, rows: Indices | None, columns: Indices | None, scale: float = 1.0) -> Array:
        rows, columns = indices_of(rows, x.shape[0]), indices_of(columns, x.shape[1])
        out = self.empty((len(rows), len(columns)), x.dtype)
        units.gather_kernel(out.size * units.NANOSECONDS, readable(x), rows, columns, float(scale), out)
        return out

    def scatter(
        self, values: Array, rows: Indices | None, columns: Indices | None, out: Array, accumulate: bool, scale: float = 1.0
    ) -> None:
        rows, columns = indices_of(rows, out.shape[0]), indices_of(columns, out.shape[1])
        work = values.size * units.NANOSECONDS
        units.scatter_kernel(work, readable(values), rows, columns, float(scale), accumulate, out)

    def add_parts(self, parts: Sequence[Part], out: Array, accumulate: bool) -> None:
        for first in range(0, max(1, len(parts)), PARTS_AT_ONCE):
            some = parts[first : first + PARTS_AT_ONCE]
            work = (out.size + _size(some)) * units.NANOSECONDS
            units.add_parts_kernel(work, kernel_parts(some, out), accumulate or first > 0, out)

    # Dropout

    def dropout_forward(self, x: Array, mask: BoundMask, out: Array | None = None) -> Array:
        y = self.empty(x.shape, x.dtype) if out is None else out
        shape = mask.rows, mask.columns
        stream = y.nbytes >= dropout.STREAM_BYTES and y is not x
        work, source, target = x.size * dropout.NANOSECONDS, readable(x).reshape(shape), y.reshape(shape)
        dropout.dropout_kernel(work, source, target, self._plan(mask), stream, self._decision_scratch())
        return y

    def dropout_backward(self, dy: Array, mask: BoundMask, out: Array | None = None) -> Array:
        return self.dropout_forward(dy, mask, out)

    def affine_dropout_forward(self, x: Array, mask: BoundMask, shift: float, fill: float, out: Array | None = None) -> Array:
        y = self.empty(x.shape, x.dtype) if out is None else out
        shape, work = (mask.rows, mask.columns), x.size * dropout.NANOSECONDS
        rows = readable(x).reshape(shape), y.reshape(shape)
        dropout.affine_dropout_kernel(work, *rows, self._plan(mask), float(shift), float(fill), self._decision_scratch())
        return y

    def drop_block_forward(self, x: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
        y = self.empty(x.shape, x.dtype) if out is None else out
        rows, height, width, channels = x.shape
        shape = rows, height * width * channels
        keep = self._scratch.take("blocks", (self._threads, shape[1]), np.dtype(np.uint8))
        drop_block.drop_block_kernel(
            x.size * drop_block.NANOSECONDS,
            readable(x).reshape(shape),
            y.reshape(shape),
            width,
            channels,
            self._plan(seeds),
            seeds.columns,
            block_size,
            keep,
            self._decision_scratch(),
        )
        return y

    def drop_block_backward(self, dy: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
        return self.drop_block_forward(dy, seeds, block_size, out)

    # Noise

    def noise_forward(self, x: Array, normals: Normals, out: Array | None = None) -> Array:
        y = self.empty(x.shape, x.dtype) if out is None else out
        noise.noise_kernel(
            x.size * noise.NANOSECONDS,
            readable(x).reshape(-1),
            y.reshape(-1),
            masks.key_plan(normals.key),
            np.uint64(normals.domain),
            np.uint64(normals.first),
            float(normals.stddev),
            normals.multiplies,
            self._decision_scratch(),
            self._scratch.take("noise", (self._threads, noise.NORMALS), x.dtype),
        )
        return y

    def noise_backward(self, dy: Array, normals: Normals, out: Array | None = None) -> Array:
        if normals.multiplies:
            return self.noise_forward(dy, normals, out)
        return self.activation_forward(dy, ActivationKind.LINEAR, out)

    # Activations

    def activation_forward(self, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
        y = self.empty(x.shape, x.dtype) if out is None else out
        work = x.size * activations.NANOSECONDS[activation]
        activations.activation_kernel(work, readable(x).reshape(-1), y.reshape(-1), int(activation))
        return y

    def activation_backward(self, dy: Array, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
        dx = self.empty(dy.shape, dy.dtype) if out is None else out
        row = (1, dx.size)
        self._gradient(readable(dy).reshape(row), readable(x).reshape(row), activation, None, None, False, dx.reshape(row))
        return dx

    def softmax_forward(self, x: Array, out: Array | None = None) -> Array:
        y = self.empty(x.shape, x.dtype) if out is None else out
        if y.size:
            softmax.softmax_forward_kernel(x.size * LOSS_NANOSECONDS, readable(x), y)
        return y

    def softmax_backward(self, dy: Array, y: Array, out: Array | None = None) -> Array:
        dx = self.empty(dy.shape, dy.dtype) if out is None else out
        softmax.softmax_backward_kernel(dy.size * LOSS_NANOSECONDS, readable(dy), readable(y), dx)
        return dx

    # Losses

    def _loss(
        self, kernel: Kernel, outputs: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        """Run a loss kernel on class numbers or target rows."""
        rows = len(outputs)
        grad = self.empty(outputs.shape, outputs.dtype)
        row_losses = np.zeros(rows)
        if outputs.size:
            factors = np.empty(rows) if weights is None else weights / normalizer
            if weights is None:
                factors.fill(1.0 / normalizer)
            goals = (readable(labels), NO_TARGETS[outputs.dtype]) if labels.ndim == 1 else (NO_LABELS, readable(labels))
            kernel(outputs.size * LOSS_NANOSECONDS, readable(outputs), *goals, readable(factors), grad, row_losses)
        return float(np.add.reduce(row_losses)), grad

    def softmax_cross_entropy(
        self, logits: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        return self._loss(losses.softmax_cross_entropy_kernel, logits, labels, weights, normalizer)

    def sigmoid_cross_entropy(
        self, logits: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        if labels.ndim == 1 and logits.shape[1] == 1:
            labels = labels[:, None].astype(logits.dtype)
        return self._loss(losses.sigmoid_cross_entropy_kernel, logits, labels, weights, normalizer)

    def categorical_cross_entropy(
        self, probabilities: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        return self._loss(losses.categorical_cross_entropy_kernel, probabilities, labels, weights, normalizer)

    def mean_squared_error(
        self, predictions: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        return self._loss(losses.mean_squared_error_kernel, predictions, labels, weights, normalizer)

    # Updates

    def update(self, update: Update, grad: Array) -> None:
        kind, value, first, second, rates = update
        flat = value.reshape(-1), readable(grad).reshape(-1), first.reshape(-1), second.reshape(-1)
        updates.update_kernel(value.size * UPDATE_NANOSECONDS[kind], int(kind), *flat, rates)

    def update_parts(self, update: Update, parts: Sequence[Part]) -> None:
        if len(parts) > PARTS_AT_ONCE:
            super().update_parts(update, parts)
            return
        kind, rates, matrices = int(update.kind), update.rates, tuple(as_matrix(array) for array in update[1:4])
        height, width = matrices[0].shape
        lines = self._scratch.take("lines", (self._threads, max(1, units.LINE_SIZE // max(width, 1)) * width), rates.dtype)
        work = height * width * UPDATE_NANOSECONDS[kind] + _size(parts) * units.NANOSECONDS
        units.update_parts_kernel(work, (kind, *matrices, rates), kernel_parts(parts, matrices[0]), lines)

    def sum_of_squares(self, x: Array) -> float:
        sums = np.zeros(-(-x.size // updates.CHUNK))
        updates.square_sums_kernel(x.size * SUM_NANOSECONDS, readable(x).reshape(-1), sums)
        return float(sums.sum())

    def limit_column_norms(self, weight: Array, max_value: float) -> None:
        norms = np.empty(weight.shape[1])
        updates.limit_norms_kernel(2 * weight.size * SUM_NANOSECONDS, weight, norms, float(max_value))
