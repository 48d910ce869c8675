"""`deeplab2-edge convert` as a user meets it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge.checkpoints import save_weights, variable_paths
from deeplab2_edge.cli import main
from deeplab2_edge.images import write_png
from deeplab2_edge.model_file import read_model_file
from deeplab2_edge.runtime.engine import self_test
from deeplab2_edge.runtime.interpreter import LiteRtEngine
from deeplab2_edge.runtime.segmenter import PanopticSegmenter
from tests.convert.tiny import build_tiny, picture, tiny_backbone, write_tiny_checkpoint

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
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code = convert(
        checkpoint, "--quantize", "int8", "--calibration-data", pictures, "--quiet"
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.err == ""
    output = tmp_path / "tiny_33x65_int8.tflite"
    report = tmp_path / "tiny_33x65_int8.tflite.report.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        output.name,
        f"{output.name}.card.html",
        f"{output.name}.card.md",
        report.name,
    ]
    assert "calibrated with 6 of 6 images" in printed.out
    assert "int8 against float" in printed.out
    assert "semantic_logits" in printed.out
    assert output.name in printed.out
    assert "verdict" in printed.out
    card = (tmp_path / f"{output.name}.card.html").read_text()
    assert card.count("data:image/jpeg") == 3 and len(card) < 1_500_000
    assert str(checkpoint) not in card and str(pictures) not in card

    model = read_model_file(output)
    metadata = model.metadata
    assert metadata.quantization == "int8"
    assert metadata.canvas == (33, 65)
    assert metadata.merge is not None and metadata.merge.merge_plateaus
    assert metadata.provenance["checkpoint"] == "ckpt"
    assert metadata.provenance["calibration"]["used"] == 6
    assert len(metadata.provenance["config_sha256"]) == 64
    assert "tensorflow" in metadata.provenance["tool_versions"]
    assert str(checkpoint) not in metadata.to_json()
    assert model.golden is not None
    assert self_test(LiteRtEngine(model), model) is not None
    assert PanopticSegmenter(model)(picture(0)).panoptic.shape == (33, 65)

    document = json.loads(report.read_text())
    assert "QUANTIZE" not in document["op_counts"]
    assert document["verification"]["heads"]["offset_map"]["snr_db"] > 10
    assert document["metadata"]["graph_sha256"] == metadata.graph_sha256
    assert document["seconds"] > 0


def test_json_is_one_document_on_stdout(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "new" / "model.tflite"
    code = convert(
        checkpoint,
        *("--verify-data", pictures, "--verify-images", 2),
        *("--input-size", "49x81", "--output", output, "--json", "--no-card"),
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    document = json.loads(printed.out)
    assert document["model"] == str(output)
    assert document["cards"] == [] and not list(output.parent.glob("*.card.*"))
    assert document["metadata"]["canvas"] == [49, 81]
    assert document["metadata"]["merge"]["nms_kernel"] == 9  # 7 on 33 x 65
    assert len(document["verification"]["images"]) == 2
    assert document["verification"]["class_agreement"] == 1.0
    assert document["calibration"] is None
    assert "converting" in printed.err


def test_a_worse_file_is_refused(
    checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "model.tflite"
    output.write_text("what was there before")
    code = convert(
        checkpoint,
        *("--quantize", "int8", "--calibration-data", pictures),
        *("--max-drop", "0.0pq", "--max-drop", "100miou", "--output", output),
    )
    assert code == 2
    error = capsys.readouterr().err
    assert "not written: no way to convert keeps the promise" in error
    for tried in ("int8", "int8-mixed", "int8-mixed, worst 1 in float", "allowed"):
        assert tried in error
    assert "--qat" in error
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert output.read_text() == "what was there before"


def refused(
    capsys: pytest.CaptureFixture[str], checkpoint: object, *arguments: object
) -> str:
    assert main(["convert", "--checkpoint", str(checkpoint), *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


def test_int8_without_calibration_data_says_what_to_give(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, checkpoint, "--quantize", "int8")
    assert "needs --calibration-data: a folder with 50 to 200 images" in error


def test_missing_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere" in refused(capsys, tmp_path / "nowhere")


def test_missing_configuration_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for part in checkpoint.glob("ckpt.*"):
        (bare / part.name).write_bytes(part.read_bytes())
    assert "config.textproto" in refused(capsys, bare)
    missing = tmp_path / "missing.textproto"
    assert "missing.textproto" in refused(capsys, bare, "--config", missing)


def test_configuration_of_another_model_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (checkpoint / "config.textproto").read_text()
    wrong = tmp_path / "wrong.textproto"
    wrong.write_text(text.replace("aspp_channels: 8", "aspp_channels: 16"))
    output = tmp_path / "model.tflite"
    error = refused(capsys, checkpoint, "--config", wrong, "--output", output)
    assert "another shape" in error
    assert not output.exists()


def test_diverged_checkpoint_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_tiny()
    variable = variable_paths(model)["encoder/_blocks/3/_conv3_bn/_conv/kernel"]
    variable.assign(variable * float("nan"))
    save_weights(model, tmp_path / "ckpt")
    config = checkpoint / "config.textproto"
    error = refused(capsys, tmp_path / "ckpt", "--config", config)
    assert "_blocks/3/_conv3_bn/_conv/kernel holds values that are not finite" in error


def test_canvas_that_does_not_fit_names_the_nearest(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, checkpoint, "--input-size", "32x64")
    assert "32x64 (height" in error and "17x49 and 33x65" in error
    error = refused(capsys, checkpoint, "--input-size", "9601x9601")
    assert "at most" in error


@pytest.mark.parametrize("text", ["257", "0x", "ax b", "-1x5"])
def test_unreadable_canvas_is_refused(
    text: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        convert(checkpoint, f"--input-size={text}")
    assert stop.value.code == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


def test_unreadable_drop_is_refused(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "1.0pq" in refused(capsys, checkpoint, "--max-drop", "1.0ap")


def test_unwritable_output_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, checkpoint, "--output", tmp_path)
    assert f"{tmp_path}: a folder; give the name of a file" in error
    blocker = tmp_path / "file"
    blocker.write_text("")
    error = refused(capsys, checkpoint, "--output", blocker / "model.tflite")
    assert str(blocker) in error
    # Also for SavedModels before anything is built.
    command = ["--format", "saved-model", "--output"]
    error = refused(capsys, checkpoint, *command, blocker / "served")
    assert str(blocker) in error and "exporting" not in error
    (tmp_path / "taken").mkdir()
    error = refused(capsys, checkpoint, *command, tmp_path / "taken")
    assert "exists and is no SavedModel" in error and "exporting" not in error


@pytest.mark.parametrize(
    ("file_format", "name"),
    [
        (None, "model.pb"),
        (None, "model"),
        (None, "street_v1.2"),
        ("tflite", "model.onnx"),
        ("onnx", "model.tflite"),
        ("onnx", "model.pb"),
        ("saved-model", "model.pb"),
        ("saved-model", "model.tflite"),
    ],
)
def test_endings_that_say_something_else_are_refused(
    file_format: str | None,
    name: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [] if file_format is None else ["--format", file_format]
    error = refused(capsys, checkpoint, *words, "--output", tmp_path / name)
    assert f"--output is {tmp_path / name}, but --format is" in error
    assert "tflite files end in .tflite, onnx files in .onnx, and saved-model" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_empty_calibration_folder_is_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    error = refused(
        capsys, checkpoint, "--quantize", "int8", "--calibration-data", empty
    )
    assert "empty" in error and "no images" in error


def test_damaged_calibration_image_is_named_and_nothing_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    output = tmp_path / "model.tflite"
    error = refused(
        capsys,
        checkpoint,
        *("--quantize", "int8", "--calibration-data", folder, "--output", output),
    )
    assert "broken.png" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_calibration_images_of_one_color_are_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    write_png(folder / "grey.png", np.full((40, 70, 3), 90, np.uint8))
    for index in range(3):
        write_png(folder / f"{index}.png", picture(index, (40, 70)))
    code = convert(
        checkpoint,
        *("--quantize", "int8", "--calibration-data", folder, "--no-card"),
        *("--verify-images", 1, "--output", tmp_path / "model.tflite", "--quiet"),
    )
    assert code == 0
    assert (
        "1 calibration image of a single color, first grey" in capsys.readouterr().out
    )


@pytest.mark.parametrize("option", ["--calibration-images", "--verify-images"])
def test_counts_must_be_positive(
    option: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{option} is 0" in refused(capsys, checkpoint, option, 0)
