"""What can be written: codecs, what they are told, and the containers that hold them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import av
from av.codec import Codec

from nst_video.errors import UsageError
from nst_video.words import nearest

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
        raise UsageError(f"unknown codec {name!r}{nearest(name, (*CODECS, *ALIASES))}; known: {', '.join(CODECS)}")
    codec = CODECS[encoder]
    if not can_encode(encoder):
        raise UsageError(f"this build of FFmpeg has no encoder {encoder}; use another codec, such as libx264")
    if preset not in X264_PRESETS:
        raise UsageError(f"unknown preset {preset!r}{nearest(preset, X264_PRESETS)}; known: {', '.join(X264_PRESETS)}")
    if codec.largest_crf is not None and not 0 <= crf <= codec.largest_crf:
        raise UsageError(f"crf {crf:g} is out of range: {encoder} takes 0 (best) to {codec.largest_crf:g}")
    if suffix not in codec.containers:
        fits = [known for known, entry in CODECS.items() if suffix in entry.containers]
        raise UsageError(
            f"{suffix} files do not hold {encoder}; write {' or '.join(codec.containers)}, "
            f"or use --codec {' or '.join(fits)}"
        )
    return encoder, codec
