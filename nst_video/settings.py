"""All that a render is told, in one value, and which of its options each command takes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from nst_video.dreaming.options import DreamOptions
from nst_video.dreaming.specs import pooling_for
from nst_video.errors import UsageError
from nst_video.fields import flag_name
from nst_video.kinds import Choice, Flag
from nst_video.music.options import MusicOptions
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions, MachineOptions, OutputOptions
from nst_video.plain import tuples
from nst_video.presets import DREAM_PRESETS, resolve_dream, resolve_effort


@dataclass(frozen=True)
class Settings:
    """The groups of options. dream: None where the frames are painted in a style."""

    effort: EffortOptions = field(default_factory=EffortOptions)
    look: LookOptions = field(default_factory=LookOptions)
    coherence: CoherenceOptions = field(default_factory=CoherenceOptions)
    options: OutputOptions = field(default_factory=OutputOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)
    music: MusicOptions = field(default_factory=MusicOptions)
    dream: DreamOptions | None = None

    @property
    def sections(self) -> "tuple[Section, ...]":
        """The options that mean something here."""
        return PAINT if self.dream is None else DREAM

    def resolved(self) -> "Settings":
        """The same with everything that a preset decides filled in."""
        if self.dream is None:
            return replace(self, effort=resolve_effort(self.effort))
        effort = resolve_effort(self.effort, DREAM_PRESETS)
        effort = replace(effort, pooling=pooling_for(str(effort.encoder)))
        return replace(self, effort=effort, dream=resolve_dream(self.dream, self.effort.quality, str(effort.encoder)))

    def values(self) -> dict[str, Any]:
        """Name -> value of every option that means something here, with those that a preset decides."""
        groups = vars(self.resolved())
        return {
            item.name: getattr(groups[section.group], item.name) for section in self.sections for item in section.items
        }


PREVIEW_SIDE = 192  # long side of a preview, in pixels

# Field of Settings -> the dataclass of its options.
GROUPS: Mapping[str, Any] = MappingProxyType(
    {
        "effort": EffortOptions,
        "look": LookOptions,
        "coherence": CoherenceOptions,
        "options": OutputOptions,
        "machine": MachineOptions,
        "music": MusicOptions,
        "dream": DreamOptions,
    }
)


@dataclass(frozen=True)
class Section:
    """Options that stand together in `--help` under a title: those of a group, or only the named ones.

    fixed: values of others of the group, where the command decides them.
    """

    title: str
    group: str
    names: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def items(self) -> Iterator[Field[Any]]:
        """The dataclass fields of its options."""
        return (item for item in fields(GROUPS[self.group]) if not self.names or item.name in self.names)


_OUTPUT_AND_MACHINE = (Section("output", "options"), Section("machine", "machine"))
# A dream goes on from the frame before, whatever that is; it has one lane.
_ONE_LANE = tuple(item.name for item in fields(MachineOptions) if item.name != "lanes")
PAINT = (
    Section("quality", "effort"),
    Section("look", "look"),
    Section("coherence", "coherence"),
    Section("music", "music"),
    *_OUTPUT_AND_MACHINE,
)
DREAM = (
    Section("quality", "effort", ("quality", "size", "encoder", "seed")),
    Section("dream", "dream"),
    Section("music", "music"),
    # A dream is only compared with the frame before.
    Section("coherence", "coherence", ("flow", "cut_threshold"), {"references": (1,)}),
    Section("output", "options"),
    Section("machine", "machine", _ONE_LANE, {"lanes": 1}),
)


def split_options(values: Mapping[str, Any], sections: Sequence[Section] = PAINT) -> Settings:
    """Named values -> settings; UsageError for a name that none of the sections has.

    >>> settings = split_options({"quality": "draft", "strength": 2})
    >>> settings.effort.quality, settings.look.strength
    ('draft', 2)
    >>> split_options({"quality": "draft", "zoom": 1.02}, DREAM).dream.zoom
    1.02
    """
    owners = {item.name: section for section in sections for item in section.items}
    for name in values:
        if name not in owners:
            raise UsageError(f"unknown option {name!r}; there are {', '.join(sorted(owners))}")
    made = {
        section.group: GROUPS[section.group](
            **section.fixed, **{name: value for name, value in values.items() if owners[name] is section}
        )
        for section in sections
    }
    return Settings(**made)


def in_keywords(message: str, sections: Sequence[Section] = PAINT) -> str:
    """A message that calls options by their names on the command line, as it is for callers from Python.

    >>> in_keywords("out.mp4 exists; give -y to overwrite it, or --size 96, or a smaller --style-scale")
    'out.mp4 exists; give overwrite=True to overwrite it, or size=96, or a smaller style_scale'
    """
    items = [item for section in sections for item in section.items]
    called = {item.metadata["short"]: item for item in items} | {flag_name(item.name): item for item in items}

    def keyword(match: re.Match[str]) -> str:
        if match["flag"] not in called:
            return match[0]
        item, value = called[match["flag"]], match["value"]
        kind = item.metadata["kind"]
        if isinstance(kind, Flag) and match["refused"] is None:
            return f"{item.name}=True{match['rest']}"
        if isinstance(kind, Choice) and value in kind.names:
            return f'{item.name}="{value}"'
        number = value and re.fullmatch(r"[\d.]*\d|[A-Z]{3,}", value)
        return f"{item.name}={value}" if number else f"{item.name}{match['rest']}"

    flag, value = r"(?<![\w/-])(?P<flag>--[a-z-]*[a-z]|-y)(?![\w-])", r"(?P<rest>(?: (?P<value>[\w.]*\w))?)"
    return re.sub(rf"{flag}(?P<refused>(?= \S+ is ))?{value}", keyword, message)


def preview(settings: Settings, seconds: Fraction, *, of_picture: bool = False) -> Settings:
    """The settings for a short piece of that many seconds, small and quick: to see what comes before it is rendered.
    of_picture: it is made of a single one, which lasts as long as it is told to.
    """
    options, effort = settings.options, settings.effort
    if seconds == 0:
        raise UsageError("--preview 0 leaves no frame; allowed more than 0 seconds")
    if options.still is not None:
        raise UsageError("--still renders one frame and --preview a few seconds; give one of them")
    end = (options.start or 0) + seconds
    size = PREVIEW_SIDE if effort.size in (None, "full") else min(int(effort.size), PREVIEW_SIDE)
    if of_picture and options.duration is None and settings.music.music is None:
        options = replace(options, duration=end)
    return replace(
        settings,
        options=replace(options, end=end if options.end is None else min(options.end, end)),
        effort=replace(effort, quality="draft", size=size),
    )


def groups_from_json(data: Mapping[str, Any]) -> dict[str, Any]:
    """The groups in plain JSON types as their dataclasses; None for one that was not there when it was written."""
    return {name: kind(**tuples(data[name])) if data.get(name) else None for name, kind in GROUPS.items()}
