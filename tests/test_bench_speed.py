"""What the benchmark of speed compares with: the floor, and the plain way."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import picture

from nst_video.networks.encoders import load_encoder
from nst_video.options import LookOptions

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from bench_speed import Device, floor_of, layers_of
from plain_gatys import PlainGatys, PlainSolver

LOOK = LookOptions(style_layers=("relu1_1", "relu2_1"), content_layers=("relu2_1",))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("vgg19", ("relu1_1", "relu2_1"))


def test_the_floor_counts_what_the_network_has_to_do(encoder):
    layers = layers_of(encoder, LOOK, torch.rand(1, 3, 32, 48))
    places = 32 * 48
    convolutions = [3 * 64 * 9 * places, 64 * 64 * 9 * places, 64 * 128 * 9 * places // 4]
    assert [layer.products for layer in layers] == [*convolutions, 64 * 64 * places, 128 * 128 * places // 4]
    assert [layer.bytes for layer in layers] == [64 * 4 * places, 64 * 4 * places, 128 * places, 0, 0]
    computing, moving = Device("cpu", {"fp32": 1e9}, 1e30), Device("cpu", {"fp32": 1e30}, 1e9)
    assert floor_of(layers, computing) == pytest.approx(2 * sum(layer.products for layer in layers) / 1e9)
    assert floor_of(layers, moving) == pytest.approx(5 * sum(layer.bytes for layer in layers) / 1e9)


def test_the_plain_way_goes_down_by_as_many_evaluations_as_it_was_given(encoder):
    problem = PlainGatys(encoder, picture(1), picture(2), LOOK)
    solver = PlainSolver(problem, history=3)
    before = float(problem.loss(problem.content))
    solver.run(8)
    assert solver.evaluations == 8
    assert float(problem.loss(solver.image.detach().clamp(0, 1))) < 0.7 * before


def test_a_filled_history_is_full_and_the_picture_is_the_frame_again(encoder):
    solver = PlainSolver(PlainGatys(encoder, picture(1), picture(2), LOOK), history=20)
    solver.fill()
    assert len(solver.optimizer.state[solver.image]["old_dirs"]) == 20
    assert torch.equal(solver.image.detach(), solver.problem.content)
    assert solver.evaluations == 0
