"""The loss written out, with its gradient, as CPUs and GPUs have it: the same as autograd finds."""

from copy import copy
from dataclasses import replace

import pytest
import torch
from tiny import picture

from nst_video.networks import borders
from nst_video.networks.encoders import load_encoder
from nst_video.networks.inplace import InplaceVgg
from nst_video.networks.padded import PaddedVgg
from nst_video.optimization.direct import Direct, can_evaluate
from nst_video.optimization.objective import FrameObjective, Missed, Past, Weights, style_statistics
from nst_video.optimization.optimizers import minimise, value_and_gradient
from nst_video.options import LookOptions

LOOK = LookOptions()
WEIGHTS = Weights(content=0.05, style=torch.tensor([1.0, 2.0]), tv=0.5, temporal=20.0)
SIZE = (45, 66)  # odd where pools halve it


def channels_last(*shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)


def problem(name="slim", precision="fp32", look=LOOK, *, past=True, missed=()):
    """The loss of two lanes. missed: layers of which the encoder misses something."""
    encoder = load_encoder(name, (*look.style_layers, *look.content_layers), precision=precision)
    content = torch.cat([picture(1, *SIZE), picture(2, *SIZE)])
    seen = encoder(picture(9, *SIZE))
    styles = {layer: style_statistics(encoder, seen, layer) for layer in look.style_layers}
    trust = torch.full((2, 2, 1, *SIZE), 0.4)
    before = Past(torch.stack([content.flip(3), content.flip(2)], dim=1), trust) if past else None
    objective = FrameObjective(encoder, look, content=content, styles=styles, weights=WEIGHTS, past=before)
    seen = encoder(content)
    painting, frame = ({x: 0.3 * layer_like(seen[x], number) for x in missed} for number in (1, 2))
    of_content = {layer: values for layer, values in frame.items() if layer in look.content_layers}
    return objective.aimed_at(styles, Missed(painting, of_content)) if missed else objective


def layer_like(features, seed):
    generator = torch.Generator().manual_seed(seed)
    return features.std() * torch.randn(features.shape, generator=generator)


def by_autograd(objective):
    """The same, not written out."""
    objective = copy(objective)
    objective.direct = False
    return objective


def exactly(objective):
    """Loss, gradient and terms by autograd."""
    return value_and_gradient(by_autograd(objective), image())


class WrittenOut:
    """A loss by one of the networks, as a minimiser takes it."""

    def __init__(self, objective, network):
        self.written_out = Direct(objective, network)


def image():
    return 1.2 * torch.cat([picture(3, *SIZE), picture(4, *SIZE)]) - 0.1


def off(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


BOTH = pytest.mark.parametrize("network", [InplaceVgg, PaddedVgg])
DEEP = replace(LOOK, style_layers=("relu2_2", "relu3_1"), content_layers=("relu2_2", "relu3_1"))


@pytest.mark.parametrize(
    ("name", "look", "missed"),
    [
        ("slim", LOOK, ()),
        ("slim", replace(LOOK, loss="paper"), ()),
        ("slim", LOOK, ("relu5_1", "relu4_2")),
        ("vgg19", LOOK, ()),
        ("vgg19", DEEP, ()),
        ("vgg19", DEEP, ("relu2_2", "relu3_1")),
    ],
    ids=["slim", "paper", "slim, completed", "vgg19", "two losses a layer", "two losses a layer, completed"],
)
@pytest.mark.parametrize("past", [False, True])
@BOTH
def test_loss_gradient_and_terms_are_those_of_autograd(network, name, look, missed, past):
    objective = problem(name, look=look, past=past, missed=missed)
    wanted, found = exactly(objective), Direct(objective, network)(image())
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=0)
    assert off(found[1], wanted[1]) < 1e-5
    assert found[2].keys() == wanted[2].keys()
    for term, values in wanted[2].items():
        torch.testing.assert_close(found[2][term], values, rtol=1e-4, atol=1e-7, msg=term)


@BOTH
def test_in_bf16_the_gradient_is_as_near_to_the_exact_one_as_that_of_autograd(network):
    exact = exactly(problem("vgg19"))[1]
    objective = problem("vgg19", "bf16")
    usual = off(exactly(objective)[1], exact)
    assert off(Direct(objective, network)(image())[1], exact) < max(1.3 * usual, 0.02)


@BOTH
def test_the_same_picture_is_found(network):
    objective = problem()
    wanted = minimise(by_autograd(objective), image(), evaluations=8)
    found = minimise(WrittenOut(objective, network), image(), evaluations=8)
    assert torch.equal(found.accepted, wanted.accepted)
    torch.testing.assert_close(found.record["loss"], wanted.record["loss"], rtol=1e-3, atol=0)


@BOTH
def test_what_is_missed_changes_the_loss(network):
    found = [Direct(problem(missed=missed), network)(image())[2] for missed in ((), ("relu5_1",), ("relu4_2",))]
    without, style, content = ({term: values.tolist() for term, values in terms.items()} for terms in found)
    assert style["style"] != without["style"]
    assert style["content"] == pytest.approx(without["content"])
    assert content["content"] != without["content"]
    assert content["style"] == pytest.approx(without["style"])


@pytest.mark.parametrize(
    "options", [{"padding": "zero"}, {"pooling": "max"}], ids=["zeros round the layers", "max pools"]
)
def test_other_networks_are_left_to_autograd(options):
    encoder = load_encoder("slim", (*LOOK.style_layers, *LOOK.content_layers), **options)
    objective = problem()
    assert can_evaluate(objective)
    objective.encoder = encoder
    assert not can_evaluate(objective)


def test_another_exponent_of_total_variation_is_left_to_autograd():
    assert not can_evaluate(problem(look=replace(LOOK, tv_exponent=1.25)))


def test_a_cpu_has_its_losses_written_out_in_place():
    objective = problem()
    assert isinstance(objective.written_out.network, InplaceVgg)
    assert by_autograd(objective).written_out is None


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (32, 33), (47, 32)])
def test_in_place_is_right_for_sides_of_every_parity(size):
    encoder = load_encoder("slim", (*LOOK.style_layers, *LOOK.content_layers))
    content, other = picture(1, *size), picture(5, *size)
    styles = {layer: style_statistics(encoder, encoder(other), layer) for layer in LOOK.style_layers}
    weights = replace(WEIGHTS, style=1.0)
    objective = FrameObjective(encoder, LOOK, content=content, styles=styles, weights=weights)
    wanted = value_and_gradient(by_autograd(objective), other.flip(3))[1]
    assert off(value_and_gradient(objective, other.flip(3))[1], wanted) < 1e-5


def test_an_evaluation_in_place_leaves_the_image_and_the_network_as_they_were():
    objective, start = problem(), image()
    before = {name: value.clone() for name, value in (objective.tensors() | {"image": start}).items()}
    first, second = value_and_gradient(objective, start), value_and_gradient(objective, start)
    assert torch.equal(first[1], second[1])
    for name, value in (objective.tensors() | {"image": start}).items():
        assert torch.equal(value, before[name]), name


def test_a_picture_in_parts_is_the_picture():
    x = torch.rand(2, 3, 9, 12)
    parts = borders.split(x)
    assert parts.shape == (2, borders.PARTS, 11, 14)
    whole = sum(parts[:, 3 * part : 3 * part + 3].double() for part in range(3))
    assert (borders.inside(whole) - x).abs().max() < 1e-7
    assert torch.equal(whole[:, :, 0, 1:-1].float(), x[:, :, 0])


def test_a_gradient_in_two_parts_is_their_sum_with_what_fell_on_the_border():
    g = channels_last(1, 8, 6, 7)
    found = borders.joined(g)
    x = torch.zeros(1, 8, 4, 5, requires_grad=True)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    (wanted,) = torch.autograd.grad((padded * g).sum(), x)
    torch.testing.assert_close(found, wanted[:, :3] + wanted[:, 3:6])


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 3), (2, 2)])
def test_pools_and_borders_are_those_of_the_network(size):
    y = channels_last(2, 8, size[0] + 2, size[1] + 2)
    inner = borders.inside(y).clone().requires_grad_(True)
    lit = inner.relu()
    small = torch.nn.functional.pad(
        torch.nn.functional.avg_pool2d(lit, 2, ceil_mode=True), (1, 1, 1, 1), mode="replicate"
    )
    y = torch.nn.functional.pad(lit.detach(), (1, 1, 1, 1)).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(borders.pooled(y), small)
    g = channels_last(*small.shape)
    (wanted,) = torch.autograd.grad((small * g).sum(), inner)
    found = borders.unpooled(y, g, None)
    torch.testing.assert_close(borders.inside(found), wanted)
    borders.clear_edge(y)
    borders.repeat_edge(y)
    assert torch.equal(y, torch.nn.functional.pad(lit.detach(), (1, 1, 1, 1), mode="replicate"))
