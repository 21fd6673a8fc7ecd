"""Lists of numbers on the command line: "1024,1024", and ranges: "0.0:0.9:0.1"."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import click

MAX_NUMBERS: Final = 10_000


def number_list(
    kind: type[int] | type[float], low: float, below: float, *, none: bool = False
) -> Callable[[str], tuple[float, ...]]:
    """Return a converter of text to a tuple of numbers in [low, below); with `none`, the word "none" is the empty tuple."""

    def convert(text: str) -> tuple[float, ...]:
        if none and text.strip() == "none":
            return ()
        try:
            numbers = tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} is no list of numbers separated by commas") from None
        for number in numbers:
            if not low <= number < below:
                raise click.BadParameter(f"{number}: each number must be at least {low:g} and below {below:g}")
        return numbers

    return convert


def number_text(numbers: tuple[float, ...]) -> str:
    """Return the text that `number_list` makes the numbers of."""
    return ",".join(map(str, numbers)) or "none"


def number_range(convert: Callable[[str], tuple[float, ...]]) -> Callable[[str], tuple[float, ...]]:
    """Return a converter that also takes a range "start:stop:step", its end included."""

    def convert_range(text: str) -> tuple[float, ...]:
        if ":" not in text:
            return convert(text)
        try:
            start, stop, step = (Decimal(part) for part in text.split(":"))
            count = (stop - start) / step
            sensible = 0 <= count < MAX_NUMBERS
        except (ValueError, ArithmeticError):
            raise click.BadParameter(f"{text!r} is no range start:stop:step") from None
        if not sensible:
            raise click.BadParameter(f"{text!r}: a range must have at least one number, and at most {MAX_NUMBERS}")
        return convert(",".join(str(start + i * step) for i in range(int(count) + 1)))

    return convert_range


def number_span(kind: type[int] | type[float], low: float, below: float, parts: int) -> Callable[[str], tuple[float, ...]]:
    """Return a converter of "low:high" or, of three parts, "low:high:step" to a tuple; one number alone is both ends."""
    form = ":".join(("low", "high", "step")[:parts])

    def convert(text: str) -> tuple[float, ...]:
        words = text.split(":")
        if len(words) == 1:
            words = [text, text, "1"][:parts]
        try:
            numbers = tuple(kind(word) for word in words)
        except ValueError:
            numbers = ()
        if len(numbers) != parts:
            raise click.BadParameter(f"{text!r} is no number, and no range {form}")
        if not all(low <= number < below for number in numbers[:2]):
            raise click.BadParameter(f"{text!r}: each number must be at least {low:g} and below {below:g}")
        return numbers

    return convert
