"""A userland with our wheel in it, the native library compiled for its processor."""

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deeplab2_edge.runtime.native.build import packaged_library
from tests.arm.userland import (
    Userland,
    UserlandError,
    install_wheel,
    make_userland,
    python_command,
)

ROOT = Path(__file__).parents[2]
_NOT_SOURCES = (".*", "build", "dist", "site", "*.egg-info", "__pycache__", "tests")
_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Board:
    """Stands for a device: the files of one, and how to run something there.

    Attributes:
        userland: What it is.
        folder: Of the userland.
        own: Where our wheel is installed.
        home: A folder to work in.
    """

    userland: Userland
    folder: Path
    own: Path
    home: Path

    @property
    def library(self) -> Path:
        """The native library in the wheel."""
        library = packaged_library().name
        return self.own / "deeplab2_edge/runtime/native" / library

    def python(self, *arguments: str, **variables: str) -> "Answer":
        """Runs Python with our wheel."""
        command, environment = python_command(self.userland, self.folder, *arguments)
        path = f"{self.own}{os.pathsep}{environment['PYTHONPATH']}"
        environment |= {"PYTHONPATH": path, "HOME": str(self.home)}
        return run(command, {**environment, **variables}, self.home)

    def command(self, *arguments: str) -> "Answer":
        """Runs `deeplab2-edge`."""
        return self.python(str(self.own / "bin/deeplab2-edge"), *arguments)


@dataclasses.dataclass(frozen=True)
class Answer:
    """Is what a program left."""

    code: int
    out: str
    err: str


def make_board(userland: Userland, home: Path) -> Board:
    """Builds the wheel for a userland and installs it there.

    Raises:
        UserlandError: If something is missing or fails.
    """
    folder = make_userland(userland)
    wheel = build_wheel(userland, home / "wheel")
    own = home / "own"
    install_wheel(wheel, userland, own)
    board = Board(userland, folder, own, home)
    if not board.library.exists():
        raise UserlandError(f"{wheel.name}: without the native library")
    return board


def build_wheel(userland: Userland, folder: Path) -> Path:
    """Builds our wheel for a userland, on this machine, with a cross compiler.

    Raises:
        UserlandError: If it fails.
    """
    # In a copy: setuptools leaves files beside the sources, and takes what lies there.
    copy = folder / "source"
    shutil.copytree(
        ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_SOURCES)
    )
    answer = run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--wheel-dir", str(folder), str(copy)),
        ],
        {
            **os.environ,
            "CXX": userland.compiler,
            # What setuptools names the platform of a wheel by.
            "_PYTHON_HOST_PLATFORM": f"linux-{userland.machine}",
        },
        folder,
    )
    wheels = list(folder.glob("*.whl"))
    if answer.code or len(wheels) != 1:
        raise UserlandError(f"the wheel cannot be built:\n{answer.err[-1000:]}")
    return wheels[0]


def run(command: list[str], environment: Mapping[str, str], folder: Path) -> Answer:
    """Runs a program to its end.

    Raises:
        subprocess.TimeoutExpired: If it has not ended after 15 minutes.
    """
    done = subprocess.run(
        command,
        env=dict(environment),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    return Answer(done.returncode, done.stdout, done.stderr)
