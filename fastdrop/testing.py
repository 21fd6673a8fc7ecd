"""Fixtures for tests and benchmarks of networks: ``pytest_plugins = ["fastdrop.testing"]`` in the top conftest.py.

Examples
--------
With pytest-benchmark, a training step at one and at two threads::

    import fastdrop as fd
    import pytest

    @pytest.mark.parametrize("fastdrop_threads", [1, 2], indirect=True)
    def test_step(benchmark, fastdrop_step, batch):
        net = fd.Sequential([fd.Dropout(0.2), fd.Dense(10)], input_shape=(64,), seed=0)
        benchmark(fastdrop_step(net, fd.optim.SGD(0.1), *batch))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from fastdrop import _config
from fastdrop.training import DEFAULT_LOSS, train_on_batch
from fastdrop.warm import warmup

MakeStep: TypeAlias = Callable[..., Callable[[], float]]


@pytest.fixture(scope="session")
def fastdrop_compiled() -> float:
    """Compile all float32 kernels once, so that no measurement or timeout contains it; the seconds that took.

    ``def test_latency(fastdrop_compiled, benchmark): ...``
    """
    return warmup()


@pytest.fixture
def fastdrop_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Hold the number of threads for a test and put it back; the number.

    ``@pytest.mark.parametrize("fastdrop_threads", [1, 2], indirect=True)`` sets it, otherwise it is the current one.
    """
    before = _config.get_num_threads()
    _config.set_num_threads(getattr(request, "param", before))
    yield _config.get_num_threads()
    _config.set_num_threads(before)


@pytest.fixture
def fastdrop_step(fastdrop_compiled: float, fastdrop_threads: int) -> MakeStep:  # noqa: ARG001 (compiled, and held)
    """Give ``make(net, optimizer, x, labels, loss="softmax_cross_entropy", step=0)``, which returns a training step.

    The step has the same masks each time it is called, so that all rounds do the same work; it returns the loss.
    ``benchmark(fastdrop_step(net, optimizer, x, labels))``
    """

    def make(net: Any, optimizer: Any, x: Any, labels: Any, loss: Any = DEFAULT_LOSS, step: int = 0) -> Callable[[], float]:
        return lambda: train_on_batch(net, x, labels, optimizer, loss, step=step)

    return make
