"""Command-line arguments made from the fields of the options' dataclasses."""

import argparse
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any, NoReturn

from nst_video.errors import UsageError
from nst_video.fields import flag_name, parse_option, parse_report
from nst_video.kinds import Choice, Curve, File, Flag, Kind, Repeated
from nst_video.settings import PAINT, Section
from nst_video.words import nearest

HIDDEN = {"help": argparse.SUPPRESS}  # of an option that is accepted, and not listed


class Parser(argparse.ArgumentParser):
    """Wrong usage ends in one line like every other error, instead of in the whole synopsis."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Wrong usage."""
        unknown = re.match(r"unrecognized arguments: (--[^ =]+)", message)
        message += nearest(unknown[1], self._option_string_actions, most=1) if unknown else ""
        raise UsageError(f"{message}; see {self.prog} --help")


def add_options(
    parser: argparse.ArgumentParser,
    sections: Sequence[Section] = PAINT,
    *,
    style_help: str | None = None,
    told: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Add every option of the sections, and with the look, where there is help for it, the repeatable --style. told:
    by the names of fields, what `--help` says in place of their metadata; HIDDEN leaves one out.
    """
    taken = {flag_name(item.name) for section in sections for item in section.items}
    for section in sections:
        group = add_fields(parser, section.title, section.items, taken, told)
        if section.title == "look" and style_help:
            group.add_argument(
                "--style", dest="styles", metavar="FILE=WEIGHT", action="append", default=[], help=style_help
            )


def add_fields(
    parser: argparse.ArgumentParser,
    title: str,
    items: Iterable[Field[Any]],
    taken: Collection[str] = (),
    told: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Any:
    """Add fields of a dataclass of options under a title; the group that they are in. A short name is left out where
    it is among the `taken` ones; told: see `add_options`.
    """
    group = parser.add_argument_group(title)
    for item in items:
        short = None if item.metadata["short"] in taken else item.metadata["short"]
        _add_option(group, item.name, item.default, **{**item.metadata, "short": short, **told.get(item.name, {})})
    return group


def _add_option(
    section: Any, name: str, default: Any, *, kind: Any, help: str, metavar: str | None, short: str | None, unset: str
) -> None:
    """One field of an options dataclass as an argument."""
    flags = [short, flag_name(name)] if short else [flag_name(name)]
    if isinstance(kind, Flag):
        section.add_argument(*flags, action="store_true", default=default, help=help)
        return
    if isinstance(kind, Curve) and help != argparse.SUPPRESS:
        help = f"{help}; a number or a schedule"
    choices = "{" + ",".join(kind.names) + "}" if isinstance(kind, Choice) else None
    shown = unset if default is None else ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    section.add_argument(
        *flags,
        dest=name,
        metavar=metavar or choices or "VALUE",
        action=parsing(kind),
        default=default,
        help=f"{help} (default: {shown})" if shown and help != argparse.SUPPRESS else help,
    )


def add_report(group: Any, flag: str, help: str) -> None:
    """Add an option for a file that a report is written to."""
    group.add_argument(flag, metavar="FILE", action=_Once, type=parse_report(flag), help=help)


class _Once(argparse.Action):
    """Takes the name of a file, once: of two, nobody meant the first to be left out."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        if before != self.default:
            raise UsageError(f"{option} is given twice, as {before} and {values}; give it once")
        setattr(namespace, self.dest, values)


def parsing(kind: Kind) -> type[argparse.Action]:
    """What takes a value of that kind, and in an error calls the option by the name that was typed; of one that is
    given several times it takes one more.
    """

    class Parsing(_Once):
        """With the kind."""

        def __call__(
            self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None
        ) -> None:
            value = parse_option(str(option), values, kind)
            if isinstance(kind, File):
                super().__call__(parser, namespace, value, option)
            else:
                before = getattr(namespace, self.dest)
                setattr(namespace, self.dest, (*before, value) if isinstance(kind, Repeated) else value)

    return Parsing


def given_options(args: argparse.Namespace, sections: Sequence[Section] = PAINT) -> dict[str, Any]:
    """The values of all options of the sections by name."""
    return {item.name: getattr(args, item.name) for section in sections for item in section.items}


def parse_style(text: str) -> tuple[str, float]:
    """FILE or FILE=WEIGHT -> (file, weight); a file whose own name looks like FILE=WEIGHT is taken as it is.

    >>> parse_style("night.jpg=0.3"), parse_style("night.jpg")
    (('night.jpg', 0.3), ('night.jpg', 1.0))
    """
    file, equals, weight = text.rpartition("=")
    if not equals or os.path.exists(text):
        return text, 1.0
    try:
        return file, float(weight)
    except ValueError:
        return text, 1.0


def made_of(args: argparse.Namespace, group: Any) -> Any:
    """The dataclass of options with what was given for its fields; UsageError for what is out of range."""
    given = vars(args)
    return group(**{item.name: given[item.name] for item in fields(group) if item.name in given})
