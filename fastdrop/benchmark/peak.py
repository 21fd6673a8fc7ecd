"""What the machine could do at best: multiply-adds in registers, and copies in cache and from memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from fastdrop import _config
from fastdrop._types import Array
from fastdrop.backends.cpu._jit import kernel
from fastdrop.backends.cpu._vector import LANES, numba
from fastdrop.backends.formulas._formula import multiply_add, with_body
from fastdrop.benchmark.cases import ScaledCopy
from fastdrop.benchmark.peers.numpy import NumPy
from fastdrop.benchmark.peers.own import Fastdrop

types, prange = numba.types, numba.prange

CHAINS = 12
"""Independent sums: enough to hide the latency of a multiply-add on two units, and they fit sixteen registers."""
COUNT = 1 << 18
"""Multiply-adds of each chain in a measurement: some 0.3 ms."""
TRIALS = 20
COPIES = {"core cache": 1 << 16, "shared cache": 1 << 20, "memory": 1 << 24}
"""float32 elements of a copy in a core's own cache (with its target 512 KiB), in that of all cores, and beyond them."""


def _multiply_adds_body(sums: Any, count: int) -> None:
    for _ in range(count):
        np.add(sums * sums, sums, out=sums)


@with_body(_multiply_adds_body)
def multiply_adds(_typing: Any, sums: Any, count: Any) -> Any:
    """``s = s * s + s``, count times, for each vector s of sums (CHAINS vectors), all of them in registers."""
    bits = sums.dtype.bitwidth
    lanes = LANES * 32 // bits
    vector = ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), lanes)
    integer = ir.IntType(64)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        places = [builder.bitcast(builder.gep(data, [integer(i * lanes)]), vector.as_pointer()) for i in range(CHAINS)]
        starts = [builder.load(place, align=bits // 8) for place in places]
        before, body, done = builder.block, builder.append_basic_block("body"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        phis = [builder.phi(vector) for _ in range(CHAINS)]
        left = builder.phi(integer)
        remaining = builder.sub(left, integer(1))
        values = [multiply_add(builder, phi, phi, phi, f"v{lanes}f{bits}") for phi in phis]
        for phi, start, value in zip([left, *phis], [args[1], *starts], [remaining, *values], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, body)
        builder.cbranch(builder.icmp_signed(">", remaining, integer(0)), body, done)
        builder.position_at_end(done)
        for place, value in zip(places, values, strict=True):
            builder.store(value, place, align=bits // 8)
        return context.get_dummy_value()

    return types.void(sums, types.intp), code


@kernel
def multiply_adds_kernel(sums: Array, count: int, threads: int) -> None:
    """Run `multiply_adds` on each thread's row of sums."""
    for t in prange(threads):
        multiply_adds(sums[t], count)


def _best(work: Callable[[], Any]) -> float:
    """Return the least time of the work, in nanoseconds."""
    work()
    times = []
    for _ in range(TRIALS):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return float(min(times))


def flops(dtype: str) -> float:
    """Return the peak of the multiply-adds of all threads in use, in GF/s."""
    threads, lanes = _config.get_num_threads(), LANES * 4 // np.dtype(dtype).itemsize
    sums = np.full((threads, CHAINS * lanes), -0.5, dtype) + np.linspace(0, 0.1, CHAINS * lanes, dtype=dtype)
    nanoseconds = _best(lambda: multiply_adds_kernel(np.inf, sums, COUNT))
    return 2.0 * sums.size * COUNT / nanoseconds


def copy_bandwidth(elements: int) -> float:
    """Return the best bandwidth of a scaled copy of float32 numbers, read and written bytes, in GB/s: ours or NumPy's."""
    case = ScaledCopy(elements)
    prepared = [library.scaled_copy(case) for library in (Fastdrop(), NumPy())]
    return case.nbytes / min(_best(prepare(0)) for prepare in prepared)


def peaks() -> dict[str, float]:
    """Return the machine's best figures with the threads in use: GF/s and GB/s."""
    return {
        "peak float32 GF/s": round(flops("float32"), 1),
        "peak float64 GF/s": round(flops("float64"), 1),
        **{f"copy in {place} GB/s": round(copy_bandwidth(elements), 1) for place, elements in COPIES.items()},
    }
