"""From a network with quantizers to a TFLite file with integers throughout."""

from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.convert.export import ExportedGraph
from deeplab2_edge.convert.qat.fine_tuning import QatModel
from deeplab2_edge.convert.tflite import ConvertedGraph, convert_with_quantizers
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")


def convert_quantized(tuned: QatModel) -> ConvertedGraph:
    """Converts a network with quantizers to a file of integers throughout.

    Pixels come in as uint8 and heads leave as int8, as with quantization after
    training.

    Raises:
        ConversionError: If the converter fails.
    """
    return convert_with_quantizers(export_quantized(tuned.model), tuned.calibration)


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
    function = module.heads.get_concrete_function(image=spec)
    return ExportedGraph(
        function, module, output_names=tuple(function.structured_outputs)
    )
