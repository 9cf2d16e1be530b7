"""The preview window (OpenCV's highgui) and the keyboard; and whether there can be a window at all."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from nst_video.errors import ResourceError
from nst_video.live.desk import Desk
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.overlay import composed

TITLE = "nst-video"
ELSEWHERE = "--serve 8080 shows the picture in a browser instead"
TRIAL = "import cv2; cv2.namedWindow('display check'); import os; os._exit(0)"
TRIAL_WITHIN = 60.0  # seconds
MODIFIERS = 0xFFFF  # what GTK adds to a key's code lies above

# A message that says what is wrong, or "".
Trial = Callable[[], str]


def try_window() -> str:
    """Open a window in a process of its own: the toolkits below OpenCV end the whole process where they cannot. Returns
    what they say of it, "" where the window opens.
    """
    command = [sys.executable, "-P", "-c", f"import sys; sys.path[:] = sys.argv[1:]; {TRIAL}", *map(str, sys.path)]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TRIAL_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[0] if lines else f"it ended with status {done.returncode}"


def check_display(
    platform: str = sys.platform,
    environment: Mapping[str, str] = os.environ,
    framework: Callable[[], str] = cv2.currentUIFramework,
    trial: Trial = try_window,
) -> None:
    """Raises ResourceError, which says what to do, where a window cannot be opened."""
    if not framework():
        raise ResourceError(f"no window: {_headless()}; or {ELSEWHERE}")
    if platform != "linux":
        return
    if not environment.get("DISPLAY") and not environment.get("WAYLAND_DISPLAY"):
        raise ResourceError(
            "no window: there is no display (DISPLAY and WAYLAND_DISPLAY are not set); run it in a desktop session, "
            f"or under `xvfb-run`, or with `ssh -X`; {ELSEWHERE}"
        )
    trouble = trial()
    if trouble:
        wayland = "; OpenCV needs XWayland" if not environment.get("DISPLAY") else ""
        raise ResourceError(f"no window: the display cannot be used ({trouble}{wayland}); {ELSEWHERE}")


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


class Window:
    """An output that is seen, and takes keys. All of it belongs to the main thread.

    Its keys, and closing it by mouse, go to the desk.
    """

    def __init__(self, desk: Desk, size: tuple[int, int], title: str = TITLE) -> None:
        """size: (width, height) in pixels of the picture at first. Call check_display before."""
        self._desk, self._title = desk, title
        self._size = size
        self._full_screen = self._visible = False
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(title, *size)
        cv2.imshow(title, np.zeros((size[1], size[0], 3), np.uint8))
        self.poll()

    def show(self, shown: Shown, facts: Facts) -> None:
        """Draw the picture, with what lies over it."""
        picture = composed(shown, facts)
        self._fit((picture.shape[1], picture.shape[0]), full_screen=facts.setting.view.full_screen)
        cv2.imshow(self._title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
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
            cv2.destroyWindow(self._title)
            cv2.pollKey()

    def _is_visible(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) > 0
        except cv2.error:  # how some toolkits say that there is no such window
            return False

    def _fit(self, size: tuple[int, int], *, full_screen: bool) -> None:
        if full_screen != self._full_screen:
            self._full_screen = full_screen
            state = cv2.WINDOW_FULLSCREEN if full_screen else cv2.WINDOW_NORMAL
            cv2.setWindowProperty(self._title, cv2.WND_PROP_FULLSCREEN, state)
        if size != self._size and not full_screen:
            # As large as a person made it, in the new shape: the original beside makes the picture twice as wide.
            _, _, _, tall = cv2.getWindowImageRect(self._title)
            cv2.resizeWindow(self._title, max(round(tall * size[0] / size[1]), 1), tall)
            self._size = size
