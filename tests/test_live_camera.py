"""The camera of a live session: the newest frame, files that play like cameras, cameras that come and go."""

import logging
import threading
import time
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from live_tools import Plug, wait_for
from media import make_video, number_of

from nst_video.errors import InputError, ResourceError
from nst_video.live.camera import Camera, cannot_open, device_feed, file_feed, is_device, open_camera


def pulled(plug, **options):
    return Camera(device_feed("7", "camera 7", width=512, rate=24, open_capture=plug.open), "camera 7", **options)


def counting(stop):
    """A feed of a thousand frames a second, whose pixels are their numbers."""
    number = 0
    while not stop.wait(0.001):
        yield np.full((2, 2, 3), number % 256, np.uint8)
        number += 1


def test_the_newest_frame_is_there_and_stale_ones_are_counted():
    with Camera(counting, "a fast camera") as camera:
        first = camera.start()
        later = wait_for(lambda: camera.newest(after=first.number + 20, timeout=1))
        assert later.number > first.number + 20
        assert later.rgb[0, 0, 0] == later.number % 256  # dropped frames are counted
        assert later.time > first.time
        again = camera.newest(after=later.number, timeout=10)
        assert again.number > later.number


def test_nothing_new_is_none_after_the_time_given():
    def one(stop):
        yield np.zeros((2, 2, 3), np.uint8)
        stop.wait()

    with Camera(one, "a slow camera") as camera:
        first = camera.start()
        assert camera.newest(after=first.number, timeout=0.01) is None
        assert camera.rate == 0


def test_the_rate_is_measured():
    def ten(stop):
        while not stop.wait(0.1):
            yield np.zeros((2, 2, 3), np.uint8)

    with Camera(ten, "a camera") as camera:
        camera.start()
        assert wait_for(lambda: camera.rate) <= 10.5


def test_a_device_is_asked_for_compressed_pictures_of_the_next_usual_size():
    plug = Plug()
    with pulled(plug) as camera:
        assert camera.start().rgb.shape == (36, 64, 3)
        asked = plug.captures[0].asked
    assert asked[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert (asked[cv2.CAP_PROP_FRAME_WIDTH], asked[cv2.CAP_PROP_FRAME_HEIGHT]) == (640, 360)
    assert next(iter(asked)) == cv2.CAP_PROP_FOURCC  # the size is chosen among those of the format
    assert plug.captures[0].released


def test_frames_of_a_device_are_rgb():
    with pulled(Plug()) as camera:
        rgb = camera.start().rgb
    assert rgb[0, -1].tolist() == [255, 0, 0]


def test_an_unplugged_camera_is_told_and_comes_back(caplog):
    plug = Plug()
    with caplog.at_level(logging.INFO, "nst_video"), pulled(plug, retry_every=0.02) as camera:
        last = camera.start().number
        assert camera.message == ""
        plug.clear()
        assert "unplugged" in wait_for(lambda: camera.message)
        wait_for(lambda: len(plug.captures) > 3, "several attempts to open it")
        held = camera.newest(after=-1, timeout=0)
        assert held.number >= last
        plug.set()
        back = wait_for(lambda: camera.newest(after=held.number, timeout=1))
        assert back.number > held.number
        assert wait_for(lambda: camera.message == "")
        assert all(capture.released for capture in plug.captures[:-1])
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1  # told once, not with every attempt
    assert "camera 7 is back" in caplog.text


def test_a_camera_that_falls_silent_is_told(monkeypatch):
    monkeypatch.setattr("nst_video.live.camera.SILENT_AFTER", 0.05)

    def one(stop):
        yield np.zeros((2, 2, 3), np.uint8)
        stop.wait()

    with Camera(one, "camera 3") as camera:
        camera.start()
        assert wait_for(lambda: camera.message) == "camera 3 gives no picture; waiting for it"


def test_a_camera_without_pictures_is_refused_at_the_start():
    plug = Plug()

    def silent(camera):
        capture = plug.open(camera)
        plug.clear()
        return capture

    feed = device_feed("7", "camera 7", width=512, rate=24, open_capture=silent)
    with Camera(feed, "camera 7") as camera, pytest.raises(ResourceError, match=r"camera 7 gives no picture; close"):
        camera.start()


def test_a_camera_that_is_not_there_is_refused_at_the_start(monkeypatch):
    monkeypatch.setattr("nst_video.live.camera.cannot_open", lambda camera, name: InputError(f"{name} is not there"))
    plug = Plug()
    plug.clear()
    with pulled(plug) as camera, pytest.raises(InputError, match="camera 7 is not there"):
        camera.start()


def test_a_driver_that_never_answers_neither_hangs_the_start_nor_the_end(monkeypatch):
    monkeypatch.setattr("nst_video.live.camera.GIVEN_UP_AFTER", 0.05)
    answer = threading.Event()

    def blocked(stop):
        answer.wait()
        yield np.zeros((2, 2, 3), np.uint8)

    with Camera(blocked, "camera 0") as camera, pytest.raises(ResourceError, match=r"no picture within .*plug it in"):
        camera.start(within=0.1)
    answer.set()


def test_a_fault_of_the_feed_is_raised_where_frames_are_waited_for():
    def faulty(stop):
        yield np.zeros((2, 2, 3), np.uint8)
        raise ZeroDivisionError("a fault")

    with Camera(faulty, "camera 0") as camera:
        camera.start()

        def raised():
            try:
                return camera.check()
            except ZeroDivisionError as error:
                return str(error)

        assert wait_for(raised) == "a fault"


def test_what_is_a_device():
    assert [is_device(name) for name in ("0", "12", "/dev/video2", "clip.mp4", "frames/%05d.png")] == [
        *(True, True, True),
        *(False, False),
    ]


@pytest.mark.parametrize(
    ("camera", "there", "kind", "words"),
    [
        ("0", [], InputError, "this machine has none"),
        ("1", ["video0"], InputError, "there are .*video0"),
        ("0", ["video0"], ResourceError, "another program uses it"),
    ],
)
def test_why_a_camera_cannot_be_opened(tmp_path, monkeypatch, camera, there, kind, words):
    monkeypatch.setattr("nst_video.live.camera._has_v4l", lambda: True)
    for name in there:
        (tmp_path / name).touch()
    error = cannot_open(camera, f"camera {camera}", tmp_path)
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


def test_on_other_systems_all_reasons_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("nst_video.live.camera._has_v4l", lambda: False)
    error = cannot_open("0", "camera 0", tmp_path)
    assert isinstance(error, ResourceError)
    assert "privacy settings" in str(error)


def numbers_of(feed, count, stop=None):
    """(number, arrival) of the first frames of a feed."""
    stop = stop or threading.Event()
    found = []
    frames = feed(stop)
    for rgb in frames:
        found.append((number_of(rgb), time.monotonic()))
        if len(found) == count:
            break
    frames.close()
    return found


@pytest.fixture
def clip(tmp_path):
    """Five frames, the third of them twice as long."""
    path = tmp_path / "clip.mp4"
    return make_video(path, frames=5, pts=[0, 1, 2, 4, 5], time_base=Fraction(1, 25))


def test_a_file_plays_at_its_times_and_over_and_over(clip):
    found = numbers_of(file_feed(str(clip)), 12)
    assert [number for number, _ in found] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    # Never early; how late they are is the machine's.
    assert found[10][1] - found[0][1] >= 12 / 25 - 0.01
    assert all(after - before >= 0 for (_, before), (_, after) in pairwise(found))


def test_the_last_frame_of_a_file_is_there_as_long_as_it_lasts(tmp_path):
    """Here for 0.4 s, of frames that last 0.25 in the mean."""
    path = make_video(tmp_path / "slow.mp4", pts=[0, 1280], rate=Fraction(5, 2), options={"bf": "0"})
    found = numbers_of(file_feed(str(path)), 3)
    assert [number for number, _ in found] == [0, 1, 0]
    assert found[2][1] - found[0][1] >= 0.5 - 0.01


def test_a_file_stops_at_once(clip):
    stop = threading.Event()
    feed = file_feed(str(clip))(stop)
    next(feed)
    stop.set()
    assert list(feed) == []


def test_a_large_file_gives_pictures_as_large_as_a_cameras(tmp_path):
    path = tmp_path / "wide.mp4"
    make_video(path, frames=1, size=(1600, 90))
    with open_camera(str(path), 512, 24) as camera:
        assert camera.start().rgb.shape == (72, 1280, 3)


def test_a_file_that_is_no_video_is_refused(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video" * 100)
    with open_camera(str(path), 512, 24) as camera, pytest.raises(InputError, match=r"clip\.mp4"):
        camera.start()


def test_a_file_is_looked_at_in_a_process_of_its_own_and_once(clip):
    looked = []
    numbers_of(file_feed(str(clip), check=looked.append), 12)
    assert looked == [str(clip)]


def test_a_file_that_vanishes_is_waited_for(clip):
    kept = clip.read_bytes()
    with Camera(file_feed(str(clip)), "clip.mp4", retry_every=0.02) as camera:
        camera.start()
        clip.unlink()
        assert "does not exist" in wait_for(lambda: camera.message)
        clip.write_bytes(kept)
        assert wait_for(lambda: camera.message == "")
