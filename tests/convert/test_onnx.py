"""ONNX models of every family: their ops, names, bytes and values."""

import functools
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
pytest.importorskip("tf2onnx", reason="install deeplab2-edge[onnx]")
pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.onnx import MAX_RANK, OPSET, convert_to_onnx
from deeplab2_edge.convert.onnx_passes import Graph, attribute, infer_shapes
from deeplab2_edge.convert.onnx_quantize import OnnxQuantizable
from deeplab2_edge.convert.tflite import ConvertedGraph
from deeplab2_edge.errors import ConversionError, DataError, UsageError
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.onnx_file import summarize
from deeplab2_edge.optional import require
from tests.convert.test_onnx_passes import parse
from tests.convert.tiny import SIZE, fill, picture
from tests.models.test_build import ARCHITECTURES, build, experiment

tf = require("tensorflow", extra="convert")
tf_keras = require("tf_keras", extra="convert")
onnx = require("onnx", extra="onnx")
ort = require("onnxruntime", extra="onnx")

pytestmark = pytest.mark.tf

PANOPTIC = "panoptic_deeplab"


@functools.cache
def network(architecture: str) -> tuple[InferenceNetwork, ExportedGraph]:
    config = experiment(architecture)
    model = build(config, SIZE, batch_size=1)
    fill(model)
    return (
        InferenceNetwork(model, config),
        export_graph(model, config, for_integers=False),
    )


@functools.cache
def converted(architecture: str, quantization: str = "none") -> ConvertedGraph:
    inference, exported = network(architecture)
    # No picture has a black or a white pixel.
    samples = [(f"{n}", sample(inference, n, dark=90)) for n in range(4)]
    return convert_to_onnx(exported, quantization, calibration=samples)


def sample(inference: InferenceNetwork, seed: int, dark: int = 0) -> dict[str, Any]:
    """Makes inputs, without batch."""
    generator = np.random.default_rng(seed)
    return {
        name: picture(seed) // (4 if dark else 1) + dark
        if spec.dtype == tf.uint8
        else generator.random(spec.shape[1:], np.float32)
        for name, spec in inference.inputs.items()
    }


def session(graph: bytes, severity: int = 3) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = severity
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(graph: bytes, inputs: dict[str, Any]) -> dict[str, Any]:
    opened = session(graph)
    names = [output.name for output in opened.get_outputs()]
    found = opened.run(names, {n: v[np.newaxis] for n, v in inputs.items()})
    return dict(zip(names, found, strict=True))


def source(inference: InferenceNetwork, inputs: dict[str, Any]) -> dict[str, Any]:
    outputs = inference({n: tf.constant(v[np.newaxis]) for n, v in inputs.items()})
    return {name: np.asarray(value) for name, value in outputs.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_equals_its_source(architecture: str) -> None:
    inference, exported = network(architecture)
    result = converted(architecture)
    assert list(result.input_names) == list(result.input_names.values())
    assert set(result.input_names) == set(inference.inputs)
    for seed in range(2):
        inputs = sample(inference, seed)
        expected = source(inference, inputs)
        found = run(result.graph, inputs)
        assert set(found) == set(expected) == set(result.output_names)
        for name, value in found.items():
            assert value.shape == expected[name].shape
            error = np.abs(value - expected[name]).max()
            assert error <= 1e-4 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_graphs_hold_standard_ops_and_no_clutter(architecture: str) -> None:
    inference, _ = network(architecture)
    result = converted(architecture)
    summary = summarize(result.graph)
    summary.check_self_contained()
    assert summary.opsets == {"": OPSET}
    assert summary.op_counts == result.op_counts
    counts = result.op_counts
    assert not {"Identity", "Pad", "BatchNormalization", "Clip"} & set(counts)
    # One to bring an input to channels first, one to bring a head back.
    layout = counts.get("Transpose", 0) + counts.get("Reshape", 0)
    assert layout <= len(inference.inputs) + len(result.output_names)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_are_static_with_four_axes_at_most(architecture: str) -> None:
    model = onnx.load_from_string(converted(architecture).graph)
    onnx.checker.check_model(model, full_check=True)
    shapes = infer_shapes(model)
    assert max(len(shape) for shape in shapes.values()) <= MAX_RANK
    for info in (*model.graph.input, *model.graph.output):
        assert all(d.dim_value > 0 for d in info.type.tensor_type.shape.dim)


@pytest.mark.parametrize("quantization", ["none", "fp16", "dynamic", "int8"])
def test_models_load_without_a_warning(
    quantization: str, capfd: pytest.CaptureFixture[str]
) -> None:
    session(converted(PANOPTIC, quantization).graph, severity=2)
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def test_conversion_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    _, exported = network(PANOPTIC)
    convert_to_onnx(exported, "none")
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_files_are_the_same_in_every_run(quantization: str) -> None:
    inference, exported = network(PANOPTIC)
    samples = [(f"{n}", sample(inference, n, dark=90)) for n in range(4)]
    again = convert_to_onnx(exported, quantization, calibration=samples)
    assert again.graph == converted(PANOPTIC, quantization).graph


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_files_say_nothing_of_where_they_were_made(quantization: str) -> None:
    content = converted(PANOPTIC, quantization).graph
    host = socket.gethostname()
    for trace in (
        host if len(host) > 4 else "a name too short to look for",
        os.getcwd(),
        str(Path.home()) + "/",
        "site-packages",
        "tf2onnx",
        "StatefulPartitionedCall",
    ):
        assert trace.encode() not in content, trace


def test_tensors_are_called_after_layers() -> None:
    model = onnx.load_from_string(converted(PANOPTIC).graph)
    names = {tensor.name for tensor in model.graph.initializer}
    assert "encoder/_blocks/0/_conv/Conv2D/kernel" in names
    assert model.producer_name == "deeplab2-edge"


def test_dilated_convolutions_are_dilated() -> None:
    graph = Graph(onnx.load_from_string(converted(PANOPTIC).graph))
    dilations = {
        tuple(attribute(node, "dilations", [1, 1]))
        for node in graph.nodes
        if node.op_type == "Conv"
    }
    assert {(2, 2), (3, 3)} <= dilations


@pytest.mark.parametrize(
    ("quantization", "share", "decibels"),
    [
        ("fp16", 0.75, 45),
        ("dynamic", 0.6, 30),
        ("int8", 0.9, 12),
        ("int8-mixed", 0.9, 12),
    ],
)
def test_modes_are_smaller_and_close(
    quantization: str, share: float, decibels: float
) -> None:
    inference, _ = network(PANOPTIC)
    result = converted(PANOPTIC, quantization)
    weights = sum(
        onnx.numpy_helper.to_array(t).nbytes
        for t in onnx.load_from_string(result.graph).graph.initializer
    )
    whole = sum(
        onnx.numpy_helper.to_array(t).nbytes
        for t in onnx.load_from_string(converted(PANOPTIC).graph).graph.initializer
    )
    assert weights < share * whole
    inputs = sample(inference, 1, dark=90)
    expected = source(inference, inputs)[keys.SEMANTIC_LOGITS]
    found = run(result.graph, inputs)[keys.SEMANTIC_LOGITS]
    noise = np.square(found - expected).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) > decibels


@pytest.mark.parametrize("quantization", ["fp16", "dynamic"])
def test_packed_weights_are_unpacked_while_loading(
    quantization: str, tmp_path: Path
) -> None:
    path = tmp_path / "as_loaded.onnx"
    options = ort.SessionOptions()
    options.log_severity_level = 4  # it warns that the file is for this machine
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    graph = converted(PANOPTIC, quantization).graph
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(path).graph
    constants = {tensor.name for tensor in loaded.initializer}
    assert not [n.name for n in loaded.node if constants.issuperset(n.input)]


def test_int8_is_int8_throughout() -> None:
    result = converted(PANOPTIC, "int8")
    graph = Graph(onnx.load_from_string(result.graph))
    makers = graph.makers()
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for name in node.input:
            maker = makers.get(name)
            # Bytes of an image are transposed as they are.
            if maker is not None and maker.op_type != "Transpose":
                assert maker.op_type == "DequantizeLinear", (node.name, name)
    # No cast, no normalization: bytes are levels.
    assert "Cast" not in result.op_counts
    (pixels,) = [n for n in graph.nodes if n.input[0] == graph.nodes[0].output[0]]
    scale, zero = (graph.value(name) for name in pixels.input[1:])
    assert scale == np.float32(1 / 127.5) and zero == 128
    assert result.calibration is not None
    assert result.calibration.num_used == 4


def test_int8_heads_are_dequantized_and_centers_bounded() -> None:
    inference, _ = network(PANOPTIC)
    result = converted(PANOPTIC, "int8")
    assert summarize(result.graph).integer_outputs == set(result.output_names)
    heatmap = run(result.graph, sample(inference, 5))[keys.CENTER_HEATMAP]
    assert 0 <= heatmap.min() and heatmap.max() <= 1
    levels = heatmap * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)


def test_mixed_keeps_centers_and_offsets_in_float() -> None:
    result = converted(PANOPTIC, "int8-mixed")
    assert summarize(result.graph).integer_outputs == {keys.SEMANTIC_LOGITS}


def test_layers_stay_in_float_on_demand() -> None:
    inference, exported = network(PANOPTIC)
    samples = [(f"{n}", sample(inference, n)) for n in range(2)]
    result = convert_to_onnx(
        exported, "int8", calibration=samples, keep_float=["semantic_decoder"]
    )
    assert result.float_layers == ("semantic_decoder",)
    graph = Graph(onnx.load_from_string(result.graph))
    for node in graph.nodes:
        if node.op_type == "Conv":
            kernel = graph.value(node.input[1])
            is_float = node.name.startswith("semantic_decoder/")
            assert (kernel is not None) == is_float, node.name


def test_calibration_leaves_an_outlier_out() -> None:
    model = parse(
        """(uint8[1,33,65,3] image) => (float[1,4,33,65] semantic_logits) {
        pixels = Transpose <perm = [0, 3, 1, 2]> (image)
        a = Cast <to = 1> (pixels)
        b = Mul (a, scale)
        c = Add (b, shift)
        semantic_logits = Conv (c, kernel)
        }""",
        scale=np.array(1 / 127.5, np.float32),
        shift=np.array(-1, np.float32),
        kernel=np.eye(4, 3, dtype=np.float32)[..., None, None],
    )
    samples = [(f"{n}", picture(n) // 32 + 124) for n in range(9)]
    strange = ("strange", picture(99))
    found, summary = OnnxQuantizable.measure(model, [*samples, strange]).quantize()
    assert [outlier.name for outlier in summary.outliers] == ["strange"]
    expected, _ = OnnxQuantizable.measure(model, samples).quantize()
    assert found == expected


def test_heatmaps_and_images_of_motion_do_not_share_levels() -> None:
    inference, _ = network("motion_deeplab")
    result = converted("motion_deeplab", "int8")
    inputs = sample(inference, 3, dark=90)
    expected = source(inference, inputs)[keys.SEMANTIC_LOGITS]
    found = run(result.graph, inputs)[keys.SEMANTIC_LOGITS]
    assert np.square(found - expected).sum() < 0.1 * np.square(expected).sum()


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no images to calibrate"),
        ([("small", picture(0)[:17])], "small: image is 17x65x3; the network takes 33"),
        ([("grey", np.full((*SIZE, 3), 128, np.uint8))], "of a single color"),
        ([("none", {})], "takes image, which is missing"),
    ],
)
def test_calibration_that_says_nothing_is_refused(samples: Any, message: str) -> None:
    _, exported = network(PANOPTIC)
    with pytest.raises(DataError, match=message):
        convert_to_onnx(exported, "int8", calibration=samples)


def test_modes_that_onnx_lacks_name_the_nearest() -> None:
    _, exported = network(PANOPTIC)
    with pytest.raises(UsageError, match="nearest is --quantize fp16"):
        convert_to_onnx(exported, "int16x8")
    with pytest.raises(UsageError, match="must be none"):
        convert_to_onnx(exported, "int4")


def test_ops_without_a_translation_are_named_with_their_layer() -> None:
    def heads(image: Any) -> dict[str, Any]:
        with tf.name_scope("odd_layer"):
            square = tf.cast(image[0, :3, :3], tf.float32)
            return {keys.SEMANTIC_LOGITS: tf.linalg.cholesky(tf.transpose(square))}

    spec = tf.TensorSpec((1, *SIZE, 3), tf.uint8, keys.IMAGE)
    function = tf.function(heads, autograph=False)
    exported = ExportedGraph(function.get_concrete_function(image=spec), tf.Module())
    with pytest.raises(ConversionError, match="Cholesky.*odd_layer"):
        convert_to_onnx(exported, "none")


def test_what_breaks_the_translator_is_a_conversion_error() -> None:
    def heads(image: Any) -> dict[str, Any]:
        pixels = tf.cast(image, tf.float32)
        return {
            keys.SEMANTIC_LOGITS: tf.raw_ops.AvgPool3D(
                input=pixels[None],
                ksize=[1, 2, 2, 2, 1],
                strides=[1] * 5,
                padding="SAME",
            )
        }

    spec = tf.TensorSpec((1, *SIZE, 3), tf.uint8, keys.IMAGE)
    function = tf.function(heads, autograph=False)
    exported = ExportedGraph(function.get_concrete_function(image=spec), tf.Module())
    with pytest.raises(ConversionError, match="axes; devices take at most 4"):
        convert_to_onnx(exported, "none")
