"""The pytest plugin, as another project uses it."""

from __future__ import annotations

import pytest
from subprocesses import run

import fastdrop as fd

pytest_plugins = ["pytester"]

PROJECT = """
    import numpy as np
    import pytest

    import fastdrop as fd

    pytest_plugins = ["fastdrop.testing"]


    def network():
        return fd.Sequential([fd.Dropout(0.5), fd.Dense(3)], input_shape=(8,), seed=0)


    X, LABELS = np.random.default_rng(0).normal(size=(16, 8)).astype("float32"), np.arange(16) % 3
"""


def outcomes(pytester: pytest.Pytester, test: str) -> dict[str, int]:
    """Run a test file of another project in this process."""
    pytester.makepyfile(PROJECT + test)
    return pytester.runpytest("-q", "-p", "no:cacheprovider").parseoutcomes()


def test_a_step_does_the_same_work_every_time(pytester: pytest.Pytester) -> None:
    test = """
    def test_step(fastdrop_step):
        net, expected = network(), network()
        step = fastdrop_step(net, fd.optim.SGD(0.1), X, LABELS, step=7)
        optimizer = fd.optim.SGD(0.1)
        for _ in range(3):
            assert step() == expected.train_on_batch(X, LABELS, optimizer, step=7)
        assert net.step_count == 0
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value, expected.state_dict()[name])

    def test_another_step_has_other_masks(fastdrop_step):
        first, second = (fastdrop_step(network(), fd.optim.SGD(0.1), X, LABELS, step=step)() for step in (0, 1))
        assert first != second

    def test_loss(fastdrop_step):
        targets = np.zeros((16, 3), "float32")
        step = fastdrop_step(network(), fd.optim.SGD(0.1), X, targets, loss="mean_squared_error")
        assert step() == network().train_on_batch(X, targets, fd.optim.SGD(0.1), "mean_squared_error", step=0)
    """
    assert outcomes(pytester, test) == {"passed": 3}


def test_threads_are_held_and_put_back(pytester: pytest.Pytester) -> None:
    before = fd.get_num_threads()
    test = f"""
    @pytest.mark.parametrize("fastdrop_threads", [1], indirect=True)
    def test_one(fastdrop_threads, fastdrop_step):
        assert fastdrop_threads == fd.get_num_threads() == 1

    def test_default(fastdrop_threads):
        assert fastdrop_threads == fd.get_num_threads() == {before}
        fd.set_num_threads(1)

    def test_after(fastdrop_threads):
        assert fd.get_num_threads() == {before}
    """
    assert outcomes(pytester, test) == {"passed": 3}
    assert fd.get_num_threads() == before


def test_kernels_are_compiled_once_a_session(pytester: pytest.Pytester) -> None:
    test = """
    seen = []

    @pytest.mark.parametrize("number", [0, 1])
    def test_compiled(fastdrop_compiled, number):
        assert fastdrop_compiled > 0
        seen.append(fastdrop_compiled)
        assert seen == [fastdrop_compiled] * (number + 1)
    """
    assert outcomes(pytester, test) == {"passed": 2}


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    code = "import sys, fastdrop.testing; print(sorted({'numba', 'pytest_benchmark'} & set(sys.modules)))"
    assert run(code) == "[]"
