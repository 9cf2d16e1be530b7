"""The encoders and their layers by name: tables without torch, so that a wrong name is refused before heavy work."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from .errors import UsageError


def _vgg_layers(convolutions: tuple[int, ...]) -> dict[str, int]:
    """Layer name -> smallest picture side: 2^(block - 1) pixels, those that one place of the layer stands for."""
    return {
        f"relu{block}_{i}": 2 ** (block - 1) for block, count in enumerate(convolutions, 1) for i in range(1, count + 1)
    }


# Encoder -> its layers in order of depth, each with the smallest picture side in pixels that leaves it one whole place.
ENCODER_LAYERS: Mapping[str, Mapping[str, int]] = MappingProxyType({"vgg19": _vgg_layers((2, 2, 4, 4, 4))})


def layer_names(encoder: str) -> tuple[str, ...]:
    """The layers of `encoder` from shallow to deep; UsageError for a name that is not in ENCODER_LAYERS."""
    if encoder not in ENCODER_LAYERS:
        raise UsageError(f"unknown encoder {encoder!r}{_nearest(encoder, ENCODER_LAYERS)}")
    return tuple(ENCODER_LAYERS[encoder])


def check_layers(encoder: str, layers: Iterable[str]) -> tuple[str, ...]:
    """`layers` as a tuple when `encoder` has every one of them, else UsageError naming the nearest that exist."""
    known = layer_names(encoder)
    asked = tuple(layers)
    if not asked:
        raise UsageError(f"no layer given; {encoder} has {', '.join(known)}")
    for layer in asked:
        if layer not in known:
            raise UsageError(f"{encoder} has no layer {layer!r}{_nearest(layer, known)}")
    return asked


def smallest_side(encoder: str, layers: Iterable[str]) -> int:
    """The smallest picture side in pixels that `encoder` takes for these layers."""
    return max(ENCODER_LAYERS[encoder][layer] for layer in check_layers(encoder, layers))


def _nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line: what was probably meant, then everything there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{meant} (there are {', '.join(names)})"
