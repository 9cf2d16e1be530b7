"""What is drawn over the picture."""

from dataclasses import replace

import numpy as np
import pytest
from live_tools import shown

from nst_video.live.desk import KEYS, Look, Setting, View, key_lines
from nst_video.live.outputs import Facts
from nst_video.live.overlay import composed, information


def facts(look=None, recording="", message="", **view):
    return Facts(
        time=0.0,
        setting=Setting(look or Look(), View(**view)),
        rate=23.97,
        camera_rate=30.0,
        latency=0.0884,
        dropped=17,
        recording=recording,
        message=message,
        styles=("night", "wave"),
    )


def test_nothing_to_draw_is_the_picture_itself():
    picture = shown()
    assert composed(picture, facts()) is picture.rgb


@pytest.mark.parametrize(
    "said", [{"information": True}, {"help": True}, {"message": "gone"}, {"recording": "a.mp4"}, {"original": "over"}]
)
def test_the_arrays_of_the_picture_are_not_drawn_into(said):
    picture = shown(size=(512, 288))
    rgb, before = picture.rgb.copy(), picture.before.copy()
    drawn = composed(picture, facts(**said))
    assert drawn.shape == rgb.shape
    assert drawn.dtype == np.uint8
    assert not np.array_equal(drawn, rgb)
    assert np.array_equal(picture.rgb, rgb)
    assert np.array_equal(picture.before, before)


def test_the_original_beside():
    picture = shown()
    assert np.array_equal(composed(picture, facts(original="beside")), np.hstack((picture.before, picture.rgb)))


def test_the_original_over_is_half_of_each():
    picture = shown()
    half = (picture.rgb.astype(np.float64) + picture.before) / 2
    assert np.abs(composed(picture, facts(original="over")) - half).max() <= 0.5


def test_information_says_what_is_known():
    lines = "\n".join(information(shown(), replace(facts(recording="dir/a.mp4"), lost=3)))
    for what in ("24.0 frames/s", "88 ms", "160 x 90", "3 evaluations", "cpu", "30.0", "17 dropped", "style 1/2"):
        assert what in lines
    assert "a.mp4, 3 frames lost" in lines


@pytest.mark.parametrize("size", [(2, 2), (16, 8), (64, 36), (160, 90), (512, 288), (1920, 1080)])
def test_text_fits_pictures_of_all_sizes(size):
    said = {"information": True, "message": "camera 0 was unplugged, " * 9, "recording": "a.mp4"}
    for more in ({}, {"help": True}):
        assert composed(shown(size=size), facts(**said, **more)).shape == (size[1], size[0], 3)


def test_text_is_readable_on_white_and_on_black():
    picture = shown(size=(512, 288))
    for level in (0, 255):
        plain = replace(picture, rgb=np.full_like(picture.rgb, level))
        drawn = composed(plain, facts(message="gone"))
        changed = drawn[np.abs(drawn.astype(int) - level).max(axis=2) > 20].astype(int)
        ground, ink = np.percentile(changed if level else drawn, 5), drawn.max()
        assert ink - ground > 100


def test_the_help_has_every_key():
    lines = key_lines()
    assert {line.split("\t")[1] for line in lines} >= {
        key.meaning for name, key in KEYS.items() if not name.isdecimal()
    }
    assert "1-9\tstyle of that number" in lines
