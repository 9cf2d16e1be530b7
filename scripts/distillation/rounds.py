"""What optimisation through the student makes: its blind spots become texture, so it is shown them and learns."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nst_video.networks.encoders import Encoder
from nst_video.optimization.losses import NORMALISERS
from nst_video.optimization.objective import FrameObjective, Weights, style_statistics
from nst_video.optimization.optimizers import minimise
from nst_video.options import LookOptions

from .pictures import Crops

LOOK = LookOptions()
# Evaluations between the moments at which the picture is kept: the early ones change it most.
MOMENTS = (2, 4, 8, 16, 30)
STARTS = (("content", 0.6), ("noise", 0.2), ("other", 0.2))


class Memory:
    """Pairs of moments of the same picture, in half precision, the oldest overwritten."""

    def __init__(self, room: int, side: int, device: torch.device | str) -> None:
        """room: how many pairs of pictures with `side` pixels a side."""
        self.pairs = torch.empty((room, 2, 3, side, side), dtype=torch.float16, device=device)
        self.count = 0  # ever added

    def add(self, pair: Tensor) -> None:
        """Keep one more pair (2, 3, s, s)."""
        self.pairs[self.count % len(self.pairs)] = pair
        self.count += 1

    def kept(self) -> Tensor:
        """All pairs there are, a copy (n, 2, 3, s, s)."""
        return self.pairs[: self.count].clone()

    def restore(self, pairs: Tensor, count: int) -> None:
        """Hold what another one held."""
        self.pairs[: len(pairs)] = pairs
        self.count = count

    def sample(self, count: int, rng: np.random.Generator) -> Tensor:
        """(2 · count, 3, s, s): the first moments of `count` pairs, then the second ones."""
        there = min(self.count, len(self.pairs))
        chosen = self.pairs[torch.from_numpy(rng.integers(there, size=count)).to(self.pairs.device)].float()
        return torch.cat([chosen[:, 0], chosen[:, 1]])


def paint(encoder: Encoder, crops: Crops, memory: Memory, count: int, side: int, rng: np.random.Generator) -> None:
    """Paint `count` crops through the encoder, each in the style of another picture; remember pairs of moments."""
    device = next(encoder.parameters()).device
    content, styles = (crops.sample(count, side, rng).to(device) for _ in range(2))
    with torch.no_grad():
        features = encoder(styles)
        targets = {layer: style_statistics(encoder, features, layer) for layer in LOOK.style_layers}
    image, curvature = start(content, crops, rng), None
    objective = FrameObjective(encoder, LOOK, content=content, styles=targets, weights=some_weights(rng))
    moments = [image]
    for evaluations in MOMENTS:
        found = minimise(objective, image, evaluations=evaluations, curvature=curvature)
        image, curvature = found.image, found.curvature
        moments.append(image)
    for lane in range(count):
        if bool(image[lane].isfinite().all()):
            first = int(rng.integers(len(moments) - 1))
            second = int(rng.integers(first + 1, len(moments)))
            memory.add(torch.stack([moments[first][lane], moments[second][lane]]))
            memory.add(torch.stack([moments[-1][lane], content[lane]]))


def start(content: Tensor, crops: Crops, rng: np.random.Generator) -> Tensor:
    """Where the optimisation begins: the frame, noise, or another picture."""
    kind = rng.choice([name for name, _ in STARTS], p=[share for _, share in STARTS])
    if kind == "noise":
        return torch.from_numpy(rng.random(content.shape, dtype=np.float32)).to(content.device)
    return content if kind == "content" else crops.sample(len(content), content.shape[-1], rng).to(content.device)


def some_weights(rng: np.random.Generator) -> Weights:
    """The default weights, with content and smoothing drawn around them."""
    default = NORMALISERS["relative"]
    return Weights(
        content=default.content_weight * float(np.exp(rng.uniform(-2, 1))),
        style=default.style_weight,
        tv=default.tv_weight * float(np.exp(rng.uniform(-2, 0.5))),
        temporal=0.0,
    )
