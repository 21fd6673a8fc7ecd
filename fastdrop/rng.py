"""Philox4x32-10 in plain NumPy, and everything that is defined directly on its stream.

Notation: a *counter* is four 32-bit words, a *key* two, a *block* the four output words of one counter, a *word* one of
them. Word i of a domain is word ``i % 4`` of block ``i // 4``; byte e is byte ``e % 4`` (least significant first) of word
``(e % 16) // 4`` of block ``e // 16``.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11, section 4.3; constants as in
Random123.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastdrop import _validate
from fastdrop._types import Domain

PHILOX_M4X32_0 = 0xD2511F53
PHILOX_M4X32_1 = 0xCD9E8D57
PHILOX_W32_0 = 0x9E3779B9
PHILOX_W32_1 = 0xBB67AE85
PHILOX_ROUNDS = 10

WORDS_PER_BLOCK = 4
BYTES_PER_BLOCK = 16
MASK32 = 0xFFFFFFFF
DOMAIN_SHIFT = 24
TWO_POW_32 = 1 << 32
HALF_RANGE = 1 << 31
MAX_BLOCKS = 1 << 56

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, init=False)
class Key:
    """Where in the random stream a mask lies: (seed, stream, step).

    Parameters
    ----------
    seed : int in [0, 2**64)
        The user's seed: low half is Philox key word 0, high half key word 1.
    stream : int in [0, 2**32)
        Which random layer: counter word 2.
    step : int in [0, 2**32)
        Which training step: counter word 3.

    Raises
    ------
    TypeError: an argument is not an integer. ValueError: out of range.

    Examples
    --------
    >>> Key(1, 0, 0).at(5)
    Key(seed=1, stream=0, step=5)
    """

    seed: int
    stream: int
    step: int

    def __init__(self, seed: int, stream: int, step: int) -> None:
        object.__setattr__(self, "seed", _validate.integer("seed", seed, 0, _validate.MAX_SEED))
        object.__setattr__(self, "stream", _validate.integer("stream", stream, 0, MASK32))
        object.__setattr__(self, "step", _validate.integer("step", step, 0, MASK32))

    def at(self, step: int) -> Key:
        """Return the same key at another training step."""
        return Key(self.seed, self.stream, step)

    def on(self, stream: int) -> Key:
        """Return the same key on another stream."""
        return Key(self.seed, stream, self.step)

    def fold_in(self, i: int) -> Key:
        """Return an independent key number `i` (0 <= i < 2**56): a new seed, the same stream and step.

        The new seed is ``word 4i | word 4i+1 << 32`` of domain 6.
        """
        i = _validate.integer("i", i, 0, MAX_BLOCKS - 1)
        low, high = words(self, Domain.FOLD_IN, WORDS_PER_BLOCK * i, 2).tolist()
        return Key(low | high << 32, self.stream, self.step)


def new_seed() -> int:
    """Return a 64-bit seed from the operating system."""
    return secrets.randbits(64)


def philox_blocks(
    c0: npt.NDArray[np.uint64], c1: npt.NDArray[np.uint64], c2: int, c3: int, k0: int, k1: int
) -> npt.NDArray[np.uint32]:
    """Return Philox4x32-10 of each counter (c0[i], c1[i], c2, c3): shape (n, 4), uint32.

    All words are held in uint64, so that products are exact and nothing wraps.
    """
    mask, shift = np.uint64(MASK32), np.uint64(32)
    x0, x1 = c0.astype(np.uint64), c1.astype(np.uint64)
    x2, x3 = np.full_like(x0, c2), np.full_like(x0, c3)
    for _ in range(PHILOX_ROUNDS):
        p0, p1 = x0 * np.uint64(PHILOX_M4X32_0), x2 * np.uint64(PHILOX_M4X32_1)
        x0, x1, x2, x3 = (
            (p1 >> shift) ^ x1 ^ np.uint64(k0),
            p1 & mask,
            (p0 >> shift) ^ x3 ^ np.uint64(k1),
            p0 & mask,
        )
        k0, k1 = (k0 + PHILOX_W32_0) & MASK32, (k1 + PHILOX_W32_1) & MASK32
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def domain_blocks(key: Key, domain: int, numbers: npt.NDArray[np.uint64]) -> Words:
    """Return the blocks with the given numbers (below 2**56) of a domain: shape (n, 4), uint32."""
    c0 = numbers & np.uint64(MASK32)
    c1 = (numbers >> np.uint64(32)) | np.uint64(domain << DOMAIN_SHIFT)
    return philox_blocks(c0, c1, key.stream, key.step, key.seed & MASK32, key.seed >> 32)


def words(key: Key, domain: int, first: int, count: int) -> Words:
    """Return words first .. first + count - 1 of a domain: shape (count,), uint32."""
    start, skip = divmod(first, WORDS_PER_BLOCK)
    blocks = -(-(skip + count) // WORDS_PER_BLOCK)
    numbers = np.arange(blocks, dtype=np.uint64) + np.uint64(start)
    return domain_blocks(key, domain, numbers).reshape(-1)[skip : skip + count]


def words_at(key: Key, domain: int, indices: npt.NDArray[np.uint64]) -> Words:
    """Return the words with the given indices of a domain: shape (n,), uint32."""
    blocks = domain_blocks(key, domain, indices // np.uint64(WORDS_PER_BLOCK))
    column = (indices % np.uint64(WORDS_PER_BLOCK)).astype(np.intp)
    return blocks[np.arange(len(indices)), column]


def stream_bytes(key: Key, domain: int, first: int, count: int) -> npt.NDArray[np.uint8]:
    """Return bytes first .. first + count - 1 of a domain: shape (count,), uint8."""
    start, skip = divmod(first, 4)
    stream = words(key, domain, start, -(-(skip + count) // 4)).astype("<u4").view(np.uint8)
    return stream[skip : skip + count]


def uniforms_from_words(values: Words) -> Floats:
    """Return ``(word + 0.5) * 2**-32`` in binary64: in the open interval (0, 1)."""
    return (values.astype(np.float64) + 0.5) * 2.0**-32


def normals_from_words(values: Words) -> Floats:
    """Return standard normals by Box-Muller from word pairs (2i, 2i+1): same length as `values` (even).

    ``r = sqrt(-2 ln u0)``, results ``r cos(2 pi u1), r sin(2 pi u1)``. Near u0 = 1 the logarithm is taken as
    ``log1p(-(2**32 - word - 0.5) * 2**-32)``, which keeps its relative accuracy.
    Source: Box and Muller 1958.
    """
    w0 = values[0::2].astype(np.float64)
    u1 = uniforms_from_words(values[1::2])
    high = w0 >= HALF_RANGE
    log_u0 = np.empty_like(w0)
    log_u0[high] = np.log1p(-(TWO_POW_32 - w0[high] - 0.5) * 2.0**-32)
    log_u0[~high] = np.log((w0[~high] + 0.5) * 2.0**-32)
    radius = np.sqrt(-2.0 * log_u0)
    out = np.empty(len(values))
    out[0::2] = radius * np.cos(2.0 * np.pi * u1)
    out[1::2] = radius * np.sin(2.0 * np.pi * u1)
    return out


def uniforms(key: Key, domain: int, first: int, count: int) -> Floats:
    """Return uniforms number first .. first + count - 1 of a domain, in binary64."""
    return uniforms_from_words(words(key, domain, first, count))


def normals(key: Key, domain: int, first: int, count: int) -> Floats:
    """Return standard normals number first .. first + count - 1 of a domain, in binary64."""
    start = first - first % 2
    even = -(-(first + count - start) // 2) * 2
    return normals_from_words(words(key, domain, start, even))[first - start : first - start + count]


def shuffle_order(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    """Return the order in which `n` rows are visited in an epoch: stable argsort of words 0..n-1 of domain 4.

    Parameters
    ----------
    seed : int
        The network's seed; stream is 0.
    epoch : int
        Epochs that the network has completed so far: the step of the key.
    n : int
        Number of rows.
    """
    values = words(Key(seed, 0, epoch), Domain.SHUFFLES, 0, n)
    return np.argsort(values, kind="stable").astype(np.int64)
