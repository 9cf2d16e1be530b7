"""What the README shows works as it stands there."""

import re
import shlex
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from media import make_video, picture

from nst_video.cli import COMMANDS
from nst_video.commands import dream, paint
from nst_video.live.desk import key_lines
from nst_video.live.options import LiveOptions
from nst_video.live.recorder import SUFFIXES
from nst_video.media.codecs import CODECS, CONTAINERS, default_codec
from nst_video.media.containers import READABLE
from nst_video.media.pictures import READ_SUFFIXES, write_picture
from nst_video.presets import DREAM_PRESETS, DREAM_STEPS, PRESETS

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def command_lines():
    """Every nst-video command in the README's blocks and in the examples of --help, without what explains it."""
    lines = [line for block in (*blocks("sh"), paint.EXAMPLES, dream.EXAMPLES) for line in block.splitlines()]
    found = [re.search(r"(?:^|&& )\s*(nst-video .*?)(?:\s{2,}.*)?$", line) for line in lines]
    return [match[1] for match in found if match]


@pytest.mark.parametrize("line", command_lines())
def test_every_command_is_understood(line):
    words = shlex.split(line)[1:]
    if "--list-layers" in words:
        with pytest.raises(SystemExit, match="0"):
            dream.make_parser().parse_args(words[1:])
    elif words[0] in COMMANDS:
        import_module(f"nst_video.commands.{words[0]}").make_parser().parse_args(words[1:])
    else:
        assert paint.make_parser().parse_args(words).output


def test_the_table_of_presets_is_theirs():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (\d+)[^|]*\| (\d+) \|$", README, re.MULTILINE)
    assert {name: (int(size), encoder, int(first), int(later)) for name, size, encoder, first, later in rows} == {
        name: (preset["size"], preset["encoder"], preset["first_iterations"], preset["iterations"])
        for name, preset in PRESETS.items()
    }


def test_the_table_of_presets_of_dreams_is_theirs():
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+)[^|]*\| about (\d+) \|$", README, re.MULTILINE)
    assert {name: tuple(map(int, rest)) for name, *rest in rows} == {
        name: (DREAM_PRESETS[name]["size"], *map(int, steps.values())) for name, steps in DREAM_STEPS.items()
    }


def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "in.mp4", frames=2, size=(48, 32))
    write_picture(tmp_path / "style.jpg", picture(3))
    names = {"frames": [picture(number, 48, 32) for number in range(2)]}
    for block in blocks("python"):
        exec(block, names)
    assert names["result"].frames == 2
    assert names["painted"].shape == (32, 48, 3)


def test_the_table_of_keys_is_theirs():
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", README.split("\n## Live\n")[1].split("\n## ")[0], re.MULTILINE)
    assert [f"{names.replace('`', '')}\t{meaning}" for names, meaning in rows] == list(key_lines())


def test_what_it_says_is_read_and_recorded_is():
    text = " ".join(README.split())
    (said,) = re.findall(r"Read are (.*?) A style is", text)
    wanted = {*re.findall(r"\w+", READABLE), *suffixes(READ_SUFFIXES)} - {"and", "jpeg", "tiff"}
    assert wanted <= set(re.findall(r"\w+", said))
    (recorded,) = re.findall(r"`--record out\.(mp4)` \(or (.*?);", text)
    assert {recorded[0], *recorded[1].split(", ")} == suffixes(SUFFIXES)
    limits = {item.name: item.metadata["kind"] for item in fields(LiveOptions)}
    for name in ("strength", "brush"):
        assert f"`--{name}` ({limits[name].range()})" in text


def suffixes(names):
    return {name.removeprefix(".") for name in names}


def test_the_table_of_codecs_is_theirs():
    rows = re.findall(r"^\| `(\.\w+)` \| `([\w-]+)` \| (.*?) \|", README, re.MULTILINE)
    assert {suffix: (usual, set(re.findall("`(.*?)`", others))) for suffix, usual, others in rows} == {
        suffix: (
            default_codec(suffix),
            {name for name, codec in CODECS.items() if suffix in codec.containers} - {usual},
        )
        for suffix, usual, _ in rows
    }
    assert {suffix for suffix, _, _ in rows} == set(CONTAINERS)
