"""What the tests of live sessions share: a display, a painter that is quick, a camera that can be pulled out."""

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from nst_video.live.frames import Captured, Shown

PATIENCE = 60  # seconds that a condition is waited for on a busy machine
SIZE = (160, 90)


def wait_for(condition, what="", within=PATIENCE):
    """The first true value of `condition`; fails where there is none in time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail(f"waited {within} s for {what or condition}")


class TwistPainter:
    """Paints by swapping red and blue, so that what is on a screen can be told from the camera's picture."""

    def __init__(self, seconds=0.0):
        self.seconds, self.painted, self.looks, self.closed = seconds, [], [], False

    def paint(self, frame, look, styles, size):
        time.sleep(self.seconds)
        self.painted.append(frame.number)
        self.looks.append(look)
        before = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
        before = before[:, ::-1].copy() if look.mirror else before
        return Shown(
            rgb=np.ascontiguousarray(before[..., ::-1]),
            before=before,
            number=frame.number,
            captured=frame.time,
            finished=time.monotonic(),
            size=size,
            evaluations=3,
            style=styles[look.style].name if styles else "",
            device="cpu",
        )

    def close(self):
        self.closed = True


class FakeCapture:
    """Stands for cv2.VideoCapture: a camera that others can pull out, and put in again."""

    def __init__(self, plug, size=(64, 36), rate=100):
        self.plug, self.size, self.rate, self.asked, self.released = plug, size, rate, {}, False
        self.opened = plug.is_set()

    def isOpened(self):
        return self.opened

    def set(self, what, value):
        self.asked[what] = value
        return True

    def read(self):
        time.sleep(1 / self.rate)
        if not self.plug.is_set():
            return False, None
        width, height = self.size
        bgr = np.zeros((height, width, 3), np.uint8)
        bgr[..., 2] = np.linspace(0, 255, width).astype(np.uint8)  # red grows to the right
        return True, bgr

    def release(self):
        self.released = True


class Plug(threading.Event):
    """Whether the camera is plugged in; `captures` are those that were opened."""

    def __init__(self):
        super().__init__()
        self.set()
        self.captures = []

    def open(self, camera):
        self.captures.append(FakeCapture(self))
        return self.captures[-1]


def captured(number=0, size=SIZE, moment=None):
    width, height = size
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width).astype(np.uint8)
    rgb[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Captured(rgb, number, time.monotonic() if moment is None else moment)


def shown(number=0, size=SIZE, moment=None, painter=None, look=None):
    from nst_video.live.desk import Look

    return (painter or TwistPainter()).paint(captured(number, size, moment), look or Look(mirror=False), (), size)


@contextmanager
def running(work, desk):
    """`work` in a thread until it is told to quit at the end; what it raises is raised here."""
    errors = []

    def call():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield thread
    finally:
        desk.press("q")
        thread.join(PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@contextmanager
def virtual_display(*options):
    """The name of a fresh X display, where Xvfb is installed."""
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        missing = "Xvfb and xdotool are not installed"
        pytest.fail(missing) if os.environ.get("NST_VIDEO_REQUIRE_DISPLAY") else pytest.skip(missing)
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp", *options]
    server = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as answer:
            yield f":{answer.readline().strip()}"
    finally:
        server.terminate()
        server.wait()
