"""The kinds of values that options have: how each is parsed from text, what it accepts, and what that is in words."""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from nst_video.plain import fraction_of
from nst_video.schedules import EXAMPLE, ScheduleError, is_schedule, parse_schedule


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, whole where `whole` is set; `words` are names accepted in its place."""

    low: float
    high: float
    whole: bool = False
    words: tuple[str, ...] = ()

    def parse(self, text: str) -> int | float | str:
        """Text as typed -> value; ValueError where it is no such number."""
        if text in self.words:
            return text
        return int(text) if self.whole else float(text)

    def accepts(self, value: object) -> bool:
        """Whether the value is of this kind and in range."""
        if isinstance(value, str):
            return value in self.words
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        return self.low <= value <= self.high

    def range(self) -> str:
        """From where to where, in words."""
        return f"{self.low} to {self.high}" if self.whole else f"{self.low:g} to {self.high:g}"

    def allowed(self) -> str:
        """What is allowed, in words."""
        return " or ".join([self.range(), *self.words])


@dataclass(frozen=True)
class Curve(Number):
    """A number, or the text of a schedule whose numbers are of this kind: an option that may change while it renders.

    Text stays text, so that options can be compared, shown and kept; `curves.settle_curves` makes values of it.
    """

    def parse(self, text: str) -> int | float | str:
        """Text as typed -> number or schedule; ValueError (ScheduleError for a schedule) where it is neither."""
        if not is_schedule(text):
            return super().parse(text)
        self.check(text)
        return text

    def accepts(self, value: object) -> bool:
        """Whether the value is a number in range, or a schedule of such numbers."""
        if not isinstance(value, str):
            return super().accepts(value)
        if not is_schedule(value):
            return False
        try:
            self.check(value)
        except ScheduleError:
            return False
        return True

    def check(self, text: str) -> None:
        """ScheduleError where a schedule is wrong or one of its numbers out of range; what its expressions give is
        known later.
        """
        for key in parse_schedule(text).keys:
            if key.value is not None and not self.low <= key.value <= self.high:
                raise ScheduleError(f"{key.value:g} is out of range, allowed {self.range()}", text, key.value_column)
            if self.whole and key.value is not None and key.value != int(key.value):
                raise ScheduleError("a whole number is needed here", text, key.value_column)

    def clipped(self, value: float) -> float:
        """The nearest value of this kind."""
        inside = min(max(value, self.low), self.high)
        return float(round(inside)) if self.whole else inside

    def allowed(self) -> str:
        """What is allowed, in words."""
        return f"{self.range()}, or a schedule such as {EXAMPLE}"


@dataclass(frozen=True)
class Choice:
    """One of a few names; `pattern` admits further ones such as cuda:1, shown as `more`."""

    names: tuple[str, ...]
    pattern: str | None = None
    more: str = ""

    def parse(self, text: str) -> str:
        """The text itself; whether it is one of the names is `accepts`'s question."""
        return text

    def accepts(self, value: object) -> bool:
        """Whether the value is one of the names."""
        if not isinstance(value, str):
            return False
        return value in self.names or (self.pattern is not None and re.fullmatch(self.pattern, value) is not None)

    def allowed(self) -> str:
        """What is allowed, in words."""
        return ", ".join([*self.names, *([self.more] if self.more else [])])


@dataclass(frozen=True)
class Text:
    """Any text that is not empty, such as a file name."""

    meaning: str

    def parse(self, text: str) -> str:
        """The text itself."""
        return text

    def accepts(self, value: object) -> bool:
        """Whether the value is text and not empty."""
        return isinstance(value, str) and value != ""

    def allowed(self) -> str:
        """What is allowed, in words."""
        return self.meaning


@dataclass(frozen=True)
class File(Text):
    """The name of a file, which can be given once."""


@dataclass(frozen=True)
class Several:
    """A tuple of values of one kind, written with commas; `rising` asks for rising numbers that start with 1."""

    kind: Number | Text
    rising: bool = False

    def parse(self, text: str) -> tuple[Any, ...]:
        """Text as typed -> values; ValueError where one of them is not of the kind."""
        return tuple(self.kind.parse(part.strip()) for part in text.split(","))

    def accepts(self, value: object) -> bool:
        """Whether the value is a tuple of one or more values of the kind, in the order asked for."""
        if not isinstance(value, tuple) or not value or not all(self.kind.accepts(item) for item in value):
            return False
        return not self.rising or (value[0] == 1 and all(a < b for a, b in pairwise(value)))

    def allowed(self) -> str:
        """What is allowed, in words."""
        order = ", rising and starting with 1" if self.rising else ""
        return f"{self.kind.allowed()}, several separated by commas{order}"


@dataclass(frozen=True)
class Repeated:
    """A tuple of texts, each from giving the option once more."""

    kind: Text

    def parse(self, text: str) -> str:
        """One text, as typed."""
        return self.kind.parse(text)

    def accepts(self, value: object) -> bool:
        """Whether the value is a tuple of such texts, or an empty one."""
        return isinstance(value, tuple) and all(self.kind.accepts(item) for item in value)

    def allowed(self) -> str:
        """What is allowed, in words."""
        return f"{self.kind.allowed()}; can be given several times"


_ENDLESS = 10**9  # seconds: some 30 years


@dataclass(frozen=True)
class Time:
    """A moment in seconds (2.5, 2.5s, 1001/30000) or as a timecode (1:02.5, 0:01:02.5), held as an exact Fraction."""

    def parse(self, text: str) -> Fraction:
        """Text as typed -> seconds; ValueError where it is no time."""
        # No digits without end: what they come to has to be a float too.
        if re.fullmatch(r"\d{1,9}/0{0,8}[1-9]\d{0,8}", text, re.ASCII):
            return Fraction(text)
        seconds = r"\d{1,9}(?:\.\d{0,30})?|\.\d{1,30}"
        match = re.fullmatch(rf"(?:(?:(\d{{1,9}}):)?(\d{{1,9}}):)?({seconds})s?", text.strip(), re.ASCII)
        if match is None:
            raise ValueError(text)
        hours, minutes, rest = (Fraction(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + rest

    def accepts(self, value: object) -> bool:
        """Whether the value is a moment that is not negative, and not beyond all videos."""
        return isinstance(value, Fraction) and 0 <= value < _ENDLESS

    def allowed(self) -> str:
        """What is allowed, in words."""
        return "seconds such as 2.5 or a timecode such as 1:02.5"


@dataclass(frozen=True)
class Rate:
    """Frames per second, held as an exact Fraction."""

    def parse(self, text: str) -> Fraction:
        """Text as typed -> frames/s; ValueError where it is no number."""
        return fraction_of(text.strip())

    def accepts(self, value: object) -> bool:
        """Whether the value is a rate that a video can have."""
        return isinstance(value, Fraction) and 0 < value <= 1000

    def allowed(self) -> str:
        """What is allowed, in words."""
        return "above 0 to 1000 frames/s, such as 25 or 24000/1001"


@dataclass(frozen=True)
class Bytes:
    """An amount of memory with its unit (6GB, 1.5 GiB, 800MB), held as a whole number of bytes."""

    def parse(self, text: str) -> int:
        """Text as typed -> bytes; ValueError where it is no amount."""
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([KMGT])(i?)B?", text.strip(), re.IGNORECASE | re.ASCII)
        if match is None:
            raise ValueError(text)
        number, prefix, binary = match.groups()
        return int(Fraction(number) * (1024 if binary else 1000) ** (1 + "KMGT".index(prefix.upper())))

    def accepts(self, value: object) -> bool:
        """Whether the value is an amount that a machine can have."""
        return isinstance(value, int) and not isinstance(value, bool) and 10**6 <= value <= 10**15

    def allowed(self) -> str:
        """What is allowed, in words."""
        return "1MB to 1000TB with the unit, such as 6GB, 1.5GiB or 800MB"


@dataclass(frozen=True)
class Flag:
    """Yes or no."""

    def parse(self, text: str) -> bool:
        """A flag takes no text; ValueError always."""
        raise ValueError(text)

    def accepts(self, value: object) -> bool:
        """Whether the value is True or False."""
        return isinstance(value, bool)

    def allowed(self) -> str:
        """What is allowed, in words."""
        return "True or False"


Kind = Number | Choice | Text | Several | Repeated | Time | Rate | Bytes | Flag
