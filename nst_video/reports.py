"""What a render leaves beside its output, fed by the progress callback: the trace of its losses, the contact sheet."""

import importlib.util
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nst_video.errors import ResourceError, UsageError
from nst_video.pictures import contact_sheet, write_picture
from nst_video.plots import INSTALL, plot_trace

if TYPE_CHECKING:
    from nst_video.render import Progress

Watcher = Callable[["Progress"], None]

_SHEET_PAIRS = 12
_SHEET_COLUMNS = 4
_SHEET_CELL = 320  # pixels


def plot_of(trace: Path) -> Path:
    """Where the plot of a trace goes: beside it. UsageError where that is the trace itself."""
    if trace.suffix.lower() == ".png":
        raise UsageError(f"--trace {trace} is the name of the plot that is drawn beside it; use {trace.stem}.jsonl")
    return trace.with_suffix(".png")


def check_reports(
    reports: Iterable[Path | None], taken: Iterable[str], *, overwrite: bool = False, plotting: bool = False
) -> None:
    """Refuse, before a long render, reports that could not be written after it; None stands for one not asked for.

    UsageError: a report that exists (without `overwrite`) or has the name of one of the files in `taken`.
    ResourceError: a folder that is missing or not writable, or matplotlib missing where a plot is asked for.
    """
    names = {os.path.realpath(name) for name in taken}
    for report in filter(None, reports):
        if os.path.realpath(report) in names:
            raise UsageError(f"{report} is named twice; every file of a command needs its own name")
        names.add(os.path.realpath(report))
        if report.exists() and not overwrite:
            raise UsageError(f"{report} exists; give -y to overwrite it, or another name")
        if not os.access(report.parent, os.W_OK | os.X_OK):
            raise ResourceError(f"the folder {report.parent} of {report.name} is missing or not writable")
    if plotting and importlib.util.find_spec("matplotlib") is None:
        raise ResourceError(f"a plot needs matplotlib, which is not installed: {INSTALL}")


@contextmanager
def writing_trace(path: Path) -> Iterator[Watcher]:
    """Write a JSON line for every frame as it is done, its report and the loss and its terms after each evaluation;
    then the plot.
    """
    curves: dict[str, tuple[float, ...]] = {}
    path.write_text("", encoding="utf-8")

    def watch(progress: "Progress") -> None:
        # Opened for each line: a render is long, and what it has written so far can be read meanwhile.
        with open(path, "a", encoding="utf-8") as file:
            traces = {
                "trace": _finite(progress.trace),
                "terms": {name: _finite(values) for name, values in progress.terms.items()},
            }
            file.write(json.dumps(asdict(progress.report) | traces, allow_nan=False) + "\n")
        curves[f"frame {progress.report.frame}"] = progress.trace

    yield watch
    plot_trace(curves, plot_of(path))


def _finite(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN."""
    return [value if math.isfinite(value) else None for value in values]


@contextmanager
def making_contact_sheet(path: Path, frames: int) -> Iterator[Watcher]:
    """Keep up to 12 small pairs of pictures, evenly spaced over `frames`, and write them as one picture at the end."""
    wanted = set(np.linspace(0, frames - 1, min(frames, _SHEET_PAIRS)).round().astype(int).tolist())
    before: list[np.ndarray] = []
    after: list[np.ndarray] = []

    def watch(progress: "Progress") -> None:
        if progress.report.frame in wanted:
            before.append(_small(progress.before))
            after.append(_small(progress.after))

    yield watch
    write_picture(path, contact_sheet(before, after, columns=_SHEET_COLUMNS))


def _small(rgb: np.ndarray) -> np.ndarray:
    """A copy no wider than a cell, so that a long render of large frames keeps little."""
    return contact_sheet([rgb], gap=0, cell_width=min(_SHEET_CELL, rgb.shape[1]))
