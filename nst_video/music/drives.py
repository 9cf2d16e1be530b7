"""What music does: `step=onset*0.5,release=0.3` adds half the onset strength to the step.

    drive      TARGET=FEATURE[*GAIN][+OFFSET][,attack=SECONDS][,release=SECONDS]
    TARGET     an option that may change from frame to frame, such as step, zoom or strength, or layer
    FEATURE    onset, beat, rms, bass, mid, treble, centroid or chroma (which only drives layer); of a stem drums.onset

What is driven is the option's own value, by number or schedule, plus feature times gain plus offset, clipped to what
the option allows. `attack` and `release` are the seconds in which 95 % of a rise and of a fall are done.

`layer` gives each of the dream's layers its weight. By chroma the twelve pitch classes are dealt over the layers like
cards: C to the first, C sharp to the second and so on, and again from the first; so with twelve layers each has a note
of its own. Any other feature fades from the first layer (at 0) over those between to the last (at 1). The weights have
a mean of 1; when nothing sounds all are equal.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nst_video.errors import UsageError
from nst_video.music.envelopes import at_frames, follow
from nst_video.schedules import Clock, ScheduleError
from nst_video.words import nearest

if TYPE_CHECKING:
    from nst_video.music.heard import Music

LONGEST = 60.0  # seconds of attack and release
NOTES = 12
FEATURES = ("onset", "beat", "rms", "bass", "mid", "treble", "centroid", "chroma")
SHORT = ("onset", "beat")  # of these no moment may be lost between two frames
# (attack, release) unless they are given: what strikes rises at once, what swells does so softly.
_STRIKES, _SWELLS, _NOTES = (0.0, 0.3), (0.05, 0.2), (0.2, 0.6)
_SURE = 0.2  # of the strongest note: below it the layers come to be equal
_TIMES = ("attack", "release")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Drive:
    """One drive, as `parse_drive` reads it; attack and release in seconds."""

    text: str
    target: str
    feature: str
    stem: str = ""
    gain: float = 1.0
    offset: float = 0.0
    attack: float = 0.0
    release: float = 0.0

    @property
    def short(self) -> bool:
        """Whether its feature strikes, so that no moment of it may be lost."""
        return self.feature in SHORT

    def values(self, music: "Music | None", clock: Clock) -> list[float]:
        """What it adds at each frame; UsageError without music, InputError where that is silent or has no beats."""
        return [float(value) for value in self.gain * self.shape(self._heard(music), clock) + self.offset]

    def shape(self, cells: np.ndarray, clock: Clock) -> np.ndarray:
        """Cells (n,) of a feature -> one value for each frame, with attack and release."""
        followed = follow(cells, self.attack, self.release, short=self.short)
        return at_frames(followed, clock.edges(), short=self.short)

    def _heard(self, music: "Music | None") -> np.ndarray:
        if music is None:
            raise UsageError(f"--drive {self.text} needs music, and the input has no sound; give --music FILE")
        return music.feature(self.feature, self.stem)


def dealt(drive: Drive, music: "Music | None", clock: Clock, layers: int) -> np.ndarray:
    """(layers, frames): the weight of every layer by a drive of `layer`, with a mean of 1 over the layers."""
    heard = drive._heard(music)
    if drive.feature != "chroma":
        return faded(np.clip(drive.gain * drive.shape(heard, clock) + drive.offset, 0, 1), layers)
    notes = np.stack([drive.shape(note, clock) for note in heard])
    weights = np.stack([notes[_hand(layer, layers)].mean(0) for layer in range(layers)])
    shares = layers * weights / np.maximum(weights.sum(0), 1e-9)
    sure = np.clip(notes.max(0) / _SURE, 0, 1)
    return np.asarray(sure * shares + (1 - sure))


def faded(places: Sequence[float] | np.ndarray, layers: int) -> np.ndarray:
    """(layers, frames): the weights where each frame is at a place from the first layer (0) to the last (1)."""
    along = np.asarray(places, np.float64) * (layers - 1)
    return np.asarray(layers * np.maximum(1 - np.abs(np.arange(layers)[:, None] - along), 0))


def _hand(layer: int, layers: int) -> list[int]:
    """The pitch classes of a layer; with more layers than notes, those that are left have one for a second time."""
    return list(range(layer, NOTES, layers)) or [layer % NOTES]


def parse_drives(texts: tuple[str, ...]) -> tuple[Drive, ...]:
    """Drives as typed -> read; UsageError with the place of what is wrong.

    >>> drive, = parse_drives(("step=drums.onset*0.5+0.1,release=0.4",))
    >>> drive.target, drive.stem, drive.feature, drive.gain, drive.offset, drive.attack, drive.release
    ('step', 'drums', 'onset', 0.5, 0.1, 0.0, 0.4)
    """
    drives = []
    for text in texts:
        try:
            drives.append(parse_drive(text))
        except ScheduleError as error:
            raise error.as_usage("--drive") from None
    return tuple(drives)


def parse_drive(text: str) -> Drive:
    """One drive; ScheduleError with the place of what is wrong."""
    return _Reader(text).drive()


class _Reader:
    """Reads a drive from left to right."""

    def __init__(self, text: str):
        self.text, self.place = text, 0

    def drive(self) -> Drive:
        target = self._name("expected what is driven, such as strength, or step, zoom or layer of a dream")
        target = target.replace("-", "_")
        self._take("=", f"expected =, such as {target}=onset")
        start = self.place
        stem, feature = "", self._name("expected what drives it, such as onset, beat or drums.onset")
        if self._has("."):
            stem, start = feature, self.place
            feature = self._name(f"expected a feature of {stem}: {', '.join(FEATURES)}")
        self._check_feature(feature, target, start)
        gain = self._number("a gain such as 0.5") if self._has("*") else 1.0
        offset = 0.0
        if self.text[self.place : self.place + 1] in ("+", "-"):
            offset = self._number("an offset such as 0.1")
        attack, release = _STRIKES if feature in SHORT else _NOTES if feature == "chroma" else _SWELLS
        times = {"attack": attack, "release": release} | self._times()
        return Drive(self.text, target, feature, stem, gain, offset, **times)

    def _times(self) -> dict[str, float]:
        found: dict[str, float] = {}
        while self._has(","):
            start = self.place
            name = self._name("expected attack= or release=")
            if name not in _TIMES:
                raise self._error(f"unknown {name!r}; there are {' and '.join(_TIMES)}", start)
            if name in found:
                raise self._error(f"{name} is given twice", start)
            self._take("=", f"expected =, such as {name}=0.2")
            start = self.place
            found[name] = self._number("seconds such as 0.2")
            self._seconds_only(name)
            if not 0 <= found[name] <= LONGEST:
                raise self._error(f"{name} is out of range, allowed 0 to {LONGEST:g} seconds", start)
        if self.place < len(self.text):
            raise self._error("expected *GAIN, +OFFSET, ,attack=SECONDS or ,release=SECONDS")
        return found

    def _seconds_only(self, name: str) -> None:
        """Past the unit, which may be left out."""
        unit = _NAME.match(self.text, self.place)
        if unit is not None and unit[0] != "s":
            raise self._error(f"unknown unit {unit[0]!r}; {name} is in seconds, such as 0.1")
        self._has("s")

    def _check_feature(self, feature: str, target: str, place: int) -> None:
        if feature not in FEATURES:
            known = ", ".join(FEATURES)
            raise self._error(f"unknown feature {feature!r}{nearest(feature, FEATURES)}; there are {known}", place)
        if feature == "chroma" and target != "layer":
            raise self._error("chroma is twelve values, which only layer can take", place)

    def _name(self, expected: str) -> str:
        self._skip()
        match = _NAME.match(self.text, self.place)
        if match is None:
            raise self._error(expected)
        self.place = match.end()
        self._skip()
        return match[0]

    def _number(self, what: str) -> float:
        self._skip()
        sign = self.text[self.place : self.place + 1]
        if sign in ("+", "-"):
            self.place += 1
            self._skip()
        match = _NUMBER.match(self.text, self.place)
        if match is None:
            raise self._error(f"expected {what}")
        self.place = match.end()
        self._skip()
        value = float(match[0]) * (-1 if sign == "-" else 1)
        if not np.isfinite(value):
            raise self._error("this number is too large", match.start())
        return value

    def _take(self, char: str, expected: str) -> None:
        if not self._has(char):
            raise self._error(expected)

    def _has(self, char: str) -> bool:
        """Whether this comes next, and if so past it."""
        self._skip()
        if not self.text.startswith(char, self.place):
            return False
        self.place += len(char)
        return True

    def _skip(self) -> None:
        while self.text[self.place : self.place + 1].isspace():
            self.place += 1

    def _error(self, problem: str, column: int | None = None) -> ScheduleError:
        return ScheduleError(problem, self.text, self.place if column is None else column)
