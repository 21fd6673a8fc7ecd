"""`Window`: how a convolution or a pooling moves over images, with the padding of Keras and TensorFlow.

Notation: images are (rows, height, width, channels). At place (i, j) of the result a window has its elements, numbered
p < size along each axis, at ``i * stride - before + p * dilation`` of the image; those that lie outside of it are padding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from fastdrop import _validate

Pair: TypeAlias = tuple[int, int]
"""(along the height, along the width)."""

PADDINGS = ("valid", "same")
"""No padding; or so much that there are ``ceil(extent / stride)`` places, the odd element at the end."""


class Window(NamedTuple):
    """A window on images of one size.

    Attributes
    ----------
    image : (height, width)
    size, stride, dilation : (int, int)
        At least 1 each.
    before : (int, int)
        Elements of padding before the first row and column.
    places : (int, int)
        Height and width of the result.
    """

    image: Pair
    size: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    places: Pair

    @property
    def taps(self) -> int:
        """Elements of the window."""
        return math.prod(self.size)

    @property
    def positions(self) -> int:
        """Places of the window on an image."""
        return math.prod(self.places)

    def transposed(self) -> tuple[Window, Pair]:
        """Return the window that the gradient of an image sees on that of the result, and its upsampling.

        The gradient of a convolution by the image is a convolution of that of the result, with the window turned around, whose
        strides have become zeros between the elements (the upsampling).
        """
        before = tuple((n - 1) * d - b for n, d, b in zip(self.size, self.dilation, self.before, strict=True))
        return Window(self.places, self.size, (1, 1), self.dilation, (before[0], before[1]), self.image), self.stride


def pair(name: str, value: Any, low: int = 1) -> Pair:
    """Return an argument that is an integer, for both axes, or two of them."""
    if isinstance(value, list | tuple):
        first, second = _validate.sequence(name, value, "an integer or two of them", 2)
        return _validate.integer(name, first, low), _validate.integer(name, second, low)
    number = _validate.integer(name, value, low)
    return number, number


def window_of(image: Pair, size: Pair, stride: Pair, dilation: Pair, padding: str, name: str) -> Window:
    """Return the window on images of that height and width; `padding` is one of `PADDINGS`, `name` whose window it is.

    Raises
    ------
    ValueError: the window does not fit into the image without padding.
    """
    before, places = [], []
    for extent, n, step, apart in zip(image, size, stride, dilation, strict=True):
        reach = (n - 1) * apart + 1
        if padding == "same":
            count = -(-extent // step)
            before.append(max(0, (count - 1) * step + reach - extent) // 2)
        else:
            count = (extent - reach) // step + 1
            before.append(0)
            if count < 1:
                _validate.fail_value("x", f"of height and width that fit the window of {name}, {reach} at least", image)
        places.append(count)
    return Window(image, size, stride, dilation, (before[0], before[1]), (places[0], places[1]))
