"""The plan: exact times, shots, settled settings, and its way through JSON."""

import json
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
from media import make_video, picture

from nst_video.errors import InputError, UsageError
from nst_video.media.pictures import write_picture
from nst_video.media.shots import CutFinder, join_shots
from nst_video.optimization.tiles import overlap_of
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions, MachineOptions, OutputOptions
from nst_video.plan import Plan
from nst_video.planning import make_plan
from nst_video.presets import balance_of

UNEVEN = (0, 512, 700, 1900, 2000, 4096)


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "in.mp4", pts=UNEVEN, options={"bf": "0"})  # the packet of the last frame is the last


def plan_of(source, style, **groups):
    return make_plan(source, style, source.parent / "out.mp4", **groups)


def frames_folder(folder, pictures):
    folder.mkdir()
    for number, rgb in enumerate(pictures):
        write_picture(folder / f"{number:03}.png", rgb)
    return folder


def scene(seed, frames):
    """`frames` pictures of a slowly moving scene that is unlike those of other seeds."""
    wide = np.random.default_rng(seed).integers(0, 255, (4, 6, 3)).repeat(16, axis=0).repeat(20, axis=1)
    return [wide[:, number : number + 96].astype(np.uint8) for number in range(frames)]


def test_times_of_a_variable_rate_clip_are_exact(clip, style):
    plan = plan_of(clip, style)
    assert (plan.pts, plan.time_base) == (UNEVEN, Fraction(1, 12800))


@pytest.mark.parametrize(
    ("options", "edges"),
    [
        (OutputOptions(), (*UNEVEN, 4608)),
        (OutputOptions(stride=2), (0, 700, 2000, 4608)),
        (OutputOptions(start=0.05), (640, 700, 1900, 2000, 4096, 4608)),
        (OutputOptions(start=0.05, end=0.15), (640, 700, 1900, 1920)),
        (OutputOptions(end=Fraction(700, 12800)), (0, 512, 700)),
        (OutputOptions(start=0.2, end=0.3), (2560, 3840)),
    ],
)
def test_only_the_part_asked_for_is_planned(clip, style, options, edges):
    plan = plan_of(clip, style, options=options)
    assert (plan.edges, plan.pts, plan.end) == (edges, edges[:-1], edges[-1])
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_still_is_one_frame(clip, style, tmp_path):
    plan = make_plan(clip, style, tmp_path / "look.png", options=OutputOptions(still="0.05"))
    assert (plan.pts, plan.shots) == ((512,), ((0, 1),))


def test_a_sequence_has_the_rate_that_is_given(tmp_path, style):
    folder = frames_folder(tmp_path / "frames", scene(0, 3))
    plan = plan_of(folder, style, options=OutputOptions(rate="24000/1001"))
    assert [pts * plan.time_base for pts in plan.pts] == [0, Fraction(1001, 24000), Fraction(2002, 24000)]
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_video_keeps_its_own_times(clip, style):
    with pytest.raises(UsageError, match=r"--rate is for sequences of pictures; .*in\.mp4 is a video"):
        plan_of(clip, style, options=OutputOptions(rate=25))


def test_what_a_gif_cannot_show_is_known_before_the_render(tmp_path, style):
    fast = make_video(tmp_path / "in.mp4", frames=12, rate=Fraction(64))
    with pytest.raises(UsageError, match="a gif shows at most 50 frames/s"):
        make_plan(fast, style, tmp_path / "out.gif")
    assert make_plan(fast, style, tmp_path / "out.gif", options=OutputOptions(stride=2)).frames == 6


def test_cuts_begin_shots(tmp_path, style):
    folder = frames_folder(tmp_path / "frames", [*scene(0, 8), *scene(1, 9), *scene(2, 7)])
    assert plan_of(folder, style).shots == ((0, 8), (8, 17), (17, 24))


def test_a_threshold_of_0_means_no_cuts(tmp_path, style):
    folder = frames_folder(tmp_path / "frames", [*scene(0, 8), *scene(1, 8)])
    assert plan_of(folder, style, coherence=CoherenceOptions(cut_threshold=0)).shots == ((0, 16),)


def test_a_flash_begins_one_shot_and_not_two():
    frames = scene(0, 20)
    frames[9] = np.full_like(frames[9], 255)
    finder = CutFinder(27.0)
    for rgb in frames:
        finder.step(rgb)
    assert finder.shots() == ((0, 10), (10, 20))


@pytest.mark.parametrize(
    ("cuts", "shots"),
    [
        ([], [(0, 30)]),
        ([0], [(0, 30)]),
        ([2], [(0, 2), (2, 30)]),
        ([29], [(0, 29), (29, 30)]),
        ([10, 11, 12], [(0, 12), (12, 30)]),
        ([10, 16], [(0, 10), (10, 16), (16, 30)]),
    ],
)
def test_shots_cover_every_frame_once(cuts, shots):
    assert join_shots(cuts, 30) == tuple(shots)


def test_seeds_depend_on_where_a_shot_begins_and_on_the_seed(tmp_path, style):
    two = frames_folder(tmp_path / "two", [*scene(0, 8), *scene(1, 8)])
    three = frames_folder(tmp_path / "three", [*scene(0, 8), *scene(1, 8), *scene(2, 8)])
    seeds = plan_of(two, style).seeds
    assert plan_of(three, style).seeds[:2] == seeds
    assert len(set(seeds) | set(plan_of(two, style, effort=EffortOptions(seed=1)).seeds)) == 4


def test_nothing_that_decides_a_pixel_is_left_open(clip, style):
    plan = plan_of(clip, style)
    # A tile of None is a decision: in one piece.
    assert None not in (asdict(plan.effort) | {"tile": 0}).values()
    assert None not in asdict(plan.coherence).values()
    assert None not in asdict(plan.look).values()
    assert "auto" not in asdict(plan.machine).values()


def test_weights_are_those_of_the_chosen_loss(clip, style):
    relative, paper = (plan_of(clip, style, look=LookOptions(loss=loss)).look for loss in ("relative", "paper"))
    assert relative.content_weight != paper.content_weight
    assert plan_of(clip, style, look=LookOptions(content_weight=0.7)).look.content_weight == 0.7


def test_a_small_network_has_weights_of_its_own_unless_they_are_given(clip, style):
    full, small = (plan_of(clip, style, effort=EffortOptions(encoder=name)) for name in ("vgg19", "slim"))
    balance = balance_of("slim")
    assert min(balance.content_weight, balance.temporal_weight) > 1
    assert small.look.content_weight == pytest.approx(balance.content_weight * full.look.content_weight)
    assert small.coherence.temporal_weight == pytest.approx(balance.temporal_weight * full.coherence.temporal_weight)
    assert (small.look.style_weight, small.look.tv_weight) == (full.look.style_weight, full.look.tv_weight)
    assert (full.look.style_layer_weights, small.look.style_layer_weights) == ((1.0,) * 5, (0.9, 0.9, 1.0, 1.1, 0.9))
    look = LookOptions(style_layers=("relu5_1", "relu3_1"), content_weight=0.3)
    given = plan_of(clip, style, effort=EffortOptions(encoder="slim"), look=look).look
    assert (given.content_weight, given.style_layer_weights) == (0.3, (0.9, 1.0))
    held = plan_of(clip, style, effort=EffortOptions(encoder="slim"), coherence=CoherenceOptions(temporal_weight=7))
    assert held.coherence.temporal_weight == 7


@pytest.mark.parametrize(("size", "result"), [(None, (96, 64)), (48, (48, 32)), (192, (192, 128)), ("full", (96, 64))])
def test_only_a_size_asked_for_enlarges(clip, style, size, result):
    plan = plan_of(clip, style, effort=EffortOptions(size=size))
    assert (plan.size, plan.effort.size) == (result, result[0])


def test_shares_of_styles_sum_to_one(clip, style, tmp_path):
    other = tmp_path / "other.png"
    write_picture(other, picture(5))
    plan = plan_of(clip, [style, (other, 3)])
    assert [share.weight for share in plan.styles] == [0.25, 0.75]
    assert [share.weight for share in plan_of(clip, (style, 0.3)).styles] == [1.0]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -1.0), (1.0, float("nan"))])
def test_weights_of_styles_are_positive(clip, style, weights):
    with pytest.raises(UsageError, match="styles need weights of 0 or more"):
        plan_of(clip, [(style, weight) for weight in weights])


def test_a_plan_comes_back_from_json_as_it_was(clip, style):
    options = OutputOptions(start=Fraction(1, 30), stride=2)
    plan = plan_of(clip, style, options=options, look=LookOptions(style_layer_weights=(5, 4, 3, 2, 1)))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_of_another_version_is_refused(clip, style):
    with pytest.raises(InputError, match="a plan of version 99 cannot be used"):
        Plan.from_json(plan_of(clip, style).to_json() | {"version": 99})


@pytest.mark.parametrize(
    ("effort", "look", "word"),
    [
        (EffortOptions(quality="draft"), LookOptions(loss="paper"), "--loss paper"),
        (EffortOptions(encoder="slim", pooling="max"), LookOptions(), "--pooling max"),
    ],
)
def test_what_a_distilled_network_cannot_do_is_refused(clip, style, effort, look, word):
    with pytest.raises(UsageError, match=f"{word} cannot be had from slim.*; add --encoder vgg19"):
        plan_of(clip, style, effort=effort, look=look)


@pytest.mark.parametrize(("encoder", "layer"), [("googlenet", "inception_4c"), ("inception_v3", "mixed5")])
def test_tiles_are_refused_where_they_would_not_give_the_same_picture(clip, style, encoder, layer):
    look = LookOptions(content_layers=(layer,), style_layers=(layer,))
    with pytest.raises(UsageError, match=rf"--tile cannot be had with {encoder}.*; leave it out"):
        plan_of(clip, style, effort=EffortOptions(encoder=encoder, tile=512), look=look)
    with pytest.raises(UsageError, match=f"--tile cannot be had with {encoder}"):
        overlap_of(encoder, [layer])
    assert plan_of(clip, style, effort=EffortOptions(encoder=encoder), look=look).effort.tile is None


def test_flow_of_a_gpu_is_refused_where_there_is_none(clip, style):
    machine, coherence = MachineOptions(device="cpu"), CoherenceOptions(flow="gpu")
    with pytest.raises(UsageError, match=r"--flow gpu needs an NVIDIA GPU.*--device cpu.*--flow medium"):
        plan_of(clip, style, machine=machine, coherence=coherence)
