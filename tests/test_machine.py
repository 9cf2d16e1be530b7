"""What "auto" becomes: by what the machine has, never by how fast it was."""

import pytest
import torch

from nst_video.devices import machine
from nst_video.devices.machine import cpu_instructions, devices, resolve_machine
from nst_video.errors import UsageError
from nst_video.options import MachineOptions


@pytest.mark.parametrize(
    ("instructions", "precision"),
    [
        ({"amx_tile", "amx_bf16", "avx512_f"}, "bf16"),
        ({"avx512_bf16"}, "bf16"),
        ({"amx_tile", "amx_int8", "avx512_f", "avx2"}, "fp32"),
        (set(), "fp32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(monkeypatch, instructions, precision):
    monkeypatch.setattr(machine, "cpu_instructions", lambda: frozenset(instructions))
    assert resolve_machine(MachineOptions(device="cpu")).precision == precision
    for asked in ("fp32", "bf16"):
        assert resolve_machine(MachineOptions(device="cpu", precision=asked)).precision == asked


def test_nothing_is_left_to_decide_and_it_is_the_same_each_time():
    found = resolve_machine(MachineOptions())
    assert found.device == devices()[0]
    # The rule once more, for whatever machine this is.
    has_bf16 = {
        "cpu": bool({"amx_bf16", "avx512_bf16"} & cpu_instructions()),
        "cuda": torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False),
        "mps": False,
    }
    assert found.precision == ("bf16" if has_bf16[found.device.partition(":")[0]] else "fp32")
    assert found.threads == torch.get_num_threads()
    assert resolve_machine(MachineOptions()) == found == resolve_machine(found)


def test_a_torch_that_cannot_tell_has_no_instructions(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_instructions() == frozenset()


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="torch before 2.11 cannot tell")
def test_the_instructions_are_those_that_torch_uses():
    names = cpu_instructions()
    assert all(isinstance(name, str) for name in names)
    assert ("avx2" in names) == (torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512", "AVX512_BF16"))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match=r"--device cuda:99 is not there; this machine has .*cpu"):
        resolve_machine(MachineOptions(device="cuda:99"))
