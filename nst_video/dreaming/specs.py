"""What is to be dreamed, as text and as numbers: layers, channels and weights, checked without torch."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nst_video.errors import UsageError
from nst_video.networks.layers import DISTILLED, ENCODER_LAYERS, find_layer, layer_names, smallest_side
from nst_video.optimization.tiles import MINIMAL_TILE

_FORM = re.compile(r"(?P<layer>[^:=]+)(?::(?P<first>[^-=:]+)(?:-(?P<last>[^-=:]+))?)?(?:=(?P<weight>.+))?")
_ALLOWED = "allowed LAYER, LAYER=WEIGHT, LAYER:CHANNEL or LAYER:FIRST-LAST, such as relu5_1:10-20=0.5"
_PIXEL_BYTES = 8_000  # that a gradient through VGG takes in fp32; other networks take less


@dataclass(frozen=True)
class LayerSpec:
    """A layer, by its name in ENCODER_LAYERS, whose activations are to grow.

    first, last: the channels that count, both included. weight: beside other specs, 0 or more.
    """

    layer: str
    first: int
    last: int
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.layer}:{self.first}-{self.last}"

    @property
    def channels(self) -> slice:
        """The channels that count."""
        return slice(self.first, self.last + 1)


def parse_layer(text: str, encoder: str) -> LayerSpec:
    """`relu4_3`, `relu4_3=0.5`, `relu5_1:87` or `relu5_1:10-20=0.5`; UsageError, naming the nearest, for what
    `encoder` does not have.

    >>> parse_layer("relu5_1:10-20=0.5", "vgg19")
    LayerSpec(layer='relu5_1', first=10, last=20, weight=0.5)
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--layers {text!r} is no layer to dream; {_ALLOWED}")
    layer = find_layer(encoder, match["layer"].strip())
    count = ENCODER_LAYERS[encoder][layer].channels
    first = 0 if match["first"] is None else _channel(match["first"], text, encoder, layer)
    last = count - 1 if match["first"] is None else first
    if match["last"] is not None:
        last = _channel(match["last"], text, encoder, layer)
    if first > last:
        raise UsageError(f"--layers {text!r} has its channels the wrong way round; write {layer}:{last}-{first}")
    return LayerSpec(layer, first, last, 1.0 if match["weight"] is None else _weight(match["weight"], text))


def _channel(number: str, text: str, encoder: str, layer: str) -> int:
    """A channel that the layer has."""
    last = ENCODER_LAYERS[encoder][layer].channels - 1
    if not re.fullmatch(r"\s*\d{1,9}\s*", number, re.ASCII):
        raise UsageError(f"--layers {text!r}: {number!r} is no number of a channel; {_ALLOWED}")
    if int(number) > last:
        raise UsageError(
            f"--layers {text!r}: {layer} of {encoder} has no channel {int(number)}; the nearest is {last} "
            f"(there are 0 to {last})"
        )
    return int(number)


def _weight(number: str, text: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1e6:
        raise UsageError(f"--layers {text!r}: the weight {number!r} is not allowed; allowed 0 to 1000000")
    return weight


def parse_layers(texts: Iterable[str], encoder: str) -> tuple[LayerSpec, ...]:
    """Every one of `texts`; UsageError also where there is none, one comes twice, or no weight is above 0."""
    specs = tuple(parse_layer(text, encoder) for text in texts)
    if not specs:
        raise UsageError(f"--layers names nothing to dream; {_ALLOWED}")
    places = [(spec.layer, spec.first, spec.last) for spec in specs]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise UsageError(f"--layers names {twice[0]} with the same channels twice; allowed each once")
    if not any(spec.weight > 0 for spec in specs):
        raise UsageError("--layers has only weights of 0; allowed one or more above 0")
    return specs


def dreamed_layers(texts: Iterable[str], encoder: str) -> tuple[str, ...]:
    """The layers that the encoder must give for these specs, each once: what `load_encoder` wants.

    >>> dreamed_layers(["relu4_3=0.5", "relu5_1:87", "relu5_1:88"], "vgg19")
    ('relu4_3', 'relu5_1')
    """
    return tuple(dict.fromkeys(spec.layer for spec in parse_layers(texts, encoder)))


def pooling_for(encoder: str) -> str:
    """How a network that dreams pools: by maxima as it was trained, which shows faces where averages show dots."""
    return "average" if encoder in DISTILLED else "max"


def check_mix(mix: Sequence[float], texts: Sequence[str]) -> None:
    """UsageError unless `mix` has one weight, 0 or more, for each of the layers, and not only zeros."""
    fits = len(mix) == len(texts) and all(0 <= weight < math.inf for weight in mix) and sum(mix) > 0
    if not fits:
        shown = ",".join(f"{weight:g}" for weight in mix)
        raise UsageError(
            f"a mix of layers of {shown or 'nothing'} is not allowed; allowed one weight of 0 or more for each of "
            f"{', '.join(texts)}, not all 0"
        )


@dataclass(frozen=True)
class LayerLine:
    """A line of `--list-layers`: also: other names; smallest_side: of a picture, in pixels."""

    name: str
    channels: int
    smallest_side: int
    also: tuple[str, ...]


def list_layers(encoder: str) -> tuple[LayerLine, ...]:
    """The layers of an encoder from shallow to deep; UsageError, naming the nearest, for an unknown encoder.

    >>> list_layers("googlenet")[5].name, list_layers("googlenet")[5].channels
    ('inception_4a', 512)
    """
    table = ENCODER_LAYERS[encoder] if layer_names(encoder) else {}
    return tuple(LayerLine(name, entry.channels, entry.smallest_side, entry.also) for name, entry in table.items())


def octave_sizes(size: tuple[int, int], octaves: int, octave_scale: float) -> list[tuple[int, int]]:
    """(H, W) of each octave, the smallest first; the last is `size`.

    >>> octave_sizes((144, 256), 3, 1.4)
    [(73, 131), (103, 183), (144, 256)]
    """
    factors = [octave_scale ** -(octaves - 1 - number) for number in range(octaves)]
    return [(max(1, round(size[0] * factor)), max(1, round(size[1] * factor))) for factor in factors]


def check_octaves(
    size: tuple[int, int], octaves: int, octave_scale: float, encoder: str, layers: Iterable[str]
) -> None:
    """UsageError where the smallest octave of a frame (H, W) is too small for a layer, saying how many would do."""
    needed = smallest_side(encoder, layers)
    if min(octave_sizes(size, octaves, octave_scale)[0]) >= needed:
        return
    possible = [count for count in range(1, octaves) if min(octave_sizes(size, count, octave_scale)[0]) >= needed]
    instead = f"--octaves {possible[-1]} or fewer" if possible else "a larger --size"
    raise UsageError(
        f"--octaves {octaves} is too many for {size[1]}x{size[0]} pixels: the smallest would be "
        f"{min(octave_sizes(size, octaves, octave_scale)[0])} pixels high or wide, and these layers of {encoder} "
        f"need {needed}; allowed {instead}"
    )


def tile_for(size: tuple[int, int], available: int | None) -> int | None:
    """The side of the tiles in which a gradient at (H, W) `size` fits half of `available` bytes; None: in one piece.

    What a plan puts in place of an undecided `--tile`, so that a resumed render has the same.
    """
    if available is None or size[0] * size[1] * _PIXEL_BYTES <= available / 2:
        return None
    side = int(math.sqrt(available / 2 / _PIXEL_BYTES))
    return max(MINIMAL_TILE, side // 64 * 64)
