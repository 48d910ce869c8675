"""What is said of a file that its target does not take whole."""

import pytest

from deeplab2_edge.config.schema import BackboneOptions
from deeplab2_edge.convert.coverage import check_network, coverage_notes
from deeplab2_edge.errors import UsageError
from tests.runtime.tiny_model import FLOAT_MODEL, INT8_MODEL
from tests.targets.one_op import TensorSpec, constant, one_op

pytest.importorskip("ai_edge_litert.schema_py_generated")


def pixels(*shape: int) -> TensorSpec:
    return TensorSpec(shape or (1, 8, 8, 4))


def test_attention_is_refused_before_the_work() -> None:
    for name in ("axial_swidernet", "MaX_deeplab_s"):
        check_network(BackboneOptions(name=name), "gpu")
        with pytest.raises(UsageError, match="train mobilenet_v3_small_minimalistic"):
            check_network(BackboneOptions(name=name), "edgetpu")
    check_network(BackboneOptions(name="swidernet"), "edgetpu")


def test_a_whole_file_needs_no_words() -> None:
    graph = INT8_MODEL.read_bytes()
    for target in ("cpu", "gpu", "edgetpu", "onnx"):
        assert coverage_notes(graph, target, "x.tflite") == ()


def test_the_first_op_that_does_not_map_is_named() -> None:
    graph = one_op("HARD_SWISH", pixels(), pixels())
    (note,) = coverage_notes(graph, "edgetpu", "x.tflite")
    assert note == (
        "0% of the work maps to the Edge TPU; first HARD_SWISH does not (HARD_SWISH is "
        "not supported); more: deeplab2-edge inspect --target edgetpu x.tflite"
    )
    (note,) = coverage_notes(FLOAT_MODEL.read_bytes(), "edgetpu", "x.tflite")
    assert "works on float32" in note


def test_doubt_is_told() -> None:
    size = constant([129, 257])
    graph = one_op(
        "RESIZE_BILINEAR", pixels(1, 65, 129, 4), size, pixels(1, 129, 257, 4)
    )
    (note,) = coverage_notes(graph, "edgetpu", "x.tflite")
    assert note.startswith("1 op may not map to the Edge TPU, first RESIZE_BILINEAR")
