"""The dream command: what is planned, refused, rendered, stopped and gone on with."""

import itertools
import json
import subprocess
import sys
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import pairwise
from statistics import fmean

import numpy as np
import pytest
import torch
from media import make_sound, make_video, packets_of, picture

import nst_video
from nst_video.cli import main
from nst_video.commands.dream import make_parser
from nst_video.dreaming.options import DreamOptions
from nst_video.errors import InputError, Stopped, UsageError
from nst_video.jobs import jobwriter
from nst_video.jobs.fingerprint import fingerprint
from nst_video.jobs.resume import open_job
from nst_video.media import shots
from nst_video.media.pictures import read_picture, write_picture
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader
from nst_video.options import EffortOptions, OutputOptions
from nst_video.painting.state import State
from nst_video.painting.stepreport import StepReport
from nst_video.plan import Plan
from nst_video.planning import make_plan
from nst_video.render import render_job, render_plan
from nst_video.settings import DREAM, Settings, preview, split_options
from nst_video.stylizers import make_stylizer

# A dream that costs little: a shallow layer, small, one octave, few steps.
QUICK = {"layers": ("relu3_1",), "size": 48, "octaves": 1, "first_iterations": 3, "iterations": 1.0, "jitter": 4}


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "in.mp4", frames=8, sound="aac")


@pytest.fixture
def photo(tmp_path):
    write_picture(tmp_path / "photo.png", picture(3))
    return tmp_path / "photo.png"


def settings(**options):
    """The groups of options of a dream."""
    return vars(split_options(options, DREAM))


def frames_of(path):
    with VideoReader(path) as reader:
        batches = list(reader)
    return np.concatenate([batch.rgb for batch in batches]), sum((batch.times for batch in batches), ())


def flags(options):
    """Named options as words of the command line."""
    return [
        word
        for name, value in options.items()
        for word in (f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, tuple) else str(value))
    ]


# ---------------------------------------------------------------------------------------------- the plan


def test_a_plan_of_a_dream_leaves_nothing_open_and_comes_back_from_json(clip, tmp_path):
    plan = make_plan(clip, (), tmp_path / "out.mp4", **settings(zoom=1.5))
    assert plan.styles == ()
    assert (plan.effort.encoder, plan.effort.pooling, plan.coherence.references) == ("vgg19", "max", (1,))
    assert plan.dream is not None
    assert {name for name, value in asdict(plan.dream).items() if value is None} <= {"guide", "tile", "layer_fade"}
    assert (plan.dream.layers, plan.dream.zoom) == (("relu5_1",), 1.5)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_that_an_older_version_wrote_has_no_dream(clip, style, tmp_path):
    plan = make_plan(clip, style, tmp_path / "out.mp4")
    data = plan.to_json()
    for name in ("dream", "song"):
        del data[name]
    assert Plan.from_json(data) == plan


@pytest.mark.parametrize(("encoder", "layers"), [("googlenet", ("inception_4c",)), ("inception_v3", ("mixed5",))])
def test_every_network_has_something_to_dream(encoder, layers):
    resolved = split_options({"encoder": encoder}, DREAM).resolved()
    assert resolved.dream is not None
    assert resolved.dream.layers == layers


def test_a_preview_is_short_and_small():
    given = split_options({"start": 3, "size": "full", "octaves": 2}, DREAM)
    short = preview(given, Fraction(5))
    assert (short.options.start, short.options.end, short.effort.size) == (3, 8, 192)
    assert (short.effort.quality, short.dream) == ("draft", given.dream)
    assert preview(split_options({"end": 2, "size": 64}, DREAM), Fraction(5)).options.end == 2
    with pytest.raises(UsageError, match="--still renders one frame and --preview a few seconds; give one of them"):
        preview(split_options({"still": 1}, DREAM), Fraction(5))


def test_only_options_of_a_dream_count_for_going_on(clip, tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    dream = Settings(dream=DreamOptions(guide=str(tmp_path / "a.png")))
    found = fingerprint(str(clip), (), dream)
    assert "--style-scale" not in found
    assert "--history" not in found
    assert (found["--octaves"], found["--size"]) == (4, 512)
    (tmp_path / "b.png").write_bytes(b"a")
    moved = replace(dream, dream=DreamOptions(guide=str(tmp_path / "b.png")))
    assert fingerprint(str(clip), (), moved) == found  # the same picture elsewhere
    (tmp_path / "b.png").write_bytes(b"b")
    assert fingerprint(str(clip), (), moved) != found


# ---------------------------------------------------------------------------------------------- what is refused

REFUSED = {
    "layer": ({"layers": ("relu9_1",)}, r"vgg19 has no layer 'relu9_1' \(did you mean relu"),
    "channel": ({"layers": ("relu5_1:600",)}, r"has no channel 600; the nearest is 511"),
    "octaves": ({"size": 64, "octaves": 9}, r"--octaves 9 is too many for 64x42 pixels.*allowed --octaves 3 or fewer"),
    "guide": ({"guide": "nothing.jpg"}, r"nothing\.jpg does not exist"),
    "duration of a video": ({"duration": 5}, r"--duration is for a single picture; .*in\.mp4 is a video"),
    "no duration": ({"duration": 0}, r"--duration 0 leaves no frame"),
    "an option of painting": ({"strength": 1}, r"unknown option 'strength'"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(clip, tmp_path, options, message):
    with pytest.raises((UsageError, InputError), match=message):
        make_plan(clip, (), tmp_path / "out.mp4", **settings(**options))


def test_a_picture_has_to_be_told_how_long_it_lasts(photo, tmp_path):
    with pytest.raises(UsageError, match=r"photo\.png is one picture; say how long .*out\.mp4 is, with --duration 20"):
        make_plan(photo, (), tmp_path / "out.mp4", **settings())
    with pytest.raises(UsageError, match=r"--rate is for sequences of pictures; .*is a picture; give --duration"):
        make_plan(photo, (), tmp_path / "out.mp4", **settings(rate=30))
    assert make_plan(photo, (), tmp_path / "out.png", **settings()).frames == 1


def test_what_is_wrong_is_found_without_torch(tmp_path, clip):
    code = (
        "import sys; from nst_video.cli import main\n"
        f"print(main(['dream', {str(clip)!r}, {str(tmp_path / 'o.mp4')!r}, *sys.argv[1:]]), 'torch' in sys.modules)"
    )
    for words in (["--layers", "relu9_1"], ["--octaves", "16"], ["--guide", "no.jpg"]):
        result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert result.stdout.split() in (["2", "False"], ["3", "False"]), result.stderr
        assert result.stderr.count("\n") == 1


def test_a_damaged_guide_is_refused(clip, tmp_path):
    guide = make_sound(tmp_path / "guide.mp4")
    with pytest.raises(InputError, match=r"guide\.mp4 has no video stream"):
        make_plan(clip, (), tmp_path / "out.mp4", **settings(guide=str(guide)))


# ---------------------------------------------------------------------------------------------- one picture as a video


@pytest.mark.parametrize(("rate", "duration", "frames"), [("24000/1001", "1", 24), ("30", "0.5", 15), (None, "0.1", 3)])
def test_a_picture_lasts_as_long_as_it_is_told_at_the_exact_rate(photo, tmp_path, rate, duration, frames):
    options = {} if rate is None else {"rate": rate}
    plan = make_plan(photo, (), tmp_path / "out.mp4", **settings(duration=duration, **options))
    exact = Fraction(rate or 25)
    assert (plan.frames, plan.shots) == (frames, ((0, frames),))
    assert [pts * plan.time_base for pts in plan.pts] == [number / exact for number in range(frames)]
    assert render_plan(plan, Echo()).drift is None  # a zoom would be taken for flicker
    pictures, times = frames_of(tmp_path / "out.mp4")
    assert list(times) == [number / exact for number in range(frames)]
    assert probe(tmp_path / "out.mp4").average_rate == exact
    assert probe(tmp_path / "out.mp4").duration == frames / exact
    assert pictures.std(axis=0).max() < 8  # nothing moves in it


def test_a_part_of_a_lasting_picture(photo, tmp_path):
    plan = make_plan(photo, (), tmp_path / "out.mp4", **settings(duration=4, start=1, end=2, stride=5))
    assert plan.pts == (25, 30, 35, 40, 45)


def test_the_zoom_into_a_picture_is_the_same_at_every_rate(photo, tmp_path):
    """At common times, at 24 and 60 frames/s; without dreaming, as that takes what the frame before was."""
    shown = {}
    for rate in (24, 60):
        plan = make_plan(
            photo, (), tmp_path / f"{rate}.mp4", **settings(**QUICK, duration=1, rate=rate, zoom=2, rotate=30, step=0)
        )
        dreamer, frames = make_stylizer(plan), []
        render_plan(plan, Recorder(dreamer, frames))
        shown[rate] = frames
    for second in (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4)):
        one, other = (shown[rate][int(second * rate)] for rate in (24, 60))
        assert float((one - other).abs().max()) < 1e-4
    assert float((shown[24][0] - shown[24][12]).abs().mean()) > 0.02


class Recorder:
    """Passes frames on, and keeps what comes out."""

    def __init__(self, dreamer, frames):
        self.dreamer, self.frames = dreamer, frames
        self.initial_state = dreamer.initial_state

    def step(self, *args):
        image, state = self.dreamer.step(*args)
        self.frames.append(image)
        return image, state


# ---------------------------------------------------------------------------------------------- going on


class Echo:
    """Mixes each frame with everything before it, so that a wrong state shows in all later frames."""

    def initial_state(self, seed=None):
        return State(seed=seed or 0)

    def step(self, image, motion, state, controls):
        past = image if state.outputs is None else state.outputs[:, 0]
        mixed = (0.7 * image + 0.3 * past + 0.01 * controls.dt).clamp(0, 1)
        return mixed, State(state.seed, state.frame + 1, mixed[:, None], image, None, StepReport(1, 0, {}, (0.5,)))


@pytest.fixture
def _short_segments(monkeypatch):
    monkeypatch.setattr(shots, "SHORTEST_SEGMENT", 3)
    monkeypatch.setattr(shots, "LONGEST_SEGMENT", 4)
    monkeypatch.setattr(jobwriter, "OFTEN", 0.0)
    monkeypatch.setattr(jobwriter, "SELDOM", 0.0)


@pytest.mark.usefixtures("_short_segments")
@pytest.mark.parametrize("source", ["in.mp4", "photo.png"])
def test_a_dream_that_was_stopped_comes_out_as_an_uninterrupted_one(clip, photo, tmp_path, source):
    lasting = {"duration": Fraction(8, 25), "zoom": 1.5} if source == "photo.png" else {}

    def run(name, frames=None):
        asked = itertools.count(1)
        with open_job(tmp_path / source, (), tmp_path / name, **settings(**QUICK, **lasting)) as job:
            render_job(job, stop=lambda: frames is not None and next(asked) >= frames)

    for frames in (3, 2):
        with pytest.raises(Stopped):
            run("out.mp4", frames)
    run("out.mp4")
    run("whole.mp4")
    for one, other in zip(frames_of(tmp_path / "out.mp4"), frames_of(tmp_path / "whole.mp4"), strict=True):
        assert np.array_equal(one, other)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    if source == "in.mp4":
        assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(clip, "audio")


def test_other_settings_are_refused_with_the_difference(clip, tmp_path):
    with (
        pytest.raises(Stopped),
        open_job(clip, (), tmp_path / "out.mp4", **settings(**QUICK)) as job,
    ):
        render_job(job, Echo(), stop=lambda: True)
    with pytest.raises(UsageError, match=r"holds 1 of 8 frames .*--zoom 1\.0 then, 1\.5 now"):
        open_job(clip, (), tmp_path / "out.mp4", **settings(**QUICK, zoom=1.5))
    with pytest.raises(UsageError, match=r"with other settings.* style 1"):
        open_job(clip, photo_of(tmp_path), tmp_path / "out.mp4", effort=EffortOptions(size=48))


def photo_of(folder):
    write_picture(folder / "style.png", picture(5))
    return folder / "style.png"


def test_the_seed_decides_the_dream(clip, tmp_path):
    names = {"a.mp4": 0, "b.mp4": 0, "c.mp4": 1}
    for name, seed in names.items():
        nst_video.dream(clip, tmp_path / name, **QUICK, seed=seed, end=0.1)
    a, b, c = (frames_of(tmp_path / name)[0] for name in names)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


# ---------------------------------------------------------------------------------------------- guides


def test_a_guide_changes_what_is_dreamed(clip, photo, tmp_path):
    video = make_video(tmp_path / "guide.mp4", frames=4)
    found = {}
    for guide in (None, photo, video):
        given = {} if guide is None else {"guide": str(guide)}
        nst_video.dream(clip, tmp_path / "out.mp4", **QUICK, end=0.1, overwrite=True, **given)
        found[guide] = frames_of(tmp_path / "out.mp4")[0]
    pairs = itertools.combinations(found.values(), 2)
    assert all(not np.array_equal(one, other) for one, other in pairs)


def test_a_guide_video_is_shown_in_time_and_again_after_its_end(tmp_path):
    from nst_video.dreaming.guides import GuideVideo

    path = make_video(tmp_path / "guide.mp4", frames=5)
    with VideoReader(path) as reader:
        wanted = np.concatenate([batch.rgb for batch in reader])
    guide = GuideVideo(str(path), OutputOptions())

    def number(seconds):
        shown = (guide(seconds)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        return [np.array_equal(shown, rgb) for rgb in wanted].index(True)

    assert [number(seconds) for seconds in (0, 0.03, 0.04, 0.1, 0.161, 0.2, 0.25, 0.05, 2.0)] == [
        0,
        0,
        1,
        2,
        4,
        0,
        1,
        1,
        0,
    ]


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_with_all_its_reports(clip, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    reports = ["--trace", str(tmp_path / "t.jsonl"), "--contact-sheet", str(tmp_path / "s.png"), "--json"]
    assert main(["dream", str(clip), str(out), *flags(QUICK), *reports]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["frames"], result["size"]) == (8, [48, 32])
    assert "8 frames of 48x32" in printed.err
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(8))
    assert result["losses"]["activation"] == pytest.approx(fmean(row["losses"]["activation"] for row in rows))
    assert all(before < after for before, after in pairwise(rows[0]["trace"]))  # what is dreamed grows
    assert read_picture(tmp_path / "s.png").shape == (4 * (32 + 4) + 4, 4 * (48 + 4) + 4, 3)  # 8 pairs in rows of 4


def test_the_state_of_a_dream_can_be_asked_for(clip, tmp_path, capsys):
    asked = itertools.count(1)
    with (
        pytest.raises(Stopped),
        open_job(clip, (), tmp_path / "out.mp4", **settings(**QUICK), command="nst-video dream") as job,
    ):
        render_job(job, Echo(), stop=lambda: next(asked) >= 2)
    assert main(["status", str(tmp_path / "out.mp4"), "--play", str(tmp_path / "so_far.mp4")]) == 0
    printed = capsys.readouterr()
    assert "frames: 2 of 8" in printed.out
    assert "to go on: nst-video dream" in printed.out
    assert len(frames_of(tmp_path / "so_far.mp4")[0]) == 2


def test_layers_are_listed_without_torch():
    code = "import sys; from nst_video.cli import main\ntry: main(['dream', '--list-layers', 'inception_v3'])\n"
    code += "except SystemExit as end: print('end', end.code, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert lines[-1] == "end 0 False"
    assert len(lines) == 17
    assert any(line.split()[:2] == ["mixed4", "768"] and "Mixed_6b" in line for line in lines)


def test_an_unknown_network_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"unknown encoder 'vgg91' \(did you mean vgg19"):
        make_parser().parse_args(["--list-layers", "vgg91"])
