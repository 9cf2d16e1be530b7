"""What will be rendered, as planning.py has decided it before the first frame: settings, size, every frame's time, the
shots and their seeds.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any

from nst_video.curves import Curves
from nst_video.dreaming.options import DreamOptions
from nst_video.errors import InputError
from nst_video.media.sequences import pictures_of
from nst_video.media.shots import segments
from nst_video.media.soundtrack import Heard, Song
from nst_video.music.options import MusicOptions
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions, MachineOptions, OutputOptions
from nst_video.painting.lanes import Lane, lanes_of
from nst_video.plain import fraction_of, plain, tuples
from nst_video.settings import GROUPS, Settings, groups_from_json

_VERSION = 2


@dataclass(frozen=True)
class Style:
    """A style picture and its share; the shares of a plan sum to 1."""

    path: str
    weight: float


@dataclass(frozen=True)
class Plan:
    """One render, settled: nothing is left at None or "auto" that decides a pixel.

    size: (width, height) in pixels. pts: presentation timestamp of every frame to render, in `time_base` seconds; that
    of the first is where the part begins, even in the middle of a frame. end: when the last one is over.
    shots: (first, last + 1) frame numbers, without gaps. seeds: one for each shot. dream: None where frames are painted
    in the styles, of which a dream has none. song: music in place of the input's own sound. curves: for every option
    that changes, its value for every frame; the option itself holds that of the first one. lanes: the parts of the
    render that are painted side by side, () for one; together: how many of them at most as one batch, where memory ran
    out.
    """

    input: str
    output: str
    styles: tuple[Style, ...]
    effort: EffortOptions
    look: LookOptions
    coherence: CoherenceOptions
    options: OutputOptions
    machine: MachineOptions
    size: tuple[int, int]
    time_base: Fraction
    pts: tuple[int, ...]
    end: int
    shots: tuple[tuple[int, int], ...]
    seeds: tuple[int, ...]
    dream: DreamOptions | None = None
    music: MusicOptions = field(default_factory=MusicOptions)
    song: Song | None = None
    curves: Curves = field(default_factory=dict)
    lanes: tuple[Lane, ...] = ()
    together: int | None = None

    @property
    def settings(self) -> Settings:
        """The groups of options, settled."""
        return Settings(**{name: getattr(self, name) for name in GROUPS})

    @property
    def sources(self) -> tuple[tuple[str, str], ...]:
        """The files that it is made of, see `named_files`."""
        return named_files(self.input, self.styles, self.settings)

    @property
    def ranges(self) -> tuple[Lane, ...]:
        """The lanes; one where none are named."""
        return self.lanes or lanes_of(self.shots, 1)

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """The parts (first frame, last + 1) that are encoded on their own, in order; each lies within one lane."""
        frame_bytes = self.size[0] * self.size[1] * 3
        return tuple(part for lane in self.ranges for part in segments(lane.cut(self.shots), frame_bytes))

    @property
    def frames(self) -> int:
        """The number of frames to render."""
        return len(self.pts)

    @property
    def edges(self) -> tuple[int, ...]:
        """When each frame is first shown, and when the last one is over: frame n is there from n to n + 1."""
        return (*self.pts, self.end)

    @property
    def times(self) -> list[Fraction]:
        """The edges in seconds."""
        return [edge * self.time_base for edge in self.edges]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON types; fractions are written as "n/d"."""
        return {"version": _VERSION, **plain(asdict(self))}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Plan":
        """The plan that `to_json` wrote; InputError for another version."""
        if data.get("version") != _VERSION:
            raise InputError(f"a plan of version {data.get('version')} cannot be used; this program writes {_VERSION}")
        made = groups_from_json(data)
        rest = {item.name: tuples(data[item.name]) for item in fields(cls) if item.name in data.keys() - made.keys()}
        styles = tuple(Style(**style) for style in data["styles"])
        lanes = tuple(Lane(**lane) for lane in data.get("lanes", ()))
        song = Song.from_json(data["song"]) if data.get("song") else None
        time_base = fraction_of(data["time_base"])
        return cls(**rest | made | {"styles": styles, "time_base": time_base, "song": song, "lanes": lanes})

    def heard(self, frames: int | None = None) -> Heard | None:
        """The music under the first `frames` (None: all) of the render."""
        edges = self.edges[: (self.frames if frames is None else frames) + 1]
        return None if self.song is None else Heard.under(self.song, edges, self.time_base)


def named_files(
    input: str | os.PathLike[str], styles: Iterable[Style], settings: Settings
) -> tuple[tuple[str, str], ...]:
    """(path, what it is there) of every file that a render reads: nothing may be written in its place."""
    guide = settings.dream.guide if settings.dream else None
    named = [
        (input, "the input itself"),
        *((picture, "a picture of the input") for picture in pictures_of(os.fspath(input))),
        *((style.path, "a style picture") for style in styles),
        (guide, "the guide"),
        (settings.music.music, "the music"),
        *((file, "a stem of the music") for file in settings.music.stems.values()),
        (settings.machine.weights, "the file with the weights"),
    ]
    return tuple((os.fspath(path), meaning) for path, meaning in named if path is not None)
