"""Renders that were stopped go on where they were and come out as uninterrupted ones; what does not fit is refused."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from media import damage, make_video, number_of, packets_of, picture, spoil

from nst_video.cli import main
from nst_video.errors import InputError, ResourceError, Stopped, UsageError
from nst_video.jobs import jobwriter
from nst_video.jobs.fingerprint import differences, processor
from nst_video.jobs.job import Job, read_job
from nst_video.jobs.jobfolder import LEDGER, MANIFEST, job_folder
from nst_video.jobs.joblock import Holder, JobLock
from nst_video.jobs.ledger import Ledger, Manifest
from nst_video.jobs.resources import disk_needed
from nst_video.jobs.resume import open_job
from nst_video.jobs.status import gather, lines, write_preview
from nst_video.jobs.stopping import Terminated
from nst_video.media import shots
from nst_video.media.pictures import write_picture
from nst_video.media.shots import segments
from nst_video.media.video import VideoReader
from nst_video.options import OutputOptions
from nst_video.painting.state import State
from nst_video.painting.stepreport import StepReport
from nst_video.planning import make_plan
from nst_video.render import render_job, render_plan

FRAMES = 24
SHAKY = tuple(number * 512 + (number % 3) * 40 for number in range(FRAMES))  # times that no rate explains


class Echo:
    """Mixes each frame with everything painted before it, so that a wrong state, or none, shows in all later frames."""

    def __init__(self):
        self.steps = 0

    def initial_state(self, seed=None):
        return State(seed=seed or 0)

    def step(self, image, motion, state, controls):
        self.steps += 1
        past = image if state.outputs is None else state.outputs[:, 0]
        flow = motion.flows.abs().mean() if motion.references else torch.tensor(0.0)
        mixed = (0.7 * image + 0.3 * past + 0.01 * flow.clamp(0, 1) + 0.01 * controls.dt).clamp(0, 1)
        report = StepReport(1, 0, {"loss": float(mixed.mean())}, (float(mixed.mean()),))
        return mixed, State(state.seed, state.frame + 1, mixed[:, None], image, None, report)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch):
    """Several segments in a short clip, and a checkpoint after every frame."""
    monkeypatch.setattr(shots, "SHORTEST_SEGMENT", 4)
    monkeypatch.setattr(shots, "LONGEST_SEGMENT", 7)
    monkeypatch.setattr(jobwriter, "OFTEN", 0.0)
    monkeypatch.setattr(jobwriter, "SELDOM", 0.0)


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "in.mp4", pts=SHAKY, sound="aac")


@pytest.fixture
def opened(clip, style, tmp_path):
    """A function that opens the job of an output, by name, with options of the output."""

    def make(name="out.mp4", **options):
        return open_job(clip, style, tmp_path / name, options=OutputOptions(**options))

    return make


def stop_after(frames):
    """A function to be asked after every frame, that says stop after so many."""
    asked = itertools.count(1)
    return lambda: next(asked) >= frames


def run(job, frames=None):
    """Render the job, or stop it after so many frames; returns the stylizer, which knows what it did."""
    stylizer = Echo()
    with job:
        if frames is None:
            render_job(job, stylizer)
        else:
            with pytest.raises(Stopped, match=f"of {FRAMES}; what is finished is kept in .*nst; to go on"):
                render_job(job, stylizer, stop=stop_after(frames))
    return stylizer


def frames_of(path):
    with VideoReader(path) as reader:
        batches = list(reader)
    return np.concatenate([batch.rgb for batch in batches]), sum((batch.pts for batch in batches), ())


@pytest.fixture
def wanted(clip, style, tmp_path):
    """The frames of an uninterrupted render that was never in a job."""
    plan = make_plan(clip, style, tmp_path / "one" / "out.mp4") if (tmp_path / "one").mkdir() is None else None
    result = render_plan(plan, Echo())
    return frames_of(tmp_path / "one" / "out.mp4"), result


# ---------------------------------------------------------------------------------------------- segments


def test_segments_depend_on_the_shots_alone(monkeypatch):
    monkeypatch.undo()
    cases = [((0, 1),), ((0, 47), (47, 95)), ((0, 1000),), ((0, 30), (30, 300), (300, 310)), ((0, 241),)]
    for case in cases:
        parts = segments(case, frame_bytes=1000)
        assert parts[0][0] == 0
        assert [last for _, last in parts[:-1]] == [first for first, _ in parts[1:]]
        assert parts[-1][1] == case[-1][1]
        lengths = [last - first for first, last in parts]
        assert max(lengths) <= 240
        assert min(lengths) >= min(48, case[-1][1])
    assert max(b - a for a, b in segments(((0, 1000),), frame_bytes=3840 * 2160 * 3)) <= 24


# ---------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("frames", [1, 3, 6, 7, 8, 13, 23])
def test_a_render_goes_on_where_it_stopped_and_comes_out_the_same(opened, wanted, tmp_path, frames, caplog):
    caplog.set_level("INFO")
    (pictures, pts), _ = wanted
    first = run(opened(), frames)
    assert not (tmp_path / "out.mp4").exists()
    second = run(opened())
    assert f"resuming at frame {frames + 1} of 24" in caplog.text
    assert (first.steps, second.steps) == (frames, FRAMES - frames)
    again, times = frames_of(tmp_path / "out.mp4")
    assert times == pts
    uninterrupted = run_whole(opened, tmp_path)
    assert np.array_equal(again, uninterrupted)
    assert np.median(np.abs(again.astype(int) - pictures)) <= 1  # encoded in other parts
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(tmp_path / "in.mp4", "audio")
    assert not (tmp_path / "out.mp4.nst").exists()


def run_whole(opened, tmp_path, name="whole.mp4", **options):
    run(opened(name, **options))
    return frames_of(tmp_path / name)[0]


def test_stopped_after_every_single_frame(opened, wanted, tmp_path):
    for _ in range(FRAMES - 1):
        assert run(opened(), 1).steps == 1
    assert run(opened()).steps == 1
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path))


def test_the_result_is_that_of_the_whole_render(opened, wanted):
    run(opened(), 9)
    with opened() as job:
        seen = []
        result = render_job(job, Echo(), progress=seen.append)
    _, uninterrupted = wanted
    plain = [{**vars(row), "took": 0} for row in uninterrupted.rows]
    assert [{**vars(row), "took": 0} for row in result.rows] == plain
    assert (result.frames, result.drift, result.losses) == (24, uninterrupted.drift, uninterrupted.losses)
    assert [(one.done, one.resumed) for one in seen] == [(number, 9) for number in range(10, 25)]


@pytest.mark.parametrize("name", ["out.gif", "out", "out/%03d.png", "out.mkv", "out.webm"])
def test_other_outputs_go_on_as_well(opened, tmp_path, name):
    run(opened(name), 9)
    assert run(opened(name)).steps == FRAMES - 9
    whole = {"out.gif": "whole.gif", "out": "whole", "out/%03d.png": "whole/%03d.png"}.get(name, f"whole{name[3:]}")
    assert np.array_equal(frames_of(tmp_path / name)[0], run_whole(opened, tmp_path, whole))
    assert [number_of(rgb) for rgb in frames_of(tmp_path / name)[0][:2]] == [0, 1]
    assert not list(tmp_path.rglob("*.nst"))


def test_a_part_with_a_start_and_stride(opened, tmp_path):
    part = {"start": Fraction(1, 5), "end": Fraction(4, 5), "stride": 2}
    with opened(**part) as job:
        frames = job.plan.frames
        with pytest.raises(Stopped):
            render_job(job, Echo(), stop=stop_after(3))
    assert run(opened(**part)).steps == frames - 3
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path, **part))


def test_an_input_whose_damage_is_held_is_read_from_its_beginning(clip, style, tmp_path):
    damage(clip, 3)

    def opened(name="out.mp4", **options):
        return open_job(clip, style, tmp_path / name, options=OutputOptions(on_error="hold", **options))

    run(opened(), 9)
    run(opened())
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path))


def test_shots_begin_anew_after_going_on(tmp_path, style):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(FRAMES):
        write_picture(folder / f"{number:03}.png", picture(number) if number < 10 else 255 - picture(number))

    def opened(name="out.mp4", **options):
        return open_job(folder, style, tmp_path / name, options=OutputOptions(**options))

    for frames in (9, 10, 11):  # before the cut, at it, and with the shot's first frame as the only one in the window
        run(opened(), frames)
        run(opened())
        assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path)), frames
        (tmp_path / "out.mp4").unlink()
        (tmp_path / "whole.mp4").unlink()


def test_a_torn_tail_is_dropped(opened, tmp_path):
    run(opened(), 10)
    log = read_job(tmp_path / "out.mp4").frames_path(1)
    whole = log.read_bytes()
    for garbage in (whole[100:150], b"\0" * 1000):
        log.write_bytes(whole + garbage)
        assert opened_and_closed(opened).done == 10
    run(opened())
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path))


def opened_and_closed(opened, **options):
    with opened(**options) as job:
        return job


@pytest.mark.parametrize("victim", ["segment-00000.video", "segment-00001.frames", "state-*"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_what_is_damaged_is_painted_again(opened, tmp_path, caplog, victim, how):
    run(opened(), 10)
    (path,) = (tmp_path / "out.mp4.nst").glob(victim)
    spoil(path, how)
    run(opened())
    assert "damaged or missing; it is painted again" in caplog.text
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path))


def test_a_second_signal_waits_for_no_segment(opened, tmp_path, monkeypatch):
    """Segments take long to encode, so that the thread that keeps frames waits for room among them."""
    taken = []

    def slowly(*args, stopped, **settings):
        until = time.monotonic() + 8
        while time.monotonic() < until and not stopped():
            time.sleep(0.01)
        taken.append(stopped())

    def interrupt(progress):
        if progress.done == 20:
            time.sleep(0.5)
            begun.append(time.monotonic())
            raise Terminated(signal.SIGINT)

    begun = []
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one segment at a time
    monkeypatch.setattr(jobwriter, "encode_segment", slowly)
    with opened() as job, pytest.raises(Terminated):
        render_job(job, Echo(), progress=interrupt)
    assert time.monotonic() - begun[0] < 2
    assert taken[-1]  # the one that was being encoded was told; those before may have been done
    monkeypatch.undo()
    assert read_job(tmp_path / "out.mp4").done >= 18


# ---------------------------------------------------------------------------------------------- what is refused


def test_other_settings_are_refused_with_the_difference(opened, clip, style, tmp_path):
    run(opened(), 5)
    with pytest.raises(
        UsageError, match=r"holds 5 of 24 frames .* --stride 1 then, 2 now\. Give .* --restart .*another"
    ):
        opened(stride=2)
    style.write_bytes(style.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=r"style 1 \d+ bytes, SHA-256 .* then, \d+ bytes"):
        opened()


def test_an_input_that_changed_is_refused(opened, clip):
    run(opened(), 5)
    content = clip.read_bytes()
    make_video(clip, pts=SHAKY)
    with pytest.raises(UsageError, match=r"input .* then"):
        opened()
    clip.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        opened()
    clip.write_bytes(content)
    assert run(opened()).steps == FRAMES - 5


def test_pictures_that_changed_under_the_same_bytes_are_noticed(opened, monkeypatch):
    run(opened(), 5)
    monkeypatch.setattr("nst_video.painting.upcoming.seen", lambda rgb: 0)  # as if they were decoded otherwise
    with opened() as job, pytest.raises(InputError, match="shows other pictures before frame 5 than it did"):
        render_job(job, Echo())


def test_restart_begins_anew(opened, tmp_path):
    run(opened(), 5)
    assert run(opened(stride=2, restart=True)).steps == FRAMES // 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "style.png"]


def test_a_new_version_of_a_package_is_refused(opened, monkeypatch):
    run(opened(), 5)
    monkeypatch.setattr("nst_video.jobs.fingerprint.version", lambda name: "99")
    with pytest.raises(UsageError, match=r"torch .* then, 99 now"):
        opened()


def test_another_processor_is_remarked(opened, monkeypatch, caplog):
    run(opened(), 5)
    monkeypatch.setattr("nst_video.jobs.resume.processor", lambda device: "Abacus 9000")
    run(opened())
    assert "on this Abacus 9000 the frames from here on may differ" in caplog.text


def test_another_gpu_is_another_processor(monkeypatch):
    monkeypatch.setattr("nst_video.devices.machine.device_name", lambda device: f"the GPU {device}")
    assert processor("cuda:1") == f"{processor('cpu')} with the GPU cuda:1"


def test_a_device_that_is_gone_is_refused_where_frames_are_left(opened, clip, style, tmp_path, capsys):
    run(opened(), 5)
    job = read_job(tmp_path / "out.mp4")
    plan = replace(job.plan, machine=replace(job.plan.machine, device="cuda:99"))
    job.rewrite(replace(job.manifest, plan=plan))
    before = contents(job.folder)
    assert main([str(clip), str(style), str(tmp_path / "out.mp4")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"nst was begun on cuda:99, which is not there; this machine has .*cpu\. Go on where", last)
    assert contents(job.folder) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def test_a_file_that_appeared_meanwhile_is_not_replaced(opened, tmp_path):
    run(opened(), 5)
    (tmp_path / "out.mp4").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists; give -y"):
        opened()
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"
    assert run(opened(overwrite=True)).steps == FRAMES - 5


def test_a_folder_that_is_no_job_is_left_alone(opened, tmp_path):
    (tmp_path / "out.mp4.nst").mkdir()
    (tmp_path / "out.mp4.nst" / "mine.txt").write_text("mine")
    with pytest.raises(ResourceError, match="is not the folder of an unfinished render"):
        opened()
    assert (tmp_path / "out.mp4.nst" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [MANIFEST, LEDGER])
@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 99}', '{"version": 1, "plan": []}'])
def test_a_damaged_manifest_or_ledger_is_one_line(opened, tmp_path, name, content):
    run(opened(), 5)
    (tmp_path / "out.mp4.nst" / name).write_text(content)
    with pytest.raises(InputError, match="--restart"):
        opened()
    assert run(opened(restart=True)).steps == FRAMES


@pytest.mark.parametrize("name", ["../outside", "sub/outside", "{}/outside"])
@pytest.mark.parametrize("of", ["state", "segment"])
def test_names_of_a_ledger_do_not_leave_the_folder(opened, tmp_path, capsys, name, of):
    run(opened(), 10)
    folder = tmp_path / "out.mp4.nst"
    facts = json.loads((folder / LEDGER).read_text())
    entry = facts["checkpoint"]["state"] if of == "state" else facts["sealed"][0]["video"]
    content = (folder / entry["name"]).read_bytes()  # the right one, so that its hash is no reason to refuse it
    entry["name"] = name.format(tmp_path)
    outside = folder / entry["name"]
    outside.parent.mkdir(exist_ok=True)
    outside.write_bytes(content)
    (folder / LEDGER).write_text(json.dumps(facts))
    assert main([str(tmp_path / "in.mp4"), str(tmp_path / "style.png"), str(tmp_path / "out.mp4")]) == 3
    assert capsys.readouterr().err.endswith("ledger.json is damaged; give --restart to begin anew\n")
    assert outside.read_bytes() == content


@pytest.mark.parametrize(
    "change", [{"time_base": "1e999999999"}, {"time_base": "1/0"}, {"options": {"rate": "1e999999999"}}]
)
def test_a_number_that_would_take_for_ever_is_damage(opened, tmp_path, change):
    run(opened(), 5)
    path = tmp_path / "out.mp4.nst" / MANIFEST
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"plan": facts["plan"] | change}))
    with pytest.raises(InputError, match="damaged; give --restart"):
        opened()


# ---------------------------------------------------------------------------------------------- two processes


def test_a_second_process_is_refused_while_the_first_lives(opened):
    with opened() as job:
        assert job.lock is not None
        with pytest.raises(ResourceError, match=rf"is being rendered by process {os.getpid()} on .*; wait for it"):
            opened()


def test_the_lock_of_a_dead_process_is_taken_over(opened, tmp_path, caplog):
    caplog.set_level("INFO")
    run(opened(), 5)
    dead = {"pid": os.getpid(), "started": "1", "host": Holder.own().host, "since": 0.0}  # the number, used again
    (tmp_path / "out.mp4.nst" / "lock").write_text(json.dumps(dead))
    assert run(opened()).steps == FRAMES - 5
    assert f"was left by process {os.getpid()} on {dead['host']}, which is gone" in caplog.text


def test_where_files_cannot_be_locked_the_name_in_the_lock_counts(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("nst_video.jobs.joblock._lock", fail)
    first, second = JobLock(tmp_path), JobLock(tmp_path)
    first.take()
    with pytest.raises(ResourceError, match="is being rendered by process"):
        second.take()
    first.release()
    second.take()
    second.release()


# ---------------------------------------------------------------------------------------------- encoding anew


def test_another_codec_needs_no_painting_where_frames_are_kept(opened, tmp_path):
    run(opened(lossless=True, keep_job=True))
    before = frames_of(tmp_path / "out.mp4")[0]
    stylizer = run(opened(lossless=True, keep_job=True, crf=40, overwrite=True))
    assert stylizer.steps == 0
    after = frames_of(tmp_path / "out.mp4")[0]
    assert not np.array_equal(before, after)
    assert np.array_equal(after, run_whole(opened, tmp_path, crf=40))
    assert (tmp_path / "out.mp4.nst").is_dir()
    assert run(opened(lossless=True, crf=40, overwrite=True)).steps == 0
    assert not (tmp_path / "out.mp4.nst").exists()


def test_another_codec_is_refused_where_frames_are_not_kept(opened):
    run(opened(), 12)
    with pytest.raises(UsageError, match=r"--crf 18 then, 40 now"):
        opened(crf=40)


def test_another_codec_is_taken_before_the_first_segment_is_finished(opened, tmp_path):
    run(opened(), 3)
    run(opened(crf=40))
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path, crf=40))


# ---------------------------------------------------------------------------------------------- the end of it


def test_killed_between_the_name_and_the_removal(opened, tmp_path, caplog):
    caplog.set_level("INFO")
    run(opened(keep_job=True))
    content = (tmp_path / "out.mp4").read_bytes()
    with opened() as job:
        result = render_job(job, Echo())
    assert (result.frames, len(result.rows), result.size) == (24, 24, (96, 64))
    assert "is complete already" in caplog.text
    assert (tmp_path / "out.mp4").read_bytes() == content
    assert not (tmp_path / "out.mp4.nst").exists()


@pytest.mark.parametrize("survivors", [(MANIFEST, LEDGER), (LEDGER,), ()])
def test_killed_in_the_middle_of_the_removal(opened, tmp_path, survivors):
    with opened(keep_job=True) as job:
        render_job(job, Echo())
        job.record(removing=True)
    for path in (tmp_path / "out.mp4.nst").iterdir():
        if path.name not in survivors:
            path.unlink()
    if MANIFEST in survivors:
        with opened() as job:
            assert render_job(job, Echo()).frames == 24
    else:
        with pytest.raises(UsageError, match="exists; give -y"):
            opened()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "style.png"]


def test_nothing_is_kept_of_a_render_that_finished_nothing(clip, style, tmp_path):
    class Broken(Echo):
        def step(self, *args):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), open_job(clip, style, tmp_path / "out.mp4") as job:
        render_job(job, Broken())
    assert not (tmp_path / "out.mp4.nst").exists()


def test_every_codec_is_joined_as_written_in_one_go(opened, clip, style, tmp_path):
    """Size and tags of the joined file are those of one that a single encoder wrote."""
    for codec, suffix in (("libx264", ".mp4"), ("libx265", ".mp4"), ("vp9", ".webm"), ("libsvtav1", ".mkv"),
                          ("prores", ".mov"), ("ffv1", ".mkv")):  # fmt: skip
        options = OutputOptions(codec=codec, crf=10, preset="ultrafast")
        with open_job(clip, style, tmp_path / f"joined{suffix}", options=options) as job:
            render_job(job, Echo())
        single = make_plan(clip, style, tmp_path / f"single{suffix}", options=options)
        render_plan(single, Echo())
        joined, alone = (VideoReader(tmp_path / f"{name}{suffix}").info for name in ("joined", "single"))
        fields = ("color", "sample_aspect_ratio", "codec", "pixel_format", "streams", "time_base")
        assert [getattr(joined, name) for name in fields] == [getattr(alone, name) for name in fields]
        assert frames_of(tmp_path / f"joined{suffix}")[1] == frames_of(tmp_path / f"single{suffix}")[1]
        for name in ("joined", "single"):
            (tmp_path / f"{name}{suffix}").unlink()


# ---------------------------------------------------------------------------------------------- status


def test_times_that_differ_are_told_in_seconds():
    assert differences({"--end": None}, {"--end": "1/5"}) == ["--end not given then, 0.2 now"]
    assert differences({"--rate": "25"}, {"--rate": "24000/1001"}) == ["--rate 25 then, 24000/1001 now"]


def test_status_tells_and_plays_what_is_finished(opened, clip, tmp_path):
    run(opened(), 10)
    facts = gather(tmp_path / "out.mp4")
    assert (facts["state"], facts["done"], facts["frames"], facts["sealed"]) == ("stopped", 10, 24, 1)
    assert 0 <= facts["saved_ago"] < 60
    assert re.match(r"frames: 10 of 24 \(42 %\) of 96x64 saved \d+ s ago, about", lines(facts)[1])
    assert "saved 3 min ago, about" in lines(facts | {"saved_ago": 190.0})[1]
    assert write_preview(tmp_path / "out.mp4", tmp_path / "play.mp4") == 10
    pictures, pts = frames_of(tmp_path / "play.mp4")
    assert pts == SHAKY[:10]
    assert (
        packets_of(tmp_path / "play.mp4", "audio")
        == packets_of(clip, "audio")[: len(packets_of(tmp_path / "play.mp4", "audio"))]
    )
    assert len(packets_of(tmp_path / "play.mp4", "audio")) >= 10
    run(opened())
    assert np.array_equal(pictures[:6], frames_of(tmp_path / "out.mp4")[0][:6])


@pytest.mark.parametrize("name", ["out.mp4", "f/%03d.png"])
def test_status_tells_a_complete_output_from_none(tmp_path, name):
    with pytest.raises(InputError, match="there is no unfinished render of"):
        gather(tmp_path / name)
    output = tmp_path / name.replace("%03d", "001")
    output.parent.mkdir(exist_ok=True)
    output.touch()
    with pytest.raises(InputError, match="is there, and nothing is unfinished of it: the render is complete"):
        gather(tmp_path / name)


def test_a_preview_has_neither_the_outputs_name_nor_the_sound_of_another_file(opened, clip, tmp_path):
    run(opened(), 10)
    with pytest.raises(UsageError, match="is the output of that render and appears when it is complete"):
        write_preview(tmp_path / "out.mp4", tmp_path / "out.mp4", overwrite=True)
    with open(clip, "ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="is no longer what is being rendered"):
        write_preview(tmp_path / "out.mp4", tmp_path / "play.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_another_codec_that_is_refused_leaves_a_kept_job_as_it_was(opened, tmp_path):
    run(opened(keep_job=True, lossless=True))
    before = contents(tmp_path / "out.mp4.nst")
    with pytest.raises(UsageError, match="exists; give -y"):
        opened(lossless=True, keep_job=True, crf=30)
    assert contents(tmp_path / "out.mp4.nst") == before


@pytest.mark.parametrize("name", ["out.gif", "frames"])
def test_what_is_finished_of_other_outputs_plays_too(opened, tmp_path, name):
    run(opened(name), 10)
    assert write_preview(tmp_path / name, tmp_path / "play.mp4") == 10
    assert [number_of(rgb) for rgb in frames_of(tmp_path / "play.mp4")[0][:2]] == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".nst")) == [
        "in.mp4",
        "play.mp4",
        "style.png",
    ]


def test_status_of_a_running_render(opened, tmp_path):
    with opened() as job:
        assert gather(tmp_path / "out.mp4")["state"] == "running"
        assert gather(tmp_path / "out.mp4")["process"] == f"process {os.getpid()} on {Holder.own().host}"
        said = "frames: 0 of 24 (0 %) of 96x64 saved yet (what is painted is saved every 15 to 60 s)"
        assert lines(gather(tmp_path / "out.mp4"))[1] == said
        with pytest.raises(InputError, match=r"no frame of .* is finished yet"):
            write_preview(tmp_path / "out.mp4", tmp_path / "play.mp4")
        assert job.done == 0


def test_status_without_a_render_is_one_line(tmp_path, capsys):
    assert main(["status", str(tmp_path / "out.mp4")]) == 3
    assert "there is no unfinished render of" in capsys.readouterr().err


def test_status_shows_nothing_that_a_terminal_obeys(opened, tmp_path, capsys):
    run(opened(), 10)
    job = read_job(tmp_path / "out.mp4")
    job.rewrite(replace(job.manifest, command="nst-video \x1b]0;mine\x07 caf\u00e9\u00a0\u9b92.mp4 \x9b2J\nout.mp4"))
    assert main(["status", str(tmp_path / "out.mp4")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == "to go on: nst-video ?]0;mine? caf\u00e9\u00a0\u9b92.mp4 ?2J?out.mp4"


def test_status_refuses_a_preview_that_is_no_video(opened, tmp_path, capsys):
    run(opened(), 10)
    assert main(["status", str(tmp_path / "out.mp4"), "--play", str(tmp_path / "x.png")]) == 2
    assert main(["status", str(tmp_path / "out.mp4"), "--play", str(tmp_path / "in.mp4"), "-y"]) == 2
    assert main(["status", str(tmp_path / "out.mp4"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 10


# ---------------------------------------------------------------------------------------------- the disk


def test_too_little_room_is_said_before_the_render(opened, clip, style, monkeypatch, tmp_path, caplog):
    least, most = disk_needed(make_plan(clip, style, tmp_path / "out.mp4"))
    assert least < most
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=least - 1))
    with pytest.raises(ResourceError, match=r"has \d MB free and this render needs \d MB to \d MB; free some space"):
        opened()
    assert not (tmp_path / "out.mp4.nst").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=least + 1))
    opened_and_closed(opened)
    assert "MB free; this render may need up to" in caplog.text


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small file system needs rights that are not there")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_real_disk_that_fills(clip, style, small_disk, tmp_path, opened, monkeypatch):
    monkeypatch.setattr("nst_video.jobs.resume.check_disk", lambda *args, **options: None)  # it would refuse to begin
    ballast = small_disk / "ballast"

    def on_disk():
        return open_job(clip, style, small_disk / "out.mp4")

    run(on_disk(), 3)
    ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 20_000))
    with (
        on_disk() as job,
        pytest.raises(ResourceError, match=r"No space left on device; what is finished, \d+ frames?, is kept"),
    ):
        render_job(job, Echo())
    done = read_job(small_disk / "out.mp4").done
    assert done >= 3
    assert not (small_disk / "out.mp4").exists()
    ballast.unlink()
    assert run(on_disk()).steps == FRAMES - done
    assert np.array_equal(frames_of(small_disk / "out.mp4")[0], run_whole(opened, tmp_path))


def test_a_folder_that_became_read_only(opened, tmp_path, monkeypatch):
    run(opened(), 8)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
        with pytest.raises(ResourceError, match="is not writable"):
            opened()
    assert run(opened()).steps == FRAMES - 8


@pytest.mark.parametrize("file", ["segment-00001.frames", ".state-", ".ledger", "segment-00001.video", "output.part"])
def test_a_disk_that_fills_keeps_what_is_finished(opened, tmp_path, monkeypatch, file):
    """Every write to files of this name fails, until there is room again."""
    import builtins
    from pathlib import Path

    plain_open, plain_write = builtins.open, Path.write_bytes

    def full(path):
        return str(path).rpartition("/")[2].startswith(file) and Path(str(path)).parent.name == "out.mp4.nst"

    class Full:
        def __init__(self, *args):
            raise OSError(28, "No space left on device", str(args[0]))

    run(opened(), 8)
    with monkeypatch.context() as patch:
        patch.setattr(
            "nst_video.records.open",
            lambda path, mode: (Full if full(path) and mode != "rb" else plain_open)(path, mode),
            raising=False,
        )
        patch.setattr(Path, "write_bytes", lambda path, data: (Full if full(path) else plain_write)(path, data))
        patch.setattr("nst_video.jobs.jobwriter.JoinedOutput.join", Full) if file == "output.part" else None
        with opened() as job, pytest.raises(ResourceError) as caught:
            render_job(job, Echo())
    assert "No space left on device; " in str(caught.value)
    assert "is kept in" in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()
    run(opened())
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], run_whole(opened, tmp_path))


# ---------------------------------------------------------------------------------------------- its files


def test_manifest_and_ledger_come_back_as_they_were(opened, tmp_path):
    run(opened(), 10)
    job = read_job(tmp_path / "out.mp4")
    assert Manifest.read(job.path(MANIFEST)) == job.manifest
    assert Ledger.read(job.path(LEDGER)) == job.ledger
    assert isinstance(job, Job)
    assert [(one.first, one.last, one.pts) for one in job.ledger.sealed] == [(0, 6, (0, SHAKY[5]))]
    assert job.ledger.checkpoint.at == (10,)


def test_the_folder_of_a_sequence_is_on_its_disk(tmp_path):
    assert job_folder(tmp_path / "out") == tmp_path / "out.nst"
    assert job_folder(tmp_path / "out/%03d.png") == tmp_path / "out.nst"
    (tmp_path / "out").mkdir()
    assert job_folder(tmp_path / "out") == tmp_path / "out" / "%05d.png.nst"
    assert job_folder(tmp_path / "out/%03d.png") == tmp_path / "out" / "%03d.png.nst"
