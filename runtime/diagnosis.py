"""Says what of this machine a model would use, and why."""

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from shutil import which
from typing import Any

from deeplab2_edge.errors import DeepLabEdgeError, MissingExtraError
from deeplab2_edge.model_file import TFLITE, ModelFile
from deeplab2_edge.runtime import board
from deeplab2_edge.runtime.check import SelfTest, check_engine
from deeplab2_edge.runtime.comparison import sample_inputs
from deeplab2_edge.runtime.delegated import is_compiled_for_edge_tpu
from deeplab2_edge.runtime.delegates import (
    EDGE_TPU,
    GPU,
    check_library,
    coral_devices,
    find_delegate,
    gpu_devices,
)
from deeplab2_edge.runtime.engine import default_threads, open_engine
from deeplab2_edge.runtime.engine_report import EngineReport
from deeplab2_edge.runtime.machine import describe_machine, is_emulated
from deeplab2_edge.runtime.native.build import LIBRARY_VARIABLE, find_library
from deeplab2_edge.runtime.runtimes import (
    RUNTIME_VARIABLE,
    RUNTIMES,
    choose_runtime,
    is_64_bit,
    is_installed,
    problem_of,
    runtime_version,
)

_TIMED_RUNS = 3
_COMPILERS = ("g++", "clang++", "c++")
_NO_COMPILER = (
    f"there is no C++ compiler (apt install g++, or set {LIBRARY_VARIABLE}): NumPy and "
    "OpenCV do its work, with the same results"
)


def describe_board() -> dict[str, Any]:
    """Gives what `describe_machine` says and what `board` sees, ready for JSON."""
    return {
        **describe_machine(),
        "bits": 64 if is_64_bit() else 32,
        "page_bytes": board.page_size(),
        "instructions": board.cpu_instructions(),
        "int8_dot_products": board.has_int8_dot_products(),
        "memory": board.memory(),
        "default_threads": default_threads(),
        "cameras": board.cameras(),
        "picamera2": find_spec("picamera2") is not None,
        "display": board.display(),
        "windows": board.has_windows(),
        "live_view": board.can_serve(),
    }


def describe_runtimes() -> list[dict[str, Any]]:
    """Lists all runtimes: `name`, `format`, `version`, `problem`, `is_default`.

    `version` is None of those that are not installed.
    """
    defaults = set()
    for file_format in {runtime.format for runtime in RUNTIMES}:
        try:
            defaults.add(choose_runtime(file_format).name)
        except DeepLabEdgeError:
            continue
    return [
        {
            "name": runtime.name,
            "format": runtime.format,
            "version": runtime_version(runtime) if is_installed(runtime) else None,
            "problem": problem_of(runtime) if is_installed(runtime) else None,
            "is_default": runtime.name in defaults,
        }
        for runtime in RUNTIMES
    ]


def describe_delegates() -> list[dict[str, Any]]:
    """Lists the delegates with a name: `name`, `library`, `problem`, `devices`.

    `problem` is None where the library can be loaded; that is not yet a delegate that
    works, which only a model shows.
    """
    found = []
    for name in (EDGE_TPU, GPU):
        library = problem = None
        try:
            delegate = find_delegate(name)
            assert delegate is not None
            library = delegate.library
            check_library(delegate)
        except DeepLabEdgeError as error:
            problem = str(error)
        devices = coral_devices() if name == EDGE_TPU else gpu_devices()
        found.append(
            {"name": name, "library": library, "problem": problem, "devices": devices}
        )
    return found


def describe_native() -> dict[str, Any]:
    """Says of the native core its `library`, and if there is none, what to expect."""
    try:
        return {"library": str(find_library(build=False)), "problem": None}
    except MissingExtraError:
        will = (
            "it is built at the first run"
            if any(map(which, _COMPILERS))
            else _NO_COMPILER
        )
        return {"library": None, "problem": f"not built yet; {will}"}
    except DeepLabEdgeError as error:
        return {"library": None, "problem": str(error)}


def diagnose_model(
    model: ModelFile,
    *,
    num_threads: int | None = None,
    delegate: str | None = None,
    delegate_options: Mapping[str, str] | None = None,
    runtime: str | None = None,
) -> tuple[EngineReport, dict[str, Any], SelfTest]:
    """Opens a model as `run` would, runs it, and says why it is so.

    Args:
        model: A file that was read.
        num_threads: See `open_engine`, as for those that follow.
        delegate: What to use.
        delegate_options: For its library.
        runtime: Of the file.

    Returns:
        The report of the engine; `why` in sentences, `load_ms`, and `run_ms` of the
        network alone, None under an emulator; the self test.

    Raises:
        ModelFileError: As `open_engine`, as the two that follow.
        UsageError: If an option cannot be used.
        MissingExtraError: If nothing runs such files here.
    """
    start = time.perf_counter()
    engine = open_engine(
        model,
        num_threads=num_threads,
        delegate=delegate,
        delegate_options=delegate_options,
        runtime=runtime,
    )
    load_ms = (time.perf_counter() - start) * 1e3
    test = check_engine(engine, model)
    inputs = sample_inputs(model)
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.run(inputs)
        times.append((time.perf_counter() - start) * 1e3)
    report = engine.report
    can_measure = not is_emulated()
    facts = {
        "why": explain_engine(model, report, runtime),
        "load_ms": round(load_ms, 1) if can_measure else None,
        "run_ms": round(min(times), 2) if can_measure else None,
    }
    return report, facts, test


def explain_engine(
    model: ModelFile, report: EngineReport, runtime: str | None
) -> list[str]:
    """Says in sentences why a model runs in what its report names.

    Args:
        model: The file that was opened.
        report: Of its engine.
        runtime: That was asked for.
    """
    return [_why_runtime(model, report, runtime), *_why_delegate(model, report)]


def _why_runtime(model: ModelFile, report: EngineReport, asked: str | None) -> str:
    if asked is not None:
        return f"{report.runtime}: asked for"
    if model.format == TFLITE and os.environ.get(RUNTIME_VARIABLE):
        return f"{report.runtime}: {RUNTIME_VARIABLE} names it"
    return f"{report.runtime}: the first installed one that runs {model.format} files"


def _why_delegate(model: ModelFile, report: EngineReport) -> list[str]:
    if report.fallback_reason is not None:
        return [f"{report.delegate}: {report.fallback_reason}"]
    if report.library is not None:
        compared = "computes what the CPU does"
        if is_compiled_for_edge_tpu(model):
            compared = "the file is compiled for the Edge TPU"
        return [f"{report.delegate}: {compared}", *report.notes]
    reasons = [*report.notes]
    if model.format != TFLITE:
        return [f"{report.delegate}: ONNX files take no delegates", *reasons]
    reasons.insert(0, f"{report.delegate}: no other delegate was asked for")
    if coral_devices():
        reasons.append(
            "a Coral device is here, but this file is not compiled for it; see "
            "deeplab2-edge inspect --target edgetpu"
        )
    return reasons
