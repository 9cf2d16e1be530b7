"""Options as curves by hand: `0:0.5, 2s:1.5, 8b:0.2`, keyframes in frames, seconds or beats.

The `frame:(value)` schedules of Deforum-style generators are read as they are: `0:(1.0), 30:(1.5*sin(2*3.14*t/30))`.
Nothing of them is ever handed to Python to be run: see `expressions.py`.

    schedule   keyframe, keyframe, ...
    keyframe   POSITION : VALUE [WORD]
    POSITION   30 (frame, counted from 0 as rendered; also 30f), 2.5s (seconds from the first frame), 8b (beats from the
               first beat of the music, which is number 0)
    VALUE      a number, or an expression in parentheses
    WORD       how the curve gets there from the keyframe before: linear (unless another is given), ease, ease-in,
               ease-out, or hold (the old value until then)

Before the first keyframe its value holds, after the last one the last. An expression, which is known by not being a
plain number, runs from its keyframe to the next one; there is nothing between the two to be made smooth, as in Deforum.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from nst_video.errors import UsageError, pointed

if TYPE_CHECKING:
    from nst_video.expressions import Expression

LONGEST = 100_000  # characters
LONGEST_NUMBER = 30  # characters of when a keyframe is
EXAMPLE = "'0:0.5, 2s:1.5, 8b:0.2'"
UNITS = {"": "frames", "f": "frames", "s": "seconds", "b": "beats"}
EASINGS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "ease": lambda x: x * x * (3 - 2 * x),
    "ease-in": lambda x: x * x,
    "ease-out": lambda x: x * (2 - x),
    "hold": lambda x: 0.0,
}

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_PLACE = re.compile(r"\d+\.?\d*|\.\d+")
_WORD = re.compile(r"[A-Za-z][A-Za-z-]*")
_SPACE = re.compile(r"\s*")
_FRAME_SECONDS = 1 / 25  # of a single frame, which has no neighbour to tell it


class ScheduleError(ValueError):
    """What is wrong with a text, and the column (from 0) of the character where it is."""

    def __init__(self, problem: str, text: str, column: int):
        super().__init__(problem)
        self.problem, self.text, self.column = problem, text, min(column, len(text))

    def as_usage(self, flag: str) -> UsageError:
        """The same for a user: one line that names the option, and the place below it."""
        return UsageError(
            f"{flag}: {self.problem} (at character {self.column + 1})", detail=pointed(self.text, self.column)
        )


@dataclass(frozen=True)
class Clock:
    """When the frames of a render are shown, and where its beats are.

    times: seconds from the first frame, rising; first: the number of times[0] (not 0 for a still from the middle), of
    `total` frames that there are where not all of them are here.
    beats: seconds of the beats on the same clock, rising; empty where there are none. end: when the last frame ends; by
    default it lasts as long as the one before it.
    """

    times: Sequence[float]
    beats: Sequence[float] = ()
    first: int = 0
    end: float | None = None
    total: int | None = None

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.times)

    @cached_property
    def step(self) -> float:
        """Seconds of a frame, in the mean."""
        if len(self.times) > 1:
            return (self.times[-1] - self.times[0]) / (len(self.times) - 1)
        return _FRAME_SECONDS if self.end is None else self.end - self.times[0]

    @property
    def last(self) -> int:
        """The number of the last frame."""
        return (self.total or self.first + self.frames) - 1

    def number_at(self, seconds: float) -> int:
        """The number of the first frame that is not before a time, which may lie beyond both ends."""
        at = bisect_right(self.times, seconds - _TINY)
        if at < self.frames:
            return self.first + at
        return self.first + math.ceil((seconds - self.times[0]) / self.step - _TINY)

    def edges(self) -> list[float]:
        """The beginning of every frame, and the end of the last."""
        last = self.times[-1] + (self.times[-1] - self.times[-2] if len(self.times) > 1 else self.step)
        return [*self.times, self.end if self.end is not None else last]

    def seconds_of_frame(self, number: float) -> float:
        """When frame `number` is shown, which may lie beyond both ends."""
        return _along(self.times, number - self.first, self.step)

    def seconds_of_beat(self, number: float) -> float:
        """When beat `number` is, from 0; between and beyond the beats at the tempo of the nearest two."""
        step = self.beats[1] - self.beats[0] if len(self.beats) > 1 else 0.5
        return _along(self.beats, number, step)

    def beat_at(self, seconds: float) -> float:
        """The number of the beat at a time, with its part since then: 2.5 is half way from beat 2 to beat 3."""
        if len(self.beats) < 2:
            return (seconds - self.beats[0]) / 0.5
        left = min(max(bisect_right(self.beats, seconds) - 1, 0), len(self.beats) - 2)
        return left + (seconds - self.beats[left]) / (self.beats[left + 1] - self.beats[left])


def _along(times: Sequence[float], place: float, step: float) -> float:
    """The value at index `place`, linear between neighbours and beyond the ends; `step` where there is but one."""
    if len(times) < 2:
        return times[0] + place * step
    left = min(max(math.floor(place), 0), len(times) - 2)
    return times[left] + (place - left) * (times[left + 1] - times[left])


@dataclass(frozen=True)
class Keyframe:
    """One keyframe as written; `value` None: the expression gives it. Columns are those of its parts in the text."""

    at: Fraction
    unit: str
    value: float | None
    expression: "Expression | None"
    easing: str
    column: int
    value_column: int

    def seconds(self, clock: Clock) -> float:
        """When it is on the clock."""
        if UNITS[self.unit] == "frames":
            return clock.seconds_of_frame(float(self.at))
        return float(self.at) if self.unit == "s" else clock.seconds_of_beat(float(self.at))


@dataclass(frozen=True)
class Schedule:
    """A curve by hand, as `parse_schedule` makes it."""

    text: str
    keys: tuple[Keyframe, ...]

    @property
    def needs_beats(self) -> bool:
        """Whether it can only be followed where beats are known."""
        return any(key.unit == "b" or (key.expression and "beat" in key.expression.names) for key in self.keys)

    def values(self, clock: Clock) -> list[float]:
        """One value for each frame; ScheduleError where keyframes meet, or a value is no finite number."""
        placed = self._placed(clock)
        moments = [seconds for seconds, _ in placed]
        found = []
        for number, time in enumerate(clock.times):
            place = max(bisect_right(moments, time + _TINY) - 1, 0)
            following = placed[place + 1] if place + 1 < len(placed) else None
            found.append(self._value(placed[place], following, number + clock.first, time, clock))
        return found

    def _placed(self, clock: Clock) -> list[tuple[float, Keyframe]]:
        placed = sorted(((key.seconds(clock), key) for key in self.keys), key=lambda pair: pair[0])
        for (before, _), (after, key) in pairwise(placed):
            if after - before < _TINY:
                raise ScheduleError("two keyframes are at the same time", self.text, key.column)
        return placed

    def _value(
        self,
        key: tuple[float, Keyframe],
        following: tuple[float, Keyframe] | None,
        number: int,
        time: float,
        clock: Clock,
    ) -> float:
        (since, one) = key
        value = self._own(one, number, time, clock)
        if one.expression or following is None or time < since:
            return value
        until, other = following
        share = EASINGS[other.easing]((time - since) / (until - since))
        if share == 0:
            return value
        # What the next one's expression will be when it takes over.
        target = self._own(other, clock.number_at(until), until, clock)
        return value + share * (target - value)

    def _own(self, key: Keyframe, number: int, time: float, clock: Clock) -> float:
        """The value of a keyframe at frame `number`."""
        if key.expression is None:
            assert key.value is not None
            return key.value
        names = {"t": float(number), "max_f": float(clock.last), "time": time}
        if "beat" in key.expression.names:
            names["beat"] = clock.beat_at(time)
        value = key.expression.value(names)
        if not math.isfinite(value):
            raise ScheduleError(f"this is {value} at frame {number}", self.text, key.value_column)
        return value


_TINY = 1e-9  # seconds: frames' times as floats, and keyframes on them


def is_schedule(value: object) -> bool:
    """Whether a value is meant as a schedule, right or wrong: text with a colon."""
    return isinstance(value, str) and ":" in value


def parse_schedule(text: str) -> Schedule:
    """Text -> schedule; ScheduleError that knows the place of what is wrong.

    >>> schedule = parse_schedule("0:0, 2s:1")
    >>> schedule.values(Clock(times=[0.0, 0.5, 1.0, 3.0]))
    [0.0, 0.25, 0.5, 1.0]
    """
    if len(text) > LONGEST:
        raise ScheduleError(f"a schedule has at most {LONGEST:,} characters, not {len(text):,}", text, LONGEST)
    return Schedule(text, tuple(_Scanner(text).keyframes()))


class _Scanner:
    """Reads a schedule from left to right."""

    def __init__(self, text: str):
        self.text, self.place = text, 0

    def keyframes(self) -> list[Keyframe]:
        keys: list[Keyframe] = []
        while True:
            key = self._keyframe(keys[-1] if keys else None)
            if any((key.at, UNITS[key.unit]) == (other.at, UNITS[other.unit]) for other in keys[-1:]):
                raise self._error("two keyframes are at the same time", key.column)
            keys.append(key)
            self._skip()
            if self._next() == ",":
                self.place += 1
                self._skip()
            elif self._next():
                words = ", ".join(EASINGS)
                raise self._error(f"expected a comma, or one of the words {words}")
            if not self._next():
                return keys

    def _keyframe(self, before: Keyframe | None) -> Keyframe:
        self._skip()
        column = self.place
        at, unit = self._position()
        self._skip()
        if self._next() != ":":
            raise self._error("expected a colon between when and what, such as 2s:1.5")
        self.place += 1
        self._skip()
        value_column = self.place
        value, expression = self._value()
        easing = self._easing(before)
        return Keyframe(at, unit, value, expression, easing, column, value_column)

    def _position(self) -> tuple[Fraction, str]:
        match = _PLACE.match(self.text, self.place)
        if match is None:
            raise self._error("expected when: a frame such as 30, seconds such as 2.5s, or beats such as 8b")
        start, self.place = self.place, match.end()
        if len(match[0]) > LONGEST_NUMBER:
            raise self._error(f"this number has more than {LONGEST_NUMBER} characters", start)
        at = Fraction(match[0])
        word = _WORD.match(self.text, self.place)
        unit = word[0] if word else ""
        if unit not in UNITS:
            raise self._error(f"unknown unit {unit!r}; there are s for seconds, b for beats, and none or f for frames")
        self.place += len(unit)
        if UNITS[unit] == "frames" and at.denominator != 1:
            raise self._error("a frame is a whole number; seconds are written 2.5s", start)
        return at, unit

    def _value(self) -> "tuple[float | None, Expression | None]":
        if self._next() == "(":
            return self._parenthesised()
        match = _NUMBER.match(self.text, self.place)
        if match is None:
            raise self._error("expected a number, or an expression in parentheses")
        self.place = match.end()
        return self._finite(float(match[0]), match.start()), None

    def _parenthesised(self) -> "tuple[float | None, Expression | None]":
        from nst_video.expressions import parse_expression  # not for --help

        start, depth = self.place, 0
        for place in range(start, len(self.text)):
            depth += {"(": 1, ")": -1}.get(self.text[place], 0)
            if depth == 0:
                self.place = place + 1
                break
        else:
            raise self._error("this parenthesis is not closed", start)
        inner = self.text[start + 1 : self.place - 1]
        match = _NUMBER.fullmatch(inner.strip())
        if match:
            return self._finite(float(match[0]), start + 1), None
        return None, parse_expression(inner, self.text, start + 1)

    def _finite(self, value: float, column: int) -> float:
        if not math.isfinite(value):
            raise self._error("this number is too large", column)
        return value

    def _easing(self, before: Keyframe | None) -> str:
        self._skip()
        word = _WORD.match(self.text, self.place)
        if word is None:
            return "linear"
        if word[0] not in EASINGS:
            raise self._error(f"unknown word {word[0]!r}; there are {', '.join(EASINGS)}")
        if before is None:
            raise self._error("the first keyframe has nothing before it to come from")
        if before.expression:
            raise self._error("the keyframe before is an expression, which runs until here")
        self.place = word.end()
        return word[0]

    def _next(self) -> str:
        return self.text[self.place : self.place + 1]

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.place)
        assert match is not None
        self.place = match.end()

    def _error(self, problem: str, column: int | None = None) -> ScheduleError:
        return ScheduleError(problem, self.text, self.place if column is None else column)
