"""Every option as a field of a frozen dataclass, with its help, its range or choices and its default; the presets.

The command line is built from these fields, so names, defaults, choices and help texts cannot drift apart.
Nothing here imports torch, OpenCV or PyAV: `nst-video --help` needs only this module.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from nst_video.errors import UsageError
from nst_video.kinds import Bytes, Choice, Curve, Flag, Kind, Number, Rate, Repeated, Several, Text, Time
from nst_video.layers import ENCODER_LAYERS
from nst_video.schedules import ScheduleError, is_schedule
from nst_video.tiles import MINIMAL_TILE


def option(
    default: Any, kind: Kind, help: str, *, metavar: str | None = None, short: str | None = None, unset: str = ""
) -> Any:
    """A dataclass field with all that its check and its command-line argument need.

    A default of None means that the value is decided later; `unset` says by what.
    """
    return field(
        default=default,
        metadata={"kind": kind, "help": help, "metavar": metavar, "short": short, "unset": unset},
    )


def flag_name(field_name: str) -> str:
    """`style_scale` -> `--style-scale`."""
    return "--" + field_name.replace("_", "-")


def check(options: Any) -> None:
    """Raise UsageError for the first field of an options dataclass whose value its kind does not accept."""
    for item in fields(options):
        value, kind = getattr(options, item.name), item.metadata["kind"]
        undecided = value is None and item.default is None
        if not undecided and not kind.accepts(value):
            raise refusal(item.name, value, kind)


def refusal(field_name: str, value: object, kind: Kind) -> UsageError:
    """The error for a value that a field does not take, in one line; and the place, in a schedule."""
    if isinstance(kind, Curve) and is_schedule(value):
        try:
            kind.check(str(value))
        except ScheduleError as error:
            return error.as_usage(flag_name(field_name))
    if isinstance(kind, Number) and not isinstance(kind, Curve) and is_schedule(value):
        return UsageError(
            f"{flag_name(field_name)} is the same for all frames and takes no schedule; allowed {kind.allowed()}"
        )
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value).removesuffix(".0")
    number = isinstance(kind, Number) and isinstance(value, int | float) and not isinstance(value, bool)
    fault = "is out of range" if number else "is not allowed"
    return UsageError(f"{flag_name(field_name)} {shown} {fault}; allowed {kind.allowed()}")


def chosen(*values: float | str | None) -> float:
    """The first value that is not None, as what a frame gets: controls before options before a default.

    >>> chosen(None, 0.5, 1.0)
    0.5

    UsageError for the text of a schedule, which only a plan turns into numbers (`curves.settle_curves`).
    """
    value = next(value for value in values if value is not None)
    if isinstance(value, str):
        raise UsageError(f"the schedule {value!r} has not been settled; give its value for each frame in Controls")
    return value


# ---------------------------------------------------------------------------------------------- the options

_WEIGHT = Number(0, 1e12)
_CURVED_WEIGHT = Curve(0, 1e12)
_TILE = Number(MINIMAL_TILE, 16384, whole=True)
_COUNT = Number(1, 100_000, whole=True)
MOST_LANES = 64
_CURVED_COUNT = Curve(1, 100_000, whole=True)
_BY_QUALITY = "by --quality"
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
        unset=_BY_QUALITY,
    )
    encoder: str | None = option(
        None, Choice(tuple(ENCODER_LAYERS)), "network that sees style and content", unset=_BY_QUALITY
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
        _TILE,
        "long side of the parts in which the loss of a large picture is taken, in pixels",
        metavar="PIXELS",
        unset="as large as memory allows",
    )
    first_iterations: int | None = option(
        None,
        _COUNT,
        "evaluations of the loss for a shot's first frame, over all scales",
        metavar="N",
        unset=_BY_QUALITY,
    )
    iterations: int | str | None = option(
        None, _CURVED_COUNT, "evaluations of the loss for each later frame", metavar="N", unset=_BY_QUALITY
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

    start: Fraction | None = option(None, Time(), "begin at this time of the input", metavar="TIME")
    end: Fraction | None = option(None, Time(), "end before this time of the input", metavar="TIME")
    still: Fraction | None = option(
        None, Time(), "render only the frame at this time, to a picture: the way to try a look", metavar="TIME"
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
    codec: str = option("libx264", Text("a video encoder of FFmpeg"), "video codec of the output", metavar="NAME")
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
            object.__setattr__(self, name, _exact(name, kind, getattr(self, name)))
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
    weights: str | None = option(None, Text("a file"), "file with the encoder's weights", metavar="FILE")

    def __post_init__(self) -> None:
        given: object = self.memory_limit
        if isinstance(given, str):  # from Python, as on the command line
            object.__setattr__(self, "memory_limit", parse_option("memory_limit", Bytes())(given))
        check(self)


@dataclass(frozen=True)
class LiveOptions:
    """A live session: where its pictures come from, where they go, and the look that it begins with."""

    camera: str = option(
        "0",
        Text("a number, a device or a file"),
        "number or path of the camera, or a video that stands for one",
        metavar="CAMERA",
    )
    fps: float = option(24, Number(1, 240), "pictures in a second that are aimed at, and not exceeded", metavar="N")
    size: int = option(512, Number(64, 4096, whole=True), "long side of the picture shown", metavar="PIXELS")
    window: str = option(
        "auto", Choice(("auto", "on", "off")), "show the picture in a window; auto: unless --serve shows it"
    )
    full_screen: bool = option(False, Flag(), "begin with the window as large as the screen")
    mirror: str = option(
        "auto",
        Choice(("auto", "on", "off")),
        "begin with the picture as in a mirror; auto: unless the camera is a file",
    )
    record: str | None = option(None, Text("a file"), "record to this video from the start", metavar="FILE")
    folder: str = option(".", Text("a folder"), "where recordings and snapshots made by key go", metavar="FOLDER")
    virtual_camera: bool = option(False, Flag(), "be a camera for other programs (needs the extra `virtualcam`)")
    serve: int | None = option(
        None,
        Number(0, 65535, whole=True),
        "show the picture as a web page on this port, 0 = a free one",
        metavar="PORT",
    )
    host: str = option("127.0.0.1", Text("an address"), "address that the web page listens at", metavar="ADDRESS")
    token: str | None = option(
        None,
        Text("some characters"),
        "what the address of the web page must contain",
        metavar="TEXT",
        unset="a new one each time",
    )
    dream: bool = option(False, Flag(), "begin dreaming instead of painting")
    strength: float = option(1.0, Number(0.1, 4), "begin with this strength of the style", metavar="X")
    brush: float = option(1.0, Number(0.25, 4), "begin with this size of the brush strokes", metavar="X")
    keep_colors: bool = option(False, Flag(), "begin with the colours of the camera")
    encoder: str = option("slim", Choice(tuple(ENCODER_LAYERS)), "network that sees style and content")

    def __post_init__(self) -> None:
        check(self)


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
        unset=_BY_QUALITY,
    )
    octave_scale: float = option(1.4, Number(1.05, 4), "how much larger each of them is", metavar="X")
    first_iterations: int = option(
        None, _COUNT, "steps for each octave of a shot's first frame", metavar="N", unset=_BY_QUALITY
    )
    iterations: float = option(
        None,
        Curve(0, 1000),
        "steps for each octave of each later frame, longer where there is more to dream",
        metavar="N",
        unset=_BY_QUALITY,
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
        None, Text("a picture or a video"), "dream of what is in this picture or video", metavar="FILE"
    )
    keep_colors: bool = option(False, Flag(), "keep the colours of the video")
    tile: int | None = option(
        None,
        _TILE,
        "long side of the parts in which a large picture is dreamed, in pixels",
        metavar="PIXELS",
        unset="as large as memory allows",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class MusicOptions:
    """What is heard and what it drives. Files are only named here; `music.heard.hear` opens them."""

    music: str | None = option(
        None,
        Text("a file with sound"),
        "music that drives the picture and becomes its sound",
        metavar="FILE",
        unset="the sound of the input",
    )
    music_start: Fraction = option(Fraction(0), Time(), "begin at this time of the music", metavar="TIME")
    music_end: str = option(
        "stop",
        Choice(("loop", "stop", "fade")),
        "music shorter than the video: again from its beginning, silence after it, or fade away into silence",
    )
    stem: tuple[str, ...] = option(
        (),
        Repeated(Text("NAME=FILE")),
        "a part of the music by itself, heard as NAME.onset and so on; it drives, but is not in the sound",
        metavar="NAME=FILE",
    )
    drive: tuple[str, ...] = option(
        (),
        Repeated(Text("TARGET=FEATURE*GAIN+OFFSET,attack=S,release=S")),
        "let what is heard add to an option, such as step=onset*0.5 or zoom=bass*0.3,release=0.5",
        metavar="TARGET=FEATURE",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "music_start", _exact("music_start", Time(), self.music_start))
        check(self)
        for text in self.stem:
            name, equals, file = text.partition("=")
            if not (name.isidentifier() and equals and file):
                raise UsageError(f"--stem {text} is not allowed; allowed NAME=FILE such as drums=drums.wav")
        names = [text.partition("=")[0] for text in self.stem]
        if len(set(names)) < len(names):
            raise UsageError(f"--stem {' '.join(names)} names one stem twice; allowed each name once")

    @property
    def files(self) -> tuple[str, ...]:
        """Every file named, the music first."""
        return (*((self.music,) if self.music else ()), *self.stems.values())

    @property
    def stems(self) -> dict[str, str]:
        """Name -> file."""
        return {name: file for name, _, file in (text.partition("=") for text in self.stem)}


def _exact(name: str, kind: Time | Rate, value: object) -> Fraction | None:
    """None, a number or text -> an exact Fraction; a float means what it prints as, so 0.1 is 1/10."""
    if value is None or isinstance(value, Fraction):
        return value
    try:
        return Fraction(value) if isinstance(value, int) else kind.parse(str(value))
    except ValueError:
        raise refusal(name, value, kind) from None


def parse_option(item_name: str, kind: Kind) -> Callable[[str], Any]:
    """A function from the text typed for an option to its value, raising UsageError with what is allowed."""

    def parse(text: str) -> Any:
        try:
            return kind.parse(text)
        except ValueError:
            raise refusal(item_name, text, kind) from None

    return parse
