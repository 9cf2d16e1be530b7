"""The options of a dream."""

from dataclasses import dataclass

from nst_video.fields import BY_QUALITY, COUNT, TILE, check, option
from nst_video.kinds import Curve, File, Flag, Number, Several, Text

_LAYER = Text("LAYER, LAYER=WEIGHT, LAYER:CHANNEL or LAYER:FIRST-LAST")


@dataclass(frozen=True)
class DreamOptions:
    """What is dreamed, and how it moves. Rates are per second, so that they mean the same at every frame rate.

    Fields left at None are decided by the quality and the network (`resolve_dream`), and schedules are text until a
    plan has made numbers of them: the types are those that the fields have then.
    """

    layers: tuple[str, ...] = option(
        None,
        Several(_LAYER),
        "layers, or channels of layers, whose activations grow",
        metavar="LAYERS",
        unset="relu5_1; inception_4c or mixed5 of the networks that have them",
    )
    layer_fade: float | None = option(
        None,
        Curve(0, 1),
        "dream of the first of the layers (0), of the last (1), or in between; a schedule fades from one to another",
        metavar="X",
        unset="all of them at once",
    )
    octaves: int = option(
        None,
        Number(1, 16, whole=True),
        "sizes that are dreamed one after the other",
        metavar="N",
        unset=BY_QUALITY,
    )
    octave_scale: float = option(1.4, Number(1.05, 4), "how much larger each of them is", metavar="X")
    first_iterations: int = option(
        None, COUNT, "steps for each octave of a shot's first frame", metavar="N", unset=BY_QUALITY
    )
    iterations: float = option(
        None,
        Curve(0, 1000),
        "steps for each octave of each later frame, longer where there is more to dream",
        metavar="N",
        unset=BY_QUALITY,
    )
    step: float = option(1.0, Curve(0, 100), "length of a step, in levels of 255", metavar="X")
    smoothing: float = option(0.25, Curve(-1, 4), "less makes finer, more makes broader shapes", metavar="X")
    jitter: int = option(
        32, Number(0, 512, whole=True), "pixels by which the picture is shifted about under the network", metavar="N"
    )
    memory: float = option(
        0.9, Curve(0, 1), "how much of the dream of the frame before is kept where it can be followed", metavar="X"
    )
    zoom: float = option(1.0, Curve(0.1, 10), "what the dream grows by in a second", metavar="X")
    rotate: float = option(0.0, Curve(-3600, 3600), "degrees it turns by in a second, clockwise", metavar="DEGREES")
    shift_x: float = option(0.0, Curve(-10, 10), "widths that it moves to the right in a second", metavar="X")
    shift_y: float = option(0.0, Curve(-10, 10), "heights that it moves down in a second", metavar="X")
    guide: str | None = option(
        None, File("a picture or a video"), "dream of what is in this picture or video", metavar="FILE"
    )
    keep_colors: bool = option(False, Flag(), "keep the colours of the video")
    tile: int | None = option(
        None,
        TILE,
        "long side of the parts in which a large picture is dreamed, in pixels",
        metavar="PIXELS",
        unset="as large as memory allows",
    )

    def __post_init__(self) -> None:
        check(self)
