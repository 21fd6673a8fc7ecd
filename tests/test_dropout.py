"""Dropout through the seam: on every backend, against the definition."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from assertions import assert_not_vacuous, assert_same_bits, assert_varied, guarded
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, dtypes, masks, random_array, shapes

from fastdrop import Key, Mask
from fastdrop._types import Array, Shape
from fastdrop.backends.base import AbstractBackend
from fastdrop.mask import BoundMask

pytestmark = pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")

KEY = Key(4, 5, 6)
RATES_WITHIN = [0.1, 0.5, 0.8]


def _by_definition(x: Array, keep: Array, scale: float) -> Array:
    with np.errstate(all="ignore"):
        return np.where(keep, x * x.dtype.type(scale), x.dtype.type(0))


@given(st.data(), shapes, dtypes, st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_forward_and_backward_are_the_definition(
    backend: AbstractBackend, data: st.DataObject, shape: Shape, dtype: np.dtype, seed: int
) -> None:
    """Bit for bit: a product and a selection leave no room for rounding."""
    mask = data.draw(masks(shape))
    bound = mask.bind(shape)
    keep = np.array([bound.keep_row(r, 0, bound.columns) for r in range(bound.rows)], dtype=bool).reshape(shape)
    x = random_array(seed, shape, dtype)
    wanted = _by_definition(x, keep, bound.scale)
    assert_same_bits(backend.dropout_forward(x, bound), wanted)
    assert_same_bits(backend.dropout_backward(x, bound), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("rate", RATES_WITHIN)
def test_every_element_is_written_and_no_other(backend: AbstractBackend, rate: float, n: int, dtype: np.dtype) -> None:
    x = np.abs(random_array(n, (n,), dtype)) + 1
    mask = Mask(rate, KEY, row_offset=5)
    wanted = _by_definition(x, mask.to_array(n), mask.bind((n,)).scale)
    for operation in (backend.dropout_forward, backend.dropout_backward):
        out, check = guarded((n,), dtype)
        assert operation(x, mask.bind((n,)), out) is out
        check()
        assert_same_bits(out, wanted)
    if n >= 65:
        assert_varied(wanted != 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", EDGES)
@pytest.mark.parametrize(
    "options", [{"shared_rows": 2}, {"shared_rows": "batch"}, {"noise_shape": (None, 1)}, {"fixed_count": True}]
)
def test_row_masks_write_every_element_and_no_other(
    backend: AbstractBackend, options: dict, columns: int, dtype: np.dtype
) -> None:
    if options.get("fixed_count") and columns == 1:
        return
    x = np.abs(random_array(columns, (5, columns), dtype)) + 1
    mask = Mask(0.5, KEY, row_offset=5, **options)
    out, check = guarded(x.shape, dtype)
    assert backend.dropout_forward(x, mask.bind(x.shape), out) is out
    check()
    assert_same_bits(out, _by_definition(x, mask.to_array(x.shape), mask.bind(x.shape).scale))


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_may_be_the_input(backend: AbstractBackend, dtype: np.dtype) -> None:
    x = random_array(1, (33, 65), dtype)
    for mask in (Mask(0.3, KEY), Mask(0.3, KEY, shared_rows=4)):
        wanted = backend.dropout_forward(x, mask.bind(x.shape))
        assert_not_vacuous(wanted)
        buffer = x.copy()
        assert backend.dropout_forward(buffer, mask.bind(x.shape), buffer) is buffer
        assert_same_bits(buffer, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rate", RATES_WITHIN)
def test_special_values_stay_where_kept_and_vanish_where_dropped(backend: AbstractBackend, rate: float, dtype: np.dtype) -> None:
    info = np.finfo(dtype)
    specials = np.array([np.nan, np.inf, -np.inf, -0.0, info.max, -info.max, info.smallest_subnormal, info.tiny], dtype)
    x = np.repeat(specials, 200)
    mask = Mask(rate, KEY)
    keep, bound = mask.to_array(len(x)), mask.bind((len(x),))
    for special in keep.reshape(len(specials), -1):
        assert_varied(special)
    assert_same_bits(backend.dropout_forward(x, bound), _by_definition(x, keep, bound.scale))
    assert_same_bits(backend.dropout_backward(x, bound), _by_definition(x, keep, bound.scale))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_zero_is_the_identity_and_rate_one_gives_zeros(backend: AbstractBackend, dtype: np.dtype) -> None:
    x = np.concatenate([random_array(2, (100,), dtype), np.array([np.nan, np.inf, -np.inf, -0.0], dtype)])
    for operation in (backend.dropout_forward, backend.dropout_backward):
        same = operation(x, Mask(0.0, KEY).bind(x.shape))
        assert_same_bits(same, x)
        assert not np.shares_memory(same, x)
        assert_same_bits(operation(x, Mask(1.0, KEY).bind(x.shape)), np.zeros_like(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bound_mask_that_keeps_all_is_a_factor(backend: AbstractBackend, dtype: np.dtype) -> None:
    """How the original rule's inference multiplies by keep_prob."""
    bound = Mask(0.0, KEY).bind((40,))
    factor = dataclasses.replace(bound, scale=0.7)
    x = random_array(3, (40,), dtype)
    assert_same_bits(backend.dropout_forward(x, factor), x * dtype.type(0.7))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_of_one_leaves_kept_elements_alone(backend: AbstractBackend, dtype: np.dtype) -> None:
    """How the original rule trains: dropped, not scaled."""
    bound = Mask(0.4, KEY).bind((500,))
    unscaled = dataclasses.replace(bound, scale=1.0)
    x = random_array(4, (500,), dtype)
    keep = Mask(0.4, KEY).to_array(500)
    assert_varied(keep)
    assert_same_bits(backend.dropout_forward(x, unscaled), np.where(keep, x, dtype.type(0)))


def test_read_only_input(backend: AbstractBackend) -> None:
    x = random_array(5, (70,))
    x.flags.writeable = False
    assert_not_vacuous(backend.dropout_forward(x, Mask(0.5, KEY).bind((70,))))


@pytest.mark.parametrize("size", [2**15 - 1, 2**16 + 5, 2**18 + 1])
def test_large_arrays(backend: AbstractBackend, size: int) -> None:
    """Sizes at which the work is cut into chunks and shared among threads."""
    x = random_array(6, (size,))
    mask = Mask(0.1, KEY, row_offset=3)
    assert_same_bits(
        backend.dropout_forward(x, mask.bind((size,))), _by_definition(x, mask.to_array(size), mask.bind((size,)).scale)
    )


@pytest.mark.parametrize("fixed_count", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_a_bound_mask_at_other_keys(backend: AbstractBackend, fixed_count: bool, scale: float | None) -> None:
    """What a backend keeps with a bound mask belongs to its key, its scale and a dtype."""
    x = np.abs(random_array(1, (9, 130), np.float64)) + 1

    def bound_to(key: Key) -> BoundMask:
        bound = Mask(0.3, key, fixed_count=fixed_count, row_offset=2).bind(x.shape, as_matrix=True)
        return bound if scale is None else dataclasses.replace(bound, scale=scale)

    origin, seen = bound_to(KEY), set()
    for key in (KEY, KEY.at(2**32 - 1), KEY.on(77), Key(2**64 - 1, 3, 4), KEY):
        bound = origin.at(key)
        for dtype in (np.float32, np.float64, np.float32):
            wanted = backend.dropout_forward(x.astype(dtype), bound_to(key))
            for _ in range(2):
                assert_same_bits(backend.dropout_forward(x.astype(dtype), bound), wanted)
        halved = dataclasses.replace(bound, scale=0.5)
        assert_same_bits(backend.dropout_forward(x, halved), np.where(wanted != 0, x * 0.5, 0.0))
        seen.add(wanted.tobytes())
    assert len(seen) == 4
