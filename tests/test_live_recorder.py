"""Recordings and snapshots of a live session: true times, nothing replaced, nothing lost."""

import errno
import os
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from live_tools import SIZE, shown, wait_for

from nst_video.errors import ResourceError, UsageError
from nst_video.files import settle_new
from nst_video.live import recorder as module
from nst_video.live.desk import Desk, View
from nst_video.live.outputs import Facts
from nst_video.live.recorder import Recorder, Recording, Snapshots, check_folder, check_recording
from nst_video.media.output import VideoOutput
from nst_video.media.pictures import read_picture
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader

MOMENTS = (5.0, 5.040, 5.123, 5.124, 6.9)  # seconds, as a camera gives them: not evenly


@pytest.fixture
def desk():
    return Desk(view=View(recording=True))


def take(output, desk, *pictures):
    for picture in pictures:
        output.show(picture, Facts(time=0.0, setting=desk.setting))


def record(path, desk, moments=MOMENTS, size=SIZE):
    recorder = Recorder(desk, str(path.parent), str(path))
    take(recorder, desk, *(shown(number, size, moment) for number, moment in enumerate(moments)))
    recorder.close()
    return recorder


def times(path):
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_have_the_times_at_which_they_were_captured(tmp_path, desk, suffix):
    path = tmp_path / f"out{suffix}"
    record(path, desk)
    assert times(path) == [Fraction(moment).limit_denominator(1000) - 5 for moment in MOMENTS]
    assert os.listdir(tmp_path) == [path.name]


def test_a_recording_has_the_pictures_and_says_their_colours(tmp_path, desk):
    path = tmp_path / "out.mp4"
    record(path, desk)
    info = probe(path)
    assert (info.width, info.height) == SIZE
    assert (info.color.matrix, info.color.range) == (1, 1)
    with VideoReader(path) as reader:
        frames = np.concatenate([batch.rgb for batch in reader])
    wanted = shown().rgb.astype(int)
    assert np.abs(frames.astype(int) - wanted).mean() < 3


def test_the_last_frame_lasts_as_long_as_the_one_before_it(tmp_path, desk):
    record(tmp_path / "out.mp4", desk, moments=(0.0, 0.1, 0.2, 0.3))
    assert probe(tmp_path / "out.mp4").duration == Fraction(4, 10)


def test_one_frame_is_a_recording(tmp_path, desk):
    record(tmp_path / "out.mp4", desk, moments=(3.0,))
    assert times(tmp_path / "out.mp4") == [0]


def test_a_frame_that_is_shown_again_is_recorded_once(tmp_path, desk):
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    one, two = shown(1, moment=1.0), shown(2, moment=1.5)
    take(recorder, desk, one, one, two, two, two)
    recorder.close()
    assert times(tmp_path / "out.mp4") == [0, Fraction(1, 2)]


def test_a_recording_appears_under_its_name_when_it_is_finished(tmp_path, desk):
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    take(recorder, desk, shown(0, moment=0.0), shown(1, moment=0.1))
    wait_for(lambda: list(tmp_path.iterdir()))
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished.mkv"]
    assert recorder.file == str(tmp_path / "out.mp4")
    recorder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert recorder.file == ""


def test_on_and_off_by_key_makes_files_named_by_time_and_never_replaces_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIME_IN_NAMES", "live")  # all in the same second
    (tmp_path / "live.mp4").write_text("somebody's")
    desk, number = Desk(), 0
    recorder = Recorder(desk, str(tmp_path))
    for _ in range(2):
        desk.press("r")
        take(recorder, desk, shown(number, moment=number), shown(number + 1, moment=number + 1))
        desk.press("r")
        take(recorder, desk, shown(number + 2, moment=number + 2))
        number += 3
    recorder.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live-2.mp4", "live-3.mp4", "live.mp4"]
    assert (tmp_path / "live.mp4").read_text() == "somebody's"
    assert times(tmp_path / "live-2.mp4") == times(tmp_path / "live-3.mp4") == [0, 1]


def test_only_the_first_recording_has_the_name_given(tmp_path, desk):
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    take(recorder, desk, shown(0))
    desk.press("r")
    take(recorder, desk, shown(1))
    desk.press("r")
    take(recorder, desk, shown(2))
    recorder.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert names[0].startswith("live-20")
    assert names[1] == "out.mp4"


def test_another_size_begins_another_file(tmp_path, desk):
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    take(recorder, desk, shown(0, (64, 36)), shown(1, (48, 36)))
    recorder.close()
    sizes = {(probe(path).width, probe(path).height) for path in tmp_path.iterdir()}
    assert sizes == {(64, 36), (48, 36)}


def test_a_slow_encoder_loses_frames_and_does_not_hold_up_the_session(tmp_path, desk, monkeypatch):
    go = threading.Event()
    encode = VideoOutput.write

    def slow(self, rgb, pts):
        go.wait()
        encode(self, rgb, pts)

    monkeypatch.setattr(VideoOutput, "write", slow)
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    for number in range(100):  # comes to its end although nothing is encoded
        take(recorder, desk, shown(number, moment=number / 25))
    lost = recorder.lost
    assert lost >= 100 - module.WAITING - 1
    go.set()
    recorder.close()
    kept = times(tmp_path / "out.mp4")
    assert len(kept) == 100 - lost
    assert set(kept) <= {Fraction(number, 25) for number in range(100)}  # those that are there have their own times


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path, desk, monkeypatch):
    encode, room = VideoOutput.write, iter(range(5))

    def write(self, rgb, pts):
        if next(room, None) is None:
            raise ResourceError("cannot write out.mp4: No space left on device; nothing was kept")
        encode(self, rgb, pts)

    monkeypatch.setattr(VideoOutput, "write", write)
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    number = iter(range(10_000))

    def told():
        moment = next(number)
        take(recorder, desk, shown(moment, moment=moment / 25))
        return recorder.message

    message = wait_for(told)
    assert "No space left" in message
    assert "nothing was kept" not in message
    assert not desk.setting.view.recording
    assert recorder.file == ""
    assert str(tmp_path / "out.mp4") in message  # what was recorded before is whole
    assert times(tmp_path / "out.mp4") == [Fraction(one, 25) for one in range(5)]
    recorder.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path, desk):
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "gone" / "out.mp4"))
    take(recorder, desk, shown(0))
    wait_for(lambda: take(recorder, desk, shown(1)) or recorder.message)
    assert "nothing was recorded" in recorder.message
    assert not desk.setting.view.recording


def test_a_fault_of_the_program_is_raised(tmp_path, desk, monkeypatch):
    def write(self, rgb, pts):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(VideoOutput, "write", write)
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    take(recorder, desk, shown(0))
    with pytest.raises(ZeroDivisionError, match="a fault"):
        recorder.close()


def test_a_recording_that_is_stopped_before_its_first_frame_leaves_nothing(tmp_path):
    recording = Recording(tmp_path / "out.mp4", SIZE)
    recording.close()
    assert "nothing was recorded" in recording.outcome
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_program_leaves_can_be_played(tmp_path):
    code = """
import sys, itertools
from pathlib import Path
from live_tools import shown
from nst_video.live.recorder import Recording
recording = Recording(Path(sys.argv[1]), (160, 90))
pictures = [shown(number).rgb for number in range(2)]
for number in itertools.count():
    while not recording._worker.offer((pictures[number % 2], number * 40)):
        assert not recording.failed
    if number % 100 == 0:
        print(number, flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out.mp4")], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 1000:
            pass
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished.mkv"]
    kept = times(tmp_path / "out.unfinished.mkv")
    assert len(kept) > 500
    assert kept == [Fraction(number, 25) for number in range(len(kept))]


@pytest.mark.parametrize(("name", "words"), [("out.gif", "use .mp4"), ("out", "use .mp4"), ("out.png", "use .mp4")])
def test_record_refuses_what_cannot_be_recorded(tmp_path, name, words):
    with pytest.raises(UsageError, match=words):
        check_recording(str(tmp_path / name))


def test_record_refuses_a_file_that_is_there(tmp_path):
    (tmp_path / "out.mp4").touch()
    with pytest.raises(UsageError, match="never replaces"):
        check_recording(str(tmp_path / "out.mp4"))


def test_folders_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ResourceError, match="does not exist"):
        check_recording(str(tmp_path / "none" / "out.mp4"))
    with pytest.raises(ResourceError, match="is not a folder"):
        check_folder(str(tmp_path / "none"))


def test_snapshots_are_the_picture_and_never_replace_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIME_IN_NAMES", "live")
    desk = Desk()
    snapshots = Snapshots(str(tmp_path))
    pictures = [shown(0), shown(1, size=(64, 36))]
    for picture in pictures:
        desk.press("s")
        take(snapshots, desk, picture, picture)
    snapshots.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live-2.png", "live.png"]
    assert np.array_equal(read_picture(tmp_path / "live.png"), pictures[0].rgb)
    assert np.array_equal(read_picture(tmp_path / "live-2.png"), pictures[1].rgb)


def link_refused(number):
    """os.link as it is where the disk answers with this error."""

    def link(source, target):
        raise OSError(number, os.strerror(number), str(target))

    return link


def test_a_disk_that_lets_nothing_go_takes_a_file_once(tmp_path, monkeypatch):
    """As a folder that may only be added to: links can be made there, and not removed."""

    def keep(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    part = tmp_path / ".part"
    part.write_bytes(b"picture")
    monkeypatch.setattr(Path, "unlink", keep)
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    assert settle_new(part, names) == names[0]
    assert names[0].read_bytes() == b"picture"
    assert not names[1].exists()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_disk_without_links_takes_a_file_under_the_next_free_name(tmp_path, monkeypatch, number):
    part = tmp_path / ".part"
    part.write_bytes(b"picture")
    (tmp_path / "a.png").write_bytes(b"mine")
    monkeypatch.setattr(os, "link", link_refused(number))
    assert settle_new(part, [tmp_path / "a.png", tmp_path / "b.png"]) == tmp_path / "b.png"
    assert (tmp_path / "a.png").read_bytes() == b"mine"
    assert (tmp_path / "b.png").read_bytes() == b"picture"
    assert not part.exists()


def test_a_full_disk_is_not_taken_for_one_without_links(tmp_path, monkeypatch):
    part = tmp_path / ".part"
    part.write_bytes(b"picture")
    monkeypatch.setattr(os, "link", link_refused(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left on device"):
        settle_new(part, [tmp_path / "a.png"])
    assert os.listdir(tmp_path) == [".part"]


def test_a_snapshot_that_cannot_be_written_is_told(tmp_path):
    desk = Desk()
    snapshots = Snapshots(str(tmp_path / "gone"))
    desk.press("s")
    take(snapshots, desk, shown(0))
    snapshots.close()
    assert "no snapshot" in snapshots.message
