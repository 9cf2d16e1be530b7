"""A part of a video is one of time, as an editor cuts: what is on screen at its start is its first frame, and its last
one is over at its end, however long frames last.
"""

from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import media
import pytest

from nst_video.errors import InputError
from nst_video.media.lossless import KeptFrame
from nst_video.media.probe import MKVMERGE_NOTE, _end, probe
from nst_video.media.segments import JoinedOutput, encode_segment
from nst_video.media.video import VideoReader

BASE = Fraction(1, 12800)
SLIDES = [0, 5, 10]  # seconds; each is shown for 5
# Seconds as a screen recording has them, the last one shown for 0.04.
UNEVEN = [Fraction(time, 100) for time in (0, 4, 8, 30, 34, 90, 91, 150)]


@pytest.fixture(params=[".mp4", ".mov", ".mkv", ".webm", ".ts"])
def slides(request, tmp_path):
    """Three pictures for 5 seconds each, and 15 s of sound."""
    return make_slides(tmp_path / f"slides{request.param}")


def make_slides(path):
    base = {".mkv": Fraction(1, 1000), ".webm": Fraction(1, 1000), ".ts": Fraction(1, 90000)}.get(path.suffix, BASE)
    codec, sound = ("libvpx-vp9", "libopus") if path.suffix == ".webm" else ("libx264", "aac")
    pts = [round(time / base) for time in SLIDES]
    return media.make_video(path, pts=pts, time_base=base, rate=Fraction(1, 5), codec=codec, sound=sound)


@pytest.fixture
def uneven(tmp_path):
    """Frames from 0.01 to 0.59 s apart, which x264 decodes in another order."""
    return media.make_video(tmp_path / "uneven.mp4", pts=[round(time / BASE) for time in UNEVEN], sound="aac")


def read(path, **span):
    """(numbers, times and end in seconds from the first frame of the file)."""
    with VideoReader(path, **span) as reader:
        batches, first = list(reader), reader.info.start_pts
    base = reader.info.time_base
    numbers = [media.number_of(rgb) for batch in batches for rgb in batch.rgb]
    return numbers, [(pts - first) * base for batch in batches for pts in batch.pts], (batches[-1].end - first) * base


def copy(source, target, **span):
    """A part as a render writes it, as one segment."""
    with VideoReader(source, **span) as reader:
        batches = list(reader)
    codec = "libvpx-vp9" if target.suffix == ".webm" else "libx264"
    settings = {"info": reader.info, "size": reader.size, "codec": codec, "crf": 18, "preset": "medium"}
    edges = [*(pts for batch in batches for pts in batch.pts), batches[-1].end]
    frames = [KeptFrame(number, {}, rgb) for number, rgb in enumerate(rgb for batch in batches for rgb in batch.rgb)]
    segment = target.with_name("segment")
    _, delay = encode_segment(segment, frames, edges, stopped=lambda: False, path=target, **settings)
    output = JoinedOutput(target, start=span.get("start"), end=span.get("end"), **settings)
    output.join([segment], edges, delay, lambda: False)
    output.verify()
    output.publish()
    return target


PARTS = [
    ({"start": 1, "end": 4}, [0], [1], 4),
    ({"start": 1, "end": 12}, [0, 1, 2], [1, 5, 10], 12),
    ({"end": 7}, [0, 1], [0, 5], 7),
    ({"end": 10}, [0, 1], [0, 5], 10),
    ({"start": 5, "end": 10}, [1], [5], 10),
    ({"start": 12}, [2], [12], 15),
    ({"start": 3, "end": 20}, [0, 1, 2], [3, 5, 10], 15),
    ({"start": 3, "end": 14, "stride": 2}, [0, 2], [3, 10], 14),
    ({}, [0, 1, 2], [0, 5, 10], 15),
]


@pytest.mark.parametrize(("span", "numbers", "times", "end"), PARTS, ids=str)
def test_a_part_of_slides_is_one_of_time(slides, span, numbers, times, end):
    assert read(slides, **span) == (numbers, times, end)


@pytest.mark.parametrize(
    "span", [{"start": 1, "end": 4}, {"start": 1, "end": 12}, {"start": 12, "end": 14}, {"end": 7}]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_pictures_and_sound_of_a_part_are_equally_long(tmp_path, suffix, span):
    source = make_slides(tmp_path / f"slides{suffix}")
    start, end = span.get("start", 0), span["end"]
    target = copy(source, tmp_path / f"part{suffix}", **span)
    _, times, over = read(target)
    assert (times[0], over) == (0, end - start)
    packet = Fraction(1024, 48000)
    sound = media.packet_times(target, "audio")
    assert -packet <= sound[0] <= packet  # the first of a whole file begins before zero
    assert over - packet <= sound[-1] < over


def test_the_sound_of_a_part_that_begins_within_a_frame_is_in_step_to_the_sample(tmp_path):
    source = make_slides(tmp_path / "slides.mkv")
    before, begun = media.decode_sound(source)
    after, begins = media.decode_sound(copy(source, tmp_path / "part.mkv", start=Fraction(5, 4), end=3))
    place = round((Fraction(5, 4) + begins - begun) * 48000)
    piece = slice(4096, 8192)  # the decoder needs a packet before it gives the same
    steps = range(-48, 49)  # of a millisecond, which is what mkv counts
    errors = {step: abs(after[piece] - before[place + step :][piece]).max() for step in steps}
    assert errors[min(errors, key=errors.get)] < 1e-4
    assert abs(min(errors, key=errors.get)) <= 24


def packets_and_length(path):
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        return packets, container.streams.video[0].duration


def test_a_track_is_as_long_as_its_frames_are_shown_in_whatever_order_they_are_decoded(uneven, tmp_path):
    packets, length = packets_and_length(copy(uneven, tmp_path / "out.mp4"))
    shown = sorted(packets, key=lambda packet: packet.pts)
    assert shown != packets
    assert [packet.pts * BASE for packet in shown] == UNEVEN
    assert all(before.dts < after.dts for before, after in pairwise(packets))
    assert all(packet.dts <= packet.pts for packet in packets)
    assert length * BASE == read(uneven)[2]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_pause_does_not_part_pictures_from_their_sound(tmp_path, suffix):
    """Pictures that are decoded long before they are shown lie in the file beside sound that is heard long before."""
    pts = [512 * number + 12800 * 20 * (number > 10) for number in range(40)]
    source = media.make_video(tmp_path / "pause.mp4", pts=pts, sound="aac")
    target = copy(source, tmp_path / f"out{suffix}")
    with av.open(str(target)) as container:
        heard, apart = 0.0, []
        for packet in container.demux():
            if packet.size and packet.stream.type == "video" and packet.pts * packet.time_base > 20.5:
                apart.append(float(packet.pts * packet.time_base) - heard)
            elif packet.size and packet.stream.type == "audio":
                heard = float(packet.pts * packet.time_base)
    assert len(apart) > 20
    assert max(apart[5:-5]) < 0.5
    if suffix == ".mp4":
        packets, length = packets_and_length(target)
        assert -0.5 < packets[0].dts * BASE < 0
        assert length == pts[-1] + 512


@pytest.mark.parametrize(
    ("span", "numbers", "times", "end"),
    [
        ({"start": 0.5, "end": 1.2}, [4, 5, 6], [0.5, 0.9, 0.91], 1.2),
        ({"start": 0.35, "end": 0.85}, [4], [0.35], 0.85),
        ({"start": 0.9, "end": 0.91}, [5], [0.9], 0.91),
        ({"start": 0.1, "end": 0.32, "stride": 2}, [2], [0.1], 0.32),
    ],
)
def test_a_part_of_uneven_frames_is_one_of_time(uneven, span, numbers, times, end):
    exact = {name: value if name == "stride" else Fraction(str(value)) for name, value in span.items()}
    found, at, over = read(uneven, **exact)
    assert (found, list(map(float, at)), float(over)) == (numbers, times, end)


@pytest.mark.parametrize(
    ("time", "number"), [(0, 0), (0.04, 1), (0.29, 2), (0.7, 4), (0.905, 5), (1.49, 6), (1.5, 7), (1.53, 7)]
)
def test_a_still_is_what_is_on_screen_at_its_time(uneven, time, number):
    numbers, (at,), _ = read(uneven, still=Fraction(str(time)))
    assert (numbers, at) == ([number], UNEVEN[number])


@pytest.mark.parametrize(("time", "number"), [(4.99, 0), (5, 1), (12, 2), (14.999, 2)])
def test_a_still_of_slides_is_what_is_on_screen(slides, time, number):
    assert read(slides, still=Fraction(str(time)))[:2] == ([number], [SLIDES[number]])


@pytest.mark.parametrize("span", [{"still": 15}, {"still": 16}, {"start": 15}, {"start": 99, "end": 100}])
def test_after_the_end_of_the_last_frame_there_is_none(slides, span):
    with pytest.raises(InputError, match=r"has no frame.*; it is 15\.000 s long"):
        read(slides, **span)


def test_a_frame_that_would_be_seen_for_less_than_a_millisecond_is_left_out(tmp_path):
    """At 29.97 frames/s the fourth frame begins at 0.1001 s, and is meant by 0.1."""
    source = media.make_video(tmp_path / "in.mp4", frames=12, rate=Fraction(30000, 1001), time_base=Fraction(1, 30000))
    step = Fraction(1001, 30000)
    assert read(source, start=Fraction(1, 10)) == (list(range(3, 12)), [n * step for n in range(3, 12)], 12 * step)
    assert read(source, end=Fraction("0.1002")) == ([0, 1, 2], [0, step, 2 * step], 3 * step)
    assert read(source, still=Fraction(1, 10))[0] == [3]
    assert read(source, start=Fraction("0.099"))[:2] == (
        list(range(2, 12)),
        [Fraction("0.099"), *(n * step for n in range(3, 12))],
    )


def test_frames_closer_than_a_millisecond_are_all_there_from_any_of_them_on(tmp_path):
    source = media.make_video(tmp_path / "in.mp4", pts=[0, 4, 8, 12, 512, 516, 1024])
    assert read(source)[0] == list(range(7))
    for number, pts in enumerate([0, 4, 8, 12, 512, 516, 1024]):
        assert read(source, start=pts * BASE)[0] == list(range(number, 7))


def test_a_lost_frame_that_is_on_screen_at_the_start_is_damage(tmp_path):
    source = media.damage(media.make_video(tmp_path / "in.mp4", options={"bf": "0"}), 5, "length")
    part = {"start": Fraction(21, 100), "end": Fraction(23, 100)}
    with pytest.raises(InputError, match=r"is damaged at 0\.20 s: 1 frame"):
        read(source, **part)
    assert read(source, on_error="hold", **part) == ([4], [part["start"]], part["end"])


@pytest.mark.parametrize("container", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".gif"])
@pytest.mark.parametrize("late", [0, 10])
def test_the_end_of_the_last_frame_is_known(tmp_path, container, late):
    bases = {".mp4": 12800, ".mov": 12800, ".avi": 25, ".ts": 90000, ".gif": 100}
    codecs = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".gif": "gif"}
    base = Fraction(1, bases.get(container, 1000))
    pts = [round((number + (late if container not in (".avi", ".gif") else 0)) / 25 / base) for number in range(12)]
    source = media.make_video(
        tmp_path / f"in{container}",
        pts=pts,
        time_base=base,
        codec=codecs.get(container, "libx264"),
        pixel_format="rgb8" if container == ".gif" else "yuv420p",
    )
    assert read(source)[2] == Fraction(12, 25)
    assert probe(source).duration in (Fraction(12, 25), None)


def test_mkvmerge_notes_how_long_a_stream_is_where_ffmpeg_notes_its_end(tmp_path):
    source = media.make_video(tmp_path / "in.mkv", pts=range(400, 880, 40), time_base=Fraction(1, 1000))
    info = probe(source)
    assert (info.start_pts, info.end_pts, info.duration) == (400, 880, Fraction(48, 100))
    notes = {"DURATION": "00:00:00.480000000", MKVMERGE_NOTE: "mkvmerge v80.0"}
    noted = SimpleNamespace(time_base=info.time_base, metadata=notes)
    container = SimpleNamespace(format=SimpleNamespace(name=info.container))
    assert _end(container, noted, 400) == 880
