"""Convolutions by fewer multiplications: the same numbers as torch's own, at every size and border."""

import pytest
import torch
import torch.nn.functional as F
from tiny import relative_error

from nst_video.devices import products
from nst_video.networks import winograd
from nst_video.networks.frozen import EitherKernel, FrozenConvolution, NarrowKernel, PictureKernel, PlainKernel
from nst_video.networks.winograd import WinogradKernel

WIDE = (160, 128)  # channels out of and into a layer that is computed this way


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights(out=6, channels=5, dtype=torch.float64):
    return random(out, channels, 3, 3, seed=1).to(dtype) / (9 * channels) ** 0.5


def exact(x, bias=None, *, margin, replicated=False):
    """In double precision, by torch."""
    if replicated:
        x, margin = F.pad(x, (margin,) * 4, mode="replicate"), 0
    return F.conv2d(x.double(), weights(), None if bias is None else bias.double(), padding=margin)


@pytest.mark.parametrize(("margin", "replicated"), [(0, False), (1, False), (1, True), (2, False)])
@pytest.mark.parametrize("size", [(3, 3), (4, 8), (5, 4), (6, 7), (13, 18)])
def test_it_is_the_convolution_that_torch_computes(size, margin, replicated):
    x, bias = random(2, 5, *size), random(6)
    for add in (bias, None):
        got = WinogradKernel.of(weights().float())(x, add, margin=margin, replicated=replicated)
        wanted = exact(x, add, margin=margin, replicated=replicated)
        assert got.shape == wanted.shape
        assert got.stride(1) == 1
        assert relative_error(got, wanted) < 3e-6


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_turned_it_takes_gradients_back(share):
    kernel, x = weights().float(), random(2, 5, 9, 14).double().requires_grad_()
    y = exact(x, margin=1)
    gradient = random(*y.shape, seed=2)
    (wanted,) = torch.autograd.grad(y, x, share * gradient.double())
    for made in (WinogradKernel.of(kernel), PlainKernel(kernel), PictureKernel(kernel)):
        assert relative_error(made.turned(share)(gradient, margin=1), wanted) < 3e-6
    assert WinogradKernel.of(kernel).turned().values.numel() == 36 * 6 * 5


@pytest.mark.parametrize("margin", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 3), (4, 7), (13, 18)])
def test_a_kernel_to_few_channels_is_the_convolution_that_torch_computes(size, margin):
    x = random(2, 5, *size).contiguous(memory_format=torch.channels_last)
    got, wanted = NarrowKernel.of(weights().float())(x, margin=margin), exact(x, margin=margin)
    assert got.shape == wanted.shape
    assert relative_error(got, wanted) < 3e-6


def test_gradients_of_a_picture_are_taken_back_so_on_a_cpu():
    layer = FrozenConvolution(3, 16, replicated=True)
    layer.freeze()
    x, gradient = random(2, 3, 9, 14).requires_grad_(), random(2, 16, 9, 14, seed=2)
    (found,) = torch.autograd.grad(layer(x), x, gradient)
    assert isinstance(layer.turned, NarrowKernel)
    (wanted,) = torch.autograd.grad(F.relu(layer.before_relu(x)), x, gradient)
    assert relative_error(found, wanted) < 3e-6
    assert isinstance(layer.to(torch.bfloat16).turned, PlainKernel)


def test_turned_it_has_its_memory_in_common():
    kernel = WinogradKernel.of(weights().float())
    assert kernel.turned().values.data_ptr() == kernel.values.data_ptr()


def test_rounding_is_magnified_half_as_much_as_by_integers(monkeypatch):
    weight, x = random(64, 96, 3, 3, seed=1) / 30, F.relu(random(1, 96, 40, 40))
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    errors = [relative_error(kernel(weight)(x, margin=1), wanted) for kernel in (WinogradKernel.of, PlainKernel)]
    assert 1 < errors[0] / errors[1] < 12
    assert errors[0] < 2e-6
    monkeypatch.setattr(winograd, "_POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    assert relative_error(WinogradKernel.of(weight)(x, margin=1), wanted) > 1.7 * errors[0]


def test_in_small_pieces_it_is_the_same(monkeypatch):
    x, bias, kernel = random(2, 5, 30, 14), random(6), WinogradKernel.of(weights().float())
    whole = kernel(x, bias, margin=1)
    in_rows = winograd._Pieces(channels=1, fewest=1, at_a_time=1)  # a row of patches at a time
    monkeypatch.setattr(winograd, "_pieces", lambda: in_rows)
    torch.testing.assert_close(kernel(x, bias, margin=1), whole, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("quick", "wide"), [(True, EitherKernel), (False, PlainKernel)])
def test_wide_layers_in_float32_are_computed_this_way_where_products_are_quick(monkeypatch, quick, wide):
    monkeypatch.setattr(products, "are_quick", lambda: quick)

    def kind(out, channels, dtype=torch.float32):
        return type(FrozenConvolution(channels, out, replicated=True).to(dtype).kernel)

    assert kind(*WIDE) is wide
    assert {kind(*WIDE, torch.bfloat16), kind(160, 64), kind(64, 160)} == {PlainKernel}


@pytest.mark.parametrize(("channels", "registers", "paid"), [(128, 256, True), (128, 512, False), (256, 512, True)])
def test_the_wider_the_registers_the_more_channels_it_takes(monkeypatch, channels, registers, paid):
    monkeypatch.setattr(products, "onednn", lambda: torch.mm)
    monkeypatch.setattr(winograd, "has_avx512", lambda: registers == 512)
    assert winograd.pays(channels, channels, torch.empty(1, channels, 72, 128), 1) is paid


@pytest.mark.parametrize(("by_onednn", "few", "many"), [(False, 16, 28), (True, 40, 56)])
def test_few_places_are_computed_as_torch_does_alone_or_in_a_batch(monkeypatch, by_onednn, few, many):
    monkeypatch.setattr(products, "onednn", lambda: torch.mm if by_onednn else None)
    monkeypatch.setattr(winograd, "has_avx512", lambda: not by_onednn)
    kernel, used = EitherKernel.of(random(*WIDE, 3, 3)), []
    monkeypatch.setattr(PlainKernel, "__call__", lambda *_, **__: used.append("plain"))
    monkeypatch.setattr(WinogradKernel, "__call__", lambda *_, **__: used.append("fewer"))
    for lanes, side in ((1, few), (4, few), (1, many)):
        kernel(random(lanes, WIDE[1], side, side), margin=1)
        kernel.turned()(random(lanes, WIDE[0], side, side), margin=1)
    assert used == ["plain"] * 4 + ["fewer"] * 2


@pytest.mark.parametrize(("side", "made", "not_made"), [(8, "plain", "fewer"), (64, "fewer", "plain")])
def test_only_the_way_that_is_taken_is_made(monkeypatch, side, made, not_made):
    monkeypatch.setattr(winograd, "has_avx512", lambda: False)
    kernel = EitherKernel.of(random(*WIDE, 3, 3)).turned()
    kernel(random(1, WIDE[0], side, side), margin=1)
    assert made in vars(kernel)
    assert not_made not in vars(kernel)


@pytest.mark.parametrize("side", [8, 40])
def test_either_way_turned_it_takes_gradients_back(side):
    weight, x = random(*WIDE, 3, 3) / 30, random(1, WIDE[1], side, side).double().requires_grad_()
    y = F.conv2d(x, weight.double(), padding=1)
    gradient = random(*y.shape, seed=2)
    (wanted,) = torch.autograd.grad(y, x, 0.25 * gradient.double())
    assert relative_error(EitherKernel.of(weight).turned(0.25)(gradient, margin=1), wanted) < 3e-6


def test_a_wide_frozen_layer_is_what_autograd_makes_of_the_steps():
    torch.manual_seed(0)
    layer = FrozenConvolution(*reversed(WIDE), replicated=True)
    x = random(2, WIDE[1], 7, 10).contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for freeze in (lambda: None, layer.freeze):
        freeze()
        y = layer(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        results.append((y.detach(), torch.autograd.grad(y, x, random(*y.shape, seed=3))[0]))
    for wanted, got in zip(*results, strict=True):
        assert relative_error(got, wanted) < 1e-5
