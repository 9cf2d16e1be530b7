"""Making a plan: everything that a user can get wrong is found here, before torch is imported."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from nst_video.ahead import begin_import
from nst_video.curves import Curves
from nst_video.devices.memory import available_memory
from nst_video.dreaming.options import DreamOptions
from nst_video.dreaming.specs import check_octaves, dreamed_layers, tile_for
from nst_video.errors import InputError, UsageError
from nst_video.media.destination import check_output, output_kind, settle_encoding
from nst_video.media.gif_times import check_gif_times
from nst_video.media.guarded import look as look_at
from nst_video.media.survey import Request, Survey, with_duration
from nst_video.media.videoinfo import VideoInfo, scaled_size
from nst_video.music.conduct import conduct
from nst_video.music.drives import parse_drives
from nst_video.networks.layers import DISTILLED, check_layers, smallest_side
from nst_video.optimization.budget import fitted, given_up
from nst_video.optimization.tiles import overlap_of
from nst_video.options import EffortOptions, LookOptions, MachineOptions
from nst_video.painting.lanecount import with_lanes
from nst_video.plan import Plan, Style, named_files
from nst_video.presets import Balance, balance_of
from nst_video.settings import Settings
from nst_video.timeline import Timeline

StyleLike = str | os.PathLike[str] | tuple[str | os.PathLike[str], float]

log = logging.getLogger(__name__)


def make_plan(
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    **groups: Any,
) -> Plan:
    """Look at the input once, check everything, and settle every setting.

    Args:
        input: a video, an animated picture, a folder or pattern of pictures, or a single picture.
        styles: a picture, or several, each a path or (path, weight) with weight 1 where none is given.
        output: where the result will be written; nothing is written yet.
        groups: the groups of options that are not the defaults, by their names in `Settings`.

    Raises:
        UsageError: settings that exclude each other, an unknown layer, an output that exists or is the input.
        InputError: an input or a style picture that cannot be used.
        ResourceError: an output folder that is missing or cannot be written to.
    """
    settings = Settings(**groups)
    settings = replace(settings, options=settle_encoding(settings.options, output))
    shares = shares_of(styles, settings)
    kind = _check_output(input, shares, output, settings)
    plan = settle(input, styles, output, settings)
    if kind != "picture":
        plan = with_lanes(plan)
    less = given_up(settings.effort, plan.effort)
    if less:
        log.warning("%s takes more memory than there is: %s", "x".join(map(str, plan.size)), less)
    if kind == "picture" and plan.frames > 1:
        raise UsageError(
            f"{os.fspath(output)} is one picture but there are {plan.frames} frames; "
            f"add --still TIME, or write a sequence such as frames/%05d.png"
        )
    if kind == "gif":
        check_gif_times(output, plan.times, lambda: _every_time(plan))
    return plan


def settle(
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    settings: Settings,
    *,
    size: tuple[int, int] | None = None,
) -> Plan:
    """The plan without a look at the output, which may exist (as it does when it is scored); errors as `make_plan`.

    `size`: width and height in place of those that the effort gives.
    """
    enlarges = settings.effort.size is not None  # a preset shrinks a large input, but does not blow up a small one
    settings = settings.resolved()
    effort, options, machine = settings.effort, settings.options, settings.machine
    layers = _check_dream(settings) if settings.dream else _check_look(settings)
    parse_drives(settings.music.drive)
    shares = shares_of(styles, settings)
    if machine.weights is not None and not os.path.isfile(machine.weights):
        raise InputError(f"--weights {machine.weights} is not a file; it takes the weights of {effort.encoder}")
    with look_at(request_of(input, shares, output, settings)) as at:
        info = at.info
        if size is None:  # else there is an output, as long as it is
            _check_length(settings, info, output)
        size = size or _size(info, effort, smallest_side(str(effort.encoder), layers), enlarges)
        if settings.dream:
            dream, encoder = settings.dream, str(effort.encoder)
            check_octaves(size[::-1], dream.octaves, dream.octave_scale, encoder, layers)
        at.pictures()
        begin_import("torch")  # while the child decodes; what can be wrong now is wrong seldom
        found = at.finish()
    settings = replace(settings, options=with_duration(options, found.song, os.fspath(input)))
    settings, curves = _settle_changing(_settle_weights(settings), info, found)
    machine = _settle_machine(machine, settings.coherence.flow)
    available = available_memory(machine.device, machine.memory_limit)
    effort = replace(settings.effort, size=max(size))
    if settings.dream is None:
        effort = fitted(
            effort, settings.look, machine, size, available, flow=settings.coherence.flow, still=len(found.pts) == 1
        )
    return Plan(
        input=os.fspath(input),
        output=os.fspath(output),
        styles=shares,
        **vars(settings)
        | {
            "effort": effort,
            "machine": machine,
            "dream": _settle_tile(settings.dream, size, available),
        },
        size=size,
        time_base=found.time_base,
        pts=found.pts,
        end=found.end,
        shots=found.shots,
        seeds=tuple(_seed(effort.seed, first) for first, _ in found.shots),
        song=found.song,
        curves=curves,
    )


def _every_time(plan: Plan) -> list[Fraction]:
    """The times of the plan with a stride of 1, for which its input is looked at again where it has another."""
    if plan.options.stride == 1:
        return plan.times
    options = replace(plan.options, stride=1)
    with look_at(Request(plan.input, (), options, plan.coherence.cut_threshold)) as at:
        at.pictures()
        found = at.finish()
    return [edge * found.time_base for edge in (*found.pts, found.end)]


def request_of(
    input: str | os.PathLike[str], shares: Sequence[Style], output: str | os.PathLike[str], settings: Settings
) -> Request:
    """What is to be looked at before anything of it is decoded here."""
    return Request(
        os.fspath(input),
        tuple(share.path for share in shares),
        settings.options,
        settings.coherence.cut_threshold,
        os.fspath(output),
        guide=settings.dream.guide if settings.dream else None,
        music=settings.music.music,
        music_end=settings.music.music_end,
        music_start=settings.music.music_start,
    )


def shares_of(styles: StyleLike | Sequence[StyleLike], settings: Settings) -> tuple[Style, ...]:
    """The shares of the style pictures of a render; a dream has none."""
    return style_shares(styles) if settings.dream is None else ()


def _settle_changing(settings: Settings, info: VideoInfo, found: Survey) -> tuple[Settings, Curves]:
    """The settings with numbers for schedules, and the value of everything that changes for every frame."""
    names = ("effort", "look", "coherence") if settings.dream is None else ("dream",)
    line = Timeline.of(info, (*found.pts, found.end), settings.options)
    changing = conduct(
        {name: getattr(settings, name) for name in names},
        settings.music,
        line.times,
        end=line.end,
        own=info,
        zero=line.zero,
        first=line.first,
        total=line.total,
        layers=len(settings.dream.layers) if settings.dream else 1,
    )
    return replace(settings, **changing.groups), changing.curves


def style_shares(styles: StyleLike | Sequence[StyleLike]) -> tuple[Style, ...]:
    """Style pictures as given -> paths with weights that sum to 1; UsageError where the weights cannot be."""
    single = isinstance(styles, str | os.PathLike) or (isinstance(styles, tuple) and _is_pair(styles))
    given: Sequence[Any] = [styles] if single or not isinstance(styles, Iterable) else list(styles)
    pairs = [item if _is_pair(item) else (item, 1.0) for item in given]
    for path, _ in pairs:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"a style is {path!r}; give the name of a picture, (name, weight), or a list of such")
    weights = [float(weight) for _, weight in pairs]
    if not all(0 <= weight < float("inf") for weight in weights) or not sum(weights) > 0:
        shown = ", ".join(f"{path}={weight:g}" for (path, _), weight in zip(pairs, weights, strict=True)) or "no style"
        raise UsageError(f"got {shown}; styles need weights of 0 or more, one of them above 0")
    return tuple(Style(os.fspath(p), weight / sum(weights)) for (p, _), weight in zip(pairs, weights, strict=True))


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], Real)


def _check_output(
    input: str | os.PathLike[str], styles: Iterable[Style], output: str | os.PathLike[str], settings: Settings
) -> str:
    """The kind of output this will be, once nothing speaks against writing it."""
    options = settings.options
    kind = check_output(
        output,
        sources=named_files(input, styles, settings),
        **options.encoding,
        overwrite=options.overwrite,
    )
    if options.still is not None and kind != "picture":
        raise UsageError(f"--still renders a picture, not {os.fspath(output)}; name one, such as look.png")
    return kind


def _size(info: VideoInfo, effort: EffortOptions, smallest: int, enlarges: bool) -> tuple[int, int]:
    """Width and height of the output."""
    assert effort.size is not None
    size = scaled_size(info, effort.size, upscale=enlarges)
    if min(size) < smallest:
        raise InputError(
            f"{info.path} comes to {size[0]}x{size[1]} pixels, but these layers need {smallest} or more on each side; "
            f"choose a larger --size or shallower layers"
        )
    return size


def _check_look(settings: Settings) -> tuple[str, ...]:
    """The layers that painting needs, once nothing speaks against the encoder."""
    encoder, look = str(settings.effort.encoder), settings.look
    _check_distilled(settings)
    layers = check_layers(encoder, (*look.content_layers, *look.style_layers))
    if settings.effort.tile is not None:
        overlap_of(encoder, layers)  # refuses networks of which tiles would not give the same picture
    return layers


def _check_dream(settings: Settings) -> tuple[str, ...]:
    """The layers that dreaming needs, once nothing speaks against the encoder."""
    assert settings.dream is not None
    return dreamed_layers(settings.dream.layers, str(settings.effort.encoder))


def _check_length(settings: Settings, info: VideoInfo, output: str | os.PathLike[str]) -> None:
    """UsageError for a video of one picture that is not told how long it is."""
    open_ended = settings.options.duration is None and settings.music.music is None
    if info.kind == "picture" and open_ended and output_kind(output) != "picture":
        raise UsageError(
            f"{info.path} is one picture; say how long {os.fspath(output)} is, with --duration 20 or --music FILE"
        )


def _settle_tile(dream: DreamOptions | None, size: tuple[int, int], available: int | None) -> DreamOptions | None:
    """The dream with the tiles that the memory asks for now, so that a render that goes on later has the same."""
    if dream is None or dream.tile is not None:
        return dream
    return replace(dream, tile=tile_for(size[::-1], available))


def _check_distilled(settings: Settings) -> None:
    """Refuse what a distilled network was not made for, instead of painting something else."""
    encoder, effort, look = str(settings.effort.encoder), settings.effort, settings.look
    wrong = "--loss paper" if look.loss == "paper" else "--pooling max" if effort.pooling != "average" else None
    if encoder in DISTILLED and wrong:
        raise UsageError(f"{wrong} cannot be had from {encoder}, which is a small network; add --encoder vgg19")


def _layer_weights(look: LookOptions, balance: Balance) -> tuple[float, ...]:
    """One weight for each style layer; the encoder's unless they are given."""
    return look.style_layer_weights or tuple(balance.layers.get(layer, 1.0) for layer in look.style_layers)


def _settle_weights(settings: Settings) -> Settings:
    """The settings with no weight of the painting's loss left open."""
    if settings.dream is not None:
        return settings
    look, balance = settings.look, balance_of(settings.effort.encoder)
    return replace(
        settings,
        look=_fill_weights(replace(look, style_layer_weights=_layer_weights(look, balance)), look.loss, balance),
        coherence=_fill_weights(settings.coherence, look.loss, balance),
    )


def _fill_weights(options: Any, loss: str, balance: Balance) -> Any:
    """Options with every weight that was left at None taken from the chosen loss, as the encoder needs it."""
    from nst_video.optimization.losses import (
        NORMALISERS,  # imports torch: only now that the inputs are known to be good
    )

    missing = [item.name for item in fields(options) if getattr(options, item.name) is None]
    weights = [name for name in missing if name.endswith("_weight")]
    return replace(
        options, **{name: getattr(NORMALISERS[loss], name) * getattr(balance, name, 1.0) for name in weights}
    )


def _settle_machine(machine: MachineOptions, flow: str) -> MachineOptions:
    """Device, precision and threads that this machine has; UsageError where it cannot find such a flow."""
    from nst_video.devices.machine import resolve_machine  # imports torch

    machine = resolve_machine(machine)
    if flow == "gpu":
        from nst_video.flow.motion import flow_on

        flow_on(machine.device)
    return machine


def _seed(seed: int, first_frame: int) -> int:
    """The seed of a shot: a function of the user's seed and of where the shot begins, and of nothing else."""
    return int(np.random.SeedSequence([seed, first_frame]).generate_state(1)[0])
