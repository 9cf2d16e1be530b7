"""A look at an unfinished render from outside, while it runs or after it was stopped. Nothing here imports torch."""

import os
import tempfile
import time
from collections.abc import Mapping
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from nst_video.errors import InputError, UsageError
from nst_video.jobs.fingerprint import digest
from nst_video.jobs.job import Job, read_job
from nst_video.jobs.jobfolder import LEDGER, MANIFEST, job_folder
from nst_video.jobs.joblock import holder_of
from nst_video.jobs.jobwriter import OFTEN, SELDOM
from nst_video.media.destination import check_output, output_kind
from nst_video.media.lossless import read_frames
from nst_video.media.output import open_output
from nst_video.media.segments import JoinedOutput, encode_segment
from nst_video.media.sequences import is_pattern, numbered
from nst_video.media.survey import probe_input
from nst_video.media.videoinfo import VideoInfo


def gather(output: str | os.PathLike[str]) -> dict[str, Any]:
    """How far the unfinished render of `output` is, as plain JSON types; InputError where there is none."""
    job = _job_of(output)
    holder = holder_of(job.folder)
    plan, point = job.plan, job.ledger.checkpoint
    seconds = point.seconds if point else 0.0
    pace = seconds / job.done if job.done else None
    return {
        "output": plan.output,
        "folder": str(job.folder),
        "state": "running" if holder else "complete" if job.ledger.published else "stopped",
        "process": str(holder) if holder else None,
        "frames": plan.frames,
        "done": job.done,
        "segments": len(job.segments),
        "sealed": len(job.ledger.sealed),
        "lanes": len(plan.ranges),
        "size": list(plan.size),
        "saved_ago": _saved_ago(job),
        "seconds": seconds,
        "seconds_left": None if pace is None else pace * (plan.frames - job.done),
        "bytes": sum(path.stat().st_size for path in job.folder.iterdir() if path.is_file()),
        "input": plan.input,
        "styles": [style.path for style in plan.styles],
        "command": job.manifest.command or None,
    }


def _job_of(output: str | os.PathLike[str]) -> Job:
    """The job of an output; InputError where there is none, which says whether the output is there."""
    path = os.fspath(output)
    there = numbered(path) if is_pattern(path) else Path(path).exists()
    if there and not job_folder(path).joinpath(MANIFEST).exists():
        raise InputError(f"{path} is there, and nothing is unfinished of it: the render is complete, or was not begun")
    return read_job(output)


def _saved_ago(job: Job) -> float | None:
    """Seconds since the frames that count as done were saved; None where none were."""
    point = job.ledger.checkpoint
    if point is None:
        return None
    # Sealing a segment writes the ledger as well; the state is written for the checkpoint alone.
    file = job.path(point.state.name if point.state else LEDGER)
    try:
        return max(0.0, time.time() - file.stat().st_mtime)
    except FileNotFoundError:  # saved anew meanwhile
        return 0.0


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts for people."""
    width, height = facts["size"]
    state = f"running: {facts['process']}" if facts["process"] else facts["state"]
    share = 100 * facts["done"] / facts["frames"]
    left = "" if facts["seconds_left"] is None else f", about {facts['seconds_left'] / 60:.1f} min left"
    saved = f"{facts['done']:,} of {facts['frames']:,} ({share:.0f} %) of {width}x{height} saved"
    return [
        f"{facts['output']}: {state}",
        f"frames: {saved}{_when(facts)}{left}",
        f"segments: {facts['sealed']} of {facts['segments']} finished",
        f"folder: {facts['folder']} ({facts['bytes'] / 1e6:.0f} MB)",
        *([f"to go on: {facts['command']}"] if facts["command"] and not facts["process"] else []),
    ]


def _when(facts: Mapping[str, Any]) -> str:
    """When it was saved; of a render that runs also that it may be further."""
    ago = facts["saved_ago"]
    when = " yet" if ago is None else f" {ago:.0f} s ago" if ago < 120 else f" {ago / 60:.0f} min ago"
    return f"{when} (what is painted is saved every {OFTEN:.0f} to {SELDOM:.0f} s)" if facts["process"] else when


def write_preview(output: str | os.PathLike[str], preview: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write a playable video of the frames of `output` that are finished, with their sound; returns their number.

    Segments that are finished are copied as they are. UsageError for a name that is no video, exists or cannot hold the
    render's codec; InputError where no frame is finished yet.
    """
    job = _job_of(output)
    plan, target, options = job.plan, os.fspath(preview), job.plan.options
    if output_kind(target) != "video":
        raise UsageError(
            f"{target} is not a video to play; name one, such as so_far{Path(plan.output).suffix or '.mp4'}"
        )
    if os.path.realpath(target) == os.path.realpath(plan.output):
        raise UsageError(f"{target} is the output of that render and appears when it is complete; name another file")
    check_output(target, sources=plan.sources, **options.encoding, overwrite=overwrite)
    if digest(plan.input) != job.manifest.fingerprint["input"]:
        raise InputError(f"{plan.input} is no longer what is being rendered; its sound would not fit")
    if not job.done:
        raise InputError(f"no frame of {plan.output} is finished yet; try again later")
    info = probe_input(plan.input, options)
    done = playable(job)
    if not done:
        raise InputError(f"the first frame of {plan.output} is not finished yet; try again later")
    end = options.end if done == plan.frames else (plan.pts[done] - info.start_pts) * plan.time_base
    try:
        with tempfile.TemporaryDirectory(prefix=".nst-video-", dir=Path(target).parent) as folder:
            (_joined if job.kind == "video" else _encoded)(job, info, target, Path(folder), done, end)
    except FileNotFoundError as error:
        raise InputError(f"{plan.output} went on while it was read; try again") from error
    return done


def playable(job: Job) -> int:
    """How many frames are finished from the first one on, without a gap."""
    done = 0
    for (first, last), count in zip(job.segments, job.finished, strict=True):
        done += count
        if count < last - first:
            break
    return done


def _settings(job: Job, info: VideoInfo) -> dict[str, Any]:
    return {"info": info, "size": job.plan.size, **job.plan.options.encoding}


def _joined(job: Job, info: VideoInfo, target: str, folder: Path, done: int, end: Fraction | None) -> None:
    """The finished segments, and what there is of others encoded for now."""
    settings, edges, sealed = _settings(job, info), job.plan.edges, job.sealed
    paths, delays = [], []
    for number, (first, last) in enumerate(job.segments):
        if first >= done:
            break
        video, path = sealed[number].video if number in sealed else None, folder / f"{number}.video"
        if video is not None:
            paths.append(job.path(video.name))
            delays.append(sealed[number].delay)
            continue
        frames = islice(read_frames(job.frames_path(number)), min(last, done) - first)
        now = edges[first : min(last, done) + 1]
        encoded = encode_segment(path, frames, now, stopped=lambda: False, path=target, **settings)
        assert encoded is not None
        paths.append(path)
        delays.append(encoded[1])
    settings |= {"part": folder / "part", "start": job.plan.options.start, "end": end}
    output = JoinedOutput(target, music=job.plan.heard(done), **settings)
    try:
        output.join(paths, edges[: done + 1], max(delays), lambda: False)
        output.verify()
        output.publish()
    finally:
        output.discard()


def _encoded(job: Job, info: VideoInfo, target: str, folder: Path, done: int, end: Fraction | None) -> None:
    """A video of frames that are on their way to a gif or a sequence."""
    place = {"part": folder / "part", "start": job.plan.options.start, "end": end}
    settings = _settings(job, info) | place | {"until": job.plan.edges[done], "music": job.plan.heard(done)}
    output = open_output("video", target, **settings)
    try:
        for segment, (first, _) in enumerate(job.segments):
            if first < done:
                for frame in islice(read_frames(job.frames_path(segment)), done - first):
                    output.write(frame.rgb, job.plan.pts[frame.number])
        output.finish()
        output.verify()
        output.publish()
    finally:
        output.discard()
