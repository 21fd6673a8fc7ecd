"""numba.cuda from whichever package has it, and how kernels are written and launched."""

from __future__ import annotations

import operator
import os
import threading
import warnings
from collections.abc import Callable
from importlib import import_module, util
from typing import Any, Final, TypeVar

import numpy as np

from fastdrop._config import load_numba
from fastdrop.backends.formulas._formula import COMPILED, PLAIN, Target
from fastdrop.errors import BackendError

Function = TypeVar("Function", bound=Callable[..., Any])

PACKAGES: Final = {"numba_cuda": "numba.cuda", "numba_cuda_mlir": "numba_cuda_mlir.cuda"}
"""Distributions that have the kernel interface, and where: numba-cuda, or else its successor."""
HINT = '(hint: pip install "fastdrop-nn[cuda13]", or [cuda12] for a driver older than 580)'

numba = load_numba()
SIMULATED: Final = bool(numba.config.ENABLE_CUDASIM)
"""Whether NUMBA_ENABLE_CUDASIM asks for Numba's simulator: kernels in plain Python, each thread of a block a Python thread."""


def _load() -> Any:
    """Import numba.cuda; the one that Numba itself carries is good for its simulator alone."""
    for package, module in PACKAGES.items():
        if util.find_spec(package) is not None and not (SIMULATED and package == "numba_cuda_mlir"):
            return import_module(module)
    if SIMULATED:
        return import_module("numba.cuda")
    raise BackendError(f"the CUDA backend needs the package numba-cuda {HINT}")


cuda = _load()
warnings.filterwarnings("ignore", message="Grid size .* will likely result in GPU under-utilization")  # of small arrays

IS_SUCCESSOR: Final = cuda.__name__.startswith("numba_cuda_mlir")


def _target() -> Target:
    if IS_SUCCESSOR:
        from fastdrop.backends.cuda._mlir import MLIR

        return MLIR
    return PLAIN if SIMULATED else COMPILED


TARGET: Final = _target()
"""What formulas are made for."""

BLOCK: Final = 2 if SIMULATED else 256
"""Threads of a block."""
MOST_BLOCKS: Final = 2 if SIMULATED else 1 << 20
"""Blocks of a launch; kernels whose work is longer go on in steps of a whole launch."""


def kernel(function: Function) -> Function:
    """Compile a kernel when it is first launched, for each set of dtypes."""
    return cuda.jit(function)  # type: ignore[no-any-return]


def device(function: Function) -> Function:
    """Compile a function for use inside kernels."""
    return cuda.jit(device=True)(function)  # type: ignore[no-any-return]


rounded = TARGET.by_dtype(TARGET.formula(lambda _like, x: np.float32(x)), TARGET.formula(lambda _like, x: np.float64(x)))
"""``rounded(like, x)`` is x in the dtype of the first argument."""


multiplied: Any = operator.mul
"""``multiplied(x, y)`` is ``x * y`` rounded by itself, where a compiler would make one operation of it and an addition."""
if not (SIMULATED or IS_SUCCESSOR):
    multiplied = TARGET.by_dtype(cuda.libdevice.fmul_rn, cuda.libdevice.dmul_rn)

wide: Any = float if SIMULATED else TARGET.formula(lambda x: np.float64(x))  # noqa: PLW0108  (a plain function)
"""``wide(x)`` is x in binary64: in a compiled kernel, float(x) would be x of its own dtype."""


class _Current(threading.local):
    stream: Any = 0
    handle: int = 0
    owner: Any = None


_current = _Current()


def stream() -> Any:
    """Return the stream on which this thread's kernels run: that of the caller's last array, the default stream at first."""
    return _current.stream


def use_stream(number: int, owner: Any = None) -> None:
    """Run this thread's kernels on the stream with that handle, which its owner keeps alive; 0 is the default stream."""
    if number != _current.handle:
        _current.stream, _current.handle = cuda.external_stream(number) if number else 0, number
    _current.owner = owner


def stream_handle() -> int:
    """Return the handle of `stream()`."""
    return _current.handle


def launch(function: Any, threads: int, *arguments: Any) -> None:
    """Run a kernel with at least so many threads, or as many as there may be."""
    launch_blocks(function, -(-threads // BLOCK), *arguments)


def launch_blocks(function: Any, blocks: int, *arguments: Any) -> None:
    """Run a kernel with so many blocks, or as many as there may be."""
    if blocks:
        start(function, min(MOST_BLOCKS, blocks), BLOCK, *arguments)


def start(function: Any, grid: Any, block: Any, *arguments: Any) -> None:
    """Run a kernel on this thread's stream: the one place where that is done."""
    function[grid, block, stream()](*arguments)


def check_gpu() -> None:
    """Raise BackendError unless there is a GPU that can be used."""
    if SIMULATED:
        return
    try:
        cuda.current_context()
    except Exception as error:
        reason = " ".join(str(error).split())
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        where = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"
        hint = "(hint: `nvidia-smi` shows whether there is a driver and a GPU; NUMBA_ENABLE_CUDASIM=1 simulates one, slowly)"
        raise BackendError(f"the CUDA backend found no GPU that it can use{where}: {reason} {hint}") from error
