"""Downloads of weights, from a server of the test's own on this machine."""

import hashlib
import http.server
import io
import threading

import pytest
import torch

from nst_video.errors import ResourceError
from nst_video.networks.checkpoints import Download


@pytest.fixture
def server(tmp_path):
    """(address, folder): the files of the folder are served under the address until the test ends."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, directory=folder, **named)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", folder
        listening.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub" / "checkpoints"


def weights() -> bytes:
    buffer = io.BytesIO()
    torch.save({"features.0.bias": torch.arange(3.0)}, buffer)
    return buffer.getvalue()


def test_a_file_is_downloaded_once_with_a_bar_and_then_taken_from_the_cache(server, cache, capfd):
    address, folder = server
    (folder / "net.pth").write_bytes(weights())
    download = Download(f"{address}/net.pth", hashlib.sha256(weights()).hexdigest()[:8], 1)
    assert download.state == "not downloaded"
    assert download.fetch() == cache / "net.pth" == download.path
    assert "100" in capfd.readouterr().err
    assert download.state == "downloaded"
    (folder / "net.pth").unlink()
    assert download.fetch(offline=True).read_bytes() == weights()


def test_another_content_than_expected_is_not_kept(server, cache):
    address, folder = server
    (folder / "net.pth").write_bytes(weights())
    with pytest.raises(ResourceError, match="arrived damaged") as caught:
        Download(f"{address}/net.pth", "00000000", 1).fetch()
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_cached_file_that_was_damaged_is_refused(cache):
    cache.mkdir(parents=True)
    (cache / "net.pth").write_bytes(weights()[:-1])
    with pytest.raises(ResourceError, match=r"net\.pth are damaged: .* delete that file"):
        Download("http://127.0.0.1/net.pth", hashlib.sha256(weights()).hexdigest()[:8], 1).fetch()


def test_no_such_file_and_no_network_give_one_line(server, cache):
    address, _ = server
    with pytest.raises(ResourceError, match=r"cannot download .*[Nn]ot found; give the file with --weights"):
        Download(f"{address}/none.pth", "00000000", 1).fetch()
    with pytest.raises(ResourceError, match="cannot download") as caught:
        Download("http://127.0.0.1:1/net.pth", "00000000", 1).fetch()
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_gives_one_line(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file where the folder should be")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    with pytest.raises(ResourceError, match="cannot download"):
        Download("http://127.0.0.1:1/net.pth", "00000000", 1).fetch()
