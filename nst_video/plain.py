"""Frozen dataclasses as plain JSON types and back: tuples as lists, fractions as text."""

from fractions import Fraction
from typing import Any


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
