"""The streams beside the pictures: sound, subtitles and the rest, copied where the container holds them."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer

from nst_video.errors import ResourceError
from nst_video.probe import VideoInfo, open_input

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cut:
    """Seconds of the source's clock: packets with first <= time < last are kept (None: open), `shift` is subtracted
    from their times.
    """

    first: Fraction | None
    last: Fraction | None
    shift: Fraction


class Companions:
    """The source's other streams, muxed in step with the video so that neither side is held in memory."""

    def __init__(self, info: VideoInfo, output: OutputContainer, suffix: str) -> None:
        self.output = output
        self.files = ExitStack()
        self.copies: dict[int, Any] = {}  # index in the source -> stream of the output
        self.counts: dict[int, int] = {}  # index in the output -> packets muxed
        self.packets: Iterator[av.Packet] = iter(())
        self.waiting: av.Packet | None = None
        if info.kind == "video":
            self.source = self.files.enter_context(open_input(info.path))
            for stream in self.source.streams.audio:
                self.copies[stream.index] = output.add_stream_from_template(stream)

    def start(self, cut: Cut) -> None:
        """Begins reading; `cut` is known with the first frame."""
        if self.copies:
            self.packets = self._kept(cut)

    def mux_until(self, time: Fraction | None) -> None:
        """Muxes every packet up to `time` seconds of the output's clock (None: all)."""
        while True:
            packet = self.waiting or next(self.packets, None)
            if packet is None:
                return
            if time is not None and packet.dts * packet.time_base > time:
                self.waiting = packet
                return
            self.waiting = None
            self.output.mux_one(packet)

    def verify(self, packets: dict[int, int]) -> None:
        """Compares the packets read back from the finished file, by stream index, with those muxed. Raises
        ResourceError.
        """
        for index, count in self.counts.items():
            if packets.get(index, 0) != count:
                raise ResourceError(
                    f"the output did not verify: {packets.get(index, 0)} of {count} packets of sound; nothing was kept"
                )

    def close(self) -> None:
        """Closes the source."""
        self.files.close()

    def _kept(self, cut: Cut) -> Iterator[av.Packet]:
        for packet in self.source.demux([self.source.streams[index] for index in self.copies]):
            if packet.size == 0 or packet.dts is None:
                continue
            base = Fraction(packet.time_base)
            time = (packet.pts if packet.pts is not None else packet.dts) * base
            if (cut.first is not None and time < cut.first) or (cut.last is not None and time >= cut.last):
                continue
            shift = round(cut.shift / base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
            packet.stream = self.copies[packet.stream.index]
            self.counts[packet.stream.index] = self.counts.get(packet.stream.index, 0) + 1
            yield packet
