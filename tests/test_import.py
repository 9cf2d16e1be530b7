"""What importing costs: nothing heavy is loaded before it is needed."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nst_video

ROOT = Path(nst_video.__file__).parent
PACKAGES = [path.parent.name for path in ROOT.glob("*/__init__.py")]
HEAVY = ("torch", "cv2", "av", "scenedetect", "matplotlib", "PIL", "simpleeval")


def loaded_after(code):
    """The heavy modules that a fresh interpreter has loaded after `code`."""
    report = f"{code}\nimport sys; print('loaded:', *(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].removeprefix("loaded:").split()


@pytest.mark.parametrize(
    "module",
    [
        "nst_video",
        "nst_video.options",
        "nst_video.dreaming.options",
        "nst_video.music.options",
        "nst_video.schedules",
        "nst_video.curves",
        "nst_video.errors",
        "nst_video.cli",
    ],
)
def test_light_modules_load_nothing_heavy(module):
    assert loaded_after(f"import {module}") == []


@pytest.mark.parametrize(
    "module",
    [
        "plan",
        "planning",
        "media.guarded",
        "media.survey",
        "media.video",
        "media.pictures",
        "plots",
        "media.shots",
        "reports",
        "render",
        "music.conduct",
        "music.heard",
    ],
)
def test_looking_at_inputs_needs_no_torch(module):
    assert "torch" not in loaded_after(f"import nst_video.{module}")


def test_help_loads_nothing_heavy():
    code = "from nst_video.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_after(code) == []


def test_help_is_quick():
    def seconds():
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nst_video", "--help"], capture_output=True, check=True)
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(5)) < 0.3


def test_every_public_name_is_there():
    assert "stylize" in dir(nst_video)
    assert all(getattr(nst_video, name).__name__ == name for name in dir(nst_video))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'stilize'"):
        _ = nst_video.stilize


def test_only_the_child_that_looks_for_cuts_needs_their_detector():
    assert "scenedetect" not in loaded_after("import nst_video.plan, nst_video.render")


def test_all_that_is_public_is_there_by_a_star_import():
    names = {}
    exec("from nst_video import *", names)
    assert names["stylize"] is nst_video.stylize
    assert set(names) - {"__builtins__"} == set(nst_video.__all__)


# Packages import from those before them and from their own row; modules at the top, which are in none, from all.
ROWS = (
    {"devices"},
    {"media", "music"},  # what is heard in sound decides what is rendered, and is listened to where files are checked
    {"networks"},
    {"optimization"},
    {"flow"},
    {"painting"},
    {"dreaming"},
    {"jobs"},
    {"live", "commands"},
)


def imported_packages(path):
    """The packages of this program from which a module imports."""
    names = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    return {name.split(".")[1] for name in names if name.startswith("nst_video.")} & set(PACKAGES)


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_packages_import_one_way(row):
    allowed = set().union(*ROWS[: row + 1])
    for path in [path for package in ROWS[row] for path in (ROOT / package).glob("*.py")]:
        assert imported_packages(path) <= allowed, path.name


def test_every_package_has_its_row():
    assert set(PACKAGES) == set().union(*ROWS)
