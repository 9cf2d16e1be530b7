"""What is dreamed and how it is climbed: specs, objective, shapes of a gradient, octaves, tiles, transforms."""

import math
import subprocess
import sys
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from tiny import picture

from nst_video.dreaming.ascent import Climb, Octaves, ascend, deal, dealt, offsets, shifted, unshifted
from nst_video.dreaming.objective import DreamObjective, activation, guided
from nst_video.dreaming.smoothing import balanced, natural_colors, unit
from nst_video.dreaming.specs import (
    LayerSpec,
    check_mix,
    check_octaves,
    dreamed_layers,
    list_layers,
    octave_sizes,
    parse_layer,
    parse_layers,
    pooling_for,
    tile_for,
)
from nst_video.dreaming.tiles import OVERLAP, ramps, tiled_gradient
from nst_video.dreaming.transforms import Map, Rates, look_through, look_up, lookup
from nst_video.errors import UsageError
from nst_video.networks.encoders import load_encoder
from nst_video.networks.layers import ENCODER_LAYERS, layer_names
from nst_video.optimization.tiles import spans
from nst_video.painting.scales import resize

LAYERS = ("relu2_1", "relu3_1", "relu4_1")
CLIMB = Climb(step=1.0, iterations=3, smoothing=0.25, seed=0)
TWO = Octaves(count=2, scale=1.4, jitter=8)


@cache
def slim():
    return load_encoder("slim", LAYERS)


def objective(*texts, guide=None):
    return DreamObjective(slim(), parse_layers(texts or ("relu3_1",), "slim"), guide)


# ------------------------------------------------------------------------------------------ what is dreamed, as text


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("relu4_3", LayerSpec("relu4_3", 0, 511)),
        ("relu4_3=1", LayerSpec("relu4_3", 0, 511, 1.0)),
        ("relu5_1:87", LayerSpec("relu5_1", 87, 87)),
        ("relu5_1:10-20=0.5", LayerSpec("relu5_1", 10, 20, 0.5)),
        (" relu1_1 : 3 = 1e2 ", LayerSpec("relu1_1", 3, 3, 100.0)),
        ("relu5_1:0-511=0", LayerSpec("relu5_1", 0, 511, 0.0)),
    ],
)
def test_specs_are_read(text, spec):
    assert parse_layer(text, "vgg19") == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("relu5_9", "did you mean relu5_"),
        ("relu5_1:512", r"relu5_1 of vgg19 has no channel 512; the nearest is 511 \(there are 0 to 511\)"),
        ("relu5_1:x", "'x' is no number of a channel"),
        ("relu5_1:-3", "is no layer to dream; allowed LAYER"),
        ("relu5_1:1-", "is no layer to dream; allowed LAYER"),
        ("relu5_1:20-10", "wrong way round; write relu5_1:10-20"),
        ("relu5_1:²", "'²' is no number of a channel"),
        ("relu5_1:1-600", "has no channel 600; the nearest is 511"),
        ("relu5_1=", "is no layer to dream"),
        ("relu5_1=much", "the weight 'much' is not allowed; allowed 0 to 1000000"),
        ("relu5_1=-1", "the weight '-1' is not allowed"),
        ("relu5_1=nan", "the weight 'nan' is not allowed"),
        ("relu5_1=inf", "the weight 'inf' is not allowed"),
        ("", "is no layer to dream"),
    ],
)
def test_wrong_specs_are_refused_with_what_is_allowed(text, said):
    with pytest.raises(UsageError, match=said):
        parse_layer(text, "vgg19")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((), "names nothing to dream"),
        (("relu5_1", "relu5_1=2"), "names relu5_1 with the same channels twice"),
        (("relu5_1=0", "relu4_1=0"), "only weights of 0"),
    ],
)
def test_specs_that_do_not_go_together_are_refused(texts, said):
    with pytest.raises(UsageError, match=said):
        parse_layers(texts, "vgg19")


def test_inceptions_layers_go_by_their_usual_names():
    assert parse_layer("inception_4c", "googlenet").last == 511
    assert parse_layer("Mixed_5b", "inception_v3").layer == "mixed0"
    assert parse_layer("mixed10:2047", "inception_v3") == LayerSpec("mixed10", 2047, 2047)
    with pytest.raises(UsageError, match="did you mean inception_4c"):
        parse_layer("inception4_c", "googlenet")


@pytest.mark.parametrize("encoder", ENCODER_LAYERS)
def test_every_encoder_lists_its_layers_with_channels(encoder):
    lines = list_layers(encoder)
    assert tuple(line.name for line in lines) == layer_names(encoder)
    for line in lines:
        assert parse_layer(f"{line.name}:{line.channels - 1}", encoder).first == line.channels - 1


def test_listing_and_checking_needs_no_torch():
    code = (
        "from nst_video.dreaming.specs import check_octaves, list_layers\n"
        "list_layers('vgg19'); check_octaves((99, 99), 2, 1.4, 'vgg19', ['relu1_1'])\n"
        "import sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_encoder_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean googlenet"):
        list_layers("gogglenet")


def test_only_networks_that_were_not_distilled_pool_by_maxima():
    assert {name: pooling_for(name) for name in ("vgg19", "slim")} == {"vgg19": "max", "slim": "average"}


def test_too_many_octaves_are_refused_with_how_many_would_do():
    layers = dreamed_layers(["relu5_1"], "vgg19")
    check_octaves((144, 256), 7, 1.4, "vgg19", layers)
    with pytest.raises(UsageError, match=r"--octaves 9 is too many for 256x144 pixels.* allowed --octaves 7 or fewer"):
        check_octaves((144, 256), 9, 1.4, "vgg19", layers)
    with pytest.raises(UsageError, match="allowed a larger --size"):
        check_octaves((8, 8), 2, 1.4, "vgg19", layers)


def test_octaves_end_at_the_frames_own_size():
    assert octave_sizes((90, 160), 1, 1.4) == [(90, 160)]
    sizes = octave_sizes((90, 160), 4, 1.5)
    assert sizes[-1] == (90, 160)
    assert [b[1] / a[1] for a, b in pairwise(sizes)] == pytest.approx([1.5] * 3, rel=0.02)


def test_tiles_are_as_large_as_half_of_the_memory():
    assert tile_for((1080, 1920), None) is None
    assert tile_for((1080, 1920), 64 * 10**9) is None
    side = tile_for((1080, 1920), 8 * 10**9)
    assert side is not None
    assert side**2 * 8000 <= 4 * 10**9 < (side + 64) ** 2 * 8000
    assert tile_for((1080, 1920), 10**6) == 256


# ------------------------------------------------------------------------------------------ objective


def test_the_activation_is_half_the_mean_square():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 2.0]]]])
    assert activation(features).tolist() == [30 / 8, 4 / 8]


def test_only_the_chosen_channels_count():
    image = picture(1)
    features = slim()(image)["relu3_1"]
    found = objective("relu3_1:5-7=2", "relu3_1:9").terms(image)
    assert torch.allclose(found[0], activation(features[:, 5:8]))
    assert torch.allclose(found[1], activation(features[:, 9:10]))


def test_a_guide_pulls_each_place_to_its_best_dot_product():
    features, guide = torch.rand(2, 6, 4, 5), torch.rand(6, 9)
    by_hand = torch.einsum("lchw,cm->lhwm", features, guide).amax(3).mean((1, 2)) / 6
    assert torch.allclose(guided(features, guide), by_hand)


def test_a_guide_makes_the_dream_grow_towards_it():
    """Stripes that stand, and stripes that lie: each dream fits the guide better that it was dreamed by."""
    wave = (0.5 + 0.5 * torch.sin(torch.arange(96.0))).expand(1, 3, 96, 96)
    image, guides = 0.5 * picture(1), [wave, wave.mT]
    dreams = [ascend(objective(guide=guide), image, Climb(3.0, 8, 0.25, 0), TWO)[0] for guide in guides]
    fit = [[float(objective(guide=guide).terms(dream)) for dream in dreams] for guide in guides]
    assert fit[0][0] > 1.1 * fit[0][1]
    assert fit[1][1] > 1.1 * fit[1][0]


def test_weights_mean_the_same_at_layers_of_any_strength():
    """Each layer is climbed in relation to what there is of it: the gradient of sum w log E."""
    image, both = picture(1), objective("relu2_1", "relu4_1")
    parts = [both.gradient(image, one)[0] for one in ((1.0, 0.0), (0.0, 1.0))]
    joined, terms = both.gradient(image, (2.0, 0.5))
    assert torch.allclose(joined, 2 * parts[0] + 0.5 * parts[1], rtol=1e-3, atol=1e-6)
    assert terms.shape == (2, 1)


@pytest.mark.parametrize("guide", [None, picture(4)])
def test_every_objective_has_a_gradient_and_leaves_the_picture_alone(guide):
    image = picture(1)
    kept = image.clone()
    gradient, _ = objective("relu3_1:3", guide=guide).gradient(image, (1.0,))
    assert gradient.abs().max() > 0
    assert torch.equal(image, kept)
    assert not image.requires_grad


# ------------------------------------------------------------------------------------------ the shape of a step


def test_a_step_is_as_long_in_every_lane():
    gradient = torch.randn(2, 3, 20, 30) * torch.tensor([1e-9, 1e3]).view(2, 1, 1, 1)
    assert torch.allclose(unit(gradient).abs().mean((1, 2, 3)), torch.ones(2))


def test_more_smoothing_makes_broader_shapes():
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def roughness(smoothing):
        found = unit(balanced(noise, smoothing))
        return float((found[..., 1:] - found[..., :-1]).square().mean() / found.square().mean())

    values = [roughness(smoothing) for smoothing in (-1.0, 0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.1 * values[0]
    assert roughness(0.0) < 0.8 * float((noise[..., 1:] - noise[..., :-1]).square().mean() / noise.square().mean())


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (33, 47)])
def test_gradients_of_any_size_keep_it(size):
    assert balanced(torch.randn(1, 3, *size), 0.5).shape == (1, 3, *size)


def test_colours_are_drawn_towards_lightness_and_grey_is_not_changed_in_hue():
    grey, hue = torch.ones(1, 3, 2, 2), torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    light = natural_colors(grey)
    assert float(light.std((1,)).max()) < 0.1 * float(light.mean())
    assert float(natural_colors(hue).abs().mean()) < 0.5 * float(light.abs().mean())


# ------------------------------------------------------------------------------------------ ascent


def test_the_activation_rises_with_every_iteration_of_an_octave():
    _, trace = ascend(objective(), picture(1), Climb(1.0, 8, 0.25, 0), Octaves(1, 1.4, 0))
    values = [float(terms[0, 0]) for terms in trace]
    assert values == sorted(values)
    assert values[-1] > 1.15 * values[0]


def test_several_octaves_climb_higher_than_one_at_equal_iterations_a_size():
    one, _ = ascend(objective(), picture(1), CLIMB, Octaves(1, 1.4, 8))
    three, trace = ascend(objective(), picture(1), CLIMB, Octaves(3, 1.4, 8))
    assert objective().terms(three) > objective().terms(one)
    assert len(trace) == 9


def test_a_dreamed_picture_stays_in_0_to_1_and_the_caller_keeps_its_own():
    image = (picture(1) * 3 - 1).clamp(0, 1)
    kept = image.clone()
    dreamed, _ = ascend(objective(), image, Climb(40.0, 3, 0.25, 0), TWO)
    assert 0 <= dreamed.min() <= dreamed.max() <= 1
    assert torch.equal(image, kept)


def test_no_iterations_give_the_picture_and_its_detail_without_loss():
    image, detail = picture(1), 0.1 * torch.randn(1, 3, 48, 64)
    dreamed, trace = ascend(objective(), image, Climb(1.0, 0, 0.25, 0), TWO, detail=detail)
    assert torch.equal(dreamed, (image + detail).clamp(0, 1))
    assert trace == []


def test_fine_detail_of_an_earlier_dream_survives_the_small_octaves():
    image = torch.full((1, 3, 48, 64), 0.5)
    detail = 0.1 * torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    dreamed, _ = ascend(objective(), image, Climb(0.01, 2, 0.25, 0), Octaves(3, 1.4, 8), detail=detail)
    assert (dreamed - image - detail).abs().mean() < 0.001


def test_a_part_of_an_iteration_is_a_shorter_step():
    dreamed = {
        count: ascend(objective(), picture(1), Climb(1.0, count, 0.25, 0), Octaves(1, 1.4, 0))[0]
        for count in (1, 1.5, 2)
    }
    assert torch.allclose(dreamed[1.5], (dreamed[1] + dreamed[2]) / 2, atol=1e-6)


def test_gain_says_where_steps_are_taken():
    image, gain = picture(1), torch.ones(1, 1, 48, 64)
    gain[..., 32:] = 0
    dreamed, _ = ascend(objective(), image, CLIMB, Octaves(1, 1.4, 8), gain=gain)
    assert torch.equal(dreamed[..., 32:], image[..., 32:])
    assert (dreamed - image)[..., :32].abs().mean() > 1 / 255


def test_colours_near_black_or_white_go_on_slowly():
    nearly = torch.full((1, 3, 48, 64), 0.99) - 0.02 * picture(1)
    dreamed, _ = ascend(objective(), nearly, Climb(2.0, 6, 0.25, 0), Octaves(1, 1.4, 0))
    assert ((dreamed > 0.999).float().mean()) < 0.05


def test_jitter_is_the_same_whatever_is_asked_and_other_for_other_seeds():
    assert offsets(3, 0, (90, 160), 16, 4) == offsets(3, 0, (90, 160), 16, 12)[:4]
    assert offsets(3, 0, (90, 160), 16, 8) != offsets(4, 0, (90, 160), 16, 8)
    assert offsets(3, 0, (90, 160), 16, 8) != offsets(3, 1, (90, 160), 16, 8)
    shifts = offsets(2**63 - 1, 15, (400, 400), 16, 200)
    assert {min(map(min, shifts)), max(map(max, shifts))} == {-8, 8}
    assert max(abs(value) for pair in offsets(0, 0, (16, 99), 512, 50) for value in pair) == 2


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-4, 2), (2, 7)])
def test_shifting_there_and_back_loses_only_what_was_out_of_sight(shift):
    image = picture(1)
    back = unshifted(shifted(image, shift), shift)
    down, right = shift
    rows, columns = slice(max(-down, 0), 48 - max(down, 0)), slice(max(-right, 0), 64 - max(right, 0))
    assert torch.equal(back[..., rows, columns], image[..., rows, columns])
    seen = torch.zeros(48, 64)
    seen[rows, columns] = 1
    assert torch.equal(back * (1 - seen), torch.zeros_like(back))


@pytest.mark.parametrize("mix", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 3.0), (5.0, 3.0, 2.0), (0.02, 0.98)])
def test_iterations_are_dealt_out_in_the_proportions_of_the_mix(mix):
    for start in (0, 7, 5000):
        turns = deal(mix, 200, start)
        for number, weight in enumerate(mix):
            assert abs(turns.count(number) - 200 * weight / sum(mix)) <= 2


def test_a_cross_fade_goes_on_over_the_frames_and_each_iteration_climbs_one_layer():
    both = objective("relu2_1", "relu4_1")
    frames = [dealt(both, Climb(1.0, 2.0, 0.0, 0, frame, (0.9, 0.1)), 2) for frame in range(10)]
    turns = [weights for octaves in frames for octave in octaves for weights in octave]
    assert set(turns) == {(1.0, 0.0), (0.0, 1.0)}
    assert abs(turns.count((0.0, 1.0)) - 4) <= 1
    assert dealt(both, Climb(1.0, 2.0, 0.0, 0), 1) == [[(1.0, 1.0), (1.0, 1.0)]]


@pytest.mark.parametrize("mix", [(), (1.0,), (1.0, -1.0), (0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0), (1, 1, 1)])
def test_a_mix_that_does_not_fit_the_layers_is_refused(mix):
    with pytest.raises(UsageError, match="allowed one weight of 0 or more for each of relu2_1, relu4_1"):
        check_mix(mix, ("relu2_1", "relu4_1"))


# ------------------------------------------------------------------------------------------ tiles


@pytest.mark.parametrize("length", [64, 100, 128, 129, 200, 333, 1000])
@pytest.mark.parametrize("tile", [64, 128, 500])
def test_tiles_cover_every_pixel_once_and_in_all(length, tile):
    total = torch.zeros(length)
    for (start, end), weight in zip(spans(length, tile, OVERLAP), ramps(length, tile), strict=True):
        assert end - start <= tile
        assert start % 32 == 0
        total[start:end] += weight
    assert torch.allclose(total, torch.ones(length), atol=1e-6)


def test_a_tiled_gradient_is_the_whole_one_within_2_percent_and_without_seams():
    image, dream = picture(1, 300, 420, grain=3.0), objective("relu3_1")
    whole, values = tiled_gradient(dream, image, (1.0,), None)
    whole = whole / values  # the whole picture's is that of log E
    tiled, tiled_values = tiled_gradient(dream, image, (1.0,), 192)
    error = (unit(tiled) - unit(whole)).abs()
    assert error.mean() < 0.02
    assert torch.allclose(tiled_values, values, rtol=0.02)
    # Where one tile fades into the next the error is no larger than elsewhere.
    seam = error[..., 140:180, :].mean(), error[..., 210:250].mean()
    assert max(seam) < 3 * error.mean() + 1e-3


def test_tiles_weigh_several_layers_as_the_whole_picture_does():
    image, dream = picture(1, 200, 300, grain=3.0), objective("relu2_1", "relu3_1")
    whole, _ = tiled_gradient(dream, image, (1.0, 0.3), None)
    tiled, _ = tiled_gradient(dream, image, (1.0, 0.3), 192)
    assert (unit(tiled) - unit(whole)).abs().mean() < 0.03


def test_a_tiled_dream_is_within_half_a_level_of_the_whole_one():
    image, climb = picture(1, 200, 300, grain=3.0), Climb(1.0, 3, 0.25, 0)
    whole, _ = ascend(objective("relu3_1"), image, climb, Octaves(1, 1.4, 16))
    tiled, _ = ascend(objective("relu3_1"), image, climb, Octaves(1, 1.4, 16, tile=160))
    assert (tiled - whole).abs().mean() < 0.5 / 255


# ------------------------------------------------------------------------------------------ transforms

RATES = Rates(zoom=1.7, rotate=40.0, shift_x=0.2, shift_y=-0.1)


@pytest.mark.parametrize("steps", [24, 60, 7])
def test_steps_of_any_length_join_to_the_same_path(steps):
    whole, joined = RATES.over(2.5, (90, 160)), Map()
    for _ in range(steps):
        joined = RATES.over(2.5 / steps, (90, 160)).after(joined)
    assert joined.turn == pytest.approx(whole.turn)
    assert joined.shift == pytest.approx(whole.shift)


def test_rates_are_what_they_say():
    assert Rates(zoom=2.0).over(1.0, (90, 160)).turn == pytest.approx(2)
    assert Rates(rotate=90.0).over(1.0, (90, 160)).turn == pytest.approx(1j)  # y points down: clockwise
    assert Rates(shift_x=0.5, shift_y=0.1).over(2.0, (90, 160)).shift == pytest.approx(160 + 18j)
    assert Rates().over(1.0, (90, 160)).still
    assert RATES.over(0.0, (90, 160)).still


def test_a_map_and_its_inverse_undo_each_other():
    there = RATES.over(0.7, (90, 160))
    assert abs(there.inverse.after(there).turn - 1) < 1e-12
    assert abs(there.after(there.inverse).shift) < 1e-9


def test_looking_through_a_map_moves_what_is_seen():
    image = picture(1)
    assert look_through(image, Map()) is image
    right = look_through(image, Map(shift=-8 + 0j))  # what is at p was 8 pixels to its left
    assert torch.allclose(right[..., 8:], image[..., :-8], atol=1e-4)
    assert torch.allclose(right[..., :8], image[..., 1:9].flip(3), atol=1e-4)
    assert lookup(Map(2 + 0j), (5, 5))[0, 0, 0].tolist() == [-2, -1, 0, 1, 2]


def test_sizes_change_only_where_they_must():
    image = picture(1)
    assert resize(image, (48, 64)) is image
    assert partial(resize, size=(20, 30))(image).shape == (1, 3, 20, 30)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.25, 0.6, 3.3, -0.2])
def test_a_look_up_leaves_straight_lines_where_they_are(shift):
    slope = torch.arange(64.0).expand(1, 1, 48, 64) + 3 * torch.arange(48.0)[:, None]
    flow = torch.full((1, 2, 48, 64), shift)
    moved = look_up(slope, flow)[..., 8:-8, 8:-8]
    assert torch.allclose(moved, (slope + 4 * shift)[..., 8:-8, 8:-8], atol=2e-3)


def test_detail_survives_many_look_ups():
    image = picture(1, grain=1.0)
    for number in range(20):
        image = look_up(image, torch.full((1, 2, 48, 64), 0.5 if number % 2 else -0.5))
    kept = (image - picture(1, grain=1.0))[..., 16:-16, 16:-16].square().mean()
    assert kept < 0.3 * picture(1, grain=1.0).var()
