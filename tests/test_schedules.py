"""Schedules: what is read, what each frame gets, and where the caret stands."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from sounds import RATES

from nst_video.cli import main
from nst_video.curves import controls_at, needs_beats, settle_curves
from nst_video.dreaming.options import DreamOptions
from nst_video.errors import UsageError, pointed
from nst_video.fields import chosen
from nst_video.kinds import Curve
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions
from nst_video.schedules import Clock, ScheduleError, parse_schedule
from nst_video.settings import split_options


def clock(frames=61, rate=Fraction(25), **more):
    return Clock([float(number / rate) for number in range(frames)], **more)


def values(text, at=None):
    return parse_schedule(text).values(at or clock())


# ------------------------------------------------------------------------------------------- what frames get


def test_between_keyframes_the_curve_is_a_line_and_beyond_them_it_holds():
    found = values("10:1, 20:2, 40:0")
    assert found[:11] == [1.0] * 11
    np.testing.assert_allclose(found[10:21], np.linspace(1, 2, 11))
    np.testing.assert_allclose(found[20:41], np.linspace(2, 0, 21))
    assert found[40:] == [0.0] * 21


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES.keys())
def test_frames_and_seconds_say_the_same(rate):
    at = clock(300, rate)
    rng = np.random.default_rng(0)
    for _ in range(20):
        frames = sorted({int(number) for number in rng.integers(0, 300, 5)})
        heights = [f"{height:.3f}" for height in rng.uniform(0, 2, len(frames))]
        by_frames = ", ".join(f"{n}:{h}" for n, h in zip(frames, heights, strict=True))
        by_seconds = ", ".join(f"{float(n / rate)!r}s:{h}" for n, h in zip(frames, heights, strict=True))
        np.testing.assert_allclose(values(by_frames, at), values(by_seconds, at), atol=1e-9)


def test_beats_are_where_they_are_and_go_on_at_the_nearest_tempo():
    at = clock(251, beats=(0.5, 1.0, 2.0))
    found = values("0b:0, 2b:1, 4b:3", at)
    assert found[12] == 0  # 0.48 s, before the first beat
    assert found[50] == pytest.approx(1)  # beat 2
    assert found[75] == pytest.approx(2)  # 3 s: beat 3 would be there, a second after beat 2
    assert found[100] == pytest.approx(3)
    assert values("0.5b:0, 1.5b:1", at)[25] == pytest.approx((1.0 - 0.75) / 0.75)


def test_units_may_be_mixed_and_need_no_order():
    assert values("2s:1, 0:0") == values("0:0, 50:1") == values("50f:1, 0s:0")


EASED = {"linear": 0.25, "ease": 0.15625, "ease-in": 0.0625, "ease-out": 0.4375, "hold": 0.0}


@pytest.mark.parametrize(("word", "quarter"), EASED.items())
def test_a_word_says_how_the_curve_gets_there(word, quarter):
    found = values(f"0:0, 40:1 {word}")
    assert found[10] == pytest.approx(quarter)
    assert (found[0], found[40], found[60]) == (0, 1, 1)
    assert sorted(found) == found


def test_with_a_variable_frame_rate_time_counts():
    at = Clock([0.0, 1.0, 1.5, 4.0])
    assert values("0s:0, 4s:4", at) == [0, 1, 1.5, 4]
    assert values("0:0, 3:4", at) == [0, 1, 1.5, 4]


def test_a_still_gets_the_value_of_its_own_time():
    at = Clock([2.0], first=50)
    assert values("0:0, 4s:1", at) == [0.5]
    assert values("0:0, 100:1", at) == [0.5]
    assert values("0:(t)", at) == [50]
    # As frame 50 of 101 has it in the whole video, at 24 frames in a second.
    rate = Fraction(24)
    whole = clock(101, rate)
    still = Clock([50 / 24], first=50, end=51 / 24, total=101)
    for text in ("0:0, 100:1", "0:(t/max_f)", "0:0, 3s:(sin(t)), 90:1", "20:1, 75:(time)"):
        assert values(text, still) == pytest.approx([values(text, whole)[50]]), text


# ------------------------------------------------------------------------------------------- Deforum's way


def test_deforum_schedules_are_read_as_they_are():
    found = values("0:(1.0), 30:(1.5*sin(2*3.14*t/30))")
    target = 1.5 * math.sin(2 * 3.14)
    np.testing.assert_allclose(found[:31], np.linspace(1.0, target, 31))
    np.testing.assert_allclose(found[30:], [1.5 * math.sin(2 * 3.14 * t / 30) for t in range(30, 61)])


DEFORUM = {
    "0: (0)": lambda t: 0,
    "0:(1.02),": lambda t: 1.02,
    "0:(-0.5)": lambda t: -0.5,
    "0:(1.0025+0.002*sin(1.25*3.14*t/30))": lambda t: 1.0025 + 0.002 * math.sin(1.25 * 3.14 * t / 30),
    "0:(10*sin(2*3.14*t/max_f))": lambda t: 10 * math.sin(2 * 3.14 * t / 60),
    "0:(0.5+0.5*cos(t))": lambda t: 0.5 + 0.5 * math.cos(t),
    "0:(t%20)": lambda t: t % 20,
    "0:(abs(sin(t))**2)": lambda t: abs(math.sin(t)) ** 2,
    "0:(where(t<30, 1, 2))": lambda t: 1 if t < 30 else 2,
    "0:(where((t>10)&(t<=20), 1, 0))": lambda t: float(10 < t <= 20),
    "0:((1+2)*(3-t))": lambda t: 3 * (3 - t),
    "0:( 2 *\n t )": lambda t: 2 * t,
    "0:(-t)": lambda t: -t,
    "0:(sin(pi*time))": lambda t: math.sin(math.pi * t / 25),
    "0:(max(t, 30) + min(t, 2))": lambda t: max(t, 30) + min(t, 2),
}


@pytest.mark.parametrize(("text", "formula"), DEFORUM.items(), ids=DEFORUM.keys())
def test_expressions(text, formula):
    np.testing.assert_allclose(values(text), [formula(t) for t in range(61)], atol=1e-12)


def test_an_expression_runs_until_the_next_keyframe():
    found = values("0:(t), 10:5, 20:7")
    assert found[:10] == list(range(10))
    assert found[10] == 5
    assert found[15] == 6


def test_an_expression_can_follow_the_beat():
    at = clock(beats=(0.0, 1.0, 2.0))
    assert values("0:(beat)", at)[25] == pytest.approx(1.0)
    assert values("0:(beat)", at)[38] == pytest.approx(1.52)


# ------------------------------------------------------------------------------------------- what is wrong, and where

WRONG = {
    "0:0.5, 2x:1": (8, "unknown unit 'x'"),
    "0:0.5 2s:1": (6, "expected a comma"),
    "0:0.5, 2s=1": (9, "expected a colon"),
    "0:0.5,, 2s:1": (6, "expected when"),
    "x:1": (0, "expected when"),
    "-5:1": (0, "expected when"),
    "0:": (2, "expected a number"),
    "0:fast": (2, "expected a number"),
    "0:0, 2.5:1": (5, "a frame is a whole number; seconds are written 2.5s"),
    "0:0, 0:1": (5, "two keyframes are at the same time"),
    "0:0, 2s:1 slow": (10, "unknown word 'slow'"),
    "0:0 ease, 2s:1": (4, "the first keyframe has nothing before it"),
    "0:(t), 9:1 ease": (11, "the keyframe before is an expression"),
    "0:(1+2": (2, "not closed"),
    "0:1e999": (2, "too large"),
    "9" * 5000 + ":1": (0, "more than 30 characters"),
    "0:1, 0." + "1" * 5000 + "s:1": (5, "more than 30 characters"),
    "0:(sin(t)": (2, "not closed"),
    "0:(1.5*sni(t))": (7, "unknown function 'sni'"),
    "0:(1.5*x)": (7, "unknown name 'x'"),
    "0:(s*2)": (3, "in Deforum s is the seed"),
    "0:( 2 *)": (7, "something is missing"),
    "0:()": (3, "an expression is missing"),
    "0:(sin(t, 2))": (3, "sin takes 1 value, not 2"),
    "0:(t if t else 0)": (3, "only numbers"),
    "0:(t and 1)": (3, "only numbers"),
    "0:(True)": (3, "only numbers"),
    "0:(lambda: 1)": (9, "':' has no meaning"),
    "0:(__import__('os'))": (14, '"\'" has no meaning'),
    "0:(t.real)": (3, "only numbers"),
    "0:(t[0])": (4, "'[' has no meaning"),
    "0:(sin(x=1))": (3, "only numbers"),
    "0:(1,2)": (3, "only numbers"),
    "0:(1j)": (3, "only numbers"),
    "0:(1_000_000 in t)": (3, "only numbers"),
    "0:(" + "-" * 150 + "1)": (104, "nested more than 100 levels"),
    "0:(" + "9" * 400 + "*1)": (3, "too large"),
    "0:(1" + "+1" * 600 + ")": (3, "at most 1000 characters"),
}


@pytest.mark.parametrize(("text", "where"), WRONG.items(), ids=[text[:40] for text in WRONG])
def test_what_is_wrong_is_pointed_at(text, where):
    column, problem = where
    with pytest.raises(ScheduleError) as wrong:
        parse_schedule(text)
    assert problem in wrong.value.problem
    assert wrong.value.column == column


def test_the_caret_is_below_the_character_also_in_a_long_or_wide_text():
    long = "0:0, " * 100 + "2x:1"
    for text, column in (("2x:1", 1), (long, 501), (long + ", 9:9" * 90, 501), ("火:1", 1)):
        line, caret = pointed(text, column).splitlines()
        wide = sum(char == "火" for char in line)
        assert line.replace("火", "火 ")[caret.index("^")] == text[column], (line, wide)
        assert len(line) <= 84


@pytest.mark.parametrize(
    "text", ["0:(9**9**9**9)", "0:(10**(10**t))", "0:(exp(exp(t+9)))", "0:(1/(t-5))", "0:(log(t-5))"]
)
def test_what_is_no_number_is_refused_with_its_frame(text):
    with pytest.raises(ScheduleError, match=r"this is (inf|nan) at frame \d+") as wrong:
        values(text)
    assert wrong.value.column == 2


@pytest.mark.parametrize("text", ["0:(2**0.5)", "0:(max_f**2)"])
def test_powers_are_those_of_floats(text):
    assert all(map(math.isfinite, values(text)))


# ------------------------------------------------------------------------------------------- as options


def test_numbers_stay_numbers_and_schedules_stay_text():
    kind = Curve(0, 10)
    assert (kind.parse("2.5"), kind.parse("0:1, 2s:2")) == (2.5, "0:1, 2s:2")
    assert Curve(1, 100, whole=True).parse("7") == 7
    look = LookOptions(strength="0:0, 2s:1")
    assert look.strength == "0:0, 2s:1"


@pytest.mark.parametrize(
    ("given", "message", "caret"),
    [
        ({"strength": "0:0, 2s:11"}, "--strength: 11 is out of range, allowed 0 to 10 (at character 9)", 8),
        ({"strength": "0:0, 2s:1 slow"}, "--strength: unknown word 'slow'", 10),
        ({"iterations": "0:5, 9:7.5"}, "--iterations: a whole number is needed here", 7),
        ({"content_weight": "0:-1"}, "--content-weight: -1 is out of range, allowed 0 to 1e+12", 2),
    ],
)
def test_a_refused_schedule_has_its_place(given, message, caret):
    with pytest.raises(UsageError) as refusal:
        split_options(given)
    assert str(refusal.value).startswith(message)
    assert refusal.value.detail.splitlines()[1].index("^") == 4 + caret


@pytest.mark.parametrize("name", ["size", "history", "seed", "first_iterations", "style_scale"])
def test_what_must_be_known_before_takes_no_schedule(name):
    with pytest.raises(UsageError, match="is the same for all frames and takes no schedule"):
        split_options({name: "0:1, 2s:5"})


def test_text_that_is_neither_names_both():
    with pytest.raises(UsageError, match=r"--strength strong is not allowed; allowed 0 to 10, or a schedule such as"):
        split_options({"strength": "strong"})


def test_the_command_line_shows_the_caret(capsys):
    assert main(["in.mp4", "style.jpg", "out.mp4", "--strength", "0:0, 2x:1"]) == 2
    message, text, caret = capsys.readouterr().err.splitlines()
    assert message.startswith("nst-video: error: --strength: unknown unit 'x'")
    assert text[caret.index("^")] == "x"


def test_settled_options_hold_the_first_value_and_the_curves_all():
    groups = {
        "look": LookOptions(strength="0:0.5, 50:1"),
        "effort": EffortOptions(iterations="0:3, 50:10"),
        "coherence": CoherenceOptions(),
    }
    settled, curves = settle_curves(groups, clock())
    assert curves.keys() == {"strength", "iterations"}
    assert settled["look"] == replace(groups["look"], strength=0.5)
    assert (settled["effort"].iterations, type(settled["effort"].iterations)) == (3, int)
    assert curves["iterations"][25] in (6.0, 7.0)
    assert {value.is_integer() for value in curves["iterations"]} == {True}
    controls = controls_at(curves, 50, time=2.0, dt=0.04)
    assert (controls.strength, controls.iterations, controls.zoom, controls.time) == (1.0, 10.0, None, 2.0)


def test_an_expression_that_leaves_the_range_is_refused():
    with pytest.raises(UsageError, match=r"--memory 0:\(t/10\) is 1.1 at frame 11; allowed 0 to 1$"):
        settle_curves({"dream": DreamOptions(memory="0:(t/10)")}, clock())


def test_beats_need_music():
    groups = {"dream": DreamOptions(step="0:1, 8b:2")}
    assert needs_beats(groups) == "--step"
    assert needs_beats({"dream": DreamOptions(step="0:(beat)")}) == "--step"
    assert needs_beats({"dream": DreamOptions(step="0:1, 8s:2")}) is None
    with pytest.raises(UsageError, match="--step 0:1, 8b:2 speaks of beats, but there is no music"):
        settle_curves(groups, clock())


def test_keyframes_that_meet_only_once_time_is_known_are_refused():
    with pytest.raises(UsageError, match=r"--strength: two keyframes are at the same time \(at character 7\)") as wrong:
        settle_curves({"look": LookOptions(strength="50:0, 2s:1")}, clock())
    assert wrong.value.detail.splitlines()[1].index("^") == 4 + 6


def test_text_does_not_reach_the_work():
    with pytest.raises(UsageError, match="has not been settled"):
        chosen(None, "0:0, 2s:1")
