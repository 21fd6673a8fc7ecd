"""PyTorch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from fastdrop._types import Array
from fastdrop.backends.base import LEAKY_RELU_SLOPE
from fastdrop.benchmark.cases import (
    AbstractCase,
    Activation,
    Architecture,
    Convolution,
    Dense,
    Dropout,
    GaussianDropout,
    ImageNetwork,
    ImageStep,
    Inference,
    Loss,
    MonteCarlo,
    Prepare,
    Product,
    Softmax,
    Step,
    Update,
    Work,
)
from fastdrop.benchmark.cases.base import LEARNING_RATE, MOMENTUM
from fastdrop.benchmark.cases.convolution import KERNEL, POOL
from fastdrop.benchmark.peers.base import AbstractPeer

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, LEAKY_RELU_SLOPE),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "selu": functional.selu,
    "softplus": functional.softplus,
}
LAYOUTS = {"NHWC": torch.channels_last, "NCHW": torch.contiguous_format}
LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "softmax_cross_entropy": functional.cross_entropy,
    "mean_squared_error": functional.mse_loss,
}

COMPILED_RATE = 0.5
COMPILED = ("dropout", "gaussian_dropout", "dense", "step", "inference", "monte_carlo")


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


def _channels_first(array: Array, layout: Any) -> Any:
    """Return images or a weight in torch's order of axes, in memory as `layout` says."""
    axes = (3, 2, 0, 1) if array.shape[0] == array.shape[1] == KERNEL else (0, 3, 1, 2)
    return torch.from_numpy(array.transpose(axes).copy()).contiguous(memory_format=layout)


def image_network(described: ImageNetwork) -> Any:
    """Return the network with its starting values."""
    modules: list[Any] = []
    values = [(torch.from_numpy(weight), torch.from_numpy(bias)) for weight, bias in described.starting_values()]
    count = len(described.filters)
    for weight, _ in values[:count]:
        modules += [torch.nn.Conv2d(weight.shape[2], weight.shape[3], KERNEL, padding=KERNEL // 2), torch.nn.ReLU()]
        modules.append(torch.nn.MaxPool2d(POOL))
    modules.append(torch.nn.Flatten())
    for weight, _ in values[count:]:
        modules += [torch.nn.Linear(*weight.shape), torch.nn.ReLU(), torch.nn.Dropout(described.rate)]
    net = torch.nn.Sequential(*modules[:-2])
    with torch.no_grad():
        for module, (weight, bias) in zip((m for m in net if hasattr(m, "weight")), values, strict=True):
            module.weight.copy_(weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T)
            module.bias.copy_(bias)
    return net


def differentiated(function: Callable[[Any], Any], x: Any, dy: Any) -> Prepare:
    """Return rounds of a backward pass; the forward pass is not timed."""
    x = x.requires_grad_()

    def prepare(number: int) -> Work:
        y = function(x)
        return lambda: torch.autograd.grad(y, x, dy)[0]

    return prepare


def elementwise(function: Callable[[Any], Any], case: Activation | Softmax) -> Prepare:
    """Return rounds of a function or of its backward pass."""
    x, dy = torch.from_numpy(case.x), torch.from_numpy(case.dy)
    return differentiated(function, x, dy) if case.backward else lambda number: lambda: function(x)


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
        return differentiated(function, torch.zeros_like(x), x)

    def gaussian_dropout(self, case: GaussianDropout) -> Prepare:
        function, x = self.compiled(lambda x: x * (1 + case.stddev * torch.randn_like(x))), torch.from_numpy(case.x)
        if not case.backward:
            return lambda number: lambda: function(x)
        return differentiated(function, torch.zeros_like(x), x)

    def activation(self, case: Activation) -> Prepare:
        return elementwise(ACTIVATIONS[case.name], case)

    def softmax(self, case: Softmax) -> Prepare:
        return elementwise(lambda x: functional.softmax(x, dim=1), case)

    def loss(self, case: Loss) -> Prepare | None:
        if case.name not in LOSSES:
            return None
        function, labels = LOSSES[case.name], torch.from_numpy(case.labels)
        outputs = torch.from_numpy(case.outputs).requires_grad_()

        def compute() -> Any:
            loss = function(outputs, labels)
            return loss.item(), torch.autograd.grad(loss, outputs)[0]

        return lambda number: compute

    def update(self, case: Update) -> Prepare | None:
        parameter = torch.nn.Parameter(torch.from_numpy(case.value.copy()))
        grad = case.grad.copy()
        parameter.grad = torch.from_numpy(grad)
        sgd, adam = torch.optim.SGD, torch.optim.Adam
        optimizer = {
            "sgd": sgd([parameter], LEARNING_RATE, fused=True),
            "momentum": sgd([parameter], LEARNING_RATE, MOMENTUM, fused=True),
            "adam": adam([parameter], LEARNING_RATE, fused=True),
        }[case.rule]

        def update() -> Any:
            optimizer.step()
            return parameter.detach()

        case.age(update, parameter.detach().numpy(), grad)
        return lambda number: update

    def product(self, case: Product) -> Prepare | None:
        sets = [tuple(map(torch.from_numpy, case.factors(number))) for number in range(len(case.sets))]

        def prepare(number: int) -> Work:
            a, b, out = sets[number % len(sets)]
            return lambda: torch.mm(a, b, out=out)

        return prepare

    def dense(self, case: Dense) -> Prepare | None:
        if case.order != "F":  # `torch.nn.Linear` has its weight as (fan_out, fan_in)
            return None
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

    def convolution(self, case: Convolution) -> Prepare:
        """The operations that autograd calls; results are returned with channels last."""
        layout = LAYOUTS[case.order]
        sets = [tuple(_channels_first(array, layout) for array in operands) for operands in case.sets]
        wanted = [kind == case.kind for kind in ("dx", "dweight")]

        def compute(x: Any, weight: Any, dy: Any) -> Any:
            if case.kind == "forward":
                return functional.conv2d(x, weight, padding=KERNEL // 2)
            sides = (KERNEL // 2, KERNEL // 2)
            given = dy, x, weight, None, (1, 1), sides, (1, 1), False, (0, 0), 1, [*wanted, False]
            return torch.ops.aten.convolution_backward(*given)[wanted.index(True)]

        back = (2, 3, 1, 0) if case.kind == "dweight" else (0, 2, 3, 1)
        return lambda number: lambda: compute(*sets[number % len(sets)]).permute(back)

    def image_step(self, case: ImageStep) -> Prepare:
        net = image_network(case.network).to(memory_format=LAYOUTS[case.order])
        optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE, fused=True)
        batches = [(_channels_first(x, LAYOUTS[case.order]), torch.from_numpy(labels)) for x, labels in case.batches]

        def step(x: Any, labels: Any) -> Any:
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return lambda number: lambda: step(*batches[number % len(batches)])

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

    def monte_carlo(self, case: MonteCarlo) -> Prepare:
        """All passes at once: the rows repeated."""
        net = network(case.architecture).train()

        def means(x: Any) -> Any:
            return torch.softmax(net(x.repeat(case.passes, 1)), 1).view(case.passes, len(x), -1).mean(0)

        model = self.compiled(means)
        inputs = [torch.from_numpy(x) for x, _ in case.batches]

        def predict(x: Any) -> Any:
            with torch.inference_mode():
                return model(x)

        return lambda number: lambda: predict(inputs[number % len(inputs)])


class TorchCompile(TorchEager):
    """Compiled by Inductor: what is more than one operation."""

    name = "torch.compile"

    def prepare(self, case: AbstractCase) -> Prepare | None:
        return super().prepare(case) if case.operation in COMPILED else None

    def compiled(self, function: Any) -> Any:
        """Return the function compiled for its shapes alone, whatever was compiled before."""
        torch.compiler.reset()
        return torch.compile(function, dynamic=False)

    def dense(self, case: Dense) -> Prepare | None:
        """At one rate: each takes seconds to compile."""
        return super().dense(case) if case.rate == COMPILED_RATE else None
