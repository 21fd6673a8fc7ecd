"""Options of the benchmarks and the facts about the machine that go with every figure."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--log2-sizes", default="16,20,24", help="log2 of the numbers of elements, separated by commas")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "log2_size" in metafunc.fixturenames:
        metafunc.parametrize("log2_size", [int(part) for part in metafunc.config.getoption("--log2-sizes").split(",")])


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


@pytest.fixture(scope="session")
def machine() -> dict[str, Any]:
    """What a figure means nothing without."""
    return {"cpu": _cpu(), "cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}
