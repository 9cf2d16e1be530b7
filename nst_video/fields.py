"""A field of an options dataclass, with its help, its range or choices and its default; how its value is checked and
refused.

The command line is built from these fields, so names, defaults, choices and help texts cannot drift apart.
Nothing here imports torch, OpenCV or PyAV.
"""

import os
from collections.abc import Callable
from dataclasses import field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from nst_video.errors import UsageError
from nst_video.kinds import Bytes, Curve, Kind, Number, Rate, Repeated, Several, Text, Time
from nst_video.optimization.tiles import MINIMAL_TILE
from nst_video.schedules import ScheduleError, is_schedule

# What fields of several dataclasses have in common.
TILE = Number(MINIMAL_TILE, 16384, whole=True)
COUNT = Number(1, 100_000, whole=True)
BY_QUALITY = "by --quality"


def option(
    default: Any, kind: Kind, help: str, *, metavar: str | None = None, short: str | None = None, unset: str = ""
) -> Any:
    """A dataclass field with all that its check and its command-line argument need.

    A default of None means that the value is decided later; `unset` says by what.
    """
    return field(
        default=default,
        metadata={"kind": kind, "help": help, "metavar": metavar, "short": short, "unset": unset},
    )


def flag_name(field_name: str) -> str:
    """`style_scale` -> `--style-scale`."""
    return "--" + field_name.replace("_", "-")


def check(options: Any) -> None:
    """Bring the values of an options dataclass to the types of its fields, where it is plain what is meant; UsageError
    for the first one that its kind does not accept.
    """
    for item in fields(options):
        kind = item.metadata["kind"]
        value = meant(getattr(options, item.name), kind)
        object.__setattr__(options, item.name, value)
        undecided = value is None and item.default is None
        if not undecided and not kind.accepts(value):
            raise refusal(flag_name(item.name), value, kind)


def meant(value: Any, kind: Kind) -> Any:
    """A value as Python has it, NumPy's numbers, paths, lists and text as on the command line, as one of the kind;
    whatever is none of these stays as it is.

    >>> meant(10.0, COUNT), meant("relu1_1,relu2_1", Several(Text("layers")))
    (10, ('relu1_1', 'relu2_1'))
    """
    if getattr(value, "shape", None) == ():  # one number of an array library
        value = value.item()
    if isinstance(kind, Several | Repeated):
        if isinstance(value, str | os.PathLike):
            value = os.fspath(value)
            value = (value,) if isinstance(kind, Repeated) else _typed(value, kind)
        several = isinstance(value, list | tuple) or getattr(value, "ndim", None) == 1
        return tuple(meant(part, kind.kind) for part in value) if several else value
    if isinstance(value, str) and isinstance(kind, Number | Bytes):
        return _typed(value, kind)
    if isinstance(kind, Number | Bytes) and isinstance(value, float) and value.is_integer():
        return int(value) if isinstance(kind, Bytes) or kind.whole else value
    return os.fspath(value) if isinstance(kind, Text) and isinstance(value, os.PathLike) else value


def _typed(text: str, kind: Kind) -> Any:
    """What the text would be on the command line; itself where that would be wrong, so that it can be shown."""
    try:
        return kind.parse(text)
    except ValueError:
        return text


def refusal(flag: str, value: object, kind: Kind, typed: str | None = None) -> UsageError:
    """The error for a value that an option does not take, in one line; and the place, in a schedule. typed: the text
    that was read as that value.
    """
    if isinstance(kind, Curve) and is_schedule(value):
        try:
            kind.check(str(value))
        except ScheduleError as error:
            return error.as_usage(flag)
    if isinstance(kind, Number) and not isinstance(kind, Curve) and is_schedule(value):
        return UsageError(f"{flag} is the same for all frames and takes no schedule; allowed {kind.allowed()}")
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).removesuffix(".0")
    return UsageError(f"{flag} {typed or shown} {_fault(value, kind)}; allowed {kind.allowed()}")


def _fault(value: object, kind: Kind) -> str:
    """What is wrong with a value."""
    if not isinstance(kind, Number | Bytes) or not isinstance(value, int | float) or isinstance(value, bool):
        return "is not allowed"
    if isinstance(kind, Number) and kind.whole and not float(value).is_integer():
        return "is not a whole number"
    return "is out of range"


def chosen(*values: float | str | None) -> float:
    """The first value that is not None, as what a frame gets: controls before options before a default.

    >>> chosen(None, 0.5, 1.0)
    0.5

    UsageError for the text of a schedule, which only a plan turns into numbers (`curves.settle_curves`).
    """
    value = next(value for value in values if value is not None)
    if isinstance(value, str):
        raise UsageError(f"the schedule {value!r} has not been settled; give its value for each frame in Controls")
    return value


def exact(name: str, kind: Time | Rate, value: object) -> Fraction | None:
    """None, a number or text -> an exact Fraction; a float means what it prints as, so 0.1 is 1/10."""
    if value is None or isinstance(value, Fraction):
        return value
    try:
        return Fraction(value) if isinstance(value, int) else kind.parse(str(value))
    except ValueError:
        raise refusal(flag_name(name), value, kind) from None


def parse_report(option: str) -> Callable[[str], Path]:
    """A function from the text typed for a report's option to its file, raising UsageError for what can be none."""

    def parse(text: str) -> Path:
        if not text or text.endswith(os.sep) or os.path.isdir(text):
            what = "is a folder" if text else "has no name"
            raise UsageError(f"{option} {text or repr(text)} {what}; give it the name of a file")
        return Path(text)

    return parse


def parse_option(flag: str, text: str, kind: Kind) -> Any:
    """The text typed for an option -> its value; UsageError with what is allowed."""
    try:
        value = kind.parse(text)
    except ValueError:
        raise refusal(flag, text, kind) from None
    if not isinstance(kind, Repeated) and not kind.accepts(value):
        raise refusal(flag, value, kind, text)
    return value
