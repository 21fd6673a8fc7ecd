"""Compiles every CUDA kernel to PTX, without a GPU: ``python bench/gpu_compile.py``.

It needs numba-cuda with its compiler and ml_dtypes, or numba-cuda-mlir.

Arrays hold no memory, and a launch compiles the kernel for its arguments instead of running it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

os.environ["NUMBA_ENABLE_CUDASIM"] = "0"  # before anything imports Numba

CAPABILITY = (8, 0)
PARAMETER_BYTES = 4096
"""What the arguments of a kernel may take on every GPU."""


class Memory:
    """Stands for device memory: a dtype and a size."""

    def __init__(self, size: int, dtype: Any) -> None:
        self.size, self.dtype = size, np.dtype(dtype)

    def __getitem__(self, part: slice) -> Memory:
        return Memory(len(range(*part.indices(self.size))), self.dtype)

    def copy_to_host(self, stream: Any = 0) -> np.ndarray:
        return np.zeros(self.size, self.dtype)


class Device(NamedTuple):
    """The device that compiled code is for."""

    compute_capability: tuple[int, int] = CAPABILITY


class Compiler:
    """Compiles what would be launched, once for each kernel and types."""

    def __init__(self, cuda: Any, types: Any, from_dtype: Any) -> None:
        self.cuda, self.types, self.from_dtype = cuda, types, from_dtype
        self.code: dict[tuple[str, Any], str] = {}

    def type_of(self, value: Any) -> Any:
        """Return the type that a kernel's argument has."""
        match value:
            case Memory():
                return self.types.Array(self.from_dtype(value.dtype), 1, "C")
            case tuple():
                return self.types.BaseTuple.from_types([self.type_of(each) for each in value])
            case bool():
                return self.types.boolean
            case int():
                return self.types.int64
            case float():
                return self.types.float64
        return self.from_dtype(np.dtype(type(value)))

    def start(self, kernel: Any, _grid: Any, _block: Any, *arguments: Any) -> None:
        """Compile in place of a launch."""
        signature = tuple(map(self.type_of, arguments))
        key = kernel.py_func.__qualname__, signature
        if key not in self.code:
            self.code[key] = self.cuda.compile_ptx(kernel.py_func, signature, cc=CAPABILITY)[0]


@contextmanager
def compiling() -> Iterator[tuple[Compiler, Any]]:
    """Give a compiler, and a CUDA backend whose launches go to it."""
    from fastdrop.backends.cuda import _arrays, _jit, _products, backend

    if _jit.IS_SUCCESSOR:
        from numba_cuda_mlir import tools
        from numba_cuda_mlir.numba_cuda import types
        from numba_cuda_mlir.numba_cuda.np.numpy_support import from_dtype

        device = mock.patch.object(tools, "_cached_cc", CAPABILITY)
    else:
        from numba import types
        from numba.cuda import dispatcher
        from numba.cuda.np.numpy_support import from_dtype

        device = mock.patch.object(dispatcher, "get_current_device", Device)
    compiler = Compiler(_jit.cuda, types, from_dtype)
    with (
        device,
        mock.patch.object(_jit, "start", compiler.start),
        mock.patch.object(_products, "best_multiply", return_value=_products.multiply_tiled),
        mock.patch.object(_jit.cuda, "device_array", lambda size, dtype, stream=0: Memory(size, dtype)),
        mock.patch.object(_jit.cuda, "to_device", lambda array, stream=0: Memory(array.size, array.dtype)),
        mock.patch.object(backend, "aligned", return_value=not _jit.IS_SUCCESSOR),
        mock.patch.object(backend, "check_gpu"),
    ):
        _arrays.nothing.cache_clear()
        yield compiler, backend.CudaBackend()


def compile_all() -> dict[tuple[str, Any], str]:
    """Return the PTX of every kernel for float32, float64 and float16, and of what layers need for bfloat16."""
    from fastdrop import warm
    from fastdrop._types import UpdateKind
    from fastdrop.backends.cuda import _jit, _matrices
    from fastdrop.backends.operands import Update

    with compiling() as (compiler, backend):
        for dtype in (np.float32, np.float64, np.float16):
            warm.run_all(backend, warm.SMALL, np.dtype(dtype))
        for _ in range(_matrices.MOST_TOGETHER):
            value = backend.zeros((2,), np.dtype(np.float64))
            backend.update_later(Update(UpdateKind.ADAM, *[value] * 3, np.full(5, 0.1)), value)
        backend.finish_updates()
        if not _jit.IS_SUCCESSOR:
            from ml_dtypes import bfloat16

            warm.run_layers(backend, warm.SMALL, np.dtype(bfloat16))
        return compiler.code


def main() -> None:
    begun = time.perf_counter()
    code = compile_all()
    halves = [ptx for (name, types), ptx in code.items() if name == "plain_kernel"]
    if not all("ld.global.v" in ptx and "st.global.v" in ptx for ptx in halves):
        sys.exit("plain_kernel does not access 16 bytes at a time")
    parameter = re.compile(r"\.param .*?\.[buf](\d+) \w+(?:\[(\d+)\])?")
    for ptx in code.values():
        for entry in re.findall(r"\.entry \w+\((.*?)\)", ptx, re.DOTALL):
            sizes = [int(bits) // 8 * int(count or 1) for bits, count in parameter.findall(entry)]
            if sum(sizes) > PARAMETER_BYTES:
                sys.exit(f"a kernel takes {sum(sizes)} bytes of arguments")
    print(f"{len(code)} kernels compiled in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
