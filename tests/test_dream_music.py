"""Music drives a dream in time and is heard under it: rendered, decoded again, compared with when the clicks were."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from blink import Blinker, lit, settings
from clicks import click_times, click_track, spans
from media import make_video, picture

from nst_video.cli import main
from nst_video.errors import InputError, Stopped, UsageError
from nst_video.jobs.resume import open_job
from nst_video.media.pictures import read_picture, write_picture
from nst_video.media.probe import probe
from nst_video.plan import Plan
from nst_video.planning import make_plan
from nst_video.render import render_job, render_plan

CLICKS = tuple(0.4 + 0.731 * number for number in range(16))  # in step with no frame rate
FLASH = {"drive": ("step=onset,release=0",)}


@pytest.fixture
def photo(tmp_path):
    write_picture(tmp_path / "photo.png", picture(3, 16, 16))
    return tmp_path / "photo.png"


@pytest.fixture
def song(tmp_path):
    return click_track(tmp_path / "song.flac", 12, CLICKS)


def render(source, target, **options):
    plan = make_plan(source, (), target, **settings(**FLASH | options))
    render_plan(plan, Blinker())
    return plan


def frames_off(times, clicks, rate):
    """For each flash, the number of its frame less that of the frame that is shown at the click."""
    assert len(times) == len(clicks)
    return [round(time * rate) - int(click * rate) for time, click in zip(times, clicks, strict=True)]


@pytest.mark.parametrize("rate", ["24000/1001", "24", "25", "30000/1001", "30", "60"])
def test_every_impulse_is_seen_within_a_frame_and_heard_in_time(photo, song, tmp_path, rate):
    exact = Fraction(rate)
    plan = render(photo, tmp_path / "out.mp4", music=str(song), rate=rate)
    assert probe(tmp_path / "out.mp4").average_rate == exact
    assert [pts * plan.time_base for pts in plan.pts] == [number / exact for number in range(plan.frames)]
    assert max(map(abs, frames_off(lit(tmp_path / "out.mp4"), CLICKS, exact))) <= 1
    assert click_times(tmp_path / "out.mp4") == pytest.approx(CLICKS, abs=0.003)
    _, pictures, _, sound = spans(tmp_path / "out.mp4")
    assert abs(pictures - sound) <= 1 / exact
    assert pictures >= 12 > pictures - 1 / exact  # as long as the music


@pytest.mark.parametrize("music", ["song.mp3", "song.m4a", "song.opus"])
def test_whatever_the_music_is_coded_in(photo, tmp_path, music):
    path = click_track(tmp_path / music, 6, CLICKS[:7])
    render(photo, tmp_path / "out.mp4", music=str(path), rate=25)
    assert max(map(abs, frames_off(lit(tmp_path / "out.mp4"), CLICKS[:7], 25))) <= 1
    assert click_times(tmp_path / "out.mp4") == pytest.approx(CLICKS[:7], abs=0.003)


def test_the_sound_of_the_clip_drives_and_is_kept(photo, song, tmp_path):
    clip = tmp_path / "clip.mp4"
    render(photo, clip, music=str(song), rate=30, drive=())
    render(clip, tmp_path / "out.mp4")
    assert max(map(abs, frames_off(lit(tmp_path / "out.mp4"), CLICKS, 30))) <= 1
    render(clip, tmp_path / "part.mp4", start=3, end=8)
    clicks = [click - 3 for click in CLICKS if 3 <= click < 8]
    assert max(map(abs, frames_off(lit(tmp_path / "part.mp4"), clicks, 30))) <= 1
    assert click_times(tmp_path / "part.mp4") == pytest.approx(clicks, abs=0.003)


@pytest.mark.parametrize(("ending", "seen"), [("loop", (0.4, 1.131, 2.4, 3.131)), ("stop", (0.4, 1.131))])
def test_music_shorter_than_the_video_is_seen_as_it_is_heard(photo, tmp_path, ending, seen):
    path = click_track(tmp_path / "song.flac", 2, CLICKS[:2])
    render(photo, tmp_path / "out.mp4", music=str(path), music_end=ending, duration=4, rate=25)
    # Where silence begins, something is heard to end; only what is near a click counts here.
    found = [time for time in lit(tmp_path / "out.mp4") if min(abs(time - click) for click in seen) < 0.2]
    assert max(map(abs, frames_off(found, seen, 25))) <= 1
    assert click_times(tmp_path / "out.mp4") == pytest.approx(seen, abs=0.003)
    _, pictures, _, sound = spans(tmp_path / "out.mp4")
    assert (pictures, sound) == (4, pytest.approx(4, abs=0.04))


def test_music_begins_with_the_first_frame_that_is_rendered(photo, song, tmp_path):
    clip = make_video(tmp_path / "in.mp4", frames=60, sound="aac")
    render(clip, tmp_path / "out.mp4", music=str(song), start=1)
    assert click_times(tmp_path / "out.mp4") == pytest.approx([0.4, 1.131], abs=0.003)
    assert max(map(abs, frames_off(lit(tmp_path / "out.mp4"), [0.4, 1.131], 25))) <= 1
    assert spans(tmp_path / "out.mp4")[1] == pytest.approx(1.4)


def test_a_stopped_render_goes_on_with_the_same_music(photo, song, tmp_path):
    given = settings(**FLASH, music=str(song), rate=25, duration=5)

    def run(name, frames=None):
        asked = itertools.count(1)
        with open_job(photo, (), tmp_path / name, **given) as job:
            render_job(job, Blinker(), stop=lambda: frames is not None and next(asked) >= frames)

    with pytest.raises(Stopped):
        run("out.mp4", 40)
    run("out.mp4")
    run("whole.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert click_times(tmp_path / "out.mp4") == pytest.approx([c for c in CLICKS if c < 5], abs=0.003)


def test_other_music_is_refused_for_an_unfinished_render(photo, song, tmp_path):
    with (
        pytest.raises(Stopped),
        open_job(photo, (), tmp_path / "out.mp4", **settings(music=str(song), duration=1)) as job,
    ):
        render_job(job, Blinker(), stop=lambda: True)
    other = click_track(tmp_path / "other.flac", 12, CLICKS[:3])
    with pytest.raises(UsageError, match=r"rendered with other settings: --music .* bytes, SHA-256"):
        open_job(photo, (), tmp_path / "out.mp4", **settings(music=str(other), duration=1))
    moved = song.rename(tmp_path / "moved.flac")  # the same music elsewhere is no other
    with open_job(photo, (), tmp_path / "out.mp4", **settings(music=str(moved), duration=1)) as job:
        assert job.plan.song is not None
        assert job.plan.song.path == str(moved)
        render_job(job, Blinker())
    assert spans(tmp_path / "out.mp4")[3] == pytest.approx(1, abs=0.04)


def test_a_plan_with_music_comes_back_from_json(photo, song, tmp_path):
    plan = make_plan(photo, (), tmp_path / "out.mp4", **settings(**FLASH, music=str(song), music_start="1/3"))
    assert plan.curves["step"]
    assert plan.song is not None
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.options.duration == Fraction(12) - Fraction(1, 3)


def test_a_stem_drives_and_is_not_heard(photo, song, tmp_path):
    quiet = click_track(tmp_path / "quiet.flac", 12, ())
    given = {"music": str(quiet), "stem": (f"drums={song}",), "drive": ("step=drums.onset,release=0",), "rate": 25}
    render(photo, tmp_path / "out.mp4", **given)
    assert max(map(abs, frames_off(lit(tmp_path / "out.mp4"), CLICKS, 25))) <= 1
    assert click_times(tmp_path / "out.mp4") == []


REFUSED = {
    "no music": ({"music": "nothing.flac"}, InputError, r"nothing\.flac does not exist"),
    "no sound in it": ({"music": "photo.png"}, InputError, r"photo\.png is not a sound that can be read"),
    "silent": ({"music": "silent.wav", **FLASH}, InputError, r"silent\.wav is silent, so it drives nothing"),
    "begins after its end": ({"music": "song.flac", "music_start": 99}, InputError, r"ends before --music-start 99"),
    "no such option": ({"music": "song.flac", "drive": ("stop=onset",)}, UsageError, r"did you mean step"),
    "no such feature": ({"music": "song.flac", "drive": ("step=onsets",)}, UsageError, "onset"),
    "nothing to hear": ({"duration": 1, **FLASH}, UsageError, r"needs music, and the input has no sound"),
}


@pytest.mark.parametrize(("options", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(photo, song, tmp_path, monkeypatch, options, kind, message):
    monkeypatch.chdir(tmp_path)
    write_silence(tmp_path / "silent.wav")
    with pytest.raises(kind, match=message) as refusal:
        make_plan(photo, (), tmp_path / "out.mp4", **settings(**options))
    assert "\n" not in str(refusal.value)


def write_silence(path):
    from clicks import write_sound

    write_sound(path, np.zeros((1, 48_000), np.float32))


def test_damaged_music_is_refused_in_one_line(photo, song, tmp_path, capsys):
    content = bytearray(song.read_bytes())
    for place in range(2000, len(content), 50):
        content[place] ^= 0xFF
    (tmp_path / "bad.flac").write_bytes(content)
    assert main(["dream", str(photo), str(tmp_path / "out.mp4"), "--music", str(tmp_path / "bad.flac")]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "bad.flac" in lines[0]
    assert "damaged" in lines[0]


def test_the_command_previews_plots_and_plays_music(photo, song, tmp_path, capsys):
    """Everything at once, with the real dreamer."""
    words = ["--music", str(song), "--drive", "step=onset", "--zoom", "0:1, 2s:1.5", "--preview", "0.2", "--rate", "25"]
    words += ["--layers", "relu1_1", "--octaves", "1", "--plot", str(tmp_path / "plot.png"), "--json"]
    assert main(["dream", str(photo), str(tmp_path / "out.mp4"), *words]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["frames"] == 5
    assert "nst-video: --preview renders as --end 0.2 --size 192 --quality draft do\n" in printed.err
    assert f"{tmp_path / 'plot.png'}: what changes" in printed.err
    assert read_picture(tmp_path / "plot.png").std() > 10
    assert spans(tmp_path / "out.mp4")[1::2] == (pytest.approx(0.2), pytest.approx(0.2, abs=0.04))


def test_a_preview_of_one_picture_lasts_as_long_as_it_says(photo, tmp_path, capsys):
    words = ["--preview", "0.2", "--rate", "25", "--layers", "relu1_1", "--octaves", "1", "--zoom", "1.2", "--json"]
    assert main(["dream", str(photo), str(tmp_path / "out.mp4"), *words]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["frames"] == 5
    assert "--preview renders as --duration 0.2 --end 0.2 --size 192 --quality draft do\n" in printed.err


def test_a_plot_of_nothing_is_refused_and_leaves_nothing(photo, tmp_path, capsys):
    words = ["dream", str(photo), str(tmp_path / "out.mp4"), "--duration", "1", "--layers", "relu1_1", "--octaves", "1"]
    assert main([*words, "--size", "16", "--plot", str(tmp_path / "plot.png")]) == 2
    assert "there is nothing to plot" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_painting_is_driven_as_well(photo, song, tmp_path):
    words = [
        str(photo),
        str(photo),
        str(tmp_path / "out.mp4"),
        "--music",
        str(song),
        "--duration",
        "0.2",
        "--rate",
        "25",
    ]
    words += ["--drive", "strength=onset", "--size", "32", "--first-iterations", "4", "--iterations", "1"]
    assert main([*words, "--style-layers", "relu1_1", "--content-layers", "relu2_1"]) == 0
    assert spans(tmp_path / "out.mp4")[1::2] == (pytest.approx(0.2), pytest.approx(0.2, abs=0.04))


@pytest.mark.parametrize("name", ["out.gif", "frames/%03d.png", "frames"])
def test_what_has_no_sound_is_driven_all_the_same(photo, song, tmp_path, name, caplog):
    with open_job(photo, (), tmp_path / name, **settings(**FLASH, music=str(song), rate=25, duration=1)) as job:
        render_job(job, Blinker())
    assert "the music only drives" in caplog.text
    assert len(lit(tmp_path / name)) == 1
