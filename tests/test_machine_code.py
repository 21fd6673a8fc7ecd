"""What the compiler made of the hot loops: vector Philox, vector selection, no branch for each element."""

from __future__ import annotations

import platform
import re

import numpy as np
import pytest
from strategies import DTYPES
from subprocesses import run

from fastdrop._config import load_numba
from fastdrop.backends.formulas import activations

numba = load_numba()
from llvmlite import binding  # noqa: E402

FEATURES = binding.get_host_cpu_features()

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not FEATURES.get("avx2"), reason="looks for AVX2 or AVX-512 instructions"
)

ASSEMBLY = """
    import numpy as np
    from fastdrop.backends.select import backend
    from fastdrop.backends.cpu import {module}
    from fastdrop.mask import Mask
    from fastdrop.rng import Key

    ops = backend("cpu")
    x = np.ones((8, 64), dtype="float32")
    mask = Mask(0.1, Key(1, 2, 3)).bind(x.shape, as_matrix=True)
    {call}
    kernel = {module}.{kernel}.serial
    print(kernel.inspect_asm(kernel.signatures[0]))
"""
JUMP = re.compile(r"^\s+j\w+\s")
LABEL = re.compile(r"^\S+:")


def blocks(assembly: str) -> list[list[str]]:
    """Split assembly into basic blocks: lines without a label or a jump between them."""
    found: list[list[str]] = [[]]
    for line in assembly.splitlines():
        if LABEL.match(line):
            found.append([])
        found[-1].append(line)
        if JUMP.match(line):
            found.append([])
    return found


def count(block: list[str], pattern: str) -> int:
    return sum(1 for line in block if re.search(pattern, line))


@pytest.fixture(scope="module")
def dropout_blocks() -> list[list[str]]:
    code = ASSEMBLY.format(module="dropout", kernel="dropout_kernel", call="ops.dropout_forward(x, mask)")
    return blocks(run(code, FASTDROP_CACHE="0"))


def test_philox_is_vectorised(dropout_blocks: list[list[str]]) -> None:
    """Ten rounds of two multiplications, for several blocks at once, in one basic block that loops."""
    loops = [block for block in dropout_blocks if count(block, r"vpmuludq.*[yz]mm") >= 17 and JUMP.match(block[-1])]
    assert loops, "no loop holds ten rounds of vector multiplications"
    assert all(count(block, r"\b(i?mul|mulx)[lq]\b") == 0 for block in loops)


def test_selection_has_no_branch(dropout_blocks: list[list[str]]) -> None:
    """64 elements are multiplied and selected in one basic block."""
    vectors = 4 if FEATURES.get("avx512f") else 8
    chosen = [block for block in dropout_blocks if count(block, r"vmulps.*[yz]mm") >= vectors]
    assert chosen, "no block multiplies a decision word's 64 elements"
    wanted = r"\{z\}|vblendv|vandps|vpand|vmaskmov"
    assert any(count(block, wanted) >= vectors for block in chosen)


def test_comparison_packs_its_answers(dropout_blocks: list[list[str]]) -> None:
    """Decisions are compared a vector of bytes at a time, into mask registers or by vpmovmskb."""
    assert any(count(block, r"vpcmp(n?le|nlt|lt|n?eq|gt)?u?b|vpmovmskb|vpcmpu?b") >= 2 for block in dropout_blocks)


def test_the_micro_kernel_keeps_its_tile_in_registers() -> None:
    """Its loop is multiply-adds and loads: no accumulator is stored inside."""
    call = "ops.dense_forward(x, np.ones((64, 64), dtype='float32'), None, 0, None, None, False)"
    code = ASSEMBLY.format(module="dense", kernel="product_kernel", call=call)
    inner = [block for block in blocks(run(code, FASTDROP_CACHE="0")) if count(block, r"vfmadd\w+ps.*[yz]mm") >= 40]
    assert inner, "no unrolled loop of multiply-adds"
    assert all(count(block, r"vmovu?p?s?\s+%[yz]mm\d+, .*\(%rsp") == 0 for block in inner)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gelu", "gelu_grad", "silu_grad", "tanh", "sigmoid_grad", "softplus"])
def test_activations_are_vectorised(name: str, dtype: np.dtype) -> None:
    """A loop over an activation multiplies, adds and divides vectors, and calls nothing."""
    formula = getattr(activations, name)

    def loop(z, y):  # type: ignore[no-untyped-def]
        for j in range(len(z)):
            y[j] = formula(z[j])

    compiled = numba.njit(error_model="numpy")(loop)
    compiled(np.ones(3, dtype), np.ones(3, dtype))
    found = blocks(compiled.inspect_asm(compiled.signatures[0]))
    vectors = [block for block in found if count(block, r"vfn?m\w+p[sd]\s.*[yz]mm") >= 6 and JUMP.match(block[-1])]
    assert vectors, "no loop of vector multiply-adds"
    assert all(count(block, r"vdivp[sd]\s.*[yz]mm") for block in vectors)
    assert all(count(block, r"\bcall") == 0 for block in vectors)
