"""What a network dreams, as one picture: a frame and its dreams by several layers, and a zoom into a photograph.

    python scripts/dream_sheet.py samples/dreamed.jpg [--size 320] [--quality standard]

The upper row is a frame of samples/bunny.mp4 and what `nst-video dream CLIP OUT.png --still 2` makes of it with the
layers below; the lower row are frames of `nst-video dream samples/chelsea.jpg OUT.mp4 --zoom ...`, a second apart.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nst_video import dream
from nst_video.media.pictures import contact_sheet, read_picture
from nst_video.media.video import VideoReader

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
DREAMS: tuple[dict[str, Any], ...] = (
    {"layers": ("relu5_1",)},
    {"layers": ("relu4_3",)},
    {"guide": str(SAMPLES / "coffee.jpg"), "layers": ("relu4_3",)},
)
# Few frames a second: only some are shown, and each is dreamed on the one before.
ZOOM: dict[str, Any] = {"zoom": 1.35, "rotate": 6, "duration": 4, "rate": 3}


def main() -> None:
    """Dream everything and write the sheet as a JPEG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--quality", default="standard")
    arguments = parser.parse_args()
    common = {"size": arguments.size, "quality": arguments.quality}
    with tempfile.TemporaryDirectory() as folder:
        still, film = Path(folder, "still.png"), Path(folder, "film.mkv")
        pictures: list[np.ndarray] = []
        for options in DREAMS:
            seen: list[np.ndarray] = []
            dream(
                SAMPLES / "bunny.mp4",
                still,
                still="2",
                overwrite=True,
                progress=lambda done, seen=seen: seen.append(done.before),
                **common,
                **options,
            )
            pictures += [read_picture(still)] if pictures else [seen[0], read_picture(still)]
        dream(SAMPLES / "chelsea.jpg", film, codec="ffv1", **common, **ZOOM)
        with VideoReader(film) as reader:
            frames = np.concatenate([batch.rgb for batch in reader])
    # Two of them, as the clip and the photograph are not of one shape.
    rows = [contact_sheet(row, columns=4) for row in (pictures, list(frames[:: ZOOM["rate"]]))]
    Image.fromarray(np.concatenate(rows)).save(arguments.sheet, quality=82)


if __name__ == "__main__":
    sys.exit(main())
