"""What is written down of a job: the manifest, which says what is rendered, and the ledger of what is finished."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nst_video.errors import InputError, UsageError
from nst_video.media.segments import KeptFile
from nst_video.plain import tuples
from nst_video.plan import Plan

VERSION = 3


@dataclass(frozen=True)
class Sealed:
    """A finished segment, frames `first` up to `last`: encoded, or without loss, or both. `delay`: how many of its
    packets are decoded before its first frame can be shown.
    """

    first: int
    last: int
    pts: tuple[int, int]
    video: KeptFile | None = None
    delay: int = 0
    frames: KeptFile | None = None

    @property
    def files(self) -> list[KeptFile]:
        """Those that are there."""
        return [file for file in (self.video, self.frames) if file is not None]

    def is_whole(self, folder: Path) -> bool:
        """Whether its files are there and unchanged."""
        return all(file.is_whole(folder) for file in self.files)


@dataclass(frozen=True)
class Checkpoint:
    """Where to go on after `seconds` of work. at: of each lane, the next frame to paint. state: what the frames before
    those left, None where all of these begin a shot. seen: CRC-32 of each lane's last input pictures, by which they are
    known again.
    """

    at: tuple[int, ...]
    seconds: float
    state: KeptFile | None = None
    seen: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Ledger:
    """What is finished; sealed segments in the order of their frames. published: the output that was about to get its
    name, and its summary.
    """

    sealed: tuple[Sealed, ...] = ()
    checkpoint: Checkpoint | None = None
    published: KeptFile | None = None
    summary: dict[str, Any] | None = None
    removing: bool = False

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return _json_bytes(asdict(self))

    @staticmethod
    def read(path: Path) -> "Ledger":
        """The ledger in a file, or an empty one where none was written yet; InputError where it is damaged."""
        try:
            return Ledger.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Ledger()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is damaged; give --restart to begin anew") from error

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Ledger":
        """The ledger that `to_bytes` wrote, as JSON types; some error of Python's for any other."""
        sealed = tuple(
            Sealed(**{**one, "pts": tuple(one["pts"]), "video": _file(one["video"]), "frames": _file(one["frames"])})
            for one in data["sealed"]
        )
        point = data["checkpoint"]
        checkpoint = point and Checkpoint(**tuples(point) | {"state": _file(point["state"])})
        return Ledger(**{**data, "sealed": sealed, "checkpoint": checkpoint, "published": _file(data["published"])})


@dataclass(frozen=True)
class Manifest:
    """What is rendered. command: how to go on, for people; reports: files that belong to this render."""

    fingerprint: dict[str, Any]
    encoding: dict[str, Any]
    processor: str
    plan: Plan
    command: str = ""
    reports: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The content of the file."""
        facts = {item: getattr(self, item) for item in self.__dataclass_fields__}
        return _json_bytes({"version": VERSION, **facts, "plan": self.plan.to_json()}, indent=None)

    @staticmethod
    def read(path: Path) -> "Manifest":
        """The manifest in a file; InputError for one that this program cannot have written."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("version") != VERSION:
                raise InputError(f"{path} is of another version of this program; use that one, or give --restart")
            plan = Plan.from_json(data["plan"])
            return Manifest(**{**data, "plan": plan, "reports": tuple(data["reports"])})
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise InputError(f"{path} is damaged; give --restart to begin anew") from error


def _file(data: Mapping[str, str] | None) -> KeptFile | None:
    """A file of the folder; ValueError for a name that leads out of it."""
    if data is not None and os.path.basename(data["name"]) != data["name"]:
        raise ValueError(f"{data['name']} is not in the folder")
    return None if data is None else KeptFile(**data)


def _json_bytes(value: object, indent: int | None = 1) -> bytes:
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()
