"""What is heard: sounds of known content, placed exactly, whatever file they come in."""

import time
from fractions import Fraction

import av
import numpy as np
import pytest
import sounds
from media import make_video
from sounds import ENCODERS, RATES, beat_times, burst, click_track, drum_loop, f_measure, silence, tone, write_sound

from nst_video.errors import InputError
from nst_video.media.guarded import listen
from nst_video.music.beats import track_beats
from nst_video.music.drives import parse_drive
from nst_video.music.features import CELLS, Analyser
from nst_video.music.heard import Music
from nst_video.music.sound import RATE, SoundRequest, samples
from nst_video.music.track import Track, analyse
from nst_video.schedules import Clock

CLICKS = (0.25, 1.0, 1.777, 3.3333, 4.1, 4.75)
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def at_rate(sound):
    """A sound of `sounds` at the rate that is listened to."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    made = []
    for first in range(0, len(sound), sounds.RATE):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound[first : first + sounds.RATE].reshape(1, -1)), format="flt", layout="mono"
        )
        frame.sample_rate = sounds.RATE
        made += resampler.resample(frame)
    made += resampler.resample(None) if made else []
    return np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray().reshape(-1) for frame in made)])


def heard(sound, block=5000):
    """Features of a sound, fed in blocks."""
    analyser = Analyser()
    resampled = at_rate(sound)
    for first in range(0, len(resampled), block):
        analyser.feed(resampled[first : first + block])
    return analyser.finish()


def track_of(sound):
    features = heard(sound)
    return Track("made", features.samples / RATE, features, () if features.silent else track_beats(features.onset))


def decoded(path, **more):
    return np.concatenate([np.zeros(0, np.float32), *samples(SoundRequest(str(path), **more))])


def lag(found, time):
    """How many samples too late the click at `time` is, by cross-correlation."""
    click = at_rate(np.concatenate([silence(0.01), burst(), silence(0.01)]))
    first = round((time - 0.01) * RATE)
    shifts = range(-200, 201)
    return max(shifts, key=lambda shift: float(np.dot(found[first + shift : first + shift + len(click)], click)))


# ------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("suffix", [suffix for suffix in ENCODERS if suffix != ".aac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_of_file_is_sample_accurate(tmp_path, suffix, channels):
    path = write_sound(tmp_path / f"clicks{suffix}", click_track(CLICKS, 5.0), channels=channels)
    found = decoded(path)
    assert [lag(found, click) for click in CLICKS] == pytest.approx([0] * len(CLICKS), abs=1)
    assert len(found) / RATE == pytest.approx(5.0, abs=0.03)


def test_a_bare_aac_stream_has_its_encoders_delay(tmp_path):
    # Nothing in such a file says how long that is: 1024 samples, which a player plays as well.
    found = decoded(write_sound(tmp_path / "clicks.aac", click_track(CLICKS, 5.0)))
    assert {lag(found, click + 1024 / sounds.RATE) for click in CLICKS} <= {-1, 0, 1}


def test_other_rates_are_placed_as_well(tmp_path):
    path = tmp_path / "clicks.wav"
    sound = click_track(CLICKS, 5.0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=96_000, layout="mono")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=96_000)
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="flt", layout="mono")
        frame.sample_rate = sounds.RATE
        for made in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(made))
    found = decoded(path)
    assert [lag(found, click) for click in CLICKS] == pytest.approx([0] * len(CLICKS), abs=1)


def test_the_clock_can_begin_anywhere(tmp_path):
    path = write_sound(tmp_path / "clicks.flac", click_track(CLICKS, 5.0))
    later = decoded(path, start=Fraction(1, 2))
    assert lag(later, CLICKS[1] - 0.5) == 0
    assert len(later) / RATE == pytest.approx(4.5, abs=1e-3)
    part = decoded(path, zero=Fraction(-1), seconds=Fraction(4))
    assert (len(part), lag(part, CLICKS[2] + 1)) == (4 * RATE, 0)


def test_sound_that_begins_after_the_pictures_is_where_it_is_heard(tmp_path):
    here = make_video(tmp_path / "here.mkv", sound="flac")
    late = make_video(tmp_path / "late.mkv", sound="flac", sound_start=Fraction(1, 5))
    found, moved = decoded(here, zero=Fraction(0)), decoded(late, zero=Fraction(0))
    shift = round(0.2 * RATE)
    assert not moved[: shift - 50].any()
    np.testing.assert_allclose(moved[shift + 50 : 15_000], found[50 : 15_000 - shift], atol=0.02)


def test_a_gap_in_the_times_is_silent(tmp_path):
    path = tmp_path / "gap.mka"
    sound = click_track((0.1, 2.1), 3.0)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_f32le", rate=sounds.RATE, layout="mono")
        for first, last in ((0, 0.5), (2.0, 3.0)):
            part = sound[round(first * sounds.RATE) : round(last * sounds.RATE)].reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="flt", layout="mono")
            frame.sample_rate, frame.pts = sounds.RATE, round(first * sounds.RATE)
            frame.time_base = Fraction(1, sounds.RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = decoded(path)
    assert [lag(found, click) for click in (0.1, 2.1)] == pytest.approx([0, 0], abs=12)  # mkv rounds to 1 ms
    assert not found[round(0.51 * RATE) : round(1.99 * RATE)].any()


# ------------------------------------------------------------------------------------------- what cannot be heard


def test_what_is_no_sound_is_one_line(tmp_path):
    (tmp_path / "text.mp3").write_text("this is not music\n" * 200)
    (tmp_path / "list.mp3").write_text("ffconcat version 1.0\nfile other.mp3\n")
    (tmp_path / "empty.flac").touch()
    make_video(tmp_path / "mute.mp4", frames=3)
    (tmp_path / "folder").mkdir()
    messages = {
        "text.mp3": "is not a sound that can be read (flac, wav, mp3",
        "list.mp3": "is not a sound that can be read",
        "empty.flac": "holds no sound: it is 0 s long",
        "mute.mp4": "has no sound (it holds video)",
        "folder": "is a folder; give a sound",
        "missing.wav": "does not exist",
    }
    for name, message in messages.items():
        with pytest.raises(InputError) as refusal:
            decoded(tmp_path / name)
        assert message in str(refusal.value), name
        assert "\n" not in str(refusal.value)


def test_a_sound_that_breaks_off_says_where(tmp_path):
    path = write_sound(tmp_path / "whole.flac", 0.1 * drum_loop([(120, 16)])[0])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"breaks off after \d\.\d s of the \d\.\d s that it promises"):
        decoded(path)


def test_damaged_packets_are_counted(tmp_path):
    path = write_sound(tmp_path / "clicks.m4a", drum_loop([(120, 16)])[0])
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    data[start + 2000 : len(data) - 4000] = np.random.default_rng(0).bytes(len(data) - 6000 - start)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged: \d+ of \d+ parts of its sound cannot be decoded"):
        decoded(path)


def test_silence_is_known(tmp_path):
    rng = np.random.default_rng(0)
    dither = (rng.integers(-1, 2, sounds.RATE * 2) / 32768).astype(np.float32)
    for sound in (silence(2.0), dither):
        features = heard(sound)
        assert features.silent
        assert features.rms.max() <= 1
    assert not heard(tone(440, 1.0, height=0.01)).silent
    assert analyse(SoundRequest(str(write_sound(tmp_path / "s.flac", silence(1.0))))).beats == ()


def test_very_short_sounds_are_no_fault():
    for count in (0, 1, 100, 121, 600):
        analyser = Analyser()
        analyser.feed(np.full(count, 0.5, np.float32))
        features = analyser.finish()
        assert len({features.onset.shape, features.rms.shape, features.chroma.shape[1:], features.wave.shape}) == 1
    assert track_beats(np.zeros(0, np.float32)) == ()


def test_the_child_hears_what_is_heard_here(tmp_path):
    path = write_sound(tmp_path / "loop.flac", drum_loop([(120, 12)])[0])
    there, here = listen(SoundRequest(str(path))), analyse(SoundRequest(str(path)))
    assert (there.beats, there.seconds, there.path) == (here.beats, here.seconds, str(path))
    for name in ("onset", "rms", "bass", "mid", "treble", "centroid", "chroma", "wave"):
        np.testing.assert_array_equal(getattr(there.features, name), getattr(here.features, name))


def test_a_corrupt_file_in_the_child_is_one_line(tmp_path):
    (tmp_path / "text.wav").write_bytes(b"RIFF" + b"\xff" * 400)
    with pytest.raises(InputError, match="is not a sound that can be read"):
        listen(SoundRequest(str(tmp_path / "text.wav")))


def test_an_answer_that_makes_no_sense_is_refused():
    data = track_of(drum_loop([(120, 8)])[0]).to_json()
    short = data | {"features": data["features"] | {"rms": data["features"]["rms"][:64]}}
    broken = data | {"features": data["features"] | {"rms": "%"}}
    for wrong in (short, broken):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever says so, guarded turns it into a line
            Track.from_json(wrong)


# ------------------------------------------------------------------------------------------- onsets and frames


@pytest.fixture(scope="module")
def ten_minutes():
    """(the music, the times of its clicks): 10 minutes, a click every 2 to 9 seconds, the last one at the very end."""
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.uniform(2, 9, 200))
    times = np.append(times[times < 595], 599.5)
    begun = time.process_time()
    track = track_of(click_track(times, 600.0))
    assert time.process_time() - begun < 20
    return Music(track, seconds=600.0), times


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_every_click_is_in_its_frame_for_ten_minutes(ten_minutes, rate):
    music, times = ten_minutes
    frames = int(600 * rate)
    clock = Clock([float(number / rate) for number in range(frames)])
    shown = np.asarray(parse_drive("step=onset,release=0").values(music, clock))
    for click in times:
        number = int(click * rate)
        near = shown[max(0, number - 6) : number + 7]
        assert abs(int(near.argmax()) - min(6, number)) <= 1, click
        assert near.max() > 0.5
    # And nowhere else.
    loud = np.nonzero(shown > 0.3)[0] / float(rate)
    assert max(np.abs(times[:, None] - loud).min(0)) < 2 / rate


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_every_click_is_seen_on_a_slow_background(rate):
    times = np.arange(40) * 0.37 + 0.3
    sound = click_track(times, 16.0, height=0.5) + tone(220, 16.0, 0.1)
    frames = int(16 * rate)
    clock = Clock([float(number / rate) for number in range(frames)])
    shown = np.asarray(parse_drive("step=onset,release=0").values(Music(track_of(sound), seconds=16.0), clock))
    for click in times:
        number = int(click * rate)
        assert shown[max(0, number - 1) : number + 2].max() > 0.5, click


def test_onsets_of_drums_are_within_two_cells():
    sound, times = drum_loop([(120, 32)])
    onset = heard(sound).onset
    for beat in times:
        cell = int(beat * CELLS)
        near = onset[cell - 6 : cell + 7]
        assert abs(int(near.argmax()) - 6) <= 2, beat


def test_loudness_does_not_change_what_is_found():
    sound, _ = drum_loop([(120, 16)])
    loud, quiet = heard(sound), heard(0.03 * sound)
    np.testing.assert_allclose(loud.onset, quiet.onset, atol=0.05)
    np.testing.assert_allclose(loud.rms, quiet.rms, atol=0.01)


# ------------------------------------------------------------------------------------------- levels, bands, notes


def test_loudness_is_in_proportion():
    sound = np.concatenate([tone(440, 2.0, 0.8), tone(440, 2.0, 0.4), silence(2.0), tone(440, 2.0, 0.2)])
    rms = heard(sound).rms
    middles = [rms[round(second * CELLS)] for second in (1, 3, 5, 7)]
    assert middles == pytest.approx([1.0, 0.5, 0.0, 0.25], abs=0.02)


@pytest.mark.parametrize(
    ("frequency", "band"), [(60, "bass"), (100, "bass"), (440, "mid"), (1500, "mid"), (6000, "treble")]
)
def test_a_tone_is_in_its_band(frequency, band):
    features = heard(tone(frequency, 2.0))
    found = {name: float(getattr(features, name)[100:300].mean()) for name in ("bass", "mid", "treble")}
    assert found.pop(band) > 0.95
    assert max(found.values()) < (0.4 if frequency == 100 else 0.2)  # near its edges a band hears its neighbour


def test_brightness_rises_by_octaves():
    heights = [float(heard(tone(frequency, 1.0)).centroid[100]) for frequency in (200, 800, 3200)]
    assert heights[0] < heights[1] < heights[2]
    assert heights[2] - heights[1] == pytest.approx(np.log(4) / np.log(100), abs=0.03)


@pytest.mark.parametrize("number", range(12), ids=NOTES)
@pytest.mark.parametrize("octave", [3, 4, 6])
def test_notes_are_known(number, octave):
    frequency = 440 * 2 ** ((number - 9) / 12 + octave - 4)
    chroma = heard(tone(frequency, 1.0)).chroma[:, 60:140].mean(1)
    assert int(chroma.argmax()) == number
    assert np.delete(chroma, number).max() < 0.05


def test_the_notes_of_a_chord_and_of_a_scale():
    chord = sum(tone(440 * 2 ** (step / 12), 1.0, 0.2) for step in (-9, -5, -2))  # C E G
    assert set(np.nonzero(heard(chord).chroma[:, 60:140].mean(1) > 0.5)[0]) == {0, 4, 7}
    scale = np.concatenate([tone(440 * 2 ** ((step - 9) / 12), 0.5) for step in range(12)])
    chroma = heard(scale).chroma
    assert [int(chroma[:, round((0.25 + 0.5 * step) * CELLS)].argmax()) for step in range(12)] == list(range(12))


# ------------------------------------------------------------------------------------------- beats

LOOPS = {
    "steady": [(128, 64)],
    "jump": [(100, 32), (140, 40)],
    "there and back": [(90, 24), (120, 32), (100, 32)],
    "quicker": [((90, 150), 96)],
    "slower": [((140, 100), 64), (100, 16)],
    "three tempos": [(110, 32), (85, 32), (130, 32)],
}


@pytest.mark.parametrize("tempos", LOOPS.values(), ids=LOOPS.keys())
@pytest.mark.parametrize(("swing", "noise"), [(0.0, 0.0), (0.1, 0.01)], ids=["straight", "swing and noise"])
def test_beats_of_a_drum_loop_with_tempo_changes(tempos, swing, noise):
    sound, times = drum_loop(tempos, swing=swing, noise=noise)
    beats = track_of(sound).beats
    assert f_measure(beats, times, within=0.05) >= 0.95
    errors = [min(abs(beat - true) for beat in beats) for true in times]
    assert np.median(errors) <= 0.006


def test_beats_of_clicks_alone():
    times = beat_times([(120, 40)])
    assert f_measure(track_of(click_track(times, 21.0)).beats, times) == 1.0


def test_there_are_no_beats_in_a_long_pause():
    sound = np.concatenate([drum_loop([(120, 16)])[0], silence(15.0), drum_loop([(120, 16)])[0]])
    pause = [beat for beat in track_of(sound).beats if 13.5 < beat < 20]
    assert pause == []
