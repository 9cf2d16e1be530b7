"""Scene cuts: which frames belong together."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np

MIN_SHOT = 6  # frames; cuts that follow each other faster are a flash or a strobe
SHORTEST_SEGMENT, LONGEST_SEGMENT = 48, 240  # frames; below, key frames cost too much, above, too much waits unencoded
LARGEST_SEGMENT = 1 << 29  # bytes of its pictures


class CutFinder:
    """Finds cuts while frames pass by one at a time; remembers one small frame and the numbers of the cuts.

    `threshold` is in the units of PySceneDetect's ContentDetector (mean change of hue, saturation and brightness, 0 to
    255); 0 = no frame is a cut.
    """

    def __init__(self, threshold: float):
        # A tenth of a second that only the process that looks for cuts has to spend.
        from scenedetect import ContentDetector, FrameTimecode

        self._time = FrameTimecode
        # The detector reports every jump; which of them begin a shot is decided in `shots`, where all are known.
        self._detector = ContentDetector(threshold, min_scene_len=0) if threshold > 0 else None
        self._cuts: list[int] = []
        self._frames = 0

    def step(self, rgb: np.ndarray) -> None:
        """Look at the next frame, uint8 (H, W, 3), all of one size."""
        if self._detector is not None:
            # The rate only turns numbers into times, which nobody asks for here: frame numbers go in and come out.
            now = self._time(self._frames, Fraction(25))
            if self._detector.process_frame(now, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
                self._cuts.append(self._frames)
        self._frames += 1

    def shots(self) -> tuple[tuple[int, int], ...]:
        """The shots seen so far as (first frame, last frame + 1), in order and without gaps."""
        return join_shots(self._cuts, self._frames)


def join_shots(cuts: Sequence[int], frames: int) -> tuple[tuple[int, int], ...]:
    """Frame numbers of cuts, rising -> shots (first, last + 1) of MIN_SHOT frames or more but for first and last.

    Of cuts in quick succession the last is kept, because after it the picture stays: a one-frame flash then hangs on
    the shot before it, and the long run behind it gets the careful start.

    >>> join_shots([10, 40, 41, 43], frames=60)
    ((0, 10), (10, 43), (43, 60))
    """
    kept: list[int] = []
    for cut in reversed(cuts):
        if cut > 0 and (not kept or kept[-1] - cut >= MIN_SHOT):
            kept.append(cut)
    edges = [0, *reversed(kept), frames]
    return tuple(pairwise(edges))


def segments(shots: Sequence[tuple[int, int]], frame_bytes: int) -> tuple[tuple[int, int], ...]:
    """Shots (first, last + 1) -> the parts (first, last + 1) that are encoded on their own, in order and without gaps.

    They depend on the shots and on the size of a frame, never on when a render was stopped: so a resumed render is
    encoded like an uninterrupted one. They begin at cuts, where an encoder begins anew anyway; short shots share a
    segment, and a long one is divided evenly, because the first frame of a segment costs most.

    >>> segments(((0, 20), (20, 60), (60, 90), (90, 600)), frame_bytes=384 * 216 * 3)
    ((0, 60), (60, 240), (240, 420), (420, 600))
    """
    longest = max(SHORTEST_SEGMENT // 2, min(LONGEST_SEGMENT, LARGEST_SEGMENT // frame_bytes))
    edges = [shots[0][0]]
    for _, end in shots:
        if end - edges[-1] >= SHORTEST_SEGMENT or end == shots[-1][1]:
            edges.append(end)
    if len(edges) > 2 and edges[-1] - edges[-2] < SHORTEST_SEGMENT:
        del edges[-2]  # a short rest is no segment of its own
    parts: list[tuple[int, int]] = []
    for first, end in pairwise(edges):
        count = -(-(end - first) // longest)
        parts += pairwise(first + (end - first) * part // count for part in range(count + 1))
    return tuple(parts)
