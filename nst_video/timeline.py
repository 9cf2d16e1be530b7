"""When the frames of a render are shown, as schedules and music count: from the first of them on."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from nst_video.media.videoinfo import VideoInfo
from nst_video.options import OutputOptions
from nst_video.schedules import Clock

if TYPE_CHECKING:
    from nst_video.music.heard import Music
    from nst_video.plan import Plan


@dataclass(frozen=True)
class Timeline:
    """times: seconds of every frame. end: when the last one ends. zero: the input's clock where this one is 0, in
    seconds. first: the number of the first frame, other than 0 for a still from the middle; total: how many there are
    where not all of them are here.
    """

    times: tuple[Fraction, ...]
    end: Fraction
    zero: Fraction
    first: int
    total: int | None = None

    @classmethod
    def of(cls, info: VideoInfo, edges: Sequence[int], options: OutputOptions) -> "Timeline":
        """That of the frames at `edges`, with which the last frame's end; a still counts from the first frame of the
        clip.
        """
        start = edges[0] if options.still is None else info.start_pts
        *times, end = ((edge - start) * info.time_base for edge in edges)
        total = None if options.still is None else _frames_of(info)
        return cls(tuple(times), end, start * info.time_base, round(times[0] * info.average_rate), total)


def plot_plan(plan: "Plan", path: str) -> None:
    """Draw what will change in a render under the waveform with the beats; errors as `plots.plot_music`."""
    from nst_video.media.survey import probe_input
    from nst_video.music.heard import hear
    from nst_video.plots import plot_music

    info = probe_input(plan.input, plan.options)
    line = Timeline.of(info, plan.edges, plan.options)
    music: Music | None = hear(plan.music, own=info, zero=line.zero, seconds=line.end)
    beats = music.beats if music else ()
    clock = Clock(list(map(float, line.times)), beats, line.first, float(line.end), line.total)
    plot_music(music, plan.curves, clock, path)


def _frames_of(info: VideoInfo) -> int | None:
    """How many frames a video has by what it says of itself, which for a still has to do."""
    return info.declared_frames or (round(info.duration * info.average_rate) if info.duration else None)
