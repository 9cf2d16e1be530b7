"""Everything a user can get wrong: one clear line, the right exit code, and no file under the output's name."""

import os
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from media import FRAMES, damage, make_sound, make_video, picture
from PIL import Image

from nst_video.cli import main
from nst_video.media.pictures import write_picture

USAGE, INPUT, RESOURCE = 2, 3, 4


@dataclass(frozen=True)
class Case:
    """A command line after `prepare` has put things wrong in the current folder, and how it must end."""

    words: str
    code: int
    says: str
    prepare: Callable[[Path], object] = lambda folder: None


def no_frames(folder):
    make_video(folder / "bad.mp4", frames=0)


def truncated(folder):
    """An mp4 whose index comes first, as on the web, without its last third."""
    whole, bad = make_video(folder / "whole.mp4"), folder / "bad.mp4"
    with av.open(str(whole)) as source, av.open(str(bad), "w", container_options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size * 2 // 3])
    whole.unlink()


def corrupt(folder):
    damage(make_video(folder / "bad.mp4"), 12, "length")


def playlist(folder):
    make_video(folder / "secret.mp4")
    (folder / "bad.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")


def hls(folder):
    (folder / "bad.mp4").write_text("#EXTM3U\n#EXTINF:1,\nin.mp4\n#EXT-X-ENDLIST\n")


def tiny(folder):
    make_video(folder / "bad.mp4", frames=3, size=(96, 8))


def fast(folder):
    make_video(folder / "bad.mp4", pts=range(0, 12800, 200))


def faster(folder):
    make_video(folder / "bad.mp4", pts=range(0, 12800, 100))  # 128 a second: with a stride of 2 still too many


def painted(folder):
    write_picture(folder / "sub" / "00001.png", picture(3))


def linked(folder):
    painted(folder)
    (folder / "link.png").symlink_to("sub/00001.png")


def wide(folder):
    Image.fromarray(np.zeros((2, 50_000, 3), np.uint8)).save(folder / "bad.png")


def empty_wave(folder):
    with wave.open(str(folder / "none.wav"), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", "none"))


CASES = {
    # the input
    "missing": Case("gone.mp4 style.png out.mp4", INPUT, "gone.mp4 does not exist"),
    "not a video": Case(
        "bad.mp4 style.png out.mp4",
        INPUT,
        "bad.mp4 is not a video that can be read",
        lambda folder: (folder / "bad.mp4").write_text("words " * 1000),
    ),
    "empty file": Case(
        "bad.mp4 style.png out.mp4",
        INPUT,
        "bad.mp4 is not a video that can be read",
        lambda folder: (folder / "bad.mp4").touch(),
    ),
    "empty folder": Case(
        "bad style.png out.mp4", INPUT, "bad is a folder without pictures", lambda folder: (folder / "bad").mkdir()
    ),
    "no video stream": Case(
        "bad.m4a style.png out.mp4",
        INPUT,
        "bad.m4a has no video stream (it holds audio)",
        lambda folder: make_sound(folder / "bad.m4a"),
    ),
    "no frames": Case("bad.mp4 style.png out.mp4", INPUT, "bad.mp4", no_frames),
    "truncated": Case("bad.mp4 style.png out.mp4", INPUT, "bad.mp4 is truncated", truncated),
    "corrupt in the middle": Case("bad.mp4 style.png out.mp4", INPUT, "--on-error hold", corrupt),
    "playlist dressed as mp4": Case("bad.mp4 style.png out.mp4", INPUT, "is not a video that can be read", playlist),
    "stream list dressed as mp4": Case("bad.mp4 style.png out.mp4", INPUT, "is not a video that can be read", hls),
    "too small for the encoder": Case(
        "bad.mp4 style.png out.mp4", INPUT, "comes to 96x8 pixels, but these layers need 16 or more", tiny
    ),
    "made too small": Case("in.mp4 style.png out.mp4 --size 20", INPUT, "comes to 20x"),
    "too many pixels": Case("in.mp4 style.png out.mp4 --max-pixels 2000", INPUT, "in.mp4"),
    "start after the end": Case("in.mp4 style.png out.mp4 --start 99", INPUT, "no frames between start and end"),
    "still after the end": Case("in.mp4 style.png out.png --still 99", INPUT, "no frame at that time; it is 0.960 s"),
    # the style
    "style missing": Case("in.mp4 gone.jpg out.mp4", INPUT, "gone.jpg does not exist"),
    "style not a picture": Case(
        "in.mp4 bad.jpg out.mp4", INPUT, "bad.jpg", lambda folder: (folder / "bad.jpg").write_text("words " * 100)
    ),
    "style is a video": Case("in.mp4 in.mp4 out.mp4", INPUT, "in.mp4"),
    "style 50,000 pixels wide": Case("in.mp4 bad.png out.mp4", INPUT, "50000 x 2 pixels", wide),
    "second style missing": Case("in.mp4 style.png out.mp4 --style gone.jpg=0.5", INPUT, "gone.jpg does not exist"),
    "negative weight": Case("in.mp4 style.png=-1 out.mp4", USAGE, "styles need weights of 0 or more"),
    # the output
    "folder missing": Case("in.mp4 style.png gone/out.mp4", RESOURCE, "gone does not exist"),
    "output exists": Case("in.mp4 style.png taken.mp4", USAGE, "taken.mp4 exists; give -y to overwrite it"),
    "output is the input": Case("in.mp4 style.png in.mp4 -y", USAGE, "in.mp4 is the input itself"),
    "output is the input by another name": Case("in.mp4 style.png ./sub/../in.mp4 -y", USAGE, "is the input itself"),
    "output is the style": Case("in.mp4 style.png style.png -y --still 0", USAGE, "style.png is a style picture"),
    "output is the music": Case("in.mp4 style.png taken.mp4 -y --music taken.mp4", USAGE, "taken.mp4 is the music"),
    "output is a stem": Case(
        "in.mp4 style.png taken.mp4 -y --music in.mp4 --stem drums=taken.mp4", USAGE, "taken.mp4 is a stem of the music"
    ),
    "output is the guide": Case("dream in.mp4 taken.mp4 -y --guide taken.mp4", USAGE, "taken.mp4 is the guide"),
    "output is the file with the weights": Case(
        "in.mp4 style.png taken.mp4 -y --weights taken.mp4", USAGE, "taken.mp4 is the file with the weights"
    ),
    "output has a picture that is the style": Case(
        "in.mp4 sub/00001.png sub -y",
        USAGE,
        "sub would replace sub/00001.png, a style picture",
        painted,
    ),
    "output has a picture that is the style by a link": Case(
        "in.mp4 link.png sub -y", USAGE, "sub would replace sub/00001.png, a style picture", linked
    ),
    "output has a link that is the style": Case(
        "in.mp4 style.png sub -y",
        USAGE,
        "sub would replace sub/00001.png, a style picture",
        lambda folder: (folder / "sub" / "00001.png").symlink_to("../style.png"),
    ),
    "a picture of the pattern is the style": Case(
        "in.mp4 link.png sub/%05d.png -y", USAGE, "sub/%05d.png would replace sub/00001.png, a style picture", linked
    ),
    "unknown suffix": Case("in.mp4 style.png out.xyz", USAGE, "out.xyz: cannot write '.xyz'"),
    "unknown codec": Case("in.mp4 style.png out.mp4 --codec divx9", USAGE, "unknown codec 'divx9'"),
    "codec that the container cannot hold": Case("in.mp4 style.png out.webm --codec libx264", USAGE, ".webm"),
    "codec for a picture": Case(
        "in.mp4 style.png out.png --still 0 --codec libx265", USAGE, "--codec means nothing for out.png, which is a pic"
    ),
    "keeping the job of a picture": Case(
        "in.mp4 style.png out.png --still 0 --keep-job", USAGE, "--keep-job means not"
    ),
    "lossless picture": Case("in.mp4 style.png out.png --still 0 --lossless", USAGE, "--lossless means nothing for"),
    "crf for a gif": Case("in.mp4 style.png out.gif --crf 3", USAGE, "--crf means nothing for out.gif, which is a gif"),
    "preset for pictures": Case("in.mp4 style.png f/%05d.png --preset slow", USAGE, "which is a sequence of pictures"),
    "unknown preset": Case("in.mp4 style.png out.mp4 --preset warp", USAGE, "unknown preset 'warp'"),
    "many frames into one picture": Case("in.mp4 style.png out.png", USAGE, "out.png is one picture but there are 24"),
    "a picture into a video": Case(
        "style.png style.png out.mp4", USAGE, "style.png is one picture; say how long out.mp4 is, with --duration 20"
    ),
    "a still into a video": Case("in.mp4 style.png out.mp4 --still 0", USAGE, "--still renders a picture, not out.mp4"),
    "a stream as output": Case("in.mp4 style.png -", USAGE, "- stands for no stream here; give a file such as out.mp4"),
    # options
    "memory without a unit": Case(
        "in.mp4 style.png out.mp4 --memory 6", USAGE, "--memory 6 is not allowed; allowed 1MB"
    ),
    "too little memory": Case(
        "in.mp4 style.png out.mp4 --memory=1KB", USAGE, "--memory 1KB is out of range; allowed 1MB"
    ),
    "memory by its long name": Case("in.mp4 style.png out.mp4 --memory-limit 6", USAGE, "--memory-limit 6 is not"),
    "music without sound": Case(
        "in.mp4 style.png out.mp4 --music none.wav", INPUT, "none.wav holds no sound: it is 0 s long", empty_wave
    ),
    "out of range": Case("in.mp4 style.png out.mp4 --strength 9000", USAGE, "--strength 9000 is out of range; allowed"),
    "not a number": Case("in.mp4 style.png out.mp4 --strength much", USAGE, "--strength much is not allowed"),
    "not finite": Case("in.mp4 style.png out.mp4 --style-weight nan", USAGE, "--style-weight nan is out of range"),
    "unknown choice": Case("in.mp4 style.png out.mp4 --optimizer sgd", USAGE, "allowed lbfgs, adam"),
    "unknown option": Case("in.mp4 style.png out.mp4 --stile x", USAGE, "unrecognized arguments: --stile"),
    "misspelt option": Case("in.mp4 style.png out.mp4 --qualty draft", USAGE, "(did you mean --quality?); see"),
    "two files where one is meant": Case(
        "in.mp4 style.png out.mp4 --music a.wav --music b.wav", USAGE, "--music is given twice, as a.wav and b.wav;"
    ),
    "no abbreviations": Case("in.mp4 style.png out.mp4 --stren 1", USAGE, "unrecognized arguments: --stren"),
    "words missing": Case("in.mp4 style.png", USAGE, "required: OUT; see nst-video --help"),
    "nothing at all": Case("", USAGE, "required: IN, STYLE, OUT; see nst-video --help"),
    "unknown layer": Case("in.mp4 style.png out.mp4 --style-layers relu9_9", USAGE, "vgg19 has no layer 'relu9_9'"),
    "unknown encoder": Case("in.mp4 style.png out.mp4 --encoder vgg99", USAGE, "--encoder vgg99 is not allowed"),
    "weights missing": Case("in.mp4 style.png out.mp4 --weights gone.pt", INPUT, "gone.pt is not a file"),
    "weights of something else": Case("in.mp4 style.png out.mp4 --weights style.png", INPUT, "style.png"),
    "device that is not there": Case("in.mp4 style.png out.mp4 --device cuda:99", USAGE, "--device cuda:99 is not"),
    "negative time": Case("in.mp4 style.png out.mp4 --start=-1", USAGE, "--start -1 is not allowed"),
    "report exists": Case("in.mp4 style.png out.mp4 --trace taken.mp4", USAGE, "taken.mp4 exists; give -y"),
    "report is the output": Case("in.mp4 style.png out.mp4 --trace out.mp4", USAGE, "out.mp4 is named twice"),
    "report is the music": Case(
        "in.mp4 style.png out.mp4 -y --music taken.mp4 --trace taken.mp4", USAGE, "taken.mp4 is named twice"
    ),
    "report is the guide": Case(
        "dream in.mp4 out.mp4 -y --guide style.png --plot style.png", USAGE, "style.png is named twice"
    ),
    "report of a score is the file with the weights": Case(
        "score in.mp4 in.mp4 --style style.png -y --weights taken.mp4 --csv taken.mp4",
        USAGE,
        "taken.mp4 is named twice",
    ),
    "contact sheet is a picture of the output": Case(
        "in.mp4 style.png sub -y --contact-sheet sub/00002.png", USAGE, "sub/00002.png would be a picture of sub;"
    ),
    "report is a picture of the pattern": Case(
        "dream in.mp4 sub/a%d.png --plot ./sub/../sub/a12.png", USAGE, "a12.png would be a picture of sub/a%d.png;"
    ),
    "report is a picture of the output by a link": Case(
        "in.mp4 style.png sub -y --contact-sheet link.png",
        USAGE,
        "link.png would be a picture of sub;",
        linked,
    ),
    "plot of a trace is a picture of the output": Case(
        "in.mp4 style.png sub -y --trace sub/00001.jsonl", USAGE, "sub/00001.png would be a picture of sub;"
    ),
    "report of a score is a picture that is scored": Case(
        "score in.mp4 sub --style style.png -y --plot sub/00001.png",
        USAGE,
        "sub/00001.png would be a picture of sub;",
        painted,
    ),
    "still that is a picture of the input": Case(
        "sub style.png sub/00001.png --still 0 -y", USAGE, "sub/00001.png is a picture of the input;", painted
    ),
    "contact sheet that is a picture of the input": Case(
        "sub style.png out.mp4 -y --contact-sheet sub/00001.png", USAGE, "sub/00001.png is named twice;", painted
    ),
    "contact sheet that is no picture": Case(
        "in.mp4 style.png out.mp4 --contact-sheet sheet.pdf", USAGE, "sheet.pdf: cannot write a picture"
    ),
    "plot of an unknown format": Case(
        "in.mp4 style.png out.mp4 --plot p.bmp", USAGE, "p.bmp: cannot draw a plot with the suffix '.bmp'; use .png"
    ),
    "plot of a score of an unknown format": Case(
        "score in.mp4 in.mp4 --style style.png --plot p", USAGE, "p: cannot draw a plot with the suffix ''; use .png"
    ),
    "plot of a trace is the contact sheet": Case(
        "in.mp4 style.png out.mp4 --trace t.jsonl --contact-sheet t.png", USAGE, "t.png is the plot beside the trace"
    ),
    "too fast for a gif": Case(
        "bad.mp4 style.png out.gif", USAGE, "a gif shows at most 50 frames/s; use --stride 2", fast
    ),
    "too fast for a gif at this stride": Case(
        "bad.mp4 style.png out.gif --stride 2", USAGE, "a gif shows at most 50 frames/s; use --stride 3", faster
    ),
    "report in a missing folder": Case("in.mp4 style.png out.mp4 --contact-sheet gone/s.png", RESOURCE, "gone"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: in.mp4, style.png, and a file in the way of the output."""
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "in.mp4")
    write_picture(tmp_path / "style.png", picture(3))
    (tmp_path / "taken.mp4").write_bytes(b"mine")
    (tmp_path / "sub").mkdir()
    return tmp_path


def contents(folder):
    """Name -> bytes of every file below `folder`."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_refused_in_one_line(folder, capsys, case):
    case.prepare(folder)
    before = contents(folder)
    assert main(case.words.split()) == case.code
    printed = capsys.readouterr()
    last = printed.err.splitlines()[-1]
    assert last.startswith("nst-video: error: ")
    assert case.says in last
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert contents(folder) == before


def test_bad_input_is_refused_before_torch_is_loaded(folder):
    code = "import sys; from nst_video.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for words in ("gone.mp4 style.png out.mp4", "in.mp4 gone.png out.mp4", "in.mp4 style.png gone/out.mp4"):
        result = subprocess.run(
            [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=True
        )
        assert result.stdout == "False\n", words


FAST = ("--size", "64", "--first-iterations", "4", "--iterations", "1")


@pytest.mark.parametrize("words", [["", "style.png"], ["in.mp4", ""]])
def test_an_empty_name_is_called_so(folder, capsys, words):
    assert main([*words, "out.mp4"]) == INPUT
    assert re.search(r"error: the name of a (video|picture) is empty; give a file \(", capsys.readouterr().err)


def test_a_folder_that_a_missing_suffix_makes_is_announced(folder, capsys):
    assert main(["in.mp4", "style.png", "painted", "--end", "0.05", *FAST]) == 0
    said = "nst-video: painted has no suffix, so it will be a folder of pictures, 00001.png and so on"
    assert capsys.readouterr().err.splitlines()[0] == said
    assert sorted(os.listdir("painted")) == ["00001.png", "00002.png"]


@pytest.mark.parametrize("spoil", [truncated, corrupt], ids=["truncated", "corrupt in the middle"])
def test_a_damaged_video_can_be_painted_by_holding_frames(folder, spoil, capsys):
    spoil(folder)
    assert main(["bad.mp4", "style.png", "out.mp4", "--on-error", "hold", *FAST]) == 0
    cut = re.search(rf"bad.mp4 ends early: (\d+) of {FRAMES} frames are there", capsys.readouterr().err)
    assert (cut is not None) == (spoil is truncated)
    with av.open(str(folder / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) == (int(cut[1]) if cut else FRAMES)


def test_a_style_with_transparency_is_taken_on_white(folder):
    rgb = picture(3)
    alpha = np.zeros(rgb.shape[:2], np.uint8)
    alpha[:, : alpha.shape[1] // 2] = 255
    Image.fromarray(np.dstack([rgb, alpha])).save(folder / "clear.png")
    flat = rgb.copy()
    flat[:, alpha.shape[1] // 2 :] = 255
    write_picture(folder / "white.png", flat)
    for name in ("clear", "white"):
        assert main(["in.mp4", f"{name}.png", f"{name}_out.png", "--still", "0", *FAST]) == 0
    assert (folder / "clear_out.png").read_bytes() == (folder / "white_out.png").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="/sys takes no files, not even from root, on Linux")
def test_an_unwritable_folder_is_refused(folder, capsys):
    assert main(["in.mp4", "style.png", "/sys/out.mp4", *FAST]) == RESOURCE
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("nst-video: error: ")
    assert "/sys" in last


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_reported_in_one_line(folder, capsys):
    assert main(["in.mp4", "style.png", "out.mp4", "--trace", "/dev/full", "-y", *FAST]) == RESOURCE
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "out.mp4").exists()
