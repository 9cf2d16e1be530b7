"""A VGG on a CPU: Gram sums and activations of a picture, and the way back, in as few passes over memory as there are.

The same as the network in vgg.py gives. There what is left beside the convolutions is memory, and autograd may
overwrite nothing: it adds the gradients that meet at a layer into new tensors and fills others with zeros first. Here
one gradient travels down the network, and each step writes over it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices.products import batched_product, plus_product
from nst_video.networks.frozen import Back, FrozenConvolution, fold
from nst_video.networks.padded import Seen
from nst_video.networks.vgg import Vgg

_POOLED = 4  # pixels in an average


@dataclass(frozen=True)
class _Layer:
    """One convolution, and what takes gradients back: to the averages of a pool, each pixel's share."""

    position: str
    convolution: FrozenConvolution
    back: Back
    pooled: bool  # before it


class InplaceVgg:
    """The convolutions of a Vgg with replicated borders and average pools, prepared once."""

    def __init__(self, network: Vgg, sums: frozenset[str], features: frozenset[str]) -> None:
        """sums, features: the layers of which each is asked for, by their positions in the network."""
        self.dtype, self.sums, self.asked = network.dtype, sums, features
        self.layers: list[_Layer] = []
        for position, convolution in network.features.items():
            assert isinstance(convolution, FrozenConvolution)
            pooled = position in network.pooled
            back = convolution.kernel.turned(1 / _POOLED if pooled else 1.0)
            self.layers.append(_Layer(position, convolution, back, pooled))
            if (sums | features) <= {layer.position for layer in self.layers}:
                break

    def see(self, image: Tensor) -> Seen:
        """Image (B, 3, H, W) float32 -> what was asked for."""
        seen = Seen({}, {}, [], {})
        x = image.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            if layer.pooled:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            y = layer.convolution(x)
            seen.kept.append(y)
            seen.sizes[layer.position] = (y.shape[2], y.shape[3])
            if layer.position in self.sums:
                flat = y.flatten(2).float()
                seen.sums[layer.position] = batched_product(flat, flat.mT)
            if layer.position in self.asked:
                seen.buffers[layer.position] = y
            x = y.to(self.dtype)
        return seen

    def activations(self, seen: Seen, position: str) -> Tensor:
        """(B, C, h, w) of a layer in `features`, as computed."""
        return seen.buffers[position]

    def back(self, seen: Seen, slopes: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensor:
        """The gradient by the image, float32 (B, 3, H, W), where `slopes` (B, C, C), symmetric, are twice those by
        the sums and `gradients` those by the activations (B, C, h, w).
        """
        g: Tensor | None = None
        for number in range(len(self.layers) - 1, -1, -1):
            layer, y = self.layers[number], seen.kept[number]
            if g is not None and self.layers[number + 1].pooled:
                g = _spread(g, y)
            g = _joined(y, g, slopes.get(layer.position), gradients.get(layer.position))
            g = fold(layer.back(_passed(y, g).to(layer.convolution.weight.dtype), margin=2), 1, 1)
        assert g is not None
        return g.float().contiguous()


def _spread(g: Tensor, y: Tensor) -> Tensor:
    """A gradient by averages, one for each pixel in them, -> that by `y`, which they are of. `g` is written to."""
    height, width = y.shape[2:]
    # The averages at the end of an odd side are of half as many pixels.
    if height % 2:
        g[..., -1, :] *= 2
    if width % 2:
        g[..., -1] *= 2
    # Of a part of something larger this takes up to five times as long as the copy does.
    whole = g.contiguous(memory_format=torch.channels_last)
    return F.interpolate(whole, scale_factor=2, mode="nearest")[..., :height, :width]


def _joined(y: Tensor, g: Tensor | None, slope: Tensor | None, own: Tensor | None) -> Tensor:
    """The gradient by activations `y`: what comes from the layer above, which may be written to, and from the losses of
    this one.
    """
    if g is not None:
        g = g.to(y.dtype)
    if slope is not None:
        flat, slope = _flat(y), slope.to(y.dtype)
        found = batched_product(flat, slope) if g is None else plus_product(_flat(g), flat, slope)
        g = _unflattened(found, y)
    if own is not None:
        g = own.to(y.dtype) if g is None else g.add_(own)
    assert g is not None
    return g


def _passed(y: Tensor, g: Tensor) -> Tensor:
    """What of a gradient gets through the ReLU; over it where it lies in memory as the next step wants it."""
    written = g if _in_one_piece(g) else torch.empty_like(y)
    passed: Tensor = torch.ops.aten.threshold_backward.grad_input(g, y, 0, grad_input=written)
    return passed


def _in_one_piece(g: Tensor) -> bool:
    return g.is_contiguous(memory_format=torch.channels_last)


def _flat(y: Tensor) -> Tensor:
    """(B, C, h, w) channels last -> (B, h w, C), a view where `y` lies in one piece."""
    return y.permute(0, 2, 3, 1).flatten(1, 2)


def _unflattened(flat: Tensor, y: Tensor) -> Tensor:
    """(B, h w, C) -> like `y`, a view."""
    return flat.unflatten(1, y.shape[2:]).permute(0, 3, 1, 2)
