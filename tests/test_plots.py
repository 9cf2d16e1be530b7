"""Plots: the asked curves are in the figure, in the format of the suffix; what cannot be drawn is one clear line."""

import math
import subprocess
import sys

import pytest
from PIL import Image

from nst_video import plots
from nst_video.errors import ResourceError, UsageError

ROWS = [
    {"frame": t, "e_warp": 1e-4 * t or None, "e_warp_input": 2e-5, "style": 0.03, "content": 0.4, "content_p95": 0.8}
    for t in range(6)
]


def curves(panel):
    return {line.get_label(): list(line.get_ydata()) for line in panel.get_lines()}


def test_the_score_shows_coherence_and_style_together():
    coherence, style, content, change = plots.score_figure(ROWS).axes
    assert (coherence.get_title(), style.get_title()) == ("E_warp", "style distance")
    assert coherence.get_yscale() == "log"
    assert curves(coherence) == {"output": [1e-4 * t for t in range(1, 6)], "input": [2e-5] * 6}
    assert curves(style) == {"output": [0.03] * 6}
    assert set(curves(content)) == {"mean", "95th percentile"}
    assert curves(change) == {}  # no pixel was untrusted, nothing is drawn


def test_a_few_sampled_frames_become_dots():
    rows = [dict(row, reference_style=0.05 if row["frame"] in (2, 3) else math.nan) for row in ROWS]
    line = plots.score_figure(rows).axes[1].get_lines()[1]
    assert (line.get_label(), list(line.get_xdata()), line.get_marker()) == ("stylised on its own", [2, 3], "o")


def test_a_frozen_clip_without_any_flicker_can_be_drawn(tmp_path):
    frozen = [dict(row, e_warp=0.0, e_warp_input=0.0) for row in ROWS]
    plots.plot_score(frozen, tmp_path / "frozen.png")
    assert plots.score_figure(frozen).axes[0].get_yscale() == "linear"


def test_several_optimisers_are_named_in_one_plot():
    (panel,) = plots.trace_figure({"L-BFGS": [4.0, 2.0, 1.0], "Adam": [4.0, 3.0]}, "comparison").axes
    assert curves(panel) == {"L-BFGS": [4.0, 2.0, 1.0], "Adam": [4.0, 3.0]}
    assert list(panel.get_lines()[1].get_xdata()) == [1, 2]
    assert panel.get_legend() is not None


def test_many_frames_are_coloured_from_first_to_last_instead_of_named():
    (panel,) = plots.trace_figure({f"frame {t}": [2.0, 1.0] for t in range(40)}, "trace").axes
    assert len(panel.get_lines()) == 40
    assert panel.get_legend() is None
    assert panel.texts[0].get_text() == "dark: frame 0, bright: frame 39"
    assert len({line.get_color() for line in panel.get_lines()}) == 40


def test_a_long_first_frame_leaves_room_for_the_short_ones():
    long_first = {"frame 0": [1.0] * 200, "frame 1": [1.0] * 6, "frame 2": [1.0] * 6}
    assert plots.trace_figure(long_first, "trace").axes[0].get_xscale() == "log"
    assert plots.trace_figure({"a": [1.0] * 50, "b": [1.0] * 50}, "trace").axes[0].get_xscale() == "linear"


def test_plots_are_png_pictures(tmp_path):
    plots.plot_score(ROWS, tmp_path / "score.png")
    plots.plot_trace({"frame 0": [3.0, 1.0]}, tmp_path / "trace.png")
    for name in ("score.png", "trace.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 600
            low, high = picture.convert("L").getextrema()
            assert (low, high) == (0, 255)


@pytest.mark.parametrize(("name", "begins"), [("p.jpg", b"\xff\xd8"), ("p.SVG", b"<?xml"), ("p.pdf", b"%PDF")])
def test_the_suffix_of_a_plot_chooses_its_format(tmp_path, name, begins):
    plots.plot_trace({"frame 0": [3.0, 1.0]}, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize("name", ["p.gif", "p"])
def test_a_plot_of_an_unknown_format_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"cannot draw a plot with the suffix '.*'; use \.png, \.jpg"):
        plots.plot_score(ROWS, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no frame"):
        plots.plot_score([], tmp_path / "x.png")
    with pytest.raises(UsageError, match="no curve"):
        plots.plot_trace({}, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_install_line_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ResourceError, match=r'needs matplotlib, .*: pip install "\.\[plots\]"'):
        plots.plot_score(ROWS, tmp_path / "x.png")


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    path = tmp_path / "missing" / "score.png"
    with pytest.raises(ResourceError, match=r"cannot write the plot .*score\.png: No such file"):
        plots.plot_score(ROWS, path)


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, nst_video.plots; assert not {'matplotlib', 'torch', 'cv2', 'av'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
