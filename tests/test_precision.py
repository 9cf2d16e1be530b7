"""What bf16 does to a painting: `--precision auto` takes it where the processor has instructions for it."""

import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch

from nst_video.measures import STYLE_LAYERS, style_distance
from nst_video.networks.encoders import load_encoder
from nst_video.optimization.losses import gram

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from bench_precision import paint, read, scaled


def targets(encoder, picture):
    with torch.no_grad():
        return {layer: gram(features).mean for layer, features in encoder(picture).items()}


@pytest.mark.parametrize("style", ["oil", "mosaic"])
def test_bf16_judges_a_picture_as_fp32_does(style):
    picture, still = scaled(read(style), 128), scaled(read("chelsea"), 128)
    exact, fast = (load_encoder("vgg19", STYLE_LAYERS, precision=precision) for precision in ("fp32", "bf16"))
    with torch.no_grad():
        distances = [style_distance(encoder(still), targets(encoder, picture)) for encoder in (exact, fast)]
    assert distances[1] == pytest.approx(distances[0], rel=0.02)


def test_stills_painted_in_bf16_are_as_near_to_the_style_as_in_fp32():
    # The mean of two: optimisations part ways after a few steps, as they do when a picture has a little more noise.
    judge, changes = load_encoder("vgg19", STYLE_LAYERS), []
    for name, style in (("chelsea", "oil"), ("rocket", "oil")):
        still, wanted = scaled(read(name), 96), targets(judge, scaled(read(style), 96))
        with torch.no_grad():
            exact, fast = (
                style_distance(judge(paint("vgg19", precision, still, read(style), 50)), wanted)
                for precision in ("fp32", "bf16")
            )
        changes.append(fast / exact - 1)
    assert fmean(changes) < 0.02
