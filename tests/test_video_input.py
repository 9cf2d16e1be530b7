"""What the reader refuses, each in one line, and what it notes about what it takes."""

import os
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest
from PIL import Image

from nst_video.errors import InputError, UsageError
from nst_video.media.pictures import write_picture
from nst_video.media.probe import probe
from nst_video.media.video import Frames, VideoReader
from nst_video.media.videoinfo import scaled_size


def _text(path: Path) -> Path:
    path.write_text("this is not a video\n" * 50)
    return path


def _playlist(path: Path) -> Path:
    """What FFmpeg would follow to another file if it were let."""
    media.make_video(path.parent / "secret.mp4", frames=3)
    path.write_text("ffconcat version 1.0\nfile 'secret.mp4'\n")
    return path


def _hls(path: Path) -> Path:
    media.make_video(path.parent / "secret.ts", frames=3)
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    return path


def _no_index(path: Path) -> Path:
    """An mp4 whose writer was killed: all data, no index."""
    data = media.make_video(path).read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    return path


def _empty_folder(path: Path) -> Path:
    path.mkdir()
    return path


def _unknown_codec(path: Path) -> Path:
    """An mp4 whose pictures are of a kind nobody has heard of."""
    data = media.make_video(path).read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    return path


REFUSED = {
    "missing": (lambda path: path, "does not exist"),
    "empty": (lambda path: path.write_bytes(b"") or path, "not a video that can be read"),
    "text": (_text, "not a video that can be read"),
    "playlist": (_playlist, "not a video that can be read"),
    "hls": (_hls, "not a video that can be read"),
    "sound only": (media.make_sound, r"has no video stream \(it holds audio\)"),
    "music with a cover": (
        lambda path: media.add_cover(path, media.make_sound(path.with_name("music.m4a"))),
        "has no video stream",
    ),
    "PQ": (lambda path: media.make_video(path, transfer=16, matrix=9, primaries=9), "HDR video .PQ"),
    "HLG": (lambda path: media.make_video(path, transfer=18, matrix=9, primaries=9), "HDR video .HLG"),
    "unknown codec": (_unknown_codec, "no decoder here knows"),
    "no index": (_no_index, "not a video that can be read"),
    "folder": (_empty_folder, "folder without pictures"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, case):
    make, line = REFUSED[case]
    path = make(tmp_path / "clip.mp4")
    for use in (probe, VideoReader):
        with pytest.raises(InputError, match=line) as caught:
            use(path)
        assert "\n" not in str(caught.value)
        assert "clip.mp4" in str(caught.value)


def test_a_path_with_a_protocol_is_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    media.make_video(tmp_path / "clip.mp4", frames=2)
    for name in ("concat:clip.mp4", "http://localhost/clip.mp4", "subfile:clip.mp4", "file:clip.mp4"):
        with pytest.raises(InputError, match="does not exist"):
            probe(name)


def test_a_file_name_with_a_colon_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    media.make_video(tmp_path / "clip.mp4", frames=2).rename(tmp_path / "take:1.mp4")
    assert probe("take:1.mp4").declared_frames == 2


def test_too_many_pixels_are_refused(tmp_path):
    path = media.make_video(tmp_path / "clip.mp4", frames=1)
    limit = media.WIDTH * media.HEIGHT
    assert probe(path, max_pixels=limit).width == media.WIDTH
    for use in (probe, VideoReader):
        with pytest.raises(InputError, match=f"96 x 64 pixels; at most {limit - 1} pixels"):
            use(path, max_pixels=limit - 1)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = media.make_video(tmp_path / "clip.mp4", frames=1)

    def deny(*args, **kwargs):
        raise av.error.PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", deny)
    with pytest.raises(InputError, match="permission denied"):
        probe(path)


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"start": -1}, UsageError, "before the beginning"),
        ({"still": -1}, UsageError, "still -1 s is before the beginning"),
        ({"start": 2, "end": 1}, UsageError, "not after start"),
        ({"end": 0}, UsageError, "not after start"),
        ({"stride": 0}, UsageError, "at least 1"),
        ({"on_error": "ignore"}, UsageError, "one of fail, hold"),
        ({"start": 5}, InputError, r"no frames between start and end; it is 0\.960 s long"),
        ({"start": Fraction(24, 25)}, InputError, r"no frames between start and end; it is 0\.960 s long"),
        ({"still": Fraction(24, 25)}, InputError, r"no frame at that time; it is 0\.960 s long"),
    ],
)
def test_a_span_that_makes_no_sense_is_refused(tmp_path, options, error, line):
    path = media.make_video(tmp_path / "clip.mp4")
    with pytest.raises(error, match=line):
        list(VideoReader(path, **options))


def test_the_second_video_stream_and_the_cover_are_not_the_video(tmp_path):
    path = media.add_cover(tmp_path / "clip.mp4", media.make_video(tmp_path / "plain.mp4", frames=4))
    info = probe(path)
    assert (info.width, info.height) == (media.WIDTH, media.HEIGHT)
    assert [stream.kind for stream in info.streams] == ["video"]


def test_probe_says_what_is_in_the_file(tmp_path):
    path = media.make_video(
        tmp_path / "clip.mkv",
        sound="aac",
        subtitles="subrip",
        chapters=True,
        attachment=b"font",
        matrix=1,
        color_range=1,
    )
    info = probe(path)
    assert (info.kind, info.codec, info.pixel_format, info.bit_depth) == ("video", "h264", "yuv420p", 8)
    assert (info.average_rate, info.time_base, info.start_pts) == (25, Fraction(1, 1000), 0)
    assert info.duration == Fraction(24, 25)
    assert [stream.kind for stream in info.streams] == ["audio", "subtitle", "attachment"]
    assert [(chapter.start, chapter.end, chapter.title) for chapter in info.chapters] == [
        (0, Fraction(480, 1000), "first"),
        (Fraction(480, 1000), Fraction(960, 1000), "second"),
    ]


def test_damage_outside_the_wanted_span_does_not_matter(tmp_path):
    path = media.damage(media.make_video(tmp_path / "clip.mp4"), 5, "length")
    with pytest.raises(InputError, match="is damaged at 0"):
        list(VideoReader(path))
    for span in ({"end": Fraction(3, 25)}, {"start": Fraction(12, 25)}):
        assert sum(len(frames.pts) for frames in VideoReader(path, **span)) in (3, 12)


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "2", "g": "5"}], ids=str)
def test_frames_that_an_edit_list_leaves_out_are_not_lost(tmp_path, options):
    """As far as the next key frame the demuxer gives them, to be thrown away; of the others only the header knows."""
    clip = media.trim(media.make_video(tmp_path / "clip.mp4", options=options), 8)
    with VideoReader(clip) as reader:
        batches = list(reader)
    assert [media.number_of(rgb) for frames in batches for rgb in frames.rgb] == list(range(8))
    assert batches[-1].end * reader.info.time_base == Fraction(8, 25)
    assert reader.info.declared_frames == media.FRAMES
    with pytest.raises(InputError, match=r"is damaged at 0\.\d\d s"):
        list(VideoReader(media.damage(clip, 2, "length")))


def test_a_damaged_first_key_frame_is_damage_not_a_late_start(tmp_path, caplog):
    path = media.damage(media.make_video(tmp_path / "clip.mp4"), 0, "length")
    with pytest.raises(InputError, match=r"is damaged at 0\.00 s"):
        list(VideoReader(path))
    frames = list(VideoReader(path, on_error="hold"))
    assert media.number_of(frames[0].rgb[0]) == 10  # the second key frame
    assert "the first good frame is the first of all" in caplog.text


def test_spoiled_picture_data_is_noticed(tmp_path):
    path = media.make_video(tmp_path / "clip.mp4", size=(320, 192), options={"preset": "veryfast", "crf": "18"})
    media.damage(path, 5, "bits")
    with pytest.raises(InputError, match="is damaged"):
        list(VideoReader(path))
    assert sum(len(frames.pts) for frames in VideoReader(path, on_error="hold")) == media.FRAMES


def test_a_gif_frame_with_an_impossible_code_size_is_damage(tmp_path):
    """The decoder calls that an operation that is not permitted, not invalid data."""
    path = tmp_path / "clip.gif"
    frames = [Image.new("RGB", (32, 24), (level, level, level)) for level in (20, 220, 90)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    data = bytearray(path.read_bytes())
    packed = data.rindex(b"," + struct.pack("<HHHH", 0, 0, 32, 24)) + 9
    local_palette = 3 << (data[packed] % 8 + 1) if data[packed] & 0x80 else 0
    data[packed + 1 + local_palette] = 255
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged at 0\.20 s"):
        list(VideoReader(path))
    assert sum(len(batch.pts) for batch in VideoReader(path, on_error="hold")) == 3


def test_a_reader_is_read_once_and_closes_early_without_hanging(tmp_path):
    path = media.make_video(tmp_path / "clip.mp4", frames=200, size=(32, 32))
    reader = VideoReader(path, batch=1)
    for frames in reader:
        assert frames.pts == (0,)
        break
    reader.close()
    with pytest.raises(UsageError, match="iterated over once"):
        next(iter(reader))
    with VideoReader(path) as unread:
        assert unread.info.declared_frames == 200


def test_an_error_of_the_caller_ends_the_reader(tmp_path):
    path = media.make_video(tmp_path / "clip.mp4", frames=100, size=(32, 32))

    def fail_on_the_first() -> None:
        with VideoReader(path, batch=1) as reader:
            for _ in reader:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_on_the_first()
    assert not [thread for thread in threading.enumerate() if "nst-video" in thread.name]


def test_no_more_than_a_few_batches_are_decoded_ahead(tmp_path, monkeypatch):
    from nst_video.media import video

    converted = []
    plain = video.ToRgb.__call__
    monkeypatch.setattr(video.ToRgb, "__call__", lambda self, frame: converted.append(0) or plain(self, frame))
    path = media.make_video(tmp_path / "clip.mp4", frames=100, size=(32, 32))
    with VideoReader(path, batch=2) as reader:
        for taken, _ in enumerate(reader, start=1):
            assert len(converted) <= 2 * (taken + video.BATCHES_AHEAD + 1)


@pytest.mark.parametrize(
    ("size", "long_side", "options", "expected"),
    [
        ((1280, 720), 512, {}, (512, 288)),
        ((720, 1280), 512, {}, (288, 512)),
        ((640, 272), 512, {}, (512, 218)),
        ((97, 63), "full", {}, (96, 62)),
        ((97, 63), "full", {"even": False}, (97, 63)),
        ((320, 180), 512, {}, (320, 180)),
        ((320, 180), 512, {"upscale": True}, (512, 288)),
        ((4000, 10), 100, {}, (100, 2)),
    ],
)
def test_sizes_keep_the_aspect_and_are_even(size, long_side, options, expected):
    assert scaled_size(size, long_side, **options) == expected


def test_frames_check_their_shape():
    rgb = np.zeros((2, 4, 6, 3), np.uint8)
    assert Frames(rgb, (0, 512), Fraction(1, 12800), 1024).times == (0, Fraction(1, 25))
    for wrong, pts in ((rgb, (0,)), (rgb.astype(float), (0, 1)), (rgb[0], (0,))):
        with pytest.raises(ValueError, match="frames are uint8"):
            Frames(wrong, pts, Fraction(1, 25), 2)


def _pictures(folder: Path, count: int, size: tuple[int, int] = (32, 24), first: int = 1, suffix: str = "png") -> Path:
    folder.mkdir()
    for number in range(count):
        write_picture(folder / f"{first + number:05d}.{suffix}", media.picture(number, *size))
    return folder


@pytest.mark.parametrize("name", ["frames", "frames/%05d.png"])
def test_a_sequence_is_read_in_order(tmp_path, name):
    _pictures(tmp_path / "frames", 5)
    info = probe(tmp_path / name)
    assert (info.kind, info.width, info.height, info.average_rate, info.duration) == (
        "sequence",
        32,
        24,
        25,
        Fraction(1, 5),
    )
    frames = next(iter(VideoReader(tmp_path / name)))
    assert frames.times == tuple(Fraction(number, 25) for number in range(5))
    for number in range(5):
        np.testing.assert_array_equal(frames.rgb[number], media.picture(number, 32, 24))


def test_names_may_have_digits_that_are_no_numbers(tmp_path):
    folder = _pictures(tmp_path / "frames", 3)
    for old, new in ((1, "1²3"), (2, "a②"), (3, "7")):
        os.rename(folder / f"{old:05d}.png", folder / f"{new}.png")
    assert [Path(file).stem for file in probe(folder).files] == ["1²3", "7", "a②"]


def test_a_sequence_has_the_rate_it_is_given_and_spans(tmp_path):
    _pictures(tmp_path / "frames", 12)
    rate = Fraction(30000, 1001)
    frames = next(iter(VideoReader(tmp_path / "frames", rate=rate, start=Fraction(1, 10), stride=3)))
    assert frames.times == tuple(number / rate for number in (3, 6, 9))
    assert frames.end == 12
    np.testing.assert_array_equal(frames.rgb[0], media.picture(3, 32, 24))


def test_pictures_are_sorted_by_their_numbers(tmp_path):
    folder = _pictures(tmp_path / "frames", 3)
    for old, new in ((1, 9), (2, 10), (3, 100)):
        os.rename(folder / f"{old:05d}.png", folder / f"shot{new}.png")
    (folder / "notes.txt").write_text("not a picture")
    assert [Path(file).name for file in probe(folder).files] == ["shot9.png", "shot10.png", "shot100.png"]


def test_a_gap_in_the_numbers_is_noted(tmp_path, caplog):
    folder = _pictures(tmp_path / "frames", 4)
    (folder / "00002.png").unlink()
    assert probe(folder / "%05d.png").declared_frames == 3
    assert "of the numbers from 1 to 4 there are only 3" in caplog.text


def test_a_bad_picture_in_a_sequence_is_refused_or_held(tmp_path, caplog):
    folder = _pictures(tmp_path / "frames", 4)
    (folder / "00003.png").write_bytes(b"spoiled")
    with pytest.raises(InputError, match=r"00003\.png is not a picture"):
        list(VideoReader(folder))
    frames = next(iter(VideoReader(folder, on_error="hold")))
    np.testing.assert_array_equal(frames.rgb[2], media.picture(1, 32, 24))
    assert "00003.png is not a picture that can be read" in caplog.text
    write_picture(folder / "00003.png", media.picture(2, 34, 24))
    with pytest.raises(InputError, match=r"00003\.png is 34 x 24 pixels"):
        list(VideoReader(folder))


def test_a_pattern_without_pictures_is_refused(tmp_path):
    with pytest.raises(InputError, match="no picture matches"):
        probe(tmp_path / "frames" / "%05d.png")


def test_a_limit_of_pixels_holds_for_pictures_too(tmp_path):
    folder = _pictures(tmp_path / "frames", 2)
    for path in (folder, folder / "%05d.png", folder / "00001.png"):
        assert probe(path, max_pixels=32 * 24).width == 32
        with pytest.raises(InputError, match="32 x 24 pixels; pictures up to 767 pixels"):
            probe(path, max_pixels=32 * 24 - 1)


def test_a_video_may_have_a_percent_sign_in_its_name(tmp_path):
    media.make_video(tmp_path / "clip.mp4", frames=2).rename(tmp_path / "50%d.mp4")
    assert probe(tmp_path / "50%d.mp4").declared_frames == 2


def test_a_picture_is_one_frame(tmp_path):
    write_picture(tmp_path / "one.png", media.picture(7, 41, 31))
    assert probe(tmp_path / "one.png").kind == "picture"
    reader = VideoReader(tmp_path / "one.png", size=(41, 31))
    frames = next(iter(reader))
    assert frames.pts == (0,)
    np.testing.assert_array_equal(frames.rgb[0], media.picture(7, 41, 31))


def _joined(path: Path, sizes: tuple[tuple[int, int], ...]) -> Path:
    """Transport streams one after the other in one file: each starts its clock anew."""
    parts = [media.make_video(path.with_name(f"{n}.ts"), frames=8, size=size) for n, size in enumerate(sizes)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_clock_set_back_is_refused_or_waited_out(tmp_path, caplog):
    path = _joined(tmp_path / "clip.ts", ((96, 64), (96, 64)))
    with pytest.raises(InputError, match=r"goes back in time after 0\.28 s"):
        list(VideoReader(path))
    assert [media.number_of(rgb) for frames in VideoReader(path, on_error="hold") for rgb in frames.rgb] == list(
        range(8)
    )
    assert caplog.text.count("goes back in time") == 1


def test_a_change_of_size_in_the_middle_is_fitted_with_a_line(tmp_path, caplog):
    first = media.make_video(tmp_path / "first.ts", frames=8, time_base=Fraction(1, 90000))
    second = media.make_video(
        tmp_path / "second.ts",
        size=(64, 48),
        pts=[3600 * number for number in range(10, 18)],
        time_base=Fraction(1, 90000),
    )
    path = tmp_path / "clip.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    found = [media.number_of(rgb) for frames in VideoReader(path) for rgb in frames.rgb]
    assert found == [*range(8), *range(8)]
    assert caplog.text.count("changes its size to 64 x 48; it is fitted") == 1
