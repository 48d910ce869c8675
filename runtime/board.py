"""Looks at what a board has: instructions, memory, cameras, a screen.

What a system does not tell is None or empty; nothing here fails for it.
"""

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Any

import cv2

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CAMERAS = Path("/sys/class/video4linux")
_DEV = Path("/dev")

# Names in /proc/cpuinfo of what makes networks fast, and what they mean.
_INSTRUCTIONS = {
    # ARM, 64-bit and 32-bit.
    "asimd": "NEON",
    "neon": "NEON",
    "asimddp": "NEON dot products of int8",
    "i8mm": "matrix products of int8",
    "asimdhp": "half floats",
    "sve": "SVE",
    "sme": "SME",
    # x86.
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx_vnni": "dot products of int8",
    "avx512_vnni": "AVX-512 dot products of int8",
    "amx_int8": "matrix products of int8",
}
_INT8_DOT = ("asimddp", "avx_vnni", "avx512_vnni")

# Of linux/videodev2.h: what VIDIOC_QUERYCAP fills, and the bits of a camera.
_QUERY_CAPABILITIES = 0x80685600
_CAPABILITIES = struct.Struct("16s32s32sIII12x")
_CAPTURES = 0x00000001 | 0x00001000


def cpu_instructions() -> list[str]:
    """Names the instructions for networks that the processor has, in words."""
    flags = _cpu_flags()
    return list(dict.fromkeys(w for f, w in _INSTRUCTIONS.items() if f in flags))


def has_int8_dot_products() -> bool | None:
    """Whether int8 networks gain all they can over float ones; None if unknown."""
    flags = _cpu_flags()
    return any(flag in flags for flag in _INT8_DOT) if flags else None


def page_size() -> int | None:
    """Gives the size of a page of memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def memory() -> dict[str, int | None]:
    """Gives `total_bytes` and `available_bytes`, and `limit_bytes` of a container."""
    values = {}
    for line in _read(_MEMINFO).splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdigit():
            values[name] = int(number[0]) * 1024
    limit = _read(_MEMORY_LIMIT).strip()
    return {
        "total_bytes": values.get("MemTotal"),
        "available_bytes": values.get("MemAvailable"),
        "limit_bytes": int(limit) if limit.isdigit() else None,
    }


def cameras() -> list[dict[str, Any]]:
    """Lists the cameras that Linux knows, without opening a picture.

    Returns:
        For each `device`, `name`, and as `problem` why it cannot be opened, or None.
        Decoders and the like, which are video devices too, are left out.
    """
    found = []
    for entry in sorted(_CAMERAS.glob("video*"), key=_number):
        device = _DEV / entry.name
        problem = None
        try:
            captures = _captures(device)
        except OSError as error:
            captures, problem = True, error.strerror or str(error)
        if captures:
            name = _read(entry / "name").strip()
            found.append({"device": str(device), "name": name, "problem": problem})
    return found


def display() -> str | None:
    """Names the screen that windows go to, None without one."""
    for name in ("WAYLAND_DISPLAY", "DISPLAY"):
        if os.environ.get(name):
            return f"{name}={os.environ[name]}"
    return "desktop" if os.name == "nt" else None


def has_windows() -> bool:
    """Whether this OpenCV can open windows; its headless package cannot."""
    for line in cv2.getBuildInformation().splitlines():
        name, found, value = line.strip().partition(":")
        if found and name == "GUI":
            return value.strip() != "NONE"
    return False


def can_serve() -> bool:
    """Whether a program may listen on this machine, for the live view in a browser."""
    with contextlib.suppress(OSError), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return True
    return False


def _captures(device: Path) -> bool:
    """Asks a video device whether it gives pictures."""
    import fcntl  # Linux only, like the devices

    descriptor = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        answer = bytearray(_CAPABILITIES.size)
        fcntl.ioctl(descriptor, _QUERY_CAPABILITIES, answer)
    finally:
        os.close(descriptor)
    *_, device_capabilities = _CAPABILITIES.unpack(answer)
    return bool(device_capabilities & _CAPTURES)


def _number(entry: Path) -> int:
    digits = entry.name.removeprefix("video")
    return int(digits) if digits.isdigit() else 0


def _cpu_flags() -> set[str]:
    for line in _read(_CPUINFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
