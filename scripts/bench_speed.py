"""How fast an iteration is: against what the device can do, and against torch.optim.LBFGS around a plain closure.

    python scripts/bench_speed.py FOLDER [--devices cpu cuda:0] [--sizes 256x256 512x288] [--precisions fp32 bf16]
                                         [--encoders vgg19 slim] [--rounds 5] [--clock processor] [--threads 2]
    python scripts/bench_speed.py FOLDER --render [--frames 24] [--size 512] [--alone 500]
    python scripts/bench_speed.py FOLDER --video [--frames 240] [--encoders vgg19 slim]

Everything about one size takes turns in one process, so that ratios hold on a machine that does other work as well;
times are medians over the rounds. `--clock processor` counts the time of all threads of this process instead of the
wall's, for a machine that is busy (CPU only). Memory is kept as the command line keeps it, for all of them;
GOMP_SPINCOUNT=10000 OMP_WAIT_POLICY=PASSIVE before the command lets threads wait as there on an idle machine.

The floor: for every layer the larger of its multiply-adds at the device's own matrix rate and its bytes at the device's
own copy rate, both measured in the same run; an activation is written and read once on the way there and read once on
the way back, its gradient written and read once, and nothing else is moved. A CPU in float32 can be quicker than that,
as it does fewer multiplications (nst_video/networks/winograd.py); the last column is the gain from it. "plain" is
scripts/plain_gatys.py with its history full. On an NVIDIA GPU an iteration is one replay of a CUDA graph, timed over
many of them; "one by one" is the same without a graph, "by autograd" with the gradient that autograd makes of
objective.py (on a CPU also with torch's convolutions), and lanes are pictures optimised as one batch, whose time is
that of all of them. Gram matrices are counted at the rate of the number format that they are made in: bfloat16 there,
float32 on a CPU.

`--render` paints a clip as `standard` does, and two of its frames on their own by the plain way with 500 evaluations
each; the time of the whole clip painted that way is extrapolated from those two. `--video` renders a video of 512x512
pixels at 10 evaluations a frame with all that belongs to it, and the same without painting. FOLDER gets speed.json,
speed.md and, where matplotlib is there, speed.png; render.json and render.md with --render, video.json and video.md
with --video.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from plain_gatys import PlainGatys, PlainSolver
from speed_gpu import LANES, MOST_PIXELS, Iterations, objective_of, repeated
from speed_render import painted_alone
from speed_video import videos
from torch import Tensor

from nst_video import LookOptions
from nst_video.colors import to_image
from nst_video.devices.machine import device_name, devices
from nst_video.devices.process import keep_memory
from nst_video.devices.products import product
from nst_video.media.pictures import read_picture
from nst_video.networks.encoders import Encoder, load_encoder
from nst_video.networks.frozen import FrozenConvolution, PlainKernel
from nst_video.optimization.optimizers import LBFGS

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
SIZES = {"cpu": ["256x256", "512x288"], "cuda": ["256x256", "512x288", "512x512", "1280x720", "1920x1080"]}
HISTORY, LONG_HISTORY = 10, 100
WARM_UP = 2
MOVED = 5  # how often a byte of an activation, or of its gradient, has to be moved: see above
MATRIX, COPY = {"cpu": (2048, 1 << 26), "cuda": (8192, 1 << 28)}, 5  # side, numbers; repeats
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def main() -> None:
    """Measure, print the tables, and keep them in FOLDER."""
    arguments = parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    if arguments.video:
        keep(arguments.folder, "video", *videos(arguments))
    elif arguments.render:
        keep(arguments.folder, "render", *painted_alone(arguments))
    else:
        keep(arguments.folder, "speed", *speed(arguments))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("--devices", nargs="+", default=devices(), choices=devices())
    parser.add_argument("--sizes", nargs="+", metavar="WxH", help="of the pictures (default: by device)")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--encoders", nargs="+", default=["vgg19"], choices=["vgg19", "slim"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=3, help="in one round, by everyone")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--render", action="store_true", help="a whole render against frames on their own")
    parser.add_argument("--video", action="store_true", help="frames a second of a whole video")
    parser.add_argument("--clip", type=Path, default=SAMPLES / "bunny.mp4")
    parser.add_argument("--style", type=Path, default=SAMPLES / "oil.jpg")
    parser.add_argument("--frames", type=int, help="only the first N frames of the clip")
    parser.add_argument("--size", type=int, default=512, help="long side of the render")
    parser.add_argument("--alone", type=int, default=500, help="evaluations of a frame on its own")
    return parser.parse_args()


def keep(folder: Path, name: str, found: Any, table: str) -> None:
    """Write the figures and the table, and print the latter."""
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (folder / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def say(text: str) -> None:
    """A line of progress; the tables alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def wait_for(device: str) -> None:
    """Until everything that was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


# ---------------------------------------------------------------------------------------------- the device


@dataclass(frozen=True)
class Device:
    """What a device can do: multiply-adds a second by precision, and bytes copied a second, read ones and written ones
    counted both.
    """

    name: str
    rates: dict[str, float]
    copy_rate: float


def measure_device(device: str, clock: Callable[[], float]) -> Device:
    """The best of a few products of large matrices, and of a few copies of a large tensor."""
    side, numbers = MATRIX.get(device.partition(":")[0], MATRIX["cpu"])
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        rates[name] = side**3 / best(partial(product, a, b), device, clock)
    source = torch.rand(numbers, device=device)
    target = torch.empty_like(source)
    return Device(device, rates, 8 * numbers / best(partial(target.copy_, source), device, clock))


def best(work: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    """Seconds of the quickest of a few runs."""
    return min(seconds(work, device, clock) for _ in range(COPY))


def seconds(work: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    """Of one run."""
    wait_for(device)
    begun = clock()
    work()
    wait_for(device)
    return clock() - begun


@dataclass(frozen=True)
class Layer:
    """Of one convolution, or one Gram matrix, at a size: multiply-adds of the way there, bytes of its activations."""

    products: int
    bytes: int
    precision: str


def layers_of(encoder: Encoder, look: LookOptions, image: Tensor) -> list[Layer]:
    """What has to be computed and moved for one evaluation, on the way there."""
    found: list[Layer] = []
    dtypes = {module.weight.dtype for module in encoder.modules() if isinstance(module, FrozenConvolution)}
    # A GPU takes the first layer and the Gram matrices in bfloat16 too, without losing anything; a CPU does not.
    throughout = image.is_cuda and torch.bfloat16 in dtypes

    def count(module: FrozenConvolution, inputs: tuple[Tensor], output: Tensor) -> None:
        products = output.numel() * module.in_channels * 9
        precision = "bf16" if throughout or module.weight.dtype == torch.bfloat16 else "fp32"
        found.append(Layer(products, output.numel() * (2 if throughout else output.element_size()), precision))

    modules = [module for module in encoder.modules() if isinstance(module, FrozenConvolution)]
    handles = [module.register_forward_hook(count) for module in modules]
    with torch.no_grad():
        features = encoder(image)
    for handle in handles:
        handle.remove()
    for layer in look.style_layers:  # whose activations are counted above
        channels, places = features[layer].shape[1], features[layer][0, 0].numel()
        found.append(Layer(channels * channels * places, 0, "bf16" if throughout else "fp32"))
    return found


def floor_of(layers: list[Layer], device: Device) -> float:
    """Seconds below which an evaluation cannot come: the way back takes as many multiply-adds as the way there."""
    return sum(
        max(2 * layer.products / device.rates[layer.precision], MOVED * layer.bytes / device.copy_rate)
        for layer in layers
    )


# ---------------------------------------------------------------------------------------------- iterations


class TimedLBFGS(LBFGS):
    """Notes what each evaluation of the loss and its gradient takes."""

    evaluation = 0.0
    timed: Callable[[Callable[[], object]], float]

    def _evaluate(self, flat: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        found: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []
        work = super()._evaluate
        self.evaluation = self.timed(lambda: found.append(work(flat)))
        self.rows.clear()
        return found[0]


class Ours:
    """Iterations of L-BFGS on the default loss of a first frame."""

    def __init__(
        self,
        encoder: Encoder,
        content: Tensor,
        style: Tensor,
        timed: Callable[[Callable[[], object]], float],
        *,
        written_out: bool = True,
    ):
        """timed: seconds that a piece of work takes. written_out: the gradient does not come from autograd."""
        objective = objective_of(encoder, content, style, written_out=written_out)
        solver = type("Solver", (TimedLBFGS,), {"timed": staticmethod(timed)})
        self.timed = timed
        self.solver = solver(objective, content, first_step=0.05, curvature=None, history=HISTORY)

    def __call__(self) -> dict[str, float]:
        """Seconds of an iteration, and of the loss and gradient in it."""
        iteration = self.timed(self.solver.iterate)
        return {"iteration": iteration, "gradient": self.solver.evaluation}


def plain_layout(encoder: Encoder) -> Encoder:
    """The encoder with torch's default memory layout."""
    for module in encoder.modules():
        if isinstance(module, FrozenConvolution):
            module.weight.data = module.weight.data.contiguous()
    encoder.network.memory_format = torch.contiguous_format  # type: ignore[assignment]
    return encoder


def torchs_own(encoder: Encoder) -> Encoder:
    """The encoder with convolutions as torch computes them, all multiplications done."""
    for module in encoder.modules():
        if isinstance(module, FrozenConvolution):
            module.kernel = PlainKernel(module.weight.detach())
    return encoder


def entries(
    encoder: str,
    size: tuple[int, int],
    arguments: argparse.Namespace,
    pictures: tuple[np.ndarray, np.ndarray],
    device: str,
) -> tuple[dict[str, Callable[[], dict[str, float]]], dict[str, list[Layer]]]:
    """What takes turns at one size, by name: a call is one iteration and gives its seconds. And the work of an
    evaluation by precision.
    """
    on_gpu, look = device.startswith("cuda"), LookOptions()
    timed = partial(repeated if on_gpu else partial(seconds, clock=CLOCKS[arguments.clock]), device=device)
    layers = (*look.style_layers, *look.content_layers)
    content, style = (fit(to_image(picture[None], device), size) for picture in pictures)
    found: dict[str, Callable[[], dict[str, float]]] = {}
    work = {}
    for precision in arguments.precisions:
        load = partial(load_encoder, encoder, layers, device=device, precision=precision)
        work[precision] = layers_of(load(), look, content)
        if on_gpu:
            found |= ours_on_gpu(precision, load, content, style)
        else:
            found[precision] = Ours(load(), content, style, timed)
            if precision == "fp32":  # in others they are torch's anyway
                found[f"{precision}, torch's convolutions"] = Ours(torchs_own(load()), content, style, timed)
            for name, network in (("by autograd", load()), ("default layout", plain_layout(load()))):
                found[f"{precision}, {name}"] = Ours(torchs_own(network), content, style, timed, written_out=False)
    network = load_encoder(encoder, layers, device=device)
    for history in (HISTORY, LONG_HISTORY):
        solver = PlainSolver(PlainGatys(network, content, style, look), history)
        solver.fill()
        found[f"plain, history {history}"] = partial(iteration_of, solver, timed)
    return found, work


def ours_on_gpu(
    precision: str, load: Callable[[], Encoder], content: Tensor, style: Tensor
) -> dict[str, Callable[[], dict[str, float]]]:
    """Our ways to do an iteration on a GPU, by name."""

    def iterations(network: Encoder, *, lanes: int = 1, written_out: bool = True, graph: bool = True) -> Iterations:
        objective = objective_of(network, content, style, lanes=lanes, written_out=written_out)
        return Iterations(objective, content.expand(lanes, -1, -1, -1).contiguous(), history=HISTORY, graph=graph)

    network, pixels = load(), content.shape[2] * content.shape[3]
    found = {precision: iterations(network), f"{precision}, one by one": iterations(network, graph=False)}
    found[f"{precision}, by autograd"] = iterations(network, written_out=False)
    found[f"{precision}, default layout"] = iterations(plain_layout(load()), written_out=False)
    for lanes in LANES if precision == "bf16" else ():
        if lanes * pixels <= MOST_PIXELS:
            found[f"{precision}, {lanes} lanes"] = iterations(network, lanes=lanes)
    return dict(found)


def iteration_of(solver: PlainSolver, timed: Callable[[Callable[[], object]], float]) -> dict[str, float]:
    """Seconds of one iteration of the plain solver."""
    return {"iteration": timed(partial(solver.run, 1))}


def fit(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) with this width and height."""
    return torch.nn.functional.interpolate(picture, size=size[::-1], mode="area")


def speed(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Rows for JSON, and the tables."""
    rows, clock = [], CLOCKS[arguments.clock]
    pictures = (read_picture(SAMPLES / "chelsea.jpg"), read_picture(arguments.style))
    for name in arguments.devices:
        if name != "cpu" and arguments.clock != "wall":
            sys.exit(f"--clock {arguments.clock} means nothing on {name}; leave it out")
        device = measure_device(name, clock)
        for encoder in arguments.encoders:
            for size in arguments.sizes or SIZES.get(name.partition(":")[0], SIZES["cpu"]):
                say(f"{encoder} at {size} on {name}")
                rows.append(row_of(encoder, device, size, arguments, pictures))
    plot(rows, arguments.folder / "speed.png")
    return rows, tables_of(rows)


def row_of(
    encoder: str, device: Device, size: str, arguments: argparse.Namespace, pictures: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Everything about one encoder at one size on one device."""
    width, height = (int(side) for side in size.split("x"))
    work, counted = entries(encoder, (width, height), arguments, pictures, device.name)
    once = device.name.startswith("cuda")  # each call is many iterations already
    for run in work.values():
        for _ in range(1 if once else WARM_UP):
            run()
    rounds = []
    for number in range(arguments.rounds):
        say(f"  round {number + 1} of {arguments.rounds}")
        rounds.append(
            {name: medians([run() for _ in range(1 if once else arguments.evaluations)]) for name, run in work.items()}
        )
    taken = {name: medians([row[name] for row in rounds]) for name in work}

    def ratios(name: str, to: str) -> float:
        return median(row[to]["iteration"] / row[name]["iteration"] for row in rounds)

    every = arguments.precisions
    return {
        "device": device.name,
        "device_name": device_name(device.name),
        "threads": torch.get_num_threads(),
        "clock": arguments.clock,
        "torch": torch.__version__,
        "encoder": encoder,
        "size": size,
        "products_per_second": device.rates,
        "bytes_per_second": device.copy_rate,
        "products": {name: 2 * sum(layer.products for layer in layers) for name, layers in counted.items()},
        "bytes": {name: MOVED * sum(layer.bytes for layer in layers) for name, layers in counted.items()},
        "floor": {name: floor_of(layers, device) for name, layers in counted.items()},
        "seconds": taken,
        "faster_than_plain": {
            name: {str(history): ratios(name, f"plain, history {history}") for history in (HISTORY, LONG_HISTORY)}
            for name in every
        },
        "beside_network": {
            name: median(row[name]["iteration"] / row[name]["gradient"] - 1 for row in rounds) for name in every
        },
        "channels_last_gain": {name: ratios(f"{name}, by autograd", f"{name}, default layout") for name in every},
        "convolutions_gain": {
            name: ratios(name, f"{name}, torch's convolutions")
            for name in every
            if f"{name}, torch's convolutions" in taken
        },
    }


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """The median of every column."""
    return {name: median(row[name] for row in rows) for name in rows[0]}


def tables_of(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for every setting, and one for every device about what it can do."""
    titles = [
        *("device", "network", "size", "precision", "floor", "loss and gradient"),
        *(f"iteration ({rows[0]['clock']} time)", "floor / iteration"),
        *("plain, history 10", "times faster", "history 100", "times faster"),
        *("optimiser beside the network", "channels last", "fewer multiplications"),
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        taken = {name: f"{1e3 * found['iteration']:.2f} ms" for name, found in row["seconds"].items()}
        for precision, floor in row["floor"].items():
            found, faster = row["seconds"][precision], row["faster_than_plain"][precision]
            cells = [
                *(row["device"], row["encoder"], row["size"].replace("x", "×"), precision),
                *(f"{1e3 * floor:.2f} ms", f"{1e3 * found['gradient']:.2f} ms", taken[precision]),
                f"{floor / found['iteration']:.0%}",
                *(
                    taken["plain, history 10"],
                    f"{faster['10']:.2f}",
                    taken["plain, history 100"],
                    f"{faster['100']:.2f}",
                ),
                f"{row['beside_network'][precision]:.1%}",
                f"{row['channels_last_gain'][precision]:.2f} × faster",
                f"{row['convolutions_gain'].get(precision, 1.0):.2f} × faster",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += variants_of(rows)
    for row in {row["device"]: row for row in rows}.values():
        rates = ", ".join(f"{value / 1e9:.0f} in {name}" for name, value in row["products_per_second"].items())
        copied = row["bytes_per_second"] / 1e9
        lines.append(
            f"\n{row['device']} ({row['device_name']}), {row['threads']} threads: billions of multiply-adds a second "
            f"{rates}; {copied:.1f} GB copied a second."
        )
    return "\n".join(lines)


def variants_of(rows: list[dict[str, Any]]) -> list[str]:
    """A table of the other ways of a GPU, and of lanes: milliseconds of an iteration, by the picture."""
    own = [row for row in rows if row["device"].startswith("cuda")]
    names = list(dict.fromkeys(name for row in own for name in row["seconds"] if not name.startswith("plain")))
    if not own:
        return []
    lines = ["", f"| ms an iteration and a picture | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in own:
        cells = []
        for name in names:
            lanes = int(name.split()[1]) if name.endswith("lanes") else 1
            taken = row["seconds"].get(name)
            cells.append(f"{1e3 * taken['iteration'] / lanes:.2f}" if taken else "")
        lines.append(f"| {row['encoder']} {row['size'].replace('x', '×')} | {' | '.join(cells)} |")
    return lines


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds of an iteration over the pixels of the picture, a panel for each device and network."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        say("no plot: matplotlib is not installed")
        return
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        panels.setdefault((row["device"], row["encoder"]), []).append(row)
    figure = Figure(figsize=(6 * len(panels), 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, own) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        own.sort(key=pixels)
        everywhere = [name for name in own[0]["seconds"] if all(name in row["seconds"] for row in own)]
        curves = {name: [row["seconds"][name]["iteration"] for row in own] for name in everywhere}
        curves |= {f"floor in {name}": [row["floor"][name] for row in own] for name in own[0]["floor"]}
        for name, values in curves.items():
            style = "--" if name.startswith("floor") else ":" if name.startswith("plain") else "-"
            axes.loglog([pixels(row) for row in own], values, style, marker="o", label=name)
        axes.set(title=", ".join(title), xlabel="pixels", ylabel="seconds")
        axes.grid(True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path)


def pixels(row: dict[str, Any]) -> int:
    """Of the pictures of a row."""
    width, height = row["size"].split("x")
    return int(width) * int(height)


if __name__ == "__main__":
    main()
