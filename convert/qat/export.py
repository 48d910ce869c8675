"""From a network with quantizers to a TFLite file with integers throughout."""

from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")


def export_quantized(model: Any) -> ExportedGraph:
    """Traces a network with quantizers for the converter.

    Args:
        model: Of `annotate` for one image, with its ranges set.

    Returns:
        A function from float32 pixels, which the converter turns into uint8, to heads.
    """
    spec = tf.TensorSpec(model.input_shape, tf.float32, name=keys.IMAGE)

    def heads(image: Any) -> dict[str, Any]:
        return dict(model(image, training=False))

    module = tf.Module()
    module.variables_of_model = list(model.weights)
    module.heads = tf.function(heads)
    return ExportedGraph(module.heads.get_concrete_function(image=spec), module)
