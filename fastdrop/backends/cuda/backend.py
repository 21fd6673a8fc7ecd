"""`CudaBackend`: allocates results and launches the kernels, on the stream of the calling thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from fastdrop._device import DeviceArray
from fastdrop._types import ActivationKind, Indices, MaskKind, Shape
from fastdrop.backends.cuda import _reductions, activations, drop_block, dropout, losses, masks, noise, softmax, units, updates
from fastdrop.backends.cuda._arrays import aligned, compute_dtype, empty, nothing, upload, zeros
from fastdrop.backends.cuda._images import ImageOperations
from fastdrop.backends.cuda._jit import check_gpu, launch, launch_blocks
from fastdrop.backends.cuda._masks import prepare
from fastdrop.backends.cuda._tiles import blocks_for
from fastdrop.backends.cuda._vectors import VECTOR_BYTES
from fastdrop.backends.cuda.masks import RUN
from fastdrop.backends.operands import Normals, Units
from fastdrop.mask import BoundMask
from fastdrop.rng import WORDS_PER_BLOCK, Key

WORD_BITS = 64


def _indices(chosen: Indices | None) -> tuple[Any, bool]:
    """Return rows or columns as kernels take them, and whether they are all."""
    return (nothing(np.dtype(np.int64)), True) if chosen is None else (upload(chosen).memory, False)


def _rows(array: Any) -> Any:
    """Return an array of any number of axes as a matrix with its rows."""
    return array.reshape(len(array), math.prod(array.shape[1:]))


@final
class CudaBackend(ImageOperations):
    """Array operations by numba.cuda kernels; arrays are `DeviceArray`s, indices and class numbers may be NumPy arrays.

    Raises
    ------
    BackendError: there is no GPU that can be used.
    """

    name: ClassVar[str] = "cuda"

    def __init__(self) -> None:
        check_gpu()
        super().__init__()

    # Arrays

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Any:
        return empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: npt.DTypeLike) -> Any:
        return zeros(shape, dtype)

    def copy_of(self, array: Any) -> Any:
        return array.copy() if isinstance(array, DeviceArray) else upload(np.asarray(array))

    def concatenate(self, parts: Sequence[Any]) -> Any:
        if len(parts) == 1:
            return parts[0]
        out, low = empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype), 0
        for part in parts:
            out[low : low + len(part)] = part
            low += len(part)
        return out

    def take(self, array: Any, rows: Indices, out: Any = None) -> Any:
        taken = self.gather(_rows(array), rows, None).reshape(len(rows), *array.shape[1:])
        if out is None:
            return taken
        out[:] = taken
        return out

    def same_memory(self, a: Any, b: Any) -> bool:
        return a.memory is b.memory

    # Random words and decisions

    def words(self, key: Key, domain: int, first: int, count: int) -> npt.NDArray[np.uint32]:
        out = empty((count,), np.uint32)
        fields = masks.as_tuple(masks.key_fields(key))
        launch(masks.words_kernel, count, fields, np.uint64(domain), np.uint64(first), out.memory, count)
        return out.copy_to_host()

    def decisions(self, mask: BoundMask, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.uint64]:
        width = columns[1] - columns[0]
        out = empty((rows[1] - rows[0], -(-width // WORD_BITS)), np.uint64)
        where = rows[0], columns[0], width, max(1, out.shape[1])
        launch(masks.decisions_kernel, out.size, prepare(mask).plan, *where, out.memory, out.size)
        return out.copy_to_host()

    # Units that shared masks keep

    def units(self, mask: BoundMask) -> Units:
        bounds = mask.groups()
        return Units(bounds, tuple(np.flatnonzero(mask.keep_row(low, 0, mask.columns)) for low in bounds[:-1]))

    def gather(self, x: Any, rows: Indices | None, columns: Indices | None, scale: float = 1.0) -> Any:
        height = x.shape[0] if rows is None else len(rows)
        across = x.shape[1] if columns is None else len(columns)
        out = empty((height, across), x.dtype)
        chosen, number = (*_indices(rows), *_indices(columns)), compute_dtype(x.dtype)
        launch(units.gather_kernel, out.size, x.memory, x.shape[1], *chosen, number(scale), out.memory, height, max(1, across))
        return out

    def scatter(
        self, values: Any, rows: Indices | None, columns: Indices | None, out: Any, accumulate: bool, scale: float = 1.0
    ) -> None:
        chosen, number = (*_indices(rows), *_indices(columns)), compute_dtype(out.dtype)
        launch(
            units.scatter_kernel,
            values.size,
            values.memory,
            *chosen,
            number(scale),
            accumulate,
            out.memory,
            out.shape[1],
            values.shape[0],
            max(1, values.shape[1]),
        )

    # Dropout

    def _dropout(self, x: Any, mask: BoundMask, shift: float, fill: float, affine: bool, out: Any) -> Any:
        y, number = empty(x.shape, x.dtype) if out is None else out, compute_dtype(x.dtype)
        plan, scale = prepare(mask)
        if mask.kind == MaskKind.BERNOULLI and mask.rows == 1 and mask.column_step and not affine and aligned(x, y):
            blocks, lanes = blocks_for(1, x.size + RUN), VECTOR_BYTES // x.dtype.itemsize
            launch_blocks(dropout.plain_kernel, blocks, x.memory, y.memory, x.size, plan, number(scale), lanes)
            return y
        launch_blocks(
            dropout.dropout_kernel,
            blocks_for(mask.rows, mask.columns),
            x.memory,
            y.memory,
            mask.rows,
            mask.columns,
            plan,
            number(scale),
            number(shift),
            number(fill),
            affine,
        )
        return y

    def dropout_forward(self, x: Any, mask: BoundMask, out: Any = None) -> Any:
        return self._dropout(x, mask, 0.0, 0.0, False, out)

    def dropout_backward(self, dy: Any, mask: BoundMask, out: Any = None) -> Any:
        return self._dropout(dy, mask, 0.0, 0.0, False, out)

    def affine_dropout_forward(self, x: Any, mask: BoundMask, shift: float, fill: float, out: Any = None) -> Any:
        return self._dropout(x, mask, shift, fill, True, out)

    def drop_block_forward(self, x: Any, seeds: BoundMask, block_size: int, out: Any = None) -> Any:
        y = empty(x.shape, x.dtype) if out is None else out
        rows, height, width, channels = x.shape
        words = -(-seeds.columns // WORD_BITS)
        bits = empty((rows, words), np.uint64)
        launch(masks.decisions_kernel, bits.size, prepare(seeds).plan, 0, 0, seeds.columns, words, bits.memory, bits.size)
        one = compute_dtype(x.dtype)(1)
        images = rows, height, width, channels, block_size
        launch_blocks(drop_block.drop_block_kernel, rows, x.memory, y.memory, *images, bits.memory, words, one)
        return y

    def drop_block_backward(self, dy: Any, seeds: BoundMask, block_size: int, out: Any = None) -> Any:
        return self.drop_block_forward(dy, seeds, block_size, out)

    # Noise

    def noise_forward(self, x: Any, normals: Normals, out: Any = None) -> Any:
        y, number = empty(x.shape, x.dtype) if out is None else out, compute_dtype(x.dtype)
        fields = masks.as_tuple(masks.key_fields(normals.key))
        launch(
            noise.noise_kernel,
            -(-x.size // WORDS_PER_BLOCK) + 1,
            x.memory,
            y.memory,
            x.size,
            fields,
            np.uint64(normals.domain),
            normals.first,
            number(normals.stddev),
            normals.multiplies,
            number(1),
        )
        return y

    def noise_backward(self, dy: Any, normals: Normals, out: Any = None) -> Any:
        if normals.multiplies:
            return self.noise_forward(dy, normals, out)
        return self.activation_forward(dy, ActivationKind.LINEAR, out)

    # Activations

    def activation_forward(self, x: Any, activation: ActivationKind, out: Any = None) -> Any:
        y, one = empty(x.shape, x.dtype) if out is None else out, compute_dtype(x.dtype)(1)
        launch(activations.activation_kernel, x.size, x.memory, y.memory, x.size, int(activation), one)
        return y

    def activation_backward(self, dy: Any, x: Any, activation: ActivationKind, out: Any = None) -> Any:
        dx, one = empty(dy.shape, dy.dtype) if out is None else out, compute_dtype(dy.dtype)(1)
        launch(activations.gradient_kernel, dy.size, dy.memory, x.memory, dx.memory, dy.size, int(activation), one)
        return dx

    def softmax_forward(self, x: Any, out: Any = None) -> Any:
        y = empty(x.shape, x.dtype) if out is None else out
        launch_blocks(softmax.softmax_forward_kernel, len(x), x.memory, y.memory, *x.shape)
        return y

    def softmax_backward(self, dy: Any, y: Any, out: Any = None) -> Any:
        dx = empty(dy.shape, dy.dtype) if out is None else out
        launch_blocks(softmax.softmax_backward_kernel, len(dy), dy.memory, y.memory, dx.memory, *dy.shape)
        return dx

    # Losses: the sum is an array without axes, so that nothing waits for it

    def _loss(self, kernel: Any, outputs: Any, labels: Any, weights: Any, normalizer: float) -> tuple[Any, Any]:
        rows, columns = outputs.shape
        grad, row_losses, total = empty(outputs.shape, outputs.dtype), empty((rows,), np.float64), empty((), np.float64)
        goals = labels if isinstance(labels, DeviceArray) else upload(labels)
        by_class = goals.ndim == 1
        if weights is not None and not isinstance(weights, DeviceArray):
            weights = upload(weights)
        factors = nothing(np.dtype(np.float64)) if weights is None else weights.memory, weights is not None, float(normalizer)
        none = nothing(outputs.dtype if by_class else np.dtype(np.int64))
        pair = (goals.memory, none) if by_class else (none, goals.memory)
        arrays = outputs.memory, *pair, by_class, *factors, grad.memory, row_losses.memory
        launch_blocks(kernel, rows, *arrays, rows, columns)
        launch_blocks(_reductions.total_kernel, 1, row_losses.memory, rows, total.memory)
        return total, grad

    def softmax_cross_entropy(self, logits: Any, labels: Any, weights: Any, normalizer: float) -> tuple[Any, Any]:
        return self._loss(losses.softmax_cross_entropy_kernel, logits, labels, weights, normalizer)

    def sigmoid_cross_entropy(self, logits: Any, labels: Any, weights: Any, normalizer: float) -> tuple[Any, Any]:
        return self._loss(losses.sigmoid_cross_entropy_kernel, logits, labels, weights, normalizer)

    def categorical_cross_entropy(self, probabilities: Any, labels: Any, weights: Any, normalizer: float) -> tuple[Any, Any]:
        return self._loss(losses.categorical_cross_entropy_kernel, probabilities, labels, weights, normalizer)

    def mean_squared_error(self, predictions: Any, labels: Any, weights: Any, normalizer: float) -> tuple[Any, Any]:
        return self._loss(losses.mean_squared_error_kernel, predictions, labels, weights, normalizer)

    # Metrics

    def hits(self, outputs: Any, labels: Any, threshold: float) -> Any:
        rows, columns = outputs.shape
        goals = labels if isinstance(labels, DeviceArray) else upload(labels)
        found = empty((rows,), np.float64)
        launch(losses.hits_kernel, rows, outputs.memory, goals.memory, goals.ndim == 2, threshold, found.memory, rows, columns)
        return found

    def sum_of(self, values: Any) -> Any:
        total = empty((), np.float64)
        launch_blocks(_reductions.total_kernel, 1, values.memory, values.size, total.memory)
        return total

    # Norms

    def sum_of_squares(self, x: Any) -> float:
        chunks = -(-x.size // _reductions.CHUNK)
        partial, total = empty((chunks,), np.float64), empty((), np.float64)
        launch_blocks(_reductions.square_sums_kernel, chunks, x.memory, x.size, partial.memory)
        launch_blocks(_reductions.total_kernel, 1, partial.memory, chunks, total.memory)
        return float(total)

    def limit_column_norms(self, weight: Any, max_value: float) -> None:
        rows, columns = weight.shape
        launch(updates.limit_norms_kernel, columns, weight.memory, rows, columns, float(max_value))
