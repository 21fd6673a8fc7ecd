"""Functional operations on arrays: each returns ``(y, backward)``.

The callback holds references to what the backward pass needs; neither the inputs nor the result may be written to before it
has been called. Any number of forwards may be outstanding, their backwards called in any order and from any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fastdrop import _validate, activations, arrays, convolved, fused
from fastdrop._types import ActivationKind, Array, Backward
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend_of, in_kind, received
from fastdrop.fused import Kept
from fastdrop.mask import BoundMask, Mask
from fastdrop.window import PADDINGS, pair, window_of

Gradients: TypeAlias = tuple[Array | None, Array, Array | None]
"""(dx, dweight, dbias)."""


def dropout(x: Any, mask: Mask, *, out: Array | None = None) -> tuple[Array, Callable[..., Array]]:
    """Drop elements of x: ``y = keep ? x * scale : +0.0``.

    Parameters
    ----------
    x : array, any shape of at least one axis, float32 or float64
        Any memory layout; axis 0 are the rows that the mask counts.
    mask : Mask
        Its `scale` is ``1 / keep_prob``, so that the expectation of y is x.
    out : array, optional
        Receives y: C-contiguous, of the shape and dtype of x. It may be x itself.

    Returns
    -------
    y : array of the shape and dtype of x, C-ordered
        A new array, or `out`.
    backward : callable
        ``dx = backward(dy, *, out=None)`` regenerates the mask; `out` may be dy itself.

    Raises
    ------
    TypeError: x is no float32 or float64 array, `mask` is no Mask. ValueError: shapes do not fit, `out` overlaps x.

    Notes
    -----
    A dropped element is +0.0 by selection: NaN and inf vanish there. Rate 0 is the exact identity, rate 1 gives zeros.

    Source: Srivastava et al. 2014, section 4 (inverted form).

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> y, backward = fd.dropout(np.ones((1, 4), "float32"), fd.Mask(0.5, fd.Key(0, 0, 0)))
    >>> y
    array([[2., 2., 0., 0.]], dtype=float32)
    >>> backward(y)
    array([[4., 4., 0., 0.]], dtype=float32)
    """
    given, x = x, arrays.float_array("x", x)
    _validate.instance("mask", mask, Mask, "a fastdrop.Mask")
    target = received(out, "out", to_write=True)
    if out is not None:
        _check_out(target, x.shape, x.dtype, "x", x)
    bound = mask.bind(x.shape)
    backend = backend_of(x)
    y = backend.dropout_forward(contiguous(x), bound, target)
    shape, dtype, on_device = x.shape, x.dtype, arrays.is_device(x)

    def backward(dy: Any, *, out: Array | None = None) -> Array:
        theirs, dy = dy, _gradient(dy, shape, dtype, on_device)
        target = received(out, "out", to_write=True)
        if out is not None:
            _check_out(target, shape, dtype, "dy", dy)
        dx = backend.dropout_backward(contiguous(dy), bound, target)
        return in_kind(dx, theirs) if out is None else out

    return in_kind(y, given) if out is None else out, backward


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], source_name: str, source: Array) -> None:
    """Raise unless `out` may receive a result; on a GPU, whether memory overlaps is not looked at."""
    if not arrays.is_device(source):
        _validate.out_array("out", out, shape, dtype, source_name, source)
        return
    arrays.same_place("out", out, source_name, True)
    _validate.same_dtype("out", out, dtype, source_name)
    _validate.exact_shape("out", out, shape)


def _gradient(dy: Any, shape: tuple[int, ...], dtype: np.dtype[Any], on_device: bool) -> Array:
    gradient = arrays.float_array("dy", dy)
    arrays.same_place("dy", gradient, "y", on_device)
    _validate.same_dtype("dy", gradient, dtype, "y")
    _validate.exact_shape("dy", gradient, shape)
    return gradient


def dense(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | Callable[..., Array] | None = None,
    input_mask: Mask | None = None,
    output_mask: Mask | None = None,
    out: Array | None = None,
) -> tuple[Array, Backward]:
    """Compute a fused dense layer: ``y = drop_out(activation(drop_in(x) @ weight + bias))``.

    Parameters
    ----------
    x : array, shape (..., fan_in), float32 or float64
        Two or more axes; axis 0 are the rows that masks count.
    weight : array, shape (fan_in, fan_out), dtype of x
    bias : array, shape (fan_out,), dtype of x, optional
    activation : None, a name or a function of `fastdrop.activations`
    input_mask, output_mask : Mask, optional
        Dropout on x and on the activated result.
    out : array, optional
        Receives y: C-contiguous, of y's shape and dtype. It may be x itself, which is copied first.

    Returns
    -------
    y : array, shape (..., fan_out), dtype of x, C-ordered
    backward : callable
        ``dx, dweight, dbias = backward(dy, input_gradient=True)``: new arrays; dx is None with ``input_gradient=False``,
        dbias is None without a bias.

    Raises
    ------
    TypeError: dtypes other than float32 and float64, or mixed. ValueError: shapes that do not fit, `out` that overlaps.

    Notes
    -----
    The sum over fan_in runs in one fixed order: results do not depend on threads, on memory layout or on how a batch is cut (the
    last to rounding, where many rows share a mask and what it drops is left out).
    Zeros of x, where there are many, are left out of it: with weights that are not finite, they may or may not give NaN.
    ``activation="softmax"`` is done in separate passes.

    Source: Srivastava et al. 2014, section 4: ``y~ = r * y``, ``z = W y~ + b``, ``y = f(z)``.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> y, backward = fd.dense(np.ones((1, 2), "float32"), np.eye(2, dtype="float32"), activation="relu")
    >>> y
    array([[1., 1.]], dtype=float32)
    """
    given, x = x, arrays.float_array("x", x, min_ndim=2)
    weight = _weight(weight, 2, x)
    fan_in, fan_out = weight.shape
    if x.shape[-1] != fan_in:
        _validate.fail_value("x", f"of shape (..., {fan_in}) to fit `weight` {weight.shape}", x.shape)
    bias = _bias(bias, fan_out, x)
    act = activations.get(activation)
    _check_masks(input_mask, output_mask)
    y_shape = (*x.shape[:-1], fan_out)
    backend, target = backend_of(x), received(out, "out", to_write=True)
    if out is not None:
        _check_out(target, y_shape, x.dtype, "x", x)
        if not arrays.is_device(x):
            _validate.disjoint("out", out, "weight", weight)
            if bias is not None:
                _validate.disjoint("out", out, "bias", bias)
        if arrays.is_device(x) or backend.same_memory(target, x):
            x = backend.copy_of(x)
    bound_in = None if input_mask is None else input_mask.bind(x.shape, as_matrix=True)
    bound_out = None if output_mask is None else output_mask.bind(y_shape, as_matrix=act != activations.SOFTMAX)
    weight = contiguous(weight)
    if act == activations.SOFTMAX:
        y, softmax_backward = _dense_softmax(x, weight, bias, bound_in, bound_out, y_shape, target)
        return in_kind(y, given) if out is None else out, softmax_backward
    rows = math.prod(x.shape[:-1])
    x2 = contiguous(x).reshape(rows, fan_in)
    out2 = None if target is None else target.reshape(rows, fan_out)
    y2, inner = fused.dense(backend, x2, weight, bias, act, bound_in, bound_out, True, out2)
    units = y2.units if isinstance(y2, Kept) else None
    y = (fused.expand(backend, y2) if isinstance(y2, Kept) else y2).reshape(y_shape)
    if target is not None and y2 is not out2:
        target[:] = y
    x_shape, dtype, on_device = x.shape, x2.dtype, arrays.is_device(x)

    def backward(dy: Any, input_gradient: bool = True) -> Gradients:
        theirs, dy = dy, contiguous(_gradient(dy, y_shape, dtype, on_device)).reshape(rows, fan_out)
        dy = dy if units is None else fused.compact(backend, dy, units)
        dweight, dbias = _empty_like(weight), _empty_like(bias)
        dx = inner(dy, input_gradient, dweight, dbias, False)
        return _each_in_kind(None if dx is None else dx.reshape(x_shape), dweight, dbias, theirs)

    return in_kind(y, given) if out is None else out, backward


def _empty_like(array: Array | None) -> Any:
    return None if array is None else backend_of(array).empty(array.shape, array.dtype)


def _each_in_kind(dx: Any, dweight: Any, dbias: Any, like: Any) -> Gradients:
    return in_kind(dx, like), in_kind(dweight, like), in_kind(dbias, like)


def _weight(weight: Any, ndim: int, x: Array) -> Array:
    weight = arrays.float_array("weight", weight, ndim=ndim)
    arrays.same_place("weight", weight, "x", arrays.is_device(x))
    _validate.same_dtype("weight", weight, x.dtype, "x")
    return weight  # type: ignore[no-any-return]


def _bias(bias: Any, fan_out: int, x: Array) -> Array | None:
    if bias is None:
        return None
    bias = arrays.float_array("bias", bias, ndim=1)
    arrays.same_place("bias", bias, "x", arrays.is_device(x))
    _validate.same_dtype("bias", bias, x.dtype, "x")
    _validate.exact_shape("bias", bias, (fan_out,))
    return contiguous(bias)


def _check_masks(input_mask: Any, output_mask: Any) -> None:
    for name, mask in (("input_mask", input_mask), ("output_mask", output_mask)):
        if mask is not None:
            _validate.instance(name, mask, Mask, "a fastdrop.Mask or None")


def _dense_softmax(
    x: Array,
    weight: Array,
    bias: Array | None,
    bound_in: BoundMask | None,
    bound_out: BoundMask | None,
    y_shape: tuple[int, ...],
    out: Array | None,
) -> tuple[Array, Backward]:
    """Dense, softmax and dropout in separate passes."""
    backend = backend_of(x)
    fan_in = weight.shape[0]
    x2 = contiguous(x).reshape(math.prod(x.shape[:-1]), fan_in)
    z, inner = fused.dense(backend, x2, weight, bias, ActivationKind.LINEAR, bound_in, None, True)
    assert not isinstance(z, Kept)
    y, softmax_backward = _softmax(z.reshape(y_shape), bound_out)
    if out is not None:
        out[:] = y

    def backward(dy: Any, input_gradient: bool = True) -> Gradients:
        dz = softmax_backward(contiguous(_gradient(dy, y_shape, x.dtype, arrays.is_device(x)))).reshape(z.shape)
        dweight, dbias = _empty_like(weight), _empty_like(bias)
        dx = inner(dz, input_gradient, dweight, dbias, False)
        return _each_in_kind(None if dx is None else dx.reshape(x.shape), dweight, dbias, dy)

    return y, backward


def _softmax(z: Array, mask: BoundMask | None) -> tuple[Array, Callable[[Array], Array]]:
    """Return softmax over the last axis of z, dropped out, and the function of its gradient that returns that of z."""
    backend, matrix = backend_of(z), (math.prod(z.shape[:-1]), z.shape[-1])
    p = backend.softmax_forward(z.reshape(matrix)).reshape(z.shape)
    y = p if mask is None else backend.dropout_forward(p, mask)

    def backward(dy: Array) -> Array:
        dp = dy if mask is None else backend.dropout_backward(dy, mask)
        return backend.softmax_backward(dp.reshape(matrix), p.reshape(matrix)).reshape(z.shape)

    return y, backward


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    strides: int | tuple[int, int] = 1,
    padding: str = "valid",
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    activation: str | Callable[..., Array] | None = None,
    input_mask: Mask | None = None,
    output_mask: Mask | None = None,
) -> tuple[Array, Backward]:
    """Compute a fused convolution layer: ``y = drop_out(activation(conv(drop_in(x), weight) + bias))``.

    Parameters
    ----------
    x : array, shape (rows, height, width, channels), float32 or float64
    weight : array, shape (kernel_height, kernel_width, channels / groups, filters), dtype of x
    bias : array, shape (filters,), dtype of x, optional
    strides, dilation : int or (int, int), at least 1
        Distance of the places of the kernel, and of its elements, along height and width.
    padding : "valid" or "same"
        None; or zeros, so that height and width of y are ``ceil(extent / stride)``, the odd row and column at the end, as
        TensorFlow does it.
    groups : int >= 1
        Channels and filters are cut into so many groups, each convolved with its own.
    activation : None, a name or a function of `fastdrop.activations`
    input_mask, output_mask : Mask, optional
        Dropout on x and on the activated result.

    Returns
    -------
    y : array, shape (rows, new height, new width, filters), dtype of x
    backward : callable
        ``dx, dweight, dbias = backward(dy, input_gradient=True)``: new arrays; dx is None with ``input_gradient=False``,
        dbias is None without a bias.

    Raises
    ------
    TypeError: dtypes other than float32 and float64, or mixed. ValueError: shapes that do not fit, a kernel larger than x.

    Notes
    -----
    ``z[r, i, j] = sum over p, q, c of x[r, i * stride + p * dilation - before, j * stride + q * dilation - before, c] *
    weight[p, q, c] + bias``: the kernel is not turned around. It is computed as a product with the patches of x, which are made
    a cache's worth at a time; results do not depend on threads, nor (to rounding, where many rows share a mask and what it drops
    is left out) on how a batch is cut. On a CPU, 3 x 3 kernels of many channels
    and filters are done by Winograd's minimal filtering (Lavin and Gray 2016), of which a sum with inf may be NaN.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> y, backward = fd.conv2d(np.ones((1, 3, 3, 1), "float32"), np.ones((2, 2, 1, 1), "float32"))
    >>> y[0, :, :, 0]
    array([[4., 4.],
           [4., 4.]], dtype=float32)
    """
    given, x = x, arrays.float_array("x", x, ndim=4)
    weight = _weight(weight, 4, x)
    groups = _validate.integer("groups", groups, 1)
    channels, filters = x.shape[3], weight.shape[3]
    if channels != weight.shape[2] * groups or channels == 0:
        wanted = f"of {weight.shape[2] * groups} channels to fit `weight` {weight.shape} with {groups} groups"
        _validate.fail_value("x", wanted, x.shape)
    if filters % groups or math.prod(weight.shape) == 0:
        _validate.fail_value("weight", f"not empty, with filters that are a multiple of the {groups} groups", weight.shape)
    bias = _bias(bias, filters, x)
    act = activations.get(activation)
    _check_masks(input_mask, output_mask)
    size = weight.shape[0], weight.shape[1]
    steps, apart = pair("strides", strides), pair("dilation", dilation)
    window = window_of((x.shape[1], x.shape[2]), size, steps, apart, _validate.choice("padding", padding, PADDINGS), "`weight`")
    y_shape = (len(x), *window.places, filters)
    x, weight, backend = contiguous(x), contiguous(weight), backend_of(x)
    bound_in = (
        None if input_mask is None else input_mask.bind(convolved.input_shape(x.shape, input_mask.noise_shape), as_matrix=True)
    )
    bound_out = None if output_mask is None else output_mask.bind(y_shape, as_matrix=act != activations.SOFTMAX)
    softmax = act == activations.SOFTMAX
    kind, fused_out = (ActivationKind.LINEAR, None) if act == activations.SOFTMAX else (act, bound_out)
    y, inner = convolved.conv2d(backend, x, weight, bias, window, groups, kind, bound_in, fused_out, True)
    if softmax:
        y, softmax_backward = _softmax(y, bound_out)

    def backward(dy: Any, input_gradient: bool = True) -> Gradients:
        dz = contiguous(_gradient(dy, y_shape, x.dtype, arrays.is_device(x)))
        dz = softmax_backward(dz) if softmax else dz
        dweight, dbias = _empty_like(weight), _empty_like(bias)
        return _each_in_kind(inner(dz, input_gradient, dweight, dbias, False), dweight, dbias, dy)

    return in_kind(y, given), backward
