"""How much memory painting a frame takes: the figures of nst_video/optimization/budget.py, and if they are right.

    python scripts/bench_memory.py [--encoders vgg19 slim] [--precisions fp32 bf16] [--sizes 512x288 768x432]
                                   [--tiles 0 256] [--history 10 4] [--evaluations 2] [--json FILE]

Each row is a process of its own that paints one later frame of a shot (three references, curvature pairs to be moved,
the teacher where there is one) with the stylizer of a render. Memory is the peak of the process above what it had with
the encoder loaded, so it does not depend on how large Python and torch are. Tile 0: in one piece. What is "planned
with" is what budget.py counts with. Only on systems with the module `resource`, and on the CPU.

    python scripts/bench_memory.py --overlaps 160 128 96 64 32 [--encoders vgg19]

instead says how far loss and gradient of 401x250 pixels in two tiles are from those in one piece, when tiles overlap by
so much.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any


def main() -> None:
    """Measure every combination, print a table, and keep it."""
    arguments = parse_arguments()
    if arguments.one:
        return print(json.dumps(measure(**json.loads(arguments.one))))
    if arguments.overlaps:
        return compare(arguments.encoders, arguments.overlaps)
    rows = []
    for encoder, precision, size, tile, history in product(
        arguments.encoders, arguments.precisions, arguments.sizes, arguments.tiles, arguments.history
    ):
        width, height = map(int, size.split("x"))
        if tile and max(width, height) <= tile:
            continue
        case = {"encoder": encoder, "precision": precision, "width": width, "height": height, "tile": tile or None}
        rows.append(in_a_process(case | {"history": history, "evaluations": arguments.evaluations}))
        print(line_of(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return None


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["vgg19", "slim"])
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--sizes", nargs="+", default=["512x288", "768x432"])
    parser.add_argument("--tiles", nargs="+", type=int, default=[0, 256])
    parser.add_argument("--history", nargs="+", type=int, default=[10, 4])
    parser.add_argument("--evaluations", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keep the rows in this file")
    parser.add_argument("--overlaps", nargs="+", type=int, help="compare tiles with one piece instead")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_a_process(case: dict[str, Any]) -> dict[str, Any]:
    """One row, measured by a fresh process."""
    words = [sys.executable, __file__, "--one", json.dumps(case)]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return case | found


def line_of(row: dict[str, Any]) -> str:
    """A row for people."""
    pixels = row["width"] * row["height"]
    return (
        f"{row['encoder']:<6} {row['precision']} {row['width']}x{row['height']} tile {row['tile'] or '-':>4} "
        f"m {row['history']:>2}: {row['bytes'] / 1e6:6.0f} MB, {row['bytes'] / pixels:5.0f} B/pixel; in all "
        f"{(row['before'] + row['bytes']) / 1e6:6.0f} MB, planned with {row['predicted'] / 1e6:.0f}; "
        f"{row['seconds']:.0f} s"
    )


def measure(
    *, encoder: str, precision: str, width: int, height: int, tile: int | None, history: int, evaluations: int
) -> dict[str, float]:
    """Peak bytes above what was there before, and what a plan expects of the whole process."""
    from nst_video.devices.process import settle

    settle()  # before torch is imported, as the command line does: it decides what becomes of memory that is given back
    import torch

    from nst_video.flow.motion import Motion
    from nst_video.networks.encoders import load_encoder
    from nst_video.optimization.budget import Need
    from nst_video.optimization.curvature import Curvature
    from nst_video.options import EffortOptions, LookOptions, MachineOptions
    from nst_video.painting.state import State
    from nst_video.painting.stylizer import Stylizer
    from nst_video.painting.teacher import load_teacher

    look = LookOptions()
    network = load_encoder(encoder, (*look.content_layers, *look.style_layers), precision=precision)
    teacher = load_teacher(network, look.style_layers, precision=precision, tile=tile)
    effort = EffortOptions(encoder=encoder, history=history, tile=tile, first_iterations=1, iterations=evaluations)
    generator = torch.Generator().manual_seed(0)
    stylizer = Stylizer(
        network, [(torch.rand((1, 3, 64, 96), generator=generator), 1.0)], effort=effort, teacher=teacher
    )
    before = peak()
    content = torch.rand((1, 3, height, width), generator=generator)
    pairs = torch.rand((1, 2 * history, content.numel()), generator=generator)
    curvature = Curvature.empty(1, content.numel(), history)
    state = State(
        frame=4,
        outputs=content[:, None].expand(-1, 4, -1, -1, -1).clone(),
        content=content,
        curvature=Curvature(**{**vars(curvature), "pairs": pairs}),
    )
    flows, trust = torch.zeros(1, 3, 2, height, width), torch.full((1, 3, 1, height, width), 0.3)
    begun = time.perf_counter()
    stylizer.step(content, Motion(flows, trust), state)
    seconds = time.perf_counter() - begun
    need = Need.of((width, height), effort, look, MachineOptions(device="cpu", precision=precision))
    assert need is not None
    return {
        "bytes": peak() - before,
        "before": before,
        "seconds": seconds,
        "predicted": need.bytes(history=history, tile=tile),
    }


def compare(encoders: list[str], overlaps: list[int]) -> None:
    """Print how far tiles with these overlaps are from the picture in one piece."""
    import torch
    from torch.nn import functional

    from nst_video.networks.encoders import load_encoder
    from nst_video.optimization import tiled
    from nst_video.optimization.objective import FrameObjective, Weights, style_of
    from nst_video.options import LookOptions

    look, generator = LookOptions(), torch.Generator().manual_seed(0)
    noise = torch.rand((3, 3, 60, 100), generator=generator)
    content, style, start = functional.interpolate(noise, size=(250, 401), mode="bicubic").clamp(0, 1).split(1)
    for name in encoders:
        network = load_encoder(name, (*look.content_layers, *look.style_layers))
        sums = tiled.gram_sums(network, style, look.style_layers)
        options: Any = {
            "content": content,
            "styles": {layer: style_of(network, found.mean, layer) for layer, found in sums.items()},
            "weights": Weights(content=0.05, style=1.0, tv=0.5, temporal=20.0),
        }

        def evaluate(objective: FrameObjective) -> tuple[torch.Tensor, torch.Tensor]:
            image = start.clone().requires_grad_()
            loss, _ = objective(image)
            return loss.detach(), torch.autograd.grad(loss.sum(), image)[0]

        loss, gradient = evaluate(FrameObjective(network, look, **options))
        for overlap in overlaps:
            tiled.overlap_of = lambda *_, shared=overlap: shared  # type: ignore[assignment]
            found = evaluate(tiled.TiledObjective(network, look, tile=320, **options))
            off = [
                float((mine - whole).norm() / whole.norm()) for mine, whole in zip(found, (loss, gradient), strict=True)
            ]
            print(f"{name} overlap {overlap:>3}: loss off by {off[0]:.0e}, gradient by {off[1]:.0e}", flush=True)


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
