"""The music of a render: the track itself and its stems, laid out along the time of the video.

Time 0 is where the first frame is shown. Music that ends before the video is looped, or stops, or fades away.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from nst_video.errors import InputError, UsageError
from nst_video.media.guarded import listen
from nst_video.media.soundtrack import FADE
from nst_video.media.videoinfo import VideoInfo
from nst_video.music.features import SECONDS
from nst_video.music.options import MusicOptions
from nst_video.music.sound import LONGEST, SoundRequest
from nst_video.music.track import Track, grid

log = logging.getLogger(__name__)

UNHEARD = 0.1  # seconds of silence at the end that nobody need be told of: a video ends with a whole frame


@dataclass(frozen=True)
class Music:
    """What is heard while a video of `seconds` is shown; `main` is None where there are only stems."""

    main: Track | None
    stems: Mapping[str, Track] = field(default_factory=dict)
    end: str = "stop"
    seconds: float = 0.0

    @property
    def beats(self) -> tuple[float, ...]:
        """The beats of the music, in seconds of the video, rising."""
        return self._beats(self.main) if self.main else ()

    @property
    def length(self) -> float:
        """Seconds that it lasts before it ends or begins again."""
        tracks = [self.main] if self.main else [*self.stems.values()]
        return max(track.seconds for track in tracks)

    def track(self, stem: str) -> Track:
        """The track of a stem ("" for the music itself); UsageError for an unknown one, InputError for a silent one."""
        if stem and stem not in self.stems:
            known = ", ".join(self.stems) or "none; give one with --stem NAME=FILE"
            raise UsageError(f"unknown stem {stem!r}; there are {known}")
        track = self.stems[stem] if stem else self.main
        if track is None:
            raise UsageError("there is no music but stems; name the stem, such as drums.onset, or give --music")
        if track.features.silent:
            raise InputError(f"{track.path} is silent, so it drives nothing; give other music, or none and no --drive")
        return track

    def feature(self, name: str, stem: str = "") -> np.ndarray:
        """A feature along the video: cells of 5 ms (n,), or (12, n) of chroma, in [0, 1]; 1 on every beat, else 0.

        InputError for a silent track, or for beats where none are found.
        """
        track = self.track(stem)
        if name == "beat":
            return self._gain(self._beat_cells(track))
        return self._laid(getattr(track.features, name))

    def wave(self) -> np.ndarray:
        """How loud the samples are along the video, for a picture: the peak of every cell (n,), 1 = full scale."""
        track = self.main or next(iter(self.stems.values()))
        return self._laid(track.features.wave)

    def _laid(self, values: np.ndarray) -> np.ndarray:
        """Cells of a track (..., n) along the video."""
        # The time within the track of every cell.
        places = grid(self.cells) % self.length if self._loops else grid(self.cells)
        padded = np.concatenate([values, np.zeros((*values.shape[:-1], 1), values.dtype)], axis=-1)
        return self._gain(padded[..., np.minimum((places / SECONDS).astype(int), values.shape[-1])])

    @property
    def cells(self) -> int:
        """The number of cells along the video."""
        return max(1, int(np.ceil(self.seconds / SECONDS)))

    @property
    def _loops(self) -> bool:
        return self.end == "loop" and self.length > 0

    def _beats(self, track: Track) -> tuple[float, ...]:
        """Of a track, as often as it is played."""
        if not self._loops:
            return track.beats
        times = int(np.ceil(self.seconds / self.length))
        return tuple(beat + again * self.length for again in range(times) for beat in track.beats if beat < self.length)

    def _beat_cells(self, track: Track) -> np.ndarray:
        if not track.beats:
            raise InputError(f"no beat is found in {track.path}; drive by onset, or give other music")
        found = np.zeros(self.cells, np.float32)
        index = (np.asarray(self._beats(track)) / SECONDS).astype(int)
        found[index[index < self.cells]] = 1
        return found

    def _gain(self, values: np.ndarray) -> np.ndarray:
        """Faded away where it is to be: before the music ends, or the video if that is sooner."""
        if self.end != "fade":
            return values
        end = min(self.length, self.seconds)
        return np.asarray(values * np.clip((end - grid(self.cells)) / float(FADE), 0, 1), np.float32)


def hear(
    options: MusicOptions, *, own: VideoInfo | None = None, zero: Fraction = Fraction(0), seconds: Fraction
) -> Music | None:
    """Listen to the music and its stems; None where there is neither music nor a stem, and the input has no sound.

    own: the input, whose own sound is the music unless another is given; `zero` is what its clock says when the first
    frame is shown. seconds: from then to the end of the last frame.

    Raises InputError for a file that cannot be used. Music that is shorter is told in the log.
    """
    files = {name: SoundRequest(file, start=options.music_start) for name, file in options.stems.items()}
    main = SoundRequest(options.music, start=options.music_start) if options.music else None
    if main is None and own is not None and has_sound(own):
        # All of it, also behind the last frame: where the beats are must not hang on how much is rendered.
        main = SoundRequest(own.path, zero=zero, seconds=Fraction(LONGEST - 1), max_pixels=own.max_pixels)
    if main is None and not files:
        return None
    music = Music(
        listen(main) if main else None,
        {name: listen(request) for name, request in files.items()},
        options.music_end,
        float(seconds),
    )
    if options.music:
        _check_length(music, options)
    return music


def has_sound(info: VideoInfo) -> bool:
    """Whether a video has a stream of sound."""
    return any(stream.kind == "audio" for stream in info.streams)


def _check_length(music: Music, options: MusicOptions) -> None:
    if not music.length:
        raise InputError(f"{options.music} ends before --music-start {float(options.music_start):g}; begin sooner")
    if music.length < music.seconds - UNHEARD:
        what = {"loop": "is played again", "stop": "is followed by silence", "fade": "fades away into silence"}
        log.info(
            "%s lasts %.1f s of the video's %.1f; it %s (--music-end)",
            options.music,
            music.length,
            music.seconds,
            what[options.music_end],
        )
