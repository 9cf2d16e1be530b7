"""Which frames a damaged file has lost. Decoders and demuxers skip what they cannot read without a word; here every
packet is expected to become a frame, and gaps in the file and in time are noticed.
"""

import heapq
from dataclasses import dataclass
from fractions import Fraction

import av

from nst_video.media.containers import unit
from nst_video.media.videoinfo import VideoInfo

# Demuxers in which one packet of video is one frame, so a packet without a frame is a lost frame ...
PACKET_IS_FRAME = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi"})
# ... but for vp8, which has packets that are never shown, and mpeg4, whose smallest (bytes) say "no change".
PACKET_MAY_HIDE = frozenset({"vp8"})
SMALLEST_SHOWN = {"mpeg4": 16}
# Demuxers that skip what they cannot read to the next thing they can; their packets lie end to end otherwise.
SKIPPING = frozenset({"matroska,webm"})
# Demuxers that list at once every packet they will give. Edit lists take packets out, of which the header still counts.
LISTING = frozenset({"mov,mp4,m4a,3gp,3g2,mj2"})
LARGEST_HEADER = 512  # bytes between two packets that need no explanation
# Demuxers whose headers promise a duration; a file cut short does not keep it.
PROMISING = frozenset({"matroska,webm", "avi"})
DURATION_TOLERANCE = Fraction(1, 4)  # seconds; muxers count the last packet and the codec's delay differently
NEAR = 20  # frames between a hole in the file and the gap in time it explains: reordering
# Frames that a gap can have lost; with more, the times are wrong rather than the pictures gone. A file of a few bytes
# can claim a gap of years at a million frames a second.
LARGEST_GAP = 100_000


@dataclass(frozen=True, order=True)
class _Expected:
    pts: int
    place: int  # of its packet among those of the video stream, in file order


class Losses:
    """Sees every packet in file order and every frame in showing order, and tells which frames are missing."""

    def __init__(self, info: VideoInfo, stream_index: int) -> None:
        self.info, self.stream_index = info, stream_index
        self.step = 1 / (info.average_rate * info.time_base)  # pts between frames, on average
        self.by_packet = info.container in PACKET_IS_FRAME and info.codec not in PACKET_MAY_HIDE
        self.expected: list[_Expected] = []  # heap of what went into the decoder and has not come out yet
        self.suspects: list[int] = []  # pts of packets after a hole in the file
        self.file_position = 0
        self.packets = 0
        self.end: Fraction | None = None  # seconds, of the last packet of any stream
        self.last_pts: int | None = None

    @property
    def sees_all_streams(self) -> bool:
        """Whether packets of other streams must be shown too, for the holes between them."""
        return self.info.container in SKIPPING | PROMISING

    def packet(self, packet: av.Packet) -> None:
        """Notes a packet on its way to the decoder, or one of another stream."""
        has_hole = self._has_hole(packet)
        if packet.pts is not None:
            end = (packet.pts + (packet.duration or 0)) * unit(packet)
            self.end = end if self.end is None else max(self.end, end)
        if packet.stream.index != self.stream_index:
            if has_hole and self.last_pts is not None:
                self.suspects.append(self.last_pts)
            return
        self.packets += 1
        if packet.pts is None:
            return
        if has_hole or packet.is_corrupt:
            self.suspects.append(packet.pts)
        if self.by_packet and not packet.is_discard and packet.size >= SMALLEST_SHOWN.get(self.info.codec, 1):
            heapq.heappush(self.expected, _Expected(packet.pts, self.packets))

    def failed(self, pts: int | None) -> None:
        """Notes that the decoder gave up on the packet or the frame with this pts."""
        if pts is not None and all(expected.pts != pts for expected in self.expected):
            heapq.heappush(self.expected, _Expected(pts, self.packets))

    def before(self, pts: int | None) -> list[int]:
        """The pts that should have been shown before the frame at `pts` (None: before the end) and were not."""
        due = []
        while self.expected and (pts is None or self.expected[0].pts <= pts):
            due.append(heapq.heappop(self.expected))
        lost = [expected for expected in due if expected.pts != pts]
        if self.last_pts is None:
            lost = _without_leading(lost, next((expected for expected in due if expected.pts == pts), None))
        times = sorted({expected.pts for expected in lost})
        if pts is not None:
            times = times or self._gap_before(pts)
            self.last_pts = pts
        return times

    def ends_early(self, whole: bool, listed: int) -> str | None:
        """What a reader is told when the file is shorter than it promises; `whole`: it was read from its beginning;
        `listed`: the packets in the demuxer's index of the stream.
        """
        declared = self.info.declared_frames if self.info.container not in PROMISING else None
        if declared and self.info.container in LISTING:
            declared = min(declared, listed)
        if whole and declared and self.packets < declared:
            return f"ends early: {self.packets} of {declared} frames are there"
        promised = self.info.duration_of_file if self.info.container in PROMISING else None
        if promised and self.end is not None and self.end < promised - DURATION_TOLERANCE:
            return f"ends early: {float(self.end):.2f} of {float(promised):.2f} s are there"
        return None

    def _has_hole(self, packet: av.Packet) -> bool:
        if self.info.container not in SKIPPING or packet.pos is None:
            return False
        hole = self.file_position > 0 and packet.pos > self.file_position + LARGEST_HEADER
        self.file_position = max(self.file_position, packet.pos + packet.size)
        return hole

    def _gap_before(self, pts: int) -> list[int]:
        """The times missing before `pts` at the average rate, where a hole in the file explains the gap."""
        if self.last_pts is None or pts - self.last_pts < Fraction(3, 2) * self.step:
            return []
        reach = NEAR * self.step
        if not any(self.last_pts - reach < suspect < pts + reach for suspect in self.suspects):
            return []
        lost = min(round((pts - self.last_pts) / self.step) - 1, LARGEST_GAP)
        return [round(self.last_pts + number * self.step) for number in range(1, lost + 1)]


def _without_leading(lost: list[_Expected], first: _Expected | None) -> list[_Expected]:
    """Pictures stored after the first key frame and shown before it lean on what was cut off before it, on purpose."""
    return [expected for expected in lost if first is None or expected.place < first.place]
