"""Between FFmpeg's frames and RGB arrays, both ways; no conversion is left to a codec's guess."""

import logging
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

from nst_video.media.color_tags import FULL, SCALER_MATRIX, ColorTags
from nst_video.media.containers import is_rgb
from nst_video.media.videoinfo import VideoInfo

log = logging.getLogger(__name__)

# Flags of libswscale, by value: PyAV names only some of them in its older versions. Without the exact ones the scaler
# takes short cuts: nearest chroma, and errors of 3 levels instead of 2.
_EXACT = 0x2000 | 0x4000 | 0x40000 | 0x80000  # full chroma in, full chroma out, accurate rounding, bit-exact
_SHRINK = 0x20 | _EXACT  # area averaging
_ENLARGE = 0x4 | _EXACT  # bicubic
_PALETTE_SIZE = 256


class ToRgb:
    """Decoded frames to uint8 (height, width, 3) RGB of one size, upright. One per thread: it holds the scaler."""

    def __init__(self, info: VideoInfo, size: tuple[int, int]) -> None:
        self.info, self.size = info, size
        self.reformatter = VideoReformatter()
        self.stored: tuple[int, int] | None = None
        # An odd size loses its last column or row rather than being resampled by a fraction of a pixel.
        even = (info.width // 2 * 2, info.height // 2 * 2)
        self.target = (info.width, info.height) if size == even else size
        if self.target != size:
            odd = f"{info.width} x {info.height}"
            log.warning("%s is %s; it is cropped to %d x %d, even numbers", info.path, odd, *size)

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        sideways = self.info.rotation in (90, 270)
        width, height = self.target[::-1] if sideways else self.target
        rgb = self._scaled(frame, width, height)
        if self.info.mirrored:
            rgb = rgb[:, ::-1]
        rgb = np.rot90(rgb, -self.info.rotation // 90)
        return rgb[: self.size[1], : self.size[0]]

    def _scaled(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        rgb_source = is_rgb(frame)
        if self.stored not in (None, (frame.width, frame.height)):
            log.warning("%s changes its size to %d x %d; it is fitted", self.info.path, frame.width, frame.height)
        self.stored = (frame.width, frame.height)
        converted = self.reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=None if rgb_source else SCALER_MATRIX[self.info.color.matrix],
            src_color_range=None if rgb_source else self.info.color.range,
            dst_color_range=FULL,
            interpolation=_SHRINK if width < frame.width or height < frame.height else _ENLARGE,
            threads=1,
        )
        return converted.to_ndarray()


class FromRgb:
    """uint8 (H, W, 3) RGB to frames of an encoder's pixel format. One per thread: it holds the scaler."""

    def __init__(self, pixel_format: str, color: ColorTags) -> None:
        self.pixel_format, self.color = pixel_format, color
        self.reformatter = VideoReformatter()

    def __call__(self, rgb: np.ndarray) -> VideoFrame:
        if self.pixel_format == "pal8":
            return _with_palette(rgb)
        is_yuv = "yuv" in self.pixel_format
        frame = self.reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format=self.pixel_format,
            src_color_range=FULL,
            dst_colorspace=SCALER_MATRIX[self.color.matrix] if is_yuv else None,
            dst_color_range=self.color.range if is_yuv else FULL,
            interpolation=_ENLARGE,
            threads=1,
        )
        # Some encoders ask the frame, others their context; not converted, only said.
        frame.color_primaries, frame.color_trc = self.color.primaries, self.color.transfer
        return frame


def _with_palette(rgb: np.ndarray) -> VideoFrame:
    """The best 256 colours of this frame, dithered."""
    image = Image.fromarray(rgb)
    palette_image = image.quantize(_PALETTE_SIZE, method=Image.Quantize.MEDIANCUT)
    indices = np.asarray(image.quantize(palette=palette_image, dither=Image.Dither.FLOYDSTEINBERG))
    colours = np.asarray(palette_image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = np.full((_PALETTE_SIZE, 4), 255, np.uint8)  # alpha, red, green, blue
    palette[: len(colours), 1:] = colours
    pair: Any = (indices, palette)
    return av.VideoFrame.from_ndarray(pair, format="pal8")
