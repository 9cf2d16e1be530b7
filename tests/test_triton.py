"""Kernels for NVIDIA's GPUs: what each gives is what plain torch gives, on a GPU or else in Triton's interpreter, and
all of them can be compiled for the GPUs there are, which needs none.
"""

import json
import math
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import compile_kernels
import pytest
import torch
from tiny import picture

from nst_video import borders, direct, optimizers, padded, pixels
from nst_video.direct import Direct
from nst_video.encoders import load_encoder
from nst_video.kernels import kernels
from nst_video.objective import FrameObjective, Past, Weights, style_statistics
from nst_video.optimizers import LBFGS, minimise
from nst_video.options import LookOptions

pytest.importorskip("triton", reason="Triton comes with torch for Linux on x86-64")

KERNELS = ("borders_triton", "losses_triton", "lbfgs_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and kernels("borders_triton", torch.device("cuda")) is None, reason="no compiler for Triton"
)


def kernels_of(name, device=None):
    """As kernels.kernels, but without asking whether there is a GPU."""
    return import_module(f"nst_video.{name}")


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module", autouse=True)
def launched():
    """What these tests have launched, each kernel once for each kind of arguments: lines for compile_kernels.py."""
    if DEVICE == "cuda":
        yield None
        return
    from triton.runtime.interpreter import InterpretedFunction

    run, seen = InterpretedFunction.run, {}

    def recorded(self, *args, grid, warmup, **named):
        line = compile_kernels.line_of(self.fn, args, named)
        asked = json.loads(line)
        # One of each kind of arguments is enough, whatever number of channels is fixed in it.
        seen.setdefault((asked["module"], asked["kernel"], *asked["types"].values()), line)
        return run(self, *args, grid=grid, warmup=warmup, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpretedFunction, "run", recorded)
        yield seen


# ---------------------------------------------------------------------------------------------- borders


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "size"), [(64, (37, 52)), (128, (8, 7)), (256, (1, 5)), (512, (2, 2))])
def test_single_kernels_do_what_their_steps_do(dtype, channels, size):
    single = kernels_of("borders_triton")
    rel = 1e-6 if dtype == torch.float32 else 0.01
    height, width = size
    y, g, extra = (numbers(2, channels, height + 2, width + 2, dtype=dtype) for _ in range(3))
    small = numbers(2, channels, -(-height // 2) + 2, -(-width // 2) + 2, dtype=dtype)
    for name in ("repeat_edge", "clear_edge"):
        found, wanted = y.clone(), y.clone()
        getattr(single, name)(found)
        getattr(borders, name)(wanted)
        assert torch.equal(found, wanted)
    calls = [
        ("pooled", (y,)),
        ("bordered", (extra,)),
        *(("passed", (y, *given)) for given in ((g, None), (None, extra), (g, extra))),
        *(("unpooled", (y, small, given)) for given in (None, extra)),
        ("joined", (numbers(2, 8, height + 2, width + 2, dtype=dtype),)),
    ]
    for name, given in calls:
        found, wanted = (getattr(module, name)(*given).float() for module in (single, borders))
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=rel, atol=rel, msg=name)


@pytest.mark.parametrize("size", [(37, 52), (1, 5)])
def test_a_picture_in_parts_loses_nothing(size):
    image = torch.rand(2, 3, *size, device=DEVICE)
    found, wanted = (module.split(image) for module in (kernels_of("borders_triton"), borders))
    if DEVICE == "cuda":
        assert torch.equal(found, wanted)
    # The interpreter cuts bits off where a GPU rounds, so its parts are others, but their sum is not.
    assert torch.equal(*(parts[:, :9].float().unflatten(1, (3, 3)).sum(1) for parts in (found, wanted)))
    assert torch.equal(found[:, 9:12], found[:, :3])
    assert torch.equal(found[:, 12:], wanted[:, 12:])


@pytest.mark.parametrize("references", [0, 1, 3])
def test_the_terms_of_pixels_by_a_single_kernel_are_those_of_torch(references):
    image = 1.2 * torch.rand(2, 3, 19, 300, device=DEVICE) - 0.1
    past = torch.rand(2, references, 3, 19, 300, device=DEVICE), torch.rand(2, references, 1, 19, 300, device=DEVICE)
    tv, temporal = torch.tensor([0.5, 2.0], device=DEVICE), torch.tensor([20.0, 3.0], device=DEVICE)
    found, wanted = [], []
    for module, kept in ((kernels_of("borders_triton"), found), (pixels, wanted)):
        gradient = torch.ones_like(image)
        terms = module.add_pixel_terms(
            gradient, image, past if references else None, tv=tv, temporal=temporal, range_weight=0.7
        )
        kept += [gradient, terms]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("shared", [True, False])
def test_style_gaps_and_slopes_by_single_kernels_are_those_of_torch(shared):
    single = kernels_of("losses_triton")
    lanes = 1 if shared else 2
    sums, targets = ([torch.rand(many, n, n, device=DEVICE) for n in (16, 40)] for many in (2, lanes))
    matrices = [(own, target, share) for own, target, share in zip(sums, targets, (0.5, 0.25), strict=True)]
    torch.testing.assert_close(single.style_gaps(matrices), direct._style_gaps(matrices))
    factor = torch.tensor([2.0, -3.0], device=DEVICE)
    for own, target, share in matrices:
        given = (own, target, share, factor, torch.float32)
        torch.testing.assert_close(single.style_slope(*given), direct._style_slope(*given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_content_gap_and_its_slope_are_those_inside_the_border(dtype):
    single = kernels_of("losses_triton")
    y, target = numbers(2, 24, 7, 90, dtype=dtype), numbers(2, 24, 5, 88)
    gap = borders.inside(y).float() - target
    torch.testing.assert_close(single.content_gap(y, target), gap.square().sum((1, 2, 3)))
    factor = torch.tensor([2.0, -3.0], device=DEVICE)
    found = borders.inside(single.content_slope(y, target, factor))
    torch.testing.assert_close(found, (gap * factor[:, None, None, None]).to(dtype))


# ---------------------------------------------------------------------------------------------- together

LOOK = LookOptions()
LAYERS = (*LOOK.content_layers, *LOOK.style_layers)


def problem(name, lanes=(1, 2), size=(40, 56)):
    """A loss of frames with a past, and where to start from."""
    encoder = load_encoder(name, LAYERS, device=DEVICE)
    content = torch.cat([picture(seed, *size) for seed in lanes]).to(DEVICE)
    with torch.no_grad():
        seen = encoder(picture(9, *size).to(DEVICE))
        styles = {layer: style_statistics(encoder, seen, layer) for layer in LOOK.style_layers}
    past = Past(
        torch.stack([content.flip(3), content.flip(2)], dim=1), content.new_full((len(lanes), 2, 1, *size), 0.4)
    )
    weights = Weights(content=0.05, style=1.0, tv=0.5, temporal=20.0)
    return FrameObjective(encoder, LOOK, content=content, styles=styles, weights=weights, past=past), content


@pytest.fixture
def by_kernels(monkeypatch):
    """What runs on a GPU with Triton, on whatever device there is."""
    for module in (optimizers, padded, direct):
        monkeypatch.setattr(module, "kernels", kernels_of)


@pytest.mark.parametrize("name", ["slim", "vgg19"])
def test_loss_and_gradient_by_single_kernels_are_those_of_autograd(by_kernels, name):
    objective, content = problem(name)
    image = 1.2 * content.flip(2) - 0.1
    found = Direct(objective, padded.PaddedVgg)(image)
    objective.direct = False
    loss, gradient, terms = optimizers.value_and_gradient(objective, image)
    torch.testing.assert_close(found[0], loss, rtol=1e-4, atol=0)
    assert (found[1] - gradient).norm() < 1e-4 * gradient.norm()
    for term, values in terms.items():
        torch.testing.assert_close(found[2][term], values, rtol=1e-4, atol=1e-6, msg=term)


def test_the_update_by_single_kernels_is_that_of_torch(monkeypatch):
    objective, image = problem("slim")

    def found():
        cold = minimise(objective, image, evaluations=9, history=6)
        return cold, minimise(objective, image.flip(3), evaluations=4, history=6, curvature=cold.curvature)

    wanted = found()
    monkeypatch.setattr(optimizers, "kernels", kernels_of)
    for one, other in zip(found(), wanted, strict=True):
        assert torch.equal(one.accepted, other.accepted)
        torch.testing.assert_close(one.record["loss"], other.record["loss"], rtol=1e-2, atol=0)
        assert torch.equal(one.curvature.filled, other.curvature.filled)
        assert torch.equal(one.curvature.head, other.curvature.head)


def unruly(image, turn):
    """Loss and gradient of six lanes at an image (6, n): one is a quadratic, the others fail in ways of their own."""
    bend = torch.logspace(-1, 0, image.shape[1], device=DEVICE) * image.new_tensor([1, 0.5, 2, -1, -0.1, 1])[:, None]
    gap = image - torch.linspace(-1, 1, image.shape[1], device=DEVICE)
    loss, gradient = 0.5 * (bend * gap.square()).sum(1), bend * gap
    loss[1] += 1e4 * (turn in (3, 7, 8))  # a pair, though the trial is rejected
    loss[2] += math.nan if turn in (2, 5) else 0
    gradient[2, ::7] *= math.inf if turn == 4 else 1
    loss[4] += 1e6 * (turn % 2)  # rejected, and no pair
    return loss, gradient


def assert_same_state(found, wanted):
    """All that a search goes on from: bit for bit, but for what is summed up."""
    for name in ("image", "gradient", "loss", "length"):
        assert torch.equal(getattr(found, name).nan_to_num(9), getattr(wanted, name).nan_to_num(9)), name
    for name in ("pairs", "filled", "head"):
        assert torch.equal(getattr(found.memory, name), getattr(wanted.memory, name)), name
    for name in ("sy", "yy"):
        torch.testing.assert_close(getattr(found.memory, name), getattr(wanted.memory, name), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.slope, wanted.slope, rtol=1e-4, atol=0)
    assert torch.equal(found.trial.isnan(), wanted.trial.isnan())
    gap, step, image = (
        vectors.nan_to_num(0).norm(dim=1)
        for vectors in (found.trial - wanted.trial, wanted.trial - wanted.image, wanted.image)
    )
    assert (gap <= 1e-4 * step + 1e-7 * image).all(), gap


@pytest.mark.parametrize("history", [1, 3, 6, 10])
def test_each_update_by_single_kernels_is_that_of_torch(monkeypatch, history):
    single = kernels_of("lbfgs_triton")
    monkeypatch.setattr(single, "_PROGRAMS", 2)  # so that each has several turns
    constants = {"decrease": optimizers._SUFFICIENT_DECREASE, "least": optimizers._LEAST_CURVATURE}
    image = torch.randn(6, 3, 7, 61, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(5))
    image[5, 0, 0, 0] = math.nan
    given = {"first_step": 0.05, "curvature": None, "history": history}
    plain, other = (LBFGS(lambda x: ((x * 0).sum((1, 2, 3)), {}), image, **given) for _ in range(2))
    for solver in (plain, other):
        solver.begin(image, None)
    cases = set()
    for turn in range(12):
        newest = plain.memory.pairs.clone()
        other.trial.copy_(plain.trial)
        loss, gradient = unruly(plain.trial, turn)
        accepted, found = plain._update(loss, gradient), single.update(other, loss, gradient, **constants)
        assert torch.equal(found, accepted)
        assert_same_state(other, plain)
        stored = (plain.memory.pairs != newest).any(2).any(1)
        cases |= set(zip(accepted.tolist(), stored.tolist(), strict=True))
    assert len(cases) == 4
    assert plain.memory.filled[:2].all()
    assert not plain.memory.filled[3:].any()


MINIMUM = torch.linspace(-1, 1, 273).view(1, 3, 7, 13)


def quadratic(image):
    bend = torch.logspace(-1, 0, 273).view(MINIMUM.shape)
    return 0.5 * ((image - MINIMUM.to(DEVICE)).square() * bend.to(DEVICE)).sum((1, 2, 3)), {}


@pytest.mark.parametrize("history", [1, 3, 6, 10])
def test_single_kernels_find_a_known_minimum(monkeypatch, history):
    monkeypatch.setattr(optimizers, "kernels", kernels_of)
    start = torch.zeros(1, 3, 7, 13, device=DEVICE)
    found = minimise(quadratic, start, evaluations=40, history=history, first_step=1.0)
    assert not found.accepted.all()
    torch.testing.assert_close(found.image, MINIMUM.to(DEVICE), rtol=0, atol=1e-3)


def test_a_solver_that_begins_anew_with_the_pairs_of_another_is_as_good_as_a_new_one(monkeypatch):
    monkeypatch.setattr(optimizers, "kernels", kernels_of)
    image = torch.ones(2, 3, 7, 13, device=DEVICE)
    carried = minimise(quadratic, image, evaluations=7, history=4).curvature
    used = LBFGS(quadratic, -image, first_step=0.05, curvature=None, history=4)
    used.iterate()
    used.begin(2 * image, carried)
    used.iterate()
    fresh = LBFGS(quadratic, 2 * image, first_step=0.05, curvature=carried, history=4)
    for solver in (used, fresh):
        for _ in range(3):
            solver.iterate()
    assert all(torch.equal(value, getattr(fresh.memory, name)) for name, value in vars(used.memory).items())
    assert torch.equal(used.image, fresh.image)


# ---------------------------------------------------------------------------------------------- compiled


def test_whatever_was_launched_here_can_be_compiled_for_gpus(launched, tmp_path):
    if launched is None:
        pytest.skip("on a GPU they are compiled when they are launched")
    assert {module for module, *_ in launched} == {f"nst_video.{name}" for name in KERNELS}
    script = Path(__file__).with_name("compile_kernels.py")
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)],
        input="\n".join(launched.values()),
        env=settings | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(launched) * len(compile_kernels.GENERATIONS)
