"""What the compiler made of the hot loops: vector Philox, vector selection, no branch for each element."""

from __future__ import annotations

import platform
import re
from typing import Any

import numpy as np
import pytest
from strategies import DTYPES
from subprocesses import run

from fastdrop._config import load_numba
from fastdrop.backends.formulas import activations
from fastdrop.backends.formulas.normal import normal_pair

numba = load_numba()
from llvmlite import binding  # noqa: E402

from fastdrop.backends.cpu import _panels, _tile  # noqa: E402

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


def loops(found: list[list[str]], pattern: str, least: int) -> list[list[str]]:
    """Return the blocks that end with a jump and have so many lines like the pattern."""
    return [block for block in found if count(block, pattern) >= least and JUMP.match(block[-1])]


@pytest.fixture(scope="module")
def dropout_blocks() -> list[list[str]]:
    code = ASSEMBLY.format(module="dropout", kernel="dropout_kernel", call="ops.dropout_forward(x, mask)")
    return blocks(run(code, FASTDROP_CACHE="0"))


def test_philox_is_vectorised(dropout_blocks: list[list[str]]) -> None:
    """Ten rounds of two multiplications, for several blocks at once, in one basic block that loops."""
    found = loops(dropout_blocks, r"vpmuludq.*[yz]mm", 17)
    assert found, "no loop holds ten rounds of vector multiplications"
    assert all(count(block, r"\b(i?mul|mulx)[lq]\b") == 0 for block in found)


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


MULTIPLY_ADD = r"vfn?m\w+p[sd]\s.*[yz]mm"
SPILL = r"mm\d+, .*\(|\(%rsp\).*mm\d+"
"""A vector that is stored, or comes from the stack."""


def assert_in_registers(loop: list[str]) -> None:
    """Multiply-adds and loads: no accumulator is stored inside, and nothing is called."""
    assert count(loop, SPILL) == 0
    assert count(loop, r"\bcall") == 0


def test_the_micro_kernel_keeps_its_tile_in_registers() -> None:
    """Within the blocked loops around it, where registers are scarcest."""
    call = "ops.dense_forward(x, np.ones((64, 64), dtype='float32'), None, 0, None, None, False)"
    code = ASSEMBLY.format(module="dense", kernel="product_kernel", call=call)
    inner = [block for block in blocks(run(code, FASTDROP_CACHE="0")) if count(block, MULTIPLY_ADD) >= 40]
    tall = [height * _tile.VECTORS * _tile.UNROLL for height in _tile.HEIGHTS]
    assert {count(block, MULTIPLY_ADD) for block in inner} >= {number for number in tall if number >= 40}
    for block in inner:
        assert_in_registers(block)


def compiled(function: Any, *arguments: Any) -> list[list[str]]:
    """Basic blocks of a function that is compiled for these arguments."""
    dispatcher = numba.njit(error_model="numpy")(function)
    dispatcher(*arguments)
    return blocks(dispatcher.inspect_asm(dispatcher.signatures[0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tiles_of_every_height_stay_in_registers(dtype: np.dtype) -> None:
    product = _tile.tile_product

    def tile(height, depth, a, b, c, rows, columns, accumulate):  # type: ignore[no-untyped-def]
        product(height, depth, a, 0, b, 0, c, 0, 64, rows, columns, accumulate)

    a, b, c = (np.ones(4096, dtype) for _ in range(3))
    inner = loops(compiled(tile, 1, _tile.UNROLL, a, b, c, 1, 1, False), MULTIPLY_ADD, _tile.VECTORS * _tile.UNROLL)
    assert len(inner) >= len(_tile.HEIGHTS)
    assert max(count(loop, MULTIPLY_ADD) for loop in inner) == _tile.MR * _tile.VECTORS * _tile.UNROLL
    for loop in inner:
        assert_in_registers(loop)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("panel", [_panels.A_PANEL, _panels.B_PANEL])
def test_panels_are_packed_by_vectors(panel: int, dtype: np.dtype) -> None:
    """Copied whole, or transposed by shuffles; never an element at a time."""
    copy_panel, transpose_panel = _panels.copy_panel, _panels.transpose_panel

    def copy(source, depth, width, target, height):  # type: ignore[no-untyped-def]
        copy_panel(source, 0, 64, depth, width, target, 0, height, panel)

    def transpose(source, last, depth, target, height):  # type: ignore[no-untyped-def]
        transpose_panel(source, 0, 64, last, depth, target, 0, height, panel)

    source, target = (np.ones(4096, dtype) for _ in range(2))
    moves = r"vmov\w+\s.*[yz]mm"
    for function, wanted, least in ((copy, moves, 2), (transpose, r"v(unpck|perm|shuf|blend|insert)\w+\s.*[yz]mm", _tile.LANES)):
        found = compiled(function, source, 1, 1, target, 1)
        assert loops(found, wanted, least)
        assert all(count(block, r"\bvmovs[sd]\b|\bvp(extr|insr)[bwdq]\b|\bv(extract|insert)ps\b") == 0 for block in found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["gelu", "gelu_grad", "silu_grad", "tanh", "sigmoid_grad", "softplus"])
def test_activations_are_vectorised(name: str, dtype: np.dtype) -> None:
    """A loop over an activation multiplies, adds and divides vectors, and calls nothing."""
    formula = getattr(activations, name)

    def loop(z, y):  # type: ignore[no-untyped-def]
        for j in range(len(z)):
            y[j] = formula(z[j])

    vectors = loops(compiled(loop, np.ones(3, dtype), np.ones(3, dtype)), MULTIPLY_ADD, 6)
    assert vectors, "no loop of vector multiply-adds"
    assert all(count(block, r"vdivp[sd]\s.*[yz]mm") for block in vectors)
    assert all(count(block, r"\bcall") == 0 for block in vectors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normals_are_vectorised(dtype: np.dtype) -> None:
    """A loop over pairs of words takes roots and quotients of vectors, and calls nothing."""
    pair = normal_pair

    def loop(one, w0, w1, n):  # type: ignore[no-untyped-def]
        for i in range(len(w0)):
            n[2 * i], n[2 * i + 1] = pair(one, w0[i], w1[i])

    words = np.ones(3, np.int32)
    vectors = loops(compiled(loop, dtype.type(1), words, words, np.ones(6, dtype)), MULTIPLY_ADD, 6)
    assert vectors, "no loop of vector multiply-adds"
    for wanted in (r"vsqrtp[sd]\s.*[yz]mm", r"vdivp[sd]\s.*[yz]mm"):
        assert all(count(block, wanted) for block in vectors)
    assert all(count(block, r"\bcall") == 0 for block in vectors)


def test_affine_selection_has_no_branch() -> None:
    """64 elements are multiplied, moved and selected in one basic block."""
    code = ASSEMBLY.format(
        module="dropout", kernel="affine_dropout_kernel", call="ops.affine_dropout_forward(x, mask, 0.5, -0.5)"
    )
    vectors = 4 if FEATURES.get("avx512f") else 8
    found = [block for block in blocks(run(code, FASTDROP_CACHE="0")) if count(block, r"vaddps.*[yz]mm") >= vectors]
    assert any(count(block, r"\{%k\d\}|vblendv|vandps|vpand") >= vectors for block in found)
