"""What every layer and network is: ``forward -> (y, backward)``, parameters, masks by position.

A layer describes; a *pass* runs it. Whoever is called (a network, or a layer alone) is the *root* of the pass: it numbers the
streams of all masks below it, depth first, and hands them down in a `Pass`. So a layer holds no state of a network, and may
stand in several. Shapes of layers are those of one row: without axis 0.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from fastdrop import _configurable, _validate, arrays
from fastdrop._configurable import Config
from fastdrop._types import Array, Backward, Shape
from fastdrop.backends.operands import contiguous
from fastdrop.backends.select import backend, in_kind
from fastdrop.errors import StaleBackwardError, StateError
from fastdrop.layers.parameter import BUILDING, DEVICES, Parameter
from fastdrop.layers.passes import InnerBackward, Pass, Source, Step, Updates, seed_of
from fastdrop.mask import MAX_ELEMENTS
from fastdrop.rng import MASK32, Key, new_seed


class Node(NamedTuple):
    """A layer's place in the tree below a root: the path in front of its parameters' names, and the layers from it up."""

    path: str
    layer: AbstractLayer
    lineage: tuple[AbstractLayer, ...]


class AbstractLayer(ABC):
    """A layer or a network.

    Parameters
    ----------
    input_shape : tuple of int, optional
        Shape of a row of x, if it is to be fixed.
    name : str, optional
        Shown by `summary`; the class's name by default.
    seed : int in [0, 2**64), optional
        Of all masks and starting values below; from the operating system, and recorded, by default.
    stream : int in [0, 2**32), optional
        Pins the stream of the layer's own mask or noise.
    """

    random: ClassVar[bool] = False
    """Whether the layer has a mask, or noise, which takes a stream."""
    strength_name: ClassVar[str] = ""
    """The attribute that says how much is dropped, or how strong the noise is; "" where there is none."""

    def __init__(
        self, *, input_shape: Any = None, name: str | None = None, seed: int | None = None, stream: int | None = None
    ) -> None:
        self.name: str = type(self).__name__.lower() if name is None else _validate.instance("name", name, str, "a string")
        self.dtype: np.dtype[Any] | None = None
        self.stream = _validate.optional_stream("stream", stream)
        self.step_count = 0
        self._declared_shape = None if input_shape is None else _validate.shape("input_shape", input_shape)
        self._seen_shape: Shape | None = None
        self.own_seed = _validate.optional_seed("seed", seed)
        self._drawn_seed = new_seed()
        self._sources: Mapping[AbstractLayer, Source] | None = None
        self._named: tuple[tuple[str, Parameter], ...] | None = None

    def __call__(self, x: Any, training: bool = False) -> Array:
        """Return ``forward(x, training)[0]``."""
        return self._run(x, training, None, 0, keep=False)[0]

    def forward(self, x: Any, training: bool, step: int | None = None, row_offset: int = 0) -> tuple[Array, Backward]:
        """Run a forward pass.

        Parameters
        ----------
        x : array, shape (rows, *input_shape), float32 or float64
            Converted once to the parameters' dtype.
        training : bool
            True applies dropout.
        step : int in [0, 2**32), optional
            Which training step the masks belong to; by default `step_count`, which is then advanced if `training`.
        row_offset : int >= 0
            Number of the first row within its batch, for a batch that is cut in pieces.

        Returns
        -------
        y : array
        backward : callable
            ``backward(dy, input_gradient=False)`` adds into the gradients of all trainable parameters, and returns dx with
            ``input_gradient=True``, else None. Gradients of L1 and L2 penalties enter where `row_offset` is 0: once a batch.
            A third argument `updates` is for `AbstractOptimizer.backward_and_step`.

        Raises
        ------
        TypeError, ValueError: bad arguments. RuntimeError: `backward` is called after a parameter was changed.
        """
        return self._run(x, training, step, row_offset, keep=True)

    def _run(self, x: Any, training: bool, step: int | None, row_offset: int, *, keep: bool) -> tuple[Array, Backward]:
        training = _validate.boolean("training", training)
        counted = training and step is None
        step = self.step_count if step is None else _validate.integer("step", step, 0, MASK32)
        row_offset = _validate.integer("row_offset", row_offset, 0, MAX_ELEMENTS - 1)
        given, x = x, self._prepared(x)
        versions = {parameter: parameter.version for _, parameter in self._named or ()}
        y, inner = self.apply(x, Pass(training, step, row_offset, self._streams(), keep))
        if counted:
            self.step_count = step + 1
        y_shape, y_dtype, on_device = y.shape, y.dtype, arrays.is_device(y)

        def backward(dy: Any, input_gradient: bool = False, updates: Updates | None = None) -> Array | None:
            input_gradient = _validate.boolean("input_gradient", input_gradient)
            theirs, dy = dy, arrays.float_array("dy", dy, min_ndim=0)
            _validate.exact_shape("dy", dy, y_shape)
            arrays.same_place("dy", dy, "y", on_device)
            for parameter, version in versions.items():
                if parameter.version != version:
                    raise StaleBackwardError(f"`{parameter.name}` was changed between this forward pass and its backward pass")
            dx = None
            if input_gradient or self.trainable:
                dx = inner(contiguous(dy, y_dtype), input_gradient, {} if updates is None else updates)
            if row_offset == 0:
                for parameter in versions:
                    parameter.add_penalty_gradient()
            return in_kind(dx, theirs) if input_gradient else None

        return in_kind(y, given), backward

    def _prepared(self, x: Any) -> Array:
        """Return x checked, C-contiguous and of the dtype that the layer computes in; build the layer if need be."""
        x = arrays.float_array("x", x)
        if x.shape[1:] != self._seen_shape or self._named is None:
            self._fit(x.shape[1:])
        if self._named:
            arrays.same_place("x", x, "network", self._named[0][1].device == "cuda")
        dtype = self._named[0][1].dtype if self._named else self.dtype or x.dtype
        return contiguous(x, dtype)

    # The work itself, for subclasses

    def check_strength(self, value: Any) -> float:
        """Return `value` if it may be assigned to the attribute `strength_name`; of a layer that has one."""
        return _validate.rate(self.strength_name, value)

    @abstractmethod
    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward) for a C-contiguous x of the parameters' dtype and a shape that fits."""

    def frozen(self) -> Step:
        """Return a step that infers what this layer infers now; one with parameters does more than copy itself."""
        return copy.copy(self)

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of a row of y, for that of a row of x; an error if x would not fit."""
        if self._declared_shape is not None:
            _validate.row_shape(self.name, self._declared_shape, input_shape)
        return self._output_shape(input_shape)

    def _output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def widest(self, input_shape: Shape) -> int:
        """Return the most elements of a row before, behind and between the layers below, for the shape of a row of x."""
        shape, most = input_shape, max(math.prod(input_shape), math.prod(self.output_shape(input_shape)))
        for layer in self.children:
            most, shape = max(most, layer.widest(shape)), layer.output_shape(shape)
        return most

    def _create(self, input_shape: Shape) -> None:  # noqa: B027  most layers have no parameters
        """Make the parameters that do not exist yet, for a shape that fits."""

    @property
    def trainable(self) -> bool:
        """Whether a gradient of any parameter is wanted."""
        return False

    @property
    def children(self) -> tuple[AbstractLayer, ...]:
        """The layers directly below, in order."""
        return ()

    @property
    def own_parameters(self) -> dict[str, Parameter]:
        """The parameters of this layer itself, in order."""
        return {}

    @property
    def is_built(self) -> bool:
        """Whether this layer's own parameters exist."""
        return True

    @property
    def varies(self) -> bool:
        """Whether what this layer itself does differs from one pass of Monte-Carlo inference to the next."""
        return self.random and (not self.strength_name or getattr(self, self.strength_name) != 0)

    # The tree below a root

    def walk(self, path: str = "", above: tuple[AbstractLayer, ...] = ()) -> Iterator[Node]:
        """Yield this layer and all below it, depth first."""
        lineage = (self, *above)
        yield Node(path, self, lineage)
        for i, child in enumerate(self.children):
            yield from child.walk(f"{path}{i}.", lineage)

    def check_tree(self) -> None:
        """Raise if a layer stands in two places below, or two masks have one stream."""
        seen: set[AbstractLayer] = set()
        for path, layer, _ in self.walk():
            if layer in seen:
                _validate.fail_value("layers", "different objects", f"the same {type(layer).__name__} again at {path[:-1]}")
            seen.add(layer)
        self._streams()

    def _streams(self) -> Mapping[AbstractLayer, Source]:
        """Return the source of each mask below: streams 0, 1, ... depth first, except where pinned."""
        if self._sources is None:
            nodes = [node for node in self.walk() if node.layer.random]
            streams = [i if node.layer.stream is None else node.layer.stream for i, node in enumerate(nodes)]
            for i, stream in enumerate(streams):
                if stream in streams[:i]:
                    _validate.fail_value("stream", "different for each mask of a network", f"{stream} twice")
            self._sources = {node.layer: Source(stream, node.lineage) for node, stream in zip(nodes, streams, strict=True)}
        return self._sources

    def stream_of(self, layer: AbstractLayer) -> int:
        """Return the stream of the mask of a layer below."""
        return self._streams()[layer].stream

    def strengths(self) -> dict[str, float]:
        """Return the rates of dropout and standard deviations of noise below: {"0.rate": 0.2, "3.stddev": 0.1}."""
        return {name: getattr(layer, layer.strength_name) for name, layer in self._rated().items()}

    def checked_strengths(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return rates and standard deviations, some or all of those that `strengths` returns, if they may be assigned."""
        rated = self._rated()
        return {name: rated[_validate.choice("strengths", name, rated)].check_strength(value) for name, value in values.items()}

    def set_strengths(self, values: Mapping[str, Any]) -> None:
        """Assign rates and standard deviations by name; all are checked before any is changed."""
        checked, rated = self.checked_strengths(values), self._rated()
        for name, value in checked.items():
            setattr(rated[name], rated[name].strength_name, value)

    def _rated(self) -> dict[str, AbstractLayer]:
        """Return the layers that have a rate or a standard deviation, by its name; not those that are a part of such a one."""
        return {
            f"{path}{layer.strength_name}": layer
            for path, layer, (_, *above) in self.walk()
            if layer.strength_name and not any(each.strength_name for each in above)
        }

    def _fit(self, input_shape: Shape) -> None:
        """Check that rows of that shape fit all layers, and build what is not built yet."""
        with BUILDING:
            self.output_shape(input_shape)
            self._create(input_shape)
            if self._named is None:
                self._place()
            self._seen_shape = input_shape

    def _place(self) -> None:
        """Name and number the parameters, and say from which key each of them starts."""
        found = [(node, *item) for node in self.walk() for item in node.layer.own_parameters.items()]
        stated = [node.layer.dtype for node in self.walk() if node.layer.dtype is not None]
        dtype = next(iter(stated or [parameter.dtype for _, _, parameter in found]), None)
        if dtype is not None:
            self._check_dtypes(dtype)
            parts: set[object] = {node.layer for node in self.walk()}
            for ordinal, (node, _, parameter) in enumerate(found):
                if parameter.can_be_placed(parts):
                    parameter.place(dtype, Key(seed_of(node.lineage), ordinal, 0), self)
        self._named = tuple((f"{node.path}{name}", parameter) for node, name, parameter in found)

    def _check_dtypes(self, dtype: np.dtype[Any]) -> None:
        """Raise if a parameter below already has another dtype."""
        parts: set[object] = {node.layer for node in self.walk()}
        for node in self.walk():
            for name, parameter in node.layer.own_parameters.items():
                if parameter.dtype != dtype and not parameter.can_be_placed(parts):
                    _validate.fail_type(f"{node.path}{name}", f"of the network's dtype ({dtype})", parameter.dtype)

    def _built(self) -> tuple[tuple[str, Parameter], ...]:
        """Return (name, parameter) of all parameters below; build first if the input shape is known."""
        if self._named is None:
            shape = self.input_shape
            if shape is not None:
                self._fit(shape)
            elif all(node.layer.is_built for node in self.walk()):
                self._place()
            else:
                raise StateError(f"this {type(self).__name__} has no parameters yet: give `input_shape`, or call it first")
        assert self._named is not None
        return self._named

    # What users ask for

    def build(self, input_shape: Any) -> None:
        """Make the parameters for rows of x of that shape, as the first call does."""
        self._fit(_validate.shape("input_shape", input_shape))

    def parameters(self) -> list[Parameter]:
        """Return all parameters, frozen ones included, named as seen from here."""
        for name, parameter in self._built():
            parameter.name = name
        return [parameter for _, parameter in self._built()]

    @property
    def input_shape(self) -> Shape | None:
        """Shape of a row of x: as given, or as seen last, or None."""
        return self._seen_shape if self._declared_shape is None else self._declared_shape

    @property
    def seed(self) -> int:
        """Seed of all masks and starting values below; a layer in a network uses the network's unless its own was given."""
        return self._drawn_seed if self.own_seed is None else self.own_seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.own_seed = _validate.integer("seed", seed, 0, _validate.MAX_SEED)

    def config(self) -> Config:
        """Return the description that makes this layer again: the class, and the arguments that were given."""
        return _configurable.describe(self, self._arguments())

    def to(self, device: str) -> Self:
        """Move all parameters to "cuda", a GPU, or back to "cpu"; return the layer itself, which then takes arrays from there.

        Raises
        ------
        ValueError: another device. BackendError: "cuda" is not to be had here. RuntimeError: no parameters yet.
        """
        backend(_validate.choice("device", device, DEVICES))
        for _, parameter in self._built():
            parameter.to(device)
        return self

    def _arguments(self) -> Config:
        """Return the arguments that are not attributes of the same name, or not JSON-able."""
        return {"input_shape": None if self._declared_shape is None else list(self._declared_shape)}
