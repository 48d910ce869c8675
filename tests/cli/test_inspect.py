"""`deeplab2-edge inspect` as a user meets it."""

import json
import math
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from deeplab2_edge import assets
from deeplab2_edge.checkpoint_files.contents import SUFFIX
from deeplab2_edge.cli import main
from tests.checkpoint_files import tables
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
    assert "neither a TFLite nor an ONNX file" in captured.err
    assert captured.err.count("\n") == 1


def test_a_checkpoint_tells_its_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "demo"]) == 0
    printed = capsys.readouterr().out
    assert "Panoptic-DeepLab, mobilenet_v3_small, 11 classes" in printed
    assert "362 with " in printed
    assert main(["inspect", "demo", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["backbone"] == "mobilenet_v3_small"
    assert document["variables"]["semantic_last_layer/bias"] == [11]
    assert sum(map(math.prod, document["variables"].values())) == document["num_values"]


def test_an_archive_is_inspected_as_it_is(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DEEPLAB2_EDGE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mobilenet_v3_small_os16_panoptic_deeplab_cityscapes_dwo.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for file in Path(assets.demo_checkpoint_prefix()).parent.glob("ckpt.*"):
            tar.add(file, f"run/{file.name}")
    assert main(["inspect", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "recipes like it    cityscapes_panoptic_mobilenet_v3_small_os16" in printed


def test_an_encoder_of_ones_own_is_named_by_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = tables.entry([1, 1, 8, 8])
    keys = [
        f"encoder/_stage{stage}/_block1/_conv1_bn_act/_conv/kernel{SUFFIX}"
        for stage in (2, 3)
    ]
    prefix = tables.write_checkpoint(tmp_path / "ckpt", dict.fromkeys(keys, shape))
    assert main(["inspect", prefix]) == 0
    assert "an unknown encoder (1, 1 blocks)" in capsys.readouterr().out
    text = 'model_options { backbone { name: "street_hybrid" } }'
    (tmp_path / "config.textproto").write_text(text)
    assert main(["inspect", prefix]) == 0
    assert "no known head, street_hybrid\n" in capsys.readouterr().out
    (tmp_path / "config.textproto").write_text("not a configuration")
    assert main(["inspect", prefix]) == 0
    assert "an unknown encoder (1, 1 blocks)" in capsys.readouterr().out


def test_a_checkpoint_needs_no_tensorflow() -> None:
    code = (
        "import sys; from deeplab2_edge.cli import main; main(['inspect', 'demo']);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_nothing_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "no checkpoint here" in capsys.readouterr().err
