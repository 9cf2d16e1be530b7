"""Decoding with nothing lost: exact seek, deinterlacing, and every missing or damaged frame refused or made good."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import av.filter
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nst_video.damage import Losses
from nst_video.errors import InputError
from nst_video.probe import VideoInfo, main_stream, open_input, unit

log = logging.getLogger(__name__)

# Seconds to go back before the start until a frame before it decodes; then from the beginning.
SEEK_MARGINS = (Fraction(0), Fraction(2), Fraction(10), Fraction(60))
# Decoders that paint over damage. With several threads they do not always say so (measured: h264 keeps silent about
# 1 damaged frame in 30 with frame threads and about all of them with slice threads), and one thread decodes 720p at
# 500 frames/s.
CONCEALING = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video", "h263", "vc1"})

TimedFrame = tuple[VideoFrame, int]


@dataclass(frozen=True)
class Span:
    """Which frames are wanted: first <= pts < last, every `stride`-th of them; None means open."""

    first: int | None
    last: int | None
    stride: int = 1

    def has(self, pts: int) -> bool:
        """Whether `pts` lies in it, the stride aside."""
        return (self.first is None or pts >= self.first) and (self.last is None or pts < self.last)


def decoded(
    info: VideoInfo, span: Span, on_error: str, on_step: Callable[[], None] = lambda: None
) -> Iterator[TimedFrame]:
    """The frames of `span` in showing order with their pts; with on_error "hold" a lost one is the last good one again.
    `on_step` is called for every packet that is read: a sign of life while nothing comes out.

    Raises InputError when a frame of the span is lost or damaged and on_error is "fail".
    """
    from_beginning = span.first is None or span.first <= info.start_pts
    for margin in (None,) if from_beginning else (*SEEK_MARGINS, None):
        with open_input(info.path, info.max_pixels) as container:
            stream = main_stream(container, info.path)
            if margin is not None and not _seek(container, stream, info, span, margin):
                continue
            after_seek = margin is not None
            frames = _Decoder(info, container, stream, span, on_error, on_step, after_seek=after_seek).frames()
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


def _within(first: TimedFrame, rest: Iterator[TimedFrame], span: Span) -> Iterator[TimedFrame]:
    count = 0
    timed: TimedFrame | None = first
    while timed is not None and (span.last is None or timed[1] < span.last):
        if span.has(timed[1]):
            if count % span.stride == 0:
                yield timed
            count += 1
        timed = next(rest, None)


class _Decoder:
    """One pass over the packets of the video stream."""

    def __init__(
        self,
        info: VideoInfo,
        container: InputContainer,
        stream: VideoStream,
        span: Span,
        on_error: str,
        on_step: Callable[[], None],
        *,
        after_seek: bool,
    ) -> None:
        self.info, self.container, self.stream, self.span = info, container, stream, span
        self.on_step = on_step
        self.hold = on_error == "hold"
        # With frame threads an error takes good frames down with it; to hold on to them, decode one at a time.
        stream.thread_type = "SLICE" if self.hold else "AUTO"
        if info.codec in CONCEALING:
            stream.codec_context.thread_count = 1
        self.after_seek = after_seek
        self.losses = Losses(info, stream.index)
        self.left_out = 0  # frames in a row
        self.deinterlacer = Deinterlacer(info)

    def frames(self) -> Iterator[TimedFrame]:
        last: TimedFrame | None = None
        for frame in self.deinterlacer.run(self._good_frames()):
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None or (last is not None and pts <= last[1]):
                self._leave_out(last)
                continue
            self.left_out = 0
            yield from self._made_good(last, self.losses.before(pts))
            last = (frame, pts)
            yield last
        if last is not None:
            yield from self._made_good(last, self.losses.before(None))
        early = self.losses.ends_early(whole=not self.after_seek)
        if early:
            self._fault(early, "the frames that are there are used")

    def _leave_out(self, last: TimedFrame | None) -> None:
        """A frame without a time after the one before cannot be shown. One may be a slip; more are a clock set back."""
        self.left_out += 1
        if self.left_out > 2:
            return
        after = float((last[1] - self.info.start_pts) * self.info.time_base) if last else 0.0
        if self.left_out == 2:
            self._fault(f"goes back in time after {after:.2f} s", "frames are left out until its clock catches up")
        log.warning("%s: a frame without a time of its own after %.2f s is left out", self.info.path, after)

    def _good_frames(self) -> Iterator[VideoFrame]:
        key_seen = not self.after_seek
        for packet in self._packets():
            try:
                frames = packet.decode()
            except av.error.MemoryError:
                raise  # no fault of the file's that holding a frame could make good
            except av.error.FFmpegError:  # most say invalid data, some that an operation is not permitted
                self.losses.failed(packet.pts)
                continue
            for frame in frames:
                key_seen = key_seen or frame.key_frame
                if frame.is_corrupt and key_seen:
                    self.losses.failed(frame.pts)
                elif key_seen:
                    yield frame

    def _packets(self) -> Iterator[av.Packet]:
        """The packets of the video stream, an empty one last to empty the decoder."""
        streams = () if self.losses.sees_all_streams else (self.stream,)
        try:
            for packet in self.container.demux(*streams):
                self.on_step()
                if packet.size:
                    self.losses.packet(packet)
                if packet.stream.index == self.stream.index:
                    yield packet
        except av.error.FFmpegError as error:
            self._fault(f"cannot be read to its end ({error.strerror})", "the frames before it are used")

    def _made_good(self, last: TimedFrame | None, lost: list[int]) -> Iterator[TimedFrame]:
        """The last good frame at the times of lost ones of the span. Raises InputError unless frames are held."""
        wanted = [pts for pts in lost if self.span.has(pts)]
        if not wanted:
            return
        seconds = float((wanted[0] - self.info.start_pts) * self.info.time_base)
        self._fault(
            f"is damaged at {seconds:.2f} s: {len(wanted)} frame{'s' * (len(wanted) > 1)} cannot be decoded",
            "the last good frame is held" if last is not None else "the first good frame is the first of all",
        )
        if last is not None:
            # Those of before the last frame shown are too late: a damaged clock names times that are past.
            yield from ((last[0], pts) for pts in wanted if pts > last[1])

    def _fault(self, what: str, remedy: str) -> None:
        if not self.hold:
            raise InputError(f"{self.info.path} {what}; to use the rest, give --on-error hold")
        log.warning("%s %s; %s", self.info.path, what, remedy)


class Deinterlacer:
    """Passes progressive frames on; from the first interlaced one on, all go through FFmpeg's bwdif, one for one."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = info

    def run(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """The frames, deinterlaced where they need it, with their own pts."""
        graph: av.filter.Graph | None = None
        for frame in frames:
            if graph is None and not frame.interlaced_frame:
                yield frame
                continue
            if graph is None:
                log.warning("%s is interlaced; it is deinterlaced (bwdif)", self.info.path)
                graph = self._make_graph(frame)
            graph.vpush(frame)
            yield from self._pull(graph)
        if graph is not None:
            graph.vpush(None)
            yield from self._pull(graph)

    def _make_graph(self, frame: VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        time_base = self.info.time_base
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
        bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        return graph

    def _pull(self, graph: av.filter.Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            # The filter counts in half units of the input's time base.
            if frame.pts is not None:
                frame.pts = int(frame.pts * unit(frame) / self.info.time_base)
            yield frame
