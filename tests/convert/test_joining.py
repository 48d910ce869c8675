"""One graph of a network and what follows it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

import tensorflow as tf

from deeplab2_edge import families, keys
from deeplab2_edge.convert.merge.joining import join_onnx, join_tflite
from deeplab2_edge.convert.merge.tail import tail_as_onnx, tail_as_tflite, trace_tail
from deeplab2_edge.errors import ConversionError
from deeplab2_edge.panoptic import MergeSettings, merge_heads

pytestmark = pytest.mark.tf

CANVAS = (17, 33)
CHANNELS = {
    keys.SEMANTIC_LOGITS: 4,
    keys.CENTER_HEATMAP: 1,
    keys.OFFSET_MAP: 2,
    keys.FRAME_OFFSET_MAP: 2,
}
MERGE = MergeSettings((2, 3), 100, 9, nms_kernel=3, center_score_threshold=0.2)


class Network(tf.Module):  # type: ignore[misc]
    """Is one convolution per head, at a quarter of the canvas."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernels = {
            name: tf.Variable(rng.normal(size=(3, 3, 3, count)) / 900, dtype=tf.float32)
            for name, count in CHANNELS.items()
        }

    @tf.function(input_signature=[tf.TensorSpec((1, *CANVAS, 3), name="image")])  # type: ignore[untyped-decorator]
    def heads(self, image: Any) -> dict[str, Any]:
        return {
            name: tf.nn.conv2d(image - 127.0, kernel, 4, "SAME")
            for name, kernel in self.kernels.items()
        }


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


def picture(seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, *CANVAS, 3)).astype(np.float32)


def as_tflite(network: Network, *, is_integer: bool) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [network.heads.get_concrete_function()], network
    )
    if is_integer:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture(i)] for i in range(4))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def runner(graph: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph, num_threads=1)
    return interpreter.get_signature_runner()


def tensor_names(graph: bytes) -> dict[str, str]:
    found = runner(graph).get_output_details()
    return {name: details["name"] for name, details in found.items()}


def trace(*, merge_plateaus: bool = False) -> Any:
    return trace_tail(
        families.MOTION,
        {name: (5, 9, count) for name, count in CHANNELS.items()},
        canvas=CANVAS,
        merge=dataclasses.replace(MERGE, merge_plateaus=merge_plateaus),
    )


@pytest.mark.parametrize("is_integer", [False, True], ids=["float", "int8"])
def test_joined_network_gives_the_maps_of_its_heads(
    network: Network, is_integer: bool
) -> None:
    graph = as_tflite(network, is_integer=is_integer)
    tail = trace(merge_plateaus=is_integer)
    joined = join_tflite(graph, tail_as_tflite(tail), tensor_names(graph))
    names = tensor_names(joined)
    assert set(names) == {*tail.outputs, keys.FRAME_OFFSET_MAP}
    assert all(names[name] == name for name in tail.outputs)
    run_heads, run_joined = runner(graph), runner(joined)
    quantized = run_heads.get_output_details()
    for seed in range(3):
        heads = run_heads(image=picture(seed))
        if is_integer:
            for name, details in quantized.items():
                scale, zero = details["quantization"]
                heads[name] = (heads[name].astype(np.float32) - zero) * scale
        expected = merge_heads(
            heads[keys.SEMANTIC_LOGITS][0],
            heads[keys.CENTER_HEATMAP][0, ..., 0],
            heads[keys.OFFSET_MAP][0],
            canvas=CANVAS,
            settings=tail_settings(is_integer),
        )
        found = run_joined(image=picture(seed))
        assert len(expected.centers_yx)
        np.testing.assert_array_equal(found[keys.PANOPTIC_PRED][0], expected.panoptic)
        np.testing.assert_array_equal(
            found[keys.INSTANCE_SCORES][0], expected.instance_scores
        )
        assert found[keys.FRAME_OFFSET_MAP].shape == (1, 5, 9, 2)


def tail_settings(is_integer: bool) -> MergeSettings:
    return dataclasses.replace(MERGE, merge_plateaus=is_integer)


def test_heads_of_another_size_are_refused(network: Network) -> None:
    graph = as_tflite(network, is_integer=False)
    shapes = {name: (3, 5, count) for name, count in CHANNELS.items()}
    tail = trace_tail(families.MOTION, shapes, canvas=CANVAS, merge=MERGE)
    with pytest.raises(ConversionError, match=r"is \[1, 5, 9, .*reads \[1, 3, 5"):
        join_tflite(graph, tail_as_tflite(tail), tensor_names(graph))


def test_joined_onnx_gives_the_maps_of_its_heads() -> None:
    onnx = pytest.importorskip("onnx", reason="install deeplab2-edge[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    rng = np.random.default_rng(1)
    sizes = {name: (1, 5, 9, count) for name, count in CHANNELS.items()}
    model = identity_network(onnx, sizes)
    joined = join_onnx(model, tail_as_onnx(trace(), opset=17))
    onnx.checker.check_model(joined, full_check=True)
    session = runtime.InferenceSession(joined.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    assert names == [keys.FRAME_OFFSET_MAP, *sorted(trace().outputs)]
    heads = {n: rng.random(shape).astype(np.float32) for n, shape in sizes.items()}
    feed = {f"raw_{name}": value for name, value in heads.items()}
    found = dict(zip(names, session.run(None, feed), strict=True))
    expected = merge_heads(
        heads[keys.SEMANTIC_LOGITS][0],
        heads[keys.CENTER_HEATMAP][0, ..., 0],
        heads[keys.OFFSET_MAP][0],
        canvas=CANVAS,
        settings=MERGE,
    )
    np.testing.assert_array_equal(found[keys.PANOPTIC_PRED][0], expected.panoptic)


def identity_network(onnx: Any, sizes: dict[str, tuple[int, ...]]) -> Any:
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", [f"raw_{n}"], [n]) for n in sizes],
        "network",
        [make(f"raw_{n}", onnx.TensorProto.FLOAT, s) for n, s in sizes.items()],
        [make(n, onnx.TensorProto.FLOAT, s) for n, s in sizes.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
