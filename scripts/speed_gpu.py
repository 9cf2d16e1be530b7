"""What `bench_speed.py` compares on an NVIDIA GPU, where an iteration is over before the host could time it alone."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from nst_video import LookOptions, Stylizer
from nst_video.networks.encoders import Encoder
from nst_video.optimization.graphs import Graphs
from nst_video.optimization.objective import FrameObjective, style_statistics
from nst_video.optimization.optimizers import LBFGS, value_and_gradient
from nst_video.options import EffortOptions

LANES = (2, 4, 8)
MOST_PIXELS = 2_500_000  # of all lanes together
_WINDOW = 0.05  # seconds that what is timed should take
_MOST = 50


def repeated(work: Callable[[], object], device: str) -> float:
    """Seconds of one run out of many, with nothing waited for between them."""

    def run(times: int) -> float:
        torch.cuda.synchronize(device)
        begun = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize(device)
        return (time.perf_counter() - begun) / times

    return run(max(1, min(_MOST, int(_WINDOW / max(run(1), 1e-6)))))


def recorded(work: Callable[[], object], device: str) -> Callable[[], None]:
    """A graph of the work."""
    stream, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        work()
    here.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


def objective_of(
    encoder: Encoder, content: Tensor, style: Tensor, *, lanes: int = 1, written_out: bool = True
) -> FrameObjective:
    """The default loss of a first frame; with written_out=False its gradient comes from autograd."""
    look = LookOptions()
    with torch.no_grad():
        features = encoder(style)
        targets = {layer: style_statistics(encoder, features, layer) for layer in look.style_layers}
    weights = Stylizer(encoder, [], effort=EffortOptions()).weights()
    images = content.expand(lanes, -1, -1, -1).contiguous()
    objective = FrameObjective(encoder, look, content=images, styles=targets, weights=weights)
    objective.direct &= written_out
    return objective


class Iterations:
    """Iterations of L-BFGS: by one graph, or one step after the other."""

    def __init__(self, objective: FrameObjective, image: Tensor, *, history: int, graph: bool = True) -> None:
        """image (L, 3, H, W)."""
        self.device = str(image.device)
        self.objective, self.image = objective, image  # what a graph reads must stay where it is
        if graph:
            self.graphs = Graphs()  # which are gone when this is
            held = self.graphs.held(objective, image, history, 0.05)
            if held is None:
                raise RuntimeError("the iterations cannot be recorded")
            self.iterate: Callable[[], object] = held.graph.replay
            self.evaluate: Callable[[], object] = recorded(lambda: value_and_gradient(objective, image), self.device)
        else:
            self.iterate = LBFGS(objective, image, first_step=0.05, curvature=None, history=history).advance
            self.evaluate = lambda: value_and_gradient(objective, image)

    def __call__(self) -> dict[str, float]:
        """Seconds of an iteration of all lanes, and of their losses and gradients alone."""
        return {"iteration": repeated(self.iterate, self.device), "gradient": repeated(self.evaluate, self.device)}
