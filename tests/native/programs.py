"""Builds the C++ programs of this folder with the sources of the native core."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "runtime" / "native"
FLAGS = ("-std=c++17", "-O1", "-g", "-ffp-contract=off", "-pthread", f"-I{CORE}")
# What sanitizers look at; floats beyond all integers are not in a group of theirs.
MEMORY = ("-fsanitize=address,undefined,float-cast-overflow",)
THREADS = ("-fsanitize=thread",)
STRICT = ("-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def find_compiler(*names: str) -> str | None:
    """Gives the first of some compilers that is there."""
    return next((path for name in names if (path := shutil.which(name))), None)


def need_compiler() -> str:
    """Gives a C++ compiler; skips the test without."""
    compiler = find_compiler("g++", "clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++)")
    return compiler


def build_program(
    main: str,
    folder: Path,
    *flags: str,
    compiler: str,
    library: Path | None = None,
) -> Path:
    """Compiles a program of this folder.

    Args:
        main: Its source, a name in this folder.
        folder: Where objects and program go.
        *flags: Added to `FLAGS`, for the sources too.
        compiler: Path of g++ or clang++.
        library: Links this library instead of compiling the sources of the core.

    Returns:
        Path of the program.
    """
    sources = [HERE / main, *([] if library else sorted(CORE.glob("*.cpp")))]
    objects = [folder / f"{source.stem}.o" for source in sources]

    def compile_one(source: Path, output: Path) -> None:
        run(compiler, *FLAGS, *flags, "-c", str(source), "-o", str(output))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources, objects))
    program = folder / Path(main).stem
    linked = [str(library)] if library else []
    run(compiler, "-pthread", *flags, *map(str, objects), *linked, "-o", str(program))
    return program


def run(*command: str) -> str:
    """Runs a command; fails with all it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.fail(f"{command[0]} {command[1:]}:\n{done.stdout}{done.stderr}"[-6000:])
    return done.stdout
