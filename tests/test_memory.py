"""Memory: tiles give what a picture in one piece gives, the plan fits what there is, and running out is no end."""

import sys
from dataclasses import replace

import pytest
import torch
from media import make_video
from tiny import picture

from nst_video import render
from nst_video.cli import main
from nst_video.devices import memory
from nst_video.errors import ResourceError, Stopped, UsageError, is_out_of_memory
from nst_video.flow.motion import Motion
from nst_video.jobs import jobwriter
from nst_video.jobs.job import read_job
from nst_video.jobs.resume import open_job
from nst_video.networks.encoders import load_encoder
from nst_video.optimization.budget import Need, choose, readable
from nst_video.optimization.objective import FrameObjective, Missed, Past, Weights, style_of, style_statistics
from nst_video.optimization.optimizers import minimise
from nst_video.optimization.tiled import TiledObjective, gram_sums
from nst_video.optimization.tiles import cells, overlap_of, stride_of
from nst_video.options import EffortOptions, LookOptions, MachineOptions
from nst_video.painting import targets
from nst_video.painting.batches import batch_of
from nst_video.painting.state import State
from nst_video.painting.stepdown import smaller
from nst_video.painting.stepreport import StepReport
from nst_video.painting.stylizer import Stylizer
from nst_video.painting.teacher import load_teacher
from nst_video.plan import Plan
from nst_video.planning import make_plan
from nst_video.render import render_job, render_plan

LOOK = LookOptions()
LAYERS = (*LOOK.content_layers, *LOOK.style_layers)
WEIGHTS = Weights(content=0.3, style=2.0, tv=0.7, temporal=5.0)
SHAPE = (202, 333)  # on no grid


def encoder(name="slim"):
    return load_encoder(name, LAYERS)


def loss_and_gradient(objective, image):
    leaf = image.clone().requires_grad_(True)
    loss, terms = objective(leaf)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient, {name: term.detach() for name, term in terms.items()}


def off(found, wanted):
    """How far the first is from the second, as a share of it."""
    return float((found - wanted).norm() / wanted.norm())


# ---------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize(("name", "layer"), [("slim", "relu5_1"), ("slim", "relu3_2"), ("vgg19", "relu4_2")])
def test_a_place_sees_as_far_as_the_table_says(name, layer):
    reach, stride = load_encoder(name, [layer]), stride_of(name, layer)
    image = picture(0, 16, 320, grain=1).requires_grad_(True)
    place = 160 // stride
    (gradient,) = torch.autograd.grad(reach(image)[layer][..., place].sum(), image)
    strength = gradient.abs().amax((0, 1, 2))
    seen = (strength > 1e-6 * strength.max()).nonzero()  # what rounding leaves further away is next to nothing
    assert 160 - int(seen.min()) <= overlap_of(name, [layer]) // 2
    assert int(seen.max()) - (160 + stride - 1) <= overlap_of(name, [layer]) // 2
    assert 160 - int(seen.min()) > overlap_of(name, [layer]) // 2 - 16  # and hardly more is taken


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(333, 256, 128), (1080, 512, 160), (3840, 832, 160), (90, 256, 160)]
)
def test_every_pixel_belongs_to_one_tile_that_knows_what_is_about_it(length, tile, overlap):
    found = cells(length, tile, overlap, 16)
    assert [cell.first for cell in found] == [0, *(cell.last for cell in found[:-1])]
    assert found[-1].last == length
    margin = min(overlap, tile // 2) // 2 // 16 * 16
    for cell in found:
        assert cell.end - cell.start <= tile
        assert cell.start % 16 == cell.first % 16 == 0
        assert cell.start == 0 or cell.first - cell.start >= margin
        assert cell.end == length or cell.end - cell.last >= margin


# Here two things are computed twice, so the tolerances are those of float32 sums in another order.
@pytest.mark.parametrize(
    ("name", "loss", "tile", "missed"),
    [
        ("slim", "relative", 256, False),
        ("slim", "relative", 256, True),
        ("slim", "paper", 256, False),
        ("vgg19", "relative", 256, False),
    ],
)
def test_in_tiles_loss_and_gradient_are_those_of_the_whole_picture(name, loss, tile, missed):
    network, look = encoder(name), replace(LOOK, loss=loss)
    contents = [picture(1, *SHAPE), picture(2, *SHAPE)][: 1 if name == "vgg19" else 2]
    image = torch.cat([1.2 * picture(3 + lane, *SHAPE) - 0.1 for lane in range(len(contents))])
    trust = torch.full((len(image), 1, 1, *SHAPE), 0.5)
    style = network(picture(9, *SHAPE, grain=3))
    options = {
        "content": torch.cat(contents),
        "styles": {layer: style_statistics(network, style, layer) for layer in look.style_layers},
        "weights": WEIGHTS,
        "past": Past(torch.cat([picture(5, *SHAPE)] * len(image))[:, None], trust),
    }
    if missed:
        sizes = {layer: network(image)[layer].shape for layer in ("relu5_1", "relu4_2")}
        painting, frame = ({layer: 0.3 * torch.randn(size) for layer, size in sizes.items()} for _ in range(2))
        options["missed"] = Missed(painting, {"relu4_2": frame["relu4_2"]})
    whole = loss_and_gradient(FrameObjective(network, look, **options), image)
    tiled = TiledObjective(network, look, tile=tile, **options)
    assert len(tiled.parts) > 1
    found = loss_and_gradient(tiled, image)
    torch.testing.assert_close(found[0], whole[0], rtol=1e-4, atol=0)
    assert off(found[1], whole[1]) < 1e-3
    assert found[2].keys() == whole[2].keys()
    for term, value in whole[2].items():
        torch.testing.assert_close(found[2][term], value, rtol=1e-4, atol=1e-7, msg=term)


def test_a_tiled_loss_without_a_gradient_is_the_same():
    network, content = encoder(), picture(1, *SHAPE)
    styles = {layer: gram.mean for layer, gram in gram_sums(network, picture(9), LOOK.style_layers).items()}
    tiled = TiledObjective(network, LOOK, content=content, styles=styles, weights=WEIGHTS, tile=256)
    with torch.no_grad():
        loss, _ = tiled(picture(3, *SHAPE))
    torch.testing.assert_close(loss, loss_and_gradient(tiled, picture(3, *SHAPE))[0], rtol=1e-6, atol=0)


def test_gram_sums_of_tiles_are_those_of_the_picture():
    network, image = encoder(), picture(4, *SHAPE)
    whole, tiled = (gram_sums(network, image, LOOK.style_layers, tile) for tile in (None, 256))
    for layer, gram in whole.items():
        assert torch.equal(tiled[layer].count, gram.count)  # every place once
        assert off(tiled[layer].total, gram.total) < 1e-5


def test_a_teacher_sees_the_same_in_tiles():
    pupil, image = encoder(), picture(4, *SHAPE)
    teachers = [load_teacher(pupil, LOOK.style_layers, places=["relu4_2"], tile=tile) for tile in (None, 256)]
    whole, tiled = (teacher.statistics(image) for teacher in teachers)
    for layer, gram in whole.items():
        assert off(tiled[layer], gram) < 1e-3
    whole, tiled = (teacher.look(image, {}, {}, ["relu4_2"])[1]["relu4_2"] for teacher in teachers)
    assert off(tiled, whole) < 1e-3


def test_no_more_of_a_style_picture_is_looked_at_at_a_time_than_a_frame_has(monkeypatch):
    monkeypatch.setattr(targets, "_PART", 256)
    network, frame = encoder(), picture(1, 320, 512)
    painter = Stylizer(network, [(picture(4, 512, 512), 1.0)], effort=EffortOptions(encoder="slim"))
    whole = gram_sums(network, painter.styles.pictures[0], LOOK.style_layers)
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2] * given[0].shape[3]))
    found = painter.targets(frame)
    assert len(seen) > 1
    assert max(seen) <= 320 * 512
    for layer, gram in whole.items():
        assert off(found[layer], style_of(network, gram.mean, layer)) < 1e-5


def test_a_frame_is_painted_the_same_in_tiles():
    network, frame = encoder(), picture(1, *SHAPE)
    effort = EffortOptions(first_iterations=8, iterations=3, history=3, encoder="slim")
    motion = Motion(torch.full((1, 1, 2, *SHAPE), 0.5), torch.full((1, 1, 1, *SHAPE), 0.7))
    painted = []
    for tile in (None, 256):
        stylizer = Stylizer(network, [(picture(9), 1.0)], effort=replace(effort, tile=tile))
        first, state = stylizer.step(frame, Motion.none(1, *SHAPE), stylizer.initial_state())
        painted.append((first, stylizer.step(frame, motion, state)[0]))
    for whole, tiled in zip(*painted, strict=True):
        assert float((whole - tiled).abs().mean()) < 1e-3
        assert float((whole - frame).abs().mean()) > 0.02


def test_after_memory_ran_out_only_the_newest_pairs_go_on():
    network, frame, none = encoder(), picture(1, 32, 40), Motion.none(1, 32, 40)
    effort = EffortOptions(first_iterations=12, iterations=3, history=6, encoder="slim")
    motion = Motion(torch.zeros(1, 1, 2, 32, 40), torch.full((1, 1, 1, 32, 40), 0.7))
    more, fewer = (Stylizer(network, [(picture(9), 1.0)], effort=replace(effort, history=m)) for m in (6, 2))
    state = more.step(frame, none, more.initial_state())[1]
    states = [stylizer.step(frame, motion, state)[1] for stylizer in (more, fewer)]
    assert [after.curvature.history for after in states] == [6, 2]
    # Lanes of which one was painted before that happened, and one after it.
    batch = batch_of(states)
    assert batch.curvature.pairs.shape == (2, 4, frame.numel())
    newest = states[0].curvature.newest(2)
    assert torch.equal(batch.curvature.pairs[:1], newest.pairs)
    assert not torch.equal(newest.pairs, states[0].curvature.pairs[:, :4])


def test_pairs_that_are_given_away_are_not_copied():
    def bowl(image):
        return image.square().sum((1, 2, 3)), {}

    start = picture(0, 4, 6)
    before = minimise(bowl, start, evaluations=4, history=3).curvature
    kept = before.clone()
    copied = minimise(bowl, start, evaluations=3, curvature=before)
    assert torch.equal(before.pairs, kept.pairs)
    taken = minimise(bowl, start, evaluations=3, curvature=before, consume=True)
    assert torch.equal(taken.image, copied.image)
    assert taken.curvature.pairs.data_ptr() == before.pairs.data_ptr()


# ---------------------------------------------------------------------------------------------- the plan

GB = 10**9


def need_of(size, encoder, precision="fp32", device="cpu", *, still=False, look=LookOptions(), threads=2, **effort):
    machine = MachineOptions(device=device, precision=precision, threads=threads)
    return Need.of(size, EffortOptions(encoder=encoder, **effort), look, machine, still=still)


@pytest.mark.parametrize(
    ("available", "size", "encoder", "history", "tile"),
    [
        (24 * GB, (1920, 1080), "vgg19", 10, None),  # all of it fits
        (4 * GB, (512, 288), "vgg19", 10, None),
        (8 * GB, (1920, 1080), "slim", 10, None),
        (16 * GB, (512, 288), "vgg16", 10, None),
    ],
)
def test_what_fits_is_left_as_it_was_asked_for(available, size, encoder, history, tile):
    need = need_of(size, encoder)
    assert choose(need, available, history=10, tile=None, cut=True) == (history, tile)


@pytest.mark.parametrize(("encoder", "precision"), [("vgg19", "fp32"), ("vgg19", "bf16"), ("slim", "fp32")])
@pytest.mark.parametrize("size", [(1920, 1080), (3840, 2160), (1080, 1920)])
def test_pairs_go_before_the_picture_is_cut_and_come_back_then(encoder, precision, size):
    """From plenty down to too little."""
    need = need_of(size, encoder, precision)
    plenty = need.bytes(history=10, tile=None) / 0.9
    shares = [part / 400 for part in range(401, 0, -1)]
    found = [choose(need, round(plenty * share), history=10, tile=None, cut=True) for share in shares]
    assert found[0] == (10, None)
    assert found[-1] is None
    fitting = [pair for pair in found if pair]
    assert (4, None) in fitting
    kinds = list(dict.fromkeys((history, tile is not None) for history, tile in fitting))
    assert kinds[:3] == [(10, False), (4, False), (10, True)]
    tiles = [tile for history, tile in fitting if tile and history == 10]
    assert tiles == sorted(tiles, reverse=True)
    assert min(tiles) in (256, 320, 384)  # in such steps of the memory
    assert all(tile % 64 == 0 for tile in tiles)


@pytest.mark.parametrize(
    ("available", "size", "precision", "still"),
    [
        (8 * GB, (3840, 2160), "bf16", True),
        (24 * GB, (3840, 2160), "fp32", False),
        (6 * GB, (1920, 1080), "fp32", False),
    ],
)
def test_large_pictures_fit_in_tiles_that_are_mostly_their_own(available, size, precision, still):
    need = need_of(size, "vgg19", precision, still=still)
    history, tile = choose(need, available, history=10, tile=None, cut=True)
    assert history >= 4
    assert 512 <= tile < max(size)


def test_what_may_not_be_cut_is_not():
    need = need_of((1920, 1080), "vgg19")
    assert choose(need, 4 * GB, history=10, tile=None, cut=False) is None
    assert choose(need, 4 * GB, history=10, tile=512, cut=True)[1] == 512  # as asked for
    assert need_of((1920, 1080), "googlenet") is None


def test_less_is_planned_with_where_the_gradient_is_written_out():
    size, whole = (1280, 720), {"history": 10, "tile": None}
    least = need_of(size, "vgg19").bytes(**whole)
    by_autograd = (
        need_of(size, "vgg19", device="cuda:0"),
        need_of(size, "vgg19", pooling="max"),
        need_of(size, "vgg19", look=LookOptions(tv_exponent=1.25)),
        need_of(size, "vgg19", look=LookOptions(content_layers=("relu2_2",))),
    )
    assert all(need.bytes(**whole) > least for need in by_autograd)
    in_tiles = [need.bytes(history=10, tile=640) for need in (need_of(size, "vgg19"), by_autograd[1])]
    assert in_tiles[0] == in_tiles[1]


def test_graphs_are_counted_for_pictures_in_one_piece_of_videos_on_a_gpu():
    size = (1280, 720)
    by_graphs, still = (need_of(size, "vgg19", device="cuda:0", still=still) for still in (False, True))
    assert by_graphs.graphs > 0
    assert still.graphs == need_of(size, "vgg19").graphs == 0
    without = replace(by_graphs, graphs=0)
    assert by_graphs.bytes(history=10, tile=None) > without.bytes(history=10, tile=None)
    assert by_graphs.bytes(history=10, tile=640) == without.bytes(history=10, tile=640)
    # Two of them as one batch, or one of twice that size, take longer than it takes to launch.
    assert by_graphs.bytes(history=10, tile=None, lanes=2, together=2) == without.bytes(
        history=10, tile=None, lanes=2, together=2
    )
    large = replace(by_graphs, size=(1920, 1080))
    assert large.bytes(history=10, tile=None) == replace(large, graphs=0).bytes(history=10, tile=None)


def test_frames_that_wait_on_a_gpu_are_counted():
    size, whole = (512, 512), {"history": 10, "tile": None}
    few, many = (need_of(size, "vgg19", device="cuda:0", threads=threads) for threads in (2, 16))
    assert many.bytes(**whole) - few.bytes(**whole) == 11 * 50 * 512 * 512  # 12 workers instead of 1
    assert few.feed > 0
    assert need_of(size, "vgg19").feed == need_of(size, "vgg19", device="cuda:0", still=True).feed == 0


def test_pairs_take_less_memory_on_a_gpu_and_searches_more():
    there, here = (need_of((512, 512), "vgg19", device=device) for device in ("cuda:0", "cpu"))
    assert here.pair / 2 < there.pair < here.pair
    still = need_of((512, 512), "vgg19", device="cuda:0", still=True)
    # Twelve bytes each (steps and changes of three colours): of the state, and of all scales, which share none.
    assert still.pair >= 12 * (1 + sum(0.5**scale for scale in range(5)))
    assert still.lane - need_of((512, 512), "vgg19", still=True).lane >= 5 * 12 * sum(0.5**scale for scale in range(5))


def test_transformed_weights_are_counted_to_the_deepest_layer():
    default, deeper = (
        need_of((64, 64), "vgg19"),
        need_of((64, 64), "vgg19", look=LookOptions(style_layers=("relu5_4",))),
    )
    assert default.fixed - need_of((64, 64), "vgg19", "bf16").fixed == pytest.approx(205e6, rel=0.01)
    assert deeper.fixed - default.fixed == 3 * 512 * 512 * 36 * 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_teacher_that_looks_is_counted(precision):
    alone, taught = (need_of((640, 360), "slim", precision, teacher=teacher) for teacher in ("off", "on"))
    assert taught.whole > alone.whole
    assert (taught.fixed > alone.fixed) == (precision == "fp32")


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "in.mp4", frames=6, size=(640, 360))


def planned(clip, style, limit, **effort):
    effort = EffortOptions(encoder="vgg19", size=640, **effort)
    machine = MachineOptions(memory_limit=limit, device="cpu", precision="fp32")
    return make_plan(clip, style, clip.parent / "out.mp4", effort=effort, machine=machine)


def test_the_plan_holds_what_was_chosen_and_says_what_gave(clip, style, caplog):
    assert planned(clip, style, "6GB").effort.tile is None
    assert "memory" not in caplog.text
    plan = planned(clip, style, "1.4 GB")
    tile = plan.effort.tile
    assert (plan.effort.history, tile in (256, 320, 384)) == (10, True)
    assert f"640x360 takes more memory than there is: parts of {tile} pixels, which takes longer" in caplog.text
    assert len(caplog.records) == 1
    assert Plan.from_json(plan.to_json()) == plan


def test_without_pairs_there_are_none_to_give_up(clip, style):
    plan = planned(clip, style, "1.4GB", optimizer="adam")
    assert (plan.effort.history, plan.effort.tile is None) == (10, False)


def test_what_does_not_fit_at_all_is_refused_in_one_line(clip, style, tmp_path, capsys):
    with pytest.raises(ResourceError, match=r"640x360 pixels need 1.2 GB of memory even with few .* 500 MB can be had"):
        planned(clip, style, "500MB")
    words = [str(clip), str(style), str(tmp_path / "out.mp4"), "--memory", "500MB", "--size", "640"]
    assert main(words) == 4
    line = capsys.readouterr().err.strip()
    assert "choose a smaller --size or a larger --memory-limit" in line
    assert "\n" not in line
    assert not (tmp_path / "out.mp4.nst").exists()


@pytest.mark.parametrize(
    ("text", "amount"), [("6GB", 6 * GB), ("1.5GiB", 1610612736), ("800 mb", 800_000_000), ("2T", 2 * 10**12)]
)
def test_memory_has_a_unit(text, amount):
    assert MachineOptions(memory_limit=text).memory_limit == amount


@pytest.mark.parametrize("text", ["6", "-6GB", "GB", "six GB", "6EB", "0GB", "1e9GB", "nan", "٣GB"])
def test_memory_without_a_known_unit_is_refused(text, capsys):
    with pytest.raises(UsageError, match="allowed 1MB to 1000TB with the unit, such as 6GB"):
        MachineOptions(memory_limit=text)
    assert main(["in.mp4", "style.png", "out.mp4", f"--memory={text}"]) == 2
    assert "allowed 1MB to 1000TB with the unit, such as 6GB, 1.5GiB or 800MB" in capsys.readouterr().err


def test_a_dream_keeps_its_own_memory():
    from nst_video.commands import dream

    args = dream.make_parser().parse_args(["in.mp4", "out.mp4", "--memory", "0.5", "--memory-limit", "6GB"])
    assert (args.memory, args.memory_limit) == (0.5, 6 * GB)


def test_a_container_has_what_it_may_take(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    machine = memory.free_memory()
    for name, text in {"max": "1000000", "current": "700000", "stat": "anon 5\ninactive_file 50000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.free_memory() == 350_000
    assert memory.available_memory("cpu", 10**5) == 10**5
    assert memory.available_memory("mps", None) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine is None) == (sys.platform != "linux")
    assert machine is None or memory.free_memory() > 10**6


def test_what_torch_keeps_of_a_gpu_for_itself_can_be_had(monkeypatch):
    kept = [3 * GB]
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GB - sum(kept), 8 * GB))
    assert memory.available_memory("cuda:0") == 5 * GB
    assert memory.available_memory("cuda:0", 4 * GB) == 4 * GB


def test_a_system_that_does_not_tell_what_is_free_has_half():
    half = memory._half_of_the_machine()
    assert (half is None) == (sys.platform == "win32")
    assert half is None or 10**8 < half < 10**14


def test_bytes_for_people():
    assert [readable(count) for count in (6.04e9, 4.6e8)] == ["6.0 GB", "460 MB"]


# ---------------------------------------------------------------------------------------------- running out


class Hungry:
    """A stylizer that runs out of memory from a frame on while its parts are larger than `fits`, or it keeps more pairs
    than `pairs`.
    """

    def __init__(self, plan, fits, pairs, at, error):
        effort = plan.effort
        self.large = effort.tile is None or effort.tile > fits if fits else effort.history > pairs
        self.at, self.error = at, error

    def initial_state(self, seed=None):
        return State(seed=seed or 0)

    def step(self, image, motion, state, controls):
        if state.frame >= self.at and self.large:
            raise self.error
        past = image if state.outputs is None else state.outputs[:, 0]
        mixed = 0.7 * image + 0.3 * past
        return mixed, State(state.seed, state.frame + 1, mixed[:, None], image, None, StepReport(1, 0, {}, ()))


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.fixture
def hungry(monkeypatch):
    """A function that makes every render run out, as `Hungry` does; it gives the pairs and parts that were tried."""
    monkeypatch.setattr(jobwriter, "OFTEN", 0.0)
    monkeypatch.setattr(jobwriter, "SELDOM", 0.0)
    made = []

    def make(fits=320, pairs=None, at=2, error=OUT_OF_MEMORY[0]):
        def make_stylizer(plan):
            made.append((plan.effort.history, plan.effort.tile))
            return Hungry(plan, fits, pairs, at, error)

        monkeypatch.setattr(render, "make_stylizer", make_stylizer)
        return made

    return make


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "python", "cpu"])
def test_a_render_that_runs_out_goes_on_in_smaller_parts(clip, style, tmp_path, hungry, caplog, error):
    made = hungry(error=error)
    with open_job(clip, style, tmp_path / "out.mp4") as job:
        result = render_job(job)
    assert (result.frames, made) == (6, [(10, None), (4, None), (4, 256)])
    said = [record.message for record in caplog.records if "memory" in record.message]
    again = "memory ran out; this frame is done again, and all from here on, "
    assert said == [again + "with 4 curvature pairs", again + "in parts of 256 pixels"]


def test_pairs_go_before_the_picture_is_cut_in_the_middle_too(clip, style, tmp_path, hungry):
    made = hungry(fits=None, pairs=4)
    assert render_plan(make_plan(clip, style, tmp_path / "out.mp4")).frames == 6
    assert made == [(10, None), (4, None)]
    adam = make_plan(clip, style, tmp_path / "adam.mp4", effort=EffortOptions(optimizer="adam"))
    assert smaller(adam).effort.tile == 256


def test_parts_are_halved_as_often_as_it_takes_and_no_further(clip, style, tmp_path, hungry):
    effort = EffortOptions(size=640)
    made = hungry(fits=256)
    machine = MachineOptions(device="cpu")
    result = render_plan(make_plan(clip, style, tmp_path / "out.mp4", effort=effort, machine=machine))
    assert (result.frames, made) == (6, [(10, None), (4, None), (4, 320), (4, 256)])
    hungry(fits=100)
    with pytest.raises(ResourceError, match="not enough memory on cpu for frames of 640x360 pixels"):
        render_plan(make_plan(clip, style, tmp_path / "again.mp4", effort=effort, machine=machine))


def test_what_is_no_lack_of_memory_is_an_error_at_once(clip, style, tmp_path, hungry):
    made = hungry(error=RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        render_plan(make_plan(clip, style, tmp_path / "out.mp4"))
    assert made == [(10, None)]
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_a_render_that_goes_on_later_obeys_the_smaller_parts(clip, style, tmp_path, hungry, monkeypatch):
    out, made = tmp_path / "out.mp4", hungry()
    with pytest.raises(Stopped), open_job(clip, style, out) as job:
        render_job(job, stop=lambda: job.done >= 4 or len(made) == 3)
    assert read_job(out).plan.effort.tile == 256
    # Were it planned anew, there would be memory for one piece, or too little for anything.
    monkeypatch.setattr("nst_video.planning.available_memory", lambda *_: 10**6)
    with open_job(clip, style, out, machine=MachineOptions(memory_limit="2GB")) as job:
        result = render_job(job)
    assert (result.frames, made) == (6, [(10, None), (4, None), (4, 256), (4, 256)])


def test_a_dream_is_cut_smaller_too(clip, tmp_path):
    from nst_video.dreaming.options import DreamOptions

    plan = make_plan(clip, (), tmp_path / "out.mp4", dream=DreamOptions())
    assert plan.dream.tile is None
    sides = [plan := smaller(plan)]
    assert sides[0].dream.tile == 256
    assert smaller(sides[0]) is None


def test_an_encoder_that_cannot_be_cut_is_not(clip, style, tmp_path):
    look = LookOptions(content_layers=("inception_3a",), style_layers=("conv1", "inception_3a"))
    plan = make_plan(clip, style, tmp_path / "out.mp4", look=look, effort=EffortOptions(encoder="googlenet", history=4))
    assert smaller(plan) is None
