"""Kept units through the seam: which they are, compact matrices of them, and the way back, on every backend."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from assertions import assert_near, assert_same_bits, guarded
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, dtypes, keys, random_array, row_offsets
from subprocesses import run

from fastdrop import Key, Mask
from fastdrop._types import ActivationKind, Array, Indices, Shape, UpdateKind
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import PARTS_AT_ONCE, Part, Update

KINDS = {UpdateKind.SGD: 2, UpdateKind.MOMENTUM: 3, UpdateKind.NESTEROV: 3, UpdateKind.ADAM: 5}
"""How many rates each kind has."""

extents = st.sampled_from([1, 2, 5, 16, 17, 65, 130])


@st.composite
def choices(draw: st.DrawFn, count: int) -> Indices | None:
    """Ascending numbers below count: any of them, none, or all, which may be said by None."""
    if draw(st.booleans()):
        return None
    return np.array(sorted(draw(st.sets(st.integers(0, count - 1), max_size=count))), dtype=np.int64)


@st.composite
def submatrices(draw: st.DrawFn) -> tuple[Shape, Indices | None, Indices | None]:
    """Shape of a matrix, rows and columns of it."""
    shape = draw(extents), draw(extents)
    return shape, draw(choices(shape[0])), draw(choices(shape[1]))


def all_of(indices: Indices | None, count: int) -> Indices:
    return np.arange(count) if indices is None else indices


@given(
    keys, st.integers(1, 40), st.sampled_from([3, 64, 65, 200]), st.sampled_from([1, 7, 16, "batch"]), st.booleans(), row_offsets
)
def test_units_are_those_that_the_mask_keeps(
    backend: AbstractBackend, key: Key, rows: int, columns: int, shared_rows: int | str, fixed: bool, row_offset: int
) -> None:
    mask = Mask(0.4, key, shared_rows=shared_rows, fixed_count=fixed, row_offset=row_offset)
    units = backend.units(mask.bind((rows, columns), as_matrix=True))
    keep = mask.to_array((rows, columns))
    assert units.bounds[0] == 0
    assert units.bounds[-1] == rows
    if shared_rows == "batch":
        assert units.bounds == (0, rows)
    else:
        numbers = (np.arange(rows) + row_offset % int(shared_rows)) // int(shared_rows)
        assert units.bounds == (0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), rows)
    for (low, high), kept in zip(pairwise(units.bounds), units.kept, strict=True):
        assert kept is not None
        assert kept.dtype == np.int64
        for row in range(low, high):
            np.testing.assert_array_equal(kept, np.flatnonzero(keep[row]))


@given(submatrices(), dtypes, st.sampled_from([1.0, 1.25, 3.0]))
def test_gather(
    backend: AbstractBackend, place: tuple[Shape, Indices | None, Indices | None], dtype: np.dtype, scale: float
) -> None:
    shape, rows, columns = place
    x = random_array(1, shape, dtype)
    wanted = x[np.ix_(all_of(rows, shape[0]), all_of(columns, shape[1]))] * dtype.type(scale)
    got = backend.gather(x, rows, columns, scale)
    assert_same_bits(got, wanted)
    assert got.flags.c_contiguous
    assert not np.may_share_memory(got, x)


@given(st.integers(1, 40), submatrices(), dtypes)
def test_a_packed_part_of_a_weight_stands_for_it(
    backend: AbstractBackend, count: int, place: tuple[Shape, Indices | None, Indices | None], dtype: np.dtype
) -> None:
    shape, rows, columns = place
    weight = random_array(1, shape, dtype)
    part = backend.gather(weight, rows, columns)
    packed = backend.pack_weight(weight, rows, columns)
    assert packed.shape == part.shape
    x, arguments = random_array(2, (count, len(part)), dtype), (None, ActivationKind.TANH, None, None, False)
    assert_same_bits(backend.dense_forward(x, packed, *arguments)[0], backend.dense_forward(x, part, *arguments)[0])


@st.composite
def kept_groups(draw: st.DrawFn) -> tuple[Shape, list[tuple[int, Indices | None, Indices | None]]]:
    """Shape of a weight; for each group its rows of x, and what it takes of the weight."""
    shape = draw(extents), draw(extents)
    group = st.tuples(st.sampled_from([1, 3, 12, 13, 40]), choices(shape[0]), choices(shape[1]))
    return shape, draw(st.lists(group, min_size=1, max_size=6))


@given(
    kept_groups(),
    dtypes,
    st.booleans(),
    st.sampled_from([None, 0.5]),
    st.sampled_from([ActivationKind.RELU, ActivationKind.TANH]),
)
def test_groups_are_done_as_each_by_itself(
    backend: AbstractBackend,
    place: tuple[Shape, list[tuple[int, Indices | None, Indices | None]]],
    dtype: np.dtype,
    biased: bool,
    rate: float | None,
    activation: ActivationKind,
) -> None:
    shape, groups = place
    weight, bias = random_array(1, shape, dtype), random_array(2, shape[1:], dtype) if biased else None
    mask = None if rate is None else Mask(rate, Key(1, 0, 0)).bind((1, 1), as_matrix=True)
    rows, columns = [rows for _, rows, _ in groups], [columns for *_, columns in groups]
    xs = [random_array(3 + i, (n, len(all_of(kept, shape[0]))), dtype) for i, (n, kept, _) in enumerate(groups)]
    ys = backend.dense_forward_groups(xs, weight, bias, activation, mask, rows, columns)
    assert len(ys) == len(groups)
    for x, y, some_rows, some_columns in zip(xs, ys, rows, columns, strict=True):
        part, b = backend.gather(weight, some_rows, some_columns), None if bias is None else bias[all_of(some_columns, shape[1])]
        factor = None if mask is None else mask.factor(len(x), part.shape[1])
        assert_same_bits(y, backend.dense_forward(x, part, b, activation, None, factor, False)[0])


def test_groups_have_the_same_bits_for_1_2_3_and_5_threads() -> None:
    """Also those that are larger than a thread's memory for them."""
    code = """
    import numpy as np
    import fastdrop as fd
    from fastdrop._types import ActivationKind
    from fastdrop.backends import select

    rng, ops = np.random.default_rng(0), select.backend("cpu")
    weight, bias = rng.standard_normal((300, 500), "float32"), rng.standard_normal(500, "float32")
    for heights in ((40,), (40, 64), (7, 40, 40, 1, 33, 64, 5), (9000, 40)):
        rows = [np.flatnonzero(rng.random(300) < 0.5) for _ in heights]
        columns = [np.flatnonzero(rng.random(500) < 0.5) for _ in heights]
        xs = [rng.standard_normal((height, len(each)), "float32") for height, each in zip(heights, rows)]
        found = set()
        for count in (1, 2, 3, 5):
            fd.set_num_threads(count)
            ys = ops.dense_forward_groups(xs, weight, bias, ActivationKind.RELU, None, rows, columns)
            found.add(b"".join(y.tobytes() for y in ys))
        print(len(found))
    """
    assert run(code, NUMBA_NUM_THREADS="5").split() == ["1"] * 4


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"big-endian"}))
def test_gather_from_any_layout(backend: AbstractBackend, layout: str) -> None:
    x, rows = random_array(1, (9, 70)), np.array([0, 3, 8])
    assert_same_bits(backend.gather(LAYOUTS[layout](x), rows, None), x[rows])


@given(submatrices(), dtypes, st.sampled_from([1.0, 1.25, 3.0]), st.booleans())
def test_scatter(
    backend: AbstractBackend,
    place: tuple[Shape, Indices | None, Indices | None],
    dtype: np.dtype,
    scale: float,
    accumulate: bool,
) -> None:
    shape, rows, columns = place
    at = np.ix_(all_of(rows, shape[0]), all_of(columns, shape[1]))
    before = random_array(1, shape, dtype)
    values = random_array(2, before[at].shape, dtype)
    out, check = guarded(shape, dtype)
    out[...] = before
    backend.scatter(values, rows, columns, out, accumulate, scale)
    check()
    scaled = values.astype(np.float64) * float(dtype.type(scale))
    wanted = before.astype(np.float64)
    wanted[at] = before[at] + scaled if accumulate else scaled
    assert_near(out, wanted, 4 * float(np.finfo(dtype).eps) * (np.abs(wanted).max() + 4 * scale))
    elsewhere = np.ones(shape, dtype=np.bool_)
    elsewhere[at] = False
    assert_same_bits(out[elsewhere], before[elsewhere])


def make_update(kind: UpdateKind, shape: Shape, dtype: np.dtype, decay: float) -> Update:
    rates = np.array([0.1, decay, 0.9, 0.01, 1e-7][: KINDS[kind]], dtype)
    value, first, second = (random_array(i, shape, dtype) for i in range(3))
    return Update(kind, value, first, np.abs(second), rates)


@given(submatrices(), dtypes, st.sampled_from(sorted(KINDS)), st.sampled_from([0.0, 0.01]))
def test_update_by_a_part_is_that_by_the_whole_with_zeros(
    backend: AbstractBackend,
    place: tuple[Shape, Indices | None, Indices | None],
    dtype: np.dtype,
    kind: UpdateKind,
    decay: float,
) -> None:
    check_update(backend, *place, dtype, kind, decay)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("height", [1000, 30_000])
def test_update_of_many_short_rows(backend: AbstractBackend, height: int, kind: UpdateKind) -> None:
    """Several of them are updated together, and of 30,000 by several threads."""
    rows = np.flatnonzero(random_array(3, (height,)) > 0.3)
    check_update(backend, (height, 10), rows, np.array([0, 3, 4, 8]), np.dtype(np.float32), kind, 0.01)


def check_update(
    backend: AbstractBackend,
    shape: Shape,
    rows: Indices | None,
    columns: Indices | None,
    dtype: np.dtype,
    kind: UpdateKind,
    decay: float,
) -> None:
    at = np.ix_(all_of(rows, shape[0]), all_of(columns, shape[1]))
    whole = np.zeros(shape, dtype)
    whole[at] = random_array(7, whole[at].shape, dtype)
    got, wanted = make_update(kind, shape, dtype, decay), make_update(kind, shape, dtype, decay)
    backend.update_parts(got, [Part(whole[at], rows, columns)])
    backend.update(wanted, whole)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        assert_same_bits(one, other)


@st.composite
def some_parts(draw: st.DrawFn) -> tuple[Shape, list[tuple[Indices | None, Indices | None]]]:
    """Shape of a matrix, rows and columns of none to many of its parts."""
    shape = draw(extents), draw(extents)
    each = st.tuples(choices(shape[0]), choices(shape[1]))
    return shape, draw(st.lists(each, max_size=2 * PARTS_AT_ONCE + 1))


@given(some_parts(), dtypes, st.sampled_from(sorted(KINDS)), st.booleans())
def test_parts_add_up(
    backend: AbstractBackend,
    places: tuple[Shape, list[tuple[Indices | None, Indices | None]]],
    dtype: np.dtype,
    kind: UpdateKind,
    accumulate: bool,
) -> None:
    """Into an array, and for an update by their sum; in their order, so that the bits are those of plain additions."""
    shape, chosen = places
    total, parts = np.zeros(shape, dtype), []
    out, check = guarded(shape, dtype)
    out[...] = random_array(5, shape, dtype)
    added = out.copy() if accumulate else np.zeros(shape, dtype)
    for i, (rows, columns) in enumerate(chosen):
        at = np.ix_(all_of(rows, shape[0]), all_of(columns, shape[1]))
        parts.append(Part(random_array(10 + i, total[at].shape, dtype), rows, columns))
        total[at] += parts[-1].gradient
        added[at] += parts[-1].gradient
    backend.add_parts(parts, out, accumulate)
    check()
    assert_same_bits(out, added)
    got, wanted = make_update(kind, shape, dtype, 0.01), make_update(kind, shape, dtype, 0.01)
    backend.update_parts(got, parts)
    backend.update(wanted, total)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_update_of_a_bias(backend: AbstractBackend, kind: UpdateKind, dtype: np.dtype) -> None:
    kept, whole = np.array([1, 4, 64]), np.zeros(70, dtype)
    whole[kept] = 1.5
    got, wanted = make_update(kind, (70,), dtype, 0.0), make_update(kind, (70,), dtype, 0.0)
    backend.update_parts(got, [Part(whole[kept][None], None, kept)])
    backend.update(wanted, whole)
    assert_same_bits(got.value, wanted.value)


def test_plain_sgd_leaves_rows_without_a_gradient_alone(backend: AbstractBackend) -> None:
    """They stay as they are, whatever they hold."""
    update = make_update(UpdateKind.SGD, (6, 40), np.dtype(np.float32), 0.0)
    update.value[[1, 3]] = [[np.nan], [3e38]]
    before, rows = update.value.copy(), np.array([0, 5])
    backend.update_parts(update, [Part(np.ones((2, 40), np.float32), rows, None)])
    others = np.setdiff1d(np.arange(6), rows)
    assert_same_bits(update.value[others], before[others])
    assert (update.value[rows] != before[rows]).all()


def large(backend: AbstractBackend) -> Array:
    """All results of a matrix that is worth several threads."""
    x, kept = random_array(0, (700, 600)), np.arange(0, 600, 3)
    compact = backend.gather(x, kept, kept, 1.5)
    out = np.zeros_like(x)
    backend.scatter(compact, kept, kept, out, True)
    parts = [Part(compact, kept, kept), Part(x, None, None)]
    backend.add_parts(parts, out, True)
    update = make_update(UpdateKind.MOMENTUM, x.shape, x.dtype, 0.01)
    backend.update_parts(update, parts)
    return np.stack([out, update.value, update.first])


def test_parallel_kernels(backend: AbstractBackend, reference: AbstractBackend) -> None:
    assert_near(large(backend), large(reference), 1e-5)
