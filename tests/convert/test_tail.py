"""What follows a network, inside the file: equal to the NumPy reference."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import families, keys, panoptic
from deeplab2_edge.convert.merge.tail import (
    OUTPUTS,
    Tail,
    tail_as_onnx,
    tail_as_tflite,
    trace_tail,
)
from deeplab2_edge.errors import UsageError
from deeplab2_edge.panoptic import MaskSettings, MaskwiseSettings, MergeSettings

pytestmark = pytest.mark.tf

CANVAS = (33, 49)
SIZE = (9, 13)
MERGE = MergeSettings(
    thing_ids=(3, 4),
    label_divisor=100,
    ignore_label=9,
    nms_kernel=5,
    keep_k_centers=20,
    stuff_area_limit=60,
    merge_plateaus=True,
)
MASKS = MaskSettings(
    thing_ids=(4, 2),
    label_divisor=100,
    ignore_label=255,
    transformer_class_confidence_threshold=0.5,
    stuff_area_limit=30,
    thing_area_limit=10,
)
# What TFLite runs without a delegate's help on any board.
ALLOWED = frozenset(
    "ADD ARG_MAX CAST CONCATENATION DIV EQUAL EXP FILL FLOOR_DIV FLOOR_MOD GATHER "
    "GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_NOT MAX_POOL_2D MAXIMUM "
    "MINIMUM MUL NEG PACK PAD PADV2 REDUCE_ANY REDUCE_MAX RESHAPE SELECT SELECT_V2 "
    "SLICE SOFTMAX SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TOPK_V2 TRANSPOSE "
    "UNSORTED_SEGMENT_SUM WHILE LOGICAL_OR EXPAND_DIMS POW SQRT".split()
)


def panoptic_heads(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    heat = rng.integers(0, 5, (*SIZE, 1)) / 4
    heat[3:6, 2:5] = 1
    return {
        keys.SEMANTIC_LOGITS: rng.normal(size=(*SIZE, 5)).astype(np.float32),
        keys.CENTER_HEATMAP: heat.astype(np.float32),
        keys.OFFSET_MAP: rng.normal(size=(*SIZE, 2)).astype(np.float32),
    }


def mask_heads(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        keys.PIXEL_SPACE_MASK_LOGITS: (3 * rng.normal(size=(*SIZE, 8))).astype("f4"),
        keys.TRANSFORMER_CLASS_LOGITS: (3 * rng.normal(size=(8, 6))).astype("f4"),
    }


def trace(family: str, heads: Mapping[str, NDArray[Any]], **settings: Any) -> Tail:
    shapes = {name: head.shape for name, head in heads.items()}
    return trace_tail(family, shapes, canvas=CANVAS, **settings)


def run_tflite(
    graph: bytes, heads: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph, num_threads=1)
    interpreter.allocate_tensors()
    ops = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert ops <= ALLOWED | {"DELEGATE"}
    shapes = [tensor["shape"] for tensor in interpreter.get_tensor_details()]
    assert max(map(len, shapes)) <= 4
    runner = interpreter.get_signature_runner()
    outputs = runner(**{name: head[np.newaxis] for name, head in heads.items()})
    return {name: value[0] for name, value in outputs.items()}


def run_onnx(model: Any, heads: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    onnx = pytest.importorskip("onnx", reason="install deeplab2-edge[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    session = runtime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {n: head[np.newaxis] for n, head in heads.items()})
    return {n: value[0] for n, value in zip(names, values, strict=True)}


def check(found: Mapping[str, NDArray[Any]], expected: Any, family: str) -> None:
    assert set(found) == set(OUTPUTS[family])
    for key, field in OUTPUTS[family].items():
        wanted = getattr(expected, field)
        value = found[key]
        if field.startswith("center"):
            value = value[: len(wanted)]
        assert value.dtype == wanted.dtype
        # Exponentials are rounded in another way, and only masks have them.
        tolerance = 1e-6 if family == families.MASKS and "score" in field else 0
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance, err_msg=key)


def test_panoptic_maps_are_those_of_the_host() -> None:
    tail = trace(families.PANOPTIC, panoptic_heads(0), merge=MERGE)
    graph, model = tail_as_tflite(tail), tail_as_onnx(tail, opset=17)
    assert len(graph) < 100_000  # no constant as large as a map
    for seed in range(3):
        heads = panoptic_heads(seed)
        expected = panoptic.merge_heads(
            heads[keys.SEMANTIC_LOGITS],
            heads[keys.CENTER_HEATMAP][..., 0],
            heads[keys.OFFSET_MAP],
            canvas=CANVAS,
            settings=MERGE,
        )
        assert 2 < len(expected.centers_yx)
        check(run_tflite(graph, heads), expected, families.PANOPTIC)
        check(run_onnx(model, heads), expected, families.PANOPTIC)


def test_no_center_means_no_instance() -> None:
    settings = dataclasses.replace(MERGE, center_score_threshold=2.0)
    heads = panoptic_heads(1)
    tail = trace(families.MOTION, heads, merge=settings)
    found = run_tflite(tail_as_tflite(tail), heads)
    assert not found[keys.INSTANCE_PRED].any()
    assert not found[keys.INSTANCE_SCORES].any()
    assert set(np.unique(found[keys.PANOPTIC_PRED])) == {0, 100, 200, 900}
    assert np.all(found[keys.INSTANCE_CENTERS] == -1)


def test_masks_are_decoded_as_on_the_host() -> None:
    tail = trace(families.MASKS, mask_heads(0), masks=MASKS)
    graph, model = tail_as_tflite(tail), tail_as_onnx(tail, opset=17)
    for seed in range(2):
        heads = mask_heads(seed)
        expected = panoptic.decode_masks(*heads.values(), canvas=CANVAS, settings=MASKS)
        check(run_tflite(graph, heads), expected, families.MASKS)
        check(run_onnx(model, heads), expected, families.MASKS)


@pytest.mark.slow
def test_masks_are_pasted_as_on_the_host() -> None:
    settings = dataclasses.replace(
        MASKS, maskwise=MaskwiseSettings(0.4, 0.3, 0.7, 1.5, 0.5)
    )
    heads = mask_heads(2)
    tail = trace(families.MASKS, heads, masks=settings)
    expected = panoptic.decode_masks(*heads.values(), canvas=CANVAS, settings=settings)
    check(run_tflite(tail_as_tflite(tail), heads), expected, families.MASKS)
    model = tail_as_onnx(tail, opset=17)
    check(run_onnx(model, heads), expected, families.MASKS)


def test_classes_are_those_of_the_host() -> None:
    heads = panoptic_heads(3)
    tail = trace(families.SEMANTIC, heads)
    assert tail.inputs == (keys.SEMANTIC_LOGITS,)
    logits = {keys.SEMANTIC_LOGITS: heads[keys.SEMANTIC_LOGITS]}
    found = run_tflite(tail_as_tflite(tail), logits)
    expected = panoptic.upsample_argmax(heads[keys.SEMANTIC_LOGITS], CANVAS)
    np.testing.assert_array_equal(found[keys.SEMANTIC_PRED], expected)


def test_what_no_graph_can_do_is_refused_with_what_can() -> None:
    with pytest.raises(UsageError, match="both.*use --merge host"):
        trace(families.TWO_FRAMES, panoptic_heads(0), merge=MERGE)
    settings = dataclasses.replace(MERGE, keep_k_centers=0)
    with pytest.raises(UsageError, match="keep_k is 0.*or use --merge host"):
        trace(families.PANOPTIC, panoptic_heads(0), merge=settings)
