"""The stylizer: reproducible, lanes and shots independent, still where the scene is still, painted all over."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from tiny import LOOK, TinyEncoder, picture, texture

from nst_video import colors
from nst_video.colors import to_image
from nst_video.controls import Controls
from nst_video.errors import NstVideoError, UsageError
from nst_video.flow.motion import Motion, MotionWindow
from nst_video.networks.encoders import load_encoder
from nst_video.optimization import losses
from nst_video.optimization.optimizers import OPTIMIZERS
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions
from nst_video.painting.scales import scales, shares
from nst_video.painting.state import State
from nst_video.painting.stylizer import Stylizer

HEIGHT, WIDTH = 48, 64
EFFORT = EffortOptions(first_iterations=24, iterations=5)
NONE = Motion.none(1, HEIGHT, WIDTH)
UNCONTROLLED = Controls()


def still_motion(height, width):
    """Of a frame that shows what the one before showed."""
    return Motion(torch.zeros(1, 1, 2, height, width), torch.ones(1, 1, 1, height, width))


def style(seed=50):
    return picture(seed, 40, 56, grain=1.0)


def make(encoder=None, styles=None, *, look=LOOK, coherence=None, **effort):
    """A stylizer with the tiny network and a few evaluations a frame."""
    styles = [(style(), 1.0)] if styles is None else styles
    return Stylizer(encoder or TinyEncoder(), styles, effort=replace(EFFORT, **effort), look=look, coherence=coherence)


def shot(seed, frames=4, step=2, hole_in=None):
    """uint8 frames of a camera that moves `step` pixels a frame; frame `hole_in` shows something new in its middle."""
    wide = texture(seed, HEIGHT, WIDTH + frames * step, grain=3.0)
    rgbs = [wide[:, step * t : step * t + WIDTH].copy() for t in range(frames)]
    if hole_in is not None:
        rgbs[hole_in][12:36, 16:48] = texture(seed + 100, 24, 32)
    return rgbs


def paint(stylizer, rgbs, state=None, controls=UNCONTROLLED):
    """All frames of a shot painted: the images, and the last state."""
    window, state, painted = MotionWindow(stylizer.coherence.references), state or stylizer.initial_state(), []
    for index, rgb in enumerate(rgbs):
        image, state = stylizer.step(to_image(rgb[None]), window.step(rgb, index == 0), state, controls)
        painted.append(image)
    return painted, state


def first_frame(stylizer, controls=UNCONTROLLED, seed=0):
    """The painted first frame of a shot, and the state after it."""
    return stylizer.step(picture(seed), NONE, stylizer.initial_state(), controls)


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("frame", "got"),
    [
        (None, "the frame is None; allowed a tensor of floats"),
        (texture(0, HEIGHT, WIDTH)[None], r"the frame is an ndarray of uint8 \(1, 48, 64, 3\); allowed a tensor of"),
        (
            torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8),
            r"Tensor of uint8 \(1, 3, 48, 64\); allowed a tensor",
        ),
        (torch.zeros(3, HEIGHT, WIDTH), r"a Tensor of float32 \(3, 48, 64\); allowed a tensor of floats"),
        (torch.zeros(1, HEIGHT, WIDTH, 3), r"a Tensor of float32 \(1, 48, 64, 3\); allowed a tensor of floats"),
    ],
)
def test_what_is_no_frame_is_refused(frame, got):
    stylizer = make()
    with pytest.raises(UsageError, match=got):
        stylizer.step(frame, NONE, stylizer.initial_state())


def test_frames_of_another_size_than_those_before_are_refused():
    stylizer = make()
    _, state = first_frame(stylizer)
    smaller = picture(1, 32, 40)
    with pytest.raises(UsageError, match="the frame is 1 of 40x32, but its motion 1 of 64x48; all frames of a shot"):
        stylizer.step(smaller, still_motion(HEIGHT, WIDTH), state)
    with pytest.raises(UsageError, match="the frame is 1 of 40x32, but its state 1 of 64x48; all frames of a shot"):
        stylizer.step(smaller, still_motion(32, 40), state)


def test_motion_and_state_of_other_types_are_refused():
    stylizer = make()
    with pytest.raises(UsageError, match="the motion is None; allowed a Motion"):
        stylizer.step(picture(0), None, stylizer.initial_state())
    with pytest.raises(UsageError, match="the state is None; allowed initial_state"):
        stylizer.step(picture(0), NONE, None)


@pytest.mark.parametrize("styles", [None, style(), [style()], [(texture(0, 8, 8), 1.0)]])
def test_what_are_no_styles_is_refused(styles):
    with pytest.raises(UsageError, match=r"allowed a (list|tensor) of"):
        Stylizer(TinyEncoder(), styles, effort=EFFORT, look=LOOK)


def test_an_effort_that_is_not_resolved_is_refused():
    with pytest.raises(UsageError, match="leaves open how many iterations there are"):
        first_frame(make(iterations=None))


def test_without_a_style_there_is_nothing_to_paint_in():
    with pytest.raises(UsageError, match="there is no style to paint in"):
        first_frame(make(styles=[]))


# ------------------------------------------------------------------------------------------ first frames


def test_the_frame_comes_nearer_to_the_style():
    stylizer = make()
    found, state = first_frame(stylizer)
    grams = [
        {layer: losses.gram(features).mean for layer, features in TinyEncoder()(image).items()}
        for image in (picture(0), found, style())
    ]
    before, after = (
        sum(losses.relative_style(grams[which][layer], grams[2][layer]).item() for layer in LOOK.style_layers)
        for which in (0, 1)
    )
    assert after < 0.2 * before
    assert state.report.trace[-1] < 0.5 * state.report.trace[0]


def test_frames_come_out_between_0_and_1_with_their_own_size():
    found, _ = first_frame(make(look=replace(LOOK, strength=4.0)))
    assert found.shape == (1, 3, HEIGHT, WIDTH)
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_same_seed_gives_the_same_frames():
    first, second = (paint(make(init="noise", seed=3), shot(0))[0] for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_another_seed_gives_another_painting_of_noise_and_the_same_of_the_frame():
    for init, alike in (("noise", False), ("content", True), ("style", True)):
        one, other = (first_frame(make(init=init, seed=seed))[0] for seed in (1, 2))
        assert torch.equal(one, other) == alike, init


def test_the_seed_of_a_shot_may_differ_from_the_options():
    stylizer = make(init="noise", seed=1)
    found, state = stylizer.step(picture(0), NONE, stylizer.initial_state(seed=2))
    assert state.seed == 2
    assert torch.equal(found, first_frame(make(init="noise", seed=2))[0])


def test_each_start_is_what_it_says():
    # One evaluation returns the start itself.
    starts = {init: first_frame(make(init=init, first_iterations=1))[0] for init in ("content", "noise", "style")}
    assert torch.equal(starts["content"], picture(0))
    assert starts["noise"].std() == pytest.approx(12**-0.5, rel=0.05)
    mean = starts["style"].mean((2, 3)) - style().mean((2, 3))
    assert mean.abs().max() < 0.01
    assert torch.equal(starts["style"], first_frame(make(init="style", first_iterations=1), seed=1)[0])


def test_a_style_start_covers_a_frame_of_any_shape():
    stylizer = make(init="style", first_iterations=1)
    tall, _ = stylizer.step(picture(0, 60, 20), Motion.none(1, 60, 20), stylizer.initial_state())
    assert tall.shape == (1, 3, 60, 20)
    assert tall.std() > 0.05


def test_a_first_frame_goes_through_all_scales_and_uses_the_evaluations_given():
    stylizer = make(first_iterations=10)
    image = picture(0, 144, 192)
    _, state = stylizer.step(image, Motion.none(1, 144, 192), stylizer.initial_state())
    assert len(scales((144, 192), TinyEncoder.smallest_side)) == 2
    assert state.report.evaluations == len(state.report.trace) == 10


def test_the_first_frame_of_a_shot_does_not_depend_on_the_shot_before():
    stylizer = make()
    _, before = paint(stylizer, shot(7))
    fresh, after = (paint(stylizer, shot(0), state)[0] for state in (None, before))
    assert all(torch.equal(one, other) for one, other in zip(fresh, after, strict=True))


# ------------------------------------------------------------------------------------------ strength, styles, colours


def test_strength_0_is_the_frame_itself():
    found, state = first_frame(make(look=replace(LOOK, strength=0.0)))
    assert torch.equal(found, picture(0))
    assert state.report.evaluations == 0
    later, _ = paint(make(), shot(0), controls=Controls(strength=0.0))
    assert all(torch.equal(image, to_image(rgb[None])) for image, rgb in zip(later, shot(0), strict=True))


def test_the_picture_changes_more_the_more_strength_is_given():
    changes = []
    for strength in (0.1, 0.25, 0.5, 1.0, 2.0):
        found, _ = first_frame(make(look=replace(LOOK, strength=strength), first_iterations=60))
        changes.append((found - picture(0)).abs().mean().item())
    assert changes == sorted(changes)
    assert changes[0] < 0.5 * changes[-1]


def test_controls_are_as_good_as_options():
    by_option = first_frame(make(look=replace(LOOK, strength=0.5, content_weight=0.2, tv_weight=0.1)))[0]
    by_control = first_frame(make(), Controls(strength=0.5, content_weight=0.2, tv_weight=0.1))[0]
    assert torch.equal(by_option, by_control)
    assert not torch.equal(by_option, first_frame(make())[0])


def test_weights_come_from_controls_before_options_before_the_loss():
    stylizer = make(look=replace(LOOK, style_weight=3.0), coherence=CoherenceOptions(temporal_weight=7.0))
    default = losses.NORMALISERS["relative"]
    weights = stylizer.weights(Controls(content_weight=0.5))
    assert (weights.content, weights.style, weights.tv, weights.temporal) == (0.5, 3.0, default.tv_weight, 7.0)
    doubled = stylizer.weights(Controls(strength=2.0))
    assert (doubled.content, doubled.style, doubled.tv) == (default.content_weight / 16, 3.0, default.tv_weight)
    halved = stylizer.weights(Controls(strength=0.5))
    assert (halved.content, halved.style, halved.tv) == (default.content_weight, 3.0 / 16, default.tv_weight / 16)
    assert make(look=replace(LOOK, loss="paper")).weights().content == losses.NORMALISERS["paper"].content_weight


def test_two_equal_styles_are_that_style():
    one, two = (first_frame(make(styles=[(style(), weight)] * count))[0] for count, weight in ((1, 1.0), (2, 0.5)))
    torch.testing.assert_close(one, two, rtol=0, atol=2e-3)


def test_only_the_proportion_of_style_weights_counts():
    styles = [[(style(50), 3 * factor), (style(51), factor)] for factor in (1.0, 4.0)]
    one, other = (first_frame(make(styles=pair))[0] for pair in styles)
    assert torch.equal(one, other)


def test_a_style_of_weight_0_has_no_part():
    pair = [(style(50), 0.0), (style(51), 1.0)]
    alone = first_frame(make(styles=[(style(51), 1.0)]))[0]
    assert torch.equal(first_frame(make(styles=pair))[0], alone)
    even = make(styles=[(style(50), 1.0), (style(51), 1.0)])
    assert not torch.equal(first_frame(even)[0], alone)


def test_the_scale_of_the_style_changes_the_painting():
    large, small = (first_frame(make(look=replace(LOOK, style_scale=scale)))[0] for scale in (2.0, 0.5))
    assert (large - small).abs().mean() > 0.01


def test_kept_colours_are_the_frames_and_the_next_frame_starts_from_the_unexchanged():
    plain, _ = first_frame(make())
    kept, state = first_frame(make(look=replace(LOOK, keep_colors=True)))
    torch.testing.assert_close(kept, colors.keep_colors(state.outputs[:, 0], picture(0)))
    torch.testing.assert_close(state.outputs[:, 0].clamp(0, 1), plain)
    assert (kept - plain).abs().mean() > 0.02


# ------------------------------------------------------------------------------------------ later frames


def paint_lanes(stylizer, shots):
    """Shots of equal length painted side by side, as `paint` does one."""
    windows, state, painted = [MotionWindow() for _ in shots], stylizer.initial_state(), []
    for index, rgbs in enumerate(zip(*shots, strict=True)):
        motions = [window.step(rgb, index == 0) for window, rgb in zip(windows, rgbs, strict=True)]
        motion = Motion(torch.cat([m.flows for m in motions]), torch.cat([m.trust for m in motions]))
        image, state = stylizer.step(torch.cat([to_image(rgb[None]) for rgb in rgbs]), motion, state)
        painted.append(image)
    return painted, state


def test_lanes_equal_shots_painted_one_by_one():
    # Few evaluations: each one magnifies the rounding in which a batch of two differs from one.
    shots, stylizer = (shot(0, frames=4, hole_in=2), shot(1, frames=4)), make(first_iterations=8, iterations=3)
    together, _ = paint_lanes(stylizer, shots)
    for lane, rgbs in enumerate(shots):
        for both, alone in zip(together, paint(stylizer, rgbs)[0], strict=True):
            torch.testing.assert_close(both[lane], alone[0], rtol=0, atol=2e-4)


def test_where_the_scene_is_still_the_painting_is_still():
    painted, _ = paint(make(), [texture(0)] * 5)
    moved = [(after - before).abs() for before, after in pairwise(painted)]
    assert max(change.mean().item() for change in moved) < 2e-3
    assert (painted[-1] - painted[0]).abs().mean() < 5e-3


def test_the_painting_moves_with_the_scene():
    rgbs = shot(0, frames=4, step=3)
    painted, _ = paint(make(), rgbs)
    independent = first_frame_of(rgbs[3])
    along = (painted[3][..., 4:-8] - painted[2][..., 7:-5]).abs().mean()
    assert along < 0.25 * (independent[..., 4:-8] - first_frame_of(rgbs[2])[..., 7:-5]).abs().mean()
    assert along < 0.25 * (painted[3] - painted[2]).abs().mean()


def first_frame_of(rgb):
    stylizer = make(init="noise", seed=int(rgb.sum()))
    return stylizer.step(to_image(rgb[None]), NONE, stylizer.initial_state())[0]


def test_what_is_revealed_gets_painted():
    rgbs = shot(0, frames=3, step=0, hole_in=2)
    painted, _ = paint(make(), rgbs)
    change = (painted[2] - to_image(rgbs[2][None])).abs().mean(1)
    inside, outside = change[:, 14:34, 18:46].mean(), (painted[1] - to_image(rgbs[1][None])).abs().mean()
    assert inside > 0.5 * outside


def test_a_later_frame_takes_the_evaluations_given_and_says_how_they_went():
    stylizer = make(first_iterations=9, iterations=4)
    rgbs, window, state, reports = shot(0), MotionWindow(), stylizer.initial_state(), []
    for index, rgb in enumerate(rgbs):
        _, state = stylizer.step(to_image(rgb[None]), window.step(rgb, index == 0), state)
        reports.append(state.report)
    assert [report.evaluations for report in reports] == [9, 4, 4, 4]
    assert [len(report.trace) for report in reports] == [9, 4, 4, 4]
    assert set(reports[0].losses) == {"loss", "content", "style", "tv", "range"}
    assert set(reports[1].losses) == {"loss", "content", "style", "tv", "range", "temporal"}
    for report in reports:
        assert report.losses["loss"] == pytest.approx(min(report.trace))
        assert report.losses["loss"] == pytest.approx(sum(report.losses.values()) - report.losses["loss"])
        assert 0 <= report.rejected < report.evaluations


def test_the_state_does_not_grow_beyond_what_the_references_need():
    stylizer = make(coherence=CoherenceOptions(references=(1, 3)), iterations=1)
    window, state, kept = MotionWindow((1, 3)), stylizer.initial_state(), []
    for index, rgb in enumerate(shot(0, frames=6)):
        _, state = stylizer.step(to_image(rgb[None]), window.step(rgb, index == 0), state)
        kept.append(state.outputs.shape)
    assert [shape[1] for shape in kept] == [1, 2, 3, 3, 3, 3]
    assert state.frame == 6
    assert state.curvature.pairs.shape == (1, 20, 3 * HEIGHT * WIDTH)


def test_the_state_given_is_left_as_it_was():
    stylizer, rgbs = make(), shot(0)
    _, state = paint(stylizer, rgbs[:2])
    outputs, pairs = state.outputs.clone(), state.curvature.pairs.clone()
    window = MotionWindow()
    window.step(rgbs[1], first=True)
    image = to_image(rgbs[2][None])
    before, motion = image.clone(), window.step(rgbs[2])
    first, second = (stylizer.step(image, motion, state)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(image, before)
    assert torch.equal(state.outputs, outputs)
    assert torch.equal(state.curvature.pairs, pairs)


def test_what_was_learnt_of_a_place_moves_with_it():
    stylizer = make(iterations=1)  # which learns nothing new
    _, before = first_frame(stylizer)
    flows = torch.zeros(1, 1, 2, HEIGHT, WIDTH)
    flows[:, :, 0] = 2.0
    _, after = stylizer.step(picture(0), Motion(flows, torch.ones(1, 1, 1, HEIGHT, WIDTH)), before)
    old, new = (state.curvature.pairs.view(-1, 3, HEIGHT, WIDTH) for state in (before, after))
    torch.testing.assert_close(new[..., :-2], old[..., 2:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_optimiser_paints_a_shot(optimizer):
    stylizer = make(optimizer=optimizer)
    _, first = first_frame(stylizer)
    assert first.report.losses["loss"] < 0.6 * first.report.trace[0]
    painted, later = paint(stylizer, shot(0, frames=2))
    assert later.report.losses["loss"] < 0.8 * first.report.trace[0]
    assert (painted[1] - to_image(shot(0, frames=2)[1][None])).abs().mean() > 0.02


# ------------------------------------------------------------------------------------------ values that are not finite


def test_a_frame_whose_loss_is_not_finite_is_done_again_from_the_frame():
    # Picture 0 is the style's, 1 the content's, 2 to 25 those of the first attempt.
    broken = TinyEncoder(broken=range(2, 26))
    found, state = first_frame(make(broken))
    assert found.isfinite().all()
    assert state.report.losses["loss"] < 0.8 * state.report.trace[0]
    assert (found - picture(0)).abs().mean() > 0.02


def test_a_lane_that_is_done_again_leaves_the_other_as_it_was():
    shots = (shot(0, frames=2), shot(1, frames=2))
    healthy, _ = paint_lanes(make(), shots)
    found, state = paint_lanes(make(TinyEncoder(broken=range(2, 26), lane=0)), shots)
    for one, other in zip(found, healthy, strict=True):
        assert torch.equal(one[1], other[1])
    assert found[0][0].isfinite().all()
    assert not torch.equal(found[0][0], healthy[0][0])
    assert state.outputs.isfinite().all()


def test_a_loss_that_stays_not_finite_is_an_error_in_one_line():
    with pytest.raises(NstVideoError, match="not finite") as caught:
        first_frame(make(TinyEncoder(broken=range(2, 10**6))))
    assert "\n" not in str(caught.value)


def test_one_bad_evaluation_costs_that_evaluation_only():
    found, state = first_frame(make(TinyEncoder(broken=(8,))))
    assert found.isfinite().all()
    assert state.report.evaluations == 24
    assert state.report.rejected >= 1
    assert state.report.losses["loss"] < 0.6 * state.report.trace[0]


# ------------------------------------------------------------------------------------------ the real network


@cache
def vgg19():
    look = LookOptions()
    return load_encoder("vgg19", (*look.style_layers, *look.content_layers))


def test_a_shot_with_vgg19_is_painted_and_holds_together():
    stylizer = make(vgg19(), look=LookOptions(), first_iterations=20, iterations=4)
    rgbs = shot(0, frames=3)
    painted, state = paint(stylizer, rgbs)
    assert (painted[2] - to_image(rgbs[2][None])).abs().mean() > 0.03
    along = (painted[2][..., 4:-6] - painted[1][..., 6:-4]).abs().mean()
    assert along < 0.3 * (painted[2] - to_image(rgbs[2][None])).abs().mean()
    assert state.report.evaluations == 4


def test_defaults_of_both_losses_paint_with_vgg19():
    for loss in losses.NORMALISERS:
        stylizer = make(vgg19(), look=LookOptions(loss=loss), first_iterations=20)
        found, state = first_frame(stylizer)
        assert (found - picture(0)).abs().mean() > 0.03, loss
        assert state.report.losses["loss"] < 0.5 * state.report.trace[0], loss


# ------------------------------------------------------------------------------------------ scales and shares


def test_scales_grow_by_about_the_root_of_2_from_128_pixels():
    found = scales((288, 512))
    assert found == [(72, 128), (102, 181), (144, 256), (204, 362), (288, 512)]
    sides = [max(size) for size in scales((1000, 600))]
    assert sides[0] == 128
    assert sides[-1] == 1000
    assert all(1.3 < after / before < 1.55 for before, after in pairwise(sides))


def test_a_small_frame_has_one_scale():
    assert scales((48, 64)) == [(48, 64)]
    assert scales((128, 96)) == [(128, 96)]


@pytest.mark.parametrize("size", [(90, 640), (640, 90), (20, 500), (16, 16), (17, 300)])
def test_no_scale_is_smaller_than_the_encoder_takes(size):
    found = scales(size, smallest_side=16)
    assert min(min(scale) for scale in found) >= 16
    assert found[-1] == size
    assert found == sorted(found)


@pytest.mark.parametrize(("total", "parts", "expected"), [
    (200, 5, [40, 40, 40, 40, 40]),
    (103, 4, [25, 25, 25, 28]),
    (7, 1, [7]),
    (2, 3, [1, 1, 1]),
])  # fmt: skip
def test_evaluations_are_shared_out_evenly_the_rest_to_the_finest(total, parts, expected):
    assert shares(total, parts) == expected


def test_evaluations_grow_with_the_scales_where_that_is_asked_for():
    found = shares(100, 4, 2**0.5)
    assert sum(found) == 100
    assert all(1.2 < finer / coarser < 1.7 for coarser, finer in pairwise(found))
    assert shares(3, 5, 2**0.5) == [1, 1, 1, 1, 1]


def test_a_fresh_state_knows_nothing():
    assert make(seed=4).initial_state() == State(seed=4)
