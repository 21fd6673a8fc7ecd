"""Matrix products: by the vendor's library where a binding is installed, else by a tiled kernel.

`multiply` computes ``c (+)= op(a) @ op(b)`` on row-major matrices. cuBLAS is column-major: there, c^T = op(b)^T op(a)^T.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from functools import cache
from typing import Any, Final, Protocol

import numpy as np

from fastdrop._device import BFLOAT16, DeviceArray
from fastdrop.backends.cuda import _jit
from fastdrop.backends.cuda._arrays import address, compute_dtype
from fastdrop.backends.cuda._jit import SIMULATED, cuda, kernel, stream_handle

TILE: Final = 2 if SIMULATED else 16
"""Rows and columns of the part of c that a block of threads computes."""
SUMS: Final = 2 if SIMULATED else 4
"""Rows and columns of it that each thread computes."""
SIDE: Final = TILE * SUMS


class Multiply(Protocol):
    """``c (+)= op(a) @ op(b)``; all of one dtype, a and b turned around where so said."""

    def __call__(self, a: DeviceArray, turn_a: bool, b: DeviceArray, turn_b: bool, c: DeviceArray, accumulate: bool) -> None:
        """Do it."""


def _tiled(number: Any) -> Any:
    """Make the tiled kernel that adds up in float32 or float64."""

    @kernel
    def tiled_kernel(
        a: Any, turn_a: bool, b: Any, turn_b: bool, c: Any, rows: int, columns: int, depth: int, accumulate: bool
    ) -> None:
        """Blocks of TILE x TILE threads, SUMS x SUMS results each, by way of shared memory; the depth runs in order."""
        left = cuda.shared.array((SIDE, TILE), number)
        right = cuda.shared.array((TILE, SIDE), number)
        x, y = cuda.threadIdx.x, cuda.threadIdx.y
        top, start = cuda.blockIdx.x * SIDE, cuda.blockIdx.y * SIDE  # there may be more blocks along x
        sums = cuda.local.array((SUMS, SUMS), number)
        for i in range(SUMS):
            for j in range(SUMS):
                sums[i, j] = 0.0
        for low in range(0, depth, TILE):
            for i in range(SUMS):
                near, far = i * TILE + y, i * TILE + x
                row, column, k = top + near, start + far, low + x
                left[near, x] = 0.0
                if row < rows and k < depth:
                    left[near, x] = a[k * rows + row] if turn_a else a[row * depth + k]
                k = low + y
                right[y, far] = 0.0
                if k < depth and column < columns:
                    right[y, far] = b[column * depth + k] if turn_b else b[k * columns + column]
            cuda.syncthreads()
            for k in range(TILE):
                for i in range(SUMS):
                    for j in range(SUMS):
                        sums[i, j] += left[y + i * TILE, k] * right[k, x + j * TILE]
            cuda.syncthreads()
        for i in range(SUMS):
            for j in range(SUMS):
                row, column = top + y + i * TILE, start + x + j * TILE
                if row < rows and column < columns:
                    at = row * columns + column
                    c[at] = c[at] + sums[i, j] if accumulate else sums[i, j]

    return tiled_kernel


_tiled_kernels = {np.float32: _tiled(np.float32), np.float64: _tiled(np.float64)}


def multiply_tiled(a: DeviceArray, turn_a: bool, b: DeviceArray, turn_b: bool, c: DeviceArray, accumulate: bool) -> None:
    """See `Multiply`; reads and writes 16-bit floats, adds up in 32 bits."""
    rows, columns = c.shape
    depth = a.shape[0 if turn_a else 1]
    blocks = -(-rows // SIDE), -(-columns // SIDE)
    sizes = rows, columns, depth, accumulate
    _jit.start(_tiled_kernels[compute_dtype(c.dtype)], blocks, (TILE, TILE), a.memory, turn_a, b.memory, turn_b, c.memory, *sizes)


class _Handle:
    """A handle of cuBLAS, destroyed with this object: that is, when its thread ends."""

    def __init__(self, cublas: Any) -> None:
        self.number: int = cublas.create()
        cublas.set_math_mode(self.number, cublas.Math.DISALLOW_REDUCED_PRECISION_REDUCTION)
        weakref.finalize(self, cublas.destroy, self.number).atexit = False  # the driver may be gone by then


class CublasMultiply:
    """`Multiply` by cuBLAS through nvmath-python: float32 in float32 (no tf32), 16-bit floats added up in 32 bits."""

    def __init__(self, cublas: Any, data_type: Any) -> None:
        self._cublas = cublas
        self._handles = threading.local()
        single, double = cublas.ComputeType.COMPUTE_32F, cublas.ComputeType.COMPUTE_64F
        self._types = {
            "float16": (data_type.CUDA_R_16F, single),
            BFLOAT16: (data_type.CUDA_R_16BF, single),
            "float32": (data_type.CUDA_R_32F, single),
            "float64": (data_type.CUDA_R_64F, double),
        }
        self._factors = {kind: (np.zeros(1, kind), np.ones(1, kind)) for kind in (np.float32, np.float64)}

    def _handle(self) -> int:
        """Return this thread's handle, on this thread's stream."""
        handle: _Handle | None = getattr(self._handles, "value", None)
        if handle is None:
            handle = self._handles.value = _Handle(self._cublas)
        self._cublas.set_stream(handle.number, stream_handle())
        return handle.number

    def __call__(self, a: DeviceArray, turn_a: bool, b: DeviceArray, turn_b: bool, c: DeviceArray, accumulate: bool) -> None:
        """See `Multiply`."""
        rows, columns = c.shape
        kind, compute = self._types[c.dtype.name]
        zero, one = self._factors[compute_dtype(c.dtype)]
        operation = self._cublas.Operation
        # b first: what is row by row here is column by column there, and turned around
        self._cublas.gemm_ex(
            self._handle(),
            operation.T if turn_b else operation.N,
            operation.T if turn_a else operation.N,
            columns,
            rows,
            a.shape[0 if turn_a else 1],
            one.ctypes.data,
            address(b),
            kind,
            b.shape[1],
            address(a),
            kind,
            a.shape[1],
            (one if accumulate else zero).ctypes.data,
            address(c),
            kind,
            columns,
            compute,
            self._cublas.GemmAlgo.DEFAULT,
        )


@cache
def best_multiply() -> Multiply:
    """Return the fastest way to multiply that is installed."""
    if SIMULATED:
        return multiply_tiled
    try:
        from nvmath import CudaDataType
        from nvmath.bindings import cublas

        cublas.destroy(cublas.create())  # finds the library only now
    except ImportError:
        return multiply_tiled
    except Exception as error:  # whatever keeps the binding from working: there is another way
        warnings.warn(f"cuBLAS cannot be used, a slower kernel does the products: {error}", stacklevel=2)
        return multiply_tiled
    return CublasMultiply(cublas, CudaDataType)


def multiply(a: Any, b: Any, c: Any, turn_a: bool = False, turn_b: bool = False, accumulate: bool = False) -> None:
    """``c (+)= op(a) @ op(b)``."""
    if c.size and a.size:
        best_multiply()(a, turn_a, b, turn_b, c, accumulate)
    elif c.size and not accumulate:
        c.fill(0.0)
