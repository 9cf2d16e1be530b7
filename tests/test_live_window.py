"""The window, in a real display: `nst-video live` as a process, keys by xdotool, screenshots, signals."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from live_tools import TwistPainter, captured, virtual_display, wait_for
from PIL import ImageGrab

from nst_video.errors import ResourceError
from nst_video.live import window
from nst_video.live.desk import KEYS, Look
from nst_video.live.window import display_checked, typed
from nst_video.media.pictures import read_picture, write_picture

PROGRAM = Path(__file__).with_name("live_program.py")
KEYSYMS = {"+": "plus", "-": "minus", "[": "bracketleft", "]": "bracketright", "escape": "Escape"}
NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "QT_QPA_PLATFORM": ""}


@pytest.fixture(scope="module")
def display():
    with virtual_display("-noreset") as name:  # xdotool comes and goes
        yield name


def environment(**more):
    given = {name: value for name, value in (os.environ | more).items() if value}
    return {name: value for name, value in given.items() if name not in NO_DISPLAY or name in more}


def command(*words):
    return [sys.executable, str(PROGRAM), "live", *map(str, words)]


class Program:
    """A running `nst-video live` with a window in `display`."""

    def __init__(self, display, log, words, **more):
        self.display, self.log = display, log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                command(*words), env=environment(DISPLAY=display, **more), stdout=subprocess.DEVNULL, stderr=errors
            )

    def xdotool(self, *words):
        done = subprocess.run(
            ["xdotool", *words], env=environment(DISPLAY=self.display), capture_output=True, text=True, check=False
        )
        return done.stdout.split()

    def window(self):
        """The window's number, once it is there."""

        def found():
            assert self.process.poll() is None, self.log.read_text()
            return self.xdotool("search", "--name", "^nst-video$")

        return wait_for(found, "the window")[0]

    def press(self, key):
        self.xdotool("key", "--window", self.window(), KEYSYMS.get(key, key))

    def screen(self):
        """uint8 (h, w, 3): what the window shows."""
        number = self.window()
        geometry = dict(line.split("=") for line in self.xdotool("getwindowgeometry", "--shell", number) if "=" in line)
        x, y, width, height = (int(geometry[name]) for name in ("X", "Y", "WIDTH", "HEIGHT"))
        whole = np.asarray(ImageGrab.grab(xdisplay=self.display).convert("RGB"))
        return whole[y : y + height, x : x + width]

    def shows(self, picture):
        """Whether the window shows this picture, but for as little as the mark of a recording covers."""
        screen = self.screen()
        return screen.shape == picture.shape and (np.abs(screen.astype(int) - picture).max(axis=2) > 2).mean() < 0.05

    def wait_until_drawn(self, picture):
        """Wait until the window shows this picture.

        On a loaded machine without a window manager OpenCV's Qt now and then misses that its window came up, and draws
        nothing into it (so does a program of OpenCV alone; its keys are heard). Taking it away and back tells it again.
        """
        shown = []

        def drawn():
            if self.shows(picture):
                return True
            shown.append(self.screen().any())
            if len(shown) % 50 == 0 and not any(shown[-50:]):
                self.xdotool("windowunmap", self.window())
                self.xdotool("windowmap", self.window())
            return False

        wait_for(drawn, "the painted picture")

    def ends(self):
        """The exit code."""
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def still(tmp_path):
    """A picture that stands for the camera, and its pixels; the window has its size."""
    rgb = captured(size=(320, 180)).rgb
    path = tmp_path / "camera.png"
    write_picture(path, rgb)
    return path, rgb


@pytest.fixture
def live(display, tmp_path, style, still):
    """A function that starts a session and waits until its window shows the painted picture."""
    programs = []

    def start(*words, **more):
        program = Program(
            display,
            tmp_path / "log.txt",
            [style, "--camera", still[0], "--size", 320, "--folder", tmp_path, *words],
            **more,
        )
        programs.append(program)
        program.wait_until_drawn(still[1][..., ::-1])
        return program

    yield start
    for program in programs:
        program.kill()


def test_the_window_shows_what_was_painted_and_q_quits(live, still):
    program = live()
    assert np.array_equal(
        still[1][..., ::-1], TwistPainter().paint(captured(size=(320, 180)), Look(mirror=False), (), (320, 180)).rgb
    )
    program.press("q")
    assert program.ends() == 0
    assert re.search(r"\d+ frames? in ", program.log.read_text())


def test_keys_do_what_they_say(live, still, tmp_path):
    program = live()
    rgb = still[1]
    painted = rgb[..., ::-1]
    program.press("m")
    wait_for(lambda: program.shows(painted[:, ::-1]), "the mirrored picture")
    program.press("m")
    program.press("o")
    wait_for(lambda: program.shows(np.hstack((rgb, painted))), "the original beside")
    program.press("o")
    wait_for(lambda: program.shows(rgb // 2 + painted // 2), "the original over")
    program.press("o")
    wait_for(lambda: program.shows(painted), "the painted picture alone")
    program.press("i")
    wait_for(lambda: not program.shows(painted), "information")
    program.press("i")
    wait_for(lambda: program.shows(painted), "no information")
    program.press("s")
    snapshot = wait_for(lambda: list(tmp_path.glob("live-*.png")), "a snapshot")[0]
    assert np.array_equal(read_picture(snapshot), painted)
    program.press("escape")
    assert program.ends() == 0


def test_a_recording_by_key_can_be_read_and_lasts_as_long_as_it_did(live, tmp_path):
    program = live()
    program.press("r")
    part = wait_for(lambda: list(tmp_path.glob("live-*.unfinished.mkv")), "the recording")[0]
    begun = wait_for(lambda: part.stat().st_size > 0 and part.stat().st_mtime)
    wait_for(lambda: part.stat().st_mtime - begun > 1, "a second of recording")
    program.press("r")
    file = wait_for(lambda: list(tmp_path.glob("live-*.mp4")), "the finished recording")[0]
    ended = file.stat().st_mtime
    with av.open(str(file)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert times[0] == 0
    assert 0.9 < times[-1] < ended - begun + 5
    assert all(before < after for before, after in pairwise(times))
    assert not list(tmp_path.glob("*.mkv"))
    program.press("q")
    assert program.ends() == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_close_everything_in_order(live, tmp_path, name):
    program = live("--record", tmp_path / "out.mp4")
    program.process.send_signal(getattr(signal, name))
    assert program.ends() == 128 + getattr(signal, name)
    assert "ending in good order" in program.log.read_text()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).pts == 0
    assert not list(tmp_path.glob("*.mkv"))


def test_a_frozen_picture_stays(live, still, tmp_path):
    program = live()
    program.press("space")
    program.press("i")  # shown although the picture is frozen
    wait_for(lambda: not program.shows(still[1][..., ::-1]), "information")
    write_picture(still[0], 255 - still[1])  # the next round of the "camera"
    program.press("i")
    wait_for(lambda: program.shows(still[1][..., ::-1]), "the frozen picture")
    program.press("space")
    wait_for(lambda: program.shows((255 - still[1])[..., ::-1]), "the new picture")
    program.press("q")
    assert program.ends() == 0


def test_keys_are_heard_while_a_picture_takes_long(live):
    program = live(SECONDS_A_FRAME="2")
    program.press("h")
    program.press("q")
    assert program.ends() == 0


def close_by_mouse(display, number):
    """Tell the window what a window manager tells it when its cross is clicked (ICCCM WM_DELETE_WINDOW)."""

    class Message(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("room", ctypes.c_long * 24),
        ]

    x11 = ctypes.CDLL("libX11.so.6")  # xdotool needs it, so it is there
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols, delete = (x11.XInternAtom(connection, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    message = Message(type=33, window=number, message_type=protocols, format=32)
    message.data[0] = delete
    x11.XSendEvent(connection, ctypes.c_ulong(number), 0, ctypes.c_long(0), ctypes.byref(message))
    x11.XFlush(connection)
    x11.XCloseDisplay(connection)


def test_closing_the_window_quits(live, display, tmp_path):
    program = live("--record", tmp_path / "out.mp4")
    close_by_mouse(display, int(program.window()))
    assert program.ends() == 0
    assert (tmp_path / "out.mp4").exists()


def test_a_display_that_starts_anew_when_nobody_is_connected_is_held(style, still, tmp_path):
    with virtual_display() as name:
        program = Program(name, tmp_path / "log.txt", [style, "--camera", still[0], "--record", tmp_path / "out.mp4"])
        wait_for(lambda: program.process.poll() is not None or (tmp_path / "out.unfinished.mkv").exists())
        program.process.send_signal(signal.SIGINT)
        assert program.ends() == 130, program.log.read_text()
    assert (tmp_path / "out.mp4").exists()


def test_a_camera_that_is_not_there_is_one_line(display, style, tmp_path):
    program = Program(display, tmp_path / "log.txt", [style, "--camera", "97"])
    assert program.ends() in (3, 4)
    (line,) = program.log.read_text().splitlines()
    assert line.startswith("nst-video: error: camera 97")


# ---------------------------------------------------------------------------------------------- no window


def refused(style, **more):
    done = subprocess.run(
        command(style, "--camera", "0"), env=environment(**more), capture_output=True, text=True, check=False
    )
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_without_a_display_there_is_one_line_and_no_abort(style):
    code, line = refused(style)
    assert code == 4
    assert "there is no display" in line
    assert "--serve 8080" in line


def test_a_display_that_does_not_answer_is_one_line_and_no_abort(style):
    code, line = refused(style, DISPLAY=":987")
    assert code == 4
    assert "the display cannot be used" in line
    assert "--serve 8080" in line


def test_wayland_alone_needs_xwayland(style):
    if cv2.currentUIFramework() != "QT":
        pytest.skip("this OpenCV does not use Qt")
    code, line = refused(style, WAYLAND_DISPLAY="wayland-97")
    assert code == 4
    assert "XWayland" in line


def test_an_opencv_without_windows_is_told(monkeypatch):
    with pytest.raises(ResourceError, match=r"built without windows: pip install .*opencv-python; or --serve"):
        display_checked(framework=lambda: "").__enter__()
    monkeypatch.setattr(window, "_is_installed", lambda name: name == "opencv-python-headless")
    with pytest.raises(ResourceError, match=r"pip uninstall opencv-python-headless, then pip install .*opencv-python"):
        display_checked(framework=lambda: "").__enter__()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_need_no_display_variable(platform):
    with display_checked(platform, {}, lambda: "COCOA", lambda: nullcontext("must not be tried")):
        pass


def test_a_display_is_tried_before_it_is_used_and_held_until_it_is():
    held = []

    @contextmanager
    def trial():
        held.append(True)
        yield ""
        held.clear()

    with display_checked("linux", {"DISPLAY": ":0"}, lambda: "QT", trial, ()):
        assert held
    assert not held
    with (
        pytest.raises(ResourceError, match="no xcb"),
        display_checked("linux", {"DISPLAY": ":0"}, lambda: "QT", lambda: nullcontext("no xcb"), ()),
    ):
        pass


def test_codes_of_keys():
    for key in KEYS:
        character = {"space": " ", "escape": "\x1b"}.get(key, key)
        assert typed(ord(character)) == character
        assert typed(0x100000 | ord(character)) == character  # as GTK tells it with num lock on
    assert [typed(code) for code in (-1, 0, 65361, 65470, 0x250000)] == [
        ""
    ] * 5  # none, arrow, function key, Windows' arrow


def test_a_window_that_would_hang_is_refused(display):
    with pytest.raises(ResourceError, match="import cv2 before anything else"):
        display_checked("linux", {"DISPLAY": display}, lambda: "QT", modules=["av", "cv2"]).__enter__()
    with display_checked("linux", {"DISPLAY": display}, lambda: "QT", lambda: nullcontext(""), ["cv2", "av"]):
        pass


def test_the_program_paints_in_a_window_with_its_own_engine(display, tmp_path):
    """Nothing stands in for anything: camera file, engine, window, keys, recording."""
    samples = Path(__file__).parent.parent / "samples"
    words = [samples / "oil.jpg", "--camera", samples / "bunny.mp4", "--size", 128, "--folder", tmp_path, "--json"]
    errors = tmp_path / "errors"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nst_video", "live", *map(str, words)],
            env=environment(DISPLAY=display),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    xdotool = ["xdotool", "search", "--name", "^nst-video$"]

    def window_number():
        assert process.poll() is None, errors.read_text()
        return subprocess.run(xdotool, env=environment(DISPLAY=display), capture_output=True, check=False).stdout

    def press(key):
        words = [*xdotool, "key", key]
        subprocess.run(words, env=environment(DISPLAY=display), capture_output=True, check=False)

    try:
        wait_for(window_number, "the window")
        press("s")
        wait_for(lambda: list(tmp_path.glob("*.png")), "the snapshot")
        press("q")
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors.read_text()
    facts = json.loads(out)
    assert facts["frames"] > 0
    assert facts["latency_median"] > 0
