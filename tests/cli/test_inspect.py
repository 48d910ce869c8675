"""`deeplab2-edge inspect` as a user meets it."""

import json
from pathlib import Path

import pytest

from deeplab2_edge.cli import main
from tests.runtime.tiny_model import INT8_MODEL


def test_text_names_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(INT8_MODEL)]) == 0
    printed = capsys.readouterr().out
    for word in ("65x129", "CONV_2D", "car", "int8", "SHA-256 verified", "scale"):
        assert word in printed


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(INT8_MODEL), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["file_bytes"] == INT8_MODEL.stat().st_size
    assert document["op_counts"]["CONV_2D"] == 4
    assert document["metadata"]["class_names"] == ["sky", "road", "car"]
    assert max(document["self_test"].values()) < 0.02
    assert document["inputs"][0]["shape"] == [1, 65, 129, 3]


def test_file_that_is_not_ours_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"hello")
    assert main(["inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert "not a TFLite file" in captured.err
    assert captured.err.count("\n") == 1
