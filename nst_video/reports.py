"""What a render leaves beside its output, fed by the progress callback: the trace of its losses, the contact sheet."""

import json
import math
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from nst_video.errors import ResourceError, UsageError, missing_package
from nst_video.files import write_whole
from nst_video.media.destination import folder_and_pattern
from nst_video.media.pictures import contact_sheet, write_picture
from nst_video.media.sequences import is_numbered
from nst_video.painting.painted import row_of
from nst_video.plots import EXTRA, can_plot, plot_format, plot_trace

if TYPE_CHECKING:
    from nst_video.render import Progress

Watcher = Callable[["Progress"], None]

_SHEET_PAIRS = 12
_SHEET_COLUMNS = 4
_SHEET_CELL = 320  # pixels


def plot_of(trace: Path) -> Path | None:
    """Where the plot of a trace goes: beside it; None where matplotlib is missing, without which there is none.
    UsageError where the plot would be the trace itself.
    """
    if trace.suffix.lower() == ".png":
        raise UsageError(f"--trace {trace} is the name of the plot that is drawn beside it; use {trace.stem}.jsonl")
    return trace.with_suffix(".png") if can_plot() else None


def check_reports(
    reports: Iterable[Path | None],
    taken: Iterable[str],
    *,
    output: str,
    overwrite: bool = False,
    plot: Path | None = None,
    beside: Path | None = None,
    ours: Container[str] = (),
) -> None:
    """Refuse, before a long render, reports that could not be written after it; None stands for one not asked for.
    `plot`: that of the reports which was asked for as a plot; `beside`: that which is drawn beside a trace.
    `ours`: real paths of reports that an unfinished render has begun, which may be replaced.

    UsageError: a plot of no known format; a report that is a folder, exists (without `overwrite`) or has the name of
    `output`, of one of its numbered pictures or of one of the files in `taken`.
    ResourceError: a folder that is missing or not writable, or matplotlib missing where a plot is asked for.
    """
    if plot is not None:
        plot_format(plot)  # an unknown suffix is refused now, not after the render
    names = {os.path.realpath(name) for name in (output, *taken)}
    for report in filter(None, reports):
        if os.path.realpath(report) in names:
            if report == beside:
                raise UsageError(f"{report} is the plot beside the trace, too; give the one or the other another name")
            raise UsageError(f"{report} is named twice; every file of a command needs its own name")
        names.add(os.path.realpath(report))
        if _is_picture_of(report, output):
            raise UsageError(
                f"{report} would be a picture of {output}; "
                "give the report, or the trace that it is the plot of, another name"
            )
        if report.is_dir():
            raise UsageError(f"{report} is a folder; give the report the name of a file")
        if report.exists() and not overwrite and os.path.realpath(report) not in ours:
            raise UsageError(f"{report} exists; give -y to overwrite it, or another name")
        if not os.access(report.parent, os.W_OK | os.X_OK):
            raise ResourceError(f"the folder {report.parent} of {report.name} is missing or not writable")
    if plot is not None and not can_plot():
        raise missing_package("a plot", "matplotlib", EXTRA)


def _is_picture_of(report: Path, output: str) -> bool:
    """Whether a report is called like a numbered picture of the output, or a link to one."""
    folder, pattern = folder_and_pattern(output)
    return any(
        is_numbered(path.name, pattern) and os.path.realpath(path.parent) == os.path.realpath(folder)
        for path in (report, Path(os.path.realpath(report)))
    )


@contextmanager
def writing_trace(path: Path, earlier: Iterable[Mapping[str, Any]] = ()) -> Iterator[Watcher]:
    """Write a JSON line for every frame as it is done, its report and the loss and its terms after each evaluation; at
    the end they are in the order of the frames. Then the plot, where it can be drawn. `earlier`: the lines of frames
    that were done in an earlier run.
    """
    curves: dict[str, tuple[float, ...]] = {}
    written: list[int] = []
    path.write_text("", encoding="utf-8")

    def write(row: Mapping[str, Any]) -> None:
        # Opened for each line: a render is long, and what it has written so far can be read meanwhile.
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        written.append(row["frame"])
        curves[f"frame {row['frame']}"] = tuple(math.nan if value is None else value for value in row["trace"])

    for row in earlier:
        write(row)
    yield lambda progress: write(row_of(progress.report, progress.trace, progress.terms))
    if written != sorted(written):
        _sort_trace(path)
    plot = plot_of(path)
    if plot is not None:
        plot_trace({f"frame {number}": curves[f"frame {number}"] for number in sorted(written)}, plot)


def _sort_trace(path: Path) -> None:
    """The lines of lanes that were painted side by side, by their frames."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    write_whole(path, "".join(sorted(lines, key=lambda line: json.loads(line)["frame"])).encode())


def sheet_frames(frames: int) -> frozenset[int]:
    """The numbers of the frames that a contact sheet of a video of so many shows, evenly spaced."""
    return frozenset(np.linspace(0, frames - 1, min(frames, _SHEET_PAIRS)).round().astype(int).tolist())


@contextmanager
def making_contact_sheet(
    path: Path, frames: int, earlier: Mapping[int, tuple[np.ndarray, np.ndarray]] = MappingProxyType({})
) -> Iterator[Watcher]:
    """Keep up to 12 small pairs of pictures, evenly spaced over `frames`, and write them as one picture at the end.
    `earlier`: pairs from an earlier run, by frame number.
    """
    wanted, pairs = sheet_frames(frames), dict(earlier)

    def watch(progress: "Progress") -> None:
        if progress.report.frame in wanted:
            pairs[progress.report.frame] = (_small(progress.before), _small(progress.after))

    yield watch
    before, after = zip(*(pairs[number] for number in sorted(pairs)), strict=True)
    write_picture(path, contact_sheet(before, after, columns=_SHEET_COLUMNS))


def small_pair(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """A frame and its painted one side by side, as small as a contact sheet shows them: uint8 (h, 2 w, 3)."""
    return np.concatenate([_small(before), _small(after)], axis=1)


def _small(rgb: np.ndarray) -> np.ndarray:
    """A copy no wider than a cell, so that a long render of large frames keeps little."""
    return contact_sheet([rgb], gap=0, cell_width=min(_SHEET_CELL, rgb.shape[1]))
