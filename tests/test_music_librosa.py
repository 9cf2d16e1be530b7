"""Our features beside librosa's on made sounds; skipped where it is not installed (`pip install librosa`)."""

import numpy as np
import pytest
from sounds import drum_loop, f_measure, tone
from test_music import at_rate, heard, track_of

from nst_video.music.features import BANDS, CELL, CELLS
from nst_video.music.sound import RATE

librosa = pytest.importorskip("librosa")
pytestmark = pytest.mark.filterwarnings("default")  # its own dependencies' deprecations


@pytest.fixture(scope="module")
def loop():
    return drum_loop([(110, 24), (130, 24)], noise=0.005)


def alike(ours, theirs):
    """Pearson correlation of what both have."""
    count = min(len(ours), len(theirs))
    return float(np.corrcoef(ours[:count], theirs[:count])[0, 1])


def test_loudness(loop):
    theirs = librosa.feature.rms(y=at_rate(loop[0]), frame_length=8 * CELL, hop_length=CELL)[0]
    assert alike(heard(loop[0]).rms, theirs) > 0.98


def test_onsets_are_at_the_same_times(loop):
    ours = heard(loop[0]).onset
    theirs = librosa.onset.onset_detect(y=at_rate(loop[0]), sr=RATE, hop_length=CELL, units="time")
    peaks = [librosa.util.peak_pick(ours, pre_max=6, post_max=6, pre_avg=20, post_avg=20, delta=0.1, wait=6)]
    assert f_measure(np.asarray(peaks[0]) / CELLS, theirs, within=0.05) > 0.9


def test_brightness():
    sweep = np.concatenate([tone(frequency, 0.5) for frequency in (200, 400, 800, 1600, 3200, 6400)])
    theirs = librosa.feature.spectral_centroid(y=at_rate(sweep), sr=RATE, n_fft=1024, hop_length=CELL)[0]
    middles = np.arange(6) * CELLS // 2 + CELLS // 4
    octaves = np.log(theirs[middles] / 100) / np.log(100)
    np.testing.assert_allclose(heard(sweep).centroid[middles], octaves, atol=0.02)


def test_notes():
    scale = np.concatenate([tone(440 * 2 ** ((step - 9) / 12), 0.5) for step in range(12)])
    theirs = librosa.feature.chroma_stft(y=at_rate(scale), sr=RATE, n_fft=8192, hop_length=CELL, tuning=0)
    ours = heard(scale).chroma
    middles = np.arange(12) * CELLS // 2 + CELLS // 4
    assert list(ours[:, middles].argmax(0)) == list(theirs[:, middles].argmax(0)) == list(range(12))


def test_bands(loop):
    power = np.square(np.abs(librosa.stft(at_rate(loop[0]), n_fft=1024, hop_length=CELL)))
    frequencies = librosa.fft_frequencies(sr=RATE, n_fft=1024)
    features = heard(loop[0])
    for name, (low, high) in BANDS.items():
        theirs = np.sqrt(power[(frequencies >= low) & (frequencies < high)].sum(0))
        assert alike(getattr(features, name), theirs) > 0.97, name


def test_beats_of_a_steady_loop_are_the_same():
    sound, times = drum_loop([(120, 48)])
    theirs = librosa.beat.beat_track(y=at_rate(sound), sr=RATE, units="time", hop_length=256)[1]
    assert f_measure(track_of(sound).beats, theirs, within=0.05) > 0.9
    assert f_measure(track_of(sound).beats, times, within=0.05) >= f_measure(theirs, times, within=0.05)
