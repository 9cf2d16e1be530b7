"""Music, drives and schedules together, in one call while planning: what every frame gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from nst_video.curves import Curves, needs_beats, settle_curves
from nst_video.errors import InputError, UsageError
from nst_video.music.options import MusicOptions
from nst_video.schedules import Clock

if TYPE_CHECKING:
    from nst_video.media.videoinfo import VideoInfo
    from nst_video.music.drives import Drive
    from nst_video.music.heard import Music


@dataclass(frozen=True)
class Conducted:
    """groups: the options with the first value in place of every schedule. curves: for a plan, see
    `curves.settle_curves`. clock: when the frames are shown, and the beats. music: what was heard, None where nothing
    had to be.
    """

    groups: dict[str, Any]
    curves: Curves
    clock: Clock
    music: "Music | None"


def conduct(
    groups: Mapping[str, Any],
    options: MusicOptions,
    times: Sequence[Fraction],
    *,
    end: Fraction,
    own: "VideoInfo | None" = None,
    zero: Fraction = Fraction(0),
    first: int = 0,
    total: int | None = None,
    layers: int = 1,
) -> Conducted:
    """Listen to what is needed, and settle every option that changes.

    Args:
        groups: name -> options dataclass, resolved: no option that is driven at None.
        options: the music, its stems and the drives; MusicOptions() where there are none.
        times: seconds of every frame from where schedules and music begin, rising; the first one usually 0.
        end: seconds when the last frame ends.
        own: the input, whose own sound is the music unless another is given. zero: its clock where `times` has 0.
        first: the number of the first frame, other than 0 for a still from the middle, of `total` frames.
        layers: how many layers there are to dream, for drives of `layer`.

    Raises:
        UsageError: a drive or schedule that is wrong, or needs music where there is none.
        InputError: music that cannot be used, is silent, or has no beats where they are needed.
    """
    from nst_video.music.drives import parse_drives
    from nst_video.music.heard import hear

    drives = parse_drives(options.drive)
    _check_stems(options, drives)
    flag = needs_beats(groups)
    asked = bool(options.music or options.stem or drives or flag)
    music = hear(options, own=own, zero=zero, seconds=end) if asked else None
    beats: Sequence[float] = ()
    if flag:
        beats = _beats(music, flag)
    elif music and music.main:
        beats = music.beats
    clock = Clock([float(time) for time in times], beats, first, float(end), total)
    settled, curves = settle_curves(groups, clock, music, drives, layers=layers)
    return Conducted(settled, curves, clock, music)


def _check_stems(options: MusicOptions, drives: Sequence["Drive"]) -> None:
    """UsageError for a stem that nothing listens to."""
    for stem in options.stems:
        if stem not in {drive.stem for drive in drives}:
            raise UsageError(
                f"--stem {stem} drives nothing; give a --drive such as TARGET={stem}.onset as well, or leave it out"
            )


def _beats(music: "Music | None", flag: str) -> Sequence[float]:
    if music is None or music.main is None:
        raise UsageError(f"{flag} speaks of beats, but there is no sound to take them from; use seconds, such as 2s")
    if not music.beats:
        raise InputError(f"{flag} speaks of beats, but none is found in {music.main.path}; use seconds, such as 2s")
    return music.beats
