"""Beginning a render that can be stopped, and going on with one that was: the same call does either."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nst_video.errors import InputError, UsageError
from nst_video.jobs.fingerprint import differences, encoding, fingerprint, processor, with_encoding
from nst_video.jobs.job import Job
from nst_video.jobs.jobfolder import LEDGER, MANIFEST, clear_folder, is_ours, job_folder, make_folder, remove_folder
from nst_video.jobs.joblock import JobLock
from nst_video.jobs.jobwriter import is_published
from nst_video.jobs.ledger import Ledger, Manifest
from nst_video.jobs.resources import check_disk
from nst_video.media.destination import check_output, settle_encoding
from nst_video.media.guarded import look
from nst_video.plan import Plan
from nst_video.planning import StyleLike, make_plan, request_of, shares_of
from nst_video.settings import Settings

log = logging.getLogger(__name__)


def open_job(
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    *,
    command: str = "",
    reports: Iterable[str | os.PathLike[str]] = (),
    **groups: Any,
) -> Job:
    """The job of a video, gif or sequence, locked for this process: an unfinished one where there is one, or a new one.

    Arguments as `make_plan`; `command` says, for people, how to go on with it; `reports` are files that belong to it.

    Raises:
        UsageError: the unfinished one was begun with other settings; or what `make_plan` raises.
        ResourceError: another process works on it, or there is too little room on the disk.
    """
    settings = Settings(**groups)
    settings = replace(settings, options=settle_encoding(settings.options, output))
    folder = job_folder(output)
    lock = JobLock(folder)
    try:
        if not settings.options.restart and folder.joinpath(MANIFEST).exists():
            job = _found(folder, lock, input, styles, output, settings)
            if job is not None:
                return job
        _tidy(folder, lock)
        return _begin(folder, lock, input, styles, output, settings, command, reports)
    except BaseException:
        lock.release()
        raise


def tidy(output: str | os.PathLike[str]) -> None:
    """Remove what is left of a job of `output` whose removal, or whose making, was cut off.

    ResourceError while another process works on it.
    """
    lock = JobLock(job_folder(output))
    try:
        _tidy(lock.path.parent, lock)
    finally:
        lock.release()


def _tidy(folder: Path, lock: JobLock) -> None:
    """Remove what is left of a job whose removal, or whose making, was cut off."""
    if folder.is_dir() and not folder.joinpath(MANIFEST).exists() and is_ours(folder):
        lock.take()
        if not folder.joinpath(MANIFEST).exists():
            remove_folder(folder, lock)


def _begin(
    folder: Path,
    lock: JobLock,
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    settings: Settings,
    command: str,
    reports: Iterable[str | os.PathLike[str]],
) -> Job:
    """A new job; what is left of an older one in its folder is given up."""
    plan = make_plan(input, styles, output, **vars(settings))
    print_of = fingerprint(plan.input, plan.styles, settings)
    check_disk(plan, folder.parent)
    make_folder(folder)
    lock.take()
    names = tuple(os.path.realpath(report) for report in reports)
    manifest = Manifest(print_of, encoding(plan.options), processor(plan.machine.device), plan, command, names)
    job = Job(folder, manifest, lock=lock)
    if folder.joinpath(MANIFEST).exists():
        folder.joinpath(MANIFEST).unlink()
        log.info("the unfinished render in %s is given up", folder)
    clear_folder(folder)
    job.rewrite(manifest)
    return job


def _found(
    folder: Path,
    lock: JobLock,
    input: str | os.PathLike[str],
    styles: StyleLike | Sequence[StyleLike],
    output: str | os.PathLike[str],
    settings: Settings,
) -> Job | None:
    """The unfinished job, ready to go on; None where it is only the rest of one that was done."""
    before = lock.take()
    if before is not None and not before.lives():
        log.info("%s was left by %s, which is gone", folder, before)
    if not folder.joinpath(MANIFEST).exists():
        return None
    job = Job(folder, Manifest.read(folder / MANIFEST), Ledger.read(folder / LEDGER), lock)
    shares = shares_of(styles, settings)
    now = fingerprint(os.fspath(input), shares, settings)
    changed = differences(job.manifest.fingerprint, now)
    if job.ledger.removing and (changed or not is_published(job)):
        return None
    if changed:
        raise _refusal(job, changed)
    plan = _with(job.plan, os.fspath(input), os.fspath(output), shares, settings)
    manifest = replace(job.manifest, plan=plan, encoding=encoding(plan.options))
    if not is_published(job) or manifest.encoding != job.manifest.encoding:
        _check_name(job, plan)  # before anything of the job is changed
    if not is_published(job):
        # That the fingerprint is the same says nothing where the whole job came with the input, from somebody else.
        _look_at(plan)
    _change_encoding(job, manifest)
    if not is_published(job):
        _check_ready(job)
    return job


def _with(plan: Plan, input: str, output: str, styles: tuple[Any, ...], settings: Settings) -> Plan:
    """The plan as it was made, with the files where they are now and what changes no painted pixel."""
    music, dream = settings.music, plan.dream
    if dream is not None and settings.dream is not None:
        dream = replace(dream, guide=settings.dream.guide)
    return replace(
        plan,
        input=input,
        output=output,
        styles=styles,
        options=with_encoding(plan.options, settings.options),
        dream=dream,
        music=music,
        song=plan.song and replace(plan.song, path=str(music.music)),
        machine=replace(plan.machine, offline=settings.machine.offline, weights=settings.machine.weights),
    )


def _change_encoding(job: Job, manifest: Manifest) -> None:
    """Take over another codec, crf or preset where that needs no painting; UsageError where it would."""
    changed = differences(job.manifest.encoding, manifest.encoding)
    sealed = job.ledger.sealed
    if changed and any(one.frames is None for one in sealed):
        raise _refusal(job, changed)
    if changed:
        log.info("written anew with %s; nothing has to be painted again", ", ".join(changed))
        job.record(published=None, sealed=tuple(replace(one, video=None, delay=0) for one in sealed))
        job.rewrite(manifest)
    job.manifest = manifest


def _check_name(job: Job, plan: Plan) -> None:
    """Whether the output can be written as the plan says."""
    options = plan.options
    moved = job.kind == "sequence" and job.ledger.published is not None  # some pictures may be in their place already
    check_output(plan.output, sources=plan.sources, **options.encoding, overwrite=options.overwrite or moved)


def _look_at(plan: Plan) -> None:
    """Look at the files of a plan as when it was made. Raises what stands against them."""
    with look(request_of(plan.input, plan.styles, plan.output, plan.settings)) as at:
        at.pictures()
        at.finish()


def _check_ready(job: Job) -> None:
    """What may have changed around the job since it was left, and where it goes on."""
    plan = job.plan
    for loss in job.settle_start():
        log.warning("%s; it is painted again", loss)
    if job.done < plan.frames:
        _check_machine(job)
    check_disk(plan, job.folder.parent, done=job.done)
    if job.done < plan.frames and len(plan.ranges) > 1:
        log.info("resuming with %s of %s frames done", f"{job.done:,}", f"{plan.frames:,}")
    elif job.done < plan.frames:
        log.info("resuming at frame %s of %s", f"{job.done + 1:,}", f"{plan.frames:,}")
    else:
        log.info("all %s frames are painted; finishing %s", f"{plan.frames:,}", plan.output)


def _check_machine(job: Job) -> None:
    """Whether the device of the plan is there, and the machine that it was begun on."""
    from nst_video.devices.machine import devices  # imports torch

    device, present = job.plan.machine.device, devices()
    if device not in present:
        raise UsageError(
            f"{job.folder} was begun on {device}, which is not there; this machine has {', '.join(present)}. "
            "Go on where that is, give --restart to begin anew, or another output"
        )
    then, now = job.manifest.processor, processor(device)
    if then != now:
        log.warning("begun on %s; on this %s the frames from here on may differ in their last bits", then, now)


def _refusal(job: Job, changed: Sequence[str]) -> UsageError:
    return UsageError(
        f"{job.folder} holds {job.done} of {job.plan.frames} frames rendered with other settings: "
        f"{'; '.join(changed)}. Give the old ones to go on, --restart to begin anew, or another output"
    )


def left_by(reports: Iterable[Path | None], output: str | os.PathLike[str]) -> set[str]:
    """The real paths of those reports that an unfinished render of `output` has begun to write."""
    manifest = job_folder(output) / MANIFEST
    if not manifest.exists():
        return set()
    try:
        known = set(Manifest.read(manifest).reports)
    except InputError:
        return set()
    return {os.path.realpath(report) for report in reports if report is not None} & known
