"""Dreaming on a live canvas: what a network sees in the picture grows, held back by the picture itself."""

import numpy as np
from torch import Tensor

from nst_video.dreaming.ascent import offsets, shifted
from nst_video.dreaming.objective import DreamObjective
from nst_video.dreaming.options import DreamOptions
from nst_video.dreaming.specs import dreamed_layers, parse_layers, pooling_for
from nst_video.live.canvas import Canvas, to_tensor
from nst_video.networks.encoders import load_encoder
from nst_video.optimization import losses
from nst_video.options import MachineOptions
from nst_video.presets import resolve_dream

_ENCODER = "vgg19"  # a small network that was made for style has never seen an animal
_HELD = 40.0  # weight of staying near the picture, beside the logarithm of the activations
_SMOOTH = 0.5  # of the total variation
_CLIPPED = 50.0  # of what cannot be shown
_SHIFTS = 64  # after as many steps the same ones come again


class Dream:
    """A network and what it is to see more of."""

    def __init__(self, machine: MachineOptions) -> None:
        """machine: settled."""
        options = resolve_dream(DreamOptions(), "draft", _ENCODER)
        encoder = load_encoder(
            _ENCODER,
            dreamed_layers(options.layers, _ENCODER),
            pooling=pooling_for(_ENCODER),
            device=machine.device,
            precision=machine.precision,
            offline=machine.offline,
        )
        self.objective = DreamObjective(encoder, parse_layers(options.layers, _ENCODER))
        self.weights = [spec.weight for spec in self.objective.specs]
        self.device, self.jitter, self.seed, self.done = machine.device, options.jitter, 0, 0

    def improved(self, strength: float, canvas: Canvas, content: np.ndarray, steps: int) -> Canvas:
        """The canvas after some steps deeper into the dream; `content` (H, W, 3) holds it back, by 1 / strength^2."""
        picture = to_tensor(content, self.device)
        held = _HELD / max(strength, 1e-3) ** 2

        def loss(image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            # Under the network the picture lies elsewhere in every step, or its grid would be dreamed as well.
            size = (image.shape[2], image.shape[3])
            shift = offsets(self.seed, 0, size, self.jitter, _SHIFTS)[self.done % _SHIFTS]
            self.done += 1
            seen = self.objective.terms(shifted(image, shift)).log()
            grown = (seen * seen.new_tensor(self.weights)[:, None]).sum()
            away = held * (image - picture).square().mean()
            smooth = _SMOOTH * losses.total_variation(image, 1.0).sum()
            return away + smooth + _CLIPPED * losses.out_of_range(image).sum() - grown, {}

        return canvas.improved(loss, steps, self.device)
