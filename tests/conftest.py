"""What several test files need."""

import pytest
from media import picture

from nst_video.pictures import write_picture


@pytest.fixture
def style(tmp_path):
    """The path of a small style picture."""
    path = tmp_path / "style.png"
    write_picture(path, picture(3))
    return path
