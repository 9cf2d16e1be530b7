"""The parts of a video that are encoded on their own, each once and as a whole, and how they become one file.

A segment is kept as the packets that the encoder gave. They are muxed as if one encoder had given them all, so the
finished file has the same tags, clock and headers as one written in a single run.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from nst_video.errors import InputError
from nst_video.files import settle, sha256_of
from nst_video.lossless import KeptFrame, read_rows
from nst_video.output import VideoOutput
from nst_video.records import RecordWriter, read_records


@dataclass(frozen=True)
class KeptFile:
    """A file of the job that is finished, by its name in the folder, and what it must hold."""

    name: str
    sha256: str

    @staticmethod
    def of(path: Path) -> "KeptFile":
        """The file as it is now."""
        return KeptFile(path.name, sha256_of(path))

    def is_whole(self, folder: Path) -> bool:
        """Whether it is there and unchanged."""
        path = folder / self.name
        return path.is_file() and sha256_of(path) == self.sha256


class _SegmentOutput(VideoOutput):
    """An encoded file of one segment, which proves that it decodes, and its packets as they came from the encoder."""

    def __init__(self, path: str, records: RecordWriter, **settings: Any) -> None:
        self._records = records
        self.shown: list[int] = []  # pts of the packets, in the order of decoding
        super().__init__(path, alone=True, **settings)

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            self.shown.append(packet.pts or 0)
            facts = {"pts": packet.pts, "key": packet.is_keyframe}
            self._records.append(facts, bytes(packet))
        super()._mux(packets)


def encode_segment(
    target: Path, frames: Iterable[KeptFrame], pts: Sequence[int], *, stopped: Callable[[], bool], **settings: Any
) -> tuple[KeptFile, int] | None:
    """Encodes the frames, one for each of their `pts`, into `target`, verified by decoding; None where `stopped` said
    so between frames.

    `settings` are those of VideoOutput; the suffix of `path` among them chooses the container it is verified in.
    Returns the file, and how many frames at most are decoded ahead of one that is shown earlier.
    """
    part = target.with_name(f"{target.name}.part")
    proof = target.with_name(f"{target.name}.proof")
    with RecordWriter(part) as records:
        output = _SegmentOutput(settings.pop("path"), records, part=proof, start=pts[0], end=None, **settings)
        try:
            rows = []
            for frame, time in zip(frames, pts, strict=True):
                if stopped():
                    return None
                output.write(frame.rgb, time)
                rows.append(frame.row)
            output.finish()
            output.verify()
        finally:
            output.discard()
        for row in rows:
            records.append({"row": row})
        records.sync()
    settle(part, target)
    return KeptFile.of(target), _delay(_places(output.shown))


def segment_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a segment's frames, whether it is kept encoded or without loss."""
    if path.suffix == ".frames":
        return read_rows(path)
    return (record.facts["row"] for record in read_records(path) if "row" in record.facts)


class JoinedOutput(VideoOutput):
    """The finished file made of encoded segments: their packets, and the source's other streams."""

    def join(self, segments: Sequence[Path], pts: Sequence[int], delay: int, stopped: Callable[[], bool]) -> bool:
        """Mux all packets at the source's `pts` of the frames, `delay` the largest of the segments; False where
        `stopped` said so between segments.
        """
        self._begin(pts[0])
        shift = self.shift or 0
        times = [time - shift for time in pts]
        self.pts = times[:-1]
        last = self._last_duration(pts[-1])
        self.pts = times
        self.durations = dict(zip(times, [*(b - a for a, b in pairwise(times)), last], strict=True))
        clock = _Clock(times, delay, times[1] - times[0] if len(times) > 1 else last)
        done = 0
        for path in segments:
            if stopped():
                return False
            done += self._add(path, done, clock)
        if done != len(pts):
            raise InputError(f"the segments hold {done} frames where {len(pts)} were planned")
        self.companions.mux_until(None)
        self.companions.finish(self.path)
        return True

    def _add(self, path: Path, first: int, clock: "_Clock") -> int:
        """Mux the packets of one segment, whose first frame is number `first`; returns how many there were."""
        records = [record for record in read_records(path) if "pts" in record.facts]
        places = _places([record.facts["pts"] for record in records])
        for number, (place, record) in enumerate(zip(places, records, strict=True)):
            packet: Any = av.Packet(record.data)
            packet.time_base = self.info.time_base
            packet.pts, packet.dts = clock.times[first + place], clock.dts(first + number)
            packet.is_keyframe = record.facts["key"]
            packet.stream = self.stream
            self._mux([packet])
        return len(places)


@dataclass(frozen=True)
class _Clock:
    """When each packet is shown and when it is decoded: `delay` frames are decoded ahead of being shown."""

    times: list[int]
    delay: int
    step: int

    def dts(self, number: int) -> int:
        """Rising, and never after the packet is shown; the same whatever the segments are."""
        if number >= self.delay:
            return self.times[number - self.delay]
        return self.times[0] - (self.delay - number) * self.step


def _places(shown: Sequence[int]) -> list[int]:
    """For each packet in the order of decoding, by its pts, the place of its frame in the order of showing."""
    order = sorted(range(len(shown)), key=shown.__getitem__)
    places = [0] * len(shown)
    for place, packet in enumerate(order):
        places[packet] = place
    return places


def _delay(places: list[int]) -> int:
    return max((number - place for number, place in enumerate(places)), default=0)
