"""The ONNX engine: known answers, and no file reaches out of itself."""

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="install deeplab2-edge[onnx]")
pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")

from deeplab2_edge import keys
from deeplab2_edge.errors import (
    DataError,
    MissingExtraError,
    ModelFileError,
    UsageError,
)
from deeplab2_edge.model_file import (
    Golden,
    ModelFile,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.engine import open_engine, self_test
from deeplab2_edge.runtime.interpreter import LiteRtEngine
from deeplab2_edge.runtime.onnx_engine import OnnxEngine, describe_graph
from tests.runtime.tiny_model import CANVAS, FLOAT_MODEL, draw_scene
from tests.runtime.tiny_onnx import build_onnx, onnx_file, tiny_onnx_metadata

onnx = require("onnx", extra="onnx")

SCENE = {keys.IMAGE: draw_scene()}


def test_engine_gives_the_heads_of_the_network() -> None:
    heads = OnnxEngine(onnx_file(), num_threads=1).run(SCENE)
    red = draw_scene()[::4, ::4, 0].astype(np.float32) / 255
    assert {name: (h.shape, h.dtype) for name, h in heads.items()} == {
        keys.SEMANTIC_LOGITS: ((17, 33, 3), np.float32),
        keys.CENTER_HEATMAP: ((17, 33, 1), np.float32),
        keys.OFFSET_MAP: ((17, 33, 2), np.float32),
    }
    np.testing.assert_allclose(heads[keys.SEMANTIC_LOGITS][..., 2], 4 * red, atol=1e-5)
    np.testing.assert_allclose(
        heads[keys.CENTER_HEATMAP][..., 0], 2 * red - 1.35, atol=1e-5
    )


def test_files_are_written_read_and_opened(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    source = onnx_file()
    heads = OnnxEngine(source).run(SCENE)
    write_model_file(path, source.graph, source.metadata, Golden(SCENE, heads))
    model = read_model_file(path)
    engine = open_engine(path, num_threads=1)
    assert isinstance(engine, OnnxEngine)
    assert engine.metadata.canvas == CANVAS
    differences = self_test(engine, model)
    assert differences is not None and max(differences.values()) < 1e-6
    # The file is an ordinary ONNX model, for every other reader too.
    onnx.checker.check_model(onnx.load(path), full_check=True)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"sky"', b'"fly"'), (b'"created', b'"cheated')]
)
def test_changed_metadata_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    source = onnx_file()
    metadata = dataclasses.replace(source.metadata, provenance={"created": "today"})
    path = tmp_path / "tiny.onnx"
    write_model_file(path, source.graph, metadata)
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    with pytest.raises(ModelFileError, match="damaged: its properties"):
        read_model_file(path)


def test_runtime_needs_neither_tensorflow_nor_onnx(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    source = onnx_file()
    write_model_file(path, source.graph, source.metadata)
    code = (
        "import sys\n"
        "from deeplab2_edge.runtime import PanopticSegmenter\n"
        "from tests.runtime.tiny_model import draw_scene\n"
        f"result = PanopticSegmenter({str(path)!r})(draw_scene())\n"
        "assert result.panoptic.shape == (65, 129)\n"
        "print([m for m in ('tensorflow', 'tf_keras', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_graph_is_described() -> None:
    info = describe_graph(onnx_file())
    assert info.op_counts["MatMul"] == 3
    (image,) = info.inputs
    assert (image.name, image.shape, image.dtype) == ("image", (1, *CANVAS, 3), "uint8")
    assert len(info.outputs) == 3


def test_dequantized_centers_are_known_to_be_integers() -> None:
    engine = OnnxEngine(onnx_file(build_onnx(integer=True)))
    assert engine.is_integer
    merge = engine.metadata.merge
    assert merge is not None and merge.merge_plateaus
    engine = OnnxEngine(onnx_file())
    assert not engine.is_integer
    merge = engine.metadata.merge
    assert merge is not None and not merge.merge_plateaus


def test_runs_from_several_threads_do_not_mix() -> None:
    engine = OnnxEngine(onnx_file(), num_threads=1)
    images = [
        {keys.IMAGE: np.full((*CANVAS, 3), value, np.uint8)} for value in (0, 90, 255)
    ]
    expected = [engine.run(image)[keys.SEMANTIC_LOGITS] for image in images]
    wrong = []

    def work(place: int) -> None:
        for _ in range(20):
            logits = engine.run(images[place])[keys.SEMANTIC_LOGITS]
            if not np.array_equal(logits, expected[place]):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((65, 65, 3), np.uint8),
        np.zeros((*CANVAS, 3), np.float32),
        np.zeros((1, *CANVAS, 3), np.uint8),
    ],
)
def test_inputs_that_do_not_fit_are_refused(image: Any) -> None:
    engine = OnnxEngine(onnx_file())
    with pytest.raises(DataError, match="this model takes"):
        engine.run({keys.IMAGE: image})
    with pytest.raises(DataError, match="this model takes"):
        engine.run({})


def test_files_of_the_other_format_are_refused_by_name() -> None:
    with pytest.raises(ModelFileError, match="tflite; ONNX Runtime runs ONNX files"):
        OnnxEngine(FLOAT_MODEL)
    with pytest.raises(ModelFileError, match="onnx; LiteRT runs TFLite files"):
        LiteRtEngine(onnx_file())


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="num_threads is 0"):
        OnnxEngine(onnx_file(), num_threads=0)
    with pytest.raises(UsageError, match="delegate is for TFLite"):
        open_engine(onnx_file(), delegate="libedgetpu.so.1")
    with pytest.raises(UsageError, match="they run in onnxruntime"):
        open_engine(onnx_file(), runtime="tensorflow")
    report = open_engine(onnx_file(), num_threads=1, delegate="cpu").report
    assert (report.runtime, report.delegate, report.threads) == (
        "onnxruntime",
        "cpu",
        1,
    )


def test_graph_must_be_what_the_metadata_says() -> None:
    metadata = tiny_onnx_metadata()
    pixels, head = metadata.inputs[keys.IMAGE], metadata.outputs[keys.OFFSET_MAP]
    outputs = dict(metadata.outputs)
    wider = {**outputs, keys.OFFSET_MAP: dataclasses.replace(head, shape=(9, 17, 2))}
    lost = {**outputs, keys.OFFSET_MAP: dataclasses.replace(head, name="nowhere")}
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"inputs": {keys.IMAGE: dataclasses.replace(pixels, dtype="float32")}},
            "inputs.image is uint8 .*metadata says float32",
        ),
        ({"outputs": wider}, r"offset_map is float32 .*says float32 \[1, 9, 17, 2\]"),
        ({"outputs": lost}, "outputs.offset_map is 'nowhere'"),
    ]
    graph = build_onnx().SerializeToString()
    for changes, message in cases:
        changed = dataclasses.replace(metadata, **changes)
        with pytest.raises(ModelFileError, match=message):
            OnnxEngine(ModelFile(graph, changed))


def test_input_that_nobody_describes_is_refused() -> None:
    model = build_onnx()
    model.graph.input.append(
        onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1])
    )
    with pytest.raises(ModelFileError, match="describes 1 of these"):
        OnnxEngine(onnx_file(model))


def _external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _foreign(model: Any) -> None:
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _loop(model: Any) -> None:
    body = onnx.helper.make_graph([], "forever", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["z"], body=body))


def _unknown(model: Any) -> None:
    model.graph.node[0].op_type = "Teleport"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_external, "constants of this model lie in other files"),
        (_foreign, "outside standard ONNX"),
        (_loop, "loops or branches"),
        (_unknown, "op Teleport is none that deeplab2-edge writes"),
    ],
)
def test_hostile_and_broken_graphs_are_refused(
    harm: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = build_onnx()
    harm(model)
    with pytest.raises(ModelFileError, match=message):
        OnnxEngine(onnx_file(model))
    assert capfd.readouterr().err == ""


def test_failure_while_running_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    model = build_onnx()
    # Known only while running: the sum of an index that is out of bounds.
    model.graph.node.insert(
        0, onnx.helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0)
    )
    model.graph.node.insert(1, onnx.helper.make_node("Cast", ["most"], ["place"], to=7))
    model.graph.node.insert(
        2, onnx.helper.make_node("Gather", ["axes", "place"], ["far"])
    )
    model.graph.node.insert(3, onnx.helper.make_node("Cast", ["far"], ["f"], to=1))
    for node in model.graph.node:
        if node.op_type == "Add":
            node.input[1] = "f"
    engine = OnnxEngine(onnx_file(model))
    with pytest.raises(ModelFileError, match="cannot run this graph .*indices"):
        engine.run(SCENE)
    assert capfd.readouterr().err == ""


def test_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deeplab2-edge\[onnx\]'"):
        OnnxEngine(onnx_file())
