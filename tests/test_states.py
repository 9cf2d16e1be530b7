"""States come back from disk bit for bit, and files cut off anywhere give back what was whole."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from media import picture
from torch import Tensor

from nst_video.errors import InputError
from nst_video.jobs.states import Packed, pack, read_packed, unpack
from nst_video.media.lossless import FrameLog, KeptFrame, intact, read_frames
from nst_video.optimization.curvature import Curvature
from nst_video.painting.state import State
from nst_video.painting.stepreport import StepReport
from nst_video.records import RecordWriter, read_records


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def state():
    curvature = replace(
        Curvature.empty(2, 60, 3), pairs=random(2, 6, 60), filled=torch.tensor([[True, False, True]] * 2)
    )
    report = StepReport(3, 1, {"loss": 0.1}, (1.0, float("nan"), float("inf")), {"tv": (0.1, 1 / 3)})
    turned = random(2, 4, 5, 3).permute(0, 3, 1, 2)  # channels last in memory
    return State(2**40, 7, random(2, 2, 3, 4, 5), turned, curvature, report)


def saved(value, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(pack(value).to_bytes())
    return read_packed(tmp_path / "state.safetensors")


def test_a_state_comes_back_bit_for_bit(state, tmp_path):
    painted = random(2, 3, 4, 5) * 1e-30
    again, image = unpack(saved((state, painted), tmp_path), tuple[State, Tensor])
    assert torch.equal(image, painted)
    assert torch.equal(again.outputs, state.outputs)
    assert torch.equal(again.content, state.content)
    assert again.content.stride() == state.content.stride()
    for name, tensor in vars(state.curvature).items():
        assert torch.equal(getattr(again.curvature, name), tensor)
        assert getattr(again.curvature, name).dtype == tensor.dtype
    assert repr(again.report) == repr(state.report)
    assert (again.seed, again.frame) == (2**40, 7)


@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ({"x": "abc"}, dict[str, float]),
        ([1.0], tuple[float, float]),
        ({"tensor": "a", "strides": "x"}, Tensor),
        ({"tensor": "a", "strides": [-1]}, Tensor),
        ({"tensor": []}, Tensor),
        (["tensor"], Tensor),
    ],
)
def test_a_state_that_cannot_be_is_refused_in_one_line(rest, kind):
    """A job folder may come from anybody."""
    with pytest.raises(InputError) as caught:
        unpack(Packed({"a": torch.zeros(3)}, rest), kind)
    assert "state" in str(caught.value)


def test_what_is_packed_is_a_copy(state):
    before = state.outputs.clone()
    packed = pack(state)
    state.outputs.zero_()
    assert torch.equal(unpack(packed, State).outputs, before)


def test_empty_places_stay_empty(tmp_path):
    assert unpack(saved(State(seed=3), tmp_path), State) == State(seed=3)


@dataclass(frozen=True)
class Other:
    """Another stylizer's state."""

    seed: int
    dream: Tensor | None = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: Packed(p.tensors, p.rest | {"extra": 1}), "the state holds .*extra.* where a State has"),
        (lambda p: Packed(p.tensors, {n: v for n, v in p.rest.items() if n != "frame"}), "where a State has .*frame"),
        (lambda p: Packed(p.tensors | {"x": torch.ones(1)}, p.rest), "tensors that nothing asks for: x"),
        (lambda p: Packed({}, p.rest), "the state.outputs is no tensor of the file"),
        (lambda p: Packed(p.tensors, p.rest | {"frame": "7"}), "the state.frame is '7' where int is needed"),
        (lambda p: Packed(p.tensors, p.rest | {"outputs": None, "content": 3}), "nothing asks for|no tensor"),
    ],
    ids=["extra field", "field missing", "extra tensor", "no tensors", "wrong type", "number for a tensor"],
)
def test_what_does_not_fit_is_refused(state, change, message):
    with pytest.raises(InputError, match=message):
        unpack(change(pack(state)), State)


def test_the_state_of_another_stylizer_is_refused(state, tmp_path):
    with pytest.raises(InputError, match="where a Other has dream, seed"):
        unpack(saved(state, tmp_path), Other)


def test_only_plain_values_are_kept():
    with pytest.raises(TypeError, match="a function cannot be kept"):
        pack({"hook": lambda: None})


@pytest.mark.parametrize("content", [b"", b"garbage" * 10, b"\x08\0\0\0\0\0\0\0{}      "])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="is not a state that this program saved"):
        read_packed(tmp_path / "x")


# ---------------------------------------------------------------------------------------------- records


def test_records_cut_off_anywhere_give_back_the_whole_ones(tmp_path):
    path = tmp_path / "records"
    with RecordWriter(path) as writer:
        for number in range(3):
            writer.append({"number": number}, bytes(range(number * 10)))
    content = path.read_bytes()
    ends = [record.end for record in read_records(path)]
    assert ends[-1] == len(content)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert [record.facts["number"] for record in read_records(path)] == [
            number for number, end in enumerate(ends) if end <= length
        ]


def test_a_changed_byte_ends_the_records_there(tmp_path):
    path = tmp_path / "records"
    with RecordWriter(path) as writer:
        for number in range(3):
            writer.append({"number": number}, b"x" * 20)
    content = path.read_bytes()
    ends = [record.end for record in read_records(path)]
    for place in range(ends[0], ends[1]):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        assert [record.facts["number"] for record in read_records(path)] == [0]


def test_frames_come_back_bit_for_bit_and_go_on(tmp_path):
    path, frames = tmp_path / "x.frames", [KeptFrame(n, {"frame": n, "loss": n / 3}, picture(n)) for n in range(5, 9)]
    with FrameLog(path, (96, 64)) as log:
        for frame in frames[:3]:
            log.append(frame)
    ends = intact(path, 5)
    assert len(ends) == 3
    assert intact(path, 4) == []
    with FrameLog(path, (96, 64), keep=ends[1]) as log:
        for frame in frames[2:]:
            log.append(frame)
    for found, wanted in zip(read_frames(path), frames, strict=True):
        assert (found.number, found.row) == (wanted.number, wanted.row)
        assert np.array_equal(found.rgb, wanted.rgb)
