"""`deeplab2-edge doctor`: what is here, what is not."""

import importlib
import importlib.metadata
import importlib.util
import json
import types
from pathlib import Path
from typing import Any

import cv2
import pytest

from deeplab2_edge.cli import doctor, doctor_report, main
from deeplab2_edge.model_file import Golden, read_model_file, write_model_file
from deeplab2_edge.runtime import delegates, diagnosis
from tests.runtime.tiny_model import INT8_MODEL


def test_healthy_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "OpenCV" in printed
    assert "ready" in printed


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is True
    names = [check["name"] for check in document["checks"]]
    assert names == ["Python", "NumPy", "OpenCV", "TFLite interpreter", *names[4:]]


def test_missing_package_gives_the_line_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = importlib.util.find_spec

    def without_cv2(name: str) -> object:
        return None if name in ("cv2", "tensorflow") else find_spec(name)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", without_cv2)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "MISSING" in printed
    assert "pip install opencv-python" in printed
    assert "pip install 'deeplab2-edge[train,convert]'" in printed
    assert "ready" not in printed


def test_broken_package_is_not_called_healthy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import_module = importlib.import_module

    def without_opengl(name: str) -> object:
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return import_module(name)

    monkeypatch.setattr(doctor.importlib, "import_module", without_opengl)
    assert main(["doctor"]) == 1
    assert "libGL.so.1" in capsys.readouterr().out


def test_tflite_runtime_beside_numpy_2_is_called_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec, version = importlib.util.find_spec, importlib.metadata.version

    def only_tflite_runtime(name: str) -> object:
        name = {"ai_edge_litert": "nowhere", "tflite_runtime": "json"}.get(name, name)
        return find_spec(name)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", only_tflite_runtime)
    import_module = importlib.import_module

    def played(name: str) -> object:
        if "tflite_runtime" in name:
            return None
        numpy = types.SimpleNamespace(__version__="2.4.6")
        return numpy if name == "numpy" else import_module(name)

    monkeypatch.setattr(doctor.importlib, "import_module", played)
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "version",
        lambda name: "2.14.0" if name == "tflite-runtime" else version(name),
    )
    assert main(["doctor"]) == 1
    assert "does not work with NumPy 2, run: pip install 'numpy<2'" in (
        capsys.readouterr().out
    )


def test_the_board_and_its_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["board"]["bits"] in (32, 64)
    assert document["board"]["default_threads"] >= 1
    used = [r["name"] for r in document["runtimes"] if r["is_default"]]
    assert used and used[0] == "ai-edge-litert"
    edge_tpu, gpu = document["delegates"]
    assert "libedgetpu1" in edge_tpu["problem"]
    assert (gpu["name"], edge_tpu["devices"]) == ("gpu", [])
    assert set(document["native_core"]) == {"library", "problem"}
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "  edgetpu         no device; no libedgetpu.so.1\n" in printed
    assert "runs tflite files" in printed


def test_a_model_says_what_it_would_use_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", str(INT8_MODEL), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "the first installed one that runs tflite files" in printed
    assert "no other delegate was asked for" in printed
    assert "self test       passed" in printed and " ms of the network" in printed
    assert main(["doctor", str(INT8_MODEL), "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["engine"]["fallback_reason"] is None
    assert model["run_ms"] > 0


def test_a_model_that_computes_something_else_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model_file(INT8_MODEL)
    assert model.golden is not None
    heads = {name: -head - 9 for name, head in model.golden.heads.items()}
    path = tmp_path / "model.tflite"
    write_model_file(
        path, model.graph, model.metadata, Golden(model.golden.inputs, heads)
    )
    assert main(["doctor", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "self test       FAILED: " in printed and "ready" not in printed


def test_emulators_give_no_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPLAB2_EDGE_EMULATED", "1")
    assert main(["doctor", str(INT8_MODEL)]) == 0
    printed = capsys.readouterr().out
    assert "not measured: this processor is emulated" in printed
    assert " ms of" not in printed


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "none.tflite"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["doctor", str(INT8_MODEL), "--delegate", "edgetpu"]) == 2
    assert "libedgetpu1-std" in capsys.readouterr().err


def test_a_coral_device_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (delegates, diagnosis):
        monkeypatch.setattr(module, "coral_devices", lambda: ["USB 18d1:9302"])
    assert main(["doctor", str(INT8_MODEL)]) == 0
    printed = capsys.readouterr().out
    assert "USB 18d1:9302; delegate edgetpu" in printed and "libedgetpu1-std" in printed
    assert "a Coral device is here, but this file is not compiled for it" in printed


def test_a_pi_without_screen_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    board: dict[str, Any] = {
        **diagnosis.describe_board(),
        "board": "Raspberry Pi 4 Model B\x1b",
        "architecture": "aarch64",
        "bits": 32,
        "page_bytes": 16384,
        "governor": "ondemand",
        "temperature_c": 51.2,
        "instructions": ["NEON"],
        "int8_dot_products": False,
        "memory": {
            "total_bytes": 4 << 30,
            "available_bytes": 3 << 30,
            "limit_bytes": 1 << 30,
        },
        "cameras": [
            {"device": "/dev/video0", "name": "C920", "problem": "Permission denied"}
        ],
        "picamera2": True,
        "display": None,
    }
    doctor_report.print_board(
        board=board,
        runtimes=[
            {
                "name": "tflite-runtime",
                "format": "tflite",
                "version": "2.14.0",
                "problem": None,
                "is_default": False,
            }
        ],
        delegates=[],
        native_core={"library": None, "problem": "not built yet"},
    )
    printed = capsys.readouterr().out
    for expected in (
        "Raspberry Pi 4 Model B?\n",
        "aarch64, 32-bit Python, pages of 16 KiB",
        "NEON (no int8 dot products: int8 gains less)",
        "4.0 GiB, 3.0 GiB free, limited to 1.0 GiB",
        "/dev/video0 (Permission denied), picamera2 is installed",
        "windows         no screen",
        "also runs tflite files: --runtime tflite-runtime",
    ):
        assert expected in printed


def test_a_module_of_the_system_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Debian's OpenCV is one, and pip does not know it."""
    version = importlib.metadata.version

    def without_opencv(name: str) -> str:
        if name.startswith("opencv"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", without_opencv)
    assert main(["doctor"]) == 0
    assert f"cv2 {cv2.__version__} of the system" in capsys.readouterr().out
