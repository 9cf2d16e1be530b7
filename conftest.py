"""Doctests run in a folder of their own that holds the files their examples name."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

# As the command line does; a test imports torch, so it must be set before any of them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(autouse=True)
def _doctest_folder(request, tmp_path, monkeypatch):
    """`in.mp4` (4 frames of the sample clip, 64x36), `style.jpg` and `other.jpg` in the current folder of a doctest."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    monkeypatch.chdir(tmp_path)
    if any("in.mp4" in example.source for example in request.node.dtest.examples):
        (tmp_path / "style.jpg").symlink_to(SAMPLES / "oil.jpg")
        (tmp_path / "other.jpg").symlink_to(SAMPLES / "mosaic.jpg")
        cut(SAMPLES / "bunny.mp4", tmp_path / "in.mp4")


def cut(source, target):
    """The first 4 frames of `source`, small and without sound."""
    import av

    with av.open(str(source)) as clip, av.open(str(target), "w") as short:
        stream = short.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for number, frame in zip(range(4), clip.decode(video=0), strict=False):
            small = frame.reformat(64, 36)
            small.pts, small.time_base = number, Fraction(1, 25)
            short.mux(stream.encode(small))
        short.mux(stream.encode(None))
