"""Which runtime runs a file, and what is said where none can."""

import sys
from collections.abc import Iterable

import pytest

from deeplab2_edge.cli.engine_options import RUNTIME_NAMES as OPTION_NAMES
from deeplab2_edge.errors import MissingExtraError, UsageError
from deeplab2_edge.model_file import ONNX, TFLITE
from deeplab2_edge.runtime import runtimes
from deeplab2_edge.runtime.engine import open_engine
from deeplab2_edge.runtime.engine_report import report_of
from deeplab2_edge.runtime.runtimes import (
    RUNTIME_NAMES,
    RUNTIME_VARIABLE,
    choose_runtime,
    how_to_install,
)
from tests.runtime.tiny_model import FLOAT_MODEL


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNTIME_VARIABLE, raising=False)


def install(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    """Lets only these be installed."""
    monkeypatch.setattr(runtimes, "is_installed", lambda runtime: runtime.name in names)
    monkeypatch.setattr(runtimes, "runtime_version", lambda _: "2.14.0")


def numpy_is(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(runtimes.np, "__version__", version)


def test_the_first_that_is_installed_and_works_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, RUNTIME_NAMES)
    assert choose_runtime(TFLITE).name == "ai-edge-litert"
    assert choose_runtime(ONNX).name == "onnxruntime"
    install(monkeypatch, ["tflite-runtime", "tensorflow"])
    numpy_is(monkeypatch, "1.26.4")
    assert choose_runtime(TFLITE).name == "tflite-runtime"
    numpy_is(monkeypatch, "2.1.0")
    assert choose_runtime(TFLITE).name == "tensorflow"


def test_one_that_is_asked_for_is_used_or_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, RUNTIME_NAMES)
    assert choose_runtime(TFLITE, "tensorflow").name == "tensorflow"
    monkeypatch.setenv(RUNTIME_VARIABLE, "tensorflow")
    assert choose_runtime(TFLITE).name == "tensorflow"
    assert choose_runtime(ONNX).name == "onnxruntime"  # it is about TFLite files
    assert choose_runtime(TFLITE, "ai-edge-litert").name == "ai-edge-litert"
    monkeypatch.setenv(RUNTIME_VARIABLE, "onnxruntime")
    with pytest.raises(UsageError, match=f"{RUNTIME_VARIABLE} is 'onnxruntime', which"):
        choose_runtime(TFLITE)
    with pytest.raises(UsageError, match="they run in onnxruntime"):
        choose_runtime(ONNX, "tflite-runtime", label="x.onnx")
    with pytest.raises(UsageError, match="expected one of ai-edge-litert, "):
        choose_runtime(TFLITE, "litert")


def test_tflite_runtime_beside_numpy_2_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, ["tflite-runtime"])
    numpy_is(monkeypatch, "2.4.6")
    for asked in (None, "tflite-runtime"):
        with pytest.raises(MissingExtraError, match=r"pip install 'numpy<2'"):
            choose_runtime(TFLITE, asked)


@pytest.mark.parametrize(
    ("is_64_bit", "python", "message"),
    [
        (True, (3, 13), "run: pip install ai-edge-litert$"),
        (False, (3, 11), "run: pip install tflite-runtime 'numpy<2'$"),
        (False, (3, 13), "no TFLite interpreter exists for a 32-bit .* 64-bit OS"),
    ],
)
def test_where_none_is_installed_the_line_that_brings_one_is_given(
    monkeypatch: pytest.MonkeyPatch,
    is_64_bit: bool,
    python: tuple[int, int],
    message: str,
) -> None:
    install(monkeypatch, [])
    monkeypatch.setattr(sys, "maxsize", 2**63 - 1 if is_64_bit else 2**31 - 1)
    monkeypatch.setattr(sys, "version_info", (*python, 0))
    with pytest.raises(MissingExtraError, match=message):
        choose_runtime(TFLITE)
    onnx = runtimes.RUNTIMES[-1]
    assert "deeplab2-edge[onnx]" in how_to_install(onnx)


def test_the_engine_says_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(FLOAT_MODEL, num_threads=1, runtime="ai-edge-litert")
    report = report_of(engine)
    assert report is engine.report
    assert (report.runtime, report.threads) == ("ai-edge-litert", 1)
    assert str(report).endswith(", 1 thread")
    assert report_of(object()) is None
    with pytest.raises(UsageError, match="does not run tflite files"):
        open_engine(FLOAT_MODEL, runtime="onnxruntime")


def test_the_command_line_knows_all_names() -> None:
    assert OPTION_NAMES == RUNTIME_NAMES
