"""Factors in scales: fewer ops, the same integers."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="install deeplab2-edge[convert]")

from ai_edge_litert.interpreter import Interpreter

from deeplab2_edge import keys
from deeplab2_edge.convert.export import export_graph
from deeplab2_edge.convert.quantization.scales import fold_factors
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


def conv(x: Any, channels: int) -> Any:
    return tf_keras.layers.Conv2D(channels, 1)(x)


def swish(x: Any, name: str) -> Any:
    return HardSwish("decomposed", name=name)(x)


def quantized(network: Any) -> tuple[bytes, bytes]:
    """Gives a network in int8, as it comes and with its factors folded."""
    tf_keras.utils.set_random_seed(1)
    pixels = tf_keras.Input((*SIZE, 3), batch_size=1, name="image")
    x = tf_keras.layers.Rescaling(1 / 127.5, -1, name="normalize")(pixels)
    model = tf_keras.Model(pixels, {keys.SEMANTIC_LOGITS: network(x)})
    for weight in model.weights:
        weight.assign(tf.random.normal(weight.shape, stddev=0.7, seed=2))
    exported = export_graph(model, None, for_integers=True)
    measured = Quantizable.measure(
        exported, [(f"{n}", {keys.IMAGE: picture(n, SIZE)}) for n in range(4)]
    )
    graph, _ = measured.ranged()
    flat = quantize_ops(graph, (), has_integer_heads=True)
    return flat, fold_factors(flat)


def count(graph: bytes, kind: str) -> int:
    interpreter = Interpreter(model_content=graph)
    return sum(op["op_name"] == kind for op in interpreter._get_ops_details())


def assert_same(before: bytes, after: bytes) -> None:
    outputs = []
    for graph in (before, after):
        interpreter = Interpreter(model_content=graph, num_threads=1)
        interpreter.allocate_tensors()
        (pixels,) = interpreter.get_input_details()
        (head,) = interpreter.get_output_details()
        interpreter.set_tensor(pixels["index"], picture(9, SIZE)[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(head["index"]).astype(int))
    assert np.ptp(outputs[0]) > 100  # something to see
    # A rounding less: single steps may differ.
    difference = np.abs(outputs[0] - outputs[1])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02
