"""Pictures to learn from: free wallpapers and photographs of public packages, generated paintings; crops of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from paintings import engraving, glass, mosaic, oil, woodblock
from paintings.fields import Size
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from nst_video.errors import NstVideoError
from nst_video.media.pictures import read_picture

# Debian package -> licence of the pictures in it (its own `copyright` file names each author).
WALLPAPERS = {
    "gnome-backgrounds": "CC BY-SA 3.0 and others",
    "lomiri-wallpapers": "CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0",
    "lomiri-wallpapers-16.04": "CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0",
    "lomiri-wallpapers-20.04": "CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0",
    "mate-backgrounds": "GPL 2 or later, CC BY-SA 4.0",
    "plasma-workspace-wallpapers": "GPL 2 or later",
    "ukui-wallpapers": "CC BY-SA 3.0",
}
# Painted scenes and portraits of a game (The Battle for Wesnoth).
ILLUSTRATIONS = {
    "wesnoth-1.16-httt": "GPL 2 or later",
    "wesnoth-1.16-low": "GPL 2 or later",
    "wesnoth-1.16-nr": "GPL 2 or later",
    "wesnoth-1.16-trow": "GPL 2 or later",
    "wesnoth-1.16-tsg": "GPL 2 or later",
    "wesnoth-1.16-utbs": "GPL 2 or later",
}
SCENES, PORTRAITS = "images/story/*.jpg", "images/portraits/**/*.png"
SMALLEST_PORTRAIT = 120_000  # bytes
# Photographs in a Python package (BSD-3-Clause; the documentation of skimage.data has the terms of each).
PHOTOGRAPHS = "scikit-image==0.26.0"
# In samples/: the benchmarks' clips are made of them, so no student may have seen them.
WITHHELD = ("chelsea", "coffee", "rocket")
GENERATORS = {"engraving": engraving, "glass": glass, "mosaic": mosaic, "oil": oil, "woodblock": woodblock}
PAINTED = Size(960, 720)
FIRST_SEED = 1  # 0 painted the samples

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LONG_SIDE = 1600  # of a picture in memory
SMALLEST_FILE = 20_000  # bytes: smaller ones are icons and previews
SCALES = (160.0, 1024.0)  # long side in pixels of the picture that a crop is taken from, as frames and styles have


def fetch(folder: Path, seeds: int) -> None:
    """Fill `folder`, once, with the pictures of the packages and `seeds` paintings of each generator."""
    done = folder / "done"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for package in WALLPAPERS:
        unpack(package, folder / "wallpapers")
    for package in ILLUSTRATIONS:
        unpack(package, folder / "game")
    keep_illustrations(folder / "game", folder / "illustrations")
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PHOTOGRAPHS, folder=folder)
    (wheel,) = folder.glob("scikit_image-*.whl")
    with zipfile.ZipFile(wheel) as archived:
        members = [name for name in archived.namelist() if name.startswith("skimage/data/")]
        archived.extractall(folder / "photographs", members)
    wheel.unlink()
    paint(folder / "paintings", seeds)
    done.touch()


def unpack(package: str, folder: Path) -> None:
    """The files of a Debian package, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    run("apt-get", "download", package, folder=folder.parent)
    (archive,) = folder.parent.glob(f"{package}_*.deb")
    run("dpkg-deb", "-x", archive.name, folder.name, folder=folder.parent)
    archive.unlink()


def keep_illustrations(game: Path, folder: Path) -> None:
    """Move what is painted, and no map, sign or figure of a few pixels, from the packages' files into `folder`."""
    portraits = [file for file in game.rglob(PORTRAITS) if file.stat().st_size >= SMALLEST_PORTRAIT]
    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(sorted([*game.rglob(SCENES), *portraits])):
        picture.rename(folder / f"{number}-{picture.name}")
    shutil.rmtree(game)


def run(*command: str, folder: Path) -> None:
    """A program, in `folder`; CalledProcessError when it fails."""
    subprocess.run(command, cwd=folder, check=True)


def paint(folder: Path, seeds: int, size: Size = PAINTED) -> None:
    """`seeds` paintings of each generator."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, generator in GENERATORS.items():
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            Image.fromarray(generator.paint(size, seed)).save(folder / f"{name}{seed}.png")


def load(folders: list[Path]) -> list[np.ndarray]:
    """Every picture below `folders`, uint8 (H, W, 3), no side longer than LONG_SIDE; one that cannot be read is left
    out.
    """
    files = sorted({file for folder in folders for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES})
    found = []
    for file in files:
        if file.stem in WITHHELD or file.stat().st_size < SMALLEST_FILE or file.is_symlink():
            continue
        try:
            rgb = read_picture(file, max_pixels=2**27)
        except NstVideoError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        factor = LONG_SIDE / max(rgb.shape[:2])
        found.append(cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else rgb)
    return found


@dataclass(frozen=True)
class Crops:
    """Random squares of pictures, at random scales, with the colours changed at random."""

    pictures: list[np.ndarray]

    def sample(self, count: int, side: int, rng: np.random.Generator) -> Tensor:
        """(count, 3, side, side) in [0, 1]."""
        return torch.stack([self._one(side, rng) for _ in range(count)])

    def _one(self, side: int, rng: np.random.Generator) -> Tensor:
        picture = self.pictures[rng.integers(len(self.pictures))]
        height, width = picture.shape[:2]
        long = np.exp(rng.uniform(*np.log(SCALES)))
        # Pixels of the picture beneath the crop: as if the picture had been brought to `long` first.
        edge = int(np.clip(side * max(height, width) / long, min(side, height, width) // 2, min(height, width)))
        top, left = rng.integers(height - edge + 1), rng.integers(width - edge + 1)
        square = picture[top : top + edge, left : left + edge]
        shrinks = edge > side
        crop = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return recolour(torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float() / 255, rng)


@dataclass(frozen=True)
class Batches(Dataset[Tensor]):
    """Of crops: the same for the same step and seed, whoever cuts them."""

    crops: Crops
    count: int
    side: int
    seed: int

    def __getitem__(self, step: int) -> Tensor:
        """(count, 3, side, side) in [0, 1]."""
        return self.crops.sample(self.count, self.side, np.random.default_rng((self.seed, step)))


def alone(worker: int) -> None:
    """Of a process that cuts crops beside others: one thread."""
    cv2.setNumThreads(1)


def recolour(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """A crop (3, s, s) mirrored, with other brightness or saturation, channels exchanged, or noise, each at random."""
    if rng.random() < 0.5:
        crop = crop.flip(2)
    if rng.random() < 0.2:
        crop = crop[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.5:
        grey = crop.mean(0, keepdim=True)
        crop = grey + (crop - grey) * float(rng.uniform(0.0, 1.8))
        crop = (crop - 0.5) * float(np.exp(rng.uniform(-0.5, 0.4))) + 0.5 + float(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.15:
        crop = crop + torch.from_numpy(rng.normal(0, rng.uniform(0.01, 0.1), crop.shape).astype(np.float32))
    return crop.clamp(0, 1)
