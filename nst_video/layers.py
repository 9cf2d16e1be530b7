"""The encoders and their layers by name: tables without torch, so that a wrong name is refused before heavy work."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .errors import UsageError


@dataclass(frozen=True)
class Layer:
    """One layer that can be asked for.

    smallest_side: pixels a side of the picture needs so that the layer has one whole place.
    module: where the network as torchvision builds it keeps the layer, which is also the prefix of its weights.
    also: other names it goes by.
    """

    smallest_side: int
    module: str
    also: tuple[str, ...] = ()


def _vgg_layers(convolutions: tuple[int, ...]) -> dict[str, Layer]:
    """`relu<block>_<i>` of a VGG with these convolutions per block; torchvision counts ReLUs and pools too."""
    layers, position = {}, 0
    for block, count in enumerate(convolutions, 1):
        for i in range(1, count + 1):
            layers[f"relu{block}_{i}"] = Layer(2 ** (block - 1), f"features.{position}")
            position += 2
        position += 1
    return layers


def _googlenet_layers() -> dict[str, Layer]:
    """The first convolutions and the blocks `inception_3a` to `inception_5b` of Szegedy et al. 2014."""
    layers = {"conv1": Layer(2, "conv1"), "conv2": Layer(4, "conv2"), "conv3": Layer(4, "conv3")}
    for stage, blocks in {"3": "ab", "4": "abcde", "5": "ab"}.items():
        for block in blocks:
            module = f"inception{stage}{block}"
            layers[f"inception_{stage}{block}"] = Layer(2 ** int(stage), module, (module,))
    return layers


def _inception_v3_layers() -> dict[str, Layer]:
    """The first convolutions and `mixed0` to `mixed10`, as Keras counts what torchvision calls Mixed_5b to 7c.

    The sides follow from its convolutions and pools without padding: 3x3, stride 2 makes (n − 3) // 2 + 1 of n places.
    """
    sides = {"1a_3x3": 3, "2a_3x3": 7, "2b_3x3": 7, "3b_1x1": 11, "4a_3x3": 19}
    layers = {f"Conv2d_{name}": Layer(side, f"Conv2d_{name}") for name, side in sides.items()}
    blocks = [stage + block for stage, blocks in {"5": "bcd", "6": "abcde", "7": "abc"}.items() for block in blocks]
    for number, block in enumerate(blocks):
        side = {"5": 27, "6": 43, "7": 75}[block[0]]
        layers[f"mixed{number}"] = Layer(side, f"Mixed_{block}", (f"Mixed_{block}",))
    return layers


# Encoder -> its layers from shallow to deep.
ENCODER_LAYERS: Mapping[str, Mapping[str, Layer]] = MappingProxyType(
    {
        "vgg19": _vgg_layers((2, 2, 4, 4, 4)),
        "vgg19-tv": _vgg_layers((2, 2, 4, 4, 4)),
        "vgg16": _vgg_layers((2, 2, 3, 3, 3)),
        "googlenet": _googlenet_layers(),
        "inception_v3": _inception_v3_layers(),
    }
)


def layer_names(encoder: str) -> tuple[str, ...]:
    """The layers of `encoder` from shallow to deep; UsageError for a name that is not in ENCODER_LAYERS.

    >>> layer_names("vgg19")[:3]
    ('relu1_1', 'relu1_2', 'relu2_1')
    """
    if encoder not in ENCODER_LAYERS:
        raise UsageError(f"unknown encoder {encoder!r}{_nearest(encoder, ENCODER_LAYERS)}")
    return tuple(ENCODER_LAYERS[encoder])


def check_layers(encoder: str, layers: Iterable[str]) -> tuple[str, ...]:
    """`layers` as a tuple when `encoder` has every one of them, else UsageError naming the nearest that exist."""
    known = layer_names(encoder)
    asked = tuple(layers)
    if not asked:
        raise UsageError(f"no layer was asked for; {encoder} has {', '.join(known)}")
    for layer in asked:
        find_layer(encoder, layer)
    return asked


def find_layer(encoder: str, layer: str) -> str:
    """The name in ENCODER_LAYERS of a layer given by that or another of its names; UsageError when there is none.

    >>> find_layer("inception_v3", "Mixed_5b")
    'mixed0'
    """
    known = layer_names(encoder)
    names = {also: name for name in known for also in (name, *ENCODER_LAYERS[encoder][name].also)}
    if layer not in names:
        raise UsageError(f"{encoder} has no layer {layer!r}{_nearest(layer, known)}")
    return names[layer]


def smallest_side(encoder: str, layers: Iterable[str]) -> int:
    """The smallest picture side in pixels that `encoder` takes for these layers.

    >>> smallest_side("vgg19", ["relu1_1", "relu4_2"])
    8
    """
    return max(
        ENCODER_LAYERS[encoder][find_layer(encoder, layer)].smallest_side for layer in check_layers(encoder, layers)
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: what was probably meant, then everything there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{meant} (there are {', '.join(names)})"
