"""Distillation: the student begins close to its teacher, its loss falls, and a training that was stopped goes on."""

import importlib
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nst_video.networks.encoders import load_encoder
from nst_video.optimization.losses import relative_style

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def distill():
    """scripts/distill.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("distill")


@pytest.fixture(scope="module")
def crops(distill):
    return distill.pictures.Crops(distill.pictures.load([ROOT / "samples"]))


def training(distill, crops, **schedule):
    settings = Namespace(device="cpu", teacher="vgg19", seed=3)
    return distill.Training(settings, replace(distill.QUICK, **schedule), crops)


def test_the_pictures_that_benchmarks_are_made_of_are_withheld(distill):
    found = distill.pictures.load([ROOT / "samples"])
    assert len(found) == len(list((ROOT / "samples").glob("*.jpg"))) - 3
    assert all(max(picture.shape[:2]) <= distill.pictures.LONG_SIDE for picture in found)


def test_crops_are_squares_in_range_and_repeat_with_their_seed(crops):
    one, same, other = (crops.sample(3, 48, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (3, 3, 48, 48)
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_first_fit_explains_most_of_the_teacher_before_any_training(distill, crops):
    fresh = training(distill, crops)
    image = crops.sample(4, 64, np.random.default_rng(9))
    with torch.no_grad():
        fitted = distill.distances(fresh.student, fresh.teacher(image), image, 1)
        random = distill.distances(distill.Student("vgg19"), fresh.teacher(image), image, 1)
    assert float(fitted["features"]) < 0.55 < 0.9 < float(random["features"])


def test_the_quick_run_of_the_script_lowers_its_loss_and_writes_weights_that_load(
    distill, tmp_path, monkeypatch, capsys
):
    target = tmp_path / "quick.safetensors"
    monkeypatch.setattr(
        sys, "argv", ["distill.py", str(tmp_path / "work"), "--quick", "--target", str(target), "--device", "cpu"]
    )
    distill.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("held out")]
    before, after = (dict(zip(line[3::2], map(float, line[4::2]), strict=True)) for line in lines)
    for loss in ("features", "grams"):
        assert after[loss] < 0.9 * before[loss], loss
    encoder = load_encoder("slim", ["relu1_1", "relu5_1"], weights=target)
    assert set(encoder(torch.rand(1, 3, 32, 32))) == set(encoder.bases) == {"relu1_1", "relu5_1"}


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(distill, crops, tmp_path):
    settings = {"steps": 6, "paint_every": 4, "side": 32}
    whole = training(distill, crops, **settings)
    list(whole.run())
    cut = training(distill, crops, **settings)
    steps = cut.run()
    for _ in range(3):
        next(steps)
    cut.save(tmp_path / "state.pt")
    again = training(distill, crops, **settings)
    again.resume(tmp_path / "state.pt")
    list(again.run())
    assert again.step == whole.step == 6
    for name, tensor in whole.average.state_dict().items():
        assert torch.equal(tensor, again.average.state_dict()[name]), name


def test_a_state_of_another_teacher_is_refused(distill, crops, tmp_path):
    other = training(distill, crops, steps=1)
    other.name = "vgg16"
    other.save(tmp_path / "state.pt")
    with pytest.raises(SystemExit, match="student of vgg16; name another folder for vgg19"):
        training(distill, crops).resume(tmp_path / "state.pt")


def test_a_state_of_an_earlier_version_is_refused(distill, crops, tmp_path):
    begun = training(distill, crops, steps=1)
    begun.save(tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["optimiser"] = state.pop("optimisers")
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(SystemExit, match="earlier version of this script; name another folder"):
        begun.resume(tmp_path / "state.pt")


def test_the_basis_keeps_the_distances_of_the_map_it_comes_from(distill):
    student = distill.Student("vgg19")
    grams = [torch.randn(1, 256, 256) for _ in range(2)]
    matrix, basis = student.maps["relu5_1"].detach(), student.bases()["relu5_1"]
    by_map = relative_style(*(matrix @ gram @ matrix.mT for gram in grams))
    by_basis = relative_style(*(basis @ gram @ basis.mT for gram in grams))
    torch.testing.assert_close(by_basis, by_map, rtol=1e-3, atol=1e-5)


def test_every_encoder_of_the_table_can_be_a_teacher(distill):
    from nst_video.networks.layers import ENCODER_LAYERS

    assert set(distill.TAPS) == set(ENCODER_LAYERS) - {"slim"}
    for teacher, taps in distill.TAPS.items():
        for own, layer in taps.items():
            assert own in ENCODER_LAYERS["slim"]
            assert layer in ENCODER_LAYERS[teacher]
