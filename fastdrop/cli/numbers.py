"""Lists of numbers on the command line: "1024,1024"."""

from __future__ import annotations

from collections.abc import Callable

import click


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
        if not all(low <= number < below for number in numbers):
            raise click.BadParameter(f"{text!r}: each number must be at least {low:g} and below {below:g}")
        return numbers

    return convert
