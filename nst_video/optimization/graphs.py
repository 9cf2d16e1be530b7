"""What is done for every frame as CUDA graphs that are replayed: the iterations of a search for a minimum, and
functions of tensors around it.

Launching kernels one by one takes longer than a GPU takes to run them. A graph holds them all, and works on the same
tensors each time: so a search copies its start and its loss in, and what it found out, and a function what it is given
and what it gives.
"""

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from nst_video.devices.transfer import overwrite, streams_of
from nst_video.networks.vgg import Vgg
from nst_video.optimization.budget import RECORDED
from nst_video.optimization.curvature import Curvature
from nst_video.optimization.objective import FrameObjective
from nst_video.optimization.optimizers import LBFGS, Minimum, Objective, minimise

log = logging.getLogger(__name__)

# Graphs: a first frame has one for each scale, and later ones one for each number of references, one for each size of
# what is revealed, and four more; of lanes each number that paints together has its own.
_KEPT = 24
_ITERATIONS = "iterations"
_ALIKE = 1e-3  # of the largest number: by how much a replay may differ from the call that it stands for

# All threads record on one stream, because libraries keep memory for every stream that they have seen.
_recording = threading.Lock()

Result = TypeVar("Result")
Kept = TypeVar("Kept", "_Captured", "_Function")


def can_hold(objective: Objective, image: Tensor, optimizer: str) -> bool:
    """Whether a graph can hold the search for the minimum of this loss from `image` (L, 3, H, W).

    Networks of other libraries may do what cannot be recorded; a picture in tiles takes longer than it takes to launch.
    """
    network = getattr(getattr(objective, "encoder", None), "network", None)
    return image.is_cuda and optimizer == "lbfgs" and type(objective) is FrameObjective and isinstance(network, Vgg)


@dataclass(frozen=True)
class _Captured:
    """A graph, and what it reads and writes: row (R, L) is the record of the last evaluation, by names."""

    graph: torch.cuda.CUDAGraph
    objective: FrameObjective
    solver: LBFGS
    names: tuple[str, ...]
    row: Tensor

    def search(
        self, objective: FrameObjective, image: Tensor, evaluations: int, curvature: Curvature | None, into: bool
    ) -> Minimum:
        """See `Graphs.minimise`. into: the pairs found are written to `curvature`."""
        self.objective.take(objective)
        self.solver.begin(image, curvature)
        rows = []
        for _ in range(evaluations):
            self.graph.replay()
            rows.append(self.row.clone())
        record = dict(zip(self.names, torch.stack(rows, dim=1).unbind(0), strict=True))
        accepted = record.pop("accepted").bool()
        memory = self.solver.memory
        found = memory.clone() if curvature is None or not into else memory.written_to(curvature)
        return Minimum(self.solver.image.clone().view(image.shape), self.solver.loss.clone(), record, accepted, found)


@dataclass(frozen=True)
class _Function:
    """A graph of a function, the tensors that it is given, and what it gave, whose tensors every replay overwrites."""

    graph: torch.cuda.CUDAGraph
    given: list[Tensor]
    result: Any

    def __call__(self, given: Sequence[Tensor]) -> Any:
        overwrite(self.given, given)
        self.graph.replay()
        return self.result


@dataclass(frozen=True)
class _Failure:
    """Why nothing was recorded. memory: because that ran out."""

    words: str
    memory: bool


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The value with a function of every tensor in its place; in tuples, lists, dicts and dataclasses."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: mapped(item, function) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return tuple(mapped(item, function) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: mapped(item, function) for name, item in vars(value).items()})
    return value


def taken_apart(value: Any) -> tuple[list[Tensor], tuple[Hashable, ...]]:
    """The tensors that `mapped` would change, and the rest: equal where values differ only in what tensors hold and in
    how they lie in memory.
    """
    tensors: list[Tensor] = []
    form: list[Hashable] = []

    def take(part: Any) -> None:
        if isinstance(part, Tensor):
            tensors.append(part)
            form.append((part.shape, part.dtype, part.device))
        elif isinstance(part, dict):
            form.append(tuple(part))
            for item in part.values():
                take(item)
        elif isinstance(part, tuple | list):
            form.append(len(part))
            for item in part:
                take(item)
        elif is_dataclass(part) and not isinstance(part, type):
            form.append(type(part))
            for item in vars(part).values():
                take(item)
        else:
            form.append(part)

    take(value)
    return tensors, tuple(form)


def results_in(value: Any) -> list[Tensor]:
    """The tensors of what a function gave, those of losses too."""
    parts = value if isinstance(value, tuple) else (value,)
    losses = [part for part in parts if isinstance(part, FrameObjective)]
    return taken_apart(value)[0] + [tensor for loss in losses for tensor in loss.tensors().values()]


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether numbers differ by rounding at most; the host waits for that."""
    bound = _ALIKE * float(other.double().nan_to_num(0, 0, 0).abs().max()) if other.numel() else 0.0
    return torch.allclose(one.double(), other.double(), rtol=0, atol=bound, equal_nan=True)


def plainly(function: Callable[..., Result], *given: Any, lend: bool = False) -> Result:
    """function(*given): stands in for `Graphs.call`."""
    return function(*given)


class Graphs:
    """The graphs of the searches and functions that were asked for, kept for the next ones that differ in values only.

    They go, and their memory with them, when this goes.
    """

    def __init__(self) -> None:
        self._captured: OrderedDict[Hashable, _Captured | _Function] = OrderedDict()
        self._impossible: set[str] = set()
        self._pool: torch.cuda._POOL_HANDLE | None = None

    def __len__(self) -> int:
        return len(self._captured)

    def minimise(
        self,
        objective: Objective,
        image: Tensor,
        *,
        evaluations: int,
        optimizer: str = "lbfgs",
        curvature: Curvature | None = None,
        consume: bool = False,
        history: int = 10,
        first_step: float = 0.05,
    ) -> Minimum:
        """As `optimizers.minimise`, by a graph wherever one can hold it."""
        size = history if curvature is None else curvature.history
        held = self.held(objective, image, size, first_step) if can_hold(objective, image, optimizer) else None
        if held is None or not isinstance(objective, FrameObjective):
            return minimise(
                objective,
                image,
                evaluations=evaluations,
                optimizer=optimizer,
                curvature=curvature,
                consume=consume,
                history=history,
                first_step=first_step,
            )
        return held.search(objective, image, evaluations, curvature, consume)

    def held(self, objective: Objective, image: Tensor, history: int, first_step: float) -> _Captured | None:
        """The graph for such a search, recorded where there is none yet; None where that is not possible here."""
        assert isinstance(objective, FrameObjective)
        key = (objective.structure(), image.shape, history, first_step)
        return self._kept(_ITERATIONS, key, partial(self._capture, objective, image, history, first_step))

    def call(self, function: Callable[..., Result], *given: Any, lend: bool = False) -> Result:
        """function(*given), by a graph wherever one can hold it.

        function: what it gives depends on nothing but the tensors in `given` and values that stay; it neither waits for
        the device nor asks what tensors hold. It is known again by its name, and its graph by all in `given` that is
        not what tensors hold. lend: the tensors of the result are overwritten by the next such call, where they else
        are copies.
        """
        tensors, form = taken_apart(given)
        if not can_record(tensors):
            return function(*given)
        name = function.__qualname__
        held = self._kept(name, (name, form, lend), partial(self._record, function, given, lend))
        if held is None:
            return function(*given)
        result: Result = held(tensors)
        return result if lend else mapped(result, torch.clone)

    def _kept(self, kind: str, key: Hashable, record: Callable[[], Kept]) -> Kept | None:
        """The graph of this key, recorded where there is none yet; None where those of this kind cannot be.

        Where memory lacks, functions are called as they are from then on: recording them again in every frame, because
        those of iterations take their place, would be slower.
        """
        while key not in self._captured and kind not in self._impossible:
            failure = self._try_to_keep(key, record)
            if failure is None:
                break
            others = bool(self._captured)
            self.clear()  # the other graphs hold memory, and can be recorded again
            if not failure.memory or kind != _ITERATIONS:
                what = kind if kind == _ITERATIONS else f"what is done beside the iterations ({kind})"
                log.warning("%s cannot be recorded, and takes longer: %s", what, failure.words)
                self._impossible.add(kind)
            elif not others:
                raise torch.OutOfMemoryError(failure.words)
        if kind in self._impossible:
            return None
        self._captured.move_to_end(key)
        while len(self._captured) > _KEPT:
            self._captured.popitem(last=False)
        found: Kept = self._captured[key]  # type: ignore[assignment]
        return found

    def _try_to_keep(self, key: Hashable, record: Callable[[], "_Captured | _Function"]) -> "_Failure | None":
        """Record a graph and keep it. None, or why that failed; not the exception itself, which would hold on to all
        that was computed while memory is what lacks.
        """
        try:
            with _recording:
                self._captured[key] = record()
        except RuntimeError as error:
            return _Failure(str(error), _is_for_memory(error))
        return None

    def clear(self) -> None:
        """Give up every graph and its memory."""
        self._captured.clear()
        self._pool = None
        gc.collect()  # a recording that broke off may be held by cycles
        torch.cuda.empty_cache()

    def _capture(self, objective: FrameObjective, image: Tensor, history: int, first_step: float) -> _Captured:
        """An iteration is run as it is, so that libraries choose their kernels, and then recorded."""
        own = objective.holding()
        with _beside(image.device):
            solver = self._solver(own, image, history, first_step)
            names = tuple(solver.rows[0])

        def iteration() -> Tensor:
            made = solver.advance()
            return torch.stack([made[name].float() for name in names])

        graph, row = self._graph_of(iteration, image.device)
        return _Captured(graph, own, solver, names, row)

    def _record(self, function: Callable[..., Any], given: Sequence[Any], lend: bool) -> _Function:
        """The function is run as it is, and then recorded, on copies of the tensors that it is given, which lie in the
        usual order: how the first ones lie decides nothing. RuntimeError where a replay gives something else.
        """
        own = mapped(given, partial(torch.clone, memory_format=torch.contiguous_format))
        tensors, _ = taken_apart(own)
        with _beside(tensors[0].device):
            wanted = function(*own)
        graph, result = self._graph_of(lambda: function(*own), tensors[0].device, alone=lend)
        graph.replay()
        if not all(map(_alike, results_in(result), results_in(wanted))):
            raise RuntimeError("what a replay gives is not what the call gave")
        return _Function(graph, tensors, result)

    def _graph_of(
        self, work: Callable[[], Result], device: torch.device, *, alone: bool = False
    ) -> tuple[torch.cuda.CUDAGraph, Result]:
        """A graph of the work, and what it gave, whose tensors every replay overwrites: of this graph where it has its
        memory `alone`, else of any, because one may have its result where another has what lies between.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        pool, graph = None if alone else self._pool, torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=streams_of(device).recording, capture_error_mode="thread_local"):
            result = work()
        return graph, result

    def _solver(self, objective: FrameObjective, image: Tensor, history: int, first_step: float) -> LBFGS:
        """One that has made its first evaluation; graphs for images of the same shape share its tensors."""
        for held in self._captured.values():
            if isinstance(held, _Function):
                continue
            if held.solver.shape == image.shape and held.solver.memory.history == history:
                solver = held.solver.sharing(objective, first_step)
                solver.begin(image, None)
                solver.iterate()
                return solver
        return LBFGS(objective, image, first_step=first_step, curvature=None, history=history)


def launched(call: Callable[..., Any], pictures: Tensor) -> Callable[..., Any]:
    """How to call a function of pictures (N, C, H, W): as told, which may be by graphs, where they are small. Of large
    ones only the memory would be held.
    """
    return call if pictures[:, 0].numel() <= RECORDED else plainly


def can_record(tensors: Sequence[Tensor]) -> bool:
    """Whether a graph can hold a function of these."""
    return bool(tensors) and all(tensor.is_cuda for tensor in tensors)


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """On the stream where graphs are recorded, after what was launched so far and before what comes."""
    here, beside = torch.cuda.current_stream(device), streams_of(device).recording
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        yield
    here.wait_stream(beside)


def _is_for_memory(error: BaseException | None) -> bool:
    """Whether an error came from a lack of memory: ending a recording that broke off may raise one more."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__context__
    return error is not None
