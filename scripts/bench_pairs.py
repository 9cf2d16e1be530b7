"""What it costs to keep the curvature pairs of L-BFGS rounded, as on a GPU: the same renders with both, scored alike.

    python scripts/bench_pairs.py FOLDER [--clips bunny] [--styles oil woodblock] [--media MORE_FILES] [--frames 13]
                                  [--size 256] [--encoder vgg19] [--strengths 1 1.0001] [--threads 2]

Every render is made with strengths that differ by next to nothing: how far these lead apart is what rounding of any
kind does, and what the difference between the pairs has to be held against. Figures that are in FOLDER already are not
made again.
"""

import argparse
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch
from bench_quality import CLIP_SUFFIXES, ROOT, STYLE_SUFFIXES, end_of, find, make_missing, say

from nst_video import EffortOptions, LookOptions, MachineOptions, OutputOptions, make_plan, render_plan
from nst_video.optimization import optimizers
from nst_video.score import score_video

MEASURES = ("style", "content", "e_warp")
PAIRS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Render, score, print the table, and keep it in FOLDER."""
    arguments = parse_arguments()
    folders = [make_missing(arguments.folder / "clips"), *arguments.media, ROOT / "samples"]
    clips = find(arguments.clips, folders, CLIP_SUFFIXES, "clip")
    styles = find(arguments.styles, [ROOT / "samples", *arguments.media], STYLE_SUFFIXES, "style")
    found = {
        case: scored(arguments, clips[case[1]], styles[case[2]], case[0], case[3])
        for case in product(PAIRS, clips, styles, arguments.strengths)
    }
    text = "\n".join(table(found, arguments.strengths))
    (arguments.folder / "pairs.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--clips", nargs="+", default=["bunny"])
    parser.add_argument("--styles", nargs="+", default=["oil", "woodblock"])
    parser.add_argument("--media", nargs="+", type=Path, default=[], help="folders with more clips and style pictures")
    parser.add_argument("--frames", type=int, default=13, help="of every clip")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--encoder", default="vgg19")
    parser.add_argument("--strengths", nargs="+", type=float, default=[1.0, 1.0001])
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser.parse_args()


def scored(arguments: argparse.Namespace, clip: Path, style: Path, pairs: str, strength: float) -> dict[str, float]:
    """The figures of one render, from the file that keeps them where it is there."""
    settings = f"{arguments.encoder}-{arguments.size}-{arguments.frames}-{strength}"
    kept = arguments.folder / pairs / settings / f"{clip.stem}-{style.stem}.json"
    if not kept.exists():
        say(f"{clip.stem} in the style of {style.stem}, pairs in {pairs}, strength {strength}")
        output, end = kept.with_suffix("") / "%05d.png", end_of(clip, arguments.frames)
        output.parent.mkdir(parents=True, exist_ok=True)
        plan = make_plan(
            *(clip, style, str(output)),
            effort=EffortOptions(encoder=arguments.encoder, size=arguments.size),
            look=LookOptions(strength=strength),
            options=OutputOptions(end=end, overwrite=True),
            machine=MachineOptions(device="cpu", threads=arguments.threads),
        )
        stored: Callable[[str], torch.dtype] = lambda device: PAIRS[pairs]  # noqa: E731
        with patch.object(optimizers, "stored_as", stored):
            render_plan(plan)
        score = score_video(clip, str(output), style, end=end)
        kept.write_text(json.dumps({name: getattr(score, name) for name in MEASURES}), encoding="utf-8")
    found: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def table(found: dict[tuple[str, str, str, float], dict[str, float]], strengths: list[float]) -> list[str]:
    """Lines of Markdown: every measure, with each strength, and the mean over all renders of a kind."""
    rows = [f"| pairs | clip, style | {' | '.join(MEASURES)} |", "|---" * (len(MEASURES) + 2) + "|"]
    for pairs in PAIRS:
        of_kind = {case[1:]: figures for case, figures in found.items() if case[0] == pairs}
        for clip, style in dict.fromkeys(case[:2] for case in of_kind):
            each = [of_kind[clip, style, strength] for strength in strengths]
            cells = [", ".join(f"{figures[name]:.3g}" for figures in each) for name in MEASURES]
            rows.append(f"| {pairs} | {clip}, {style} | {' | '.join(cells)} |")
        means = [f"{fmean(figures[name] for figures in of_kind.values()):.4g}" for name in MEASURES]
        rows.append(f"| {pairs} | mean | {' | '.join(means)} |")
    return rows


if __name__ == "__main__":
    main()
