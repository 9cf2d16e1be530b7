"""What a later frame asks of a GPU outside the minimisation, counted without one: operations that are launched one by
one, and waits for the device, by part.

    python scripts/count_launches.py [--encoders slim vgg19] [--size 512] [--iterations 10] [--still] [--json FILE]

Each launch takes the host some microseconds and each wait more, which is longer than a GPU computes between them. The
path of a GPU runs on the CPU, with torch telling that all tensors were there: operations of torch that are no views
count as one each, and so do steps that are single kernels there, and replays of graphs, in which nothing is computed.
`--still`: frames in which nothing is revealed, so that nothing has to be filled.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from as_on_gpu import AsOnGpu  # noqa: E402
from tiny import texture  # noqa: E402

from nst_video.colors import to_image  # noqa: E402
from nst_video.controls import Controls  # noqa: E402
from nst_video.devices import transfer  # noqa: E402
from nst_video.flow import fill  # noqa: E402
from nst_video.flow.motion import Motion  # noqa: E402
from nst_video.networks import borders, frozen, padded, winograd  # noqa: E402
from nst_video.networks.encoders import load_encoder  # noqa: E402
from nst_video.optimization import curvature, direct, graphs, objective, optimizers  # noqa: E402
from nst_video.optimization.curvature import Curvature  # noqa: E402
from nst_video.optimization.optimizers import LBFGS  # noqa: E402
from nst_video.options import CoherenceOptions, EffortOptions, LookOptions  # noqa: E402
from nst_video.painting import rounds, stylizer  # noqa: E402
from nst_video.painting.state import State  # noqa: E402
from nst_video.painting.stylizer import Stylizer  # noqa: E402
from nst_video.painting.teacher import load_teacher, places_of  # noqa: E402
from nst_video.painting.upcoming import Upcoming  # noqa: E402

LAUNCHES, WAITS = "launches", "waits"
REST = "all else"
# What is counted together, by where it is called; what is called from within belongs to it.
PARTS: list[tuple[Any, str, str]] = [
    (stylizer, "paint_revealed", "fill"),
    (objective.Weights, "on", "weights"),
    (stylizer, "_moved", "curvature pairs, moved"),
    (graphs.Graphs, "minimise", "minimisation: in and out of the graph, replays"),
    (optimizers.Minimum, "begin_read", "report"),
    (Stylizer, "_remember", "state for the next frame"),
    (rounds, "_drift", "drift"),
    (rounds, "_read", "picture to the host"),
]
# The same of functions that are recorded, by their names.
RECORDED = {
    "_prepared": "the past, moved, and the loss",
    "judged": "look of the teacher",
    "to_pixels": "picture to the host",
}
TERMS = ("loss", "content", "style", "tv", "range", "temporal", "accepted")
HOLE = 16  # pixels at the right that nothing is known of
HISTORY = 10
NO_LAUNCH = ("empty", "detach", "_unsafe_view", "_reshape_alias", "lift", "set_", "resolve")


class Counted:
    """Launches and waits by part, while it is entered."""

    def __init__(self) -> None:
        self.found: dict[str, Counter[str]] = {}
        self.part: str | None = None
        self.paused = 0
        self.recorded: Counter[str] = Counter()  # operations in the graph of a part, and waits
        self.on_host: dict[int, Tensor] = {}  # storages that are not on the device, kept so that none is used again

    def add(self, what: str) -> None:
        """One more in the part that is at work."""
        if not self.paused:
            self.found.setdefault(self.part or REST, Counter())[what] += 1

    @contextmanager
    def nothing(self) -> Iterator[None]:
        """Nothing counts meanwhile."""
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1

    def within(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with what it does counted for the part unless it is a part of another one."""

        @wraps(function)
        def counted(*args: Any, **named: Any) -> Any:
            before, self.part = self.part, self.part or part
            try:
                return function(*args, **named)
            finally:
                self.part = before

        return counted

    def calling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Graphs.call, with what it does counted for the function that it calls."""

        def counted(own: Any, function: Callable[..., Any], *given: Any, **how: Any) -> Any:
            return self.within(RECORDED.get(function.__name__, REST), call)(own, function, *given, **how)

        return counted

    def as_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a single kernel."""

        def single(*args: Any, **named: Any) -> Any:
            self.add(LAUNCHES)
            with self.nothing():
                return function(*args, **named)

        return single

    def download(self, *tensors: Tensor) -> SimpleNamespace:
        """Stands in for transfer.Download; the host waits once for each."""
        self.add(WAITS)
        found = [self.on_the_host(self.as_one(torch.clone)(tensor)) for tensor in tensors]
        return SimpleNamespace(wait=lambda: found)

    def uploaded(self, tensor: Tensor, device: torch.device | str) -> Tensor:
        """A tensor on the device, for which nothing waits."""
        return self.as_one(torch.clone)(tensor)

    def on_the_host(self, tensor: Tensor) -> Tensor:
        """The same, of which what is done counts no more."""
        self.on_host[tensor.untyped_storage().data_ptr()] = tensor
        return tensor


class Operations(TorchDispatchMode):
    """Counts operations of torch on the device."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and all(leaf.untyped_storage().data_ptr() in self.counted.on_host for leaf in given):
            for leaf in torch.utils._pytree.tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self.counted.on_the_host(leaf)
            return result
        name = func._schema.name.removeprefix("aten::")
        if name == "_foreach_copy_" and not _alike(*args[:2]):
            for _ in args[0][1:]:  # then one by one
                self.counted.add(LAUNCHES)
        view = any(found.alias_info is not None and not found.alias_info.is_write for found in func._schema.returns)
        masked = name.startswith("index") and any(leaf.dtype == torch.bool for leaf in given[1:])
        if name in ("_local_scalar_dense", "nonzero") or masked:
            self.counted.add(WAITS)
        if not view and not any(part in name for part in NO_LAUNCH):
            self.counted.add(LAUNCHES)
        return result


def _alike(tensors: list[Tensor], others: list[Tensor]) -> bool:
    """Whether all of one list lie in memory as those of the other, without gaps."""
    pairs = list(zip(tensors, others, strict=True))
    dense = all(torch.empty_like(one).stride() == one.stride() for pair in pairs for one in pair)
    return dense and all(one.stride() == other.stride() for one, other in pairs)


class CountedAsOnGpu(AsOnGpu):
    """The same, with waits counted, and what is a single function as one launch."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.cpu:
            return self.counted.download(*args).wait()[0]
        return super().__torch_function__(func, types, args, kwargs)

    def alone(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """See AsOnGpu."""
        return self.counted.as_one(function)(*args, **kwargs)


class Nowhere:
    """Stands in for a CUDA graph of an iteration, which leaves a loss that is finite."""

    def __init__(self, counted: Counted, loss: Tensor) -> None:
        self.counted, self.loss = counted, loss

    def replay(self) -> None:
        """One launch."""
        self.counted.as_one(self.loss.fill_)(1.0)


class _Flat:
    """A loss that costs nothing."""

    def written_out(self, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """It, its gradient, and its terms."""
        one = torch.ones(len(image))
        return one, torch.zeros_like(image), dict.fromkeys(TERMS[1:-1], one)


class _Replayed:
    """Stands in for a CUDA graph of a function, whose results stay as they were."""

    def __init__(self, counted: Counted) -> None:
        self.counted = counted

    def replay(self) -> None:
        """One launch."""
        self.counted.add(LAUNCHES)


def graph_of(counted: Counted) -> Callable[..., Any]:
    """Stands in for Graphs._graph_of."""

    def recorded(self: Any, work: Callable[[], Any], device: torch.device, *, alone: bool = False) -> tuple[Any, Any]:
        outside, paused, counted.found, counted.paused = counted.found, counted.paused, {}, 0
        result = work()
        counted.recorded[counted.part or REST] = sum(sum(by.values()) for by in counted.found.values())
        counted.found, counted.paused = outside, paused
        return _Replayed(counted), result

    return recorded


def captured_by(counted: Counted) -> Callable[..., Any]:
    """Stands in for Graphs._capture."""

    def captured(self: Any, loss: Any, image: Tensor, history: int, first_step: float) -> graphs._Captured:
        with counted.nothing():
            solver = LBFGS(_Flat(), image, first_step=first_step, curvature=None, history=history)  # type: ignore
            row = torch.ones(len(TERMS), len(image))
            return graphs._Captured(Nowhere(counted, solver.loss), loss.holding(), solver, TERMS, row)  # type: ignore[arg-type]

    return captured


@contextmanager
def on_gpu(counted: Counted) -> Iterator[None]:
    """Run what a GPU runs, and count it."""
    steps = SimpleNamespace(
        **{
            name: counted.as_one(getattr(borders, name))
            for name in ("split", "bordered", "pooled", "repeat_edge", "clear_edge")
        }
    )
    with ExitStack() as stack:
        for owner, name, part in PARTS:
            stack.enter_context(patch.object(owner, name, counted.within(part, getattr(owner, name))))
        for owner, name, instead in (
            (padded, "steps_on", lambda device: steps),
            *((module, "Download", counted.download) for module in (transfer, optimizers)),
            *((module, "uploaded", counted.uploaded) for module in (fill, objective)),
            *((module, "stored_as", lambda device: torch.bfloat16) for module in (curvature, stylizer)),
            (winograd, "suits", lambda weight: False),
            (frozen.PictureKernel, "suits", lambda weight: False),
            (graphs.Graphs, "_capture", captured_by(counted)),
            (graphs.Graphs, "_graph_of", graph_of(counted)),
            (graphs.Graphs, "call", counted.calling(graphs.Graphs.call)),
            (graphs, "_beside", lambda device: counted.nothing()),
        ):
            stack.enter_context(patch.object(owner, name, instead))
        stack.enter_context(patch.dict(direct.NETWORKS, cpu=padded.PaddedVgg))
        stack.enter_context(CountedAsOnGpu(counted))
        stack.enter_context(Operations(counted))
        yield


def painter_of(name: str, size: int, iterations: int, precision: str) -> Stylizer:
    """As a render makes it, with its teacher where there is one."""
    look = LookOptions()
    encoder = load_encoder(name, (*look.content_layers, *look.style_layers), precision=precision)
    teacher = load_teacher(encoder, look.style_layers, places=places_of(encoder, look), precision=precision)
    effort = EffortOptions(encoder=name, size=size, iterations=iterations, first_iterations=10, history=HISTORY)
    return Stylizer(encoder, [(to_image(texture(9, 256, 256)[None]), 1.0)], effort=effort, look=look, teacher=teacher)


def after_a_first_frame(painter: Stylizer, image: Tensor) -> State:
    """A state from which later frames go on."""
    known = painter.looks.at(image, {}, painter.looks.of_frame(image))
    return State(
        frame=1 + max(painter.coherence.references),  # where all references are there
        outputs=image[:, None].expand(-1, max(painter.coherence.references), -1, -1, -1).contiguous(),
        content=image,
        curvature=Curvature.empty(1, image[0].numel(), HISTORY),
        correction=known.correction,
        missed=known.missed,
    )


def upcoming(number: int, size: int, *, hole: bool) -> Upcoming:
    """A frame of a moving picture, with what the feed has made ready."""
    rgb = texture(1, size, size + 64, grain=6.0)[:, 2 * number : 2 * number + size].copy()
    distances = CoherenceOptions().references
    flows = torch.zeros(1, len(distances), 2, size, size)
    flows[:, :, 0] = 2.0 * torch.tensor(distances)[None, :, None, None]
    trust = torch.zeros(1, len(distances), 1, size, size)
    trust[:, 0, :, :, : size - HOLE * hole] = 1
    return Upcoming(number, 0, False, number, rgb, 0, to_image(rgb[None]), Motion(flows, trust))


def count(name: str, *, size: int, iterations: int, precision: str, hole: bool) -> dict[str, dict[str, Counter[str]]]:
    """Launches and waits by part, of frames with and without a look of the teacher."""
    counted, painter = Counted(), painter_of(name, size, iterations, precision)
    plan: Any = SimpleNamespace(
        ranges=[None], coherence=painter.coherence, options=SimpleNamespace(duration=None), time_base=Fraction(1, 25)
    )
    lane: Any = SimpleNamespace(joins=False, first=0, last=100)
    result, own = {}, graphs.Graphs()
    with on_gpu(counted):
        frame = upcoming(0, size, hole=hole)
        with counted.nothing():
            state = after_a_first_frame(painter, frame.image)
        one = rounds._Painter(lane, 1, iter(()), rounds.deque(), state, frame.image, None)
        for number in range(1, 9):  # the first four make ready what stays
            with counted.nothing():
                frame = upcoming(number, size, hole=hole)
            kind = "with a look" if painter.looks.due(one.state.frame, one.state) else "without a look"
            counted.found = {}
            list(rounds._together(plan, painter, [rounds._Work(one, frame, frame.motion, Controls())], own))
            result[f"{name}, {kind}" if painter.teacher else name] = counted.found
    print(f"{name}: operations in graphs, which are one launch each: {dict(counted.recorded)}")
    return result


def table(found: dict[str, dict[str, Counter[str]]]) -> list[str]:
    """Lines of Markdown: launches, and waits after a plus where there are any."""
    parts = list(dict.fromkeys([*(part for _, _, part in PARTS), *RECORDED.values(), REST]))
    rows = [[part, *(_cell(by.get(part, Counter())) for by in found.values())] for part in parts]
    total = ["**in all**", *(f"**{_cell(sum(by.values(), Counter()))}**" for by in found.values())]
    rows = [row for row in rows if any(cell != "-" for cell in row[1:])]
    head = ["launches + waits", *found]
    return [_line(head), _line(["---", *["---:"] * len(found)]), *map(_line, [*rows, total])]


def _cell(by: Counter[str]) -> str:
    waits = f" + {by[WAITS]}" if by[WAITS] else ""
    return f"{by[LAUNCHES]}{waits}" if by else "-"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["slim", "vgg19"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="GPUs compute in bf16")
    parser.add_argument("--still", action="store_true", help="nothing is revealed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there too")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a CPU with more of them looks up in bands, which a GPU does not
    found: dict[str, dict[str, Counter[str]]] = {}
    settings = {"size": args.size, "iterations": args.iterations, "precision": args.precision, "hole": not args.still}
    for name in args.encoders:
        found |= count(name, **settings)
    print("\n".join(table(found)))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
