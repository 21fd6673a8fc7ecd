"""Bare convolutions, and the training step of a small convolutional network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from fastdrop._types import Array
from fastdrop.benchmark.cases.base import AbstractCase, Prepare, check_close, rotation

DTYPE = "float32"
KERNEL, POOL = 3, 2
VERIFIED_STEPS, FINAL_STEPS = 12, 3
"""The loss falls within so many steps; the mean of so many at the end is compared with that of as many at the start."""
BATCHES = 2


@dataclass(frozen=True)
class Convolution(AbstractCase):
    """One of the three products of a 3 x 3 convolution, padding "same": "forward", "dx" or "dweight".

    With `order` "NCHW" channels lie before height and width in memory, and filters come first in the weight.
    """

    operation = "convolution"

    batch: int
    extent: int
    channels: int
    filters: int
    order: Literal["NHWC", "NCHW"] = "NHWC"
    kind: str = "forward"

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.extent**2 * KERNEL**2 * self.channels * self.filters

    @property
    def nbytes(self) -> float:
        images = self.batch * self.extent**2 * (self.channels + self.filters)
        return 4.0 * (images + KERNEL**2 * self.channels * self.filters)

    @cached_property
    def sets(self) -> list[tuple[Array, Array, Array]]:
        """(x, weight, dy) that are taken in turn: (batch, extent, extent, channels), (3, 3, channels, filters)."""
        return [self._operands(number) for number in range(rotation(self.nbytes))]

    def _operands(self, number: int) -> tuple[Array, Array, Array]:
        rng, image = np.random.default_rng(number), (self.batch, self.extent, self.extent)
        shapes = (*image, self.channels), (KERNEL, KERNEL, self.channels, self.filters), (*image, self.filters)
        x, weight, dy = (rng.uniform(-1, 1, shape).astype(DTYPE) for shape in shapes)
        return x, weight, dy

    def verify(self, prepare: Prepare) -> None:
        """The results are those of binary64, to rounding; channels last."""
        x, weight, dy = (array.astype(np.float64) for array in self.sets[0])
        n, around = self.extent, ((0, 0), (1, 1), (1, 1), (0, 0))
        wide, gradient = np.pad(x, around), np.pad(dy, around)
        wanted = np.zeros({"forward": dy, "dx": x, "dweight": weight}[self.kind].shape)
        for p in range(KERNEL):
            for q in range(KERNEL):
                part = wide[:, p : p + n, q : q + n]
                if self.kind == "forward":
                    wanted += part @ weight[p, q]
                elif self.kind == "dx":
                    wanted += gradient[:, 2 - p : 2 - p + n, 2 - q : 2 - q + n] @ weight[p, q].T
                else:
                    wanted[p, q] = part.reshape(-1, self.channels).T @ dy.reshape(-1, self.filters)
        check_close(prepare(0)(), wanted, DTYPE)


@dataclass(frozen=True)
class ImageNetwork:
    """Convolutions (3 x 3, relu) with 2 x 2 max-pooling behind each, then dense layers with relu and dropout, and the outputs."""

    extent: int = 32
    channels: int = 3
    filters: tuple[int, ...] = (64, 128, 256)
    hidden: tuple[int, ...] = (512, 512)
    classes: int = 10
    rate: float = 0.5

    @property
    def name(self) -> str:
        """Image, filters, units."""
        parts = [f"{self.extent}x{self.extent}x{self.channels}", *(f"{filters}c" for filters in self.filters)]
        return "-".join([*parts, *map(str, (*self.hidden, self.classes))])

    @property
    def features(self) -> int:
        """Elements of a row behind the last pooling."""
        extent = self.extent // POOL ** len(self.filters)
        return int(extent) ** 2 * self.filters[-1]

    def starting_values(self) -> Iterator[tuple[Array, Array]]:
        """Yield weight, (3, 3, channels, filters) or (fan_in, fan_out), and bias of each layer (He's normal)."""
        rng = np.random.default_rng(0)
        shapes: list[tuple[int, ...]] = [(KERNEL, KERNEL, *pair) for pair in pairwise((self.channels, *self.filters))]
        shapes += list(pairwise((self.features, *self.hidden, self.classes)))
        for shape in shapes:
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            yield (rng.standard_normal(shape) * scale).astype(DTYPE), np.zeros(shape[-1], DTYPE)

    def step_flops(self, batch: int) -> float:
        """Return the operations of the products of a training step; nobody needs the gradient of the images."""
        total, extent = 0.0, self.extent
        for i, (channels, filters) in enumerate(pairwise((self.channels, *self.filters))):
            total += 2.0 * batch * extent**2 * KERNEL**2 * channels * filters * (3 if i else 2)
            extent //= POOL
        return total + 6.0 * batch * sum(a * b for a, b in pairwise((self.features, *self.hidden, self.classes)))

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(weight.size + bias.size for weight, bias in self.starting_values())


@dataclass(frozen=True)
class ImageStep(AbstractCase):
    """A training step with Adam on images; returns the loss. `order` as in `Convolution`."""

    operation = "image_step"

    network: ImageNetwork
    batch: int
    order: Literal["NHWC", "NCHW"] = "NHWC"

    def facts(self) -> dict[str, Any]:
        """Return what describes the case in a table; the network by its name and rate."""
        own = {name: value for name, value in asdict(self).items() if name != "network"}
        facts = {"operation": self.operation, "architecture": self.network.name, "rate": self.network.rate}
        return facts | own | {"flops": self.flops, "bytes": self.nbytes}

    @property
    def flops(self) -> float:
        return self.network.step_flops(self.batch)

    @property
    def nbytes(self) -> float:
        return 28.0 * self.network.parameters  # weights and two moments read and written, and the gradient

    @cached_property
    def batches(self) -> list[tuple[Array, Array]]:
        """Images and labels that are taken in turn: each class around an image of its own."""
        net, rng = self.network, np.random.default_rng(1)
        centres = rng.uniform(0, 1, (net.classes, net.extent, net.extent, net.channels))
        found = []
        for _ in range(BATCHES):
            labels = rng.integers(0, net.classes, self.batch)
            found.append(((centres[labels] + rng.uniform(0, 1, (self.batch, *centres.shape[1:]))).astype(DTYPE) / 2, labels))
        return found

    def verify(self, prepare: Prepare) -> None:
        """The loss falls."""
        losses = [float(prepare(step)()) for step in range(VERIFIED_STEPS)]
        assert np.mean(losses[-FINAL_STEPS:]) < np.mean(losses[:FINAL_STEPS]), losses


@dataclass(frozen=True)
class ImageFit(ImageStep):
    """One epoch of the library's own training loop, of so many steps; returns the mean loss.

    With few steps, what a library does once an epoch would count: Keras may wait for half a second.
    """

    operation = "image_fit"

    steps: int = 40

    @property
    def repeats(self) -> int:
        return self.steps

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """All images and labels of an epoch."""
        x, labels = zip(*(self.batches[step % BATCHES] for step in range(self.steps)), strict=True)
        return np.concatenate(x), np.concatenate(labels)

    @property
    def rounds(self) -> int:
        return 3

    def verify(self, prepare: Prepare) -> None:
        """The loss falls."""
        losses = [float(prepare(epoch)()) for epoch in range(3)]
        assert losses[-1] < losses[0], losses
