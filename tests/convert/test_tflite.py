"""Graphs for devices: their ops, inputs, outputs and values."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.products import describe_converted
from deeplab2_edge.convert.tflite import (
    QUANTIZATIONS,
    ConvertedGraph,
    convert_model,
    hard_swish_form,
)
from deeplab2_edge.errors import ConversionError, DataError, UsageError
from deeplab2_edge.families import PANOPTIC_HEADS as HEAD_KEYS
from deeplab2_edge.model_file import ModelFile
from deeplab2_edge.models import build_model
from deeplab2_edge.models.engine import KerasEngine
from deeplab2_edge.optional import require
from deeplab2_edge.runtime.interpreter import LiteRtEngine, describe_graph
from tests.convert.tiny import SIZE, build_tiny, fill, picture, tiny_config
from tests.models.synthetic_weights import image

tf = require("tensorflow", extra="convert")
tf_keras = require("tf_keras", extra="convert")

pytestmark = pytest.mark.tf

FORBIDDEN = {"SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "TRANSPOSE", "RESHAPE", "CUSTOM"}


class Converted:
    """Is the tiny model, converted once per quantization."""

    def __init__(self, quantization: str) -> None:
        model = build_tiny(hard_swish=hard_swish_form(quantization))
        # No picture has a black or a white pixel.
        calibration = [(f"{n}", picture(n) // 4 + 90) for n in range(4)]
        self.converted: ConvertedGraph = convert_model(
            model, quantization, calibration=calibration
        )
        self.source = KerasEngine(model, tiny_config())
        metadata = self.source.metadata
        self.file = ModelFile(
            self.converted.graph,
            describe_converted(metadata, self.converted, quantization),
        )
        self.engine = LiteRtEngine(self.file, num_threads=1)


_converted: dict[str, Converted] = {}


def converted(quantization: str) -> Converted:
    if quantization not in _converted:
        _converted[quantization] = Converted(quantization)
    return _converted[quantization]


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_pixels_come_as_they_are_and_shapes_are_static(quantization: str) -> None:
    info = describe_graph(converted(quantization).file)
    (pixels,) = info.inputs
    has_steps = quantization in ("int8", "int8-mixed")
    dtype = "int8" if has_steps else "uint8"
    assert (pixels.dtype, pixels.shape) == (dtype, (1, *SIZE, 3))
    shapes = {tensor.name: tensor.shape for tensor in info.outputs}
    names = converted(quantization).converted.output_names
    assert set(names) == set(HEAD_KEYS)
    assert shapes[names[keys.SEMANTIC_LOGITS]] == (1, 9, 17, 11)
    assert shapes[names[keys.CENTER_HEATMAP]] == (1, 9, 17, 1)
    assert shapes[names[keys.OFFSET_MAP]] == (1, 9, 17, 2)
    dtype = "int8" if quantization == "int8" else "float32"
    assert {tensor.dtype for tensor in info.outputs} == {dtype}
    assert not FORBIDDEN & set(info.op_counts)
    assert dict(info.op_counts) == dict(converted(quantization).converted.op_counts)


@pytest.mark.parametrize(
    ("quantization", "tolerance"), [("none", 1e-5), ("fp16", 0.02)]
)
def test_float_files_give_the_values_of_the_model(
    quantization: str, tolerance: float
) -> None:
    run = converted(quantization)
    inputs = {keys.IMAGE: picture(9)}
    expected, found = run.source.run(inputs), run.engine.run(inputs)
    for head in HEAD_KEYS:
        np.testing.assert_allclose(found[head], expected[head], atol=tolerance)


@pytest.mark.parametrize("quantization", ["dynamic", "int8"])
def test_integer_files_come_close(quantization: str) -> None:
    run = converted(quantization)
    inputs = {keys.IMAGE: picture(2) // 4 + 90}
    expected, found = run.source.run(inputs), run.engine.run(inputs)
    for head in HEAD_KEYS:
        signal = expected[head].clip(
            *((0, 1) if head == keys.CENTER_HEATMAP else (None, None))
        )
        noise = found[head] - signal
        assert np.square(noise).sum() < 0.05 * np.square(signal).sum(), head


def test_int8_input_keeps_every_grey_level() -> None:
    (pixels,) = describe_graph(converted("int8").file).inputs
    assert pixels.scale == pytest.approx(2 / 255)
    low, high = converted("int8").converted.pixel_ranges[keys.IMAGE]
    assert (high - low) / 255 == pytest.approx(pixels.scale)


def test_int8_heatmap_is_bounded() -> None:
    info = describe_graph(converted("int8").file)
    name = converted("int8").converted.output_names[keys.CENTER_HEATMAP]
    (heatmap,) = (tensor for tensor in info.outputs if tensor.name == name)
    assert heatmap.zero_point == -128  # nothing below 0
    assert heatmap.scale == pytest.approx(1 / 255)


def test_flat_peaks_are_merged() -> None:
    """Integers are flat in steps, mixed files where the bound cuts at 1."""
    assert {
        name: converted(name).file.metadata.merge.merge_plateaus
        for name in QUANTIZATIONS
    } == {name: name in ("int8", "int8-mixed") for name in QUANTIZATIONS}


def test_int8_offsets_are_not_cut() -> None:
    run = converted("int8")
    name = run.converted.output_names[keys.OFFSET_MAP]
    (offsets,) = (t for t in describe_graph(run.file).outputs if t.name == name)
    low, high = ((q - offsets.zero_point) * offsets.scale for q in (-128, 127))
    for seed in range(4):
        given = run.source.run({keys.IMAGE: picture(seed) // 4 + 90})[keys.OFFSET_MAP]
        assert low <= given.min() + offsets.scale
        assert high >= given.max() - offsets.scale


def test_int8_joins_have_one_scale() -> None:
    """Else each input would be scaled again in front of a concatenation."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(converted("int8").file.graph, 0)
    network = model.subgraphs[0]
    joins = 0
    for op in network.operators:
        code = model.operatorCodes[op.opcodeIndex]
        if code.builtinCode == schema.BuiltinOperator.CONCATENATION:
            tensors = [network.tensors[i] for i in (*op.inputs, *op.outputs)]
            assert len({float(t.quantization.scale[0]) for t in tensors}) == 1
            joins += 1
    assert joins == converted("int8").converted.op_counts["CONCATENATION"]


def test_int8_has_no_op_that_leaves_xnnpack() -> None:
    """None of them has an int8 kernel there; each would cut the graph in two."""
    counts = converted("int8").converted.op_counts
    assert not {"HARD_SWISH", "MINIMUM", "MAXIMUM", "RELU", "BATCH_MATMUL"} & set(
        counts
    )


def test_heatmap_bound_equals_clipping() -> None:
    from deeplab2_edge.convert.export import export_graph

    model = build_tiny()
    bounded = export_graph(model, for_integers=True).function
    heads = bounded(tf.constant(picture(3)[None], tf.float32))
    raw = model(tf.constant(picture(3)[None], tf.float32))[keys.CENTER_HEATMAP]
    assert float(tf.reduce_min(raw)) < 0
    np.testing.assert_allclose(
        heads[keys.CENTER_HEATMAP], np.clip(raw, 0, 1), atol=1e-6
    )


def test_real_network_has_the_ops_it_should() -> None:
    """Every op is accounted for: batch norms fold, nothing is moved about."""
    counts = _small_network("none")
    assert counts == {
        "CONV_2D": 67,
        "DEPTHWISE_CONV_2D": 18,
        "HARD_SWISH": 18,
        "MEAN": 10,  # 9 squeeze-and-excite, 1 ASPP pool shared by both decoders
        "MUL": 10,  # 9 squeeze-and-excite, 1 normalization
        "LOGISTIC": 9,
        "ADD": 7,  # 6 residual, 1 normalization
        "CONCATENATION": 6,
        "RESIZE_BILINEAR": 6,
        "CAST": 1,
    }


def test_real_int8_network_has_the_ops_it_should() -> None:
    counts = _small_network("int8")
    assert counts == {
        "CONV_2D": 67,
        "MUL": 28,  # as float but for pixels, 1 for each hard-swish, 1 of the heatmap
        "ADD": 24,  # as float but for pixels, 1 for each hard-swish
        "DEPTHWISE_CONV_2D": 18,
        "MEAN": 10,
        "LOGISTIC": 9,
        "CONCATENATION": 6,
        "RESIZE_BILINEAR": 6,
    }


def _small_network(quantization: str) -> dict[str, int]:
    from deeplab2_edge.cli.experiments import load_experiment

    config = load_experiment("synthetic_street_mobilenet_v3_small", [])
    size = (33, 65)
    model = build_model(
        config,
        input_size=size,
        batch_size=1,
        hard_swish=hard_swish_form(quantization),
    )
    fill(model)
    canvas = image((1, *size, 3))[0].astype(np.uint8)
    graph = convert_model(model, quantization, calibration=[("image", canvas)])
    return dict(graph.op_counts)


def test_ops_that_are_not_builtin_are_named() -> None:
    class Odd(tf_keras.layers.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return tf.math.digamma(tf.math.erfinv(inputs / 300))

    pixels = tf_keras.Input((9, 9, 3), batch_size=1, name="image")
    odd = Odd(name="semantic_decoder/_odd")
    model = tf_keras.Model(pixels, {keys.CENTER_HEATMAP: odd(pixels)})
    message = r"not TFLite builtins.*Digamma \(in semantic_decoder/_odd\)"
    with pytest.raises(ConversionError, match=message):
        convert_model(model, "none")


def test_unknown_quantization_is_refused() -> None:
    with pytest.raises(UsageError, match="'int4'; must be none, fp16, dynamic, int8"):
        convert_model(None, "int4")


def test_int8_needs_images() -> None:
    with pytest.raises(DataError, match="no images to calibrate with"):
        convert_model(build_tiny(), "int8")
