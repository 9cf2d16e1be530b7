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
from nst_video.kinds import Bytes, Curve, Kind, Number, Rate, Repeated, Time
from nst_video.schedules import ScheduleError, is_schedule
from nst_video.tiles import MINIMAL_TILE

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
    """Raise UsageError for the first field of an options dataclass whose value its kind does not accept."""
    for item in fields(options):
        value, kind = getattr(options, item.name), item.metadata["kind"]
        undecided = value is None and item.default is None
        if not undecided and not kind.accepts(value):
            raise refusal(flag_name(item.name), value, kind)


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
