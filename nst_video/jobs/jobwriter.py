"""Frames go into a job: kept without loss, then sealed segment by segment, on threads of their own; at last the output
is made of them.
"""

import hashlib
import logging
import os
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from nst_video.errors import ResourceError
from nst_video.files import DISK_ERRORS, NOTHING_KEPT, sync, sync_folder, write_whole
from nst_video.jobs.job import Job
from nst_video.jobs.jobfolder import PART, remove_folder
from nst_video.jobs.ledger import Checkpoint, Sealed
from nst_video.media.channel import Channel
from nst_video.media.destination import check_output
from nst_video.media.lossless import FrameLog, KeptFrame, intact, read_frames
from nst_video.media.output import Output, open_output
from nst_video.media.pictures import write_picture
from nst_video.media.segments import JoinedOutput, KeptFile, encode_segment
from nst_video.media.videoinfo import VideoInfo
from nst_video.words import counted

if TYPE_CHECKING:
    from nst_video.jobs.states import Packed

log = logging.getLogger(__name__)

OFTEN, SELDOM = 15.0, 60.0  # seconds between checkpoints: not more often, unless a frame takes longer, nor more seldom
SHARE = 0.01  # of the time, that checkpoints may take
WAITING = 4  # frames of each lane and checkpoints handed over and not yet written
BEHIND = 2  # segments of each lane that wait to be encoded


@dataclass(frozen=True)
class Moment:
    """What going on from here takes: see Checkpoint. state: None where every lane's next frame begins a shot."""

    at: tuple[int, ...]
    seconds: float
    state: "Packed | None"
    seen: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Pair:
    """A frame and its painted one, small, side by side: uint8 (H, W, 3)."""

    number: int
    both: np.ndarray


class JobWriter:
    """Takes every frame of the plan that the job lacks, those of each lane in order, and checkpoints between them."""

    def __init__(self, job: Job, info: VideoInfo) -> None:
        """info: what probe found in the source."""
        self.job = job
        self._segments = job.segments
        self._firsts = [first for first, _ in self._segments]
        self._ends = {last for _, last in self._segments}
        self._lasts = [lane.last for lane in job.plan.ranges]
        self._logs: dict[int, FrameLog] = {}
        self._handed: set[int] = set(job.sealed)  # segments that are sealed, or being sealed
        self._kept = time.monotonic()
        self._cost = 0.0  # seconds that the last checkpoint took
        self._waiting = False  # for a checkpoint to be written
        self._channel: Channel[KeptFrame | Moment | Pair] = Channel(WAITING * len(self._lasts))
        self._thread = threading.Thread(target=self._work, name="nst-video job", daemon=True)
        self._sealer = _Sealer(job, info)

    def __enter__(self) -> Self:
        self._sealer.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sealer.give_up()  # first: the thread may wait for it to have room
        self._channel.close()
        self._thread.join()
        self._sealer.leave()

    def write(self, item: KeptFrame | Pair) -> None:
        """The next frame of a lane, or a pair for the contact sheet. Raises what writing an earlier one raised."""
        self._channel.put(item)

    def wants(self, at: tuple[int, ...]) -> bool:
        """Whether it is time for a checkpoint where the lanes are at these frames: now and then, and at the end of each
        segment of the first lane that goes on, as the others' end at about the same time.
        """
        pause = min(SELDOM, max(OFTEN, self._cost / SHARE))
        going = [position for position, last in zip(at, self._lasts, strict=True) if position < last]
        ends = not going or going[0] in self._ends
        return ends or (not self._waiting and time.monotonic() - self._kept >= pause)

    def keep(self, moment: Moment) -> None:
        """A checkpoint after the frames written so far."""
        self._kept, self._waiting = time.monotonic(), True
        self._channel.put(moment)

    def finish(self) -> None:
        """Waits until everything is written, and raises what writing raised."""
        self._channel.finish()
        self._thread.join()
        self._channel.check()
        with errors_of(self.job):
            self._sealer.finish()

    # ------------------------------------------------------------------------------------------ on the thread

    def _work(self) -> None:
        try:
            with errors_of(self.job):
                self._catch_up()
                for item in self._channel:
                    self._HANDLERS[type(item)](self, item)
        except BaseException as error:
            self._channel.close(error)
        finally:
            for log in self._logs.values():
                log.close()

    def _catch_up(self) -> None:
        """Goes on where the last process ended: opens the logs of the open segments, hands over those that are full."""
        for number, count in enumerate(self.job.finished):
            if count and number not in self._handed:
                path, first = self.job.frames_path(number), self._firsts[number]
                self._logs[number] = FrameLog(path, self.job.plan.size, keep=intact(path, first)[count - 1])
        self._hand_over(self.job.positions)

    def _frame(self, frame: KeptFrame) -> None:
        number = bisect(self._firsts, frame.number) - 1
        if number not in self._logs:
            self._logs[number] = FrameLog(self.job.frames_path(number), self.job.plan.size)
            sync_folder(self.job.folder)
        self._logs[number].append(frame)

    def _pair(self, pair: Pair) -> None:
        write_picture(self.job.pair_path(pair.number), pair.both)

    def _moment(self, moment: Moment) -> None:
        begun = time.monotonic()
        for log in self._logs.values():
            log.sync()
        state, before = None, self.job.ledger.checkpoint
        if moment.state is not None:
            content = moment.state.to_bytes()
            # Of another state, as where a lane went back, another name: the one before counts until the ledger says so.
            digest = hashlib.sha256(content).hexdigest()
            state = KeptFile(f"state-{digest[:16]}.safetensors", digest)
            write_whole(self.job.path(state.name), content)
        self.job.record(checkpoint=Checkpoint(moment.at, moment.seconds, state, moment.seen))
        if before is not None and before.state is not None and before.state != state:
            self.job.path(before.state.name).unlink(missing_ok=True)
        self._cost, self._waiting = time.monotonic() - begun, False
        self._hand_over(moment.at)

    def _hand_over(self, at: tuple[int, ...]) -> None:
        """Has the segments sealed whose frames are all there, and counted as finished, where the lanes are at these
        frames.
        """
        for number, log in list(self._logs.items()):
            lane = bisect(self._lasts, self._firsts[number])
            if at[lane] >= self._segments[number][1]:
                log.close()
                del self._logs[number]
                self._handed.add(number)
                self._sealer.seal(number)

    _HANDLERS: ClassVar[dict[type, Callable[..., None]]] = {KeptFrame: _frame, Moment: _moment, Pair: _pair}


class _Sealer:
    """Makes segments finished ones, in threads of its own: painting and keeping do not wait for the encoder, as long as
    it does not fall some segments behind.
    """

    def __init__(self, job: Job, info: VideoInfo) -> None:
        self.job, self.info = job, info
        # An encoder keeps about four cores busy.
        threads = max(1, (os.cpu_count() or 1) // 4)
        self._pool = ThreadPoolExecutor(threads, "nst-video seal")
        self._room = threading.Semaphore(threads - 1 + BEHIND * len(job.plan.ranges))
        self._futures: list[Future[None]] = []
        self._left = False

    def start(self) -> None:
        """Begin, with what the last process did not come to."""
        self._submit(self._encode_anew)

    def seal(self, number: int) -> None:
        """Seal a segment whose frames are all on the disk. Raises what sealing an earlier one raised."""
        self._submit(partial(self._seal, number))

    def _submit(self, work: Callable[[], None]) -> None:
        for future in [future for future in self._futures if future.done()]:
            self._futures.remove(future)
            future.result()
        self._room.acquire()
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._room.release())
        self._futures.append(future)

    def finish(self) -> None:
        """Waits until everything is sealed, and raises what that raised."""
        for future in self._futures:
            future.result()
        self._pool.shutdown()

    def give_up(self) -> None:
        """Break off whatever is being sealed; what is not sealed is by the next process."""
        self._left = True

    def leave(self) -> None:
        """Wait until the threads have ended."""
        self._pool.shutdown(cancel_futures=True)

    def _encode_anew(self) -> None:
        """Encodes segments whose frames are kept, after the codec was changed."""
        for number, sealed in self.job.sealed.items():
            if self.job.kind == "video" and sealed.video is None and not self._left:
                video, delay = self._encode(number)
                if video is None:
                    return
                self.job.seal(replace(sealed, video=video, delay=delay))

    def _seal(self, number: int) -> None:
        first, last = self.job.segments[number]
        path, options = self.job.frames_path(number), self.job.plan.options
        video, delay = self._encode(number) if self.job.kind == "video" else (None, 0)
        if self._left:
            return
        frames = KeptFile.of(path) if options.lossless or video is None else None
        pts = self.job.plan.pts[first], self.job.plan.pts[last - 1]
        self.job.seal(Sealed(first, last, pts, video, delay, frames))
        if frames is None:
            path.unlink()

    def _encode(self, number: int) -> tuple[KeptFile | None, int]:
        """The segment, encoded; (None, 0) where the work was given up meanwhile."""
        first, last = self.job.segments[number]
        encoded = encode_segment(
            self.job.video_path(number),
            read_frames(self.job.frames_path(number)),
            self.job.plan.edges[first : last + 1],
            stopped=lambda: self._left,
            path=self.job.plan.output,
            info=self.info,
            **_encoding(self.job),
        )
        return encoded or (None, 0)


def publish(job: Job, info: VideoInfo, summary: dict[str, Any], stopped: Callable[[], bool]) -> bool:
    """Make the output of the finished segments, verify it and give it its name; False where `stopped` said so before.

    summary: of the render, kept until the job is removed, which is the last thing done unless the job is to be kept.
    """
    plan, options = job.plan, job.plan.options
    with errors_of(job):
        part = job.path(PART)
        place = {"start": options.start, "end": options.end, "until": plan.end, "part": part, "info": info}
        settings = _encoding(job) | place | {"music": plan.heard()}
        output = _join(job, settings, stopped) if job.kind == "video" else _replay(job, settings, stopped)
        if output is None:
            return False
        # Of a sequence, a process that was killed may have moved the first pictures already.
        taken = options.overwrite or (job.kind == "sequence" and job.ledger.published is not None)
        check_output(plan.output, sources=plan.sources, **options.encoding, overwrite=taken)
        if part.is_file():
            sync(part)
            job.record(published=KeptFile(os.path.basename(plan.output), KeptFile.of(part).sha256), summary=summary)
        else:
            job.record(published=KeptFile(os.path.basename(plan.output), ""), summary=summary)
        output.publish()
        if not options.keep_job:
            job.record(removing=True)
            remove_folder(job.folder, job.lock)
    return True


def check_writing(job: Job, info: VideoInfo) -> None:
    """Open the output once and discard it, so that what it cannot hold is refused or said now, not after the render."""
    with errors_of(job):
        place = {"start": None, "end": None, "part": job.path(PART), "info": info, "music": job.plan.heard()}
        settings = _encoding(job) | place
        (JoinedOutput(job.plan.output, **settings) if job.kind == "video" else _opened(job, settings)).discard()


def _opened(job: Job, settings: dict[str, Any]) -> Output:
    return open_output(job.kind, job.plan.output, **settings)


def is_published(job: Job) -> bool:
    """Whether the output that this job made is there, unchanged."""
    published = job.ledger.published
    if published is None:
        return False
    output = Path(job.plan.output)
    if published.sha256:
        return output.is_file() and KeptFile.of(output).sha256 == published.sha256
    return job.ledger.removing  # of a sequence, only the last step says that all pictures were moved


def _join(job: Job, settings: dict[str, Any], stopped: Callable[[], bool]) -> Output | None:
    output = JoinedOutput(job.plan.output, **settings)
    segments = job.ledger.sealed
    paths = [job.path(one.video.name) for one in segments if one.video is not None]
    try:
        whole = output.join(paths, job.plan.edges, max(one.delay for one in segments), stopped)
        if whole:
            output.verify()
    except BaseException:
        output.discard()
        raise
    if not whole:
        output.discard()
    return output if whole else None


def _replay(job: Job, settings: dict[str, Any], stopped: Callable[[], bool]) -> Output | None:
    """A gif or a sequence, written from the frames that are kept."""
    output = _opened(job, settings)
    whole = False
    try:
        for frame in _all_frames(job):
            if stopped():
                return None
            output.write(frame.rgb, job.plan.pts[frame.number])
        output.finish()
        output.verify()
        whole = True
    finally:
        if not whole:
            output.discard()
    return output


def _all_frames(job: Job) -> Iterator[KeptFrame]:
    for number in range(len(job.ledger.sealed)):
        yield from read_frames(job.frames_path(number))


def _encoding(job: Job) -> dict[str, Any]:
    return {"size": job.plan.size, **job.plan.options.encoding}


@contextmanager
def errors_of(job: Job) -> Iterator[None]:
    """What the disk refuses becomes one line that says what is kept and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise ResourceError(f"cannot write {error.filename or job.folder}: {error.strerror}; {_kept(job)}") from error
    except ResourceError as error:
        raise ResourceError(f"{str(error).removesuffix(NOTHING_KEPT)}; {_kept(job)}") from error


def _kept(job: Job) -> str:
    if not job.done:
        return "nothing was finished yet"
    finished = counted(job.done, "frame")
    return f"what is finished, {finished}, is kept in {job.folder}: put it right and run the same command again"
