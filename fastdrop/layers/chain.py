"""`AbstractChain`: layers one after the other, the common part of `Residual` and `Sequential`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from fastdrop import _validate
from fastdrop._configurable import Config
from fastdrop._types import Shape
from fastdrop.layers.base import AbstractLayer


class AbstractChain(AbstractLayer):
    """Layers one after the other: `layers`, a tuple."""

    opens: ClassVar[bool] = True
    """Whether the layers may stand in place of the chain itself."""

    def __init__(self, layers: Iterable[AbstractLayer], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.layers: tuple[AbstractLayer, ...] = _validate.instances("layers", layers, AbstractLayer, "layers of fastdrop")
        self.check_tree()

    @property
    def children(self) -> tuple[AbstractLayer, ...]:
        """The layers."""
        return self.layers

    @property
    def input_shape(self) -> Shape | None:
        """Shape of a row of x: as given, or as seen last, or that of the first layer, or None."""
        own = super().input_shape
        return self.layers[0].input_shape if own is None else own

    @property
    def trainable(self) -> bool:
        """Whether a gradient of any parameter is wanted."""
        return any(layer.trainable for layer in self.layers)

    def _output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def _create(self, input_shape: Shape) -> None:
        for layer in self.layers:
            layer._create(input_shape)
            input_shape = layer.output_shape(input_shape)

    def _arguments(self) -> Config:
        return super()._arguments() | {"layers": [layer.config() for layer in self.layers]}


def opened(layers: Iterable[AbstractLayer]) -> Iterator[AbstractLayer]:
    """Yield the layers of a chain in the order of their work, with the layers of nested chains in place of these."""
    for layer in layers:
        if isinstance(layer, AbstractChain) and layer.opens:
            yield from opened(layer.layers)
        else:
            yield layer
