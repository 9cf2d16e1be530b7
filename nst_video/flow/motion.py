"""Optical flow, how far it can be trusted, and the warp: pure functions, plus the window of reference frames that a
shot needs.

A flow is *backward*: `current(x) ~ reference(x + flow(x))`, in pixels, channel 0 = dx, channel 1 = dy.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video import colors
from nst_video.devices.kernels import kernels
from nst_video.devices.transfer import uploaded
from nst_video.errors import UsageError
from nst_video.optimization import losses
from nst_video.optimization.graphs import launched, plainly
from nst_video.words import described

Call = Callable[..., Any]  # of a function of tensors and what it is given: see `Graphs.call`

FLOW_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


@dataclass(frozen=True)
class Motion:
    """How the current frame follows from J earlier ones, nearest first; J = 0 on the first frame of a shot.

    flows (L, J, 2, H, W): backward flow to each reference, in pixels. trust (L, J, 1, H, W) in [0, 1]: 1 where the
    reference shows the same surface, 0 where it does not; the long-term rule is already applied, so at every place
    the trusts of the J references sum to at most 1. anchor (L, 3, H, W): a frame that comes later and was painted
    before; the last of the flows and trusts, one more than J, are to it.
    """

    flows: Tensor
    trust: Tensor
    anchor: Tensor | None = None

    @staticmethod
    def none(lanes: int, height: int, width: int) -> "Motion":
        """The motion of a frame with no past."""
        return Motion(torch.zeros(lanes, 0, 2, height, width), torch.zeros(lanes, 0, 1, height, width))

    @property
    def references(self) -> int:
        """J, the number of references."""
        return self.flows.shape[1] - int(self.anchor is not None)

    def to(self, device: torch.device | str) -> "Motion":
        """The same motion on another device."""
        anchor = None if self.anchor is None else self.anchor.to(device)
        return Motion(self.flows.to(device), self.trust.to(device), anchor)

    def drawn_to(self, anchor: Tensor, ahead: "Motion", share: float) -> "Motion":
        """This with a painted frame (L, 3, H, W) that comes later as one more reference: where `ahead`, the motion
        against it, can be trusted, it has this share of the trust, and the references before have the rest.
        """
        held = share * ahead.trust
        flows = torch.cat([self.flows, ahead.flows], dim=1)
        return Motion(flows, torch.cat([self.trust * (1 - held), held], dim=1), anchor)


def flow(current: np.ndarray, reference: np.ndarray, preset: str = "medium") -> np.ndarray:
    """Backward flow between two uint8 (H, W, 3) RGB pictures -> float32 (H, W, 2): `current(x) ~ reference(x +
    flow(x))`.

    Dense inverse search (Kroeger et al. 2016) with the settings of `preset`, a key of FLOW_PRESETS.
    """
    search = cv2.DISOpticalFlow.create(FLOW_PRESETS[preset])
    return search.calc(_grey(current), _grey(reference), None)


def _grey(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def to_flow(array: np.ndarray) -> Tensor:
    """float32 (H, W, 2) -> (1, 2, H, W)."""
    return torch.from_numpy(array).permute(2, 0, 1).unsqueeze(0).contiguous()


def sampling_grid(flow: Tensor) -> Tensor:
    """(B, 2, H, W) flow in pixels -> (B, H, W, 2) positions in [-1, 1] for `grid_sample` with align_corners."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    return torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], dim=-1)


def warp(image: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """`image` (B, C, H, W) looked up at x + flow(x); places outside the picture take its nearest edge.

    `mode` is grid_sample's: "bilinear" stays inside the range of the input, "bicubic" keeps detail over many frames.
    """
    return look_up(image, sampling_grid(flow), mode)


def look_up(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """`image` (B, C, H, W) at positions that `sampling_grid` gives; for several pictures moved alike."""
    if mode == "bicubic" and image.device.type == "mps":  # torch has no bicubic look-up for Apple's GPUs
        return look_up(image.cpu(), grid.cpu(), mode).to(image.device)
    if image.device.type == "cpu" and len(image) < torch.get_num_threads():
        found = [_in_bands(*one, mode) for one in zip(image.split(1), grid.split(1), strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found)
    return _sampled(image, grid, mode)


def _in_bands(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    """As `_sampled`, of one picture (1, C, H, W) on a CPU by a grid (1, h, w, 2): torch gives each picture of a batch
    to one thread, and here each of as many bands of what is looked up.
    """
    bands, height = torch.get_num_threads(), grid.shape[1]
    rows = -(-height // bands)
    grid = F.pad(grid, (0, 0, 0, 0, 0, bands * rows - height)).unflatten(1, (bands, rows)).squeeze(0)
    found = _sampled(image.expand(bands, -1, -1, -1), grid, mode)
    return found.transpose(0, 1).flatten(1, 2)[None, :, :height].contiguous()


def _sampled(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)


def inside(flow: Tensor) -> Tensor:
    """(B, 2, H, W) -> bool (B, 1, H, W): does x + flow(x) lie in the picture?"""
    return (sampling_grid(flow).abs() <= 1).all(dim=-1).unsqueeze(1)


def consistent(backward: Tensor, forward: Tensor) -> Tensor:
    """Where going along `backward` and back along `forward` ends near the start: bool (B, 1, H, W).

    Forward-backward test of Sundaram et al. 2010: |w + w'|^2 <= 0.01 (|w|^2 + |w'|^2) + 0.5, w' = forward looked up
    along w.
    """
    back = warp(forward, backward)
    gap = (backward + back).square().sum(1, keepdim=True)
    return gap <= 0.01 * (backward.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)) + 0.5


def motion_boundary(flow: Tensor) -> Tensor:
    """Where the flow changes abruptly, so that a pixel mixes two motions: bool (B, 1, H, W).

    Sundaram et al. 2010: |grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002, with forward differences.
    """
    dx = F.pad(flow[..., :, 1:] - flow[..., :, :-1], (0, 1, 0, 0), mode="replicate")
    dy = F.pad(flow[..., 1:, :] - flow[..., :-1, :], (0, 0, 0, 1), mode="replicate")
    steepness = (dx.square() + dy.square()).sum(1, keepdim=True)
    return steepness > 0.01 * flow.square().sum(1, keepdim=True) + 0.002


def trust_mask(backward: Tensor, forward: Tensor) -> Tensor:
    """Where the flow is certain by geometry alone: {0, 1} (B, 1, H, W).

    Consistent both ways, no motion boundary, inside the picture: the mask of Ruder et al. 2016, unblurred.
    """
    return (consistent(backward, forward) & ~motion_boundary(backward) & inside(backward)).float()


# Blurred root-mean-square difference of the pictures, in [0, 1], above which a place is not the same surface.
_SAME_SURFACE = 12 / 255
# Blurred standard deviation, in [0, 1], below which a place is too flat for a flow to be right or wrong about it.
_FLAT = 6 / 255
_WINDOW = 2.0  # standard deviation of the blur of both tests, pixels
# A flow this short (pixels), that explains the picture no better than none, is noise: resampling for it would only
# blur.
_STILL = 0.5


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of float32 (B, C, H, W), without a gradient, with replicated borders."""
    radius = int(3 * sigma + 0.5)
    if image.device.type == "cpu":  # OpenCV takes an eighth of the time of a convolution there
        side, planes = (2 * radius + 1, 2 * radius + 1), image.detach().flatten(0, 1).numpy()
        done = [cv2.GaussianBlur(plane, side, sigma, borderType=cv2.BORDER_REPLICATE) for plane in planes]
        return torch.from_numpy(np.stack(done)).view(image.shape)
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(image.shape[1], 1, 1, -1)
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel, groups=image.shape[1])
    return F.conv2d(across, kernel.mT, groups=image.shape[1])


def photometric_error(current: Tensor, reference: Tensor, flow: Tensor) -> Tensor:
    """Blurred mean squared difference of (B, 3, H, W) and the reference moved along the flow: (B, 1, H, W)."""
    return blur((current - warp(reference, flow)).square().mean(1, keepdim=True), _WINDOW)


def drop_noise(flow: Tensor, current: Tensor, reference: Tensor) -> Tensor:
    """The flow with exact zeros where it is shorter than half a pixel and no motion explains the picture as well."""
    still = photometric_error(current, reference, torch.zeros_like(flow))
    moved = photometric_error(current, reference, flow)
    short = flow.square().sum(1, keepdim=True) < _STILL**2
    noise = short & (still <= 1.1 * moved + (1 / 255) ** 2)
    return torch.where(noise, 0.0, flow)


def trust(current: Tensor, reference: Tensor, backward: Tensor, forward: Tensor) -> Tensor:
    """How far the stylizer may rely on `backward`: (B, 1, H, W) in [0, 1].

    The same surface by its colours, and either consistent both ways or too flat to tell (a flat place fails the
    geometric test although whatever is moved there looks right); 0 outside the picture; slightly blurred.
    """
    same = photometric_error(current, reference, backward) < _SAME_SURFACE**2
    mean = blur(current, _WINDOW)
    flat = (blur(current.square(), _WINDOW) - mean.square()).mean(1, keepdim=True) < _FLAT**2
    certain = same & (consistent(backward, forward) | flat) & inside(backward)
    return blur(certain.float(), 1.0) * certain


def flows_between(current: np.ndarray, references: Sequence[np.ndarray], preset: str = "medium") -> "Flows | Unfound":
    """What the motion of a frame is made from, uint8 (H, W, 3) like the J earlier ones, nearest first.

    preset: of OpenCV's optical flow, which is found here; "mixed", which is "medium" to the nearest and "fast" to the
    others; or "gpu", of a flow that is found on a GPU, when its motion is asked for there.
    """
    if preset == "gpu":
        return Unfound(current, tuple(references))
    return Flows.between(current, references, preset)


@dataclass(frozen=True)
class Flows:
    """The optical flow between a frame and J earlier ones, nearest first, both ways and as it was found: what a Motion
    is made from.

    current uint8 (H, W, 3), references J of the same; backward, forward: J flows float32 (H, W, 2) in pixels.
    """

    current: np.ndarray
    references: tuple[np.ndarray, ...]
    backward: tuple[np.ndarray, ...]
    forward: tuple[np.ndarray, ...]

    @staticmethod
    def between(current: np.ndarray, references: Sequence[np.ndarray], preset: str = "medium") -> "Flows":
        """Found with the settings of `preset`, a key of FLOW_PRESETS, or "mixed": "medium" to the nearest reference and
        "fast" to the others. OpenCV and NumPy do all of it, without the interpreter's lock.
        """
        nearest, others = ("medium", "fast") if preset == "mixed" else (preset, preset)
        presets = [nearest, *[others] * len(references)]
        pairs = list(zip(references, presets, strict=False))
        return Flows(
            current,
            tuple(references),
            tuple(flow(current, reference, chosen) for reference, chosen in pairs),
            tuple(flow(reference, current, chosen) for reference, chosen in pairs),
        )

    def motion(self, device: torch.device | str = "cpu", call: Call = plainly) -> Motion:
        """The flows without their noise, and how far each can be trusted, on a device and computed there.

        call: how functions of tensors are called; see `Graphs.call`.
        """
        if not self.references:
            return Motion.none(1, *self.current.shape[:2]).to(device)
        # On a GPU all at once, because each call costs there; on a CPU one after the other, because memory does.
        together = 1 if torch.device(device).type == "cpu" else len(self.references)
        current = colors.to_image(self.current[None], device)
        parts = [slice(first, first + together) for first in range(0, len(self.references), together)]
        return _motion_of(self._settled(current, part, call) for part in parts)

    def _settled(self, current: Tensor, which: slice, call: Call) -> tuple[Tensor, Tensor]:
        references = colors.to_image(np.stack(self.references[which]), current.device)
        backward, forward = (_to_flows(part[which], current.device) for part in (self.backward, self.forward))
        return launched(call, references)(_settled, current, references, backward, forward)


def _settled(current: Tensor, references: Tensor, backward: Tensor, forward: Tensor) -> tuple[Tensor, Tensor]:
    """The flow (J, 2, H, W) without its noise and the trust (J, 1, H, W), of pictures (1 and J, 3, H, W)."""
    backward = drop_noise(backward, current, references)
    return backward, trust(current, references, backward, forward)


def _motion_of(settled: Iterable[tuple[Tensor, Tensor]]) -> Motion:
    """Flows and trusts of some of the references each."""
    flows, masks = (torch.cat(part)[None] for part in zip(*settled, strict=True))
    return Motion(flows, losses.long_term(masks))


def _to_flows(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """J flows float32 (H, W, 2) -> (J, 2, H, W)."""
    return uploaded(torch.from_numpy(np.stack(arrays)), device).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Unfound:
    """A frame and J earlier ones, nearest first, uint8 (H, W, 3), whose flow is found on the GPU that paints."""

    current: np.ndarray
    references: tuple[np.ndarray, ...]

    def motion(self, device: torch.device | str = "cpu", call: Call = plainly) -> Motion:
        """As that of Flows, found on an NVIDIA GPU; UsageError where the device is none, or Triton cannot be used."""
        if not self.references:
            return Motion.none(1, *self.current.shape[:2]).to(device)
        flow_on(device)
        current = colors.to_image(self.current[None], device)
        # As many at once as a GPU is filled by; more would only take more memory.
        together = max(1, _AT_ONCE // current[0, 0].numel())
        parts = [self.references[first : first + together] for first in range(0, len(self.references), together)]
        references = (colors.to_image(np.stack(part), device) for part in parts)
        return _motion_of(launched(call, part)(_searched, current, part) for part in references)


_AT_ONCE = 1 << 21  # pixels whose flow is looked for at once, each way


def _searched(current: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """As `_settled`, by a flow that is found here."""
    others = _luma(references)
    own = _luma(current).expand_as(others)
    backward, forward = flow_on(current.device)(torch.cat([own, others]), torch.cat([others, own])).chunk(2)
    return _settled(current, references, backward, forward)


def flow_on(device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    """What finds flow between grey pictures on this device: see flow_triton.flow. UsageError where nothing does."""
    found = kernels("flow.flow_triton", torch.device(device))
    if found is None:
        raise UsageError(
            f"--flow gpu needs an NVIDIA GPU and Triton with a compiler of C; --device {device} has not all of these. "
            "--flow medium finds flow on the CPU"
        )
    search: Callable[[Tensor, Tensor], Tensor] = found.flow
    return search


def _luma(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> grey (N, H, W) in [0, 255], by the weights that OpenCV has."""
    red, green, blue = pictures.unbind(1)
    return 255 * (0.299 * red + 0.587 * green + 0.114 * blue)


class MotionWindow:
    """The reference frames of one shot, and the motion of each new frame against them.

    `references` are the distances J in frames, nearest first; `preset` is as for `flows_between`.
    """

    def __init__(self, references: tuple[int, ...] = (1, 2, 4), preset: str = "medium"):
        self.references = references
        self.preset = preset
        self.frames: deque[np.ndarray] = deque(maxlen=max(references))

    def remember(self, rgb: np.ndarray) -> None:
        """Take in a frame of the shot, as `step` does, whose own motion nobody asks for."""
        self.frames.append(rgb)

    def step(self, rgb: np.ndarray, first: bool = False) -> Motion:
        """Motion of the uint8 (H, W, 3) frame against the frames given before; `first` forgets those. UsageError for
        what is no such frame, or has another size than those.
        """
        return self.later(rgb, first)().motion()

    def later(self, rgb: np.ndarray, first: bool = False) -> Callable[[], Flows | Unfound]:
        """As `step`, but what takes time is only done when the result is called, in whatever thread."""
        if first:
            self.frames.clear()
        self._check(rgb)
        references = [self.frames[-j] for j in self.references if j <= len(self.frames)]
        self.frames.append(rgb)
        return partial(flows_between, rgb, references, self.preset)

    def _check(self, rgb: Any) -> None:
        """UsageError unless it is a frame, and as large as the one before."""
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise UsageError(f"a frame is {described(rgb)}; allowed an ndarray of uint8 (H, W, 3), RGB")
        if self.frames and self.frames[-1].shape != rgb.shape:
            raise UsageError(
                f"a frame is {described(rgb)} after {described(self.frames[-1])}; all frames of a shot are of one "
                "size, and another one begins with first=True"
            )


@dataclass(frozen=True)
class NoFlows:
    """Stands in for Flows where the motion is known beforehand."""

    known: Motion

    def motion(self, device: torch.device | str = "cpu", call: Call = plainly) -> Motion:
        """It, on a device."""
        return self.known.to(device)


class StillWindow:
    """Stands in for a MotionWindow where all frames are one picture: nothing moves, and all of it can be trusted."""

    def __init__(self) -> None:
        self.begun = False

    def remember(self, rgb: np.ndarray) -> None:
        """Take in a frame of the shot."""
        self.begun = True

    def step(self, rgb: np.ndarray, first: bool = False) -> Motion:
        """No motion at all of the uint8 (H, W, 3) frame against the one before; `first` forgets that."""
        height, width = rgb.shape[:2]
        if first or not self.begun:
            self.begun = True
            return Motion.none(1, height, width)
        return Motion(torch.zeros(1, 1, 2, height, width), torch.ones(1, 1, 1, height, width))

    def later(self, rgb: np.ndarray, first: bool = False) -> Callable[[], NoFlows]:
        """As that of a MotionWindow."""
        return partial(NoFlows, self.step(rgb, first))
