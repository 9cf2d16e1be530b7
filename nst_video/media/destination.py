"""The path of an output: what it is for by its suffix, and what speaks against writing there."""

import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path

from nst_video.errors import ResourceError, UsageError
from nst_video.fields import flag_name
from nst_video.files import JOB_SUFFIX
from nst_video.media.codecs import ALIASES, CONTAINERS, default_codec, find_codec
from nst_video.media.pictures import PICTURE_SUFFIXES
from nst_video.media.sequences import is_numbered, is_pattern, numbered
from nst_video.options import OutputOptions
from nst_video.words import nearest

PICTURES = "%05d.png"  # how the pictures of a sequence are called in a folder that is given alone


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
        f"{target}: cannot write {suffix!r}{nearest(suffix, known)}; "
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
