"""ONNX models of every family: their ops, names, bytes and values."""

import functools
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")
pytest.importorskip("tf2onnx", reason="install deeplab2-edge[onnx]")
pytest.importorskip("onnxruntime", reason="install deeplab2-edge[onnx]")

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.forms import Forms
from deeplab2_edge.convert.onnx.passes import Graph, attribute, infer_shapes
from deeplab2_edge.convert.onnx.quantization import OnnxQuantizable
from deeplab2_edge.convert.onnx.translation import (
    MAX_RANK,
    OPSET,
    convert_to_onnx,
    float_model,
    quantize,
    rungs,
)
from deeplab2_edge.convert.options import DropLimit
from deeplab2_edge.convert.quantization.ladder import Attempt, climb
from deeplab2_edge.convert.tflite import ConvertedGraph
from deeplab2_edge.errors import ConversionError, DataError, UsageError
from deeplab2_edge.onnx_file import summarize
from deeplab2_edge.optional import require
from tests.convert.networks import SIZE, build, expected_heads, experiment
from tests.convert.test_onnx_passes import parse
from tests.convert.tiny import picture

tf = require("tensorflow", extra="convert")
tf_keras = require("tf_keras", extra="convert")
onnx = require("onnx", extra="onnx")
ort = require("onnxruntime", extra="onnx")

pytestmark = pytest.mark.tf

BUILTIN, EINSUM = Forms(axial="builtin"), Forms(axial="einsum")
PANOPTIC = "panoptic"
# Architecture, backbone, forms and the most ops that only change layouts.
CASES: dict[str, tuple[str, str, Forms, int]] = {
    "semantic": ("deeplab_v3_plus", "mobilenet", EINSUM, 2),
    PANOPTIC: ("panoptic_deeplab", "mobilenet", EINSUM, 4),
    "resnet": ("panoptic_deeplab", "resnet", EINSUM, 4),
    "sac": ("panoptic_deeplab", "sac", EINSUM, 4),
    # 5, and 7 in a process that had converted much else.
    "motion": ("motion_deeplab", "mobilenet", EINSUM, 7),
    "vip": ("vip_deeplab", "mobilenet", EINSUM, 8),
    "axial_builtin": ("panoptic_deeplab", "axial", BUILTIN, 71),
    "axial_einsum": ("panoptic_deeplab", "axial", EINSUM, 100),
    "max_builtin": ("max_deeplab", "max", BUILTIN, 105),
    "max_einsum": ("max_deeplab", "max", EINSUM, 200),
}
_SLOW = (
    "semantic",
    "resnet",
    "sac",
    "axial_builtin",
    "axial_einsum",
    "max_builtin",
    "max_einsum",
)
EVERY_CASE = [
    pytest.param(name, marks=pytest.mark.slow if name in _SLOW else ())
    for name in CASES
]
# Batch norms behind a sum and behind a product of matrices.
_UNFOLDED = {"sac": 1, "max_einsum": 1}


class Network:
    """Is a traced network with inputs and the heads that the source gives for them."""

    def __init__(self, name: str) -> None:
        architecture, backbone, forms, _ = CASES[name]
        config = experiment(architecture, backbone)
        self.inputs, self.heads = expected_heads(config)
        self.exported = export_graph(
            build(config, forms), config, for_integers=False, forms=forms
        )
        self.samples = [
            (
                f"{n}",
                {k: calm(np.roll(v[0], n, axis=1)) for k, v in self.inputs.items()},
            )
            for n in range(4)
        ]

    @functools.cached_property
    def measured(self) -> OnnxQuantizable:
        return OnnxQuantizable.measure(float_model(self.exported), self.samples)

    def convert(self, quantization: str) -> ConvertedGraph:
        if quantization.startswith("int8"):
            return quantize(self.measured, quantization)
        return convert_to_onnx(self.exported, quantization)


network = functools.cache(Network)


@functools.cache
def converted(name: str, quantization: str = "none") -> ConvertedGraph:
    return network(name).convert(quantization)


def calm(values: Any) -> Any:
    """Takes black and white out of pixels."""
    return values // 4 + 90 if values.dtype == np.uint8 else values


def session(graph: bytes, severity: int = 3) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = severity
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(graph: bytes, inputs: Mapping[str, Any]) -> dict[str, Any]:
    opened = session(graph)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, dict(inputs)), strict=True))


def decibels(found: Any, expected: Any) -> float:
    noise = np.square(found - expected).sum()
    return float(10 * np.log10(np.square(expected).sum() / noise))


@pytest.mark.parametrize("name", EVERY_CASE)
def test_every_family_equals_its_source(name: str) -> None:
    source, result = network(name), converted(name)
    assert set(result.input_names) == set(source.inputs)
    assert set(result.output_names) == set(source.heads)
    found = run(result.graph, source.inputs)
    assert set(found) == set(source.heads)
    for head, value in found.items():
        expected = source.heads[head]
        assert value.shape == expected.shape
        assert np.abs(value - expected).max() <= 1e-4 * np.abs(expected).max(), head


@pytest.mark.parametrize("name", EVERY_CASE)
def test_graphs_hold_standard_ops_and_no_clutter(name: str) -> None:
    result = converted(name)
    summary = summarize(result.graph)
    summary.check_self_contained()
    assert summary.opsets == {"": OPSET}
    assert summary.op_counts == result.op_counts
    counts = result.op_counts
    assert not {"Identity", "Clip", "Einsum", "Tile", "Gather"} & set(counts)
    assert counts.get("BatchNormalization", 0) == _UNFOLDED.get(name, 0)
    assert counts.get("Transpose", 0) + counts.get("Reshape", 0) <= CASES[name][3]


@pytest.mark.parametrize("name", EVERY_CASE)
def test_shapes_are_static_with_four_axes_at_most(name: str) -> None:
    model = onnx.load_from_string(converted(name).graph)
    onnx.checker.check_model(model, full_check=True)
    shapes = infer_shapes(model)
    assert max(len(shape) for shape in shapes.values()) <= MAX_RANK
    for info in (*model.graph.input, *model.graph.output):
        assert all(d.dim_value > 0 for d in info.type.tensor_type.shape.dim)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["axial_builtin", "axial_einsum", "max_builtin"])
def test_attention_runs_in_int8(name: str) -> None:
    source, result = network(name), converted(name, "int8")
    for value in run(result.graph, source.inputs).values():
        assert np.isfinite(value).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["axial_builtin", "max_builtin", "sac", "vip"])
def test_mixed_precision_stays_close(name: str) -> None:
    source, result = network(name), converted(name, "int8-mixed")
    inputs = {k: v[np.newaxis] for k, v in source.samples[0][1].items()}
    expected = run(converted(name).graph, inputs)
    found = run(result.graph, inputs)
    for head, value in found.items():
        assert decibels(value, expected[head]) > 10, head
    graph = Graph(onnx.load_from_string(result.graph))
    makers = graph.makers()
    for node in graph.nodes:
        if node.op_type in ("MatMul", "Softmax"):
            sources = [makers[n].op_type for n in node.input if n in makers]
            assert sources.count("DequantizeLinear") < 2, node.name


@pytest.mark.parametrize("quantization", ["none", "fp16", "dynamic", "int8"])
def test_models_load_without_a_warning(
    quantization: str, capfd: pytest.CaptureFixture[str]
) -> None:
    session(converted(PANOPTIC, quantization).graph, severity=2)
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def test_conversion_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    network(PANOPTIC).convert("none")
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_files_are_the_same_in_every_run(quantization: str) -> None:
    source = network(PANOPTIC)
    again = convert_to_onnx(source.exported, quantization, calibration=source.samples)
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
    ("quantization", "share", "least"),
    [
        ("fp16", 0.75, 45),
        ("dynamic", 0.6, 30),
        ("int8", 0.9, 12),
        ("int8-mixed", 0.9, 12),
    ],
)
def test_modes_are_smaller_and_close(
    quantization: str, share: float, least: float
) -> None:
    result, whole = converted(PANOPTIC, quantization), converted(PANOPTIC)
    assert result.quantization == quantization
    assert weights_bytes(result) < share * weights_bytes(whole)
    inputs = {keys.IMAGE: network(PANOPTIC).samples[0][1][keys.IMAGE][np.newaxis]}
    expected = run(whole.graph, inputs)[keys.SEMANTIC_LOGITS]
    found = run(result.graph, inputs)[keys.SEMANTIC_LOGITS]
    assert decibels(found, expected) > least


def weights_bytes(result: ConvertedGraph) -> int:
    model = onnx.load_from_string(result.graph)
    return sum(onnx.numpy_helper.to_array(t).nbytes for t in model.graph.initializer)


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
    result = converted(PANOPTIC, "int8")
    assert summarize(result.graph).integer_outputs == set(result.output_names)
    heatmap = run(result.graph, network(PANOPTIC).inputs)[keys.CENTER_HEATMAP]
    assert 0 <= heatmap.min() and heatmap.max() <= 1
    levels = heatmap * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)


def test_mixed_keeps_centers_and_offsets_in_float() -> None:
    result = converted(PANOPTIC, "int8-mixed")
    assert summarize(result.graph).integer_outputs == {keys.SEMANTIC_LOGITS}


def test_layers_stay_in_float_on_demand() -> None:
    result = quantize(
        network(PANOPTIC).measured, "int8", keep_float=["semantic_decoder"]
    )
    assert result.float_layers == ("semantic_decoder",)
    graph = Graph(onnx.load_from_string(result.graph))
    for node in graph.nodes:
        if node.op_type == "Conv":
            kernel = graph.value(node.input[1])
            is_float = node.name.startswith("semantic_decoder/")
            assert (kernel is not None) == is_float, node.name


def test_a_ladder_leads_from_int8_to_mixed_precision() -> None:
    def attempt(name: str, graph: ConvertedGraph) -> Attempt:
        good = graph.quantization == "int8-mixed"
        return Attempt(name, len(graph.graph), {"pq": 0.0 if good else 5.0})

    steps = rungs(network(PANOPTIC).measured, "int8", attempt)
    result = climb(steps, [DropLimit("pq", 1.0)])
    assert [a.name for a in result.attempts] == [
        "int8",
        "int8, quantile 0.95",
        "int8, quantile 0.8",
        "int8, quantile 1",
        "int8-mixed",
    ]
    assert result.chosen is not None and result.chosen.name == "int8-mixed"


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
    source = network("motion")
    inputs = {k: v[np.newaxis] for k, v in source.samples[1][1].items()}
    expected = run(converted("motion").graph, inputs)
    found = run(converted("motion", "int8").graph, inputs)
    for head in (keys.SEMANTIC_LOGITS, keys.FRAME_OFFSET_MAP):
        assert decibels(found[head], expected[head]) > 10, head


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
    with pytest.raises(DataError, match=message):
        OnnxQuantizable.measure(network(PANOPTIC).measured.model, samples)


def test_modes_that_onnx_lacks_name_the_nearest() -> None:
    exported = network(PANOPTIC).exported
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
