"""What a file turned out to hold: the video that is painted, what lies beside it, and its times."""

from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal

from nst_video.errors import InputError
from nst_video.media.color_tags import ColorTags
from nst_video.media.pictures import DEFAULT_MAX_PIXELS
from nst_video.plain import fraction_of, plain, tuples

Kind = Literal["video", "gif", "sequence", "picture"]


@dataclass(frozen=True)
class StreamInfo:
    """A stream beside the one video stream that is painted."""

    index: int
    kind: str  # "audio", "subtitle", "data", "attachment", "video" (a second one, or a cover picture)
    codec: str
    language: str | None


@dataclass(frozen=True)
class Chapter:
    """Start and end in seconds of the file's clock."""

    start: Fraction
    end: Fraction
    title: str | None


@dataclass(frozen=True)
class VideoInfo:
    """What was found in a video, a gif, an image sequence or a picture. Sizes are as displayed, after rotation; times
    are exact.
    """

    path: str
    kind: Kind
    width: int
    height: int
    time_base: Fraction  # seconds per unit of pts
    average_rate: Fraction  # frames/s
    color: ColorTags
    codec: str
    pixel_format: str
    sample_aspect_ratio: Fraction = Fraction(1)  # of a displayed pixel, width / height
    rotation: int = 0  # degrees clockwise (0, 90, 180, 270), already in width and height; the reader turns the pixels
    mirrored: bool = False  # left-right, before the rotation
    start_pts: int = 0  # pts of the first frame; start and end count from it
    origin_pts: int = 0  # what the writer subtracts: not zero only where the clock starts anywhere (transport streams)
    duration: Fraction | None = None  # seconds, of the video stream where that is known
    end_pts: int | None = None  # where the container says that the video stream ends
    duration_of_file: Fraction | None = None  # seconds, from zero to the last end of any stream, as the header promises
    declared_frames: int | None = None
    bit_depth: int = 8
    interlaced: bool = False
    truncated: bool = False  # the file ends before the data its header promises
    container: str = ""
    streams: tuple[StreamInfo, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    files: tuple[str, ...] = field(default=(), repr=False)  # of a sequence, in order; a picture may last many frames
    max_pixels: int = DEFAULT_MAX_PIXELS  # the limit it was found under, which holds for every later reading too

    def usual(self, pts: int, before: int | None) -> int:
        """How long a frame at `pts` is shown of which nothing else is known: as long as the one at `before`, or one
        frame of the average rate; in units of the time base.
        """
        return max(pts - before if before is not None else round(1 / (self.average_rate * self.time_base)), 1)

    def last_end(self, pts: int, before: int | None, own: int, *, whole: bool) -> int:
        """When the last frame of the source is over, which is at `pts` and follows the one at `before`.

        own: how long its packet says it is, 0 where that says nothing; whole: nothing of the source is missing.
        """
        by_packet = pts + (own or self.usual(pts, before))
        if not whole or self.end_pts is None:
            return by_packet
        if self.end_pts > pts:
            return self.end_pts
        # Where frames are decoded in another order than they are shown, packets of mp4 last as long as decoding waits,
        # and its streams seem to end too early; but nothing lasts longer than the file.
        end_of_file = round((self.duration_of_file or 0) / self.time_base)
        return min(by_packet, end_of_file) if end_of_file > pts else by_packet

    def no_frames(self, end: int | None, *, still: bool) -> InputError:
        """What is to be raised for a part, or a time, without frames; `end`: of the last frame of all, where that was
        found.
        """
        seconds = self.duration if end is None else (end - self.start_pts) * self.time_base
        length = f"{float(seconds):.3f} s long" if seconds else "of unknown length"
        where = "no frame at that time" if still else "no frames between start and end"
        return InputError(f"{self.path} has {where}; it is {length}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON types; fractions are written as "n/d"."""
        data: dict[str, Any] = plain(asdict(self))
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "VideoInfo":
        """What `to_json` wrote."""
        exact = {name: fraction_of(data[name]) for name in _FRACTIONS if data[name] is not None}
        return cls(
            **tuples(data)
            | exact
            | {
                "color": ColorTags(**data["color"]),
                "streams": tuple(StreamInfo(**stream) for stream in data["streams"]),
                "chapters": tuple(
                    Chapter(fraction_of(one["start"]), fraction_of(one["end"]), one["title"])
                    for one in data["chapters"]
                ),
            }
        )


_FRACTIONS = ("time_base", "average_rate", "sample_aspect_ratio", "duration", "duration_of_file")


def scaled_size(
    of: VideoInfo | tuple[int, int], long_side: int | str, *, upscale: bool = False, even: bool = True
) -> tuple[int, int]:
    """(width, height) with the longer side at most `long_side` pixels ("full": unchanged) and the aspect kept; even
    unless told otherwise.

    A smaller input keeps its size unless `upscale`.

    >>> scaled_size((1280, 720), 512)
    (512, 288)
    >>> scaled_size((97, 63), "full")
    (96, 62)
    """
    width, height = (of.width, of.height) if isinstance(of, VideoInfo) else of
    step = 2 if even else 1
    if long_side == "full" or (max(width, height) <= int(long_side) and not upscale):
        return max(width // step * step, step), max(height // step * step, step)
    scale = Fraction(int(long_side), max(width, height))
    return max(round(width * scale / step) * step, step), max(round(height * scale / step) * step, step)


def exact(rational: Any) -> Fraction | None:
    """PyAV's rational (a Fraction up to av 18, its own class later) as a Fraction; None when unknown."""
    return Fraction(rational.numerator, rational.denominator) if rational else None
