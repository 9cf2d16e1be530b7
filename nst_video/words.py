"""Words for people that several modules say."""

from typing import Any


def counted(number: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "frame"), counted(0, "frame"), counted(1200, "frame")
    ('1 frame', '0 frames', '1,200 frames')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


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
