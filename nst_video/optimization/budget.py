"""What painting may hold in memory: how many curvature pairs, and whether pictures are cut, decided beforehand."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from nst_video.devices.workers import AHEAD, workers_for
from nst_video.errors import ResourceError
from nst_video.networks.layers import ENCODER_LAYERS, WIDE
from nst_video.optimization.tiles import ALIGNED, MINIMAL_TILE, can_be_cut
from nst_video.options import EffortOptions, LookOptions, MachineOptions

# Measured by scripts/bench_memory.py, on the safe side.
_PROCESS = 4.5e8  # bytes that Python, torch, OpenCV and an encoder take before the first frame
_PIXEL = 500  # bytes for each pixel of a frame: what is painted, moved, compared and kept, without the pairs
# Bytes more for each pixel on a GPU, reckoned: what graphs of functions around the minimisation are given, and what
# they give; a frame that is ready, with its motion; what it takes to make one ready.
_GRAPHS = 550
_READY = 50
_SEARCHES = 120  # what the searches of all scales hold beside their pairs
_MADE_READY = 400
RECORDED = 1 << 20  # pixels up to which launching takes longer than computing, so that such graphs pay
# Bytes for each pixel and curvature pair, on a GPU and elsewhere: of the frame before, moved onto this one, and being
# saved, on a GPU in the searches of all scales, whose graphs are kept; and of the one frame that there is.
_PAIR = {True: 48, False: 88}
_PAIR_OF_A_STILL = {True: 36, False: 30}
_TRANSFORMED = 36 * 4  # bytes of a pair of channels of a convolution that is computed by fewer multiplications
_LOOK = {"fp32": 1_400, "bf16": 1_100}  # bytes for each pixel that VGG-19 looks at at a time, as a teacher
# Bytes for each pixel whose loss and gradient are taken at a time: by autograd, as in tiles, and on a GPU; and in one
# piece on a CPU, where they are written out (inplace.py).
_EVALUATION = {
    "vgg": {"fp32": 3_600, "bf16": 2_600},
    "slim": {"fp32": 1_300, "bf16": 1_000},
}
_IN_PLACE = {
    "vgg": {"fp32": 2_600, "bf16": 1_600},
    "slim": {"fp32": 900, "bf16": 900},
}
FEW_PAIRS = 4  # with less, L-BFGS finds its way markedly worse
_SHARE = 0.9  # of what can be had, that is planned with


@dataclass(frozen=True)
class Need:
    """The memory that painting frames of this size (width, height) takes. fixed: bytes, whatever their size. whole,
    evaluation: bytes for each pixel of a frame that is evaluated in one piece, and of a tile, the largest. pair: bytes
    for each pixel and curvature pair. graphs: bytes for each pixel of a small frame that is not cut. lane, feed: bytes
    for each pixel of a lane beside these, and of a frame, however many lanes there are.
    """

    size: tuple[int, int]
    fixed: float
    whole: int
    evaluation: int
    pair: int = _PAIR[False]
    graphs: int = 0
    lane: int = _PIXEL
    feed: int = 0

    @staticmethod
    def of(
        size: tuple[int, int],
        effort: EffortOptions,
        look: LookOptions,
        machine: MachineOptions,
        *,
        flow: str = "medium",
        still: bool = False,
    ) -> "Need | None":
        """Of what is resolved so far, for a video or only a still; None where nothing is known about its encoder. flow:
        how motion is found.
        """
        encoder, precision = str(effort.encoder), machine.precision
        kind = next((kind for kind in _EVALUATION if encoder.startswith(kind)), None)
        if kind is None:
            return None
        on_cpu, looks = machine.device == "cpu", effort.teacher == "on" and encoder == "slim"
        least, evaluation = (_LOOK[precision] if looks else 0), _EVALUATION[kind][precision]
        # Of shallow layers, targets and gradients of the content are as large as the picture.
        deep = all(layer >= "relu3" for layer in look.content_layers)
        in_place = on_cpu and deep and effort.pooling == "average" and look.tv_exponent == 1
        whole = _IN_PLACE[kind][precision] if in_place else evaluation
        fixed = _PROCESS
        if on_cpu and precision == "fp32":
            layers = (*look.style_layers, *look.content_layers)
            fixed += _transformed(encoder, layers) + (_transformed("vgg19", look.style_layers) if looks else 0)
        on_gpu = machine.device.startswith("cuda")
        pair, lane = (_PAIR_OF_A_STILL if still else _PAIR)[on_gpu], _PIXEL + on_gpu * _SEARCHES
        need = Need(size, fixed, max(whole, least), max(evaluation, least), pair, lane=lane)
        if still or not on_gpu:
            return need
        # Only videos have later frames, which graphs are for, and frames that wait.
        ready = _READY * workers_for(machine.threads or os.cpu_count() or 1, machine.device, size, flow)
        lane += _READY * (AHEAD + 2)  # one is painted, and one waits for a thread
        return replace(need, graphs=_GRAPHS, lane=lane, feed=_MADE_READY + ready)

    def bytes(self, *, history: int, tile: int | None, lanes: int = 1, together: int = 1) -> int:
        """With so many curvature pairs (0: another optimiser), cut into such tiles or, with None, not at all; in so
        many lanes, of which some are evaluated together.
        """
        pixels = self.size[0] * self.size[1]
        width, height = (min(side, tile or side) for side in self.size)
        in_one = (width, height) == self.size
        each = self.whole if in_one else self.evaluation
        recorded = in_one and together * pixels <= RECORDED
        held = pixels * (self.feed + lanes * (self.lane + self.pair * history + recorded * self.graphs))
        return round(self.fixed + held + together * width * height * each)

    def fits(self, available: int, **choices: Any) -> bool:
        """Whether what `bytes` says of the choices is had of `available` bytes."""
        return self.bytes(**choices) <= _SHARE * available


def _transformed(encoder: str, layers: Iterable[str]) -> int:
    """Bytes of the transformed weights of a VGG up to the deepest of the layers."""
    table = ENCODER_LAYERS[encoder]
    names = list(table)
    channels = [table[name].channels for name in names[: 1 + max(names.index(layer) for layer in layers)]]
    return _TRANSFORMED * sum(a * b for a, b in pairwise(channels) if min(a, b) >= WIDE)


def choose(need: Need, available: int, *, history: int, tile: int | None, cut: bool) -> tuple[int, int | None] | None:
    """The most (history, tile) up to what is asked for that fits `available` bytes, or None. cut: whether the picture
    may be cut where that is not asked for.

    Fewer pairs cost a little quality, tiles half the speed or more: so pairs go first, and come back where tiles have
    made room.
    """
    few, long = min(history, FEW_PAIRS), max(need.size)
    # Tiles of twice the overlap of VGG and more: whole multiples of what a picture may be cut at.
    smaller = range((long - 1) // (2 * ALIGNED) * 2 * ALIGNED, MINIMAL_TILE - 1, -2 * ALIGNED) if cut else ()

    def in_order() -> Iterator[tuple[int, int | None]]:
        yield from ((history, tile), (few, tile))
        yield from ((pairs, part) for pairs in (history, few) for part in smaller if tile is None)

    fitting = (pair for pair in in_order() if need.fits(available, history=pair[0], tile=pair[1]))
    return next(fitting, None)


def fitted(
    effort: EffortOptions,
    look: LookOptions,
    machine: MachineOptions,
    size: tuple[int, int],
    available: int | None,
    *,
    flow: str,
    still: bool,
) -> EffortOptions:
    """The effort, resolved, with what the memory asks for; ResourceError where frames of `size` (width, height) do not
    fit at all.

    available: bytes that can be had on the machine's device; None where nobody says. flow: how motion is found. still:
    there is one frame.
    """
    need = Need.of(size, effort, look, machine, flow=flow, still=still)
    if need is None or available is None:
        return effort
    cut = can_be_cut(str(effort.encoder), (*look.content_layers, *look.style_layers))
    pairs = effort.history if effort.optimizer == "lbfgs" else 0
    found = choose(need, available, history=pairs, tile=effort.tile, cut=cut)
    if found is None:
        least = need.bytes(history=min(pairs, FEW_PAIRS), tile=effort.tile or (MINIMAL_TILE if cut else None))
        more = "" if machine.memory_limit is None else " or a larger --memory-limit"
        raise ResourceError(
            f"frames of {size[0]}x{size[1]} pixels need {readable(least / _SHARE)} of memory even with few curvature "
            f"pairs and in the smallest parts, and {readable(available)} can be had; choose a smaller --size{more}"
        )
    history, tile = found
    return replace(effort, history=history or effort.history, tile=tile)


def given_up(asked: EffortOptions, plan: EffortOptions) -> str:
    """What the plan has less of than was asked for, in words; empty where it is nothing."""
    fewer = [f"{plan.history} curvature pairs instead of {asked.history}"] if plan.history < asked.history else []
    parts = [f"parts of {plan.tile} pixels, which takes longer"] if plan.tile != asked.tile else []
    return " and ".join(fewer + parts)


def readable(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
