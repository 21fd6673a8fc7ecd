"""Matrix products on the CPU: the same bits by every way through the kernels and at every vector width; nothing else written."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from assertions import among_nans, assert_not_vacuous, assert_same_bits, guarded
from strategies import DTYPES, random_array, small_integers
from subprocesses import finish, start

from fastdrop import Key, Mask
from fastdrop._config import load_numba
from fastdrop._types import ActivationKind, Array, UpdateKind
from fastdrop.backends import select
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Update

pytestmark = pytest.mark.skipif(bool(load_numba().config.DISABLE_JIT), reason="bits are those of compiled kernels")

KEY = Key(21, 2, 9)
LINEAR, RELU, GELU = ActivationKind.LINEAR, ActivationKind.RELU, ActivationKind.GELU


def contiguous(array: Array) -> Array:
    return np.ascontiguousarray(array)


# Vector widths

EDGES = [1, 2, 3, 5, 6, 7, 12, 13, 16, 17, 65, 129, 257]
WIDTHS: dict[int, str] = {512: "avx512f", 256: "avx2", 128: ""}
"""Bits of a vector, and what a processor needs for it."""


def layer(
    backend: AbstractBackend, extents: tuple[int, int, int], make: Any, dtype: Any, kind: ActivationKind, rate: float
) -> tuple[Array, ...]:
    """Forward and backward pass of a dense layer with dropout on both sides: (y, dx, dweight, dbias)."""
    rows, depth, columns = extents
    shapes = (rows, depth), (depth, columns), (columns,), (rows, columns)
    x, weight, bias, dy = (make(seed, shape, dtype) for seed, shape in enumerate(shapes))
    input_mask, output_mask = (
        Mask(rate, KEY.on(stream), row_offset=5).bind(array.shape, as_matrix=True) for stream, array in enumerate((x, dy))
    )
    y, z = backend.dense_forward(x, weight, bias, kind, input_mask, output_mask, True)
    dweight, dbias = np.ones_like(weight), np.ones_like(bias)
    dx = backend.dense_backward(dy, x, weight, y, z, kind, input_mask, output_mask, True, dweight, dbias, True)
    assert dx is not None
    return y, dx, dweight, dbias


def updated(backend: AbstractBackend, gradient: Array, kind: UpdateKind) -> tuple[Array, ...]:
    """A parameter of ones, and its slots, after an update by a gradient."""
    slots = np.ones((3, *gradient.shape), gradient.dtype)
    rates = np.array((0.1, 0.01, 0.5, 0.25, 1e-7), gradient.dtype)
    backend.update(Update(kind, *slots, rates), gradient)
    return tuple(slots)


def digest_of_edges() -> str:
    """Check layers of small integers against the reference, exactly; return a digest of those of random floats."""
    cpu, reference, digest = select.backend("cpu"), select.backend("reference"), hashlib.sha256()
    kinds, updates, rates = itertools.cycle((LINEAR, RELU, GELU)), itertools.cycle(UpdateKind), itertools.cycle((0.3, 0.8))
    for extents in itertools.product(EDGES, repeat=3):
        for dtype in DTYPES:
            results = layer(cpu, extents, random_array, dtype, next(kinds), next(rates))
            for array in (*results, *updated(cpu, results[2], next(updates))):
                digest.update(array)
        got, wanted = (layer(backend, extents, small_integers, dtype, RELU, 0.5) for backend in (cpu, reference))
        for mine, right in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(mine, right)
        if min(extents) >= 12:
            for right in wanted:
                assert_not_vacuous(right)
    return digest.hexdigest()


def test_the_bits_are_the_same_at_every_vector_width() -> None:
    """With one thread: the kernels that are compiled are the serial ones."""
    from fastdrop.backends.cpu._vector import FEATURES
    from fastdrop.backends.formulas._formula import HAS_FMA

    widths = [bits for bits, feature in WIDTHS.items() if not feature or FEATURES.get(feature)]
    code = """
        from fastdrop.backends.cpu._vector import SIMD_BITS
        from test_products import digest_of_edges
        print(SIMD_BITS, digest_of_edges())
    """
    settings = [{}, *({"FASTDROP_SIMD": str(bits)} for bits in widths[1:])]
    processes = [start(code, NUMBA_NUM_THREADS="1", **setting) for setting in settings]
    found = [finish(process)[0].split() for process in processes]
    assert [int(bits) for bits, _ in found] == widths
    if HAS_FMA:
        assert len({digest for _, digest in found}) == 1


# Ways through the kernels

ROWS = [1, 2, 4, 8, 12, 13, 16, 17, 100]
MOST_ROWS = 200
COLUMNS = [1, 31, 32, 33, 256, 257, 300]
DEPTHS = [1, 4, 5, 255, 256, 257, 300, 1030]


def forward(a: Array, b: Array) -> Array:
    return select.backend("cpu").dense_forward(a, b, None, LINEAR, None, None, False)[0]


def input_gradient(a: Array, b: Array) -> Array:
    """a @ b as dy @ weight.T."""
    x, weight = np.zeros((len(a), b.shape[1]), a.dtype), contiguous(b.T)
    dx = select.backend("cpu").dense_backward(a, x, weight, a, None, LINEAR, None, None, True, None, None, False)
    assert dx is not None
    return dx


def weight_gradient(a: Array, b: Array) -> Array:
    """a @ b as x.T @ dy."""
    dweight = np.full((len(a), b.shape[1]), np.nan, a.dtype)
    select.backend("cpu").dense_backward(b, contiguous(a.T), dweight, b, None, LINEAR, None, None, False, dweight, None, False)
    return dweight


PRODUCTS: list[Callable[[Array, Array], Array]] = [forward, input_gradient, weight_gradient]


NONZERO = [1, 0.3]
"""The share of elements of the first factor that are not zero: all, or few enough to be listed."""


def factors(rows: int, depth: int, columns: int, dtype: np.dtype, nonzero: float = 1) -> tuple[Array, Array]:
    """Random matrices with rows and columns whose products are negative and too small for a number.

    Where some elements of the first one are zero, a row here and there has none, and one has nothing else.
    """
    tiny = dtype.type(1e-30 if dtype == np.float32 else 1e-200)
    a, b = random_array(0, (rows, depth), dtype), random_array(1, (depth, columns), dtype)
    a[::3], b[:, ::5] = np.abs(a[::3]) * tiny, -np.abs(b[:, ::5]) * tiny
    if nonzero < 1:
        zero = np.random.default_rng(2).random(a.shape) >= nonzero
        zero[30::50], zero[7::50] = False, True
        a[zero] = 0
    return a, b


def test_rows_of_few_nonzero_elements_are_listed() -> None:
    """The tests below would otherwise say nothing of lists."""
    from fastdrop.backends.cpu._tile import MR
    from fastdrop.backends.cpu.dense import FULL, KC, LEAST_LISTED, list_panel

    @load_numba().njit
    def list_it(panel: Array, line: Array) -> None:
        list_panel(panel, 0, KC, MR, line)

    assert max(COLUMNS) > LEAST_LISTED
    for nonzero, listed in zip(NONZERO, (False, True), strict=True):
        a, _ = factors(MR, KC, 1, np.dtype(np.float32), nonzero)
        panel, line = np.zeros(KC * MR + MR, np.float32), np.empty(KC * (MR + 2), np.float32)
        panel[: a.size] = a.T.ravel()
        list_it(panel, line)
        assert (panel[KC * MR] != FULL) == listed
        if listed:
            np.testing.assert_array_equal(panel[KC * MR :], np.count_nonzero(a, axis=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nonzero", NONZERO)
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_row_of_a_product_has_the_same_bits_in_any_company(depth: int, nonzero: float, dtype: np.dtype) -> None:
    """Of few rows or many, of few columns or many, as the forward pass or either gradient does it."""
    a, b = factors(MOST_ROWS, depth, max(COLUMNS), dtype, nonzero)
    whole = forward(a, b)
    assert_not_vacuous(whole)
    assert not whole[0, 0]
    for columns in COLUMNS:
        part = contiguous(b[:, :columns])
        for product, rows in itertools.product(PRODUCTS, (*ROWS, MOST_ROWS)):
            assert_same_bits(product(contiguous(a[:rows]), part), whole[:rows, :columns])


@pytest.mark.parametrize(("nonzero", "columns"), [(1, 33), (0.3, 160)])
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_that_is_packed_in_several_pieces(
    product: Callable[[Array, Array], Array], nonzero: float, columns: int
) -> None:
    """More rows, and deeper, than are packed at a time."""
    a, b = factors(1000, 1030, columns, np.dtype(np.float32), nonzero)
    whole = product(a, b)
    assert_not_vacuous(whole)
    for first in (0, 300, 900):
        assert_same_bits(whole[first : first + 100], product(a[first : first + 100], b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("input_rate", [0.2, 0.7])
@pytest.mark.parametrize("kind", [RELU, GELU])
@pytest.mark.parametrize("depth", DEPTHS)
def test_a_row_of_a_masked_layer_has_the_same_bits_in_any_company(
    depth: int, kind: ActivationKind, input_rate: float, dtype: np.dtype
) -> None:
    cpu = select.backend("cpu")
    for columns in COLUMNS:
        x, weight = factors(MOST_ROWS, depth, columns, dtype)
        bias = random_array(2, (columns,), dtype)

        def forward(rows: int, x: Array = x, weight: Array = weight, bias: Array = bias) -> Array:
            masks = (
                Mask(rate, KEY.on(stream)).bind((rows, width), as_matrix=True)
                for stream, (rate, width) in enumerate(((input_rate, x.shape[1]), (0.5, len(bias))))
            )
            return cpu.dense_forward(x[:rows], weight, bias, kind, *masks, False)[0]

        whole = forward(MOST_ROWS)
        assert_not_vacuous(whole)
        for rows in ROWS:
            assert_same_bits(forward(rows), whole[:rows])


# What is written, and what is read

EDGE_ROWS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 24, 25, 37]
EDGE_COLUMNS = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 129, 257]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("depth", [1, 7, 8, 259])
def test_nothing_beyond_the_edges_is_written_or_read(depth: int, zeros: bool, dtype: np.dtype) -> None:
    """Integers: sums are exact, so that every element has one right value."""
    cpu = select.backend("cpu")
    for rows, columns in itertools.product(EDGE_ROWS, EDGE_COLUMNS):
        shapes = (rows, depth), (depth, columns), (columns,)
        x, weight, bias = (among_nans(small_integers(seed, shape, dtype)) for seed, shape in enumerate(shapes))
        if zeros:
            x[random_array(3, x.shape, dtype) < 0.4] = 0
        for row in (None, bias):
            y, check = guarded((rows, columns), dtype)
            assert cpu.dense_forward(x, weight, row, LINEAR, None, None, False, y)[0] is y
            check()
            np.testing.assert_array_equal(y, x @ weight if row is None else x @ weight + row)
        dweight, check = guarded((rows, columns), dtype)
        dbias, check_bias = guarded((columns,), dtype)
        arguments = weight, among_nans(x.T), dweight, weight, None, LINEAR, None, None
        for accumulate in (False, True):
            dx = cpu.dense_backward(*arguments, True, dweight, dbias, accumulate)
            check()
            check_bias()
            times = 1 + accumulate
            np.testing.assert_array_equal(dweight, times * (x @ weight))
            np.testing.assert_array_equal(dbias, times * weight.sum(axis=0))
        assert dx is not None
        assert not np.isnan(dx).any()
