"""Mixed precision: which ops stay in float32."""

import collections

import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.modes import INT8, INT8_MIXED, INT16X8, QUANTIZERS
from deeplab2_edge.convert.quantization.fidelity import head_snrs_db, run_heads
from deeplab2_edge.convert.quantization.float_graph import FloatGraph
from deeplab2_edge.convert.quantization.mixed import (
    float_part,
    fragile_ops,
    ops_of_layers,
)
from deeplab2_edge.convert.tflite import convert_graph
from deeplab2_edge.errors import DataError, UsageError
from tests.convert.small_graphs import build, quantizable, samples

pytestmark = [
    pytest.mark.tf,
    # TensorFlow announces the end of the interpreter its own converter uses.
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow.lite"),
]


def graph() -> FloatGraph:
    return FloatGraph(quantizable().graph)


def test_layers_are_found_in_the_names_of_tensors() -> None:
    layers = {op.layer for op in graph().ops}
    assert "semantic_last_layer" in layers  # its tensor is called after the call
    assert "encoder/_stage2/_block1/_attention" in layers
    assert any(layer.startswith("encoder/_stem/_conv") for layer in layers)


def test_attention_and_heads_of_distances_are_fragile() -> None:
    network = graph()
    kept = fragile_ops(network)
    kinds = collections.Counter(network.ops[place].kind for place in kept)
    assert kinds["BATCH_MATMUL"] == 2
    assert kinds["SOFTMAX"] == 1
    convolutions = {
        network.ops[p].layer for p in kept if network.ops[p].kind == "CONV_2D"
    }
    assert convolutions == {
        "instance_center_head_last_layer",
        "instance_regression_head_last_layer",
    }


def test_gaps_are_filled_with_ops_without_weights_only() -> None:
    network = graph()
    part = float_part(network, fragile_ops(network))
    added = part.ops - fragile_ops(network)
    assert {network.ops[place].kind for place in added} <= {"TRANSPOSE", "RESHAPE"}
    assert float_part(network, (), fill_gaps=True).ops == frozenset()


def test_layers_are_chosen_by_path_and_not_by_prefix_of_a_name() -> None:
    network = graph()
    assert ops_of_layers(network, ["encoder/_stage2/_block1"])
    assert not ops_of_layers(network, ["encoder/_stage2/_block"])
    assert not ops_of_layers(network, ["encoder/_sta"])


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_mixed_files_keep_float_heads_and_attention(quantizer: str) -> None:
    if quantizer != "tflite":
        pytest.importorskip("ai_edge_quantizer", reason="install the extra ai-edge")
    converted = quantizable().quantize(INT8_MIXED, quantizer=quantizer)
    assert converted.float_ops["BATCH_MATMUL"] == 2
    assert converted.float_ops["SOFTMAX"] == 1
    assert converted.float_ops["CONV_2D"] == 2
    assert converted.quantizer == quantizer
    images = samples(3, first=50)
    expected = run_heads(quantizable().graph, images)
    snrs = head_snrs_db(expected, run_heads(converted.graph, images))
    assert min(snrs.values()) > 20, snrs


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_int8_files_have_no_float_ops(quantizer: str) -> None:
    if quantizer != "tflite":
        pytest.importorskip("ai_edge_quantizer", reason="install the extra ai-edge")
    converted = quantizable().quantize(INT8, quantizer=quantizer)
    assert converted.float_ops == {}
    assert "DEQUANTIZE" not in converted.op_counts


def test_chosen_layers_stay_in_float() -> None:
    converted = quantizable().quantize(INT8, keep_float=["semantic_decoder"])
    # The sum in front has no other user: it is float, and not made int8 and back.
    assert converted.float_ops == {"ADD": 1, "CONV_2D": 1}
    assert converted.float_layers == ("semantic_decoder",)


def test_mixed_is_not_worse_than_int8() -> None:
    images = samples(4, first=50)
    expected = run_heads(quantizable().graph, images)
    plain, mixed = (
        head_snrs_db(expected, run_heads(quantizable().quantize(mode).graph, images))
        for mode in (INT8, INT8_MIXED)
    )
    assert mixed[keys.OFFSET_MAP] > plain[keys.OFFSET_MAP] - 0.5


def test_unknown_engines_and_modes_are_refused() -> None:
    with pytest.raises(UsageError, match="must be tflite or ai-edge"):
        quantizable().quantize(INT8, quantizer="other")
    with pytest.raises(UsageError, match="int8 and int8-mixed have ranges, not fp16"):
        quantizable().quantize("fp16")


def test_samples_must_fit_the_inputs() -> None:
    with pytest.raises(DataError, match="a: image is 9x9x3; the network takes 9x17x3"):
        run_heads(quantizable().graph, [("a", {keys.IMAGE: picture_of(9, 9)})])
    with pytest.raises(DataError, match="a: the network takes image, which is missing"):
        run_heads(quantizable().graph, [("a", {})])


def picture_of(height: int, width: int):  # type: ignore[no-untyped-def]
    from tests.convert.tiny import picture

    return picture(0, (height, width))


def test_int16_activations_come_closer_than_int8() -> None:
    exported = export_graph(build(name="fine"), for_integers=False)
    converted = convert_graph(exported, INT16X8, calibration=samples(6))
    assert converted.quantization == INT16X8
    assert converted.op_counts["CAST"] == 1  # pixels come as bytes
    # What has no int16 kernel would be listed here.
    assert not {"CONV_2D", "BATCH_MATMUL"} & set(converted.float_ops)
    images = samples(3, first=50)
    plain = convert_graph(exported, "none").graph
    snrs = head_snrs_db(run_heads(plain, images), run_heads(converted.graph, images))
    assert min(snrs.values()) > 25, snrs
