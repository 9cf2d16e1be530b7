"""Whether music and what it drives stay together: clicks at known times, rendered by a stand-in that only shows the
driven curve as brightness, and decoded again.

    python scripts/bench_sync.py [--minutes 10] [--rates 24000/1001,24,25,30000/1001,30,60] [--music flac]

For every rate: how many frames the flashes are off from the frames that are shown at the clicks, by how much the clicks
are heard early or late, and by how much picture and sound differ in length.
"""

import argparse
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from blink import Blinker, lit, settings  # noqa: E402
from clicks import click_times, click_track, spans  # noqa: E402
from media import picture  # noqa: E402

from nst_video.media.pictures import write_picture  # noqa: E402
from nst_video.media.probe import probe  # noqa: E402
from nst_video.planning import make_plan  # noqa: E402
from nst_video.render import render_plan  # noqa: E402

EVERY = 0.731  # seconds between clicks: in step with no frame rate


def measure(folder: Path, song: Path, clicks: list[float], rate: Fraction) -> dict[str, float]:
    """One rate: the worst of everything."""
    begun = time.perf_counter()
    given = settings(preset="ultrafast", music=str(song), rate=rate, drive=("step=onset,release=0",), overwrite=True)
    plan = make_plan(folder / "picture.png", (), folder / "out.mp4", **given)
    render_plan(plan, Blinker())
    took = time.perf_counter() - begun
    seen, sounded = lit(folder / "out.mp4"), click_times(folder / "out.mp4")
    if (len(seen), len(sounded)) != (len(clicks), len(clicks)):
        raise SystemExit(f"{rate}: {len(clicks)} clicks, but {len(seen)} are seen and {len(sounded)} heard")
    if probe(folder / "out.mp4").average_rate != rate:
        raise SystemExit(f"{rate}: the output has {probe(folder / 'out.mp4').average_rate} frames/s")
    _, pictures, _, sound = spans(folder / "out.mp4")
    return {
        "frames": plan.frames,
        "frames_off": max(abs(round(s * rate) - int(c * rate)) for s, c in zip(seen, clicks, strict=True)),
        "heard_off": max(abs(h - c) for h, c in zip(sounded, clicks, strict=True)),
        "length_off": abs(pictures - sound),
        "seconds": took,
    }


def main() -> None:
    """Print a line for every rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rates", default="24000/1001,24,25,30000/1001,30,60")
    parser.add_argument("--music", choices=("flac", "wav", "mp3", "m4a", "opus"), default="flac")
    args = parser.parse_args()
    seconds = 60 * args.minutes
    clicks = [0.4 + EVERY * number for number in range(int((seconds - 0.5) / EVERY))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_picture(folder / "picture.png", picture(3, 16, 16))
        song = click_track(folder / f"song.{args.music}", seconds, clicks)
        for rate in map(Fraction, args.rates.split(",")):
            found = measure(folder, song, clicks, rate)
            print(
                f"{rate!s:>12} frames/s: {found['frames']:>6} frames, {len(clicks)} clicks, "
                f"seen at most {found['frames_off']} frame off, heard at most {1000 * found['heard_off']:.1f} ms off, "
                f"picture and sound differ by {1000 * found['length_off']:.1f} ms ({found['seconds']:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
