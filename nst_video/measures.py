"""Coherence, style and content of single frames as numbers: pure functions on tensors."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from nst_video import motion
from nst_video.losses import gram, relative_style

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
LOCAL_LAYERS = ("relu2_1", "relu3_1")
LAYERS = (*STYLE_LAYERS, CONTENT_LAYER)

NAN = math.nan


def masked_mean(values: Tensor, mask: Tensor) -> float:
    """Mean of (B, C, H, W) over channels and over pixels weighted by `mask` (B, 1, H, W); NaN for an empty mask."""
    area = float(mask.sum(dtype=torch.float64))
    if area == 0.0:
        return NAN
    return float((mask * values.mean(dim=1, keepdim=True)).sum(dtype=torch.float64)) / area


def warp_error(current: Tensor, previous: Tensor, flow: Tensor, mask: Tensor) -> float:
    """E_warp of one pair of frames (Lai et al. 2018, "Learning Blind Video Temporal Consistency").

    sum_x M(x) * mean_c (V_t(x) - V_{t-1}(x + flow(x)))^2 / sum_x M(x), on values in [0, 1], without a square root.
    Departures from the paper: the mean over the channels instead of their sum, and V_{t-1} is warped to t (bilinear).
    `current`, `previous` (1, 3, H, W); `flow` (1, 2, H, W) from t to t-1 in pixels; `mask` (1, 1, H, W), 1 where the
    flow can be trusted. NaN where no pixel can be.
    """
    return masked_mean((current - motion.warp(previous, flow)).square(), mask)


def style_distance(features: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> float:
    """Mean over the layers of `targets` of ||G(out) - G(style)||^2 / ||G(style)||^2, G = F F' / M, each with its own M.

    `features`: activations (1, N, h, w) by layer; `targets`: Gram matrices (1, N, N) by layer.
    """
    return mean(float(relative_style(gram(features[layer]).mean, target)) for layer, target in targets.items())


def content_distance(features: Tensor, target: Tensor) -> tuple[float, float]:
    """Mean and 95th percentile over places i of ||F_i(out) - F_i(in)||^2 / mean_i ||F_i(in)||^2, both (1, C, h, w).

    The mean says how much of the scene is gone, the percentile whether some place of it is (a lost or smeared object).
    """
    energy = target.square().sum(dim=1).mean()
    places = ((features - target).square().sum(dim=1) / energy).flatten()
    return float(places.mean()), float(torch.quantile(places, 0.95))


def local_style(features: Mapping[str, Tensor], reference: Mapping[str, Tensor], mask: Tensor) -> float:
    """Style distance between two pictures over the pixels of `mask` (1, 1, H, W) only; NaN for an empty mask.

    Mean over relu2_1 and relu3_1 of ||G(out) - G(ref)||^2 / ||G(ref)||^2, each Gram matrix over the masked places only;
    the mask is averaged down to the layer, so that a place on the rim counts in part.
    """
    if not bool(mask.any()):
        return NAN
    distances = []
    for layer in LOCAL_LAYERS:
        weight = functional.interpolate(mask, size=features[layer].shape[-2:], mode="area")
        ours, theirs = gram(features[layer], weight).mean, gram(reference[layer], weight).mean
        distances.append(float(relative_style(ours, theirs)))
    return mean(distances)


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    taken = [value for value in values if not math.isnan(value)]
    return math.fsum(taken) / len(taken) if taken else NAN


def pooled_mean(values: Iterable[tuple[float, float]]) -> float:
    """Weighted mean of (value, weight) pairs whose value is not NaN; NaN when there is none."""
    taken = [(value, weight) for value, weight in values if not math.isnan(value)]
    total = math.fsum(weight for _, weight in taken)
    return math.fsum(value * weight for value, weight in taken) / total if total > 0.0 else NAN


def ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator; inf where only the denominator is 0, NaN where both are 0 or either is NaN."""
    if denominator == 0.0:
        return math.inf if numerator > 0.0 else NAN
    return numerator / denominator
