"""What finished flatbuffers can do without: fewer ops, the same values."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from ai_edge_litert.interpreter import Interpreter

from deeplab2_edge import keys
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.finishing.pixels import take_steps
from deeplab2_edge.convert.finishing.scales import fold_factors
from deeplab2_edge.convert.finishing.taps import drop_blind_taps
from deeplab2_edge.convert.quantization.edits import pack, unpack
from deeplab2_edge.convert.tflite import Quantizable, quantize_ops
from deeplab2_edge.layers.activations import HardSwish
from deeplab2_edge.optional import require
from tests.convert.tiny import picture

tf: Any = require("tensorflow", extra="convert")
tf_keras: Any = require("tf_keras", extra="convert")

pytestmark = pytest.mark.tf

SIZE = (33, 65)


def test_convolutions_take_the_factor() -> None:
    def network(x: Any) -> Any:
        x = swish(conv(x, 8), "first")
        x = swish(tf_keras.layers.DepthwiseConv2D(3, padding="same")(x), "second")
        gate = tf.reduce_mean(x, (1, 2), keepdims=True)
        x = x * tf.sigmoid(conv(gate, 8))
        return conv(x, 3)

    before, after = quantized(network)
    assert count(before, "MUL") - count(after, "MUL") == 2
    assert_same(before, after)


@pytest.mark.parametrize("place", ["sum", "output", "relu", "float"])
def test_a_factor_stays_that_nothing_can_take(place: str) -> None:
    def network(x: Any) -> Any:
        values = conv(x, 8)
        x = swish(values, "first")
        if place == "sum":
            return conv(x + values, 3)
        if place == "relu":
            return conv(tf.nn.relu(x), 3)
        if place == "float":
            return conv(tf.math.exp(x), 3)
        return x

    before, after = quantized(network)
    assert count(before, "MUL") == count(after, "MUL")
    assert_same(before, after)


def test_weights_that_others_use_stay() -> None:
    shared = tf_keras.layers.Conv2D(8, 1)

    def network(x: Any) -> Any:
        values = conv(x, 8)
        return conv(shared(swish(values, "first")) + shared(values), 3)

    before, after = quantized(network)
    assert count(before, "MUL") == count(after, "MUL")
    assert_same(before, after)


def test_pixels_are_steps() -> None:
    before, _ = quantized(padded)
    model = unpack(before)
    ((low, high),) = take_steps(model).values()
    after = pack(model)
    kinds = [
        op["op_name"] for op in Interpreter(model_content=after)._get_ops_details()
    ]
    assert "QUANTIZE" not in kinds and "MUL" not in kinds and "ADD" not in kinds
    assert (low, high) == pytest.approx((-1, 1), abs=0.01)
    levels = np.arange(256, dtype=np.uint8).repeat(9)[: SIZE[0] * SIZE[1]]
    levels = np.resize(levels, (1, *SIZE, 3))
    np.testing.assert_array_equal(
        run(before, levels), run(after, (levels.astype(int) - 128).astype(np.int8))
    )


def test_pixels_of_float_graphs_stay() -> None:
    assert not take_steps(unpack(in_float(padded)))


@pytest.mark.parametrize("rate", [1, 8, 16, 17, 32, 33, 70])
@pytest.mark.parametrize("is_integer", [True, False])
def test_taps_that_never_see_the_image_are_cut(rate: int, is_integer: bool) -> None:
    def network(x: Any) -> Any:
        x = tf_keras.layers.Conv2D(4, 3, 2, padding="same")(x)  # 17 x 33
        x = tf_keras.layers.Conv2D(4, 3, padding="same", dilation_rate=rate)(x)
        return conv(x, 3)

    before = quantized(network)[0] if is_integer else in_float(network)
    model = unpack(before)
    drop_blind_taps(model)
    sizes = {tuple(int(n) for n in t.shape) for t in model.subgraphs[0].tensors}
    size = (3 if rate < 17 else 1, 3 if rate < 33 else 1)
    assert (4, *size, 4) in sizes
    pixels = picture(9, SIZE)[np.newaxis]
    expected, found = run(before, pixels), run(pack(model), pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if is_integer else 1e-4)


def test_a_kernel_that_two_share_is_not_cut() -> None:
    layer = tf_keras.layers.Conv2D(4, 3, padding="same", dilation_rate=70)

    def network(x: Any) -> Any:
        x = conv(x, 4)
        return layer(x) + layer(tf.nn.relu(x))

    before = in_float(network)
    model = unpack(before)
    drop_blind_taps(model)
    pixels = picture(9, SIZE)[np.newaxis]
    np.testing.assert_allclose(
        run(pack(model), pixels), run(before, pixels), rtol=0, atol=1e-4
    )


def conv(x: Any, channels: int) -> Any:
    return tf_keras.layers.Conv2D(channels, 1)(x)


def padded(x: Any) -> Any:
    """Sees normalized pixels beside zeros, so that they cannot go into its kernel."""
    return tf_keras.layers.Conv2D(3, 3, padding="same")(x)


def swish(x: Any, name: str) -> Any:
    return HardSwish("decomposed", name=name)(x)


def quantized(network: Any) -> tuple[bytes, bytes]:
    """Gives a network in int8, as it comes and with its factors folded."""
    exported = export_graph(build(network), None, for_integers=True)
    measured = Quantizable.measure(
        exported, [(f"{n}", {keys.IMAGE: picture(n, SIZE)}) for n in range(4)]
    )
    graph, _ = measured.ranged()
    flat = quantize_ops(graph, (), has_integer_heads=True)
    model = unpack(flat)
    fold_factors(model)
    return flat, pack(model)


def in_float(network: Any) -> bytes:
    """Gives a network in float32, as it comes."""
    converter = tf.lite.TFLiteConverter.from_keras_model(build(network))
    return bytes(converter.convert())


def build(network: Any) -> Any:
    """Builds a network of one head behind normalized pixels."""
    pixels = tf_keras.Input((*SIZE, 3), batch_size=1, name="image")
    x = tf_keras.layers.Rescaling(1 / 127.5, -1, name="normalize")(pixels)
    model = tf_keras.Model(pixels, {keys.SEMANTIC_LOGITS: network(x)})
    for number, weight in enumerate(model.weights):
        weight.assign(tf.random.stateless_normal(weight.shape, (2, number)) * 0.7)
    return model


def count(graph: bytes, kind: str) -> int:
    interpreter = Interpreter(model_content=graph)
    return sum(op["op_name"] == kind for op in interpreter._get_ops_details())


def assert_same(before: bytes, after: bytes) -> None:
    pixels = picture(9, SIZE)[np.newaxis]
    outputs = [run(graph, pixels).astype(int) for graph in (before, after)]
    assert np.ptp(outputs[0]) > 100  # something to see
    # A rounding less: single steps may differ.
    difference = np.abs(outputs[0] - outputs[1])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def run(graph: bytes, values: Any) -> Any:
    interpreter = Interpreter(model_content=graph, num_threads=1)
    interpreter.allocate_tensors()
    (pixels,) = interpreter.get_input_details()
    (head,) = interpreter.get_output_details()
    interpreter.set_tensor(pixels["index"], values.astype(pixels["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(head["index"])
