"""The dreamer: reproducible, sticks to what moves, forgets what cannot be followed, the same at every frame rate."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from media import make_video
from tiny import picture, texture

from nst_video import colors
from nst_video.controls import Controls
from nst_video.dreaming import dreamer as dreaming
from nst_video.dreaming.dreamer import Dreamer, load_dreamer
from nst_video.dreaming.options import DreamOptions
from nst_video.dreaming.specs import dreamed_layers
from nst_video.errors import NstVideoError, UsageError
from nst_video.flow.motion import Motion, MotionWindow
from nst_video.jobs.states import pack, unpack
from nst_video.networks.encoders import load_encoder
from nst_video.painting.state import State
from nst_video.planning import make_plan
from nst_video.render import render_plan

HEIGHT, WIDTH = 48, 64
NONE = Motion.none(1, HEIGHT, WIDTH)
LAYERS = ("relu2_1", "relu3_1")
FAST = DreamOptions(layers=("relu3_1",), octaves=2, first_iterations=4, iterations=2.0, jitter=8, step=2.0)
BOTH = replace(FAST, layers=LAYERS)
SECOND = Controls(time=1.0, dt=0.04)


@cache
def slim(layers=LAYERS):
    return load_encoder("slim", layers)


def make(options=FAST, **more):
    return Dreamer(slim(dreamed_layers(options.layers, "slim")), options, **more)


def moving(dx=0.0, dy=0.0, trust=1.0, size=(HEIGHT, WIDTH), lanes=1):
    """The motion of one reference: everything came from (dx, dy) pixels away."""
    flow = torch.tensor([dx, dy]).view(1, 1, 2, 1, 1).expand(lanes, 1, 2, *size).contiguous()
    mask = torch.full((lanes, 1, 1, *size), trust) if isinstance(trust, float) else trust
    return Motion(flow, mask)


def two_frames(dreamer, motion=None, controls=SECOND, images=None, seed=0):
    """Frame 0 and then frame 1: both dreamed, and the last state."""
    first, second = images or (picture(0), picture(0))
    before, state = dreamer.step(first, NONE, dreamer.initial_state(seed))
    after, state = dreamer.step(second, motion or moving(), state, controls)
    return before, after, state


# ------------------------------------------------------------------------------------------ one frame


def test_what_is_asked_for_grows_in_the_frame():
    image = picture(0)
    dreamed, state = make().step(image, NONE, make().initial_state())
    before, after = (float(slim(("relu3_1",))(x)["relu3_1"].square().mean()) for x in (image, dreamed))
    assert after > 1.3 * before
    assert dreamed.shape == image.shape
    assert 0 <= dreamed.min() <= dreamed.max() <= 1
    assert state.report.evaluations == len(state.report.trace) == 8
    assert state.report.losses["activation"] == state.report.trace[-1]
    assert state.report.trace[3] > state.report.trace[0]


def test_a_channel_of_its_own_grows_more_than_the_others():
    image, dreamer = picture(0), make(replace(FAST, layers=("relu3_1:5",)))
    dreamed, _ = dreamer.step(image, NONE, dreamer.initial_state())
    growth = slim(("relu3_1",))(dreamed)["relu3_1"].mean((0, 2, 3)) - slim(("relu3_1",))(image)["relu3_1"].mean(
        (0, 2, 3)
    )
    assert int(growth.argmax()) == 5


def test_the_same_seed_gives_the_same_frames_and_another_gives_others():
    found = [two_frames(make(), seed=seed)[1] for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert make(seed=9).initial_state().seed == 9


def test_jitter_is_fixed_for_a_shot():
    """The same frame dreamed as frame 0 and as frame 7 of a shot, without memory, is the same."""
    dreamer = make()
    first, _ = dreamer.step(picture(0), NONE, State(seed=5))
    later, _ = dreamer.step(picture(0), NONE, State(seed=5, frame=7))
    assert torch.equal(first, later)


def test_lanes_do_not_touch_each_other():
    images = [picture(0), picture(7)]
    alone = [two_frames(make(), moving(1.0), images=(image, image))[1] for image in images]
    dreamer, both = make(), torch.cat(images)
    _, state = dreamer.step(both, Motion.none(2, HEIGHT, WIDTH), dreamer.initial_state(0))
    together, _ = dreamer.step(both, moving(1.0, lanes=2), state, SECOND)
    assert torch.allclose(together, torch.cat(alone), atol=2e-3)


def test_the_colours_of_the_video_can_be_kept():
    image = picture(0)
    dreamed, state = make(replace(FAST, keep_colors=True)).step(image, NONE, State())
    assert (colors.to_oklab(dreamed) - colors.to_oklab(image))[:, 1:].abs().mean() < 0.005
    assert (dreamed - image).abs().mean() > 0.01
    free, other = make().step(image, NONE, State())
    assert torch.equal(state.outputs, other.outputs)  # what is dreamed on has colours of its own
    assert not torch.equal(free, dreamed)


def test_a_guide_picture_and_a_guide_video_of_it_are_the_same():
    guide, asked = picture(9, 70, 90), []

    def video(time):
        asked.append(time)
        return guide

    still = two_frames(make(guide=guide))[1]
    assert torch.equal(two_frames(make(guide=video))[1], still)
    assert asked == [0.0, 1.0]
    assert not torch.equal(two_frames(make())[1], still)


# ------------------------------------------------------------------------------------------ from frame to frame


def test_the_dream_moves_with_what_it_was_dreamed_on():
    images = picture(0), torch.full((1, 3, HEIGHT, WIDTH), 0.5)
    before, after, _ = two_frames(make(), moving(-4.0), replace(SECOND, iterations=0.0, memory=1.0), images)
    dream, moved = before - images[0], after - images[1]
    assert torch.allclose(moved[..., 8:-8], dream[..., 4:-12], atol=1e-4)


def test_untrusted_places_carry_nothing_over():
    trust = torch.ones(1, 1, 1, HEIGHT, WIDTH)
    trust[..., 20:40] = 0
    image = picture(1)
    _, after, _ = two_frames(make(), moving(trust=trust), replace(SECOND, iterations=0.0), (picture(0), image))
    assert torch.equal(after[..., 20:40], image[..., 20:40])
    assert (after - image)[..., :20].abs().mean() > 0.01


def test_untrusted_places_are_dreamed_at_once():
    trust = torch.ones(1, 1, 1, HEIGHT, WIDTH)
    trust[..., 32:] = 0
    image = picture(0)
    before, after, _ = two_frames(make(), moving(trust=trust))
    strength = [(x - image)[..., 40:].abs().mean() for x in (before, after)]
    assert strength[1] > 0.7 * strength[0]


def test_less_trust_and_less_memory_keep_less():
    def kept(trust, memory):
        before, after, _ = two_frames(make(), moving(trust=trust), replace(SECOND, iterations=0.0, memory=memory))
        return float(
            ((after - picture(0)) / (before - picture(0)).clamp_min(1e-9))[(before - picture(0)) > 0.05].mean()
        )

    assert kept(1.0, 1.0) == pytest.approx(1, abs=0.01)
    assert kept(0.5, 1.0) == pytest.approx(0.5, abs=0.01)
    assert kept(1.0, 0.6) == pytest.approx(0.6, abs=0.01)
    assert kept(1.0, 0.0) == 0


def test_frames_stay_closer_together_than_dreams_of_their_own():
    wide = texture(3, HEIGHT, WIDTH + 24, grain=3.0)
    rgbs = [wide[:, 2 * t : 2 * t + WIDTH].copy() for t in range(6)]
    changes = {}
    for name in ("carried", "alone"):
        dreamer, window = make(), MotionWindow((1,))
        state, previous = dreamer.initial_state(), None
        for index, rgb in enumerate(rgbs):
            motion = window.step(rgb, index == 0) if name == "carried" else NONE
            image, state = dreamer.step(colors.to_image(rgb[None]), motion, state, SECOND)
            if previous is not None:
                here, there = image[..., 8 : WIDTH - 10], previous[..., 10 : WIDTH - 8]
                changes.setdefault(name, []).append(float((here - there).square().mean()))
            previous = image
    assert np.mean(changes["carried"]) < 0.25 * np.mean(changes["alone"])


def test_a_dream_of_a_still_scene_neither_fades_nor_runs_away():
    dreamer, image = make(replace(FAST, first_iterations=6)), picture(0)
    frame, state = dreamer.step(image, NONE, dreamer.initial_state())
    strengths = [(frame - image).abs().mean()]
    for _ in range(60):
        frame, state = dreamer.step(image, moving(), state, SECOND)
        strengths.append((frame - image).abs().mean())
    assert min(strengths) > 0.7 * strengths[0]
    assert max(strengths) < 2 * strengths[0]
    assert abs(float(strengths[-1] - strengths[-20])) < 0.1 * strengths[0]
    assert abs(float(frame.mean() - image.mean())) < 0.05


def test_a_cut_starts_anew():
    dreamer, image = make(), picture(4)
    _, _, state = two_frames(dreamer)
    assert state.frame == 2
    fresh, _ = dreamer.step(image, NONE, dreamer.initial_state(1), SECOND)
    assert torch.equal(fresh, dreamer.step(image, NONE, dreamer.initial_state(1))[0])


def test_a_resumed_shot_is_the_same_bit_for_bit():
    dreamer = make(BOTH)
    controls = Controls(time=0.4, dt=0.04, zoom=1.5, rotate=20.0, layer_mix=(0.3, 0.7))
    for still in (False, True):
        dreamer = make(BOTH, still=still)
        _, _, state = two_frames(dreamer, controls=controls)
        packed = pack(state)
        restored = unpack(packed, State)
        assert restored.view == state.view
        ends = [dreamer.step(picture(0), moving(0.3), start, controls) for start in (state, restored)]
        assert torch.equal(ends[0][0], ends[1][0])
        assert ends[0][1].report == ends[1][1].report


def test_a_live_session_may_change_its_size():
    dreamer = make()
    _, state = dreamer.step(picture(0), NONE, dreamer.initial_state())
    larger = picture(0, 60, 80)
    dreamed, state = dreamer.step(larger, moving(size=(60, 80)), state, SECOND)
    assert dreamed.shape == larger.shape == state.content.shape


def test_a_render_takes_a_dreamer(tmp_path, style):
    clip = make_video(tmp_path / "in.mp4", frames=4)
    plan = make_plan(clip, style, tmp_path / "out.mp4")
    result = render_plan(plan, make())
    assert result.frames == 4
    assert result.rows[0].evaluations == 8
    assert result.rows[1].evaluations == 4
    assert result.losses["activation"] > 0


# ------------------------------------------------------------------------------------------ controls

CONTROLS = {
    "strength": 0.5,
    "step": 4.0,
    "iterations": 1.0,
    "smoothing": 2.0,
    "memory": 0.3,
    "zoom": 4.0,
    "rotate": 400.0,
    "shift_x": 2.0,
    "shift_y": 2.0,
    "layer_mix": (0.1, 0.9),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_has_an_effect_and_only_while_it_is_given(name):
    _, plain, state = two_frames(make(BOTH))
    _, controlled, _ = two_frames(make(BOTH), controls=replace(SECOND, **{name: CONTROLS[name]}))
    assert (controlled - plain).abs().mean() > 1e-3
    again, _ = make(BOTH).step(picture(0), moving(), state, SECOND)
    assert torch.equal(again, make(BOTH).step(picture(0), moving(), state, SECOND)[0])


@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in ("strength", "layer_mix")])
def test_a_control_takes_the_place_of_its_option(name):
    options = replace(BOTH, **{name: CONTROLS[name]})
    _, state = make(BOTH).step(picture(0), NONE, State())
    by_control, _ = make(BOTH).step(picture(0), moving(), state, replace(SECOND, **{name: CONTROLS[name]}))
    # Steps of a later frame stand for those of a first one; with other options that would be another number.
    if name == "iterations":
        options = replace(options, first_iterations=round(BOTH.first_iterations * options.iterations / BOTH.iterations))
    by_option, _ = make(options).step(picture(0), moving(), state, SECOND)
    assert torch.equal(by_control, by_option)


def test_strength_0_is_the_frame_itself_and_more_is_more():
    image = picture(0)
    frames = {
        strength: make().step(image, NONE, State(), Controls(strength=strength))[0] for strength in (0.0, 0.5, 1.0, 2.0)
    }
    assert torch.equal(frames[0.0], image)
    assert torch.allclose(frames[0.5], (image + frames[1.0]) / 2, atol=1e-6)
    changes = [float((frame - image).abs().mean()) for frame in frames.values()]
    assert changes == sorted(changes)


def test_no_iterations_dream_nothing_into_a_first_frame():
    image = picture(0)
    dreamed, state = make().step(image, NONE, State(), Controls(iterations=0.0))
    assert torch.equal(dreamed, image)
    assert state.report.evaluations == 0


def test_a_mix_of_one_layer_is_that_layer_alone():
    image = picture(0)
    mixed, _ = make(BOTH).step(image, NONE, State(), Controls(layer_mix=(0.0, 1.0)))
    alone, _ = make(replace(FAST, layers=("relu3_1",))).step(image, NONE, State())
    assert torch.allclose(mixed, alone, atol=1e-3)


# ------------------------------------------------------------------------------------------ zoom, turn and shift


def blob(x, y, radius, size):
    """A soft round spot (1, 3, H, W), (x, y) pixels from the centre."""
    height, width = size
    column = torch.arange(width) - (width - 1) / 2 - x
    row = (torch.arange(height) - (height - 1) / 2 - y)[:, None]
    return 0.5 * torch.exp(-(column**2 + row**2) / (2 * radius**2)).expand(1, 3, height, width)


def place_of(spot):
    """Centre from the middle, and standard deviation, of a spot (1, 3, H, W), in pixels."""
    weight = spot.mean(1)[0].double().clamp_min(0)
    x = torch.arange(weight.shape[1]) - (weight.shape[1] - 1) / 2
    y = torch.arange(weight.shape[0]) - (weight.shape[0] - 1) / 2
    total = weight.sum()
    cx, cy = (weight.sum(0) * x).sum() / total, (weight.sum(1) * y).sum() / total
    spread = (weight.sum(0) * (x - cx) ** 2).sum() / total
    return float(cx), float(cy), float(spread.sqrt())


@pytest.mark.parametrize("still", [False, True])
def test_zoom_paths_at_24_and_60_frames_a_second_agree_within_1_percent(still):
    size = (96, 128)
    options = replace(FAST, zoom=1.8, rotate=30.0, shift_x=0.05, shift_y=-0.05, memory=1.0)
    found = {}
    for rate in (24, 60):
        image = blob(14.0, -6.0, 5.0, size) if still else torch.zeros(1, 3, *size)
        dreamer = make(options, still=still)
        dream = image if still else blob(14.0, -6.0, 5.0, size)
        state = State(outputs=dream[:, None], content=image, frame=1)
        motion = moving(size=size)
        for number in range(1, rate + 1):
            shown, state = dreamer.step(image, motion, state, Controls(number / rate, 1 / rate, iterations=0.0))
            if number % (rate // 12) == 0:
                found.setdefault(number / rate, []).append(place_of(shown if still else shown - image))
    for time, (slow, fast) in found.items():
        path = options.zoom**time * np.hypot(14, 6)
        assert np.hypot(slow[0] - fast[0], slow[1] - fast[1]) < 0.01 * path
        assert slow[2] == pytest.approx(fast[2], rel=0.01)
        assert slow[2] == pytest.approx(5 * options.zoom**time, rel=0.02)


def test_zoom_of_a_still_moves_the_picture_and_of_a_video_only_the_dream():
    image = picture(0)
    controls = replace(SECOND, zoom=1e1, dt=0.1, iterations=0.0, memory=0.0)
    shown = {still: two_frames(make(still=still), controls=controls)[1] for still in (False, True)}
    assert torch.equal(shown[False], image)
    assert (shown[True] - image).abs().mean() > 0.02


def test_a_zoomed_still_keeps_its_dream_with_the_picture():
    """Picture and dream move alike, so what is seen is the frame before, moved."""
    controls = replace(SECOND, zoom=2.0, iterations=0.0, memory=1.0)
    before, after, state = two_frames(make(still=True), controls=controls)
    away = dreaming.Rates(zoom=2.0).over(0.04, (HEIGHT, WIDTH)).inverse
    moved = dreaming.look_through(before, away)
    assert (after - moved)[..., 4:-4, 4:-4].abs().mean() < 0.01
    assert state.view[0] == pytest.approx(2**-0.04)


# ------------------------------------------------------------------------------------------ bad input


def test_too_many_octaves_for_the_size_are_refused_before_any_work():
    dreamer = make(replace(FAST, octaves=12))
    with pytest.raises(UsageError, match=r"--octaves 12 is too many for 64x48 pixels.*allowed --octaves \d+ or fewer"):
        dreamer.step(picture(0), NONE, State())


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        ({"memory": 1.5}, "--memory 1.5 is out of range; allowed 0 to 1"),
        ({"zoom": 0.0}, "--zoom 0 is out of range"),
        ({"step": float("nan")}, "--step nan is out of range"),
        ({"iterations": -1.0}, "--iterations -1 is out of range"),
        ({"strength": -1.0}, "strength -1.0 of a frame is out of range; allowed 0 or more"),
        ({"layer_mix": (1.0, 2.0)}, "allowed one weight of 0 or more for each of relu3_1"),
    ],
)
def test_controls_out_of_range_are_refused(controls, said):
    with pytest.raises(UsageError, match=said):
        make().step(picture(0), NONE, State(), Controls(**controls))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": ("relu9_9",)}, "slim has no layer 'relu9_9'"),
        ({"layers": ("relu3_1:64",)}, "has no channel 64; the nearest is 63"),
        ({"octaves": 0}, "--octaves 0 is out of range"),
        ({"first_iterations": 0}, "--first-iterations 0 is out of range"),
        ({"octave_scale": 1.0}, "--octave-scale 1 is out of range"),
        ({"tile": 64}, "--tile 64 is out of range; allowed 256 to 16384"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        load_dreamer(replace(FAST, **options), encoder="slim")


def test_a_picture_that_is_not_finite_is_said_to_be():
    image = picture(0)
    image[0, 0, 5, 5] = torch.nan
    with pytest.raises(NstVideoError, match="the dream is not finite; try a smaller --step or --precision fp32"):
        make().step(image, NONE, State())
