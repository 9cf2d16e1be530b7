"""A search for a minimum as one CUDA graph that is replayed: loss, gradient and update without the host.

Launching the kernels of an iteration one by one takes longer than a GPU takes to run them. A graph holds them all, and
works on the same tensors each time: so a search copies its start and its loss in, and what it found out.
"""

import logging
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from nst_video.encoders import Vgg
from nst_video.objective import FrameObjective
from nst_video.optimizers import LBFGS, Curvature, Minimum, Objective, minimise

log = logging.getLogger(__name__)

_KEPT = 16  # graphs: a first frame has one for each scale, and a later one for each number of references


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


class Graphs:
    """The graphs of the searches that were asked for, kept for the next ones that differ in values only.

    They go, and their memory with them, when this goes.
    """

    def __init__(self) -> None:
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._impossible = False
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
        while key not in self._captured and not self._impossible:
            try:
                self._captured[key] = self._capture(objective, image, history, first_step)
            except RuntimeError as error:
                lacking, others = _memory_error(error), bool(self._captured)
                self.clear()  # the other graphs hold memory, and can be recorded again
                if lacking is None:
                    log.warning("iterations cannot be recorded on this device, which makes them slower: %s", error)
                    self._impossible = True
                elif not others:
                    raise lacking from None
        if self._impossible:
            return None
        self._captured.move_to_end(key)
        while len(self._captured) > _KEPT:
            self._captured.popitem(last=False)
        return self._captured[key]

    def clear(self) -> None:
        """Give up every graph and its memory."""
        self._captured.clear()
        self._pool = None
        torch.cuda.empty_cache()

    def _capture(self, objective: FrameObjective, image: Tensor, history: int, first_step: float) -> _Captured:
        """An iteration is run as it is, so that libraries choose their kernels, and then recorded."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        own, here, beside = objective.holding(), torch.cuda.current_stream(image.device), _stream(image.device)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            solver = self._solver(own, image, history, first_step)
            names = tuple(solver.rows[0])
        here.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=beside, capture_error_mode="thread_local"):
            made = solver.advance()
            row = torch.stack([made[name].float() for name in names])
        return _Captured(graph, own, solver, names, row)

    def _solver(self, objective: FrameObjective, image: Tensor, history: int, first_step: float) -> LBFGS:
        """One that has made its first evaluation; graphs for images of the same shape share its tensors."""
        for held in self._captured.values():
            if held.solver.shape == image.shape and held.solver.memory.history == history:
                solver = held.solver.sharing(objective, first_step)
                solver.begin(image, None)
                solver.iterate()
                return solver
        return LBFGS(objective, image, first_step=first_step, curvature=None, history=history)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where graphs are recorded: one for all, because libraries keep memory for every stream that they have seen."""
    return torch.cuda.Stream(device)


def _memory_error(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """The lack of memory that an error came from: ending a recording that broke off may raise one more."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__context__
    return error
