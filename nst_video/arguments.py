"""Command-line arguments made from the fields of the dataclasses in options.py."""

import argparse
import os
from dataclasses import fields
from typing import Any, NoReturn

from nst_video.errors import UsageError
from nst_video.kinds import Choice, Flag
from nst_video.options import OPTION_GROUPS, flag_name, parse_option


class Parser(argparse.ArgumentParser):
    """Wrong usage ends in one line like every other error, instead of in the whole synopsis."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Wrong usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


def add_options(parser: argparse.ArgumentParser, *, style_help: str) -> None:
    """Add every field of the options' dataclasses, by group, and the repeatable --style."""
    for title, group in OPTION_GROUPS.items():
        section = parser.add_argument_group(title)
        for item in fields(group):
            _add_option(section, item.name, item.default, **item.metadata)
        if title == "look":
            section.add_argument(
                "--style", dest="styles", metavar="FILE=WEIGHT", action="append", default=[], help=style_help
            )


def _add_option(
    section: Any, name: str, default: Any, *, kind: Any, help: str, metavar: str | None, short: str | None, unset: str
) -> None:
    """One field of an options dataclass as an argument; its range is checked where the dataclass is made."""
    flags = [short, flag_name(name)] if short else [flag_name(name)]
    if isinstance(kind, Flag):
        section.add_argument(*flags, action="store_true", default=default, help=help)
        return
    choices = "{" + ",".join(kind.names) + "}" if isinstance(kind, Choice) else None
    shown = unset if default is None else ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    section.add_argument(
        *flags,
        metavar=metavar or choices or "VALUE",
        type=parse_option(name, kind),
        default=default,
        help=f"{help} (default: {shown})" if shown else help,
    )


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """The values of all option fields by name."""
    return {item.name: getattr(args, item.name) for group in OPTION_GROUPS.values() for item in fields(group)}


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


def add_fields(parser: argparse.ArgumentParser, title: str, group: Any) -> None:
    """Add every field of one dataclass of options, as a section of its own."""
    section = parser.add_argument_group(title)
    for item in fields(group):
        _add_option(section, item.name, item.default, **item.metadata)


def made_of(args: argparse.Namespace, group: Any) -> Any:
    """The dataclass of options with what was given for its fields; UsageError for what is out of range."""
    return group(**{item.name: getattr(args, item.name) for item in fields(group)})
