"""Feeds thousands of damaged and hostile files to the program: nothing may crash, hang, trace back or eat memory.

    python scripts/fuzz_media.py [--count 5000] [--seed 0] [--cli 150] [--jobs 1] [--keep FOLDER]
    python scripts/fuzz_media.py --case 1234 [--seed 0] --keep FOLDER

Every file goes through what a render does before it paints: the look at the input, the style pictures and the decoding
pass, in a child process with its limits. The child is a fork of this process, so that 5,000 of them take minutes; it
runs the same code as the one that a render starts. A file that is accepted is then read and written again as a render
does, unpainted, in a process without limits: its frames must be those that were planned. Of all files, `--cli` many,
evenly spread, go through `python -m nst_video` as well, painting included.

A case is a fault when it takes more than 20 s or 1.5 GB, ends a process by a signal, shows a traceback, or ends in
anything but a result or one line with its exit code. Linux and macOS only: it forks.
"""

import argparse
import collections
import faulthandler
import itertools
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from media_mutations import PICTURES, Generator, Mutant

from nst_video.errors import NstVideoError
from nst_video.media.guarded import look
from nst_video.media.guarded_child import serve
from nst_video.media.survey import Request, part_reader
from nst_video.media.video import VideoWriter
from nst_video.media.videoinfo import scaled_size
from nst_video.options import OutputOptions

LONGEST = 20.0  # seconds
LONGEST_PAINTED = 120.0  # seconds by the command line, which imports torch and paints what is accepted
MOST_MEMORY = 1536  # MB
SIZE = 64  # long side in pixels of what is written again
EXIT_CODES = frozenset({0, 2, 3, 4})
UNIT = 1024 if sys.platform != "darwin" else 1  # bytes of ru_maxrss
PAINT = ("--size", "32", "--first-iterations", "1", "--iterations", "1", "--content-layers", "relu1_1")
# What a refusal says when it is the child's end, or a fault of ours, that was turned into a line.
CONTAINED = ("crashes the decoder", "keeps the decoder busy", "too much memory", "fall silent")
OWN_FAULT = "could not be looked at"


@dataclass(frozen=True)
class Outcome:
    """How one case ended: "good", "refused", "contained" (the child's end became a line) or "fault"."""

    number: int
    source: str
    kind: str
    how: str
    way: str  # "fork" or "cli"
    end: str
    says: str
    seconds: float
    megabytes: float


class Forked:
    """A child that is a copy of this process: what guarded.look needs of a process, and what it used."""

    def __init__(self, work: Callable[[Any, Any], None]):
        requests, self.stdin_end = os.pipe()
        self.stdout_end, answers = os.pipe()
        self.status: int | None = None
        self.megabytes = 0.0
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.stdin_end)
            os.close(self.stdout_end)
            run_and_leave(lambda: work(os.fdopen(requests, "rb"), os.fdopen(answers, "wb")))
        os.close(requests)
        os.close(answers)
        self.stdin, self.stdout = os.fdopen(self.stdin_end, "wb"), os.fdopen(self.stdout_end, "rb")

    def kill(self) -> None:
        """End it, if it still runs."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative for a signal."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.status is None:
            pid, status, usage = os.wait4(self.pid, 0 if until is None else os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.megabytes = usage.ru_maxrss * UNIT / 2**20
            elif until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("the child", timeout or 0)
            else:
                time.sleep(0.005)
        return self.status


def run_and_leave(work: Callable[[], None]) -> None:
    """The life of a forked child: its work, and nothing of what the parent would do at its end."""
    status = 1
    faulthandler.disable()  # a test run has switched it on; the exit status says enough
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def request_for(mutant: Mutant, path: Path, good: Path) -> Request:
    """How the file is used: as the input, or pictures in turn as the style; damage refused or held; whole or a part."""
    as_style = mutant.kind in PICTURES and mutant.number % 2 == 0
    part: dict[str, Any] = [{}, {"on_error": "hold"}, {}, {"start": Fraction(1, 5), "on_error": "hold"}][
        mutant.number % 4
    ]
    files = (str(good), (str(path),)) if as_style else (str(path), ())
    output = f"out{mutant.number}.{('mp4', 'mkv', 'webm', 'mov')[mutant.number // 2 % 4]}"
    return Request(*files, OutputOptions(**part), 27.0, str(path.with_name(output)))


class Runner:
    """Runs cases of one seed in a folder of its own."""

    def __init__(self, folder: Path, seed: int):
        self.folder = folder
        (folder / "good").mkdir()
        self.generator = Generator(folder / "good", seed)
        self.good = folder / "good" / "rgb.png"
        # Warnings about what was held or left out are no part of the outcome; all else on stderr is.
        logging.getLogger("nst_video").addHandler(logging.NullHandler())

    def file_of(self, number: int) -> tuple[Mutant, Path]:
        """The mutant and the file it was written to."""
        mutant = self.generator(number)
        path = self.folder / f"case{number}.{mutant.kind}"
        path.write_bytes(mutant.data)
        return mutant, path

    def run(self, number: int) -> Outcome:
        """One case through the look, and through reading and writing if it is accepted."""
        mutant, path = self.file_of(number)
        request = request_for(mutant, path, self.good)
        begun = time.monotonic()
        children: list[Forked] = []

        def start() -> Forked:
            children.append(Forked(serve))
            return children[-1]

        try:
            with look(request, start) as at:
                survey = at.finish()
            size = scaled_size(at.info, SIZE)
            end, says = self._written_again(request, mutant, size, survey.pts, children)
        except NstVideoError as error:
            says = str(error)
            end = "contained" if any(words in says for words in CONTAINED) else "refused"
            if OWN_FAULT in says or "\n" in says:
                end, says = "fault", f"{says}\n{error.__cause__}"
        finally:
            path.unlink()
        seconds, megabytes = time.monotonic() - begun, max(child.megabytes for child in children)
        if seconds > LONGEST or megabytes > MOST_MEMORY:
            end, says = "fault", f"{seconds:.1f} s, {megabytes:.0f} MB: {says}"
        return Outcome(number, mutant.source, mutant.kind, mutant.how, "fork", end, says, seconds, megabytes)

    def _written_again(
        self, request: Request, mutant: Mutant, size: tuple[int, int], pts: tuple[int, ...], children: list[Forked]
    ) -> tuple[str, str]:
        report = self.folder / "report.txt"

        def work(requests: Any, answers: Any) -> None:
            with open(report, "wb", buffering=0) as file:
                os.dup2(file.fileno(), 2)
                copy(request, size, pts)

        children.append(Forked(work))
        try:
            status = children[-1].wait(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            children[-1].kill()
            children[-1].wait()
            return "fault", f"reading and writing hangs: {report.read_text(errors='replace')}"
        finally:
            children[-1].stdin.close()
            children[-1].stdout.close()
            left = list(self.folder.glob(f"*out{mutant.number}.*"))
            for file in left:
                file.unlink()
        said = report.read_text(errors="replace")
        if status != 0 or said:
            refused = status == 0 and said.startswith("refused: ") and said.count("\n") == 1
            return ("refused late", said.strip()) if refused else ("fault", f"status {status}: {said}")
        return "good", f"{len(pts)} frames"


def copy(request: Request, size: tuple[int, int], pts: Sequence[int]) -> None:
    """What a render does around the painting; a refusal is said in a line on stderr."""
    warnings.filterwarnings("ignore", module="PIL")  # as the command line does
    options = request.options
    codec = "libvpx-vp9" if request.output.endswith(".webm") else "libx264"
    found: list[int] = []
    try:
        with part_reader(request.input, options, size=size) as reader:
            writer = VideoWriter(
                request.output, info=reader.info, size=size, codec=codec, preset="ultrafast", start=options.start
            )
            with writer:
                for batch in reader:
                    found.extend(batch.pts)
                    writer.write(batch.rgb, batch.pts)
    except NstVideoError as error:
        print(f"refused: {error}", file=sys.stderr)
        return
    if found != list(pts):
        raise AssertionError(f"planned {len(pts)} frames {pts[:5]}, read {len(found)} {found[:5]}")


def run_cli(runner: Runner, number: int) -> Outcome:
    """One case through the command line, in a process of its own."""
    mutant, path = runner.file_of(number)
    request = request_for(mutant, path, runner.good)
    style = request.styles[0] if request.styles else str(runner.good)
    target = runner.folder / f"cli{number}.mp4"
    options = ["--on-error", request.options.on_error]
    options += ["--start", "0.2"] if request.options.start else []
    words = [request.input, style, str(target), *PAINT, "--style-layers", "relu1_1", *options]
    begun = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen([sys.executable, "-m", "nst_video", *words], stdout=subprocess.PIPE, stderr=said)
        try:
            printed = child.communicate(timeout=LONGEST_PAINTED)[0]
        except subprocess.TimeoutExpired:
            child.kill()
            printed = child.communicate()[0]
        seconds = time.monotonic() - begun
        said.seek(0)
        lines = said.read().decode(errors="replace").splitlines()
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT / 2**20  # the most of all so far
    wrong = complaint(child.returncode, lines, printed, target.exists())
    if child.returncode and seconds > LONGEST:
        wrong += f" {seconds:.0f} s to refuse it"
    end = "fault" if wrong else "refused" if child.returncode else "good"
    path.unlink()
    target.unlink(missing_ok=True)
    says = f"{wrong}: exit {child.returncode}: " + "\n".join(lines) if wrong else lines[-1]
    return Outcome(number, mutant.source, mutant.kind, mutant.how, "cli", end, says, seconds, megabytes)


def complaint(code: int, lines: list[str], printed: bytes, wrote: bool) -> str:
    """What is wrong with how a command ended; nothing if it is as documented."""
    errors = [line for line in lines if line.startswith("nst-video: error: ")]
    checks = {
        "an unknown exit code": code not in EXIT_CODES,
        "a traceback": any("Traceback" in line for line in lines),
        "a line that is not the program's": any(not line.startswith("nst-video: ") for line in lines),
        "not one line of error at the end": (len(errors), lines[-1:] == errors)
        != ((1, True) if code else (0, not lines)),
        "something on stdout": bool(printed),
        "a file though it failed, or none though it did not": wrote == bool(code),
    }
    return ", ".join(what for what, holds in checks.items() if holds)


# ---------------------------------------------------------------------------------------------- many cases


def run_many(numbers: Sequence[int], seed: int) -> list[Outcome]:
    """Cases one after the other; a worker of the pool."""
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder), seed)
        return [runner.run(number) for number in numbers]


def run_all(count: int, seed: int, jobs: int) -> Iterator[Outcome]:
    """All cases, in portions, on `jobs` processes."""
    portions = [list(range(first, min(first + 50, count))) for first in range(0, count, 50)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for outcomes in pool.map(run_many, portions, itertools.repeat(seed)):
            yield from outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Ends by kind of file, with the worst time and the peak memory."""
    ends = ("good", "refused", "refused late", "contained", "fault")
    lines = [f"| input | cases | {' | '.join(ends)} | worst s | peak MB |", "|" + "---|" * (len(ends) + 4)]
    groups = sorted({(outcome.way, outcome.kind) for outcome in outcomes}, reverse=True)
    for way, kind in [*groups, ("", "all")]:
        rows = [o for o in outcomes if kind == "all" or (o.way, o.kind) == (way, kind)]
        counts = collections.Counter(row.end for row in rows)
        worst, peak = max(row.seconds for row in rows), max(row.megabytes for row in rows)
        name = f"{kind} by the command line" if way == "cli" else kind
        numbers = " | ".join(str(counts[end]) for end in ends)
        lines.append(f"| {name} | {len(rows)} | {numbers} | {worst:.1f} | {peak:.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Run, print the table and every fault; exit status 1 when there was one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="how many files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cli", type=int, default=150, help="how many of them also by the command line")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--case", type=int, help="run this one only, both ways, and tell how it ended")
    parser.add_argument("--keep", type=Path, help="put the files of faults here, or that of --case")
    parser.add_argument("--json", type=Path, help="write every outcome as a JSON line")
    arguments = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder), arguments.seed)
        outcomes: list[Outcome] = []
        if arguments.case is not None:
            outcomes += [runner.run(arguments.case), run_cli(runner, arguments.case)]
            for outcome in outcomes:
                print(json.dumps(vars(outcome), indent=2))
        else:
            painted = range(0, arguments.count, -(-arguments.count // arguments.cli)) if arguments.cli else ()
            with suppress(KeyboardInterrupt):  # the table is of what was done until then
                for outcome in itertools.chain(
                    run_all(arguments.count, arguments.seed, arguments.jobs), (run_cli(runner, n) for n in painted)
                ):
                    outcomes.append(outcome)
                    tell(outcome, len(outcomes), begun)
        faults = [outcome for outcome in outcomes if outcome.end == "fault"]
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for number in {outcome.number for outcome in faults} | ({arguments.case} - {None}):
                mutant = runner.generator(number)
                (arguments.keep / f"case{number}.{mutant.kind}").write_bytes(mutant.data)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(vars(outcome)) + "\n" for outcome in outcomes))
    print(table(outcomes))
    print(f"{len(outcomes)} cases in {time.monotonic() - begun:.0f} s, {len(faults)} faults")
    return 1 if faults else 0


def tell(outcome: Outcome, done: int, begun: float) -> None:
    """Every fault at once, and a line now and then."""
    if outcome.end in ("fault", "contained"):
        print(
            f"{outcome.end} {outcome.number} ({outcome.source}, {outcome.how}, {outcome.way}): {outcome.says}",
            flush=True,
        )
    if done % 250 == 0:
        print(f"{done} cases, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
