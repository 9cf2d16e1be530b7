"""How coherent and how painted a clip is, as numbers: frame by frame, then as means.

A frozen clip is perfectly coherent and an unpainted one keeps all its content, so no figure here means anything on its
own: coherence (`e_warp`) and style always stand together. The measures themselves are in measures.py.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nst_video import motion
from nst_video.colors import to_image
from nst_video.encoders import Encoder
from nst_video.errors import UsageError
from nst_video.losses import gram
from nst_video.measures import (
    CONTENT_LAYER,
    LAYERS,
    NAN,
    STYLE_LAYERS,
    content_distance,
    local_style,
    masked_mean,
    mean,
    pooled_mean,
    ratio,
    style_distance,
    warp_error,
)

_MIRRORS = ((-1,), (-2,), (-1, -2))  # left-right, up-down, both

# Frame t -> float32 (H, W, 2): frame_t(x) = frame_{t-1}(x + flow(x)), in pixels; NaN where frame t-1 lacks the place.
TrueFlow = Callable[[int], np.ndarray]


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
        means = _nulls({name: getattr(self, name) for name in names})
        if self.reference is not None:
            derived = ("coherence_gain", "local_ratio", "local_ratio_mirrored")
            ratios = {name: getattr(self.reference, name) for name in derived}
            means["reference"] = _nulls(asdict(self.reference) | ratios)
        return means

    def summary(self) -> list[str]:
        """Lines of text; coherence and style share one, because either alone can be had for nothing."""
        coherence = f"E_warp {self.e_warp:.2e} (input {self.e_warp_input:.2e})"
        fill = f"fill {self.fill:.2f} over {self.untrusted:.1%} of the pixels"
        lines = [
            f"{self.frames} frames: {coherence}, style distance {self.style:.4f}",
            f"content distance {self.content:.3f} (95th percentile {self.content_p95:.3f}), {fill}",
        ]
        return lines if self.reference is None else [*lines, *_reference_lines(self.reference)]


def _reference_lines(by: ReferenceScore) -> list[str]:
    coherence = f"E_warp {by.e_warp_ours:.2e} ({by.e_warp_independent:.2e}, {by.coherence_gain:.1f} x ours)"
    content = f"content 95th percentile {by.content_p95_ours:.3f} ({by.content_p95_independent:.3f})"
    local = f"{by.local_untrusted:.3f} where the flow is untrusted, {by.local_trusted:.3f} elsewhere"
    return [
        f"{by.frames} of the frames, in brackets the same stylised on their own:",
        f"  {coherence}, style distance {by.style_ours:.4f} ({by.style_independent:.4f})",
        f"  {content}, {by.content_p95_worst:.2f} x on the worst frame",
        f"  fill {by.fill_ours:.2f} ({by.fill_independent:.2f})",
        f"  local style {local} ({by.local_ratio:.2f} x; {by.local_ratio_mirrored:.2f} x at like regions)",
    ]


def _nulls(values: Mapping[str, float]) -> dict[str, object]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class Sample:
    """One frame to score, uint8 (H, W, 3) pictures of one size; `first` of a shot: no pair with the frame before."""

    frame: int
    input: np.ndarray
    output: np.ndarray
    first: bool = False
    seconds: float = NAN
    reference: np.ndarray | None = None  # the same frame stylised on its own


@dataclass(frozen=True)
class Judge:
    """An encoder that gives `LAYERS`, and the Gram matrices (1, N, N) of the style under it."""

    encoder: Encoder
    targets: Mapping[str, Tensor]

    @torch.inference_mode()
    def features(self, rgb: np.ndarray) -> dict[str, Tensor]:
        """uint8 (H, W, 3) -> activations (1, N, h, w) by layer name."""
        return self.encoder(to_image(rgb[None], device=self.targets[STYLE_LAYERS[0]].device))


@torch.inference_mode()
def make_judge(
    encoder: Encoder,
    styles: Sequence[tuple[np.ndarray, float]],
    *,
    long_side: int,
    style_scale: float = 1.0,
    device: str = "cpu",
) -> Judge:
    """Judge of `styles`, pairs of (uint8 (h, w, 3), weight), at a long side of `style_scale * long_side` pixels.

    Several styles: the target Gram matrix is their weighted mean. UsageError when the encoder lacks one of `LAYERS`.
    """
    missing = [layer for layer in LAYERS if layer not in encoder.layers]
    if missing:
        raise UsageError(f"the encoder that scores must give {', '.join(LAYERS)}; this one lacks {', '.join(missing)}")
    total = sum(weight for _, weight in styles)
    grams: dict[str, list[Tensor]] = {layer: [] for layer in STYLE_LAYERS}
    for rgb, weight in styles:
        features = encoder(_to_long_side(to_image(rgb[None], device=device), style_scale * long_side))
        for layer in STYLE_LAYERS:
            grams[layer].append(gram(features[layer]).mean * (weight / total))
    return Judge(encoder, {layer: torch.stack(parts).sum(0) for layer, parts in grams.items()})


def _to_long_side(image: Tensor, long_side: float) -> Tensor:
    height, width = image.shape[-2:]
    scale = long_side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return functional.interpolate(image, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0.0, 1.0)


def score_rows(
    samples: Iterable[Sample], judge: Judge, *, true_flow: TrueFlow | None = None, network_every: int = 1
) -> Iterator[FrameScore]:
    """Score frames as they come, holding two of them.

    The flow and its trust mask are those of the *input* whatever the stylizer used (DIS; forward-backward and
    motion-boundary tests of Sundaram et al. 2010), or those of `true_flow`. `network_every`: style and content are
    taken on every n-th frame and on every frame that has a reference, warping error and fill on every pair.
    """
    previous: Sample | None = None
    for sample in samples:
        values: dict[str, float] = {}
        trusted: Tensor | None = None
        if previous is not None and not sample.first:
            flow, trusted = _flow_and_trust(sample, previous, true_flow)
            values |= _pair_measures(sample, previous, flow, trusted)
        if sample.frame % network_every == 0 or sample.reference is not None:
            values |= _network_measures(sample, judge, trusted)
        yield FrameScore(frame=sample.frame, seconds=sample.seconds, **values)
        previous = sample


def _flow_and_trust(sample: Sample, previous: Sample, true_flow: TrueFlow | None) -> tuple[Tensor, Tensor]:
    """Backward flow (1, 2, H, W) and trust (1, 1, H, W) in {0, 1} of the pair."""
    if true_flow is not None:
        flow = motion.to_flow(true_flow(sample.frame))
        return flow.nan_to_num(0.0), motion.inside(flow).float()  # a comparison with NaN is False: untrusted
    backward = motion.to_flow(motion.flow(sample.input, previous.input))
    forward = motion.to_flow(motion.flow(previous.input, sample.input))
    return backward, motion.trust_mask(backward, forward)


def _pair_measures(sample: Sample, previous: Sample, flow: Tensor, trusted: Tensor) -> dict[str, float]:
    source, output = to_image(sample.input[None]), to_image(sample.output[None])
    values = {
        "e_warp_input": warp_error(source, to_image(previous.input[None]), flow, trusted),
        "e_warp": warp_error(output, to_image(previous.output[None]), flow, trusted),
        "untrusted": float((1.0 - trusted).mean()),
    } | _changes("", source, output, trusted)
    if sample.reference is None:
        return values
    reference = to_image(sample.reference[None])
    values |= _changes("reference_", source, reference, trusted)
    if previous.reference is not None:
        values["reference_e_warp"] = warp_error(reference, to_image(previous.reference[None]), flow, trusted)
    return values


def _changes(prefix: str, source: Tensor, output: Tensor, trusted: Tensor) -> dict[str, float]:
    change = (output - source).square()
    return {
        f"{prefix}change_untrusted": masked_mean(change, 1.0 - trusted),
        f"{prefix}change_trusted": masked_mean(change, trusted),
    }


def _network_measures(sample: Sample, judge: Judge, trusted: Tensor | None) -> dict[str, float]:
    source, output = judge.features(sample.input), judge.features(sample.output)
    values = _look("", source, output, judge)
    if sample.reference is None:
        return values
    reference = judge.features(sample.reference)
    values |= _look("reference_", source, reference, judge)
    if trusted is not None:
        mask = trusted.to(reference[CONTENT_LAYER].device)
        values["local_untrusted"] = local_style(output, reference, 1.0 - mask)
        values["local_trusted"] = local_style(output, reference, mask)
        mirrored = (local_style(output, reference, (1.0 - mask).flip(axes) * mask) for axes in _MIRRORS)
        values["local_mirrored"] = mean(mirrored)
    return values


def _look(prefix: str, source: Mapping[str, Tensor], output: Mapping[str, Tensor], judge: Judge) -> dict[str, float]:
    content, p95 = content_distance(output[CONTENT_LAYER], source[CONTENT_LAYER])
    style = style_distance(output, judge.targets)
    return {f"{prefix}style": style, f"{prefix}content": content, f"{prefix}content_p95": p95}


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


def score_frames(
    inputs: np.ndarray,
    outputs: np.ndarray,
    styles: Sequence[tuple[np.ndarray, float]],
    encoder: Encoder,
    *,
    references: Mapping[int, np.ndarray] | None = None,
    shots: Sequence[int] = (0,),
    style_scale: float = 1.0,
    true_flow: TrueFlow | None = None,
    network_every: int = 1,
    device: str = "cpu",
) -> Score:
    """Score frames held in memory: `inputs`, `outputs` uint8 (N, H, W, 3); `styles` pairs of (uint8 (h, w, 3), weight).

    `references`: frame number -> that frame stylised on its own, uint8 (H, W, 3); the pairs (t-1, t) among them give
    the independent warping error. `shots`: the first frame of each shot; no pair spans two. UsageError when the shapes
    differ.
    """
    if inputs.shape != outputs.shape:
        raise UsageError(f"input frames {inputs.shape} and output frames {outputs.shape} must have one shape")
    judge = make_judge(encoder, styles, long_side=max(inputs.shape[1:3]), style_scale=style_scale, device=device)
    own = references or {}
    samples = (Sample(t, inputs[t], outputs[t], first=t in shots, reference=own.get(t)) for t in range(len(inputs)))
    return summarise(score_rows(samples, judge, true_flow=true_flow, network_every=network_every))


def write_csv(rows: Sequence[FrameScore], path: str | Path) -> None:
    """One line per frame, a column per field of FrameScore; a measure that was not taken is an empty cell."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(FrameScore)])
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if value is None else value for name, value in _nulls(asdict(row)).items()})
