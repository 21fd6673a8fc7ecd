"""Running Python code in a process of its own: for what a process can do only once, or may not survive."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TIMEOUT_SECONDS = 600
SETTINGS = ("NUMBA_", "FASTDROP_", "PYTEST_")
"""Prefixes of the environment variables that a child does not inherit, but for the cache's folder."""


def environment(**settings: str | Path) -> dict[str, str]:
    """Return this process's environment without settings of Numba, fastdrop and pytest, plus the given ones."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS) or name == "FASTDROP_CACHE_DIR"}
    tests = str(Path(__file__).parent)
    path = os.pathsep.join([tests, str(Path(tests).parent), kept.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**kept, "PYTHONPATH": path, **{name: str(value) for name, value in settings.items()}}


def start(code: str, **settings: str | Path) -> subprocess.Popen[str]:
    """Start Python on the code."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=environment(**settings),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process that must succeed, and return what it wrote to (stdout, stderr)."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
    return out.strip(), err


def run(code: str, **settings: str | Path) -> str:
    """Run the code and return what it printed."""
    return finish(start(code, **settings))[0]
