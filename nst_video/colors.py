"""Pixels: uint8 arrays to image tensors and back, and keeping the colours of the original."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from nst_video.devices.transfer import downloaded, uploaded

# Linear sRGB -> cone response -> OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020).
_RGB_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def to_image(rgb: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (N, H, W, 3) in [0, 255] -> float32 (N, 3, H, W) in [0, 1] on `device`."""
    pixels = uploaded(torch.from_numpy(np.ascontiguousarray(rgb)), device)
    return pixels.permute(0, 3, 1, 2).float().div_(255).contiguous()


def to_rgb(image: Tensor) -> np.ndarray:
    """float (N, 3, H, W), clipped to [0, 1] -> uint8 (N, H, W, 3), rounded to nearest."""
    (pixels,) = downloaded(to_pixels(image))
    return pixels.numpy()


def to_pixels(image: Tensor) -> Tensor:
    """The same on the device of the image."""
    pixels = image.detach().clamp(0, 1).mul(255).round_().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()


def srgb_to_linear(image: Tensor) -> Tensor:
    """sRGB values in [0, 1] -> linear light (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(light: Tensor) -> Tensor:
    """Linear light in [0, 1] -> sRGB values (IEC 61966-2-1)."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def _mix(image: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,njhw->nihw", matrix, image)


def to_oklab(image: Tensor) -> Tensor:
    """sRGB (N, 3, H, W) in [0, 1] -> OKLab: lightness in [0, 1], a and b about [-0.4, 0.4]."""
    to_lms, to_lab, *_ = _matrices(image.device, image.dtype)
    return _mix(_mix(srgb_to_linear(image), to_lms).clamp_min(0) ** (1 / 3), to_lab)


def _oklab_to_linear(lab: Tensor) -> Tensor:
    *_, from_lms, from_lab = _matrices(lab.device, lab.dtype)
    return _mix(_mix(lab, from_lab) ** 3, from_lms)


@cache
def _matrices(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """RGB to LMS, LMS to OKLab, and the two back, on a device: to upload or invert them there the host has to wait."""
    forth = [torch.tensor(rows, dtype=dtype) for rows in (_RGB_TO_LMS, _LMS_TO_LAB)]
    to_lms, to_lab, from_lms, from_lab = (matrix.to(device) for matrix in (*forth, *map(torch.linalg.inv, forth)))
    return to_lms, to_lab, from_lms, from_lab


def keep_colors(stylised: Tensor, content: Tensor) -> Tensor:
    """Lightness of `stylised`, hue and chroma of `content`, both sRGB (N, 3, H, W) in [0, 1]; returns the same.

    The exchange happens in OKLab, so equal lightness looks equally light whatever the hue. Where the pair has no sRGB
    colour, the chroma shrinks just as far as it must at constant lightness and hue (bisection), so that bright
    strokes neither clip to another hue nor fall to grey.
    """
    lab = torch.cat([to_oklab(stylised.clamp(0, 1))[:, :1], to_oklab(content)[:, 1:]], 1)
    outside = ~_in_gamut(lab)
    if lab.is_cuda:  # the host would have to wait to know how many they are
        lab = torch.where(outside, _shrunk(lab), lab)
    else:  # mostly a few; the search costs more than all the rest
        pixels, few = lab.movedim(1, -1), outside[:, 0]
        pixels[few] = _shrunk(pixels[few].T[None, :, None])[0, :, 0].T
    return linear_to_srgb(_oklab_to_linear(lab).clamp(0, 1))


def _shrunk(lab: Tensor) -> Tensor:
    """OKLab colours (N, 3, H, W) outside sRGB -> the same with the most chroma that each has in sRGB."""
    lightness, chroma = lab[:, :1], lab[:, 1:]
    low, high = torch.zeros_like(lightness), torch.ones_like(lightness)
    for _ in range(12):  # 2^-12 of the chroma is far below one level in 255
        middle = (low + high) / 2
        inside = _in_gamut(torch.cat([lightness, chroma * middle], 1))
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.cat([lightness, chroma * low], 1)


def _in_gamut(lab: Tensor) -> Tensor:
    light = _oklab_to_linear(lab)
    return ((light > -1e-4) & (light < 1 + 1e-4)).all(dim=1, keepdim=True)
