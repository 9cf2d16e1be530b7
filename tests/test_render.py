"""The render loop with a stylizer that does nothing or fails, and the whole of it on a few small frames."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from media import make_video, packets_of, picture
from PIL import Image
from tiny import texture

import nst_video
from nst_video.ahead import Ahead, in_order
from nst_video.colors import to_image
from nst_video.devices.workers import workers_for
from nst_video.errors import InputError, NstVideoError, ResourceError, Stopped, UsageError
from nst_video.flow.motion import Flows, Motion, MotionWindow
from nst_video.jobs.resume import open_job
from nst_video.media.pictures import read_picture, write_picture
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader
from nst_video.options import EffortOptions, OutputOptions
from nst_video.painting.painted import Standing
from nst_video.painting.state import State
from nst_video.painting.upcoming import Feed, patiently
from nst_video.planning import make_plan
from nst_video.render import render_job, render_plan, stylize
from nst_video.score import score_video
from nst_video.timeline import Timeline

UNEVEN = (0, 512, 700, 1900, 2000, 4096)
FAST = {"size": 64, "first_iterations": 12, "iterations": 3}


class Identity:
    """Hands every frame back; remembers how often a shot began and how many references each frame had."""

    def __init__(self):
        self.shots = 0
        self.references = []
        self.times = []

    def initial_state(self, seed=None):
        self.shots += 1
        return State()

    def step(self, image, motion, state, controls):
        self.references.append(motion.references)
        self.times.append((controls.time, controls.dt))
        return image, state


class Failing(Identity):
    """Raises on the third frame."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def step(self, image, motion, state, controls):
        if len(self.references) == 2:
            raise self.error
        return super().step(image, motion, state, controls)


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "in.mp4", pts=UNEVEN, sound="aac")


@pytest.fixture
def plan(clip, style, tmp_path):
    return make_plan(clip, style, tmp_path / "out.mp4")


def frames_of(path):
    with VideoReader(path) as reader:
        batches = list(reader)
    return np.concatenate([batch.rgb for batch in batches]), sum((batch.pts for batch in batches), ())


def test_pictures_times_and_sound_come_through(plan, clip, tmp_path):
    render_plan(plan, Identity())
    (before, _), (after, pts) = frames_of(clip), frames_of(tmp_path / "out.mp4")
    assert pts == UNEVEN
    assert np.median(np.abs(before.astype(int) - after)) <= 1
    assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(clip, "audio")


SPARSE = tuple(time * 128 for time in (0, 4, 8, 30, 34, 90, 91, 150))  # hundredths of a second


def edges_of(path):
    """Seconds when each frame is shown, and when the last one is over."""
    with VideoReader(path) as reader:
        batches = list(reader)
    pts = [time for batch in batches for time in batch.pts]
    return [time * reader.info.time_base for time in (*pts, batches[-1].end)]


def render(source, style, target, **options):
    with open_job(source, style, target, options=OutputOptions(**options)) as job:
        render_job(job, Identity())
    return target


def test_what_was_written_and_is_read_again_has_the_same_times(tmp_path, style):
    """The first pass decides when the last frame is over; every other keeps that, in whatever it is written to."""
    source = make_video(tmp_path / "in.mp4", pts=SPARSE, sound="aac", rate=Fraction(10))
    path = render(source, style, tmp_path / "0.mp4")
    wanted = edges_of(path)
    assert wanted == edges_of(source)
    for number, suffix in enumerate([".mp4", ".mkv", ".mp4", ".mov", ".webm", ".mp4"], 1):
        path = render(path, style, tmp_path / f"{number}{suffix}")
        assert edges_of(path) == wanted, suffix


def test_a_gif_written_as_a_video_and_back_has_the_same_times(tmp_path, style):
    """The last frame of a gif may be shorter than the one before it."""
    path, times = tmp_path / "in.gif", (100, 50, 200, 100, 300, 100)
    frames = [Image.fromarray(picture(number)) for number in range(6)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(times))
    wanted = [Fraction(sum(times[:number]), 1000) for number in range(7)]
    for number, suffix in enumerate([".mp4", ".mp4", ".mkv", ".gif", ".webm", ".gif"]):
        path = render(path, style, tmp_path / f"{number}{suffix}")
        assert edges_of(path) == wanted, suffix


def test_a_stream_that_begins_late_ends_when_it_did(tmp_path, style):
    """As in a video whose sound has been there since a little earlier."""
    base = Fraction(1, 1000)
    path = make_video(tmp_path / "in.mkv", pts=[21 + 40 * n for n in range(24)], time_base=base, sound="aac")
    wanted = [base * (21 + 40 * n) for n in range(25)]
    assert edges_of(path) == wanted
    for number, suffix in enumerate([".mkv", ".mp4", ".mkv"]):
        path = render(path, style, tmp_path / f"{number}{suffix}")
        assert edges_of(path) == wanted


def test_a_part_that_begins_within_a_frame_can_be_gone_on_with(tmp_path, style):
    source = make_video(tmp_path / "in.mp4", pts=SPARSE, sound="aac")
    part = {"start": Fraction(1, 2), "end": Fraction(12, 10)}
    wanted = edges_of(render(source, style, tmp_path / "whole.mp4", **part))
    assert wanted == [0, Fraction(40, 100), Fraction(41, 100), Fraction(70, 100)]
    for stop in (1, 2):
        target, asked = tmp_path / f"{stop}.mp4", itertools.count(1)
        options = {"options": OutputOptions(**part)}
        with pytest.raises(Stopped), open_job(source, style, target, **options) as job:
            render_job(job, Identity(), stop=partial(lambda asked, stop: next(asked) >= stop, asked, stop))
        assert edges_of(render(source, style, target, **part)) == wanted
        assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_part_is_on_the_clock_of_what_is_shown(tmp_path, style):
    """What changes, and music, count from the part's start and not from that of its first frame."""
    source = make_video(tmp_path / "in.mp4", pts=SPARSE)
    options = OutputOptions(start=Fraction(1, 2), end=Fraction(12, 10))
    plan = make_plan(source, style, tmp_path / "out.mp4", options=options)
    line = Timeline.of(probe(source), plan.edges, options)
    assert (line.times, line.end, line.zero) == (
        (0, Fraction(40, 100), Fraction(41, 100)),
        Fraction(7, 10),
        Fraction(1, 2),
    )
    identity = Identity()
    render_plan(plan, identity)
    assert identity.times == [(0.5, 0), (0.9, pytest.approx(0.4)), (0.91, pytest.approx(0.01))]


def test_every_shot_starts_anew(tmp_path, style):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(16):
        write_picture(folder / f"{number:03}.png", picture(0) if number < 7 else 255 - picture(0))
    identity = Identity()
    result = render_plan(make_plan(folder, style, tmp_path / "out.mp4"), identity)
    assert (result.shots, identity.shots) == (2, 2)
    assert identity.references == [0, 1, 2, 2, 3, 3, 3, 0, 1, 2, 2, 3, 3, 3, 3, 3]
    assert [row.shot for row in result.rows] == [0] * 7 + [1] * 9
    assert [row.frame for row in result.rows if row.drift is None] == [0, 7]


def test_the_stylizer_hears_the_time_of_every_frame(plan):
    identity = Identity()
    render_plan(plan, identity)
    seconds = [pts / 12800 for pts in UNEVEN]
    assert [time for time, _ in identity.times] == seconds
    assert [dt for _, dt in identity.times] == pytest.approx([0, *np.diff(seconds)])


def test_a_still_scene_handed_through_does_not_flicker(tmp_path, style):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        write_picture(folder / f"{number:03}.png", picture(0))
    result = render_plan(make_plan(folder, style, tmp_path / "out.mp4"), Identity())
    assert result.drift == pytest.approx(0, abs=1e-9)


def test_the_drift_leaves_out_what_the_score_counts(tmp_path, style):
    """A square that changes its colour: the flow agrees with itself there, and painting does not trust it."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        frame = texture(5)
        frame[16:32, 24:40] = 60 + 50 * number
        write_picture(folder / f"{number:03}.png", frame)
    result = render_plan(make_plan(folder, style, tmp_path / "out"), Identity())
    score = score_video(folder, tmp_path / "out", style, network_every=9, threads=1)
    assert score.e_warp == pytest.approx(score.e_warp_input)
    assert result.drift < score.e_warp / 5
    assert "e_warp" not in result.to_json()


def test_progress_is_told_after_every_frame(plan):
    seen = []
    result = render_plan(plan, Identity(), progress=seen.append)
    assert [(progress.done, progress.frames) for progress in seen] == [(n, 6) for n in range(1, 7)]
    assert tuple(progress.report for progress in seen) == result.rows
    assert all(np.array_equal(progress.before, progress.after) for progress in seen)


@pytest.mark.parametrize("error", [NstVideoError("not finite"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_nothing_is_left_after_a_failure(plan, tmp_path, error):
    before = set(tmp_path.iterdir())
    with pytest.raises(type(error)):
        render_plan(plan, Failing(error))
    assert set(tmp_path.iterdir()) == before
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("nst-video")] == []


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA")],
    ids=["python", "cpu", "cuda"],
)
def test_lack_of_memory_says_what_to_do(plan, error):
    with pytest.raises(ResourceError, match="not enough memory on cpu for frames of 96x64 pixels; choose a smaller"):
        render_plan(plan, Failing(error))


def test_other_errors_of_torch_are_not_taken_for_lack_of_memory(plan):
    with pytest.raises(RuntimeError, match="rank 4"):
        render_plan(plan, Failing(RuntimeError("required rank 4 tensor to use channels_last memory format")))


@pytest.mark.parametrize(
    "pts", [(*UNEVEN, 5000), (*UNEVEN[:-1], 4097)], ids=["fewer frames than planned", "another time"]
)
def test_an_input_that_changed_since_it_was_planned_is_refused(plan, pts, tmp_path):
    with pytest.raises(InputError, match="chang"):
        render_plan(replace(plan, pts=pts, shots=((0, len(pts)),)), Identity())
    assert not (tmp_path / "out.mp4").exists()


def test_ahead_runs_no_further_ahead_than_allowed():
    made = []

    def numbers():
        for number in range(100):
            made.append(number)
            yield number

    with Ahead(numbers(), depth=2) as items:
        assert next(items) == 0
    assert len(made) <= 1 + 2 + 1  # taken, waiting, and the one that found no room


def test_ahead_hands_on_what_was_raised():
    def numbers():
        yield 1
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"), Ahead(numbers(), depth=4) as items:
        seen.extend(items)
    assert seen == [1] or seen == []


def test_ahead_closes_its_source_when_left_early():
    closed = threading.Event()

    def numbers():
        try:
            yield from range(100)
        finally:
            closed.set()

    with Ahead(numbers(), depth=1) as items:
        next(items)
    assert closed.is_set()


def in_two_threads(calls, waiting=3):
    with ThreadPoolExecutor(2) as pool:
        yield from in_order(calls, pool, waiting=waiting)


def test_calls_of_a_pool_come_out_in_order_however_long_each_takes():
    def slow(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    assert list(in_two_threads(partial(slow, number) for number in range(10))) == list(range(10))


def test_calls_of_a_pool_overlap():
    both = threading.Barrier(2, timeout=10)
    assert len(list(in_two_threads(both.wait for _ in range(2)))) == 2  # each waits for the other


def test_a_pool_is_given_no_more_than_may_wait():
    made = []

    def calls():
        for number in range(100):
            made.append(number)
            yield lambda: None

    results = in_two_threads(calls(), waiting=3)
    next(results)
    assert len(made) == 3
    results.close()


def test_what_a_call_or_the_source_of_calls_raises_comes_after_the_results_before_it():
    def calls(wrong):
        yield lambda: 1
        yield lambda: 2
        yield wrong
        raise ValueError("no more")

    results = in_two_threads(calls(lambda: 3))
    assert [next(results), next(results), next(results)] == [1, 2, 3]
    with pytest.raises(ValueError, match="no more"):
        next(results)
    results = in_two_threads(calls(lambda: 1 / 0))
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_calls_that_are_left_close_their_source():
    closed = threading.Event()

    def calls():
        try:
            while True:
                yield lambda: None
        finally:
            closed.set()

    results = in_two_threads(calls())
    next(results)
    results.close()
    assert closed.is_set()


@pytest.mark.parametrize("workers", [1, 3])
def test_motion_found_by_several_at_once_is_that_of_one_after_the_other(moving, workers):
    with VideoReader(moving.input, size=moving.size) as reader:
        rgbs = [rgb for batch in reader for rgb in batch.rgb]
    window = MotionWindow(moving.coherence.references, moving.coherence.flow)
    beginnings = [first for first, _ in moving.shots]
    wanted = [window.step(rgb, number in beginnings) for number, rgb in enumerate(rgbs)]
    threads = torch.get_num_threads(), cv2.getNumThreads()
    with Feed(moving, workers=workers) as feed, feed.frames(0, Standing()) as frames:
        for number, (frame, motion) in enumerate(zip(frames, wanted, strict=True)):
            assert (frame.number, frame.first) == (number, number in beginnings)
            assert np.array_equal(frame.rgb, rgbs[number])
            assert torch.equal(frame.take().motion.flows, motion.flows)
            assert torch.equal(frame.take().motion.trust, motion.trust)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == threads


@pytest.fixture
def moving(tmp_path, style):
    """A plan for twelve frames of a picture that a camera moves over, with a cut."""
    scene = picture(3, 140, 90)
    for number in range(12):
        x = 3 * number
        write_picture(tmp_path / f"frame{number:02}.png", (scene if number < 7 else 255 - scene)[:64, x : x + 80])
    found = make_plan(tmp_path / "frame%02d.png", style, tmp_path / "out.mp4", effort=EffortOptions(size=80))
    assert found.frames == 12
    return replace(found, shots=((0, 7), (7, 12)), seeds=(0, 0))


def test_beside_a_gpu_most_cores_look_for_motion():
    assert workers_for(16, "cuda:0", (512, 512)) == 12
    assert workers_for(2, "cuda:0", (512, 512)) == workers_for(2, "cpu", (512, 512)) == 1
    assert workers_for(16, "cpu", (512, 512)) == 4
    assert workers_for(64, "cuda:0", (3840, 2160)) == 2  # more would hold too many large frames


@pytest.fixture
def painted(clip, style, tmp_path):
    return stylize(clip, style, tmp_path / "out.mp4", **FAST)


def test_the_whole_of_it(painted, tmp_path):
    pictures, pts = frames_of(tmp_path / "out.mp4")
    assert (painted.frames, painted.size, pictures.shape[1:], pts) == (6, (64, 42), (42, 64, 3), UNEVEN)
    assert painted.rows[0].evaluations <= 12
    assert all(row.evaluations <= 3 for row in painted.rows[1:])
    assert painted.losses["loss"] > 0


def test_the_same_seed_gives_the_same_frames(painted, clip, style, tmp_path):
    stylize(clip, style, tmp_path / "again.mp4", **FAST)
    assert np.array_equal(frames_of(tmp_path / "out.mp4")[0], frames_of(tmp_path / "again.mp4")[0])


@pytest.mark.parametrize(
    ("input", "style", "output", "message"),
    [
        (None, "s.png", "o.mp4", "input is None; give the name of a file"),
        (b"in.mp4", "s.png", "o.mp4", "input is b'in.mp4'; give the name of a file"),
        ("in.mp4", "s.png", None, "output is None; give the name of a file"),
        ("in.mp4", None, "o.mp4", "a style is None; give the name of a picture"),
        ("in.mp4", [1.5], "o.mp4", "a style is 1.5; give the name of a picture"),
    ],
)
def test_what_is_no_name_of_a_file_is_refused(input, style, output, message):
    with pytest.raises(UsageError, match=message):
        stylize(input, style, output)


def test_errors_call_options_as_python_does(clip, style, tmp_path):
    (tmp_path / "out.mp4").touch()
    with pytest.raises(UsageError, match=r"exists; give overwrite=True to overwrite it"):
        stylize(clip, style, tmp_path / "out.mp4")
    with pytest.raises(UsageError, match=r"^history=300 is out of range"):
        stylize(clip, style, tmp_path / "o.mp4", history=300)


@pytest.mark.parametrize("ends", [True, False])
def test_torch_computes_as_before_when_a_render_is_over(plan, ends):
    def now():
        exact = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
        return torch.get_num_threads(), torch.backends.cudnn.deterministic, *exact

    before = now()

    class Looking(Identity):
        def step(self, *given):
            during.append(now())
            if not ends:
                raise RuntimeError("broken")
            return super().step(*given)

    during = []
    plan = replace(plan, machine=replace(plan.machine, threads=before[0] + 1))
    with nullcontext() if ends else pytest.raises(RuntimeError, match="broken"):
        render_plan(plan, Looking())
    assert set(during) == {(before[0] + 1, True, "ieee", "ieee")}
    assert now() == before


def test_several_styles_and_a_still(clip, style, tmp_path):
    other = tmp_path / "other.png"
    write_picture(other, 255 - picture(5))
    looks = {
        "one": style,
        "both": [(style, 1), (other, 1)],
        "same": [style, (other, 0)],
    }
    for name, styles in looks.items():
        result = nst_video.stylize(clip, styles, tmp_path / f"{name}.png", still=0.05, **FAST)
        assert (result.frames, result.size) == (1, (64, 42))
    one, both, same = (read_picture(tmp_path / f"{name}.png") for name in looks)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, both)


def test_a_picture_is_painted_too(style, tmp_path):
    write_picture(tmp_path / "photo.jpg", picture(0))
    result = stylize(tmp_path / "photo.jpg", style, tmp_path / "out.png", **FAST)
    assert result.frames == 1
    assert read_picture(tmp_path / "out.png").shape == (42, 64, 3)


def test_a_frame_waits_for_memory_that_painting_gives_back():
    tries = itertools.count()

    def work():
        if next(tries) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "a frame"

    assert patiently(work) == "a frame"
    assert next(tries) == 4  # which are those before, counted from 0


def test_a_frame_does_not_wait_for_ever_nor_for_what_is_no_lack_of_memory(monkeypatch):
    monkeypatch.setattr("nst_video.painting.upcoming._PATIENCE", 0.0)
    for error in (torch.OutOfMemoryError("CUDA out of memory"), ValueError("damaged")):

        def work(error=error):
            raise error

        with pytest.raises(type(error)):
            patiently(work)


class _Stream:
    """Stands in for a stream of a GPU: how many threads have been on it at once."""

    entered, inside, most = 0, 0, 0

    def __enter__(self):
        _Stream.entered += 1
        _Stream.inside += 1
        _Stream.most = max(_Stream.most, _Stream.inside)
        time.sleep(0.01)

    def __exit__(self, *error):
        _Stream.inside -= 1

    def record_event(self):
        return None


def test_beside_a_gpu_one_thread_at_a_time_brings_a_frame(plan, monkeypatch):
    beside = SimpleNamespace(feeding=_Stream())
    monkeypatch.setattr("nst_video.devices.transfer.streams_of", lambda device: beside)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr("nst_video.colors.to_image", lambda rgb, device="cpu", own=to_image: own(rgb))
    feed = Feed(plan, workers=3)
    feed._device = "cuda:0"
    monkeypatch.setattr(Flows, "motion", lambda self, device, call: Motion.none(1, *self.current.shape[:2]))
    with feed, feed.frames(0, Standing()) as frames:
        assert len(list(frames)) == plan.frames
    assert (_Stream.entered, _Stream.most) == (plan.frames, 1)
