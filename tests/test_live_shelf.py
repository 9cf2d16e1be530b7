"""The style pictures of a live session, those that are dropped into a folder while it runs included."""

import logging
import os
import shutil

import numpy as np
import pytest
from live_tools import wait_for
from media import picture
from PIL import Image

from nst_video.errors import InputError, ResourceError
from nst_video.live.shelf import LARGEST_SIDE, Shelf
from nst_video.media.guarded import read_pictures
from nst_video.media.pictures import write_picture


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "styles"
    folder.mkdir()
    write_picture(folder / "b.png", picture(2))
    write_picture(folder / "a.png", picture(1))
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture
def opened():
    """A function that makes a shelf, looks often, and is closed at the end."""
    shelves = []

    def make(*places, **options):
        shelf = Shelf([str(place) for place in places], poll_every=0.02, **options)
        shelves.append(shelf)
        return shelf

    yield make
    for shelf in shelves:
        shelf.close()


def names(shelf):
    return [one.name for one in shelf.pictures]


def started(shelf):
    shelf.start()
    return shelf


def test_files_and_folders_in_the_order_given_each_picture_once(opened, folder, style):
    shelf = started(opened(style, folder, folder / "a.png"))
    assert names(shelf) == ["style", "a", "b"]
    assert shelf.pictures[1].path == str(folder / "a.png")
    assert np.array_equal(shelf.pictures[1].rgb, picture(1))


def test_a_picture_dropped_into_the_folder_comes_last(opened, folder):
    shelf = started(opened(folder))
    before = shelf.pictures
    write_picture(folder / "0 first by name.png", picture(5))
    wait_for(lambda: len(shelf.pictures) == 3)
    assert shelf.pictures[:2] == before
    assert np.array_equal(shelf.pictures[2].rgb, picture(5))


def test_a_half_written_picture_is_taken_when_it_is_whole(opened, folder, tmp_path, caplog):
    write_picture(tmp_path / "whole.png", picture(6))
    whole = (tmp_path / "whole.png").read_bytes()
    shelf = started(opened(folder))
    (folder / "c.png").write_bytes(whole[: len(whole) // 2])
    wait_for(lambda: "c.png" in caplog.text, "the refusal of the first half")
    assert names(shelf) == ["a", "b"]
    (folder / "c.png").write_bytes(whole)
    wait_for(lambda: names(shelf) == ["a", "b", "c"])


def test_bad_pictures_cost_one_line_each(opened, folder, caplog):
    (folder / "bad.png").write_bytes(b"not a picture")
    (folder / "worse.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "nst_video"):
        shelf = started(opened(folder))
    assert names(shelf) == ["a", "b"]
    lines = [record.getMessage() for record in caplog.records]
    assert [("bad.png" in line, "worse.jpg" in line) for line in lines] == [(True, False), (False, True)]
    write_picture(folder / "later.png", picture(7))
    wait_for(lambda: "later" in names(shelf))
    assert len(caplog.records) == 2  # not told again with every look


def test_none_that_can_be_used_is_refused(opened, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"no style picture that can be used in .*bad\.png"):
        opened(tmp_path / "bad.png").start()


def test_an_empty_folder_is_refused(opened, tmp_path):
    with pytest.raises(InputError, match="no style picture that can be used"):
        opened(tmp_path).start()


def test_what_does_not_exist_is_refused(opened, style, tmp_path):
    with pytest.raises(InputError, match=r"none\.jpg does not exist"):
        opened(style, tmp_path / "none.jpg").start()


def test_no_places_are_no_styles(opened):
    assert started(opened()).pictures == ()


def test_large_pictures_are_kept_smaller(opened, tmp_path):
    write_picture(tmp_path / "large.png", np.zeros((300, 2 * LARGEST_SIDE, 3), np.uint8))
    assert started(opened(tmp_path / "large.png")).pictures[0].rgb.shape == (150, LARGEST_SIDE, 3)


def test_no_picture_is_decoded_in_this_process(opened, folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("decoded here, where it may be another file than the one that was found to be good")

    monkeypatch.setattr(Image, "open", refuse)
    shelf = started(opened(folder))
    assert names(shelf) == ["a", "b"]
    assert np.array_equal(shelf.pictures[0].rgb, picture(1))


def test_a_picture_that_cannot_be_read_costs_no_other_one(opened, folder):
    looked = []

    def read(paths, side):
        looked.append([os.path.basename(path) for path in paths])
        if any("b.png" in path for path in paths):
            raise InputError("b.png crashes the decoder")
        return read_pictures(paths, side)

    shelf = started(opened(folder, read=read))
    assert names(shelf) == ["a"]
    assert looked == [["a.png", "b.png"], ["a.png"], ["b.png"]]


def test_a_folder_that_goes_away_and_comes_back(opened, folder, tmp_path):
    shelf = started(opened(folder))
    shutil.move(folder, tmp_path / "away")
    write_picture(tmp_path / "away" / "c.png", picture(7))
    shutil.move(tmp_path / "away", folder)
    assert wait_for(lambda: names(shelf) == ["a", "b", "c"])


def test_a_machine_that_cannot_look_just_now_is_told_and_looks_again(opened, folder, caplog):
    short = [False, True, False]

    def read(paths, side):
        if short.pop(0):
            raise ResourceError("no more processes")
        return read_pictures(paths, side)

    shelf = started(opened(folder, read=read))
    write_picture(folder / "c.png", picture(8))
    wait_for(lambda: names(shelf) == ["a", "b", "c"])
    assert "no more processes" in caplog.text
