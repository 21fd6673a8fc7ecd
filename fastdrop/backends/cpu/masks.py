"""Decision bits: the mask contract evaluated into per-thread scratch, 64 columns a word.

Notation: a *plan* is a BoundMask as kernels take it, one uint64 array: `PLAN_SIZE` fields (indices below), then as many
offsets as the field INNER says, then a cutoff for each of PASS_CUTOFFS mask rows from FIRST_ROW on, pass after pass (fixed
counts only). A cutoff is ``word << 32 | position`` of the last unit that its mask row drops, so that a unit is kept where its
own is greater. PASS_ROWS is 0 for a single pass. Steps are given beside a plan: STEP is that of its first pass.
"""

from __future__ import annotations

import functools
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from fastdrop._types import Domain, MaskKind
from fastdrop.backends.cpu._jit import device, kernel
from fastdrop.backends.cpu._vector import GROUP_BLOCKS, WORD_BITS, numba, pack_decisions, trailing_zeros
from fastdrop.backends.formulas._formula import from_bits, select
from fastdrop.backends.formulas.philox import HALF, MASK, philox_block
from fastdrop.mask import TIE_BITS, BoundMask
from fastdrop.rng import BYTES_PER_BLOCK, DOMAIN_SHIFT, MASK32, WORDS_PER_BLOCK, Key

prange = numba.prange

U64: TypeAlias = npt.NDArray[np.uint64]

KIND, KEY_0, KEY_1, STREAM, STEP, THRESHOLD, ROW_SIZE, ROW_OFFSET, GROUP, COLUMN_STEP, DOMAIN_BASE, SCALE, FIRST_ROW, INNER = (
    range(14)
)
PASS_ROWS, PASS_CUTOFFS = range(14, 16)
PLAN_SIZE = 16

KEEP_ALL, DROP_ALL, BERNOULLI = int(MaskKind.KEEP_ALL), int(MaskKind.DROP_ALL), int(MaskKind.BERNOULLI)
TIE_SHIFT, TIE_MASK = np.uint64(TIE_BITS), np.uint64((1 << TIE_BITS) - 1)
TIE_DROP_SHIFT = np.uint64(32 - TIE_BITS)
DECISION_DOMAIN, TIE_DOMAIN, RANK_DOMAIN = (
    np.uint64(domain) for domain in (Domain.DECISION_BYTES, Domain.TIE_WORDS, Domain.FIXED_COUNT_RANKS)
)
DOMAIN_SHIFT_64 = np.uint64(DOMAIN_SHIFT)
ZERO, ONE, ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
BLOCK_BITS = np.uint64(4)
"""log2 of the bytes of a block."""
BLOCK_MASK = np.uint64(BYTES_PER_BLOCK - 1)
WORD_SHIFT = np.uint64(6)

SPAN = 5120
"""Most decisions that one call of `decide` makes, each row of several rounded up by GROUP_BITS."""
GROUP_BITS = GROUP_BLOCKS * BYTES_PER_BLOCK
SPAN_WORDS = SPAN // WORD_BITS
SPAN_BLOCKS = SPAN // BYTES_PER_BLOCK + GROUP_BLOCKS
TIES = SPAN_BLOCKS * BYTES_PER_BLOCK + 1
"""Most ties that a call may find, and one more."""
TIE_GROUP = 8
"""Ties are settled in vectors of so many."""
LINE_WORDS = 8
"""64-bit words of a cache line."""
RAW_WORDS = WORDS_PER_BLOCK * SPAN_BLOCKS
ALIGNED_WORDS = SPAN_BLOCKS * BYTES_PER_BLOCK // WORD_BITS + 1

KEEP_AT = SPAN_WORDS
TIES_AT = KEEP_AT + ALIGNED_WORDS
STARTS_AT = TIES_AT + ALIGNED_WORDS
BLOCKS_AT = STARTS_AT + SPAN_BLOCKS
FOUND_AT = BLOCKS_AT + SPAN_BLOCKS
KEPT_AT = FOUND_AT + TIES
RAW_AT = -(-(KEPT_AT + TIES) // LINE_WORDS) * LINE_WORDS
STEPS_AT = RAW_AT + RAW_WORDS // 2
BLOCK_STEPS_AT = STEPS_AT + SPAN_BLOCKS
SCRATCH_WORDS = -(-(BLOCK_STEPS_AT + SPAN_BLOCKS) // LINE_WORDS) * LINE_WORDS
"""Where the parts of a thread's bits begin: after the answer, decisions and ties of whole blocks, the first elements and the
steps of rows, the steps and numbers of blocks, ties found and settled, raw words of 32 bits."""


@device
def scale_of(plan: U64) -> float:
    """Return what kept elements are multiplied by, in binary64."""
    scale: float = from_bits(np.int64(plan[SCALE]))
    return scale


@device
def block_counter(number: np.uint64, domain: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return counter words 0 and 1 of a block of a domain."""
    return number & MASK, (number >> HALF) | (domain << DOMAIN_SHIFT_64)


@device
def key_words(plan: U64) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Return the two key words and the stream of a plan.

    The masks tell the compiler that they fit 32 bits, so that every multiplication is one of 32 bits.
    """
    return plan[KEY_0] & MASK, plan[KEY_1] & MASK, plan[STREAM] & MASK


@device
def fill_blocks(plan: U64, domain: np.uint64, steps: U64, numbers: U64, raw: npt.NDArray[np.uint32]) -> None:
    """Write blocks of a domain: word k of block numbers[i] to ``raw[k * SPAN_BLOCKS + i]``; one step for all, or one each."""
    k0, k1, stream = key_words(plan)
    count = len(numbers)
    w0, w1 = raw[:count], raw[SPAN_BLOCKS : SPAN_BLOCKS + count]
    w2, w3 = raw[2 * SPAN_BLOCKS : 2 * SPAN_BLOCKS + count], raw[3 * SPAN_BLOCKS : 3 * SPAN_BLOCKS + count]
    step, one = steps[0] & MASK, len(steps) == 1
    for i in range(count):
        if not one:
            step = steps[i] & MASK
        c0, c1 = block_counter(numbers[i], domain)
        x0, x1, x2, x3 = philox_block(c0, c1, stream, step, k0, k1)
        w0[i], w1[i], w2[i], w3[i] = np.uint32(x0), np.uint32(x1), np.uint32(x2), np.uint32(x3)


@device
def single_word(plan: U64, domain: np.uint64, step: np.uint64, index: np.uint64) -> np.uint64:
    """Return one word of a domain."""
    c0, c1 = block_counter(index >> np.uint64(2), domain)
    k0, k1, stream = key_words(plan)
    x0, x1, x2, x3 = philox_block(c0, c1, stream, step & MASK, k0, k1)
    lane = index & np.uint64(3)
    low = x0 if lane == ZERO else x1
    high = x2 if lane == np.uint64(2) else x3
    return low if lane < np.uint64(2) else high


@device
def find_ties(ties: U64, words: int, found: U64) -> int:
    """Write the positions of the set bits of so many words to `found` and return how many there are.

    A word with one tie, the usual case, takes no branch that depends on it.
    """
    count = 0
    for k in range(words):
        left, base = ties[k], np.uint64(k) << WORD_SHIFT
        found[count] = base | trailing_zeros(left)
        count += int(left != ZERO)
        left &= left - ONE
        while left != ZERO:
            found[count] = base | trailing_zeros(left)
            left &= left - ONE
            count += 1
    return count


@device
def settle_ties(plan: U64, steps: U64, lo: np.uint64, blocks: U64, keep: U64, at: U64, kept: U64) -> None:
    """Set the keep bits of the ties at positions `at` within blocks, whose steps are one for all, or one each.

    A tie is kept unless the top 24 bits of its word are below lo. len(at) is a multiple of TIE_GROUP.
    """
    domain, one = TIE_DOMAIN + plan[DOMAIN_BASE], len(steps) == 1
    k0, k1, stream = key_words(plan)
    step = steps[0] & MASK
    for i in range(len(at)):
        if not one:
            step = steps[at[i] >> BLOCK_BITS] & MASK
        index = blocks[at[i] >> BLOCK_BITS] << BLOCK_BITS | at[i] & BLOCK_MASK
        c0, c1 = block_counter(index >> np.uint64(2), domain)
        x0, x1, x2, x3 = philox_block(c0, c1, stream, step, k0, k1)
        low = select(index & ONE == ZERO, x0, x1)
        high = select(index & ONE == ZERO, x2, x3)
        word = select(index & np.uint64(2) == ZERO, low, high)
        kept[i] = select(word >> TIE_DROP_SHIFT >= lo, ONE, ZERO) << (at[i] & np.uint64(WORD_BITS - 1))
    for i in range(len(at)):
        keep[at[i] >> WORD_SHIFT] |= kept[i]


@device
def decide_bernoulli(plan: U64, starts: U64, steps: U64, count: int, bits: U64) -> None:
    """Write the decisions of `count` mask elements from each of `starts` on, in its step: blocks of all of them at once."""
    raw = bits[RAW_AT:].view(np.uint32)
    rows, words = len(starts), (count + WORD_BITS - 1) // WORD_BITS
    hi, lo = plan[THRESHOLD] >> TIE_SHIFT, plan[THRESHOLD] & TIE_MASK
    keep, ties = bits[KEEP_AT:TIES_AT], bits[TIES_AT:STARTS_AT]
    groups = 0
    for r in range(rows):
        groups = max(groups, (int(starts[r] & BLOCK_MASK) + count + GROUP_BITS - 1) // GROUP_BITS)
    per_row, total = groups * GROUP_BLOCKS, 2 * rows * groups
    blocks = bits[BLOCKS_AT : BLOCKS_AT + rows * per_row]
    for r in range(rows):
        own, first = blocks[r * per_row : (r + 1) * per_row], starts[r] >> BLOCK_BITS
        for k in range(per_row):
            own[k] = first + np.uint64(k)
    block_steps = steps[:1]
    if steps[0] != steps[rows - 1]:
        block_steps = bits[BLOCK_STEPS_AT : BLOCK_STEPS_AT + rows * per_row]
        for r in range(rows):
            block_steps[r * per_row : (r + 1) * per_row] = steps[r]
    fill_blocks(plan, DECISION_DOMAIN + plan[DOMAIN_BASE], block_steps, blocks, raw)
    for g in range(rows * groups):
        pack_decisions(raw, SPAN_BLOCKS, g * GROUP_BLOCKS, hi, keep, ties, 2 * g)
    if lo == ZERO:
        for k in range(total):  # nothing is below 0: ties are kept
            keep[k] |= ties[k]
    else:
        found, kept = bits[FOUND_AT:KEPT_AT], bits[KEPT_AT:]
        tied = find_ties(ties, total, found)
        padded = (tied + TIE_GROUP - 1) // TIE_GROUP * TIE_GROUP
        found[tied:padded] = found[0]  # settled again, so that no scalar loop has to do the rest
        settle_ties(plan, block_steps, lo, blocks, keep, found[:padded], kept[:padded])
    keep[total] = ZERO
    for r in range(rows):
        own, answer, skip = keep[2 * r * groups :], bits[r * words :], starts[r] & BLOCK_MASK
        for k in range(words):
            answer[k] = (own[k] >> skip) | ((own[k + 1] << ONE) << (np.uint64(WORD_BITS - 1) - skip))


@device
def decide_fixed(plan: U64, steps: U64, cutoff: np.uint64, first: np.uint64, count: int, bits: U64, answer: U64) -> None:
    """Write the decisions of `count` mask elements from `first` on, of one mask row that drops a fixed count, in one step."""
    blocks, raw = bits[BLOCKS_AT:FOUND_AT], bits[RAW_AT:].view(np.uint32)
    domain, start = RANK_DOMAIN + plan[DOMAIN_BASE], first % plan[ROW_SIZE]
    skip = int(first & np.uint64(3))
    done = 0
    while done < count:  # SPAN_BLOCKS blocks are fewer words than SPAN
        part = min(count - done, (SPAN_BLOCKS - GROUP_BLOCKS) * WORDS_PER_BLOCK)
        numbers = blocks[: (part + skip + 3) // 4]
        for k in range(len(numbers)):
            numbers[k] = (first >> np.uint64(2)) + np.uint64(done // WORDS_PER_BLOCK + k)
        fill_blocks(plan, domain, steps, numbers, raw)
        for k in range((part + WORD_BITS - 1) // WORD_BITS):
            word = ZERO
            for b in range(min(WORD_BITS, part - k * WORD_BITS)):
                i = k * WORD_BITS + b
                value = np.uint64(raw[((i + skip) & 3) * SPAN_BLOCKS + ((i + skip) >> 2)])
                rank = value << HALF | (start + np.uint64(done + i))
                word |= np.uint64(rank > cutoff) << np.uint64(b)
            answer[done // WORD_BITS + k] = word
        done += part


@device
def decide(plan: U64, i: int, rows: int, column: int, count: int, bits: U64) -> None:
    """Write the decisions of matrix rows i .. i + rows - 1, columns column .. column + count - 1: words(count) words a row.

    Where rows are several, count is rounded up to a multiple of GROUP_BITS, and once more where rows do not start at blocks;
    rows times that is at most SPAN. Bits of a row beyond `count` are not defined. `bits` is one thread's scratch: SCRATCH_WORDS.
    """
    kind = int(plan[KIND])
    words = (count + WORD_BITS - 1) // WORD_BITS
    if kind in (KEEP_ALL, DROP_ALL):
        for k in range(rows * words):
            bits[k] = ALL if kind == KEEP_ALL else ZERO
        return
    starts, steps = bits[STARTS_AT : STARTS_AT + rows], bits[STEPS_AT : STEPS_AT + rows]
    inner, group, step, pass_rows = plan[INNER], plan[GROUP], plan[COLUMN_STEP], plan[PASS_ROWS]
    offsets, cutoffs = plan[PLAN_SIZE:], plan[PLAN_SIZE + int(inner) :]
    wanted = count if step == ONE else 1
    for r in range(rows):
        row, number = np.uint64(i + r), ZERO
        if pass_rows != ZERO:
            number, row = row // pass_rows, row % pass_rows
        steps[r] = plan[STEP] + number
        mask_row = ZERO if group == ZERO else (plan[ROW_OFFSET] + row // inner) // group
        starts[r] = mask_row * plan[ROW_SIZE] + offsets[int(row % inner)] + np.uint64(column) * step
        if kind != BERNOULLI:
            cutoff = cutoffs[int(number * plan[PASS_CUTOFFS] + mask_row - plan[FIRST_ROW])]
            answer = bits[r * ((wanted + WORD_BITS - 1) // WORD_BITS) :]
            decide_fixed(plan, steps[r : r + 1], cutoff, starts[r], wanted, bits, answer)
    whole = wanted % WORD_BITS == 0 and plan[ROW_SIZE] == np.uint64(wanted) and inner == ONE and group == ONE
    if whole and steps[0] == steps[rows - 1]:
        starts, wanted = starts[:1], rows * wanted  # whole mask rows: they lie one after the other
    if kind == BERNOULLI:
        decide_bernoulli(plan, starts, steps[: len(starts)], wanted, bits)
    if step == ZERO:
        for r in range(rows - 1, -1, -1):
            one = ALL if bits[r] & ONE else ZERO
            for k in range(words):
                bits[r * words + k] = one


# Kernels


@kernel
def decisions_kernel(plan: U64, first_row: int, first_column: int, columns: int, out: U64, bits: U64, threads: int) -> None:
    """Write the packed decisions of the rectangle that starts at (first_row, first_column) to out (rows, words)."""
    rows = out.shape[0]
    for t in prange(threads):
        for i in range(t * rows // threads, (t + 1) * rows // threads):
            for done in range(0, columns, SPAN):
                count = min(SPAN, columns - done)
                decide(plan, first_row + i, 1, first_column + done, count, bits[t])
                words = (count + WORD_BITS - 1) // WORD_BITS
                if count % WORD_BITS:
                    bits[t, words - 1] &= (ONE << np.uint64(count % WORD_BITS)) - ONE
                for k in range(words):
                    out[i, done // WORD_BITS + k] = bits[t, k]


@kernel
def words_kernel(plan: U64, domain: np.uint64, first: np.uint64, out: npt.NDArray[np.uint32], threads: int) -> None:
    """Write words first .. first + len(out) - 1 of a domain."""
    n = len(out)
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            out[i] = np.uint32(single_word(plan, domain, plan[STEP], first + np.uint64(i)))


RADIX_BITS = 8
RADIX = 1 << RADIX_BITS


@device
def row_cutoff(
    plan: U64, step: np.uint64, row: np.uint64, words: npt.NDArray[np.uint32], counts: npt.NDArray[np.int64]
) -> np.uint64:
    """Return ``word << 32 | position`` of the last dropped unit of a mask row: a radix selection, byte by byte."""
    n = int(plan[ROW_SIZE])
    first = row * plan[ROW_SIZE]
    for j in range(n):
        words[j] = np.uint32(single_word(plan, RANK_DOMAIN + plan[DOMAIN_BASE], step, first + np.uint64(j)))
    left = int(plan[THRESHOLD])  # which one of the candidates, counted from 1
    prefix, fixed = ZERO, ZERO
    for level in range(32 // RADIX_BITS):
        shift = np.uint64(32 - RADIX_BITS * (level + 1))
        counts[:] = 0
        for j in range(n):
            word = np.uint64(words[j])
            if word & fixed == prefix:
                counts[int((word >> shift) & np.uint64(RADIX - 1))] += 1
        digit = 0
        while counts[digit] < left:
            left -= counts[digit]
            digit += 1
        prefix |= np.uint64(digit) << shift
        fixed |= np.uint64(RADIX - 1) << shift
    for j in range(n):  # equal words: the smaller positions are dropped first
        if np.uint64(words[j]) == prefix:
            left -= 1
            if left == 0:
                return prefix << HALF | np.uint64(j)
    return ALL


@kernel
def cutoffs_kernel(plan: U64, words: npt.NDArray[np.uint32], counts: npt.NDArray[np.int64], out: U64, threads: int) -> None:
    """Write the cutoffs of PASS_CUTOFFS mask rows from FIRST_ROW on, pass after pass; words is (threads, row_size),
    counts (threads, RADIX)."""
    n = len(out)
    for t in prange(threads):
        for i in range(t * n // threads, (t + 1) * n // threads):
            number, row = np.uint64(i) // plan[PASS_CUTOFFS], np.uint64(i) % plan[PASS_CUTOFFS]
            out[i] = row_cutoff(plan, plan[STEP] + number, plan[FIRST_ROW] + row, words[t], counts[t])


# Host side


WORD_NANOSECONDS = 8.0
"""Estimated cost of one word of a fixed-count mask, and of a tie."""


def key_plan(key: Key) -> U64:
    """Return a plan that holds a key alone."""
    plan = np.zeros(PLAN_SIZE, dtype=np.uint64)
    set_key(plan, key)
    return plan


def set_key(plan: U64, key: Key) -> None:
    """Put a key into a plan."""
    plan[KEY_0], plan[KEY_1] = key.seed & MASK32, key.seed >> 32
    plan[STREAM], plan[STEP] = key.stream, key.step


def make_plan(mask: BoundMask, threads: int) -> U64:
    """Return the plan of a bound mask; a fixed count's cutoffs are found here, once for a mask and step."""
    fixed, inner = mask.kind == MaskKind.FIXED_COUNT and mask.rows > 0, len(mask.offsets)
    first = mask.mask_row(0) if fixed else 0
    pass_cutoffs = mask.mask_row(mask.pass_rows - 1) - first + 1 if fixed else 0
    count = mask.passes * pass_cutoffs
    plan = np.zeros(PLAN_SIZE + inner + count, dtype=np.uint64)
    set_key(plan, mask.key)
    plan[KIND], plan[THRESHOLD], plan[SCALE] = mask.kind, mask.threshold, np.float64(mask.scale).view(np.uint64)
    plan[ROW_SIZE], plan[ROW_OFFSET], plan[GROUP] = mask.row_size, mask.row_offset, mask.group
    plan[COLUMN_STEP], plan[DOMAIN_BASE] = mask.column_step, mask.domain_base
    plan[FIRST_ROW], plan[INNER] = first, inner
    if mask.passes > 1:
        plan[PASS_ROWS] = mask.pass_rows
    plan[PLAN_SIZE : PLAN_SIZE + inner] = mask.offsets
    if fixed:
        plan[PASS_CUTOFFS] = pass_cutoffs
        words = np.empty((threads, mask.row_size), dtype=np.uint32)
        counts = np.empty((threads, RADIX), dtype=np.int64)
        cutoffs_kernel(count * mask.row_size * WORD_NANOSECONDS, plan, words, counts, plan[PLAN_SIZE + inner :])
    return plan


@functools.lru_cache(maxsize=64)
def factor_plan(scale: float) -> U64:
    """Return the plan of a mask that keeps all, scaled."""
    plan = key_plan(Key(0, 0, 0))
    plan[SCALE] = np.float64(scale).view(np.uint64)
    return plan


KEEP_ALL_PLAN: Final = factor_plan(1.0)
"""The plan of a mask that does nothing."""
