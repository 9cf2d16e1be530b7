"""What may change from frame to frame; schedules, music and live keys all arrive as this."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Controls:
    """The values for one frame. Times in seconds; whatever is left at None is the options'.

    The fields have the names of the options whose place they take. layer_mix: one weight for each layer to dream.
    """

    time: float = 0.0
    dt: float = 0.0
    strength: float | None = None
    content_weight: float | None = None
    style_weight: float | None = None
    tv_weight: float | None = None
    temporal_weight: float | None = None
    step: float | None = None
    iterations: float | None = None
    smoothing: float | None = None
    memory: float | None = None
    zoom: float | None = None
    rotate: float | None = None
    shift_x: float | None = None
    shift_y: float | None = None
    layer_mix: tuple[float, ...] | None = None
