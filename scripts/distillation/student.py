"""The student: a small VGG with a linear map to the teacher's activations at every layer that losses look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst_video.networks.encoders import Encoder
from nst_video.networks.frozen import FrozenConvolution
from nst_video.networks.layers import ENCODER_LAYERS
from nst_video.networks.vgg import CENTRED, Vgg

SLIM = "slim"
# Student layer -> teacher layer of the same stride; the losses look at these.
_VGG = {name: name for name in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")}
TAPS: Mapping[str, Mapping[str, str]] = {
    "vgg19": _VGG,
    "vgg19-tv": _VGG,
    "vgg16": _VGG,
    # GoogLeNet and Inception halve the picture at once: there is nothing at full size to learn from.
    "googlenet": {
        "relu2_1": "conv1",
        "relu3_1": "conv3",
        "relu4_1": "inception_3a",
        "relu4_2": "inception_3b",
        "relu5_1": "inception_4c",
    },
    "inception_v3": {
        "relu2_1": "Conv2d_2b_3x3",
        "relu3_1": "Conv2d_4a_3x3",
        "relu4_1": "mixed0",
        "relu4_2": "mixed2",
        "relu5_1": "mixed4",
    },
}
# Student layers between the taps -> the teacher layers they start out as.
BETWEEN = {
    "vgg19": {"relu3_2": "relu3_4", "relu4_3": "relu4_4"},
    "vgg19-tv": {"relu3_2": "relu3_4", "relu4_3": "relu4_4"},
    "vgg16": {"relu3_2": "relu3_3", "relu4_3": "relu4_3"},
}
RIDGE = 1e-4  # of the mean energy of a patch, in the least squares fits


class Student(nn.Module):
    """`network`: the convolutions; `maps`: layer -> (C_teacher, C_student). Trained on pictures in [-1, 1]."""

    def __init__(self, teacher: str) -> None:
        super().__init__()
        self.taps = dict(TAPS[teacher])
        self.network = Vgg(SLIM, tuple(TAPS["vgg19"]), pooling="average", padding="replicate").to_empty(device="cpu")
        self.maps = nn.ParameterDict()
        for layer, target in self.taps.items():
            shape = ENCODER_LAYERS[teacher][target].channels, ENCODER_LAYERS[SLIM][layer].channels
            self.maps[layer] = nn.Parameter(torch.randn(shape) / shape[1] ** 0.5)
        for convolution in self.convolutions():
            nn.init.kaiming_normal_(convolution.weight)
            nn.init.zeros_(convolution.bias)
        self.to(memory_format=torch.channels_last)

    def convolutions(self) -> Iterator[FrozenConvolution]:
        """From shallow to deep."""
        for module in self.network.features.values():
            assert isinstance(module, FrozenConvolution)
            yield module

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] -> its own activations by layer; convolutions in bfloat16, weights in float32."""
        # Each weight is used once, and a CUDA graph cannot hold the cache.
        with torch.autocast(image.device.type, torch.bfloat16, cache_enabled=False):
            taps: dict[str, Tensor] = self.network(2 * image - 1, self.taps)
        return {layer: taps[layer].float() for layer in self.taps}

    def as_encoder(self, device: torch.device | str = "cpu") -> Encoder:
        """The student as it is now, as the program uses it."""
        network = deepcopy(self.network).cpu()
        network.prepare(CENTRED, torch.float32)
        return Encoder(SLIM, tuple(TAPS["vgg19"]), network, bases=self.bases()).to(device)

    @torch.no_grad()
    def frames(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> Q (C_teacher, C), R (C, C) of its map M = QR, on the CPU.

        The columns of Q are orthonormal: distances of M f are those of R f, and an activation F ~ M f is Q' F there.
        """
        found = {}
        for layer, matrix in self.maps.items():
            q, r = torch.linalg.qr(matrix.detach().cpu().double())
            found[layer] = q.float(), r.float()
        return found

    def bases(self) -> dict[str, Tensor]:
        """Layer -> R (C, C): in it distances are those of the teacher, in units of its root mean square."""
        return {layer: r for layer, (_, r) in self.frames().items()}


class Teacher:
    """The network that is learnt from: activations of the tapped layers, each divided by its root mean square."""

    def __init__(self, encoder: Encoder, taps: Mapping[str, str], samples: Tensor) -> None:
        """samples: pictures (B, 3, H, W) over which the root mean squares are taken."""
        self.encoder, self.taps = encoder, taps
        self.rms = {layer: float(f.square().mean().sqrt()) for layer, f in self._activations(samples).items()}

    @torch.no_grad()
    def _activations(self, image: Tensor) -> dict[str, Tensor]:
        found = self.encoder(image)
        return {layer: found[target] for layer, target in self.taps.items()}

    @torch.no_grad()
    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] -> activations (B, C, h, w) by student layer, at the student's sizes."""
        found = {}
        for layer, features in self._activations(image).items():
            stride = ENCODER_LAYERS[SLIM][layer].smallest_side
            size = tuple(-(-side // stride) for side in image.shape[-2:])
            # Inception's convolutions without borders lose some places.
            fits = features.shape[-2:] == size
            found[layer] = (features if fits else F.interpolate(features, size=size, mode="bilinear")) / self.rms[layer]
        return found


@torch.no_grad()
def begin_as_teacher(student: Student, teacher: Teacher, name: str, crops: list[Tensor]) -> None:
    """Give every convolution the part of the teacher that it has room for, from shallow to deep.

    Of a layer's channels those are taken that explain the others best (pivoted Cholesky on E[F F']), and the kernel is
    the least squares fit, from the student's own activations so far, to what the teacher's convolution puts out there.
    Each layer is scaled to activations of root mean square 1, and the maps are fitted in the end.
    """
    counterparts = student.taps | BETWEEN[name]
    wanted = [_before_relu(teacher.encoder, name, set(counterparts.values()), crop) for crop in crops]
    inputs = [2 * crop - 1 for crop in crops]
    for layer, convolution in zip(ENCODER_LAYERS[SLIM], student.convolutions(), strict=True):
        if layer.endswith("_1") and layer != "relu1_1":
            inputs = [F.avg_pool2d(x, 2, ceil_mode=True) for x in inputs]
        before = [_rows(found[counterparts[layer]]) for found in wanted]
        chosen = most_telling([F.relu(rows) for rows in before], convolution.out_channels)
        patches = [F.unfold(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).flatten(0, 1) for x in inputs]
        solution = least_squares(patches, [rows[:, chosen] for rows in before])
        convolution.weight.copy_(solution[:-1].T.reshape(convolution.weight.shape))
        convolution.bias.copy_(solution[-1])
        outputs = [convolution(x) for x in inputs]
        scale = torch.stack([x.square().mean() for x in outputs]).mean().sqrt()
        convolution.weight /= scale
        convolution.bias /= scale
        inputs = [x / scale for x in outputs]
        if layer in student.taps:
            targets = [F.relu(rows) / teacher.rms[layer] for rows in before]
            student.maps[layer].copy_(least_squares([_rows(x) for x in inputs], targets, constant=False).T)


def _rows(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B·H·W, C)."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _before_relu(encoder: Encoder, name: str, layers: set[str], image: Tensor) -> dict[str, Tensor]:
    """What the convolutions of a VGG put out before their ReLU, by layer."""
    features: nn.ModuleDict = encoder.network.features  # type: ignore[assignment]
    found: dict[str, Tensor] = {}
    handles = []
    for layer in layers:
        convolution = features[ENCODER_LAYERS[name][layer].module.removeprefix("features.")]
        keep = partial(_keep, found, layer)
        handles.append(convolution.register_forward_hook(keep))
    encoder(image)
    for handle in handles:
        handle.remove()
    return found


def _keep(found: dict[str, Tensor], layer: str, module: FrozenConvolution, inputs: tuple[Tensor], _: Tensor) -> None:
    found[layer] = module.before_relu(*inputs).float()


def most_telling(parts: list[Tensor], count: int) -> Tensor:
    """Indices (count,) of the columns of the rows (N, C) of all parts that explain the others best, greedily."""
    # On the CPU: Apple's GPUs have no doubles, and the matrices are small.
    rest = torch.stack([(rows.T @ rows).cpu().double() / len(rows) for rows in parts]).mean(0)
    scale = torch.diagonal(rest).mean() * 1e-9
    chosen: list[int] = []
    for _ in range(count):
        gains = rest.square().sum(0) / (torch.diagonal(rest) + scale)
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        column = rest[:, best].clone()
        rest -= torch.outer(column, column) / (column[best] + scale)
    return torch.tensor(chosen)


def least_squares(inputs: list[Tensor], targets: list[Tensor], constant: bool = True) -> Tensor:
    """X minimising sum |[a, 1] X - b|^2 over the rows a (n,), b (k,) of all parts, slightly damped: (n + 1, k)."""
    left: Tensor | float = 0.0
    right: Tensor | float = 0.0
    for a, b in zip(inputs, targets, strict=True):
        rows = F.pad(a, (0, 1), value=1.0) if constant else a
        left = left + (rows.T @ rows).cpu().double()
        right = right + (rows.T @ b).cpu().double()
    assert isinstance(left, Tensor)
    assert isinstance(right, Tensor)
    damping = RIDGE * torch.diagonal(left).mean() * torch.eye(len(left), dtype=left.dtype)
    return torch.linalg.solve(left + damping, right).float().to(inputs[0].device)
