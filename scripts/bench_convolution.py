"""An encoder's layers by fewer multiplications (`nst_video/networks/winograd.py`) against torch's own, on a CPU.

    python scripts/bench_convolution.py [--encoder vgg19] [--size 512x288] [--threads 2] [--rounds 7]

For each convolution: milliseconds there and back both ways, taking turns in one process, medians; and how far both are
from double precision, as a root mean square relative to that of the result. Layers that the program computes by fewer
multiplications are marked. Before them, how quickly matrices are multiplied by torch and by what the program takes on
this processor (`nst_video/devices/products.py`). Memory is kept as the command line keeps it.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from nst_video.devices.process import keep_memory
from nst_video.devices.products import batched_product
from nst_video.networks.encoders import load_encoder
from nst_video.networks.frozen import FrozenConvolution, Kernel, PlainKernel
from nst_video.networks.winograd import WinogradKernel, pays, suits


def main() -> None:
    """Measure layer after layer, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vgg19", choices=("vgg19", "slim"))
    parser.add_argument("--size", default="512x288", metavar="WxH", help="of the picture")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    keep_memory()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    print(products_of_matrices(arguments.rounds))
    width, height = (int(side) for side in arguments.size.split("x"))
    print("channels, size | there: torch, fewer | back: torch, fewer | times faster | error: torch, fewer")
    for layer, x in layers_with_inputs(arguments.encoder, torch.rand(1, 3, height, width)):
        print(row(layer, x, arguments.rounds), flush=True)


def products_of_matrices(rounds: int) -> str:
    """Of 36 products (576, 256) by (256, 256), which a convolution of 256 channels at 128x72 takes."""
    a, b = torch.randn(36, 576, 256), torch.randn(36, 256, 256)
    times = in_turns([partial(torch.bmm, a, b), partial(batched_product, a, b)], rounds)
    torchs, ours = (a.numel() * b.shape[2] / 1e6 / milliseconds for milliseconds in times)
    return f"billions of multiply-adds a second in products of matrices: torch {torchs:.0f}, here {ours:.0f}"


@torch.no_grad()
def layers_with_inputs(encoder: str, image: Tensor) -> list[tuple[FrozenConvolution, Tensor]]:
    """Every convolution after the first, and what it sees of a picture."""
    network, found = load_encoder(encoder), []

    def note(layer: FrozenConvolution, inputs: tuple[Tensor]) -> None:
        found.append((layer, inputs[0]))

    for module in network.modules():
        if isinstance(module, FrozenConvolution):
            module.register_forward_pre_hook(note)
    network(image)
    return found[1:]


@torch.no_grad()
def row(layer: FrozenConvolution, x: Tensor, rounds: int) -> str:
    """One line of the table."""
    ways = [made(layer.weight.detach()) for made in (PlainKernel, WinogradKernel.of)]
    gradient = layer(x)
    there = in_turns([partial(way, x, layer.bias, margin=1, replicated=True) for way in ways], rounds)
    back = in_turns([partial(way.turned(), gradient, margin=2) for way in ways], rounds)
    exact = F.conv2d(x.double(), layer.weight.double(), padding=1)
    plain, fewer = (error(way, x, exact) for way in ways)
    channels, size = f"{x.shape[1]}-{gradient.shape[1]}", f"{x.shape[3]}x{x.shape[2]}"
    faster = (there[0] + back[0]) / (there[1] + back[1])
    mark = "*" if suits(layer.weight) and pays(*layer.weight.shape[:2], x, 1) else " "
    times = f"{there[0]:6.1f} {there[1]:6.1f} | {back[0]:6.1f} {back[1]:6.1f}"
    return f"{mark} {channels:>7} {size:>8} | {times} | {faster:.2f} | {plain:.1e} {fewer:.1e}"


def in_turns(works: list[Callable[[], Tensor]], rounds: int) -> list[float]:
    """Milliseconds of each, the median over the rounds after one to warm up."""
    times = [[seconds(work) for work in works] for _ in range(1 + rounds)][1:]
    return [1e3 * median(column) for column in zip(*times, strict=True)]


def seconds(work: Callable[[], Tensor]) -> float:
    """Of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def error(way: Kernel, x: Tensor, exact: Tensor) -> float:
    """Of a convolution with zeros round it."""
    return float((way(x, margin=1) - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
