"""What can be written: codecs, containers, and the refusals that come before any work."""

import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
from av.codec import Codec

from nst_video.errors import ResourceError, UsageError
from nst_video.fields import flag_name
from nst_video.files import JOB_SUFFIX
from nst_video.options import OutputOptions
from nst_video.pictures import PICTURE_SUFFIXES
from nst_video.sequences import is_numbered, is_pattern, numbered

X264_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
# One word for effort whatever the codec: the place in x264's list picks the codec's own number.
_VP9_SPEED = dict(zip(X264_PRESETS, ("8", "7", "6", "5", "4", "3", "2", "1", "0", "0"), strict=True))
_AV1_SPEED = dict(zip(X264_PRESETS, ("12", "11", "10", "9", "8", "7", "5", "4", "3", "2"), strict=True))


def _x264(crf: float, preset: str) -> dict[str, str]:
    # The same frames must give the same file. With macroblock trees x264 does not keep to that on processors with
    # AVX-512 (measured: 4 to 15 of 100 files differ while another thread decodes). Without, files of the same PSNR are
    # 10 to 16 % larger.
    return {"crf": f"{crf:g}", "preset": preset, "mbtree": "0"}


def _x265(crf: float, preset: str) -> dict[str, str]:
    return {"crf": f"{crf:g}", "preset": preset, "x265-params": "log-level=none"}  # it writes to stderr by itself


def _vp9(crf: float, preset: str) -> dict[str, str]:
    return {"crf": f"{crf:g}", "b": "0", "deadline": "good", "cpu-used": _VP9_SPEED[preset], "row-mt": "1"}


def _av1(crf: float, preset: str) -> dict[str, str]:
    return {"crf": f"{crf:g}", "preset": _AV1_SPEED[preset]}


def _ffv1(crf: float, preset: str) -> dict[str, str]:
    return {"level": "3", "g": "1", "slicecrc": "1"}


def _prores(crf: float, preset: str) -> dict[str, str]:
    return {"profile": "hq", "vendor": "apl0"}


def _no_options(crf: float, preset: str) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class VideoCodec:
    """An encoder: the pixel format it gets, how (crf, preset) become its options, and the suffixes that hold it."""

    pixel_format: str
    options: Callable[[float, str], dict[str, str]]
    containers: tuple[str, ...]
    largest_crf: float | None = None  # None: lossless or of fixed quality, crf and preset say nothing
    # container -> codec tag, where the default one is not widely played
    tags: Mapping[str, str] = field(default_factory=dict)
    # set while it is opened: some libraries write to stderr unless told so there
    environment: Mapping[str, str] = field(default_factory=dict)


CODECS: dict[str, VideoCodec] = {
    "libx264": VideoCodec("yuv420p", _x264, (".mp4", ".m4v", ".mov", ".mkv"), 51),
    "libx265": VideoCodec(
        "yuv420p", _x265, (".mp4", ".m4v", ".mov", ".mkv"), 51, {".mp4": "hvc1", ".m4v": "hvc1", ".mov": "hvc1"}
    ),
    "libvpx-vp9": VideoCodec("yuv420p", _vp9, (".webm", ".mkv", ".mp4"), 63),
    "libsvtav1": VideoCodec("yuv420p", _av1, (".mp4", ".webm", ".mkv"), 63, environment={"SVT_LOG": "1"}),
    "ffv1": VideoCodec("bgr0", _ffv1, (".mkv",)),
    "prores_ks": VideoCodec("yuv422p10le", _prores, (".mov", ".mkv")),
}
ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "x265": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
}
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
GIF = VideoCodec("pal8", _no_options, (".gif",))
PICTURES = "%05d.png"  # how the pictures of a sequence are called in a folder that is given alone
GIF_CLOCK = Fraction(1, 100)  # seconds; no gif counts in smaller ones
SHORTEST_IN_GIF = 2  # of them; players show shorter frames for a tenth of a second
LATEST_IN_GIF = 10  # of them, by which a frame may be shown late because of those before it


def output_kind(path: str | os.PathLike[str]) -> str:
    """What a path is for, by its suffix: "video", "gif", "picture", or "sequence" for a numbered pattern of pictures
    and for a name without a suffix, which is a folder.

    Raises UsageError for any other suffix.
    """
    if not os.fspath(path):
        raise UsageError("the output has no name; give a file such as out.mp4, frames/%05d.png or a folder")
    if os.fspath(path) == "-":
        raise UsageError("- stands for no stream here; give a file such as out.mp4, or ./- for a folder of that name")
    target = Path(path)
    suffix = target.suffix.lower()
    if is_pattern(os.fspath(path)) and suffix in PICTURE_SUFFIXES:
        return "sequence"
    for kind, suffixes in (("video", CONTAINERS), ("gif", (".gif",)), ("picture", PICTURE_SUFFIXES)):
        if suffix in suffixes:
            return kind
    if target.is_dir() or not suffix:
        return "sequence"
    known = (*CONTAINERS, ".gif", *PICTURE_SUFFIXES)
    raise UsageError(
        f"{target}: cannot write {suffix!r}{_nearest(suffix, known)}; "
        f"use {', '.join(known)}, frames/%05d.png or a folder"
    )


# Kind of output -> the options that mean nothing for it.
_MEANINGLESS = {
    "picture": ("codec", "crf", "preset", "lossless", "keep_job"),
    "gif": ("codec", "crf", "preset"),
    "sequence": ("codec", "crf", "preset"),
}
_KINDS = {"picture": "a picture", "gif": "a gif", "sequence": "a sequence of pictures"}


def folder_and_pattern(path: str) -> tuple[Path, str]:
    """Where a sequence goes and how its pictures are called; those of a folder alone are 00001.png and so on."""
    target = Path(path)
    return (target.parent, target.name) if is_pattern(path) else (target, PICTURES)


def settle_encoding(options: OutputOptions, output: str | os.PathLike[str]) -> OutputOptions:
    """The options with FFmpeg's name of the codec of a video, by its suffix where none is given; UsageError for
    options that mean nothing for such an output.
    """
    kind = output_kind(output)
    for item in fields(options):
        if item.name in _MEANINGLESS.get(kind, ()) and getattr(options, item.name) != item.default:
            raise UsageError(
                f"{flag_name(item.name)} means nothing for {os.fspath(output)}, which is {_KINDS[kind]}; "
                "leave it out, or write a video such as out.mp4"
            )
    if kind != "video":
        return options
    codec = options.codec or default_codec(Path(output).suffix.lower())
    return replace(options, codec=ALIASES.get(codec, codec))


def default_codec(suffix: str) -> str:
    """The codec of a container unless another one is asked for: the first that it holds and this build has."""
    fitting = [name for name, codec in CODECS.items() if suffix in codec.containers]
    return next(filter(can_encode, fitting), fitting[0])


def can_encode(encoder: str) -> bool:
    """Whether this build of FFmpeg has the encoder."""
    try:
        Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def find_codec(name: str | None, suffix: str, crf: float = 18, preset: str = "medium") -> tuple[str, VideoCodec]:
    """(encoder name, its entry) for `name` or an alias, checked against the container, the build, the crf and the
    preset; None is the codec that the container has by default.

    Raises UsageError that names what would be allowed.
    """
    name = name or default_codec(suffix)
    encoder = ALIASES.get(name, name)
    if encoder not in CODECS:
        raise UsageError(f"unknown codec {name!r}{_nearest(name, (*CODECS, *ALIASES))}; known: {', '.join(CODECS)}")
    codec = CODECS[encoder]
    if not can_encode(encoder):
        raise UsageError(f"this build of FFmpeg has no encoder {encoder}; use another codec, such as libx264")
    if preset not in X264_PRESETS:
        raise UsageError(f"unknown preset {preset!r}{_nearest(preset, X264_PRESETS)}; known: {', '.join(X264_PRESETS)}")
    if codec.largest_crf is not None and not 0 <= crf <= codec.largest_crf:
        raise UsageError(f"crf {crf:g} is out of range: {encoder} takes 0 (best) to {codec.largest_crf:g}")
    if suffix not in codec.containers:
        fits = [known for known, entry in CODECS.items() if suffix in entry.containers]
        raise UsageError(
            f"{suffix} files do not hold {encoder}; write {' or '.join(codec.containers)}, "
            f"or use --codec {' or '.join(fits)}"
        )
    return encoder, codec


def check_output(
    path: str | os.PathLike[str],
    *,
    sources: Iterable[tuple[str, str]] = (),
    codec: str | None = None,
    crf: float = 18,
    preset: str = "medium",
    overwrite: bool = False,
) -> str:
    """The kind of output `path` will be (see output_kind), once nothing speaks against writing it; nothing is created.

    sources: (path, what it is there) of the files that are read, such as ("in.mp4", "the input itself").

    Raises UsageError (unknown suffix, codec or preset; output is one of the sources, or exists) or ResourceError
    (folder missing or not writable).
    """
    kind = output_kind(path)
    target = Path(path)
    if kind == "video":
        find_codec(codec, target.suffix.lower(), crf, preset)
    folder = target if kind == "sequence" and target.is_dir() else target.parent
    if is_pattern(os.fspath(path)) and not folder.exists():
        folder = folder.parent  # the folder of a numbered pattern is made, like a folder given as output
    if not folder.is_dir():
        raise ResourceError(f"the folder {folder} does not exist; make it first or write elsewhere")
    for source, meaning in sources:
        if _is_same(Path(source), target):
            raise UsageError(f"{target} is {meaning}; choose another name for the output")
        lost = _replaced(Path(source), target) if kind == "sequence" else None
        if lost is not None:
            raise UsageError(f"{target} would replace {lost}, {meaning}; choose another name for the output")
    if kind != "sequence" and target.is_dir():
        raise UsageError(f"{target} is a folder; choose another name for the output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"the folder {folder} is not writable; write elsewhere")
    if not overwrite and _is_taken(target, kind):
        raise UsageError(f"{target} exists; give -y to overwrite it, or another name")
    return kind


class GifTimes:
    """The times of frames in a gif. One that follows too soon on another is shown as soon as a gif can, and those after
    it at their own times again; a clip that has more frames than that makes room for is refused.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.frames = 0
        self.last = Fraction(0)  # when the last of them should be shown, in seconds
        self.free = 0  # from when on there can be another one

    def place(self, seconds: Fraction) -> int:
        """When the next frame is shown that should be at `seconds` from the first, in units of GIF_CLOCK."""
        self.frames, self.last = self.frames + 1, seconds
        place = self._free_at(seconds)
        self.free = place + SHORTEST_IN_GIF
        return place

    def end(self, seconds: Fraction) -> int:
        """The same of the end of the last frame. Both raise UsageError where there are too many frames."""
        if (self.frames - 2) * SHORTEST_IN_GIF * GIF_CLOCK > self.last:  # the first may have been cut short
            raise self._refusal()
        return self._free_at(seconds)

    def _free_at(self, seconds: Fraction) -> int:
        wanted = math.floor(seconds / GIF_CLOCK + Fraction(1, 2))
        if self.free > wanted + LATEST_IN_GIF:
            raise self._refusal()
        return max(wanted, self.free)

    def _refusal(self) -> UsageError:
        return _too_fast(self.path, "a larger --stride")  # which one, only the times of all frames would tell


def check_gif_times(
    path: str | os.PathLike[str], times: Sequence[Fraction], every: Callable[[], Sequence[Fraction]] | None = None
) -> None:
    """Raises UsageError, which names the smallest stride that is enough, where a gif cannot show frames at these times,
    in seconds; the last is where they end. `every` gives the times with a stride of 1, where `times` have another.
    """
    if not _fits_gif(times):
        *starts, end = every() if every else times
        enough = next(stride for stride in count(1) if _fits_gif([*starts[::stride], end]))
        raise _too_fast(path, f"--stride {enough}")


def _fits_gif(times: Sequence[Fraction]) -> bool:
    places = GifTimes("")
    try:
        for time in times[:-1]:
            places.place(time - times[0])
        places.end(times[-1] - times[0])
    except UsageError:
        return False
    return True


def _too_fast(path: str | os.PathLike[str], remedy: str) -> UsageError:
    return UsageError(f"{os.fspath(path)}: a gif shows at most 50 frames/s; use {remedy}, or write .mp4")


def _is_same(source: Path, target: Path) -> bool:
    """Whether writing `target` would write over `source`: the same file through any link, or the same pictures."""
    source_folder, source_names = _sequence(source)
    target_folder, target_names = _sequence(target)
    same = not source_names or not target_names or source_names == target_names
    return same and _is_there(source_folder, target_folder)


def _replaced(source: Path, target: Path) -> Path | None:
    """The picture of the sequence `target` in whose place another would be written and that is the file `source`, under
    this name or through any link; None where none is.
    """
    if not source.is_file():
        return None
    folder, pattern = folder_and_pattern(str(target))
    found = map(Path, numbered(str(folder / pattern)))
    return next((file for file in found if is_numbered(file.name, pattern) and _is_there(source, file)), None)


def _is_there(one: Path, other: Path) -> bool:
    """Whether both are there and the same."""
    return one.exists() and other.exists() and os.path.samefile(one, other)


def _sequence(path: Path) -> tuple[Path, str]:
    """A numbered pattern as its folder and its names; anything else as it is, with no names."""
    return (path.parent, path.name) if is_pattern(str(path)) else (path, "")


def _is_taken(target: Path, kind: str) -> bool:
    if kind == "sequence" and is_pattern(str(target)):
        return bool(numbered(str(target)))
    if not target.is_dir():
        return target.exists()
    return any(path.suffix != JOB_SUFFIX for path in target.iterdir())  # an unfinished render is no picture


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
