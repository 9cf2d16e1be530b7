"""Functions as graphs: what is copied in and out, which graph is whose, and that what is recorded can be. On a GPU
test_cuda.py compares; here a stand-in does the work again where a graph would be replayed.
"""

import gc
import weakref
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from as_on_gpu import AsOnGpu
from tiny import LOOK, TinyEncoder, picture, texture
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from nst_video.colors import to_image, to_pixels
from nst_video.controls import Controls
from nst_video.devices import transfer
from nst_video.flow import motion as motions_of
from nst_video.flow.motion import Motion, MotionWindow, flows_between
from nst_video.jobs.states import pack, unpack
from nst_video.measures import warp_errors
from nst_video.networks.encoders import load_encoder
from nst_video.networks.padded import PaddedVgg
from nst_video.optimization import curvature, direct, graphs, optimizers
from nst_video.optimization.graphs import Graphs, mapped, results_in, taken_apart
from nst_video.optimization.objective import Missed
from nst_video.options import EffortOptions, LookOptions
from nst_video.painting import stylizer as stylizers_own
from nst_video.painting.looks import UNKNOWN
from nst_video.painting.state import State
from nst_video.painting.stylizer import Stylizer
from nst_video.painting.teacher import load_teacher, places_of

DEFAULT = LookOptions()
LAYERS = (*DEFAULT.content_layers, *DEFAULT.style_layers)
HEIGHT, WIDTH = 48, 64


class Again:
    """A CUDA graph as far as graphs.py asks: what it holds is done again, into the same tensors."""

    def __init__(self, work, result):
        self.work, self.result = work, result

    def replay(self):
        for mine, new in zip(results_in(self.result), results_in(self.work()), strict=True):
            if mine.data_ptr() != new.data_ptr():
                mine.copy_(new)


class Copied:
    """A download from what is said to be a GPU."""

    def __init__(self, *tensors):
        self.tensors = [tensor.clone() for tensor in tensors]

    def wait(self):
        return self.tensors


@pytest.fixture
def recording(monkeypatch):
    """Graphs that record on whatever device; the names of what they were asked to record, in order."""
    names = []

    def graph_of(self, work, device, *, alone=False):
        result = work()
        return Again(work, result), result

    def record(self, function, given, lend, record=Graphs._record):
        names.append(function.__name__)
        return record(self, function, given, lend)

    monkeypatch.setattr(Graphs, "_graph_of", graph_of)
    monkeypatch.setattr(Graphs, "_record", record)
    monkeypatch.setattr(graphs, "_beside", lambda device: nullcontext())
    monkeypatch.setattr(graphs, "can_record", bool)
    return names


# ---------------------------------------------------------------------------------------------- functions


def weighed(image, weights, missed, factor):
    total = sum(weight * image for weight in weights.values())
    return {"sum": total}, missed.mapped(lambda value: factor * value)


def test_without_a_gpu_a_function_is_called():
    held, image = Graphs(), picture(1)
    assert torch.equal(held.call(torch.neg, image), -image)
    assert len(held) == 0


def test_a_recorded_function_gives_what_it_would_give(recording):
    held, kept = Graphs(), []
    for seed in (1, 2, 3):
        image, weights = picture(seed), {"a": torch.tensor(0.5 + seed), "b": torch.tensor(2.0)}
        missed = Missed({"far": picture(seed + 3)}, {})
        given, before = (image, weights, missed, 3.0), image.clone()
        found, wanted = held.call(weighed, *given), weighed(*given)
        image.zero_()  # what is given may be used again
        kept.append((found, wanted))
        assert not torch.equal(found[0]["sum"], before)
    assert len(held) == 1
    for found, wanted in kept:  # and what was found stays
        assert torch.equal(found[0]["sum"], wanted[0]["sum"])
        assert torch.equal(found[1].painting["far"], wanted[1].painting["far"])


def test_what_is_lent_is_overwritten_by_the_next_call(recording):
    held = Graphs()
    first = held.call(torch.neg, picture(1), lend=True)
    second = held.call(torch.neg, picture(2), lend=True)
    assert second is first
    assert torch.equal(first, -picture(2))


def test_what_a_function_is_given_may_lie_in_memory_in_any_way(recording):
    held, images = Graphs(), torch.cat([picture(1), picture(2)])[None].expand(3, -1, -1, -1, -1)
    for at in (0, 1):
        view = images[:, at]
        assert torch.equal(held.call(torch.neg, view), -view)
    last = images[:, 0].contiguous(memory_format=torch.channels_last)
    assert torch.equal(held.call(torch.neg, last), -last)
    assert len(held) == 1


def test_whatever_differs_but_what_tensors_hold_makes_another_graph():
    one, other = torch.zeros(2, 3), torch.ones(2, 3)
    same = ({"a": one}, [one, None], Missed({}, {"x": one}), 0.5)
    assert taken_apart(same)[1] == taken_apart(mapped(same, lambda tensor: other))[1]
    others = (
        ({"b": one}, [one, None], Missed({}, {"x": one}), 0.5),
        ({"a": one}, [one, one], Missed({}, {"x": one}), 0.5),
        ({"a": one}, [one, None], Missed({"x": one}, {}), 0.5),
        ({"a": one}, [one, None], Missed({}, {"x": one}), 0.6),
        ({"a": one.double()}, [one, None], Missed({}, {"x": one}), 0.5),
        ({"a": one[:1]}, [one, None], Missed({}, {"x": one}), 0.5),
    )
    forms = {taken_apart(value)[1] for value in (same, *others)}
    assert len(forms) == 1 + len(others)


def test_the_graphs_that_were_used_last_are_kept(recording):
    held = Graphs()
    for size in range(1, graphs._KEPT + 3):
        held.call(torch.neg, torch.zeros(size))
    assert len(held) == graphs._KEPT
    recorded = len(recording)
    held.call(torch.neg, torch.zeros(graphs._KEPT))
    assert len(recording) == recorded
    held.call(torch.neg, torch.zeros(1))  # the oldest
    assert len(recording) == recorded + 1
    held.clear()
    assert len(held) == 0


@pytest.mark.parametrize("fault", [RuntimeError("not permitted"), torch.OutOfMemoryError("of memory")])
def test_what_cannot_be_recorded_is_called_from_then_on(recording, monkeypatch, caplog, fault):
    held, graph_of = Graphs(), Graphs._graph_of
    held.call(torch.abs, picture(1))

    def refused(self, work, device, *, alone=False):
        raise fault

    monkeypatch.setattr(Graphs, "_graph_of", refused)
    for seed in (1, 2):
        assert torch.equal(held.call(torch.neg, picture(seed)), -picture(seed))
    assert len(caplog.records) == 1
    monkeypatch.setattr(Graphs, "_graph_of", graph_of)
    held.call(torch.neg, picture(1))
    assert len(held) == 0
    held.call(torch.abs, picture(1))  # others still can
    assert len(held) == 1


@pytest.mark.parametrize("kind", ["function", "iterations"])
def test_what_a_recording_took_is_gone_before_it_is_tried_again(recording, monkeypatch, kind):
    """Memory is what lacks then; an exception that is kept would hold on to all of it."""
    held, left = Graphs(), []
    held.call(torch.abs, picture(1))

    def record():
        assert not any(tensor() is not None for tensor in left)
        taken = torch.zeros(1000)
        left.append(weakref.ref(taken))
        raise torch.OutOfMemoryError(f"no memory beside {len(taken)} numbers")

    gc.disable()
    try:
        if kind == "iterations":
            with pytest.raises(torch.OutOfMemoryError, match="beside 1000 numbers"):
                held._kept(graphs._ITERATIONS, "key", record)
        else:
            assert held._kept(kind, "key", record) is None
    finally:
        gc.enable()
    assert len(left) == {"function": 1, "iterations": 2}[kind]
    assert not any(tensor() is not None for tensor in left)


@pytest.mark.parametrize("function", [torch.neg, torch.sort])
def test_a_graph_that_gives_something_else_is_not_used(recording, monkeypatch, caplog, function):
    held, replay = Graphs(), Again.replay

    def wrong(self):
        replay(self)
        results_in(self.result)[0].add_(0.01)

    monkeypatch.setattr(Again, "replay", wrong)
    for _ in range(2):
        found, wanted = (results_in((call(function, picture(1)),)) for call in (held.call, graphs.plainly))
        assert all(map(torch.equal, found, wanted))
    assert len(held) == 0
    assert "not what the call gave" in caplog.text


def test_only_what_is_lent_has_its_memory_alone(monkeypatch, recording):
    """What one graph gives may lie where another computes: copies are taken before that one is replayed."""
    held, kinds = Graphs(), []

    def graph_of(self, work, device, *, alone=False):
        kinds.append(alone)
        result = work()
        return Again(work, result), result

    monkeypatch.setattr(Graphs, "_graph_of", graph_of)
    for lend in (True, False, True, False):
        assert torch.equal(held.call(torch.neg, picture(1), lend=lend), -picture(1))
    assert kinds == [True, False]


def test_motion_by_opencv_is_made_ready_by_graphs_where_pictures_are_small(recording, monkeypatch):
    rgbs, held = [texture(1, HEIGHT, WIDTH + 8)[:, first : first + WIDTH].copy() for first in (0, 3, 8)], Graphs()
    for current, reference in ((1, 0), (2, 1)):
        flows = flows_between(rgbs[current], [rgbs[reference]])
        assert torch.equal(flows.motion("cpu", held.call).trust, flows.motion().trust)
    assert recording == ["_settled"]
    monkeypatch.setattr(graphs, "RECORDED", HEIGHT * WIDTH - 1)
    flows.motion("cpu", Graphs().call)
    assert recording == ["_settled"]


def test_flow_of_a_gpu_is_found_by_graphs_where_pictures_are_small(recording, monkeypatch):
    def shift(source, target):
        return (target - source).mean((1, 2), keepdim=True)[:, None].expand(-1, 2, *source.shape[1:])

    monkeypatch.setattr(motions_of, "flow_on", lambda device: shift)
    rgbs, held = [texture(1, HEIGHT, WIDTH + 8)[:, first : first + WIDTH] for first in (0, 3, 8)], Graphs()
    for current, reference in ((1, 0), (2, 1)):
        flows = flows_between(rgbs[current], [rgbs[reference]], "gpu")
        found, wanted = flows.motion("cpu", held.call), flows.motion()
        assert torch.equal(found.flows, wanted.flows)
        assert torch.equal(found.trust, wanted.trust)
    assert recording == ["_searched"]
    monkeypatch.setattr(graphs, "RECORDED", HEIGHT * WIDTH - 1)
    flows.motion("cpu", Graphs().call)
    assert recording == ["_searched"]


# ---------------------------------------------------------------------------------------------- frames


def painter(name="slim", look=DEFAULT, **effort):
    """With few evaluations, and the teacher of its encoder."""
    encoder = load_encoder(name, LAYERS)
    teacher = load_teacher(encoder, DEFAULT.style_layers, places=places_of(encoder, DEFAULT))
    effort = EffortOptions(**{"encoder": name, "first_iterations": 4, "iterations": 2, "history": 3} | effort)
    return Stylizer(encoder, [(picture(9), 1.0)], effort=effort, look=look, teacher=teacher)


def moving(lanes=1, frames=8):
    """Frames (L, 3, H, W) of cameras that move, with their motion."""
    wide = [texture(seed, HEIGHT, WIDTH + 4 * frames, grain=3.0) for seed in range(lanes)]
    windows, found = [MotionWindow() for _ in wide], []
    for number in range(frames):
        rgbs = [rgb[:, 4 * number : 4 * number + WIDTH].copy() for rgb in wide]
        motions = [window.step(rgb, number == 0) for window, rgb in zip(windows, rgbs, strict=True)]
        flows, trust = (torch.cat([getattr(motion, name) for motion in motions]) for name in ("flows", "trust"))
        found.append((torch.cat([to_image(rgb[None]) for rgb in rgbs]), Motion(flows, trust)))
    return found


def paint(stylizer, frames, state=None, controls=Controls()):
    state, painted = state or stylizer.initial_state(), []
    for image, motion in frames:
        frame, state = stylizer.step(image, motion, state, controls)
        painted.append(frame)
    return painted, state


def assert_same(found, wanted):
    """Bit for bit, frames and the state after them."""
    assert all(torch.equal(one, other) for one, other in zip(found[0], wanted[0], strict=True))
    assert found[1].report == wanted[1].report
    mine, theirs = (pack(replace(state, report=None)) for _, state in (found, wanted))
    assert mine.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in mine.tensors.items())


@pytest.mark.parametrize("lanes", [1, 2])
def test_frames_are_the_same_with_what_belongs_to_them_recorded(recording, monkeypatch, lanes):
    frames, stylizer = moving(lanes), painter()
    found = paint(stylizer, frames)
    # Each once, but that looks are at a painting alone or at its frame too; on a CPU fill is one for each number of
    # windows.
    assert sorted(name for name in recording if name != "_repainted") == ["_prepared", "judged", "judged"]
    assert "_repainted" in recording
    monkeypatch.setattr(graphs, "can_record", lambda tensors: False)
    assert_same(found, paint(painter(), frames))


def test_large_frames_are_not_recorded(recording, monkeypatch):
    monkeypatch.setattr(graphs, "RECORDED", HEIGHT * WIDTH - 1)
    paint(painter(), moving())
    assert recording == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_whole_path_of_a_gpu_is_the_same_with_and_without_graphs(recording, monkeypatch, dtype):
    """With the iterations as graphs too, and all else that is done differently there, on the CPU."""
    for module in (curvature, stylizers_own):
        monkeypatch.setattr(module, "stored_as", lambda device: dtype)
    for module in (transfer, optimizers):
        monkeypatch.setattr(module, "Download", Copied)
    monkeypatch.setitem(direct.NETWORKS, "cpu", PaddedVgg)
    frames, stylizer = moving(frames=7), painter()
    with AsOnGpu():
        found = paint(stylizer, frames)
        kinds = {kind for kind, *_ in stylizer.graphs._captured}
        assert {"_repainted", "Stylizer._prepared", "Looks.judged"} < kinds
        monkeypatch.setattr(graphs, "can_record", lambda tensors: False)
        assert_same(found, paint(painter(), frames))
        monkeypatch.setattr(graphs, "can_hold", lambda *search: False)
        without = paint(painter(), frames)[0]
    assert all((one - other).abs().mean() < 1e-3 for one, other in zip(found[0], without, strict=True))


def test_recorded_frames_go_on_from_a_saved_state(recording):
    frames = moving()
    wanted = paint(painter(), frames)
    for done in (5, 6):
        _, state = paint(painter(), frames[:done])
        found = paint(painter(), frames[done:], unpack(pack(state), State))
        assert torch.equal(found[0][-1], wanted[0][-1])


def test_a_state_of_recorded_frames_is_left_as_it_was(recording):
    frames, stylizer = moving(), painter()
    _, state = paint(stylizer, frames[:6])
    before = pack(state).tensors
    first = paint(stylizer, frames[6:7], state)
    paint(stylizer, frames[7:], state)
    assert all(torch.equal(value, before[name]) for name, value in pack(state).tensors.items())
    assert_same(paint(stylizer, frames[6:7], state), first)


def test_controls_are_values_and_make_no_new_graph(recording, monkeypatch):
    frames, stylizer = moving(frames=10), painter()
    _, state = paint(stylizer, frames[:5])
    controls = Controls(content_weight=0.3, style_weight=2.0)
    _, state = paint(stylizer, frames[5:6], state)
    found = paint(stylizer, frames[6:], state, controls)
    # Looks were at frame 4 and its painting, at the painting of 6, and again at both of 8.
    assert [recording.count(name) for name in ("_prepared", "judged")] == [1, 2]
    monkeypatch.setattr(graphs, "can_record", lambda tensors: False)
    assert_same(found, paint(stylizer, frames[6:], state, controls))


def test_after_a_frame_that_is_not_painted_nothing_is_missed_and_frames_go_on(recording, monkeypatch):
    frames = moving()

    def with_a_gap():
        stylizer = painter()
        _, state = paint(stylizer, frames[:5])
        _, state = paint(stylizer, frames[5:6], state, Controls(strength=0.0))
        return paint(stylizer, frames[6:], state)

    found = with_a_gap()
    monkeypatch.setattr(graphs, "can_record", lambda tensors: False)
    assert_same(found, with_a_gap())


def test_colours_are_kept_by_a_graph_too(recording):
    frames, look = moving(frames=7), replace(DEFAULT, keep_colors=True)
    found = paint(painter(look=look), frames)
    assert "keep_colors" in recording
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "can_record", lambda tensors: False)
        assert_same(found, paint(painter(look=look), frames))


def test_frames_at_the_end_of_a_lane_and_in_tiles_and_networks_of_others_are_not_recorded(recording):
    frames, stylizer = moving(), painter()
    image, motion = frames[5]
    assert stylizer._can_record(image, motion, 5)
    assert not stylizer._can_record(image, motion.drawn_to(image, motion, 0.5), 5)
    assert [stylizer._can_record(*frame, number) for number, frame in enumerate(frames[:5])] == [False] * 4 + [True]
    assert not painter(tile=256)._can_record(picture(1, 48, 257), motion, 5)
    other = Stylizer(TinyEncoder(), [(picture(9), 1.0)], effort=EffortOptions(), look=LOOK)
    assert not other._can_record(image, motion, 5)


def test_what_comes_of_a_minimum_is_that_of_the_second_attempt_where_the_first_failed():
    stylizer, content = painter(), picture(1)
    objective, seen = stylizer.objective(content, Controls(), UNKNOWN), []
    start = torch.full_like(content, torch.nan)
    found, result = stylizer._minimise(objective, start, content, 3, None, lambda one: seen.append(one) or len(seen))
    assert result == 2
    assert seen[1].image is found.image
    assert found.image.isfinite().all()


# ---------------------------------------------------------------------------------------------- can be recorded


def test_what_is_recorded_neither_waits_nor_asks_what_tensors_hold(monkeypatch):
    """Tensors without values raise where they are asked for them."""
    checked = set()

    def called(self, function, *given, lend=False):
        result = function(*given)  # what stays is made
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, AsOnGpu():
            function(*mapped(given, mode.from_tensor))
        checked.add(function.__name__)
        return result

    monkeypatch.setattr(Graphs, "call", called)
    monkeypatch.setitem(direct.NETWORKS, "cpu", PaddedVgg)
    frames = moving(frames=7)
    painted, _ = paint(painter(look=replace(DEFAULT, keep_colors=True)), frames)
    Graphs().call(warp_errors, painted[1], painted[0], frames[1][1].flows[:, 0], frames[1][1].trust[:, 0])
    Graphs().call(to_pixels, painted[0])
    assert checked == {"_repainted", "_prepared", "judged", "warp_errors", "to_pixels", "keep_colors"}


@pytest.mark.parametrize("asks", [lambda x: bool(x.sum() > 0), lambda x: x.sum().item(), lambda x: x.sum().tolist()])
def test_tensors_without_values_raise_where_they_are_asked_for_them(asks):
    with FakeTensorMode() as mode, pytest.raises(DataDependentOutputException):
        asks(mode.from_tensor(picture(1)))
