"""Standard normals from pairs of random words, by the method of Box and Muller, as formulas that vectorise.

Notation: (w0, w1) is a pair of words as int32 of the same bits, ``u = (word + 0.5) * 2**-32``; the two normals are
``r cos(2 pi u1)`` and ``r sin(2 pi u1)``, ``r = sqrt(-2 ln u0)``. A word is *folded* where its upper half is mirrored onto the
lower one, which maps u to 1 - u, in integers and so exactly.

- ``ln u0``: with p the folded u0, in (0, 1/2), ``log1p(-p)`` where the word was folded, else ``k ln 2 + log1p(f)``,
  ``p = 2**k (1 + f)``, 0 <= f < 1
- ``2 pi u1``: three folds, by the signs of sine and cosine and about pi / 4, leave an angle in (0, pi / 4)

Source: Box and Muller 1958. The reference has the same formulas, without folds: `fastdrop.rng.normals_from_words`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastdrop.backends.formulas import elementary
from fastdrop.backends.formulas._formula import COMPILED, Target

QUARTER, EIGHTH = np.int32(1 << 30), np.int32(1 << 29)
"""A quarter and an eighth of the range of a word: as an angle, pi / 2 and pi / 4."""
FOLD_HALF, FOLD_QUARTER = np.int32((1 << 31) - 1), np.int32((1 << 30) - 1)
"""From which a word is subtracted to mirror it: ``FOLD - word + 0.5 = FOLD + 1 - (word + 0.5)``."""
NO_WORD = np.int32(0)


def _make(target: Target, f: SimpleNamespace) -> Any:
    """Make the formula of one dtype from its elementary functions."""
    formula, select, fma, bits_of, from_bits, _ = target
    number, integer, zero, half, one, two = f.number, f.integer, f.zero, f.half, f.one, f.two
    log1p, sincos = f.log1p, f.sincos
    word_unit, turn_unit, ln2 = number(2.0**-32), number(2.0 * math.pi * 2.0**-32), number(math.log(2.0))
    mantissa, one_bits = integer(f.mantissa), integer(np.array(one).view(integer))
    fraction_mask, exponent_bias = integer((1 << f.mantissa) - 1), integer(int(one_bits) >> f.mantissa)

    @formula
    def radius(word: Any) -> Any:
        """Return sqrt(-2 ln u0)."""
        folded = word < NO_WORD
        p = (number(np.int32(select(folded, np.int32(~word), word))) + half) * word_unit
        bits = bits_of(p)
        k = number(integer(integer(bits >> mantissa) - exponent_bias))
        f = from_bits(integer(integer(bits & fraction_mask) | one_bits)) - one
        log_u0 = fma(select(folded, zero, k), ln2, log1p(select(folded, -p, f)))
        return math.sqrt(-two * log_u0)

    @formula
    def normal_pair(stddev: Any, w0: Any, w1: Any) -> Any:
        """Return the two normals of a pair of words, times `stddev`, in its dtype."""
        r = stddev * radius(w0)
        below = w1 < NO_WORD
        word = select(below, np.int32(~w1), w1)
        obtuse = word >= QUARTER
        word = select(obtuse, np.int32(FOLD_HALF - word), word)
        steep = word >= EIGHTH
        word = select(steep, np.int32(FOLD_QUARTER - word), word)
        sine, cosine = sincos((number(word) + half) * turn_unit)
        x, y = r * select(steep, sine, cosine), r * select(steep, cosine, sine)
        return select(obtuse, -x, x), select(below, -y, y)

    return normal_pair


def make(target: Target) -> Any:
    """Return the function for both dtypes."""
    single, double = elementary.make(target)
    return target.by_dtype(_make(target, single), _make(target, double))


normal_pair = make(COMPILED)
