"""Describes the machine, so that a measurement can be understood later."""

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deeplab2_edge.errors import UsageError
from deeplab2_edge.runtime.runtimes import runtime_info
from deeplab2_edge.version import __version__

# Set it to 1 where a whole machine is emulated, which looks like a real one.
EMULATED_VARIABLE = "DEEPLAB2_EDGE_EMULATED"

_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_KERNEL_ARCHITECTURE = Path("/proc/sys/kernel/arch")  # since Linux 6.1
_CPUINFO = Path("/proc/cpuinfo")
# QEMU answers for /proc/self/exe with the name of the emulated program, not for this.
_RUNNING_PROGRAM = Path("/proc/thread-self/exe")


def describe_machine() -> dict[str, Any]:
    """Gives what decides about speed, ready for JSON; None where it is unknown.

    Returns:
        `cpu`, `board`, `architecture`, `emulated`, `cores`, `usable_cores`,
        `governor`, `max_frequency_mhz`, `temperature_c`, `memory_bytes`, `system`,
        `python`, `versions` of `deeplab2-edge`, `numpy`, `opencv` and the runtimes.
    """
    runtime = runtime_info()
    versions = {
        "deeplab2-edge": __version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        runtime.name: runtime.version,
    }
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["onnxruntime"] = importlib.metadata.version("onnxruntime")
    return {
        "cpu": _cpu_name(),
        "board": _read(Path("/proc/device-tree/model")),
        "architecture": platform.machine(),
        "emulated": is_emulated(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "governor": _read(_CPU / "cpu0/cpufreq/scaling_governor"),
        "max_frequency_mhz": _max_frequency_mhz(),
        "temperature_c": temperature_c(),
        "memory_bytes": _memory_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def is_emulated() -> bool:
    """Says whether the processor that this process sees is played by another one.

    True under QEMU's user mode and its like, and where the environment variable
    DEEPLAB2_EDGE_EMULATED is 1. A whole emulated machine cannot be told from a real
    one: set the variable there.
    """
    return _emulator() is not None


def refuse_emulation() -> None:
    """Refuses to measure where times say nothing about any device.

    Raises:
        UsageError: If the processor is emulated.
    """
    emulator = _emulator()
    if emulator is not None:
        raise UsageError(
            f"this {platform.machine()} is emulated ({emulator}), so no time measured "
            "here means anything; measure on the device itself"
        )


def temperature_c() -> float | None:
    """Gives the temperature of the hottest thermal zone, None if unreadable."""
    values = []
    for zone in _THERMAL.glob("thermal_zone*/temp"):
        text = _read(zone) or ""
        if text.lstrip("-").isdigit():
            values.append(int(text) / 1000)
    return max(values, default=None)


def peak_memory_bytes() -> int | None:
    """Gives the largest resident memory of this process so far, None if unknown."""
    # On Linux, getrusage begins with the peak of the process that started this one.
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _emulator() -> str | None:
    """Says by what an emulation shows, None if by nothing."""
    if os.environ.get(EMULATED_VARIABLE, "0") not in ("", "0"):
        return f"{EMULATED_VARIABLE} is set"
    with contextlib.suppress(OSError):
        program = _RUNNING_PROGRAM.readlink().name
        if program.startswith("qemu-"):
            return program
    seen = _family(platform.machine())
    kernel = _read(_KERNEL_ARCHITECTURE)
    if kernel and _family(kernel) != seen:
        return f"the kernel is for {kernel}"
    processor = _read(_CPUINFO) or ""
    if seen == "arm" and "vendor_id" in processor:
        return "the processor is not an ARM"
    return None


def _family(machine: str) -> str:
    """Gives what 32-bit and 64-bit programs of one kind of processor share."""
    machine = machine.lower()
    if machine.startswith(("arm", "aarch64")):
        return "arm"
    if machine in ("x86_64", "amd64", "i386", "i486", "i586", "i686"):
        return "x86"
    return machine


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.strip("\0 \n\t") or None


def _cpu_name() -> str | None:
    # x86 says "model name", old ARM kernels "Hardware"; ARM64 says neither.
    fields: dict[str, str] = {}
    for line in (_read(_CPUINFO) or "").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields.get("model name") or fields.get("Hardware") or platform.processor()


def _max_frequency_mhz() -> int | None:
    text = _read(_CPU / "cpu0/cpufreq/cpuinfo_max_freq") or ""
    return int(text) // 1000 if text.isdigit() else None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
