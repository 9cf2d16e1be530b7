"""The path on CUDA: graphs do what iterations one by one do, nothing waits for the device, and running out is no end.
Its kernels are tested in test_gpu_kernels.py.

Skipped without such a device, unless NST_VIDEO_REQUIRE_CUDA is set: then it fails.
"""

import gc
import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from media import make_video
from tiny import picture

from nst_video.controls import Controls
from nst_video.devices import transfer
from nst_video.devices.machine import computing
from nst_video.errors import is_out_of_memory
from nst_video.flow.motion import Motion
from nst_video.jobs.states import pack, unpack
from nst_video.measures import STYLE_LAYERS, style_distance
from nst_video.networks import padded
from nst_video.networks.encoders import load_encoder
from nst_video.optimization import direct, graphs, optimizers
from nst_video.optimization.graphs import Graphs
from nst_video.optimization.losses import gram
from nst_video.optimization.objective import FrameObjective, Past, Weights, style_statistics
from nst_video.optimization.optimizers import minimise, value_and_gradient
from nst_video.options import EffortOptions, LookOptions, MachineOptions
from nst_video.painting import rounds
from nst_video.painting.state import State
from nst_video.painting.stylizer import Stylizer
from nst_video.painting.teacher import load_teacher, places_of
from nst_video.planning import make_plan
from nst_video.render import render_plan, stylize
from nst_video.settings import split_options
from nst_video.stylizers import make_stylizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from bench_precision import paint, read, scaled

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and not os.environ.get("NST_VIDEO_REQUIRE_CUDA"), reason="no CUDA device"
)

LOOK = LookOptions()
LAYERS = (*LOOK.content_layers, *LOOK.style_layers)
WEIGHTS = Weights(content=0.05, style=1.0, tv=0.5, temporal=20.0)
SIZE = (72, 104)
SEARCH = {"evaluations": 10, "history": 6}


@pytest.fixture(autouse=True)
def same_kernels():
    """As in a render: the same work gives the same bits, and float32 is no TF32."""
    with computing(MachineOptions(device="cuda:0")):
        yield


def test_fp32_is_not_tf32():
    image = picture(3, *SIZE)
    with computing(MachineOptions(device="cuda:0")):
        there, here = (load_encoder("vgg19", ("relu3_1",), device=to)(image.to(to)) for to in ("cuda", "cpu"))
    gap = (there["relu3_1"].cpu() - here["relu3_1"]).norm() / here["relu3_1"].norm()
    assert gap < 2e-5  # TF32 has 10 bits: some 3e-4


@contextmanager
def nothing_may_wait():
    """Whatever waits for the device raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is new
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def still(seed):
    return picture(seed, *SIZE).cuda()


def problem(name="slim", precision="bf16", *, lanes=(1,), past=True, weights=WEIGHTS, encoder=None):
    """A loss whose lanes have different pictures, and where to start from."""
    encoder = encoder or load_encoder(name, LAYERS, device="cuda", precision=precision)
    content = torch.cat([still(seed) for seed in lanes])
    with torch.no_grad():
        seen = encoder(still(9))
        styles = {layer: style_statistics(encoder, seen, layer) for layer in LOOK.style_layers}
    warped = torch.stack([content.flip(3), content.flip(2)], dim=1)
    before = Past(warped, torch.full((len(lanes), 2, 1, *SIZE), 0.4, device="cuda")) if past else None
    return FrameObjective(encoder, LOOK, content=content, styles=styles, weights=weights, past=before), content


def assert_alike(found, wanted, *, rel):
    assert torch.equal(found.accepted, wanted.accepted)
    assert found.record.keys() == wanted.record.keys()
    for name, values in wanted.record.items():
        torch.testing.assert_close(found.record[name], values, rtol=rel, atol=1e-6, msg=name)


# ---------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize("name", ["slim", "vgg19"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("past", [False, True])
def test_a_graph_finds_what_iterations_one_by_one_find(name, precision, past):
    objective, image = problem(name, precision, past=past)
    wanted = minimise(objective, image, **SEARCH)
    graphs = Graphs()
    found = graphs.minimise(objective, image, **SEARCH)
    assert len(graphs) == 1
    assert_alike(found, wanted, rel=1e-3)
    assert (found.image - wanted.image).abs().mean() < 1e-3
    assert found.loss.item() < 0.8 * found.record["loss"][0].item()


def test_the_same_search_gives_the_same_bits_in_whatever_graph_and_after_whatever_else():
    objective, image = problem()
    other, elsewhere = problem(lanes=(4,), encoder=objective.encoder)
    graphs = Graphs()
    first = graphs.minimise(objective, image, **SEARCH)
    graphs.minimise(other, elsewhere, **SEARCH)
    assert len(graphs) == 1
    for found in (graphs.minimise(objective, image, **SEARCH), Graphs().minimise(objective, image, **SEARCH)):
        assert torch.equal(found.image, first.image)
        assert torch.equal(found.record["loss"], first.record["loss"])
        assert torch.equal(found.curvature.pairs, first.curvature.pairs)


def test_what_was_found_stays_when_the_graph_is_used_again():
    objective, image = problem()
    graphs = Graphs()
    found = graphs.minimise(objective, image, **SEARCH)
    kept = (found.image.clone(), found.loss.clone(), found.curvature.clone())
    graphs.minimise(objective, image.flip(3), **SEARCH)
    assert torch.equal(found.image, kept[0])
    assert torch.equal(found.loss, kept[1])
    assert all(torch.equal(value, getattr(kept[2], name)) for name, value in vars(found.curvature).items())


def test_pairs_are_carried_into_a_graph_and_left_alone_unless_they_are_given_away():
    objective, image = problem()
    graphs = Graphs()
    learnt = graphs.minimise(objective, image, **SEARCH)
    before = learnt.curvature.clone()
    warm = graphs.minimise(objective, learnt.image, curvature=learnt.curvature, **SEARCH)
    assert all(torch.equal(value, getattr(before, name)) for name, value in vars(learnt.curvature).items())
    assert_alike(warm, minimise(objective, learnt.image, curvature=before, **SEARCH), rel=2e-3)
    given = graphs.minimise(objective, learnt.image, curvature=learnt.curvature, consume=True, **SEARCH)
    assert torch.equal(given.image, warm.image)
    assert given.curvature.pairs.data_ptr() == learnt.curvature.pairs.data_ptr()


def test_weights_are_values_and_make_no_new_graph():
    objective, image = problem()
    graphs = Graphs()
    graphs.minimise(objective, image, **SEARCH)
    heavier, _ = problem(weights=replace(WEIGHTS, content=2.0, temporal=5.0), encoder=objective.encoder)
    found = graphs.minimise(heavier, image, **SEARCH)
    assert len(graphs) == 1
    assert_alike(found, minimise(heavier, image, **SEARCH), rel=1e-3)


def test_lanes_in_one_graph_are_what_each_is_alone():
    together, images = problem(precision="fp32", lanes=(1, 2, 3))
    found = Graphs().minimise(together, images, **SEARCH)
    graphs = Graphs()
    for lane in range(3):
        alone, image = problem(lanes=(lane + 1,), encoder=together.encoder)
        wanted = graphs.minimise(alone, image, **SEARCH)
        torch.testing.assert_close(found.record["loss"][:2, lane], wanted.record["loss"][:2, 0], rtol=1e-3, atol=0)
        # After that rounding leads them apart, as it does on so small a picture.
        torch.testing.assert_close(found.loss[lane], wanted.loss[0], rtol=0.2, atol=0)
    assert len(graphs) == 1


def test_no_iteration_of_a_graph_waits_for_the_device():
    objective, image = problem()
    graphs = Graphs()
    curvature = graphs.minimise(objective, image, **SEARCH).curvature
    torch.cuda.synchronize()
    with nothing_may_wait():
        found = graphs.minimise(objective, image, curvature=curvature, **SEARCH)
    assert found.loss.isfinite().all()


def test_a_lane_that_is_not_finite_is_told_by_its_loss():
    objective, image = problem(lanes=(1, 2))
    image = image.clone()
    image[0, 0, 0, 0] = torch.nan
    assert Graphs().minimise(objective, image, **SEARCH).loss.isfinite().tolist() == [False, True]


def test_graphs_go_with_their_owner():
    objective, image = problem()
    Graphs().minimise(objective, image, **SEARCH)  # what libraries keep for good is there now
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    graphs = Graphs()
    graphs.minimise(objective, image, **SEARCH)
    assert torch.cuda.memory_reserved() > before
    del graphs
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before


# ---------------------------------------------------------------------------------------------- written out


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_written_out_is_that_of_autograd(precision, past):
    objective, image = problem("vgg19", precision, lanes=(1, 2), past=past)
    image = 1.2 * image.flip(2) - 0.1
    assert objective.written_out is not None
    found = value_and_gradient(objective, image)
    objective.direct = False
    wanted = value_and_gradient(objective, image)
    rel = 1e-3 if precision == "fp32" else 0.02
    torch.testing.assert_close(found[0], wanted[0], rtol=rel, atol=0)
    assert (found[1] - wanted[1]).norm() < 5 * rel * wanted[1].norm()
    for term, values in wanted[2].items():
        torch.testing.assert_close(found[2][term], values, rtol=5 * rel, atol=1e-6, msg=term)


def test_without_triton_a_graph_finds_the_same(monkeypatch):
    objective, image = problem(precision="fp32")
    few = SEARCH | {"evaluations": 5}
    wanted = Graphs().minimise(objective, image, **few)
    for module in (optimizers, padded, direct):
        monkeypatch.setattr(module, "kernels", lambda name, device: None)
    assert_alike(Graphs().minimise(objective, image, **few), wanted, rel=1e-2)


# ---------------------------------------------------------------------------------------------- bf16


def test_gram_matrices_of_bf16_features_are_those_of_the_same_numbers_in_fp32():
    features = torch.randn(2, 64, 40, 30, device="cuda").relu().bfloat16().contiguous(memory_format=torch.channels_last)
    found, wanted = [], []
    for given, kept in ((features, found), (features.float(), wanted)):
        leaf = given.clone().requires_grad_(True)
        mean = gram(leaf).mean
        slope = torch.randn(mean.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
        kept += [mean.detach(), torch.autograd.grad((mean * slope).sum(), leaf)[0].float()]
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    assert (found[1] - wanted[1]).norm() < 0.01 * wanted[1].norm()


@pytest.mark.parametrize("style", ["oil", "mosaic"])
def test_bf16_judges_a_picture_as_fp32_does(style):
    def distance(precision):
        encoder = load_encoder("vgg19", STYLE_LAYERS, precision=precision, device="cuda")
        with torch.no_grad():
            wanted = {name: gram(seen).mean for name, seen in encoder(scaled(read(style), 128).cuda()).items()}
            return style_distance(encoder(scaled(read("chelsea"), 128).cuda()), wanted)

    assert distance("bf16") == pytest.approx(distance("fp32"), rel=0.02)


def test_stills_painted_in_bf16_are_as_near_to_the_style_as_in_fp32():
    judge, changes = load_encoder("vgg19", STYLE_LAYERS, device="cuda"), []
    for name, style in (("chelsea", "oil"), ("rocket", "oil"), ("chelsea", "mosaic"), ("rocket", "mosaic")):
        with torch.no_grad():
            wanted = {layer: gram(seen).mean for layer, seen in judge(scaled(read(style), 160).cuda()).items()}
            exact, fast = (
                style_distance(
                    judge(paint("vgg19", precision, scaled(read(name), 160), read(style), 60, device="cuda").cuda()),
                    wanted,
                )
                for precision in ("fp32", "bf16")
            )
        changes.append(fast / exact - 1)
    assert fmean(changes) < 0.03  # 0.023 on an H200; 0.02 is the aim


# ---------------------------------------------------------------------------------------------- renders


def stylizer(name="slim", precision="bf16"):
    encoder = load_encoder(name, LAYERS, device="cuda", precision=precision)
    effort = EffortOptions(encoder=name, size=SIZE[1], first_iterations=12, iterations=5, history=6)
    return Stylizer(encoder, [(still(9), 1.0)], effort=effort)


def motion():
    flows = torch.full((1, 1, 2, *SIZE), 0.7, device="cuda")
    return Motion(flows, torch.ones(1, 1, 1, *SIZE, device="cuda"))


def painted_frames(painter, state, seeds):
    frames = []
    for seed in seeds:
        step = motion() if state.outputs is not None else Motion.none(1, *SIZE).to("cuda")
        frame, state = painter.step(still(seed), step, state)
        frames.append(frame)
    return frames, state


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_frames_go_on_from_a_saved_state_bit_for_bit(precision):
    wanted, _ = painted_frames(stylizer(precision=precision), State(), (1, 2, 3, 4))
    _, state = painted_frames(stylizer(precision=precision), State(), (1, 2))
    found, _ = painted_frames(stylizer(precision=precision), unpack(pack(state), State, "cuda"), (3, 4))
    assert torch.equal(found[0], wanted[2])
    assert torch.equal(found[1], wanted[3])


def taught(name="slim", precision="bf16"):
    """As a render makes it, with the teacher of its encoder."""
    encoder = load_encoder(name, LAYERS, device="cuda", precision=precision)
    teacher = load_teacher(encoder, LOOK.style_layers, places=places_of(encoder, LOOK), precision=precision)
    effort = EffortOptions(encoder=name, size=SIZE[1], first_iterations=12, iterations=5, history=6)
    return Stylizer(encoder, [(still(9), 1.0)], effort=effort, teacher=teacher)


def moving(lanes=1, frames=9):
    """Frames (L, 3, H, W) of cameras that move 4 pixels a frame, with their motion: at the right all is new."""
    height, width = SIZE
    wide = torch.cat([picture(seed, height, width + 4 * frames) for seed in range(lanes)]).cuda()
    found = []
    for number in range(frames):
        distances = [j for j in (1, 2, 4) if j <= number]
        flows = torch.zeros(lanes, len(distances), 2, *SIZE, device="cuda")
        trust = torch.zeros(lanes, len(distances), 1, *SIZE, device="cuda")
        for at, distance in enumerate(distances):
            flows[:, at, 0] = 4.0 * distance
        trust[:, :1, :, :, : width - 4] = 1
        found.append((wide[..., 4 * number : 4 * number + width].contiguous(), Motion(flows, trust)))
    return found


def paint_moving(painter, frames, state=None):
    state, painted = state or painter.initial_state(), []
    for image, step in frames:
        frame, state = painter.step(image, step, state)
        painted.append(frame)
    return painted, state


@pytest.mark.parametrize(("name", "precision"), [("slim", "bf16"), ("slim", "fp32"), ("vgg19", "bf16")])
@pytest.mark.parametrize("lanes", [1, 2])
def test_frames_are_the_same_with_what_belongs_to_them_recorded(monkeypatch, name, precision, lanes):
    frames, painter = moving(lanes), taught(name, precision)
    found, state = paint_moving(painter, frames)
    assert {key[0] for key in painter.graphs._captured} >= {"Stylizer._prepared", "_repainted"}
    monkeypatch.setattr(graphs, "can_record", lambda tensors: False)
    wanted, plain = paint_moving(taught(name, precision), frames)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    mine, theirs = (pack((s.correction, s.missed)).tensors for s in (state, plain))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in mine.items())


def test_recorded_frames_go_on_from_a_saved_state_bit_for_bit():
    frames = moving()
    wanted, _ = paint_moving(taught(), frames)
    for done in (5, 6, 7):
        _, state = paint_moving(taught(), frames[:done])
        found, _ = paint_moving(taught(), frames[done:], unpack(pack(state), State, "cuda"))
        assert all(torch.equal(one, other) for one, other in zip(found, wanted[done:], strict=True))


def test_graphs_of_functions_become_no_more():
    painter, frames = taught(), moving(frames=13)
    _, state = paint_moving(painter, frames[:9])
    before = len(painter.graphs)
    paint_moving(painter, frames[9:], state)
    assert len(painter.graphs) == before <= graphs._KEPT


def test_a_later_frame_waits_twice(monkeypatch):
    """For what is revealed, and for the loss; and nothing but a download waits."""
    painter, frames, waited = taught(), moving(), []

    class Allowed(transfer.Download):
        def wait(self):
            torch.cuda.set_sync_debug_mode("default")
            waited.append(len(self._tensors))
            try:
                return super().wait()
            finally:
                torch.cuda.set_sync_debug_mode("error")

    _, state = paint_moving(painter, frames[:7])
    for module in (transfer, optimizers):
        monkeypatch.setattr(module, "Download", Allowed)
    torch.cuda.synchronize()
    for number in (7, 8):  # with a look and without
        with nothing_may_wait():
            _, state = painter.step(*frames[number], state)
    assert waited == [1, 1] * 2


def test_what_is_measured_of_a_frame_is_the_same_recorded():
    (image, _), (after, step) = moving()[:2]
    held = Graphs()
    for _ in range(2):
        given = (after, image, step.flows[:, 0], step.trust[:, 0])
        assert torch.equal(held.call(rounds.warp_errors, *given), rounds.warp_errors(*given))
        assert torch.equal(held.call(rounds.to_pixels, after, lend=True), rounds.to_pixels(after))
    assert len(held) == 2


FAST = {"size": 96, "first_iterations": 12, "iterations": 4, "device": "cuda"}


@pytest.mark.parametrize("encoder", ["slim", "vgg19"])
def test_a_whole_render(tmp_path, style, encoder):
    clip = make_video(tmp_path / "in.mp4", pts=range(0, 5 * 512, 512))
    result = stylize(clip, style, tmp_path / "out.mp4", encoder=encoder, **FAST)
    assert result.frames == 5
    assert result.drift is not None


def test_a_whole_render_with_flow_of_the_gpu_is_the_same_again(tmp_path, style):
    clip = make_video(tmp_path / "in.mp4", pts=range(0, 6 * 512, 512))
    outputs = [tmp_path / name for name in ("one.mp4", "other.mp4")]
    for output in outputs:
        assert stylize(clip, style, output, flow="gpu", **FAST).frames == 6
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_running_out_of_memory_goes_on_with_less(tmp_path, style, caplog):
    clip = make_video(tmp_path / "in.mp4", size=(704, 544), pts=range(0, 3 * 512, 512))
    options = {"size": 704, "first_iterations": 8, "iterations": 2, "device": "cuda", "encoder": "vgg19"}
    plan = make_plan(clip, style, tmp_path / "out.mp4", **vars(split_options(options)))
    assert plan.effort.tile is None
    everything = torch.cuda.get_device_properties(0).total_memory
    taken = peak_of(plan)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.4 * taken) / everything)
    try:
        result = render_plan(plan)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.frames == 3
    assert "memory ran out" in caplog.text


def peak_of(plan):
    """Bytes that painting a first frame takes beside what is there before."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    painter = make_stylizer(plan)
    height, width = reversed(plan.size)
    painter.step(picture(1, height, width).cuda(), Motion.none(1, height, width).to("cuda"), State(), Controls())
    return torch.cuda.max_memory_reserved() - before


def test_a_graph_that_does_not_fit_says_that_memory_ran_out():
    objective, image = problem("vgg19")
    gc.collect()
    torch.cuda.empty_cache()
    everything = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**20) / everything)
    try:
        with pytest.raises((MemoryError, RuntimeError)) as caught:
            Graphs().minimise(objective, image, **SEARCH)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert is_out_of_memory(caught.value)
    del caught
    assert Graphs().minimise(objective, image, **SEARCH).loss.isfinite().all()


def test_a_download_is_of_what_was_launched_before_it_and_waits_for_nothing_after():
    """However much is launched between the two."""
    numbers = torch.arange(1 << 16, device="cuda", dtype=torch.float32)
    product = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    doubled = numbers * 2
    download = transfer.Download(doubled, numbers)
    del doubled  # the download holds it
    for _ in range(50):
        product = product @ product
    launched = torch.cuda.current_stream().record_event()
    found, as_it_was = download.wait()
    assert not launched.query(), "the host waited for what came after"
    assert torch.equal(found, 2 * torch.arange(1 << 16))
    assert torch.equal(as_it_was, torch.arange(1 << 16).float())


def test_no_stream_beside_painting_is_another_one():
    for _ in range(40):  # torch has 32, and gives them again
        torch.cuda.Stream("cuda:0")
    beside = transfer.streams_of(torch.device("cuda:0"))
    assert len({stream.cuda_stream for stream in vars(beside).values()}) == 3
