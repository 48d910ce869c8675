"""The graph that is converted: static shapes, named inputs, the heads of a result."""

from dataclasses import dataclass, field
from typing import Any

from deeplab2_edge import keys
from deeplab2_edge.config import ExperimentOptions
from deeplab2_edge.convert.forms import Forms
from deeplab2_edge.models.inference import InferenceNetwork
from deeplab2_edge.optional import require

tf = require("tensorflow", extra="convert")

INPUT_NAME = keys.IMAGE


@dataclass(frozen=True)
class ExportedGraph:
    """Is a traced network, ready for a converter.

    Attributes:
        function: Concrete function from keyword arguments, the inputs by name, to a
            dictionary of heads.
        module: Owns the variables; must live as long as `function` is used.
        input_names: Of the inputs, see `models.inference.InferenceNetwork`.
        output_names: Of the heads.
        forms: In which the model was built.
    """

    function: Any
    module: Any
    input_names: tuple[str, ...] = (INPUT_NAME,)
    output_names: tuple[str, ...] = ()
    forms: Forms = field(default_factory=Forms)


def export_graph(
    model: Any,
    config: ExperimentOptions | None = None,
    *,
    for_integers: bool,
    forms: Forms | None = None,
) -> ExportedGraph:
    """Traces the part of a model that results are made of.

    A float graph takes uint8 pixels and casts. A graph for integers takes float32,
    which the quantizer turns into uint8 without an op, and bounds the center heatmap
    to 0..1, since its range decides the resolution of its 256 steps. A float heatmap
    stays as it is: clipped peaks would be flat, hence several centers each.

    What only training reads (the semantic branch and the pixel features of
    MaX-DeepLab, stacked decoders that no head reads) is left out.

    Args:
        model: A model of `build_model` with `batch_size=1` and the options of `forms`.
        config: Its experiment; None for a model of one image all of whose heads are
            wanted.
        for_integers: Whether the heads will be quantized.
        forms: The forms in which the model was built.

    Raises:
        ConfigError: If the model is of no known family.
    """
    inputs, network = _network(model, config)
    if for_integers:
        inputs = {
            name: tf.TensorSpec(spec.shape, tf.float32, name)
            for name, spec in inputs.items()
        }

    def heads(**tensors: Any) -> dict[str, Any]:
        outputs = dict(network(tensors))
        if for_integers and keys.CENTER_HEATMAP in outputs:
            outputs[keys.CENTER_HEATMAP] = _bound(outputs[keys.CENTER_HEATMAP])
        return outputs

    # Tracks the variables alone: tracking the model would make the converter save
    # and trace every one of its layers, three times the work.
    module = tf.Module()
    module.variables_of_model = list(model.weights)
    module.heads = tf.function(heads)
    function = module.heads.get_concrete_function(**inputs)
    return ExportedGraph(
        function,
        module,
        input_names=tuple(inputs),
        output_names=tuple(function.structured_outputs),
        forms=forms or Forms(),
    )


def _network(
    model: Any, config: ExperimentOptions | None
) -> tuple[dict[str, Any], Any]:
    """Returns the inputs of a network and a function from them to its heads."""
    if config is not None:
        network = InferenceNetwork(model, config)
        return network.inputs, network
    shape = tuple(int(side) for side in model.input_shape)
    inputs = {INPUT_NAME: tf.TensorSpec(shape, tf.uint8, INPUT_NAME)}
    return inputs, lambda tensors: model(
        tf.cast(tensors[INPUT_NAME], tf.float32), training=False
    )


def _bound(heatmap: Any) -> Any:
    """Clips to 0..1 in ops that cost nothing.

    The factor 6 moves into the weights before and RELU6 fuses; MINIMUM and RELU, which
    clip_by_value becomes, have no int8 kernel in XNNPACK (LiteRT 2.3).
    """
    return tf.nn.relu6(heatmap * 6.0) * (1.0 / 6.0)
