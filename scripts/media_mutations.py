"""Damaged and hostile media from small good ones: a seeded generator, the same file for the same seed and number.

`scripts/fuzz_media.py` and the tests feed them to the program.
"""

import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
sys.path.insert(0, str(ROOT / "tests"))
import media  # noqa: E402 - the makers of small real media that the tests use

Span = tuple[int, int]  # first byte, last byte + 1
PICTURES = frozenset({"png", "jpg", "webp", "tif", "bmp"})
# Where numbers break: limits of signs and sizes, nothing, one, and sizes in pixels that are just too much.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@dataclass(frozen=True)
class Mutant:
    """One input: made from the good file `source` by `how`."""

    number: int
    source: str
    kind: str  # suffix without the dot
    how: str
    data: bytes


class Generator:
    """Makes the mutants of a seed from good media, which it puts into `folder` first."""

    def __init__(self, folder: Path, seed: int = 0):
        self.seed = seed
        self.good = {path.name: path.read_bytes() for path in good_media(folder)}
        self.names = sorted(self.good)

    def __call__(self, number: int) -> Mutant:
        """The mutant with this number; every kind of file meets every kind of mutation in turn."""
        random = np.random.default_rng([self.seed, number])
        name = self.names[number % len(self.names)]
        how = list(MUTATIONS)[number // len(self.names) % len(MUTATIONS)]
        kind = name.rpartition(".")[2]
        others = [data for other, data in self.good.items() if other.endswith(kind) and other != name]
        other = others[random.integers(len(others))] if others else self.good[name]
        data = MUTATIONS[how](self.good[name], other, kind, random)
        if kind == "png" and random.random() < 0.7:
            data = with_right_checksums(data)  # or few of them would come past the first chunk
        return Mutant(number, name, kind, how, data)


def good_media(folder: Path) -> list[Path]:
    """Small real media of every kind that is read, with sound, subtitles, chapters and colour profiles."""
    small = {"size": (64, 48), "frames": 12}
    videos = {
        "sound.mp4": {"sound": "aac", "chapters": True, "metadata": {"title": "a clip"}},
        "web.mp4": {"muxing": {"movflags": "faststart"}},
        "pieces.mp4": {"muxing": {"movflags": "frag_keyframe+empty_moov"}},
        "hevc.mp4": {"codec": "libx265"},
        "mpeg4.mov": {"codec": "mpeg4", "sound": "pcm_s16le"},
        "words.mkv": {"sound": "flac", "subtitles": "ass", "attachment": b"font" * 20, "chapters": True},
        "lossless.mkv": {"codec": "ffv1"},
        "fields.mkv": {"interlaced": True},
        "vp9.webm": {"codec": "libvpx-vp9", "sound": "libopus"},
        "vp8.webm": {"codec": "libvpx", "time_base": media.Fraction(1, 1000)},
        "clip.avi": {"codec": "mpeg4", "time_base": media.Fraction(1, 25), "sound": "mp2"},
        "clip.ts": {"sound": "aac", "time_base": media.Fraction(1, 90000)},
    }
    made = [media.make_video(folder / name, **small | settings) for name, settings in videos.items()]
    made += [_gif(folder / "clip.gif"), _gif(folder / "one.gif", frames=1)]
    return made + _pictures(folder)


def _gif(path: Path, frames: int = 6) -> Path:
    images = [Image.fromarray(media.picture(number, 64, 48)) for number in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=40, loop=0)
    return path


def _pictures(folder: Path) -> list[Path]:
    image = Image.fromarray(media.picture(3, 64, 48))
    grey = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "turned"
    saved = {
        "rgb.png": (image, {"icc_profile": profile, "exif": exif}),
        "palette.png": (image.convert("P"), {"transparency": 0}),
        "deep.png": (grey, {}),
        "clear.png": (image.convert("RGBA"), {}),
        "plain.jpg": (image, {"exif": exif, "icc_profile": profile}),
        "steps.jpg": (image, {"progressive": True}),
        "ink.jpg": (image.convert("CMYK"), {}),
        "lossy.webp": (image, {"exif": exif}),
        "moving.webp": (image, {"save_all": True, "append_images": [image.rotate(90)]}),
        "packed.tif": (image, {"compression": "tiff_lzw", "exif": exif}),
        "deep.tif": (grey, {"compression": "tiff_adobe_deflate"}),
        "plain.bmp": (image, {}),
    }
    for name, (picture, options) in saved.items():
        picture.save(folder / name, **options)
    return [folder / name for name in saved]


# ---------------------------------------------------------------------------------------------- mutations


def bits(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """A few bits turned over, anywhere or among the first, where headers lie."""
    changed = bytearray(data)
    reach = len(data) if random.random() < 0.6 else min(len(data), 600)
    for place in random.integers(0, reach, int(random.integers(1, 24))):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def noise(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """A stretch of random bytes."""
    length = int(random.integers(1, max(2, min(len(data) // 3, 2000))))
    place = int(random.integers(0, len(data) - length + 1))
    return data[:place] + random.bytes(length) + data[place + length :]


def numbers(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """Numbers of two or four bytes at their limits, near names of atoms or anywhere in the headers."""
    changed = bytearray(data)
    parts = atoms(data, kind)
    for _ in range(int(random.integers(1, 6))):
        first, last = parts[random.integers(len(parts))]
        place = int(random.integers(first, max(first + 1, min(last, first + 120))))
        form = "<>"[random.integers(2)] + "HI"[random.integers(2)]
        value = EDGES[random.integers(len(EDGES))] & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
        size = struct.calcsize(form)
        changed[place : place + size] = struct.pack(form, value)
    return bytes(changed[: len(data)])


def cut(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """The end is missing, or rarely the beginning."""
    place = int(random.integers(0, len(data)))
    return data[place:] if random.random() < 0.15 else data[:place]


def splice(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """Atoms, elements, chunks or segments dropped, doubled, exchanged, or taken from another file."""
    for _ in range(int(random.integers(1, 4))):
        parts, foreign = atoms(data, kind), atoms(other, kind)
        (first, last), (start, end) = sorted((parts[random.integers(len(parts))], parts[random.integers(len(parts))]))
        f_first, f_last = foreign[random.integers(len(foreign))]
        strange = other[f_first:f_last]
        made = {
            "drop": data[:first] + data[last:],
            "double": data[:last] + data[first:last] + data[last:],
            "swap": data[:first] + data[start:end] + data[last:start] + data[first:last] + data[end:],
            "replace": data[:first] + strange + data[last:],
            "insert": data[:first] + strange + data[first:],
        }
        data = made[list(made)[random.integers(len(made))]][: 8 * len(data)]
        if not data:
            return strange
    return data


def join(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """The beginning of one file and the end of another."""
    return data[: int(random.integers(1, len(data)))] + other[int(random.integers(0, len(other))) :]


def several(data: bytes, other: bytes, kind: str, random: np.random.Generator) -> bytes:
    """Two of the others, one after the other."""
    for how in random.choice(["bits", "numbers", "splice", "cut"], 2, replace=False):
        data = MUTATIONS[str(how)](data, other, kind, random) or data
    return data


MUTATIONS: dict[str, Callable[[bytes, bytes, str, np.random.Generator], bytes]] = {
    "bits": bits,
    "noise": noise,
    "numbers": numbers,
    "cut": cut,
    "splice": splice,
    "join": join,
    "several": several,
}


# ---------------------------------------------------------------------------------------------- structure of files


def atoms(data: bytes, kind: str) -> list[Span]:
    """The parts a file of this kind is made of, those inside others too; pieces of 188 bytes where it is not known."""
    found = ATOMS.get(kind, _pieces)(data)
    return [(first, last) for first, last in found if first < last <= len(data)] or _pieces(data)


def _pieces(data: bytes) -> list[Span]:
    return [(place, min(place + 188, len(data))) for place in range(0, max(len(data), 1), 188)]


_MP4_PARENTS = frozenset(b"moov trak mdia minf stbl dinf edts udta moof traf mvex".split())


def _mp4(data: bytes, first: int = 0, last: int | None = None) -> list[Span]:
    """Boxes: size (4), name (4), content."""
    found: list[Span] = []
    last = len(data) if last is None else last
    while first + 8 <= last:
        size = struct.unpack_from(">I", data, first)[0]
        if not 8 <= size <= last - first:
            break
        found.append((first, first + size))
        if data[first + 4 : first + 8] in _MP4_PARENTS:
            found += _mp4(data, first + 8, first + size)
        first += size
    return found


# Segment, Info, Tracks, TrackEntry, Video, Cluster, BlockGroup, Cues, CuePoint, SeekHead, Seek, Tags, Tag, Chapters
_MKV_PARENTS = frozenset(
    bytes.fromhex(name)
    for name in (
        *("18538067", "1549a966", "1654ae6b", "ae", "e0", "1f43b675", "a0"),
        *("1c53bb6b", "bb", "114d9b74", "4dbb", "1254c367", "7373", "1043a770"),
    )
)


def _mkv(data: bytes, first: int = 0, last: int | None = None) -> list[Span]:
    """EBML elements: name and size of as many bytes as the leading zero bits of their first byte say, content."""
    found: list[Span] = []
    last = len(data) if last is None else last
    while first + 2 <= last:
        name_length = 9 - data[first].bit_length()
        size_at = first + name_length
        if name_length > 4 or size_at >= last:
            break
        size_length = 9 - data[size_at].bit_length()
        content = size_at + size_length
        if size_length > 8 or content > last:
            break
        size = int.from_bytes(data[size_at:content]) & ((1 << 7 * size_length) - 1)
        end = min(content + size, last)  # an unknown size is all ones: to the end
        found.append((first, end))
        if data[first:size_at] in _MKV_PARENTS:
            found += _mkv(data, content, end)
        first = end
    return found


def _png(data: bytes) -> list[Span]:
    """Chunks after the signature: size (4), name (4), content, checksum (4)."""
    found, place = [], 8
    while place + 12 <= len(data):
        end = place + 12 + int(struct.unpack_from(">I", data, place)[0])
        if end > len(data):
            break
        found.append((place, end))
        place = end
    return found


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that belong to what is in them now."""
    changed = bytearray(data)
    for first, last in _png(data):
        changed[last - 4 : last] = struct.pack(">I", zlib.crc32(data[first + 4 : last - 4]))
    return bytes(changed)


def _jpg(data: bytes) -> list[Span]:
    """Segments: FF, name (1), size (2), content; from the first scan on, pieces."""
    found, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        end = place + 2 + int(struct.unpack_from(">H", data, place + 2)[0])
        found.append((place, min(end, len(data))))
        if data[place + 1] == 0xDA:
            break
        place = end
    return [*found, *((place + first, place + last) for first, last in _pieces(data[place:]))]


def _riff(data: bytes) -> list[Span]:
    """Chunks: name (4), size (4, little-endian), content; those in lists too."""

    def inside(first: int, last: int) -> list[Span]:
        found: list[Span] = []
        while first + 8 <= last:
            size = int(struct.unpack_from("<I", data, first + 4)[0])
            end = first + 8 + size + size % 2
            if end > last:
                break
            found.append((first, end))
            if data[first : first + 4] == b"LIST":
                found += inside(first + 12, end)
            first = end
        return found

    return inside(12, len(data))


def _gif_blocks(data: bytes) -> list[Span]:
    """Extensions and pictures, up to the next introducer that follows an end of blocks."""
    starts = [at + 1 for at in range(len(data) - 1) if data[at] == 0 and data[at + 1] in (0x21, 0x2C, 0x3B)]
    edges = [0, *starts, len(data)]
    return list(pairwise(edges))


ATOMS: dict[str, Callable[[bytes], list[Span]]] = {
    "mp4": _mp4,
    "mov": _mp4,
    "mkv": _mkv,
    "webm": _mkv,
    "png": _png,
    "jpg": _jpg,
    "gif": _gif_blocks,
    "webp": _riff,
    "avi": _riff,
}
