"""The contract of reader and writer: every container with every case it holds is read, then copied by reader and
writer, pictures unchanged, and read again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest

from nst_video.errors import InputError
from nst_video.media.probe import probe
from nst_video.media.video import Frames, VideoReader, VideoWriter

MP4, MOV, MKV, WEBM, AVI, TS, GIF = ".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".gif"
# suffix -> how the clip is encoded there, and the suffix of the copy
ENCODERS: dict[str, dict[str, Any]] = {
    MP4: {"codec": "libx264"},
    MOV: {"codec": "libx264"},
    MKV: {"codec": "libx264", "time_base": Fraction(1, 1000)},
    WEBM: {"codec": "libvpx-vp9", "time_base": Fraction(1, 1000)},
    AVI: {"codec": "mpeg4", "time_base": Fraction(1, 25)},
    TS: {"codec": "libx264", "time_base": Fraction(1, 90000)},
    GIF: {"codec": "gif", "pixel_format": "rgb8", "time_base": Fraction(1, 100)},
}
COPY_SUFFIX = {AVI: MP4, TS: MKV}
SOUND = {WEBM: "libopus", AVI: "pcm_s16le"}
COPY_CODEC = {WEBM: "libvpx-vp9"}
# 40, 20, 110, 30 and 60 ms: whole units of every time base used here, and not too short for a gif
STEPS_OF_VARIABLE_RATE = [Fraction(number, 100) for number in (4, 2, 11, 3, 6)]


@dataclass(frozen=True)
class Case:
    """What is special about a clip, in which containers, and what the reader is to find."""

    containers: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    spoil: Callable[[Path], object] | None = None
    times: Callable[[int], Fraction] = lambda number: Fraction(number, 25)
    numbers: tuple[int, ...] = tuple(range(media.FRAMES))
    size: tuple[int, int] = (media.WIDTH, media.HEIGHT)
    found: dict[str, Any] = field(default_factory=dict)  # fields of VideoInfo
    line: str | None = None  # what the log must say
    error: str | None = None  # what InputError must say, unless frames are held


def _variable(number: int) -> Fraction:
    count = len(STEPS_OF_VARIABLE_RATE)
    rounds, rest = divmod(number, count)
    return rounds * sum(STEPS_OF_VARIABLE_RATE, Fraction(0)) + sum(STEPS_OF_VARIABLE_RATE[:rest], Fraction(0))


def _late(number: int) -> Fraction:
    return Fraction(number + 10, 25)


def _cut_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])


def _lose_packet(path: Path) -> None:
    media.damage(path, 13, "length")


ALL = (MP4, MOV, MKV, WEBM, AVI, TS, GIF)
H264 = (MP4, MOV, MKV, TS)
FRONT_INDEX = {"muxing": {"movflags": "faststart"}}
CASES = {
    "constant rate": Case(ALL),
    "variable rate": Case((MP4, MOV, MKV, WEBM, TS, GIF), {"rate": Fraction(50)}, times=_variable),
    "one frame": Case((MP4, MOV, MKV, WEBM, TS, GIF), {"frames": 1}, numbers=(0,)),
    "late start": Case((MP4, MOV, MKV, WEBM), times=_late),
    "sound": Case((MP4, MOV, MKV, WEBM, AVI, TS), {"sound": "aac"}),
    "odd size": Case(
        (MP4, MKV),
        {"size": (97, 63), "pixel_format": "yuv444p"},
        size=(96, 62),
        found={"width": 97},
        line="cropped to 96",
    ),
    "turned": Case(
        (MP4, MOV),
        spoil=lambda path: media.turn(path, 90),
        size=(media.HEIGHT, media.WIDTH),
        found={"rotation": 90, "width": media.HEIGHT, "height": media.WIDTH},
    ),
    "ten bits": Case(H264, {"pixel_format": "yuv420p10le"}, found={"bit_depth": 10}),
    "wide pixels": Case(H264, {"aspect": Fraction(4, 3)}, found={"sample_aspect_ratio": Fraction(4, 3)}),
    "full range": Case(H264, {"color_range": 2, "matrix": 1}),
    "bt601": Case(H264, {"color_range": 1, "matrix": 6, "primaries": 6, "transfer": 6}),
    "bt709": Case(H264, {"color_range": 1, "matrix": 1, "primaries": 1, "transfer": 1}),
    "interlaced": Case((MP4, MKV, TS), {"interlaced": True}, found={"interlaced": True}, line="is deinterlaced"),
    "no frames": Case(
        (MP4, MOV, MKV), {"frames": 0}, numbers=(), error="no frames|has no video stream|not a video that can be read"
    ),
    "truncated": Case((MP4, MOV), FRONT_INDEX, _cut_off, error="is truncated"),
    "cut short": Case((MKV, WEBM, AVI), {"sound": "aac"}, _cut_off, error="ends early|is damaged"),
    "packet lost": Case((MP4, MOV, MKV, TS, AVI), {"sound": "aac"}, _lose_packet, error="is damaged at 0.[45]"),
}
MATRIX = [(name, container) for name, case in CASES.items() for container in case.containers]
GOOD = [(name, container) for name, container in MATRIX if CASES[name].error is None]
BAD = [(name, container) for name, container in MATRIX if CASES[name].error is not None and CASES[name].numbers]


def make(folder: Path, name: str, container: str) -> Path:
    case = CASES[name]
    options = ENCODERS[container] | case.options
    if "sound" in options:
        options = options | {"sound": SOUND.get(container, options["sound"])}
    base = options.get("time_base", Fraction(1, 12800))
    frames = options.pop("frames", media.FRAMES)
    pts = [int(case.times(number) / base) for number in range(frames)]
    path = media.make_video(folder / f"clip{container}", pts=pts, **options)
    if case.spoil is not None:
        case.spoil(path)
    return path


def read(path: Path, **options: Any) -> Frames:
    """All batches as one."""
    with VideoReader(path, **options) as reader:
        batches = list(reader)
    return Frames(
        np.concatenate([batch.rgb for batch in batches]),
        tuple(pts for batch in batches for pts in batch.pts),
        batches[0].time_base,
        batches[-1].end,
    )


def copy(source: Path, target: Path, **options: Any) -> Path:
    """`source` through the reader and the writer, pictures unchanged."""
    info = probe(source)
    span = {name: options[name] for name in ("start", "end") if name in options}
    codec = COPY_CODEC.get(target.suffix, "libx264")
    settings = {"codec": codec, "crf": 1, "preset": "ultrafast", "until": read(source, **span).end} | options
    with VideoReader(source, **span) as reader, VideoWriter(target, info=info, size=reader.size, **settings) as writer:
        for frames in reader:
            writer.write(frames.rgb, frames.pts)
    return target


def numbers(frames: Frames, turned: bool = False) -> list[int]:
    return [media.number_of(np.rot90(rgb) if turned else rgb) for rgb in frames.rgb]


def relative(frames: Frames) -> list[Fraction]:
    return [time - frames.times[0] for time in frames.times]


@pytest.mark.parametrize(("name", "container"), GOOD)
def test_reads_every_frame_at_its_time(tmp_path, caplog, name, container):
    case = CASES[name]
    path = make(tmp_path, name, container)
    frames = read(path)
    expected = [case.times(number) for number in range(len(case.numbers))]
    # A transport stream's clock starts anywhere.
    assert relative(frames) == [time - expected[0] for time in expected]
    assert container == TS or frames.times[0] == expected[0]
    assert numbers(frames, name == "turned") == list(case.numbers)
    assert frames.rgb.shape == (len(case.numbers), case.size[1], case.size[0], 3)
    info = probe(path)
    assert {field: getattr(info, field) for field in case.found} == case.found
    if case.line is None:
        assert caplog.text == ""
    else:
        assert case.line in caplog.text


@pytest.mark.parametrize(("name", "container"), GOOD)
def test_a_copy_has_the_same_frames_at_the_same_times(tmp_path, name, container):
    source = make(tmp_path, name, container)
    target = copy(source, tmp_path / f"copy{COPY_SUFFIX.get(container, container)}")
    before, after = read(source), read(target)
    origin = probe(source).origin_pts * before.time_base
    if container == TS:  # 90000 units a second there, 1000 in mkv
        assert [round(float(time - origin), 3) for time in before.times] == [float(time) for time in after.times]
    else:
        assert [time - origin for time in before.times] == list(after.times)
    assert numbers(before) == numbers(after)
    assert float(np.abs(before.rgb.astype(int) - after.rgb).mean()) < 4


@pytest.mark.parametrize(("name", "container"), GOOD)
def test_a_copy_needs_no_rotation_and_keeps_aspect_and_colour_tags(tmp_path, name, container):
    source = make(tmp_path, name, container)
    before, after = probe(source), probe(copy(source, tmp_path / f"copy{COPY_SUFFIX.get(container, container)}"))
    assert (after.rotation, after.mirrored) == (0, False)
    assert after.sample_aspect_ratio == before.sample_aspect_ratio
    assert (after.width, after.height) == (before.width // 2 * 2, before.height // 2 * 2)
    assert after.color == before.color


@pytest.mark.parametrize(("name", "container"), BAD)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name, container):
    path = make(tmp_path, name, container)
    with pytest.raises(InputError, match=CASES[name].error or "") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "container"), BAD)
def test_a_damaged_file_can_be_held(tmp_path, caplog, name, container):
    whole = make(tmp_path, "sound" if container != GIF else "constant rate", container)
    expected = read(whole).times
    frames = read(make(tmp_path, name, container), on_error="hold")
    found = numbers(frames)
    assert "damaged" in caplog.text or "ends early" in caplog.text
    # What is there is at its own time, what is not shows the frame before; nothing is moved.
    last = 0
    for time, number in zip(frames.times, found, strict=True):
        assert number in (expected.index(time), last)
        last = number
    assert len(set(found)) >= 8
    if name == "packet lost":
        assert len(found) == media.FRAMES
        assert len(set(found)) < media.FRAMES


@pytest.mark.parametrize("container", CASES["no frames"].containers)
def test_a_file_without_frames_is_refused(tmp_path, container):
    path = make(tmp_path, "no frames", container)
    with pytest.raises(InputError, match=CASES["no frames"].error or ""):
        probe(path)


SPANS = [
    {"start": Fraction(0), "end": Fraction(1, 5)},
    {"start": Fraction(10, 25)},  # a key frame
    {"start": Fraction(11, 25), "end": Fraction(17, 25)},
    {"start": Fraction(1101, 2500)},  # between two frames
    {"start": Fraction(22, 25), "stride": 1},
    {"stride": 3},
    {"start": Fraction(13, 25), "end": Fraction(24, 25), "stride": 4},
]


@pytest.mark.parametrize("span", SPANS, ids=str)
@pytest.mark.parametrize(
    ("name", "container"), [*(("constant rate", container) for container in ALL), ("interlaced", MP4), ("turned", MP4)]
)
def test_a_span_is_cut_out_of_a_full_decode(tmp_path, name, container, span):
    path = make(tmp_path, name, container)
    full, part, first = read(path), read(path, **span), probe(path).start_pts
    start, end = span.get("start", Fraction(0)), span.get("end", Fraction(10))
    edges = [time - full.times[0] for time in (*full.times, full.end * full.time_base)]
    seen = [place for place, (time, over) in enumerate(pairwise(edges)) if over > start and time < end]
    inside = seen[:: span.get("stride", 1)]
    begin = first + math.floor(start / full.time_base)
    assert part.pts == tuple(max(full.pts[place], begin) for place in inside)
    assert part.end == min([*full.pts, full.end][seen[-1] + 1], first + math.ceil(end / full.time_base))
    np.testing.assert_array_equal(part.rgb, full.rgb[inside])


@pytest.mark.parametrize("container", [MP4, MOV, MKV, WEBM])
def test_a_cut_copy_starts_at_zero_with_its_sound_in_step(tmp_path, container):
    source = make(tmp_path, "sound", container)
    target = copy(source, tmp_path / f"cut{container}", start=Fraction(10, 25), end=Fraction(18, 25))
    frames = read(target)
    assert frames.times == tuple(Fraction(number, 25) for number in range(8))
    assert numbers(frames) == list(range(10, 18))
    before = zip(media.packet_times(source, "audio"), media.packets_of(source, "audio"), strict=True)
    kept = [(time - Fraction(10, 25), data) for time, data in before if Fraction(10, 25) <= time < Fraction(18, 25)]
    assert media.packets_of(target, "audio") == [data for _, data in kept]
    tolerance = Fraction(1, 1000)  # of the clock of mkv; a packet lasts 21
    for expected, found in zip([time for time, _ in kept], media.packet_times(target, "audio"), strict=True):
        assert abs(expected - found) <= tolerance
    assert 0 <= kept[0][0] < Fraction(1024, 48000)


@pytest.mark.parametrize("container", [MP4, MOV, MKV, WEBM])
def test_sound_is_copied_byte_for_byte_at_the_same_times(tmp_path, container):
    source = make(tmp_path, "sound", container)
    target = copy(source, tmp_path / f"copy{container}")
    assert media.packets_of(target, "audio") == media.packets_of(source, "audio")
    assert media.packet_times(target, "audio") == media.packet_times(source, "audio")


@pytest.mark.parametrize("target", [MP4, MOV, MKV])
@pytest.mark.parametrize("source", [MP4, MOV, MKV])
def test_times_and_sound_survive_another_container(tmp_path, source, target):
    clip = make(tmp_path, "sound", source)
    other = copy(clip, tmp_path / f"other{target}")
    assert read(other).times == read(clip).times
    assert media.packets_of(other, "audio") == media.packets_of(clip, "audio")
    for before, after in zip(media.packet_times(clip, "audio"), media.packet_times(other, "audio"), strict=True):
        assert abs(before - after) <= Fraction(1, 1000)


def test_the_time_base_of_the_source_is_kept_in_mp4(tmp_path):
    for units in (600, 1000, 12800, 24000, 90000):
        base = Fraction(1, units)
        pts = [number * units // 25 + number % 3 for number in range(6)]
        source = media.make_video(tmp_path / f"{units}.mp4", pts=pts, time_base=base)
        target = copy(source, tmp_path / f"{units}_copy.mp4")
        frames = read(target)
        assert frames.time_base == base
        assert list(frames.pts) == pts


@pytest.mark.parametrize("turned", [(0, False), (90, False), (180, False), (270, False), (0, True), (90, True)])
def test_pixels_are_turned_as_the_display_matrix_says(tmp_path, turned):
    degrees, mirrored = turned
    plain = read(media.make_video(tmp_path / "plain.mp4", frames=2)).rgb
    path = media.turn(media.make_video(tmp_path / "turned.mp4", frames=2), degrees, mirrored)
    expected = plain[:, :, ::-1] if mirrored else plain
    np.testing.assert_array_equal(read(path).rgb, np.rot90(expected, -degrees // 90, axes=(1, 2)))


@pytest.mark.parametrize("color_range", [1, 2], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6], ids=["bt709", "bt601"])
def test_colours_are_within_two_levels_read_and_copied(tmp_path, matrix, color_range):
    size = (192, 128)
    tags = {"matrix": matrix, "color_range": color_range}
    path = media.make_video(tmp_path / "clip.mp4", frames=2, size=size, options={"crf": "0"}, **tags)
    target = copy(path, tmp_path / "copy.mp4", crf=0)
    truth = media.picture(0, *size).astype(int)
    read_back, copied = read(path).rgb[0].astype(int), read(target).rgb[0].astype(int)
    for row in range(4):
        for column in range(4):
            # The mark in the first corner cuts through its patches; the noise in the last is finer than 4:2:0 can hold.
            if (row < 2 and column < 2) or (row >= 2 and column >= 2):
                continue
            inside = np.s_[row * 32 + 8 : row * 32 + 24, column * 48 + 8 : column * 48 + 40]
            assert np.abs(read_back[inside] - truth[inside]).max() <= 2
            assert np.abs(copied[inside] - read_back[inside]).max() <= 2


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((640, 64), 6), ((720, 576), 6), ((576, 720), 6), ((64, 640), 6), ((640, 640), 1), ((1280, 64), 1)],
)
def test_an_untagged_video_is_read_by_its_size(tmp_path, size, matrix):
    untagged = media.make_video(tmp_path / "untagged.mp4", frames=1, size=size, matrix=2)
    assert probe(untagged).color.matrix == matrix
    assert probe(untagged).color.range == 1


def test_a_larger_or_smaller_size_shows_the_same_picture(tmp_path):
    path = media.make_video(tmp_path / "clip.mp4", frames=3)
    for size in ((48, 32), (192, 128), (50, 34)):
        frames = read(path, size=size)
        assert frames.rgb.shape[1:] == (size[1], size[0], 3)
        assert numbers(frames) == [0, 1, 2]


def test_batches_are_full_until_the_last(tmp_path):
    path = media.make_video(tmp_path / "clip.mp4", frames=10)
    with VideoReader(path, batch=4) as reader:
        assert [len(frames.pts) for frames in reader] == [4, 4, 2]
