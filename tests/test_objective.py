"""The loss of a frame: its terms are those of losses.py, weighted and added, a value per lane."""

from dataclasses import replace

import pytest
import torch
from tiny import LAYERS, LOOK, TinyEncoder, picture

from nst_video.optimization import losses
from nst_video.optimization.objective import FrameObjective, Past, Weights, style_shares, style_statistics
from nst_video.options import LookOptions

WEIGHTS = Weights(content=0.3, style=2.0, tv=0.7, temporal=5.0)
TERMS = ("content", "style", "tv", "range", "temporal")


def style_grams(seed=9):
    return {layer: losses.gram(found).mean for layer, found in TinyEncoder()(picture(seed)).items()}


def past(lanes=1):
    trust = torch.zeros(lanes, 2, 1, 48, 64)
    trust[:, 0, :, :, :32], trust[:, 1, :, :, 40:] = 1.0, 0.5
    return Past(torch.stack([picture(5), picture(6)], dim=1).expand(lanes, -1, -1, -1, -1), trust)


def objective(look=LOOK, content=None, weights=WEIGHTS, past=None):
    content = picture(0) if content is None else content
    return FrameObjective(TinyEncoder(), look, content=content, styles=style_grams(), weights=weights, past=past)


def test_the_terms_are_the_weighted_losses():
    image, encoder = 2 * picture(1) - 0.5, TinyEncoder()
    _, terms = objective(past=past())(image)
    found, content = encoder(image), encoder(picture(0))
    style = [losses.relative_style(losses.gram(found[layer]).mean, style_grams()[layer]) for layer in LAYERS]
    expected = {
        "content": 0.3 * losses.relative_content(found["far"], content["far"]),
        "style": 2.0 * sum(style) / 3,
        "tv": 0.7 * losses.total_variation(image),
        "range": losses.NORMALISERS["relative"].range_weight * losses.out_of_range(image),
        "temporal": 5.0 * losses.temporal(image, past().warped, past().trust),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)


def test_distances_are_those_in_the_basis_of_the_encoder():
    """With M = QR, comparing in the basis R gives the same as mapping every activation to the teacher's space by M."""
    encoder, image = TinyEncoder(), picture(1)
    maps = {layer: torch.randn(24, encoder(image)[layer].shape[1]) for layer in LAYERS}
    encoder.bases = {layer: torch.linalg.qr(matrix).R for layer, matrix in maps.items()}

    def mapped(picture_of):
        found = TinyEncoder()(picture_of)
        return {layer: torch.einsum("ij,bjhw->bihw", maps[layer], found[layer]) for layer in LAYERS}

    styles = {layer: style_statistics(encoder, encoder(picture(9)), layer) for layer in LAYERS}
    _, terms = FrameObjective(encoder, LOOK, content=picture(0), styles=styles, weights=WEIGHTS)(image)
    found, content, style = mapped(image), mapped(picture(0)), mapped(picture(9))
    each = [losses.relative_style(losses.gram(found[name]).mean, losses.gram(style[name]).mean) for name in LAYERS]
    torch.testing.assert_close(terms["style"], 2.0 * sum(each) / 3, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["content"], 0.3 * losses.relative_content(found["far"], content["far"]))


def test_the_total_is_the_sum_of_the_terms_a_value_per_lane():
    content = torch.cat([picture(0), picture(2)])
    total, terms = objective(content=content, past=past(2))(torch.cat([picture(1), picture(3)]))
    assert total.shape == (2,)
    torch.testing.assert_close(total, torch.stack(list(terms.values())).sum(0))


def test_lanes_know_nothing_of_each_other():
    image = torch.cat([picture(1), picture(3)]).requires_grad_(True)
    content = torch.cat([picture(0), picture(2)])
    total, _ = objective(content=content, past=past(2))(image)
    (gradient,) = torch.autograd.grad(total[0], image)
    assert gradient[1].abs().max() == 0
    alone, _ = objective(past=past())(picture(1))
    torch.testing.assert_close(total[:1].detach(), alone, rtol=1e-5, atol=0)


@pytest.mark.parametrize("term", TERMS)
def test_every_term_reaches_the_image(term):
    image = (2 * picture(1) - 0.5).requires_grad_(True)
    _, terms = objective(past=past())(image)
    (gradient,) = torch.autograd.grad(terms[term].sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_the_temporal_term_pulls_only_where_the_past_is_trusted():
    image = picture(1).requires_grad_(True)
    _, terms = objective(past=past())(image)
    (gradient,) = torch.autograd.grad(terms["temporal"].sum(), image)
    assert gradient[..., 32:40].abs().max() == 0
    assert gradient[..., :32].abs().max() > 0
    assert gradient[..., 40:].abs().max() > 0


def test_a_frame_without_a_past_has_no_temporal_term():
    assert set(objective()(picture(1))[1]) == set(TERMS) - {"temporal"}


def test_the_frame_itself_has_no_content_loss_and_nothing_out_of_range():
    _, terms = objective()(picture(0))
    assert terms["content"].tolist() == [0]
    assert terms["range"].tolist() == [0]


def test_the_style_picture_itself_has_no_style_loss():
    _, terms = objective()(picture(9))
    assert terms["style"].item() < 1e-10


def test_a_weight_of_zero_switches_its_term_off():
    _, terms = objective(weights=Weights(content=0, style=0, tv=0, temporal=0), past=past())(picture(1))
    assert all(terms[name].item() == 0 for name in TERMS)


def test_the_paper_loss_has_the_published_normalisers():
    image, encoder = picture(1), TinyEncoder()
    _, terms = objective(replace(LOOK, loss="paper"))(image)
    found, content = encoder(image), encoder(picture(0))
    style = [losses.paper_style(losses.gram(found[layer]).mean, style_grams()[layer]) for layer in LAYERS]
    torch.testing.assert_close(terms["style"], 2.0 * sum(style) / 3)
    torch.testing.assert_close(terms["content"], 0.3 * losses.paper_content(found["far"], content["far"]))


def test_content_is_averaged_over_its_layers():
    both, near, far = (
        objective(replace(LOOK, content_layers=layers))(picture(1))[1]["content"]
        for layers in (("near", "far"), ("near",), ("far",))
    )
    torch.testing.assert_close(both, (near + far) / 2)


def test_style_layers_count_by_their_weights():
    def style(**changes):
        return objective(replace(LOOK, **changes))(picture(1))[1]["style"]

    near, far = style(style_layers=("near",)), style(style_layers=("far",))
    torch.testing.assert_close(style(style_layer_weights=(3.0, 0.0, 1.0)), 0.75 * near + 0.25 * far)
    torch.testing.assert_close(style(style_layer_weights=(5.0, 5.0, 5.0)), style())


def test_the_exponent_of_total_variation_is_an_option():
    _, terms = objective(replace(LOOK, tv_exponent=1.25))(picture(1))
    torch.testing.assert_close(terms["tv"], 0.7 * losses.total_variation(picture(1), 1.25))


def test_shares_of_the_style_layers_sum_to_1():
    assert style_shares(LOOK) == pytest.approx(dict.fromkeys(LAYERS, 1 / 3))
    uneven = LookOptions(style_layers=("relu1_1", "relu3_1"), style_layer_weights=(1.0, 3.0))
    assert style_shares(uneven) == {"relu1_1": 0.25, "relu3_1": 0.75}
