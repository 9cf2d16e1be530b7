"""A search for a minimum as one CUDA graph that is replayed: loss, gradient and update without the host.

Launching the kernels of an iteration one by one takes longer than a GPU takes to run them. A graph holds them all, and
works on the same tensors each time: so a search copies its start and its loss in, and what it found out.
"""

import logging
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_video.encoders import Vgg
from nst_video.objective import FrameObjective
from nst_video.optimizers import LBFGS, Curvature, Minimum, Objective

log = logging.getLogger(__name__)

_KEPT = 12  # graphs: a first frame has one for each scale, and a later one for each number of references


def holds(objective: Objective, image: Tensor, optimizer: str) -> bool:
    """Whether a graph can hold a search for the minimum of this loss from `image`."""
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


class Graphs:
    """The graphs of the searches that were asked for, kept for the next ones that differ in values only."""

    def __init__(self) -> None:
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._pool: tuple[int, int] | None = None
        self._stream: torch.cuda.Stream | None = None

    def minimise(
        self,
        objective: FrameObjective,
        image: Tensor,
        *,
        evaluations: int,
        optimizer: str = "lbfgs",
        curvature: Curvature | None = None,
        consume: bool = False,
        history: int = 10,
        first_step: float = 0.05,
    ) -> Minimum:
        """`optimizers.minimise` by L-BFGS of an image on a CUDA device; the caller's tensors are left alone, and what
        is returned is the caller's.
        """
        size = history if curvature is None else curvature.history
        key = (objective.structure(), image.shape, size, first_step)
        held = self._captured.get(key)
        if held is None:
            held = self._captured[key] = self._capture(objective, image, size, first_step)
            while len(self._captured) > _KEPT:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        held.objective.take(objective)
        held.solver.begin(image, curvature)
        rows = []
        for _ in range(evaluations):
            held.graph.replay()
            rows.append(held.row.clone())
        record = dict(zip(held.names, torch.stack(rows, dim=1).unbind(0), strict=True))
        accepted = record.pop("accepted").bool()
        solver = held.solver
        return Minimum(
            solver.image.view(image.shape).clone(), solver.loss.clone(), record, accepted, solver.memory.clone()
        )

    def _capture(self, objective: FrameObjective, image: Tensor, history: int, first_step: float) -> _Captured:
        """An iteration is run once as it is, so that libraries have chosen their kernels, then recorded."""
        if self._pool is None or self._stream is None:
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(image.device)
        own = objective.holding()
        self._stream.wait_stream(torch.cuda.current_stream(image.device))
        with torch.cuda.stream(self._stream):
            solver = LBFGS(own, image, first_step=first_step, curvature=None, history=history)
            names = tuple(solver.rows[0])
            solver.rows.clear()
        torch.cuda.current_stream(image.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            made = solver.advance()
            row = torch.stack([made[name].float() for name in names])
        return _Captured(graph, own, solver, names, row)
