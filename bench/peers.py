"""Elementwise dropout in fastdrop and in other libraries: one class each, a few lines.

For an array and a rate a peer gives a function of the round's number, which makes ready whatever the library keeps beside the
work itself (keys, and for the backward pass what the forward pass leaves) and returns the work: new random numbers every round,
the end awaited, the result returned.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np

import fastdrop as fd

SEED = 1
DEVIATIONS = 6

Work: TypeAlias = Callable[[], Any]
Prepare: TypeAlias = Callable[[int], Work]


class AbstractPeer(ABC):
    """A library that can do dropout."""

    name: ClassVar[str]
    package: ClassVar[str]

    @classmethod
    def installed(cls) -> bool:
        return importlib.util.find_spec(cls.package) is not None

    def version(self) -> str:
        return str(importlib.import_module(self.package).__version__)

    def set_threads(self, threads: int) -> bool:
        """Use so many threads; False where the library cannot change that after its start."""
        return False

    @abstractmethod
    def forward(self, x: np.ndarray, rate: float) -> Prepare: ...

    @abstractmethod
    def backward(self, dy: np.ndarray, rate: float) -> Prepare: ...

    def verify(self, x: np.ndarray, rate: float, number: int, result: Any) -> None:
        """Every element is 0 or x / (1 - rate), and the right share of them is 0."""
        y = np.asarray(result)
        kept = y != 0
        np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-5)
        deviation = np.sqrt(x.size * rate * (1 - rate))
        assert abs(np.count_nonzero(~kept) - x.size * rate) <= DEVIATIONS * deviation


class Fastdrop(AbstractPeer):
    name = package = "fastdrop"

    def set_threads(self, threads: int) -> bool:
        fd.set_num_threads(threads)
        return True

    def mask(self, rate: float, number: int) -> fd.Mask:
        return fd.Mask(rate, fd.Key(SEED, 0, number))

    def forward(self, x: np.ndarray, rate: float) -> Prepare:
        out = np.empty_like(x)

        def prepare(number: int) -> Work:
            mask = self.mask(rate, number)
            return lambda: fd.dropout(x, mask, out=out)[0]

        return prepare

    def backward(self, dy: np.ndarray, rate: float) -> Prepare:
        x, out = np.zeros_like(dy), np.empty_like(dy)

        def prepare(number: int) -> Work:
            _, backward = fd.dropout(x, self.mask(rate, number), out=out)
            return lambda: backward(dy, out=out)

        return prepare

    def verify(self, x: np.ndarray, rate: float, number: int, result: Any) -> None:
        """The result is that of the reference, bit for bit (in the first elements; the share of zeros in all of them)."""
        head = slice(0, 1 << 16)
        keep = self.mask(rate, number).to_array(x[head].shape)
        scale = np.float32(1 / (1 - round(rate * 2**32) / 2**32))
        np.testing.assert_array_equal(result[head], np.where(keep, x[head] * scale, np.float32(0)))
        super().verify(x, rate, number, result)


class TorchEager(AbstractPeer):
    name, package = "torch eager", "torch"

    def set_threads(self, threads: int) -> bool:
        import torch

        torch.set_num_threads(threads)
        return True

    def function(self, rate: float) -> Callable[[Any], Any]:
        from torch.nn.functional import dropout

        return lambda x: dropout(x, rate, training=True)

    def forward(self, x: np.ndarray, rate: float) -> Prepare:
        import torch

        function, tensor = self.function(rate), torch.from_numpy(x)
        return lambda number: lambda: function(tensor)

    def backward(self, dy: np.ndarray, rate: float) -> Prepare:
        import torch

        function, gradient = self.function(rate), torch.from_numpy(dy)
        x = torch.zeros_like(gradient, requires_grad=True)

        def prepare(number: int) -> Work:
            y = function(x)
            return lambda: torch.autograd.grad(y, x, gradient)[0]

        return prepare


class TorchCompile(TorchEager):
    name = "torch.compile"

    def function(self, rate: float) -> Callable[[Any], Any]:
        import torch

        return torch.compile(super().function(rate))


class Jax(AbstractPeer):
    name = package = "jax"

    def prepare(self, array: np.ndarray, function: Callable[[Any, Any], Any]) -> Prepare:
        import jax

        compiled, value = jax.jit(function), jax.numpy.asarray(array)

        def prepare(number: int) -> Work:
            key = jax.random.fold_in(jax.random.key(SEED), number).block_until_ready()
            return lambda: compiled(key, value).block_until_ready()

        return prepare

    def dropout(self, rate: float) -> Callable[[Any, Any], Any]:
        import jax

        def dropout(key: Any, x: Any) -> Any:
            return jax.numpy.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)

        return dropout

    def forward(self, x: np.ndarray, rate: float) -> Prepare:
        return self.prepare(x, self.dropout(rate))

    def backward(self, dy: np.ndarray, rate: float) -> Prepare:
        import jax

        dropout = self.dropout(rate)
        return self.prepare(dy, lambda key, dy: jax.vjp(lambda x: dropout(key, x), dy)[1](dy)[0])


class TensorFlow(AbstractPeer):
    name, package = "tensorflow", "tensorflow"

    def forward(self, x: np.ndarray, rate: float) -> Prepare:
        import tensorflow as tf

        tensor, function = tf.constant(x), tf.function(lambda x: tf.nn.dropout(x, rate))
        return lambda number: lambda: function(tensor).numpy()

    def backward(self, dy: np.ndarray, rate: float) -> Prepare:
        import tensorflow as tf

        @tf.function
        def gradient(x: Any, dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.nn.dropout(x, rate)
            return tape.gradient(y, x, dy)

        tensor = tf.constant(dy)
        return lambda number: lambda: gradient(tensor, tensor).numpy()


PEERS: tuple[type[AbstractPeer], ...] = (Fastdrop, TorchEager, TorchCompile, Jax, TensorFlow)
