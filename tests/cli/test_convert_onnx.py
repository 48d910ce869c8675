"""`deeplab2-edge convert --format onnx` as a user meets it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
pytest.importorskip("tf2onnx", reason="install deeplab2-edge[onnx]")
pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")

from deeplab2_edge.cli import main
from deeplab2_edge.images import write_png
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.runtime.engine import open_engine, self_test
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from tests.convert.tiny import picture, tiny_backbone, write_tiny_checkpoint

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with tiny_backbone():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(6):
        write_png(folder / f"{index}.png", picture(index, (40, 70)))
    return folder


def convert(checkpoint: Path, *arguments: object) -> int:
    return main(["convert", "--checkpoint", str(checkpoint), *map(str, arguments)])


def test_int8_conversion_end_to_end(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = convert(
        checkpoint,
        *("--format", "onnx", "--quantize", "int8", "--quiet"),
        *("--calibration-data", pictures),
    )
    printed = capfd.readouterr()
    assert code == 0, printed.err
    assert printed.err == ""
    path = tmp_path / "tiny_33x65_int8.onnx"
    model = read_model_file(path)
    assert model.format == "onnx"
    assert model.metadata.quantization == "int8"
    assert model.golden is not None
    engine = open_engine(path, num_threads=1)
    assert engine.is_integer
    merge = engine.metadata.merge
    assert merge is not None and merge.merge_plateaus
    differences = self_test(engine, model)
    assert differences is not None and max(differences.values()) < 1e-3
    result = PanopticSegmenter(path)(picture(0, (40, 70)))
    assert result.panoptic.shape == (40, 70)
    assert main(["inspect", str(path), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["op_counts"]["QuantizeLinear"] > 50


def test_a_drop_that_no_mode_avoids_is_refused_with_what_was_tried(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tiny.onnx"
    code = convert(
        checkpoint,
        *("--quantize", "int8", "--quiet", "--output", output),
        *("--calibration-data", pictures, "--max-drop", "0miou"),
    )
    assert code == 2
    error = capsys.readouterr().err
    assert "not written" in error
    for tried in ("int8, quantile 0.8", "int8-mixed"):
        assert tried in error
    assert not list(tmp_path.iterdir())
