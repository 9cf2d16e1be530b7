"""What containers hold, and what becomes of every stream beside the pictures: copied, made over or left out."""

from dataclasses import dataclass
from typing import Any

from av.container import InputContainer
from av.stream import Disposition

CHAPTER_TRACK = "bin_data"  # mp4 and mov keep chapter titles in a hidden track as well; the muxer makes a new one
PCM = frozenset(
    f"pcm_{name}" for name in ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be", "u8")
)
# Technical notes of the old file that would be wrong in the new one; the rotation is in the pixels now.
STALE_METADATA = (
    "rotate",
    "encoder",
    "duration",
    "number_of_frames",
    "number_of_bytes",
    "bps",
    "_statistics",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "vendor_id",
    "timecode",
)


@dataclass(frozen=True)
class Holds:
    """What a container plays: codec names (None: whatever the muxer takes), and what the rest is transcoded to.

    mp3_from: the lowest rate of MP3 in Hz; those of MPEG-2.5 have no place in the standard of mp4.
    """

    sound: frozenset[str] | None
    subtitles: frozenset[str]
    sound_encoder: str
    text_encoder: str
    covers: bool = False
    attachments: bool = False
    mp3_from: int = 0

    def refused_sound(self, stream: Any) -> str | None:
        """What it is of the sound of a stream that the container does not hold, in words; None where it holds it."""
        name, rate = codec_of(stream), stream.codec_context.sample_rate
        if self.sound is not None and name not in self.sound:
            return name
        return f"{name} of {rate / 1000:g} kHz" if name == "mp3" and rate < self.mp3_from else None


_MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
_MP4 = Holds(_MP4_SOUND, frozenset({"mov_text"}), "aac", "mov_text", covers=True, mp3_from=16_000)
_MKV_TEXT = frozenset({"subrip", "ass", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle"})
HOLDS = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Holds(_MP4_SOUND - {"opus", "flac"} | PCM, frozenset({"mov_text"}), "aac", "mov_text"),
    ".mkv": Holds(None, _MKV_TEXT, "flac", "ass", attachments=True),
    ".webm": Holds(frozenset({"opus", "vorbis"}), frozenset({"webvtt"}), "libopus", "webvtt"),
}


@dataclass(frozen=True)
class Treatment:
    """What becomes of one stream; `note` says why, unless it is simply copied."""

    index: int
    kind: str
    action: str  # "copy", "encode" or "drop"
    encoder: str = ""
    note: str | None = None


def treat(container: InputContainer, painted: int, suffix: str) -> list[Treatment]:
    """What becomes of every stream but number `painted` in a file with `suffix`."""
    holds = HOLDS.get(suffix)
    others = [stream for stream in container.streams if stream.index != painted]
    if holds is None:
        return [Treatment(s.index, s.type, "drop", note=f"{suffix} holds pictures only") for s in others]
    has_chapters = bool(container.chapters())
    return [
        _treat(s, holds, suffix) for s in others if not (has_chapters and s.type == "data" and s.name == CHAPTER_TRACK)
    ]


def fresh_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The descriptive part of `metadata`: titles, dates, languages, without what describes the old file's bytes."""
    return {key: value for key, value in metadata.items() if not key.lower().startswith(STALE_METADATA)}


def _treat(stream: Any, holds: Holds, suffix: str) -> Treatment:
    kind, name = stream.type, codec_of(stream)
    if kind == "audio" and not is_known(stream.codec_context):
        return Treatment(stream.index, kind, "drop", note="its rate, channels or samples cannot be told")
    if kind == "audio":
        refused = holds.refused_sound(stream)
        if refused is None:
            return Treatment(stream.index, kind, "copy")
        note = f"{suffix} does not hold {refused}; it becomes {holds.sound_encoder}{_advice(suffix)}"
        return Treatment(stream.index, kind, "encode", holds.sound_encoder, note)
    if kind == "subtitle" and stream.codec_context is not None:
        return _treat_subtitle(stream, name, holds, suffix)
    if kind == "video":
        is_cover = bool(stream.disposition & Disposition.attached_pic)
        if is_cover and holds.covers:
            return Treatment(stream.index, "cover", "copy")
        why = f"{suffix} gets no cover picture" if is_cover else "one video stream is painted, the first"
        return Treatment(stream.index, kind, "drop", note=why)
    if kind == "attachment" and holds.attachments:
        return Treatment(stream.index, kind, "copy")
    why = f"{suffix} does not hold it" if kind == "attachment" else "it has no meaning for the new pictures"
    return Treatment(stream.index, kind, "drop", note=why)


def _treat_subtitle(stream: Any, name: str, holds: Holds, suffix: str) -> Treatment:
    if name in holds.subtitles:
        return Treatment(stream.index, "subtitle", "copy")
    if not stream.codec_context.codec.text_sub:
        note = f"{suffix} does not hold {name}, which is made of pictures{_advice(suffix)}"
        return Treatment(stream.index, "subtitle", "drop", note=note)
    note = f"{suffix} does not hold {name}; it becomes {holds.text_encoder}{_advice(suffix)}"
    return Treatment(stream.index, "subtitle", "encode", holds.text_encoder, note)


def is_known(context: Any) -> bool:
    """Whether the sound can be described to a muxer; damaged headers leave it without rate, channels or format."""
    return (
        context is not None
        and context.sample_rate > 0
        and context.layout.nb_channels > 0
        and context.format is not None
    )


def _advice(suffix: str) -> str:
    return " (write .mkv to keep it)" if suffix != ".mkv" else ""


def codec_of(stream: Any) -> str:
    """FFmpeg's name of what a stream is coded in."""
    return stream.codec_context.codec.canonical_name if stream.codec_context is not None else "unknown"


def describe(stream: Any, template: Any) -> None:
    """Carry what `template` says of itself, such as its language, to `stream`."""
    stream.metadata.update(fresh_metadata(template.metadata))
    stream.disposition = template.disposition
