"""`Conv2D`: a convolution of images, alone or fused with its neighbours into one step.

Formulas: ``y = drop_out(act(conv(drop_in(x), weight) + bias))``; backward as in `fastdrop.backends.base`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from fastdrop import _validate, activations, convolved
from fastdrop._configurable import Config
from fastdrop._types import ActivationKind, Array, Shape
from fastdrop.backends.operands import PackedWeight
from fastdrop.backends.select import backend_of
from fastdrop.constraints import AbstractConstraint
from fastdrop.convolved import ConvBackward
from fastdrop.init import AbstractInitializer
from fastdrop.layers.activation import Activation
from fastdrop.layers.dropout import Dropout
from fastdrop.layers.passes import InnerBackward, Pass, Step, Updates
from fastdrop.layers.weighted import AbstractWeighted, gradient_target, no_backward
from fastdrop.mask import BoundMask
from fastdrop.regularizers import L1L2
from fastdrop.window import PADDINGS, Pair, Window, pair, window_of

AXES = "height, width, channels"


class Conv2D(AbstractWeighted):
    """Compute ``y = activation(conv(x, weight) + bias)`` of images x (rows, height, width, channels).

    Parameters
    ----------
    filters : int >= 1
        Extent of y's last axis.
    kernel_size : int or (int, int)
        Height and width of the kernel.
    strides, dilation_rate : int or (int, int), at least 1
        Distance of the kernel's places, and of its elements.
    padding : "valid" or "same"
        None; or zeros, so that height and width of y are ``ceil(extent / stride)``.
    groups : int >= 1
        Channels and filters are cut into so many groups, each convolved with its own.
    activation : None, a name or a function of `fastdrop.activations`
    use_bias, weight_initializer, ..., bias_constraint
        As in `Dense`.
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional

    Attributes
    ----------
    weight : Parameter, shape (*kernel_size, channels / groups, filters); bias : Parameter, shape (filters,)
        None before the layer is built, and for a bias that is not used.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range; at the first call, x that does not fit.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> layer = fd.Conv2D(4, 3, padding="same", weight_initializer="ones")
    >>> layer(np.ones((1, 2, 2, 1), "float32"))[0, :, :, 0]
    array([[4., 4.],
           [4., 4.]], dtype=float32)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "valid",
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
        activation: str | Callable[..., Array] | None = None,
        use_bias: bool = True,
        weight_initializer: str | AbstractInitializer | Config = "glorot_uniform",
        bias_initializer: str | AbstractInitializer | Config = "zeros",
        weight_regularizer: str | L1L2 | Config | None = None,
        bias_regularizer: str | L1L2 | Config | None = None,
        weight_constraint: str | AbstractConstraint | Config | None = None,
        bias_constraint: str | AbstractConstraint | Config | None = None,
        *,
        input_shape: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            activation,
            use_bias,
            weight_initializer,
            bias_initializer,
            weight_regularizer,
            bias_regularizer,
            weight_constraint,
            bias_constraint,
            input_shape=input_shape,
            name=name,
        )
        self.filters = _validate.integer("filters", filters, 1)
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = _validate.choice("padding", padding, PADDINGS)
        self.dilation_rate = pair("dilation_rate", dilation_rate)
        self.groups = _validate.integer("groups", groups, 1)
        if self.filters % self.groups:
            _validate.fail_value("groups", f"a divisor of the {self.filters} filters", self.groups)

    def window(self, image: Pair) -> Window:
        """Return the kernel's window on images of that height and width."""
        return window_of(image, self.kernel_size, self.strides, self.dilation_rate, self.padding, f"layer {self.name!r}")

    def _output_shape(self, input_shape: Shape) -> Shape:
        _validate.row_axes(self.name, AXES, input_shape)
        channels = input_shape[2]
        if self.weight is not None and channels != self.weight.shape[2] * self.groups:
            wanted = self.weight.shape[2] * self.groups
            _validate.fail_value("x", f"of {wanted} channels for layer {self.name!r}", input_shape)
        if channels == 0 or channels % self.groups:
            wanted_text = f"of channels that are a multiple of {self.groups}, at least one each, for layer {self.name!r}"
            _validate.fail_value("x", wanted_text, input_shape)
        return (*self.window((input_shape[0], input_shape[1])).places, self.filters)

    def _weight_shape(self, input_shape: Shape) -> Shape:
        return (*self.kernel_size, input_shape[2] // self.groups, self.filters)

    def steps(
        self,
        activation: Activation | None = None,
        input_dropout: Dropout | None = None,
        output_dropout: Dropout | None = None,
    ) -> tuple[Step, ...]:
        """Return the steps of the layer and its neighbours: one, and a second one for softmax."""
        name = self.activation if activation is None else activation.activation
        if name == activations.SOFTMAX:
            return FusedConv2D(self, ActivationKind.LINEAR, input_dropout), Activation(activations.SOFTMAX)
        return (FusedConv2D(self, ActivationKind[name.upper()], input_dropout, output_dropout),)


@dataclass(frozen=True, slots=True)
class FusedConv2D:
    """Dropout, Conv2D, activation and dropout in one operation; softmax is none of these activations.

    Where it is `pooled`, max-pooling follows at once, so that most of the gradient of y is zeros; it may come as `Unpooled`.
    """

    conv: Conv2D
    activation: ActivationKind
    input_dropout: Dropout | None = None
    output_dropout: Dropout | None = None
    pooled: bool = False

    @property
    def trainable(self) -> bool:
        """Whether a gradient of weight or bias is wanted."""
        return self.conv.trainable

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward)."""
        weight, bias = self.conv.weight, self.conv.bias
        assert weight is not None
        y, inner = self.convolve(x, weight.value, None if bias is None else bias.value, pass_)

        def backward(dy: Any, want_dx: bool, updates: Updates) -> Array | None:
            dbias = None if bias is None else gradient_target(bias, updates)
            return inner(dy, want_dx, gradient_target(weight, updates), dbias, True)

        return y, backward

    def convolve(self, x: Array, weight: Array, bias: Array | None, pass_: Pass) -> tuple[Array, ConvBackward]:
        """Return (y, backward) with these arrays in place of the layer's parameters."""
        window = self.conv.window((x.shape[1], x.shape[2]))
        masks = self.masks(x.shape, window, pass_)
        given = backend_of(weight), x, weight, bias, window, self.conv.groups, self.activation
        return convolved.conv2d(*given, *masks, pass_.keep, self.pooled)

    def masks(self, shape: Shape, window: Window, pass_: Pass) -> tuple[BoundMask | None, BoundMask | None]:
        """Return the masks of x, of that shape, and of y."""
        first, last, y_shape = self.input_dropout, self.output_dropout, (shape[0], *window.places, self.conv.filters)
        return (
            None if first is None else first.bind(convolved.input_shape(shape, first.noise_shape), pass_, as_matrix=True),
            None if last is None else last.bind(y_shape, pass_, as_matrix=True),
        )

    def frozen(self) -> FrozenConv2D:
        """Return the same with copies of the parameters."""
        weight, bias = self.conv.weight, self.conv.bias
        assert weight is not None
        step = replace(self, input_dropout=copy.copy(self.input_dropout), output_dropout=copy.copy(self.output_dropout))
        backend = backend_of(weight.value)
        return FrozenConv2D(step, backend.copy_of(weight.value), None if bias is None else backend.copy_of(bias.value))


@dataclass(frozen=True, slots=True)
class FrozenConv2D:
    """`FusedConv2D` in inference alone, with parameters of its own; a weight of one group is `packed` for each size of images.

    That is done at the first images of a size: two threads that come at once pack twice, to the same bits.
    """

    step: FusedConv2D
    weight: Array
    bias: Array | None
    packed: dict[Window, PackedWeight] = field(default_factory=dict)

    trainable: ClassVar[bool] = False

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, nothing that is ever called)."""
        if self.step.conv.groups > 1:
            return self.step.convolve(x, self.weight, self.bias, pass_)[0], no_backward
        backend, window = backend_of(x), self.step.conv.window((x.shape[1], x.shape[2]))
        packed = self.packed.get(window) or self.packed.setdefault(window, backend.pack_filters(self.weight, window))
        masks = self.step.masks(x.shape, window, pass_)
        y, _ = backend.conv2d_forward(x, packed, self.bias, window, self.step.activation, *masks, keep_z=False)
        return y, no_backward

    def frozen(self) -> FrozenConv2D:
        """Return this."""
        return self
