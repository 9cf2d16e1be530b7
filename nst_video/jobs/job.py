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

import os
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from nst_video.errors import InputError
from nst_video.files import write_whole
from nst_video.jobs.jobfolder import LEDGER, MANIFEST, OURS, delete, job_folder, remove_folder
from nst_video.jobs.joblock import NAME as LOCK
from nst_video.jobs.joblock import JobLock
from nst_video.jobs.ledger import Checkpoint, Ledger, Manifest, Sealed
from nst_video.media.destination import output_kind
from nst_video.media.lossless import intact
from nst_video.media.pictures import read_picture
from nst_video.media.segments import segment_rows
from nst_video.plan import Plan


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
            if path.name.startswith(OURS) and path.name not in known and not is_pair:
                delete(path)

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


def read_job(output: str | os.PathLike[str]) -> Job:
    """The job of an output as it is now, to look at only; InputError where there is none."""
    folder = job_folder(output)
    if not folder.joinpath(MANIFEST).exists():
        raise InputError(f"there is no unfinished render of {os.fspath(output)}: {folder} does not exist")
    return Job(folder, Manifest.read(folder / MANIFEST), Ledger.read(folder / LEDGER))
