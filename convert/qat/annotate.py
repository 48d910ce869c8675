"""From a float network to one with quantizers where an integer device rounds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab2_edge.checkpoint_files.contents import QUANTIZERS
from deeplab2_edge.checkpoints import quantizer_paths, variable_paths
from deeplab2_edge.convert.qat.graph import CONVOLUTIONS, PASSING, Range
from deeplab2_edge.convert.qat.layers import FrozenBatchNormalization, Scale, Shift
from deeplab2_edge.convert.qat.quantizers import QuantizeParts
from deeplab2_edge.optional import require

tf: Any = require("tensorflow", extra="qat")
tf_keras: Any = require("tf_keras", extra="qat")
tfmot: Any = require("tensorflow_model_optimization", extra="qat")

# A channel of zeros must keep a scale.
_SMALLEST_KERNEL = 1e-8


def annotate(network: Any) -> Any:
    """Wraps the layers of a network with quantizers.

    The wrappers are those of tensorflow-model-optimization, its `quantize_apply` is
    not used: its transforms of the graph (0.8.1) move the inputs of a concatenation
    that end in convolution and normalization behind all others, without a word, and
    drop the configuration of a convolution in front of an activation. All else it does
    is to wrap.

    Args:
        network: Of `graph.expand`.

    Returns:
        A network with the same weights, whose ranges are not set, see `set_ranges`.
    """
    parts = quantized_parts(network)

    def wrapped(layer: Any) -> Any:
        copy = type(layer).from_config(layer.get_config())
        if layer.name not in parts:
            return copy
        return tfmot.quantization.keras.QuantizeWrapperV2(copy, parts[layer.name])

    model = tf_keras.models.clone_model(network, clone_function=wrapped)
    weights = variable_paths(network)
    for path, variable in variable_paths(model).items():
        variable.assign(weights[path])
    return model


def quantized_parts(network: Any) -> dict[str, QuantizeParts]:
    """Says which layers have quantizers, and of what.

    A device rounds once behind a chain of ops that it fuses: convolution, folded
    normalization, activation. So does the last layer of such a chain here.

    Args:
        network: Of `graph.expand`.

    Returns:
        By name of the layer; layers without any are not listed.
    """
    found = {}
    fusion = _Fusion(network)
    for layer in network.layers:
        if isinstance(layer, (tf_keras.layers.InputLayer, *PASSING)):
            continue
        kernel = ""
        if isinstance(layer, CONVOLUTIONS):
            is_depthwise = isinstance(layer, tf_keras.layers.DepthwiseConv2D)
            kernel = "depthwise_kernel" if is_depthwise else "kernel"
        parts = QuantizeParts(kernel, output=not fusion.is_fused(layer))
        if parts.kernel or parts.output:
            found[layer.name] = parts
    return found


def output_quantized(network: Any) -> list[Any]:
    """Lists the layers of an expanded network whose output is quantized."""
    parts = quantized_parts(network)
    return [
        layer
        for layer in network.layers
        if layer.name in parts and parts[layer.name].output
    ]


def set_ranges(model: Any, ranges: Mapping[str, Range]) -> None:
    """Sets all ranges of a quantized network: of activations as given, of kernels new.

    Args:
        model: Of `annotate`.
        ranges: By name of the float layer. A mean over the whole map, which a network
            of another size may have in place of a window, takes that of its input.
    """
    layers = {_plain(layer).name: layer for layer in model.layers}
    for path, variable in quantizer_paths(model).items():
        name, _, leaf = path.partition("/")[2].rpartition("/")
        if leaf in ("output_min", "output_max"):
            while name not in ranges:
                (tensor,) = tf.nest.flatten(layers[name].input)
                name = _plain(_producers(model)[id(tensor)]).name
            variable.assign(ranges[name][leaf == "output_max"])
    refresh_kernels(model)


def refresh_kernels(model: Any) -> None:
    """Sets the ranges of kernels from the kernels.

    A training step uses those that it found, so after the last step they are one step
    old.
    """
    ranges = quantizer_paths(model)
    for path, kernel in variable_paths(model).items():
        if f"{QUANTIZERS}/{path}_max" not in ranges:
            continue
        axis = 2 if path.endswith("depthwise_kernel") else 3
        values = np.abs(kernel.numpy()).max(axis=tuple({0, 1, 2, 3} - {axis}))
        largest = np.maximum(values, _SMALLEST_KERNEL)
        ranges[f"{QUANTIZERS}/{path}_max"].assign(largest)
        ranges[f"{QUANTIZERS}/{path}_min"].assign(-largest)


class _Fusion:
    """Tells layers whose result a device does not round before the next op."""

    def __init__(self, network: Any) -> None:
        producers = _producers(network)
        self._followers: dict[str, list[Any]] = {n.name: [] for n in network.layers}
        for layer in network.layers:
            if not isinstance(layer, tf_keras.layers.InputLayer):
                for tensor in tf.nest.flatten(layer.input):
                    self._followers[producers[id(tensor)].name].append(layer)
        self._heads = {producers[id(t)].name for t in network.outputs}

    def is_fused(self, layer: Any) -> bool:
        """Tells whether the next op takes the result in as it is."""
        followers = self._followers[layer.name]
        if layer.name in self._heads:
            return False
        if isinstance(layer, CONVOLUTIONS):
            (follower, *others) = followers
            if others:
                return False
            # A factor behind a convolution moves into its kernel.
            if isinstance(follower, Scale):
                return self.is_fused(follower)
            return isinstance(
                follower, (tf_keras.layers.ReLU, FrozenBatchNormalization)
            )
        linear = (FrozenBatchNormalization, Scale, Shift, tf_keras.layers.Add)
        return isinstance(layer, linear) and all(
            isinstance(follower, tf_keras.layers.ReLU) for follower in followers
        )


def _producers(network: Any) -> dict[int, Any]:
    """Maps tensors, by their id, to the layers that give them."""
    return {id(layer.output): layer for layer in network.layers}


def _plain(layer: Any) -> Any:
    """Returns the layer inside a wrapper."""
    return getattr(layer, "layer", layer)
