"""Losses: ``sum(w * l) / normalizer`` over the rows of a batch, and its gradient.

Notation: z logits, p probabilities or predictions, t targets, c columns (the last axis), w sample weights. The rows are the
product of the leading axes; the default normalizer is their number.

- softmax_cross_entropy: ``l = sum_j t_j (logsumexp(z) - z_j)``
- sigmoid_cross_entropy: ``l = sum_j max(z_j, 0) - z_j t_j + log(1 + exp(-|z_j|))``
- categorical_cross_entropy: ``l = -sum_j t_j log(clip(p_j / sum(p), 1e-7, 1 - 1e-7))``
- mean_squared_error: ``l = mean_j (p_j - t_j)**2``
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from fastdrop import _validate, arrays
from fastdrop._types import Array, Shape
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend_of, in_kind, received

LossFunction: TypeAlias = Callable[..., tuple[float, Array]]
Weights: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss whose arguments are checked once, for many batches of them.

    Attributes
    ----------
    name : str
    output_kind : str or None
        What the network's outputs are under this loss: "logits", "sigmoid_logits", "probabilities" or "values"; None: unknown.
    check : callable
        ``check(name, labels, outputs_shape, dtype)`` returns the labels as `compute` takes them, or raises under that name; axis
        0 are still the rows.
    compute : callable
        ``compute(outputs, labels, weights, normalizer)`` returns (loss, gradient); labels and weights as checked.
    """

    name: str
    output_kind: str | None
    check: Callable[[str, Any, Shape, np.dtype[Any]], Array]
    compute: Callable[[Array, Array, Weights | None, float | None], tuple[float, Array]]


def softmax_cross_entropy(
    logits: Any, labels: Any, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    """Compute the cross entropy between the labels and the softmax of the logits.

    Parameters
    ----------
    logits : array, shape (..., classes), float32 or float64
        Network outputs before the softmax.
    labels : array, shape (...) of integers in [0, classes), or shape (..., classes)
        Class numbers, or targets >= 0 (one-hot, or soft as `smooth` makes them).
    sample_weight : array, shape (rows,) or the leading axes of `logits`, optional
        Finite weights of the rows.
    normalizer : float > 0, optional
        What the weighted sum is divided by. Default: the number of rows. For micro-batches: that of the whole batch.

    Returns
    -------
    loss : float
    gradient : array of the shape and dtype of `logits`
        ``(softmax(logits) * sum(t) - t) * w / normalizer``.

    Raises
    ------
    TypeError: `logits` is no float array, labels are neither class numbers nor targets. ValueError: shapes do not fit, labels
    are out of range, weights are not finite.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> loss, gradient = fd.losses.softmax_cross_entropy(np.zeros((1, 2)), [1])
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[0.5, -0.5]])
    """
    return _apply(_SOFTMAX, "logits", logits, labels, sample_weight, normalizer)


def sigmoid_cross_entropy(
    logits: Any, labels: Any, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    """Compute the binary cross entropy between the labels and the sigmoid of the logits, summed over the last axis.

    Parameters
    ----------
    logits : array, shape (..., columns), float32 or float64
        Network outputs before the sigmoid.
    labels : array, shape (..., columns) with values in [0, 1], or shape (...)
        Targets of each column; or class numbers in [0, columns). With one column, shape (...) holds the targets themselves.
    sample_weight, normalizer
        As in `softmax_cross_entropy`.

    Returns
    -------
    loss : float
    gradient : array of the shape and dtype of `logits`
        ``(sigmoid(logits) - t) * w / normalizer``.

    Raises
    ------
    TypeError, ValueError: as in `softmax_cross_entropy`.
    """
    return _apply(_SIGMOID, "logits", logits, labels, sample_weight, normalizer)


def categorical_cross_entropy(
    probabilities: Any, labels: Any, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    """Compute the cross entropy between the labels and probabilities, whose rows are normalised first.

    Parameters
    ----------
    probabilities : array, shape (..., classes), float32 or float64
        Network outputs after a softmax.
    labels, sample_weight, normalizer
        As in `softmax_cross_entropy`.

    Returns
    -------
    loss : float
    gradient : array of the shape and dtype of `probabilities`
        Through the normalisation; zero where a probability is clipped to [1e-7, 1 - 1e-7].

    Raises
    ------
    TypeError, ValueError: as in `softmax_cross_entropy`.
    """
    return _apply(_CATEGORICAL, "probabilities", probabilities, labels, sample_weight, normalizer)


def mean_squared_error(
    predictions: Any, labels: Any, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    """Compute the squared error, averaged over the last axis.

    Parameters
    ----------
    predictions : array, shape (..., columns), float32 or float64
    labels : array of the shape of `predictions`; with one column also without the last axis
        Finite numbers.
    sample_weight, normalizer
        As in `softmax_cross_entropy`.

    Returns
    -------
    loss : float
    gradient : array of the shape and dtype of `predictions`
        ``2 (p - t) / columns * w / normalizer``.

    Raises
    ------
    TypeError, ValueError: as in `softmax_cross_entropy`.
    """
    return _apply(_SQUARED, "predictions", predictions, labels, sample_weight, normalizer)


def smooth(labels: Any, amount: float, classes: int) -> Array:
    """Return targets mixed with the uniform distribution: ``t * (1 - amount) + amount / classes``.

    Parameters
    ----------
    labels : array of integers in [0, classes), or of two or more axes, the last of extent `classes`
        Class numbers, or targets in [0, 1].
    amount : float in [0, 1]
    classes : int >= 1

    Returns
    -------
    targets : array, shape (..., classes), float64
        What the losses take as labels.

    Raises
    ------
    TypeError, ValueError: arguments of the wrong kind or out of range.

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture", section 7.

    Examples
    --------
    >>> smooth([1], 0.1, 2).tolist()
    [[0.05, 0.9500000000000001]]
    """
    amount = _validate.rate("amount", amount)
    classes = _validate.integer("classes", classes, 1)
    array = _validate.to_array("labels", labels)
    if array.ndim >= 2 and array.shape[-1] == classes:
        targets = _targets("labels", array, array.shape, np.dtype(np.float64), 1.0)
    else:
        leading = array.shape[:-1] if array.ndim >= 2 and array.shape[-1] == 1 else array.shape
        targets = np.eye(classes)[_class_numbers("labels", array, leading, classes)]
    return targets * (1.0 - amount) + amount / classes


def get(loss: str | LossFunction) -> Loss:
    """Return a loss given by name, as a function of this module, or as any function of that signature."""
    if callable(loss):
        name = getattr(loss, "__name__", type(loss).__name__)
        return LOSSES[name] if FUNCTIONS.get(name) is loss else _custom(name, loss)
    return LOSSES[_validate.choice("loss", loss, LOSSES)]


def for_output_kind(output_kind: str | None) -> Loss:
    """Return the loss that fits outputs of a kind; softmax_cross_entropy where the kind is not known."""
    return next((loss for loss in LOSSES.values() if loss.output_kind == output_kind), _SOFTMAX)


def check_weights(sample_weight: Any, leading: Shape) -> Weights | None:
    """Return sample weights, given for axis 0 or for all leading axes of the outputs, as float64 of the shape of those axes."""
    if sample_weight is None:
        return None
    weights = received(sample_weight, "sample_weight")
    if arrays.is_device(weights):
        _validate.exact_shape("sample_weight", weights, leading)
        return cast(Weights, weights.astype(np.float64))
    weights = _validate.numbers_array("sample_weight", weights)
    if weights.shape == leading[:1] and len(leading) > 1:
        weights = weights.reshape(-1, *(1,) * (len(leading) - 1))
    elif weights.shape != leading:
        _validate.fail_value("sample_weight", f"of shape {leading}", weights.shape)
    _validate.all_true("sample_weight", np.isfinite(weights), "finite", weights)
    return np.require(np.broadcast_to(weights, leading), np.float64, "C")


def _apply(loss: Loss, name: str, outputs: Any, labels: Any, sample_weight: Any, normalizer: float | None) -> tuple[float, Array]:
    given, outputs = outputs, arrays.float_array(name, outputs)
    if outputs.shape[-1] == 0:
        _validate.fail_value(name, "of at least one column", f"shape {outputs.shape}")
    checked = loss.check("labels", labels, outputs.shape, outputs.dtype)
    weights = check_weights(sample_weight, outputs.shape[:-1])
    if normalizer is not None:
        normalizer = _validate.real("normalizer", normalizer, 0.0, open_low=True)
    value, gradient = loss.compute(contiguous(outputs), checked, weights, normalizer)
    return in_kind(value, given), in_kind(gradient, given)


def _class_numbers(name: str, labels: Array, leading: Shape, classes: int) -> npt.NDArray[np.int64]:
    """Return labels as class numbers in [0, classes) of shape `leading`."""
    if labels.dtype.kind not in "iub":
        hint = '(hint: labels.astype("int64"))' if labels.dtype.kind == "f" else ""
        _validate.fail_type(name, f"class numbers (integers) or targets of {classes} columns", labels.dtype, hint)
    if arrays.is_device(labels):  # not looked at: that would have to wait for them
        return labels.reshape(leading)
    numbers = contiguous(labels, np.dtype(np.int64)).reshape(leading)
    if numbers.size and numbers.view(np.uint64).max() >= classes:  # negative ones are the largest then
        _validate.all_true(name, (labels >= 0) & (labels < classes), f"class numbers in [0, {classes - 1}]", labels)
    return numbers


def _targets(name: str, labels: Array, shape: Shape, dtype: np.dtype[Any], high: float) -> Array:
    """Return labels as targets in [0, high], of `shape`."""
    if arrays.is_device(labels):
        return contiguous(labels, dtype).reshape(shape)
    targets = _validate.numbers_array(name, labels)
    inside = (targets >= 0) & (targets <= high) & np.isfinite(targets)
    _validate.all_true(name, inside, "finite targets >= 0" if math.isinf(high) else f"targets in [0, {high:g}]", targets)
    return np.require(targets.reshape(shape), dtype, "C")


def _fail_shape(name: str, labels: Array, shape: Shape) -> None:
    wanted = f"of shape {shape[:-1]} (class numbers) or {shape} (targets)"
    _validate.fail_value(name, wanted, f"shape {labels.shape}")


def _check_categorical(name: str, labels: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    array = arrays.to_array(name, labels)
    if array.shape == shape:
        return _targets(name, array, shape, dtype, math.inf)
    if array.shape not in (shape[:-1], (*shape[:-1], 1)):
        _fail_shape(name, array, shape)
    return _class_numbers(name, array, shape[:-1], shape[-1])


def _check_sigmoid(name: str, labels: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    array = arrays.to_array(name, labels)
    if array.shape == shape or (array.shape == shape[:-1] and shape[-1] == 1):
        return _targets(name, array, shape, dtype, 1.0)
    if array.shape not in (shape[:-1], (*shape[:-1], 1)):
        _fail_shape(name, array, shape)
    return _class_numbers(name, array, shape[:-1], shape[-1])


def _check_values(name: str, labels: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    values = arrays.to_array(name, labels)
    values = values if arrays.is_device(values) else _validate.numbers_array(name, values)
    if values.shape != shape and not (values.shape == shape[:-1] and shape[-1] == 1):
        _validate.fail_value(name, f"of shape {shape}", values.shape)
    if not arrays.is_device(values):
        _validate.all_true(name, np.isfinite(values), "finite", values)
    return contiguous(values.reshape(shape), dtype)


def _check_custom(name: str, labels: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:  # noqa: ARG001 (the signature of a check)
    return arrays.to_array(name, labels)


def _computed_by(operation: str) -> Callable[[Array, Array, Weights | None, float | None], tuple[float, Array]]:
    """Return a function that runs a backend's loss on the rows of arrays of any number of axes."""

    def compute(outputs: Array, labels: Array, weights: Weights | None, normalizer: float | None) -> tuple[float, Array]:
        shape, columns = outputs.shape, outputs.shape[-1]
        rows = math.prod(shape[:-1])
        if outputs.ndim != 2:
            labels = labels.reshape((rows,) if labels.ndim < outputs.ndim else (rows, columns))
            outputs, weights = outputs.reshape(rows, columns), None if weights is None else weights.reshape(rows)
        run = getattr(backend_of(outputs), operation)
        value, gradient = run(outputs, labels, weights, float(max(rows, 1)) if normalizer is None else normalizer)
        return value, gradient.reshape(shape)

    return compute


def _custom(name: str, function: LossFunction) -> Loss:
    def compute(outputs: Array, labels: Array, weights: Weights | None, normalizer: float | None) -> tuple[float, Array]:
        value, gradient = function(outputs, labels, sample_weight=weights, normalizer=normalizer)
        gradient = arrays.float_array("loss gradient", gradient)
        _validate.exact_shape("loss gradient", gradient, outputs.shape)
        return float(value), gradient

    return Loss(name, None, _check_custom, compute)


_SOFTMAX: Final = Loss("softmax_cross_entropy", "logits", _check_categorical, _computed_by("softmax_cross_entropy"))
_SIGMOID: Final = Loss("sigmoid_cross_entropy", "sigmoid_logits", _check_sigmoid, _computed_by("sigmoid_cross_entropy"))
_CATEGORICAL: Final = Loss(
    "categorical_cross_entropy", "probabilities", _check_categorical, _computed_by("categorical_cross_entropy")
)
_SQUARED: Final = Loss("mean_squared_error", "values", _check_values, _computed_by("mean_squared_error"))

LOSSES: Final[dict[str, Loss]] = {loss.name: loss for loss in (_SOFTMAX, _SIGMOID, _CATEGORICAL, _SQUARED)}

FUNCTIONS: Final[dict[str, LossFunction]] = {
    function.__name__: function
    for function in (softmax_cross_entropy, sigmoid_cross_entropy, categorical_cross_entropy, mean_squared_error)
}
