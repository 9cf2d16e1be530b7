"""Kernels for NVIDIA's GPUs: what each gives is what plain torch gives, on a GPU or else in Triton's interpreter, and
all of them can be compiled for the GPUs there are, which needs none.
"""

import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import compile_kernels
import cv2
import numpy as np
import pytest
import torch
from tiny import picture, texture

from nst_video.devices.kernels import kernels
from nst_video.devices.machine import computing, resolve_machine
from nst_video.flow import motion
from nst_video.networks import borders, padded
from nst_video.networks.encoders import load_encoder
from nst_video.optimization import curvature, direct, optimizers, pixels
from nst_video.optimization.curvature import Curvature
from nst_video.optimization.direct import Direct
from nst_video.optimization.objective import FrameObjective, Past, Weights, style_statistics
from nst_video.optimization.optimizers import LBFGS, minimise
from nst_video.options import LookOptions, MachineOptions

pytest.importorskip("triton", reason="Triton comes with torch for Linux on x86-64")

KERNELS = ("networks.borders_triton", "optimization.losses_triton", "optimization.lbfgs_triton", "flow.flow_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and kernels("networks.borders_triton", torch.device("cuda")) is None,
    reason="no compiler for Triton",
)


def kernels_of(name, device=None):
    """As kernels.kernels, but without asking whether there is a GPU."""
    return import_module(f"nst_video.{name}")


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module", autouse=True)
def computing_as_a_render():
    """On a GPU torch else rounds what convolutions multiply in float32 to 10 bits, which bounds here do not allow."""
    with computing(resolve_machine(MachineOptions(device=DEVICE))):
        yield


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


@pytest.mark.parametrize(("current", "made_current"), [(0, ["cuda:1"]), (1, [])])
def test_kernels_start_on_the_device_of_the_tensors(monkeypatch, current, made_current):
    """Triton starts them on the current one, whatever the tensors are on."""
    made = []
    monkeypatch.setattr(import_module("nst_video.devices.kernels"), "_triton_works", lambda device: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(str(device)))
    assert kernels("networks.borders_triton", torch.device("cuda:1")) is kernels_of("networks.borders_triton")
    assert kernels("networks.borders_triton", torch.device("cpu")) is None
    assert made == made_current


# ---------------------------------------------------------------------------------------------- borders


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("channels", "size"), [(64, (21, 36)), (128, (8, 7)), (256, (1, 5)), (512, (2, 2))])
def test_single_kernels_do_what_their_steps_do(dtype, channels, size):
    single = kernels_of("networks.borders_triton")
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
    found, wanted = (module.split(image) for module in (kernels_of("networks.borders_triton"), borders))
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
    for module, kept in ((kernels_of("networks.borders_triton"), found), (pixels, wanted)):
        gradient = torch.ones_like(image)
        terms = module.add_pixel_terms(
            gradient, image, past if references else None, tv=tv, temporal=temporal, range_weight=0.7
        )
        kept += [gradient, terms]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("exact", [torch.float32, torch.bfloat16])
def test_style_by_single_kernels_is_that_of_torch(shared, exact):
    lanes = 1 if shared else 2
    sums, targets = ([torch.rand(many, n, n, device=DEVICE) for n in (16, 40)] for many in (2, lanes))
    matrices = [direct.Matrices(*given, exact) for given in zip(sums, targets, (0.5, 0.25), strict=True)]
    factors = torch.tensor([[2.0, 3.0], [0.5, 0.1]], device=DEVICE)
    (found, slopes), (wanted, others) = (
        style(matrices, factors) for style in (kernels_of("optimization.losses_triton").style, direct._style)
    )
    torch.testing.assert_close(found, wanted)
    for slope, other in zip(slopes, others, strict=True):
        assert slope.dtype == other.dtype == exact
        torch.testing.assert_close(slope.float(), other.float(), rtol=1e-5 if exact == torch.float32 else 0.01, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_content_is_compared_inside_the_border(dtype):
    y, target = numbers(2, 24, 7, 90, dtype=dtype), numbers(2, 24, 5, 88)
    gap, factor = borders.inside(y).float() - target, torch.tensor([2.0, 3.0], device=DEVICE)
    term, slope = kernels_of("optimization.losses_triton").content(y, target, factor)
    torch.testing.assert_close(term, factor * gap.square().sum((1, 2, 3)))
    wanted = (2 * gap * factor[:, None, None, None]).to(dtype)
    torch.testing.assert_close(borders.inside(slope), wanted, rtol=1e-6 if dtype == torch.float32 else 0.01, atol=0)


# ---------------------------------------------------------------------------------------------- together

LOOK = LookOptions()
LAYERS = (*LOOK.content_layers, *LOOK.style_layers)


def problem(name, lanes=(1, 2), size=(24, 40)):
    """A loss of frames with a past, and where to start from."""
    encoder = load_encoder(name, LAYERS, device=DEVICE)
    content = torch.cat([picture(seed, *size) for seed in lanes]).to(DEVICE)
    with torch.no_grad():
        seen = encoder(picture(9, *size).to(DEVICE))
        styles = {layer: style_statistics(encoder, seen, layer) for layer in LOOK.style_layers}
    past = Past(
        torch.stack([content.flip(3), content.flip(2)], dim=1), content.new_full((len(lanes), 2, 1, *size), 0.4)
    )
    weights = Weights(content=0.05, style=1.0, tv=0.5, temporal=20.0).on(content.device)  # one for all lanes
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


def cut_off(vectors, pairs):
    """As Triton's interpreter stores them, which cuts off where a GPU rounds to bfloat16."""
    if pairs.dtype == torch.float32:
        return vectors
    return (vectors.contiguous().view(torch.int32) & -(1 << 16)).view(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("history", [1, 3, 6, 10])
def test_each_update_by_single_kernels_is_that_of_torch(monkeypatch, history, dtype):
    single = kernels_of("optimization.lbfgs_triton")
    monkeypatch.setattr(single, "_PROGRAMS", 2)  # so that each has several turns
    if DEVICE == "cpu":
        monkeypatch.setattr(optimizers, "as_stored", cut_off)
    constants = {"decrease": optimizers._SUFFICIENT_DECREASE, "least": curvature.LEAST_CURVATURE}
    image = torch.randn(6, 3, 7, 61, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(5))
    image[5, 0, 0, 0] = math.nan
    plain, other = (
        LBFGS(
            lambda x: ((x * 0).sum((1, 2, 3)), {}),
            image,
            first_step=0.05,
            curvature=Curvature.empty(6, image[0].numel(), history, DEVICE, dtype),
            history=history,
        )
        for _ in range(2)
    )
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("history", [1, 3, 6, 10])
def test_single_kernels_find_a_known_minimum(monkeypatch, history, dtype):
    monkeypatch.setattr(optimizers, "kernels", kernels_of)
    start = torch.zeros(1, 3, 7, 13, device=DEVICE)
    empty = Curvature.empty(1, start.numel(), history, DEVICE, dtype)
    found = minimise(quadratic, start, evaluations=40, curvature=empty, first_step=1.0)
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


# ---------------------------------------------------------------------------------------------- flow


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter runs them one after the other."""
    if DEVICE == "cpu":
        monkeypatch.setattr(kernels_of("flow.flow_triton"), "_BLOCK", 1024)
        monkeypatch.setattr(kernels_of("flow.flow_triton"), "_PATCHES", 64)


def moved(seed, dx, dy, size=(72, 104)):
    """Two pictures between which the flow is (dx, dy), functions of the places (y, x)."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    true = np.stack([dx(y, x), dy(y, x)], axis=-1).astype(np.float32)
    target = texture(seed, *size)
    return cv2.remap(target, x + true[..., 0], y + true[..., 1], cv2.INTER_CUBIC, borderMode=3), target, true


def grey(*pictures):
    found = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    return torch.from_numpy(np.stack(found)).float().to(DEVICE)


def end_point_error(flow, true):
    """Its mean in pixels, away from the border, where a reference may not show what has to be found."""
    return np.linalg.norm(flow - true, axis=-1)[10:-10, 10:-10].mean()


MOTIONS = {
    "bend": (lambda y, x: 1.5 * np.sin(y / 15) + 2, lambda y, x: np.cos(x / 20) - 0.5),
    "shift": (lambda y, x: 0 * x + 7.25, lambda y, x: 0 * x - 4.5),
    "zoom": (lambda y, x: 0.06 * (x - 52), lambda y, x: 0.06 * (y - 36)),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_flow_is_as_near_to_the_motion_as_opencvs(name):
    source, target, true = moved(3, *MOTIONS[name])
    (found,) = kernels_of("flow.flow_triton").flow(grey(source), grey(target)).permute(0, 2, 3, 1).cpu().numpy()
    theirs = end_point_error(motion.flow(source, target, "medium"), true)
    assert end_point_error(found, true) < max(0.1, 1.2 * theirs)


def test_flow_knows_what_stands_still_and_where_things_move_apart():
    size = (72, 104)
    background, thing = texture(1, *size), texture(2, *size)
    source, target = background.copy(), background.copy()
    source[20:52, 40:72] = target[20:52, 46:78] = thing[20:52, 40:72]
    (found,) = kernels_of("flow.flow_triton").flow(grey(source), grey(target)).permute(0, 2, 3, 1).cpu().numpy()
    assert np.abs(found[24:48, 44:68] - (6, 0)).mean() < 0.1
    assert np.abs(found[:, :32]).mean() < 0.1
    assert np.abs(found[:12]).mean() < 0.1


def test_pairs_found_together_are_what_each_is_alone():
    flow = kernels_of("flow.flow_triton").flow
    pairs = [moved(seed, *MOTIONS["bend"], size=(37, 53))[:2] for seed in (1, 2)]
    together = flow(*(grey(*pictures) for pictures in zip(*pairs, strict=True)))
    alone = torch.cat([flow(grey(source), grey(target)) for source, target in pairs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (5, 40), (33, 9)])
def test_small_pictures_have_a_flow_too(size):
    picture = grey(texture(4, *size))
    found = kernels_of("flow.flow_triton").flow(picture, picture)
    assert found.shape == (1, 2, *size)
    assert found.abs().max() < 1e-3


def test_a_motion_found_on_the_gpu_is_that_of_opencvs_flow(monkeypatch):
    monkeypatch.setattr(motion, "kernels", kernels_of)
    source, target, true = moved(5, *MOTIONS["bend"], size=(48, 64))
    half = cv2.addWeighted(source, 0.5, target, 0.5, 0)  # shows neither
    found, wanted = (
        motion.flows_between(source, [target, half], preset).motion(DEVICE) for preset in ("gpu", "medium")
    )
    assert found.flows.shape == wanted.flows.shape == (1, 2, 2, *source.shape[:2])
    assert found.trust.shape == wanted.trust.shape
    assert end_point_error(found.flows[0, 0].permute(1, 2, 0).cpu().numpy(), true) < 0.15
    assert found.trust[0, 0].mean() == pytest.approx(float(wanted.trust[0, 0].mean()), abs=0.05)
    assert found.trust.sum(1).max() <= 1


def test_large_pictures_are_looked_at_in_parts_with_the_same_result(monkeypatch):
    sizes = []

    def shift(source, target):
        sizes.append(len(source))
        return (target - source).mean((1, 2), keepdim=True)[:, None].expand(-1, 2, *source.shape[1:])

    monkeypatch.setattr(motion, "flow_on", lambda device: shift)
    rgbs = [texture(seed, 48, 64) for seed in range(4)]
    together = motion.flows_between(rgbs[0], rgbs[1:], "gpu").motion(DEVICE)
    monkeypatch.setattr(motion, "_AT_ONCE", 2 * 48 * 64)
    apart = motion.flows_between(rgbs[0], rgbs[1:], "gpu").motion(DEVICE)
    torch.testing.assert_close(vars(apart), vars(together))
    assert together.flows.shape == (1, 3, 2, 48, 64)
    assert sizes == [6, 4, 2]  # each way


# ---------------------------------------------------------------------------------------------- compiled


def test_whatever_was_launched_here_can_be_compiled_for_gpus(launched, tmp_path, request):
    if launched is None:
        pytest.skip("on a GPU they are compiled when they are launched")
    chosen = request.config.option.keyword or any("::" in name for name in request.config.args)
    if chosen:
        pytest.skip("the other tests here have to launch them")
    assert {module for module, *_ in launched} == {f"nst_video.{name}" for name in KERNELS}
    script, lines = Path(__file__).with_name("compile_kernels.py"), list(launched.values())
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    settings["TRITON_CACHE_DIR"] = str(tmp_path)

    def compiled(some):
        command = [sys.executable, str(script)]
        return subprocess.run(command, input="\n".join(some), env=settings, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor() as pool:
        for part, done in zip((lines[::2], lines[1::2]), pool.map(compiled, (lines[::2], lines[1::2])), strict=True):
            assert done.returncode == 0, done.stderr
            assert len(done.stdout.splitlines()) == len(part) * len(compile_kernels.GENERATIONS)
