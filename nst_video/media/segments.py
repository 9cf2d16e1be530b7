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
from nst_video.media.lossless import KeptFrame, read_rows
from nst_video.media.output import VideoOutput
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
    target: Path, frames: Iterable[KeptFrame], edges: Sequence[int], *, stopped: Callable[[], bool], **settings: Any
) -> tuple[KeptFile, int] | None:
    """Encodes the frames into `target`, verified by decoding; None where `stopped` said so between frames. `edges`: the
    pts of every frame, and when the last one is over.

    `settings` are those of VideoOutput; the suffix of `path` among them chooses the container it is verified in.
    Returns the file, and how many packets are decoded before the first of those frames can be shown.
    """
    part = target.with_name(f"{target.name}.part")
    proof = target.with_name(f"{target.name}.proof")
    with RecordWriter(part) as records:
        place = {"part": proof, "start": edges[0], "end": None, "until": edges[-1]}
        output = _SegmentOutput(settings.pop("path"), records, **place, **settings)
        try:
            rows = []
            for frame, time in zip(frames, edges[:-1], strict=True):
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

    def join(self, segments: Sequence[Path], edges: Sequence[int], delay: int, stopped: Callable[[], bool]) -> bool:
        """Mux all packets at the source's `edges` of the frames, `delay` the largest of the segments; False where
        `stopped` said so between segments.
        """
        self._begin(edges[0])
        times = [edge - (self.shift or 0) for edge in edges]
        self.pts = times[:-1]
        self.durations = {time: after - time for time, after in pairwise(times)}
        clock = _Clock.of(times, delay, _shown_last(segments[-1]))
        done = 0
        for path in segments:
            if stopped():
                return False
            done += self._add(path, done, clock)
        if done != len(self.pts):
            raise InputError(f"the segments hold {done} frames where {len(self.pts)} were planned")
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
            packet.pts, packet.dts = self.pts[first + place], clock.dts(first + number)
            packet.is_keyframe = record.facts["key"]
            packet.stream = self.stream
            self._mux([packet])
        return len(places)


@dataclass(frozen=True)
class _Clock:
    """When each packet is decoded: `delay` packets before a frame of its number is shown, so that pictures lie beside
    their sound. The first ones share the `lead` before the first frame.
    """

    times: list[int]
    delay: int
    lead: int

    @staticmethod
    def of(times: list[int], delay: int, last: int) -> "_Clock":
        """That of frames at `times`, of which the end is one too. last: how many frames after the packet that is
        decoded last are shown.

        mp4 says of packets only how long each is decoded before the next one. With this lead all of that and the last
        packet's own duration are as long as all frames are shown.
        """
        frames = len(times) - 1
        place = frames - 1 - last
        return _Clock(times, delay, times[-1] - times[frames - 1 - delay] - (times[place + 1] - times[place]))

    def dts(self, number: int) -> int:
        """Rising, and never after the packet is shown; the same whatever the segments are."""
        if number >= self.delay:
            return self.times[number - self.delay]
        return self.times[0] - self.lead * (self.delay - number) // self.delay


def _shown_last(segment: Path) -> int:
    """How many frames of a segment are shown after the one of the packet that is decoded last."""
    places = _places([record.facts["pts"] for record in read_records(segment) if "pts" in record.facts])
    return len(places) - 1 - places[-1]


def _places(shown: Sequence[int]) -> list[int]:
    """For each packet in the order of decoding, by its pts, the place of its frame in the order of showing."""
    order = sorted(range(len(shown)), key=shown.__getitem__)
    places = [0] * len(shown)
    for place, packet in enumerate(order):
        places[packet] = place
    return places


def _delay(places: Sequence[int]) -> int:
    return max((number - place for number, place in enumerate(places)), default=0)
