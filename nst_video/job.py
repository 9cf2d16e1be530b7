"""The folder beside an output that holds what is finished of it, so that a render can be stopped anywhere and gone on
with.

    OUT.nst/manifest.json            what is rendered: fingerprint, encoding, plan; written once
            ledger.json              what is finished: sealed segments and their hashes, the checkpoint
            segment-00003.video      a sealed segment: encoded packets, and the rows of its frames
            segment-00004.frames     an open segment, one of each lane: its frames without loss, as they are painted
            state-5ef1a09cd3b7e642.safetensors   what the last frame of each lane left for the next
            pair-00000400.png        a frame beside its painted one, small, for the contact sheet
            lock                     who works on it

A file is written under another name, flushed to the disk and renamed before the ledger, written with the same care,
names it. What the ledger does not name is left over from a process that was killed, and is removed.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from nst_video.codecs import folder_and_pattern, output_kind
from nst_video.errors import InputError, ResourceError, UsageError
from nst_video.files import JOB_SUFFIX, sync_folder, write_whole
from nst_video.joblock import NAME as LOCK
from nst_video.joblock import JobLock
from nst_video.lossless import intact
from nst_video.pictures import read_picture
from nst_video.plain import tuples
from nst_video.plan import Plan
from nst_video.segments import KeptFile, segment_rows

VERSION = 3
MANIFEST, LEDGER = "manifest.json", "ledger.json"
PART = "output.part"  # the output while it is put together
# How the names of all files begin that this program makes in the folder, the lock aside.
_OURS = (MANIFEST, LEDGER, PART, "segment-", "state-", "pair-", ".manifest", ".ledger", ".state", ".pair")


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


@dataclass
class Job:
    """One render on disk. Whoever changes it holds its lock; it is given back when the `with` block ends."""

    folder: Path
    manifest: Manifest
    ledger: Ledger = field(default_factory=Ledger)
    lock: JobLock | None = None
    _changing: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @property
    def plan(self) -> Plan:
        """What is rendered."""
        return self.manifest.plan

    @property
    def kind(self) -> str:
        """The kind of output: video, gif or sequence."""
        return output_kind(self.plan.output)

    @property
    def segments(self) -> tuple[tuple[int, int], ...]:
        """All segments there will be, as (first frame, last + 1)."""
        return self.plan.segments

    @property
    def positions(self) -> tuple[int, ...]:
        """Of each lane, the next frame to paint, as the ledger says."""
        point = self.ledger.checkpoint
        return point.at if point is not None else tuple(lane.start for lane in self.plan.ranges)

    @property
    def done(self) -> int:
        """How many frames are finished."""
        at = zip(self.plan.ranges, self.positions, strict=True)
        return sum(max(0, position - lane.first) for lane, position in at)

    @property
    def finished(self) -> tuple[int, ...]:
        """How many frames of each segment are finished."""
        lanes = list(zip(self.plan.ranges, self.positions, strict=True))
        reached = [next(at for lane, at in lanes if lane.first <= first < lane.last) for first, _ in self.segments]
        return tuple(
            max(0, min(position, last) - first) for position, (first, last) in zip(reached, self.segments, strict=True)
        )

    @property
    def sealed(self) -> dict[int, Sealed]:
        """The sealed segments by their number."""
        numbers = {first: number for number, (first, _) in enumerate(self.segments)}
        return {numbers[one.first]: one for one in self.ledger.sealed}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self.done:
            remove_folder(self.folder, self.lock)  # nothing in it is worth keeping
        elif self.lock is not None:
            self.lock.release()

    def path(self, name: str) -> Path:
        """A file of the folder."""
        return self.folder / name

    def frames_path(self, segment: int) -> Path:
        """Where the frames of a segment are kept without loss."""
        return self.path(f"segment-{segment:05}.frames")

    def video_path(self, segment: int) -> Path:
        """Where the encoded packets of a segment are kept."""
        return self.path(f"segment-{segment:05}.video")

    def pair_path(self, frame: int) -> Path:
        """Where a frame is kept beside its painted one, small."""
        return self.path(f"pair-{frame:08}.png")

    def record(self, **changes: Any) -> None:
        """Enter into the ledger what has become true, durably."""
        self._record(lambda ledger: replace(ledger, **changes))

    def seal(self, *sealed: Sealed) -> None:
        """Enter segments that have been sealed, or sealed anew, durably."""

        def enter(ledger: Ledger) -> Ledger:
            others = {one.first: one for one in ledger.sealed} | {one.first: one for one in sealed}
            return replace(ledger, sealed=tuple(others[first] for first in sorted(others)))

        self._record(enter)

    def _record(self, change: Callable[[Ledger], Ledger]) -> None:
        with self._changing:  # segments are sealed in one thread while frames are kept in another
            self.ledger = change(self.ledger)
            write_whole(self.path(LEDGER), self.ledger.to_bytes())

    def rewrite(self, manifest: Manifest) -> None:
        """Replace the manifest, durably."""
        self.manifest = manifest
        write_whole(self.path(MANIFEST), manifest.to_bytes())

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the finished frames, in order; shorter where some of their files are gone."""
        found: list[dict[str, Any]] = []
        sealed = self.sealed
        for number, count in enumerate(self.finished):
            files = sealed[number].files if number in sealed else ()
            paths = [self.path(file.name) for file in files] or [self.frames_path(number)]
            there = [path for path in paths if count and path.exists()]
            found += islice(segment_rows(there[0]), count) if there else []
        return found

    def pairs(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Frame number -> the frame and its painted one, small, of some finished frames."""
        found = {}
        for path in sorted(self.folder.glob("pair-*.png")):
            both = read_picture(path)
            found[int(path.stem.partition("-")[2])] = (both[:, : both.shape[1] // 2], both[:, both.shape[1] // 2 :])
        finished = zip(self.segments, self.finished, strict=True)
        numbers = {number for (first, _), count in finished for number in range(first, first + count)}
        return {number: pair for number, pair in found.items() if number in numbers}

    def sweep(self) -> None:
        """Remove what a killed process left half done: everything that neither ledger nor plan names."""
        known = {MANIFEST, LEDGER, LOCK}
        known |= {self.frames_path(number).name for number, count in enumerate(self.finished) if count}
        known -= {self.frames_path(number).name for number in self.sealed}
        known |= {file.name for sealed in self.ledger.sealed for file in sealed.files}
        if self.ledger.checkpoint and self.ledger.checkpoint.state:
            known.add(self.ledger.checkpoint.state.name)
        for path in self.folder.iterdir():
            is_pair = path.name.startswith("pair-") and path.suffix == ".png"
            if path.name.startswith(_OURS) and path.name not in known and not is_pair:
                _delete(path)

    def settle_start(self) -> list[str]:
        """Make the ledger agree with what is really there; returns what had to be given up, in words.

        Afterwards `done` frames are finished and everything that is needed to go on from there is whole.
        """
        point = self.ledger.checkpoint
        if point is None:
            self.sweep()
            return []
        lost: list[str] = []
        sealed = {number: one for number, one in self.sealed.items() if self._is_whole(number, one, lost)}
        state = point.state if point.state is None or point.state.is_whole(self.folder) else None
        if state != point.state:
            lost.append(f"the checkpoint of {self.folder} is damaged or missing")
        found = replace(point, state=state)
        at, kept = list(point.at), list[Sealed]()
        for number in range(len(at)):
            at[number], whole, gone = self._settle_lane(number, found, sealed, at[number - 1])
            kept += whole
            if gone and not lost:
                lost.append(f"frames of {self.folder} are damaged or missing")
        if lost:
            seen = tuple(
                seen if now == before else () for seen, now, before in zip(point.seen, at, point.at, strict=True)
            )
            nothing = all(one == lane.start for one, lane in zip(at, self.plan.ranges, strict=True))
            self.record(sealed=tuple(kept), checkpoint=None if nothing else replace(found, at=tuple(at), seen=seen))
        self.sweep()
        return lost

    def _settle_lane(
        self, number: int, point: Checkpoint, sealed: Mapping[int, Sealed], before: int
    ) -> tuple[int, list[Sealed], bool]:
        """The next frame of a lane, the sealed segments before it, and whether frames had to be given up.

        point: with no state where that is gone. sealed: those that are whole. before: the next frame of the lane before
        it.
        """
        lane, at = self.plan.ranges[number], point.at[number]
        own = [one for one, (first, _) in enumerate(self.segments) if lane.first <= first < lane.last]
        stateless = lane.begins(at, self.plan.shots) or at == lane.last
        if self._lacks_anchor(number, point, before):
            at = lane.start
        elif self._reached(own, sealed) < max(at, lane.first) or (point.state is None and not stateless):
            # Back to where a shot begins after nothing but sealed segments, or to where the lane does.
            ends = [lane.start, *(self.segments[one][1] for one in takewhile(lambda one: one in sealed, own))]
            at = next(end for end in reversed(ends) if lane.begins(end, self.plan.shots) or end == lane.last)
        kept = [sealed[one] for one in own if one in sealed and self.segments[one][1] <= at]
        return at, kept, at != point.at[number]

    def _lacks_anchor(self, number: int, point: Checkpoint, before: int) -> bool:
        """Whether the first frame of a lane, as it was painted, is no longer there where the lane before it needs it:
        it is part of the state for as long as that lane is not at its end. The first lane of all joins none.
        """
        lane, previous = self.plan.ranges[number], self.plan.ranges[number - 1]
        wanted = lane.joins and point.at[number] > lane.first and before < previous.last
        return wanted and (point.state is None or point.at[number - 1] == previous.last)

    def _is_whole(self, number: int, one: Sealed, lost: list[str]) -> bool:
        whole = one.is_whole(self.folder)
        if not whole:
            lost.append(f"segment {number} of {self.folder} is damaged or missing")
        return whole

    def _reached(self, own: Sequence[int], sealed: Container[int]) -> int:
        """The frame up to which all frames of a lane, whose segments are `own`, are there."""
        for number in own:
            first, last = self.segments[number]
            there = last - first if number in sealed else len(intact(self.frames_path(number), first))
            if there < last - first:
                return first + there
        return self.segments[own[-1]][1]


def is_ours(folder: Path) -> bool:
    """Whether nothing is in the folder but files of a job."""
    return all(name.startswith((*_OURS, LOCK)) for name in os.listdir(folder))


def remove_folder(folder: Path, lock: JobLock | None) -> None:
    """Remove the folder of a job and give back its lock."""
    clear_folder(folder)
    if lock is not None and os.name == "nt":
        lock.release()  # there no open file can be removed
    _delete(folder / LOCK)
    with suppress(OSError):  # somebody else's file in it
        folder.rmdir()
    if lock is not None:
        lock.release()


def clear_folder(folder: Path) -> None:
    """Remove all files of a job but its lock. The manifest, without which it is none, goes late, and the ledger, which
    says that it was done, last.
    """
    for path in sorted(folder.iterdir(), key=lambda path: (path.name == LEDGER, path.name == MANIFEST)):
        if path.name.startswith(_OURS):
            _delete(path)


def job_folder(output: str | os.PathLike[str]) -> Path:
    """Where the job of an output is, or would be.

    Of a sequence it lies inside its folder once that is there, since what lies beside may be another disk, or not
    writable; one that was begun before is found beside it.
    """
    path = os.fspath(output)
    if output_kind(path) != "sequence":
        return Path(path + JOB_SUFFIX)
    folder, pattern = folder_and_pattern(path)
    inside, outside = folder / (pattern + JOB_SUFFIX), Path(os.path.normpath(folder) + JOB_SUFFIX)
    return inside if folder.is_dir() and not outside.joinpath(MANIFEST).exists() else outside


def read_job(output: str | os.PathLike[str]) -> Job:
    """The job of an output as it is now, to look at only; InputError where there is none."""
    folder = job_folder(output)
    if not folder.joinpath(MANIFEST).exists():
        raise InputError(f"there is no unfinished render of {os.fspath(output)}: {folder} does not exist")
    return Job(folder, Manifest.read(folder / MANIFEST), Ledger.read(folder / LEDGER))


def make_folder(folder: Path) -> None:
    """Make the folder of a new job; ResourceError where something else has its name, or nothing can be made."""
    if folder.exists() and not (folder.is_dir() and is_ours(folder)):
        raise ResourceError(f"{folder} is not the folder of an unfinished render, whose name it has; move it away")
    try:
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise ResourceError(f"cannot make the folder {folder}: {error.strerror}") from error


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _file(data: Mapping[str, str] | None) -> KeptFile | None:
    """A file of the folder; ValueError for a name that leads out of it."""
    if data is not None and os.path.basename(data["name"]) != data["name"]:
        raise ValueError(f"{data['name']} is not in the folder")
    return None if data is None else KeptFile(**data)


def _json_bytes(value: object, indent: int | None = 1) -> bytes:
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()
