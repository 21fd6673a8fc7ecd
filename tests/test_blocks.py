"""Memory of results is used again, but never while an array or a view of it is held."""

from __future__ import annotations

import gc
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdrop.backends.cpu._memory import CACHE_LINE, LEAST, SLACK, Blocks, empty
from fastdrop.backends.select import backend

ROW = LEAST // 4
"""Elements of the least array that is kept, in float32."""


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def span(array: np.ndarray) -> tuple[int, int]:
    return address(array), address(array) + array.nbytes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (2, ROW), (3, 5, ROW // 8 + 1)])
def test_arrays_are_numpys_in_all_but_their_memory(shape: tuple[int, ...], dtype: str) -> None:
    array = Blocks().empty(shape, dtype)
    assert type(array) is np.ndarray
    assert array.shape == shape
    assert array.dtype == np.dtype(dtype)
    assert array.flags.carray
    array[...] = 7
    assert np.array_equal(array, np.full(shape, 7, dtype))
    if array.nbytes >= LEAST:
        assert address(array) % CACHE_LINE == 0


def test_the_memory_of_a_large_array_is_used_again() -> None:
    blocks = Blocks()
    array = blocks.empty((4, ROW), np.float32)
    where, nbytes = address(array), array.nbytes
    assert blocks.nbytes == 0
    del array
    assert blocks.nbytes == nbytes
    assert address(blocks.empty((4, ROW), np.float32)) == where
    assert address(blocks.empty((2, ROW), np.float64)) == where, "the dtype does not matter"


def test_the_memory_of_small_arrays_is_not_kept() -> None:
    blocks = Blocks()
    blocks.empty((ROW - 1,), np.float32)
    assert blocks.nbytes == 0
    blocks.empty((ROW,), np.float32)
    assert blocks.nbytes == LEAST


@pytest.mark.parametrize("view", [lambda a: a[1:], lambda a: a.T, lambda a: a.reshape(-1)[5:6], memoryview])
def test_a_view_holds_the_memory(view: object) -> None:
    blocks = Blocks()
    array = blocks.empty((4, ROW), np.float32)
    where = address(array)
    held = view(array)  # type: ignore[operator]
    del array
    gc.collect()
    other = blocks.empty((4, ROW), np.float32)
    assert address(other) != where
    del held
    assert address(blocks.empty((4, ROW), np.float32)) == where


def test_blocks_that_are_much_too_large_are_not_taken() -> None:
    blocks = Blocks()
    where = address(blocks.empty((10 * ROW,), np.float32))
    assert address(blocks.empty((int(10 * ROW / SLACK) + 1,), np.float32)) == where
    small = blocks.empty((int(10 * ROW / SLACK) - 1,), np.float32)
    assert small.base._block.nbytes == small.nbytes


def test_those_that_waited_longest_go_first() -> None:
    blocks = Blocks(most=5 * LEAST)
    arrays = [blocks.empty((count * ROW,), np.float32) for count in (1, 3, 2)]
    places = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    assert blocks.nbytes == 5 * LEAST
    again = [blocks.empty((count * ROW,), np.float32) for count in (3, 2)]
    assert [address(array) for array in again] == places[1:]
    assert blocks.nbytes == 0
    del again
    blocks.empty((6 * ROW,), np.float32)
    assert blocks.nbytes == 0, "what is larger than all that may be kept pushes out the others, and goes"


def test_new_memory_takes_the_place_of_what_is_kept() -> None:
    blocks = Blocks()
    arrays = [blocks.empty((count * ROW,), np.float32) for count in (1, 2, 3)]
    while arrays:
        del arrays[0]
    assert blocks.nbytes == 6 * LEAST
    other = blocks.empty((5 * ROW,), np.float32)
    assert blocks.nbytes == 0, "the blocks of 1 and 2 are too small together"
    del other
    blocks.empty((3 * ROW,), np.float32)
    assert blocks.nbytes == 3 * LEAST


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=40))
def test_arrays_in_use_never_overlap_and_memory_is_no_more_than_they_needed(actions: list[tuple[bool, int]]) -> None:
    blocks, live, most = Blocks(most=8 * LEAST), [], 0
    for takes, number in actions:
        if takes or not live:
            live.append(blocks.empty(((number + 1) * ROW,), np.float32))
        else:
            del live[number % len(live)]
        spans = sorted(map(span, live))
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
        used = sum(array.base._block.nbytes for array in live)
        most = max(most, used)
        assert 0 <= blocks.nbytes <= blocks.most
        assert used + blocks.nbytes <= most


def test_threads_share_the_blocks() -> None:
    blocks, wrong = Blocks(), []

    def work(number: int) -> None:
        for _ in range(200):
            array = blocks.empty((ROW,), np.float32)
            array.fill(number)
            if not (array[:: ROW // 16] == number).all():
                wrong.append(number)
            del array

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    blocks.empty((ROW,), np.float32)
    assert LEAST <= blocks.nbytes <= blocks.most


def test_a_block_that_comes_back_while_another_is_taken_is_kept_for_the_next() -> None:
    blocks = Blocks()
    array = blocks.empty((2 * ROW,), np.float32)
    where = address(array)
    with blocks._lock:  # as when garbage is collected in the middle of a call
        del array
        fresh = blocks.empty((2 * ROW,), np.float32)
        assert address(fresh) != where
        assert blocks.nbytes == 0
    assert address(blocks.empty((2 * ROW,), np.float32)) == where


def test_results_of_operations_are_such_arrays() -> None:
    x = empty((256, ROW // 64), np.float32)
    x.fill(0.5)
    y = backend("cpu").softmax_forward(x)
    where = address(y)
    del y
    assert address(backend("cpu").softmax_forward(x)) == where
