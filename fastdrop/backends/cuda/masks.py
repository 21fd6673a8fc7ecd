"""Decisions on the device: the mask contract, sixteen mask elements (one Philox block) at a time.

Notation: a *plan* is a BoundMask as kernels take it: (fields, offsets, cutoffs), where fields are uint64 numbers (indices
below), and cutoffs are as in the CPU backend: ``word << 32 | position`` of the last unit that a mask row drops, for fixed
counts only, PASS_CUTOFFS of them for each pass from mask row FIRST_ROW on. A *run* is up to 16 consecutive columns of a row;
its decisions are the low bits of an integer, 1 = kept.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np

from fastdrop._types import Domain, MaskKind
from fastdrop.backends.cuda._jit import BLOCK, TARGET, cuda, device, kernel
from fastdrop.backends.formulas import philox
from fastdrop.backends.formulas.philox import HALF, MASK
from fastdrop.mask import TIE_BITS, BoundMask
from fastdrop.rng import BYTES_PER_BLOCK, DOMAIN_SHIFT, MASK32, Key

Plan: TypeAlias = Any

KIND, KEY_0, KEY_1, STREAM, STEP, THRESHOLD, ROW_SIZE, ROW_OFFSET, GROUP, COLUMN_STEP, DOMAIN_BASE = range(11)
FIRST_ROW, INNER, PASS_ROWS, PASS_CUTOFFS = range(11, 15)

KEEP_ALL, DROP_ALL, BERNOULLI = (np.uint64(kind) for kind in (MaskKind.KEEP_ALL, MaskKind.DROP_ALL, MaskKind.BERNOULLI))
DECISION_DOMAIN, TIE_DOMAIN, RANK_DOMAIN = (
    np.uint64(domain) for domain in (Domain.DECISION_BYTES, Domain.TIE_WORDS, Domain.FIXED_COUNT_RANKS)
)
DOMAIN_SHIFT_64 = np.uint64(DOMAIN_SHIFT)
TIE_SHIFT, TIE_MASK = np.uint64(TIE_BITS), np.uint64((1 << TIE_BITS) - 1)
TIE_DROP_SHIFT = np.uint64(32 - TIE_BITS)
ZERO, ONE, TWO, THREE, BYTE = (np.uint64(n) for n in (0, 1, 2, 3, 255))
BLOCK_BITS, BLOCK_MASK = np.uint64(4), np.uint64(BYTES_PER_BLOCK - 1)
RUN: Final = BYTES_PER_BLOCK
"""Most columns of a run."""
ALL_KEPT = np.uint64((1 << RUN) - 1)
EIGHT = np.uint64(8)

philox_block = philox.make(TARGET)


@device
def words_of(fields: Any, domain: np.uint64, step: np.uint64, number: np.uint64) -> Any:
    """Return the four words of a block of a domain."""
    c1 = (number >> HALF) | (domain << DOMAIN_SHIFT_64)
    return philox_block(number & MASK, c1, fields[STREAM] & MASK, step & MASK, fields[KEY_0] & MASK, fields[KEY_1] & MASK)


@device
def word_of(fields: Any, domain: np.uint64, step: np.uint64, index: np.uint64) -> Any:
    """Return one word of a domain."""
    w0, w1, w2, w3 = words_of(fields, domain, step, index >> TWO)
    lane = index & THREE
    low = w0 if lane == ZERO else w1
    high = w2 if lane == TWO else w3
    return low if lane < TWO else high


@device
def bytes_above(word: np.uint64, hi: np.uint64) -> np.uint64:
    """Return four bits: which bytes of a word are above hi."""
    bits = ZERO
    for k in range(4):
        shift = np.uint64(k)
        if (word >> (EIGHT * shift)) & BYTE > hi:
            bits |= ONE << shift
    return bits


@device
def bytes_equal(word: np.uint64, hi: np.uint64) -> np.uint64:
    """Return four bits: which bytes of a word are hi."""
    bits = ZERO
    for k in range(4):
        shift = np.uint64(k)
        if (word >> (EIGHT * shift)) & BYTE == hi:
            bits |= ONE << shift
    return bits


@device
def of_block(fields: Any, step: np.uint64, number: np.uint64) -> np.uint64:
    """Return the Bernoulli decisions of the sixteen mask elements of a block."""
    hi, lo = fields[THRESHOLD] >> TIE_SHIFT, fields[THRESHOLD] & TIE_MASK
    w0, w1, w2, w3 = words_of(fields, DECISION_DOMAIN + fields[DOMAIN_BASE], step, number)
    keep = bytes_above(w0, hi) | bytes_above(w1, hi) << np.uint64(4)
    keep |= bytes_above(w2, hi) << np.uint64(8) | bytes_above(w3, hi) << np.uint64(12)
    ties = bytes_equal(w0, hi) | bytes_equal(w1, hi) << np.uint64(4)
    ties |= bytes_equal(w2, hi) << np.uint64(8) | bytes_equal(w3, hi) << np.uint64(12)
    if lo == ZERO:
        return keep | ties  # nothing is below 0
    position = ZERO
    while ties >> position != ZERO:
        if (ties >> position) & ONE != ZERO:
            index = (number << BLOCK_BITS) + position
            word = word_of(fields, TIE_DOMAIN + fields[DOMAIN_BASE], step, index)
            if word >> TIE_DROP_SHIFT >= lo:
                keep |= ONE << position
        position += ONE
    return keep


@device
def from_element(fields: Any, step: np.uint64, first: np.uint64) -> np.uint64:
    """Return the Bernoulli decisions of sixteen consecutive mask elements."""
    number, skip = first >> BLOCK_BITS, first & BLOCK_MASK
    keep = of_block(fields, step, number) >> skip
    if skip != ZERO:
        keep |= of_block(fields, step, number + ONE) << (np.uint64(RUN) - skip)
    return keep & ALL_KEPT


@device
def place_of(plan: Plan, row: int) -> Any:
    """Return (step, mask row, mask element of column 0 within it, cutoff's number) of a matrix row."""
    fields, offsets, _ = plan
    step, line, number = fields[STEP], np.uint64(row), ZERO
    if fields[PASS_ROWS] != ZERO:
        number = line // fields[PASS_ROWS]
        line -= number * fields[PASS_ROWS]
        step += number
    mask_row = ZERO
    if fields[GROUP] != ZERO:
        mask_row = (fields[ROW_OFFSET] + line // fields[INNER]) // fields[GROUP]
    offset = np.uint64(offsets[line % fields[INNER]])
    return step, mask_row, offset, number * fields[PASS_CUTOFFS] + mask_row - fields[FIRST_ROW]


@device
def decide(plan: Plan, row: int, column: int) -> np.uint64:
    """Return the decisions of the run of row `row` that begins with column `column`."""
    fields, _, cutoffs = plan
    kind = fields[KIND]
    if kind == KEEP_ALL:
        return ALL_KEPT
    if kind == DROP_ALL:
        return ZERO
    step, mask_row, offset, cutoff_at = place_of(plan, row)
    one_unit = fields[COLUMN_STEP] == ZERO
    position = offset if one_unit else offset + np.uint64(column)
    first = mask_row * fields[ROW_SIZE] + position
    keep = ZERO
    if kind == BERNOULLI:
        keep = from_element(fields, step, first)
    else:
        cutoff = cutoffs[cutoff_at]
        for k in range(RUN):
            here = position + np.uint64(k)
            if here < fields[ROW_SIZE]:
                word = word_of(fields, RANK_DOMAIN + fields[DOMAIN_BASE], step, first + np.uint64(k))
                if (word << HALF | here) > cutoff:
                    keep |= ONE << np.uint64(k)
    if one_unit:
        return ALL_KEPT if keep & ONE != ZERO else ZERO
    return keep


@device
def is_kept(keep: np.uint64, k: int) -> bool:
    """Return decision k of a run."""
    return bool((keep >> np.uint64(k)) & ONE != ZERO)


@kernel
def words_kernel(fields: Any, domain: np.uint64, first: np.uint64, out: Any, size: int) -> None:
    """Write words from `first` on of a domain."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        out[i] = word_of(fields, domain, fields[STEP], first + np.uint64(i))


@kernel
def decisions_kernel(plan: Plan, first_row: int, first_column: int, width: int, words: int, out: Any, size: int) -> None:
    """Write the decision bits of a rectangle, `words` words of 64 columns a row, one thread a word."""
    for i in range(cuda.grid(1), size, cuda.gridsize(1)):
        row, left = first_row + i // words, i % words * 64
        bits = ZERO
        for run in range(4):
            column = left + RUN * run
            keep = ZERO
            if column < width:
                keep = decide(plan, row, first_column + column)
                if width - column < RUN:
                    keep &= (ONE << np.uint64(width - column)) - ONE
            bits |= keep << np.uint64(RUN * run)
        out[i] = bits


@kernel
def cutoffs_kernel(plan: Plan, out: Any) -> None:
    """Write the cutoff of each mask row, a block of threads each: bit by bit, the largest rank that few enough are below.

    A rank is ``word << 32 | position``. Sought is the one with exactly ``threshold - 1`` ranks below it.
    """
    fields, _, _ = plan
    counts = cuda.shared.array(BLOCK, np.uint64)
    thread, size, dropped = cuda.threadIdx.x, fields[ROW_SIZE], fields[THRESHOLD]
    for i in range(cuda.blockIdx.x, len(out), cuda.gridDim.x):
        number = np.uint64(i) // fields[PASS_CUTOFFS]
        mask_row = fields[FIRST_ROW] + np.uint64(i) - number * fields[PASS_CUTOFFS]
        step, domain = fields[STEP] + number, RANK_DOMAIN + fields[DOMAIN_BASE]
        found = ZERO
        for bit in range(64):
            if bit >= 32 and ONE << np.uint64(63 - bit) >= size:  # positions are below the row's size
                continue
            trial = found | ONE << np.uint64(63 - bit)
            below = ZERO
            for j in range(thread, int(size), BLOCK):
                word = word_of(fields, domain, step, mask_row * size + np.uint64(j))
                if (word << HALF | np.uint64(j)) < trial:
                    below += ONE
            counts[thread] = below
            cuda.syncthreads()
            total = ZERO
            for other in range(BLOCK):
                total += counts[other]
            cuda.syncthreads()
            if total < dropped:
                found = trial
        if thread == 0:
            out[i] = found


def key_fields(key: Key) -> list[int]:
    """Return the fields of a plan that holds a key alone."""
    fields = [0] * (PASS_CUTOFFS + 1)
    fields[KEY_0], fields[KEY_1] = key.seed & MASK32, key.seed >> 32
    fields[STREAM], fields[STEP], fields[INNER] = key.stream, key.step, 1
    return fields


def mask_fields(mask: BoundMask) -> list[int]:
    """Return the fields of a bound mask's plan."""
    fields = key_fields(mask.key)
    fields[KIND], fields[THRESHOLD], fields[ROW_SIZE] = int(mask.kind), mask.threshold, mask.row_size
    fields[ROW_OFFSET], fields[GROUP], fields[COLUMN_STEP] = mask.row_offset, mask.group, mask.column_step
    fields[DOMAIN_BASE], fields[INNER] = mask.domain_base, len(mask.offsets)
    fields[PASS_ROWS] = mask.pass_rows if mask.passes > 1 else 0
    if mask.kind == MaskKind.FIXED_COUNT and mask.rows > 0:
        fields[FIRST_ROW] = mask.mask_row(0)
        fields[PASS_CUTOFFS] = mask.mask_row(mask.pass_rows - 1) - fields[FIRST_ROW] + 1
    return fields


def as_tuple(fields: list[int]) -> tuple[np.uint64, ...]:
    """Return fields as kernels take them."""
    return tuple(np.uint64(field) for field in fields)
