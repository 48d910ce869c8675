"""The graph that is converted: static shapes, an image in, raw heads out."""

from dataclasses import dataclass
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")

INPUT_NAME = keys.IMAGE


@dataclass(frozen=True)
class ExportedGraph:
    """Is a traced network, ready for the converter.

    Attributes:
        function: Concrete function from `image` to a dictionary of heads.
        module: Owns the variables; must live as long as `function` is used.
    """

    function: Any
    module: Any


def export_graph(model: Any, *, for_integers: bool) -> ExportedGraph:
    """Traces a model for conversion.

    A float graph takes uint8 and casts. A graph for integers takes float32, which the
    quantizer turns into uint8 without an op, and bounds the center heatmap to 0..1,
    since its range decides the resolution of its 256 steps. A float heatmap stays as
    it is: clipped peaks would be flat, hence several centers each.

    Args:
        model: A model of `build_model` with `batch_size=1`.
        for_integers: Whether the heads will be quantized.
    """
    input_shape = tuple(int(side) for side in model.input_shape)
    dtype = tf.float32 if for_integers else tf.uint8

    def heads(image: Any) -> dict[str, Any]:
        outputs = dict(model(tf.cast(image, tf.float32), training=False))
        if for_integers:
            outputs[keys.CENTER_HEATMAP] = _bound(outputs[keys.CENTER_HEATMAP])
        return outputs

    # Tracks the variables alone: tracking the model would make the converter save
    # and trace every one of its layers, three times the work.
    module = tf.Module()
    module.variables_of_model = list(model.weights)
    module.heads = tf.function(
        heads, input_signature=[tf.TensorSpec(input_shape, dtype, name=INPUT_NAME)]
    )
    return ExportedGraph(module.heads.get_concrete_function(), module)


def _bound(heatmap: Any) -> Any:
    """Clips to 0..1 in ops that cost nothing.

    The factor 6 moves into the weights before and RELU6 fuses; MINIMUM and RELU, which
    clip_by_value becomes, have no int8 kernel in XNNPACK (LiteRT 2.3).
    """
    return tf.nn.relu6(heatmap * 6.0) * (1.0 / 6.0)
