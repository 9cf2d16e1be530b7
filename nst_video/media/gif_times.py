"""The times of frames in a gif, whose clock is coarse."""

import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import count

from nst_video.errors import UsageError

GIF_CLOCK = Fraction(1, 100)  # seconds; no gif counts in smaller ones
SHORTEST_IN_GIF = 2  # of them; players show shorter frames for a tenth of a second
LATEST_IN_GIF = 10  # of them, by which a frame may be shown late because of those before it


class GifTimes:
    """The times of frames in a gif. One that follows too soon on another is shown as soon as a gif can, and those after
    it at their own times again; a clip that has more frames than that makes room for is refused.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.frames = 0
        self.last = Fraction(0)  # when the last of them should be shown, in seconds
        self.free = 0  # from when on there can be another one

    def place(self, seconds: Fraction) -> int:
        """When the next frame is shown that should be at `seconds` from the first, in units of GIF_CLOCK."""
        self.frames, self.last = self.frames + 1, seconds
        place = self._free_at(seconds)
        self.free = place + SHORTEST_IN_GIF
        return place

    def end(self, seconds: Fraction) -> int:
        """The same of the end of the last frame. Both raise UsageError where there are too many frames."""
        if (self.frames - 2) * SHORTEST_IN_GIF * GIF_CLOCK > self.last:  # the first may have been cut short
            raise self._refusal()
        return self._free_at(seconds)

    def _free_at(self, seconds: Fraction) -> int:
        wanted = math.floor(seconds / GIF_CLOCK + Fraction(1, 2))
        if self.free > wanted + LATEST_IN_GIF:
            raise self._refusal()
        return max(wanted, self.free)

    def _refusal(self) -> UsageError:
        return _too_fast(self.path, "a larger --stride")  # which one, only the times of all frames would tell


def check_gif_times(
    path: str | os.PathLike[str], times: Sequence[Fraction], every: Callable[[], Sequence[Fraction]] | None = None
) -> None:
    """Raises UsageError, which names the smallest stride that is enough, where a gif cannot show frames at these times,
    in seconds; the last is where they end. `every` gives the times with a stride of 1, where `times` have another.
    """
    if not _fits_gif(times):
        *starts, end = every() if every else times
        enough = next(stride for stride in count(1) if _fits_gif([*starts[::stride], end]))
        raise _too_fast(path, f"--stride {enough}")


def _fits_gif(times: Sequence[Fraction]) -> bool:
    places = GifTimes("")
    try:
        for time in times[:-1]:
            places.place(time - times[0])
        places.end(times[-1] - times[0])
    except UsageError:
        return False
    return True


def _too_fast(path: str | os.PathLike[str], remedy: str) -> UsageError:
    return UsageError(f"{os.fspath(path)}: a gif shows at most 50 frames/s; use {remedy}, or write .mp4")
