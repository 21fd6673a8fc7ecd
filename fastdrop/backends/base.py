"""THE SEAM: every array operation that a backend provides, with shapes, dtypes, and what it overwrites or adds to.

Conventions
-----------
- All arrays of one call have one dtype, float32 or float64 (labels: int64; sample weights: float64). Callers have validated
  everything; a backend makes its inputs contiguous if it must, allocates results, and picks kernels.
- Matrices are (rows, columns). `mask` arguments are `BoundMask`es whose rows and columns view the array in question, or None,
  which is the identity. A mask carries its own scale, so that a `BoundMask` of kind KEEP_ALL is a plain factor.
- ``out=None`` means a new C-contiguous array; otherwise `out` is overwritten and returned, and may be the input itself.
- A parameter gradient goes into an array, which is overwritten with ``accumulate=False`` and added to with ``accumulate=True``;
  or into an `Update` of the parameter, with the bits of adding it into an array of +0.0 and updating by that. None: not wanted.
- Every result is independent of the number of threads, bit for bit. Reductions use fixed chunks joined in order.
- Masks, decisions and words agree between backends bit for bit; everything else to rounding.

Where rows share a mask, its units are known before the work: `units` lists those that it keeps, `gather` makes compact matrices
of them, on which all operations work as on any others, and `scatter`, `add_parts` and `update_parts` put back what comes out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from fastdrop._device import is_device
from fastdrop._types import ActivationKind, Array, Indices, Shape
from fastdrop.backends.operands import Normals, PackedWeight, Part, Units, Unpooled, Update, as_matrix
from fastdrop.mask import BoundMask
from fastdrop.rng import Key
from fastdrop.window import Window

LEAKY_RELU_SLOPE = 0.2
"""Slope of leaky_relu for negative inputs (Keras's default for the function)."""

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
"""Fixed point (mean 0, variance 1) of Klambauer et al. 2017, equation 14."""

GRADIENT_FROM_OUTPUT = frozenset(
    {ActivationKind.LINEAR, ActivationKind.RELU, ActivationKind.LEAKY_RELU, ActivationKind.HEAVISIDE}
)
"""Activations whose derivative follows from the sign of the (masked) output: their pre-activation is not kept."""

PROBABILITY_FLOOR = 1e-7
"""Probabilities are clipped to [floor, 1 - floor] in categorical_cross_entropy (Keras's epsilon)."""


def needs_z(activation: ActivationKind) -> bool:
    """Return whether the backward pass of an activation needs the pre-activation z."""
    return activation not in GRADIENT_FROM_OUTPUT


class AbstractBackend(ABC):
    """The list of array operations. Final subclasses: `ReferenceBackend`, `CpuBackend`."""

    name: ClassVar[str]

    # Arrays: NumPy's, except where a backend has its own

    def empty(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """Return a new array, not filled."""
        return np.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """Return a new array of +0.0."""
        return np.zeros(shape, dtype)

    def copy_of(self, array: Any) -> Array:
        """Return a copy of an array, of whichever backend, here: C-contiguous."""
        return cast(Array, array.copy_to_host() if is_device(array) else np.array(array, order="C"))

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Return arrays one after the other along axis 0: new, or the single one itself."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, array: Array, rows: Indices, out: Array | None = None) -> Array:
        """Return the rows of an array with those numbers, all of them in range."""
        # With mode "clip" NumPy gathers straight into the buffer.
        return np.take(array, rows, axis=0, out=out, mode="clip")

    def same_memory(self, a: Array, b: Array) -> bool:
        """Return whether two arrays may share memory."""
        return np.may_share_memory(a, b)

    # Random words and decisions

    @abstractmethod
    def words(self, key: Key, domain: int, first: int, count: int) -> npt.NDArray[np.uint32]:
        """Return words first .. first + count - 1 of a domain: shape (count,)."""

    @abstractmethod
    def decisions(self, mask: BoundMask, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.uint64]:
        """Return the decision bits of the rectangle rows[0]:rows[1] x columns[0]:columns[1], 1 = kept.

        Shape (rows, ceil(columns / 64)); bit b of word w of a row is column 64 w + b of the rectangle; bits beyond it are 0.
        """

    # Units that shared masks keep

    @abstractmethod
    def units(self, mask: BoundMask) -> Units:
        """Return the units that a mask keeps; all rows of a group have the same decisions (`BoundMask.groups`)."""

    @abstractmethod
    def gather(self, x: Array, rows: Indices | None, columns: Indices | None, scale: float = 1.0) -> Array:
        """Return ``x[rows][:, columns] * scale``, new; x is a matrix, indices are ascending, None means all of them."""

    @abstractmethod
    def scatter(
        self, values: Array, rows: Indices | None, columns: Indices | None, out: Array, accumulate: bool, scale: float = 1.0
    ) -> None:
        """``out[rows][:, columns] (+)= values * scale``; the rest of the matrix `out` stays as it is."""

    def add_parts(self, parts: Sequence[Part], out: Array, accumulate: bool) -> None:
        """``out (+)= the sum of the parts`` in their order, from +0.0 on; out is a matrix."""
        if not accumulate:
            out.fill(0.0)
        for gradient, rows, columns in parts:
            self.scatter(gradient, rows, columns, out, accumulate=True)

    # Dropout

    @abstractmethod
    def dropout_forward(self, x: Array, mask: BoundMask, out: Array | None = None) -> Array:
        """Return ``y = keep ? x * scale : +0.0``; x is C-contiguous of any shape with mask.rows * mask.columns elements."""

    @abstractmethod
    def dropout_backward(self, dy: Array, mask: BoundMask, out: Array | None = None) -> Array:
        """Return ``dx = keep ? dy * scale : +0.0``."""

    @abstractmethod
    def affine_dropout_forward(self, x: Array, mask: BoundMask, shift: float, fill: float, out: Array | None = None) -> Array:
        """Return ``y = keep ? x * scale + shift : fill``; shift and fill are rounded to the dtype of x.

        Its backward pass is `dropout_backward`.
        """

    @abstractmethod
    def drop_block_forward(self, x: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
        """Return x (rows, height, width, channels) without square blocks, each row scaled by ``elements / kept elements``.

        `seeds` views (rows, valid_height * valid_width * channels), where ``valid = extent - block_size + 1`` is at least 1. A
        seed that it drops drops the block of `block_size` by `block_size` elements of its channel, whose first corner it is. A
        row that is dropped as a whole is +0.0.
        """

    @abstractmethod
    def drop_block_backward(self, dy: Array, seeds: BoundMask, block_size: int, out: Array | None = None) -> Array:
        """Return what `drop_block_forward` makes of dy."""

    # Noise

    @abstractmethod
    def noise_forward(self, x: Array, normals: Normals, out: Array | None = None) -> Array:
        """Return ``x * (1 + stddev * n)`` or ``x + stddev * n``, see `Normals`; any shape.

        Normals agree between backends to 4 units in the last place of ``r = sqrt(-2 ln u0)``, in float32; what is made of them,
        to rounding.
        """

    @abstractmethod
    def noise_backward(self, dy: Array, normals: Normals, out: Array | None = None) -> Array:
        """Return ``dx = dy * (1 + stddev * n)``, or a copy of dy where the noise is added."""

    # Dense: y = drop_out(act(drop_in(x) @ weight + bias))

    @abstractmethod
    def pack_weight(self, weight: Array, rows: Indices | None = None, columns: Indices | None = None) -> PackedWeight:
        """Return a copy of a weight (fan_in, fan_out) that `dense_forward` takes in its place: faster, and to the same bits.

        With `rows` and `columns`, see `gather`, it is a copy of those.
        """

    @abstractmethod
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
        """Return (y, z): x (rows, fan_in), weight (fan_in, fan_out), bias (fan_out,), y and z (rows, fan_out).

        z = drop_in(x) @ weight + bias is returned where `keep_z` and `needs_z(activation)`, else None. `out` shares no memory
        with the inputs.
        """

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
        """Return ``act(x @ weight[rows][:, columns] + bias[columns]) * scale of the mask`` for each x.

        Each has rows and columns of its own, see `gather`.
        """
        ys = []
        for x, some_rows, some_columns in zip(xs, rows, columns, strict=True):
            w = self.pack_weight(weight, some_rows, some_columns)
            b = bias if bias is None or some_columns is None else self.take(bias, some_columns)
            factor = None if mask is None else mask.factor(len(x), w.shape[1])
            ys.append(self.dense_forward(x, w, b, activation, None, factor, keep_z=False)[0])
        return tuple(ys)

    @abstractmethod
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
        """Deliver `dweight` and `dbias` and return dx where `want_dx`, else None.

        ``dz = keep ? dy * scale * act'(z) : +0.0``, ``dbias (+)= sum over rows of dz``, ``dweight (+)= drop_in(x).T @ dz``,
        ``dx = drop_in(dz @ weight.T)``, by the weight before its update. `y` and `z` are what dense_forward returned. Where the
        output mask drops everything, all gradients are zeros, whatever x and weight hold: 0 * inf would be NaN.
        """

    # Images (rows, height, width, channels); windows as in `fastdrop.window`

    def pack_filters(self, weight: Array, window: Window) -> PackedWeight:  # noqa: ARG002
        """Return a copy of a weight (*window.size, channels, filters) that `conv2d_forward` takes in its place: the same bits."""
        return PackedWeight(self.copy_of(weight), weight.shape)

    @abstractmethod
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
        """Return (y, z), both (rows, *window.places, filters); weight (*window.size, channels, filters); padding is zeros.

        ``z[r, i, j] = sum over p, q, c of drop_in(x)[r, i', j', c] * weight[p, q, c] + bias``, ``y = drop_out(act(z))``. Masks
        view matrices whose columns are channels, or filters; the input mask may also have a row for each row of x. z is returned
        where `keep_z` and `needs_z(activation)`, else None.
        """

    @abstractmethod
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
        sparse: bool = False,
    ) -> Array | None:
        """Deliver `dweight` and `dbias` and return dx where `want_dx`, else None; as `dense_backward`, for `conv2d_forward`.

        `sparse` says that most of dy is zeros, as behind max-pooling: a backend may leave them out of the products.
        """

    @abstractmethod
    def max_pool_forward(self, x: Array, window: Window) -> Array:
        """Return the largest element of each channel in each window (rows, *window.places, channels); padding is never chosen.

        NaN is larger than anything. Of equal elements the first one is chosen, of several NaN the last one.
        """

    @abstractmethod
    def max_pool_backward(self, dy: Array, x: Array, window: Window) -> Array:
        """Return dx: dy goes to the element that was chosen."""

    def unpool(self, dy: Array | Unpooled) -> Array:
        """Return a gradient that may have been left for later."""
        return self.max_pool_backward(*dy) if isinstance(dy, Unpooled) else dy

    @abstractmethod
    def average_pool_forward(self, x: Array, window: Window) -> Array:
        """Return the mean of each channel in each window, of the elements that are no padding."""

    @abstractmethod
    def average_pool_backward(self, dy: Array, window: Window) -> Array:
        """Return dx (rows, *window.image, channels)."""

    # Activations

    @abstractmethod
    def activation_forward(self, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
        """Return act(x), elementwise, any shape."""

    @abstractmethod
    def activation_backward(self, dy: Array, x: Array, activation: ActivationKind, out: Array | None = None) -> Array:
        """Return ``dy * act'(x)``; x is the input of the forward pass."""

    @abstractmethod
    def softmax_forward(self, x: Array, out: Array | None = None) -> Array:
        """Return the softmax of each row of x (rows, classes), computed after subtracting the row's maximum."""

    @abstractmethod
    def softmax_backward(self, dy: Array, y: Array, out: Array | None = None) -> Array:
        """Return ``dx = y * (dy - sum(dy * y))``, row by row; y is the output of the forward pass."""

    # Losses: each returns (sum over rows of weight * loss / normalizer, its gradient)
    # labels: int64 (rows,) class numbers, or the dtype of the first argument (rows, classes)

    @abstractmethod
    def softmax_cross_entropy(
        self, logits: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        """``l = sum_j t_j (logsumexp(logits) - logits_j)``; gradient ``(softmax * sum(t) - t) * weight / normalizer``."""

    @abstractmethod
    def sigmoid_cross_entropy(
        self, logits: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        """``l = sum_j max(z_j, 0) - z_j t_j + log1p(exp(-|z_j|))``; gradient ``(sigmoid(z) - t) * weight / normalizer``.

        With one column, integer labels 0 and 1 are the targets themselves.
        """

    @abstractmethod
    def categorical_cross_entropy(
        self, probabilities: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        """``l = -sum_j t_j log(clip(q_j))`` with rows normalised, ``q = p / sum(p)``, clipped to [1e-7, 1 - 1e-7].

        Gradient through both steps; zero where q is clipped.
        """

    @abstractmethod
    def mean_squared_error(
        self, predictions: Array, labels: Array, weights: npt.NDArray[np.float64] | None, normalizer: float
    ) -> tuple[float, Array]:
        """``l = mean_j (p_j - t_j)**2``; gradient ``2 (p - t) / columns * weight / normalizer``. Labels are (rows, columns)."""

    def hits(self, outputs: Array, labels: Array, threshold: float) -> Array:
        """Return for each row of outputs (rows, columns) whether its largest element is where the label says: bool (rows,).

        Labels as for losses, of (rows, columns) the largest element. With one column: whether (output > threshold) is the label.
        """
        if outputs.shape[1] == 1:
            return np.asarray((outputs[:, 0] > threshold) == labels)
        return np.asarray(outputs.argmax(axis=1) == (labels.argmax(axis=1) if labels.ndim == 2 else labels))

    def sum_of(self, values: Array) -> float:
        """Return the sum of all elements, added up in binary64."""
        return float(values.sum(dtype=np.float64))

    # Updates of parameters, in place

    @abstractmethod
    def update(self, update: Update, grad: Array) -> None:
        """Do what `update` says, by the gradient `grad`, which has the shape and dtype of the value."""

    def update_parts(self, update: Update, parts: Sequence[Part]) -> None:
        """Do what `update` says, by the sum of the parts, see `add_parts`."""
        total = self.empty(update.value.shape, update.value.dtype)
        self.add_parts(parts, as_matrix(total), accumulate=False)
        self.update(update, total)

    def update_later(self, update: Update, grad: Array) -> None:
        """Do `update`, at the latest in the next `finish_updates` of this thread; nobody changes its arrays before that."""
        self.update(update, grad)

    def finish_updates(self, *, forget: bool = False) -> None:  # noqa: B027  (nothing is ever left to do)
        """Do, or forget, the updates that this thread has left for later."""

    @abstractmethod
    def sum_of_squares(self, x: Array) -> float:
        """Return the sum of squares of all elements, added up in binary64."""

    @abstractmethod
    def limit_column_norms(self, weight: Array, max_value: float) -> None:
        """Scale down, in place, every column of weight (fan_in, fan_out) whose Euclidean norm exceeds `max_value`.

        ``w *= max / (1e-7 + norm)`` for such a column, as Keras's MaxNorm over axis 0; the others stay exactly as they are.
        """
