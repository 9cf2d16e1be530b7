"""Decoding with nothing lost: exact seek, deinterlacing, and every missing or damaged frame noticed."""

import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from nst_video.color_tags import ENLARGE, SCALER_MATRIX, SCALER_RANGE, SHRINK
from nst_video.errors import InputError
from nst_video.probe import PACKET_IS_FRAME, VideoInfo, main_stream, open_input

log = logging.getLogger(__name__)

# Seconds to go back before the start until a frame before it decodes; then from the beginning.
SEEK_MARGINS = (Fraction(0), Fraction(2), Fraction(10), Fraction(60))


@dataclass(frozen=True)
class Span:
    """Which frames are wanted: first <= pts < last, every `stride`-th of them; None means open."""

    first: int | None
    last: int | None
    stride: int = 1


def decoded(info: VideoInfo, span: Span, on_error: str) -> Iterator[tuple[VideoFrame, int]]:
    """The frames of `span` in showing order with their pts; with on_error "hold" a lost frame is the last good one
    again.

    Raises InputError when a frame is lost or damaged and on_error is "fail".
    """
    for margin in (None,) if span.first is None or span.first <= info.start_pts else (*SEEK_MARGINS, None):
        with open_input(info.path) as container:
            stream = main_stream(container, info.path)
            if margin is not None and not _seek(container, stream, info, span, margin):
                continue
            frames = _Decoder(info, container, stream, on_error, after_seek=margin is not None).frames()
            first = next(frames, None)
            # A frame before the start proves that nothing after it is lost, and is what deinterlacing needs.
            if margin is not None and (first is None or first[1] >= (span.first or 0)):
                continue
            if first is not None:
                yield from _within(first, frames, span)
            return


def _seek(container: InputContainer, stream: VideoStream, info: VideoInfo, span: Span, margin: Fraction) -> bool:
    """Goes to a key frame before the span; False when only reading from the beginning will do."""
    target = (span.first or 0) - 1 - round(margin / info.time_base)
    if target <= info.start_pts:
        return False
    try:
        container.seek(target, stream=stream, backward=True)
    except av.error.FFmpegError:
        return False
    return True


def _within(
    first: tuple[VideoFrame, int], rest: Iterator[tuple[VideoFrame, int]], span: Span
) -> Iterator[tuple[VideoFrame, int]]:
    count = 0
    frame, pts = first
    while span.last is None or pts < span.last:
        if span.first is None or pts >= span.first:
            if count % span.stride == 0:
                yield frame, pts
            count += 1
        following = next(rest, None)
        if following is None:
            return
        frame, pts = following


class _Decoder:
    """One pass over the packets of the video stream."""

    def __init__(
        self, info: VideoInfo, container: InputContainer, stream: VideoStream, on_error: str, after_seek: bool
    ) -> None:
        self.info, self.container, self.stream = info, container, stream
        self.hold = on_error == "hold"
        # With frame threads an error takes good frames down with it; when they are to be held back, decode one at a
        # time.
        stream.thread_type = "SLICE" if self.hold else "AUTO"
        self.after_seek = after_seek
        self.expected: list[int] = []  # heap: pts of packets whose frames have not come out yet
        self.packets = 0
        self.deinterlacer = Deinterlacer(info)

    def frames(self) -> Iterator[tuple[VideoFrame, int]]:
        last_pts: int | None = None
        good: VideoFrame | None = None
        for frame in self.deinterlacer.run(self._good_frames()):
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None or (last_pts is not None and pts <= last_pts):
                log.warning("%s: a frame without a time of its own after pts %s is left out", self.info.path, last_pts)
                continue
            for lost in self._lost_before(pts, known=good is not None):
                yield good, lost
            yield frame, pts
            good, last_pts = frame, pts
        if good is not None:
            for lost in self._lost_before(None, known=True):
                yield good, lost
        if not self.after_seek and self.info.declared_frames and self.packets < self.info.declared_frames:
            self._fault(
                f"ends early: {self.packets} of {self.info.declared_frames} frames are there",
                "the frames there are used",
            )

    def _good_frames(self) -> Iterator[VideoFrame]:
        key_seen = not self.after_seek
        for packet in self._demux():
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                self._lose(packet.pts)
                continue
            for frame in frames:
                key_seen = key_seen or frame.key_frame
                if frame.is_corrupt and key_seen:
                    self._lose(frame.pts)
                elif key_seen:
                    yield frame

    def _demux(self) -> Iterator[av.Packet]:
        one_to_one = (
            self.info.container in PACKET_IS_FRAME and self.info.codec != "vp8"
        )  # vp8 has packets that are never shown
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    self.packets += 1
                    if one_to_one and packet.pts is not None and not packet.is_discard:
                        heapq.heappush(self.expected, packet.pts)
                yield packet
        except av.error.FFmpegError as error:
            self._fault(f"cannot be read to its end ({error.strerror})", "the frames before it are used")

    def _lose(self, pts: int | None) -> None:
        if pts is not None and pts not in self.expected:
            heapq.heappush(self.expected, pts)

    def _lost_before(self, pts: int | None, known: bool) -> list[int]:
        """The pts whose frames should have come out before the one at `pts` (None: before the end)."""
        lost = []
        while self.expected and (pts is None or self.expected[0] < pts):
            lost.append(heapq.heappop(self.expected))
        while self.expected and self.expected[0] == pts:
            heapq.heappop(self.expected)
        if not lost or (self.after_seek and not known):
            return []
        seconds = float((lost[0] - self.info.start_pts) * self.info.time_base)
        self._fault(
            f"is damaged at {seconds:.3f} s: {len(lost)} frame{'s' * (len(lost) > 1)} cannot be decoded",
            "the last good frame is held" if known else "it starts with the first good frame",
        )
        return lost if known else []

    def _fault(self, what: str, remedy: str) -> None:
        if not self.hold:
            raise InputError(f"{self.info.path} {what}; go on with --on-error hold")
        log.warning("%s %s; %s", self.info.path, what, remedy)


class Deinterlacer:
    """Passes progressive frames on; from the first interlaced one on all go through FFmpeg's bwdif, one frame out for
    one in.
    """

    def __init__(self, info: VideoInfo) -> None:
        self.info = info
        self.graph: av.filter.Graph | None = None

    def run(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if self.graph is None and not frame.interlaced_frame:
                yield frame
                continue
            if self.graph is None:
                log.warning("%s is interlaced; it is deinterlaced (bwdif)", self.info.path)
                self.graph = self._make_graph(frame)
            self.graph.vpush(frame)
            yield from self._pull()
        if self.graph is not None:
            self.graph.vpush(None)
            yield from self._pull()

    def _make_graph(self, frame: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format.name, time_base=self.info.time_base
        )
        sieve = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        graph.link_nodes(source, sieve, graph.add("buffersink")).configure()
        return graph

    def _pull(self) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = self.graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # The filter counts in half units of the input's time base.
            frame.pts = int(frame.pts * Fraction(frame.time_base) / self.info.time_base)
            yield frame


class FrameConverter:
    """Decoded frames to uint8 (height, width, 3) RGB of one size, upright. One per thread: it holds the scaler."""

    def __init__(self, info: VideoInfo, size: tuple[int, int]) -> None:
        self.info, self.size = info, size
        self.reformatter = VideoReformatter()
        cropped = (info.width // 2 * 2, info.height // 2 * 2)
        # An odd size loses its last column or row rather than being resampled by a fraction of a pixel.
        self.target = (info.width, info.height) if size == cropped else size
        if self.target != size:
            log.warning(
                "%s is %d x %d; it is cropped to %d x %d, even numbers", info.path, info.width, info.height, *size
            )

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        width, height = self.target if self.info.rotation in (0, 180) else self.target[::-1]
        rgb = self._rgb(frame, width, height)
        if self.info.mirrored:
            rgb = rgb[:, ::-1]
        rgb = np.rot90(rgb, -self.info.rotation // 90)
        return rgb[: self.size[1], : self.size[0]]

    def _rgb(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        is_rgb = frame.format.is_rgb or frame.format.has_palette
        converted = self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=None if is_rgb else SCALER_MATRIX[self.info.color.matrix],
            src_color_range=None if is_rgb else SCALER_RANGE[self.info.color.range],
            dst_color_range="JPEG",
            interpolation=SHRINK if width < frame.width or height < frame.height else ENLARGE,
            threads=1,
        )
        return converted.to_ndarray()
