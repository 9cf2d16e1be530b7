"""What the writer refuses before any work, and that an output appears complete under its name or not at all."""

import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import media
import numpy as np
import pytest

from nst_video.errors import InputError, ResourceError, UsageError
from nst_video.media import codecs, output, streams
from nst_video.media.destination import check_output, settle_encoding
from nst_video.media.gif_times import check_gif_times
from nst_video.media.pictures import read_picture, write_picture
from nst_video.media.probe import probe
from nst_video.media.sequences import is_numbered, number_file
from nst_video.media.video import VideoReader, VideoWriter
from nst_video.media.videoinfo import VideoInfo
from nst_video.options import OutputOptions

SIZE = (media.WIDTH, media.HEIGHT)


@pytest.fixture
def clip(tmp_path) -> Path:
    """8 frames without sound."""
    return media.make_video(tmp_path / "clip.mp4", frames=8)


def write(info: VideoInfo, path: Path | str, count: int = 8, **options) -> Path | str:
    """The first `count` test pictures at the source's rate."""
    step = round(1 / (info.average_rate * info.time_base))
    with VideoWriter(path, info=info, size=options.pop("size", SIZE), **options) as writer:
        for number in range(count):
            writer.write(media.picture(number), number * step)
    return path


def numbers(path: Path | str) -> list[int]:
    return [media.number_of(rgb) for frames in VideoReader(path) for rgb in frames.rgb]


def left_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != "clip.mp4")


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _linked(link, tmp_path: Path) -> Path:
    link(tmp_path / "clip.mp4", tmp_path / "other.mp4")
    return tmp_path / "other.mp4"


REFUSED = {
    "no name": (lambda folder: "", {}, UsageError, "has no name"),
    "unknown suffix": (lambda folder: folder / "out.mpeg", {}, UsageError, r"cannot write '\.mpeg' \(did you mean"),
    "unknown codec": (lambda folder: folder / "out.mp4", {"codec": "libx246"}, UsageError, "did you mean .*libx264"),
    "unknown preset": (lambda folder: folder / "out.mp4", {"preset": "slowly"}, UsageError, "did you mean slow"),
    "crf out of range": (lambda folder: folder / "out.mp4", {"crf": 52}, UsageError, r"takes 0 \(best\) to 51"),
    "codec not held": (
        lambda folder: folder / "out.webm",
        {"codec": "libx264"},
        UsageError,
        "write .mp4 or .m4v or .mov or .mkv, or use",
    ),
    "folder missing": (lambda folder: folder / "no" / "out.mp4", {}, ResourceError, "does not exist"),
    "folder is a file": (lambda folder: folder / "clip.mp4" / "out.mp4", {}, ResourceError, "does not exist"),
    "a folder's name": (lambda folder: _folder(folder / "out.mp4"), {}, UsageError, "is a folder"),
    "the input itself": (lambda folder: folder / "clip.mp4", {}, UsageError, "is the input itself"),
    "a symbolic link to it": (lambda folder: _linked(os.symlink, folder), {}, UsageError, "is the input itself"),
    "a hard link to it": (lambda folder: _linked(os.link, folder), {}, UsageError, "is the input itself"),
    "through another path": (lambda folder: folder / "." / "clip.mp4", {}, UsageError, "is the input itself"),
}


def read_from(path):
    """What is told of the input that is read from a path."""
    return [(str(path), "the input itself")]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path, clip, case, overwrite):
    make, options, error, line = REFUSED[case]
    path = make(tmp_path)
    before = left_in(tmp_path)
    info = probe(clip)
    with pytest.raises(error, match=line) as caught:
        check_output(path, sources=read_from(clip), overwrite=overwrite, **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(error, match=line):
        VideoWriter(path, info=info, size=SIZE, overwrite=overwrite, **options)
    assert left_in(tmp_path) == before
    assert numbers(clip) == list(range(8))


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".m4v", "libx264"), (".mov", "libx264"), (".mkv", "libx264"), (".webm", "libvpx-vp9")],
)
def test_a_container_has_a_codec_of_its_own(tmp_path, clip, suffix, codec):
    target = tmp_path / f"out{suffix}"
    write(probe(clip), target)
    assert probe(target).codec in {"libx264": ("h264",), "libvpx-vp9": ("vp9", "libvpx-vp9")}[codec]
    assert numbers(target) == list(range(8))
    assert settle_encoding(OutputOptions(), target).codec == codec


def test_webm_has_the_next_codec_where_a_build_lacks_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(codecs, "can_encode", lambda encoder: encoder == "libsvtav1")
    assert codecs.default_codec(".webm") == "libsvtav1"


def test_an_existing_output_needs_leave_to_be_overwritten(tmp_path, clip):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists; give -y"):
        write(probe(clip), target)
    assert target.read_bytes() == b"precious"
    write(probe(clip), target, overwrite=True)
    assert numbers(target) == list(range(8))


def test_a_folder_that_is_not_writable_is_refused(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ResourceError, match="is not writable"):
        check_output(tmp_path / "out.mp4", sources=read_from(clip))


def test_odd_sizes_are_refused_where_the_pixel_format_has_none(tmp_path, clip):
    with pytest.raises(UsageError, match="even width and height; got 97 x 64"):
        VideoWriter(tmp_path / "out.mp4", info=probe(clip), size=(97, 64))
    assert left_in(tmp_path) == []


def test_a_build_without_an_encoder_says_so(monkeypatch):
    monkeypatch.setitem(codecs.CODECS, "libmissing", codecs.CODECS["libx264"])
    with pytest.raises(UsageError, match="has no encoder libmissing"):
        codecs.find_codec("libmissing", ".mp4")


def test_nothing_appears_before_the_end(tmp_path, clip):
    target = tmp_path / "out.mp4"
    with VideoWriter(target, info=probe(clip), size=SIZE) as writer:
        for number in range(8):
            writer.write(media.picture(number), number * 512)
        assert not target.exists()
    assert left_in(tmp_path) == ["out.mp4"]
    assert numbers(target) == list(range(8))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.gif", "out.png", "frames", "frames/%03d.png"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_an_interrupted_output(tmp_path, clip, name, error):
    def interrupted() -> None:
        with VideoWriter(tmp_path / name, info=probe(clip), size=SIZE) as writer:
            writer.write(media.picture(0), 0)
            raise error

    with pytest.raises(error):
        interrupted()
    assert left_in(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if "nst-video" in thread.name]


def test_an_interrupted_overwrite_keeps_the_old_file(tmp_path, clip):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    writer = VideoWriter(target, info=probe(clip), size=SIZE, overwrite=True)
    writer.write(media.picture(0), 0)
    writer.abort()
    assert left_in(tmp_path) == ["out.mp4"]
    assert target.read_bytes() == b"precious"


def test_no_frames_make_no_file(tmp_path, clip):
    with pytest.raises(InputError, match="no frames to write"):
        write(probe(clip), tmp_path / "out.mp4", count=0)
    assert left_in(tmp_path) == []


def test_an_error_in_the_encoding_thread_is_raised_to_the_caller(tmp_path, clip, monkeypatch):
    def fail(self, rgb):
        raise MemoryError("no more")

    monkeypatch.setattr(output.FromRgb, "__call__", fail)
    with pytest.raises(MemoryError, match="no more"):
        write(probe(clip), tmp_path / "out.mp4", count=100)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("lose", ["frame", "sound"])
def test_an_output_that_does_not_verify_is_not_kept(tmp_path, monkeypatch, lose):
    source = media.make_video(tmp_path / "clip.mp4", frames=8, sound="aac")
    mux = output.VideoOutput._mux
    if lose == "frame":
        monkeypatch.setattr(output.VideoOutput, "_mux", lambda self, packets: mux(self, packets[:-1]))
    else:
        monkeypatch.setattr(streams.Companions, "mux_until", lambda self, time: self.counts.update({1: 5}))
    with pytest.raises(ResourceError, match="did not verify"):
        write(probe(source), tmp_path / "out.mp4")
    assert left_in(tmp_path) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import media
from nst_video.errors import ResourceError
from nst_video.media.pictures import write_picture
from nst_video.media.video import VideoWriter
from nst_video.media.probe import probe
import numpy as np

info = probe({clip!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))  # as a full disk: writing beyond fails
noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
try:
    if {name!r}.endswith("mp4"):
        with VideoWriter({name!r}, info=info, size=(96, 64), crf=1) as writer:
            for number in range(200):
                writer.write(np.roll(noise, number * 7, axis=1), number * 512)
    else:
        write_picture({name!r}, np.tile(noise, (4, 4, 1)))
except ResourceError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit of a file's size is a POSIX call")
@pytest.mark.parametrize("name", ["out.mp4", "out.png"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, clip, name):
    script = FULL_DISK.format(tests=str(Path(__file__).parent), clip=str(clip), name=str(tmp_path / name))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith(f"refused: cannot write {tmp_path / name}")
    assert done.stderr == ""
    assert left_in(tmp_path) == []


def test_the_wrong_frames_are_refused_at_once(tmp_path, clip):
    with VideoWriter(tmp_path / "out.mp4", info=probe(clip), size=SIZE) as writer:
        writer.write(media.picture(0), 0)
        for rgb, pts in (
            (media.picture(1, 98, 64), 512),
            (media.picture(1).astype(np.float32), 512),
            (np.stack([media.picture(1)] * 2), 512),
        ):
            with pytest.raises(ValueError, match="expected uint8"):
                writer.write(rgb, pts)
        with pytest.raises(ValueError, match="pts must rise"):
            writer.write(media.picture(1), 0)


def test_the_caller_may_reuse_its_array(tmp_path, clip):
    rgb = np.empty((1, media.HEIGHT, media.WIDTH, 3), np.uint8)
    with VideoWriter(tmp_path / "out.mp4", info=probe(clip), size=SIZE) as writer:
        for number in range(20):
            rgb[0] = media.picture(number)
            writer.write(rgb, [number * 512])
    assert numbers(tmp_path / "out.mp4") == list(range(20))


HELD = [(name, suffix) for name, codec in codecs.CODECS.items() for suffix in codec.containers]


@pytest.mark.parametrize(("codec", "suffix"), HELD)
def test_every_codec_writes_every_container_it_is_said_to(tmp_path, capfd, codec, suffix):
    source = media.make_video(tmp_path / "clip.mp4", frames=8, matrix=1, color_range=1, primaries=1, transfer=1)
    info = probe(source)
    target = write(info, tmp_path / f"out{suffix}", codec=codec, crf=10, preset="ultrafast")
    assert numbers(target) == list(range(8))
    found = probe(target)
    expected = [Fraction(number, 25) for number in range(8)]
    assert [time for frames in VideoReader(target) for time in frames.times] == expected
    assert found.color == (info.color if codec != "ffv1" else found.color)
    shown = next(iter(VideoReader(target))).rgb[0].astype(int)
    patch = np.s_[4:12, 76:92]  # flat, and far from the mark and the noise
    assert np.abs(shown[patch] - media.picture(0)[patch]).max() <= (0 if codec == "ffv1" else 4)
    assert capfd.readouterr().err == ""


def test_every_preset_opens_every_codec(tmp_path, clip):
    info = probe(clip)
    for name, codec in codecs.CODECS.items():
        for preset in codecs.X264_PRESETS if codec.largest_crf is not None else ("medium",):
            target = tmp_path / f"out{codec.containers[0]}"
            VideoWriter(target, info=info, size=SIZE, codec=name, crf=30, preset=preset).abort()
    assert left_in(tmp_path) == []


def test_short_names_of_codecs_are_understood():
    for short, name in codecs.ALIASES.items():
        suffix = codecs.CODECS[name].containers[0]
        assert codecs.find_codec(short, suffix) == (name, codecs.CODECS[name])


def test_wide_pixels_that_cannot_be_noted_are_said(tmp_path, caplog):
    source = media.make_video(tmp_path / "clip.mp4", frames=2, aspect=Fraction(4, 3))
    write(probe(source), tmp_path / "out.webm", count=2, codec="vp9")
    assert "libvpx-vp9 in .webm cannot say that pixels are 4:3" in caplog.text


def test_a_gif_is_read_and_written_with_its_times(tmp_path, caplog):
    source = media.make_video(
        tmp_path / "clip.mp4", frames=8, sound="aac", pts=[0, 512, 2048, 2560, 5120, 5632, 6144, 7680]
    )
    target = tmp_path / "out.gif"
    with VideoReader(source) as reader, VideoWriter(target, info=reader.info, size=SIZE) as writer:
        for frames in reader:
            writer.write(frames.rgb, frames.pts)
    times = [time for frames in VideoReader(target) for time in frames.times]
    assert times == [Fraction(pts, 12800) for pts in (0, 512, 2048, 2560, 5120, 5632, 6144, 7680)]
    assert numbers(target) == list(range(8))
    assert "audio stream 1 is left out: .gif holds pictures only" in caplog.text


def test_frames_too_close_for_a_gif_are_moved_and_the_others_are_not(tmp_path):
    """A gif counts hundredths of a second and shows nothing for less than two of them."""
    hundredths = [0, 4, 8, 30, 31, 32, 50, 90, 91, 150]
    source = media.make_video(tmp_path / "clip.mp4", pts=[time * 128 for time in hundredths])
    target = tmp_path / "out.gif"
    with VideoWriter(target, info=probe(source), size=SIZE, until=206 * 128) as writer:
        for number, time in enumerate(hundredths):
            writer.write(media.picture(number), time * 128)
    (frames,) = VideoReader(target, batch=16)
    assert (frames.pts, frames.end) == ((0, 4, 8, 30, 32, 34, 50, 90, 92, 150), 206)
    assert numbers(target) == list(range(10))


@pytest.mark.parametrize(
    ("rate", "count", "stride"),
    [
        (Fraction(50), 100, 1),
        (Fraction(30000, 1001), 100, 1),
        (Fraction(51), 100, 2),
        (Fraction(60), 8, 2),
        (Fraction(120), 240, 3),
        (Fraction(240), 240, 5),
    ],
)
def test_how_many_frames_a_second_a_gif_can_have(rate, count, stride):
    times = [number / rate for number in range(count + 1)]
    check_gif_times("out.gif", [*times[:-1:stride], times[-1]])
    if stride > 1:
        with pytest.raises(UsageError, match=f"at most 50 frames/s; use --stride {stride}, or"):
            check_gif_times("out.gif", times)


def test_the_stride_that_is_enough_for_a_gif_need_be_no_multiple_of_the_one_given():
    times = [Fraction(number, 120) for number in range(241)]
    with pytest.raises(UsageError, match="use --stride 3, or"):
        check_gif_times("out.gif", times[::2], lambda: times)


def test_a_part_that_begins_and_ends_within_frames_is_no_faster_than_the_clip():
    check_gif_times("out.gif", [Fraction(0), *(Fraction(2 * n - 1, 100) for n in range(1, 9)), Fraction(151, 1000)])


def test_a_fast_part_of_a_clip_is_not_shown_late_in_a_gif(tmp_path):
    fast = [Fraction(number, 60) for number in range(60)]
    with pytest.raises(UsageError, match="at most 50 frames/s"):
        check_gif_times("out.gif", [*fast, Fraction(1), Fraction(9)])


def test_a_gif_faster_than_gifs_are_is_refused(tmp_path):
    source = media.make_video(tmp_path / "clip.mp4", frames=8, rate=Fraction(60), time_base=Fraction(1, 600))
    with pytest.raises(UsageError, match="at most 50 frames/s"):
        write(probe(source), tmp_path / "out.gif")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["frames", "frames/%03d.png", "frames/shot_%05d.jpg"])
def test_a_sequence_is_written_from_one_on(tmp_path, clip, name):
    write(probe(clip), tmp_path / name)
    pattern = name.split("/")[1] if "/" in name else "%05d.png"
    assert sorted(os.listdir(tmp_path / "frames")) == [pattern % number for number in range(1, 9)]
    assert left_in(tmp_path) == ["frames"]
    assert numbers(tmp_path / name) == list(range(8))
    if name.endswith("png"):
        np.testing.assert_array_equal(read_picture(tmp_path / (name % 3)), media.picture(2))


@pytest.mark.parametrize("name", [".", "%05d.png", "./%05d.png"])
def test_a_sequence_can_go_to_the_current_folder(tmp_path, clip, monkeypatch, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(probe(clip), name, count=3)
    assert sorted(os.listdir(tmp_path / "here")) == ["00001.png", "00002.png", "00003.png"]
    assert left_in(tmp_path) == ["here"]


@pytest.mark.parametrize("name", ["take:2.mp4", "tcp:2.mp4", "file:out.mkv"])
def test_a_name_with_a_colon_is_a_file(tmp_path, clip, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(probe(clip), name)
    assert left_in(tmp_path) == [name]
    assert numbers(name) == list(range(8))


def test_what_an_older_run_left_in_a_folder_is_told_as_that_and_not_as_a_gap(tmp_path, clip, caplog):
    write_picture(_folder(tmp_path / "frames") / "00099.png", media.picture(0))
    write(probe(clip), tmp_path / "frames", overwrite=True)
    assert caplog.messages == [f"{tmp_path / 'frames'} still holds 1 picture of an earlier, longer run"]


def test_a_sequence_is_overwritten_only_with_leave(tmp_path, clip, caplog):
    write(probe(clip), tmp_path / "frames")
    for name in ("frames", "frames/%05d.png"):
        with pytest.raises(UsageError, match="exists; give -y"):
            write(probe(clip), tmp_path / name)
    write(probe(clip), tmp_path / "frames", count=3, overwrite=True)
    assert "still holds 5 pictures of an earlier, longer run" in caplog.text
    (tmp_path / "empty").mkdir()
    write(probe(clip), tmp_path / "empty")
    assert len(os.listdir(tmp_path / "empty")) == 8
    write(probe(clip), tmp_path / "frames" / "other_%d.png", count=2)
    assert len(os.listdir(tmp_path / "frames")) == 10


def test_a_sequence_is_not_written_over_itself(tmp_path, clip):
    write(probe(clip), tmp_path / "in")
    for source, target in (("in", "in"), ("in/%05d.png", "in"), ("in/%05d.png", "in/%05d.png"), ("in", "in/%05d.png")):
        with pytest.raises(UsageError, match="input itself"):
            check_output(tmp_path / target, sources=read_from(tmp_path / source), overwrite=True)
    assert check_output(tmp_path / "in" / "out_%05d.png", sources=read_from(tmp_path / "in/%05d.png")) == "sequence"


def test_a_pattern_replaces_only_pictures_that_it_would_write(tmp_path):
    style = _folder(tmp_path / "in") / "00001.png"
    write_picture(style, media.picture(0))
    for name, written in (("%d.png", False), ("%04d.png", False), ("%05d.png", True), ("a%05d.png", False)):
        if written:
            with pytest.raises(UsageError, match=r"would replace .*00001\.png, a style picture"):
                check_output(tmp_path / "in" / name, sources=[(str(style), "a style picture")], overwrite=True)
        else:
            check_output(tmp_path / "in" / name, sources=[(str(style), "a style picture")], overwrite=True)


@pytest.mark.parametrize("pattern", ["%d.png", "%05d.png", "%3d.png", "a%d_%d.png"])
@pytest.mark.parametrize("number", [1, 12, 123456])
def test_a_written_picture_is_known_by_its_name(pattern, number):
    assert is_numbered(number_file(pattern, number), pattern)


def test_a_sequence_becomes_a_video_and_back(tmp_path, clip):
    write(probe(clip), tmp_path / "frames")
    info = probe(tmp_path / "frames", rate=Fraction(24))
    reader = VideoReader(tmp_path / "frames", rate=Fraction(24))
    with VideoWriter(tmp_path / "out.mp4", info=info, size=reader.size, crf=5) as writer:
        for frames in reader:
            writer.write(frames.rgb, frames.pts)
    assert numbers(tmp_path / "out.mp4") == list(range(8))
    found = probe(tmp_path / "out.mp4")
    assert (found.average_rate, found.duration) == (24, Fraction(8, 24))
    assert (found.color.matrix, found.color.primaries, found.color.transfer) == (1, 1, 13)  # sRGB pictures


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_one_frame_becomes_a_picture(tmp_path, clip, suffix):
    target = write(probe(clip), tmp_path / f"out{suffix}", count=1)
    difference = np.abs(read_picture(target).astype(int) - media.picture(0))
    assert difference.mean() < (1 if suffix in (".png", ".bmp", ".tif") else 6)


def test_two_frames_are_not_one_picture(tmp_path, clip):
    with pytest.raises(UsageError, match="is one picture and there are more frames"):
        write(probe(clip), tmp_path / "out.png")
    assert left_in(tmp_path) == []


def test_a_picture_in_makes_a_picture_out(tmp_path):
    write_picture(tmp_path / "in.png", media.picture(4, 41, 31))
    reader = VideoReader(tmp_path / "in.png", size=(41, 31))
    with VideoWriter(tmp_path / "out.png", info=reader.info, size=(41, 31)) as writer:
        for frames in reader:
            writer.write(frames.rgb, frames.pts)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.png"), media.picture(4, 41, 31))


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(("codec", "preset"), [("libx264", "ultrafast"), ("libx264", "medium"), ("libx265", "medium")])
@pytest.mark.parametrize(
    "times", [[0, 4, 8, 30, 34], [0, 1, 2, 3, 4, 5, 200], [0, 100, 200, 201, 202, 203, 204], range(0, 48, 4)], ids=str
)
def test_a_track_is_as_long_as_its_frames_in_whatever_order_they_are_decoded(tmp_path, suffix, codec, preset, times):
    """The presets but the first decode another frame last than is shown last; times in hundredths of a second."""
    pts, end, target = [time * 128 for time in times], times[-1] * 128 + 13568, tmp_path / f"out{suffix}"
    info = probe(media.make_video(tmp_path / "clip.mp4", pts=pts))
    with VideoWriter(target, info=info, size=SIZE, until=end, codec=codec, preset=preset) as writer:
        for number, time in enumerate(pts):
            writer.write(media.picture(number), time)
    with av.open(str(target)) as container:
        assert container.streams.video[0].duration == end
        assert Fraction(container.duration, av.time_base) == Fraction(end, 12800)
    assert [frames.end for frames in VideoReader(target)][-1] == end


def test_the_last_frame_lasts_as_long_as_in_the_source(tmp_path):
    """A clip whose last frame is shown longer than the others keeps its length."""
    source = media.make_video(tmp_path / "clip.mp4", frames=8)
    info = probe(source)
    stretched = media.make_video(tmp_path / "long.mp4", pts=[number * 512 for number in range(7)] + [4000], frames=8)
    for path in (source, stretched):
        target = tmp_path / f"out_{path.name}"
        with VideoReader(path) as reader:
            batches = list(reader)
        end = batches[-1].end
        with VideoWriter(target, info=reader.info, size=SIZE, until=end) as writer:
            for frames in batches:
                writer.write(frames.rgb, frames.pts)
        assert probe(target).duration == end * info.time_base
        assert [frames.end for frames in VideoReader(target)] == [end]
    assert info.duration == Fraction(8, 25)


def test_the_output_may_be_read_by_others(tmp_path, clip):
    write(probe(clip), tmp_path / "out.mp4")
    write(probe(clip), tmp_path / "out.png", count=1)
    umask = os.umask(0)
    os.umask(umask)
    for name in ("out.mp4", "out.png"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_same_frames_make_the_same_file(tmp_path):
    source = media.make_video(tmp_path / "clip.mp4", frames=25, size=(64, 42))
    info = probe(source)
    found = set()
    for _ in range(30):
        target = tmp_path / "out.mp4"
        with VideoWriter(target, info=info, size=(64, 42), overwrite=True) as writer:
            for frames in VideoReader(source):
                writer.write(frames.rgb, frames.pts)
        found.add(target.read_bytes())
    assert len(found) == 1
