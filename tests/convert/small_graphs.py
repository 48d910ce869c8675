"""A network with one of each fragile part, measured once for all tests.

Pixels go through two convolutions to attention over the pixels, and from there, past a
residual sum, to three heads.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph, export_graph
from deeplab2_edge.convert.tflite import Quantizable
from deeplab2_edge.optional import require
from tests.convert.tiny import picture

tf = require("tensorflow", extra="convert")
tf_keras = require("tf_keras", extra="convert")

SIZE = (9, 17)
_CHANNELS = 8


def build(*, name: str = "small") -> Any:
    """Builds the network, with weights that are the same every time."""
    image = tf_keras.Input((*SIZE, 3), batch_size=1, name="image")
    x = tf_keras.layers.Rescaling(1 / 127.5, -1, name="normalize")(image)
    x = _conv(x, "encoder/_stem/_conv", 3, activation="relu")
    query, value = (
        _conv(x, f"encoder/_stage2/_block1/_{part}", 1) for part in ("query", "value")
    )
    seen = Attention(name="encoder/_stage2/_block1/_attention")([query, value])
    seen = _conv(seen, "encoder/_stage2/_block1/_conv3", 1)
    x = tf_keras.layers.Add(name="encoder/_stage2/_block1/_add")([x, seen])
    x = _conv(x, "semantic_decoder/_fusion_conv1/_conv", 3, activation="relu")
    model = tf_keras.Model(
        image,
        {
            keys.SEMANTIC_LOGITS: _conv(x, "semantic_last_layer", 1, 3),
            keys.CENTER_HEATMAP: _conv(x, "instance_center_head_last_layer", 1, 1),
            keys.OFFSET_MAP: _conv(x, "instance_regression_head_last_layer", 1, 2),
        },
        name=name,
    )
    random = np.random.default_rng(0)
    model.set_weights(
        [random.normal(0, 0.4, w.shape).astype(np.float32) for w in model.weights]
    )
    return model


class Attention(tf_keras.layers.Layer):  # type: ignore[misc]
    """Lets every pixel look at all others of its row."""

    def call(self, inputs: Any) -> Any:
        query, value = inputs
        seen = tf.nn.softmax(tf.matmul(query, value, transpose_b=True))
        return tf.matmul(seen, value)


@functools.cache
def exported() -> ExportedGraph:
    """Exports the network for integers."""
    return export_graph(build(), for_integers=True)


@functools.cache
def quantizable() -> Quantizable:
    """Measures the network with `samples`."""
    return Quantizable.measure(exported(), samples(10))


def samples(count: int, first: int = 0) -> list[tuple[str, dict[str, NDArray[Any]]]]:
    """Draws pictures."""
    return [
        (f"{seed}", {keys.IMAGE: picture(seed, SIZE)})
        for seed in range(first, first + count)
    ]


def _conv(
    x: Any, name: str, kernel: int, filters: int = _CHANNELS, **options: Any
) -> Any:
    return tf_keras.layers.Conv2D(
        filters, kernel, padding="same", name=name, **options
    )(x)
