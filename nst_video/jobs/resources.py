"""Whether the disk has room for a render, said before it begins."""

import logging
import shutil
from pathlib import Path

from nst_video.errors import ResourceError
from nst_video.media.destination import output_kind
from nst_video.optimization.budget import readable
from nst_video.plan import Plan

log = logging.getLogger(__name__)

# Bytes for each byte of the pictures. FFV1 on painted frames: 0.45 to 0.65. x264 at crf 18: 0.02 to 0.15.
_LOSSLESS = 0.65
_ENCODED, _ENCODED_AT_MOST = 0.02, 0.15


def disk_needed(plan: Plan, done: int = 0) -> tuple[int, int]:
    """(least, most) bytes that rendering the frames from `done` on is expected to write and not yet remove."""
    width, height = plan.size
    frame = width * height * 3
    left, lanes = plan.frames - done, len(plan.ranges)
    open_segment = _LOSSLESS * frame * min(left, max(last - first for first, last in plan.segments) * lanes)
    # A dream leaves itself, what it was dreamed on and the finished frame; a painting its curvature as well.
    pictures = 3 if plan.dream else max(plan.coherence.references) + 2 * plan.effort.history + 2
    states = 2 * pictures * frame * 4 * lanes  # the newest replaces the one before when it is complete
    kept = open_segment + states
    if output_kind(plan.output) == "video":
        lossless = _LOSSLESS * frame * left if plan.options.lossless else 0.0
        # The segments and the file that is made of them are there together at the end.
        return tuple(round(kept + lossless + 2 * rate * frame * left) for rate in (_ENCODED, _ENCODED_AT_MOST))  # type: ignore[return-value]
    return round(states + _LOSSLESS * frame * left), round(states + 2 * _LOSSLESS * frame * left)


def check_disk(plan: Plan, folder: Path, done: int = 0) -> None:
    """ResourceError where the disk of `folder` is certainly too full; a line where it may be."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    least, most = disk_needed(plan, done)
    if free < least:
        raise ResourceError(
            f"{folder} has {readable(free)} free and this render needs {readable(least)} to {readable(most)}; "
            "free some space, choose a smaller --size, or write to another disk"
        )
    if free < most:
        log.warning("%s has %s free; this render may need up to %s", folder, readable(free), readable(most))
