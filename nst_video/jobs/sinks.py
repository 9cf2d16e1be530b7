"""Where painted frames go: straight into the output, or into a job that can be gone on with."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from nst_video.errors import InputError
from nst_video.jobs.job import Job
from nst_video.jobs.jobwriter import JobWriter, Moment, Pair, check_writing, publish
from nst_video.media.lossless import KeptFrame
from nst_video.media.video import VideoWriter
from nst_video.media.videoinfo import VideoInfo
from nst_video.painting.lanes import Lane
from nst_video.painting.painted import Round, Standing
from nst_video.plan import Plan
from nst_video.reports import sheet_frames, small_pair

if TYPE_CHECKING:
    import torch


class Sink(Protocol):
    """A context manager that takes the frames as they are painted, those that it has already left out."""

    seconds: float  # of work before this run

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def rows(self) -> Sequence[dict[str, Any]]:
        """The rows of the frames that are there already."""

    def start(self, stylizer: Any, device: "torch.device | str") -> tuple[Standing, ...]:
        """Where each lane begins."""

    def write(self, painted: Round, seconds: float, *, checkpoint: bool) -> None:
        """The next frames, after `seconds` of work in all; with `checkpoint` going on from here must be possible."""

    def stop(self) -> None:
        """No more frames in this run: wait until what was written is safe."""

    def finish(self, summary: Callable[[], dict[str, Any]], stopped: Callable[[], bool]) -> bool:
        """Every frame is there: make the output; False where `stopped` said so before."""

    def how_to_go_on(self) -> str:
        """What becomes of a stopped render, for people."""

    def replan(self, plan: Plan) -> None:
        """The plan that the rest of the frames is painted by; only what changes no pixel visibly may be another."""


class FileSink:
    """Writes the output in one go; nothing is left unless `finish` was reached."""

    seconds = 0.0

    def __init__(self, plan: Plan, info: VideoInfo) -> None:
        self._plan, self._info = plan, info
        self._writer: VideoWriter | None = None

    def __enter__(self) -> Self:
        options = self._plan.options
        self._writer = VideoWriter(
            self._plan.output,
            info=self._info,
            size=self._plan.size,
            overwrite=options.overwrite,
            start=options.start,
            end=options.end,
            until=self._plan.end,
            music=self._plan.heard(),
            **options.encoding,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.abort()

    def rows(self) -> Sequence[dict[str, Any]]:
        """None: it always begins anew."""
        return []

    def start(self, stylizer: Any, device: "torch.device | str") -> tuple[Standing, ...]:
        """The beginning."""
        return (Standing(),)

    def write(self, painted: Round, seconds: float, *, checkpoint: bool) -> None:
        """The next frame; of a plan with one lane, as the output takes them in order."""
        assert self._writer is not None
        for frame in painted.painted:
            self._writer.write(frame.after[None], (frame.report.pts,))

    def stop(self) -> None:
        """Nothing is kept."""

    def finish(self, summary: Callable[[], dict[str, Any]], stopped: Callable[[], bool]) -> bool:
        """Verify the output and give it its name."""
        writer, self._writer = self._writer, None
        assert writer is not None
        writer.close()
        return True

    def how_to_go_on(self) -> str:
        """Nothing is kept."""
        return "nothing was kept"

    def replan(self, plan: Plan) -> None:
        """Nothing of it is kept."""


class JobSink:
    """Keeps every frame in a job, and makes the output at the end."""

    def __init__(self, job: Job, info: VideoInfo) -> None:
        self._job, self._info = job, info
        self._writer = JobWriter(job, info)
        self._sheet = sheet_frames(job.plan.frames)
        point = job.ledger.checkpoint
        self.seconds = point.seconds if point else 0.0

    def __enter__(self) -> Self:
        check_writing(self._job, self._info)
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def rows(self) -> Sequence[dict[str, Any]]:
        """The rows of the finished frames; InputError where some are missing."""
        rows = self._job.rows()
        finished = zip(self._job.segments, self._job.finished, strict=True)
        wanted = [number for (first, _), count in finished for number in range(first, first + count)]
        if [row["frame"] for row in rows] != wanted:
            raise InputError(f"{self._job.folder} lacks rows of finished frames; give --restart to begin anew")
        return rows

    def start(self, stylizer: Any, device: "torch.device | str") -> tuple[Standing, ...]:
        """What the last finished frames left."""
        from torch import Tensor

        from nst_video.jobs.states import read_packed, unpack

        plan, point = self._job.plan, self._job.ledger.checkpoint
        if point is None:
            return tuple(Standing(lane.start) for lane in plan.ranges)
        states: Any = [None] * len(plan.ranges), [None] * len(plan.ranges)
        if point.state is not None:
            each: Any = tuple[type(stylizer.initial_state()), Tensor] | None  # type: ignore[misc]
            kind: Any = tuple[tuple[each, ...], tuple[Tensor | None, ...]]
            states = unpack(read_packed(self._job.path(point.state.name)), kind, device)
        found = []
        for lane, at, seen, one, anchor in zip(plan.ranges, point.at, point.seen, *states, strict=True):
            state, image = (None, None) if one is None or self._fresh(lane, at) else one
            found.append(Standing(at, state, image, seen, anchor))
        return tuple(found)

    def write(self, painted: Round, seconds: float, *, checkpoint: bool) -> None:
        """The next frames, and a checkpoint where it is time for one."""
        for frame in painted.painted:
            number = frame.report.frame
            self._writer.write(KeptFrame(number, frame.row, frame.after))
            if number in self._sheet:
                self._writer.write(Pair(number, small_pair(frame.before, frame.after)))
        if checkpoint or self._writer.wants(painted.positions):
            self._writer.keep(self._moment(painted, seconds))

    def stop(self) -> None:
        """Wait for the disk."""
        self._writer.finish()

    def finish(self, summary: Callable[[], dict[str, Any]], stopped: Callable[[], bool]) -> bool:
        """Make the output of the segments, and remove the job."""
        self._writer.finish()
        return publish(self._job, self._info, summary(), stopped)

    def how_to_go_on(self) -> str:
        """The command again."""
        again = self._job.manifest.command or "the same call"
        return f"what is finished is kept in {self._job.folder}; to go on: {again}"

    def replan(self, plan: Plan) -> None:
        """Keep it, so that a render that goes on later obeys it."""
        self._job.rewrite(replace(self._job.manifest, plan=plan))

    def _moment(self, painted: Round, seconds: float) -> Moment:
        from nst_video.jobs.states import pack

        standings = painted.standings()
        states = tuple(
            None if self._fresh(lane, one.frame) else (one.state, one.image)
            for lane, one in zip(self._job.plan.ranges, standings, strict=True)
        )
        anchors = tuple(one.anchor for one in standings)
        nothing = all(one is None for one in (*states, *anchors))
        packed = None if nothing else pack((states, anchors))
        return Moment(painted.positions, seconds, packed, tuple(one.seen for one in standings))

    def _fresh(self, lane: Lane, frame: int) -> bool:
        """Whether a lane needs nothing of the past at a frame."""
        return frame == lane.last or lane.begins(frame, self._job.plan.shots)
