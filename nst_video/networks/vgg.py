"""The networks that encoders are made of: a VGG layer by layer, and networks as torchvision builds them."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nst_video.errors import ResourceError
from nst_video.networks.frozen import FrozenConvolution, Replicate
from nst_video.networks.layers import ENCODER_LAYERS, find_layer, layer_names

POOLINGS: Mapping[str, Callable[..., Tensor]] = MappingProxyType({"average": F.avg_pool2d, "max": F.max_pool2d})


@dataclass(frozen=True)
class Preprocessing:
    """What a network was trained on: (pixel − mean) / std with RGB in [0, 1]; `bgr`: in reverse order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


# BGR in [0, 255] minus the mean of the training pictures (103.939, 116.779, 123.68): Simonyan & Zisserman 2014.
CAFFE = Preprocessing((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255), bgr=True)
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# [-1, 1], which Inceptions of TensorFlow saw (torchvision gets there from IMAGENET by `transform_input`), and `slim`.
CENTRED = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Vgg(nn.Module):
    """The convolutions of a VGG up to the deepest asked layer; every tap is a ReLU output.

    Built without weights, with torchvision's names for them; after they are loaded, `prepare` must be called once.
    Pooling keeps the last row and column of odd sizes (as Caffe does): without them no deep layer would see the right
    and lower border, and they would stay unpainted.
    """

    mean: Tensor

    def __init__(self, name: str, asked: tuple[str, ...], *, pooling: str, padding: str) -> None:
        super().__init__()
        self.taps = _taps(name, asked)
        self.pool = POOLINGS[pooling]
        self.padding = padding
        self.dtype = torch.float32
        self.memory_format = torch.channels_last  # measured by scripts/bench_speed.py
        self.pooled: set[str] = set()
        self.features = nn.ModuleDict()
        channels, table = 3, ENCODER_LAYERS[name]
        for layer in _up_to_deepest(name, asked):
            block = int(layer[len("relu") : layer.index("_")])
            position = table[layer].module.removeprefix("features.")
            # Zeros round the features cost nothing inside the convolution; round the picture they mean something else.
            margin = 1 if padding == "zero" and channels > 3 else 0
            self.features[position] = FrozenConvolution(
                channels, table[layer].channels, replicated=padding == "replicate", padding=margin, device="meta"
            )
            if layer.endswith("_1") and block > 1:
                self.pooled.add(position)
            channels = table[layer].channels

    def prepare(self, preprocessing: Preprocessing, dtype: torch.dtype) -> None:
        """Make the first convolution take RGB in [0, 1] and the others compute in `dtype`.

        The first takes w·(x − mean)/std: w' = w/std, b' = b − Σ w'·mean, with the channels of w reversed for BGR.
        """
        first: Any = self.features["0"]
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        weight = (first.weight.flip(1) if preprocessing.bgr else first.weight) / std
        first.weight = nn.Parameter(channels_last(weight))
        first.bias = nn.Parameter(first.bias - (weight * mean).sum((1, 2, 3)))
        self.register_buffer("mean", mean, persistent=False)
        self.dtype = dtype
        for position, convolution in self.features.items():
            convolution.to(torch.float32 if position == "0" else dtype)
            convolution.freeze()  # type: ignore[operator]

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """image (B, 3, H, W) -> those of the asked layers, as computed."""
        x = image.float().contiguous(memory_format=self.memory_format)
        if self.padding == "zero":
            # Zero meant the mean colour before the mean went into the weights.
            x = F.pad(x - self.mean, (1, 1, 1, 1)) + self.mean
        taps, wanted = {}, set(layers)
        for position, convolution in self.features.items():
            if position in self.pooled:
                x = self.pool(x, 2, ceil_mode=True)
            x = convolution(x)
            for name in wanted.intersection(self.taps.get(f"features.{position}", ())):
                taps[name] = x
            if len(taps) == len(wanted):
                break
            x = x.to(self.dtype)
        return taps


class Chain(nn.Module):
    """A torchvision network whose stages follow each other (GoogLeNet, Inception v3), up to the deepest asked layer.

    Built without weights, with torchvision's names for them; after they are loaded, `prepare` must be called once.
    `pooling` and `padding` hold between and in the stages; the pools inside the inception blocks stay as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, asked: tuple[str, ...], *, pooling: str, padding: str) -> None:
        super().__init__()
        self.taps = _taps(name, asked)
        self.padding = padding
        self.dtype = torch.float32
        with torch.device("meta"):
            whole = getattr(_torchvision_models(name), name)(weights=None, aux_logits=False, init_weights=False)
        deepest = ENCODER_LAYERS[name][_up_to_deepest(name, asked)[-1]].module
        for key, stage in whole.named_children():
            averages = pooling == "average" and isinstance(stage, nn.MaxPool2d)
            self.add_module(key, _average_pool(stage) if averages else stage)
            if key == deepest:
                break

    def prepare(self, preprocessing: Preprocessing, dtype: torch.dtype) -> None:
        """Merge each batch normalisation into its convolution; all stages but the first compute in `dtype`."""
        self.eval()
        for block in [module for module in self.modules() if isinstance(getattr(module, "bn", None), nn.BatchNorm2d)]:
            _merge(block, self.padding)
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)
        self.dtype = dtype
        for stage in list(self.children())[1:]:
            stage.to(dtype)

    def forward(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """image (B, 3, H, W) -> those of the asked layers, as computed."""
        x = ((image.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        taps, wanted = {}, set(layers)
        for key, stage in self.named_children():
            x = stage(x)
            for name in wanted.intersection(self.taps.get(key, ())):
                taps[name] = x
            if len(taps) == len(wanted):
                break
            x = x.to(self.dtype)
        return taps


def _average_pool(pool: Any) -> nn.AvgPool2d:
    """The average over the windows of a max pool."""
    return nn.AvgPool2d(pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode)


def _merge(block: Any, padding: str) -> None:
    """Turn torchvision's convolution, batch normalisation, ReLU into convolution (with its border laid on), ReLU."""
    convolution = fuse_conv_bn_eval(block.conv, block.bn)
    rows, columns = convolution.padding
    if padding == "replicate" and rows + columns > 0:
        convolution.padding = (0, 0)
        block.conv = nn.Sequential(Replicate(rows, columns), convolution)
    else:
        block.conv = convolution
    block.bn = nn.Identity()


def channels_last(tensor: Tensor) -> Tensor:
    """Kernels laid out like the features they meet; other tensors as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _up_to_deepest(name: str, asked: Iterable[str]) -> tuple[str, ...]:
    """The layers of `name` from the first to the deepest asked one."""
    known = layer_names(name)
    return known[: 1 + max(known.index(find_layer(name, layer)) for layer in asked)]


def _taps(name: str, asked: Iterable[str]) -> dict[str, list[str]]:
    """Module of the network -> the names under which its output is to be returned."""
    taps: dict[str, list[str]] = {}
    for layer in asked:
        taps.setdefault(ENCODER_LAYERS[name][find_layer(name, layer)].module, []).append(layer)
    return taps


def _torchvision_models(name: str) -> Any:
    """torchvision.models; ResourceError with what to install where it is missing or made for another torch."""
    try:
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ResourceError(
            f"{name} needs torchvision, which cannot be used here ({reason}); install it together with its torch: "
            "pip install --upgrade torch torchvision (vgg19, vgg19-tv and vgg16 do without)"
        ) from error
