"""Kills renders at random moments, goes on with them, and compares what comes out with an uninterrupted run.

    python scripts/torture.py [--kills 100] [--signal KILL|TERM] [--seed 0] [--kinds video lossless gif sequence]

Half of the kills come at a random time, the other half at a random step that must not be half done: before or after a
call that flushes, renames or removes a file, which is when segments are sealed, the ledger is written, the output is
put together and the job is removed. A run that goes on is killed again half of the time, so some take many runs.

After every kill: there is no file under the output's name, or the whole of it. At the end of every render: the decoded
frames, their times, the packets of sound and every frame's losses are those of the uninterrupted run, none lost or
doubled, and nothing else is left. The program itself is what runs, in a fork that has its libraries loaded already;
only the length of segments and the time between checkpoints are made shorter, so that a clip of a second has several,
and the plot of the losses is left out.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from nst_video import cli, render, reports  # noqa: F401  (loaded for all forks)
from nst_video.jobs import jobwriter, states  # noqa: F401  (loaded for all forks)
from nst_video.media import shots
from nst_video.painting import lanes, stylizer  # noqa: F401  (loaded for all forks)

SAMPLES = Path(__file__).parent.parent / "samples"
FRAMES = 16
# Two layers are enough for everything that is carried from frame to frame.
LOOK = ("--end", f"{FRAMES}/25", "--size", "64", "--first-iterations", "3", "--iterations", "2", "--threads", "1")
LAYERS = ("--content-layers", "relu2_1", "--style-layers", "relu1_1,relu2_1")
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "video": ("out.mp4", ()),
    "lanes": ("out.mp4", ("--lanes", "3")),
    "lossless": ("out.mkv", ("--lossless",)),
    "gif": ("out.gif", ()),
    "sequence": ("out", ()),
}
STEPS = ("fsync", "replace", "unlink", "rmdir", "mkdir", "ftruncate")  # of the module os
ENDED_AT_ONCE = {signal.SIGTERM: {5, 143}, signal.SIGKILL: {-signal.SIGKILL}}


@dataclass
class Report:
    """What was done and found."""

    kills: int = 0
    runs: int = 0
    renders: int = 0
    frames: int = 0
    killed_by: Counter[str] = field(default_factory=Counter)
    same_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What is compared: pictures (N, H, W, 3), their times, the packets of sound, and the rows of the trace."""

    pictures: np.ndarray
    times: list[float]
    sound: list[bytes]
    rows: list[dict[str, Any]]
    content: bytes


class Killer:
    """Counts the steps of a process and, at one of them, sends it the signal: before the step, or after it."""

    def __init__(self, number: int | None, after: bool, which: signal.Signals) -> None:
        self.number, self.after, self.signal, self.count = number, after, which, 0

    def install(self) -> None:
        """Stand between the program and the system, in this process only."""
        for name in STEPS:
            setattr(os, name, self._around(getattr(os, name)))

    def _around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.count += 1
            here = self.count == self.number
            if here and not self.after:
                os.kill(os.getpid(), self.signal)
            result = step(*args, **options)
            if here and self.after:
                os.kill(os.getpid(), self.signal)
            return result

        return counted


def run(words: list[str], folder: Path, killer: Killer, kill_after: float | None = None) -> tuple[int, int]:
    """The program in a fork, in `folder`; the signal after some seconds. Returns (exit code, number of steps)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_the_program(words, folder, killer, writer)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, killer.signal)
    _, state = os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        steps = pipe.read()
    return os.waitstatus_to_exitcode(state), int(steps or 0)


def _be_the_program(words: list[str], folder: Path, killer: Killer, pipe: int) -> None:
    code = 70
    try:
        os.chdir(folder)
        log = os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        os.dup2(log, 1)
        shots.SHORTEST_SEGMENT, shots.LONGEST_SEGMENT = 3, 5
        lanes.SHORTEST, lanes.WARM_UP, lanes.BLEND = 5, 2, 2
        jobwriter.OFTEN = jobwriter.SELDOM = 0.05
        reports.plot_trace = lambda curves, path: None  # it takes longer than the render
        killer.install()
        code = cli.main(words)
        os.write(pipe, str(killer.count).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def outcome(folder: Path, name: str) -> Outcome:
    """What a finished render left."""
    path = folder / name
    rows = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    for row in rows:
        del row["took"]
    if path.is_dir():
        files = sorted(path.iterdir())
        pictures = [_decoded(file)[0][0] for file in files]
        content = b"".join(file.read_bytes() for file in files)
        return Outcome(np.stack(pictures), list(map(float, range(len(files)))), [], rows, content)
    pictures, times, sound = _decoded(path)
    return Outcome(np.stack(pictures), times, sound, rows, path.read_bytes())


def _decoded(path: Path) -> tuple[list[np.ndarray], list[float], list[bytes]]:
    pictures, times, sound = [], [], []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.stream.type == "audio" and packet.size:
                sound.append(bytes(packet))
            if packet.stream.type == "video":
                for frame in packet.decode():
                    pictures.append(frame.to_ndarray(format="rgb24"))
                    times.append(float(frame.pts * frame.time_base) if frame.pts is not None else 0.0)
    return pictures, times, sound


def compare(found: Outcome, wanted: Outcome) -> bool:
    """AssertionError unless both are the same; returns whether the files are as well, byte for byte."""
    assert found.times == wanted.times, f"times {found.times} instead of {wanted.times}"
    assert found.pictures.shape == wanted.pictures.shape, f"{found.pictures.shape} instead of {wanted.pictures.shape}"
    assert np.array_equal(found.pictures, wanted.pictures), "other pictures"
    assert found.sound == wanted.sound, "other packets of sound"
    assert found.rows == wanted.rows, "other losses"
    return found.content == wanted.content


class Torture:
    """Renders of one kind in a folder of their own, killed and gone on with."""

    def __init__(self, kind: str, folder: Path, which: signal.Signals, dice: random.Random, report: Report) -> None:
        self.folder, self.signal, self.dice, self.report = folder, which, dice, report
        self.name, options = KINDS[kind]
        clip, style = str(SAMPLES / "bunny.mp4"), str(SAMPLES / "oil.jpg")
        self.words = [clip, style, self.name, *LOOK, *LAYERS, *options, "--trace", "trace.jsonl"]
        folder.mkdir()
        begun = time.monotonic()
        code, self.steps = run(self.words, folder, Killer(None, False, which))
        assert code == 0, self.said()
        self.seconds = time.monotonic() - begun
        self.wanted = outcome(folder, self.name)
        assert len(self.wanted.pictures) == FRAMES, f"{len(self.wanted.pictures)} frames"
        self.clean()

    def said(self) -> str:
        """What the last runs printed."""
        return "\n".join((self.folder / "stderr.txt").read_text().splitlines()[-30:])

    def clean(self) -> None:
        """An empty folder for the next render."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def render(self, kills: int) -> None:
        """One render to its end, killed at least once and at most `kills` times."""
        left = kills
        while left and (left == kills or self.dice.random() < 0.5):
            if not self.killed_run():
                break
            left -= 1
        code, _ = run(self.words, self.folder, Killer(None, False, self.signal))
        self.report.runs += 1
        # Killed after the last thing that had to be done, the same command finds its output there.
        assert code == 0 or (code == 2 and self.is_there()), f"exit code {code}:\n{self.said()}"
        self.report.same_bytes += compare(outcome(self.folder, self.name), self.wanted)
        left_over = {path.name for path in self.folder.iterdir()} - {
            self.name,
            "trace.jsonl",
            "trace.png",
            "stderr.txt",
        }
        assert not left_over, f"left over: {left_over}"
        assert "Traceback" not in self.said(), self.said()
        self.report.renders += 1
        self.report.frames += FRAMES
        self.clean()

    def killed_run(self) -> bool:
        """One run with a signal in it; whether it came before the end."""
        at_step = self.dice.random() < 0.5
        number = self.dice.randint(1, self.steps) if at_step else None
        seconds = None if at_step else self.dice.uniform(0, self.seconds)
        code, _ = run(self.words, self.folder, Killer(number, self.dice.random() < 0.5, self.signal), seconds)
        self.report.runs += 1
        ended = code in ENDED_AT_ONCE[self.signal]
        assert ended or code == 0 or (code == 2 and self.is_there()), f"exit code {code}:\n{self.said()}"
        if ended:
            self.report.kills += 1
            self.report.killed_by["step" if at_step else "time"] += 1
        if self.is_there():
            found = outcome_of_file(self.folder / self.name)
            assert found == len(self.wanted.pictures), f"{self.name} is there with {found} frames"
        return ended

    def is_there(self) -> bool:
        """Whether something has the output's name."""
        return (self.folder / self.name).exists()


def outcome_of_file(path: Path) -> int:
    """How many frames a file or folder has that somebody would take for finished."""
    return len(list(path.iterdir())) if path.is_dir() else len(_decoded(path)[0])


def torture(kinds: list[str], kills: int, which: signal.Signals, seed: int, say: Callable[[str], None]) -> Report:
    """Kill as often, over all kinds in turn. AssertionError at the first fault."""
    report, begun = Report(), time.monotonic()
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        rigs = [Torture(kind, Path(folder, kind), which, dice, report) for kind in kinds]
        for rig in _round(rigs):
            if report.kills >= kills:
                break
            rig.render(min(kills - report.kills, 6))
            say(f"{report.kills} kills in {report.renders} renders of {report.runs} runs")
    report.seconds = time.monotonic() - begun
    return report


def _round(rigs: list[Torture]) -> Iterator[Torture]:
    while True:
        yield from rigs


def main() -> None:
    """Read the arguments, torture, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    which = signal.Signals[f"SIG{args.signal}"]
    report = torture(args.kinds, args.kills, which, args.seed, lambda line: print(line, file=sys.stderr, flush=True))
    if args.json:
        print(json.dumps(vars(report)))
    else:
        print(
            f"{report.kills} kills ({report.killed_by['time']} at a random time, {report.killed_by['step']} at a "
            f"random step), {report.runs} runs, {report.renders} renders of {FRAMES} frames, all as uninterrupted "
            f"ones; {report.same_bytes} files the same byte for byte; {report.seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
