"""Losses: each has the value of its formula written out in NumPy, and a gradient exactly where it should have one."""

import numpy as np
import pytest
import torch
from tiny import LAYERS, TinyEncoder, picture

from nst_video.optimization import losses

SHAPE = (2, 6, 5, 7)


def features(seed=0, shape=SHAPE):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def gram_of(seed=0, shape=SHAPE):
    return losses.gram(features(seed, shape)).mean


# ------------------------------------------------------------------------------------------ values


def test_a_gram_matrix_is_the_mean_product_of_two_channels():
    f = features().numpy().astype(np.float64)
    expected = np.einsum("bihw,bjhw->bij", f, f) / (5 * 7)
    np.testing.assert_allclose(losses.gram(features()).mean, expected, rtol=1e-5)


def test_the_gradient_of_a_gram_matrix_is_that_of_its_formula():
    f, weight = features().double().requires_grad_(True), torch.randn(2, 6, 6, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((torch.einsum("bihw,bjhw->bij", f, f) * weight).sum(), f)
    single = f.detach().float().requires_grad_(True)
    (got,) = torch.autograd.grad((losses.gram(single).total * weight.float()).sum(), single)
    torch.testing.assert_close(got, wanted.float(), rtol=1e-4, atol=1e-5)


def test_grams_of_two_halves_add_up_to_that_of_the_whole():
    whole = features()
    joined = losses.gram(whole[..., :3]) + losses.gram(whole[..., 3:])
    torch.testing.assert_close(joined.total, losses.gram(whole).total)
    torch.testing.assert_close(joined.count, losses.gram(whole).count)
    torch.testing.assert_close(joined.mean, losses.gram(whole).mean)


def test_a_gram_matrix_counts_each_position_with_its_weight():
    f, weight = features(), features(1, (2, 1, 5, 7))
    expected = np.einsum("bihw,bjhw,bchw->bij", f, f, weight) / weight.numpy().sum((1, 2, 3))[:, None, None]
    np.testing.assert_allclose(losses.gram(f, weight).mean, expected, rtol=1e-5)


def test_a_mask_and_its_complement_share_out_the_gram_matrix():
    f = features()
    mask = (features(1, (2, 1, 5, 7)) > 0.6).float()
    joined = losses.gram(f, mask) + losses.gram(f, 1 - mask)
    torch.testing.assert_close(joined.mean, losses.gram(f).mean)
    torch.testing.assert_close(losses.gram(f, torch.ones_like(mask)).mean, losses.gram(f).mean)


def test_a_gram_matrix_of_nothing_is_zero():
    assert losses.gram(features(), torch.zeros(2, 1, 5, 7)).mean.abs().max() == 0


def test_content_of_the_paper_is_the_squared_difference_over_4hwc():
    f, p = features().numpy(), features(1).numpy()
    expected = ((f - p) ** 2).sum((1, 2, 3)) / (4 * 5 * 7 * 6)
    np.testing.assert_allclose(losses.paper_content(features(), features(1)), expected, rtol=1e-5)


def test_style_of_the_paper_is_its_equation_where_both_pictures_have_one_size():
    f, a = (features(seed).numpy().astype(np.float64).reshape(2, 6, 35) for seed in (0, 1))
    difference = np.einsum("bim,bjm->bij", f, f) - np.einsum("bim,bjm->bij", a, a)
    expected = (difference**2).sum((1, 2)) / (4 * 6**2 * 35**2)
    np.testing.assert_allclose(losses.paper_style(gram_of(), gram_of(1)), expected, rtol=1e-4)


def test_relative_losses_are_shares_of_the_targets_energy():
    f, p = features().numpy(), features(1).numpy()
    expected = ((f - p) ** 2).sum((1, 2, 3)) / (p**2).sum((1, 2, 3))
    np.testing.assert_allclose(losses.relative_content(features(), features(1)), expected, rtol=1e-5)
    g, a = gram_of().numpy(), gram_of(1).numpy()
    expected = ((g - a) ** 2).sum((1, 2)) / (a**2).sum((1, 2))
    np.testing.assert_allclose(losses.relative_style(gram_of(), gram_of(1)), expected, rtol=1e-5)


def test_relative_losses_are_1_for_a_picture_without_features():
    nothing = torch.zeros(SHAPE)
    torch.testing.assert_close(losses.relative_content(nothing, features()), torch.ones(2))
    torch.testing.assert_close(losses.relative_style(losses.gram(nothing).mean, gram_of()), torch.ones(2))


@pytest.mark.parametrize("factor", [1e-2, 30.0])
def test_relative_losses_do_not_depend_on_how_large_the_features_are(factor):
    for compare, made in ((losses.relative_content, features), (losses.relative_style, gram_of)):
        ours, target = made(), made(1)
        torch.testing.assert_close(compare(factor * ours, factor * target), compare(ours, target), rtol=1e-5, atol=0)


def test_relative_style_does_not_depend_on_the_size_of_a_repeated_pattern():
    tile, target = features(), gram_of(1)
    repeated = losses.gram(tile.repeat(1, 1, 2, 3)).mean
    torch.testing.assert_close(
        losses.relative_style(repeated, target), losses.relative_style(losses.gram(tile).mean, target)
    )


@pytest.mark.parametrize("normaliser", losses.NORMALISERS.values(), ids=losses.NORMALISERS)
def test_a_picture_that_equals_its_target_has_no_loss(normaliser):
    assert normaliser.content(features(), features()).tolist() == [0, 0]
    assert normaliser.style(gram_of(), gram_of()).tolist() == [0, 0]


def test_one_style_target_serves_all_lanes():
    target = gram_of(1)[:1]
    torch.testing.assert_close(
        losses.relative_style(gram_of(), target), losses.relative_style(gram_of(), target.expand(2, -1, -1))
    )


# Rows 0 1 3 / 0 2 2, one channel: squared steps to the right 1 4 - / 4 0 -, down 0 1 1 / - - -.
STEPS = ((1 + 0, 4 + 1, 0 + 1), (4, 0, 0))


@pytest.mark.parametrize("exponent", [1.0, 1.25, 0.5])
def test_total_variation_by_hand(exponent):
    image = torch.tensor([[[[0.0, 1, 3], [0, 2, 2]]]])
    expected = sum(step**exponent for row in STEPS for step in row) / 6
    assert losses.total_variation(image, exponent).tolist() == pytest.approx([expected], rel=2e-4)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.25])
def test_total_variation_of_a_flat_picture_has_a_finite_gradient(exponent):
    image = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.total_variation(image, exponent).sum(), image)
    assert gradient.abs().max() == 0


def test_out_of_range_is_the_squared_excess():
    image = torch.tensor([[-0.5, 0.0, 0.5, 1.0], [1.5, 3.0, 0.2, 0.8]]).view(2, 1, 2, 2)
    assert losses.out_of_range(image).tolist() == pytest.approx([0.25 / 4, (0.25 + 4) / 4])


def test_temporal_is_the_trusted_squared_difference_summed_over_references():
    x, w, c = features(0, (2, 3, 4, 5)), features(1, (2, 2, 3, 4, 5)), features(2, (2, 2, 1, 4, 5))
    squared = (x.numpy()[:, None] - w.numpy()) ** 2
    expected = np.einsum("bjchw,bjdhw->b", squared, c.numpy()) / (3 * 4 * 5)
    np.testing.assert_allclose(losses.temporal(x, w, c), expected, rtol=1e-5)


def test_a_far_reference_counts_only_where_no_nearer_one_is_trusted():
    near, middle, far = [1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]
    trust = torch.tensor([near, middle, far], dtype=torch.float32).view(1, 3, 1, 1, 6)
    found = losses.long_term(trust).view(3, 6).tolist()
    assert found == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0]]


def test_long_term_is_the_rule_of_ruder_and_never_sums_to_more_than_1():
    trust = features(0, (2, 4, 1, 5, 6))
    found = losses.long_term(trust)
    for j in range(4):
        torch.testing.assert_close(found[:, j], (trust[:, j] - trust[:, :j].sum(1)).clamp_min(0))
    assert found.sum(1).max() <= 1 + 1e-6


# ------------------------------------------------------------------------------------------ gradients


def of_features(compare, layer="far"):
    encoder, target = TinyEncoder(), TinyEncoder()(picture(1))[layer]
    return lambda image: compare(encoder(image)[layer], target)


def of_grams(compare, layer):
    return of_features(lambda f, a: compare(losses.gram(f).mean, losses.gram(a).mean), layer)


LOSSES = {
    "relative content": of_features(losses.relative_content),
    "paper content": of_features(losses.paper_content),
    **{f"relative style of {layer}": of_grams(losses.relative_style, layer) for layer in LAYERS},
    **{f"paper style of {layer}": of_grams(losses.paper_style, layer) for layer in LAYERS},
    "total variation": losses.total_variation,
    "total variation, exponent 1.25": lambda image: losses.total_variation(image, 1.25),
    "out of range": lambda image: losses.out_of_range(2 * image),
    "temporal": lambda image: losses.temporal(image, picture(1)[:, None], torch.ones(1, 1, 1, 48, 64)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_gradient_that_leads_down(name):
    image = picture(0).requires_grad_(True)
    before = LOSSES[name](image)
    (gradient,) = torch.autograd.grad(before.sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    with torch.no_grad():
        after = LOSSES[name](image - gradient * (1e-2 / gradient.norm()))
    assert after < before


def test_the_temporal_loss_and_its_gradient_are_exactly_zero_where_nothing_is_trusted():
    trust = torch.zeros(1, 2, 1, 48, 64)
    trust[:, 0, :, 8:24, 8:40] = 1
    trust[:, 1, :, 20:40, 30:50] = 0.25
    image = picture(0).requires_grad_(True)
    warped = torch.stack([picture(1), picture(2)], dim=1)
    (gradient,) = torch.autograd.grad(losses.temporal(image, warped, trust).sum(), image)
    held = (trust.sum(1) > 0).expand_as(gradient)
    assert gradient[~held].abs().max() == 0
    assert (gradient[held] != 0).float().mean() > 0.95
    assert losses.temporal(image, warped, torch.zeros_like(trust)).tolist() == [0]


def test_a_masked_gram_has_no_gradient_outside_its_mask():
    mask = torch.zeros(2, 1, 5, 7)
    mask[:, :, 1:3, 2:5] = 1
    f = features().requires_grad_(True)
    (gradient,) = torch.autograd.grad(losses.relative_style(losses.gram(f, mask).mean, gram_of(1)).sum(), f)
    inside = mask.expand_as(gradient) > 0
    assert gradient[~inside].abs().max() == 0
    assert (gradient[inside] != 0).all()


def test_the_gradients_written_by_hand_are_those_of_autograd():
    image = (
        torch.rand(2, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2 - 0.5
    ).requires_grad_()
    assert torch.autograd.gradcheck(losses.total_variation, (image,))
    assert torch.autograd.gradcheck(losses.out_of_range, (image,))
    inside = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.out_of_range(inside).sum(), inside)
    assert not bool(gradient.any())
