"""Compiles the native library into a wheel, where a compiler is.

Such a wheel is for one kind of machine, but for any Python 3. Without a compiler the
wheel holds the sources alone and is for all machines. pyproject.toml has all the rest.
"""

import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = Path(__file__).parent / "runtime" / "native"
COMPILER = runpy.run_path(str(NATIVE / "compiler.py"))


class BuildWithLibrary(build_py):
    """Adds the library beside its sources; an editable checkout builds its own."""

    def run(self) -> None:
        super().run()
        compiler = COMPILER["find_compiler"]()
        if self.editable_mode or compiler is None:
            return
        package = Path(self.build_lib, "deeplab2_edge", "runtime", "native")
        with tempfile.TemporaryDirectory() as folder:
            sources = Path(folder, "native")
            shutil.copytree(NATIVE, sources)
            library = Path(folder, COMPILER["LIBRARY_NAME"])
            try:
                COMPILER["compile_library"](compiler, sources, library)
            except COMPILER["CompilerError"] as error:
                print(f"warning: without the native library: {error}", file=sys.stderr)
                return
            shutil.copy(library, package)


class WheelOfLibrary(bdist_wheel):
    """Names the machine if there is a library, and no version of Python."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = COMPILER["find_compiler"]() is None

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (
            (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)
        )


setup(cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfLibrary})
