"""Pictures in every form come out upright, in sRGB and opaque; what is no picture is refused in one line."""

import io
import os
import struct
import zlib
from pathlib import Path

import media
import numpy as np
import pytest
from PIL import Image, ImageCms

from nst_video.errors import InputError, ResourceError, UsageError
from nst_video.media.pictures import (
    PICTURE_SUFFIXES,
    READ_SUFFIXES,
    contact_sheet,
    picture_size,
    read_picture,
    write_picture,
)
from nst_video.media.probe import probe
from nst_video.options import OutputOptions
from nst_video.planning import make_plan

RGB = media.picture(5, 40, 30)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_a_picture_written_is_the_picture_read(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_picture(path, RGB)
    found = read_picture(path)
    assert (found.shape, found.dtype) == (RGB.shape, np.uint8)
    lossless = suffix not in (".jpg", ".jpeg")
    assert np.abs(found.astype(int) - RGB).mean() <= (0 if lossless else 3)
    assert picture_size(path) == (40, 30)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(".avif" not in READ_SUFFIXES, reason="this Pillow decodes no AVIF")
def test_avif_is_read_as_style_and_as_input(tmp_path):
    path = save(tmp_path / "picture.avif", Image.fromarray(RGB), quality=95, subsampling="4:4:4")
    assert np.abs(read_picture(path).astype(int) - RGB).mean() <= 4
    assert (probe(path).kind, probe(path).width, probe(path).height) == ("picture", 40, 30)
    plan = make_plan(path, path, tmp_path / "out.mp4", options=OutputOptions(duration=1))  # by the guarded look
    assert plan.frames == 25
    with pytest.raises(UsageError, match=r"cannot write '\.avif'"):
        make_plan(path, path, tmp_path / "out.avif")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"picture\.avif is damaged"):
        read_picture(path)


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [("L", 0), ("LA", 0), ("P", 40), ("1", 0), ("CMYK", 2), ("YCbCr", 2), ("RGBA", 0), ("RGB", 0)],
)
def test_every_mode_becomes_rgb(tmp_path, mode, tolerance):
    image = Image.fromarray(RGB)
    plain = image.convert("L") if mode in ("L", "LA", "1") else image
    suffix = {"CMYK": ".tif", "YCbCr": ".jpg"}.get(mode, ".png")
    path = save(
        tmp_path / f"picture{suffix}",
        plain.convert(mode),
        **({"quality": 100, "subsampling": 0} if suffix == ".jpg" else {}),
    )
    expected = np.asarray(plain.convert("1" if mode == "1" else "RGB").convert("RGB")).astype(int)
    assert np.abs(read_picture(path) - expected).mean() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """Each EXIF orientation stores a picture so that it is upright only when turned."""
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(turned))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = save(tmp_path / "picture.png", image, exif=exif)
    np.testing.assert_array_equal(read_picture(path), RGB)
    assert picture_size(path) == (40, 30)


def test_a_colour_profile_is_converted_to_srgb(tmp_path):
    """A profile with linear response and sRGB's primaries: 50 % of light is 188 of 255 in sRGB."""
    linear = np.full((8, 8, 3), 128, np.uint8)
    path = save(tmp_path / "linear.png", Image.fromarray(linear), icc_profile=_linear_profile())
    assert np.abs(read_picture(path).astype(int) - 188).max() <= 2


def test_an_srgb_profile_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path / "srgb.png", Image.fromarray(RGB), icc_profile=profile)
    assert np.abs(read_picture(path).astype(int) - RGB).max() <= 1


def test_a_profile_keeps_transparency(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(0)
    path = save(tmp_path / "clear.png", image, icc_profile=profile)
    assert (read_picture(path) == 255).all()


@pytest.mark.parametrize("profile", [b"not a profile", b""])
def test_a_broken_profile_is_ignored(tmp_path, profile):
    path = save(tmp_path / "odd.png", Image.fromarray(RGB), icc_profile=profile)
    np.testing.assert_array_equal(read_picture(path), RGB)


def test_transparency_is_flattened_on_white(tmp_path):
    rgba = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    rgba[:10, :, 3] = 0
    rgba[10:20, :, 3] = 128
    found = read_picture(save(tmp_path / "clear.png", Image.fromarray(rgba))).astype(int)
    assert (found[:10] == 255).all()
    assert np.abs(found[10:20] - (RGB[10:20].astype(int) + 255) / 2).max() <= 2
    np.testing.assert_array_equal(found[20:], RGB[20:])


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    found = read_picture(save(tmp_path / "palette.png", image, transparency=0))
    assert found.tolist() == [[[255, 255, 255], [200, 100, 50]], [[200, 100, 50], [255, 255, 255]]]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = read_picture(save(tmp_path / "grey.png", Image.fromarray(ramp)))
    assert np.abs(found[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1
    assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_pictures_are_scaled_by_their_range(tmp_path, top):
    ramp = np.linspace(0, top, 256).astype(np.float32).reshape(16, 16)
    found = read_picture(save(tmp_path / "grey.tif", Image.fromarray(ramp)))
    assert np.abs(found[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


def test_the_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "picture.jpg"
    Image.fromarray(RGB).save(path, format="PNG")
    np.testing.assert_array_equal(read_picture(path), RGB)


def _missing(path: Path) -> Path:
    return path


def _text(path: Path) -> Path:
    path.write_text("a picture says more than these words\n" * 20)
    return path


def _truncated(path: Path) -> Path:
    write_picture(path, media.picture(0, 200, 200))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def _video(path: Path) -> Path:
    media.make_video(path.with_suffix(".mp4"), frames=2).rename(path)
    return path


def _wide(path: Path) -> Path:
    Image.new("RGB", (50_000, 2)).save(path)
    return path


def _claims(width: int, height: int):
    """A png of a few bytes whose header promises `width` x `height` pixels."""

    def make(path: Path) -> Path:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        return path

    return make


def _postscript(path: Path) -> Path:
    """What Pillow would hand to another program if it were let."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


REFUSED = {
    "missing": (_missing, "does not exist"),
    "empty": (lambda path: path.write_bytes(b"") or path, "not a picture that can be read"),
    "text": (_text, "not a picture that can be read"),
    "truncated": (_truncated, "is damaged or not a picture"),
    "a video": (_video, "not a picture that can be read"),
    "postscript": (_postscript, "not a picture that can be read"),
    "50,000 pixels wide": (_wide, "50000 x 2 pixels; pictures up to"),
    "50,000 pixels a side": (_claims(50_000, 50_000), "more than .* pixels; pictures up to"),
    "9,000 pixels a side": (_claims(9_000, 9_000), "9000 x 9000 pixels; pictures up to"),
    "a lie about its size": (_claims(1_000, 1_000), "is damaged or not a picture"),
    "a folder": (_folder, "is not a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(tmp_path, case):
    make, line = REFUSED[case]
    path = make(tmp_path / "picture.png")
    with pytest.raises(InputError, match=line) as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)
    assert "picture.png" in str(caught.value)


def test_the_limit_of_pixels_can_be_set(tmp_path):
    path = tmp_path / "picture.png"
    write_picture(path, RGB)
    assert read_picture(path, max_pixels=1200).shape == (30, 40, 3)
    for use in (read_picture, picture_size):
        with pytest.raises(InputError, match="40 x 30 pixels; pictures up to 1199 pixels"):
            use(path, max_pixels=1199)


def test_an_unknown_suffix_or_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"suffix '\.psd'; use \.png"):
        write_picture(tmp_path / "picture.psd", RGB)
    with pytest.raises(ResourceError, match="does not exist"):
        write_picture(tmp_path / "no" / "picture.png", RGB)
    assert os.listdir(tmp_path) == []


def test_a_picture_that_fails_to_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_picture(path, RGB.astype(np.float64))
    assert os.listdir(tmp_path) == ["picture.png"]
    assert path.read_bytes() == b"old"


def test_a_contact_sheet_shows_pairs_above_each_other():
    top = [np.full((6, 10, 3), 10 * number, np.uint8) for number in range(5)]
    bottom = [np.full((6, 10, 3), 100 + 10 * number, np.uint8) for number in range(5)]
    sheet = contact_sheet(top, bottom, columns=3, gap=2)
    assert sheet.shape == (2 + 4 * (6 + 2), 2 + 3 * (10 + 2), 3)
    assert (sheet[0] == 255).all()
    for number in range(5):
        y, x = 2 + (number // 3) * 16, 2 + number % 3 * 12
        assert (sheet[y : y + 6, x : x + 10] == top[number]).all()
        assert (sheet[y + 8 : y + 14, x : x + 10] == bottom[number]).all()
    assert (sheet[-10:, -12:] == 255).all()  # the empty last cell


def test_a_contact_sheet_scales_to_one_size():
    pictures = [media.picture(0, 96, 64), media.picture(1, 48, 32)]
    sheet = contact_sheet(pictures, columns=6, gap=4, cell_width=48)
    assert sheet.shape == (4 + 32 + 4, 2 * (48 + 4) + 4, 3)
    assert [media.number_of(sheet[4:36, x : x + 48]) for x in (4, 56)] == [0, 1]
    with pytest.raises(UsageError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(UsageError, match="2 above and 1 below"):
        contact_sheet(pictures, pictures[:1])


def _linear_profile() -> bytes:
    """An ICC profile with the primaries of sRGB and a response of 1: sRGB's own with its curves replaced."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for number in range(count):
        place = 132 + 12 * number
        tag, offset, size = struct.unpack(">4sII", profile[place : place + 12])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            curve = b"curv" + bytes(8)  # no entries: the identity
            profile[offset : offset + size] = curve.ljust(size, b"\0")
    return bytes(profile)


def test_the_test_profile_is_a_profile():
    assert ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(_linear_profile())))
