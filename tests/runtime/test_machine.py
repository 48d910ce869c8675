"""What is said about the machine is that of this process."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime import machine
from deeplab2_edge.runtime.benchmark import run_benchmark
from tests.runtime.tiny_model import INT8_MODEL

_CHILD = "from deeplab2_edge.runtime.machine import peak_memory_bytes as p; print(p())"
_PARENT = f"""
import subprocess, sys
ballast = bytearray(400_000_000)
print(subprocess.check_output([sys.executable, "-c", {_CHILD!r}], text=True))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="run on Linux, which tells it apart"
)
def test_the_peak_of_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    text = subprocess.check_output([sys.executable, "-c", _PARENT], text=True)
    assert 10_000_000 < int(text) < 400_000_000


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A 64-bit ARM board with a kernel of its own, as files to change."""
    monkeypatch.delenv(machine.EMULATED_VARIABLE, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    (tmp_path / "arch").write_text("aarch64\n")
    (tmp_path / "cpuinfo").write_text("processor : 0\nCPU implementer : 0x41\n")
    (tmp_path / "exe").symlink_to("/usr/bin/python3.11")
    monkeypatch.setattr(machine, "_KERNEL_ARCHITECTURE", tmp_path / "arch")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_RUNNING_PROGRAM", tmp_path / "exe")
    return tmp_path


def test_a_board_is_not_emulated(board: Path) -> None:
    assert not machine.is_emulated()
    machine.refuse_emulation()


@pytest.mark.parametrize("seen", ["armv7l", "armv8l", "armv6l"])
def test_32_bits_on_a_64_bit_kernel_are_not_emulated(
    seen: str, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: seen)
    assert not machine.is_emulated()


def test_files_that_are_not_there_say_nothing(board: Path) -> None:
    for file in board.iterdir():
        file.unlink()
    assert not machine.is_emulated()


def test_a_kernel_for_another_processor_is_emulation(board: Path) -> None:
    (board / "arch").write_text("x86_64\n")
    assert machine.is_emulated()


def test_the_program_of_qemu_is_emulation(board: Path) -> None:
    (board / "exe").unlink()
    (board / "exe").symlink_to("/usr/bin/qemu-aarch64-static")
    with pytest.raises(UsageError, match=r"aarch64 is emulated \(qemu-aarch64-static"):
        machine.refuse_emulation()


def test_an_arm_with_the_cpuinfo_of_an_x86_is_emulation(board: Path) -> None:
    (board / "arch").unlink()
    (board / "cpuinfo").write_text("processor : 0\nvendor_id : GenuineIntel\n")
    assert machine.is_emulated()


def test_the_variable_says_it_where_nothing_shows(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(machine.EMULATED_VARIABLE, "0")
    assert not machine.is_emulated()
    monkeypatch.setenv(machine.EMULATED_VARIABLE, "1")
    assert machine.is_emulated()
    with pytest.raises(UsageError, match=machine.EMULATED_VARIABLE):
        run_benchmark(INT8_MODEL, repeats=1, warmup=0, quiet=True)


def test_the_description_says_whether_it_is_emulated() -> None:
    assert machine.describe_machine()["emulated"] is machine.is_emulated()


def test_no_stored_measurement_comes_from_an_emulator() -> None:
    files = sorted((Path(__file__).parents[2] / "benchmarks/results").glob("*.json"))
    assert files
    for file in files:
        described = json.loads(file.read_text("utf-8")).get("machine", {})
        assert not described.get("emulated"), file
