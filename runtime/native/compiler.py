"""Compiles the native library. Needs Python alone, as setup.py runs it too."""

import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COMPILER_VARIABLE = "CXX"
# Of the library within a package that was built where a compiler was.
LIBRARY_NAME = "libdeeplab2_edge" + (sysconfig.get_config_var("SHLIB_SUFFIX") or ".so")

SOURCES = (
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
HEADERS = (
    "axis.h",
    "centers.h",
    "classes.h",
    "deeplab2_edge.h",
    "drawing.h",
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
    "votes.h",
)
# Products and sums are not contracted: the bits would be others than NumPy's.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=off",
)

_COMPILERS = ("g++", "clang++", "c++")
_SECONDS = 600
# One takes 200 MB or more, and small boards have little.
_MAX_PROCESSES = 4


class CompilerError(Exception):
    """Says in one line why there is no library."""


def find_compiler() -> str | None:
    """Gives the path of a C++ compiler: of the variable CXX, or a usual one."""
    asked = os.environ.get(COMPILER_VARIABLE, "").split()
    for name in (*asked[:1], *_COMPILERS):
        found = shutil.which(name)
        if found:
            return found
    return None


def compile_library(compiler: str, folder: Path, output: Path) -> None:
    """Compiles the sources in a folder, which is written to, and links them.

    Raises:
        CompilerError: If it fails; the message holds the compiler's first error.
    """

    def run(arguments: tuple[str, ...]) -> None:
        try:
            done = subprocess.run(
                [compiler, *FLAGS, *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompilerError(f"{compiler}: cannot compile ({error})") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line]
            reason = (lines or done.stderr.splitlines() or ["no message"])[0]
            raise CompilerError(f"{compiler}: the native library fails: {reason[:300]}")

    processes = min(os.cpu_count() or 1, _MAX_PROCESSES)
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, [("-c", name, "-o", f"{name}.o") for name in SOURCES]))
    objects = (f"{name}.o" for name in SOURCES)
    run(("-shared", *objects, "-o", str(output.absolute())))
