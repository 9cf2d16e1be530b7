"""What the command line asks of the system before torch is there."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from nst_video.devices import process

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.fixture
def unset(monkeypatch):
    """An environment in which nobody has chosen anything, and that comes back as it was."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what the code sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")  # the allocator of the tests stays as it is


@pytest.mark.parametrize(("others", "spins"), [(0, "10000"), (1, None), (7, None)])
def test_threads_spin_only_where_no_other_program_runs(unset, monkeypatch, others, spins):
    monkeypatch.setattr(process, "_others", lambda: others)
    process.settle()
    assert [os.environ.get(name) for name in NAMES] == ["PASSIVE", spins]


def test_threads_sleep_where_nobody_knows_what_runs(unset, monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_RUNNING", tmp_path / "loadavg")
    process.settle()
    assert [os.environ.get(name) for name in NAMES] == ["PASSIVE", None]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_chose_stays(unset, monkeypatch, name):
    monkeypatch.setattr(process, "_others", lambda: 0)
    monkeypatch.setenv(name, "7")
    process.settle()
    assert {key: os.environ[key] for key in NAMES if key in os.environ} == {name: "7"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what runs")
def test_a_busy_program_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            seen = [process._others() for _ in range(25)]
        finally:
            other.kill()
    assert sorted(seen)[12] >= 1  # in the middle of the looks: it takes a moment to start


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(("most", "kept"), [(1 << 30, 1 << 30), (1 << 25, 1 << 25)])
def test_an_allocator_keeps_as_much_as_it_can(monkeypatch, most, kept):
    asked = {}

    def mallopt(option, value):
        if option == process._M_MMAP_THRESHOLD and value > most:
            return 0
        asked[option] = value
        return 1

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    process.keep_memory()
    assert asked == {process._M_MMAP_THRESHOLD: kept, process._M_TRIM_THRESHOLD: 1 << 30}


FAULTS = """
import os, resource, sys
if sys.argv[1] == "settled":
    from nst_video.devices.process import settle
    settle()
import torch
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_000_000)  # 48 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(pages() for _ in range(10)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the allocator of glibc")
def test_memory_of_large_tensors_is_used_again():
    faults = {}
    for how in ("settled", "as it is"):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
        command = [sys.executable, "-c", FAULTS, how]
        faults[how] = int(subprocess.run(command, env=clean, check=True, capture_output=True, text=True).stdout)
    assert faults["settled"] < 0.05 * faults["as it is"]


RETURNED = """
from pathlib import Path
from nst_video.devices.process import give_back_memory, settle
settle()
import torch
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
parts = [torch.ones(1_000_000) for _ in range(50)]  # 200 MB
last = torch.ones(1_000)  # above them in the heap
del parts
before = held()
give_back_memory()
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the allocator of glibc")
def test_kept_memory_is_given_back_when_asked_for():
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, "-c", RETURNED]
    given = int(subprocess.run(command, env=clean, check=True, capture_output=True, text=True).stdout)
    assert given > 150e6
