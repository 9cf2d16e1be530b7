"""The teacher's correction: what it says, that it helps, and that a render without one knows nothing of it."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import LOOK, TinyEncoder, picture, texture

from nst_video import EffortOptions, LookOptions, Stylizer, load_encoder
from nst_video.colors import to_image
from nst_video.encoders import ENCODERS, Origin
from nst_video.errors import InputError
from nst_video.losses import gram, relative_style
from nst_video.motion import Motion, MotionWindow
from nst_video.objective import style_statistics
from nst_video.pictures import read_picture
from nst_video.presets import resolve_effort
from nst_video.stylizer import resize
from nst_video.teacher import Teacher, load_teacher

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

    def forward(self, image):
        return super().forward(0.7 * image)


def test_an_image_that_reaches_the_corrected_target_satisfies_the_teacher():
    pupil, seen, style = Blind(), picture(1), picture(9)
    teacher = Teacher(TinyEncoder(), pupil, ["far", "near"])
    targets = {layer: style_statistics(pupil, pupil(style), layer) for layer in ("far", "near")}
    wanted = teacher.statistics(style)
    correction = teacher.correction(seen, targets, wanted)
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
    (found,) = teacher.correction(picture(1), targets, teacher.statistics(picture(9))).values()
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-6, rtol=0)


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


def test_a_frame_is_nearer_to_the_style_for_vgg19_when_it_has_looked(slim):
    encoder, teacher = slim
    image, style, judge = sample("chelsea", 96), sample("woodblock", 96), load_encoder("vgg19", STYLE_LAYERS)
    distance = {}
    for name, who in (("alone", None), ("taught", teacher)):
        stylizer = Stylizer(encoder, [(style, 1.0)], effort=EFFORT, teacher=who)
        painted, state = stylizer.step(image, Motion.none(1, *image.shape[2:]), stylizer.initial_state())
        assert state.report.evaluations == EFFORT.first_iterations
        assert bool(state.correction) == (who is not None)
        found, wanted = judge(painted), judge(style)
        each = [float(relative_style(gram(found[x]).mean, gram(wanted[x]).mean)) for x in STYLE_LAYERS]
        distance[name] = sum(each) / len(each)
    assert distance["taught"] < 0.93 * distance["alone"]


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


def test_lanes_are_corrected_on_their_own():
    pupil = Blind()
    teacher = Teacher(TinyEncoder(), pupil, LOOK.style_layers)
    stylizer = Stylizer(pupil, [(picture(9), 1.0)], effort=EFFORT, look=LOOK, teacher=teacher)
    images = [picture(1), picture(2)]
    none = [Motion.none(lanes, 48, 64) for lanes in (1, 2)]
    alone = [stylizer.step(image, none[0], stylizer.initial_state())[1].correction for image in images]
    _, state = stylizer.step(torch.cat(images), none[1], stylizer.initial_state())
    for layer, both in state.correction.items():
        torch.testing.assert_close(both, torch.cat([one[layer] for one in alone]), rtol=0.05, atol=1e-3)


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
