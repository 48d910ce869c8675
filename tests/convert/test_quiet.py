"""What reaches the screen while native code runs."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.convert.quiet import quiet_native_notes

pytestmark = pytest.mark.tf

NOTES = (
    "I0000 00:00:1795347024.585719    8993 port.cc:153] oneDNN custom operations on\n"
    "W0000 00:00:1795347024.585719    8993 graph.cc:1] ignoring output_format\n"
    "2026-11-22 11:30:24.585719: I tensorflow/core/x.cc:1] optimized with oneDNN\n"
    "WARNING: All log messages before absl::InitializeLog() go to STDERR\n"
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
    "fully_quantize: 0, inference_type: 6, input_inference_type: UINT8\n"
)
ERROR = "E0000 00:00:1795347024.585719 8993 flatbuffer.cc:9] out of memory\n"


def test_notes_are_dropped_and_errors_pass(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_native_notes():
        os.write(2, NOTES.encode())
        os.write(2, ERROR.encode())
    assert capfd.readouterr().err == ERROR


def test_descriptor_is_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_native_notes():
        pass
    os.write(2, b"INFO: afterwards\n")
    assert capfd.readouterr().err == "INFO: afterwards\n"


def test_exceptions_pass_through(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="the reason"), quiet_native_notes():
        os.write(2, ERROR.encode())
        raise RuntimeError("the reason")
    assert capfd.readouterr().err == ERROR


def _run(body: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import os, sys\n"
        "from deeplab2_edge.convert.quiet import quiet_native_notes\n"
        f"with quiet_native_notes():\n{body}"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_python_still_prints_unchanged_and_last_words_are_heard() -> None:
    result = _run(
        "    print('INFO: half a line', end='', file=sys.stderr, flush=True)\n"
        "    os.write(2, b'INFO: a note\\nF0000 Check failed: x == y\\n')\n"
        "    os.abort()\n"
    )
    assert result.returncode != 0
    assert "INFO: half a line" in result.stderr
    assert "F0000 Check failed: x == y" in result.stderr
    assert "a note" not in result.stderr
