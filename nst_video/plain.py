"""Frozen dataclasses as plain JSON types and back: tuples as lists, fractions as text."""

import re
from fractions import Fraction
from typing import Any

_DIGITS = r"\d{1,100}"
_EXACT = re.compile(rf"-?(?:{_DIGITS}(?:\.(?:{_DIGITS})?|/{_DIGITS})?|\.{_DIGITS})", re.ASCII)


def fraction_of(text: str) -> Fraction:
    """A number such as 25, 23.976 or 24000/1001, as `plain` and people write it; ValueError for any other text: of an
    exponent, which Fraction takes as well, a few characters are work for minutes.

    >>> fraction_of("24000/1001"), fraction_of("2.5")
    (Fraction(24000, 1001), Fraction(5, 2))
    """
    if _EXACT.fullmatch(text) is None:
        raise ValueError(f"{text[:60]!r} is no exact number")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"{text[:60]!r} is no exact number") from None


def plain(value: Any) -> Any:
    """Tuples to lists and Fractions to text "n/d", all the way down.

    >>> plain({"pts": (0, 1), "rate": Fraction(24000, 1001)})
    {'pts': [0, 1], 'rate': '24000/1001'}
    """
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Fraction) else value


def tuples(value: Any) -> Any:
    """Lists to tuples, all the way down.

    >>> tuples({"shots": [[0, 10], [10, 20]]})
    {'shots': ((0, 10), (10, 20))}
    """
    if isinstance(value, dict):
        return {name: tuples(item) for name, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value
