"""What takes the painted frames of a live session: the window, a recording, a virtual camera, the web page."""

from dataclasses import dataclass, field
from typing import Protocol

from nst_video.live.desk import Setting
from nst_video.live.frames import Shown


@dataclass(frozen=True)
class Facts:
    """What is known about the session at the moment a picture is handed to the outputs.

    time: that moment, in seconds of time.monotonic(). rate: pictures shown in a second, camera_rate: frames that the
    camera gives in a second; 0 where not yet known. latency: seconds from capture to this moment, the median of the
    last second. dropped: frames of the camera that were never painted, because a newer one was there. recording: the
    file that is being recorded, "" for none; lost: frames that this recording had no time for. message: what a person
    should know now, one line, "" for nothing. styles: names of the style pictures there are.
    """

    time: float
    setting: Setting = field(default_factory=Setting)
    rate: float = 0.0
    camera_rate: float = 0.0
    latency: float = 0.0
    dropped: int = 0
    recording: str = ""
    lost: int = 0
    message: str = ""
    styles: tuple[str, ...] = ()


class Output(Protocol):
    """Something that takes every picture. Both functions are called from the session's main thread."""

    def show(self, shown: Shown, facts: Facts) -> None:
        """Take this picture, at once: whatever takes time belongs into a thread of the output.

        The arrays are shared between the outputs: look, do not write. The same `shown` comes again when something
        else changed (a key was pressed, a message came); `shown.number` never goes back. What a person should see,
        with the original and the information, is `overlay.composed(shown, facts)`.
        """

    def close(self) -> None:
        """End in good order; called once, also after an error elsewhere."""
