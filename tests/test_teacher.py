"""The teacher's correction: what it says, that it helps, and that a render without one knows nothing of it."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import LOOK, TinyEncoder, picture, relative_error, texture

from nst_video import EffortOptions, LookOptions, Stylizer, load_encoder
from nst_video.colors import to_image
from nst_video.controls import Controls
from nst_video.errors import InputError
from nst_video.flow.motion import Motion, MotionWindow
from nst_video.media.pictures import read_picture
from nst_video.networks.encoders import ENCODERS, Origin
from nst_video.optimization.losses import gram, relative_style
from nst_video.optimization.objective import Missed, in_basis, style_statistics
from nst_video.painting.batches import batch_of, state_of
from nst_video.painting.scales import resize
from nst_video.painting.teacher import Teacher, load_teacher, places_of
from nst_video.presets import resolve_effort

SAMPLES = Path(__file__).parent.parent / "samples"
SLIM = ENCODERS["slim"].source.path
STYLE_LAYERS = LookOptions().style_layers
EFFORT = resolve_effort(EffortOptions(quality="draft", first_iterations=60, iterations=2))


def sample(name, side):
    image = to_image(read_picture(SAMPLES / f"{name}.jpg")[None])
    return resize(image, (round(side * image.shape[2] / image.shape[3]), side))


class Blind(TinyEncoder):
    """A pupil of TinyEncoder that takes every picture for darker than it is."""

    def __init__(self):
        super().__init__()
        self.origins = {"far": Origin("tiny", "far", torch.eye(16)), "near": Origin("tiny", "near", torch.eye(8))}

    def forward(self, image, **which):
        return super().forward(0.7 * image, **which)


def test_an_image_that_reaches_the_corrected_target_satisfies_the_teacher():
    pupil, seen, style = Blind(), picture(1), picture(9)
    teacher = Teacher(TinyEncoder(), pupil, ["far", "near"])
    targets = {layer: style_statistics(pupil, pupil(style), layer) for layer in ("far", "near")}
    wanted = teacher.statistics(style)
    correction, _ = teacher.look(seen, targets, wanted, ())
    for layer in ("far", "near"):
        pupils, teachers = (gram(net(seen)[layer]).mean for net in (pupil, TinyEncoder()))
        # As far from its corrected target as the teacher is from its own.
        torch.testing.assert_close(pupils - (targets[layer] + correction[layer]), teachers - wanted[layer])
    assert not any(torch.allclose(found, torch.zeros_like(found), atol=1e-3) for found in correction.values())


def test_a_perfect_pupil_is_not_corrected():
    pupil = TinyEncoder()
    pupil.origins = {"far": Origin("tiny", "far", torch.eye(16))}
    teacher = Teacher(TinyEncoder(), pupil, ["far"])
    targets = {"far": gram(pupil(picture(9))["far"]).mean}
    (found,) = teacher.look(picture(1), targets, teacher.statistics(picture(9)), ())[0].values()
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-6, rtol=0)


def test_what_the_pupil_misses_completes_what_it_sees():
    pupil = Blind()
    pupil.bases = {"far": torch.randn(16, 16)}
    teacher = Teacher(TinyEncoder(), pupil, ["near"], places=["far"])
    image = torch.cat([picture(1), picture(2)])
    correction, missed = teacher.look(image, {}, {}, ["far", "near"])
    assert correction == {}
    assert set(missed) == {"far"}  # the only one to be judged by place
    completed = in_basis(pupil, pupil(image), "far") + missed["far"]
    torch.testing.assert_close(completed, TinyEncoder()(image)["far"], rtol=1e-4, atol=1e-5)


def test_a_teacher_with_fewer_places_completes_all_of_the_pupils():
    class Cropped(TinyEncoder):
        def forward(self, image, **which):
            return {layer: seen[..., 1:-1, 1:-1] for layer, seen in super().forward(image, **which).items()}

    pupil = Blind()
    _, missed = Teacher(Cropped(), pupil, ["near"], places=["far"]).look(picture(1), {}, {}, ["far"])
    assert missed["far"].shape == pupil(picture(1))["far"].shape


@pytest.fixture(scope="module")
def slim():
    encoder = load_encoder("slim", (*STYLE_LAYERS, "relu4_2"))
    return encoder, load_teacher(encoder, STYLE_LAYERS)


def test_slims_teacher_is_vgg19_and_both_see_nearly_the_same(slim):
    encoder, teacher = slim
    assert teacher.encoder.name == "vgg19"
    assert tuple(teacher.origins) == STYLE_LAYERS
    image = sample("glass", 160)
    seen = teacher.statistics(image)
    for layer in ("relu1_1", "relu2_1", "relu3_1"):
        assert float(relative_style(style_statistics(encoder, encoder(image), layer), seen[layer])) < 0.1, layer


def test_frames_are_nearer_to_the_style_for_vgg19_the_more_it_has_said(slim):
    encoder, teacher = slim
    by_place = load_teacher(encoder, STYLE_LAYERS, places=places_of(encoder, LookOptions()))
    judge, distances = load_encoder("vgg19", STYLE_LAYERS), {}
    for name, who in (("alone", None), ("taught", teacher), ("by place", by_place)):
        distances[name] = 0.0
        for image, style in (("chelsea", "woodblock"), ("coffee", "oil"), ("coffee", "woodblock")):
            frame, wanted = sample(image, 96), sample(style, 96)
            stylizer = Stylizer(encoder, [(wanted, 1.0)], effort=EFFORT, teacher=who)
            painted, state = stylizer.step(frame, Motion.none(1, *frame.shape[2:]), stylizer.initial_state())
            assert state.report.evaluations == EFFORT.first_iterations
            assert bool(state.correction) == (who is not None)
            assert set(state.missed.painting) == ({"relu5_1", "relu4_2"} if who is by_place else set())
            one, other = judge(painted), judge(wanted)
            distances[name] += sum(float(relative_style(gram(one[x]).mean, gram(other[x]).mean)) for x in STYLE_LAYERS)
    assert distances["taught"] < 0.85 * distances["alone"]
    assert distances["by place"] < 0.95 * distances["taught"]


def test_later_frames_keep_the_correction_and_renew_it_every_second_frame():
    pupil = Blind()
    stylizer = Stylizer(
        pupil, [(picture(9), 1.0)], effort=EFFORT, look=LOOK, teacher=Teacher(TinyEncoder(), pupil, LOOK.style_layers)
    )
    window, state, seen = MotionWindow((1, 2, 4)), stylizer.initial_state(), []
    for number in range(6):
        rgb = texture(number // 3)
        _, state = stylizer.step(to_image(rgb[None]), window.step(rgb, number == 0), state)
        seen.append(state.correction)
    assert set(seen[0]) == {"far", "near"}
    same = [before is after for before, after in pairwise(seen)]
    assert same == [True, False, True, False, True]


def placed():
    """A stylizer of which the teacher judges the deepest layer place by place, which is that of the content too."""
    pupil = Blind()
    teacher = Teacher(TinyEncoder(), pupil, LOOK.style_layers, places=places_of(pupil, LOOK))
    return Stylizer(pupil, [(picture(9), 1.0)], effort=EFFORT, look=LOOK, teacher=teacher)


def test_what_is_missed_moves_with_the_picture_and_is_found_anew_every_second_frame():
    stylizer, shift = placed(), 8
    flow = torch.zeros(1, 1, 2, 48, 64)
    flow[:, :, 0] = shift  # each place was so far to the right in the frame before
    trust = torch.ones(1, 1, 1, 48, 64)
    trust[..., :24, :] = 0
    _, first = stylizer.step(picture(1), Motion.none(1, 48, 64), stylizer.initial_state())
    assert set(first.missed.painting) == set(first.missed.frame) == {"far"}
    _, second = stylizer.step(picture(1), Motion(flow, trust), first)
    cells = shift // 4
    for kept, moved in ((first.missed.painting, second.missed.painting), (first.missed.frame, second.missed.frame)):
        torch.testing.assert_close(moved["far"][..., 6:, :-cells], kept["far"][..., 6:, cells:], rtol=1e-3, atol=1e-4)
        assert not moved["far"][..., :6, :].any()  # nothing is known of what is new
    _, third = stylizer.step(picture(1), Motion(flow, trust), second)
    assert third.missed.painting["far"][..., :6, :].any()


def test_frames_are_looked_at_half_as_often_as_their_paintings(monkeypatch):
    stylizer, looks = placed(), []
    look = Teacher.look

    def noting(teacher, image, targets, *more):
        looks.append("painting" if targets else "frame")
        return look(teacher, image, targets, *more)

    still = Motion(torch.zeros(1, 1, 2, 48, 64), torch.ones(1, 1, 1, 48, 64))
    _, state = stylizer.step(picture(1), Motion.none(1, 48, 64), stylizer.initial_state())
    monkeypatch.setattr(Teacher, "look", noting)
    for _ in range(1, 9):
        looks.append(state.frame)
        _, state = stylizer.step(picture(1), still, state)
    assert looks == [1, 2, "painting", 3, 4, "painting", "frame", 5, 6, "painting", 7, 8, "painting", "frame"]


def test_a_frame_that_is_not_painted_forgets_what_is_missed():
    stylizer = placed()
    _, state = stylizer.step(picture(1), Motion.none(1, 48, 64), stylizer.initial_state())
    still = Motion(torch.zeros(1, 1, 2, 48, 64), torch.ones(1, 1, 1, 48, 64))
    _, state = stylizer.step(picture(1), still, state, Controls(strength=0.0))
    assert state.missed == Missed()
    _, state = stylizer.step(picture(1), still, state)
    assert set(state.missed.painting) == {"far"}


def test_lanes_are_corrected_on_their_own():
    stylizer, images = placed(), [picture(1), picture(2)]
    none = [Motion.none(lanes, 48, 64) for lanes in (1, 2)]
    alone = [stylizer.step(image, none[0], stylizer.initial_state())[1] for image in images]
    _, both = stylizer.step(torch.cat(images), none[1], stylizer.initial_state())
    joined = batch_of(alone)
    for found, wanted in ((both.correction, joined.correction), (both.missed.painting, joined.missed.painting)):
        assert found.keys() == wanted.keys()
        for layer, values in found.items():
            assert relative_error(values, wanted[layer]) < 0.1
            assert relative_error(values[:1], wanted[layer][1:]) > 0.3  # and each lane has its own
    for lane, one in enumerate(alone):
        part = state_of(joined, slice(lane, lane + 1))
        assert torch.equal(part.missed.painting["far"], one.missed.painting["far"])
        assert torch.equal(part.missed.frame["far"], one.missed.frame["far"])


def test_an_encoder_without_origins_has_no_teacher_and_no_correction():
    assert load_teacher(load_encoder("vgg19", ["relu1_1"]), ["relu1_1"]) is None
    stylizer = Stylizer(TinyEncoder(), [(picture(9), 1.0)], effort=EFFORT, look=LOOK)
    _, state = stylizer.step(picture(1), Motion.none(1, 48, 64), stylizer.initial_state())
    assert state.correction == {}


@pytest.mark.parametrize(
    ("key", "shape", "fault"),
    [
        ("relu1_1.from.vgg19.relu9_9", (16, 64), "no encoder has such a layer"),
        ("relu1_1.from.vgg19.relu1_", (16, 64), "no encoder has such a layer"),
        ("relu1_1.from.vgg19.relu1_1", (16, 63), r"shape \(16, 63\) where \(16, 64\) is needed"),
        ("relu1_1.from.vgg16.relu1_1", (16, 64), "name the teachers vgg16, vgg19; allowed is one"),
    ],
)
def test_origins_of_a_file_must_fit(tmp_path, key, shape, fault):
    state = load_file(SLIM) | {key: torch.zeros(shape)}
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=fault):
        load_encoder("slim", ["relu1_1", "relu2_1"], weights=tmp_path / "odd.safetensors")
