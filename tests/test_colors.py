"""Colours: exact round trips, published OKLab values, and keep_colors that changes lightness and nothing else."""

import numpy as np
import pytest
import torch
from as_on_gpu import AsOnGpu
from tiny import picture

from nst_video import colors

HEIGHT, WIDTH = 24, 32


def patch(*rgb):
    """One pixel, (1, 3, 1, 1)."""
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)


def lch(image):
    """Lightness, chroma and hue (radians) in OKLab, (N, H, W) each."""
    lightness, a, b = colors.to_oklab(image).unbind(1)
    return lightness, torch.hypot(a, b), torch.atan2(b, a)


def angle_between(first, second):
    return (first - second + torch.pi).remainder(2 * torch.pi).sub(torch.pi).abs()


# ------------------------------------------------------------------------------------------ conversions


def test_every_level_survives_the_way_to_an_image_and_back():
    rgb = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    rgb[..., 1] = rgb[..., 1][:, ::-1]
    np.testing.assert_array_equal(colors.to_rgb(colors.to_image(rgb)), rgb)


def test_images_are_channels_first_from_0_to_1():
    rgb = np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
    rgb[1, 3, 5] = (255, 51, 0)
    image = colors.to_image(rgb)
    assert image.shape == (2, 3, HEIGHT, WIDTH)
    assert image.dtype == torch.float32
    assert image[1, :, 3, 5].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert image.sum() == pytest.approx(1.2)


def test_an_array_that_is_not_contiguous_is_read_right():
    rgb = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)[:, ::-1, ::2]
    np.testing.assert_array_equal(colors.to_rgb(colors.to_image(rgb)), rgb)


def test_values_are_rounded_and_clipped_on_the_way_out():
    image = torch.tensor([-0.3, 0.4 / 255, 0.6 / 255, 1.7]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    before = image.clone()
    assert colors.to_rgb(image)[0, :, :, 0].tolist() == [[0, 0], [1, 255]]
    assert torch.equal(image, before)


def test_the_transfer_function_has_its_published_values_and_an_inverse():
    light = colors.srgb_to_linear(torch.tensor([0.0, 0.04045, 0.5, 1.0]))
    assert light.tolist() == pytest.approx([0.0, 0.04045 / 12.92, 0.2140411, 1.0], rel=1e-5)
    levels = torch.linspace(0, 1, 256)
    torch.testing.assert_close(colors.linear_to_srgb(colors.srgb_to_linear(levels)), levels, rtol=0, atol=2e-6)


PUBLISHED = {  # Ottosson 2020, with the sRGB primaries at full strength
    "white": ((1, 1, 1), (1.0, 0.0, 0.0)),
    "black": ((0, 0, 0), (0.0, 0.0, 0.0)),
    "red": ((1, 0, 0), (0.62796, 0.22486, 0.12585)),
    "green": ((0, 1, 0), (0.86644, -0.23389, 0.17950)),
    "blue": ((0, 0, 1), (0.45201, -0.03246, -0.31153)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_oklab_of_known_colours(name):
    rgb, lab = PUBLISHED[name]
    assert colors.to_oklab(patch(*rgb)).flatten().tolist() == pytest.approx(lab, abs=2e-4)


# ------------------------------------------------------------------------------------------ keep_colors


def test_a_picture_keeps_its_own_colours():
    image = picture(0, HEIGHT, WIDTH)
    torch.testing.assert_close(colors.keep_colors(image, image), image, rtol=0, atol=1 / 255)


def test_lightness_comes_from_the_painting_and_hue_from_the_frame():
    stylised, content = picture(1, HEIGHT, WIDTH), picture(2, HEIGHT, WIDTH)
    found = colors.keep_colors(stylised, content)
    assert found.min() >= 0
    assert found.max() <= 1
    lightness, chroma, hue = lch(found)
    wanted, chroma_before, hue_before = lch(stylised)[0], *lch(content)[1:]
    torch.testing.assert_close(lightness, wanted, rtol=0, atol=2e-3)
    colourful = chroma > 0.02
    assert colourful.float().mean() > 0.5
    assert angle_between(hue, hue_before)[colourful].max() < 0.03
    assert (chroma <= chroma_before + 2e-3).all()


def test_chroma_is_whole_wherever_the_pair_has_an_srgb_colour():
    content = patch(0.6, 0.45, 0.4)
    found = colors.keep_colors(patch(0.5, 0.5, 0.5), content)
    assert lch(found)[1].item() == pytest.approx(lch(content)[1].item(), abs=1e-3)


def test_a_neutral_frame_stays_neutral():
    grey = picture(0, HEIGHT, WIDTH).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    found = colors.keep_colors(picture(1, HEIGHT, WIDTH), grey)
    assert (found.amax(1) - found.amin(1)).max() < 2e-3


PRIMARIES = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (1, 1, 0), "magenta": (1, 0, 1)}


@pytest.mark.parametrize("name", PRIMARIES)
@pytest.mark.parametrize("level", [0.1, 0.3, 0.6, 0.9])
def test_a_saturated_colour_under_any_stroke_stays_that_colour(name, level):
    content = patch(*PRIMARIES[name])
    lightness, chroma, hue = lch(colors.keep_colors(patch(level, level, level), content))
    assert lightness.item() == pytest.approx(lch(patch(level, level, level))[0].item(), abs=2e-3)
    assert chroma.item() > 0.025
    assert angle_between(hue, lch(content)[2]).item() < 0.03


def test_chroma_shrinks_no_further_than_it_must():
    # Along lightness and hue of the result, a little more chroma would leave sRGB: one channel is at its end.
    found = colors.keep_colors(patch(0.8, 0.8, 0.8), patch(0, 0, 1))
    assert max(found.max().item(), 1 - found.min().item()) > 0.998


def test_a_gpu_does_for_all_pixels_what_is_done_for_a_few():
    stylised, content = picture(1, HEIGHT, WIDTH), picture(0, HEIGHT, WIDTH)
    wanted = colors.keep_colors(stylised, content)
    with AsOnGpu():
        found = colors.keep_colors(stylised, content)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_black_and_white_strokes_stay_black_and_white():
    content = picture(0, HEIGHT, WIDTH)
    assert colors.keep_colors(torch.zeros_like(content), content).max() < 0.02
    assert colors.keep_colors(torch.ones_like(content), content).min() > 0.98


def test_a_painting_beyond_white_is_taken_as_white():
    content = picture(0, HEIGHT, WIDTH)
    white = torch.ones_like(content)
    assert torch.equal(colors.keep_colors(1.5 * white, content), colors.keep_colors(white, content))


def test_every_lane_has_its_own_colours():
    stylised, content = (torch.cat([picture(a, HEIGHT, WIDTH), picture(b, HEIGHT, WIDTH)]) for a, b in ((0, 1), (2, 3)))
    both = colors.keep_colors(stylised, content)
    torch.testing.assert_close(both[:1], colors.keep_colors(stylised[:1], content[:1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(both[1:], colors.keep_colors(stylised[1:], content[1:]), rtol=0, atol=1e-6)
