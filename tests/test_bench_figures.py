"""The benchmark's verdicts follow from the measured numbers, and what was not measured is not called kept."""

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from bench_figures import FIGURES, Record, checks_table, percentile_95, results_table


def record(clip="bunny", **score):
    reference = {"e_warp_ours": 1e-4, "e_warp_independent": 2e-3, "fill_ours": 0.6, "fill_independent": 0.8}
    rows = [{"shot": 0, "evaluations": 200}, {"shot": 0, "evaluations": 6}, {"shot": 1, "evaluations": 150}]
    rows += [{"shot": 1, "evaluations": 8}]
    means = {"style": 0.03, "e_warp": 2e-4, "e_warp_input": 5e-5, "reference": reference} | score
    return Record(clip, "oil", {"render": {"rows": rows, "evaluations": 91.0}, "score": means})


def verdict(records, name):
    (line,) = [line for line in checks_table(records).splitlines() if line.startswith(f"| {name}")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_kept_and_a_missed_figure():
    assert verdict([record()], "style distance |") == ["<= 0.0500", "0.0300", "bunny, oil", "ok"]
    worst = verdict([record(), record("pan", style=0.06)], "style distance |")
    assert worst == ["<= 0.0500", "0.0600", "pan, oil", "missed by 1 of 2"]


def test_the_limit_of_the_warping_error_follows_the_input():
    assert verdict([record()], "E_warp (limit") == ["<= 2.50e-04", "2.00e-04", "bunny, oil", "ok"]
    assert verdict([record(e_warp_input=1e-5)], "E_warp (limit")[3] == "missed by 1 of 1"


def test_a_still_scene_must_hold_thirty_times_better_than_independent_frames():
    assert verdict([record("bunny")], "E_warp, independent") == [">= 10.0", "20.0", "bunny, oil", "ok"]
    assert verdict([record("still")], "E_warp, independent") == [">= 30.0", "20.0", "still, oil", "missed by 1 of 1"]


def test_fill_is_compared_with_the_independent_frames():
    assert verdict([record()], "fill") == [">= 0.70", "0.75", "bunny, oil", "ok"]


def test_first_frames_of_shots_are_no_later_frames():
    assert record().evaluations() == [6, 8]
    assert verdict([record()], "evaluations of a later frame")[1] == "7.0"


def test_what_was_not_measured_is_not_called_kept():
    assert verdict([record()], "second judge: style distance") == ["–", "–", "–", "not measured"]
    assert verdict([record(style=None)], "style distance |")[3] == "not measured"


def test_every_figure_has_a_line_and_every_record_too():
    assert len(checks_table([record()]).splitlines()) == len(FIGURES) + 2
    assert len(results_table([record(), record("pan")]).splitlines()) == 4


def test_the_percentile_is_a_value_that_95_percent_stay_under():
    assert percentile_95(list(range(1, 101))) == 95
    assert percentile_95([3]) == 3
    assert math.isnan(percentile_95([]))


def test_a_frozen_output_has_an_infinite_gain():
    frozen = record()
    frozen.stages["score"]["reference"]["e_warp_ours"] = 0.0
    assert frozen.gain("score") == math.inf
    assert verdict([frozen], "E_warp, independent")[3] == "ok"


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_of_an_empty_record_does_not_apply(figure):
    assert math.isnan(figure.value(Record("bunny", "oil", {"render": {"rows": []}})))
