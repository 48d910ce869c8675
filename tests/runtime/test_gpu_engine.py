"""Real WebGPU, played by the software GPU that comes with Chromium."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab2_edge.errors import UsageError
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.runtime.delegates import GPU, Delegate, litert_gpu_library
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL

pytest.importorskip("ai_edge_litert.compiled_model")

ROOT = Path(__file__).parents[2]
DRIVER = "libvk_swiftshader.so"
DOCTOR = "import sys; from deeplab2_edge.cli import main; sys.exit(main(sys.argv[1:]))"

COMPARE = """
import sys
import numpy as np
from deeplab2_edge import keys
from deeplab2_edge.model_file import ResizeRule, read_model_file
from deeplab2_edge.runtime.delegated import open_tflite
from deeplab2_edge.runtime.gpu_engine import GpuEngine
from deeplab2_edge.runtime.preprocess import PlacedImage

model = read_model_file(sys.argv[1])
gpu, cpu = (open_tflite(model, delegate=name) for name in ("gpu", "cpu"))
assert isinstance(gpu, GpuEngine), gpu
rng = np.random.default_rng(0)
for _ in range(3):
    image = rng.integers(0, 256, (*model.metadata.canvas, 3), np.uint8)
    placed = PlacedImage(image, model.metadata.canvas, ResizeRule())
    expected = cpu.run({keys.IMAGE: image})
    for found in (gpu.run({keys.IMAGE: image}), gpu.run({keys.IMAGE: placed})):
        for name, head in expected.items():
            np.testing.assert_allclose(found[name], head, atol=1e-3)
assert gpu.is_integer is cpu.is_integer is False
"""


@pytest.fixture
def software_gpu(tmp_path: Path) -> dict[str, str]:
    """Gives the environment in which a process finds the software GPU."""
    browser = shutil.which("chromium") and Path("/usr/lib/chromium")
    if not (browser and (browser / DRIVER).is_file() and litert_gpu_library()):
        pytest.skip("runs where chromium (of Debian) and ai-edge-litert 2 are")
    description = {
        "file_format_version": "1.0.0",
        "ICD": {"library_path": str(browser / DRIVER), "api_version": "1.0.5"},
    }
    path = tmp_path / "driver.json"
    path.write_text(json.dumps(description))
    return {
        "LD_LIBRARY_PATH": str(browser),
        "VK_DRIVER_FILES": str(path),
        "VK_ICD_FILENAMES": str(path),
    }


def python(
    code: str, *arguments: object, environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_gpu_computes_what_the_cpu_does(software_gpu: dict[str, str]) -> None:
    done = python(COMPARE, FLOAT_MODEL, environment=software_gpu)
    assert done.returncode == 0, done.stderr
    # LiteRT's notes are kept from both.
    assert done.stdout == "" and "INFO" not in done.stderr


@pytest.mark.parametrize("model", [FLOAT_MODEL, INT8_MODEL])
def test_the_gpu_is_named_and_never_trusted(
    software_gpu: dict[str, str], model: Path
) -> None:
    command = ("doctor", model, "--delegate", "gpu", "--json")
    done = python(DOCTOR, *command, environment=software_gpu)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["model"]
    assert found["self_test"]["passed"]
    if model == FLOAT_MODEL:
        assert found["engine"]["delegate"] == "gpu"
        assert "SwiftShader" in found["engine"]["notes"][0]
        assert "played by the CPU" in found["engine"]["notes"][1]
    elif found["engine"]["delegate"] != "gpu":
        # LiteRT 2.3 forgets the stride of a quantized 1x1 convolution on GPUs.
        assert "does not compute" in found["engine"]["fallback_reason"]
        assert done.stderr.count("\n") == 1


def test_another_litert_says_which_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from deeplab2_edge.runtime import gpu_engine

    monkeypatch.setitem(sys.modules, "ai_edge_litert.options", None)
    with pytest.raises(UsageError, match=r"another interface for GPUs; use 2\.3"):
        gpu_engine.GpuEngine(
            read_model_file(FLOAT_MODEL), Delegate(GPU, "libLiteRtX.so")
        )


def test_an_unknown_option_is_refused() -> None:
    from deeplab2_edge.runtime import gpu_engine

    options = gpu_engine.importlib.import_module("ai_edge_litert.options")
    delegate = Delegate(GPU, "libLiteRtX.so", {"enforce_f32": "true"})
    assert gpu_engine._gpu_options(options.GpuOptions, delegate) == {
        "enforce_f32": True
    }
    for name, value in (("enforce_f32", "1"), ("speed", "true")):
        wrong = Delegate(GPU, "libLiteRtX.so", {name: value})
        with pytest.raises(UsageError, match=f"{name}={value}; known are enforce_f32"):
            gpu_engine._gpu_options(options.GpuOptions, wrong)
