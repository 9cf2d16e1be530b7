"""The preview window (OpenCV's highgui) and the keyboard; and whether there can be a window at all."""

import importlib.metadata
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import cv2
import numpy as np

from nst_video.errors import ResourceError
from nst_video.live.desk import Desk
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.overlay import composed

TITLE = "nst-video"
WIDEST = 1280  # pixels that the window is made wide by itself; what does not fit is shown smaller
ELSEWHERE = "--serve 8080 shows the picture in a browser instead"
# It stays connected until it is told to end: a display that nobody is connected to may start anew (Xvfb does), and
# would refuse the real window just then.
TRIAL = "import cv2; cv2.namedWindow('display check'); cv2.destroyAllWindows(); print('good', flush=True)"
TRIAL_WITHIN = 60.0  # seconds
MODIFIERS = 0xFFFF  # what GTK adds to a key's code lies above

# Holds a display open, and says what is wrong with it, "" for nothing.
Trial = Callable[[], AbstractContextManager[str]]


@contextmanager
def try_window() -> Iterator[str]:
    """Open a window in a process of its own, which ends with the `with` block: the toolkits below OpenCV end the whole
    process where they cannot.
    """
    code = f"import os, sys; sys.path[:] = sys.argv[1:]; {TRIAL}; sys.stdin.read(); os._exit(0)"
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *map(str, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except OSError as error:
        yield str(error)
        return
    giving_up = threading.Timer(TRIAL_WITHIN, process.kill)
    giving_up.start()
    try:
        yield _trouble(process)
    finally:
        giving_up.cancel()
        process.kill()
        process.communicate()


def _trouble(process: "subprocess.Popen[str]") -> str:
    """What the process has to say, once its window is open or it has ended."""
    assert process.stdout is not None
    if process.stdout.readline():
        return ""
    _, said = process.communicate()
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else f"it ended with status {process.returncode}"


@contextmanager
def display_checked(
    platform: str = sys.platform,
    environment: Mapping[str, str] = os.environ,
    framework: Callable[[], str] = cv2.currentUIFramework,
    trial: Trial = try_window,
    modules: Iterable[str] = sys.modules,
) -> Iterator[None]:
    """Inside, a window can be opened. Raises ResourceError, which says what to do, where it cannot."""
    if not framework():
        raise ResourceError(f"no window: {_headless()}; or {ELSEWHERE}")
    if platform == "linux" and _is_first("av", modules):
        raise ResourceError(f"no window: PyAV was loaded before OpenCV; import cv2 before anything else; {ELSEWHERE}")
    if platform != "linux":
        yield
        return
    if not environment.get("DISPLAY") and not environment.get("WAYLAND_DISPLAY"):
        raise ResourceError(
            "no window: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); run it in a desktop session, "
            f"or under `xvfb-run`, or with `ssh -X`; {ELSEWHERE}"
        )
    with trial() as trouble:
        if trouble:
            wayland = "; OpenCV needs XWayland" if not environment.get("DISPLAY") else ""
            raise ResourceError(f"no window: the display cannot be used ({trouble}{wayland}); {ELSEWHERE}")
        yield


def _is_first(name: str, modules: Iterable[str]) -> bool:
    """Whether PyAV or OpenCV, whichever it is, was loaded before the other."""
    return [module for module in modules if module in ("av", "cv2")][:1] == [name]


def _headless() -> str:
    """Why this OpenCV has no windows, and what to install."""
    headless = [name for name in ("opencv-python-headless", "opencv-contrib-python-headless") if _is_installed(name)]
    if headless:
        return (
            f"{headless[0]} is installed, which has none: pip uninstall {headless[0]}, "
            "then pip install --force-reinstall opencv-python"
        )
    return "this OpenCV was built without windows: pip install --force-reinstall opencv-python"


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def typed(code: int) -> str:
    """The code that OpenCV gives for a key -> its character; "" for keys without one, such as arrows, and for none.

    >>> typed(113), typed(0x100071), typed(65361), typed(-1)
    ('q', 'q', '', '')
    """
    if code < 0:
        return ""
    low = code & MODIFIERS
    return chr(low) if 0 < low < 128 else ""


def boxed(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture with black beside or above it, in the shape of a window of (width, height) `size`: what windows put
    there themselves is white.

    >>> boxed(np.zeros((9, 16, 3), np.uint8), (160, 160)).shape
    (16, 16, 3)
    """
    height, width = picture.shape[:2]
    if min(size) < 1:  # not yet laid out
        return picture
    wide, tall = max(round(height * size[0] / size[1]), width), max(round(width * size[1] / size[0]), height)
    left, top = (wide - width) // 2, (tall - height) // 2
    if left <= width // 100 and top <= height // 100:
        return picture
    return cv2.copyMakeBorder(picture, top, tall - height - top, left, wide - width - left, cv2.BORDER_CONSTANT)


class Window:
    """An output that is seen, and takes keys. All of it belongs to the main thread.

    Its keys, and closing it by mouse, go to the desk.
    """

    def __init__(self, desk: Desk, size: tuple[int, int]) -> None:
        """size: (width, height) in pixels of the picture at first. Made inside display_checked."""
        self._desk = desk
        self._size, self._tall = size, size[1]
        self._full_screen = self._visible = False
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(TITLE, *size)
        cv2.imshow(TITLE, np.zeros((size[1], size[0], 3), np.uint8))
        self.poll()

    def show(self, shown: Shown, facts: Facts) -> None:
        """Draw the picture, with what lies over it."""
        picture = composed(shown, facts)
        self._fit((picture.shape[1], picture.shape[0]), full_screen=facts.setting.view.full_screen)
        _, _, wide, tall = cv2.getWindowImageRect(TITLE)
        cv2.imshow(TITLE, cv2.cvtColor(boxed(picture, (wide, tall)), cv2.COLOR_RGB2BGR))
        self.poll()

    def poll(self) -> None:
        """Let the window draw, and pass on every key that was pressed since."""
        while (code := cv2.pollKey()) != -1:
            self._desk.press(typed(code))
        now = self._is_visible()
        if self._visible and not now:
            self._desk.change(quit=True)  # closed by mouse
        self._visible = now

    def close(self) -> None:
        """Take it away."""
        if self._is_visible():
            cv2.destroyWindow(TITLE)
            cv2.pollKey()

    def _is_visible(self) -> bool:
        try:
            return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0
        except cv2.error:  # how some toolkits say that there is no such window
            return False

    def _fit(self, size: tuple[int, int], *, full_screen: bool) -> None:
        """Give the window the size for pictures of (width, height) `size`."""
        _, _, _, tall = cv2.getWindowImageRect(TITLE)
        if full_screen != self._full_screen:
            self._full_screen = full_screen
            state = cv2.WINDOW_FULLSCREEN if full_screen else cv2.WINDOW_NORMAL
            cv2.setWindowProperty(TITLE, cv2.WND_PROP_FULLSCREEN, state)
            self._tall, tall = tall, self._tall  # the latter matters where it is full no more
        if size != self._size and not full_screen:
            # As tall as a person made it, in the new shape: the original beside makes the picture twice as wide.
            wide = round(tall * size[0] / size[1])
            if 0 < wide <= WIDEST:
                cv2.resizeWindow(TITLE, wide, tall)
            self._size = size
