"""Masks: every kind against the contract written out element by element, exact rates, shared rows, cut batches."""

from __future__ import annotations

import math
import warnings

import numpy as np
import oracle
import pytest
from assertions import assert_plausible, assert_varied
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EDGES, keys, masks, rates, shapes

from fastdrop import Key, Mask
from fastdrop._types import BoolArray, MaskKind, Shape
from fastdrop.errors import AllDroppedWarning
from fastdrop.mask import bernoulli_scale, threshold_of

KEY = Key(12, 3, 4)

pytestmark = pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")


def _by_definition(mask: Mask, shape: Shape) -> BoolArray:
    """The mask of an array of `shape`, from the words of the contract alone."""
    key = (mask.key.seed, mask.key.stream, mask.key.step)
    noise = [extent if e is None else e for e, extent in zip(mask.noise_shape or shape, shape, strict=True)]
    row_size = math.prod(noise[1:])
    batch = mask.shared_rows == "batch" or (mask.noise_shape is not None and mask.noise_shape[0] == 1)
    rows: dict[int, list[bool]] = {}
    keep = np.empty((shape[0], row_size), dtype=np.bool_)
    for r in range(shape[0]):
        m = 0 if batch else oracle.mask_row(r, mask.row_offset, mask.shared_rows)
        if m not in rows:
            fixed = mask.fixed_count and 0 < mask.rate < 1
            rows[m] = (oracle.fixed_count_row if fixed else oracle.bernoulli_row)(key, mask.rate, m, row_size)
        keep[r] = rows[m]
    return np.broadcast_to(keep.reshape(shape[0], *noise[1:]), shape)


small_shapes = st.lists(st.integers(0, 7) | st.just(17), min_size=1, max_size=4).filter(lambda s: math.prod(s) <= 300).map(tuple)


@given(st.data(), small_shapes)
@settings(max_examples=150)
def test_to_array_is_the_contract(data: st.DataObject, shape: Shape) -> None:
    mask = data.draw(masks(shape))
    keep = mask.to_array(shape)
    assert keep.dtype == np.bool_
    assert keep.flags.c_contiguous
    np.testing.assert_array_equal(keep, _by_definition(mask, shape))


@given(st.data(), small_shapes)
@settings(max_examples=100)
def test_every_view_of_a_bound_mask_gives_the_same_decisions(data: st.DataObject, shape: Shape) -> None:
    mask = data.draw(masks(shape))
    wanted = mask.to_array(shape)
    for as_matrix in (False, True):
        bound = mask.bind(shape, as_matrix=as_matrix)
        assert bound.rows * bound.columns == wanted.size
        rows = [bound.keep_row(row, 0, bound.columns) for row in range(bound.rows)]
        np.testing.assert_array_equal(np.array(rows, dtype=np.bool_).reshape(shape), wanted)
        whole = bound.keep_rectangle((0, bound.rows), (0, bound.columns))
        np.testing.assert_array_equal(whole.reshape(shape), wanted)
        if as_matrix and len(shape) > 1:
            assert bound.columns == shape[-1]


@given(st.data(), shapes)
def test_parts_of_rows_are_parts_of_the_whole(data: st.DataObject, shape: Shape) -> None:
    bound = data.draw(masks(shape)).bind(shape)
    if bound.rows * bound.columns == 0:
        return
    row = data.draw(st.integers(0, bound.rows - 1))
    first = data.draw(st.integers(0, bound.columns))
    count = data.draw(st.integers(0, bound.columns - first))
    np.testing.assert_array_equal(bound.keep_row(row, first, count), bound.keep_row(row, 0, bound.columns)[first : first + count])


@given(st.data(), st.integers(1, 30), st.integers(0, 9), keys, st.sampled_from([1, 2, 3, 7, "batch"]), st.booleans())
def test_a_batch_cut_in_pieces_has_the_same_mask(
    data: st.DataObject, rows: int, offset: int, key: Key, shared_rows: int | str, fixed_count: bool
) -> None:
    cut = data.draw(st.integers(0, rows))
    whole = Mask(0.4, key, shared_rows=shared_rows, fixed_count=fixed_count, row_offset=offset).to_array((rows, 11))
    pieces = [
        Mask(0.4, key, shared_rows=shared_rows, fixed_count=fixed_count, row_offset=offset + first).to_array((count, 11))
        for first, count in ((0, cut), (cut, rows - cut))
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_shared_rows_share_and_others_do_not() -> None:
    keep = Mask(0.5, KEY, shared_rows=3, row_offset=1).to_array((8, 64))
    groups = [keep[:2], keep[2:5], keep[5:8]]
    assert all((group == group[0]).all() for group in groups)
    assert_varied(keep)
    assert (keep[0] != keep[2]).any()
    assert (keep[2] != keep[5]).any()
    batch = Mask(0.5, KEY, shared_rows="batch", row_offset=77).to_array((8, 64))
    np.testing.assert_array_equal(batch, np.broadcast_to(Mask(0.5, KEY).to_array((1, 64)), (8, 64)))


def test_a_written_one_in_noise_shape_is_not_a_none() -> None:
    """1 shares the row; None counts rows even where the batch has only one."""
    one = Mask(0.5, KEY, noise_shape=(1, None), row_offset=5).to_array((1, 64))
    none = Mask(0.5, KEY, noise_shape=(None, None), row_offset=5).to_array((1, 64))
    np.testing.assert_array_equal(one, Mask(0.5, KEY).to_array((1, 64)))
    np.testing.assert_array_equal(none, Mask(0.5, KEY, row_offset=5).to_array((1, 64)))
    assert (one != none).any()


@pytest.mark.parametrize("n", EDGES)
def test_edges(n: int) -> None:
    """Long rows: prefixes of one another, and one-dimensional arrays are rows of one element."""
    row = Mask(0.3, KEY).to_array((1, n))[0]
    np.testing.assert_array_equal(Mask(0.3, KEY).to_array(1025)[:n], row)
    np.testing.assert_array_equal(row, [oracle.keeps(12, 3, 4, 0.3, e) for e in range(n)])
    if n > 60:
        assert_varied(row)


# Rates


@given(rates)
def test_threshold_and_scale(rate: float) -> None:
    assert threshold_of(rate) == oracle.threshold(rate)
    assert bernoulli_scale(threshold_of(rate)) == oracle.scale(rate)
    kept = Mask(rate, KEY).keep_prob((3, 4))
    assert kept == (2**32 - oracle.threshold(rate)) / 2**32


@given(st.integers(1, 300), st.floats(0.0, 1.0))
def test_fixed_count_drops_exactly_that_many(n: int, rate: float) -> None:
    dropped = oracle.dropped_units(rate, n)
    if 0 < rate < 1 and dropped in (0, n):
        return
    mask = Mask(rate, KEY, fixed_count=True)
    assert ((~mask.to_array((4, n))).sum(axis=1) == dropped).all()
    assert mask.keep_prob((4, n)) == (n - dropped) / n
    assert mask.bind((4, n)).scale == (0.0 if dropped == n else oracle.fixed_count_scale(rate, n))


def test_fixed_count_is_uniform_over_positions() -> None:
    keep = Mask(0.3, KEY, fixed_count=True).to_array((5000, 10))
    for dropped in (~keep).sum(axis=0).tolist():
        assert_plausible(dropped, 5000, 0.3)


DROP_RATES = [0.001, 1 / 256, 0.1, 0.3, 1 / 3, 0.5, 0.7, 255 / 256 + 2**-12, 0.999]


@pytest.mark.parametrize("rate", DROP_RATES)
def test_drop_fraction_is_exact(rate: float) -> None:
    """Exact binomial test at three fixed seeds; the tie words matter at every rate that is no multiple of 1/256."""
    for seed in range(3):
        keep = Mask(rate, Key(seed, 1, 2)).to_array((1 << 20,))
        assert_plausible(int((~keep).sum()), keep.size, threshold_of(rate) / 2**32)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_drop_fraction_of_each_position_over_streams(rate: float) -> None:
    keep = np.stack([Mask(rate, Key(5, stream, 0)).to_array((1, 32))[0] for stream in range(3000)])
    for dropped in (~keep).sum(axis=0).tolist():
        assert_plausible(dropped, len(keep), threshold_of(rate) / 2**32)


def test_neighbours_are_independent() -> None:
    keep = Mask(0.5, KEY).to_array((1 << 18,))
    for lag in (1, 2, 4, 16, 64):
        assert_plausible(int((keep[lag:] == keep[:-lag]).sum()), keep.size - lag, 0.5)


def test_ties_decide_where_the_byte_cannot() -> None:
    """At a rate below 1/256 only tied elements (byte 0) are dropped, and not all of those."""
    keep = Mask(0.6 / 256, KEY).to_array((1 << 16,))
    bytes_ = np.array([oracle.byte(12, 3, 4, 0, e) for e in range(1 << 12)])
    assert keep[: 1 << 12][bytes_ > 0].all()
    assert_plausible(int((~keep).sum()), keep.size, threshold_of(0.6 / 256) / 2**32)


def test_streams_steps_and_seeds_give_other_masks() -> None:
    arrays = [Mask(0.5, key).to_array((4, 64)) for key in (KEY, KEY.on(4), KEY.at(5), Key(13, 3, 4), KEY.fold_in(0))]
    for i, first in enumerate(arrays):
        assert_varied(first)
        for second in arrays[i + 1 :]:
            assert 0.3 < np.mean(first == second) < 0.7


# Edges of rate and of range


@pytest.mark.parametrize("fixed_count", [False, True])
def test_rates_zero_and_one_need_no_generator(fixed_count: bool) -> None:
    zero = Mask(0, KEY, fixed_count=fixed_count).bind((3, 5))
    one = Mask(1, KEY, fixed_count=fixed_count).bind((3, 5))
    assert (zero.kind, zero.scale) == (MaskKind.KEEP_ALL, 1.0)
    assert (one.kind, one.scale) == (MaskKind.DROP_ALL, 0.0)
    assert Mask(2.0**-34, KEY).bind((3, 5)).kind == MaskKind.KEEP_ALL
    assert Mask(1 - 2.0**-34, KEY).bind((3, 5)).kind == MaskKind.DROP_ALL


@pytest.mark.filterwarnings("error")
def test_a_mask_that_drops_everything_warns_once() -> None:
    mask = Mask(1.0, KEY)
    with pytest.warns(AllDroppedWarning, match=r"rate 1\.0 drops everything: outputs and gradients are zero"):
        assert not mask.to_array((2, 3)).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not mask.to_array((2, 3)).any()


def test_the_last_element_of_the_range() -> None:
    top = 2**58
    keep = Mask(0.5, KEY, row_offset=top - 40).to_array(40)
    assert keep.tolist() == [oracle.keeps(12, 3, 4, 0.5, top - 40 + i) for i in range(40)]
    assert_varied(keep)
    assert Mask(0.5, KEY, row_offset=top // 8 - 2).to_array((2, 8)).shape == (2, 8)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (2, 0, 3)])
@pytest.mark.parametrize("fixed_count", [False, True])
def test_empty_arrays(shape: Shape, fixed_count: bool) -> None:
    fixed_count = fixed_count and len(shape) > 1
    assert Mask(0.5, KEY, fixed_count=fixed_count).to_array(shape).shape == shape


def test_a_mask_is_a_description() -> None:
    mask = Mask(0.25, KEY, noise_shape=[None, 1], shared_rows=2, row_offset=4)
    assert repr(mask) == (
        "Mask(0.25, Key(seed=12, stream=3, step=4), noise_shape=(None, 1), shared_rows=2, fixed_count=False, row_offset=4)"
    )
    assert mask.noise_shape == (None, 1)
    assert Mask(np.float32(0.25), KEY, shared_rows=np.int64(3)).rate == 0.25
    assert Mask(0.5, KEY).to_array(4).shape == (4,)
