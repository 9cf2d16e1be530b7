"""Reading and writing still pictures (Pillow): always uint8 sRGB arrays on this side, whatever the file holds."""

import io
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from nst_video.errors import InputError, ResourceError, UsageError
from nst_video.files import disk_errors, sync, temporary


def _reads_avif() -> bool:
    """Whether this Pillow decodes AVIF, as its wheels do since 11.3."""
    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return False
    return bool(AvifImagePlugin.SUPPORTED)


# Suffix -> Pillow's name of the format that is written.
PICTURE_SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
READ_ONLY = {".avif": "AVIF"} if _reads_avif() else {}
READ_SUFFIXES = (*PICTURE_SUFFIXES, *READ_ONLY)  # of pictures as input; a gif is a video there
# The only formats that are ever opened, whatever a file is called.
FORMATS = (*dict.fromkeys(PICTURE_SUFFIXES.values()), "GIF", *READ_ONLY.values())
READABLE = f"png, jpg, webp, bmp, tif{', avif' if READ_ONLY else ''} or gif"
DEFAULT_MAX_PIXELS = 1 << 26
MAX_SIDE = 32767  # pixels; JPEG, TIFF readers and resizers stop somewhere above it
SAVE_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
# Pillow's readers raise what their arithmetic meets in a damaged file: a TypeError for a fraction in the EXIF data, a
# struct.error for a chunk that is too short. A lack of memory is none of these.
PARSER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error),
)
WHITE = (255, 255, 255)


def read_picture(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> np.ndarray:
    """The picture as uint8 (H, W, 3) sRGB: upright by its EXIF tag, its colour profile applied, transparency on white.

    Raises InputError when the file is missing, not a picture, damaged, or over `max_pixels` (default 67 million).
    """
    with _quiet():
        return decode_picture(os.fspath(path), max_pixels)


def decode_picture(path: str, max_pixels: int | None = None) -> np.ndarray:
    """As read_picture, but for threads: Pillow's warnings may show, as hiding them is not safe beside other threads."""
    with _opened(path, max_pixels or DEFAULT_MAX_PIXELS) as image:
        upright = ImageOps.exif_transpose(image)
        return np.array(_flatten(_to_srgb(_to_eight_bits(upright), upright.info.get("icc_profile"))))


def picture_size(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> tuple[int, int]:
    """(width, height) in pixels of the upright picture, from its header alone. Raises as read_picture."""
    with _quiet(), _opened(os.fspath(path), max_pixels or DEFAULT_MAX_PIXELS) as image:
        width, height = image.size
        # The size of a TIFF is that after turning, whatever its tag says; that of other formats is as stored.
        sideways = image.format != "TIFF" and image.getexif().get(0x0112, 1) >= 5
    return (height, width) if sideways else (width, height)


def picture_format(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format that the suffix of `path` chooses. Raises UsageError for an unknown one."""
    suffix = Path(path).suffix
    if suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(
            f"{os.fspath(path)}: cannot write a picture with the suffix {suffix!r}; use {', '.join(PICTURE_SUFFIXES)}"
        )
    return PICTURE_SUFFIXES[suffix.lower()]


def write_picture(path: str | os.PathLike[str], rgb: np.ndarray) -> None:
    """Writes uint8 (H, W, 3) sRGB; the suffix chooses the format. The file appears complete or not at all.

    Raises UsageError for an unknown suffix, ResourceError when the folder cannot be written or the disk is full.
    """
    target, kind = Path(path), picture_format(path)
    if not target.parent.is_dir():
        raise ResourceError(f"the folder {target.parent} does not exist; make it first or write elsewhere")
    part = temporary(target)
    try:
        with disk_errors(target):
            Image.fromarray(np.ascontiguousarray(rgb)).save(part, format=kind, **SAVE_OPTIONS.get(kind, {}))
            sync(part)
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def contact_sheet(
    top: Sequence[np.ndarray],
    bottom: Sequence[np.ndarray] = (),
    *,
    columns: int = 6,
    gap: int = 4,
    cell_width: int | None = None,
) -> np.ndarray:
    """uint8 (H, W, 3): rows of `columns` pictures of `top`, each above its partner in `bottom`, on white with `gap`
    pixels between.

    All cells have the size of the first picture (`cell_width` pixels wide when given, aspect kept); others are resized
    to it.
    """
    if not top:
        raise UsageError("a contact sheet needs at least one picture")
    if bottom and len(bottom) != len(top):
        raise UsageError(f"a contact sheet pairs its pictures: got {len(top)} above and {len(bottom)} below")
    height, width = top[0].shape[:2]
    if cell_width is not None:
        height, width = max(round(height * cell_width / width), 1), cell_width
    columns = min(columns, len(top))
    bands = [list(top[start : start + columns]) for start in range(0, len(top), columns)]
    if bottom:
        below = [list(bottom[start : start + columns]) for start in range(0, len(top), columns)]
        bands = [row for pair in zip(bands, below, strict=True) for row in pair]
    sheet = np.full((len(bands) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for row, band in enumerate(bands):
        for column, picture in enumerate(band):
            y, x = gap + row * (height + gap), gap + column * (width + gap)
            sheet[y : y + height, x : x + width] = _resized(picture, width, height)
    return sheet


def _resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).resize((width, height), Image.Resampling.LANCZOS))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings about tags it cannot read; that of a decompression bomb becomes an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(name: str, max_pixels: int) -> Iterator[Image.Image]:
    if not name:
        raise InputError(f"the name of a picture is empty; give a file ({READABLE})")
    if not os.path.exists(name):
        raise InputError(f"{name} does not exist")
    if not os.path.isfile(name):
        raise InputError(f"{name} is not a file; a picture ({READABLE}) is needed")
    limit = min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels)  # Pillow has one of its own, against zip bombs
    try:
        with Image.open(name, formats=FORMATS) as image:
            width, height = image.size
            if width * height > limit or max(width, height) > MAX_SIDE:
                raise _too_large(name, f"{width} x {height} pixels", limit)
            yield image
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not a picture that can be read; use {READABLE}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, f"more than {limit} pixels", limit) from error
    except PermissionError as error:
        raise InputError(f"{name} cannot be read: permission denied") from error
    except PARSER_ERRORS as error:
        raise InputError(f"{name} is damaged or not a picture ({READABLE}): {error}") from error


def _too_large(name: str, size: str, max_pixels: int) -> InputError:
    return InputError(
        f"{name} is {size}; pictures up to {max_pixels} pixels and {MAX_SIDE} pixels a side are read: make it smaller"
    )


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit and float grey when it converts; scale them instead."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return _scaled_grey(np.asarray(image), 1 / 257)
    if image.mode == "F":
        values = np.asarray(image)
        return _scaled_grey(values, 255 if values.max() <= 1 else 1)
    return image


def _scaled_grey(values: np.ndarray, scale: float) -> Image.Image:
    """Row by row: the float64 in between of a whole large picture would take gigabytes. Not-a-number becomes black."""
    grey = np.empty(values.shape, np.uint8)
    for row, source in zip(grey, values, strict=True):
        row[:] = np.clip(np.rint(np.nan_to_num(source.astype(np.float64), nan=0.0) * scale), 0, 255)
    return Image.fromarray(grey)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """`image` in sRGB, RGB or RGBA; a profile that does not fit its pixels is ignored, as browsers do."""
    if image.mode in ("P", "PA", "1") or "transparency" in image.info:
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    colour = image.convert({"RGBA": "RGB", "LA": "L", "RGBa": "RGB", "La": "L"}.get(image.mode, image.mode))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            colour = (
                ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB") or colour
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    colour = colour.convert("RGB")
    if alpha is not None:
        colour.putalpha(alpha)
    return colour


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, (*WHITE, 255)), image).convert("RGB")
