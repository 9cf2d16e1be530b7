"""Small real media made on the fly with PyAV: what is special about a clip is an argument."""

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet
from av.video.reformatter import VideoReformatter

WIDTH, HEIGHT = 96, 64
FRAMES = 24
LEVEL_STEP = 8  # grey levels between the marks of neighbouring frames: more than any codec here changes them
MATRIX_NAMES = {1: "ITU709", 5: "ITU601", 6: "ITU601"}
RANGE_NAMES = {1: "MPEG", 2: "JPEG"}
EXACT = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000  # of libswscale: bicubic, full chroma, accurate rounding, bit-exact


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 (H, W, 3): flat patches of colour; noise in the last quarter, which gives packets some weight; and a grey
    mark in the upper left third that tells the frame's number.
    """
    rows, columns = np.mgrid[0:height, 0:width]
    patch = (rows * 4 // height) * 4 + columns * 4 // width
    rgb = np.stack([patch * 37 % 200 + 30, patch * 83 % 190 + 30, patch * 61 % 180 + 40], axis=-1).astype(np.uint8)
    noise = np.random.default_rng(number).integers(-40, 40, (height // 2, width // 2, 1))
    corner = rgb[height - height // 2 :, width - width // 2 :]
    corner[:] = np.clip(corner + noise, 0, 255)
    rgb[: height // 3, : width // 3] = number % 28 * LEVEL_STEP + 16
    return rgb


def number_of(rgb: np.ndarray) -> int:
    """The frame number (modulo 28) that the mark of `picture` tells, at any size."""
    height, width = rgb.shape[:2]
    mark = rgb[height // 12 : height // 4, width // 12 : width // 4].mean()
    return round((float(mark) - 16) / LEVEL_STEP)


def make_video(
    path: Path,
    *,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12800),
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxing: dict[str, str] | None = None,
    matrix: int = 2,
    color_range: int = 0,
    transfer: int = 2,
    primaries: int = 2,
    aspect: Fraction | None = None,
    interlaced: bool = False,
    sound: str | None = None,
    sound_start: Fraction = Fraction(0),
    subtitles: str | None = None,
    line_shown: int = 100,
    chapters: bool = False,
    metadata: dict[str, str] | None = None,
    attachment: bytes | None = None,
) -> Path:
    """Encodes `picture(0)`, `picture(1)` ... at `pts` (default: every 1/rate); the sound lasts as long, every line
    of the subtitles `line_shown` milliseconds.

    The container follows the suffix; mp4 and mov keep `time_base` exactly.
    """
    step = round(1 / (rate * time_base))
    times = list(pts) if pts is not None else [number * step for number in range(frames)]
    clock = str(time_base.denominator)
    exact = {"video_track_timescale": clock, "movie_timescale": clock} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=exact | (muxing or {})) as container:
        container.metadata.update(metadata or {})
        video = container.add_stream(codec, rate=rate, options=_quality(codec, interlaced) | (options or {}))
        video.width, video.height, video.pix_fmt = *size, pixel_format
        context = video.codec_context
        context.time_base = video.time_base = time_base
        context.color_range, context.colorspace = color_range, matrix
        context.color_trc, context.color_primaries = transfer, primaries
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        last = (times[-1] + step) * time_base if times else Fraction(0)
        track = _Sound(container, sound, sound_start, sound_start + last) if sound else None
        captions = _Subtitles(container, subtitles, last, line_shown) if subtitles else None
        if attachment is not None:
            container.add_attachment("font.ttf", "application/x-truetype-font", attachment)
        if chapters:
            container.set_chapters(_two_chapters(last))
        container.start_encoding()  # writes the header, also where there is nothing to follow it
        for frame in _frames(times, size, pixel_format, matrix, color_range, time_base, interlaced):
            container.mux(video.encode(frame))
            if track:
                track.mux_until(frame.pts * time_base)
            if captions:
                captions.mux_until(frame.pts * time_base)
        container.mux(video.encode(None))
        if track:
            track.mux_until(None)
        if captions:
            captions.mux_until(None)
    return path


def make_sound(path: Path, codec: str = "aac", seconds: int = 1) -> Path:
    """A file with sound and no video."""
    with av.open(str(path), "w") as container:
        _Sound(container, codec, Fraction(0), Fraction(seconds)).mux_until(None)
    return path


def add_cover(path: Path, source: Path) -> Path:
    """`source` with a cover picture (32 x 32 png) as players of music show it: a video stream of one packet."""
    with av.open(str(source)) as reader, av.open(str(path), "w") as container:
        carried = {s.index: container.add_stream_from_template(s, opaque=True) for s in reader.streams}
        cover = container.add_stream("png")
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(3, 32, 32), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*cover.encode(frame), *cover.encode(None)])
        for packet in reader.demux():
            if packet.size:
                packet.stream = carried[packet.stream.index]
                container.mux(packet)
    return path


def decode_sound(path: Path) -> tuple[np.ndarray, Fraction]:
    """(float32 samples of the first channel at 48 kHz, time of the first in seconds) of the first sound of a file."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000)
        frames = [ready for frame in container.decode(audio=0) for ready in resampler.resample(frame)]
    first = frames[0]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), first.pts * Fraction(first.time_base)


def turn(path: Path, degrees: int, mirrored: bool = False) -> Path:
    """Writes a display matrix into the header of an mp4's first track, as phones do: clockwise, after mirroring."""
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    side = -1 if mirrored else 1
    matrix = (side * cosine << 16, side * sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    place = header + (52 if data[header] else 40)  # after version, flags, times, ids, layer, group and volume
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def trim(path: Path, frames: int, rate: int = 25) -> Path:
    """Makes the only edit of an mp4's first track end after so many frames, as phones trim: those after it stay in the
    file.
    """
    data = bytearray(path.read_bytes())
    movie, edits = data.index(b"mvhd") + 4, data.index(b"elst") + 4
    (clock,) = struct.unpack_from(">I", data, movie + 12)
    struct.pack_into(">I", data, edits + 8, frames * clock // rate)
    path.write_bytes(data)
    return path


def damage(path: Path, number: int, how: str = "bits") -> Path:
    """Spoils the video packet `number`: "bits" of its picture data inverted, or its "length" field made nonsense."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    place, size = packets[number]
    data = bytearray(path.read_bytes())
    if how == "length":
        data[place : place + 4] = b"\x7f\xff\xff\xff"
    else:
        for offset in range(place + size // 3, place + size):
            data[offset] ^= 0x55
    path.write_bytes(data)
    return path


def packets_of(path: Path, kind: str) -> list[bytes]:
    """The bytes of every packet of the first stream of a kind, in file order."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def packet_times(path: Path, kind: str) -> list[Fraction]:
    """Presentation times in seconds of the packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [packet.pts * Fraction(packet.time_base) for packet in container.demux(stream) if packet.size]


def _quality(codec: str, interlaced: bool) -> dict[str, str]:
    if codec == "libx264":
        return {"crf": "1", "preset": "ultrafast", "threads": "1", "g": "10", "bf": "2"} | (
            {"flags": "+ildct+ilme"} if interlaced else {}
        )
    return {
        "libx265": {"x265-params": "log-level=none:crf=1:pools=1", "preset": "ultrafast"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "0"},
        "mpeg4": {"qscale": "1", "flags": "+qscale", "global_quality": "118", "b": "8M"},
    }.get(codec, {})


def _frames(
    times: list[int],
    size: tuple[int, int],
    pixel_format: str,
    matrix: int,
    color_range: int,
    time_base: Fraction,
    interlaced: bool,
) -> Iterator[av.VideoFrame]:
    reformatter = VideoReformatter()
    is_rgb = "yuv" not in pixel_format
    for number, pts in enumerate(times):
        rgb = picture(number, *size)
        if interlaced:
            rgb[0::2] = picture(number + 1, *size)[0::2]  # bottom field first: the top one is shown half a frame later
        frame = reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format=pixel_format,
            src_color_range="JPEG",
            dst_colorspace=None if is_rgb else MATRIX_NAMES.get(matrix, "ITU601"),
            dst_color_range="JPEG" if is_rgb else RANGE_NAMES.get(color_range, "MPEG"),
            interpolation=EXACT,
        )
        frame.pts, frame.time_base = pts, time_base
        yield frame


class _Sound:
    """A rising and a steady tone, encoded as far as asked."""

    def __init__(self, container: av.container.OutputContainer, codec: str, start: Fraction, end: Fraction) -> None:
        self.container, self.rate = container, 48000
        self.stream = container.add_stream(codec, rate=self.rate)
        self.stream.codec_context.layout = "stereo"
        self.format = self.stream.codec_context.format.name
        self.start, self.done, self.total = start, 0, round((end - start) * self.rate)

    def mux_until(self, time: Fraction | None) -> None:
        while self.done < self.total and (time is None or self.start + Fraction(self.done, self.rate) <= time):
            count = min(1024, self.total - self.done)
            seconds = (self.done + np.arange(count)) / self.rate
            rising = 2 * np.pi * (300 * seconds + 150 * seconds**2)  # never the same twice, so that a shift shows
            tones = 0.4 * np.stack([np.sin(rising), np.sin(2 * np.pi * 660 * seconds)])
            frame = av.AudioFrame.from_ndarray(tones.astype(np.float32), format="fltp", layout="stereo")
            frame.sample_rate = self.rate
            frame.pts, frame.time_base = round(self.start * self.rate) + self.done, Fraction(1, self.rate)
            resampler = av.AudioResampler(format=self.format, layout="stereo", rate=self.rate)
            for ready in resampler.resample(frame):
                self.container.mux(self.stream.encode(ready))
            self.done += count
        if time is None:
            self.container.mux(self.stream.encode(None))


class _Subtitles:
    """One line every 0.2 seconds, each shown for so many milliseconds."""

    def __init__(self, container: av.container.OutputContainer, codec: str, end: Fraction, shown: int) -> None:
        self.container, self.shown = container, shown
        self.stream = container.add_stream(codec)
        self.stream.time_base = Fraction(1, 1000)
        self.stream.codec_context.subtitle_header = ASS_HEADER
        self.times = [Fraction(number, 5) for number in range(int(end * 5))]

    def mux_until(self, time: Fraction | None) -> None:
        while self.times and (time is None or self.times[0] <= time):
            pts = round(self.times.pop(0) * 1000)
            text = f"0,0,Default,,0,0,0,,line at {pts}".encode()
            packet = self.stream.codec_context.encode_subtitle(SubtitleSet.create(text, 0, self.shown, pts=pts))
            packet.stream, packet.time_base = self.stream, Fraction(1, 1000)
            packet.pts = packet.dts = pts
            packet.duration = self.shown
            self.container.mux(packet)


ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def _two_chapters(end: Fraction) -> list[dict]:
    middle = int(end * 500)
    base = Fraction(1, 1000)
    return [
        {"id": 1, "start": 0, "end": middle, "time_base": base, "metadata": {"title": "first"}},
        {"id": 2, "start": middle, "end": int(end * 1000), "time_base": base, "metadata": {"title": "second"}},
    ]


def spoil(path, how):
    """Remove a file ("missing"), or change one bit in the middle of it ("damaged")."""
    if how == "missing":
        path.unlink()
        return
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
