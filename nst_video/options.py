"""The options of a render, each a field of a frozen dataclass. Those of dreams, of music and of live sessions are in
their packages; `fields.py` says what a field is.

Nothing here imports torch, OpenCV or PyAV, so that `nst-video --help` is quick.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nst_video.errors import UsageError
from nst_video.fields import BY_QUALITY, COUNT, TILE, check, exact, flag_name, option
from nst_video.kinds import Bytes, Choice, Curve, File, Flag, Number, Rate, Several, Text, Time
from nst_video.networks.layers import ENCODER_LAYERS

_WEIGHT = Number(0, 1e12)
_CURVED_WEIGHT = Curve(0, 1e12)
MOST_LANES = 64
_CURVED_COUNT = Curve(1, 100_000, whole=True)
_BY_LOSS = "by --loss"
_BY_LOSS_AND_ENCODER = "by --loss and --encoder"


@dataclass(frozen=True)
class EffortOptions:
    """How much work goes into a frame: size, network and optimiser. Fields left at None are decided by `quality`."""

    quality: str = option("standard", Choice(("draft", "standard", "best")), "preset for size, network and effort")
    size: int | str | None = option(
        None,
        Number(16, 16384, whole=True, words=("full",)),
        "long side of the output in pixels, or 'full' for the input's own size",
        metavar="PIXELS",
        unset=BY_QUALITY,
    )
    encoder: str | None = option(
        None, Choice(tuple(ENCODER_LAYERS)), "network that sees style and content", unset=BY_QUALITY
    )
    teacher: str = option(
        "on",
        Choice(("on", "off")),
        "let the network that a small encoder was distilled from correct it now and then",
    )
    pooling: str = option("average", Choice(("average", "max")), "how the network pools")
    optimizer: str = option("lbfgs", Choice(("lbfgs", "adam")), "how the pixels are optimised")
    history: int = option(10, Number(1, 200, whole=True), "curvature pairs kept by L-BFGS", metavar="PAIRS")
    tile: int | None = option(
        None,
        TILE,
        "long side of the parts in which the loss of a large picture is taken, in pixels",
        metavar="PIXELS",
        unset="as large as memory allows",
    )
    first_iterations: int | None = option(
        None,
        COUNT,
        "evaluations of the loss for a shot's first frame, over all scales",
        metavar="N",
        unset=BY_QUALITY,
    )
    iterations: int | str | None = option(
        None, _CURVED_COUNT, "evaluations of the loss for each later frame", metavar="N", unset=BY_QUALITY
    )
    init: str = option("content", Choice(("content", "noise", "style")), "what the first frame of a shot starts from")
    seed: int = option(0, Number(0, 2**63 - 1, whole=True), "seed of everything random", metavar="N")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class LookOptions:
    """What the result looks like. A weight left at None is the default of the chosen loss."""

    style_scale: float = option(
        1.0,
        Number(0.05, 8),
        "size of the style picture beside the frame: larger means larger brush strokes",
        metavar="X",
    )
    strength: float | str = option(
        1.0, Curve(0, 10), "0 = the frame itself, 1 = the usual look, more = more", metavar="X"
    )
    keep_colors: bool = option(False, Flag(), "keep the colours of the video, take only the brush work")
    loss: str = option("relative", Choice(("relative", "paper")), "loss in relative units, or as published in 2016")
    content_layers: tuple[str, ...] = option(
        ("relu4_2",), Several(Text("layers of the encoder")), "layers compared with the frame", metavar="LAYERS"
    )
    style_layers: tuple[str, ...] = option(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        Several(Text("layers of the encoder")),
        "layers whose Gram matrices are compared with the style picture's",
        metavar="LAYERS",
    )
    style_layer_weights: tuple[float, ...] | None = option(
        None, Several(_WEIGHT), "lambda_l: one weight for each style layer", metavar="WEIGHTS", unset="by --encoder"
    )
    content_weight: float | str | None = option(
        None, _CURVED_WEIGHT, "alpha: weight of the content loss", metavar="ALPHA", unset=_BY_LOSS_AND_ENCODER
    )
    style_weight: float | str | None = option(
        None, _CURVED_WEIGHT, "beta_s: weight of the style loss", metavar="BETA", unset=_BY_LOSS
    )
    tv_weight: float | str | None = option(
        None, _CURVED_WEIGHT, "lambda_tv: weight of the total variation", metavar="LAMBDA", unset=_BY_LOSS
    )
    tv_exponent: float = option(1.0, Number(0.5, 2), "exponent beta of the total variation", metavar="BETA")

    def __post_init__(self) -> None:
        check(self)
        for name in ("content_layers", "style_layers"):
            layers = getattr(self, name)
            if len(set(layers)) < len(layers):
                raise UsageError(f"{flag_name(name)} {','.join(layers)} names a layer twice; allowed each one once")
        given = self.style_layer_weights
        if given is not None and len(given) != len(self.style_layers):
            raise UsageError(
                f"--style-layer-weights has {len(given)} weights for {len(self.style_layers)} style layers; "
                f"allowed one for each of {', '.join(self.style_layers)}"
            )
        if given is not None and not sum(given) > 0:
            raise UsageError("--style-layer-weights are all 0; allowed one or more above 0")


@dataclass(frozen=True)
class CoherenceOptions:
    """What holds the frames together in time."""

    temporal_weight: float | str | None = option(
        None,
        _CURVED_WEIGHT,
        "gamma: weight of staying with what was painted before",
        metavar="GAMMA",
        unset=_BY_LOSS_AND_ENCODER,
    )
    references: tuple[int, ...] = option(
        (1, 2, 4),
        Several(Number(1, 64, whole=True), rising=True),
        "how many frames back the frames lie that each frame is compared with",
        metavar="FRAMES",
    )
    flow: str = option(
        "medium",
        Choice(("ultrafast", "fast", "mixed", "medium", "gpu")),
        "care taken with the optical flow; mixed: medium to the frame before, fast to those before that; gpu: with the "
        "care of medium, on an NVIDIA GPU instead of the CPU",
    )
    cut_threshold: float = option(
        27.0, Number(0, 255), "change between frames that counts as a cut; 0 = the video has no cuts", metavar="X"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class OutputOptions:
    """Which part is rendered and how it is written. Times may be numbers or text; they are held as Fractions."""

    start: Fraction | None = option(
        None, Time(), "begin with what is on screen at this time of the input", metavar="TIME"
    )
    end: Fraction | None = option(None, Time(), "end at this time of the input", metavar="TIME")
    still: Fraction | None = option(
        None,
        Time(),
        "render only the frame on screen at this time, to a picture: the way to try a look",
        metavar="TIME",
    )
    stride: int = option(1, Number(1, 100_000, whole=True), "render every n-th frame", metavar="N")
    rate: Fraction | None = option(
        None,
        Rate(),
        "frames per second of a sequence of pictures, or of a picture with --duration",
        metavar="FPS",
        unset="25",
    )
    duration: Fraction | None = option(None, Time(), "make a video this long of a single picture", metavar="TIME")
    codec: str | None = option(
        None,
        Text("a video encoder of FFmpeg"),
        "video codec of the output",
        metavar="NAME",
        unset="by the suffix of OUT: libvpx-vp9 for .webm, else libx264",
    )
    crf: int = option(18, Number(0, 63, whole=True), "quality of the codec: less is better and larger", metavar="N")
    preset: str = option(
        "medium", Text("a preset of the codec"), "speed of the codec against file size", metavar="NAME"
    )
    overwrite: bool = option(False, Flag(), "replace the output if it exists", short="-y")
    restart: bool = option(False, Flag(), "begin anew where an unfinished render of this output is there")
    keep_job: bool = option(False, Flag(), "keep the folder OUT.nst with the finished parts after the render")
    lossless: bool = option(
        False, Flag(), "keep the frames in OUT.nst without loss: codec, crf and preset can be changed without painting"
    )
    on_error: str = option("fail", Choice(("fail", "hold")), "a frame that cannot be decoded: stop, or hold the last")
    max_pixels: int = option(
        2**26, Number(1024, 2**32, whole=True), "refuse larger pictures and frames", metavar="PIXELS"
    )
    max_duration: Fraction = option(
        Fraction(86400), Time(), "refuse an input of which a longer part would be rendered", metavar="TIME"
    )

    @property
    def encoding(self) -> dict[str, Any]:
        """How a video is encoded, as `check_output` and everything that writes one take it."""
        return {"codec": self.codec, "crf": self.crf, "preset": self.preset}

    def __post_init__(self) -> None:
        kinds: dict[str, Time | Rate] = {
            "start": Time(),
            "end": Time(),
            "still": Time(),
            "max_duration": Time(),
            "duration": Time(),
            "rate": Rate(),
        }
        for name, kind in kinds.items():
            object.__setattr__(self, name, exact(name, kind, getattr(self, name)))
        check(self)
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UsageError(
                f"--start {float(self.start):g} is not before --end {float(self.end):g}; allowed start < end"
            )
        if self.duration == 0:
            raise UsageError("--duration 0 leaves no frame; allowed more than 0 seconds")
        if self.still is not None and (self.start is not None or self.end is not None):
            raise UsageError("--still renders one frame; it cannot be combined with --start or --end")


@dataclass(frozen=True)
class MachineOptions:
    """What the work is done on."""

    device: str = option(
        "auto", Choice(("auto", "cpu", "cuda", "mps"), r"cuda:\d+", "cuda:N"), "where to compute", metavar="DEVICE"
    )
    precision: str = option(
        "auto",
        Choice(("auto", "fp32", "bf16")),
        "number format of the convolutions; auto: bf16 where the device has instructions for it",
    )
    memory_limit: int | None = option(
        None,
        Bytes(),
        "most memory that the render may take on the device, such as 6GB",
        metavar="SIZE",
        short="--memory",
        unset="what is free",
    )
    lanes: int | str = option(
        1,
        Number(1, MOST_LANES, whole=True, words=("auto",)),
        "parts of the video that are painted side by side, as one batch; auto: by measurement on a GPU, one on a CPU",
        metavar="N",
    )
    threads: int | None = option(None, Number(1, 1024, whole=True), "CPU threads", metavar="N", unset="one per core")
    offline: bool = option(False, Flag(), "never download weights")
    weights: str | None = option(None, File("a file"), "file with the encoder's weights", metavar="FILE")

    def __post_init__(self) -> None:
        check(self)
