"""How well music is heard: beats of drum loops, clicks in their frames, onsets in time, and what it costs.

    python scripts/bench_music.py                 # with librosa installed its figures stand beside ours
    python scripts/bench_music.py --minutes 10

All sounds are made (tests/sounds.py), so what is in them is known.
"""

import argparse
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import sounds  # noqa: E402 - the makers of sounds that the tests use

from nst_video.music.beats import track_beats  # noqa: E402
from nst_video.music.drives import parse_drive  # noqa: E402
from nst_video.music.features import CELLS, Analyser  # noqa: E402
from nst_video.music.heard import Music  # noqa: E402
from nst_video.music.sound import RATE  # noqa: E402
from nst_video.music.track import Track  # noqa: E402
from nst_video.schedules import Clock  # noqa: E402

RATES = {"23.976": Fraction(24000, 1001), "24": Fraction(24), "25": Fraction(25)} | {
    "29.97": Fraction(30000, 1001),
    "30": Fraction(30),
    "60": Fraction(60),
}
LOOPS = {
    "100, then 140": [(100, 32), (140, 40)],
    "90, 120, 100": [(90, 24), (120, 32), (100, 32)],
    "110, 85, 130": [(110, 32), (85, 32), (130, 32)],
    "90 to 150, evenly": [((90, 150), 96)],
    "140 to 100, evenly": [((140, 100), 64), (100, 16)],
    "65": [(65, 40)],
    "128": [(128, 64)],
    "165": [(165, 64)],
    "120, 75, 150": [(120, 32), (75, 24), (150, 40)],
}


def resampled(sound: np.ndarray) -> np.ndarray:
    """At the rate that is listened to."""
    moments = np.arange(int(len(sound) * RATE / sounds.RATE)) * sounds.RATE / RATE
    return np.interp(moments, np.arange(len(sound)), sound).astype(np.float32)


def listen(sound: np.ndarray) -> Track:
    """Features and beats of samples at RATE."""
    analyser = Analyser()
    for first in range(0, len(sound), RATE):
        analyser.feed(sound[first : first + RATE])
    features = analyser.finish()
    return Track("made", features.samples / RATE, features, track_beats(features.onset))


def librosa_beats(sound: np.ndarray) -> tuple[list[float], float]:
    """librosa's beats, and the seconds it took; ([], nan) where it is missing."""
    try:
        import librosa
    except ImportError:
        return [], float("nan")
    begun = time.process_time()
    _, beats = librosa.beat.beat_track(y=sound, sr=RATE, units="time", hop_length=256)
    return list(beats), time.process_time() - begun


def beats() -> None:
    """A table of the beats of every loop, straight, and with swing and noise."""
    print("| tempo, beats/min | swing, noise | F within 50 ms | error, median and worst hit, ms | librosa: F |")
    print("|---|---|---|---|---|")
    for name, tempos in LOOPS.items():
        for swing, noise in ((0.0, 0.0), (0.1, 0.01)):
            sound, times = sounds.drum_loop(tempos, swing=swing, noise=noise)
            found = listen(resampled(sound)).beats
            errors = np.array([min(abs(beat - true) for beat in found) for true in times])
            hits = 1000 * errors[errors <= 0.05]
            theirs, _ = librosa_beats(resampled(sound))
            shown = f"{sounds.f_measure(theirs, times):.3f}" if theirs else "-"
            print(
                f"| {name} | {swing}, {noise} | {sounds.f_measure(found, times):.3f} "
                f"| {np.median(hits):.1f}, {hits.max():.1f} | {shown} |"
            )


def clicks(minutes: float) -> None:
    """How far from their frames clicks are shown at every rate, and what listening cost."""
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.uniform(2, 9, int(20 * minutes)))
    times = times[times < 60 * minutes - 1]
    sound = resampled(sounds.click_track(times, 60 * minutes))
    begun = time.process_time()
    track = listen(sound)
    print(f"\n{minutes:g} minutes of clicks: {time.process_time() - begun:.1f} s of the processor")
    _, theirs = librosa_beats(sound)
    print(f"the beats alone by librosa, which loads and compiles first: {theirs:.1f} s")
    music = Music(track, seconds=60 * minutes)
    for name, rate in RATES.items():
        clock = Clock([float(number / rate) for number in range(int(60 * minutes * rate))])
        shown = np.asarray(parse_drive("step=onset,release=0").values(music, clock))
        off = []
        for click in times:
            number = int(click * rate)
            off.append(int(shown[max(0, number - 6) : number + 7].argmax()) - min(6, number))
        share = np.mean(np.abs(off) == 0)
        print(
            f"{name} frames/s: {len(times)} clicks, {share:.0%} in their own frame, the worst {max(map(abs, off))} off"
        )


def onsets() -> None:
    """When onsets of several sorts are heard against when they are."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.4, 1.2, 60)) + 0.5
    decay = np.exp(-np.arange(4410) / 800).astype(np.float32)
    kick = np.sin(2 * np.pi * 60 * np.arange(8820) / sounds.RATE) * np.exp(-np.arange(8820) / 3000)
    sorts = {
        "click": sounds.burst(),
        "noise": (0.3 * rng.normal(size=4410) * decay).astype(np.float32),
        "kick": (0.8 * kick * np.minimum(np.arange(8820) / 130, 1)).astype(np.float32),
    }
    print()
    for name, part in sorts.items():
        sound = sounds.silence(times[-1] + 1)
        for moment in times:
            sounds.put(sound, moment, part)
        onset = listen(resampled(sound)).features.onset
        errors = []
        for moment in times:
            cell = int(moment * CELLS)
            errors.append(1000 * ((cell - 8 + onset[cell - 8 : cell + 9].argmax() + 0.5) / CELLS - moment))
        print(f"{name}: heard {np.mean(errors):+.1f} ms off on average, {min(errors):+.1f} to {max(errors):+.1f}")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the track of clicks")
    minutes = parser.parse_args().minutes
    beats()
    clicks(minutes)
    onsets()


if __name__ == "__main__":
    main()
