"""Minimising a loss over the pixels of several independent images (lanes) at once, without waiting for the host.

Every decision (accept a step, store a curvature pair, give up a lane's history) is a mask on the device, so an
iteration has no `.item()` and no branch on data. One iteration is one evaluation of the loss and its gradient.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nst_video.devices.kernels import kernels
from nst_video.devices.transfer import Download
from nst_video.optimization.curvature import (
    LEAST_CURVATURE,
    Curvature,
    as_stored,
    combined,
    compact_direction,
    dot,
    length_of,
    parts_of,
    products_of,
)

# Loss of each lane, (L,), at an image (L, 3, H, W); and any further values of the same lanes to keep a record of.
Objective = Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]

_SUFFICIENT_DECREASE = 1e-4  # Armijo's constant, as in Nocedal & Wright 2006, section 3.1


@dataclass(frozen=True)
class Minimum:
    """What `minimise` found: the best image, its loss per lane, the record of every evaluation, and what the next
    frame can start from.
    """

    image: Tensor
    loss: Tensor
    record: dict[str, Tensor]  # name -> (evaluations, L): "loss" and whatever the objective added
    accepted: Tensor  # bool (evaluations, L)
    curvature: Curvature | None

    def begin_read(self) -> Callable[[], "Minimum"]:
        """Begin to take loss, record and accepted to the host, in one transfer. The function that is returned waits for
        that transfer only, and returns the same minimum with these on the host.
        """
        rows = [*self.record.values(), self.accepted.to(self.loss.dtype), self.loss.expand(self.accepted.shape)]
        download = Download(torch.stack(rows))

        def read() -> "Minimum":
            (table,) = download.wait()
            *values, accepted, losses = table.unbind()
            record = dict(zip(self.record, values, strict=True))
            return replace(self, loss=losses[0], record=record, accepted=accepted.bool())

        return read

    def with_lanes(self, lanes: Tensor, other: "Minimum") -> "Minimum":
        """This, with the `lanes` (bool (L,)) of `other`, which took as many evaluations."""

        def pick(ours: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(lanes.to(ours.device).view(-1, *[1] * (ours.dim() - 1)), theirs, ours)

        curvature = None
        if self.curvature and other.curvature:
            theirs = vars(other.curvature)
            curvature = Curvature(**{name: pick(value, theirs[name]) for name, value in vars(self.curvature).items()})
        return Minimum(
            pick(self.image, other.image),
            pick(self.loss, other.loss),
            {name: torch.where(lanes, other.record[name], value) for name, value in self.record.items()},
            torch.where(lanes, other.accepted, self.accepted),
            curvature,
        )


def minimise(
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
    """The image (L, 3, H, W) with the lowest loss that `optimizer` reaches from `image` in exactly `evaluations`
    evaluations (>= 1).

    `first_step` is the root-mean-square change of a pixel, in units of the image, of a step taken before anything is
    known about the curvature. `curvature` carries L-BFGS pairs over from a related problem. The caller's tensors are
    left alone, but with `consume` the pairs are taken over instead of copied: they are most of what is held beside the
    network. A loss that is not finite is never accepted.
    """
    if curvature is not None and not consume:
        curvature = curvature.clone()
    solver = OPTIMIZERS[optimizer](
        objective, image.detach(), first_step=first_step, curvature=curvature, history=history
    )
    for _ in range(evaluations - 1):
        solver.iterate()
    return solver.result()


def value_and_gradient(objective: Objective, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The loss of each lane (L,) at an image (L, 3, H, W), its gradient (L, 3, H, W), and what else the objective
    tells: by autograd, unless the objective has its gradient `written_out`.
    """
    written_out = getattr(objective, "written_out", None)
    if written_out is not None:
        found: tuple[Tensor, Tensor, dict[str, Tensor]] = written_out(image)
        return found
    leaf = image.detach().requires_grad_(True)
    with torch.enable_grad():
        loss, parts = objective(leaf)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient, {name: part.detach() for name, part in parts.items()}


class _Solver(ABC):
    """What both optimisers share: the current image, its loss and gradient, and the record."""

    loss: Tensor

    def __init__(
        self, objective: Objective, image: Tensor, *, first_step: float, curvature: Curvature | None, history: int
    ):
        self.objective, self.shape, self.first_step = objective, image.shape, first_step
        self.image = image.flatten(1).clone()
        self.rows: list[dict[str, Tensor]] = []

    def _evaluate(self, flat: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Loss (L,), its gradient (L, n), and the record of this evaluation."""
        loss, gradient, parts = value_and_gradient(self.objective, flat.view(self.shape))
        return loss, gradient.flatten(1), {"loss": loss, **parts}

    def iterate(self) -> None:
        """One evaluation of the loss, kept in the record."""
        self.rows.append(self.advance())

    def result(self) -> Minimum:
        """The best image, and the record so far."""
        record = {name: torch.stack([row[name] for row in self.rows]) for name in self.rows[0]}
        accepted = record.pop("accepted")
        return Minimum(self.image.view(self.shape), self.loss, record, accepted, self._curvature())

    def _curvature(self) -> Curvature | None:
        return None

    @abstractmethod
    def advance(self) -> dict[str, Tensor]:
        """One evaluation of the loss; its record: "loss", what the objective adds, "accepted", each (L,)."""


class LBFGS(_Solver):
    """Limited-memory BFGS in the compact form of Byrd, Nocedal & Schnabel 1994 (theorem 2.2), one small system per
    lane.

    Only products of the stored vectors enter the system, as in the vector-free two-loop of Chen et al. 2014, and
    triangular solves take the place of its loops: a direction costs two passes over the pairs whatever m is. A
    rejected trial still gives its curvature pair, so the next direction from the same place already knows why the
    last one was too long.

    All that evolves is written in place, and the first evaluation is an iteration like every other, which goes nowhere:
    so one CUDA graph of `advance` is a whole search (graphs.py).
    """

    def __init__(
        self, objective: Objective, image: Tensor, *, first_step: float, curvature: Curvature | None, history: int
    ):
        super().__init__(objective, image, first_step=first_step, curvature=curvature, history=history)
        lanes, pixels = self.image.shape
        self.memory = curvature or Curvature.empty(lanes, pixels, history, image.device)
        self.lanes = torch.arange(lanes, device=image.device)
        # What is multiplied with the pairs, (L, 3, n): the pair at the slot where the newest one may have gone, and the
        # gradient, which is all of it that single kernels use.
        self.probes = self.image.new_zeros((lanes, 3, pixels))
        self.gradient = self.probes[:, 2]
        self.trial = self.image.clone()  # where the loss is evaluated next
        self.slot = self.memory.head.clone()
        self.loss = self.image.new_full((lanes,), math.inf)
        self.length, self.slope = torch.ones_like(self.loss), torch.zeros_like(self.loss)
        self.iterate()

    def begin(self, image: Tensor, curvature: Curvature | None) -> None:
        """Start anew from an image of the same shape, with pairs of another search or none; nothing is evaluated."""
        for own in (self.image, self.trial):
            own.copy_(image.flatten(1))
        if curvature is None:
            for value in vars(self.memory).values():
                value.zero_()
        else:
            curvature.written_to(self.memory)
        self.slot.copy_(self.memory.head)
        self.gradient.zero_()
        self.loss.fill_(math.inf)
        self.length.fill_(1.0)
        self.slope.zero_()
        self.rows.clear()

    def sharing(self, objective: Objective, first_step: float) -> "LBFGS":
        """A solver of another loss with the same tensors, of which only one can be used at a time."""
        other = copy(self)
        other.objective, other.first_step, other.rows = objective, first_step, []
        return other

    def _curvature(self) -> Curvature:
        return self.memory

    def advance(self) -> dict[str, Tensor]:
        """One evaluation at the trial image; keeps it where the loss fell enough, else halves that lane's step."""
        loss, gradient, row = self._evaluate(self.trial)
        single = kernels("optimization.lbfgs_triton", self.trial.device)
        if single is None:
            accept = self._update(loss, gradient)
        else:
            accept = single.update(self, loss, gradient, decrease=_SUFFICIENT_DECREASE, least=LEAST_CURVATURE)
        return row | {"accepted": accept}

    def _update(self, loss: Tensor, gradient: Tensor) -> Tensor:
        """Take in the loss (L,) and gradient (L, n) at the trial image; bool (L,): where it was accepted."""
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        enough = self.loss + _SUFFICIENT_DECREASE * self.length * self.slope
        accept = loss.isfinite() & ((loss <= enough) | ~self.loss.isfinite())
        torch.sub(self.trial, self.image, out=self.probes[:, 0])
        torch.sub(gradient, self.gradient, out=self.probes[:, 1])
        self._remember(loss.isfinite())
        torch.where(accept[:, None], self.trial, self.image, out=self.image)
        torch.where(accept[:, None], gradient, self.gradient, out=self.gradient)
        torch.where(accept, loss, self.loss, out=self.loss)
        torch.where(accept, torch.ones_like(self.length), self.length * 0.5, out=self.length)
        self._aim()
        return accept

    def _remember(self, finite: Tensor) -> None:
        """Store the pair in the probes where it shows positive curvature; every lane writes its slot, unchanged where
        it does not. The probes are then what is in the slot.
        """
        memory, m = self.memory, self.memory.history
        newest = self.probes[:, :2]
        newest.copy_(as_stored(newest, memory.pairs))
        step, change = newest.unbind(1)
        curved = dot(step, change) > LEAST_CURVATURE * length_of(step) * length_of(change)
        store = curved & finite
        self.slot.copy_(memory.head)
        first = 2 * m * self.lanes + self.slot
        rows, pairs = torch.stack([first, first + m], dim=1).flatten(), memory.pairs.flatten(0, 1)
        before = pairs.index_select(0, rows).view(newest.shape)
        torch.where(store[:, None, None], newest, before, out=newest)
        pairs.index_copy_(0, rows, newest.flatten(0, 1).to(pairs.dtype))
        memory.filled[self.lanes, self.slot] |= store
        torch.where(store, (self.slot + 1) % m, self.slot, out=memory.head)

    def _aim(self) -> None:
        """The next trial, from one pass over the pairs for the products and one to combine them."""
        memory, m, slot = self.memory, self.memory.history, self.slot
        with_s, with_y, with_g = products_of(self.probes, memory.pairs).unbind(1)
        memory.sy[self.lanes, slot, :] = with_s[:, m:]
        memory.sy[self.lanes, :, slot] = with_y[:, :m]
        memory.yy[self.lanes, slot, :] = with_y[:, m:]
        memory.yy[self.lanes, :, slot] = with_y[:, m:]
        coefficients, scale = compact_direction(memory, with_g)
        length = self.gradient.norm(dim=1)
        plain = self.first_step * math.sqrt(self.image.shape[1]) / length.clamp_min(1e-30)
        scale = torch.where(memory.filled.any(1), scale, plain)
        # The direction is -(scale g + sum of coefficients times pairs); where that does not go down, -plain g.
        down = -(scale * length.square() + (coefficients * with_g).sum(1))
        downhill = down < 0
        coefficients = torch.where(downhill[:, None], coefficients, 0.0)
        scale = torch.where(downhill, scale, plain)
        torch.where(downhill, down, -plain * length.square(), out=self.slope)
        for part in parts_of(memory.pairs):
            back = combined(coefficients, memory.pairs[:, :, part].float())
            back.addcmul_(scale[:, None], self.gradient[:, part])
            torch.addcmul(self.image[:, part], self.length[:, None], back, value=-1, out=self.trial[:, part])


class Adam(_Solver):
    """Adam (Kingma & Ba 2015) with `first_step` as its learning rate; kept to compare with. Every evaluation moves;
    the best image is returned.
    """

    decay = (0.9, 0.99)

    def __init__(
        self, objective: Objective, image: Tensor, *, first_step: float, curvature: Curvature | None, history: int
    ):
        super().__init__(objective, image, first_step=first_step, curvature=curvature, history=history)
        self.loss, self.gradient, row = self._evaluate(self.image)
        self.rows.append(row | {"accepted": self.loss.isfinite()})
        self.best, self.best_loss = self.image, self.loss
        self.mean, self.square = torch.zeros_like(self.image), torch.zeros_like(self.image)
        self.count = 0

    def advance(self) -> dict[str, Tensor]:
        """One Adam step and the evaluation where it ends."""
        self.count += 1
        b1, b2 = self.decay
        gradient = torch.where(self.gradient.isfinite(), self.gradient, 0.0)
        self.mean = b1 * self.mean + (1 - b1) * gradient
        self.square = b2 * self.square + (1 - b2) * gradient.square()
        mean, square = self.mean / (1 - b1**self.count), self.square / (1 - b2**self.count)
        least = 1e-8 * square.amax(1, keepdim=True).sqrt() + 1e-30
        self.image = self.image - self.first_step * mean / (square.sqrt() + least)
        loss, self.gradient, row = self._evaluate(self.image)
        accept = loss.isfinite() & ((loss < self.best_loss) | ~self.best_loss.isfinite())
        self.best = torch.where(accept[:, None], self.image, self.best)
        self.best_loss = torch.where(accept, loss, self.best_loss)
        return row | {"accepted": accept}

    def result(self) -> Minimum:
        """The best image seen, not the last."""
        self.image, self.loss = self.best, self.best_loss
        return super().result()


OPTIMIZERS: dict[str, type[_Solver]] = {"lbfgs": LBFGS, "adam": Adam}
