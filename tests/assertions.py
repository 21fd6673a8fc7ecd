"""Assertions on arrays. Each failure names the first index, the value and what was expected there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GUARD = 64
"""Elements on each side of a guarded buffer."""
NANS = 600
"""Elements around an input: more than a row of a matrix or of an image."""


def _first(wrong: Array, got: Array, wanted: Array) -> str:
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {wrong.size} wrong; first at {index}: got {got[index]!r}, wanted {wanted[index]!r}"


def assert_same_bits(got: Array, wanted: Array) -> None:
    """Equal dtype, shape and bits; -0.0 is not +0.0, any NaN equals any NaN."""
    assert got.dtype == wanted.dtype, f"dtype {got.dtype}, wanted {wanted.dtype}"
    assert got.shape == wanted.shape, f"shape {got.shape}, wanted {wanted.shape}"
    if got.dtype.kind == "f":
        wrong = ~((got == wanted) & (np.signbit(got) == np.signbit(wanted)) | np.isnan(got) & np.isnan(wanted))
    else:
        wrong = got != wanted
    assert not wrong.any(), _first(wrong, got, wanted)


def assert_near(got: Array, wanted: Array, tolerance: float | Array) -> None:
    """Equal shape; ``|got - wanted| <= tolerance`` everywhere, non-finite values equal."""
    assert got.shape == wanted.shape, f"shape {got.shape}, wanted {wanted.shape}"
    got64, wanted64 = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        near = np.abs(got64 - wanted64) <= tolerance
        same = (got64 == wanted64) | np.isnan(got64) & np.isnan(wanted64)
    assert (near | same).all(), _first(~(near | same), got, wanted)


def assert_agree(got: Array, wanted: Array, ulps: float = 8.0) -> None:
    """Equal dtype and shape; equal to so many units in the last place of the largest finite value of `wanted`."""
    assert got.dtype == wanted.dtype, f"dtype {got.dtype}, wanted {wanted.dtype}"
    finite = np.abs(wanted[np.isfinite(wanted)])
    largest = float(finite.max()) if finite.size else 0.0
    assert_near(got, wanted, ulps * float(np.finfo(wanted.dtype).eps) * largest)


def assert_at_most_twice_the_error(got: Array, plain: Array, exact: Array) -> None:
    """The largest error against `exact` (binary64) is at most twice that of plain NumPy in the same dtype, or two roundings."""
    assert got.dtype == plain.dtype, f"dtype {got.dtype}, wanted {plain.dtype}"
    assert got.shape == exact.shape, f"shape {got.shape}, wanted {exact.shape}"
    if got.size == 0:
        return
    allowed = 2 * np.abs(plain - exact).max() + float(np.finfo(got.dtype).eps) * np.abs(exact).max()
    assert_near(got, exact, float(allowed))


def ulp_error(got: Array, exact: Array) -> Array:
    """Errors in units in the last place of the correctly rounded value; `exact` is binary64 or wider."""
    rounded = exact.astype(got.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(got.astype(exact.dtype) - exact) / np.spacing(np.abs(rounded)).astype(exact.dtype)
    return np.where((got == rounded) | np.isnan(got) & np.isnan(rounded), 0.0, error)


def assert_varied(keep: Array) -> None:
    """Vacuity guard: a mask with neither all kept nor all dropped."""
    assert keep.any(), "vacuous: everything is dropped"
    assert not keep.all(), "vacuous: everything is kept"


def assert_not_vacuous(values: Array, least: float = 0.05) -> None:
    """Vacuity guard: at least a share `least` of the values is neither zero nor NaN."""
    share = float(np.mean((values != 0) & np.isfinite(values)))
    assert share >= least, f"vacuous: only {share:.1%} of the expected values are finite and non-zero"


def among_nans(array: Array) -> Array:
    """The array within memory full of NaN."""
    memory = np.full(array.size + 2 * NANS, np.nan, array.dtype)
    view = memory[NANS : NANS + array.size].reshape(array.shape)
    view[...] = array
    return view


def guarded(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[Array, Callable[[], None]]:
    """A buffer full of NaN between two guard zones, and a check that all of it, and nothing else, has been written."""
    size = math.prod(shape)
    memory = np.full(size + 2 * GUARD, np.nan, dtype=dtype)
    zones = (memory[:GUARD], memory[GUARD + size :])
    for zone in zones:
        zone[:] = np.arange(GUARD)
    out = memory[GUARD : GUARD + size].reshape(shape)

    def check() -> None:
        for zone in zones:
            assert_same_bits(zone, np.arange(GUARD).astype(dtype))
        assert not np.isnan(out).any(), f"{int(np.isnan(out).sum())} elements not written"

    return out, check


def binomial_p_value(successes: int, trials: int, probability: float) -> float:
    """Exact two-sided p-value: twice the smaller tail of the binomial distribution, summed term by term."""

    def tail(count: int, p: float) -> float:
        """P(X >= count)."""
        if count <= 0:
            return 1.0
        log_first = (
            math.lgamma(trials + 1)
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * math.log(p)
            + (trials - count) * math.log1p(-p)
        )
        k = np.arange(count, trials, dtype=np.float64)
        with np.errstate(under="ignore"):
            terms = np.cumsum(np.log((trials - k) / (k + 1) * (p / (1 - p))))
            return math.exp(log_first) * (1.0 + float(np.exp(np.minimum(terms, 700.0)).sum()))

    upper = tail(successes, probability)
    lower = tail(trials - successes, 1 - probability)
    return min(1.0, 2 * min(upper, lower))


def assert_plausible(successes: int, trials: int, probability: float) -> None:
    p_value = binomial_p_value(successes, trials, probability)
    assert p_value > 1e-6, f"{successes} of {trials} at probability {probability}: p-value {p_value:.2g}"
