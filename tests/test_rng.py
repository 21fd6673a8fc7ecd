"""The generator: Philox words, bytes, values, shuffles, and keys. Known answers of the contract are in test_contract.py."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import oracle
import pytest
from assertions import assert_near, assert_plausible
from hypothesis import given
from hypothesis import strategies as st
from strategies import keys

from fastdrop import Key, rng
from fastdrop._types import Domain

FLOAT32_ULP = 2.0**-23

positions = st.sampled_from([0, 1, 3, 4, 2**32 - 1, 2**34 - 2, 2**58 - 64]) | st.integers(0, 2**58 - 64)
domains = st.sampled_from(list(Domain)).map(int) | st.integers(8, 15)


@given(keys, domains, positions, st.integers(0, 40))
def test_words_are_philox_words(key: Key, domain: int, first: int, count: int) -> None:
    got = rng.words(key, domain, first, count)
    assert got.dtype == np.uint32
    assert got.tolist() == [oracle.word(key.seed, key.stream, key.step, domain, first + i) for i in range(count)]


@given(keys, positions, st.integers(0, 70))
def test_bytes_are_the_little_endian_stream(key: Key, first: int, count: int) -> None:
    got = rng.stream_bytes(key, Domain.DECISION_BYTES, first, count)
    assert got.tolist() == [oracle.byte(key.seed, key.stream, key.step, 0, first + i) for i in range(count)]


@given(keys, st.lists(positions, max_size=9))
def test_words_at_picks_single_words(key: Key, indices: list[int]) -> None:
    got = rng.words_at(key, Domain.TIE_WORDS, np.array(indices, dtype=np.uint64))
    assert got.tolist() == [oracle.word(key.seed, key.stream, key.step, 1, i) for i in indices]


PINNED_STREAMS = ["e3e80670", "07071c12", "e73404cf", "89e3af3f"]
PINNED_DOMAINS = ["e3e80670", "89062383", "c12fe4a3", "f0d6c05d", "94601bc8", "99b977ef", "8e99aafd", "6a3a0b70"]


def test_first_words_of_key_zero_never_change() -> None:
    """Pinned: a change here is a major release. Domain 0 at zero is the published answer of Philox4x32-10 itself."""
    first = [f"{w:08x}" for w in rng.words(Key(0, 0, 0), Domain.DECISION_BYTES, 0, 4).tolist()]
    assert first == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    streams = [int(rng.words(Key(1, stream, 0), Domain.DECISION_BYTES, 0, 1)[0]) for stream in range(4)]
    assert [f"{w:08x}" for w in streams] == PINNED_STREAMS
    in_domains = [int(rng.words(Key(1, 0, 0), domain, 0, 1)[0]) for domain in range(8)]
    assert [f"{w:08x}" for w in in_domains] == PINNED_DOMAINS


def test_streams_steps_seeds_and_domains_differ() -> None:
    base = Key(3, 4, 5)
    others = [base, base.on(5), base.at(6), Key(4, 4, 5), Key(3 + 2**32, 4, 5), base.fold_in(0), base.fold_in(1)]
    seen = {tuple(rng.words(key, domain, 0, 8).tolist()) for key in others for domain in (0, 1, 5)}
    assert len(seen) == 3 * len(others)


# Values


def test_uniforms_are_inside_the_open_unit_interval() -> None:
    extreme = np.array([0, 2**32 - 1], dtype=np.uint32)
    low, high = rng.uniforms_from_words(extreme)
    assert (low, high) == (2.0**-33, 1 - 2.0**-33)
    values = rng.uniforms(Key(1, 2, 3), Domain.NOISE, 0, 100_000)
    assert_plausible(int((values < 0.3).sum()), len(values), 0.3)


def test_normals_at_the_extremes() -> None:
    """Near u0 = 1 the radius is tiny: log1p keeps its relative accuracy, where log(u0) would have lost 33 bits."""
    first = np.array([0, 2**31 - 1, 2**31, 2**32 - 1], dtype=np.uint32)
    words = np.stack([first, np.zeros(4, np.uint32)], axis=1).reshape(-1)
    radius = rng.normals_from_words(words)[0::2]
    exact = np.array([-math.log(2.0**-33), -math.log(0.5 - 2.0**-33), -math.log(0.5 + 2.0**-33), -math.log1p(-(2.0**-33))])
    assert_near(radius, np.sqrt(2 * exact), 4 * FLOAT32_ULP * np.sqrt(2 * exact))
    assert radius[3] == pytest.approx(2.0**-16, rel=1e-9)


@given(keys, st.integers(0, 50), st.integers(0, 20))
def test_normals_do_not_depend_on_where_a_request_starts(key: Key, first: int, count: int) -> None:
    together = rng.normals(key, Domain.NOISE, 0, first + count)
    assert rng.normals(key, Domain.NOISE, first, count).tolist() == together[first:].tolist()
    wanted = np.array([oracle.normal(key.seed, key.stream, key.step, 2, first + i) for i in range(count)])
    assert_near(together[first:], wanted, 1e-13)


def test_normals_have_the_moments_of_the_normal_distribution() -> None:
    values = rng.normals(Key(9, 9, 9), Domain.NOISE, 0, 200_000)
    assert abs(values.mean()) < 5 / math.sqrt(len(values))
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / len(values))
    inside = int((np.abs(values) < 1).sum())
    assert_plausible(inside, len(values), math.erf(1 / math.sqrt(2)))


@pytest.mark.parametrize("n", [0, 1, 2, 100])
def test_shuffle_is_a_permutation_that_changes_with_the_epoch(n: int) -> None:
    orders = [rng.shuffle_order(7, epoch, n) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(n)) for order in orders)
    assert all(order.dtype == np.int64 for order in orders)
    if n > 2:
        assert len({tuple(order.tolist()) for order in orders}) == 3


def test_shuffle_is_stable_where_words_are_equal() -> None:
    words = rng.words(Key(0, 0, 0), Domain.SHUFFLES, 0, 200_000)
    order = rng.shuffle_order(0, 0, 200_000)
    ranked = words[order]
    equal = np.flatnonzero(ranked[1:] == ranked[:-1])
    assert len(equal) > 0, "vacuous: no two words are equal"
    assert (np.diff(ranked.astype(np.int64)) >= 0).all()
    assert (order[equal] < order[equal + 1]).all()


# Keys


def test_key_is_an_immutable_hashable_value() -> None:
    key = Key(1, 2, 3)
    assert key == Key(1, 2, 3)
    assert len({key, Key(1, 2, 3), Key(1, 2, 4)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        key.seed = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        Key(1)  # type: ignore[call-arg]


def test_key_moves_to_another_step_and_stream() -> None:
    key = Key(seed=1, stream=2, step=3)
    assert key.at(9) == Key(1, 2, 9)
    assert key.on(9) == Key(1, 9, 3)
    assert Key(np.uint64(2**63), np.int32(2), np.int64(3)) == Key(2**63, 2, 3)
    assert type(Key(np.int64(1), 0, 0).seed) is int


@given(keys, st.sampled_from([0, 1, 2**32, 2**56 - 1]) | st.integers(0, 2**56 - 1))
def test_fold_in_makes_a_new_seed(key: Key, i: int) -> None:
    folded = key.fold_in(i)
    assert folded.seed == oracle.fold_in(key.seed, key.stream, key.step, i)
    assert (folded.stream, folded.step) == (key.stream, key.step)


def test_new_seeds_are_64_bits_wide_and_differ() -> None:
    seeds = {rng.new_seed() for _ in range(64)}
    assert len(seeds) == 64
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) >= 2**32
