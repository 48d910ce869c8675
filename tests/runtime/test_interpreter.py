"""The LiteRT engine: known answers, and nothing unverified reaches the interpreter."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplab2_edge import keys
from deeplab2_edge.errors import DataError, ModelFileError, UsageError
from deeplab2_edge.families import HEADS, PANOPTIC
from deeplab2_edge.model_file import (
    GRAPH,
    Golden,
    InputSpec,
    ModelFile,
    ModelMetadata,
    OutputSpec,
    read_model_file,
    write_model_file,
)
from deeplab2_edge.runtime.engine import default_threads, self_test
from deeplab2_edge.runtime.interpreter import LiteRtEngine, describe_graph
from deeplab2_edge.runtime.runtimes import RUNTIME_NAMES, runtime_info
from tests.runtime.tiny_model import (
    CANVAS,
    FLOAT_MODEL,
    INT8_MODEL,
    build_graph,
    draw_scene,
    tiny_metadata,
    tiny_outputs,
)


@pytest.mark.parametrize("path", [FLOAT_MODEL, INT8_MODEL])
def test_engine_gives_the_golden_heads(path: Path) -> None:
    model = read_model_file(path)
    engine = LiteRtEngine(model, num_threads=1)
    golden = model.golden
    assert golden is not None
    heads = engine.run(golden.inputs)
    # Runtimes differ by a step of the int8 heads (at most 1/16), never by more here.
    assert set(heads) == set(HEADS[PANOPTIC])
    for key, head in heads.items():
        assert head.dtype == np.float32
        np.testing.assert_allclose(
            head, golden.heads[key], atol=1e-5 if path == FLOAT_MODEL else 0.07
        )


def test_self_test_tells_a_wrong_network_from_a_right_one() -> None:
    model = read_model_file(FLOAT_MODEL)
    right = self_test(LiteRtEngine(model), model)
    assert right is not None
    assert max(right.values()) < 1e-5
    assert model.golden is not None
    heads = {
        key: head[::-1] if key == keys.SEMANTIC_LOGITS else head
        for key, head in model.golden.heads.items()
    }
    other = ModelFile(model.graph, model.metadata, Golden(model.golden.inputs, heads))
    wrong = self_test(LiteRtEngine(other), other)
    assert wrong is not None
    assert wrong[keys.SEMANTIC_LOGITS] > 0.3
    plain = ModelFile(model.graph, model.metadata)
    assert self_test(LiteRtEngine(plain), plain) is None


def test_integer_and_float_model_agree_within_quantization() -> None:
    float_heads = LiteRtEngine(FLOAT_MODEL).run({keys.IMAGE: draw_scene()})
    int8_heads = LiteRtEngine(INT8_MODEL).run({keys.IMAGE: draw_scene()})
    np.testing.assert_allclose(
        int8_heads[keys.SEMANTIC_LOGITS], float_heads[keys.SEMANTIC_LOGITS], atol=0.1
    )


def test_integer_centers_switch_plateau_merging_on() -> None:
    merge = LiteRtEngine(FLOAT_MODEL).metadata.merge
    assert merge is not None and not merge.merge_plateaus
    engine = LiteRtEngine(INT8_MODEL)
    assert engine.is_integer
    merge = engine.metadata.merge
    assert merge is not None and merge.merge_plateaus


def test_heads_outlive_the_next_run() -> None:
    engine = LiteRtEngine(FLOAT_MODEL)
    heads = engine.run({keys.IMAGE: draw_scene()})
    before = heads[keys.SEMANTIC_LOGITS].copy()
    engine.run({keys.IMAGE: np.full((*CANVAS, 3), 255, np.uint8)})
    np.testing.assert_array_equal(heads[keys.SEMANTIC_LOGITS], before)


def test_one_engine_may_be_used_from_several_threads() -> None:
    engine = LiteRtEngine(FLOAT_MODEL, num_threads=1)
    images = [
        {keys.IMAGE: np.full((*CANVAS, 3), value, np.uint8)} for value in (0, 90, 255)
    ]
    expected = [engine.run(image)[keys.SEMANTIC_LOGITS] for image in images]
    wrong: list[int] = []

    def work(place: int) -> None:
        for _ in range(20):
            logits = engine.run(images[place])[keys.SEMANTIC_LOGITS]
            if not np.array_equal(logits, expected[place]):
                wrong.append(place)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize(
    "canvas",
    [
        np.zeros((64, 129, 3), np.uint8),
        np.zeros((*CANVAS, 3), np.float32),
        np.zeros((1, *CANVAS, 3), np.uint8),
    ],
)
def test_wrong_canvas_is_refused(canvas: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match="this model takes uint8"):
        LiteRtEngine(FLOAT_MODEL).run({keys.IMAGE: canvas})


def without_things(**changes: Any) -> ModelMetadata:
    metadata = read_model_file(FLOAT_MODEL).metadata
    assert metadata.merge is not None
    merge = dataclasses.replace(metadata.merge, thing_ids=())
    return dataclasses.replace(metadata, merge=merge, thing_ids=(), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "canvas": (65, 65),
                "inputs": {keys.IMAGE: InputSpec("image", (65, 65, 3))},
            },
            r"inputs.image is 'image', but the graph has|says \[1, 65, 65, 3\]",
        ),
        ({"outputs": tiny_outputs(stride=8)}, "but the graph has"),
        (
            {
                "class_names": ("a", "b"),
                "colors": ((0, 0, 0),) * 2,
                "outputs": {
                    **tiny_outputs(),
                    keys.SEMANTIC_LOGITS: OutputSpec("a", (17, 33, 2)),
                },
            },
            "outputs.semantic_logits is 'a', but the graph has",
        ),
    ],
)
def test_graph_that_is_not_what_its_metadata_says_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    model = read_model_file(FLOAT_MODEL)
    with pytest.raises(ModelFileError, match=message):
        LiteRtEngine(ModelFile(model.graph, without_things(**changes)))


def test_tensors_of_other_shape_or_type_are_refused() -> None:
    model = read_model_file(FLOAT_MODEL)
    metadata = model.metadata
    pixels = metadata.inputs[keys.IMAGE]
    head = metadata.outputs[keys.OFFSET_MAP]
    for changes, message in (
        (
            {"inputs": {keys.IMAGE: dataclasses.replace(pixels, dtype="int8")}},
            "inputs.image is float32 .*; its metadata says int8",
        ),
        (
            {
                "outputs": {
                    **metadata.outputs,
                    keys.OFFSET_MAP: dataclasses.replace(head, shape=(9, 17, 2)),
                }
            },
            r"offset_map is float32 .*; its metadata says float32 \[1, 9, 17, 2\]",
        ),
        (
            {
                "outputs": {
                    **metadata.outputs,
                    keys.OFFSET_MAP: dataclasses.replace(head, name="nowhere"),
                }
            },
            "outputs.offset_map is 'nowhere'",
        ),
    ):
        changed = dataclasses.replace(metadata, **changes)  # type: ignore[arg-type]
        with pytest.raises(ModelFileError, match=message):
            LiteRtEngine(ModelFile(model.graph, changed))


@pytest.mark.parametrize("num_threads", [0, -1, 10_000])
def test_wrong_thread_count_is_refused(num_threads: int) -> None:
    with pytest.raises(UsageError, match="num_threads"):
        LiteRtEngine(FLOAT_MODEL, num_threads=num_threads)


def test_describe_graph_counts_ops_of_the_file() -> None:
    graph = describe_graph(read_model_file(INT8_MODEL))
    assert graph.op_counts["CONV_2D"] == 4
    (tensor,) = graph.inputs
    assert (tensor.dtype, tensor.shape) == ("uint8", (1, *CANVAS, 3))
    assert {output.dtype for output in graph.outputs} == {"int8"}


def test_runtime_info_and_default_threads() -> None:
    assert runtime_info().name in RUNTIME_NAMES
    assert 1 <= default_threads() <= 4


@pytest.mark.tf
def test_freshly_converted_graph_runs(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="runs where TensorFlow is installed")
    metadata = read_model_file(FLOAT_MODEL).metadata
    path = tmp_path / "fresh.tflite"
    write_model_file(path, build_graph(integer=False), metadata)
    expected = LiteRtEngine(FLOAT_MODEL).run({keys.IMAGE: draw_scene()})
    heads = LiteRtEngine(path).run({keys.IMAGE: draw_scene()})
    np.testing.assert_allclose(
        heads[keys.SEMANTIC_LOGITS], expected[keys.SEMANTIC_LOGITS], atol=1e-5
    )


def test_a_run_that_fails_says_which_file() -> None:
    """An index that only the pixels decide about is out of range."""
    pytest.importorskip("ai_edge_litert.schema_py_generated")
    from tests.targets import one_op

    shape = (1, *CANVAS, 3)
    tensors = [
        one_op.TensorSpec(shape, "float32", name="image"),
        one_op.TensorSpec(shape, "int32"),
        one_op.constant([0.0, 1.0], "float32"),
        one_op.TensorSpec(shape, "float32"),
        one_op.constant(3),
        one_op.TensorSpec(shape[:3], "int32", name="classes"),
    ]
    ops = [
        one_op.OpSpec("CAST", [0], [1]),
        one_op.OpSpec("GATHER", [2, 1], [3], one_op.options("GatherOptions")),
        one_op.OpSpec(
            "ARG_MAX", [3, 4], [5], one_op.options("ArgMaxOptions", outputType=2)
        ),
    ]
    graph = one_op.model(tensors, ops, [0], [5])
    outputs = {keys.SEMANTIC_PRED: OutputSpec("classes", CANVAS)}
    model = ModelFile(graph, tiny_metadata(outputs=outputs, merge_place=GRAPH))
    engine = LiteRtEngine(model, num_threads=1)
    image = np.zeros((*CANVAS, 3), np.uint8)
    assert engine.run({keys.IMAGE: image})
    with pytest.raises(ModelFileError, match="tiny: ai-edge-litert cannot run this"):
        engine.run({keys.IMAGE: image + 2})
    assert engine.run({keys.IMAGE: image})
