"""The seam: every backend has the operations of `AbstractBackend`, with the same arguments; words and decisions agree."""

from __future__ import annotations

import inspect

import numpy as np
import oracle
import pytest
from assertions import assert_same_bits, assert_varied
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EDGES, keys, masks, shapes

from fastdrop import Key, Mask
from fastdrop._types import MONTE_CARLO_DOMAIN, ActivationKind, Array, BoolArray, Shape
from fastdrop.backends import select
from fastdrop.backends.base import AbstractBackend
from fastdrop.errors import ArgumentValueError

pytestmark = pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")

OPERATIONS = sorted(AbstractBackend.__abstractmethods__)
OPTIONAL = {
    "add_parts", "concatenate", "copy_of", "dense_forward_groups", "empty", "finish_updates", "hits", "pack_filters",
    "same_memory", "sum_of", "take", "unpool", "update_later", "update_parts", "zeros",
}  # fmt: skip
"""What does as it is, for NumPy arrays or by other operations."""


def _class(backend: AbstractBackend) -> type:
    return getattr(backend, "implementation", type(backend))


def test_the_list_of_operations_is_complete() -> None:
    public = {name for name, _ in inspect.getmembers(AbstractBackend, inspect.isfunction) if not name.startswith("_")}
    assert set(OPERATIONS) == public - OPTIONAL
    assert len(OPERATIONS) >= 17


@pytest.mark.parametrize("operation", OPERATIONS)
def test_signatures_are_the_same(backend: AbstractBackend, operation: str) -> None:
    """Names, order and defaults of all arguments, and the annotations."""
    wanted = inspect.signature(getattr(AbstractBackend, operation))
    got = inspect.signature(getattr(_class(backend), operation))
    assert [(p.name, p.default, p.kind) for p in got.parameters.values()] == [
        (p.name, p.default, p.kind) for p in wanted.parameters.values()
    ]
    assert getattr(_class(backend), operation) is not getattr(AbstractBackend, operation), "not implemented"


def test_a_backend_adds_no_public_operation(backend: AbstractBackend) -> None:
    public = {name for name, _ in inspect.getmembers(_class(backend), inspect.isfunction) if not name.startswith("_")}
    assert public - OPTIONAL == set(OPERATIONS)


@pytest.mark.parametrize("name", select.BACKENDS)
def test_selection_by_name(name: str) -> None:
    chosen = select.backend(name)
    assert chosen.name == name
    assert select.backend(name) is chosen


def test_selection_of_an_unknown_name() -> None:
    with pytest.raises(ArgumentValueError, match=r"`backend` must be one of cpu, cuda, reference, got 'gpu'"):
        select.backend("gpu")


def test_an_incomplete_backend_cannot_be_made() -> None:
    class Incomplete(AbstractBackend):
        name = "incomplete"

    with pytest.raises(TypeError, match="abstract"):
        Incomplete()  # type: ignore[abstract]


# Words


@given(keys, st.integers(0, 15), st.sampled_from([0, 1, 2**32 - 3, 2**34 - 5, 2**57 + 1]), st.sampled_from(EDGES))
@settings(max_examples=60)
def test_words(backend: AbstractBackend, reference: AbstractBackend, key: Key, domain: int, first: int, count: int) -> None:
    assert_same_bits(backend.words(key, domain, first, count), reference.words(key, domain, first, count))


# Decisions


def _packed(keep: BoolArray) -> Array:
    padded = np.zeros((keep.shape[0], -(-keep.shape[1] // 64) * 64), dtype=np.bool_)
    padded[:, : keep.shape[1]] = keep
    return np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)


@given(st.data(), shapes, st.booleans())
@settings(max_examples=80)
def test_decisions_of_any_rectangle(backend: AbstractBackend, data: st.DataObject, shape: Shape, as_matrix: bool) -> None:
    mask = data.draw(masks(shape))
    bound = mask.bind(shape, as_matrix=as_matrix)
    first_row, last_row = sorted(data.draw(st.tuples(*[st.integers(0, bound.rows)] * 2)))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, bound.columns)] * 2)))
    keep = mask.to_array(shape).reshape(bound.rows, bound.columns)[first_row:last_row, first:last]
    assert_same_bits(backend.decisions(bound, (first_row, last_row), (first, last)), _packed(keep))


@pytest.mark.parametrize("columns", EDGES)
@pytest.mark.parametrize("fixed_count", [False, True])
def test_decisions_at_edges(backend: AbstractBackend, columns: int, fixed_count: bool) -> None:
    """Widths around each unit of work, from a row offset that is no multiple of anything; bits beyond the width are 0."""
    fixed_count = fixed_count and columns >= 3
    mask = Mask(0.3, Key(7, 1, 2), row_offset=5, fixed_count=fixed_count)
    bound = mask.bind((3, columns), as_matrix=True)
    bits = backend.decisions(bound, (0, 3), (0, columns))
    if fixed_count:
        wanted = [oracle.fixed_count_row((7, 1, 2), 0.3, 5 + r, columns) for r in range(3)]
    else:
        wanted = [oracle.bernoulli_row((7, 1, 2), 0.3, 5 + r, columns) for r in range(3)]
    keep = np.array(wanted, dtype=np.bool_).reshape(3, columns)
    assert_same_bits(bits, _packed(keep))
    if columns >= 65:
        assert_varied(keep)


@pytest.mark.parametrize("row_offset", [0, 2**32 - 33, 2**58 - 65])
def test_the_last_bit_of_a_rate_decides(backend: AbstractBackend, row_offset: int) -> None:
    """At the threshold made of an element's own byte and tie word it is kept; at the next one it is dropped."""
    for i in range(65):
        element = row_offset + i
        threshold = oracle.byte(7, 1, 2, 0, element) << 24 | oracle.word(7, 1, 2, 1, element) >> 8
        for step, kept in ((0, True), (1, False)):
            bound = Mask((threshold + step) / 2**32, Key(7, 1, 2), row_offset=row_offset).bind((65,))
            bits = backend.decisions(bound, (0, 1), (i, i + 1))
            assert bool(bits[0, 0]) is kept, f"element {element}, threshold {threshold + step:#x}"


@pytest.mark.parametrize("rate", [0.003, 0.5, 0.7001])
@pytest.mark.parametrize("fixed_count", [False, True])
def test_decisions_of_a_monte_carlo_pass(backend: AbstractBackend, fixed_count: bool, rate: float) -> None:
    """Domains 8 (bytes), 9 (ties) and 13 (ranks) instead of 0, 1 and 5."""
    mask = Mask(rate, Key(7, 1, 2), row_offset=2, fixed_count=fixed_count)
    bound = mask.bind((2, 1025), as_matrix=True, domain_base=MONTE_CARLO_DOMAIN)
    row = oracle.fixed_count_row if fixed_count else oracle.bernoulli_row
    keep = np.array([row((7, 1, 2), rate, m, 1025, 8) for m in (2, 3)])
    assert_varied(keep)
    assert (keep != mask.to_array(keep.shape)).any()
    assert_same_bits(backend.decisions(bound, (0, 2), (0, 1025)), _packed(keep))


@given(st.data(), shapes, st.booleans(), st.integers(2, 5))
@settings(max_examples=80)
def test_decisions_of_several_passes(
    backend: AbstractBackend, data: st.DataObject, shape: Shape, as_matrix: bool, passes: int
) -> None:
    """The rows of each pass are those of a mask of its own step."""
    mask = data.draw(masks(shape))
    key = mask.key.at(min(mask.key.step, 2**32 - passes))
    bound = mask.bind(shape, as_matrix=as_matrix, domain_base=MONTE_CARLO_DOMAIN, passes=passes).at(key)
    alone = mask.bind(shape, as_matrix=as_matrix, domain_base=MONTE_CARLO_DOMAIN)
    steps = [alone.at(key.at(key.step + i)) for i in range(passes)]
    keep = np.concatenate([step.keep_rectangle((0, step.rows), (0, step.columns)) for step in steps])
    assert keep.shape == (bound.rows, bound.columns)
    top, bottom = sorted(data.draw(st.tuples(*[st.integers(0, bound.rows)] * 2)))
    left, right = sorted(data.draw(st.tuples(*[st.integers(0, bound.columns)] * 2)))
    assert_same_bits(backend.decisions(bound, (top, bottom), (left, right)), _packed(keep[top:bottom, left:right]))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize(("rate", "fixed_count"), [(0.5, False), (0.1, False), (0.3, True)])
def test_passes_through_a_fused_layer(backend: AbstractBackend, rows: int, rate: float, fixed_count: bool) -> None:
    """Rows of several passes in one product have the bits of products of each pass, whatever tile they fall into."""
    passes, fan_in, fan_out, activation = 13, 70, 192, ActivationKind.LINEAR
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, fan_in)).astype(np.float32)
    weight = rng.standard_normal((fan_in, fan_out)).astype(np.float32)
    shapes_of = {Mask(rate, Key(3, n, 7), fixed_count=fixed_count, row_offset=2): (rows, (fan_in, fan_out)[n]) for n in range(2)}
    together = [mask.bind(shape, as_matrix=True, domain_base=8, passes=passes) for mask, shape in shapes_of.items()]
    y, _ = backend.dense_forward(np.tile(x, (passes, 1)), weight, None, activation, *together, False)
    for i in range(passes):
        alone = [mask.bind(shape, as_matrix=True, domain_base=8).at(mask.key.at(7 + i)) for mask, shape in shapes_of.items()]
        wanted, _ = backend.dense_forward(x, weight, None, activation, *alone, False)
        assert_varied(wanted != 0)
        np.testing.assert_allclose(y[i * rows : (i + 1) * rows], wanted, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(y[i * rows : (i + 1) * rows] != 0, wanted != 0)


@pytest.mark.parametrize("rate", [0.0005, 1 / 256, 0.1, 0.5, 0.7001, 0.999])
def test_decisions_with_many_ties(backend: AbstractBackend, rate: float) -> None:
    """Long rows hold hundreds of ties, at every place of a vector."""
    mask = Mask(rate, Key(8, 0, 1), row_offset=3)
    keep = mask.to_array((2, 60_001))
    assert_varied(keep)
    bits = backend.decisions(mask.bind(keep.shape, as_matrix=True), (0, 2), (7, 60_001))
    assert_same_bits(bits, _packed(keep[:, 7:]))
