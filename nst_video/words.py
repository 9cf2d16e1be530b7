"""Words for people that several modules say."""

import difflib
from collections.abc import Iterable
from typing import Any


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "frame"), counted(0, "frame"), counted(1200, "frame")
    ('1 frame', '0 frames', '1,200 frames')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def nearest(name: str, known: Iterable[str], most: int = 2) -> str:
    """What was probably meant by a name that is not known, for after it or the end of the line; "" where nothing is
    near.

    >>> nearest("libx256", ("libx264", "libx265", "prores")), nearest("x", ("libx264",))
    (' (did you mean libx265 or libx264?)', '')
    """
    close = difflib.get_close_matches(name, list(known), n=most, cutoff=0.65)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def described(value: Any) -> str:
    """What a value is that should have been another: of an array or tensor what it holds.

    >>> described(None), described((1, 2))
    ('None', 'a tuple')
    """
    if value is None:
        return "None"
    shape, holds, name = getattr(value, "shape", None), getattr(value, "dtype", None), type(value).__name__
    named = f"{'an' if name[0] in 'aeiouAEIO' or name == 'ndarray' else 'a'} {name}"
    if shape is None or holds is None:
        return named
    return f"{named} of {str(holds).removeprefix('torch.')} {tuple(shape)}"
