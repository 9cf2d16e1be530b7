"""The session: the newest picture to every output, in order, while keys are heard; and its end."""

import logging
import threading
import time
from contextlib import closing
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from live_tools import Plug, TwistPainter, captured, running, shown, wait_for
from media import make_video

from nst_video.errors import ResourceError, UsageError
from nst_video.live.camera import Camera, device_feed
from nst_video.live.desk import Desk, Look, View
from nst_video.live.options import LiveOptions
from nst_video.live.recorder import Recorder
from nst_video.live.session import Meter, Pace, Painting, Session, closing_all
from nst_video.live.start import run_live
from nst_video.options import MachineOptions

SIZE = (64, 36)


class Watcher:
    """An output that remembers what it was shown."""

    message = ""

    def __init__(self):
        self.seen, self.closed = [], 0

    def show(self, shown, facts):
        self.seen.append((shown, facts))

    def close(self):
        self.closed += 1

    @property
    def numbers(self):
        return [shown.number for shown, _ in self.seen]


class Keys:
    """Stands for the window: counts how often it was asked for keys."""

    def __init__(self):
        self.polls = 0

    def poll(self):
        self.polls += 1


@pytest.fixture
def plug():
    return Plug()


@pytest.fixture
def camera(plug):
    with Camera(
        device_feed("0", "camera 0", width=64, rate=24, open_capture=plug.open), "camera 0", retry_every=0.02
    ) as one:
        one.start()
        yield one


def session(camera, painter, desk, *outputs, rate=100, **more):
    return Session(camera, painter, desk, lambda: (), outputs, size=SIZE, rate=rate, **more)


def test_pictures_come_in_order_each_new_one_once(camera):
    watcher, desk = Watcher(), Desk()
    with running(session(camera, TwistPainter(), desk, watcher).run, desk):
        wait_for(lambda: len(watcher.seen) > 20)
    new = [number for number, before in zip(watcher.numbers[1:], watcher.numbers, strict=False) if number != before]
    assert new == sorted(set(new))
    times = [facts.time for _, facts in watcher.seen]
    assert times == sorted(times)


def test_a_slow_painter_gets_the_newest_frame_and_the_others_are_counted(camera):
    watcher, desk, painter = Watcher(), Desk(), TwistPainter(seconds=0.1)
    one = session(camera, painter, desk, watcher)
    with running(one.run, desk):
        wait_for(lambda: len(set(watcher.numbers)) > 5)
    how = one.meter.statistics(camera.rate)
    assert how.dropped == watcher.numbers[-1] - watcher.numbers[0] + 1 - how.frames
    assert how.dropped > 0  # a hundred frames come in a second, ten are painted at most
    # What is painted was captured after the picture before was finished, or waited for: never a frame of a backlog.
    unique = {shown.number: shown for shown, _ in watcher.seen}
    pictures = list(unique.values())
    assert all(later.captured > earlier.captured + 0.09 for earlier, later in pairwise(pictures))


def test_keys_are_heard_while_a_picture_is_being_painted(camera):
    keys, desk, painting, asked = Keys(), Desk(), threading.Event(), threading.Event()

    class Stuck(TwistPainter):
        def paint(self, frame, look, styles, size):
            painting.set()
            assert asked.wait(60)  # would never come if the main thread waited for the painter
            return super().paint(frame, look, styles, size)

    with running(session(camera, Stuck(), desk, Watcher(), window=keys).run, desk):
        assert painting.wait(60)
        before = keys.polls
        wait_for(lambda: keys.polls > before + 20)
        asked.set()


def test_a_key_is_shown_without_a_new_picture(camera, plug):
    watcher, desk = Watcher(), Desk()
    with running(session(camera, TwistPainter(), desk, watcher).run, desk):
        wait_for(lambda: watcher.seen)
        plug.clear()
        wait_for(lambda: watcher.seen[-1][1].message)
        desk.press("i")
        assert wait_for(lambda: watcher.seen[-1][1].setting.view.information)


def test_the_look_reaches_the_painter(camera):
    desk, painter = Desk(), TwistPainter()
    with running(session(camera, painter, desk).run, desk):
        wait_for(lambda: painter.looks)
        desk.press("c")
        desk.press("+")
        assert wait_for(lambda: painter.looks[-1] == Look(keep_colors=True, strength=1.25))


def test_freezing_holds_the_picture_and_keys_still_work(camera):
    watcher, desk = Watcher(), Desk()
    one = session(camera, TwistPainter(), desk, watcher)
    with running(one.run, desk):
        wait_for(lambda: len(watcher.seen) > 3)
        desk.press("space")
        wait_for(lambda: watcher.seen[-1][1].setting.view.frozen)
        held, dropped = watcher.seen[-1][0], one.meter.dropped
        ahead = camera.newest(after=held.number + 30, timeout=60)
        assert ahead is not None
        desk.press("i")
        assert wait_for(lambda: watcher.seen[-1][1].setting.view.information)
        assert watcher.seen[-1][0] is held
        desk.press("space")
        wait_for(lambda: watcher.seen[-1][0].number > ahead.number)
        assert one.meter.dropped < dropped + 30  # what nobody wanted to see was not dropped


def test_an_unplugged_camera_is_told_and_the_recording_goes_on_when_it_is_back(camera, plug, tmp_path):
    desk = Desk(view=View(recording=True))
    recorder, watcher = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4")), Watcher()
    one = session(camera, TwistPainter(), desk, recorder, watcher, recorder=recorder)
    with closing(recorder):
        with running(one.run, desk):
            wait_for(lambda: len(watcher.seen) > 3)
            assert watcher.seen[-1][1].recording == str(tmp_path / "out.mp4")
            plug.clear()
            wait_for(lambda: "unplugged" in watcher.seen[-1][1].message)
            last = watcher.seen[-1][0].number
            time.sleep(0.3)  # the gap that the recording must have
            plug.set()
            wait_for(lambda: watcher.seen[-1][0].number > last + 3 and not watcher.seen[-1][1].message)
        lost = recorder.lost  # of what is being recorded
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert max(np.diff([float(one) for one in times])) > 0.29
    assert len(times) == len(set(watcher.numbers)) - lost


def test_an_error_of_the_painter_ends_the_session_and_the_recording_is_finished(camera, tmp_path):
    class Faulty(TwistPainter):
        def paint(self, frame, look, styles, size):
            if len(self.painted) == 5:
                raise ResourceError("no memory")
            return super().paint(frame, look, styles, size)

    desk = Desk(view=View(recording=True))
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    with pytest.raises(ResourceError, match="no memory"), closing_all([recorder]):
        session(camera, Faulty(), desk, recorder).run()
    assert (tmp_path / "out.mp4").exists()


def test_a_fault_of_the_camera_thread_is_raised():
    def faulty(stop):
        yield captured().rgb
        raise ZeroDivisionError("a fault")

    with Camera(faulty, "camera 0") as camera:
        camera.start()
        with pytest.raises(ZeroDivisionError, match="a fault"):
            session(camera, TwistPainter(), Desk()).run()


def test_all_outputs_are_closed_last_one_first_also_where_one_fails(caplog):
    closed = []

    class Closing(Watcher):
        def __init__(self, name, error=None):
            super().__init__()
            self.name, self.error = name, error

        def close(self):
            closed.append(self.name)
            if self.error:
                raise self.error

    outputs = [Closing("a"), Closing("b", ResourceError("b fails")), Closing("c")]
    with pytest.raises(ResourceError, match="b fails"), closing_all(outputs):
        pass
    assert closed == ["c", "b", "a"]
    with pytest.raises(ZeroDivisionError), closing_all(outputs):  # the first error is the one to know
        _ = 1 / 0


def test_the_painter_is_not_called_more_often_than_asked(camera):
    desk, painter = Desk(), TwistPainter()
    painting = Painting(camera, painter, desk, lambda: (), size=SIZE, rate=20)
    begun = time.monotonic()
    wait_for(lambda: len(painter.painted) >= 10)
    seconds = time.monotonic() - begun
    painting.close()
    assert seconds >= 9 / 20 - 0.01


def test_a_late_turn_does_not_make_the_next_ones_hurry():
    pace, never = Pace(rate=20), threading.Event()
    pace.wait(never)
    time.sleep(0.3)
    begun = time.monotonic()
    for _ in range(4):
        pace.wait(never)
    assert time.monotonic() - begun >= 2 / 20 - 0.01


def test_figures_of_a_session():
    meter = Meter()
    for number, (captured_at, shown_at) in enumerate([(10.0, 10.1), (10.5, 10.6), (11.5, 11.9)]):
        meter.add(shown((0, 1, 4)[number], moment=captured_at), shown_at)
    how = meter.statistics(camera_rate=30.0)
    assert (how.frames, how.dropped) == (3, 2)
    assert how.seconds == pytest.approx(1.8)
    assert how.rate == pytest.approx(2 / 1.8)
    assert how.latency_median == pytest.approx(0.1)
    assert 0.1 < how.latency_99 <= 0.4
    assert how.to_json()["camera_rate"] == 30.0
    _, latency = meter.recent(11.9)
    assert latency == pytest.approx(0.4)
    assert meter.recent(20.0) == (0.0, 0.0)


def test_a_session_without_a_picture_has_figures_too():
    assert Meter().statistics(0.0).frames == 0


# ---------------------------------------------------------------------------------------------- put together


def live(style, clip, painter, stop=lambda: False, outputs=(), **options):
    return run_live(
        [str(style)] if style else [],
        LiveOptions(camera=str(clip), **{"window": "off", "size": 64} | options),
        MachineOptions(),
        make_painter=lambda options, machine: painter,
        outputs=outputs,
        stop=stop,
    )


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "clip.mp4", frames=5, size=(48, 36))


def test_a_session_from_a_file_to_a_recording(style, clip, tmp_path, caplog):
    painter, watcher = TwistPainter(), Watcher()
    with caplog.at_level(logging.INFO, "nst_video"):
        how = live(
            style,
            clip,
            painter,
            stop=lambda: len(watcher.seen) > 20,
            outputs=[watcher],
            record=str(tmp_path / "out.mp4"),
            strength=2.0,
            dream=True,
        )
    assert how.frames == len(set(watcher.numbers))
    assert painter.closed
    assert watcher.closed == 1
    assert painter.looks[0] == Look(strength=2.0, dream=True, mirror=False)  # a file is not a mirror
    assert watcher.seen[0][0].rgb.shape == (48, 64, 3)
    assert watcher.seen[0][1].styles == ("style",)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) == len(set(watcher.numbers))
    assert "48 x 36, shown at 64 x 48; Ctrl-C ends it" in caplog.text  # without a window there are no keys


def test_what_was_opened_is_closed_where_the_session_cannot_begin(style, clip):
    watcher = Watcher()

    def no_painter(options, machine):
        raise ResourceError("no network")

    before = threading.active_count()
    with pytest.raises(ResourceError, match="no network"):
        run_live(
            [str(style)],
            LiveOptions(camera=str(clip), window="off"),
            MachineOptions(),
            make_painter=no_painter,
            outputs=[watcher],
        )
    wait_for(lambda: threading.active_count() <= before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": "off"}, "leaves nothing to show"),
        ({"host": "0.0.0.0", "record": "o.mp4"}, "--host means nothing without the web page; give --serve PORT"),
        ({"token": "secret", "record": "o.mp4"}, "--token means nothing without the web page; give --serve PORT"),
        ({"full_screen": True, "record": "o.mp4"}, "--full-screen means nothing without a window"),
        ({"full_screen": True, "window": "auto", "serve": 0}, "--full-screen means nothing without a window"),
        ({"record": "out.gif"}, "cannot record"),
        ({"mirror": "sometimes"}, "--mirror sometimes is not allowed"),
        ({"fps": 0}, "--fps 0 is out of range"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_opened(style, options, words):
    with pytest.raises(UsageError, match=words):
        live(style, "no such clip.mp4", TwistPainter(), **options)


def test_a_style_is_needed_unless_it_dreams(clip):
    with pytest.raises(UsageError, match="needs a style picture"):
        live(None, clip, TwistPainter())
    painter, watcher = TwistPainter(), Watcher()
    live(None, clip, painter, stop=lambda: watcher.seen, outputs=[watcher], dream=True)
    assert watcher.seen[0][1].styles == ()


# ---------------------------------------------------------------------------------------------- virtual camera


class Device:
    """Stands for pyvirtualcam's camera."""

    device = "/dev/video9"

    def __init__(self, size, rate, error=None):
        self.size, self.rate, self.error, self.frames, self.closed = size, rate, error, [], False

    def send(self, rgb):
        if self.error:
            raise self.error
        self.frames.append(rgb)

    def close(self):
        self.closed = True


def test_the_virtual_camera_gets_new_pictures():
    from nst_video.live.outputs import Facts
    from nst_video.live.virtual import VirtualCamera

    made = []
    output = VirtualCamera(SIZE, 24, make=lambda size, rate: made.append(Device(size, rate)) or made[0])
    pictures = [shown(0, SIZE), shown(1, SIZE), shown(2, (32, 18))]
    for number, picture in enumerate(pictures):
        output.show(picture, Facts(0.0))
        output.show(picture, Facts(0.0))
        wait_for(lambda number=number: len(made[0].frames) > number)
    output.close()
    assert [frame.shape for frame in made[0].frames] == [(36, 64, 3)] * 3
    assert np.array_equal(made[0].frames[1], pictures[1].rgb)
    assert made[0].closed


def test_a_virtual_camera_that_fails_is_told():
    from nst_video.live.outputs import Facts
    from nst_video.live.virtual import VirtualCamera

    output = VirtualCamera(SIZE, 24, make=lambda size, rate: Device(size, rate, OSError("gone")))

    def told():
        for number in range(1000):
            try:
                output.show(shown(number, SIZE), Facts(0.0))
            except ResourceError as error:
                return str(error)
        return ""

    assert "/dev/video9 failed: gone" in wait_for(told)
    output.close()


def test_a_virtual_camera_without_its_extra_or_driver_says_what_to_install(monkeypatch):
    import sys
    from types import SimpleNamespace

    from nst_video.live.virtual import make_device

    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ResourceError, match=r'pip install "\.\[virtualcam\]"'):
        make_device(SIZE, 24)

    def no_driver(*given, **more):
        raise RuntimeError("v4l2loopback not loaded")

    fake = SimpleNamespace(Camera=no_driver, PixelFormat=SimpleNamespace(RGB="RGB"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", fake)
    with pytest.raises(ResourceError, match="modprobe v4l2loopback"):
        make_device(SIZE, 24)


def test_recorded_times_are_those_of_capture(camera, tmp_path):
    desk, watcher = Desk(view=View(recording=True)), Watcher()
    recorder = Recorder(desk, str(tmp_path), str(tmp_path / "out.mp4"))
    with closing(recorder):
        session(camera, TwistPainter(), desk, recorder, watcher, recorder=recorder).run(lambda: len(watcher.seen) > 20)
        lost = recorder.lost  # of what is being recorded
    unique = {picture.number: picture.captured for picture, _ in watcher.seen}
    first = min(unique.values())
    wanted = [round((moment - first) * 1000) for moment in unique.values()]
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = [frame.pts * frame.time_base / Fraction(1, 1000) for frame in container.decode(video=0)]
    assert len(found) == len(wanted) - lost
    left = iter(wanted)
    assert all(moment in left for moment in found)  # in the same order
