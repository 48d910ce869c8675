"""Finds the native library, and builds it where a compiler is."""

import hashlib
import os
import platform
import stat
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from deeplab2_edge.errors import MissingExtraError, OutputError, UsageError
from deeplab2_edge.files import atomic_write
from deeplab2_edge.runtime.native.compiler import (
    FLAGS,
    HEADERS,
    LIBRARY_NAME,
    SOURCES,
    CompilerError,
    compile_library,
    find_compiler,
)

# Path of a library built elsewhere, for machines without a compiler.
LIBRARY_VARIABLE = "DEEPLAB2_EDGE_NATIVE"


def find_library(*, build: bool = True, packaged: bool = True) -> Path:
    """Gives the path of the native library of this machine.

    That is, in this order: the one that the environment variable DEEPLAB2_EDGE_NATIVE
    names, the one within the package, one that was built before, one that is built now.

    Args:
        build: Whether to build it if it is missing.
        packaged: Whether to take the one within the package.

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
    within = packaged_library()
    if packaged and within.is_file():
        return within
    library = _cache_folder() / _library_name()
    if not _is_ours(library):
        if not build:
            raise MissingExtraError(
                "the native library is not built; run: python -m "
                "deeplab2_edge.runtime.native.build"
            )
        build_native(library)
    return library


def packaged_library() -> Path:
    """Says where a wheel that was built for one kind of machine has the library."""
    return Path(__file__).with_name(LIBRARY_NAME)


def build_native(output: str | os.PathLike[str]) -> Path:
    """Compiles the native library, which takes some seconds.

    Args:
        output: The shared library to write, at once or not at all.

    Raises:
        MissingExtraError: If there is no C++ compiler.
        OutputError: If it fails; the message holds the compiler's first error.
    """
    compiler = find_compiler()
    if compiler is None:
        raise MissingExtraError(
            "no C++ compiler (g++ or clang++) for the native library; install one "
            f"(Debian, Raspberry Pi: apt install g++), or set {LIBRARY_VARIABLE} to a "
            "library built elsewhere"
        )
    target = Path(output)
    if sys.stderr.isatty():  # who looks on should know what is waited for
        print("compiling the native core, once ...", file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target.parent}: cannot be made ({error.strerror})"
        ) from error
    with tempfile.TemporaryDirectory() as folder, atomic_write(target) as temporary:
        for name in (*SOURCES, *HEADERS):
            (Path(folder) / name).write_text(_source(name), encoding="utf-8")
        try:
            compile_library(compiler, Path(folder), temporary)
        except CompilerError as error:
            raise OutputError(str(error)) from error
    return target


def _source(name: str) -> str:
    return (files("deeplab2_edge.runtime.native") / name).read_text(encoding="utf-8")


def _library_name() -> str:
    """Names the library by all that decides what is in it."""
    digest = hashlib.sha256("\n".join(FLAGS).encode())
    for name in (*SOURCES, *HEADERS):
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
