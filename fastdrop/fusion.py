"""Which layers are done as one step: Dropout -> Dense or Conv2D -> Activation -> Dropout, where they stand together.

A Dropout between two of them is the output mask of the first; a leading one is the input mask of the one behind it. No mask
follows softmax in one step. Nested networks are opened, so that layers fuse across their borders; a Residual is a step of its
own, with steps inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

from fastdrop import activations
from fastdrop._types import Shape
from fastdrop.layers.activation import Activation
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.chain import opened
from fastdrop.layers.conv2d import FusedConv2D
from fastdrop.layers.dense import FusedDense
from fastdrop.layers.dropout import Dropout
from fastdrop.layers.passes import Step
from fastdrop.layers.pooling import LateMaxPool2D, MaxPool2D
from fastdrop.layers.residual import Residual, ResidualStep
from fastdrop.layers.weighted import AbstractWeighted

Group: TypeAlias = tuple[AbstractLayer, ...]
"""Neighbouring layers that become one step."""


def plan(layers: Sequence[AbstractLayer]) -> tuple[Step, ...]:
    """Return the steps that do the work of the layers, one after the other."""
    steps = [step for group in groups(layers) for step in _steps(group)]
    for i, (step, following) in enumerate(pairwise(steps)):
        if isinstance(step, FusedDense) and isinstance(following, FusedDense) and following.takes_kept:
            steps[i] = replace(step, gives_kept=True)
        if isinstance(step, FusedConv2D) and isinstance(following, MaxPool2D) and following.leaves_most_out:
            steps[i], steps[i + 1] = replace(step, pooled=True), LateMaxPool2D(following)
    return tuple(steps)


def groups(layers: Sequence[AbstractLayer]) -> list[Group]:
    """Cut a chain of layers, nested networks opened, into the groups that are done together."""
    chain = list(opened(layers))
    cut: list[Group] = []
    while chain:
        length = _group_length(chain)
        cut.append(tuple(chain[:length]))
        del chain[:length]
    return cut


def _group_length(chain: Sequence[AbstractLayer]) -> int:
    """Return how many layers from the first one on are done together."""
    n = 1 if isinstance(chain[0], Dropout) else 0
    weighted = chain[n] if n < len(chain) else None
    if not isinstance(weighted, AbstractWeighted):
        return 1
    n += 1
    activation = weighted.activation
    following = chain[n] if n < len(chain) else None
    if isinstance(following, Activation) and activation == "linear" and following.activation != activations.SOFTMAX:
        activation = following.activation
        n += 1
    if activation != activations.SOFTMAX and n < len(chain) and isinstance(chain[n], Dropout):
        n += 1
    return n


def _steps(group: Group) -> tuple[Step, ...]:
    first = group[0]
    if isinstance(first, Residual):
        return (ResidualStep(plan(first.layers), first.gate),)
    at = next((i for i, layer in enumerate(group) if isinstance(layer, AbstractWeighted)), None)
    if at is None:
        return (first,)
    weighted, before, behind = group[at], group[:at], group[at + 1 :]
    assert isinstance(weighted, AbstractWeighted)
    return weighted.steps(
        activation=next((layer for layer in behind if isinstance(layer, Activation)), None),
        input_dropout=next((layer for layer in before if isinstance(layer, Dropout)), None),
        output_dropout=next((layer for layer in behind if isinstance(layer, Dropout)), None),
    )


def table(net: AbstractLayer, input_shape: Shape) -> str:
    """Return a table of the layers below: path, name, shape of a row of y, parameters, fused group, and mask."""
    together = {layer: i for i, group in enumerate(_all_groups(net.children), 1) for layer in group}
    head = ("", "layer", "output shape", "parameters", "fused", "dropout")
    align = (str.ljust, str.ljust, str.ljust, str.rjust, str.rjust, str.ljust)
    rows = [head, *_table_rows(net.children, "", input_shape, net, together)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(put(cell, width) for put, cell, width in zip(align, row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _all_groups(layers: Sequence[AbstractLayer]) -> Iterator[Group]:
    """Yield the groups of more than one layer, those inside residuals included."""
    for group in groups(layers):
        if len(group) > 1:
            yield group
        if isinstance(group[0], Residual):
            yield from _all_groups(group[0].layers)


def _table_rows(
    layers: Sequence[AbstractLayer], path: str, shape: Shape, root: AbstractLayer, together: Mapping[AbstractLayer, int]
) -> Iterator[tuple[str, ...]]:
    for i, layer in enumerate(layers):
        output_shape = layer.output_shape(shape)
        count = sum(math.prod(parameter.shape) for parameter in layer.own_parameters.values())
        mask = ""
        if layer.random:
            strength = f"{layer.strength_name} {getattr(layer, layer.strength_name):g}, " if layer.strength_name else ""
            mask = f"{strength}stream {root.stream_of(layer)}"
        group = str(together.get(layer, ""))
        yield f"{path}{i}", layer.name, str(output_shape), f"{count:,}" if count else "", group, mask
        yield from _table_rows(layer.children, f"{path}{i}.", shape, root, together)
        shape = output_shape
