"""Motion: known shifts are found and undone, revealed places are not trusted, and a still scene does not move."""

import cv2
import numpy as np
import pytest
import torch
from tiny import picture, texture

from nst_video.colors import to_image
from nst_video.errors import UsageError
from nst_video.flow import motion
from nst_video.flow.motion import Flows, Motion, MotionWindow

HEIGHT, WIDTH = 48, 64


def uniform(dx, dy, height=HEIGHT, width=WIDTH):
    """The same flow everywhere: (1, 2, height, width)."""
    return torch.tensor([dx, dy], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()


def shifted(dx, dy, seed=0, height=96, width=128):
    """(current, reference), uint8: current(x) = reference(x + (dx, dy)), exact to a level also for parts of pixels."""
    wide = texture(seed, height + 40, width + 40, grain=3.0)
    matrix = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float64)
    moved = cv2.warpAffine(wide, matrix, wide.shape[1::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    return moved[20:-20, 20:-20], wide[20:-20, 20:-20]


def noisy(rgb, seed, sigma):
    noise = np.random.default_rng(seed).normal(0, sigma, rgb.shape)
    return np.clip(rgb + noise, 0, 255).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------ warp


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_no_flow_gives_the_picture_back(mode):
    image = picture(0)
    torch.testing.assert_close(motion.warp(image, uniform(0, 0), mode), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_flow_of_whole_pixels_looks_up_that_pixel(mode):
    image = picture(0)
    found = motion.warp(image, uniform(3, -2), mode)
    torch.testing.assert_close(found[..., 2:, :-3], image[..., :-2, 3:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_flow_of_half_a_pixel_looks_up_between_two(mode):
    ramp = (torch.arange(WIDTH) / WIDTH).expand(1, 3, HEIGHT, WIDTH)
    found = motion.warp(ramp, uniform(0.5, 0), mode)
    torch.testing.assert_close(found[..., 2:-3], ramp[..., 2:-3] + 0.5 / WIDTH, rtol=0, atol=1e-5)
    image = picture(0)
    if mode == "bilinear":
        between = (image[..., :-1, :] + image[..., 1:, :]) / 2
        torch.testing.assert_close(motion.warp(image, uniform(0, 0.5))[..., :-1, :], between, rtol=0, atol=1e-5)


def test_places_outside_the_picture_take_its_nearest_edge():
    image = picture(0)
    found = motion.warp(image, uniform(-10, 0))
    torch.testing.assert_close(found[..., :10], image[..., :1].expand(-1, -1, -1, 10), rtol=0, atol=1e-5)
    assert motion.inside(uniform(-10, 0))[0, 0].sum(1).unique().tolist() == [WIDTH - 10]


def test_every_lane_has_its_own_flow():
    images = torch.cat([picture(0), picture(1)])
    flows = torch.cat([uniform(2, 1), uniform(0, 0)])
    both = motion.warp(images, flows)
    assert torch.equal(both[:1], motion.warp(images[:1], flows[:1]))
    torch.testing.assert_close(both[1:], images[1:], rtol=0, atol=1e-5)


@pytest.fixture
def threads():
    number = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(number)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("number", [2, 3, 64])
def test_threads_that_share_a_picture_change_nothing(threads, number, mode):
    images, flows = torch.cat([picture(0), picture(1)]), torch.cat([uniform(2.3, 1), uniform(0, -0.7)])
    threads(1)
    wanted = motion.warp(images, flows, mode)
    threads(number)
    assert torch.equal(motion.warp(images, flows, mode), wanted)
    assert torch.equal(motion.warp(images[1:], flows[1:], mode), wanted[1:])


def test_bicubic_keeps_detail_that_bilinear_blurs():
    image = picture(0, grain=1.0)
    there, back = uniform(0.5, 0.5), uniform(-0.5, -0.5)
    lost = {
        mode: (motion.warp(motion.warp(image, there, mode), back, mode) - image)[..., 4:-4, 4:-4].square().mean()
        for mode in ("bilinear", "bicubic")
    }
    assert lost["bicubic"] < 0.5 * lost["bilinear"]


# ------------------------------------------------------------------------------------------ flow


@pytest.mark.parametrize(("preset", "most"), [("ultrafast", 0.2), ("fast", 0.2), ("medium", 0.1)])
@pytest.mark.parametrize("shift", [(3, -2), (-1.5, 0.5), (7.25, 0)])
def test_the_flow_of_a_shifted_texture_is_the_shift(shift, preset, most):
    current, reference = shifted(*shift)
    found = motion.flow(current, reference, preset)
    assert found.shape == (96, 128, 2)
    assert found.dtype == np.float32
    error = np.linalg.norm(found[12:-12, 12:-12] - shift, axis=-1)
    assert error.mean() < most


def test_the_flow_warps_the_reference_onto_the_current_frame():
    current, reference = shifted(4, 3)
    backward = motion.to_flow(motion.flow(current, reference))
    assert backward.shape == (1, 2, 96, 128)
    now, before = to_image(current[None]), to_image(reference[None])
    gap = (motion.warp(before, backward) - now)[..., 12:-12, 12:-12].abs().mean()
    assert gap < 0.1 * (before - now)[..., 12:-12, 12:-12].abs().mean()


# ------------------------------------------------------------------------------------------ trust


def square_moved_right(step=8):
    """Backward and forward flow of a 16 x 16 square that moves `step` to the right before a still ground; where it is
    now, and what it uncovers: bool (HEIGHT, WIDTH).
    """
    backward, forward = uniform(0, 0), uniform(0, 0)
    now, before = (torch.zeros(HEIGHT, WIDTH, dtype=torch.bool) for _ in range(2))
    before[16:32, 16:32], now[16:32, 16 + step : 32 + step] = True, True
    backward[0, 0, now], forward[0, 0, before] = -float(step), float(step)
    return backward, forward, now, before & ~now


def dilated(mask, pixels=2):
    return torch.nn.functional.max_pool2d(mask[None, None].float(), 2 * pixels + 1, 1, pixels)[0, 0] > 0


def test_what_a_moving_square_uncovers_is_not_trusted():
    backward, forward, now, uncovered = square_moved_right()
    mask = motion.trust_mask(backward, forward)
    assert mask.shape == (1, 1, HEIGHT, WIDTH)
    assert mask.unique().tolist() == [0, 1]
    assert mask[0, 0, uncovered].max() == 0
    boundary = dilated(now) & dilated(~now)
    assert mask[0, 0, ~uncovered & ~boundary].min() == 1


def test_the_edge_of_a_moving_square_is_not_trusted():
    backward, forward, now, _ = square_moved_right()
    boundary = motion.motion_boundary(backward)[0, 0]
    assert boundary[16:32, 23].all()  # its left edge, where the flow jumps to the next column
    assert not (boundary & ~dilated(now)).any()
    assert motion.trust_mask(backward, forward)[0, 0, boundary].max() == 0


def test_what_comes_in_from_outside_the_picture_is_not_trusted():
    mask = motion.trust_mask(uniform(5, 0), uniform(-5, 0))
    assert mask[..., -5:].max() == 0
    assert mask[..., :-5].min() == 1


def test_a_small_disagreement_of_the_flows_is_forgiven_and_a_large_one_is_not():
    # |w + w'|^2 <= 0.01 (|w|^2 + |w'|^2) + 0.5 with |w| = 10, |w'| = 10 -+ e: about e^2 <= 2.5.
    for error, agree in ((1.4, True), (1.8, False)):
        found = motion.consistent(uniform(10, 0), uniform(-10 + error, 0))
        assert found[..., 15:-15].unique().tolist() == [agree]


def test_the_stylizers_trust_is_whole_where_the_flow_is_right_and_none_where_the_picture_differs():
    current, reference = (to_image(rgb[None]) for rgb in shifted(4, 0))
    height, width = current.shape[-2:]
    changed = current.clone()
    changed[..., 30:60, 40:80] = 1 - changed[..., 30:60, 40:80]
    trust = motion.trust(changed, reference, uniform(4, 0, height, width), uniform(-4, 0, height, width))
    assert trust.min() >= 0
    assert trust.max() <= 1
    assert trust[0, 0, 32:58, 42:78].max() == 0
    outside = trust[0, 0].clone()
    outside[22:68, 32:88] = 1
    assert outside[8:-8, 8:-12].min() > 0.999
    assert trust[..., -4:].max() == 0


def test_a_flat_place_is_trusted_even_if_its_flows_disagree():
    flat, textured = torch.full((1, 3, HEIGHT, WIDTH), 0.4), picture(0, grain=1.0)
    away = uniform(3, 0), uniform(3, 0)  # going there and "back" ends 6 pixels off
    assert motion.trust(flat, flat, *away)[..., 8:-8, 8:-8].min() > 0.999
    assert motion.trust(textured, textured, *away).max() == 0


# ------------------------------------------------------------------------------------------ still scenes


def test_a_still_noisy_scene_does_not_move():
    scene = texture(0, 96, 128)
    window = MotionWindow((1,))
    window.step(noisy(scene, 1, 1.5), first=True)
    found = window.step(noisy(scene, 2, 1.5))
    assert (found.flows == 0).all(dim=2).float().mean() > 0.99
    assert found.trust[..., 8:-8, 8:-8].mean() > 0.99


def test_identical_frames_have_no_motion_and_whole_trust():
    window = MotionWindow((1, 2))
    for first in (True, False, False):
        found = window.step(texture(0), first)
    assert found.flows.abs().max() == 0
    torch.testing.assert_close(found.trust[:, 0], torch.ones(1, 1, HEIGHT, WIDTH), rtol=0, atol=1e-5)
    assert found.trust[:, 1].max() < 1e-5


def test_noise_in_the_flow_is_dropped_and_motion_is_not():
    current, reference = (to_image(rgb[None]) for rgb in shifted(0.4, 0))
    height, width = current.shape[-2:]
    real = uniform(0.4, 0, height, width)
    assert (motion.drop_noise(real, current, reference)[:, 0] == real[:, 0]).float().mean() > 0.9
    jitter = 0.3 * torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    short = jitter.square().sum(1) < 0.25
    kept = motion.drop_noise(jitter, reference, reference)
    assert kept[:, :, short[0]].abs().max() == 0
    assert torch.equal(kept[:, :, ~short[0]], jitter[:, :, ~short[0]])


# ------------------------------------------------------------------------------------------ the window


def test_references_come_in_as_the_shot_grows_and_go_with_the_next():
    window = MotionWindow((1, 2, 4))
    frames = [texture(0)] * 6
    assert [window.step(rgb, index == 0).references for index, rgb in enumerate(frames)] == [0, 1, 2, 2, 3, 3]
    found = window.step(texture(1), first=True)
    assert found.references == 0
    assert found.flows.shape == (1, 0, 2, HEIGHT, WIDTH)
    assert found.trust.shape == (1, 0, 1, HEIGHT, WIDTH)
    assert window.step(texture(1)).references == 1


def test_the_window_holds_no_more_frames_than_it_needs():
    window = MotionWindow((1, 3))
    for _ in range(8):
        window.step(texture(0))
    assert len(window.frames) == 3


def test_each_reference_has_its_own_flow_and_their_trusts_never_sum_to_more_than_1():
    wide = texture(0, 96, 200, grain=3.0)
    window = MotionWindow((1, 2, 4))
    for step in range(5):  # the camera moves 3 pixels to the right each frame
        found = window.step(wide[:, 3 * step : 3 * step + 128], step == 0)
    assert found.flows.shape == (1, 3, 2, 96, 128)
    middle = found.flows[0, :, 0, 16:-16, 16:-16].flatten(1).median(1).values
    assert middle.tolist() == pytest.approx([3, 6, 12], abs=0.1)
    assert found.trust.sum(1).max() <= 1 + 1e-5
    assert found.trust.min() >= 0
    assert found.trust[0, 0, 0, 16:-16, 16:-20].mean() > 0.98


def test_an_object_hidden_for_one_frame_is_known_from_the_frame_before():
    scene, hidden = texture(0, 96, 128), texture(0, 96, 128)
    hidden[30:66, 40:88] = texture(7, 36, 48)
    window = MotionWindow((1, 2))
    for index, rgb in enumerate((scene, hidden, scene)):
        found = window.step(rgb, index == 0)
    near, far = found.trust[0, :, 0, 36:60, 46:82]
    assert near.max() < 0.1
    assert far.mean() > 0.9


def test_a_motion_without_a_past_says_so():
    none = Motion.none(2, HEIGHT, WIDTH)
    assert none.references == 0
    assert none.flows.shape == (2, 0, 2, HEIGHT, WIDTH)
    assert none.to("cpu").trust.shape == (2, 0, 1, HEIGHT, WIDTH)


def test_mixed_takes_care_with_the_nearest_reference_alone():
    wide = texture(0, 96, 200, grain=3.0)
    rgbs = [wide[:, 3 * step : 3 * step + 128] for step in range(4)]
    careful, quick, mixed = (Flows.between(rgbs[3], rgbs[2::-1], preset) for preset in ("medium", "fast", "mixed"))
    assert np.array_equal(mixed.backward[0], careful.backward[0])
    assert np.array_equal(mixed.forward[0], careful.forward[0])
    for far in (1, 2):
        assert np.array_equal(mixed.backward[far], quick.backward[far])
        assert not np.array_equal(mixed.backward[far], careful.backward[far])


@pytest.mark.parametrize(
    ("frame", "got"),
    [
        (None, "a frame is None; allowed an ndarray of uint8"),
        (np.zeros((8, 9, 3)), r"a frame is an ndarray of float64 \(8, 9, 3\); allowed an ndarray of uint8"),
        (np.zeros((8, 9), np.uint8), r"a frame is an ndarray of uint8 \(8, 9\); allowed an ndarray of uint8"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), r"a frame is a Tensor of uint8 \(8, 9, 3\); allowed an ndarray"),
    ],
)
def test_a_window_refuses_what_is_no_frame(frame, got):
    with pytest.raises(UsageError, match=got):
        MotionWindow().step(frame)


def test_a_window_refuses_a_frame_of_another_size_within_a_shot():
    window = MotionWindow()
    window.step(np.zeros((16, 16, 3), np.uint8), first=True)
    with pytest.raises(UsageError, match="all frames of a shot are of one size"):
        window.step(np.zeros((16, 20, 3), np.uint8))
    assert window.step(np.zeros((16, 20, 3), np.uint8), first=True).references == 0
