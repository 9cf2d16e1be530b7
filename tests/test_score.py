"""Score: each measure has the value that arithmetic gives for frames made to have it."""

import csv
import functools
import json
import math

import cv2
import numpy as np
import pytest
import torch

from nst_video import measures
from nst_video.colors import to_image
from nst_video.devices.machine import computing
from nst_video.errors import InputError, UsageError
from nst_video.measures import LAYERS, FrameScore, summarise
from nst_video.media.pictures import write_picture
from nst_video.networks.encoders import load_encoder
from nst_video.optimization.losses import relative_style
from nst_video.optimization.objective import style_statistics
from nst_video.options import MachineOptions
from nst_video.score import Sample, make_judge, sample_pairs, score_frames, score_rows, score_video, write_csv

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("vgg19", LAYERS)


def texture(seed=0, height=HEIGHT, width=WIDTH, blur=2.0):
    """A picture with structure at every place, so that optical flow can hold on to it: uint8 (height, width, 3)."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), blur)
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def pan(frames=4, step=3, seed=0):
    """A window that moves `step` pixels to the right each frame, so frame_t(x) = frame_{t-1}(x + step)."""
    wide = texture(seed, width=WIDTH + frames * step)
    return np.stack([wide[:, t * step : t * step + WIDTH] for t in range(frames)])


def uniform_flow(dx):
    flow = torch.zeros(1, 2, HEIGHT, WIDTH)
    flow[:, 0] = dx
    return flow


def test_a_frozen_clip_of_a_still_scene_has_no_warping_error(encoder):
    still = np.repeat(texture()[None], 3, axis=0)
    score = score_frames(still, 255 - still, [(texture(1), 1.0)], encoder, network_every=3)
    assert max(score.e_warp, score.e_warp_input) < 1e-12  # float32 sampling positions
    assert [math.isnan(row.e_warp) for row in score.rows] == [True, False, False]


def test_a_distilled_encoder_judges_in_its_teachers_units():
    slim, frames = load_encoder("slim", LAYERS), texture()[None]
    score = score_frames(frames, 255 - frames, [(texture(1), 1.0)], slim)
    found, target = (to_image(rgb[None]) for rgb in (255 - frames[0], texture(1)))
    each = [
        float(relative_style(*(style_statistics(slim, slim(image), layer) for image in (found, target))))
        for layer in measures.STYLE_LAYERS
    ]
    assert score.style == pytest.approx(sum(each) / len(each), rel=1e-3)


def test_a_known_shift_warps_onto_the_next_frame():
    previous, current = torch.rand(2, 1, 3, HEIGHT, WIDTH).unbind()
    current[..., :-4] = previous[..., 4:]
    mask = torch.ones(1, 1, HEIGHT, WIDTH)
    mask[..., -4:] = 0
    assert measures.warp_error(current, previous, uniform_flow(4.0), mask) == pytest.approx(0.0, abs=1e-9)
    assert measures.warp_error(current, previous, uniform_flow(0.0), mask) == pytest.approx(1 / 6, rel=0.05)


def test_independent_noise_has_twice_its_variance_as_warping_error():
    torch.manual_seed(0)
    sigma = 0.1
    previous, current = (0.5 + sigma * torch.randn(2, 1, 3, 256, 256)).unbind()
    flow, mask = torch.zeros(1, 2, 256, 256), torch.ones(1, 1, 256, 256)
    assert measures.warp_error(current, previous, flow, mask) == pytest.approx(2 * sigma**2, rel=0.02)


def test_the_warping_error_counts_trusted_pixels_only():
    previous = torch.zeros(1, 3, HEIGHT, WIDTH)
    current = previous.clone()
    current[..., :8] = 1.0
    mask = torch.ones(1, 1, HEIGHT, WIDTH)
    assert measures.warp_error(current, previous, uniform_flow(0.0), mask) == pytest.approx(8 / WIDTH)
    mask[..., :8] = 0.0
    assert measures.warp_error(current, previous, uniform_flow(0.0), mask) == 0.0
    assert math.isnan(measures.warp_error(current, previous, uniform_flow(0.0), torch.zeros_like(mask)))


def test_the_flow_of_the_input_follows_a_pan(encoder):
    clip = pan()
    score = score_frames(clip, clip, [(texture(1), 1.0)], encoder, network_every=100)
    assert score.e_warp == score.e_warp_input < 1e-3
    boiling = np.stack([texture(seed) for seed in range(len(clip))])
    assert score_frames(clip, boiling, [(texture(1), 1.0)], encoder, network_every=100).e_warp > 30 * score.e_warp


def test_true_flow_replaces_the_estimate(encoder):
    clip = pan(step=5)

    def true_flow(frame):
        flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
        flow[..., 0] = 5.0
        flow[:10] = np.nan
        return flow

    score = score_frames(clip, clip, [(texture(1), 1.0)], encoder, true_flow=true_flow, network_every=100)
    assert score.e_warp == pytest.approx(0.0, abs=1e-9)
    lost = 1 - (HEIGHT - 10) * (WIDTH - 5) / (HEIGHT * WIDTH)
    assert score.untrusted == pytest.approx(lost, abs=1 / WIDTH)  # the last column may round to either side


def test_no_pair_spans_a_cut(encoder):
    clip = np.stack([texture(0), texture(0), texture(1), texture(1)])
    score = score_frames(clip, clip, [(texture(2), 1.0)], encoder, shots=(0, 2), network_every=100)
    assert [math.isnan(row.e_warp) for row in score.rows] == [True, False, True, False]
    assert score.e_warp < 1e-12


def test_a_picture_has_its_own_style_and_its_own_content(encoder):
    picture = texture(3)
    score = score_frames(picture[None], picture[None], [(picture, 2.0)], encoder)
    assert score.style == pytest.approx(0.0, abs=1e-6)
    assert (score.content, score.content_p95) == (0.0, 0.0)
    other = score_frames(picture[None], texture(4, blur=8.0)[None], [(picture, 1.0)], encoder)
    assert other.style > 0.05
    assert other.content > 0.3


def test_the_target_of_several_styles_is_their_weighted_mean(encoder):
    one, two = texture(3), texture(4, blur=8.0)
    grams = [make_judge(encoder, [(rgb, 1.0)], long_side=WIDTH).targets for rgb in (one, two)]
    both = make_judge(encoder, [(one, 1.0), (two, 3.0)], long_side=WIDTH).targets
    for layer, target in both.items():
        torch.testing.assert_close(target, 0.25 * grams[0][layer] + 0.75 * grams[1][layer])


def test_style_scale_sets_the_size_at_which_the_style_is_seen(encoder):
    rgb = texture(3)
    half = cv2.resize(rgb, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    judge = make_judge(encoder, [(rgb, 1.0)], long_side=WIDTH, style_scale=0.5)
    assert measures.style_distance(judge.features(half), judge.targets) < 0.02
    assert measures.style_distance(judge.features(rgb), judge.targets) > 0.05


def test_a_style_too_narrow_for_the_encoder_is_seen_larger(encoder):
    narrow = texture(3, height=8, width=160)
    judge = make_judge(encoder, [(narrow, 1.0)], long_side=WIDTH)
    doubled = cv2.resize(narrow, (320, 16), interpolation=cv2.INTER_CUBIC)
    assert measures.style_distance(judge.features(doubled), judge.targets) < 0.02


def test_content_distance_by_hand():
    target = torch.ones(1, 4, 10, 10)
    features = target.clone()
    features[:, :, 0] = 3.0  # a tenth of the places is off by 2 in each channel: (4 * 4) / 4
    mean, p95 = measures.content_distance(features, target)
    assert mean == pytest.approx(0.4)
    assert p95 == pytest.approx(4.0)


def test_fill_is_the_change_at_untrusted_pixels_over_that_at_the_others():
    rows = [
        FrameScore(0),
        FrameScore(1, untrusted=0.1, change_untrusted=0.01, change_trusted=0.04),
        FrameScore(2, untrusted=0.3, change_untrusted=0.03, change_trusted=0.04),
        FrameScore(3, untrusted=0.0, change_trusted=0.04),
    ]
    assert summarise(rows).fill == pytest.approx((0.1 * 0.01 + 0.3 * 0.03) / 0.4 / 0.04)


def test_an_unpainted_hole_shows_in_fill_and_local_style(encoder):
    clip = pan(frames=2, step=12)
    painted = np.stack([texture(7, blur=1.0)] * 2)
    holed = painted.copy()
    holed[1, :, -12:] = clip[1, :, -12:]  # what came into the picture was left as it was

    def true_flow(frame):
        return np.broadcast_to(np.float32([12.0, 0.0]), (HEIGHT, WIDTH, 2)).copy()

    score = score_frames(
        clip, holed, [(painted[0], 1.0)], encoder, references={0: painted[0], 1: painted[1]}, true_flow=true_flow
    )
    assert score.reference is not None
    assert score.reference.fill_ours < 0.1 < 0.8 < score.reference.fill_independent
    assert score.reference.local_ratio > 5
    assert score.reference.frames == 2


def test_reference_frames_equal_to_ours_give_equal_figures(encoder):
    clip, output = pan(frames=4), np.stack([texture(seed) for seed in range(4)])
    score = score_frames(clip, output, [(texture(9), 1.0)], encoder, references={2: output[2], 3: output[3]})
    by = score.reference
    assert by is not None
    assert by.frames == 2
    assert by.e_warp_ours == by.e_warp_independent == score.rows[3].e_warp  # (2, 3) is the only sampled pair
    assert by.coherence_gain == by.content_p95_worst == 1.0
    assert by.style_ours == by.style_independent
    assert by.fill_ours == by.fill_independent
    assert by.local_untrusted == by.local_trusted == 0.0
    assert math.isnan(by.local_ratio)


def test_local_style_sees_only_the_masked_pixels(encoder):
    judge = make_judge(encoder, [(texture(1), 1.0)], long_side=WIDTH)
    ours, theirs = texture(5), texture(5)
    theirs[:, : WIDTH // 2] = texture(6, blur=6.0)[:, : WIDTH // 2]
    left = torch.zeros(1, 1, HEIGHT, WIDTH)
    left[..., : WIDTH // 4] = 1
    right = left.flip(-1)
    near, far = judge.features(ours), judge.features(theirs)
    assert measures.local_style(near, far, right) < 1e-6
    assert measures.local_style(near, far, left) > 0.05
    assert math.isnan(measures.local_style(near, far, torch.zeros_like(left)))


def test_like_regions_show_what_a_small_region_alone_costs(encoder):
    clip = pan(frames=2, step=12)
    ours, theirs = np.stack([texture(5, blur=1.0)] * 2), texture(6, blur=1.0)  # two equally good paintings
    moves_out = np.full((HEIGHT, WIDTH, 2), np.float32([12.0, 0.0]))
    judged = [(texture(7, blur=1.0), 1.0)]
    score = score_frames(clip, ours, judged, encoder, references={1: theirs}, true_flow=lambda frame: moves_out)
    assert score.reference is not None
    assert score.reference.local_ratio > 2
    assert score.reference.local_ratio_mirrored == pytest.approx(1.0, abs=0.5)


def test_the_network_runs_on_every_nth_frame_and_where_there_is_a_reference(encoder):
    still = texture()
    judge = make_judge(encoder, [(texture(1), 1.0)], long_side=WIDTH)
    samples = [Sample(t, still, still, first=t == 0, reference=still if t == 3 else None) for t in range(5)]
    rows = list(score_rows(samples, judge, network_every=2))
    assert [row.frame for row in rows if not math.isnan(row.style)] == [0, 2, 3, 4]


def test_a_csv_gives_back_what_was_written(tmp_path):
    rows = [FrameScore(0, seconds=0.0, style=0.031), FrameScore(1, seconds=0.04, e_warp=1.5e-4, style=0.1 + 0.2)]
    write_csv(rows, tmp_path / "score.csv")
    with open(tmp_path / "score.csv", newline="", encoding="utf-8") as file:
        read = [
            FrameScore(**{name: float(cell) if cell else math.nan for name, cell in line.items()})
            for line in csv.DictReader(file)
        ]
    assert [repr(row) for row in read] == [repr(FrameScore(**{**vars(row), "frame": float(row.frame)})) for row in rows]


def test_the_json_is_plain_and_the_summary_shows_coherence_beside_style(encoder):
    clip = pan(frames=3)
    score = score_frames(clip, clip, [(texture(1), 1.0)], encoder, references={1: clip[1], 2: clip[2]})
    means = json.loads(json.dumps(score.to_json(), allow_nan=False))
    assert means["frames"] == 3
    assert means["style"] == score.style
    assert means["reference"]["coherence_gain"] == 1.0
    assert means["reference"]["local_ratio"] is None
    first = score.summary()[0]
    assert "E_warp" in first
    assert "style distance" in first


def test_frames_of_different_shapes_are_refused(encoder):
    with pytest.raises(UsageError, match=r"\(2, 64, 96, 3\) and output frames \(1, 64, 96, 3\)"):
        score_frames(pan(2), pan(1), [(texture(1), 1.0)], encoder)


def test_an_encoder_without_the_scored_layers_is_refused():
    shallow = load_encoder("vgg19", ("relu1_1", "relu2_1"))
    with pytest.raises(UsageError, match=r"lacks relu3_1, relu4_1, relu5_1, relu4_2"):
        make_judge(shallow, [(texture(), 1.0)], long_side=WIDTH)


def write_frames(folder, frames):
    folder.mkdir()
    for number, rgb in enumerate(frames):
        write_picture(folder / f"{number:05d}.png", rgb)
    return folder


@pytest.fixture
def files(tmp_path):
    """Two shots of six frames, a painted version of them, a style: paths and arrays."""
    inputs = np.concatenate([pan(6, 2, seed=0), pan(6, 2, seed=40)])
    inputs[6:] //= 2  # a cut that no detector can miss
    outputs = np.stack([texture(100 + t, blur=1.5) for t in range(12)])
    write_picture(tmp_path / "style.png", texture(7, blur=1.5))
    return write_frames(tmp_path / "in", inputs), write_frames(tmp_path / "out", outputs), inputs, outputs


def test_files_score_as_their_frames_do(files, tmp_path, encoder):
    source, result, inputs, outputs = files
    done = []
    of_files = score_video(
        source, result, tmp_path / "style.png", network_every=4, threads=1, progress=lambda *counts: done.append(counts)
    )
    style = [(texture(7, blur=1.5), 1.0)]
    with computing(MachineOptions(device="cpu", threads=1)):
        of_frames = score_frames(inputs, outputs, style, encoder, shots=(0, 6), network_every=4)
    assert of_files.to_json() == of_frames.to_json()
    assert [row.seconds for row in of_files.rows] == pytest.approx([t / 25 for t in range(12)])
    assert done == [(t + 1, 12) for t in range(12)]


def test_a_still_is_scored_against_its_own_frame(files, tmp_path):
    source, result, *_ = files
    still = score_video(source, result / "00003.png", tmp_path / "style.png", still="0.12", threads=1)
    clip = score_video(source, result, tmp_path / "style.png", network_every=3, threads=1)
    assert still.frames == 1
    assert (still.style, still.content) == (clip.rows[3].style, clip.rows[3].content)


def test_the_text_of_a_single_picture_leaves_out_what_there_is_not(files, tmp_path):
    source, result, *_ = files
    still = score_video(source, result / "00003.png", tmp_path / "style.png", still="0.12", threads=1)
    text = "\n".join(still.summary())
    assert text.startswith("1 frame: style distance ")
    assert not any(word in text for word in ("nan", "E_warp", "fill"))


@pytest.mark.parametrize(("size", "fits"), [((64, 96), False), ((48, 32), True), ((48, 34), True), ((48, 38), False)])
def test_an_output_of_another_shape_is_refused(files, tmp_path, size, fits):
    source, *_ = files
    path = tmp_path / "other.png"
    write_picture(path, cv2.resize(texture(), size))
    score = functools.partial(score_video, source, path, tmp_path / "style.png", still="0.12", threads=1)
    if fits:
        assert score().frames == 1
    else:
        with pytest.raises(InputError, match=rf"other.png is {size[0]}x{size[1]} pixels, which 96x64 of .* do not"):
            score()


def test_reference_frames_are_asked_for_in_pairs_inside_a_shot(files, tmp_path):
    source, result, inputs, _ = files
    asked = {}

    def paint(frame, rgb):
        asked[frame] = rgb
        return 255 - rgb

    settings = {"reference": 2, "paint": paint, "network_every": 12, "threads": 1}
    score = score_video(source, result, tmp_path / "style.png", **settings)
    assert sorted(asked) == [2, 3, 8, 9]
    assert all((rgb == inputs[frame]).all() for frame, rgb in asked.items())
    assert [row.frame for row in score.rows if not math.isnan(row.reference_e_warp)] == [3, 9]
    assert score.reference is not None
    # 255 - x warps as x does, up to the rounding of 1 - v in float32.
    assert score.reference.e_warp_independent == pytest.approx(
        np.mean([score.rows[t].e_warp_input for t in (3, 9)]), rel=1e-3
    )


def test_the_stylizer_makes_the_reference_frames_as_first_frames_of_a_shot(files, tmp_path):
    source, result, *_ = files
    settings = {"end": 0.12, "first_iterations": 2, "threads": 1}
    with pytest.raises(InputError, match=r"out has 12 frames but .*in gives 3; give --start, --end and --stride"):
        score_video(source, result, tmp_path / "style.png", reference=1, **settings)
    for later in sorted(result.iterdir())[3:]:
        later.unlink()
    score = score_video(source, result, tmp_path / "style.png", reference=1, **settings)
    assert score.reference is not None
    assert score.reference.frames == 2
    assert 0 < score.reference.e_warp_independent < 0.1
    again = score_video(source, result, tmp_path / "style.png", reference=1, **settings)
    assert again.to_json() == score.to_json()


def test_sampled_pairs_are_spread_over_the_clip_and_never_span_a_cut():
    assert sample_pairs([(0, 100)], 4) == (13, 38, 62, 87)
    assert sample_pairs([(0, 1), (1, 3), (3, 4)], 5) == (2,)
    assert sample_pairs([(0, 1)], 4) == ()
    assert sample_pairs([(0, 100)], 0) == ()
