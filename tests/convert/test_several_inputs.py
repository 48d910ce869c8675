"""Networks of several inputs, quantized: types, ranges, and wrong samples."""

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph
from deeplab2_edge.convert.modes import INT8, INT8_MIXED, QUANTIZERS
from deeplab2_edge.convert.quantization.fidelity import head_snrs_db, run_heads
from deeplab2_edge.convert.tflite import Quantizable, convert_graph
from deeplab2_edge.errors import DataError
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore::UserWarning:tensorflow.lite"),
]

SIZE = (8, 8)
STATE = keys.PREVIOUS_FEATURES + "res5"
FEATURES = keys.FEATURES + "res5"


@functools.cache
def exported() -> ExportedGraph:
    """Makes features of an image, and offsets of them and of those before."""
    kernel = np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 4)).astype(np.float32)
    last = np.random.default_rng(1).normal(0, 0.5, (1, 1, 9, 2)).astype(np.float32)

    def network(**inputs: Any) -> dict[str, Any]:
        features = tf.nn.relu(tf.nn.conv2d(inputs[keys.IMAGE] / 255, kernel, 1, "SAME"))
        joined = tf.concat(
            [features, inputs[STATE], inputs[keys.PREVIOUS_HEATMAP]], axis=-1
        )
        return {
            FEATURES: features,
            keys.OFFSET_MAP: tf.nn.conv2d(joined, last, 1, "SAME"),
        }

    module = tf.Module()
    module.network = tf.function(network)
    shapes = {keys.IMAGE: 3, STATE: 4, keys.PREVIOUS_HEATMAP: 1}
    function = module.network.get_concrete_function(
        **{n: tf.TensorSpec((1, *SIZE, c), tf.float32, n) for n, c in shapes.items()}
    )
    return ExportedGraph(function, module, tuple(shapes), (FEATURES, keys.OFFSET_MAP))


def samples(count: int) -> list[tuple[str, dict[str, NDArray[Any]]]]:
    random = np.random.default_rng(3)
    return [
        (
            f"frame {number}",
            {
                keys.IMAGE: random.integers(0, 256, (*SIZE, 3), np.uint8),
                STATE: random.uniform(0, 0.5, (*SIZE, 4)).astype(np.float32),
                keys.PREVIOUS_HEATMAP: random.uniform(0, 0.5, (*SIZE, 1)).astype(
                    np.float32
                ),
            },
        )
        for number in range(count)
    ]


@functools.cache
def quantizable() -> Quantizable:
    return Quantizable.measure(exported(), samples(5))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("mode", [INT8, INT8_MIXED])
def test_pixels_are_steps_and_the_rest_is_float(mode: str, quantizer: str) -> None:
    if quantizer != "tflite":
        pytest.importorskip("ai_edge_quantizer", reason="install the extra ai-edge")
    converted = quantizable().quantize(mode, quantizer=quantizer)
    interpreter = tf.lite.Interpreter(model_content=converted.graph)
    details = interpreter.get_signature_runner().get_input_details()
    types = {name: np.dtype(d["dtype"]).name for name, d in details.items()}
    assert types == {
        keys.IMAGE: "int8",
        STATE: "float32",
        keys.PREVIOUS_HEATMAP: "float32",
    }
    expected = run_heads(quantizable().graph, samples(5))
    snrs = head_snrs_db(expected, run_heads(converted.graph, samples(5)))
    assert min(snrs.values()) > 25, snrs


def test_features_come_back_with_the_range_they_left_with() -> None:
    graph, _ = quantizable().ranged()
    ranges = dict(zip(graph.ranged, graph.ranges().tolist(), strict=True))
    assert ranges[graph.inputs[STATE]] == ranges[graph.heads[FEATURES]]
    assert ranges[graph.inputs[keys.PREVIOUS_HEATMAP]] == [0, 1]
    assert ranges[graph.inputs[keys.IMAGE]] == [0, 255]


def test_offsets_keep_their_extremes() -> None:
    graph, _ = quantizable().ranged(quantile=0.5)
    place = graph.ranged.index(graph.heads[keys.OFFSET_MAP])
    extremes = quantizable().measured.extremes[:, place]
    low, high = graph.ranges()[place]
    assert low == pytest.approx(min(extremes[:, 0].min(), 0))
    assert high == pytest.approx(max(extremes[:, 1].max(), 0))


def test_a_sample_of_the_wrong_size_is_named() -> None:
    odd = samples(1)[0][1] | {keys.IMAGE: np.zeros((9, 8, 3), np.uint8)}
    with pytest.raises(DataError, match="odd: image is 9x8x3; the network takes 8x8x3"):
        convert_graph(exported(), INT8, calibration=[("odd", odd)])


def test_a_sample_without_an_input_is_named() -> None:
    with pytest.raises(DataError, match=f"half: the network takes {STATE}, which is"):
        half = {n: v for n, v in samples(1)[0][1].items() if n != STATE}
        convert_graph(exported(), INT8, calibration=[("half", half)])


def test_images_of_one_color_say_nothing() -> None:
    plain = samples(1)[0][1] | {keys.IMAGE: np.full((*SIZE, 3), 7, np.uint8)}
    with pytest.raises(DataError, match="every calibration image is of a single color"):
        convert_graph(exported(), INT8, calibration=[("plain", plain)])
    mixed = [("plain", plain), *samples(2)]
    calibration = Quantizable.measure(exported(), mixed).ranged()[1]
    assert calibration.plain_images == ("plain",)
    assert any("single color, first plain" in note for note in calibration.notes)
    assert any("calibrated with 3 images" in note for note in calibration.notes)
