"""Decoding with nothing lost: exact seek, deinterlacing, and every missing or damaged frame refused or made good."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av
import av.filter
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nst_video.errors import InputError
from nst_video.media.containers import main_stream, open_input, unit
from nst_video.media.damage import Losses
from nst_video.media.videoinfo import VideoInfo

log = logging.getLogger(__name__)

# Seconds to go back before the start until a frame before it decodes; then from the beginning.
SEEK_MARGINS = (Fraction(0), Fraction(2), Fraction(10), Fraction(60))
# Decoders that paint over damage. With several threads they do not always say so (measured: h264 keeps silent about
# 1 damaged frame in 30 with frame threads and about all of them with slice threads), and one thread decodes 720p at
# 500 frames/s.
CONCEALING = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video", "h263", "vc1"})

BRIEF = Fraction(1, 1000)  # seconds: times are typed to the millisecond, and a frame begins between two of them

TimedFrame = tuple[VideoFrame, int]
ShownFrame = tuple[VideoFrame, int, int]  # with the pts when it is shown, and when it is over


@dataclass(frozen=True)
class Span:
    """The part of a video from `start` to `end`, in units of the video's time base, infinite where it is open; of its
    frames every `stride`-th. still: only the frame that is on screen at `start`.
    """

    start: Fraction | float
    end: Fraction | float
    brief: Fraction  # BRIEF in units of the time base
    stride: int = 1
    still: bool = False

    def has(self, pts: int, over: int | float) -> bool:
        """Whether a frame that is on screen from `pts` until `over` is seen in it: whole, or not too briefly."""
        return min(over, self.end) - max(pts, self.start) >= min(self.brief, over - pts)

    def places(self, frames: int) -> range:
        """The same of `frames` frames that are shown for one unit each, from 0 on."""
        first, last = math.floor(max(self.start, 0)), math.ceil(min(self.end, frames))
        first += first < last and not self.has(first, first + 1)
        last -= first < last and not self.has(last - 1, last)
        return range(first, last)

    def cut(self, frames: Iterator[ShownFrame]) -> Iterator[ShownFrame]:
        """Of all frames those that are seen in it, from its start and to its end; a still at its own time."""
        kept, last, count = None, 0, 0
        for frame, pts, over in frames:
            if not self.has(pts, over):
                continue
            if self.still:
                yield frame, pts, over
                return
            if count % self.stride == 0:
                if kept is not None:
                    yield *kept, pts
                kept = frame, pts if pts >= self.start else math.floor(self.start)
            last, count = over if over <= self.end else math.ceil(self.end), count + 1
        if kept is not None:
            yield *kept, last


def decoded(
    info: VideoInfo, span: Span, on_error: str, on_step: Callable[[], None] = lambda: None
) -> Iterator[ShownFrame]:
    """The frames of `span` in showing order; with on_error "hold" a lost one is the last good one again. `on_step` is
    called for every packet that is read: a sign of life while nothing comes out.

    Raises InputError when a frame of the span is lost or damaged and on_error is "fail", and when it has none.
    """
    from_beginning = span.start <= info.start_pts
    for margin in (None,) if from_beginning else (*SEEK_MARGINS, None):
        with open_input(info.path, info.max_pixels) as container:
            stream = main_stream(container, info.path)
            if margin is not None and not _seek(container, stream, info, span, margin):
                continue
            after_seek = margin is not None
            decoder = _Decoder(info, container, stream, span, on_error, on_step, after_seek=after_seek)
            frames = decoder.shown()
            first = next(frames, None)
            # A frame before those of the span proves that none of them is lost, and is what deinterlacing needs.
            if margin is not None and (first is None or first[1] >= span.start or span.has(*first[1:])):
                continue
            none = True
            for one in span.cut(chain([first], frames) if first else frames):
                none = False
                yield one
            if none:
                raise info.no_frames(decoder.end, still=span.still)
            return


def _seek(container: InputContainer, stream: VideoStream, info: VideoInfo, span: Span, margin: Fraction) -> bool:
    """Goes to a key frame before the span; False when only reading from the beginning will do."""
    target = math.ceil(span.start) - 1 - round(margin / info.time_base)
    if target <= info.start_pts:
        return False
    try:
        container.seek(target, stream=stream, backward=True)
    except av.error.FFmpegError:
        return False
    return True


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
        self.latest = (0, 0)  # pts and duration of the packet that is shown last
        self.whole = not info.truncated  # what the container says of its end is true
        self.end: int | None = None  # of the last frame of all, once that is known
        self.deinterlacer = Deinterlacer(info)

    def shown(self) -> Iterator[ShownFrame]:
        """The frames up to the end of the span, and from before its start."""
        before: int | None = None
        now: TimedFrame | None = None
        for after in self.frames():
            if now is not None:
                yield *now, after[1]
                before = now[1]
            if after[1] >= self.span.end:
                return
            now = after
        if now is not None:
            own = self.latest[1] if self.latest[0] == now[1] else 0
            self.end = self.info.last_end(now[1], before, own, whole=self.whole)
            yield *now, self.end

    def frames(self) -> Iterator[TimedFrame]:
        """All frames as they are decoded; of those that are lost the ones of the span are made good."""
        last: TimedFrame | None = None
        for frame in self.deinterlacer.run(self._good_frames()):
            pts = frame.pts if frame.pts is not None else frame.dts
            if pts is None or (last is not None and pts <= last[1]):
                self._leave_out(last)
                continue
            self.left_out = 0
            yield from self._made_good(last, self.losses.before(pts), pts)
            last = (frame, pts)
            yield last
        if last is not None:
            yield from self._made_good(last, self.losses.before(None), math.inf)
        early = self.losses.ends_early(whole=not self.after_seek, listed=len(self.stream.index_entries))
        if early:
            self.whole = False
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
                    self.latest = max(self.latest, (packet.pts or 0, packet.duration or 0))
                    yield packet
        except av.error.FFmpegError as error:
            self.whole = False
            self._fault(f"cannot be read to its end ({error.strerror})", "the frames before it are used")

    def _made_good(self, last: TimedFrame | None, lost: list[int], after: int | float) -> Iterator[TimedFrame]:
        """The last good frame at the times of lost ones of the span, which are over at `after`. Raises InputError
        unless frames are held.
        """
        wanted = [pts for pts, over in zip(lost, [*lost[1:], after], strict=False) if self.span.has(pts, over)]
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
