"""How many threads look for the motion of frames beside the one that paints, and what they hold."""

AHEAD = 2  # frames of a lane that are quite ready before the stylizer asks for them
_MOST = 12
_HELD = 1 << 31  # bytes of frames whose motion is looked for; of each, by its pixels:
_HELD_BY_PIXEL = 120


def workers_for(threads: int, device: str, size: tuple[int, int], flow: str = "medium") -> int:
    """How many frames' motion is looked for at once with so many threads for a render of frames of (width, height).

    Optical flow takes a core a quarter of a second for a frame of 512x512 pixels. A CPU paints for longer than that, so
    painting has most of the cores; beside a GPU, which does not, they have nothing better to do.
    """
    if flow == "gpu":  # which finds one after the other
        return 1
    share = threads // 4 if device == "cpu" else threads * 3 // 4
    fitting = _HELD // (size[0] * size[1] * _HELD_BY_PIXEL)
    return max(1, min(share, fitting, _MOST))
