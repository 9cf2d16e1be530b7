"""Options: what is accepted, what is refused and how, and what presets decide."""

from dataclasses import FrozenInstanceError, fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nst_video.errors import UsageError
from nst_video.kinds import Time
from nst_video.options import EffortOptions, LookOptions, OutputOptions
from nst_video.presets import PRESETS, resolve_effort
from nst_video.settings import DREAM, PAINT, in_keywords, split_options

REFUSED = {
    "above": ({"strength": 9000}, "--strength 9000 is out of range; allowed 0 to 10"),
    "below": ({"style_scale": 0}, "--style-scale 0 is out of range; allowed 0.05 to 8"),
    "nan": ({"strength": float("nan")}, "--strength nan is out of range; allowed 0 to 10"),
    "infinite": ({"content_weight": float("inf")}, "--content-weight inf is out of range; allowed 0 to 1e+12"),
    "not whole": ({"seed": 1.5}, "--seed 1.5 is not a whole number; allowed 0 to 9223372036854775807"),
    "too large": ({"seed": 10**20}, "--seed 100000000000000000000 is out of range; allowed 0 to 9223372036854775807"),
    "music that ends without music": ({"music_end": "loop"}, "--music-end means nothing without music; give --music"),
    "music that begins without music": ({"music_start": 1}, "--music-start means nothing without music; give --music"),
    "boolean for a number": ({"iterations": True}, "--iterations True is not allowed; allowed 1 to 100000"),
    "none where a value is needed": ({"strength": None}, "--strength None is not allowed; allowed 0 to 10"),
    "word": ({"size": "huge"}, "--size huge is not allowed; allowed 16 to 16384 or full"),
    "choice": ({"quality": "superb"}, "--quality superb is not allowed; allowed draft, standard, best"),
    "device": ({"device": "cuda:x"}, "--device cuda:x is not allowed; allowed auto, cpu, cuda, mps, cuda:N"),
    "encoder": ({"encoder": "resnet"}, "--encoder resnet is not allowed; allowed vgg19, "),
    "references without 1": ({"references": (2, 4)}, "--references 2,4 is not allowed; allowed 1 to 64, several"),
    "references out of order": ({"references": (1, 4, 2)}, "--references 1,4,2 is not allowed"),
    "no layer": ({"style_layers": ()}, "--style-layers  is not allowed"),
    "weights do not match layers": ({"style_layer_weights": (1.0, 2.0)}, "--style-layer-weights has 2 weights for 5"),
    "no weight above 0": ({"style_layer_weights": (0.0,) * 5}, "--style-layer-weights are all 0; allowed one or more"),
    "time": ({"start": "soon"}, "--start soon is not allowed; allowed seconds such as 2.5 or a timecode"),
    "negative time": ({"end": -1}, "--end -1 is not allowed"),
    "rate": ({"rate": "0"}, "--rate 0 is not allowed; allowed above 0 to 1000 frames/s, such as 25 or 24000/1001"),
    "endless rate": ({"rate": "1/0"}, "--rate 1/0 is not allowed"),
    "rate with an exponent": ({"rate": "1e999999999"}, "--rate 1e999999999 is not allowed"),
    "start after end": ({"start": 3, "end": 2}, "--start 3 is not before --end 2; allowed start < end"),
    "still and start": ({"still": 1, "start": 0}, "--still renders one frame; it cannot be combined with"),
    "flag": ({"keep_colors": "yes"}, "--keep-colors yes is not allowed; allowed True or False"),
    "unknown name": ({"strenght": 1}, "unknown option 'strenght'; there are "),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(values, message):
    with pytest.raises(UsageError) as refusal:
        split_options(values)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2.5", Fraction(5, 2)),
        ("2.5s", Fraction(5, 2)),
        (".5", Fraction(1, 2)),
        ("1:02.5", Fraction(125, 2)),
        ("1:00:01", Fraction(3601)),
        ("0.1", Fraction(1, 10)),
        ("1001/30000", Fraction(1001, 30000)),
    ],
)
def test_times_are_exact(text, seconds):
    assert Time().parse(text) == seconds
    assert OutputOptions(start=text).start == seconds


@pytest.mark.parametrize("text", ["1" * 400, f"1/{'3' * 400}", f"{'9' * 10}:00", f"0.{'1' * 400}", "²", "٣", "1:2:3:4"])
def test_what_is_no_time_or_longer_than_any_video_is_refused(text):
    with pytest.raises(UsageError, match="timecode"):
        OutputOptions(start=text)


@pytest.mark.parametrize("start", [10**400, Fraction(10**400), -1])
def test_numbers_that_are_no_times_are_refused(start):
    with pytest.raises(UsageError, match="timecode"):
        OutputOptions(start=start)


def test_times_may_be_numbers():
    options = OutputOptions(start=0.1, end=2)
    assert (options.start, options.end) == (Fraction(1, 10), Fraction(2))


def test_a_list_is_taken_as_a_tuple():
    settings = split_options({"style_layers": ["relu1_1"], "references": [1, 3]})
    assert (settings.look.style_layers, settings.coherence.references) == (("relu1_1",), (1, 3))


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"history": 10.0}, 10),
        ({"history": np.int64(10)}, 10),
        ({"strength": np.float32(0.5)}, 0.5),
        ({"keep_colors": np.bool_(True)}, True),
        ({"size": "96"}, 96),
        ({"memory_limit": 2e9}, 2 * 10**9),
        ({"music": Path("a.flac")}, "a.flac"),
        ({"weights": Path("w.pt")}, "w.pt"),
        ({"style_layers": "relu1_1, relu2_1"}, ("relu1_1", "relu2_1")),
        ({"style_layers": "relu1_1"}, ("relu1_1",)),
        ({"style_layer_weights": np.arange(1.0, 6)}, (1.0, 2.0, 3.0, 4.0, 5.0)),
        ({"references": [1.0, np.int32(3)]}, (1, 3)),
        ({"drive": "strength=onset,release=0"}, ("strength=onset,release=0",)),
    ],
)
def test_values_of_other_types_are_taken_where_they_are_plain(given, value):
    taken = split_options(given).values()[next(iter(given))]
    assert (taken, type(taken)) == (value, type(value))
    if isinstance(value, tuple):
        assert [type(item) for item in taken] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("typed", "keywords"),
    [
        ("x.mp4 exists; give -y to overwrite it", "x.mp4 exists; give overwrite=True to overwrite it"),
        ("give --restart to begin anew", "give restart=True to begin anew"),
        ("--keep-colors yes is not allowed", "keep_colors yes is not allowed"),
        ("with --duration 20 or --music FILE", "with duration=20 or music=FILE"),
        ("add --encoder vgg19", 'add encoder="vgg19"'),
        ("choose a smaller --size", "choose a smaller size"),
        ("a--size/--size.mp4 --unknown -x", "a--size/--size.mp4 --unknown -x"),
    ],
)
def test_messages_can_call_options_as_python_does(typed, keywords):
    assert in_keywords(typed) == keywords


@pytest.mark.parametrize("quality", PRESETS)
def test_a_preset_decides_everything_that_is_open(quality):
    effort = resolve_effort(EffortOptions(quality=quality))
    # The memory that there is decides about the tile, where it stays open.
    assert [item.name for item in fields(effort) if getattr(effort, item.name) is None] == ["tile"]


def test_what_is_given_stays():
    effort = resolve_effort(EffortOptions(quality="best", size=99, iterations=2))
    assert (effort.size, effort.iterations) == (99, 2)
    assert effort.first_iterations == PRESETS["best"]["first_iterations"]


def test_better_presets_do_more():
    efforts = [resolve_effort(EffortOptions(quality=quality)) for quality in ("draft", "standard", "best")]
    assert [(e.size, e.first_iterations, e.iterations) for e in efforts] == sorted(
        (e.size, e.first_iterations, e.iterations) for e in efforts
    )


def test_options_are_frozen():
    look = LookOptions()
    with pytest.raises(FrozenInstanceError):
        look.strength = 2


@pytest.mark.parametrize("sections", [PAINT, DREAM])
def test_no_name_is_in_two_sections(sections):
    names = [item.name for section in sections for item in section.items]
    assert len(names) == len(set(names))


def test_every_field_says_what_it_is():
    described = [item.metadata for section in (*PAINT, *DREAM) for item in section.items]
    assert all(metadata["help"] and metadata["kind"].allowed() for metadata in described)


def test_a_layer_named_twice_is_refused():
    with pytest.raises(UsageError, match="names a layer twice"):
        LookOptions(style_layers=("relu1_1", "relu1_1"))
