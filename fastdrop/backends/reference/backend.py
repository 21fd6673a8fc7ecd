"""The reference backend: methods of the seam, each handed to the function of the same name."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np
import numpy.typing as npt

from fastdrop._types import ActivationKind, Array, Indices
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Normals, PackedWeight, Units, Unpooled, Update
from fastdrop.backends.reference import (
    activations,
    conv2d,
    dense,
    drop_block,
    dropout,
    losses,
    masks,
    noise,
    pooling,
    softmax,
    units,
    updates,
)
from fastdrop.mask import BoundMask
from fastdrop.rng import Key
from fastdrop.window import Window

Weights = npt.NDArray[np.float64] | None


@final
class ReferenceBackend(AbstractBackend):
    """Every operation in plain NumPy: slow, obviously right, and what every other backend must equal."""

    name: ClassVar[str] = "reference"

    def words(self, key: Key, domain: int, first: int, count: int) -> npt.NDArray[np.uint32]:
        """See `AbstractBackend.words`."""
        return masks.words(key, domain, first, count)

    def decisions(self, mask: BoundMask, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.uint64]:
        """See `AbstractBackend.decisions`."""
        return masks.decisions(mask, rows, columns)

    def units(self, mask: BoundMask) -> Units:
        """See `AbstractBackend.units`."""
        return units.units(mask)

    def gather(self, x: Array, rows: Indices | None, columns: Indices | None, scale: float = 1.0) -> Array:
        """See `AbstractBackend.gather`."""
        return units.gather(x, rows, columns, scale)

    def scatter(
        self, values: Array, rows: Indices | None, columns: Indices | None, out: Array, accumulate: bool, scale: float = 1.0
    ) -> None:
        """See `AbstractBackend.scatter`."""
        units.scatter(values, rows, columns, out, accumulate, scale)

    def dropout_forward(self, x: Array, mask: BoundMask, out: Array | None = None) -> Array:
        """See `AbstractBackend.dropout_forward`."""
        return dropout.dropout_forward(x, mask, out)

    def dropout_backward(self, dy: Array, mask: BoundMask, out: Array | None = None) -> Array:
        """See `AbstractBackend.dropout_backward`."""
        return dropout.dropout_backward(dy, mask, out)

    def affine_dropout_forward(self, x: Array, mask: BoundMask, shift: float, fill: float, out: Array | None = None) -> Array:
        """See `AbstractBackend.affine_dropout_forward`."""
        return dropout.affine_dropout_forward(x, mask, shift, fill, out)

    def drop_block_forward(self, x: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
        """See `AbstractBackend.drop_block_forward`."""
        return drop_block.drop_block_forward(x, seeds, block_size, out)

    def drop_block_backward(self, dy: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
        """See `AbstractBackend.drop_block_backward`."""
        return drop_block.drop_block_backward(dy, seeds, block_size, out)

    def noise_forward(self, x: Array, normals: Normals, out: Array | None = None) -> Array:
        """See `AbstractBackend.noise_forward`."""
        return noise.noise_forward(x, normals, out)

    def noise_backward(self, dy: Array, normals: Normals, out: Array | None = None) -> Array:
        """See `AbstractBackend.noise_backward`."""
        return noise.noise_backward(dy, normals, out)

    def pack_weight(self, weight: Array, rows: Indices | None = None, columns: Indices | None = None) -> PackedWeight:
        """See `AbstractBackend.pack_weight`."""
        data = units.gather(weight, rows, columns)
        return PackedWeight(data, (data.shape[0], data.shape[1]))

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
        """See `AbstractBackend.dense_forward`."""
        matrix = weight.data if isinstance(weight, PackedWeight) else weight
        return dense.dense_forward(x, matrix, bias, activation, input_mask, output_mask, keep_z, out)

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
        """See `AbstractBackend.dense_backward`."""
        return dense.dense_backward(dy, x, weight, y, z, activation, input_mask, output_mask, want_dx, dweight, dbias, accumulate)

    def conv2d_forward(
        self,
        x: Array,
        weight: Array | PackedWeight,
        bias: Array | None,
        window: Window,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        keep_z: bool,
    ) -> tuple[Array, Array | None]:
        """See `AbstractBackend.conv2d_forward`."""
        kernel = weight.data if isinstance(weight, PackedWeight) else weight
        return conv2d.conv2d_forward(x, kernel, bias, window, activation, input_mask, output_mask, keep_z)

    def conv2d_backward(
        self,
        dy: Array | Unpooled,
        x: Array,
        weight: Array,
        y: Array,
        z: Array | None,
        window: Window,
        activation: ActivationKind,
        input_mask: BoundMask | None,
        output_mask: BoundMask | None,
        want_dx: bool,
        dweight: Array | Update | None,
        dbias: Array | Update | None,
        accumulate: bool,
        sparse: bool = False,  # noqa: ARG002
    ) -> Array | None:
        """See `AbstractBackend.conv2d_backward`."""
        given = self.unpool(dy), x, weight, y, z, window, activation, input_mask, output_mask
        return conv2d.conv2d_backward(*given, want_dx, dweight, dbias, accumulate)

    def max_pool_forward(self, x: Array, window: Window) -> Array:
        """See `AbstractBackend.max_pool_forward`."""
        return pooling.max_pool_forward(x, window)

    def max_pool_backward(self, dy: Array, x: Array, window: Window) -> Array:
        """See `AbstractBackend.max_pool_backward`."""
        return pooling.max_pool_backward(dy, x, window)

    def average_pool_forward(self, x: Array, window: Window) -> Array:
        """See `AbstractBackend.average_pool_forward`."""
        return pooling.average_pool_forward(x, window)

    def average_pool_backward(self, dy: Array, window: Window) -> Array:
        """See `AbstractBackend.average_pool_backward`."""
        return pooling.average_pool_backward(dy, window)

    def activation_forward(self, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
        """See `AbstractBackend.activation_forward`."""
        return activations.activation_forward(x, activation, out)

    def activation_backward(self, dy: Array, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
        """See `AbstractBackend.activation_backward`."""
        return activations.activation_backward(dy, x, activation, out)

    def softmax_forward(self, x: Array, out: Array | None = None) -> Array:
        """See `AbstractBackend.softmax_forward`."""
        return softmax.softmax_forward(x, out)

    def softmax_backward(self, dy: Array, y: Array, out: Array | None = None) -> Array:
        """See `AbstractBackend.softmax_backward`."""
        return softmax.softmax_backward(dy, y, out)

    def softmax_cross_entropy(self, logits: Array, labels: Array, weights: Weights, normalizer: float) -> tuple[float, Array]:
        """See `AbstractBackend.softmax_cross_entropy`."""
        return losses.softmax_cross_entropy(logits, labels, weights, normalizer)

    def sigmoid_cross_entropy(self, logits: Array, labels: Array, weights: Weights, normalizer: float) -> tuple[float, Array]:
        """See `AbstractBackend.sigmoid_cross_entropy`."""
        return losses.sigmoid_cross_entropy(logits, labels, weights, normalizer)

    def categorical_cross_entropy(
        self, probabilities: Array, labels: Array, weights: Weights, normalizer: float
    ) -> tuple[float, Array]:
        """See `AbstractBackend.categorical_cross_entropy`."""
        return losses.categorical_cross_entropy(probabilities, labels, weights, normalizer)

    def mean_squared_error(self, predictions: Array, labels: Array, weights: Weights, normalizer: float) -> tuple[float, Array]:
        """See `AbstractBackend.mean_squared_error`."""
        return losses.mean_squared_error(predictions, labels, weights, normalizer)

    def update(self, update: Update, grad: Array) -> None:
        """See `AbstractBackend.update`."""
        updates.update(update, grad)

    def sum_of_squares(self, x: Array) -> float:
        """See `AbstractBackend.sum_of_squares`."""
        return updates.sum_of_squares(x)

    def limit_column_norms(self, weight: Array, max_value: float) -> None:
        """See `AbstractBackend.limit_column_norms`."""
        updates.limit_column_norms(weight, max_value)
