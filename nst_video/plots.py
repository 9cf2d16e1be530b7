"""Every picture of numbers. The only module that needs matplotlib, and only when something is drawn."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nst_video.errors import ResourceError, UsageError, missing_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nst_video.music.heard import Music
    from nst_video.schedules import Clock

EXTRA = "plots"  # that brings matplotlib
PLOT_SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
_COLUMNS = 2400  # of a waveform
MOST_NAMED = 10  # more curves than this are told apart by a colour scale, not by a legend

Row = Mapping[str, float | None]

# (legend entry, column of the row) of each curve.
_COHERENCE = (("output", "e_warp"), ("input", "e_warp_input"), ("stylised on its own", "reference_e_warp"))
_STYLE = (("output", "style"), ("stylised on its own", "reference_style"))
_CONTENT = (
    ("mean", "content"),
    ("95th percentile", "content_p95"),
    ("95th percentile, on its own", "reference_content_p95"),
)
_CHANGE = (("flow trusted", "change_trusted"), ("flow not trusted", "change_untrusted"))
SCORE_PANELS = {
    "E_warp": _COHERENCE,
    "style distance": _STYLE,
    "content distance": _CONTENT,
    "change from input": _CHANGE,
}
LOG_PANELS = ("E_warp",)
BEAT_COLOR = "0.8"
REFERENCE_COLOR = "0.35"  # grey


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_format(path: str | Path) -> str:
    """The format that the suffix of `path` chooses, as matplotlib calls it; UsageError for one that is no plot's.

    >>> plot_format("curves.svg")
    'svg'
    """
    suffix = Path(path).suffix
    if suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"{path}: cannot draw a plot with the suffix {suffix!r}; use {', '.join(PLOT_SUFFIXES)}")
    return suffix.lower().removeprefix(".")


def plot_score(rows: Sequence[Row], path: str | Path) -> None:
    """Draw the measures of a score over the frames: coherence beside style, content and change below. As all plots, in
    the format that the suffix of `path` chooses.

    `rows`: one mapping per frame with the columns of the score's CSV; None or NaN = not measured. ResourceError when
    matplotlib is missing or the file cannot be written, UsageError when there is no row, or for another suffix.
    """
    _save(score_figure(rows), path)


def plot_trace(curves: Mapping[str, Sequence[float]], path: str | Path, *, title: str = "loss per evaluation") -> None:
    """Draw named losses, one value per evaluation each, on a logarithmic scale.

    A curve is the trace of one frame, or of one optimiser where several are compared. Up to ten curves are named in a
    legend; more are coloured from first to last. ResourceError when matplotlib is missing or the file cannot be
    written, UsageError when there is no curve.
    """
    _save(trace_figure(curves, title), path)


def plot_music(music: "Music | None", curves: Mapping[str, Sequence[float]], clock: "Clock", path: str | Path) -> None:
    """Draw what will change over the time of a video: the waveform with the beats, and a panel below it for
    every option that is a schedule or is driven; the weights of layers share one.

    `music`, `curves` and `clock` are those of `music.conduct.Conducted`. ResourceError when matplotlib is missing or
    the file cannot be written, UsageError when there is nothing to draw.
    """
    _save(music_figure(music, curves, clock), path)


def music_figure(music: "Music | None", curves: Mapping[str, Sequence[float]], clock: "Clock") -> "Figure":
    """The figure that `plot_music` writes."""
    panels: dict[str, dict[str, Sequence[float]]] = {}
    for name, values in curves.items():
        option, _, part = name.partition(".")
        panels.setdefault(option, {})[f"layer {int(part) + 1}" if part else ""] = values
    if not panels and music is None:
        raise UsageError("there is nothing to plot: no music, no drive and no schedule")
    figure, axes = _figure(len(panels) + (music is not None), 1, size=(12.0, 1.8))
    edges = clock.edges()
    for axis in axes:
        axis.vlines([beat for beat in clock.beats if edges[0] <= beat <= edges[-1]], 0, 1, BEAT_COLOR, linewidth=0.8,
                    transform=axis.get_xaxis_transform())  # fmt: skip
        axis.set_xlim(edges[0], edges[-1])
    if music is not None:
        _draw_wave(axes[0], music)
    for axis, (option, parts) in zip(axes[music is not None :], panels.items(), strict=True):
        for label, values in parts.items():
            axis.stairs(values, edges, baseline=None, label=label or None, linewidth=1.0)
        axis.set_title(option)
        axis.grid(alpha=0.3)
        if len(parts) > 1:
            axis.legend(fontsize="small", loc="upper right")
    axes[-1].set_xlabel("seconds")
    return figure


def _draw_wave(panel: "Axes", music: "Music") -> None:
    """The outline of the sound, in as many columns as can be told apart."""
    wave = music.wave()
    each = -(-len(wave) // _COLUMNS)
    padded = [*wave.tolist(), *[0.0] * (-len(wave) % each)]
    peaks = [max(padded[first : first + each]) for first in range(0, len(padded), each)]
    times = [(column + 0.5) * each * music.seconds / len(wave) for column in range(len(peaks))]
    panel.fill_between(times, [-peak for peak in peaks], peaks, color="tab:gray", linewidth=0)
    panel.set_ylim(-1, 1)
    panel.set_title("music and beats" if music.beats else "music (no beats found)")


def score_figure(rows: Sequence[Row]) -> "Figure":
    """The figure that `plot_score` writes."""
    if not rows:
        raise UsageError("there is no frame to plot; a score needs at least one")
    figure, axes = _figure(2, 2)
    frames = [_number(row["frame"]) for row in rows]
    for panel, (title, curves) in zip(axes, SCORE_PANELS.items(), strict=True):
        for label, key in curves:
            color = REFERENCE_COLOR if key.startswith("reference_") else None
            _draw(panel, frames, [_number(row.get(key)) for row in rows], label, color)
        _finish(panel, title, "frame", log=title in LOG_PANELS)
    return figure


def trace_figure(curves: Mapping[str, Sequence[float]], title: str) -> "Figure":
    """The figure that `plot_trace` writes."""
    if not curves:
        raise UsageError("there is no curve to plot; a trace needs at least one")
    figure, (panel,) = _figure(1, 1)
    named = len(curves) <= MOST_NAMED
    for (label, values), shade in zip(curves.items(), _shades(len(curves)), strict=True):
        _draw(panel, range(1, len(values) + 1), values, label if named else None, None if named else shade)
    _finish(panel, title, "evaluation", log=True)
    lengths = sorted(map(len, curves.values()))
    if lengths[-1] > 5 * lengths[len(lengths) // 2]:  # the first frame of a shot takes many times what the others take
        panel.set_xscale("log")
    if not named:
        first, *_, last = curves
        panel.text(0.98, 0.97, f"dark: {first}, bright: {last}", ha="right", va="top", transform=panel.transAxes)
    return figure


def _figure(rows: int, columns: int, size: tuple[float, float] = (6.0, 3.6)) -> tuple["Figure", list["Axes"]]:
    """A figure drawn without a display, and its axes row by row; `size` of each in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_package("a plot", "matplotlib", EXTRA) from error
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _shades(count: int) -> list[tuple[float, float, float]]:
    """Colours from dark blue to orange, evenly spaced."""
    steps = [index / max(count - 1, 1) for index in range(count)]
    return [(0.1 + 0.85 * step, 0.15 + 0.45 * step, 0.45 - 0.35 * step) for step in steps]


def _draw(
    panel: "Axes",
    xs: Sequence[float],
    ys: Sequence[float],
    label: str | None,
    color: str | tuple[float, ...] | None = None,
) -> None:
    """One curve of the measured points; a curve without any is left out, single points far apart become dots."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)]
    if not points:
        return
    sparse = len(points) <= len(xs) // 2 or len(points) == 1
    style = {"marker": "o", "linestyle": "none"} if sparse else {"linewidth": 1.2}
    panel.plot(*zip(*points, strict=True), label=label, color=color, **style)


def _finish(panel: "Axes", title: str, x: str, *, log: bool) -> None:
    """Title, axes and legend. A logarithmic axis needs values above 0, which a frozen clip lacks; others start at 0."""
    if log and panel.dataLim.y1 > 0:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0.0)
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.grid(alpha=0.3)
    if panel.get_legend_handles_labels()[1]:
        panel.legend(fontsize="small")


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _save(figure: "Figure", path: str | Path) -> None:
    kind = plot_format(path)
    try:
        figure.savefig(path, format=kind)
    except OSError as error:
        raise ResourceError(f"cannot write the plot {path}: {error.strerror or error}") from error
