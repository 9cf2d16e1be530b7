"""Files made to do harm: none opens a second file or a connection, crashes, hangs, or takes the machine's memory."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import pytest
from media import make_video, picture

from nst_video.cli import main
from nst_video.errors import InputError, ResourceError
from nst_video.jobs.resume import open_job
from nst_video.media import guarded
from nst_video.media.limits import BASE_MEMORY, MEMORY_EXIT, memory_limit
from nst_video.media.pictures import read_picture, write_picture
from nst_video.media.probe import probe
from nst_video.media.survey import Nowhere, Request, Survey, rehearse, survey
from nst_video.media.videoinfo import VideoInfo
from nst_video.options import OutputOptions
from nst_video.planning import make_plan

INPUT = 3
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork, FIFOs or signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit on memory by itself")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with in.mp4 and style.png."""
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "in.mp4")
    write_picture(tmp_path / "style.png", picture(3))
    return tmp_path


def refused(capsys, *words):
    """The one line with which the command ends; exit code 3, no traceback, nothing on stdout."""
    assert main(list(words)) == INPUT
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("nst-video: error: ")
    return line


# ---------------------------------------------------------------------------------------------- other files, network


class Canary:
    """A FIFO, whose opening by anybody is noticed, and a port on this machine that notices connections."""

    def __init__(self, folder: Path):
        self.path = folder / "canary.mp4"
        os.mkfifo(self.path)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/canary.mp4"
        self.opened = threading.Event()
        self.thread = threading.Thread(target=self._wait_for_reader)
        self.thread.start()

    def _wait_for_reader(self) -> None:
        writer = os.open(self.path, os.O_WRONLY)  # waits until somebody opens it to read
        self.opened.set()
        os.close(writer)

    def connected(self) -> bool:
        """Whether anybody has connected."""
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Lets the waiting thread go."""
        while self.thread.is_alive():  # which may not have come to its waiting yet
            os.close(os.open(self.path, os.O_RDONLY | os.O_NONBLOCK))
            self.thread.join(0.05)
        self.listener.close()


@pytest.fixture
def canary(tmp_path):
    (tmp_path / "nest").mkdir()
    made = Canary(tmp_path / "nest")
    yield made
    made.close()


CONCAT = "ffconcat version 1.0\nfile '{}'\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
HLS_KEY = '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI="{0}"\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n'
HLS_MAIN = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n{}\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1000"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="{}" width="64" height="64"/></svg>'
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=control:{}\n"
LISTS = {
    "concat": CONCAT,
    "hls": HLS,
    "hls key": HLS_KEY,
    "hls main list": HLS_MAIN,
    "dash": DASH,
    "sdp": SDP,
    "svg": SVG,
}


@posix
@pytest.mark.parametrize("to", ["file", "url"])
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_in_disguise_opens_nothing(folder, capsys, canary, kind, suffix, to):
    bad = folder / f"bad{suffix}"
    bad.write_text(LISTS[kind].format(canary.path if to == "file" else canary.url))
    assert "bad" in refused(capsys, str(bad), "style.png", "out.mp4")
    assert not canary.opened.is_set()
    assert not canary.connected()


@posix
def test_the_canary_notices_what_ffmpeg_does_when_it_is_let(folder, canary):
    (folder / "bad.mp4").write_text(CONCAT.format(canary.path))
    with pytest.raises(av.error.FFmpegError):
        av.open(str(folder / "bad.mp4"), container_options={"safe": "0"})
    assert canary.opened.wait(5)
    (folder / "bad.mp4").write_text(HLS.format(canary.url))
    with pytest.raises(av.error.FFmpegError):
        av.open(
            str(folder / "bad.mp4"), format="hls", timeout=2, container_options={"protocol_whitelist": "file,http,tcp"}
        )
    assert canary.connected()


@posix
@pytest.mark.parametrize(
    "name",
    ["concat:{0}|{0}", "subfile,,start,0,end,64,,:{0}", "file:{0}", "cache:{0}", "crypto:{0}", "{1}", "tcp:{1}", "-",
     "pipe:0", "data:video/mp4;base64,AAAA", "nest/*.mp4", "glob:nest/*.png", "lavfi:testsrc", "nest/%d.mp4"],
)  # fmt: skip
def test_a_name_is_a_name_of_a_file_and_nothing_else(folder, capsys, canary, name):
    line = refused(capsys, name.format(canary.path, canary.url), "style.png", "out.mp4")
    assert "does not exist" in line
    assert "does not exist" in refused(capsys, "in.mp4", name.format(canary.path, canary.url), "out.mp4")
    assert not canary.opened.is_set()
    assert not canary.connected()


@posix
def test_pipes_and_links_to_them_are_not_opened(folder, capsys, canary):
    (folder / "link.mp4").symlink_to(canary.path)
    (folder / "link.png").symlink_to(canary.path)
    (folder / "frames").mkdir()
    write_picture(folder / "frames" / "1.png", picture(0))
    (folder / "frames" / "2.png").symlink_to(canary.path)
    for words in (
        ("link.mp4", "style.png"),
        ("link.png", "style.png"),
        ("in.mp4", "link.png"),
        ("frames", "style.png"),
    ):
        assert "is not a file" in refused(capsys, *words, "out.mp4")
    assert not canary.opened.is_set()


@posix
def test_a_link_to_a_list_is_a_list(folder, capsys, canary):
    (folder / "list.txt").write_text(CONCAT.format(canary.path))
    (folder / "bad.mp4").symlink_to(folder / "list.txt")
    assert "is not a video" in refused(capsys, "bad.mp4", "style.png", "out.mp4")
    assert not canary.opened.is_set()


def with_outside_reference(path: Path, target: Path) -> Path:
    """A mov whose pictures lie in another file, which an alias in its data reference names."""
    make_video(path, frames=3)
    data = path.read_bytes()
    place = data.index(b"url \0\0\0\1") - 4
    name = str(target).encode()
    name += b"\0" * (len(name) % 2)
    record = bytes(10) + b"\1v".ljust(28, b"\0") + bytes(12) + b"\1f".ljust(64, b"\0") + bytes(16)
    record += struct.pack(">HH", 0, 0) + bytes(16) + struct.pack(">HH", 2, len(name)) + name + b"\xff\xff\0\0"
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    grown = bytearray(data[:place] + entry + data[place + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        at = data.index(box) - 4
        size = struct.unpack_from(">I", data, at)[0]
        struct.pack_into(">I", grown, at, size + len(entry) - 12)
    path.write_bytes(grown)
    return path


@posix
def test_a_movie_whose_pictures_lie_elsewhere_opens_nothing(folder, capsys, canary):
    bad = with_outside_reference(folder / "bad.mov", canary.path)
    main([str(bad), "style.png", "out.mp4", "--size", "32", "--first-iterations", "1", "--iterations", "1"])
    assert not canary.opened.is_set()
    # What FFmpeg does with this very file when it is let: the test would notice.
    av.open(str(bad), container_options={"enable_drefs": "1", "use_absolute_path": "1"}).close()
    assert canary.opened.wait(5)


# ---------------------------------------------------------------------------------------------- the child


def child_that(does: str) -> str:
    """The code of a child that does this instead of probing the input."""
    return (
        "import sys, os, time; sys.path[:] = sys.argv[1:]; from nst_video.media import guarded_child as child\n"
        f"def probe_input(*words):\n    {does}\n"
        "child.probe_input = probe_input; child.child()"
    )


@pytest.mark.parametrize(
    ("does", "says"),
    [
        pytest.param("os.kill(os.getpid(), 11)", "in.mp4 crashes the decoder (SIGSEGV)", marks=posix),
        pytest.param("os.abort()", "in.mp4 crashes the decoder (SIGABRT)", marks=posix),
        pytest.param("os.kill(os.getpid(), 9)", "in.mp4 needs too much memory", marks=posix),
        ("os._exit(7)", "in.mp4 crashes the decoder (status 7)"),
        ("time.sleep(60)", "in.mp4 keeps the decoder busy for 1 s"),
        pytest.param("bytearray(20 << 30)", "in.mp4 needs too much memory", marks=linux),
        ("1 / 0", "in.mp4 could not be looked at (ZeroDivisionError: division by zero)"),
        ("sys.stdout.write('noise'); print('more'); os.system('echo noise'); os._exit(0)", "crashes the decoder"),
    ],
)
def test_what_happens_to_the_child_is_one_line(folder, capsys, monkeypatch, does, says):
    monkeypatch.setattr(guarded, "CHILD", child_that(does))
    monkeypatch.setattr(guarded, "STALL_LIMIT", 1.0)
    begun = time.monotonic()
    assert says in refused(capsys, "in.mp4", "style.png", "out.mp4")
    assert time.monotonic() - begun < 40
    assert not (folder / "out.mp4").exists()


def test_what_an_unfinished_render_goes_on_with_is_looked_at_as_well(folder, capsys, monkeypatch):
    """Its folder may have come with the input, and say what nobody has looked at."""
    with open_job("in.mp4", "style.png", "out.mp4"):
        pass
    monkeypatch.setattr(guarded, "CHILD", child_that("os._exit(7)"))
    assert "in.mp4 crashes the decoder (status 7)" in refused(capsys, "in.mp4", "style.png", "out.mp4")
    assert (folder / "out.mp4.nst").is_dir()


@pytest.mark.parametrize("answer", ["{noise", "[1]", '{"info": {"path": 1}}', '{"error": ["OSError", "x"]}'])
def test_an_answer_that_makes_no_sense_is_one_line(folder, capsys, monkeypatch, answer):
    start = '{"now": ["in.mp4", 0]}\n'
    monkeypatch.setattr(guarded, "CHILD", f"import sys, time; print({start + answer!r}, flush=True); sys.stdin.read()")
    assert "in.mp4 crashes the decoder (its answer makes no sense)" in refused(capsys, "in.mp4", "style.png", "out.mp4")


@pytest.mark.parametrize(
    "code", ["import os; os.close(0); os._exit(9)", "import no_such_thing", "import time; time.sleep(9)"]
)
def test_a_child_that_does_not_start_is_no_fault_of_the_file(folder, capsys, monkeypatch, code):
    monkeypatch.setattr(guarded, "CHILD", code)
    monkeypatch.setattr(guarded, "START_LIMIT", 1.0)
    assert main(["in.mp4", "style.png", "out.mp4"]) == ResourceError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert f"({sys.executable}) does not start" in line


@pytest.mark.parametrize("program", ["", "/no/such/python"])
def test_without_a_second_python_there_is_one_line(folder, capsys, monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    assert main(["in.mp4", "style.png", "out.mp4"]) == ResourceError.exit_code
    assert len(capsys.readouterr().err.splitlines()) == 1


@linux
def test_the_child_writes_no_files_and_opens_few(folder, capsys, monkeypatch):
    monkeypatch.setattr(guarded, "CHILD", child_that("open('made', 'w').write('x' * 9999)"))
    assert "could not be looked at (OSError: [Errno 27] File too large)" in refused(
        capsys, "in.mp4", "style.png", "o.mp4"
    )
    assert (folder / "made").read_bytes() == b""


def test_a_long_look_goes_on_while_it_gets_on(folder, monkeypatch):
    slow = (
        "import sys, time; sys.path[:] = sys.argv[1:]; from nst_video.media import guarded_child as child\n"
        "def survey(info, request, alive):\n"
        "    for _ in range(10):\n        time.sleep(0.5); alive()\n"
        "    return whole(info, request)\n"
        "whole, child.survey = child.survey, survey; child.SIGN_OF_LIFE_EVERY = 0; child.child()"
    )
    monkeypatch.setattr(guarded, "CHILD", slow)
    monkeypatch.setattr(guarded, "STALL_LIMIT", 4.0)
    with guarded.look(Request("in.mp4", (), OutputOptions(), 0.0)) as at:
        assert len(at.finish().pts) == 24


def test_large_pictures_get_more_time(folder, monkeypatch):
    monkeypatch.setattr(guarded, "STALL_PIXELS", 1000)
    with guarded.look(Request("in.mp4", ("style.png",), OutputOptions(), 0.0)) as at:
        assert at.stall == guarded.STALL_LIMIT
        at.finish()
        assert at.stall == pytest.approx(guarded.STALL_LIMIT * 96 * 64 / 1000)


@posix
def test_the_child_ends_with_its_parent(folder):
    child = child_that("time.sleep(300)")
    code = (
        "from nst_video.media import guarded\nfrom nst_video.options import OutputOptions\n"
        f"guarded.CHILD = {child!r}\n"
        "def start():\n    child = guarded.start_python(); print(child.pid, flush=True); return child\n"
        "with guarded.look(guarded.Request('in.mp4', (), OutputOptions(), 0.0), start): pass"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while time.monotonic() < until and is_running(pid):
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody has waited for has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@posix
def test_memory_is_watched_where_the_system_does_not_limit_it():
    code = (
        "import time; from nst_video.media.limits import watch_memory\n"
        "watch_memory(24 << 20); held = bytes(4 << 20); time.sleep(0.2); print('here', flush=True)\n"
        "held = bytearray(b'x') * (64 << 20); time.sleep(60)"
    )
    # By way of a shell, or the peak that Linux tells would be that of this test run, which started it.
    words = ["/bin/sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=90)
    assert (ended.returncode, ended.stdout) == (MEMORY_EXIT, "here\n")


def test_the_limit_of_memory_grows_with_the_frames_but_not_beyond_the_machine():
    assert BASE_MEMORY <= memory_limit(0) <= memory_limit(1 << 20) <= memory_limit(1 << 40) < 1 << 46


def test_the_main_process_opens_no_file_that_is_refused(folder, capsys, monkeypatch):
    (folder / "bad.mp4").write_bytes((folder / "in.mp4").read_bytes()[:2000])
    (folder / "bad.png").write_bytes((folder / "style.png").read_bytes()[:500])
    for name in ("nst_video.media.survey.probe", "nst_video.media.survey.read_picture", "av.open", "PIL.Image.open"):
        monkeypatch.setattr(name, lambda *words, **options: pytest.fail("opened in the main process"))
    assert "not a video" in refused(capsys, "bad.mp4", "style.png", "out.mp4")
    assert "bad.png is damaged" in refused(capsys, "in.mp4", "bad.png", "out.mp4")


def test_what_the_child_found_arrives_whole(folder):
    make_video(folder / "all.mkv", sound="aac", subtitles="ass", chapters=True, rate=Fraction(24000, 1001))
    with guarded.look(Request("all.mkv", ("style.png",), OutputOptions(), 27.0, "out.mkv")) as at:
        found = at.finish()
    info = probe("all.mkv")
    assert at.info == info
    assert VideoInfo.from_json(info.to_json()) == info
    assert found == survey(info, Request("all.mkv", (), OutputOptions(), 27.0))


# ---------------------------------------------------------------------------------------------- too large, too long


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (8, 8)) -> bytes:
    """A grey PNG with these chunks between header and pixels."""
    rows = zlib.compress(bytes((size[0] + 1) * min(size[1], 64)))
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    body = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


BOMB = zlib.compress(bytes(200_000_000))
BOMBS: dict[str, tuple[bytes, str]] = {
    "pixels": (png(size=(30_000, 30_000)), "more than 67108864 pixels"),
    "text": (png((b"zTXt", b"a\0\0" + BOMB)), "is damaged"),
    "international text": (png((b"iTXt", b"a\0\1\0\0\0" + BOMB)), "is damaged"),
    "colour profile": (png((b"iCCP", b"a\0\0" + BOMB)), "is damaged"),
    "a width of millions": (png(size=(1 << 24, 2)), "pixels a side"),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_picture_bomb_is_refused(tmp_path, case):
    data, line = BOMBS[case]
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(InputError, match=line):
        read_picture(tmp_path / "bad.png")


@linux
def test_a_large_deep_picture_does_not_take_gigabytes(tmp_path):
    """4 Mpx of 16 bits: 8 MB, and the float64 that was made of all of it once took 100."""
    import numpy as np
    from PIL import Image

    Image.fromarray(np.arange(1 << 22, dtype=np.uint32).astype(np.uint16).reshape(2048, 2048)).save(
        tmp_path / "deep.png"
    )
    code = (
        "import sys\nfrom nst_video.media.limits import peak_memory\n"
        "from nst_video.media.pictures import read_picture\n"
        "read_picture(sys.argv[2]); before = peak_memory(); read_picture(sys.argv[1]); print(peak_memory() - before)"
    )
    write_picture(tmp_path / "small.png", picture(0))
    words = [sys.executable, "-c", code, str(tmp_path / "deep.png"), str(tmp_path / "small.png")]
    assert int(subprocess.run(words, capture_output=True, check=True).stdout) < 75e6


def test_a_video_that_grows_is_stopped_by_the_decoder(folder):
    """Two sizes in one stream: the second is above twice the limit, which only the decoder can see."""
    first, second = make_video(folder / "a.ts", time_base=Fraction(1, 90000)), folder / "b.ts"
    make_video(second, size=(960, 640), time_base=Fraction(1, 90000), pts=range(90000, 180000, 3600))
    (folder / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    request = Request("both.ts", (), OutputOptions(max_pixels=20_000), 0.0)
    with guarded.look(request) as at, pytest.raises(InputError):
        at.finish()
    wide = replace(request, options=OutputOptions())
    with guarded.look(wide) as at:
        assert len(at.finish().pts) > 24


def test_an_input_that_is_too_long_is_refused_by_its_header(folder, capsys):
    words = ("in.mp4", "style.png", "out.mp4", "--max-duration", "0.5")
    assert "in.mp4 is 0.96 s long; at most 0.5 s are rendered" in refused(capsys, *words)


@pytest.mark.parametrize("part", [{"end": "0.4"}, {"start": "0.6"}, {"start": "0.2", "end": "0.7"}])
def test_only_the_part_that_is_rendered_counts(folder, part):
    options = OutputOptions(max_duration=Fraction(1, 2), **part)
    with guarded.look(Request("in.mp4", (), options, 0.0)) as at:
        assert 0 < len(at.finish().pts) <= 13


def test_an_input_that_does_not_say_how_long_it_is_is_refused_on_the_way(folder):
    info = replace(probe("in.mp4"), duration=None)
    with pytest.raises(InputError, match=r"at most 0\.5 s are rendered"):
        survey(info, Request("in.mp4", (), OutputOptions(max_duration=Fraction(1, 2)), 0.0))


def test_a_plan_holds_the_limit_and_comes_back(folder):
    plan = make_plan("in.mp4", "style.png", "out.mp4", options=OutputOptions(max_duration="1:00"))
    assert plan.options.max_duration == 60
    assert type(plan).from_json(plan.to_json()) == plan


# ---------------------------------------------------------------------------------------------- sound that is damaged


def test_sound_that_the_output_cannot_take_is_found_before_the_first_frame(folder):
    """Opus whose header has lost its name: mp4's muxer notices at the very end."""
    path = make_video(folder / "in.mkv", sound="libopus")
    path.write_bytes(path.read_bytes().replace(b"\x63\xa2\x93OpusHead", b"\x63\xa1\x93OpusHead"))
    with pytest.raises(InputError, match=r"has sound or subtitles that cannot be written"):
        rehearse(probe(path), Request(str(path), (), OutputOptions(), 0.0, "out.mp4"), found_at(0))


def found_at(pts):
    """What the pass over a clip of one frame finds."""
    return Survey(Fraction(1, 12800), (pts,), pts + 512, ((0, 1),))


@dataclass(frozen=True)
class Rehearsal:
    """What a clip holds beside its pictures, and what it is written to."""

    source: str
    target: str
    holds: dict


REHEARSALS = {
    "copied": Rehearsal("in.mp4", "out.mp4", {"sound": "aac"}),
    "made over": Rehearsal("in.mkv", "out.webm", {"sound": "flac", "subtitles": "ass", "chapters": True}),
    "words": Rehearsal("in.mkv", "out.mp4", {"subtitles": "ass"}),
    "attachment": Rehearsal("in.mkv", "out.mkv", {"attachment": b"font" * 9}),
    "nothing": Rehearsal("in.mp4", "out.mp4", {}),
    "a picture": Rehearsal("in.mp4", "out.png", {"sound": "aac"}),
}


@pytest.mark.parametrize("case", REHEARSALS)
@pytest.mark.parametrize("part", [{}, {"start": "0.2", "end": "0.6"}], ids=["whole", "part"])
def test_a_rehearsal_of_good_sound_has_nothing_to_say(tmp_path, caplog, case, part):
    clip = REHEARSALS[case]
    path = make_video(tmp_path / clip.source, **clip.holds)
    info = probe(path)
    first = round(Fraction(part.get("start", 0)) / info.time_base)
    steps: list[int] = []
    request = Request(str(path), (), OutputOptions(**part), 0.0, clip.target)
    rehearse(info, request, found_at(first), lambda: steps.append(1))
    assert not [line for line in caplog.messages if "damaged" in line or "cannot" in line]
    assert bool(steps) == bool(clip.target != "out.png" and set(clip.holds) & {"sound", "subtitles"})


def test_nowhere_is_a_file_without_contents():
    file = Nowhere()
    assert (file.write(b"12345678"), file.seek(-2, os.SEEK_END), file.write(b"123"), file.tell()) == (8, 6, 3, 9)
    assert (file.seek(4), file.seek(1, os.SEEK_CUR), file.seek(0, os.SEEK_END)) == (4, 5, 9)


# ---------------------------------------------------------------------------------------------- many damaged files


@posix
def test_two_hundred_damaged_files():
    """Each ends in a result or one line, as `scripts/fuzz_media.py` runs them by the thousand.

    In a process of its own: the cases are forks of it, and a fork of this one, once torch has threads in it, hangs.
    """
    from fuzz_media import run_many

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        outcomes = pool.submit(run_many, range(0, 2200, 11), 2026).result()
    assert [outcome for outcome in outcomes if outcome.end not in ("good", "refused")] == []
    assert len({outcome.kind for outcome in outcomes}) == 12
    assert len({outcome.how for outcome in outcomes}) == 7
    assert 20 < sum(outcome.end == "good" for outcome in outcomes) < 150


@posix
@pytest.mark.parametrize("number", [0, 31, 62])
def test_damaged_files_by_the_command_line(tmp_path, number):
    from fuzz_media import Runner, run_cli

    outcome = run_cli(Runner(tmp_path, seed=2026), number)
    assert outcome.end in ("good", "refused"), outcome.says


def test_a_mutant_is_the_same_every_time(tmp_path):
    from media_mutations import Generator

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Generator(tmp_path / "one", 5), Generator(tmp_path / "two", 5)
    two.good = one.good  # encoders may differ in a byte; the mutations may not
    assert [one(number) for number in range(60)] == [two(number) for number in range(60)]
    assert one(3) != Generator(tmp_path / "one", 6)(3)


@posix
def test_the_script_notices_faults(tmp_path):
    """A child that dies without a word, one that says too much, and a command that ends wrongly are told apart."""
    from fuzz_media import Forked, complaint

    child = Forked(lambda requests, answers: os.kill(os.getpid(), signal.SIGSEGV))
    assert child.wait(timeout=10) == -signal.SIGSEGV
    child.stdin.close()
    child.stdout.close()
    error = "nst-video: error: bad"
    assert complaint(0, ["nst-video: done"], b"", wrote=True) == ""
    assert complaint(3, ["nst-video: warning: x", error], b"", wrote=False) == ""
    wrong: list[Callable[[], str]] = [
        lambda: complaint(-11, [], b"", wrote=False),
        lambda: complaint(1, [error], b"", wrote=False),
        lambda: complaint(3, [error, error], b"", wrote=False),
        lambda: complaint(3, [error, "nst-video: more"], b"", wrote=False),
        lambda: complaint(3, ["Traceback (most recent call last):", error], b"", wrote=False),
        lambda: complaint(0, ["nst-video: done"], b"", wrote=False),
        lambda: complaint(3, [error], b"", wrote=True),
        lambda: complaint(0, ["nst-video: done"], b"noise", wrote=True),
    ]
    assert all(case() for case in wrong)


def test_the_pictures_are_told_to_be_good_before_the_part_to_render_is_decoded(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr("nst_video.planning.begin_import", begun.append)
    clip, style = make_video(tmp_path / "in.mp4"), tmp_path / "style.png"
    with pytest.raises(InputError, match=r"style\.png"):
        make_plan(clip, style, tmp_path / "out.mp4")
    assert begun == []
    write_picture(style, picture(3))
    make_plan(clip, style, tmp_path / "out.mp4")
    assert begun == ["torch"]
