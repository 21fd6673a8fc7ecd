"""Fixtures and the hypothesis profile that every test file shares."""

from __future__ import annotations

import os

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")  # before anything imports Numba; 0 is for a machine with a GPU

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from device import SIMULATED, OnDevice

from fastdrop.backends import select
from fastdrop.backends.base import AbstractBackend

BACKENDS = ["reference", "cpu", "cuda"]
CUDA_TESTS = {"test_signatures_are_the_same", "test_a_backend_adds_no_public_operation", "test_bernoulli", "test_rows"}
"""Which the CUDA backend always does, besides its own in test_cuda.py; FASTDROP_TEST_CUDA=1 lets it do all."""

hypothesis.settings.register_profile(
    "fastdrop",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
hypothesis.settings.load_profile("fastdrop")


def pytest_configure(config: pytest.Config) -> None:
    """With the JIT off, and simulated, kernels are scalar NumPy code, which warns of overflow and NaN where others are silent."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        config.addinivalue_line("filterwarnings", "ignore:.* encountered in:RuntimeWarning")
    if not SIMULATED:
        config.addinivalue_line("filterwarnings", "ignore:Grid size .* will likely result in GPU under-utilization")
        config.addinivalue_line("filterwarnings", "ignore:.*NVRTC")
    else:
        config.addinivalue_line("filterwarnings", "ignore:.* encountered in scalar:RuntimeWarning")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Simulated kernels are slow: leave out most tests on the CUDA backend unless they are asked for."""
    if os.environ.get("FASTDROP_TEST_CUDA") == "1":
        return
    left = [item for item in items if _on_cuda(item) and not _is_quick(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


def _is_quick(item: pytest.Item) -> bool:
    return getattr(item, "originalname", "") in CUDA_TESTS


def _on_cuda(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("backend") == "cuda"


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> AbstractBackend:
    """Each backend in turn, through the seam."""
    found = select.backend(request.param)
    return OnDevice(found) if request.param == "cuda" else found


@pytest.fixture(scope="module")
def reference() -> AbstractBackend:
    return select.backend("reference")


@pytest.fixture(scope="module")
def on_backend(backend: AbstractBackend) -> Iterator[AbstractBackend]:
    """The functional operations, done by each backend in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "default_backend", lambda: backend)
        yield backend


@pytest.fixture
def without_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write many files, none of which has to survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(folder: Path) -> str:
    """A table of two classes that are easy to tell apart."""
    x = np.random.default_rng(3).normal(size=(60, 4))
    rows = [",".join([*(f"{value:.4f}" for value in row), "left" if row[0] + row[1] < 0 else "right"]) for row in x]
    (folder / "table.csv").write_text("a,b,c,d,class\n" + "\n".join(rows) + "\n")
    return "table.csv"
