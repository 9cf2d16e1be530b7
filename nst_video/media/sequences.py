"""Pictures as frames: a folder or a numbered pattern such as `frames/%05d.png`, and a single picture."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import av

from nst_video.errors import InputError
from nst_video.media.pictures import READ_SUFFIXES, decode_picture, picture_size

if TYPE_CHECKING:
    from nst_video.media.decode import Span
    from nst_video.media.videoinfo import VideoInfo

log = logging.getLogger(__name__)

_NUMBER = re.compile(r"%0?(\d*)d")


@dataclass(frozen=True)
class Sequence:
    """Pictures in showing order, all of one size (width, height)."""

    files: tuple[str, ...]
    size: tuple[int, int]
    kind: Literal["sequence", "picture"]


def is_pattern(path: str) -> bool:
    """Whether `path` is a numbered pattern such as `frames/%05d.png`."""
    name = Path(path).name
    return _NUMBER.search(name) is not None and Path(name).suffix.lower() in READ_SUFFIXES


def find_sequence(path: str, max_pixels: int | None = None) -> Sequence | None:
    """The pictures `path` stands for, or None when it is not a picture, a folder with pictures or a pattern.

    Raises InputError for a pattern that matches nothing, and for a first picture that cannot be read or is too large.
    """
    if Path(path).suffix.lower() in READ_SUFFIXES and not is_pattern(path):
        return Sequence((path,), picture_size(path, max_pixels=max_pixels), "picture")
    files = pictures_of(path)
    if is_pattern(path) and not files:
        raise InputError(f"{path}: no picture matches this pattern")
    if is_pattern(path):
        _tell_gaps(path, files)
    if not files:
        return None
    return Sequence(tuple(files), picture_size(files[0], max_pixels=max_pixels), "sequence")


def pictures_of(path: str) -> list[str]:
    """The existing pictures of a folder or a numbered pattern; none of anything else."""
    return numbered(path) if is_pattern(path) else _in_folder(path)


def numbered(pattern: str) -> list[str]:
    """The existing files of a numbered pattern, by their numbers."""
    folder, number = Path(pattern).parent, _number_in(pattern)
    names = os.listdir(folder) if folder.is_dir() else []
    found = sorted((number(name), name) for name in names if number(name) is not None)
    return [str(folder / name) for _, name in found]


def is_numbered(name: str, pattern: str) -> bool:
    """Whether a file of this name is one that the pattern writes. Reading takes numbers of any width.

    >>> is_numbered("00007.png", "%05d.png"), is_numbered("cover.png", "%05d.png"), is_numbered("00007.png", "%d.png")
    (True, False, False)
    """
    number = _number_in(pattern)(name)
    return number is not None and name == number_file(Path(pattern).name, number)


def _number_in(pattern: str) -> Callable[[str], int | None]:
    """A function that gives the number in a file's name, None where it is no name of the pattern."""
    before, _, after = _NUMBER.split(Path(pattern).name, maxsplit=1)
    matcher = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))

    def number(name: str) -> int | None:
        match = matcher.fullmatch(name)
        return int(match[1]) if match else None

    return number


def _tell_gaps(pattern: str, files: Iterable[str]) -> None:
    """A warning where numbers between the first and the last of an input's pictures are missing."""
    number = _number_in(pattern)
    numbers = [found for found in (number(Path(file).name) for file in files) if found is not None]
    if numbers[-1] - numbers[0] + 1 != len(numbers):
        log.warning(
            "%s: of the numbers from %d to %d there are only %d; their pictures are taken one after the other",
            pattern,
            numbers[0],
            numbers[-1],
            len(numbers),
        )


def _in_folder(path: str) -> list[str]:
    if not os.path.isdir(path):
        return []
    names = [
        name for name in os.listdir(path) if Path(name).suffix.lower() in READ_SUFFIXES and not name.startswith(".")
    ]
    return [os.path.join(path, name) for name in sorted(names, key=_natural)]


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name)]


def sequence_frames(
    info: "VideoInfo", span: "Span", on_error: str, on_step: Callable[[], None] = lambda: None
) -> Iterator[tuple[av.VideoFrame, int, int]]:
    """The pictures of `span` with their places as pts, and those of the next; a single one as often as it lasts frames;
    with on_error "hold" a picture that cannot be read is the last good one again. `on_step` is called before every
    picture.

    Raises InputError for a picture that cannot be read or is not of the first one's size, and where there is none.
    """
    last: av.VideoFrame | None = None
    frames = info.declared_frames or len(info.files)
    seen = span.places(frames)
    if not seen:
        raise info.no_frames(frames, still=span.still)
    for pts in seen[:1] if span.still else seen[:: span.stride]:
        on_step()
        try:
            if last is None or info.kind != "picture":
                last = _read_frame(info, info.files[min(pts, len(info.files) - 1)])
        except InputError as error:
            if on_error != "hold" or last is None:
                raise
            log.warning("%s; the last good picture is held", error)
        yield last, pts, min(pts + span.stride, seen.stop)


def _read_frame(info: "VideoInfo", file: str) -> av.VideoFrame:
    rgb = decode_picture(file, info.max_pixels)
    if rgb.shape[:2] != (info.height, info.width):
        raise InputError(
            f"{file} is {rgb.shape[1]} x {rgb.shape[0]} pixels; "
            f"all pictures of a sequence have the size of the first, {info.width} x {info.height}"
        )
    return av.VideoFrame.from_ndarray(rgb, format="rgb24")


def number_file(pattern: str, number: int) -> str:
    """`%05d.png`, 7 -> `00007.png`."""
    return _NUMBER.sub(lambda match: f"{number:0{match[1] or 1}d}", pattern, count=1)
