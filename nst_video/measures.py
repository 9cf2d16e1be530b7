"""Coherence, style and content as numbers: functions on a frame's tensors, the row of a frame, the means of a clip."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from nst_video.flow import motion
from nst_video.optimization.losses import gram, relative_style
from nst_video.words import counted

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT_LAYER = "relu4_2"
LOCAL_LAYERS = ("relu2_1", "relu3_1")
LAYERS = (*STYLE_LAYERS, CONTENT_LAYER)

NAN = math.nan


def masked_mean(values: Tensor, mask: Tensor) -> float:
    """Mean of (B, C, H, W) over channels and over pixels weighted by `mask` (B, 1, H, W); NaN for an empty mask."""
    exact = torch.float32 if mask.device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
    area = float(mask.sum(dtype=exact))
    if area == 0.0:
        return NAN
    return float((mask * values.mean(dim=1, keepdim=True)).sum(dtype=exact)) / area


def warp_error(current: Tensor, previous: Tensor, flow: Tensor, mask: Tensor) -> float:
    """E_warp of one pair of frames (Lai et al. 2018, "Learning Blind Video Temporal Consistency").

    sum_x M(x) * mean_c (V_t(x) - V_{t-1}(x + flow(x)))^2 / sum_x M(x), on values in [0, 1], without a square root.
    Departures from the paper: the mean over the channels instead of their sum, and V_{t-1} is warped to t (bilinear).
    `current`, `previous` (1, 3, H, W); `flow` (1, 2, H, W) from t to t-1 in pixels; `mask` (1, 1, H, W), 1 where the
    flow can be trusted. NaN where no pixel can be.
    """
    return masked_mean((current - motion.warp(previous, flow)).square(), mask)


def warp_errors(current: Tensor, previous: Tensor, flow: Tensor, mask: Tensor) -> Tensor:
    """E_warp of each of L pairs, float64 (L,), on the device and without waiting for it; arguments as `warp_error`."""
    exact = torch.float32 if mask.device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
    gaps = (current - motion.warp(previous, flow)).square().mean(1, keepdim=True)
    return (mask * gaps).sum((1, 2, 3), dtype=exact) / mask.sum((1, 2, 3), dtype=exact)


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


@dataclass(frozen=True)
class FrameScore:
    """The measures of one frame t; NaN where one was not taken (no pair, no untrusted pixel, no reference frame).

    Distances have no unit; `e_warp*` and `change_*` are mean squares of values in [0, 1], `untrusted` is a share of the
    pixels. Names that start with `reference` belong to the frame stylised on its own.
    """

    frame: int
    seconds: float = NAN
    e_warp: float = NAN
    e_warp_input: float = NAN
    style: float = NAN
    content: float = NAN
    content_p95: float = NAN
    untrusted: float = NAN
    change_untrusted: float = NAN
    change_trusted: float = NAN
    reference_e_warp: float = NAN
    reference_style: float = NAN
    reference_content: float = NAN
    reference_content_p95: float = NAN
    reference_change_untrusted: float = NAN
    reference_change_trusted: float = NAN
    local_untrusted: float = NAN
    local_trusted: float = NAN
    local_mirrored: float = NAN


@dataclass(frozen=True)
class ReferenceScore:
    """Our frames against those stylised independently; `ours` and `independent` are taken on the same frames."""

    frames: int
    e_warp_ours: float
    e_warp_independent: float
    style_ours: float
    style_independent: float
    content_ours: float
    content_independent: float
    content_p95_ours: float
    content_p95_independent: float
    content_p95_worst: float  # the largest ours / independent over the sampled frames
    fill_ours: float
    fill_independent: float
    local_untrusted: float
    local_trusted: float
    local_mirrored: float

    @property
    def coherence_gain(self) -> float:
        """How many times the warping error of independent frames exceeds ours."""
        return ratio(self.e_warp_independent, self.e_warp_ours)

    @property
    def local_ratio(self) -> float:
        """Local style distance at the untrusted pixels over that at the others: 1 = painted alike."""
        return ratio(self.local_untrusted, self.local_trusted)

    @property
    def local_ratio_mirrored(self) -> float:
        """The same, against trusted regions of the same size and shape.

        A Gram matrix over few places is a noisy one, so two equally good pictures are further apart over a small region
        than over a large one; this ratio is free of that.
        """
        return ratio(self.local_untrusted, self.local_mirrored)


@dataclass(frozen=True)
class Score:
    """Means over a clip (E_warp over pairs of one shot, fill over pooled pixels) and the rows they come from."""

    frames: int
    e_warp: float
    e_warp_input: float
    style: float
    content: float
    content_p95: float
    untrusted: float
    fill: float
    reference: ReferenceScore | None
    rows: tuple[FrameScore, ...]

    def to_json(self) -> dict[str, object]:
        """The means as plain JSON types (null: not taken, or no finite number); the rows go to `write_csv`."""
        names = [field.name for field in fields(self) if field.name not in ("rows", "reference")]
        means = nulls({name: getattr(self, name) for name in names})
        if self.reference is not None:
            derived = ("coherence_gain", "local_ratio", "local_ratio_mirrored")
            ratios = {name: getattr(self.reference, name) for name in derived}
            means["reference"] = nulls(asdict(self.reference) | ratios)
        return means

    def summary(self) -> list[str]:
        """Lines of text, without what was not taken, as between the frames of a single picture; coherence and style
        share one, because either alone can be had for nothing.
        """
        coherence = _told(f"E_warp {self.e_warp:.2e} (input {self.e_warp_input:.2e})", self.e_warp)
        fill = _told(f"fill {self.fill:.2f} over {self.untrusted:.1%} of the pixels", self.fill)
        content = f"content distance {self.content:.3f} (95th percentile {self.content_p95:.3f})"
        lines = [
            f"{counted(self.frames, 'frame')}: {', '.join([*coherence, f'style distance {self.style:.4f}'])}",
            ", ".join([content, *fill]),
        ]
        return lines if self.reference is None else [*lines, *_reference_lines(self.reference)]


def _told(text: str, value: float) -> list[str]:
    """The text, unless the value that it is about was not taken, or is a ratio to nothing."""
    return [text] if math.isfinite(value) else []


def _reference_lines(by: ReferenceScore) -> list[str]:
    coherence = f"E_warp {by.e_warp_ours:.2e} ({by.e_warp_independent:.2e}, {by.coherence_gain:.1f} x ours)"
    content = f"content 95th percentile {by.content_p95_ours:.3f} ({by.content_p95_independent:.3f})"
    local = f"{by.local_untrusted:.3f} where the flow is untrusted, {by.local_trusted:.3f} elsewhere"
    return [
        f"{by.frames} of the frames, in brackets the same stylised on their own:",
        f"  {coherence}, style distance {by.style_ours:.4f} ({by.style_independent:.4f})",
        "  " + ", ".join([content, *_told(f"{by.content_p95_worst:.2f} x on the worst frame", by.content_p95_worst)]),
        *_told(f"  fill {by.fill_ours:.2f} ({by.fill_independent:.2f})", by.fill_ours),
        *_told(
            f"  local style {local} ({by.local_ratio:.2f} x; {by.local_ratio_mirrored:.2f} x at like regions)",
            by.local_ratio_mirrored,
        ),
    ]


def nulls(values: Mapping[str, float]) -> dict[str, object]:
    """The values with None for what JSON and CSV cannot hold: NaN and infinity."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def summarise(rows: Iterable[FrameScore]) -> Score:
    """Means over the clip; fill pools the pixels of all pairs, so a pair with three untrusted ones decides nothing."""
    rows = tuple(rows)
    return Score(
        frames=len(rows),
        e_warp=mean(row.e_warp for row in rows),
        e_warp_input=mean(row.e_warp_input for row in rows),
        style=mean(row.style for row in rows),
        content=mean(row.content for row in rows),
        content_p95=mean(row.content_p95 for row in rows),
        untrusted=mean(row.untrusted for row in rows),
        fill=_fill(rows, ""),
        reference=_summarise_reference([row for row in rows if not math.isnan(row.reference_style)]),
        rows=rows,
    )


def _summarise_reference(rows: Sequence[FrameScore]) -> ReferenceScore | None:
    """Means over the sampled frames; E_warp of ours counts only on pairs that have an independent one too."""
    if not rows:
        return None
    pairs = [row for row in rows if not math.isnan(row.reference_e_warp)]
    return ReferenceScore(
        frames=len(rows),
        e_warp_ours=mean(row.e_warp for row in pairs),
        e_warp_independent=mean(row.reference_e_warp for row in pairs),
        style_ours=mean(row.style for row in rows),
        style_independent=mean(row.reference_style for row in rows),
        content_ours=mean(row.content for row in rows),
        content_independent=mean(row.reference_content for row in rows),
        content_p95_ours=mean(row.content_p95 for row in rows),
        content_p95_independent=mean(row.reference_content_p95 for row in rows),
        content_p95_worst=max(ratio(row.content_p95, row.reference_content_p95) for row in rows),
        fill_ours=_fill(rows, ""),
        fill_independent=_fill(rows, "reference_"),
        local_untrusted=mean(row.local_untrusted for row in rows),
        local_trusted=mean(row.local_trusted for row in rows if not math.isnan(row.local_untrusted)),
        local_mirrored=mean(row.local_mirrored for row in rows),
    )


def _fill(rows: Sequence[FrameScore], prefix: str) -> float:
    """mean |out - in|^2 over the untrusted pixels of all rows / over the others: 0 = unpainted, 1 = painted alike."""
    untrusted = pooled_mean((getattr(row, f"{prefix}change_untrusted"), row.untrusted) for row in rows)
    trusted = pooled_mean((getattr(row, f"{prefix}change_trusted"), 1.0 - row.untrusted) for row in rows)
    return ratio(untrusted, trusted)
