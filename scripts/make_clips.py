"""Makes the benchmark's clips with exact ground truth from the photographs in samples/.

`pan` is a photograph panned, zoomed and rotated; `cuts` is three shots joined by hard cuts; `still` is a still scene
with sensor noise. Beside each clip lies a JSON file with the affine map of every frame, from which `true_flow` gives
the exact optical flow at any size.

    python scripts/make_clips.py FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

ByteArray = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Affine = NDArray[np.float64]

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
SIZE = (512, 288)
RATE = 25
SUPERSAMPLE = 3
BT709, LIMITED = 1, 1


@dataclass(frozen=True)
class Shot:
    """A camera move over a photograph. Places and widths are shares of the photograph's width and height."""

    photo: str
    frames: int
    start: tuple[float, float]  # centre of the first frame
    stop: tuple[float, float]  # centre of the last frame
    width: tuple[float, float]  # share of the photograph's width in view, first and last
    angle: tuple[float, float] = (0.0, 0.0)  # degrees
    sway: float = 0.0  # sideways swing of the path, share of the photograph's height
    noise: float = 0.0  # standard deviation of the sensor noise in 8-bit levels


CLIPS = {
    "pan": (
        Shot("coffee.jpg", 48, start=(0.39, 0.38), stop=(0.60, 0.58), width=(0.60, 0.51), angle=(-4.0, 4.0), sway=0.03),
    ),
    "cuts": (
        Shot("chelsea.jpg", 16, start=(0.42, 0.42), stop=(0.56, 0.52), width=(0.76, 0.66), angle=(0.0, 2.0)),
        Shot("rocket.jpg", 16, start=(0.46, 0.62), stop=(0.50, 0.48), width=(0.70, 0.74)),
        Shot("coffee.jpg", 16, start=(0.60, 0.42), stop=(0.48, 0.52), width=(0.70, 0.78), angle=(3.0, 0.0)),
    ),
    "still": (Shot("chelsea.jpg", 24, start=(0.5, 0.45), stop=(0.5, 0.45), width=(0.92, 0.92), noise=2.0),),
}


def make_clips(folder: str | Path, samples: str | Path = SAMPLES) -> dict[str, Path]:
    """Write every clip as FOLDER/NAME.mp4 with FOLDER/NAME.json beside it; returns the clips' paths by name.

    Raises FileNotFoundError if a photograph is missing from `samples`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, shots in CLIPS.items():
        paths[name] = folder / f"{name}.mp4"
        photos = [read_photo(Path(samples) / shot.photo) for shot in shots]
        maps = [[camera(shot, k, photo) for k in range(shot.frames)] for shot, photo in zip(shots, photos, strict=True)]
        encode(
            paths[name], (frame for p, m, s in zip(photos, maps, shots, strict=True) for frame in film(p, m, s.noise))
        )
        truth = {"size": SIZE, "rate": RATE, "shots": [[matrix.tolist() for matrix in shot] for shot in maps]}
        paths[name].with_suffix(".json").write_text(json.dumps(truth))
    return paths


def true_flow(clip: str | Path, frame: int, size: tuple[int, int] = SIZE, distance: int = 1) -> FloatArray:
    """Backward flow float32 (H, W, 2), (dx, dy) in pixels of `size` (width, height): current(x) = reference(x + flow).

    The reference is the frame `distance` before `frame`. `clip` is the path of the mp4 or of its JSON file. Where x +
    flow leaves the picture the reference does not show the place. Raises ValueError if the clip has no such frame or
    the two frames belong to different shots.
    """
    truth = json.loads(Path(clip).with_suffix(".json").read_text())
    shot, current = locate([len(shot) for shot in truth["shots"]], frame)
    if not 0 <= current - distance < len(truth["shots"][shot]):
        raise ValueError(f"frame {frame} is number {current} of its shot; it has no frame {distance} before it there")
    matrices = truth["shots"][shot]
    return flow_between(np.array(matrices[current]), np.array(matrices[current - distance]), truth["size"], size)


def locate(lengths: list[int], frame: int) -> tuple[int, int]:
    """Number of the shot that holds a frame, and the frame's place in that shot."""
    ends = np.cumsum(lengths)
    if not 0 <= frame < ends[-1]:
        raise ValueError(f"frame {frame} asked for; the clip has frames 0 to {ends[-1] - 1}")
    shot = int(np.searchsorted(ends, frame, side="right"))
    return shot, frame - int(ends[shot]) + lengths[shot]


def flow_between(current: Affine, reference: Affine, native: tuple[int, int], size: tuple[int, int]) -> FloatArray:
    """Flow (H, W, 2) in pixels of `size` between two camera maps given in pixels of `native`, both (width, height)."""
    back = np.linalg.inv(square(reference)) @ square(current)
    scale = np.array(native, np.float64) / np.array(size, np.float64)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    # Pixel centres are at half-integers when a picture is resized.
    place = (np.stack([x, y], -1) + 0.5) * scale - 0.5
    seen = place @ back[:2, :2].T + back[:2, 2]
    return np.asarray((seen - place) / scale, np.float32)


def square(matrix: Affine) -> Affine:
    """(2, 3) affine map as a (3, 3) matrix."""
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def read_photo(path: Path) -> ByteArray:
    """uint8 RGB (H, W, 3); raises FileNotFoundError with the way to make it."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"no photograph {path}; scripts/make_samples.py writes it")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def camera(shot: Shot, frame: int, photo: ByteArray) -> Affine:
    """Affine map (2, 3) from pixels of the clip to pixels of the photograph at one frame of a shot.

    Raises ValueError if a corner of the frame leaves the photograph, for the clip would show what is not known.
    """
    height, width = photo.shape[:2]
    share = frame / max(shot.frames - 1, 1)
    across, angle = (a + (b - a) * share for a, b in (shot.width, shot.angle))
    x, y = (a + (b - a) * share for a, b in zip(shot.start, shot.stop, strict=True))
    centre = np.array([x * width, (y + shot.sway * np.sin(2 * np.pi * share)) * height])
    turn = np.radians(angle)
    linear = across * width / SIZE[0] * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = (np.array(SIZE) - 1) / 2
    matrix = np.column_stack([linear, centre - linear @ middle])
    corners = np.array([[x, y, 1.0] for x in (0, SIZE[0] - 1) for y in (0, SIZE[1] - 1)]) @ matrix.T
    if corners.min() < 1 or np.any(corners > np.array([width, height]) - 2):
        raise ValueError(
            f"frame {frame} of the shot over {shot.photo} leaves the photograph of {width}x{height} pixels"
        )
    return matrix


def film(photo: ByteArray, maps: list[Affine], noise: float) -> Iterator[ByteArray]:
    """Frames uint8 (H, W, 3) of one shot: cubic interpolation on a finer grid, then averaged: nothing aliases."""
    rng = np.random.default_rng(len(maps))
    fine = (SIZE[0] * SUPERSAMPLE, SIZE[1] * SUPERSAMPLE)
    offset = (1 - SUPERSAMPLE) / (2 * SUPERSAMPLE)
    refine = np.array([[1 / SUPERSAMPLE, 0, offset], [0, 1 / SUPERSAMPLE, offset], [0, 0, 1.0]])
    source = photo.astype(np.float32)
    for matrix in maps:
        view = cv2.warpAffine(source, matrix @ refine, fine, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
        frame = cv2.resize(view, SIZE, interpolation=cv2.INTER_AREA)
        if noise:
            frame = frame + rng.normal(0.0, noise, frame.shape)
        yield np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def encode(path: Path, frames: Iterator[ByteArray]) -> None:
    """Write RGB frames (H, W, 3) as nearly lossless H.264 with the BT.709 tags that fit its pixels."""
    reformatter = VideoReformatter()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "10", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        context = stream.codec_context
        context.thread_count = 1  # the bits depend on the number of threads
        context.color_range, context.colorspace = LIMITED, BT709
        context.color_primaries, context.color_trc = BT709, BT709
        for number, rgb in enumerate(frames):
            picture = reformatter.reformat(
                av.VideoFrame.from_ndarray(rgb, format="rgb24"),
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the clips are written")
    for path in make_clips(parser.parse_args().folder).values():
        print(f"{path}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
