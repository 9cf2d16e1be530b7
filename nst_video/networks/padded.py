"""A VGG on a GPU: Gram sums and activations of a picture, and the way back, in buffers that have a border already.

The same as the network in vgg.py gives, written out: what autograd and a function for each step copy, pad and pool
takes several times as long as the convolutions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices.kernels import kernels
from nst_video.networks import borders
from nst_video.networks.frozen import mirrored
from nst_video.networks.vgg import Vgg


def steps_on(device: torch.device) -> ModuleType:
    """borders.py, or the same as single kernels."""
    return kernels("networks.borders_triton", device) or borders


# Places of a layer up to which a border is laid on by a copy: libraries cut a result in blocks of 128 places, and those
# of 64x64 are as many as the processors of an H100, where those of 66x66 take another round.
_SMALL = 20_000


@dataclass(frozen=True)
class _Layer:
    """One convolution: kernels that take activations there and gradients back, channels last."""

    position: str
    weight: Tensor
    bias: Tensor
    back: Tensor
    pooled: bool  # before it


@dataclass(frozen=True)
class Seen:
    """What the network saw, by the position of the layer: sums F F' (B, C, C) and activations, in their buffers. kept:
    what the way back takes, a buffer for each layer.
    """

    sums: dict[str, Tensor]
    buffers: dict[str, Tensor]
    kept: list[Tensor]
    sizes: dict[str, tuple[int, int]]  # (h, w)


class PaddedVgg:
    """The convolutions of a Vgg with replicated borders and average pools, prepared once."""

    def __init__(self, network: Vgg, sums: frozenset[str], features: frozenset[str]) -> None:
        """sums, features: the layers of which each is asked for, by their positions in the network."""
        self.dtype, self.sums, self.features = network.dtype, sums, features
        self.layers: list[_Layer] = []
        for position, convolution in network.features.items():
            weight, bias = (value.detach() for value in convolution.parameters())
            if not self.layers and self.dtype == torch.bfloat16:
                weight, bias, back = _first_in_parts(weight, bias)
            else:
                back = mirrored(weight)
            self.layers.append(_Layer(position, _last(weight), bias, _last(back), position in network.pooled))
            if (sums | features) <= {layer.position for layer in self.layers}:
                break

    def see(self, image: Tensor) -> Seen:
        """Image (B, 3, H, W) float32 -> what was asked for."""
        steps, seen = steps_on(image.device), Seen({}, {}, [], {})
        y = steps.split(image) if self.dtype == torch.bfloat16 else _last(F.pad(image, (1, 1, 1, 1), mode="replicate"))
        for number, layer in enumerate(self.layers):
            if layer.pooled:
                y = steps.pooled(y)
            height, width = y.shape[2] - 2, y.shape[3] - 2
            small = height * width <= _SMALL
            y = _convolution_and_relu(y, layer.weight, layer.bias, 0 if small else 1)
            if layer.position in self.sums:
                if not small:
                    steps.clear_edge(y)  # which adds nothing to the sums then
                seen.sums[layer.position] = _sums(y)
            if small:
                y = steps.bordered(y)
            elif number + 1 < len(self.layers) and not self.layers[number + 1].pooled:
                steps.repeat_edge(y)
            seen.kept.append(y)
            seen.sizes[layer.position] = (height, width)
            if layer.position in self.features:
                seen.buffers[layer.position] = y
        return seen

    def activations(self, seen: Seen, position: str) -> Tensor:
        """(B, C, h, w) of a layer in `features`, as computed."""
        return borders.inside(seen.buffers[position])

    def back(self, seen: Seen, slopes: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensor:
        """The gradient by the image, float32 (B, 3, H, W), where `slopes` (B, C, C), symmetric, are twice those by
        the sums and `gradients` those by the activations (B, C, h, w) or by their buffer.
        """
        steps = steps_on(seen.kept[0].device)
        g: Tensor | None = None
        for number in range(len(self.layers) - 1, -1, -1):
            layer, y = self.layers[number], seen.kept[number]
            extra = self._extra(y, slopes.get(layer.position), gradients.get(layer.position))
            before_pool = number + 1 < len(self.layers) and self.layers[number + 1].pooled
            passed = steps.unpooled(y, g, extra) if before_pool else steps.passed(y, g, extra)
            g = F.conv2d(passed, layer.back, padding=1)
        assert g is not None
        return steps.joined(g) if self.dtype == torch.bfloat16 else borders.folded(g).contiguous()

    def _extra(self, y: Tensor, slope: Tensor | None, gradient: Tensor | None) -> Tensor | None:
        """The gradient by a buffer that the losses of its own layer give; its border means nothing."""
        found = None
        if slope is not None:
            flat = _flat(y)
            found = torch.bmm(flat, slope.to(y.dtype)).mT.unflatten(2, y.shape[2:])
        if gradient is not None:
            own = gradient
            if own.shape != y.shape:
                own = torch.zeros_like(y)
                borders.inside(own).copy_(gradient)
            found = own if found is None else found + own
        return found


def _flat(y: Tensor) -> Tensor:
    """A channels-last buffer (B, C, h, w) as a view (B, h w, C)."""
    return y.flatten(2).mT


def _sums(y: Tensor) -> Tensor:
    """F F' of activations, or of a buffer whose border is zero, float32."""
    flat = _flat(y)
    if y.is_cuda and y.dtype == torch.bfloat16:
        return torch.bmm(flat.mT, flat, out_dtype=torch.float32)
    return flat.mT.float() @ flat.float()


def _convolution_and_relu(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """3x3, with zeros round it: right inside where the border of `x` repeats the edge."""
    if x.is_cuda:
        # torch.backends.cudnn.deterministic does not reach it; cuDNN's heuristics choose, by shapes alone.
        return torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (padding, padding), (1, 1), 1)
    return F.conv2d(x, weight, bias, padding=padding).relu_()


def _first_in_parts(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first convolution, float32, on the parts of a picture that `borders.split` gives, and back to two parts of
    its gradient: bfloat16 alone cannot tell two neighbouring levels of a bright pixel apart.
    """
    first = weight.bfloat16()
    rest = (weight - first.float()).bfloat16()
    # The bias is large, because the mean colour is in it; so it is taken in three parts too, times ones.
    offsets, left = [], bias
    for _ in range(3):
        offsets.append(left.bfloat16())
        left = left - offsets[-1].float()
    centre = torch.zeros(len(weight), 3, 3, 3, device=weight.device, dtype=torch.bfloat16)
    centre[:, :, 1, 1] = torch.stack(offsets, dim=1)
    parts = torch.cat([first, first, first, rest, centre, torch.zeros_like(centre[:, :1])], dim=1)
    back = torch.cat([mirrored(first), mirrored(rest), torch.zeros_like(mirrored(first)[:2])])
    return parts, torch.zeros_like(bias, dtype=torch.bfloat16), back


def _last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)
