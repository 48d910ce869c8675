"""The runtime stays light: checked in fresh interpreters."""

import subprocess
import sys

import deeplab2_edge.runtime as runtime


def test_runtime_runs_a_model_without_tensorflow() -> None:
    _run(
        "from deeplab2_edge.runtime import PanopticSegmenter\n"
        "from tests.runtime.tiny_model import INT8_MODEL, draw_scene\n"
        "result = PanopticSegmenter(INT8_MODEL)(draw_scene())\n"
        "result.overlay()\n"
        "assert len(result.segments) == 4\n",
        forbidden=("tensorflow", "tf_keras", "matplotlib"),
    )


def test_public_names_exist_and_load_only_what_they_need() -> None:
    for name in runtime.__all__:
        assert hasattr(runtime, name)
    assert sorted(runtime.__all__) == sorted(runtime._PUBLIC)
    assert not hasattr(runtime, "Pipeline")
    _run("import deeplab2_edge.runtime", forbidden=("numpy", "cv2"))
    _run(
        "from deeplab2_edge.runtime import FramePipeline, open_sources",
        forbidden=("ai_edge_litert", "deeplab2_edge.runtime.serve"),
    )


def _run(code: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys\n{code}\nprint([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
