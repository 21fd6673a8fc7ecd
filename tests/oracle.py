"""The mask contract, version 1, a second time: in plain Python integers, one element at a time, sharing no code with fastdrop.

``python tests/oracle.py`` writes tests/data/vectors.json anew; the tests check that file against this module, and every backend
against that file.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "data" / "vectors.json"
MASK32 = 0xFFFFFFFF


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Ten rounds of Philox4x32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def block(seed: int, stream: int, step: int, domain: int, number: int) -> tuple[int, ...]:
    counter = (number & MASK32, (number >> 32) | (domain << 24), stream, step)
    return philox(counter, (seed & MASK32, seed >> 32))


def word(seed: int, stream: int, step: int, domain: int, index: int) -> int:
    return block(seed, stream, step, domain, index // 4)[index % 4]


def byte(seed: int, stream: int, step: int, domain: int, index: int) -> int:
    return block(seed, stream, step, domain, index // 16)[index % 16 // 4].to_bytes(4, "little")[index % 4]


def round_half_even(value: Fraction) -> int:
    floor = math.floor(value)
    rest = value - floor
    if rest == Fraction(1, 2):
        return floor + floor % 2
    return floor + (rest > Fraction(1, 2))


def threshold(rate: float) -> int:
    return round_half_even(Fraction(rate) * 2**32)


def keeps(seed: int, stream: int, step: int, rate: float, element: int, base: int = 0) -> bool:
    """The Bernoulli decision of one mask element."""
    t = threshold(rate)
    if t in (0, 2**32):
        return t == 0
    u = byte(seed, stream, step, base, element)
    if u != t >> 24:
        return u > t >> 24
    return word(seed, stream, step, base + 1, element) >> 8 >= t & 0xFFFFFF


def mask_row(row: int, row_offset: int, shared_rows: int | str) -> int:
    return 0 if shared_rows == "batch" else (row_offset + row) // int(shared_rows)


def bernoulli_row(key: tuple[int, int, int], rate: float, m: int, row_size: int, base: int = 0) -> list[bool]:
    return [keeps(*key, rate, m * row_size + j, base) for j in range(row_size)]


def dropped_units(rate: float, n: int) -> int:
    return round_half_even(Fraction(rate * n))


def fixed_count_row(key: tuple[int, int, int], rate: float, m: int, n: int, base: int = 0) -> list[bool]:
    order = sorted((word(*key, 5 + base, m * n + j), j) for j in range(n))
    dropped = {j for _, j in order[: dropped_units(rate, n)]}
    return [j not in dropped for j in range(n)]


def scale(rate: float) -> float:
    t = threshold(rate)
    return 0.0 if t == 2**32 else float(Fraction(2**32, 2**32 - t))


def fixed_count_scale(rate: float, n: int) -> float:
    return 1.0 / float(Fraction(n - dropped_units(rate, n), n))


def uniform(seed: int, stream: int, step: int, domain: int, index: int) -> float:
    return float(Fraction(2 * word(seed, stream, step, domain, index) + 1, 2**33))


def normal(seed: int, stream: int, step: int, domain: int, index: int) -> float:
    w0 = word(seed, stream, step, domain, index - index % 2)
    u1 = uniform(seed, stream, step, domain, index - index % 2 + 1)
    log_u0 = math.log1p(-(2**32 - w0 - 0.5) / 2**32) if w0 >= 2**31 else math.log((w0 + 0.5) / 2**32)
    radius = math.sqrt(-2 * log_u0)
    return radius * (math.sin if index % 2 else math.cos)(2 * math.pi * u1)


def shuffle(seed: int, epoch: int, n: int) -> list[int]:
    return sorted(range(n), key=lambda i: word(seed, 0, epoch, 4, i))


def fold_in(seed: int, stream: int, step: int, i: int) -> int:
    return word(seed, stream, step, 6, 4 * i) | word(seed, stream, step, 6, 4 * i + 1) << 32


def pack(keep: list[bool]) -> str:
    """Booleans as hex, least significant bit first."""
    octets = (keep[i : i + 8] for i in range(0, len(keep), 8))
    return bytes(sum(bit << b for b, bit in enumerate(octet)) for octet in octets).hex()


def _hex(values: tuple[int, ...] | list[int]) -> list[str]:
    return [f"{value:08x}" for value in values]


def _philox_entries() -> list[dict[str, Any]]:
    cases = [
        ((0, 0, 0, 0), (0, 0)),
        ((MASK32,) * 4, (MASK32,) * 2),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)),
        ((1, 0, 0, 0), (0, 0)),
        ((0xFFFFFFFF, 0x00FFFFFF, 7, 9), (0x80000000, 1)),
    ]
    return [{"counter": _hex(counter), "key": _hex(key), "out": _hex(philox(counter, key))} for counter, key in cases]


TOP_ELEMENT = 2**58

_BERNOULLI_CASES = [  # seed, stream, step, rate, row_offset, n
    (2024, 0, 0, 0.5, 0, 65),
    (2024, 0, 1, 0.25, 3, 70),
    (2**64 - 1, 2**32 - 1, 2**32 - 1, 0.1, 11, 129),
    (17, 4, 2, 0.75, 2**32 - 7, 48),
    (17, 4, 2, 1 / 3, 4 * 2**32 - 5, 300),
    (17, 4, 2, 0.7, 16 * 2**32 - 9, 300),
    (2**32, 1, 0, 0.3, TOP_ELEMENT - 300, 300),
    (2**32 - 1, 1, 0, 0.9, TOP_ELEMENT - 77, 77),
    (5, 0, 3, 1 / 256, 0, 700),
    (5, 0, 3, 255 / 256 + 2**-20, 0, 700),
    (5, 0, 3, 2.0**-32, 0, 64),
    (5, 0, 3, 1 - 2.0**-32, 0, 64),
    (5, 0, 3, 2.0**-33, 0, 16),
    (5, 0, 3, 1.5 * 2.0**-32, 0, 16),
    (6, 9, 8, 0.0, 0, 9),
    (6, 9, 8, 1.0, 0, 9),
]


def _bernoulli_entry(seed: int, stream: int, step: int, rate: float, row_offset: int, n: int) -> dict[str, Any]:
    keep = [keeps(seed, stream, step, rate, row_offset + i) for i in range(n)]
    hi = threshold(rate) >> 24
    ties = sum(byte(seed, stream, step, 0, row_offset + i) == hi for i in range(n)) if 0 < threshold(rate) < 2**32 else 0
    return {
        "seed": seed, "stream": stream, "step": step, "rate": rate, "rate_hex": rate.hex(), "row_offset": row_offset, "n": n,
        "threshold": threshold(rate), "ties": ties, "kept": sum(keep), "keep_hex": pack(keep),
    }  # fmt: skip


def _row_entries() -> list[dict[str, Any]]:
    cases: list[tuple[int, int, float, tuple[int, int, int], int, int | str]] = [
        (4, 13, 0.45, (21, 2, 6), 0, 1),
        (4, 13, 0.45, (21, 2, 6), 5, 1),
        (7, 6, 0.2, (21, 2, 6), 5, 3),
        (3, 65, 0.6, (2**63, 2, 6), 99, "batch"),
        (3, 1000, 0.35, (22, 0, 1), TOP_ELEMENT // 1000 - 3, 1),
        (5, 1025, 0.35, (22, 0, 1), (TOP_ELEMENT // 1025 - 2) * 2 - 1, 2),
    ]
    return [
        {
            "rows": rows, "row_size": row_size, "rate": rate, "seed": key[0], "stream": key[1], "step": key[2],
            "row_offset": offset, "shared_rows": shared,
            "keep_hex": [pack(bernoulli_row(key, rate, mask_row(r, offset, shared), row_size)) for r in range(rows)],
        }
        for rows, row_size, rate, key, offset, shared in cases
    ]  # fmt: skip


def _noise_entries() -> list[dict[str, Any]]:
    cases: list[tuple[list[int], list[int | None], float, tuple[int, int, int], int]] = [
        ([5, 17], [1, None], 0.4, (8, 1, 0), 12),
        ([5, 17], [None, 1], 0.4, (8, 1, 0), 12),
        ([3, 4, 4, 6], [None, 1, 1, None], 0.25, (9, 1, 7), 2),
        ([3, 4, 5, 6], [3, 4, 1, 1], 0.55, (9, 1, 7), 2**40),
    ]
    entries = []
    for shape, noise_shape, rate, key, offset in cases:
        full = [extent if entry is None else entry for entry, extent in zip(noise_shape, shape, strict=True)]
        row_size = math.prod(full[1:])
        offset_rows = [0] if noise_shape[0] == 1 else [offset + r for r in range(shape[0])]
        keep = [k for m in offset_rows for k in bernoulli_row(key, rate, m, row_size)]
        entries.append(
            {
                "shape": shape,
                "noise_shape": noise_shape,
                "rate": rate,
                "seed": key[0],
                "stream": key[1],
                "step": key[2],
                "row_offset": offset,
                "mask_hex": pack(keep),
            }
        )
    return entries


def _fixed_entries() -> list[dict[str, Any]]:
    cases: list[tuple[int, int, float, tuple[int, int, int], int, int | str]] = [
        (3, 8, 0.5, (31, 0, 0), 0, 1),
        (4, 17, 0.3, (31, 3, 2), 4, 1),
        (5, 129, 0.9, (2**64 - 2, 3, 2), 7, 2),
        (2, 100, 0.125, (32, 3, 2), 0, "batch"),
        (2, 64, 0.4, (32, 3, 2), TOP_ELEMENT // 64 - 2, 1),
    ]
    return [
        {
            "rows": rows, "n": n, "rate": rate, "seed": key[0], "stream": key[1], "step": key[2], "row_offset": offset,
            "shared_rows": shared, "dropped_per_row": dropped_units(rate, n),
            "keep_hex": [pack(fixed_count_row(key, rate, mask_row(r, offset, shared), n)) for r in range(rows)],
        }
        for rows, n, rate, key, offset, shared in cases
    ]  # fmt: skip


def _word_entries() -> list[dict[str, Any]]:
    firsts = [0, 3, 2**32 - 2, 4 * 2**32 - 3, 2**50 + 1, TOP_ELEMENT - 6]
    cases = [(domain, firsts[domain % len(firsts)]) for domain in range(16)] + [(0, first) for first in firsts]
    return [
        {
            "domain": domain, "seed": 0x0123456789ABCDEF, "stream": 3, "step": 4, "first": first,
            "words": _hex([word(0x0123456789ABCDEF, 3, 4, domain, first + i) for i in range(6)]),
        }
        for domain, first in cases
    ]  # fmt: skip


def _value_entries() -> dict[str, Any]:
    return {
        "normals": [
            {
                "domain": domain, "seed": 77, "stream": 1, "step": 2, "first_pair": pair,
                "values": [normal(77, 1, 2, domain, 2 * pair + i) for i in range(8)],
            }
            for domain, pair in ((2, 0), (2, 2**33 + 5), (3, 1))
        ],
        "shuffle": [{"n": n, "seed": 13, "epoch": epoch, "order": shuffle(13, epoch, n)} for n, epoch in ((9, 0), (17, 41))],
        "fold_in": [
            {"seed": s, "stream": t, "step": u, "i": i, "new_seed": fold_in(s, t, u, i)}
            for s, t, u, i in ((3, 0, 0, 0), (2**64 - 1, 2**32 - 1, 5, 2**56 - 1), (3, 1, 2, 2**40 + 3))
        ],
        "scale": [{"rate": rate, "scale_hex": scale(rate).hex()} for rate in (0.0, 2.0**-33, 0.15, 0.35, 0.8, 0.9999, 1.0)],
        "fixed_count_scale": [
            {"n": n, "rate": rate, "scale_hex": fixed_count_scale(rate, n).hex()} for n, rate in ((8, 0.5), (17, 0.3), (129, 0.9))
        ],
        "monte_carlo": [
            {
                "n": 96, "rate": rate, "seed": 14, "stream": 2, "sample": sample,
                "keep_hex": pack([keeps(14, 2, sample, rate, i, 8) for i in range(96)]),
            }
            for rate, sample in ((0.5, 0), (0.2, 3))
        ],
        "initialisers": [
            {
                "seed": 15, "ordinal": ordinal,
                "uniforms": [uniform(15, ordinal, 0, 3, i) for i in range(5)],
                "normals": [normal(15, ordinal, 0, 3, i) for i in range(5)],
            }
            for ordinal in (0, 2)
        ],
    }  # fmt: skip


def vectors() -> dict[str, Any]:
    """Everything that tests/data/vectors.json holds."""
    return {
        "about": "Known answers of the mask contract, written by tests/oracle.py. *_hex of masks: bits as hex, least significant "
        "first; noise_shape.mask_hex is the mask before broadcasting. *_hex of floats: float.hex().",
        "philox4x32_10": _philox_entries(),
        "bernoulli": [_bernoulli_entry(*case) for case in _BERNOULLI_CASES],
        "rows": _row_entries(),
        "noise_shape": _noise_entries(),
        "fixed_count": _fixed_entries(),
        "words": _word_entries(),
        **_value_entries(),
    }


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=1) + "\n")
