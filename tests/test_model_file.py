"""Model files: written whole, read with suspicion."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplab2_edge import keys
from deeplab2_edge.errors import ModelFileError, OutputError
from deeplab2_edge.model_file import (
    Golden,
    ModelMetadata,
    ResizeRule,
    container,
    read_model_file,
    write_model_file,
)
from tests.runtime.tiny_model import INT8_MODEL, tiny_metadata

GRAPH = b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 4


def test_file_gives_back_graph_metadata_and_golden(tmp_path: Path) -> None:
    golden = Golden(
        {keys.IMAGE: np.arange(65 * 129 * 3).reshape(65, 129, 3).astype(np.uint8)},
        {
            name: np.random.default_rng(0).random(spec.shape, np.float32)
            for name, spec in tiny_metadata().outputs.items()
        },
    )
    metadata = tiny_metadata(
        resize=ResizeRule(min=(65, 129), factor=32),
        provenance={"checkpoint": "demo", "tool_versions": {"tensorflow": "2.21"}},
    )
    written = write_model_file(tmp_path / "m.tflite", GRAPH, metadata, golden)

    model = read_model_file(tmp_path / "m.tflite")

    assert model.graph == GRAPH
    assert model.metadata == written
    assert model.metadata.canvas == (65, 129)
    assert model.metadata.head_size == (17, 33)
    assert model.metadata.thing_ids == (2,)
    assert model.golden is not None
    np.testing.assert_array_equal(
        model.golden.inputs[keys.IMAGE], golden.inputs[keys.IMAGE]
    )
    np.testing.assert_array_equal(
        model.golden.heads[keys.CENTER_HEATMAP], golden.heads[keys.CENTER_HEATMAP]
    )


def test_equal_inputs_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model_file(tmp_path / name, GRAPH, tiny_metadata())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_appended_archive_is_an_ordinary_zip() -> None:
    with zipfile.ZipFile(INT8_MODEL) as archive:
        assert archive.testzip() is None
        assert "deeplab2_edge.json" in archive.namelist()


def test_json_has_the_documented_fields() -> None:
    document = json.loads(tiny_metadata().to_json())
    assert document["format_version"] == 2
    assert document["thing_ids"] == [2]
    assert document["resize"] == {"min": None, "max": None, "factor": 0}
    assert document["merge"] == {
        "center_score_threshold": 0.1,
        "nms_kernel": 9,
        "keep_k_centers": 400,
        "stuff_area_limit": 0,
        "merge_plateaus": False,
    }
    assert ModelMetadata.from_json(json.dumps(document)) == tiny_metadata()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("canvas", [65, 65, 3], "canvas"),
        ("canvas", "65x129", "canvas"),
        ("canvas", [1 << 20, 1 << 20], "canvas"),
        ("canvas", [-65, 129], "canvas"),
        ("family", "cats", "family"),
        ("family", "semantic", "merge is 'given'"),
        ("family", "masks", "pixel_space_mask_logits"),
        ("merge_place", "nowhere", "merge_place"),
        ("masks", {}, "masks.maskwise is missing"),
        ("output_stride", True, "output_stride"),
        ("class_names", [], "class_names"),
        ("class_names", ["sky", 3, "car"], "class_names"),
        ("colors", [[0, 0, 0]], "colors"),
        ("colors", [[0, 0, 256]] * 3, "colors"),
        ("thing_ids", [3], "thing_ids"),
        ("label_divisor", 1 << 30, "label_divisor"),
        ("outputs", {"semantic_logits": "a"}, "semantic_logits is 'a', not mapping"),
        ("outputs", {"a": {"name": "a", "shape": [1]}}, "outputs is"),
        ("outputs", {}, "outputs is"),
        ("inputs", {"image": {"name": "a"}}, "inputs.image.shape is missing"),
        ("inputs", [], "inputs"),
        ("inputs", {"a": {"name": "a", "shape": [0], "dtype": "uint8"}}, "shape|range"),
        ("merge", {}, "merge.center_score_threshold is missing"),
        ("resize", {"min": [0, 4], "max": None, "factor": 0}, "resize.min"),
        ("format_version", 3, "newer deeplab2-edge"),
        ("format_version", 1, "convert the checkpoint again"),
    ],
)
def test_wrong_field_is_named(
    field: str, value: Any, message: str, tmp_path: Path
) -> None:
    document = {**json.loads(tiny_metadata().to_json()), field: value}
    path = _with_members(tmp_path, {"deeplab2_edge.json": json.dumps(document)})
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(path)
    assert str(path) in str(caught.value)


def test_missing_field_is_named() -> None:
    document = json.loads(tiny_metadata().to_json())
    del document["canvas"]
    with pytest.raises(ModelFileError, match="canvas is missing"):
        ModelMetadata.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[1]", "{", "null", "[" * 100_000])
def test_metadata_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match="JSON"):
        ModelMetadata.from_json(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a TFLite nor an ONNX file"),
        (b"PK\x03\x04 hello", "neither a TFLite nor an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" * 9, "neither a TFLite nor an ONNX file"),
        (GRAPH, "without deeplab2-edge metadata"),
    ],
)
def test_file_that_is_not_ours_is_named_with_the_way_out(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model_file(path)
    assert str(path) in str(caught.value)
    assert "deeplab2-edge convert" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_with_another_archive_is_not_ours(tmp_path: Path) -> None:
    path = _with_members(tmp_path, {"labels.txt": "cat"})
    with pytest.raises(ModelFileError, match="did not write"):
        read_model_file(path)


def test_missing_file_folder_and_checkpoint_name_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "saved_model.pb").write_bytes(b"")
    for name, message in (
        ("no.tflite", "no such file"),
        (".", r"^\.: a folder; give a .tflite or .onnx file$"),
        ("served", "^served: a SavedModel, .* `deeplab2-edge convert` makes of that$"),
        ("served/saved_model.pb", "^served/saved_model.pb: a SavedModel, "),
        ("demo", "checkpoint, not a converted model"),
        ("a\0b", "cannot be read"),
    ):
        with pytest.raises(ModelFileError, match=message):
            read_model_file(name)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = INT8_MODEL.read_bytes()
    path = tmp_path / "cut.tflite"
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            read_model_file(path)


def test_changed_graph_is_refused(tmp_path: Path) -> None:
    content = bytearray(INT8_MODEL.read_bytes())
    content[500] ^= 1
    path = tmp_path / "flipped.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="SHA-256"):
        read_model_file(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_anywhere_gives_our_error_or_the_same_graph(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(INT8_MODEL.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path = tmp_path_factory.getbasetemp() / "damaged.tflite"
    path.write_bytes(content)
    try:
        model = read_model_file(path)
    except ModelFileError:
        return
    assert model.graph == read_model_file(INT8_MODEL).graph


def test_archive_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _with_members(tmp_path, {"deeplab2_edge.json": " " * (2 << 20)})
    with pytest.raises(ModelFileError, match="larger than"):
        read_model_file(path)
    monkeypatch.setattr(container, "MAX_FILE_BYTES", 100)
    with pytest.raises(ModelFileError, match="at most 100"):
        read_model_file(INT8_MODEL)


def _npz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _npy(array: Any, change: Callable[[bytes], bytes] = bytes) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    return change(buffer.getvalue())


@pytest.mark.parametrize(
    "golden",
    [
        b"nothing",
        _npz({"canvas.npy": b"nothing"}),
        _npz({"canvas.npy": _npy(np.zeros((2, 2, 3), np.float64))}),
        _npz({"canvas.npy": _npy(np.zeros((2, 2, 3), np.uint8))}),
        _npz({"canvas.npy": _npy(np.array([{}], object))}),
        _npz({"other.npy": _npy(np.zeros((2, 2, 3), np.uint8))}),
        # Declares a million rows and brings two.
        _npz(
            {
                "canvas.npy": _npy(
                    np.zeros((2, 2, 3), np.uint8),
                    lambda data: data.replace(
                        b"(2, 2, 3), }      ", b"(2000000,2,3),}"
                    ),
                )
            }
        ),
    ],
)
def test_hostile_golden_is_refused(golden: bytes, tmp_path: Path) -> None:
    metadata = dataclasses.replace(tiny_metadata(), graph_sha256=_digest(GRAPH))
    path = _with_members(
        tmp_path, {"deeplab2_edge.json": metadata.to_json(), "golden.npz": golden}
    )
    with pytest.raises(ModelFileError, match="m.tflite"):
        read_model_file(path)


def test_writing_refuses_what_is_no_graph_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="neither a TFLite nor an ONNX file"):
        write_model_file(tmp_path / "m.tflite", b"hello", tiny_metadata())
    with pytest.raises(OutputError):
        write_model_file(tmp_path / "no/m.tflite", GRAPH, tiny_metadata())
    assert list(tmp_path.iterdir()) == []


def _digest(graph: bytes) -> str:
    import hashlib

    return hashlib.sha256(graph).hexdigest()


def _with_members(folder: Path, members: dict[str, str | bytes]) -> Path:
    path = folder / "m.tflite"
    path.write_bytes(GRAPH)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
