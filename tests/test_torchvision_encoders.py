"""GoogLeNet and Inception v3 with random weights against torchvision's own forward pass."""

import importlib

import pytest
import torch

from nst_video.dreaming.dreamer import load_dreamer
from nst_video.dreaming.options import DreamOptions
from nst_video.errors import InputError, ResourceError
from nst_video.flow.motion import Motion
from nst_video.networks.encoders import ENCODERS, load_encoder
from nst_video.networks.layers import ENCODER_LAYERS, layer_names

BRANCHING = ("googlenet", "inception_v3")


def torchvision_fault() -> str:
    """Why torchvision cannot be used here, or nothing."""
    try:
        importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError, AttributeError) as error:
        return str(error).splitlines()[0]
    return ""


FAULT = torchvision_fault()
needs_torchvision = pytest.mark.skipif(bool(FAULT), reason=f"torchvision: {FAULT}")


@pytest.fixture(scope="module", params=BRANCHING)
def network(request, tmp_path_factory):
    """(name, torchvision's network with random weights and statistics, the file they were saved to)."""
    from torchvision import models

    torch.manual_seed(0)
    net = getattr(models, request.param)(weights=None, aux_logits=True, init_weights=False, transform_input=True).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.1, 0.3)
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.pth"
    torch.save(net.state_dict(), path)
    return request.param, net, path


def outputs(net: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Stage -> its output when torchvision runs the network on a picture in [0, 1], normalised as it asks."""
    seen = {}
    for key, stage in net.named_children():
        stage.register_forward_hook(lambda module, inputs, output, key=key: seen.setdefault(key, output.clone()))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        net((image - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1))
    return seen


@needs_torchvision
def test_every_layer_equals_torchvisions_own(network):
    name, net, path = network
    image = torch.rand(1, 3, 150, 123, generator=torch.Generator().manual_seed(1))
    wanted = outputs(net, image)
    got = load_encoder(name, pooling="max", padding="zero", weights=path)(image)
    assert list(got) == list(layer_names(name))
    for layer, tap in got.items():
        torch.testing.assert_close(tap, wanted[ENCODER_LAYERS[name][layer].module], rtol=1e-3, atol=1e-5)
        assert tap.shape[1] == ENCODER_LAYERS[name][layer].channels


@needs_torchvision
def test_each_layer_takes_its_smallest_side_and_refuses_one_pixel_less(network):
    name, _, path = network
    for layer in (layer_names(name)[0], layer_names(name)[4], layer_names(name)[-1]):
        encoder = load_encoder(name, [layer], weights=path)
        side = encoder.smallest_side
        assert encoder(torch.rand(1, 3, side, side))[layer].shape[-2:] == (1, 1)
        with pytest.raises(InputError, match=f"need {side} pixels or more"):
            encoder(torch.rand(1, 3, side, side - 1))


@needs_torchvision
def test_other_names_bf16_and_the_gradient(network):
    name, _, path = network
    layer = ENCODER_LAYERS[name][layer_names(name)[6]].module
    exact, fast = (load_encoder(name, [layer], weights=path, precision=precision) for precision in ("fp32", "bf16"))
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)).requires_grad_()
    tap = exact(image)[layer]
    assert torch.linalg.vector_norm(fast(image)[layer] - tap) < 0.05 * torch.linalg.vector_norm(tap)
    tap.square().mean().backward()
    assert bool((image.grad.abs().sum(1) > 0).float().mean() > 0.9)
    assert all(not parameter.requires_grad for parameter in exact.parameters())


@needs_torchvision
def test_average_pooling_and_replicated_borders_change_the_border_and_the_values(network):
    name, _, path = network
    layer = layer_names(name)[4]  # Before Inception v3's blocks, whose own average pools have zeros round them.
    image = torch.full((1, 3, 96, 96), 0.7)
    flat = load_encoder(name, [layer], weights=path, padding="replicate", pooling="average")(image)[layer]
    # A picture of one colour has no border when borders are repeated, and the average of equal values is each of them.
    assert float(flat.std((2, 3)).max()) < 1e-4 * float(flat.abs().max())
    framed = load_encoder(name, [layer], weights=path, padding="zero", pooling="average")(image)[layer]
    assert float(framed.std((2, 3)).max()) > 1e-3 * float(framed.abs().max())


@needs_torchvision
def test_they_dream_by_their_usual_names(network):
    name, _, path = network
    layer = {"googlenet": "inception_3b:5-200", "inception_v3": "Mixed_5b:5-200"}[name]
    options = DreamOptions(layers=(layer,), octaves=1, first_iterations=6, jitter=0, smoothing=-1.0)
    dreamer = load_dreamer(options, encoder=name, weights=path)
    image = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    _, state = dreamer.step(image, Motion.none(1, 64, 80), dreamer.initial_state())
    assert state.report.trace[-1] > state.report.trace[0]


@needs_torchvision
def test_weights_of_one_network_do_not_pass_for_another(network):
    name, _, path = network
    other = BRANCHING[1 - BRANCHING.index(name)]
    with pytest.raises(InputError, match=f"do not fit {other}: they lack"):
        load_encoder(other, weights=path)


@needs_torchvision
def test_addresses_are_torchvisions_own():
    from torchvision import models

    enums = {
        "vgg19-tv": models.VGG19_Weights,
        "vgg16": models.VGG16_Weights,
        "googlenet": models.GoogLeNet_Weights,
        "inception_v3": models.Inception_V3_Weights,
    }
    for name, weights in enums.items():
        assert ENCODERS[name].source.url == weights.IMAGENET1K_V1.url
        assert f"-{ENCODERS[name].source.sha256}." in weights.IMAGENET1K_V1.url


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torchvision'"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_a_torchvision_that_is_missing_or_does_not_fit_gives_one_line(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr("nst_video.networks.vgg.importlib.import_module", fail)
    with pytest.raises(ResourceError, match="pip install --upgrade torch torchvision") as caught:
        load_encoder("googlenet", ["conv1"], offline=True)
    assert str(error) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ResourceError, match="--offline"):
        load_encoder("vgg16", ["relu1_1"], offline=True)
