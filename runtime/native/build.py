"""Finds the native library, and builds it where a compiler is."""

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from deeplab2_edge.errors import MissingExtraError, OutputError, UsageError
from deeplab2_edge.files import atomic_write

# Path of a library built elsewhere, for machines without a compiler.
LIBRARY_VARIABLE = "DEEPLAB2_EDGE_NATIVE"
COMPILER_VARIABLE = "CXX"

_SOURCES = (
    "centers.cpp",
    "core.cpp",
    "drawing.cpp",
    "frame.cpp",
    "grouping.cpp",
    "instances.cpp",
    "labels.cpp",
    "masks.cpp",
    "merging.cpp",
    "pool.cpp",
    "tflite_delegate.cpp",
    "transforms.cpp",
    "two_frames.cpp",
)
_HEADERS = (
    "axis.h",
    "centers.h",
    "classes.h",
    "deeplab2_edge.h",
    "drawing.h",
    "floats4.h",
    "frame.h",
    "grouping.h",
    "instances.h",
    "labels.h",
    "lanes.h",
    "masks.h",
    "merging.h",
    "parallel.h",
    "pool.h",
    "tflite_abi.h",
    "transforms.h",
    "two_frames.h",
)
_COMPILERS = ("g++", "clang++", "c++")
# Products and sums are not contracted: the bits would be others than NumPy's.
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-pthread",
    "-shared",
    "-fvisibility=hidden",
    "-ffp-contract=off",
)
_SECONDS = 300


def find_library(*, build: bool = True) -> Path:
    """Gives the path of the native library of this machine.

    That is, in this order: the one that the environment variable DEEPLAB2_EDGE_NATIVE
    names, one that was built before, one that is built now.

    Args:
        build: Whether to build it if it is missing.

    Raises:
        MissingExtraError: If there is none and no compiler; the message says what to
            install.
        OutputError: If it cannot be built or kept.
        UsageError: If the variable names no file.
    """
    given = os.environ.get(LIBRARY_VARIABLE)
    if given:
        if not Path(given).is_file():
            raise UsageError(f"{LIBRARY_VARIABLE} is {given!r}; no such file")
        return Path(given)
    library = _cache_folder() / _library_name()
    if not _is_ours(library):
        if not build:
            raise MissingExtraError(
                "the native library is not built; run: python -m "
                "deeplab2_edge.runtime.native.build"
            )
        build_native(library)
    return library


def build_native(output: str | os.PathLike[str]) -> Path:
    """Compiles the native library, which takes some seconds.

    Args:
        output: The shared library to write, at once or not at all.

    Raises:
        MissingExtraError: If there is no C++ compiler.
        OutputError: If it fails; the message holds the compiler's first error.
    """
    compiler = _find_compiler()
    target = Path(output)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target.parent}: cannot be made ({error.strerror})"
        ) from error
    with tempfile.TemporaryDirectory() as folder, atomic_write(target) as temporary:
        for name in (*_SOURCES, *_HEADERS):
            (Path(folder) / name).write_text(_source(name), encoding="utf-8")
        command = [compiler, *_FLAGS, *_SOURCES, "-o", str(temporary.absolute())]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OutputError(f"{compiler}: cannot compile ({error})") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line]
            reason = (lines or done.stderr.splitlines() or ["no message"])[0]
            raise OutputError(f"{compiler}: the native library fails: {reason[:300]}")
    return target


def _find_compiler() -> str:
    asked = os.environ.get(COMPILER_VARIABLE, "").split()
    for name in (*asked[:1], *_COMPILERS):
        found = shutil.which(name)
        if found:
            return found
    raise MissingExtraError(
        "no C++ compiler (g++ or clang++) for the native library; install one (Debian, "
        f"Raspberry Pi: apt install g++), or set {LIBRARY_VARIABLE} to a library built "
        "elsewhere"
    )


def _source(name: str) -> str:
    return (files("deeplab2_edge.runtime.native") / name).read_text(encoding="utf-8")


def _library_name() -> str:
    """Names the library by all that decides what is in it."""
    digest = hashlib.sha256("\n".join(_FLAGS).encode())
    for name in (*_SOURCES, *_HEADERS):
        digest.update(_source(name).encode())
    suffix = sysconfig.get_config_var("SHLIB_SUFFIX") or ".so"
    return f"deeplab2_edge-{platform.machine()}-{digest.hexdigest()[:16]}{suffix}"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deeplab2-edge" / "native"


def _is_ours(library: Path) -> bool:
    """Says whether a library is there that nobody else could have put there."""
    try:
        status = library.stat()
    except OSError:
        return False
    if not hasattr(os, "getuid"):
        return True
    is_closed = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return is_closed and status.st_uid in (os.getuid(), 0)


if __name__ == "__main__":
    print(find_library())
