"""What several test files need."""

import os

import pytest
import torch
from media import picture

from nst_video.media.pictures import write_picture

if not torch.cuda.is_available():  # then Triton's interpreter runs our kernels; it asks for this when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def style(tmp_path):
    """The path of a small style picture."""
    path = tmp_path / "style.png"
    write_picture(path, picture(3))
    return path
