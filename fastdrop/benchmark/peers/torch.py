"""PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from fastdrop.benchmark.cases import Architecture, Dense, Dropout, Inference, Prepare, Product, Step, Work
from fastdrop.benchmark.cases.network import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.peers.base import AbstractPeer

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": torch.relu, "tanh": torch.tanh, "gelu": functional.gelu}


def network(architecture: Architecture) -> Any:
    """Return the network with its starting values; its weights lie as (fan_out, fan_in)."""
    modules: list[Any] = []
    for rate, (weight, bias) in zip(architecture.rates, architecture.starting_values(), strict=True):
        linear = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weight.T))
            linear.bias.copy_(torch.from_numpy(bias))
        modules += [torch.nn.Dropout(rate), linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


class TorchEager(AbstractPeer):
    """Operation by operation."""

    name, distribution = "torch eager", "torch"

    def set_threads(self, threads: int) -> bool:
        torch.set_num_threads(threads)
        return True

    def compiled(self, function: Any) -> Any:
        """Return the function as it is run."""
        return function

    def dropout(self, case: Dropout) -> Prepare:
        function, x = self.compiled(lambda x: functional.dropout(x, case.rate, training=True)), torch.from_numpy(case.x)
        if not case.backward:
            return lambda number: lambda: function(x)
        zeros = torch.zeros_like(x, requires_grad=True)

        def prepare(number: int) -> Work:
            y = function(zeros)
            return lambda: torch.autograd.grad(y, zeros, x)[0]

        return prepare

    def product(self, case: Product) -> Prepare | None:
        sets = [tuple(map(torch.from_numpy, case.factors(number))) for number in range(len(case.sets))]

        def prepare(number: int) -> Work:
            a, b, out = sets[number % len(sets)]
            return lambda: torch.mm(a, b, out=out)

        return prepare

    def dense(self, case: Dense) -> Prepare | None:
        activation = ACTIVATIONS[case.activation]
        sets = [tuple(map(torch.from_numpy, operands)) for operands in case.sets]

        def layer(x: Any, weight: Any, bias: Any) -> Any:
            return functional.dropout(activation(functional.linear(x, weight.T, bias)), case.rate, training=True)

        function = self.compiled(layer)

        def forward(x: Any, weight: Any, bias: Any, dy: Any) -> Any:
            with torch.no_grad():
                return function(x, weight, bias)

        def forward_backward(x: Any, weight: Any, bias: Any, dy: Any) -> Any:
            y = function(x, weight, bias)
            return y.detach(), *torch.autograd.grad(y, (x, weight, bias), dy)

        if case.backward:
            for operands in sets:
                for tensor in operands[:3]:
                    tensor.requires_grad_()
        work = forward_backward if case.backward else forward
        return lambda number: lambda: work(*sets[number % len(sets)])

    def step(self, case: Step) -> Prepare:
        net = network(case.architecture)
        optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, MOMENTUM, fused=True)
        model = self.compiled(net)
        batches = [tuple(map(torch.from_numpy, batch)) for batch in case.batches]

        def step(x: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return lambda number: lambda: step(*batches[number % len(batches)])

    def inference(self, case: Inference) -> Prepare:
        model = self.compiled(network(case.architecture).eval())
        inputs = [torch.from_numpy(x) for x, _ in case.batches]

        def predict(x: Any) -> Any:
            with torch.inference_mode():
                return model(x)

        return lambda number: lambda: predict(inputs[number % len(inputs)])


class TorchCompile(TorchEager):
    """Compiled by Inductor."""

    name, by_shape = "torch.compile", True

    def compiled(self, function: Any) -> Any:
        """Return the function compiled for its shapes alone, whatever was compiled before."""
        torch.compiler.reset()
        return torch.compile(function, dynamic=False)

    def product(self, case: Product) -> None:
        """A product alone is that of `TorchEager`."""

    def dense(self, case: Dense) -> Prepare | None:
        """Compiled for weights as `torch.nn.Linear` has them."""
        return super().dense(case) if case.order == "F" else None
