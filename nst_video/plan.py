"""What will be rendered, decided before the first frame: settings, size, every frame's time, the shots and their seeds.

All that a user can get wrong is found here, before torch is imported.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from nst_video.codecs import check_gif_speed
from nst_video.curves import Curves
from nst_video.errors import InputError, UsageError
from nst_video.guarded import look as look_at
from nst_video.layers import DISTILLED, check_layers, smallest_side
from nst_video.music.conduct import Conducted, conduct
from nst_video.options import (
    OPTION_GROUPS,
    CoherenceOptions,
    EffortOptions,
    LookOptions,
    MachineOptions,
    MusicOptions,
    OutputOptions,
    resolve_effort,
)
from nst_video.plain import plain, tuples
from nst_video.survey import Request, Survey, open_input, probe_input
from nst_video.video import VideoInfo, check_output, scaled_size

__all__ = ["Plan", "Style", "StyleLike", "make_plan", "open_input", "probe_input", "settle"]

StyleLike = str | os.PathLike[str] | tuple[str | os.PathLike[str], float]

_VERSION = 1


@dataclass(frozen=True)
class Style:
    """A style picture and its share; the shares of a plan sum to 1."""

    path: str
    weight: float


@dataclass(frozen=True)
class Plan:
    """One render, settled: nothing is left at None or "auto" that decides a pixel.

    size: (width, height) in pixels. pts: presentation timestamp of every frame to render, in `time_base` seconds.
    shots: (first, last + 1) frame numbers, without gaps. seeds: one for each shot. curves: for every option that
    changes, its value for every frame; the option itself holds that of the first one.
    """

    input: str
    output: str
    styles: tuple[Style, ...]
    effort: EffortOptions
    look: LookOptions
    coherence: CoherenceOptions
    options: OutputOptions
    machine: MachineOptions
    size: tuple[int, int]
    time_base: Fraction
    pts: tuple[int, ...]
    shots: tuple[tuple[int, int], ...]
    seeds: tuple[int, ...]
    curves: Curves = field(default_factory=dict)

    @property
    def frames(self) -> int:
        """The number of frames to render."""
        return len(self.pts)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON types; fractions are written as "n/d"."""
        return {"version": _VERSION, **plain(asdict(self))}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Plan":
        """The plan that `to_json` wrote; InputError for another version."""
        if data.get("version") != _VERSION:
            raise InputError(f"a plan of version {data.get('version')} cannot be used; this program writes {_VERSION}")
        groups = dict(zip(("effort", "look", "coherence", "options", "machine"), OPTION_GROUPS.values(), strict=True))
        made = {name: group(**tuples(data[name])) for name, group in groups.items()}
        rest = {item.name: tuples(data[item.name]) for item in fields(cls) if item.name in data.keys() - made.keys()}
        styles = tuple(Style(**style) for style in data["styles"])
        return cls(**rest | made | {"styles": styles, "time_base": Fraction(data["time_base"])})


def make_plan(
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    *,
    effort: EffortOptions = EffortOptions(),
    look: LookOptions = LookOptions(),
    coherence: CoherenceOptions = CoherenceOptions(),
    options: OutputOptions = OutputOptions(),
    machine: MachineOptions = MachineOptions(),
) -> Plan:
    """Look at the input once, check everything, and settle every setting.

    Args:
        input: a video, an animated picture, a folder or pattern of pictures, or a single picture.
        styles: a picture, or several, each a path or (path, weight) with weight 1 where none is given.
        output: where the result will be written; nothing is written yet.

    Raises:
        UsageError: settings that exclude each other, an unknown layer, an output that exists or is the input.
        InputError: an input or a style picture that cannot be used.
        ResourceError: an output folder that is missing or cannot be written to.
    """
    kind = _check_output(input, style_shares(styles), output, options)
    plan = settle(
        input, styles, output, effort=effort, look=look, coherence=coherence, options=options, machine=machine
    )
    if kind == "picture" and plan.frames > 1:
        raise UsageError(
            f"{os.fspath(output)} is one picture but there are {plan.frames} frames; "
            f"add --still TIME, or write a sequence such as frames/%05d.png"
        )
    if kind == "gif" and plan.frames > 1:
        check_gif_speed(output, min(later - pts for pts, later in pairwise(plan.pts)) * plan.time_base)
    return plan


def settle(
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    *,
    effort: EffortOptions,
    look: LookOptions,
    coherence: CoherenceOptions,
    options: OutputOptions,
    machine: MachineOptions,
    size: tuple[int, int] | None = None,
) -> Plan:
    """The plan without a look at the output, which may exist (as it does when it is scored); errors as `make_plan`.

    `size`: width and height in place of those that the effort gives.
    """
    encoder = str(resolve_effort(effort).encoder)
    _check_distilled(encoder, effort, look)
    layers = check_layers(encoder, (*look.content_layers, *look.style_layers))
    shares = style_shares(styles)
    if machine.weights is not None and not os.path.isfile(machine.weights):
        raise InputError(f"--weights {machine.weights} is not a file; it takes the weights of {encoder}")
    files = Request(
        os.fspath(input), tuple(share.path for share in shares), options, coherence.cut_threshold, os.fspath(output)
    )
    with look_at(files) as at:
        info = at.info
        size = size or _size(info, effort, smallest_side(encoder, layers))
        found = at.finish()
    changing = settle_changing(
        {
            "effort": replace(resolve_effort(effort), size=max(size)),
            "look": _fill_weights(replace(look, style_layer_weights=_layer_weights(look)), look.loss),
            "coherence": _fill_weights(coherence, look.loss),
        },
        info,
        found,
        options,
    )
    return Plan(
        input=os.fspath(input),
        output=os.fspath(output),
        styles=shares,
        **changing.groups,
        options=options,
        machine=_settle_machine(machine),
        size=size,
        time_base=found.time_base,
        pts=found.pts,
        shots=found.shots,
        seeds=tuple(_seed(effort.seed, first) for first, _ in found.shots),
        curves=changing.curves,
    )


def settle_changing(
    groups: Mapping[str, Any],
    info: VideoInfo,
    found: Survey,
    options: OutputOptions,
    *,
    music: MusicOptions = MusicOptions(),
    layers: int = 1,
) -> Conducted:
    """The groups with numbers for schedules, and what changes; see `conduct`. Schedules and music begin with the first
    frame that is rendered, those of a still with the first of the clip.
    """
    start = found.pts[0] if options.still is None else info.start_pts
    times = [(pts - start) * found.time_base for pts in found.pts]
    last = times[-1] - times[-2] if len(times) > 1 else 1 / info.average_rate
    return conduct(
        groups,
        music,
        times,
        end=times[-1] + last,
        own=info,
        zero=start * found.time_base,
        first=round(times[0] * info.average_rate),
        total=None if options.still is None else _frames_of(info),
        layers=layers,
    )


def _frames_of(info: VideoInfo) -> int | None:
    """How many frames a video has by what it says of itself, which for a still has to do."""
    return info.declared_frames or (round(info.duration * info.average_rate) if info.duration else None)


def style_shares(styles: StyleLike | Sequence[StyleLike]) -> tuple[Style, ...]:
    """Style pictures as given -> paths with weights that sum to 1; UsageError where the weights cannot be."""
    single = isinstance(styles, str | os.PathLike) or (isinstance(styles, tuple) and _is_pair(styles))
    given: Sequence[Any] = [styles] if single else list(styles)  # type: ignore[arg-type]
    pairs = [item if _is_pair(item) else (item, 1.0) for item in given]
    weights = [float(weight) for _, weight in pairs]
    if not all(0 <= weight < float("inf") for weight in weights) or not sum(weights) > 0:
        shown = ", ".join(f"{path}={weight:g}" for (path, _), weight in zip(pairs, weights, strict=True)) or "no style"
        raise UsageError(f"got {shown}; styles need weights of 0 or more, one of them above 0")
    return tuple(Style(os.fspath(p), weight / sum(weights)) for (p, _), weight in zip(pairs, weights, strict=True))


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], int | float)


def _check_output(
    input: str | os.PathLike[str], styles: Iterable[Style], output: str | os.PathLike[str], options: OutputOptions
) -> str:
    """The kind of output this will be, once nothing speaks against writing it."""
    for style in styles:
        if os.path.exists(style.path) and os.path.exists(output) and os.path.samefile(style.path, output):
            raise UsageError(f"the output {os.fspath(output)} is a style picture; choose another name")
    kind = check_output(
        output,
        source=input,
        codec=options.codec,
        crf=options.crf,
        preset=options.preset,
        overwrite=options.overwrite,
    )
    if options.still is not None and kind != "picture":
        raise UsageError(f"--still renders a picture, not {os.fspath(output)}; name one, such as look.png")
    return kind


def _size(info: VideoInfo, effort: EffortOptions, smallest: int) -> tuple[int, int]:
    """Width and height of the output; a preset shrinks a large input but only a size asked for blows up a small one."""
    long_side = resolve_effort(effort).size
    assert long_side is not None
    size = scaled_size(info, long_side, upscale=effort.size is not None)
    if min(size) < smallest:
        raise InputError(
            f"{info.path} comes to {size[0]}x{size[1]} pixels, but these layers need {smallest} or more on each side; "
            f"choose a larger --size or shallower layers"
        )
    return size


def _check_distilled(encoder: str, effort: EffortOptions, look: LookOptions) -> None:
    """Refuse what a distilled network was not made for, instead of painting something else."""
    wrong = "--loss paper" if look.loss == "paper" else "--pooling max" if effort.pooling != "average" else None
    if encoder in DISTILLED and wrong:
        raise UsageError(f"{wrong} cannot be had from {encoder}, which is a small network; add --encoder vgg19")


def _layer_weights(look: LookOptions) -> tuple[float, ...]:
    """One weight for each style layer; equal unless they are given."""
    return look.style_layer_weights or (1.0,) * len(look.style_layers)


def _fill_weights(options: Any, loss: str) -> Any:
    """Options with every weight that was left at None taken from the chosen loss."""
    from nst_video.losses import NORMALISERS  # imports torch: only now that the inputs are known to be good

    missing = [item.name for item in fields(options) if getattr(options, item.name) is None]
    return replace(options, **{name: getattr(NORMALISERS[loss], name) for name in missing if name.endswith("_weight")})


def _settle_machine(machine: MachineOptions) -> MachineOptions:
    """Device, precision and threads that this machine has."""
    from nst_video.machine import resolve_machine  # imports torch

    return resolve_machine(machine)


def _seed(seed: int, first_frame: int) -> int:
    """The seed of a shot: a function of the user's seed and of where the shot begins, and of nothing else."""
    return int(np.random.SeedSequence([seed, first_frame]).generate_state(1)[0])
