"""Drives: what is read, what rises and falls in seconds, what reaches the frames, and the plan that keeps it."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from media import make_video, picture
from sounds import click_track, drum_loop, silence, tone, write_sound
from tiny import LOOK, TinyEncoder
from tiny import picture as tiny_picture

from nst_video import plots
from nst_video.cli import main
from nst_video.curves import settle_curves
from nst_video.dreaming.options import DreamOptions
from nst_video.errors import InputError, UsageError
from nst_video.media.pictures import write_picture
from nst_video.media.soundtrack import FADE
from nst_video.music.conduct import conduct
from nst_video.music.drives import Drive, dealt, parse_drives
from nst_video.music.envelopes import at_frames, follow
from nst_video.music.features import CELLS, SECONDS, Features
from nst_video.music.heard import Music, hear
from nst_video.music.options import MusicOptions
from nst_video.music.track import Track
from nst_video.options import EffortOptions, LookOptions, OutputOptions
from nst_video.painting.state import State
from nst_video.painting.stylizer import Stylizer
from nst_video.plan import Plan
from nst_video.planning import make_plan
from nst_video.render import render_plan
from nst_video.schedules import Clock


def made_track(seconds=4.0, beats=(), **curves):
    """A track with these features, 0 where they are not given."""
    cells = round(seconds * CELLS)
    flat = {name: np.zeros(cells, np.float32) for name in ("onset", "rms", "bass", "mid", "treble", "centroid", "wave")}
    shaped = {name: np.asarray(values, np.float32) for name, values in curves.items()}
    features = {"chroma": np.zeros((12, cells), np.float32)} | flat | shaped
    return Track("song.flac", seconds, Features(**features, peak=1.0, samples=0), tuple(beats))


def pulses(times, seconds=4.0, height=1.0):
    cells = np.zeros(round(seconds * CELLS), np.float32)
    cells[[int(time * CELLS) for time in times]] = height
    return cells


def frames(rate=25, seconds=4.0):
    return Clock([number / rate for number in range(round(seconds * rate))])


def music(**given):
    seconds = given.pop("seconds", 4.0)
    end = given.pop("end", "stop")
    return Music(made_track(**given), seconds=seconds, end=end)


def settled(drive, sound, at=None, layers=1, **options):
    drives = parse_drives((drive,) if isinstance(drive, str) else drive)
    return settle_curves({"dream": DreamOptions(**options)}, at or frames(), sound, drives, layers=layers)[1]


# ------------------------------------------------------------------------------------------- what is read

READ = {
    "step=onset": Drive("", "step", "onset", release=0.3),
    "zoom=beat*0.5": Drive("", "zoom", "beat", gain=0.5, release=0.3),
    "shift-x=bass*-0.5-0.1": Drive("", "shift_x", "bass", gain=-0.5, offset=-0.1, attack=0.05, release=0.2),
    "rotate = drums.onset * 2 + 1 , attack = 0.1 , release = 2s": Drive(
        "", "rotate", "onset", "drums", 2.0, 1.0, 0.1, 2.0
    ),
    "layer=chroma": Drive("", "layer", "chroma", attack=0.2, release=0.6),
    "memory=rms+.1,release=0": Drive("", "memory", "rms", offset=0.1, attack=0.05),
}


@pytest.mark.parametrize(("text", "drive"), READ.items())
def test_drives_are_read(text, drive):
    assert parse_drives((text,)) == (replace(drive, text=text),)


WRONG = {
    "step": (4, "expected =, such as step=onset"),
    "strength": (8, "expected =, such as strength=onset"),
    "=onset": (0, "expected what is driven"),
    "step=": (5, "expected what drives it"),
    "step=onsets": (5, "unknown feature 'onsets' (did you mean onset?); there are onset, beat"),
    "step=drums.": (11, "expected a feature of drums"),
    "step=drums.kick": (11, "unknown feature 'kick'"),
    "step=onset*": (11, "expected a gain"),
    "step=onset*x": (11, "expected a gain"),
    "step=onset*0.5*2": (14, "expected *GAIN, +OFFSET"),
    "step=onset,attack": (17, "expected =, such as attack=0.2"),
    "step=onset,delay=1": (11, "unknown 'delay'; there are attack and release"),
    "step=onset,attack=-1": (18, "attack is out of range"),
    "step=onset,attack=100ms": (21, "unknown unit 'ms'; attack is in seconds, such as 0.1"),
    "step=onset,attack=1,attack=2": (20, "attack is given twice"),
    "step=chroma": (5, "chroma is twelve values"),
}


@pytest.mark.parametrize(("text", "where"), WRONG.items())
def test_a_wrong_drive_is_pointed_at(text, where):
    with pytest.raises(UsageError) as refusal:
        parse_drives((text,))
    assert str(refusal.value).startswith(f"--drive: {where[1]}")
    line, caret = refusal.value.detail.splitlines()
    assert (line, caret.index("^")) == (f"    {text}", 4 + where[0])


def test_only_what_may_change_can_be_driven():
    for target, hint in (("octaves", ""), ("stepp", " (did you mean step?)"), ("strength", "")):
        with pytest.raises(UsageError) as refusal:
            settled(f"{target}=onset", music())
        assert f"'{target}' is nothing that can be driven{hint}; there are layer, " in str(refusal.value)


# ------------------------------------------------------------------------------------------- attack, release, frames


@pytest.mark.parametrize("release", [0.1, 0.3, 2.0])
def test_release_is_the_seconds_until_95_percent_are_gone(release):
    found = follow(pulses([1.0]), 0.0, release, short=True)
    assert found[: CELLS - 1].max() == 0
    assert found[CELLS] == 1.0
    assert found[CELLS + round(release * CELLS)] == pytest.approx(math.exp(-3), rel=0.01)


@pytest.mark.parametrize("attack", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("short", [True, False])
def test_attack_is_the_seconds_until_95_percent_are_there(attack, short):
    step = pulses([1.0]) if short else np.repeat(np.float32([0, 1]), 2 * CELLS)
    begin = CELLS if short else 2 * CELLS
    found = follow(step, attack, 0.1, short=short)
    assert found[begin + round(attack * CELLS) - 1] == pytest.approx(1 - math.exp(-3), rel=0.01)
    assert found[begin - 1] == 0


def test_a_moment_between_frames_is_not_lost_and_a_level_is_a_mean():
    cells = pulses([1.013])
    shown = at_frames(cells, frames().edges(), short=True)
    assert list(np.nonzero(shown)[0]) == [25]
    level = at_frames(cells, frames().edges(), short=False)
    assert level[25] == pytest.approx(1 / 8)


def test_the_same_music_drives_the_same_way_at_every_rate():
    sound = music(onset=pulses([0.5, 1.7]))
    slow, quick = (
        settled("step=onset,attack=0.1,release=0.5", sound, frames(rate), step=1.5)["step"] for rate in (24, 60)
    )
    falling = [twelfth for twelfth in range(48) if 0.7 < twelfth / 12 < 1.6 or twelfth / 12 > 1.9]
    # Frames that begin together; while it falls each shows how it begins.
    assert [slow[2 * twelfth] for twelfth in falling] == pytest.approx([quick[5 * twelfth] for twelfth in falling])
    assert slow[2 * 8] > slow[2 * 14] > 1.5


# ------------------------------------------------------------------------------------------- what an option gets


def test_a_drive_adds_to_the_option_and_is_clipped_to_its_range():
    sound = music(rms=np.full(4 * CELLS, 0.5))
    assert settled("step=rms*2+0.25,attack=0", sound, step=1.0)["step"][10] == pytest.approx(2.25)
    assert settled("memory=rms,attack=0", sound, memory=0.9)["memory"][10] == 1.0
    assert settled("zoom=rms*-9,attack=0", sound)["zoom"][10] == pytest.approx(0.1)
    both = settled(("step=rms,attack=0", "step=rms*0.5,attack=0"), sound, step=1.0)
    assert both["step"][10] == pytest.approx(1.75)


def test_a_drive_adds_to_a_schedule():
    sound = music(onset=pulses([2.0]))
    found = settled("step=onset,release=0", sound, step="0s:1, 4s:3")["step"]
    assert found[49] == pytest.approx(1.98)
    assert found[50] == pytest.approx(3.0)


def test_whole_numbers_stay_whole():
    sound = music(rms=np.linspace(0, 1, 4 * CELLS))
    groups = {"effort": EffortOptions(iterations=2)}
    found = settle_curves(groups, frames(), sound, parse_drives(("iterations=rms*3,attack=0",)))[1]["iterations"]
    assert set(found) == {2.0, 3.0, 4.0, 5.0}


def test_stems_are_heard_by_their_names():
    sound = Music(made_track(), {"drums": made_track(onset=pulses([1.0]))}, seconds=4.0)
    assert settled("step=drums.onset", sound, step=1.5)["step"][25] == 2.5
    assert set(settled("step=onset", sound, step=1.5)["step"]) == {1.5}
    with pytest.raises(UsageError, match="unknown stem 'bass'; there are drums"):
        settled("step=bass.onset", sound)


def test_beats_are_one_on_the_beat():
    found = settled("zoom=beat,release=0", music(beats=(0.5, 1.02, 3.99)))["zoom"]
    assert [number for number, value in enumerate(found) if value > 1] == [12, 25, 99]
    with pytest.raises(InputError, match=r"no beat is found in song.flac; drive by onset"):
        settled("zoom=beat", music())


def test_silence_and_no_music_drive_nothing():
    silent = Music(replace(made_track(), features=replace(made_track().features, peak=0.0)), seconds=4.0)
    with pytest.raises(InputError, match=r"song.flac is silent, so it drives nothing; give other music"):
        settled("step=rms", silent)
    with pytest.raises(
        UsageError, match=r"--drive step=rms needs music, and the input has no sound; give --music FILE"
    ):
        settled("step=rms", None)


# ------------------------------------------------------------------------------------------- layers


def note(number):
    chroma = np.zeros((12, 4 * CELLS), np.float32)
    chroma[number] = 1
    return music(chroma=chroma)


@pytest.mark.parametrize("layers", [2, 3, 12])
def test_the_notes_are_dealt_over_the_layers(layers):
    (drive,) = parse_drives(("layer=chroma,attack=0",))
    for number in range(12):
        weights = dealt(drive, note(number), frames(), layers)
        assert weights.sum(0) == pytest.approx(np.full(100, layers))
        assert set(weights.argmax(0)) == {number % layers}
        assert weights.max() == pytest.approx(layers)


def test_more_layers_than_notes_share_them():
    weights = dealt(parse_drives(("layer=chroma,attack=0",))[0], note(1), frames(), 14)
    assert list(np.nonzero(weights[:, 10])[0]) == [1, 13]


def test_without_notes_the_layers_are_equal_and_one_layer_cannot_be_mixed():
    found = settled("layer=chroma", music(), layers=3)
    assert {value for values in found.values() for value in values} == {1.0}
    with pytest.raises(UsageError, match="--drive layer=chroma mixes layers, and there is one; give --layers"):
        settled("layer=chroma", note(0), layers=1)


def test_one_layer_cannot_be_faded_and_a_painting_has_no_layers_to_mix():
    with pytest.raises(UsageError, match="--layer-fade mixes layers, and there is one"):
        settle_curves({"dream": DreamOptions(layer_fade=0.5)}, frames())
    with pytest.raises(UsageError, match="'layer' is nothing that can be driven; there are strength"):
        settle_curves({"look": LookOptions()}, frames(), note(0), parse_drives(("layer=chroma",)))


def test_another_feature_fades_from_the_first_layer_to_the_last():
    sound = music(rms=np.linspace(0, 1, 4 * CELLS))
    found = settled("layer=rms,attack=0,release=0", sound, layers=3)
    first, middle, last = (np.asarray(found[f"layer_mix.{layer}"]) for layer in range(3))
    assert (first[0], last[-1]) == (pytest.approx(3, abs=0.1), pytest.approx(3, abs=0.1))
    assert middle[50] == pytest.approx(3, abs=0.1)
    assert first + middle + last == pytest.approx(np.full(100, 3))
    assert first[25] == pytest.approx(middle[25], abs=0.2)


def test_a_schedule_fades_from_layer_to_layer_without_music():
    groups = {"dream": DreamOptions(layers=("relu3_1", "relu4_1", "relu5_1"), layer_fade="0:0, 50:1")}
    settled_groups, curves = settle_curves(groups, frames(), layers=3)
    assert curves.keys() == {"layer_mix.0", "layer_mix.1", "layer_mix.2"}
    assert settled_groups["dream"].layer_fade == 0.0
    assert [curves[f"layer_mix.{layer}"][0] for layer in range(3)] == [3, 0, 0]
    assert [curves[f"layer_mix.{layer}"][25] for layer in range(3)] == pytest.approx([0, 3, 0])
    assert [curves[f"layer_mix.{layer}"][99] for layer in range(3)] == [0, 0, 3]
    fixed = settle_curves({"dream": DreamOptions(layer_fade=0.25)}, frames(), layers=3)[1]
    assert [fixed[f"layer_mix.{layer}"][7] for layer in range(3)] == pytest.approx([1.5, 1.5, 0])
    with pytest.raises(UsageError, match=r"'layer_fade' is nothing that can be driven \(did you mean layer"):
        settled("layer_fade=rms", music(rms=np.ones(4 * CELLS)), layers=3)


# ------------------------------------------------------------------------------------------- shorter than the video


def test_music_can_be_repeated_or_end_or_fade():
    short = {"onset": pulses([0.5], seconds=1.5), "beats": (0.5, 1.0)}

    def heard(end):
        sound = Music(made_track(seconds=1.5, **short), seconds=4.0, end=end)
        return sound, np.nonzero(sound.feature("onset"))[0] * SECONDS, sound.beats

    assert list(heard("stop")[1]) == pytest.approx([0.5])
    assert list(heard("loop")[1]) == pytest.approx([0.5, 2.0, 3.5], abs=SECONDS)
    assert heard("loop")[2] == pytest.approx((0.5, 1.0, 2.0, 2.5, 3.5, 4.0))
    faded = heard("fade")[0].feature("onset")
    assert faded.max() == pytest.approx((1.5 - 0.5) / float(FADE), abs=0.01)


def test_a_loop_that_is_no_whole_number_of_cells_keeps_its_time():
    seconds = 1.23456
    cells = np.zeros(math.ceil(seconds * CELLS), np.float32)
    cells[0] = 1
    track = replace(made_track(seconds=len(cells) / CELLS, onset=cells), seconds=seconds)
    found = np.nonzero(Music(track, seconds=600.0, end="loop").feature("onset"))[0] * SECONDS
    expected = np.arange(0, 600, seconds)
    assert np.abs(found[:, None] - expected).min(0).max() < 2 * SECONDS


def test_music_of_no_length_is_silence_and_no_endless_loop():
    nothing = Music(made_track(seconds=0.0), seconds=1.0, end="loop")
    assert (nothing.beats, nothing.wave().shape, nothing.wave().any()) == ((), (CELLS,), False)


def test_shorter_music_is_told(tmp_path, caplog):
    path = write_sound(tmp_path / "short.wav", tone(440, 1.0))
    with caplog.at_level("INFO", "nst_video"):
        found = hear(MusicOptions(music=str(path)), seconds=Fraction(4))
    assert "short.wav lasts 1.0 s of the video's 4.0; it is followed by silence (--music-end)" in caplog.text
    assert found.length == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"short.wav ends before --music-start 9; begin sooner"):
        hear(MusicOptions(music=str(path), music_start=9), seconds=Fraction(4))


# ------------------------------------------------------------------------------------------- options and conduct


def test_options_of_music_are_checked():
    options = MusicOptions(music="a.flac", music_start="1.5", stem=("drums=d.wav", "bass=b=1.wav"))
    assert (options.stems, options.music_start) == ({"drums": "d.wav", "bass": "b=1.wav"}, Fraction(3, 2))
    for given, message in (
        ({"stem": ("drums",)}, "--stem drums is not allowed; allowed NAME=FILE"),
        ({"stem": ("a=1", "a=2")}, "names one stem twice"),
        ({"music_end": "again"}, "--music-end again is not allowed; allowed loop, stop, fade"),
    ):
        with pytest.raises(UsageError, match=message):
            MusicOptions(**given)


def test_a_stem_that_drives_nothing_is_refused():
    options = MusicOptions(music="a.flac", stem=("drums=d.wav", "bass=b.wav"), drive=("step=drums.onset",))
    with pytest.raises(UsageError, match=r"--stem bass drives nothing; give a --drive such as TARGET=bass\.onset"):
        conduct({"dream": DreamOptions()}, options, [Fraction(0)], end=Fraction(1))


def test_conducting_from_files(tmp_path):
    loop, times = drum_loop([(120, 12)])
    song = write_sound(tmp_path / "song.flac", loop)
    drums = write_sound(tmp_path / "drums.wav", click_track((1.0,), 6.0))
    options = MusicOptions(music=str(song), stem=(f"drums={drums}",), drive=("step=drums.onset,release=0", "zoom=beat"))
    found = conduct(
        {"dream": DreamOptions(memory="0b:0, 4b:1")}, options, [Fraction(n, 25) for n in range(150)], end=Fraction(6)
    )
    assert np.argmax(found.curves["step"]) in (24, 25, 26)
    assert found.music.beats == pytest.approx(times, abs=0.01)
    assert found.curves["memory"][round(times[4] * 25) + 1] == 1.0
    assert found.curves["memory"][round(times[2] * 25)] == pytest.approx(0.5, abs=0.03)
    assert found.groups["dream"].memory == 0.0


def test_nothing_is_listened_to_without_need(tmp_path):
    own = make_plan_of(tmp_path, sound="aac")
    assert own.curves == {}
    found = conduct({"dream": DreamOptions(step="0:1, 9:2")}, MusicOptions(), [Fraction(0)], end=Fraction(1))
    assert found.music is None


# ------------------------------------------------------------------------------------------- in the main job


def make_plan_of(folder, *, sound=None, output="out.mp4", frames=12, **look):
    write_picture(folder / "style.png", picture(3))
    if not (folder / "in.mkv").exists():
        make_video(folder / "in.mkv", frames=frames, sound=sound)
    still = look.pop("still", None)
    return make_plan(
        folder / "in.mkv",
        folder / "style.png",
        folder / output,
        look=LookOptions(**look),
        options=OutputOptions(still=still),
    )


def test_a_schedule_is_in_the_plan_and_comes_back(tmp_path):
    plan = make_plan_of(tmp_path, strength="0:0, 0.4s:1")
    assert plan.curves["strength"] == pytest.approx(np.minimum(np.arange(12) / 10, 1))
    assert plan.look.strength == 0.0
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_from_before_there_were_curves_can_be_read(tmp_path):
    data = make_plan_of(tmp_path).to_json()
    del data["curves"]
    assert Plan.from_json(data).curves == {}


def test_a_still_shows_the_value_of_its_time(tmp_path):
    plan = make_plan_of(tmp_path, output="out.png", still=Fraction(1, 5), strength="0:0, 0.4s:1")
    assert plan.curves["strength"] == pytest.approx((0.5,))


def test_beats_need_sound(tmp_path):
    with pytest.raises(UsageError, match="--strength speaks of beats, but there is no sound to take them from"):
        make_plan_of(tmp_path, strength="0:0, 2b:1")


def test_beats_are_those_of_the_clips_own_sound(tmp_path):
    mux(tmp_path, drum_loop([(120, 8)])[0])
    plan = make_plan_of(tmp_path, strength="0b:0, 4b:2")
    beats = [0.5 + 0.5 * number for number in range(8)]
    for number in (0, 2, 4):
        assert plan.curves["strength"][round(beats[number] * 25)] == pytest.approx(number / 2, abs=0.06)


def test_a_clip_without_a_beat_says_so(tmp_path):
    mux(tmp_path, silence(4.0))
    with pytest.raises(InputError, match=r"--strength speaks of beats, but none is found in .*in.mkv; use seconds"):
        make_plan_of(tmp_path, strength="0b:0, 4b:2")


def mux(folder, sound):
    """in.mkv: pictures with this sound."""
    import av

    make_video(folder / "pictures.mkv", frames=100)
    write_sound(folder / "sound.flac", sound)
    with (
        av.open(str(folder / "pictures.mkv")) as pictures,
        av.open(str(folder / "sound.flac")) as sounds,
        av.open(str(folder / "in.mkv"), "w") as out,
    ):
        pairs = [(source, out.add_stream_from_template(source.streams[0])) for source in (pictures, sounds)]
        for source, stream in pairs:
            for packet in source.demux(source.streams[0]):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)


class Recorder:
    """Stands for a stylizer and keeps the controls it is given."""

    def __init__(self):
        self.controls = []

    def initial_state(self, seed=None):
        return State(seed=seed or 0)

    def step(self, image, motion, state, controls):
        self.controls.append(controls)
        return image, state


def test_every_frame_is_painted_with_its_own_value(tmp_path):
    plan = make_plan_of(tmp_path, strength="0:0, 0.4s:1", content_weight=0.3)
    recorder = Recorder()
    render_plan(plan, recorder)
    assert [controls.strength for controls in recorder.controls] == list(plan.curves["strength"])
    assert {controls.content_weight for controls in recorder.controls} == {None}
    assert [controls.time for controls in recorder.controls] == pytest.approx(np.arange(12) / 25)


def test_the_stylizer_obeys_iterations_of_a_frame():
    from nst_video.controls import Controls
    from nst_video.flow.motion import Motion
    from nst_video.options import EffortOptions
    from nst_video.presets import resolve_effort

    effort = resolve_effort(EffortOptions(first_iterations=4, iterations=2))
    stylizer = Stylizer(TinyEncoder(), [(tiny_picture(1), 1.0)], effort=effort, look=LOOK)
    import torch

    flows, trust = torch.zeros(1, 1, 2, 48, 64), torch.ones(1, 1, 48, 64)[:, :, None] * 0.5
    _, state = stylizer.step(tiny_picture(2), Motion.none(1, 48, 64), stylizer.initial_state(0))
    for iterations, expected in ((None, 2), (5.0, 5), (3.0, 3)):
        _, later = stylizer.step(tiny_picture(2), Motion(flows, trust), state, Controls(iterations=iterations))
        assert later.report.evaluations == expected


def test_the_command_line_paints_a_schedule(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "in.mp4", frames=4, size=(48, 32))
    write_picture(tmp_path / "style.png", picture(3))
    words = ["--size", "48", "--encoder", "slim", "--first-iterations", "3", "--iterations", "0:1, 3:3"]
    assert main(["in.mp4", "style.png", "out.mp4", *words, "--strength", "0:0, 2:1 hold", "--trace", "t.jsonl"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["evaluations"] for row in rows][:2] == [0, 0]  # at strength 0 a frame is left as it is
    assert rows[3]["evaluations"] == 3


# ------------------------------------------------------------------------------------------- the plot


def test_the_plot_shows_the_sound_the_beats_and_every_curve(tmp_path):
    pytest.importorskip("matplotlib")
    sound = music(beats=(0.5, 1.0, 9.0), wave=np.full(4 * CELLS, 0.5), chroma=np.ones((12, 4 * CELLS)))
    at = replace(frames(), beats=sound.beats)
    curves = settled(("step=beat", "layer=chroma"), sound, at, layers=2, memory="0:0, 50:1")
    figure = plots.music_figure(sound, curves, at)
    assert [axis.get_title() for axis in figure.axes] == ["music and beats", "memory", "step", "layer_mix"]
    beats = [[line[0][0] for line in axis.collections[0].get_segments()] for axis in figure.axes]
    assert beats == [[0.5, 1.0]] * 4
    stairs = figure.axes[2].patches[0].get_data()
    assert list(stairs.values) == list(curves["step"])
    assert len(figure.axes[3].patches) == 2
    plots.plot_music(sound, curves, at, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="there is nothing to plot"):
        plots.music_figure(None, {}, at)
