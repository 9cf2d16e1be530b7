"""Frames a second through reader and writer, and the memory of a long run against a short one.

    python scripts/bench_io.py CLIP.mp4 [--size 512] [--runs 5] [--json]

The pictures are handed from the reader to the writer unchanged, so this is what remains of a render when painting
costs nothing. For the memory, the clip is repeated to 200 and to 2,000 frames; each run is a process of its own, and
its peak resident memory is taken from the system.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from nst_video.media.probe import probe
from nst_video.media.video import VideoReader, VideoWriter
from nst_video.media.videoinfo import VideoInfo, scaled_size

SHORT, LONG = 200, 2000  # frames


def copy(source: Path, target: Path, long_side: int) -> int:
    """The clip through reader and writer at a size, pictures unchanged; returns the number of frames."""
    info = probe(source)
    size = scaled_size(info, long_side)
    count = 0
    with VideoReader(source, size=size) as reader, VideoWriter(target, info=info, size=size, overwrite=True) as writer:
        for frames in reader:
            writer.write(frames.rgb, frames.pts)
            count += len(frames.pts)
    return count


def repeated(source: Path, target: Path, frames: int) -> Path:
    """The clip's pictures over and over, up to `frames`, without sound."""
    info = probe(source)
    size = scaled_size(info, 512)
    step = round(1 / (info.average_rate * info.time_base))
    with VideoWriter(target, info=_silent(info), size=size, preset="ultrafast") as writer:
        written = 0
        while written < frames:
            for batch in VideoReader(source, size=size):
                kept = batch.rgb[: frames - written]
                writer.write(kept, [(written + number) * step for number in range(len(kept))])
                written += len(kept)
                if written == frames:
                    break
    return target


def speed(source: Path, long_side: int, runs: int) -> dict[str, float | list[float]]:
    """Frames a second of each run and their median; and the processor's time for a frame, which other work on the
    machine does not change.
    """
    rates, costs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            start, start_of_work = time.perf_counter(), time.process_time()
            count = copy(source, Path(folder) / "out.mp4", long_side)
            rates.append(count / (time.perf_counter() - start))
            costs.append(1000 * (time.process_time() - start_of_work) / count)
    return {
        "frames_per_second": statistics.median(rates),
        "runs": rates,
        "processor_ms_per_frame": statistics.median(costs),
    }


def memory(source: Path, long_side: int) -> dict[str, float]:
    """Peak resident memory in MiB of a short and of a long run, and by how much the long one needs more, in percent."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for frames in (SHORT, LONG):
            clip = repeated(source, Path(folder) / f"{frames}.mp4", frames)
            command = [sys.executable, __file__, str(clip), "--size", str(long_side), "--peak"]
            peaks[frames] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    more = 100 * (peaks[LONG] / peaks[SHORT] - 1)
    return {f"mib_{SHORT}_frames": peaks[SHORT], f"mib_{LONG}_frames": peaks[LONG], "percent_more": more}


def _silent(info: VideoInfo) -> VideoInfo:
    """What is known of the clip, without the file it came from."""
    return replace(info, kind="sequence", duration=None, origin_pts=0, start_pts=0)


def _peak(source: Path, long_side: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        copy(source, Path(folder) / "out.mp4", long_side)
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts into ru_maxrss what the parent had when it started this process
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--size", type=int, default=512, help="long side in pixels (default 512)")
    parser.add_argument("--runs", type=int, default=5, help="runs of the clip; the median counts (default 5)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(_peak(options.clip, options.size))
        return
    found = speed(options.clip, options.size, options.runs) | memory(options.clip, options.size)
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {[round(rate, 1) for rate in value] if isinstance(value, list) else round(value, 1)}")


if __name__ == "__main__":
    main()
