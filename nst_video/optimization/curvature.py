"""Curvature pairs of L-BFGS for several images (lanes) at once: how they are kept, moved, and what direction they give.

Like everything in optimizers.py it is masks on the device instead of branches, so that the host never waits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_video.devices.transfer import overwrite

LEAST_CURVATURE = 1e-4  # s.y below this times |s||y| is noise: such a pair would blow the direction up
# Numbers of rounded pairs that are converted at a time, by whether it is a GPU: few enough for the cache of a CPU, and
# for the memory of a GPU.
_CONVERTED = {False: 1 << 20, True: 1 << 24}
# Of the pixels, that are multiplied at once, by whether it is a GPU.
_CHUNKS = {False: 64, True: 256}


def stored_as(device: torch.device | str) -> torch.dtype:
    """The type in which curvature pairs are kept on a device.

    On a GPU an update takes as long as it takes to read them, so there they are rounded to bfloat16. All products are
    of what is stored, so the rounding is noise in the model of the curvature and nothing else: image, loss and gradient
    stay as they are. To a CPU, which has to convert them first, it would cost more than it saves.
    """
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


@dataclass(frozen=True)
class Curvature:
    """The last m curvature pairs (s = change of the image, y = change of the gradient) of L lanes of n pixels, in
    ring order.

    pairs (L, 2m, n), float32 or bfloat16: all s, then all y. sy, yy (L, m, m), float32: s_i.y_j and y_i.y_j of what is
    stored. filled (L, m): which are real. head (L,): where the next one goes. Immutable from outside, unless it is
    given away to be consumed.
    """

    pairs: Tensor
    sy: Tensor
    yy: Tensor
    filled: Tensor
    head: Tensor

    @staticmethod
    def empty(
        lanes: int,
        pixels: int,
        history: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "Curvature":
        """No pairs yet; `history` is m, `dtype` that of pairs on such a device, unless it is given."""
        dtype = dtype or stored_as(device)
        return Curvature(
            pairs=torch.zeros(lanes, 2 * history, pixels, dtype=dtype, device=device),
            sy=torch.zeros(lanes, history, history, device=device),
            yy=torch.zeros(lanes, history, history, device=device),
            filled=torch.zeros(lanes, history, dtype=torch.bool, device=device),
            head=torch.zeros(lanes, dtype=torch.long, device=device),
        )

    @property
    def history(self) -> int:
        """m, the most pairs kept."""
        return self.sy.shape[1]

    def clone(self) -> "Curvature":
        """A deep copy."""
        return Curvature(**{name: value.clone() for name, value in vars(self).items()})

    def written_to(self, other: "Curvature") -> "Curvature":
        """`other`, of the same shape, whose tensors were overwritten with these."""
        overwrite(vars(other).values(), vars(self).values())
        return other

    def newest(self, count: int) -> "Curvature":
        """The newest `count` pairs, or all where there are no more."""
        if count >= self.history:
            return self
        slots = (self.head[:, None] - count + torch.arange(count, device=self.head.device)) % self.history
        rows = torch.cat([slots, slots + self.history], dim=1)
        lanes = torch.arange(len(slots), device=slots.device)[:, None]

        def products(matrix: Tensor) -> Tensor:
            return matrix[lanes[:, :, None], slots[:, :, None], slots[:, None, :]]

        return Curvature(
            self.pairs[lanes, rows],
            products(self.sy),
            products(self.yy),
            self.filled.gather(1, slots),
            torch.zeros_like(self.head),
        )

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Curvature":
        """The pairs after `move`, a linear map of pixels (L * 2m, n) -> the same shape, anew; products are taken anew,
        and nothing is shared with the pairs before.
        """
        lanes, rows, pixels = self.pairs.shape
        pairs = move(self.pairs.reshape(lanes * rows, pixels)).reshape(lanes, rows, pixels)
        steps, changes = pairs.split(self.history, dim=1)
        with_steps, yy = products_of(changes, pairs).split(self.history, dim=2)
        sy, yy = with_steps.mT.contiguous(), yy.contiguous()
        lengths = length_of(steps) * length_of(changes)
        curved = torch.diagonal(sy, dim1=1, dim2=2) > LEAST_CURVATURE * lengths
        return Curvature(pairs, sy, yy, self.filled & curved, self.head.clone())


def as_stored(vectors: Tensor, pairs: Tensor) -> Tensor:
    """Vectors as they are once they are among the pairs, in float32."""
    return vectors.to(pairs.dtype).float()


def dot(one: Tensor, other: Tensor) -> Tensor:
    """Products (L,) of vectors (L, n)."""
    return torch.linalg.vecdot(one, other) if one.is_cuda else (one * other).sum(1)


def length_of(vectors: Tensor) -> Tensor:
    """Lengths (...) of vectors (..., n), in float32."""
    return torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)


def parts_of(pairs: Tensor) -> list[slice]:
    """The pixels of pairs (L, 2m, n): all, or as many at a time as are converted at once."""
    lanes, rows, pixels = pairs.shape
    rounded = pairs.dtype == torch.bfloat16
    size = max(1, _CONVERTED[pairs.is_cuda] // (lanes * rows)) if rounded else pixels
    return [slice(first, first + size) for first in range(0, pixels, size)]


def products_of(probes: Tensor, pairs: Tensor) -> Tensor:
    """Vectors (L, k, n) with pairs (L, 2m, n): (L, k, 2m), float32."""
    found = [_multiplied(probes[:, :, part].float(), pairs[:, :, part].float()) for part in parts_of(pairs)]
    return found[0] if len(found) == 1 else torch.stack(found).sum(0)


def _multiplied(probes: Tensor, pairs: Tensor) -> Tensor:
    """As `products_of`, of float32.

    Libraries give a product of so few and so long rows to one thread of a CPU, and to a few processors of a GPU; in
    chunks all have work, and sums are rounded less.
    """
    chunks = _CHUNKS[pairs.is_cuda]
    chunk = pairs.shape[2] // chunks // 4 * 4
    if chunk == 0:
        return probes @ pairs.mT
    whole = chunk * chunks
    found = [
        torch.bmm(
            probe[:, :whole].unflatten(1, (chunks, chunk)).transpose(0, 1),
            pair[:, :whole].unflatten(1, (chunks, chunk)).permute(1, 2, 0),
        ).sum(0)
        for probe, pair in zip(probes, pairs, strict=True)
    ]
    rest = probes[:, :, whole:] @ pairs[:, :, whole:].mT if whole < pairs.shape[2] else 0.0
    return torch.stack(found) + rest


def combined(coefficients: Tensor, pairs: Tensor) -> Tensor:
    """The sum (L, n) of pairs (L, 2m, n), float32, each times its coefficient (L, 2m)."""
    chunk = pairs.shape[2] // _CHUNKS[False]
    if pairs.device.type != "cpu" or chunk == 0:
        return (coefficients[:, None] @ pairs).squeeze(1)
    # A CPU would leave one long row to one thread, too.
    whole = chunk * _CHUNKS[False]
    found = pairs.new_empty(len(pairs), pairs.shape[2])
    for into, factors, own in zip(found, coefficients, pairs, strict=True):
        chunks = own[:, :whole].unflatten(1, (-1, chunk)).transpose(0, 1)
        torch.bmm(factors.expand(len(chunks), 1, -1), chunks, out=into[:whole].view(-1, 1, chunk))
        torch.mm(factors[None], own[:, whole:], out=into[None, whole:])
    return found


def compact_direction(memory: Curvature, with_gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (L, 2m) of the pairs and scale (L,) of the gradient in H g.

    H = c I + [S, cY] [[R^-T (D + c Y'Y) R^-1, -R^-T], [-R^-1, 0]] [S, cY]'  with R the upper triangle of S'Y, oldest
    pair first, D its diagonal and c = s.y / y.y of the newest pair. Slots that hold nothing become rows of the
    identity and drop out.
    """
    m = memory.history
    small = torch.float32 if memory.sy.device.type == "mps" else torch.float64
    age = (memory.head[:, None] + torch.arange(m, device=memory.head.device)) % m
    real = memory.filled.gather(1, age)
    both = real[:, :, None] & real[:, None, :]

    def by_age(matrix: Tensor) -> Tensor:
        rows = matrix.to(small).gather(1, age[:, :, None].expand(-1, -1, m))
        return torch.where(both, rows.gather(2, age[:, None, :].expand(-1, m, -1)), 0.0)

    sy, yy = by_age(memory.sy), by_age(memory.yy)
    sg, yg = (
        torch.where(real, part.to(small).gather(1, age), 0.0)[:, :, None] for part in with_gradient.split(m, dim=1)
    )
    curvature = torch.diagonal(sy, dim1=1, dim2=2)
    newest = (real * torch.arange(1, m + 1, device=real.device)).argmax(1, keepdim=True)
    length = torch.diagonal(yy, dim1=1, dim2=2).gather(1, newest)
    scale = (curvature.gather(1, newest) / length.clamp_min(torch.finfo(small).tiny))[:, :, None]
    upper = torch.triu(sy) + torch.diag_embed((~real).to(small))
    u = torch.linalg.solve_triangular(upper, sg, upper=True)
    inner = curvature[:, :, None] * u + scale * (yy @ u) - scale * yg
    steps = torch.linalg.solve_triangular(upper.mT, inner, upper=False)
    newest_last = torch.cat([steps, -scale * u], dim=1).squeeze(2)
    back = torch.cat([age, age + m], dim=1)
    coefficients = torch.zeros_like(newest_last).scatter(1, back, newest_last)
    return coefficients.float(), scale.flatten().float()
