"""What quicker optical flow costs: the same renders with several settings of --flow, scored alike.

    python scripts/bench_flow.py FOLDER [--flows medium mixed fast] [--clips bunny pan cuts] [--styles oil woodblock]
                                 [--media MORE_FILES] [--frames 36] [--size 256] [--quality draft] [--threads 2]

For each clip and style the score of every render, the means, and the processor's time that flow and trust of a frame
take. Renders that are in FOLDER already are not made again.
"""

import argparse
import json
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from bench_quality import CLIP_SUFFIXES, ROOT, STYLE_SUFFIXES, end_of, find, make_missing, say

from nst_video import CoherenceOptions, EffortOptions, MachineOptions, OutputOptions, make_plan, render_plan
from nst_video.flow.motion import FLOW_PRESETS, MotionWindow
from nst_video.media.probe import probe
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import scaled_size
from nst_video.score import score_video

MEASURES = ("e_warp", "style", "content", "content_p95", "fill")


def main() -> None:
    """Render, score, print the tables, and keep them in FOLDER."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    folders = [make_missing(arguments.folder / "clips"), *arguments.media, ROOT / "samples"]
    clips = find(arguments.clips, folders, CLIP_SUFFIXES, "clip")
    styles = find(arguments.styles, [ROOT / "samples", *arguments.media], STYLE_SUFFIXES, "style")
    rows = {
        (clip, style): {flow: scored(arguments, clips[clip], styles[style], flow) for flow in arguments.flows}
        for clip in clips
        for style in styles
    }
    seconds = {flow: [taken(path, arguments.size, flow) for path in clips.values()] for flow in arguments.flows}
    text = table(rows, seconds, arguments.flows)
    (arguments.folder / "flow.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--flows", nargs="+", default=["medium", "mixed"], choices=[*FLOW_PRESETS, "mixed"])
    parser.add_argument("--clips", nargs="+", default=["bunny", "pan", "cuts"])
    parser.add_argument("--styles", nargs="+", default=["oil", "woodblock"])
    parser.add_argument("--media", nargs="+", type=Path, default=[], help="folders with more clips and style pictures")
    parser.add_argument("--frames", type=int, default=36, help="of every clip")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--quality", default="draft", help="preset")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser.parse_args()


def scored(arguments: argparse.Namespace, clip: Path, style: Path, flow: str) -> dict[str, float]:
    """The figures of one render, from the file that keeps them where it is there."""
    settings = f"{arguments.quality}-{arguments.size}-{arguments.frames}"
    kept = arguments.folder / flow / settings / f"{clip.stem}-{style.stem}.json"
    if not kept.exists():
        say(f"{clip.stem} in the style of {style.stem}, flow {flow}")
        output, end = kept.with_suffix("") / "%05d.png", end_of(clip, arguments.frames)
        output.parent.mkdir(parents=True, exist_ok=True)
        plan = make_plan(
            *(clip, style, str(output)),
            effort=EffortOptions(quality=arguments.quality, size=arguments.size),
            coherence=CoherenceOptions(flow=flow),
            options=OutputOptions(end=end, overwrite=True),
            machine=MachineOptions(device="cpu", threads=arguments.threads),
        )
        render_plan(plan)
        score = score_video(clip, str(output), style, end=end)
        kept.write_text(json.dumps({name: getattr(score, name) for name in MEASURES}), encoding="utf-8")
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def taken(clip: Path, size: int, flow: str, frames: int = 12) -> float:
    """Seconds of the processor that the motion of a frame with all its references takes, the median of a few."""
    window, seconds = MotionWindow(preset=flow), []
    with VideoReader(clip, size=scaled_size(probe(clip), size)) as reader:
        for rgb in islice((rgb for batch in reader for rgb in batch.rgb), frames):
            begun = time.process_time()
            window.step(rgb)
            seconds.append(time.process_time() - begun)
    return median(seconds[max(window.references) :])


def table(
    rows: dict[tuple[str, str], dict[str, dict[str, float]]], seconds: dict[str, list[float]], flows: list[str]
) -> str:
    """Markdown: every measure with every setting, the means, and the times."""

    def cells(found: Iterable[dict[str, Any]]) -> str:
        each = list(found)
        return " | ".join(", ".join(f"{figures[name]:.3g}" for figures in each) for name in MEASURES)

    titles = " | ".join(f"{name}: {', '.join(flows)}" for name in MEASURES)
    lines = [f"| clip | style | {titles} |", "|---" * (len(MEASURES) + 2) + "|"]
    lines += [f"| {clip} | {style} | {cells(row[flow] for flow in flows)} |" for (clip, style), row in rows.items()]
    means = [{name: fmean(row[flow][name] for row in rows.values()) for name in MEASURES} for flow in flows]
    lines.append(f"| mean | | {cells(means)} |")
    times = ", ".join(f"{flow} {1e3 * fmean(values):.0f} ms" for flow, values in seconds.items())
    return "\n".join([*lines, "", f"Motion of a frame, the processor's time, mean over clips: {times}"])


if __name__ == "__main__":
    main()
