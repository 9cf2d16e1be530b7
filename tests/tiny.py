"""A stand-in for a pretrained network, and pictures to feed it: small enough for hundreds of evaluations a second."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_video.colors import to_image
from nst_video.options import LookOptions

LAYERS = ("near", "middle", "far")
LOOK = LookOptions(content_layers=("far",), style_layers=LAYERS)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """The root mean square of what is wrong, in units of that of what is wanted."""
    return float((got - wanted).norm() / wanted.norm())


class TinyEncoder(nn.Module):
    """Three fixed random convolutions with pooling between them, as an Encoder: image -> {layer name: activation}.

    It is called with picture 0, 1, 2 ...; those whose number is in `broken` come out as NaN, or only their `lane`.
    """

    name = "tiny"
    layers = LAYERS
    smallest_side = 16
    bases: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(self, broken: range | tuple[int, ...] = (), lane: int | None = None):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.kernels = []
        for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
            kernel = torch.randn(outputs, inputs, 3, 3, generator=generator)
            self.kernels.append(kernel / (3 * inputs**0.5))
        self.broken, self.lane, self.calls = broken, lane, 0

    def forward(self, image: Tensor, *, layers: Iterable[str] | None = None, native: bool = False) -> dict[str, Tensor]:
        x = image * 2 - 1
        found = {}
        for layer, kernel in zip(LAYERS, self.kernels, strict=True):
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel.to(x)))
            found[layer] = x * self._damage(x)
            x = F.avg_pool2d(x, 2, ceil_mode=True)
        self.calls += 1
        return found

    def _damage(self, x: Tensor) -> Tensor:
        """NaN for each lane that is broken now, else 1."""
        damage = torch.ones_like(x[:, :1, :1, :1])
        if self.calls in self.broken:
            damage[slice(None) if self.lane is None else self.lane] = torch.nan
        return damage


def texture(seed: int, height: int = 48, width: int = 64, *, grain: float = 2.0) -> np.ndarray:
    """uint8 (height, width, 3): smooth coloured noise with structure everywhere; `grain` pixels wide."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def picture(seed: int, height: int = 48, width: int = 64, *, grain: float = 2.0) -> Tensor:
    """The same as float32 (1, 3, height, width) in [0, 1]."""
    return to_image(texture(seed, height, width, grain=grain)[None])
