"""Options that change while a render goes on: schedules by hand and drives by music become one value for each frame.

It is done once, while planning: the values go into the plan, so that a render that is gone on with needs neither the
music nor the schedules again and gets the same values. `settle_curves` makes them, `controls_at` hands them out:

    clock = Clock(times, beats)                                        # seconds of the frames, from the first one on
    groups, curves = settle_curves({"dream": options}, clock, music, drives, layers=2)
    controls = controls_at(curves, frame, time=now, dt=dt)             # for each frame, in the render
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from nst_video.controls import Controls
from nst_video.errors import UsageError, pointed
from nst_video.fields import flag_name
from nst_video.kinds import Curve
from nst_video.schedules import Clock, ScheduleError, is_schedule, parse_schedule
from nst_video.words import nearest

if TYPE_CHECKING:
    from nst_video.music.drives import Drive
    from nst_video.music.heard import Music

Curves = dict[str, tuple[float, ...]]

LAYER = "layer"  # what a drive calls the mix of the layers
FADE = "layer_fade"  # the option that is no value for the frames, but makes the mix of the layers
_MIX = "layer_mix"
_PART = "."  # between the name of a field that is a tuple and the place in it: layer_mix.0


@dataclass(frozen=True)
class _Option:
    """An option that may change: the group it is in, its name, its kind and what was given."""

    group: str
    name: str
    kind: Curve
    value: Any


def _options(groups: Mapping[str, Any]) -> Iterator[_Option]:
    for group, options in groups.items():
        for item in fields(options):
            kind = item.metadata.get("kind")
            if isinstance(kind, Curve):
                yield _Option(group, item.name, kind, getattr(options, item.name))


def needs_beats(groups: Mapping[str, Any]) -> str | None:
    """The first option, as a flag, whose schedule speaks of beats; None where none does."""
    for option in _options(groups):
        if is_schedule(option.value) and parse_schedule(option.value).needs_beats:
            return flag_name(option.name)
    return None


def settle_curves(
    groups: Mapping[str, Any],
    clock: Clock,
    music: "Music | None" = None,
    drives: "Sequence[Drive]" = (),
    *,
    layers: int = 1,
) -> tuple[dict[str, Any], Curves]:
    """Every option of `groups` (name -> options dataclass) that is a schedule or is driven -> one value for each frame.

    A drive adds to what its option is at that frame, by schedule or not; drives of one option add up; the sum is
    clipped to what the option allows. `layers`: how many there are to dream; drives of `layer` and the option
    layer_fade give each its weight, the mean of all that do.

    Returns the groups with the value of the first frame in place of each schedule, and the values by option name;
    those of the mix of layers as layer_mix.0, layer_mix.1 ...

    Raises:
        UsageError: a schedule that leaves its option's range, speaks of beats where the clock has none, or has two
            keyframes at one time; a drive of something that cannot be driven.
        InputError: a drive by music that is silent, or by beats where there are none.
    """
    found: Curves = {}
    options = {option.name: option for option in _options(groups)}
    for option in options.values():
        if is_schedule(option.value):
            found[option.name] = tuple(_followed(option, clock))
    for name, mine in _by_target(drives, options).items():
        if name != LAYER:
            found[name] = _driven(options[name], found.get(name), mine, music, clock)
    settled = _settled(groups, found)
    fade = found.pop(FADE, None)
    if fade is None and FADE in options and options[FADE].value is not None:
        fade = (float(options[FADE].value),) * clock.frames
    return settled, found | _mixed([drive for drive in drives if drive.target == LAYER], fade, music, clock, layers)


def controls_at(curves: Mapping[str, Sequence[float]], frame: int, *, time: float = 0.0, dt: float = 0.0) -> Controls:
    """The controls of frame number `frame` (from 0), which is shown at `time`, `dt` seconds after the one before.

    >>> controls_at({"strength": (0.0, 0.5), "layer_mix.0": (1, 0), "layer_mix.1": (0, 1)}, 1).layer_mix
    (0, 1)
    """
    single: dict[str, Any] = {name: values[frame] for name, values in curves.items() if _PART not in name}
    mix = tuple(curves[name][frame] for name in sorted(curves, key=_place) if name.startswith(_MIX + _PART))
    return Controls(time=time, dt=dt, layer_mix=mix or None, **single)


def _place(name: str) -> int:
    return int(name.partition(_PART)[2] or -1)


def _followed(option: _Option, clock: Clock) -> list[float]:
    """The values of a schedule, all of them in range."""
    flag = flag_name(option.name)
    schedule = parse_schedule(option.value)
    if schedule.needs_beats and not clock.beats:
        raise UsageError(f"{flag} {option.value} speaks of beats, but there is no music to take them from; use seconds")
    try:
        values = schedule.values(clock)
    except ScheduleError as error:
        raise error.as_usage(flag) from None
    for frame, value in enumerate(values):
        if not option.kind.low <= value <= option.kind.high:
            raise UsageError(
                f"{flag} {option.value} is {value:g} at frame {frame + clock.first}; allowed {option.kind.range()}"
            )
    return [float(round(value)) for value in values] if option.kind.whole else values


def _by_target(drives: "Sequence[Drive]", options: Mapping[str, _Option]) -> "dict[str, list[Drive]]":
    """The drives of each option; UsageError for what is no option that may change."""
    found: dict[str, list[Drive]] = {}
    for drive in drives:
        names = [*([LAYER] if FADE in options else []), *(name for name in options if name != FADE)]
        if drive.target not in names:
            raise UsageError(
                f"--drive: {drive.target!r} is nothing that can be driven{nearest(drive.target, names)}; "
                f"there are {', '.join(names)}",
                detail=pointed(drive.text, 0),
            )
        found.setdefault(drive.target, []).append(drive)
    return found


def _driven(
    option: _Option, base: Sequence[float] | None, drives: "Sequence[Drive]", music: "Music | None", clock: Clock
) -> tuple[float, ...]:
    values = list(base) if base is not None else [float(option.value)] * clock.frames
    for drive in drives:
        values = [value + added for value, added in zip(values, drive.values(music, clock), strict=True)]
    return tuple(option.kind.clipped(value) for value in values)


def _mixed(
    drives: "Sequence[Drive]", fade: Sequence[float] | None, music: "Music | None", clock: Clock, layers: int
) -> Curves:
    """The weight of every layer at every frame, with a mean of 1 over the layers."""
    if not drives and fade is None:
        return {}
    if layers < 2:
        what = f"--drive {drives[0].text}" if drives else flag_name(FADE)
        raise UsageError(f"{what} mixes layers, and there is one; give --layers two or more, separated by commas")
    from nst_video.music.drives import dealt, faded

    parts = [dealt(drive, music, clock, layers).tolist() for drive in drives]
    parts += [faded(fade, layers).tolist()] if fade is not None else []
    mix = [[fmean(values) for values in zip(*rows, strict=True)] for rows in zip(*parts, strict=True)]
    return {f"{_MIX}{_PART}{layer}": tuple(weights) for layer, weights in enumerate(mix)}


def _settled(groups: Mapping[str, Any], curves: Curves) -> dict[str, Any]:
    first = {option.name: option.kind for option in _options(groups) if option.name in curves}
    return {
        group: replace(
            options,
            **{
                item.name: (int if first[item.name].whole else float)(curves[item.name][0])
                for item in fields(options)
                if item.name in first
            },
        )
        for group, options in groups.items()
    }
