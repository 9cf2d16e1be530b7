"""Score a render: every frame against its input, its style and the frame before, on arrays or on files.

A frozen clip is perfectly coherent and an unpainted one keeps all its content, so no figure here means anything on its
own: coherence (`e_warp`) and style always stand together. What is measured, and how, is in measures.py.
"""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nst_video.colors import to_image, to_rgb
from nst_video.curves import controls_at
from nst_video.devices.machine import computing
from nst_video.errors import InputError, UsageError
from nst_video.flow import motion
from nst_video.measures import (
    CONTENT_LAYER,
    LAYERS,
    NAN,
    STYLE_LAYERS,
    FrameScore,
    Score,
    content_distance,
    local_style,
    masked_mean,
    mean,
    nulls,
    style_distance,
    summarise,
    warp_error,
)
from nst_video.media.guarded import look as look_at
from nst_video.media.pictures import read_picture
from nst_video.media.survey import Request, part_reader, probe_input
from nst_video.media.video import VideoReader
from nst_video.media.videoinfo import scaled_size
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.optimization.losses import gram
from nst_video.optimization.objective import in_basis
from nst_video.options import OutputOptions
from nst_video.plan import Plan
from nst_video.planning import StyleLike, settle
from nst_video.settings import split_options
from nst_video.stylizers import FrameStylizer, make_stylizer
from nst_video.words import counted

ROUNDING = 2  # pixels by which sizes may differ: renders have even ones
_MIRRORS = ((-1,), (-2,), (-1, -2))  # left-right, up-down, both

# Frame t -> float32 (H, W, 2): frame_t(x) = frame_{t-1}(x + flow(x)), in pixels; NaN where frame t-1 lacks the place.
TrueFlow = Callable[[int], np.ndarray]


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
        return _features(self.encoder, to_image(rgb[None], device=self.targets[STYLE_LAYERS[0]].device))


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
        image = to_image(rgb[None], device=device)
        features = _features(encoder, _to_long_side(image, style_scale * long_side, encoder.smallest_side))
        for layer in STYLE_LAYERS:
            grams[layer].append(gram(features[layer]).mean * (weight / total))
    return Judge(encoder, {layer: torch.stack(parts).sum(0) for layer, parts in grams.items()})


def _features(encoder: Encoder, image: Tensor) -> dict[str, Tensor]:
    found = encoder(image)
    return {layer: in_basis(encoder, found, layer) for layer in found}


def _to_long_side(image: Tensor, long_side: float, smallest_side: int) -> Tensor:
    """`image` with that long side, or larger where its short one would be too small for the encoder."""
    height, width = image.shape[-2:]
    scale = max(long_side / max(height, width), smallest_side / min(height, width))
    size = (round(height * scale), round(width * scale))
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
) -> Score:
    """Score frames held in memory: `inputs`, `outputs` uint8 (N, H, W, 3); `styles` pairs of (uint8 (h, w, 3), weight).

    `references`: frame number -> that frame stylised on its own, uint8 (H, W, 3); the pairs (t-1, t) among them give
    the independent warping error. `shots`: the first frame of each shot; no pair spans two. UsageError when the shapes
    differ.
    """
    if inputs.shape != outputs.shape:
        raise UsageError(f"input frames {inputs.shape} and output frames {outputs.shape} must have one shape")
    judge = make_judge(encoder, styles, long_side=max(inputs.shape[1:3]), style_scale=style_scale)
    own = references or {}
    samples = (Sample(t, inputs[t], outputs[t], first=t in shots, reference=own.get(t)) for t in range(len(inputs)))
    return summarise(score_rows(samples, judge, true_flow=true_flow, network_every=network_every))


Paint = Callable[[int, np.ndarray], np.ndarray]  # frame number, uint8 (H, W, 3) -> the frame stylised on its own


def score_video(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleLike | Sequence[StyleLike],
    *,
    reference: int = 0,
    judge: Encoder | None = None,
    paint: Paint | None = None,
    true_flow: TrueFlow | None = None,
    network_every: int = 1,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Score:
    """Score a rendered video against its input and its style, at the size of the output, holding two frames at a time.

    Args:
        input, output: what was rendered and what came out; `start`, `end` and `stride` as in the render.
        style: a picture, or several as paths or (path, weight).
        reference: stylise that many pairs of consecutive frames, evenly spaced, each frame on its own, to compare with;
            `options` say how (as for `stylize`), so give those of the render.
        judge: who judges style and content: the embedded VGG-19 with average pooling unless given. The option `encoder`
            is that of the render, and so of the reference.
        paint: makes the reference frames in place of the stylizer that the options describe.
        true_flow, network_every: as in `score_rows`.
        progress: called after every frame with the number done and the number of all.

    Raises:
        InputError: a file that cannot be used, or an output of another shape or with other frames than the input.
        UsageError: an unknown option, or one out of range.
    """
    plan = _plan(input, output, style, options)
    with computing(plan.machine):
        judged_by = _judge(plan, judge)
        pairs = sample_pairs(plan.shots, reference)
        if pairs and paint is None:
            paint = independent_painter(make_stylizer(plan), plan.machine.device, plan.curves)
        samples = _samples(plan, {t - back for t in pairs for back in (0, 1)}, paint)
        rows = []
        for row in score_rows(samples, judged_by, true_flow=true_flow, network_every=network_every):
            rows.append(row)
            if progress is not None:
                progress(len(rows), plan.frames)
    return summarise(rows)


def _plan(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    style: StyleLike | Sequence[StyleLike],
    options: Mapping[str, Any],
) -> Plan:
    """The plan that the output can come from, at the size it has; InputError when it has another shape, more frames or
    fewer.
    """
    settings = split_options(options)
    part = settings.options
    whole = OutputOptions(max_pixels=part.max_pixels, max_duration=part.max_duration)
    with look_at(Request(os.fspath(output), (), whole, cut_threshold=0)) as at:
        size = scaled_size(at.info, "full")
        found = len(at.finish().pts)
    plan = settle(input, style, output, settings, size=size)
    if found != plan.frames:
        raise InputError(
            f"{output} has {counted(found, 'frame')} but {input} gives {plan.frames}; "
            f"give --start, --end and --stride as in the render"
        )
    _check_aspect(plan)
    return plan


def _check_aspect(plan: Plan) -> None:
    """InputError where the output, whose size the plan has, cannot be the input in another size."""
    info = probe_input(plan.input, plan.options)
    wanted = scaled_size(info, max(plan.size), upscale=True)
    if any(abs(one - other) > ROUNDING for one, other in zip(wanted, plan.size, strict=True)):
        raise InputError(
            f"{plan.output} is {plan.size[0]}x{plan.size[1]} pixels, which {info.width}x{info.height} of {plan.input} "
            f"do not come to (at this size {wanted[0]}x{wanted[1]}); give the input that it was painted from"
        )


def _judge(plan: Plan, encoder: Encoder | None) -> Judge:
    device = plan.machine.device
    return make_judge(
        encoder or load_encoder("vgg19", LAYERS, device=device),
        [(read_picture(share.path, max_pixels=plan.options.max_pixels), share.weight) for share in plan.styles],
        long_side=max(plan.size),
        style_scale=plan.look.style_scale,
        device=device,
    )


def sample_pairs(shots: Sequence[tuple[int, int]], count: int) -> tuple[int, ...]:
    """The later frames t of up to `count` pairs (t-1, t) inside shots (first, last + 1), evenly spaced over the clip.

    >>> sample_pairs([(0, 10), (10, 20)], 3)
    (4, 11, 17)
    """
    later = [t for first, end in shots for t in range(first + 1, end)]
    count = min(count, len(later))
    return tuple(later[(2 * index + 1) * len(later) // (2 * count)] for index in range(count))


def independent_painter(
    stylizer: FrameStylizer, device: str = "cpu", curves: Mapping[str, Sequence[float]] = MappingProxyType({})
) -> Paint:
    """A function that stylises a frame as the first of a shot: nothing is known of the frames before it. `curves`: the
    plan's.
    """

    def paint(frame: int, rgb: np.ndarray) -> np.ndarray:
        nothing = motion.Motion.none(1, *rgb.shape[:2]).to(device)
        image, _ = stylizer.step(
            to_image(rgb[None], device), nothing, stylizer.initial_state(), controls_at(curves, frame)
        )
        return to_rgb(image)[0]

    return paint


def _samples(plan: Plan, sampled: set[int], paint: Paint | None) -> Iterator[Sample]:
    """The frames of input and output side by side, as they are decoded."""
    beginnings = {first for first, _ in plan.shots}
    with (
        part_reader(plan.input, plan.options, size=plan.size) as source,
        VideoReader(plan.output, max_pixels=plan.options.max_pixels) as result,
    ):
        pairs = zip(_frames(source), _frames(result), strict=True)
        for frame, ((seconds, before), (_, after)) in enumerate(pairs):
            reference = paint(frame, before) if paint is not None and frame in sampled else None
            yield Sample(frame, before, after, frame in beginnings, seconds, reference)


def _frames(reader: VideoReader) -> Iterator[tuple[float, np.ndarray]]:
    for batch in reader:
        yield from zip(map(float, batch.times), batch.rgb, strict=True)


def write_csv(rows: Sequence[FrameScore], path: str | Path) -> None:
    """One line per frame, a column per field of FrameScore; a measure that was not taken is an empty cell."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(FrameScore)])
        writer.writeheader()
        writer.writerows(nulls(asdict(row)) for row in rows)  # csv writes None as an empty cell
