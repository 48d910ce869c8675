"""`deeplab2-edge inspect --target` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab2_edge.cli import main
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL
from tests.targets.one_op import TensorSpec, constant, one_op

LOG = """\
Edge TPU Compiler version 16.0.384591198
Input: tiny.tflite

Operator                       Count      Status

"""


def mapped_log(path: Path, counts: dict[str, int], status: str) -> Path:
    rows = [f"{name:<31}{count:<11}{status}\n" for name, count in counts.items()]
    path.write_text(LOG + "".join(rows))
    return path


def foreign(path: Path) -> Path:
    tensors = TensorSpec([1, 8, 8, 4]), TensorSpec([1, 8, 8, 4])
    path.write_bytes(one_op("HARD_SWISH", *tensors))
    return path


def test_an_int8_model_maps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--target", "edgetpu", str(INT8_MODEL)]) == 0
    printed = capsys.readouterr().out
    for words in ("canvas 65x129, int8", "100.0 %", "edgetpu_compiler -s -o "):
        assert words in printed
    assert "nothing was run" in printed


def test_a_float_model_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--target", "edgetpu", str(FLOAT_MODEL)]) == 1
    printed = capsys.readouterr().out
    assert "works on float32" in printed
    assert "advice: CONV_2D: convert with `--quantize int8`" in printed
    assert main(["inspect", "--target", "gpu", str(FLOAT_MODEL)]) == 0


def test_a_file_of_anyone_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign(tmp_path / "other.tflite")
    assert main(["inspect", "--target", "edgetpu", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "not ours (no metadata)" in printed
    assert "the partition ends at op 0, HARD_SWISH" in printed
    assert main(["inspect", "--target", "cpu", str(path), "--every-op"]) == 1
    assert "XNNPACK has no HARD_SWISH of int8" in capsys.readouterr().out


def test_json_names_every_op(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = foreign(tmp_path / "other.tflite")
    assert main(["inspect", "--target", "edgetpu", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["is_ours"], document["is_clean"]) == (False, False)
    assert document["first_cut"] == 0 and document["falls_back"] == 1
    assert document["ops"][0]["rule"] == "op"
    assert document["ops"][0]["inputs"] == [{"shape": [1, 8, 8, 4], "dtype": "int8"}]
    assert document["compiler_command"].startswith("edgetpu_compiler -s")


def test_a_compiler_log_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", "--target", "edgetpu", str(INT8_MODEL), "--json"]
    assert main(command) == 0
    counts: dict[str, int] = {}
    for op in json.loads(capsys.readouterr().out)["ops"]:
        counts[op["name"]] = counts.get(op["name"], 0) + 1
    command.remove("--json")
    log = mapped_log(tmp_path / "x.log", counts, "Mapped to Edge TPU")
    assert main([*command, "--compiler-log", str(log)]) == 0
    assert "prediction and compiler agree" in capsys.readouterr().out
    log = mapped_log(tmp_path / "y.log", counts, "Operation not supported")
    assert main([*command, "--compiler-log", str(log)]) == 1
    printed = capsys.readouterr().out
    assert "CONV_2D: 4 predicted to map, 0 did (4 Operation not supported)" in printed
    log = mapped_log(tmp_path / "z.log", {"SUB": 1}, "Mapped to Edge TPU")
    assert main([*command, "--compiler-log", str(log)]) == 1
    assert "is it of another file?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--every-op", "x.tflite"], "--every-op needs --target"),
        (["--compiler-log", "x", "x.tflite"], "needs --target edgetpu"),
        (
            ["--compiler-log", "x", "--target", "cpu", "x.tflite"],
            "needs --target edgetpu",
        ),
        (["--target", "cpu", "demo"], "checks .tflite files; 'demo' is not one"),
        (["--target", "cpu", "none.tflite"], "no such file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_damaged_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(INT8_MODEL.read_bytes())
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content[:1000])
    assert main(["inspect", "--target", "cpu", str(path)]) == 2
    assert f"{path}: damaged" in capsys.readouterr().err
    content[200] ^= 255
    path.write_bytes(content)
    assert main(["inspect", "--target", "cpu", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_canvas_that_fits_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large.tflite"
    tensors = TensorSpec([1, 257, 513, 4]), constant([513, 1025])
    path.write_bytes(one_op("RESIZE_BILINEAR", *tensors, TensorSpec([1, 513, 1025, 4])))
    assert main(["inspect", "--target", "edgetpu", str(path)]) == 1
    printed = capsys.readouterr().out
    assert "257x513 to 513x1025: refused at such sizes" in printed
    assert "resizes are known to map: 33x65" in printed


def test_no_interpreter_takes_part() -> None:
    code = (
        "import sys; from deeplab2_edge.cli import main;"
        f"main(['inspect', '--target', 'gpu', {str(INT8_MODEL)!r}]);"
        "sys.exit(any(m.startswith(('tensorflow', 'ai_edge')) for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
