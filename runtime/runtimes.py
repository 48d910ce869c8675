"""The runtimes of model files: which there are, and which is used.

TFLite files run in the first one installed of ai-edge-litert, tflite-runtime (32-bit
ARM, old Pythons) and TensorFlow; ONNX files in ONNX Runtime.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from deeplab2_edge.errors import MissingExtraError, UsageError
from deeplab2_edge.model_file import ONNX, TFLITE
from deeplab2_edge.optional import require

# Names the runtime of TFLite files where none is asked for.
RUNTIME_VARIABLE = "DEEPLAB2_EDGE_RUNTIME"

_LAST_TFLITE_PYTHON = (3, 11)  # of tflite-runtime 2.14.0, the last release


@dataclass(frozen=True)
class Runtime:
    """Is one that can be asked for.

    Attributes:
        name: Of the distribution that brings it.
        module: What to import.
        format: Of the files that it runs.
    """

    name: str
    module: str
    format: str


@dataclass(frozen=True)
class RuntimeInfo:
    """Names a runtime in use."""

    name: str
    version: str


RUNTIMES = (
    Runtime("ai-edge-litert", "ai_edge_litert.interpreter", TFLITE),
    Runtime("tflite-runtime", "tflite_runtime.interpreter", TFLITE),
    Runtime("tensorflow", "tensorflow", TFLITE),
    Runtime("onnxruntime", "onnxruntime", ONNX),
)
RUNTIME_NAMES = tuple(runtime.name for runtime in RUNTIMES)


def choose_runtime(
    file_format: str, asked: str | None = None, *, label: str = "this file"
) -> Runtime:
    """Chooses what runs files of a format.

    Args:
        file_format: `tflite` or `onnx`.
        asked: One of `RUNTIME_NAMES`. Default for TFLite files: the one that the
            environment variable DEEPLAB2_EDGE_RUNTIME names, else the first that is
            installed and works.
        label: What to call the file in messages.

    Raises:
        UsageError: If the one asked for does not exist or does not run such files.
        MissingExtraError: If it is not installed or cannot work here.
    """
    source = "runtime"
    if asked is None and file_format == TFLITE:
        asked, source = os.environ.get(RUNTIME_VARIABLE) or None, RUNTIME_VARIABLE
    fitting = [runtime for runtime in RUNTIMES if runtime.format == file_format]
    if asked is not None:
        if asked not in RUNTIME_NAMES:
            raise UsageError(
                f"{source} is {asked!r}; expected one of {', '.join(RUNTIME_NAMES)}"
            )
        named = [runtime for runtime in fitting if runtime.name == asked]
        if not named:
            names = " or ".join(runtime.name for runtime in fitting)
            raise UsageError(
                f"{label}: {source} is {asked!r}, which does not run "
                f"{file_format} files; they run in {names}"
            )
        fitting = named
    installed = [runtime for runtime in fitting if is_installed(runtime)]
    problems = [problem for runtime in installed if (problem := problem_of(runtime))]
    working = [runtime for runtime in installed if not problem_of(runtime)]
    if working:
        return working[0]
    if problems:
        raise MissingExtraError(problems[0])
    raise MissingExtraError(f"{_missing(fitting)}; {how_to_install(fitting[0])}")


def import_runtime(runtime: Runtime) -> ModuleType:
    """Imports a runtime of TFLite files; gives what has `Interpreter`.

    Raises:
        MissingExtraError: If it is not installed.
    """
    if runtime.name == "tensorflow":
        lite: ModuleType = require("tensorflow", extra="convert").lite
        return lite
    try:
        return importlib.import_module(runtime.module)
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"{_missing([runtime])}; {how_to_install(runtime)}"
        ) from None


def is_installed(runtime: Runtime) -> bool:
    """Says whether a runtime is there, without importing it."""
    return importlib.util.find_spec(runtime.module.split(".")[0]) is not None


def problem_of(runtime: Runtime) -> str | None:
    """Says why an installed runtime cannot work here, and what to do; None if it can.

    tflite-runtime can be imported beside NumPy 2, and dies in its first call.
    """
    if runtime.name == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
        return (
            f"tflite-runtime {runtime_version(runtime)} does not work with NumPy "
            f"{np.__version__}; run: pip install 'numpy<2', or use ai-edge-litert"
        )
    return None


def runtime_version(runtime: Runtime) -> str:
    """Gives the version of an installed runtime."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(runtime.name)
    # tensorflow-cpu, onnxruntime-gpu and the like; once in use they know.
    module = sys.modules.get(runtime.module.split(".")[0])
    return str(getattr(module, "__version__", "unknown"))


def runtime_info(asked: str | None = None) -> RuntimeInfo:
    """Says which runtime TFLite files use.

    Raises:
        UsageError: As `choose_runtime`.
        MissingExtraError: If none is installed.
    """
    runtime = choose_runtime(TFLITE, asked)
    return RuntimeInfo(runtime.name, runtime_version(runtime))


def how_to_install(runtime: Runtime) -> str:
    """Says what to do on this machine to get a runtime."""
    if runtime.name == "onnxruntime":
        return "run: pip install 'deeplab2-edge[onnx]'"
    if runtime.name == "tensorflow":
        return "run: pip install 'deeplab2-edge[convert]'"
    if is_64_bit():
        return f"run: pip install {runtime.name}"
    if sys.version_info[:2] <= _LAST_TFLITE_PYTHON:
        return "run: pip install tflite-runtime 'numpy<2'"
    python = platform.python_version()
    return (
        f"no TFLite interpreter exists for a 32-bit Python {python}: use the 64-bit OS "
        "(Raspberry Pi OS 64-bit) and pip install ai-edge-litert"
    )


def is_64_bit() -> bool:
    """Says whether this Python is: a 64-bit kernel may run a 32-bit system."""
    return sys.maxsize > 2**32


def _missing(fitting: list[Runtime]) -> str:
    if len(fitting) == 1:
        return f"{fitting[0].name} is not installed"
    return "no TFLite interpreter is installed"
