"""The encoders and their layers by name: tables without torch, so that a wrong name is refused before heavy work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nst_video.errors import UsageError
from nst_video.words import nearest

# Channels on both sides from which on a CPU computes a convolution in float32 by fewer multiplications (winograd.py)
# where places are many; with less, transforming takes as long as multiplying: scripts/bench_convolution.py.
WIDE = 128


@dataclass(frozen=True)
class Layer:
    """One layer that can be asked for.

    smallest_side: pixels a side of the picture needs so that the layer has one whole place.
    module: where the network as torchvision builds it keeps the layer, which is also the prefix of its weights.
    channels: how many it has.
    also: other names it goes by.
    reach: how many pixels beyond those below it one of its places sees to each side; None: not known.
    """

    smallest_side: int
    module: str
    channels: int
    also: tuple[str, ...] = ()
    reach: int | None = None


def _vgg_layers(blocks: tuple[tuple[int, ...], ...]) -> dict[str, Layer]:
    """`relu<block>_<i>` of a VGG whose convolutions have these channels; torchvision counts ReLUs and pools too."""
    layers, position = {}, 0
    for block, widths in enumerate(blocks, 1):
        for i, channels in enumerate(widths, 1):
            reach = _vgg_reach([len(convolutions) for convolutions in blocks[: block - 1]], i)
            layers[f"relu{block}_{i}"] = Layer(2 ** (block - 1), f"features.{position}", channels, reach=reach)
            position += 2
        position += 1
    return layers


def _vgg_reach(before: list[int], convolutions: int) -> int:
    """Pixels that a place sees to each side through so many 3x3 convolutions after blocks of `before`, a pool after
    each block.
    """
    reach = convolutions
    for count in reversed(before):
        reach = 2 * reach + count
    return reach


def _googlenet_layers() -> dict[str, Layer]:
    """The first convolutions and the blocks `inception_3a` to `inception_5b` of Szegedy et al. 2014."""
    layers = {"conv1": Layer(2, "conv1", 64), "conv2": Layer(4, "conv2", 64), "conv3": Layer(4, "conv3", 192)}
    widths = {"3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832, "5a": 832, "5b": 1024}
    for block, channels in widths.items():
        module = f"inception{block}"
        layers[f"inception_{block}"] = Layer(2 ** int(block[0]), module, channels, (module,))
    return layers


def _inception_v3_layers() -> dict[str, Layer]:
    """The first convolutions and `mixed0` to `mixed10`, as Keras counts what torchvision calls Mixed_5b to 7c.

    The sides follow from its convolutions and pools without padding: 3x3, stride 2 makes (n − 3) // 2 + 1 of n places.
    """
    stem = {"1a_3x3": (3, 32), "2a_3x3": (7, 32), "2b_3x3": (7, 64), "3b_1x1": (11, 80), "4a_3x3": (19, 192)}
    layers = {f"Conv2d_{name}": Layer(side, f"Conv2d_{name}", channels) for name, (side, channels) in stem.items()}
    widths = {"5b": 256, "5c": 288, "5d": 288, "6a": 768, "6b": 768, "6c": 768, "6d": 768, "6e": 768}
    for number, (block, channels) in enumerate((widths | {"7a": 1280, "7b": 2048, "7c": 2048}).items()):
        side = {"5": 27, "6": 43, "7": 75}[block[0]]
        layers[f"mixed{number}"] = Layer(side, f"Mixed_{block}", channels, (f"Mixed_{block}",))
    return layers


_VGG19 = _vgg_layers(((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4))
# Half the time of a layer at full size is moving its channels through memory, so there is one, and it is narrow; a deep
# one costs little, and what the deepest tap lacks in width shows most in the pictures.
_SLIM = _vgg_layers(((16,), (32,), (64, 64), (128, 128, 192), (256,)))

# Encoder -> its layers from shallow to deep.
ENCODER_LAYERS: Mapping[str, Mapping[str, Layer]] = MappingProxyType(
    {
        "vgg19": _VGG19,
        "slim": _SLIM,
        "vgg19-tv": _VGG19,
        "vgg16": _vgg_layers(((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)),
        "googlenet": _googlenet_layers(),
        "inception_v3": _inception_v3_layers(),
    }
)


# Encoders that stand for a larger one: other pooling, or losses counted by channels, would not mean the same.
DISTILLED = frozenset({"slim"})


def layer_names(encoder: str) -> tuple[str, ...]:
    """The layers of `encoder` from shallow to deep; UsageError for a name that is not in ENCODER_LAYERS.

    >>> layer_names("vgg19")[:3]
    ('relu1_1', 'relu1_2', 'relu2_1')
    """
    if encoder not in ENCODER_LAYERS:
        raise UsageError(
            f"unknown encoder {encoder!r}{nearest(encoder, ENCODER_LAYERS)}; there are {', '.join(ENCODER_LAYERS)}"
        )
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
        raise UsageError(
            f"{encoder} has no layer {layer!r}{nearest(layer, known, most=3)}; there are {', '.join(known)}"
        )
    return names[layer]


def smallest_side(encoder: str, layers: Iterable[str]) -> int:
    """The smallest picture side in pixels that `encoder` takes for these layers.

    >>> smallest_side("vgg19", ["relu1_1", "relu4_2"])
    8
    """
    return max(
        ENCODER_LAYERS[encoder][find_layer(encoder, layer)].smallest_side for layer in check_layers(encoder, layers)
    )
